/* libFuzzer on the whole front end: any bytes give a model or messages. A model's own text must load again, to the same text.
 *
 * The first line may be a `--set` (behind `#set `). Seeds: examples, dsl/std, tests/golden/errors. */
#include "dsl/dsl.h"
#include "runtime/base/err.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const Model *load(const char *name, const char *text, size_t size, const DslOptions *options, Arena *arena) {
  Diagnostics diagnostics = {0};
  const Model *model = dsl_load_text(name, text, size, options, arena, &diagnostics);
  if (!model != (diagnostics.errors > 0)) die("%s: %s and %d errors", name, model ? "a model" : "no model", diagnostics.errors);
  if (!model != (diagnostics.out.length > 0)) die("%s: errors are counted and not printed", name);
  text_free(&diagnostics.out);
  return model;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *text = (const char *)data, *end = memchr(data, '\n', size);
  char *setting = NULL;
  if (end && end - text > 5 && !memcmp(text, "#set ", 5)) setting = strndup(text + 5, (size_t)(end - text) - 5);
  DslOptions options = {(const char *const *)&setting, setting != NULL};
  Arena *arena = arena_new();
  const Model *model = load("fuzz.adwp", text, size, &options, arena);
  if (model) {
    Text once = {0}, twice = {0}, spec = {0};
    dsl_print_spec(model, &spec);
    dsl_print_model(model, &once);
    const Model *again = load("printed.adwp", once.data, once.length, NULL, arena);
    if (!again) die("a printed model does not load:\n%s", once.data);
    dsl_print_model(again, &twice);
    if (strcmp(once.data, twice.data)) die("a printed model loads to another one:\n%s\n%s", once.data, twice.data);
    text_free(&once);
    text_free(&twice);
    text_free(&spec);
  }
  arena_free(arena);
  free(setting);
  return 0;
}
