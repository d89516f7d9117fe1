/* search: Algorithm 1 on a Program. Trains the weights under random logits, then searches the logits, with or without the
 * weights.
 *
 * Everything that a run computes is a pure function of the Program and its seed: not of the number of threads, nor of how often
 * the run was interrupted. The run folder always holds a whole checkpoint once there was one; `docs/files.md` says what stands in
 * it. */
#ifndef ADWP_RUNTIME_SEARCH_H
#define ADWP_RUNTIME_SEARCH_H

#include "runtime/base/err.h"
#include "runtime/program.h"
#include "runtime/progress.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct SearchOptions {
  const char *data_folder; /* null where the data are synthetic */
  const char *run_folder;  /* made where it is missing */
  int32_t threads;
  const char *emulator; /* as ExecutorOptions, and so is `depth` */
  int32_t depth;
  bool resume;                       /* continue the run in the folder; otherwise the folder must not hold one */
  bool move;                         /* the checkpoint may be of another target: the run goes on here, on other bits */
  double checkpoint_minutes;         /* a checkpoint at least this often within an epoch; 0: none by the clock */
  int64_t checkpoint_steps;          /* a checkpoint every so many steps of the run; 0: none by steps */
  int64_t metric_steps;              /* a line in metrics.jsonl every so many steps of an epoch; 0: only at an epoch's end */
  Progress *progress;                /* null: silent */
  const volatile sig_atomic_t *stop; /* becomes nonzero: write a checkpoint and return; null: never */
} SearchOptions;

typedef struct SearchSummary {
  bool finished;        /* false: `stop` was set; the run folder holds a checkpoint to resume from */
  int64_t step;         /* steps of the whole run that are done */
  int32_t epoch;        /* epochs that are done */
  int32_t best_epoch;   /* whose logits became the architecture; -1: no epoch of the search stage was */
  double best_accuracy; /* of that epoch on x_val, 0..1 */
  double best_loss;
} SearchSummary;

/* Runs, or continues, the search. The Program needs the steps train_step, search_step, cross_step and eval as far as its stages
 * use them. False: the message says what, where and what to do; the last checkpoint is whole. */
bool search_run(const Program *program, const SearchOptions *options, SearchSummary *summary, Err *err);

#endif
