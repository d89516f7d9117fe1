/* Between executor.c, which checks what callers ask for, and the devices, which do it. */
#ifndef ADWP_RUNTIME_EXECUTOR_PRIVATE_H
#define ADWP_RUNTIME_EXECUTOR_PRIVATE_H

#include "runtime/executor.h"

/* What a device does. Arguments have been checked: a step is of the program, a batch within it, a run one whose results are
 * still there. */
typedef struct ExecutorDevice {
  void (*free)(Executor *executor);
  bool (*read)(Executor *executor, const ProgramParameter *parameter, float *stored, Err *err);
  bool (*write)(Executor *executor, const ProgramParameter *parameter, const float *stored, Err *err);
  bool (*input)(Executor *executor, const ProgramStep *step, uint32_t input, const void *data, int64_t elements, Err *err);
  bool (*run)(Executor *executor, const ProgramStep *step, int64_t batch, int64_t run, Err *err);
  const float *(*result)(Executor *executor, const ProgramStep *step, int64_t run, uint32_t result, Err *err);
  bool (*finish)(Executor *executor, Err *err);
  bool (*profile)(Executor *executor, const ProgramStep *step, int64_t batch, double *seconds, Err *err);
  /* May be null: the times that `profile` takes are laid end to end. */
  bool (*trace)(Executor *executor, const ProgramStep *step, int64_t batch, ExecutorSink *sink, void *context, Err *err);
  int64_t (*launches)(Executor *executor, const ProgramStep *step, int64_t batch, Err *err); /* -1: err */
  Feed *(*feed)(Executor *executor, const Dataset *dataset, const LoaderSettings *settings, Err *err);
  void (*feed_free)(Feed *feed);
  int64_t (*feed_next)(Feed *feed, const ProgramStep *step, Err *err);
} ExecutorDevice;

/* The beginning of each device's own struct. */
struct Executor {
  const ExecutorDevice *device;
  const Program *program;
  int32_t depth;
  int64_t runs; /* started */
};

/* The same of a feed. */
struct Feed {
  Executor *executor;
  Loader *loader;
};

Executor *cpu_executor_new(const Program *program, const ExecutorOptions *options, Err *err);
Executor *cuda_executor_new(const Program *program, const ExecutorOptions *options, Err *err);

uint32_t executor_step_index(const Executor *executor, const ProgramStep *step); /* dies if it is not of the program */
int64_t executor_arena_bytes(const Program *program);                            /* the largest step's */

#endif
