/* kernel_bench's groups: what is timed, in several ways. */
#ifndef ADWP_TESTS_BENCH_KERNELS_H
#define ADWP_TESTS_BENCH_KERNELS_H

#include "compiler/emit/emit.h"
#include "kernels/family.h"

enum { MOST_PARTS = 8, MOST_BUFFERS = 12, MOST_WAYS = 3, TENSORS = 18, SETS = 5 };

typedef struct Part { /* one launch */
  LoopKernel *ir;
  KernelFunction *run;
  int tensor[MOST_BUFFERS]; /* in the kernel's order */
  int buffers;
  int64_t tasks;
} Part;

typedef struct Way { /* to do a group: launches one after another */
  const char *name;
  Part parts[MOST_PARTS];
  int count;
  EmitCode *code;
  double task, batch, cold; /* the least seconds */
} Way;

typedef struct Group {
  char name[64];
  Way ways[MOST_WAYS];
  int count;
  double flop;           /* of one image: what the result needs, however it is computed */
  int64_t images, batch; /* of a task; of all tasks */
  int64_t size[TENSORS]; /* floats; 0: no such tensor */
  float *sets[SETS][TENSORS];
} Group;

typedef struct Bench {
  EmitTarget *target;
  Arena *arena;
  KernelTarget kernel;
  int64_t batch;
  int rounds;
  bool print, json;
} Bench;

int group_count(void);
void group_name(int number, Group *g);
void group_describe(const Bench *b, int number, Group *g); /* `batch` is set */

#endif
