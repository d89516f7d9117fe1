/* adwp profile: how long a step takes, and which of its kernels.
 *
 * The step runs as in a search, on pixels that are noise: first to warm up, then `--steps` times as a whole for the median, then
 * a few times launch by launch for the table of kernels. Launches of one segment run side by side in a whole step and one by one
 * in the table, so the table's sum is larger than the step. Useful operations are the multiply-adds of convolutions and products,
 * each counted as two. */
#include "compiler/driver/driver.h"

#include "runtime/draw.h"
#include "runtime/executor.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_STEP = 0x200, KEY_STEPS, KEY_JSON, DEFAULT_STEPS = 10, WARM_STEPS = 2, TABLE_STEPS = 3, SHOWN_KERNELS = 40 };

typedef struct ProfileOptions {
  SharedOptions shared;
  const char *file, *step;
  int32_t steps;
  bool json;
} ProfileOptions;

static error_t parse(int key, char *argument, struct argp_state *state) {
  ProfileOptions *options = state->input;
  switch (key) {
  case ARGP_KEY_INIT:
    state->child_inputs[0] = state->child_inputs[1] = &options->shared;
    options->steps = DEFAULT_STEPS;
    return 0;
  case KEY_STEP:
    if (!options_step(argument) || options_step(argument) == STEP_GRADIENT)
      argp_error(state, "--step is train_step, search_enter, search_step, cross_step or eval and not `%s`", argument);
    options->step = argument;
    return 0;
  case KEY_STEPS: options->steps = options_number(state, "--steps", argument, 1, 1000000); return 0;
  case KEY_JSON: options->json = true; return 0;
  case ARGP_KEY_ARG:
    if (state->arg_num) argp_error(state, "one FILE, and not also `%s`", argument);
    options->file = argument;
    return 0;
  case ARGP_KEY_END:
    if (!options->file) argp_error(state, "which FILE?");
    if (!options->step) argp_error(state, "which --step?");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option option_list[] = {
    {"step", KEY_STEP, "STEP", 0, "train_step, search_enter, search_step, cross_step or eval", 0},
    {"steps", KEY_STEPS, "N", 0, "Time N steps; 10 if not given", 0},
    {"json", KEY_JSON, 0, 0, "One JSON object", 0},
    {0},
};
static const struct argp_child children[] = {{&options_settings, 0, NULL, 0}, {&options_machine, 0, NULL, 0}, {0}};
static const struct argp argp = {.options = option_list,
                                 .parser = parse,
                                 .args_doc = "FILE --step=STEP",
                                 .doc = "Time a step of the model in FILE, and its kernels.",
                                 .children = children};

typedef struct KernelTime {
  const char *name;
  int32_t launches;
  double seconds, flops; /* of one step */
} KernelTime;

typedef struct Profile {
  const Program *program;
  const ProgramStep *step;
  Executor *executor;
  double compile_seconds, median_seconds, least_seconds, flops; /* flops: of one step */
  int64_t peak_bytes;                                           /* of the process, with compiling */
  KernelTime *kernels;                                          /* the slowest first */
  size_t kernel_count;
} Profile;

/* Peak resident memory of this process in bytes, or 0 where the system does not say. */
static int64_t peak_memory(void) {
  FILE *file = fopen("/proc/self/status", "r");
  if (!file) return 0;
  char line[256];
  long long kibibytes = 0;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "VmHWM: %lld kB", &kibibytes) == 1) break;
  fclose(file);
  return kibibytes * 1024;
}

/* Parameters as at the start of a run, and inputs that keep every operation busy: noise for pixels, all labels. */
static bool set_input(Profile *profile, const char *name, const void *data, int64_t elements, Err *err) {
  if (!program_find_input(profile->step, name)) return true;
  return executor_input(profile->executor, profile->step, name, data, elements, err);
}

