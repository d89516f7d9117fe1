/* adwp eval: accuracy of architectures with the weights that a run's generators predict for them, and no training.
 *
 * Each architecture is compiled into a Program of its own (what it does not keep is not computed); the Evaluator holds the images
 * and the run's weights once for all of them. Kernels are made for the target of the run, whose bits the search has seen. */
#include "compiler/driver/driver.h"

#include "runtime/evaluate.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY_DATA = 0x200, KEY_ARCH, KEY_SAMPLE, KEY_SOFT, KEY_TEST, KEY_JSON, MOST_SAMPLES = 100000 };

typedef struct EvalOptions {
  SharedOptions shared;
  const char *folder, *data, *arch; /* arch null: the run's own arch.json */
  int32_t samples;
  bool soft, test, json;
} EvalOptions;

static error_t parse(int key, char *argument, struct argp_state *state) {
  EvalOptions *options = state->input;
  switch (key) {
  case ARGP_KEY_INIT: state->child_inputs[0] = &options->shared; return 0;
  case KEY_DATA: options->data = argument; return 0;
  case KEY_ARCH: options->arch = argument; return 0;
  case KEY_SAMPLE: options->samples = options_number(state, "--sample", argument, 1, MOST_SAMPLES); return 0;
  case KEY_SOFT: options->soft = true; return 0;
  case KEY_TEST: options->test = true; return 0;
  case KEY_JSON: options->json = true; return 0;
  case ARGP_KEY_ARG:
    if (state->arg_num) argp_error(state, "one RUN, and not also `%s`", argument);
    options->folder = argument;
    return 0;
  case ARGP_KEY_END:
    if (!options->folder) argp_error(state, "which RUN?");
    if (options->soft && options->arch)
      argp_error(state, "--soft evaluates the run's continuous logits, --arch a file; not both");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option option_list[] = {
    {"arch", KEY_ARCH, "FILE", 0, "The architecture of this arch.json and not the run's own", 0},
    {"sample", KEY_SAMPLE, "N", 0, "Also N random architectures, and their median", 0},
    {"soft", KEY_SOFT, 0, 0, "The run's continuous logits and not a discrete architecture", 0},
    {"test", KEY_TEST, 0, 0, "On the test images and not on the validation images", 0},
    {"data", KEY_DATA, "DIR", 0, "The folder that holds cifar-10-batches-bin, or that folder itself; not for synthetic data", 0},
    {"json", KEY_JSON, 0, 0, "One JSON object", 0},
    {0},
};
static const struct argp_child children[] = {{&options_machine, 0, NULL, 0}, {0}};
static const struct argp argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "RUN",
    .doc = "Measure architectures with the weights that the finished run in the folder RUN predicts for "
           "them, without training.",
    .children = children};

typedef struct Evaluation {
  const EvalOptions *options;
  SharedOptions machine; /* the command's, and where it has no --cpu, the run's target */
  const Model *model;
  const Program *program; /* of the whole model */
  Evaluator *evaluator;
  Arena *arena;
  const char *name; /* of what `found` is the outcome of */
  EvaluateOutcome found;
  EvaluateOutcome *samples; /* options->samples of them */
} Evaluation;

static bool evaluate_kept(Evaluation *run, const KeptOperations *kept, EvaluateOutcome *outcome, Err *err) {
  Compiled *compiled = driver_compile(run->model, &run->machine, STEP_EVAL, kept, false, err);
  bool done = compiled && evaluator_run(run->evaluator, compiled->program, outcome, err);
  if (compiled) pipeline_free(compiled);
  return done;
}

static bool evaluate_found(Evaluation *run, Err *err) {
  const EvalOptions *options = run->options;
  const Program *program = run->program;
  if (options->soft) {
    run->name = "soft";
    return evaluator_run(run->evaluator, program, &run->found, err);
  }
  run->name = options->arch ? options->arch : arena_printf(run->arena, "%s/arch.json", options->folder);
  KeptOperations *kept = kept_read(run->name, program->cells, program->cell_count, run->arena, err);
  return kept && evaluate_kept(run, kept, &run->found, err);
}

static bool evaluate_samples(Evaluation *run, Err *err) {
  const Program *program = run->program;
  int32_t count = run->options->samples;
  run->samples = ARENA_ARRAY(run->arena, EvaluateOutcome, count ? count : 1);
  for (int32_t i = 0; i < count; i++) {
    Arena *arena = arena_new();
    KeptOperations *kept =
        kept_sample(program->cells, program->cell_count, program->search.keep, program->search.seed, (uint64_t)i, arena);
    bool done = evaluate_kept(run, kept, &run->samples[i], err);
    arena_free(arena);
    if (!done) return err_wrap(err, "random architecture %d", i + 1);
    if (!run->options->json) fprintf(stderr, "random %d: accuracy %.2f %%\n", i + 1, 100 * run->samples[i].accuracy);
  }
  return true;
}

static int compare_accuracy(const void *a, const void *b) {
  double first = *(const double *)a, second = *(const double *)b;
  return (first > second) - (first < second);
}

static double median_accuracy(const Evaluation *run) {
  int32_t count = run->options->samples;
  double *sorted = ARENA_ARRAY(run->arena, double, count);
  for (int32_t i = 0; i < count; i++) sorted[i] = run->samples[i].accuracy;
  qsort(sorted, (size_t)count, sizeof *sorted, compare_accuracy);
  return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

static void print_text(const Evaluation *run) {
  int32_t count = run->options->samples, beaten = 0;
  printf("%s: accuracy %.2f %%, loss %.4f (%lld %s images, predicted weights, no training)\n", run->name,
         100 * run->found.accuracy, run->found.loss, (long long)run->found.images, run->options->test ? "test" : "validation");
  if (!count) return;
  for (int32_t i = 0; i < count; i++) beaten += run->found.accuracy > run->samples[i].accuracy;
  printf("%d random architecture%s: median accuracy %.2f %%; it beats %d of them\n", count, count == 1 ? "" : "s",
         100 * median_accuracy(run), beaten);
}

static json_t *outcome_json(const EvaluateOutcome *outcome) {
  return json_pack("{s:f, s:f, s:I, s:I}", "accuracy", outcome->accuracy, "loss", outcome->loss, "correct",
                   (json_int_t)outcome->correct, "images", (json_int_t)outcome->images);
}

static void print_json(const Evaluation *run) {
  json_t *root = outcome_json(&run->found);
  json_object_set_new(root, "architecture", json_string(run->name));
  json_object_set_new(root, "part", json_string(run->options->test ? "test" : "valid"));
  if (run->options->samples) {
    json_t *samples = json_array();
    for (int32_t i = 0; i < run->options->samples; i++) json_array_append_new(samples, outcome_json(&run->samples[i]));
    json_object_set_new(root, "samples", samples);
    json_object_set_new(root, "median_accuracy", json_real(median_accuracy(run)));
  }
  json_dumpf(root, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
  putchar('\n');
  json_decref(root);
}

/* The run has all that is asked of it, or the message says how to go on with it. */
static bool check_finished(const EvalOptions *options, Arena *arena, Err *err) {
  const char *needed[] = {"weights.safetensors", options->soft || options->arch ? NULL : "arch.json"};
  for (int i = 0; i < 2 && needed[i]; i++) {
    const char *path = arena_printf(arena, "%s/%s", options->folder, needed[i]);
    if (access(path, F_OK) && errno == ENOENT)
      return err_set(err, "the run %s is not finished: there is no %s yet; go on with it: adwp search --resume %s",
                     options->folder, path, options->folder);
  }
  return true;
}

/* The whole model, on a CPU for the level of the run unless --cpu names another; a run on a GPU has none. */
static Compiled *compile_whole(Evaluation *run, Err *err) {
  const char *target = evaluator_target(run->evaluator);
  bool own = !run->machine.cpu && !strcmp(run->machine.device, "cpu") && !strncmp(target, "x86-64", 6);
  if (own) run->machine.cpu = target;
  Compiled *whole = driver_compile(run->model, &run->machine, STEP_EVAL, NULL, !run->options->json, err);
  if (whole || !own || !err->text[0]) return whole;
  err_wrap(err, "the run %s was searched on %s, and its weights are measured there unless --cpu names another level",
           run->options->folder, target);
  return NULL;
}

static bool measure(Evaluation *run, Compiled *whole, Err *err) {
  const EvalOptions *options = run->options;
  driver_warn_of_cache(whole);
  driver_warn_of_data(run->model, options->data);
  run->program = whole->program;
  if (!evaluator_load(run->evaluator, whole->program, err) || !evaluate_found(run, err) || !evaluate_samples(run, err))
    return false;
  if (options->json)
    print_json(run);
  else
    print_text(run);
  return true;
}

static bool evaluate(const EvalOptions *options, const Model *model, Arena *arena, Err *err) {
  if (!check_finished(options, arena, err)) return false;
  EvaluateOptions how = {.weights = arena_printf(arena, "%s/weights.safetensors", options->folder),
                         .data_folder = options->data,
                         .test = options->test,
                         .threads = options->shared.threads};
  if (!driver_emulator(&options->shared, &how.emulator, arena, err)) return false;
  Evaluation run = {.options = options, .machine = options->shared, .model = model, .arena = arena};
  run.evaluator = evaluator_new(&how, err);
  Compiled *whole = run.evaluator ? compile_whole(&run, err) : NULL;
  bool done = whole && measure(&run, whole, err);
  evaluator_free(run.evaluator);
  pipeline_free(whole);
  return done;
}

int command_eval(int count, char **arguments, Err *err) {
  EvalOptions options = {0};
  argp_parse(&argp, count, arguments, 0, NULL, &options);
  options_finish(&options.shared);
  Arena *arena = arena_new();
  const Model *model = driver_load_run(options.folder, arena, err);
  bool done = model && evaluate(&options, model, arena, err);
  arena_free(arena);
  options_free(&options.shared);
  return done ? STATUS_GOOD : STATUS_FAILED;
}
