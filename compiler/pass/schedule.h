/* From a step's graph to launches: `fuse` decides which values are kept in memory, `schedule` makes kernel specs and launches of
 * them, `plan` places what is kept in one arena. */
#ifndef ADWP_COMPILER_PASS_SCHEDULE_H
#define ADWP_COMPILER_PASS_SCHEDULE_H

#include "compiler/graph/graph.h"
#include "kernels/family.h"
#include "runtime/program.h"

/* ---- fuse ---- */
/* For each value whether it is materialised. One that is not is an elementwise value, computed again inside each consumer:
 * in an elementwise kernel or a reduction, or (ReLU, bn_apply and ReLU of bn_apply) where a convolution reads its input. */
bool *pass_fuse(const Graph *graph, Arena *arena);

/* ---- schedule ---- */
typedef struct Storage { /* a piece of memory with one lifetime, for elements of one kind */
  int32_t parameter;     /* index into the module's parameters; -1: in the arena */
  LoopElement element;
  int64_t bytes;
  int32_t first, last; /* segments in which it is written first and read last */
  bool whole_step;     /* an input or a result: lives from the first to the last segment */
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

/* All steps of a module share one set of kernels, scheduled for one target. */
typedef struct KernelSet {
  Arena *arena;
  KernelTarget target;
  LoopElement activation; /* how (B, H, W, C) values are stored, the step's input x aside */
  VECTOR(LoopKernel *) kernels;
  struct KernelKey *keys; /* one a kernel: its family and spec, so that equal ones are built once */
} KernelSet;

typedef struct Schedule {
  const Graph *graph;
  VECTOR(Storage) storages;
  VECTOR(PlannedLaunch) launches; /* sorted by segment */
  VECTOR(NamedPlace) inputs, results;
  const Place *places; /* of each value; storage -1: it is not kept, or only a launch's own matter */
  int32_t segment_count;
  int64_t arena_bytes; /* set by `plan` */
} Schedule;

Schedule *pass_schedule(const Graph *graph, KernelSet *kernels, Arena *arena);
void schedule_free(Schedule *schedule); /* the heap parts */

/* ---- plan ---- */
void pass_plan(Schedule *schedule);
/* The independent check: no two storages that live at the same time overlap, and all lie inside the arena. */
bool plan_check(const Schedule *schedule, Err *err);

#endif