static bool fill_inputs(Profile *profile, Arena *arena, Err *err) {
  const Program *program = profile->program;
  const ProgramSearch *search = &program->search;
  int64_t pixels = (int64_t)program->batch * program->data.channels * program->data.height * program->data.width;
  float *x = ARENA_ARRAY(arena, float, pixels);
  int32_t *y = ARENA_ARRAY(arena, int32_t, program->batch);
  uint32_t state = 1;
  for (int64_t i = 0; i < pixels; i++) {
    state = state * 1664525u + 1013904223u;
    x[i] = (float)(state >> 8) * 0x1p-23f - 1; /* -1 .. 1 */
  }
  for (int32_t i = 0; i < program->batch; i++) y[i] = i % program->data.classes;
  const float rate = 1e-6f; /* a step must not run away over many repetitions on one batch */
  const float corrections[3] = {rate, (float)(1 - search->alpha_beta1), (float)(1 - search->alpha_beta2)};
  return draw_weights(program, profile->executor, search->seed, err) &&
         draw_random_alpha(program, profile->executor, search->seed, 0, search->alpha_scale, err) &&
         set_input(profile, "x", x, pixels, err) && set_input(profile, "y", y, program->batch, err) &&
         set_input(profile, "rate", &rate, 1, err) && set_input(profile, "alpha.corrections", corrections, 3, err);
}

static int compare_double(const void *a, const void *b) {
  double first = *(const double *)a, second = *(const double *)b;
  return (first > second) - (first < second);
}

static bool time_steps(Profile *profile, int32_t steps, Arena *arena, Err *err) {
  double *seconds = ARENA_ARRAY(arena, double, steps);
  for (int32_t i = -WARM_STEPS; i < steps; i++) {
    double start = driver_seconds();
    if (executor_run(profile->executor, profile->step, profile->program->batch, err) < 0 ||
        !executor_finish(profile->executor, err))
      return false;
    if (i >= 0) seconds[i] = driver_seconds() - start;
  }
  qsort(seconds, (size_t)steps, sizeof *seconds, compare_double);
  profile->least_seconds = seconds[0];
  profile->median_seconds = (seconds[(steps - 1) / 2] + seconds[steps / 2]) / 2;
  return true;
}

static int compare_kernels(const void *a, const void *b) {
  const KernelTime *first = a, *second = b;
  if (first->seconds != second->seconds) return first->seconds < second->seconds ? 1 : -1;
  return strcmp(first->name, second->name);
}

static bool time_kernels(Profile *profile, Arena *arena, Err *err) {
  const Program *program = profile->program;
  const ProgramStep *step = profile->step;
  size_t launches = 0, at = 0;
  for (uint32_t s = 0; s < step->segment_count; s++) launches += step->segments[s].count;
  double *seconds = ARENA_ARRAY(arena, double, launches ? launches : 1);
  for (int i = 0; i < TABLE_STEPS; i++)
    if (!executor_profile(profile->executor, step, program->batch, seconds, err)) return false;
  KernelTime *kernels = ARENA_ARRAY(arena, KernelTime, program->kernel_count + 1); /* the last: the library's products */
  for (uint32_t s = 0; s < step->segment_count; s++)
    for (uint32_t l = 0; l < step->segments[s].count; l++, at++) {
      const Launch *launch = &step->segments[s].launches[l];
      KernelTime *kernel = &kernels[launch->product ? program->kernel_count : launch->kernel];
      kernel->launches++;
      kernel->seconds += seconds[at] / (double)TABLE_STEPS;
      kernel->flops += launch->flops;
      profile->flops += launch->flops;
    }
  profile->kernels = kernels;
  for (uint32_t k = 0; k <= program->kernel_count; k++) {
    if (!kernels[k].launches) continue;
    kernels[profile->kernel_count] = kernels[k];
    kernels[profile->kernel_count++].name = k < program->kernel_count ? program->kernels[k].name : "cublas";
  }
  qsort(kernels, profile->kernel_count, sizeof *kernels, compare_kernels);
  return true;
}

static double kernels_seconds(const Profile *profile) {
  double sum = 0;
  for (size_t k = 0; k < profile->kernel_count; k++) sum += profile->kernels[k].seconds;
  return sum;
}

/* GFLOP/s; 0 where nothing was measured. */
static double gflops(double flops, double seconds) {
  return seconds > 0 ? flops / seconds / 1e9 : 0;
}

