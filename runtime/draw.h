/* draw: the initial values of parameters and the random logits, each a pure function of (seed, stream, counters).
 * They only fail where the executor does. */
#ifndef ADWP_RUNTIME_DRAW_H
#define ADWP_RUNTIME_DRAW_H

#include "runtime/base/err.h"
#include "runtime/executor.h"
#include "runtime/program.h"

#include <stdbool.h>
#include <stdint.h>

/* Weights get their initial values, everything else zeros. A weight's draws depend on its name and not on its place. */
bool draw_weights(const Program *program, Executor *executor, uint64_t seed, Err *err);

/* Every logit of step `step` of the run: normal, of deviation `scale`. */
bool draw_random_alpha(const Program *program, Executor *executor, uint64_t seed, int64_t step, double scale, Err *err);

/* The logits with which the search stage begins: normal, of deviation `scale`; Adam's moments become zero. */
bool draw_initial_alpha(const Program *program, Executor *executor, uint64_t seed, double scale, Err *err);

#endif
