/* check-fixtures: builds the model of each fixture through the normal compiler, runs what the oracle ran, and prints how far the
 * two are apart: for each kind of value the largest relative error, in norm, of a tensor, and the tensor where it is.
 *
 *   check-fixtures [--backend=interpreter|cpu|cuda|cuda-emulator] [--cpu=NAME] [--precision=fp32|tf32|bf16] [--threads=N]
 *                  [--bound=X] [--each] FIXTURE...
 *
 * A fixture is one of two kinds. With `kinds` in its metadata it is a trajectory: steps on batches of their own, then the final
 * weights, momentum and logits. Else it is one HyperNetwork step: logits, loss and every gradient (our gradient_step), then the
 * weights and logits after both optimizers have used these gradients once (our cross_step). Exit status 1 where an error is past
 * its bound or a file could not be checked; --bound replaces every bound; --each
 * prints every tensor's error before the file's summary. */
#include "compiler/lower.h"
#include "runtime/base/arena.h"
#include "tests/oracle/fixture_backend.h"
#include "tests/oracle/fixture_file.h"
#include "tests/oracle/fixture_model.h"

#include <jansson.h>

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double weight_rate = 0.025, alpha_rate = 3e-4, beta1 = 0.5, beta2 = 0.999;

typedef enum Kind { LOGITS, LOSS, NORM, ALL_GRADIENTS, GRADIENT, WEIGHTS, MOMENTUM, ALPHA, KIND_COUNT } Kind;

/* In what arithmetic the backend computes: double, float, or float with products of rounded factors. */
typedef enum Arithmetic { DOUBLE, FP32, TF32, BF16, ARITHMETICS } Arithmetic;

typedef struct KindInfo {
  const char *name;
  double bound[ARITHMETICS];
} KindInfo;

/* Where factors are rounded, activations now and then cross the edge of a rectifier or of a maximum, and a small tensor's
 * gradient becomes another one: only what many values make up is bounded. */
/* With bf16 a single tensor's gradient, and what was stepped by it from nothing, may be all rounding: those are shown and not
 * judged.
 */
static const KindInfo kinds[KIND_COUNT] = {
    [LOGITS] = {"logits", {1e-9, 1e-5, 5e-3, 5e-2}},
    [LOSS] = {"loss", {1e-9, 1e-5, 5e-3, 5e-2}},
    [NORM] = {"norm", {1e-9, 1e-4, 1e-2, 1e-1}},
    [ALL_GRADIENTS] = {"gradients", {1e-9, 2e-5, 1e-1, 2e-1}},
    [GRADIENT] = {"gradient", {1e-9, 1e-4, INFINITY, INFINITY}},
    [WEIGHTS] = {"weights", {1e-9, 1e-5, INFINITY, INFINITY}},
    [MOMENTUM] = {"momentum", {1e-9, 1e-4, INFINITY, INFINITY}},
    [ALPHA] = {"alpha", {1e-9, 1e-4, INFINITY, INFINITY}},
};

/* The worst tensor of a kind. */
typedef struct Worst {
  double error;
  const char *name; /* null: nothing of this kind was compared */
} Worst;

typedef struct Options {
  Backend *(*backend)(const Model *, unsigned, const BackendOptions *, Err *);
  const char *name; /* the backend's */
  double bound;     /* 0: the kinds' own */
  bool each;        /* print the error of every tensor */
  BackendOptions target;
} Options;

/* The check of one fixture. */
typedef struct Check {
  const Options *options;
  Arena *arena;
  Fixture *fixture;
  Backend *backend;
  Worst worst[KIND_COUNT];
  double classes;           /* labels are below */
  bool hoists;              /* a search step reads what search_enter computes */
  size_t set;               /* parameters that were given a value */
  double difference, truth; /* sums of squares over all gradients */
  Err err;
} Check;

/* ---- comparing ---- */

/* |ours - truth| / |truth|; infinite where the truth is zero and ours is not. */
static double relative(double difference, double truth) {
  if (truth > 0) return sqrt(difference / truth);
  return difference == 0 ? 0 : INFINITY;
}

