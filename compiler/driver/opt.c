/* adwp opt: graph passes, text in and text out, so that each can be seen and tested alone. Also what all commands that run passes
 * share: reading a module, --time-passes and --dump. */
#include "compiler/driver/driver.h"

#include "runtime/base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_PASS = 0x200, KEY_TIME_PASSES, KEY_DUMP, KEY_OUTPUT = 'o', LARGEST_TEXT = 256 << 20 };

/* ---- reading ---- */

static bool read_stdin(Text *text, Err *err) {
  char block[1 << 16];
  size_t count;
  while ((count = fread(block, 1, sizeof block, stdin)) > 0) {
    if (text->length + count > LARGEST_TEXT) return err_set(err, "standard input is larger than %d bytes", LARGEST_TEXT);
    text_add_bytes(text, block, count);
  }
  return !ferror(stdin) || err_set(err, "cannot read standard input: %s", strerror(errno));
}

Module *driver_load_module(const char *path, Arena *arena, Err *err) {
  bool standard = !strcmp(path, "-");
  Text text = {0};
  text_add(&text, "");
  char *data = NULL;
  size_t size = 0;
  Module *module = NULL;
  bool found = standard ? read_stdin(&text, err) : file_read(path, LARGEST_TEXT, &data, &size, err);
  if (found) module = standard ? module_parse(text.data, text.length, arena, err) : module_parse(data, size, arena, err);
  if (found && !module) err_wrap(err, "%s", standard ? "standard input" : path);
  text_free(&text);
  free(data);
  return module;
}

/* ---- watching ---- */

static int taken_pass(const struct argp_state *state, const char *option, const char *name, size_t length) {
  int pass = pass_find(name, length);
  if (pass >= 0) return pass;
  Text names = {0};
  for (int i = 0; i < PASS_COUNT; i++) text_printf(&names, "%s%s", i ? ", " : "", pass_table[i].name);
  argp_error(state, "there is no pass `%.*s` for %s; there are %s", (int)length, name, option, names.data);
  text_free(&names);
  return 0;
}

void options_passes(const struct argp_state *state, const char *option, const char *list, PassList *passes) {
  for (const char *at = list;; at++) {
    size_t length = strcspn(at, ",");
    vector_push(passes, taken_pass(state, option, at, length));
    at += length;
    if (!*at) return;
  }
}

static error_t parse_watch(int key, char *argument, struct argp_state *state) {
  WatchOptions *watch = state->input;
  switch (key) {
  case KEY_TIME_PASSES: watch->time = true; return 0;
  case KEY_DUMP: options_passes(state, "--dump", argument, &watch->dumps); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option watch_list[] = {
    {"time-passes", KEY_TIME_PASSES, 0, 0, "Say on standard error how long each pass takes", 0},
    {"dump", KEY_DUMP, "PASS[,PASS]", 0, "Print to standard error the graphs before and after these passes", 0},
    {0},
};
const struct argp options_watch = {.options = watch_list, .parser = parse_watch};

void driver_watch(void *context, int pass, const Module *module, double seconds) {
  const WatchOptions *watch = context;
  bool before = seconds < 0;
  for (size_t i = 0; i < watch->dumps.count; i++) {
    if (watch->dumps.data[i] != pass) continue;
    Text text = {0};
    module_print(module, &text);
    fprintf(stderr, "# %s %s\n%s\n", before ? "before" : "after", pass_table[pass].name, text.data);
    text_free(&text);
    break;
  }
  if (watch->time && !before) fprintf(stderr, "%-10s %8.3f ms\n", pass_table[pass].name, 1e3 * seconds);
}

/* ---- the command ---- */

typedef struct OptOptions {
  const char *file, *output; /* output null: standard output */
  PassList passes;
  WatchOptions watch;
} OptOptions;

static error_t parse(int key, char *argument, struct argp_state *state) {
  OptOptions *options = state->input;
  switch (key) {
  case ARGP_KEY_INIT: state->child_inputs[0] = &options->watch; return 0;
  case KEY_PASS: options_passes(state, "--pass", argument, &options->passes); return 0;
  case KEY_OUTPUT: options->output = argument; return 0;
  case ARGP_KEY_ARG:
    if (state->arg_num) argp_error(state, "one FILE, and not also `%s`", argument);
    options->file = argument;
    return 0;
  case ARGP_KEY_END:
    if (!options->file) argp_error(state, "which FILE? `-` is standard input");
    if (!options->passes.count) argp_error(state, "which --pass?");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option option_list[] = {
    {"pass", KEY_PASS, "PASS[,PASS]", 0, "Run these passes, in this order; may be given several times", 0},
    {"output", KEY_OUTPUT, "PATH", 0, "Write to the file PATH and not to standard output", 0},
    {0},
};
static const struct argp_child children[] = {{&options_watch, 0, NULL, 0}, {0}};

/* The passes, behind the options. */
static char *help(int key, const char *text, void *input) {
  (void)input;
  if (key != ARGP_KEY_HELP_EXTRA) return (char *)text;
  Text list = {0};
  text_add(&list, "Passes:");
  for (int i = 0; i < PASS_COUNT; i++) text_printf(&list, "\n  %-10s %s", pass_table[i].name, pass_table[i].purpose);
  return list.data; /* argp frees it */
}

static const struct argp argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "FILE --pass=PASS[,PASS]",
    .doc = "Run passes over the module in FILE (`-`: standard input), a Graph IR text such as `adwp emit "
           "--stage=lower` prints, and print the module that they make.\v",
    .children = children,
    .help_filter = help};

int command_opt(int count, char **arguments, Err *err) {
  OptOptions options = {0};
  argp_parse(&argp, count, arguments, 0, NULL, &options);
  Arena *arena = arena_new();
  Text text = {0};
  Module *module = driver_load_module(options.file, arena, err);
  bool done = module && passes_run(module, options.passes.data, options.passes.count, driver_watch, &options.watch, err);
  if (done) {
    module_print(module, &text);
    done = driver_write(options.output, &text, err);
  }
  if (module) module_free_tables(module);
  text_free(&text);
  vector_free(&options.passes);
  vector_free(&options.watch.dumps);
  arena_free(arena);
  return done ? STATUS_GOOD : STATUS_FAILED;
}
