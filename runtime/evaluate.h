/* evaluate: accuracy and loss of a Program's eval step with the weights of a run, and no training.
 *
 * An Evaluator holds the images and the weights, so that many architectures can be measured one after another; the caller
 * compiles each architecture into a Program of its own, whose parameters keep the names of the whole model. */
#ifndef ADWP_RUNTIME_EVALUATE_H
#define ADWP_RUNTIME_EVALUATE_H

#include "runtime/base/err.h"
#include "runtime/dataset.h"
#include "runtime/executor.h"
#include "runtime/program.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct EvaluateOptions {
  const char *weights;     /* a run's weights.safetensors */
  const char *data_folder; /* null where the data are synthetic */
  bool test;               /* the test images instead of x_val */
  int32_t threads;
  const char *emulator;              /* as ExecutorOptions */
  const volatile sig_atomic_t *stop; /* becomes nonzero: return early; null: never */
} EvaluateOptions;

typedef struct EvaluateOutcome {
  int64_t images, correct;
  double accuracy; /* 0..1 */
  double loss;     /* mean over the images */
  bool stopped;    /* `stop` was set before the last image; the rest is of those seen until then */
} EvaluateOutcome;

/* One pass of the step `eval` over a part of the data, in file order, `batch` at a time, the last batch filled up with the first
 * images and each image counted once. */
bool evaluate_images(Executor *executor, const ProgramStep *eval, int32_t batch, const Dataset *dataset, DatasetPart part,
                     const volatile sig_atomic_t *stop, EvaluateOutcome *outcome, Err *err);

typedef struct Evaluator Evaluator;

/* Reads the weights. */
Evaluator *evaluator_new(const EvaluateOptions *options, Err *err);
/* The target of the run that the weights are of, "x86-64-v4", as their file says. */
const char *evaluator_target(const Evaluator *evaluator);
/* Loads the images. The weights must be of the same model, settings and seed as `program`; any Program of it will do. */
bool evaluator_load(Evaluator *evaluator, const Program *program, Err *err);
void evaluator_free(Evaluator *evaluator); /* null is allowed */

/* Evaluates one Program of that model, each image once; evaluator_load came before. It must have the step `eval`, and the weights
 * file each of its weights and logits. */
bool evaluator_run(Evaluator *evaluator, const Program *program, EvaluateOutcome *outcome, Err *err);

#endif
