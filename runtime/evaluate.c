#include "runtime/evaluate.h"

#include "runtime/base/arena.h"
#include "runtime/loader.h"
#include "runtime/results.h"
#include "runtime/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
  float *x = executor_input(executor, eval, "x"); /* null where nothing depends on it, as in a network of zeros */
  int32_t *y = executor_input(executor, eval, "y");
  const float *losses = executor_result(executor, eval, "losses", NULL),
              *correct = executor_result(executor, eval, "correct", NULL);
  if (!losses || !correct) die("the step %s lacks losses or correct", eval->name);
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

/* A run's weights say whose they are; without that there is no telling whether they fit. */
static bool check_identity(const Safetensors *file, Err *err) {
  static const char *const keys[] = {"format", "model_hash", "target"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (!safetensors_metadata(file, keys[i]))
      return err_set(err, "%s holds no weights of a run: it has no metadata \"%s\"", safetensors_path(file), keys[i]);
  const char *format = safetensors_metadata(file, "format");
  return strcmp(format, WEIGHTS_FORMAT) == 0 ||
         err_set(err,
                 "%s is of the format \"%.40s\", and \"%s\" is wanted: it holds no weights of a run, or another version of "
                 "adwp wrote it",
                 safetensors_path(file), format, WEIGHTS_FORMAT);
}

Evaluator *evaluator_new(const EvaluateOptions *options, Err *err) {
  Evaluator *evaluator = memory_alloc(sizeof *evaluator);
  evaluator->options = *options;
  evaluator->weights = safetensors_read(options->weights, LARGEST_WEIGHTS, false, err);
  if (evaluator->weights && check_identity(evaluator->weights, err)) return evaluator;
  evaluator_free(evaluator);
  return NULL;
}

const char *evaluator_target(const Evaluator *evaluator) {
  return safetensors_metadata(evaluator->weights, "target");
}

/* Another seed is another model_hash too; saying so is worth the look. */
static bool check_model(const Safetensors *file, const Program *program, Err *err) {
  const char *hash = safetensors_metadata(file, "model_hash"), *seed = safetensors_metadata(file, "seed");
  char want[32];
  if (strcmp(hash, program->model_hash) == 0) return true;
  snprintf(want, sizeof want, "%" PRIu64, program->search.seed);
  bool other_seed = seed && strcmp(seed, want) != 0;
  return err_set(
      err,
      "the weights %s are of another run: their model_hash is %.80s%s%.40s, and this model's is %s%s%s; put back those "
      "that its own search wrote",
      safetensors_path(file), hash, other_seed ? " and their seed " : "", other_seed ? seed : "", program->model_hash,
      other_seed ? " and its seed " : "", other_seed ? want : "");
}

bool evaluator_load(Evaluator *evaluator, const Program *program, Err *err) {
  if (!check_model(evaluator->weights, program, err)) return false;
  evaluator->dataset = dataset_load(&program->data, evaluator->options.data_folder, err);
  return evaluator->dataset != NULL;
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
  if (!eval || !evaluator->dataset) die("the program of %s has no step eval, or no images are loaded", program->name);
  Executor *executor = executor_new(program, evaluator->options.threads, err);
  if (!executor) return false;
  DatasetPart part = evaluator->options.test ? DATASET_TEST : DATASET_VALID;
  bool done =
      load_weights(evaluator, program, executor, err) &&
      evaluate_images(executor, eval, program->search.batch, evaluator->dataset, part, evaluator->options.stop, outcome, err);
  executor_free(executor);
  return done;
}
