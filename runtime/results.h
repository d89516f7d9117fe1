/* results: what a finished search leaves in its run folder: arch.adwp, arch.json and weights.safetensors. */
#ifndef ADWP_RUNTIME_RESULTS_H
#define ADWP_RUNTIME_RESULTS_H

#include "runtime/base/err.h"
#include "runtime/executor.h"
#include "runtime/program.h"

#include <stdbool.h>

#define WEIGHTS_FORMAT "adwp-weights 1" /* metadata "format" of weights.safetensors */

/* `alpha`: the resulting logits, as checkpoint_copy_alpha orders them. Each file is replaced as a whole. */
bool results_write(const char *folder, const Program *program, Executor *executor, const float *alpha, Err *err);

#endif