static void print_text(const Profile *profile, const ProfileOptions *options) {
  double sum = kernels_seconds(profile);
  printf("%s of %s, batch %d, %s", profile->step->name, profile->program->name, profile->program->batch,
         profile->program->target);
  if (profile->program->device == PROGRAM_CPU) printf(", %d threads", options->shared.threads);
  printf("\n");
  printf("median %.2f ms, least %.2f ms, of %d steps\n", 1e3 * profile->median_seconds, 1e3 * profile->least_seconds,
         options->steps);
  printf("%.3f useful GFLOP a step, %.1f GFLOP/s\n", profile->flops / 1e9, gflops(profile->flops, profile->median_seconds));
  printf("peak memory %.0f MiB, of the whole process; parameters %.1f MiB, the step's arena %.1f MiB\n",
         (double)profile->peak_bytes / 0x1p20, (double)profile->program->parameter_bytes / 0x1p20,
         (double)profile->step->arena_bytes / 0x1p20);
  printf("start-up %.2f s\n\n%10s %10s %7s %9s  %s\n", profile->compile_seconds, "launches", "ms", "share", "GFLOP/s", "kernel");
  for (size_t k = 0; k < profile->kernel_count && k < SHOWN_KERNELS; k++) {
    const KernelTime *kernel = &profile->kernels[k];
    printf("%10d %10.3f %6.1f%% %9.1f  %s\n", kernel->launches, 1e3 * kernel->seconds, sum > 0 ? 100 * kernel->seconds / sum : 0,
           gflops(kernel->flops, kernel->seconds), kernel->name);
  }
  if (profile->kernel_count > SHOWN_KERNELS)
    printf("... and %zu kernels more; --json has all\n", profile->kernel_count - SHOWN_KERNELS);
}

static void print_json(const Profile *profile, const ProfileOptions *options) {
  double sum = kernels_seconds(profile);
  json_t *kernels = json_array();
  for (size_t k = 0; k < profile->kernel_count; k++) {
    const KernelTime *kernel = &profile->kernels[k];
    json_array_append_new(kernels, json_pack("{s:s, s:i, s:f, s:f, s:f}", "name", kernel->name, "launches", (int)kernel->launches,
                                             "ms", 1e3 * kernel->seconds, "share", sum > 0 ? kernel->seconds / sum : 0, "gflops",
                                             gflops(kernel->flops, kernel->seconds)));
  }
  json_t *root = json_pack(
      "{s:s, s:s, s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:o}", "model", profile->program->name, "step",
      profile->step->name, "target", profile->program->target, "batch", (int)profile->program->batch, "threads",
      (int)options->shared.threads, "steps", (int)options->steps, "median_ms", 1e3 * profile->median_seconds, "least_ms",
      1e3 * profile->least_seconds, "gflop", profile->flops / 1e9, "gflops", gflops(profile->flops, profile->median_seconds),
      "startup_seconds", profile->compile_seconds, "peak_bytes", (json_int_t)profile->peak_bytes, "parameter_bytes",
      (json_int_t)profile->program->parameter_bytes, "arena_bytes", (json_int_t)profile->step->arena_bytes, "kernels", kernels);
  json_dumpf(root, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(root);
}

static bool profile_step(const ProfileOptions *options, const Model *model, double start, Arena *arena, Err *err) {
  Compiled *compiled = driver_compile(model, &options->shared, options_step(options->step), NULL, !options->json, err);
  if (!compiled) return false;
  driver_warn_of_cache(compiled);
  Profile profile = {.program = compiled->program, .compile_seconds = driver_seconds() - start};
  profile.step = program_find_step(profile.program, options->step);
  if (!profile.step) die("the program has no %s", options->step);
  ExecutorOptions how = {.threads = options->shared.threads};
  bool done = driver_emulator(&options->shared, &how.emulator, arena, err) &&
              (profile.executor = executor_new(profile.program, &how, err)) && fill_inputs(&profile, arena, err) &&
              time_steps(&profile, options->steps, arena, err) && time_kernels(&profile, arena, err);
  if (done) {
    profile.peak_bytes = peak_memory();
    if (options->json)
      print_json(&profile, options);
    else
      print_text(&profile, options);
  }
  executor_free(profile.executor);
  pipeline_free(compiled);
  return done;
}

int command_profile(int count, char **arguments, Err *err) {
  double start = driver_seconds();
  ProfileOptions options = {0};
  argp_parse(&argp, count, arguments, 0, NULL, &options);
  options_finish(&options.shared);
  Arena *arena = arena_new();
  const Model *model = driver_load_model(options.file, &options.shared, arena);
  bool done = model && profile_step(&options, model, start, arena, err);
  arena_free(arena);
  options_free(&options.shared);
  return done ? STATUS_GOOD : STATUS_FAILED;
}
