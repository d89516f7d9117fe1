/* adwp emit: the text of one stage of the compiler. */
#include "compiler/driver/driver.h"

#include <string.h>

enum { KEY_STAGE = 0x200, KEY_STEP, KEY_OUTPUT = 'o' };

typedef struct EmitOptions {
  SharedOptions shared;
  const char *file, *stage, *step, *output; /* step null: all that a search uses; output null: standard output */
} EmitOptions;

static bool known_stage(const char *name) {
  static const char *const stages[] = {"spec", "graph", "loop", "llvm", "asm"};
  for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
    if (!strcmp(stages[i], name)) return true;
  return false;
}

static error_t parse(int key, char *argument, struct argp_state *state) {
  EmitOptions *options = state->input;
  switch (key) {
  case ARGP_KEY_INIT: state->child_inputs[0] = state->child_inputs[1] = &options->shared; return 0;
  case KEY_STAGE:
    if (!known_stage(argument)) argp_error(state, "--stage is spec, graph, loop, llvm or asm and not `%s`", argument);
    options->stage = argument;
    return 0;
  case KEY_STEP:
    if (!options_step(argument))
      argp_error(state, "--step is train_step, search_enter, search_step, cross_step, eval or gradient_step and not `%s`",
                 argument);
    options->step = argument;
    return 0;
  case KEY_OUTPUT: options->output = argument; return 0;
  case ARGP_KEY_ARG:
    if (state->arg_num) argp_error(state, "one FILE, and not also `%s`", argument);
    options->file = argument;
    return 0;
  case ARGP_KEY_END:
    if (!options->file) argp_error(state, "which FILE?");
    if (!options->stage) argp_error(state, "which --stage?");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option option_list[] = {
    {"stage", KEY_STAGE, "STAGE", 0, "spec (the model as JSON), graph, loop, llvm or asm", 0},
    {"step", KEY_STEP, "STEP", 0, "Of this step only: train_step, search_enter, search_step, cross_step, eval or gradient_step",
     0},
    {"output", KEY_OUTPUT, "FILE", 0, "Write to FILE and not to standard output", 0},
    {0},
};
static const struct argp_child children[] = {{&options_settings, 0, NULL, 0}, {&options_machine, 0, NULL, 0}, {0}};
static const struct argp argp = {.options = option_list,
                                 .parser = parse,
                                 .args_doc = "FILE --stage=STAGE",
                                 .doc = "Print what the compiler makes of the model in FILE at one stage.",
                                 .children = children};

static bool print_stage(const Model *model, const EmitOptions *options, Text *text, Err *err) {
  if (!strcmp(options->stage, "spec")) {
    dsl_print_spec(model, text);
    return true;
  }
  unsigned steps = options->step ? options_step(options->step) : STEP_TRAIN | STEP_SEARCH | STEP_CROSS | STEP_EVAL;
  PipelineOptions pipeline = {.steps = steps, .cpu = options->shared.cpu, .threads = options->shared.threads};
  return pipeline_print(model, &pipeline, options->stage, options->step, text, err);
}

int command_emit(int count, char **arguments, Err *err) {
  EmitOptions options = {0};
  argp_parse(&argp, count, arguments, 0, NULL, &options);
  options_finish(&options.shared);
  Arena *arena = arena_new();
  Text text = {0};
  const Model *model = driver_load_model(options.file, &options.shared, arena);
  bool done = model && print_stage(model, &options, &text, err) && driver_write(options.output, &text, err);
  text_free(&text);
  arena_free(arena);
  options_free(&options.shared);
  return done ? STATUS_GOOD : STATUS_FAILED;
}