/* NaN is the worst error there is. */
static bool is_worse(double a, double b) {
  return isnan(a) || (!isnan(b) && a > b);
}

static void record(Check *c, Kind kind, const char *name, double error) {
  if (c->options->each) printf("    %-10s %.2e  %s\n", kinds[kind].name, error, name);
  Worst *worst = &c->worst[kind];
  if (!worst->name || is_worse(error, worst->error)) *worst = (Worst){error, name};
}

static void compare(Check *c, Kind kind, const char *name, const double *ours, const FixtureTensor *truth) {
  double difference = 0, squares = 0;
  for (int64_t i = 0; i < truth->elements; i++) {
    double d = ours[i] - truth->data[i];
    difference += d * d;
    squares += truth->data[i] * truth->data[i];
  }
  record(c, kind, name, relative(difference, squares));
  if (kind == GRADIENT) c->difference += difference, c->truth += squares;
}

static bool compare_result(Check *c, Kind kind, const char *result, const char *truth_name) {
  const FixtureTensor *truth = fixture_demand(c->fixture, truth_name, &c->err);
  if (!truth) return false;
  double *ours = ARENA_ARRAY(c->arena, double, truth->elements);
  if (!c->backend->result(c->backend, result, ours, truth->elements, &c->err)) return false;
  compare(c, kind, truth_name, ours, truth);
  return true;
}

