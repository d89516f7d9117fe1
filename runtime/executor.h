/* Executor: a Program on a device: the CPU (a pool of threads) or a GPU (CUDA), chosen by the program.
 *
 * The device owns the parameters and one arena as large as the largest step's. The caller reads and writes parameters and inputs
 * through copies, so that it does not matter where they lie.
 *
 * Runs may be asynchronous: executor_run returns the number of a run, which is done once executor_result has returned something
 * of it. executor_depth says how many runs may be under way before their results are read (CPU: 1): a caller that wants to keep
 * the device busy reads run n after it has started run n + depth - 1. Everything happens in the order of the calls.
 *
 * Errors of the world (no memory on the device, a lost device) make a function return false or null with `err`; after one the
 * executor can only be freed. */
#ifndef ADWP_RUNTIME_EXECUTOR_H
#define ADWP_RUNTIME_EXECUTOR_H

#include "runtime/base/err.h"
#include "runtime/dataset.h"
#include "runtime/loader.h"
#include "runtime/program.h"

typedef struct Executor Executor;

typedef struct ExecutorOptions {
  int32_t threads;      /* of a CPU; at least 1 */
  const char *emulator; /* the library that stands for the CUDA driver, of a program whose target is the emulator; else null */
  int32_t depth;        /* of a GPU: how many runs may be under way, 1..8; 0: as many as are good */
} ExecutorOptions;

/* A CPU: starts `threads` - 1 workers. A GPU: opens the device and loads the program's kernels. */
Executor *executor_new(const Program *program, const ExecutorOptions *options, Err *err);
void executor_free(Executor *executor); /* null is allowed */

int executor_depth(const Executor *executor);

/* A parameter's elements in stored order; both wait for the runs before. */
bool executor_read(Executor *executor, uint32_t parameter, float *stored, Err *err);
bool executor_write(Executor *executor, uint32_t parameter, const float *stored, Err *err);

/* Sets an input of the step (program_find_input) for its next runs: `elements` from the first on, 4 bytes each. */
bool executor_input(Executor *executor, const ProgramStep *step, const char *name, const void *data, int64_t elements, Err *err);

/* Starts the step on `batch` images. Its number, from 0; -1: `err`. */
int64_t executor_run(Executor *executor, const ProgramStep *step, int64_t batch, Err *err);

/* A result (program_find_result) of run `run`, one of the last `depth`; waits for it. Valid until `depth` further runs have been
 * started. Null: `err`. */
const float *executor_result(Executor *executor, const ProgramStep *step, int64_t run, const char *name, Err *err);

/* Waits for all runs. */
bool executor_finish(Executor *executor, Err *err);

/* Runs the step once, adding each launch's time to `seconds` (one a launch, in order over all segments). On a CPU a launch's time
 * is that of its tasks on all threads, divided by their number; on a GPU launches run one by one.
 */
bool executor_profile(Executor *executor, const ProgramStep *step, int64_t batch, double *seconds, Err *err);

/* Runs the step once and tells what was done when: on a CPU by which worker which tasks of which launch, as the run goes on its
 * usual way; on a GPU the launches' own times as executor_profile takes them, one after another. Slices come after the run, a
 * worker's in the order of time. */
typedef struct ExecutorSlice {
  int32_t worker;
  uint32_t launch;     /* of the step, over all segments */
  int64_t first, last; /* tasks first <= t < last */
  double start, end;   /* seconds since the run began */
} ExecutorSlice;
typedef void ExecutorSink(void *context, const ExecutorSlice *slice);
bool executor_trace(Executor *executor, const ProgramStep *step, int64_t batch, ExecutorSink *sink, void *context, Err *err);

/* How many kernels and products one run of the step launches: on a GPU the nodes of its captured graph, with what makes the
 * batch where the step's last input was a feed's. -1: `err`. */
int64_t executor_launches(Executor *executor, const ProgramStep *step, int64_t batch, Err *err);

/* ---- feed: where a step's x and y come from ---- */

/* Batches of a data set's images for the executor's steps. A CPU's feed is a loader. A GPU holds the data set's bytes, sent once
 * an executor, and makes the batch there from the loader's plan of each image: the same pixels. Several feeds may be open.
 * `dataset` must outlive the executor. */
typedef struct Feed Feed;

Feed *feed_new(Executor *executor, const Dataset *dataset, const LoaderSettings *settings, Err *err);
void feed_free(Feed *feed); /* before executor_free; null is allowed */

/* Fills x and y, as far as the step has them, for the step's next run: the next batch. Returns how many images count, as
 * loader_next; -1: `err`. */
int64_t feed_next(Feed *feed, const ProgramStep *step, Err *err);

#endif
