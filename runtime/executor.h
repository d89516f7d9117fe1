/* The CPU device: runs a Program's steps on a pool of threads. */
#ifndef ADWP_RUNTIME_EXECUTOR_H
#define ADWP_RUNTIME_EXECUTOR_H

#include "runtime/base/err.h"
#include "runtime/program.h"

typedef struct Executor Executor;

/* Allocates the parameters' memory and one arena as large as the largest step's (huge pages where they are to be had), and
 * starts `threads` - 1 workers. */
Executor *executor_new(const Program *program, int32_t threads, Err *err);
void executor_free(Executor *executor);

float *executor_parameter(Executor *executor, uint32_t parameter); /* stored order */
/* Where the runtime writes an input before a run, or reads a result after it; null: the step has none of this name. */
void *executor_input(Executor *executor, const ProgramStep *step, const char *name);
const float *executor_result(Executor *executor, const ProgramStep *step, const char *name, int64_t *elements);

void executor_run(Executor *executor, const ProgramStep *step, int64_t batch);
/* The same, adding each launch's time to `seconds` (one a launch, in order over all segments); launches run one by one. */
void executor_profile(Executor *executor, const ProgramStep *step, int64_t batch, double *seconds);

#endif
