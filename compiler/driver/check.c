/* adwp check: whether a model is right, and what it is in a few lines, or as a whole with --show-defaults. */
#include "compiler/driver/driver.h"

#include <math.h>
#include <stdio.h>

enum { KEY_SHOW_DEFAULTS = 0x200 };

typedef struct CheckOptions {
  SharedOptions shared;
  const char *file;
  bool show_defaults;
} CheckOptions;

static error_t parse(int key, char *argument, struct argp_state *state) {
  CheckOptions *options = state->input;
  switch (key) {
  case ARGP_KEY_INIT: state->child_inputs[0] = &options->shared; return 0;
  case KEY_SHOW_DEFAULTS: options->show_defaults = true; return 0;
  case ARGP_KEY_ARG:
    if (state->arg_num) argp_error(state, "one FILE, and not also `%s`", argument);
    options->file = argument;
    return 0;
  case ARGP_KEY_NO_ARGS: argp_error(state, "which FILE?"); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option option_list[] = {
    {"show-defaults", KEY_SHOW_DEFAULTS, 0, 0, "Print the model with every setting filled in, itself an .adwp file", 0},
    {0},
};
static const struct argp_child children[] = {{&options_settings, 0, NULL, 0}, {0}};
static const struct argp argp = {.options = option_list,
                                 .parser = parse,
                                 .args_doc = "FILE",
                                 .doc = "Check names, shapes and settings of the model in FILE, without running anything.",
                                 .children = children};

/* log10 of how many discrete architectures there are: T of K candidates at each node. */
static double architectures_log10(const Model *model) {
  double sum = 0;
  for (int c = 0; c < model->cell_count; c++)
    for (int n = 0; n < model->cells[c].node_count; n++) {
      int candidates = model->cells[c].nodes[n].count, keep = model->search.keep;
      for (int i = 0; i < keep && i < candidates; i++) sum += log10((double)(candidates - i) / (i + 1));
    }
  return sum;
}

/* "1 cell", "2 cells" */
static const char *plural(int count) {
  return count == 1 ? "" : "s";
}

static void print_summary(const Model *model) {
  const DataSet *data = &model->data;
  const Search *search = &model->search;
  int nodes = 0, candidates = 0, reductions = 0;
  for (int c = 0; c < model->cell_count; c++) {
    nodes += model->cells[c].node_count;
    reductions += model->cells[c].reduction;
    for (int n = 0; n < model->cells[c].node_count; n++) candidates += model->cells[c].nodes[n].count;
  }
  printf("hypernetwork   %s: %d cell%s (%d of them reduction%s), %d channel%s at first, %d node%s, %d candidate operation%s\n",
         model->name, model->cell_count, plural(model->cell_count), reductions, plural(reductions), model->channels,
         plural(model->channels), nodes, plural(nodes), candidates, plural(candidates));
  printf("architectures  10^%.1f\n", architectures_log10(model));
  printf("data           %s: %s, %d x %d x %d, %d classes\n", data->name, data->format, data->image.channels, data->image.height,
         data->image.width, data->classes);
  printf("search         %d epoch%s of weights, then %d of logits (%d of them both), batch %d\n", search->train,
         plural(search->train), search->total - search->train, search->cross_end - search->cross_start, search->batch);
}

int command_check(int count, char **arguments, Err *err) {
  CheckOptions options = {0};
  argp_parse(&argp, count, arguments, 0, NULL, &options);
  Arena *arena = arena_new();
  const Model *model = driver_load_model(options.file, &options.shared, arena);
  int status = model ? STATUS_GOOD : STATUS_FAILED;
  if (model && options.show_defaults) {
    Text text = {0};
    dsl_print_model(model, &text);
    if (!driver_write(NULL, &text, err)) status = STATUS_FAILED;
    text_free(&text);
  } else if (model) {
    print_summary(model);
  }
  arena_free(arena);
  options_free(&options.shared);
  return status;
}
