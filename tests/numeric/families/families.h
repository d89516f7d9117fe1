/* Random cases of the kernel families, for every target: a spec, the kernel that `family_build` makes of it, its buffers before
 * the run, and what plain loops in double say that stands in them afterwards.
 *
 * A case depends on (family, number, seed, target) alone. The first numbers of some families are shapes of real models. Every
 * element that the reference leaves alone must keep what it held: outputs begin as a sentinel, gaps between pixels included.
 * Whoever runs kernels in another way (machine code, an emulator, a GPU) takes the cases from here, runs `kernel` over `tasks`
 * on copies of the buffers, and compares with what the interpreter left (`case_same`). */
#ifndef ADWP_TESTS_FAMILIES_H
#define ADWP_TESTS_FAMILIES_H

#include "kernels/family.h"

#include <stddef.h>

enum {
  CASE_MOST_BUFFERS = MAP_MAX_INPUTS + MAP_MAX_OUTPUTS + 1,
  FAMILY_IMAGES = FAMILY_COUNT, /* gpu_images, which is in no list of families; on a GPU only */
  FAMILIES = FAMILY_COUNT + 1
};

typedef struct CaseBuffer {
  LoopElement element;
  int64_t count;
  double *value;        /* what it holds before the run; null: the sentinel */
  double *want;         /* what it must hold afterwards; null: what it held */
  int64_t part;         /* elements over which the norm of an error is taken */
  double spread;        /* norm of the terms of which a part consists, where they cancel */
  double tolerance;     /* of that norm */
  void *before, *after; /* the elements as a kernel sees them, aligned to 16 bytes; `after` is where the interpreter worked */
} CaseBuffer;

typedef struct Case {
  Arena *arena; /* of everything here */
  int family, number;
  const char *text; /* all that matters of the spec, for messages */
  uint64_t random;
  KernelTarget target;
  int32_t batch, images, bands, tasks;
  LoopElement activation; /* of most planes */
  CaseBuffer buffers[CASE_MOST_BUFFERS];
  int count;
  LoopKernel *kernel;
} Case;

const char *families_name(int family);    /* "CONV"; "IMAGES" */
int families_cases(int family, bool gpu); /* how many cases the tests run; 0: there is none for the target */

/* Describes and builds a case; it is not run. */
Case *families_case(int family, int number, uint64_t seed, bool gpu);
void case_free(Case *c);

/* Verifies the kernel, checks its target's limits and that its text parses back, and interprets all tasks, the last first. */
bool case_interpret(Case *c, Err *err);
/* Compares `after` with the reference. */
bool case_matches_reference(const Case *c, Err *err);

/* Copies of the buffers before the run, each its own allocation, aligned to 64 bytes. */
void **case_copies(const Case *c);
void case_copies_free(const Case *c, void **copies);
/* Compares buffers that something else worked on with the interpreter's: bit for bit, but where the kernel has mma (whose order
 * is not fixed) or exp or log (which are the target's own) nearly. */
bool case_same(const Case *c, void *const *buffers, Err *err);
bool case_is_exact(const Case *c);

/* Gets every case that was interpreted and matched. It may take the case (`*take`) and then frees it itself. */
typedef bool CaseHook(void *context, Case *c, bool *take, Err *err);

typedef struct FamilyOptions {
  bool gpu;
  bool chosen[FAMILIES]; /* none: all */
  int first, most;       /* the first case's number; the cases of each family, 0: as many as the tests run */
  int every;             /* only each `every`-th of those; 0: all */
  uint64_t seed;
  bool print; /* every case's text and kernel, to standard output */
  CaseHook *hook;
  void *context;
} FamilyOptions;

/* Reads a test's arguments: names of families, case=N (only this one), cases=N, seed=N, print. */
bool families_options(int argc, char **argv, FamilyOptions *options, Err *err);

/* Runs the cases against the reference. A family without cases for the target is an error; failing cases are counted, and the
 * first few are in the message. */
bool families_run(const FamilyOptions *options, Err *err);

#endif
