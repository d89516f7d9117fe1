#include "compiler/driver/driver.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum {
  KEY_SET = 0x100,
  KEY_CPU,
  KEY_DEVICE,
  KEY_PRECISION,
  KEY_THREADS,
  KEY_NO_CACHE,
  KEY_NO_FUSE,
  KEY_GENERATE,
  MOST_THREADS = 1024
};

static error_t parse_setting(int key, char *argument, struct argp_state *state) {
  SharedOptions *options = state->input;
  if (key != KEY_SET) return ARGP_ERR_UNKNOWN;
  const char *equals = strchr(argument, '=');
  if (!equals || equals == argument) argp_error(state, "--set needs KEY=VALUE, such as search.train=3, and not `%s`", argument);
  vector_push(&options->settings, argument);
  return 0;
}

static bool known_device(const char *name) {
  return !strcmp(name, "cpu") || !strcmp(name, "cuda") || !strcmp(name, "cuda-emulator");
}

static error_t parse_machine(int key, char *argument, struct argp_state *state) {
  SharedOptions *options = state->input;
  switch (key) {
  case KEY_CPU: options->cpu = argument; return 0;
  case KEY_DEVICE:
    if (!known_device(argument)) argp_error(state, "--device is cpu, cuda or (for tests) cuda-emulator and not `%s`", argument);
    options->device = argument;
    return 0;
  case KEY_PRECISION:
    if (!pipeline_precision(argument, &options->precision))
      argp_error(state, "--precision is fp32, tf32 or bf16 and not `%s`", argument);
    return 0;
  case KEY_THREADS: options->threads = options_number(state, "--threads", argument, 1, MOST_THREADS); return 0;
  case KEY_NO_CACHE: options->no_cache = true; return 0;
  case ARGP_KEY_INIT: options->device = "cpu"; return 0;
  case ARGP_KEY_END:
    if (options->precision != PRODUCTS_FP32 && !strcmp(options->device, "cpu"))
      argp_error(state, "--precision is for --device=cuda; a CPU computes in fp32");
    if (options->cpu && strcmp(options->device, "cpu") != 0) argp_error(state, "--cpu is for --device=cpu");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static error_t parse_fusion(int key, char *argument, struct argp_state *state) {
  SharedOptions *options = state->input;
  Err err = {0};
  if (key == KEY_NO_FUSE) {
    if (!fuse_leave_out(&options->fuse, argument, &err)) argp_error(state, "--no-fuse: %s", err.text);
  } else if (key == KEY_GENERATE) {
    if (!fuse_force_generate(&options->fuse, argument, &err)) argp_error(state, "--fuse-generate: %s", err.text);
  } else {
    return ARGP_ERR_UNKNOWN;
  }
  return 0;
}

static const struct argp_option fusion_list[] = {
    {"no-fuse", KEY_NO_FUSE, "PATTERN[,PATTERN]", 0, "Leave out these ways of fusing, or all: " FUSE_NAMES, 0},
    {"fuse-generate", KEY_GENERATE, "FORM", 0,
     "Make generated weights in this way: horizontal (all of a step side by side), vertical (by what reads them, on each task), "
     "hoisted (as u p + v where no weight changes) or none (one after another)",
     0},
    {0},
};
const struct argp options_fusion = {.options = fusion_list, .parser = parse_fusion};

static const struct argp_option setting_list[] = {
    {"set", KEY_SET, "KEY=VALUE", 0,
     "Override a setting of the file: a declaration's kind or name, then the setting, "
     "such as search.train=3; the value as the file writes it",
     0},
    {0},
};
static const struct argp_option machine_list[] = {
    {"device", KEY_DEVICE, "DEVICE", 0, "Run on the cpu (if not given) or on cuda, a GPU of NVIDIA's", 0},
    {"precision", KEY_PRECISION, "P", 0,
     "Of --device=cuda: fp32 (if not given); tf32 and bf16 take tensor cores for products, bf16 also stores activations so", 0},
    {"cpu", KEY_CPU, "LEVEL", 0,
     "Make code for x86-64-v3 (AVX2) or x86-64-v4 (AVX-512) and not for this machine's own level; eval: for that of the run", 0},
    {"threads", KEY_THREADS, "N", 0, "Use N threads; one a CPU if not given. Results do not depend on it", 0},
    {"no-cache", KEY_NO_CACHE, 0, 0, "Neither read nor write the cache of compiled kernels", 0},
    {0},
};
const struct argp options_settings = {.options = setting_list, .parser = parse_setting};
const struct argp options_machine = {.options = machine_list, .parser = parse_machine};

int32_t options_number(const struct argp_state *state, const char *name, const char *text, int32_t low, int32_t high) {
  char *end;
  errno = 0;
  long value = strtol(text, &end, 10);
  if (end == text || *end || errno || value < low || value > high)
    argp_error(state, "%s needs a whole number from %d to %d and not `%s`", name, low, high, text);
  return (int32_t)value;
}

void options_finish(SharedOptions *options) {
  if (options->threads) return;
  cpu_set_t usable;
  int count = sched_getaffinity(0, sizeof usable, &usable) == 0 ? CPU_COUNT(&usable) : 1;
  options->threads = count < 1 ? 1 : count > MOST_THREADS ? MOST_THREADS : count;
}

void options_free(SharedOptions *options) {
  vector_free(&options->settings);
}

unsigned options_step(const char *name) {
  static const struct {
    const char *name;
    unsigned bit;
  } steps[] = {{"train_step", STEP_TRAIN}, {"search_enter", STEP_SEARCH}, {"search_step", STEP_SEARCH},
               {"cross_step", STEP_CROSS}, {"eval", STEP_EVAL},           {"gradient_step", STEP_GRADIENT}};
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
    if (!strcmp(name, steps[i].name)) return steps[i].bit;
  return 0;
}
