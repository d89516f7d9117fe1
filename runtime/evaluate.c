#include "runtime/evaluate.h"

#include "runtime/base/arena.h"
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

/* A run whose results have not been read yet. */
typedef struct Started {
  int64_t run, images;
} Started;

static bool add_run(Executor *executor, const ProgramStep *eval, const Started *started, EvaluateOutcome *outcome, Err *err) {
  const float *losses = executor_result(executor, eval, started->run, "losses", err);
  const float *correct = losses ? executor_result(executor, eval, started->run, "correct", err) : NULL;
  if (!correct) return false;
  for (int64_t i = 0; i < started->images; i++) {
    outcome->loss += losses[i];
    outcome->correct += correct[i] > 0;
  }
  outcome->images += started->images;
  return true;
}

/* Batches are started up to the executor's depth before the first one's results are read, and their results added in order. */
static bool evaluate_feed(Executor *executor, const ProgramStep *eval, Feed *feed, int32_t batch,
                          const volatile sig_atomic_t *stop, EvaluateOutcome *outcome, Err *err) {
  int64_t depth = executor_depth(executor), begun = 0, read = 0;
  Started *started = memory_alloc((size_t)depth * sizeof *started);
  bool done = true, more = true;
  while (done && (more || read < begun)) {
    int64_t images = 0;
    if (more) {
      outcome->stopped = stop && *stop;
      images = outcome->stopped ? 0 : feed_next(feed, eval, err);
      more = images > 0;
      done = images >= 0;
    }
    if (more) {
      int64_t run = executor_run(executor, eval, batch, err);
      done = run >= 0;
      started[begun++ % depth] = (Started){run, images};
    }
    if (done && read < begun && (!more || begun - read == depth))
      done = add_run(executor, eval, &started[read++ % depth], outcome, err);
  }
  free(started);
  return done;
}

bool evaluate_images(Executor *executor, const ProgramStep *eval, int32_t batch, const Dataset *dataset, DatasetPart part,
                     const volatile sig_atomic_t *stop, EvaluateOutcome *outcome, Err *err) {
  LoaderSettings settings = loader_validation(part, batch);
  settings.threads = 1;
  if (!program_find_result(eval, "losses") || !program_find_result(eval, "correct"))
    die("the step %s lacks losses or correct", eval->name);
  *outcome = (EvaluateOutcome){0};
  Feed *feed = feed_new(executor, dataset, &settings, err);
  bool done = feed && evaluate_feed(executor, eval, feed, batch, stop, outcome, err);
  feed_free(feed);
  double images = outcome->images ? (double)outcome->images : 1;
  outcome->loss /= images;
  outcome->accuracy = (double)outcome->correct / images;
  return done;
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
    float *stored = memory_alloc((size_t)parameter->elements * sizeof *stored);
    program_to_stored(parameter, tensor->data, stored);
    bool done = executor_write(executor, i, stored, err);
    free(stored);
    if (!done) return false;
  }
  return true;
}

bool evaluator_run(Evaluator *evaluator, const Program *program, EvaluateOutcome *outcome, Err *err) {
  const ProgramStep *eval = program_find_step(program, "eval");
  if (!eval || !evaluator->dataset) die("the program of %s has no step eval, or no images are loaded", program->name);
  ExecutorOptions how = {.threads = evaluator->options.threads, .emulator = evaluator->options.emulator};
  Executor *executor = executor_new(program, &how, err);
  if (!executor) return false;
  DatasetPart part = evaluator->options.test ? DATASET_TEST : DATASET_VALID;
  bool done =
      load_weights(evaluator, program, executor, err) &&
      evaluate_images(executor, eval, program->search.batch, evaluator->dataset, part, evaluator->options.stop, outcome, err);
  executor_free(executor);
  return done;
}
