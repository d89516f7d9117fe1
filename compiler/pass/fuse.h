/* fuse: which values are kept in memory, and which groups of values one kernel makes. */
#ifndef ADWP_COMPILER_PASS_FUSE_H
#define ADWP_COMPILER_PASS_FUSE_H

#include "compiler/graph/graph.h"

/* Every way in which operations are fused: FUSE_PATTERN(NAME, name, what is fused). Each can be left out, for study. */
#define FUSE_PATTERNS(FUSE_PATTERN)                                                                                              \
  FUSE_PATTERN(CONV_BLOCK, "conv_block", "depthwise -> pointwise -> moments on one image in scratch")                            \
  FUSE_PATTERN(CONV_BLOCK_GRAD, "conv_block_grad", "a ConvBlock's gradient, from that of its BN to that of the ReLU before it")  \
  FUSE_PATTERN(POINTWISE_GRAD, "pointwise_grad", "the same of a ConvBlock with a 1x1 convolution alone")                         \
  FUSE_PATTERN(POOL_GRAD, "pool_grad", "a pool's gradient, from that of its BN to the sum of its input's gradients")             \
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

/* Where the weights of generated convolutions are made (docs/ir.md). */
#define FUSE_GENERATES(FUSE_GENERATE)                                                                                            \
  FUSE_GENERATE(HORIZONTAL, "horizontal") /* all GeneratingBlocks of a step side by side */                                      \
  FUSE_GENERATE(NONE, "none")             /* each by itself, one after another */                                                \
  FUSE_GENERATE(VERTICAL, "vertical")     /* by the run that reads the weight, on each of its tasks */                           \
  FUSE_GENERATE(HOISTED, "hoisted")       /* as u p + v, with u and v made once while no weight changes; else horizontally */

typedef enum FuseGenerate {
#define FUSE_GENERATE(NAME, name) GENERATE_##NAME,
  FUSE_GENERATES(FUSE_GENERATE)
#undef FUSE_GENERATE
      GENERATE_COUNT
} FuseGenerate;

/* Which patterns may be used; all of them if zero. */
typedef struct FuseOptions {
  bool gpu;         /* set by schedule_graph */
  uint32_t without; /* bits 1 << FusePattern */
  FuseGenerate generate;
  bool forced; /* `generate` was asked for: steps whose weights do not change are not hoisted, unless it is that */
} FuseOptions;

/* The values of a ConvBlock, of which z = conv(d, wp), d = conv(a, wd), and of its gradient; of one without a depthwise
 * convolution, where d and wd are not there and z = conv(a, wp); and of a pool z of a. NO_VALUE: not there. */
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
  FuseOptions options;
} Fusion;

static inline bool fuse_wants(const FuseOptions *options, FusePattern pattern) {
  return !(options->without & 1U << pattern);
}
const char *fuse_name(FusePattern pattern);
const char *fuse_generate_name(FuseGenerate form);
#define FUSE_NAMES                                                                                                               \
  "conv_block, conv_block_grad, pointwise_grad, pool_grad, moments, prologue, map, accumulate, place, descend, run"
/* Leaves out the patterns that `list`, "run,map" or "all", names; false: `err`. */
bool fuse_leave_out(FuseOptions *options, const char *list, Err *err);
/* "horizontal", "vertical", "hoisted" or "none". */
bool fuse_force_generate(FuseOptions *options, const char *name, Err *err);

Fusion *fuse_graph(const Graph *graph, const FuseOptions *options, Arena *arena);
/* Marks the graph's text with what was decided. */
void fuse_mark(Graph *graph, const Fusion *fusion);
void fusion_free(Fusion *fusion); /* the heap parts */

#endif
