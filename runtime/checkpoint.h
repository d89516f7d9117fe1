/* checkpoint: all of a run's state in one safetensors file, replaced as a whole.
 *
 * Tensors: every parameter of the Program (weights, momentum, logits, Adam's moments) in canonical order, and the best logits so
 * far. The counters stand in the metadata, with the model's hash, the target, the seed, and a hash over everything, so that a
 * flipped bit anywhere is an error and never a different result. */
#ifndef ADWP_RUNTIME_CHECKPOINT_H
#define ADWP_RUNTIME_CHECKPOINT_H

#include "runtime/base/err.h"
#include "runtime/base/hash.h"
#include "runtime/executor.h"
#include "runtime/metrics.h"
#include "runtime/program.h"

#include <stdbool.h>
#include <stdint.h>

/* Sums over steps; means are sum / steps. */
typedef struct StepSums {
  double loss;     /* of the steps' mean losses */
  int64_t correct; /* images */
  int64_t steps;
} StepSums;

typedef struct SearchState {
  HashName data_hash;             /* of the images; a checkpoint must have been written with the same ones */
  int32_t epoch;                  /* the one under way, counted from 0 */
  int64_t epoch_step;             /* its steps that are done; all of them: the validation is still to come */
  StepSums epoch_sums, line_sums; /* since the epoch began; since the last line of metrics */
  int32_t best_epoch;             /* -1: none yet */
  int64_t best_correct;
  double best_loss;
  MetricsPosition metrics;
  float *best_alpha; /* checkpoint_alpha_elements() of them: the logits of best_epoch, in the order of the parameters */
} SearchState;

int64_t checkpoint_alpha_elements(const Program *program);

/* Copies all logits, in canonical order and the order of the parameters, out of the executor's memory. */
bool checkpoint_copy_alpha(const Program *program, Executor *executor, float *alpha, Err *err);

/* A failed write leaves the old file whole. A parameter that is not finite is an error, and nothing is written. */
bool checkpoint_write(const char *path, const Program *program, Executor *executor, const SearchState *state, Err *err);

/* Fills the executor's parameters and the state. A checkpoint of another target is an error unless `move`. False: the message
 * says why the file does not fit; the executor's parameters and `state` may be half filled then. */
bool checkpoint_read(const char *path, const Program *program, Executor *executor, bool move, SearchState *state, Err *err);

#endif
