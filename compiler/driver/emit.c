/* adwp emit: the text of one stage of the compiler, or a file a kernel of what a GPU gets. None of it needs a GPU. */
#include "compiler/driver/driver.h"

#include "compiler/machine.h"

#include "runtime/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_STAGE = 0x240, KEY_STEP, KEY_ARCH, KEY_EXPLAIN, KEY_OUTPUT = 'o' };

typedef enum StageKind { STAGE_MODEL, STAGE_GRAPH, STAGE_TEXT, STAGE_FILES, STAGE_RESOURCES } StageKind;

/* `lower`, a stage after each graph pass, and `graph` after all of them; then kernels. */
static const struct {
  const char *name;
  StageKind kind;
  const char *suffix; /* of a kernel's file */
} stages[] = {
    {"spec", STAGE_MODEL, ""},   {"lower", STAGE_GRAPH, ""},
#define STAGE_OF_GRAPH(NAME) {#NAME, STAGE_GRAPH, ""},
#define STAGE_OF_MODULE(NAME) {#NAME, STAGE_GRAPH, ""},
#define PASS(NAME, scope, purpose) STAGE_OF_##scope(NAME)
#include "compiler/pass/passes.def"
#undef PASS
    {"graph", STAGE_GRAPH, ""},  {"loop", STAGE_TEXT, ""},    {"llvm", STAGE_TEXT, ""},        {"asm", STAGE_TEXT, ""},
    {"cuda", STAGE_FILES, "cu"}, {"ptx", STAGE_FILES, "ptx"}, {"cubin", STAGE_FILES, "cubin"}, {"resources", STAGE_RESOURCES, ""},
};
enum { STAGES = sizeof stages / sizeof *stages };

static const char default_arch[] = "sm_90";

typedef struct EmitOptions {
  SharedOptions shared;
  WatchOptions watch;
  const char *file, *step, *output; /* step null: all that a search uses; output null: standard output */
  const char *archs;                /* --arch: "sm_80,sm_90" */
  int stage;                        /* index into `stages`; -1: none given */
  bool explain;                     /* --explain-fusion, in the place of a stage */
} EmitOptions;

static bool is_gpu_stage(int stage) {
  return stages[stage].kind == STAGE_FILES || stages[stage].kind == STAGE_RESOURCES;
}

static void check_usage(EmitOptions *options, const struct argp_state *state) {
  if (!options->file) argp_error(state, "which FILE?");
  if (options->explain && options->stage >= 0) argp_error(state, "--stage or --explain-fusion, and not both");
  if (options->explain) return;
  if (options->stage < 0) argp_error(state, "which --stage?");
  bool gpu = is_gpu_stage(options->stage);
  const char *name = stages[options->stage].name;
  if (options->archs && !gpu) argp_error(state, "--arch is for --stage=cuda, ptx, cubin and resources");
  if (!strcmp(name, "cubin") && !options->output) argp_error(state, "cubins are files: -o DIR");
  bool cpu_only = !strcmp(name, "llvm") || !strcmp(name, "asm");
  if (cpu_only && strcmp(options->shared.device, "cpu") != 0) argp_error(state, "--stage=%s is of --device=cpu", name);
}

static int find_stage(const struct argp_state *state, const char *name) {
  for (int i = 0; i < STAGES; i++)
    if (!strcmp(stages[i].name, name)) return i;
  Text names = {0};
  for (int i = 0; i < STAGES; i++) text_printf(&names, "%s%s", i == 0 ? "" : i == STAGES - 1 ? " or " : ", ", stages[i].name);
  argp_error(state, "--stage is %s and not `%s`", names.data, name);
  text_free(&names);
  return 0;
}

