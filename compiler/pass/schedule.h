/* From a step's graph to launches: `schedule` makes kernel specs and launches of what `fuse` decided, `plan` places what is kept
 * in memory in one arena. */
#ifndef ADWP_COMPILER_PASS_SCHEDULE_H
#define ADWP_COMPILER_PASS_SCHEDULE_H

#include "compiler/graph/graph.h"
#include "compiler/pass/fuse.h"
#include "kernels/family.h"
#include "runtime/program.h"

/* ---- schedule ---- */
typedef struct Storage { /* a piece of memory with one lifetime, for elements of one kind */
  int32_t parameter;     /* index into the module's parameters; -1: in the arena */
  LoopElement element;
  int64_t bytes;
  int64_t image_bytes; /* of one image, where it holds B of them; else 0 */
  int32_t first, last; /* segments in which it is written first and read last */
  bool whole_step;     /* an input or a result: lives from the first to the last segment */
  bool each_task;      /* made anew on each task of the run that reads it: `bytes` in all */
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
  bool each_task;                /* its one task is done on each task of its run */
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

typedef struct Schedule Schedule;
struct Schedule {
  const Graph *graph;
  Fusion *fusion; /* freed with the schedule */
  VECTOR(Storage) storages;
  VECTOR(PlannedLaunch) launches; /* sorted by segment */
  VECTOR(NamedPlace) inputs, results;
  const Place *places; /* of each value in the end; storage -1: it is not kept, or was written over */
  int32_t segment_count, run_count;
  int64_t arena_bytes, scratch_bytes; /* set by `plan`; scratch: of a worker, for values of its task's images */
};

Schedule *pass_schedule(const Graph *graph, Fusion *fusion, KernelSet *kernels, Arena *arena);
/* fuse_graph for the kernels' target with these options, then pass_schedule. */
Schedule *schedule_graph(const Graph *graph, KernelSet *kernels, Arena *arena);
void schedule_free(Schedule *schedule); /* the heap parts */

/* ---- plan ---- */
void pass_plan(Schedule *schedule);
/* The independent check: no two storages that live at the same time overlap, and all lie inside the arena. */
bool plan_check(const Schedule *schedule, Err *err);

#endif
