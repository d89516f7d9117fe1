#include "runtime/evaluate.h"

#include "runtime/base/arena.h"
#include "runtime/loader.h"
#include "runtime/safetensors.h"

#include <stdlib.h>

#define LARGEST_WEIGHTS ((size_t)1 << 40)

struct Evaluator {
  EvaluateOptions options;
  Dataset *dataset;
  Safetensors *weights;
};

bool evaluate_images(Executor *executor, const ProgramStep *eval, int32_t batch, const Dataset *dataset, DatasetPart part,
                     const volatile sig_atomic_t *stop, EvaluateOutcome *outcome, Err *err) {
  LoaderSettings settings = loader_validation(part, batch);
  settings.threads = 1;
  Loader *loader = loader_new(dataset, &settings, err);
  if (!loader) return false;
  float *x = executor_input(executor, eval, "x");
  int32_t *y = executor_input(executor, eval, "y");
  const float *losses = executor_result(executor, eval, "losses", NULL),
              *correct = executor_result(executor, eval, "correct", NULL);
  if (!x || !y || !losses || !correct) die("the step %s lacks x, y, losses or correct", eval->name);
  *outcome = (EvaluateOutcome){0};
  for (int64_t count; !(outcome->stopped = stop && *stop) && (count = loader_next(loader, x, y)) > 0;) {
    executor_run(executor, eval, batch);
    for (int64_t i = 0; i < count; i++) {
      outcome->loss += losses[i];
      outcome->correct += correct[i] > 0;
    }
    outcome->images += count;
  }
  loader_free(loader);
  double images = outcome->images ? (double)outcome->images : 1;
  outcome->loss /= images;
  outcome->accuracy = (double)outcome->correct / images;
  return true;
}

Evaluator *evaluator_new(const Program *program, const EvaluateOptions *options, Err *err) {
  Evaluator *evaluator = memory_alloc(sizeof *evaluator);
  evaluator->options = *options;
  evaluator->weights = safetensors_read(options->weights, LARGEST_WEIGHTS, false, err);
  if (evaluator->weights) evaluator->dataset = dataset_load(&program->data, options->data_folder, err);
  if (evaluator->dataset) return evaluator;
  evaluator_free(evaluator);
  return NULL;
}

void evaluator_free(Evaluator *evaluator) {
  if (!evaluator) return;
  dataset_free(evaluator->dataset);
  safetensors_free(evaluator->weights);
  free(evaluator);
}

static bool load_weights(const Evaluator *evaluator, const Program *program, Executor *executor, Err *err) {
  for (uint32_t i = 0; i < program->parameter_count; i++) {
    const ProgramParameter *parameter = &program->parameters[i];
    if (parameter->kind != PROGRAM_WEIGHT && parameter->kind != PROGRAM_ALPHA) continue;
    const SafetensorsTensor *tensor =
        safetensors_need(evaluator->weights, parameter->name, SAFETENSORS_F32, parameter->rank, parameter->dims, err);
    if (!tensor) return err_wrap(err, "the weights are not this model's");
    program_to_stored(parameter, tensor->data, executor_parameter(executor, i));
  }
  return true;
}

bool evaluator_run(Evaluator *evaluator, const Program *program, EvaluateOutcome *outcome, Err *err) {
  const ProgramStep *eval = program_find_step(program, "eval");
  if (!eval) die("the program of %s has no step eval", program->name);
  Executor *executor = executor_new(program, evaluator->options.threads, err);
  if (!executor) return false;
  DatasetPart part = evaluator->options.test ? DATASET_TEST : DATASET_VALID;
  bool done =
      load_weights(evaluator, program, executor, err) &&
      evaluate_images(executor, eval, program->search.batch, evaluator->dataset, part, evaluator->options.stop, outcome, err);
  executor_free(executor);
  return done;
}