static error_t parse(int key, char *argument, struct argp_state *state) {
  EmitOptions *options = state->input;
  switch (key) {
  case ARGP_KEY_INIT:
    state->child_inputs[0] = state->child_inputs[1] = state->child_inputs[3] = &options->shared;
    state->child_inputs[2] = &options->watch;
    return 0;
  case KEY_STAGE:
    options->stage = find_stage(state, argument);
    if (is_gpu_stage(options->stage)) options->shared.device = "cuda";
    return 0;
  case KEY_STEP:
    if (!options_step(argument))
      argp_error(state, "--step is train_step, search_enter, search_step, cross_step, eval or gradient_step and not `%s`",
                 argument);
    options->step = argument;
    return 0;
  case KEY_ARCH:
    if (!argument[strspn(argument, ",")]) argp_error(state, "--arch needs an architecture such as sm_90, and not `%s`", argument);
    options->archs = argument;
    return 0;
  case KEY_EXPLAIN: options->explain = true; return 0;
  case KEY_OUTPUT: options->output = argument; return 0;
  case ARGP_KEY_ARG:
    if (state->arg_num) argp_error(state, "one FILE, and not also `%s`", argument);
    options->file = argument;
    return 0;
  case ARGP_KEY_END: check_usage(options, state); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option option_list[] = {
    {"stage", KEY_STAGE, "STAGE", 0,
     "spec (the model as JSON); lower, then after each pass autodiff, simplify, hoist, sums, layout (also called graph) and "
     "fuse; loop; llvm or asm (of a CPU); cuda, ptx or cubin (of a GPU); resources (registers, spills "
     "and shared memory of each kernel on a GPU)",
     0},
    {"step", KEY_STEP, "STEP", 0, "Of this step only: train_step, search_enter, search_step, cross_step, eval or gradient_step",
     0},
    {"explain-fusion", KEY_EXPLAIN, 0, 0,
     "Say of every GeneratingBlock, convolution, BN, ReLU, pool and sum with what it was fused and what that should save, or "
     "what was in the way",
     0},
    {"arch", KEY_ARCH, "ARCH[,ARCH]", 0, "For these GPU architectures: sm_80, sm_90 and so on. sm_90 if not given", 0},
    {"output", KEY_OUTPUT, "PATH", 0,
     "Write to the file PATH and not to standard output; cuda, ptx and cubin: into the folder PATH, a file a kernel", 0},
    {0},
};
static const struct argp_child children[] = {{&options_settings, 0, NULL, 0},
                                             {&options_machine, 0, NULL, 0},
                                             {&options_watch, 0, NULL, 0},
                                             {&options_fusion, 0, NULL, 0},
                                             {0}};
static const struct argp argp = {.options = option_list,
                                 .parser = parse,
                                 .args_doc = "FILE --stage=STAGE",
                                 .doc = "Print what the compiler makes of the model in FILE at one stage.",
                                 .children = children};

/* Where the stage's texts go: together into `whole`, or each into a file of its own. */
typedef struct Sink {
  const EmitOptions *options;
  const char *arch; /* null: no part of a file's name */
  int count;
  Text whole;
} Sink;

static bool take_text(void *context, const char *name, const Text *text, Err *err) {
  Sink *sink = context;
  const EmitOptions *options = sink->options;
  if (stages[options->stage].kind != STAGE_FILES || !options->output) {
    text_add_bytes(&sink->whole, text->data, text->length);
    if (name) text_add(&sink->whole, "\n");
    return true;
  }
  Arena *arena = arena_new();
  const char *path = arena_printf(arena, "%s/%03d_%s%s%s.%s", options->output, sink->count++, name, sink->arch ? "." : "",
                                  sink->arch ? sink->arch : "", stages[options->stage].suffix);
  bool done = file_replace(path, text->data, text->length, err);
  arena_free(arena);
  return done;
}

static void print_resources(const Compiled *compiled, const char *arch, Text *text) {
  const Program *program = compiled->program;
  text_printf(text, "%-6s %-28s %7s %9s %6s %6s %6s\n", "arch", "kernel", "threads", "registers", "spills", "stack", "shared");
  for (uint32_t i = 0; i < program->kernel_count; i++) {
    const EmitResources *r = pipeline_resources(compiled, i);
    text_printf(text, "%-6s %-28s %7d %9d %6d %6d %6d\n", arch, program->kernels[i].name, program->kernels[i].threads,
                r->registers, r->spill_stores + r->spill_loads, r->stack_bytes, r->shared_bytes);
  }
}

static bool emit_one(const Model *model, const EmitOptions *options, const char *arch, Sink *sink, Arena *arena, Err *err) {
  unsigned steps = options->step ? options_step(options->step) : STEP_TRAIN | STEP_SEARCH | STEP_CROSS | STEP_EVAL;
  bool needs_nvrtc = is_gpu_stage(options->stage) && strcmp(stages[options->stage].name, "cuda") != 0;
  bool gpu = strcmp(options->shared.device, "cpu") != 0;
  PipelineOptions pipeline = {.steps = steps,
                              .device = !gpu          ? "cpu"
                                        : needs_nvrtc ? "cuda"
                                                      : "cuda-emulator",
                              .cpu = options->shared.cpu,
                              .arch = arch,
                              .precision = options->shared.precision,
                              .fuse = options->shared.fuse,
                              .cache = options->shared.no_cache ? NULL : emit_cache_folder(arena),
                              .threads = options->shared.threads,
                              .watch = driver_watch,
                              .watch_context = (void *)(uintptr_t)&options->watch};
  if (stages[options->stage].kind != STAGE_RESOURCES)
    return pipeline_print(model, &pipeline, stages[options->stage].name, options->step, take_text, sink, err);
  Compiled *compiled = pipeline_compile(model, &pipeline, err);
  if (!compiled) return false;
  print_resources(compiled, arch, &sink->whole);
  pipeline_free(compiled);
  return true;
}

static bool explain(const Model *model, const EmitOptions *options, Arena *arena, Err *err) {
  PipelineOptions pipeline = {.steps =
                                  options->step ? options_step(options->step) : STEP_TRAIN | STEP_SEARCH | STEP_CROSS | STEP_EVAL,
                              .threads = options->shared.threads};
  if (!driver_target(&options->shared, &pipeline, arena, err)) return false;
  EmitTarget *target = emit_target_new(options->shared.cpu, false, err);
  if (!target) return false;
  MachineFigures machine;
  machine_figures(target, options->shared.threads, options->shared.no_cache ? NULL : emit_cache_folder(arena), &machine, NULL);
  emit_target_free(target);
  Text text = {0};
  bool done =
      pipeline_explain(model, &pipeline, options->step, &machine, &text, NULL, err) && driver_write(options->output, &text, err);
  text_free(&text);
  return done;
}

static bool emit_stage(const Model *model, const EmitOptions *options, Arena *arena, Err *err) {
  if (options->explain) return explain(model, options, arena, err);
  Sink sink = {.options = options};
  bool done = true, files = stages[options->stage].kind == STAGE_FILES && options->output;
  text_add(&sink.whole, "");
  if (files) done = folder_make(options->output, err);
  char *archs = arena_printf(arena, "%s", options->archs ? options->archs : default_arch), *rest;
  bool several = strchr(archs, ',') != NULL;
  if (stages[options->stage].kind == STAGE_MODEL)
    dsl_print_spec(model, &sink.whole);
  else
    for (char *arch = strtok_r(archs, ",", &rest); arch && done; arch = strtok_r(NULL, ",", &rest)) {
      sink.arch = several ? arch : NULL;
      sink.count = 0;
      done = emit_one(model, options, arch, &sink, arena, err);
    }
  if (done && files)
    fprintf(stderr, "%d files for each architecture in %s\n", sink.count, options->output);
  else if (done)
    done = driver_write(options->output, &sink.whole, err);
  text_free(&sink.whole);
  return done;
}

int command_emit(int count, char **arguments, Err *err) {
  EmitOptions options = {.stage = -1};
  argp_parse(&argp, count, arguments, 0, NULL, &options);
  options_finish(&options.shared);
  Arena *arena = arena_new();
  const Model *model = driver_load_model(options.file, &options.shared, arena);
  bool done = model && emit_stage(model, &options, arena, err);
  arena_free(arena);
  vector_free(&options.watch.dumps);
  options_free(&options.shared);
  return done ? STATUS_GOOD : STATUS_FAILED;
}
