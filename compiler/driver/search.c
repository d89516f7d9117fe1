/* adwp search: Algorithm 1 on the model of a file, or a run that is continued. */
#include "compiler/driver/driver.h"

#include "runtime/search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
  KEY_DATA = 0x200,
  KEY_RESUME,
  KEY_CHECKPOINT_MINUTES,
  KEY_CHECKPOINT_STEPS,
  KEY_MOVE,
  KEY_OUTPUT = 'o',
  KEY_QUIET = 'q',
  METRIC_STEPS = 50, /* steps a line of metrics.jsonl; part of its bytes, so not an option */
};
static const double default_checkpoint_minutes = 10;

typedef struct SearchCommand {
  SharedOptions shared;
  const char *file, *data, *folder;
  bool resume, move, quiet;
  double checkpoint_minutes;
  int64_t checkpoint_steps;
} SearchCommand;

static double parse_minutes(const struct argp_state *state, const char *text) {
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end || !(value >= 0) || isinf(value))
    argp_error(state, "--checkpoint-minutes needs a number of minutes, 0 for none, and not `%s`", text);
  return value;
}

static void check_usage(const SearchCommand *options, const struct argp_state *state) {
  if (options->resume) {
    if (options->file) argp_error(state, "--resume takes the model from the run folder; give no FILE");
    if (options->shared.settings.count) argp_error(state, "--resume goes on with the run's own settings; --set is for a new run");
    return;
  }
  if (options->move) argp_error(state, "--move is for --resume");
  if (!options->file) argp_error(state, "which FILE? (or --resume RUN)");
  if (!options->folder) argp_error(state, "into which folder? (-o RUN)");
}

static error_t parse(int key, char *argument, struct argp_state *state) {
  SearchCommand *options = state->input;
  switch (key) {
  case ARGP_KEY_INIT:
    state->child_inputs[0] = state->child_inputs[1] = &options->shared;
    options->checkpoint_minutes = default_checkpoint_minutes;
    return 0;
  case KEY_DATA: options->data = argument; return 0;
  case KEY_RESUME:
  case KEY_OUTPUT:
    if (options->folder) argp_error(state, "one folder: -o RUN or --resume RUN");
    if (!*argument) argp_error(state, "%s needs the name of a folder, and not ``", key == KEY_RESUME ? "--resume" : "-o");
    options->folder = argument;
    options->resume = key == KEY_RESUME;
    return 0;
  case KEY_MOVE: options->move = true; return 0;
  case KEY_QUIET: options->quiet = true; return 0;
  case KEY_CHECKPOINT_MINUTES: options->checkpoint_minutes = parse_minutes(state, argument); return 0;
  case KEY_CHECKPOINT_STEPS:
    options->checkpoint_steps = options_number(state, "--checkpoint-steps", argument, 0, INT32_MAX);
    return 0;
  case ARGP_KEY_ARG:
    if (state->arg_num) argp_error(state, "one FILE, and not also `%s`", argument);
    options->file = argument;
    return 0;
  case ARGP_KEY_END: check_usage(options, state); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option option_list[] = {
    {"data", KEY_DATA, "DIR", 0, "The folder that holds cifar-10-batches-bin, or that folder itself; not for synthetic data", 0},
    {"output", KEY_OUTPUT, "RUN", 0, "The folder of the new run", 0},
    {"resume", KEY_RESUME, "RUN", 0, "Continue the run in this folder, to the same bits", 0},
    {"move", KEY_MOVE, 0, 0, "With --resume: the run may have been on another device; it goes on here, on other bits", 0},
    {"checkpoint-minutes", KEY_CHECKPOINT_MINUTES, "M", 0,
     "A checkpoint every M minutes, beside those at each epoch's end; 0: none. 10 if not given", 0},
    {"checkpoint-steps", KEY_CHECKPOINT_STEPS, "N", 0, "A checkpoint every N steps of the run", 0},
    {"quiet", KEY_QUIET, 0, 0, "No progress on standard error", 0},
    {0},
};
static const struct argp_child children[] = {{&options_settings, 0, NULL, 0}, {&options_machine, 0, NULL, 0}, {0}};
static const struct argp argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "FILE -o RUN\n--resume RUN",
    .doc = "Search an architecture of the model in FILE: train the weights' generators under random architectures, then search. "
           "The first Ctrl-C (or SIGTERM, SIGHUP) writes a checkpoint and leaves with status 130; the second one kills.",
    .children = children};

static void print_summary(const SearchSummary *summary, const char *folder) {
  if (summary->best_epoch >= 0)
    printf("found: the architecture of epoch %d, accuracy %.2f %% and loss %.4f on the validation images with its continuous "
           "logits\n",
           summary->best_epoch + 1, 100 * summary->best_accuracy, summary->best_loss);
  else
    printf("done: the model has no epoch of search, so the architecture is that of the initial logits\n");
  printf("written: arch.adwp, arch.json, weights.safetensors and metrics.jsonl in %s\n", folder);
}

static int run_search(const SearchCommand *options, const Compiled *compiled, Arena *arena, Err *err) {
  SearchSummary summary = {0};
  Progress *progress = options->quiet ? NULL : progress_new(stderr, progress_is_terminal(stderr));
  SearchOptions search = {.data_folder = options->data,
                          .run_folder = options->folder,
                          .threads = options->shared.threads,
                          .resume = options->resume,
                          .move = options->move,
                          .checkpoint_minutes = options->checkpoint_minutes,
                          .checkpoint_steps = options->checkpoint_steps,
                          .metric_steps = METRIC_STEPS,
                          .progress = progress,
                          .stop = stop_flag()};
  stop_install();
  bool done =
      driver_emulator(&options->shared, &search.emulator, arena, err) && search_run(compiled->program, &search, &summary, err);
  progress_free(progress);
  if (!done) return STATUS_FAILED;
  if (!summary.finished) {
    fprintf(stderr, "stopped after step %lld; continue with: adwp search --resume %s\n", (long long)summary.step,
            options->folder);
    return STATUS_SIGNAL + *stop_flag();
  }
  print_summary(&summary, options->folder);
  return STATUS_GOOD;
}

/* The steps that the model's stages use, and the validation. */
static unsigned needed_steps(const Search *search) {
  int cross = search->cross_end - search->cross_start;
  unsigned steps = STEP_EVAL;
  if (search->train > 0) steps |= STEP_TRAIN;
  if (cross > 0) steps |= STEP_CROSS;
  if (search->total - search->train > cross) steps |= STEP_SEARCH;
  return steps;
}

int command_search(int count, char **arguments, Err *err) {
  SearchCommand options = {0};
  argp_parse(&argp, count, arguments, 0, NULL, &options);
  options_finish(&options.shared);
  Arena *arena = arena_new();
  const Model *model =
      options.resume ? driver_load_run(options.folder, arena, err) : driver_load_model(options.file, &options.shared, arena);
  Compiled *compiled =
      model ? driver_compile(model, &options.shared, needed_steps(&model->search), NULL, !options.quiet, err) : NULL;
  if (compiled) driver_warn_of_cache(compiled);
  if (compiled) driver_warn_of_data(model, options.data);
  int status = compiled ? run_search(&options, compiled, arena, err) : STATUS_FAILED;
  if (compiled) pipeline_free(compiled);
  arena_free(arena);
  options_free(&options.shared);
  return status;
}
