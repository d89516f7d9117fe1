/* From a step's graph to launches: `fuse` decides which values are kept in memory, `schedule` makes kernel specs and launches of
 * them, `plan` places what is kept in one arena. */
#ifndef ADWP_COMPILER_PASS_SCHEDULE_H
#define ADWP_COMPILER_PASS_SCHEDULE_H

#include "compiler/graph/graph.h"
#include "kernels/family.h"
#include "runtime/program.h"

/* ---- fuse ---- */
/* Every way in which operations are fused: FUSE_PATTERN(NAME, name, what is fused). Each can be left out, for study. */
#define FUSE_PATTERNS(FUSE_PATTERN)                                                                                              \
  FUSE_PATTERN(CONV_BLOCK, "conv_block", "depthwise -> pointwise -> moments on one image in scratch")                            \
  FUSE_PATTERN(CONV_BLOCK_GRAD, "conv_block_grad", "a ConvBlock's gradient, from that of its BN to that of the ReLU before it")  \
  FUSE_PATTERN(MOMENTS, "moments", "a BN's moments with the convolution or pool before it")                                      \
  FUSE_PATTERN(PROLOGUE, "prologue", "BN-apply, ReLU and shift where a convolution reads its input")                             \
  FUSE_PATTERN(MAP, "map", "elementwise operations with those that read them: a node's sum is one affine pass")                  \
  FUSE_PATTERN(ACCUMULATE, "accumulate", "a gradient's next term with the sum so far, in its place")                             \
  FUSE_PATTERN(PLACE, "place", "a concatenation's parts, written into their places")                                             \
  FUSE_PATTERN(DESCEND, "descend", "an outer product that is a gradient with the optimizer's pass over the weight")              \
  FUSE_PATTERN(RUN, "run", "launches between two barriers, done image by image; what only they touch stays in scratch")

typedef enum FusePattern {
#define FUSE_PATTERN(NAME, name, what) FUSE_##NAME,
  FUSE_PATTERNS(FUSE_PATTERN)
#undef FUSE_PATTERN
      FUSE_PATTERN_COUNT
} FusePattern;

/* The values of a ConvBlock, of which z = conv(d, wp), d = conv(a, wd), and of its gradient; NO_VALUE: not there. */
typedef struct BlockValues {
  ValueId a, wd, d, wp, z, moments;
  ValueId dy, sums, dz, dwp, dd, dwd, da; /* dz = bn_grad(dy, z, moments, sums) */
  ValueId base, factor;                   /* dy = scale(base, factor), which no launch of its own makes; else base = dy */
  ValueId x;                              /* a = relu(x) */
  ValueId masked;                         /* relu_grad(da, x); without a ReLU da itself */
  ValueId before, sum;                    /* sum = add(before, masked), written over `before` */
  ValueId next_sums;                      /* bn_grad_sums(masked, ...) of the BN that made x */
} BlockValues;

/* Values that one launch makes, in the order of the graph. */
typedef struct FuseGroup {
  FusePattern pattern;
  const ValueId *values;
  int32_t count;
  BlockValues block; /* of a ConvBlock and its gradient */
} FuseGroup;

typedef struct Fusion {
  /* For each value whether it is materialised. One that is not is inside a group, or an elementwise value that is computed again
   * inside each consumer: in an elementwise kernel or a reduction, or (ReLU, bn_apply and ReLU of bn_apply) where a convolution
   * reads its input. */
  bool *kept;
  int32_t *group; /* of each value; -1: none */
  VECTOR(FuseGroup) groups;
  /* All values; each operand before its users, and each group's values together. */
  const ValueId *order;
} Fusion;

/* Which patterns may be used; all of them if zero. */
typedef struct FuseOptions {
  bool gpu;         /* set by schedule_graph */
  uint32_t without; /* bits 1 << FusePattern */
} FuseOptions;

static inline bool fuse_wants(const FuseOptions *options, FusePattern pattern) {
  return !(options->without & 1U << pattern);
}
const char *fuse_name(FusePattern pattern);

Fusion *pass_fuse(const Graph *graph, const FuseOptions *options, Arena *arena);
void fusion_free(Fusion *fusion); /* the heap parts */

/* ---- schedule ---- */
typedef struct Storage { /* a piece of memory with one lifetime, for elements of one kind */
  int32_t parameter;     /* index into the module's parameters; -1: in the arena */
  LoopElement element;
  int64_t bytes;
  int64_t image_bytes; /* of one image, where it holds B of them; else 0 */
  int32_t first, last; /* segments in which it is written first and read last */
  bool whole_step;     /* an input or a result: lives from the first to the last segment */
  bool in_scratch;     /* only one run of launches touches it, which keeps its task's images in a worker's scratch */
  int64_t offset;      /* bytes: set by `plan` */
} Storage;

typedef struct Place { /* where a value's elements are */
  int32_t storage;     /* -1: nowhere */
  int64_t offset;      /* elements */
  int32_t stride;      /* elements from pixel to pixel of a batched value */
} Place;

typedef struct PlannedLaunch {
  int32_t kernel;                /* -1: `product` */
  const ProgramProduct *product; /* by the device's library */
  int32_t segment, order;        /* order: in which it was made */
  int32_t run;                   /* launches of a segment with the same run are done task by task, one after another */
  const Place *buffers;
  int32_t buffer_count;
  int32_t images, tasks; /* as program_tasks takes them */
  double flops;          /* at B = batch */
} PlannedLaunch;

typedef struct NamedPlace {
  const char *name;
  Place place;
  int64_t elements; /* at B = batch */
  bool integer;
} NamedPlace;

typedef struct KernelKey { /* of what a kernel was built */
  Family family;
  const void *spec;
  uint64_t hash; /* of the spec's bytes */
} KernelKey;

/* All steps of a module share one set of kernels, scheduled for one target. */
typedef struct KernelSet {
  Arena *arena;
  KernelTarget target;
  LoopElement activation; /* how (B, H, W, C) values are stored, the step's input x aside */
  FuseOptions fuse;
  VECTOR(LoopKernel *) kernels;
  KernelKey *keys; /* one a kernel, so that equal ones are built once */
} KernelSet;

typedef struct Schedule {
  const Graph *graph;
  VECTOR(Storage) storages;
  VECTOR(PlannedLaunch) launches; /* sorted by segment */
  VECTOR(NamedPlace) inputs, results;
  const Place *places; /* of each value in the end; storage -1: it is not kept, or was written over */
  int32_t segment_count, run_count;
  int64_t arena_bytes, scratch_bytes; /* set by `plan`; scratch: of a worker, for values of its task's images */
} Schedule;

Schedule *pass_schedule(const Graph *graph, const Fusion *fusion, KernelSet *kernels, Arena *arena);
/* pass_fuse for the kernels' target with these options, then pass_schedule. */
Schedule *schedule_graph(const Graph *graph, KernelSet *kernels, Arena *arena);
void schedule_free(Schedule *schedule); /* the heap parts */

/* ---- plan ---- */
void pass_plan(Schedule *schedule);
/* The independent check: no two storages that live at the same time overlap, and all lie inside the arena. */
bool plan_check(const Schedule *schedule, Err *err);

#endif
