/* adwp profile: how long a step takes, which of its kernels, and how near each is to what the machine can do.
 *
 * The step runs as in a search, on pixels that are noise: first to warm up, then `--steps` times as a whole for the median, then
 * a few times with each launch timed for the table of kernels (executor_profile), and with `--trace` a few times more to see what
 * each worker does when. Useful operations are the multiply-adds of convolutions and products, each counted as two. */
#include "compiler/driver/profile.h"

#include "runtime/draw.h"
#include "runtime/executor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_STEP = 0x200, KEY_STEPS, KEY_JSON, KEY_TRACE, DEFAULT_STEPS = 10, WARM_STEPS = 2, TABLE_STEPS = 3 };

static error_t parse(int key, char *argument, struct argp_state *state) {
  ProfileOptions *options = state->input;
  switch (key) {
  case ARGP_KEY_INIT:
    state->child_inputs[0] = state->child_inputs[1] = state->child_inputs[2] = &options->shared;
    options->steps = DEFAULT_STEPS;
    return 0;
  case KEY_STEP:
    if (!options_step(argument) || options_step(argument) == STEP_GRADIENT)
      argp_error(state, "--step is train_step, search_enter, search_step, cross_step or eval and not `%s`", argument);
    options->step = argument;
    return 0;
  case KEY_STEPS: options->steps = options_number(state, "--steps", argument, 1, 1000000); return 0;
  case KEY_JSON: options->json = true; return 0;
  case KEY_TRACE: options->trace = argument; return 0;
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
    {"trace", KEY_TRACE, "FILE", 0, "Also write what each worker did when, in some more steps, for ui.perfetto.dev", 0},
    {0},
};
static const struct argp_child children[] = {
    {&options_settings, 0, NULL, 0}, {&options_machine, 0, NULL, 0}, {&options_fusion, 0, NULL, 0}, {0}};
static const struct argp argp = {.options = option_list,
                                 .parser = parse,
                                 .args_doc = "FILE --step=STEP",
                                 .doc =
                                     "Time a step of the model in FILE, and its kernels.\v"
                                     "A kernel's bytes are those of the buffers that its launches read and write, each once a "
                                     "launch; what stays in a worker's scratch, or what a launch before it on the same images "
                                     "has just touched, is not counted. The least possible is what would be left if each "
                                     "value that is kept in memory were written once and read once in the whole step. `of FMA` "
                                     "and `of memory` are shares of the figures that `adwp doctor` shows.",
                                 .children = children};

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

static int compare_words(const void *a, const void *b) {
  const KernelTime *first = a, *second = b;
  int order = strcmp(first->name, second->name);
  return order ? order : strcmp(first->description, second->description);
}

static int compare_times(const void *a, const void *b) {
  const KernelTime *first = a, *second = b;
  return first->seconds != second->seconds ? (first->seconds < second->seconds ? 1 : -1) : compare_words(a, b);
}

/* Kernels that are described alike, such as those that differ only in strides, become one; those that the step does not launch
 * go. Returns how many are left. */
static size_t join_alike(KernelTime *kernels, size_t count) {
  size_t kept = 0;
  qsort(kernels, count, sizeof *kernels, compare_words);
  for (size_t k = 0; k < count; k++) {
    const KernelTime *from = &kernels[k];
    if (!from->launches) continue;
    if (!kept || compare_words(&kernels[kept - 1], from) != 0) {
      kernels[kept++] = *from;
      continue;
    }
    KernelTime *to = &kernels[kept - 1];
    to->launches += from->launches;
    to->seconds += from->seconds;
    to->flops += from->flops;
    to->read += from->read;
    to->written += from->written;
    to->least += from->least;
  }
  return kept;
}

/* The place of its kernel in a list of all, of which the last is the library's. */
static uint32_t kernel_of(const Program *program, const Launch *launch) {
  return launch->product ? program->kernel_count : launch->kernel;
}

static void add_launch(KernelTime *time, const Launch *launch, double seconds) {
  time->launches++;
  time->seconds += seconds;
  time->flops += launch->flops;
  time->read += (double)launch->read_bytes;
  time->written += (double)launch->written_bytes;
  time->least += (double)launch->least_bytes;
}

static void name_kernel(const Program *program, uint32_t kernel, KernelTime *time) {
  bool library = kernel == program->kernel_count;
  const char *description = library ? NULL : program->kernels[kernel].description;
  time->name = library ? "cublas" : program->kernels[kernel].name;
  time->description = description ? description : "";
}

static bool time_kernels(Profile *profile, Arena *arena, Err *err) {
  const Program *program = profile->program;
  const ProgramStep *step = profile->step;
  size_t launches = 0, at = 0;
  for (uint32_t s = 0; s < step->segment_count; s++) launches += step->segments[s].count;
  double *seconds = ARENA_ARRAY(arena, double, launches + 1);
  for (int i = 0; i < TABLE_STEPS; i++)
    if (!executor_profile(profile->executor, step, program->batch, seconds, err)) return false;
  KernelTime *kernels = ARENA_ARRAY(arena, KernelTime, program->kernel_count + 1); /* the last: the library's products */
  for (uint32_t k = 0; k <= program->kernel_count; k++) name_kernel(program, k, &kernels[k]);
  for (uint32_t s = 0; s < step->segment_count; s++)
    for (uint32_t l = 0; l < step->segments[s].count; l++, at++) {
      const Launch *launch = &step->segments[s].launches[l];
      add_launch(&kernels[kernel_of(program, launch)], launch, seconds[at] / (double)TABLE_STEPS);
      add_launch(&profile->whole, launch, seconds[at] / (double)TABLE_STEPS);
    }
  profile->kernels = kernels;
  profile->kernel_count = join_alike(kernels, program->kernel_count + 1);
  qsort(kernels, profile->kernel_count, sizeof *kernels, compare_times);
  return true;
}

/* Of a CPU: with what the kernels are compared. */
static bool find_machine(Profile *profile, const SharedOptions *options, Arena *arena, Err *err) {
  if (profile->program->device != PROGRAM_CPU) return true;
  EmitTarget *target = emit_target_new(options->cpu, false, err);
  if (!target) return false;
  profile->has_machine = true;
  machine_figures(target, options->threads, options->no_cache ? NULL : emit_cache_folder(arena), &profile->machine, NULL);
  emit_target_free(target);
  return true;
}

static bool measure(Profile *profile, const ProfileOptions *options, Arena *arena, Err *err) {
  ExecutorOptions how = {.threads = options->shared.threads};
  if (!driver_emulator(&options->shared, &how.emulator, arena, err)) return false;
  profile->executor = executor_new(profile->program, &how, err);
  bool done = profile->executor && find_machine(profile, &options->shared, arena, err) && fill_inputs(profile, arena, err) &&
              time_steps(profile, options->steps, arena, err) && time_kernels(profile, arena, err) &&
              (!options->trace || profile_trace(profile, options->trace, err));
  profile->peak_bytes = peak_memory();
  executor_free(profile->executor);
  return done;
}

static bool profile_step(const ProfileOptions *options, const Model *model, double start, Arena *arena, Err *err) {
  Compiled *compiled = driver_compile(model, &options->shared, options_step(options->step), NULL, !options->json, err);
  if (!compiled) return false;
  driver_warn_of_cache(compiled);
  Profile profile = {.program = compiled->program, .compile_seconds = driver_seconds() - start};
  profile.step = program_find_step(profile.program, options->step);
  if (!profile.step) die("the program has no %s", options->step);
  bool done = measure(&profile, options, arena, err);
  if (done && options->json) profile_print_json(&profile, options);
  if (done && !options->json) profile_print_text(&profile, options);
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