static bool starts_with(const char *name, const char *prefix) {
  return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool is_alpha(const char *name) {
  return starts_with(name, "alpha.");
}

/* What to do with one of the fixture's tensors; `name` is our name of its parameter. */
typedef bool TensorUse(Check *c, const FixtureTensor *tensor, const char *name);

/* Hands over all tensors whose names begin with `prefix`, which is not part of the name. */
static bool for_each(Check *c, const char *prefix, TensorUse *use) {
  for (size_t i = 0; i < c->fixture->count; i++) {
    const FixtureTensor *tensor = &c->fixture->tensors[i];
    if (!starts_with(tensor->name, prefix)) continue;
    if (!use(c, tensor, fixture_our_name(tensor->name + strlen(prefix), c->arena))) return false;
  }
  return true;
}

static bool compare_gradient(Check *c, const FixtureTensor *tensor, const char *name) {
  return compare_result(c, GRADIENT, arena_printf(c->arena, "grad.%s", name), tensor->name);
}

static bool compare_parameter(Check *c, const FixtureTensor *tensor, const char *name) {
  double *ours = ARENA_ARRAY(c->arena, double, tensor->elements);
  Kind kind = is_alpha(name) ? ALPHA : starts_with(name, "momentum.") ? MOMENTUM : WEIGHTS;
  if (!c->backend->get(c->backend, name, ours, tensor->elements, &c->err)) return false;
  compare(c, kind, tensor->name, ours, tensor);
  return true;
}

static bool compare_momentum(Check *c, const FixtureTensor *tensor, const char *name) {
  return compare_parameter(c, tensor, arena_printf(c->arena, "momentum.%s", name));
}

/* "momentum." has a pass of its own, since the oracle's names stand behind it. */
static bool compare_weight(Check *c, const FixtureTensor *tensor, const char *name) {
  return starts_with(name, "momentum.") || compare_parameter(c, tensor, name);
}

/* ---- running ---- */

static bool set_parameter(Check *c, const FixtureTensor *tensor, const char *name) {
  c->set++;
  return c->backend->set(c->backend, name, tensor->data, tensor->elements, &c->err);
}

static bool set_alpha(Check *c, const FixtureTensor *tensor, const char *name) {
  return !is_alpha(name) || set_parameter(c, tensor, name);
}

/* Every weight and all logits of the model, none left out; the logits' names stand behind `alpha_prefix`. */
static bool set_parameters(Check *c, const char *alpha_prefix) {
  size_t ours = 0;
  c->set = 0;
  if (!for_each(c, "param.", set_parameter) || !for_each(c, alpha_prefix, set_alpha)) return false;
  while (c->backend->parameter(c->backend, ours)) ours++;
  return c->set == ours || err_set(&c->err, "it has %zu weights and logits, and the model %zu", c->set, ours);
}

/* The batch named PREFIXx, PREFIXy; `adam_step` counts from 1. */
static bool read_inputs(Check *c, const char *prefix, int adam_step, BackendInputs *inputs) {
  const FixtureTensor *x = fixture_demand(c->fixture, arena_printf(c->arena, "%sx", prefix), &c->err);
  const FixtureTensor *y = x ? fixture_demand(c->fixture, arena_printf(c->arena, "%sy", prefix), &c->err) : NULL;
  if (!y) return false;
  if (x->rank != 4 || x->dims[1] != 3 || x->dims[2] != x->dims[3] || y->rank != 1 || y->dims[0] != x->dims[0])
    return err_set(&c->err, "%s and %s are no batch of square images and their labels", x->name, y->name);
  for (int64_t i = 0; i < y->elements; i++)
    if (y->data[i] < 0 || y->data[i] >= c->classes) return err_set(&c->err, "%s holds a label outside the classes", y->name);
  *inputs = (BackendInputs){
      x->dims[0], x->data, y->data, weight_rate, {alpha_rate, 1 - pow(beta1, adam_step), 1 - pow(beta2, adam_step)}};
  return true;
}

/* Builds the model for the fixture's batches, of which the first is named PREFIXx. */
static bool build(Check *c, const char *prefix, unsigned steps) {
  BackendInputs inputs;
  const char *spec = fixture_metadata(c->fixture, "spec");
  if (!spec) return err_set(&c->err, "its metadata holds no model (`spec`): it is of another kind");
  c->classes = INFINITY;
  if (!read_inputs(c, prefix, 1, &inputs)) return false;
  int64_t side = fixture_find(c->fixture, arena_printf(c->arena, "%sx", prefix))->dims[2];
  const Model *model = fixture_model(spec, inputs.batch, side, c->arena, &c->err);
  if (!model) return false;
  c->classes = model->data.classes;
  const FuseOptions *fuse = &c->options->target.fuse;
  c->hoists = model->generator.activation == ACTIVATION_NONE && (!fuse->forced || fuse->generate == GENERATE_HOISTED);
  c->backend = c->options->backend(model, steps, &c->options->target, &c->err);
  return c->backend != NULL;
}

/* ---- the two kinds of fixtures ---- */

static bool check_hyper(Check *c) {
  BackendInputs inputs;
  if (!build(c, "", STEP_GRADIENT | STEP_CROSS) || !read_inputs(c, "", 1, &inputs) || !set_parameters(c, "") ||
      !c->backend->run(c->backend, "gradient_step", &inputs, &c->err) || !compare_result(c, LOGITS, "logits", "logits") ||
      !compare_result(c, LOSS, "loss", "loss") || !for_each(c, "grad.", compare_gradient))
    return false;
  record(c, ALL_GRADIENTS, "all as one vector", relative(c->difference, c->truth));
  return c->backend->run(c->backend, "cross_step", &inputs, &c->err) && for_each(c, "stepped.", compare_parameter);
}

/* Moves all logits between the backend and `saved`. */
static bool move_alpha(Check *c, double **saved, bool save) {
  for (size_t i = 0; i < c->fixture->count; i++) {
    const FixtureTensor *tensor = &c->fixture->tensors[i];
    if (!starts_with(tensor->name, "start.alpha.")) continue;
    const char *name = tensor->name + strlen("start.");
    if (!saved[i]) saved[i] = ARENA_ARRAY(c->arena, double, tensor->elements);
    if (save ? !c->backend->get(c->backend, name, saved[i], tensor->elements, &c->err)
             : !c->backend->set(c->backend, name, saved[i], tensor->elements, &c->err))
      return false;
  }
  return true;
}

/* A train step has logits of its own and leaves those of the search alone. */
static bool trajectory_step(Check *c, size_t i, const char *kind, int *adam_step, double **saved) {
  const char *prefix = arena_printf(c->arena, "step.%zu.", i), *step = arena_printf(c->arena, "%s_step", kind);
  bool train = strcmp(kind, "train") == 0;
  BackendInputs inputs;
  *adam_step += !train;
  if (train && (!move_alpha(c, saved, true) || !for_each(c, prefix, set_alpha))) return false;
  if (!read_inputs(c, prefix, *adam_step, &inputs)) return false;
  bool enter = strcmp(kind, "search") == 0 && c->hoists;
  if (enter && !c->backend->run(c->backend, "search_enter", &inputs, &c->err)) return false;
  if (!c->backend->run(c->backend, step, &inputs, &c->err) ||
      !compare_result(c, LOSS, "loss", arena_printf(c->arena, "%sloss", prefix)))
    return false;
  if (strcmp(kind, "search") != 0 && !compare_result(c, NORM, "norm", arena_printf(c->arena, "%snorm", prefix))) return false;
  return !train || move_alpha(c, saved, false);
}

static bool check_trajectory(Check *c, json_t *steps) {
  double **saved = ARENA_ARRAY(c->arena, double *, c->fixture->count);
  int adam_step = 0;
  size_t i;
  json_t *kind;
  if (!build(c, "step.0.", STEP_TRAIN | STEP_SEARCH | STEP_CROSS) || !set_parameters(c, "start.")) return false;
  json_array_foreach(steps, i, kind) {
    const char *name = json_string_value(kind);
    if (!name) return err_set(&c->err, "its `kinds` are no names of steps");
    if (!trajectory_step(c, i, name, &adam_step, saved)) return err_wrap(&c->err, "step %zu", i);
  }
  return for_each(c, "end.", compare_weight) && for_each(c, "end.momentum.", compare_momentum);
}

static bool run_check(Check *c, const char *path) {
  c->fixture = fixture_read(path, c->arena, &c->err);
  if (!c->fixture) return false;
  const char *trajectory = fixture_metadata(c->fixture, "kinds");
  json_t *steps = trajectory ? json_loads(trajectory, 0, NULL) : NULL;
  bool ok = trajectory ? (json_is_array(steps) || err_set(&c->err, "its `kinds` are no list")) && check_trajectory(c, steps)
                       : check_hyper(c);
  json_decref(steps);
  return ok;
}

/* ---- reports ---- */

static Arithmetic arithmetic_of(const Options *options) {
  const char *precision = options->target.precision;
  if (!options->target.device) return DOUBLE;
  if (precision && strcmp(precision, "tf32") == 0) return TF32;
  return precision && strcmp(precision, "bf16") == 0 ? BF16 : FP32;
}

static double bound_of(const Options *options, Kind kind) {
  if (options->bound > 0) return options->bound;
  return kinds[kind].bound[arithmetic_of(options)];
}

static bool is_past(const Options *options, Kind kind, Worst worst) {
  return worst.name && !(worst.error <= bound_of(options, kind));
}

/* True: every error is within its bound. */
static bool report(const Check *c, const char *path) {
  bool ok = true;
  printf("%s\n", path);
  for (Kind kind = 0; kind < KIND_COUNT; kind++) {
    Worst worst = c->worst[kind];
    bool past = is_past(c->options, kind, worst);
    if (!worst.name) continue;
    printf("  %-10s %.2e  %s", kinds[kind].name, worst.error, worst.name);
    if (past) printf("  past %.0e", bound_of(c->options, kind));
    printf("\n");
    ok &= !past;
  }
  return ok;
}

/* Adds the worst error of this fixture to `all`, as a share of its bound. */
static void add_to_summary(const Check *c, const char *path, Arena *arena, Worst *all) {
  for (Kind kind = 0; kind < KIND_COUNT; kind++) {
    Worst worst = c->worst[kind];
    if (!worst.name) continue;
    double share = worst.error / bound_of(c->options, kind);
    if (all->name && !is_worse(share, all->error)) continue;
    *all = (Worst){share, arena_printf(arena, "%s %.2e (%s of %s)", kinds[kind].name, worst.error, worst.name, path)};
  }
}

static bool check_one(const Options *options, const char *path, Arena *arena, Worst *all) {
  Check c = {.options = options, .arena = arena_new()};
  bool ran = run_check(&c, path);
  bool ok = ran && report(&c, path);
  if (ran)
    add_to_summary(&c, path, arena, all);
  else
    fprintf(stderr, "%s is not checked: %s\n", path, c.err.text);
  fflush(stdout);
  if (c.backend) c.backend->free(c.backend);
  fixture_free(c.fixture);
  arena_free(c.arena);
  return ok;
}

/* ---- the command line ---- */

static int usage(void) {
  fprintf(stderr, "usage: check-fixtures [--backend=interpreter|cpu|cuda|cuda-emulator] [--cpu=NAME] [--threads=N]\n"
                  "                      [--precision=fp32|tf32|bf16] [--bound=X] [--each]\n"
                  "                      [--no-fuse=PATTERN[,PATTERN]] [--fuse-generate=FORM] FIXTURE...\n");
  return 2;
}

static bool set_backend(Options *options, const char *name) {
  options->name = name;
  if (strcmp(name, "interpreter") == 0) {
    options->backend = backend_interpreter, options->target.device = NULL;
    return true;
  }
#ifdef WITH_CPU_BACKEND
  if (strcmp(name, "cpu") == 0 || strcmp(name, "cuda") == 0 || strcmp(name, "cuda-emulator") == 0) {
    options->backend = backend_program, options->target.device = name;
    return true;
  }
#endif
  fprintf(stderr, "check-fixtures: no backend `%s` in this build\n", name);
  return false;
}

static bool read_options(int argc, char **argv, Options *options) {
  static const struct option names[] = {{"backend", required_argument, NULL, 'b'},
                                        {"cpu", required_argument, NULL, 'c'},
                                        {"threads", required_argument, NULL, 't'},
                                        {"bound", required_argument, NULL, 'x'},
                                        {"each", no_argument, NULL, 'e'},
                                        {"precision", required_argument, NULL, 'p'},
                                        {"no-fuse", required_argument, NULL, 'f'},
                                        {"fuse-generate", required_argument, NULL, 'g'},
                                        {0}};
  for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
    char *end = NULL;
    Err err = {0};
    bool good = true;
    switch (option) {
    case 'b':
      if (!set_backend(options, optarg)) return false;
      break;
    case 'c': options->target.cpu = optarg; break;
    case 'p': options->target.precision = optarg; break;
    case 't':
      options->target.threads = (int)strtol(optarg, &end, 10);
      if (*end || options->target.threads < 1 || options->target.threads > 1024) return false;
      break;
    case 'x':
      options->bound = strtod(optarg, &end);
      if (*end || !(options->bound > 0)) return false;
      break;
    case 'e': options->each = true; break;
    case 'f': good = fuse_leave_out(&options->target.fuse, optarg, &err); break;
    case 'g': good = fuse_force_generate(&options->target.fuse, optarg, &err); break;
    default: return false;
    }
    if (!good) {
      fprintf(stderr, "check-fixtures: %s\n", err.text);
      return false;
    }
  }
  return optind < argc;
}

int main(int argc, char **argv) {
  Options options = {.backend = backend_interpreter, .name = "interpreter", .target = {.threads = 2}};
  if (!read_options(argc, argv, &options)) return usage();
  Arena *arena = arena_new();
  Worst all = {0};
  int failed = 0, count = argc - optind;
  for (int i = optind; i < argc; i++) failed += !check_one(&options, argv[i], arena, &all);
  printf("%d of %d fixtures within their bounds on the %s%s%s\n", count - failed, count, options.name,
         all.name ? "; nearest to its bound: " : "", all.name ? all.name : "");
  arena_free(arena);
  return failed != 0;
}
