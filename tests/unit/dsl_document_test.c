/* docs/language.md is checked: its whole files load, its parts load beside a sound search, and the defaults that its tables
 * state are those in force. */
#include "dsl/dsl.h"
#include "runtime/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *document(const char *path) {
  char *text;
  size_t size;
  Err err;
  if (!file_read(path, 1 << 20, &text, &size, &err)) fail_msg("%s", err.text);
  return text;
}

static void load(const char *text, size_t size, Text *printed) {
  Arena *arena = arena_new();
  Diagnostics diagnostics = {0};
  const Model *model = dsl_load_text("snippet.adwp", text, size, NULL, arena, &diagnostics);
  if (!model) fail_msg("%.*s\n%s", (int)size, text, diagnostics.out.data);
  if (printed) dsl_print_model(model, printed);
  text_free(&diagnostics.out);
  arena_free(arena);
}

static const char beside[] = "import \"darts.adwp\"\n"
                             "data cifar10 { format cifar10-binary }\n"
                             "intensive i of darts keep 1 { normal { node 2: identity(0) } reduction { node 2: identity(0) } }\n"
                             "hypernetwork net { cells 3 of i }\n";

static void test_snippets(void **state) {
  (void)state;
  char *text = document(ADWP_SOURCE_DIR "/docs/language.md");
  int count = 0;
  for (const char *at = text; (at = strstr(at, "\n```adwp"));) {
    bool part = !strncmp(at, "\n```adwp-part", 13);
    const char *begin = strchr(at + 1, '\n') + 1, *end = strstr(begin, "```");
    assert_non_null(end);
    Text program = {0};
    if (part) text_add(&program, beside);
    text_add_bytes(&program, begin, (size_t)(end - begin));
    if (part && !strstr(program.data, "search ")) text_add(&program, "search net on cifar10 { keep top 1 }\n");
    load(program.data, program.length, NULL);
    text_free(&program);
    at = end;
    count++;
  }
  assert_true(count >= 3);
  free(text);
}

/* A model that sets nothing but what it must, with one more setting in one of its blocks. */
static void load_with(const char *block, const char *word, const char *value, Text *printed) {
  static const char *const blocks[] = {"data", "hypernetwork", "search"};
  char extra[3][512] = {"", "", ""};
  for (int i = 0; i < 3; i++)
    if (!strcmp(blocks[i], block)) snprintf(extra[i], sizeof extra[i], "%s %s", word, value);
  Text program = {0};
  text_printf(
      &program,
      "import \"darts.adwp\"\n"
      "data d { format synthetic %s }\n"
      "intensive i of darts keep 2 { normal { node 2: identity(0), zero(1) } reduction { node 2: identity(0), zero(1) } }\n"
      "hypernetwork h { cells 8 of i %s }\n"
      "search h on d { %s }\n",
      extra[0], extra[1], extra[2]);
  load(program.data, program.length, printed);
  text_free(&program);
}

/* A row "| `word` | `value` |" of a block's table states a default: to set it changes nothing. */
static void check_row(const char *block, const char *row, const char *plain) {
  char word[32], value[256];
  if (sscanf(row, "| `%31[^`]` | `%255[^`]` |", word, value) != 2) return; /* must be given, or is described */
  Text printed = {0};
  load_with(block, word, value, &printed);
  assert_string_equal(printed.data, plain);
  text_free(&printed);
}

static void test_defaults(void **state) {
  (void)state;
  Text plain = {0};
  load_with("", "", "", &plain);
  char *text = document(ADWP_SOURCE_DIR "/docs/language.md"), block[32] = "", *rest = text;
  int rows = 0;
  for (char *line; (line = strsep(&rest, "\n"));) {
    if (!strncmp(line, "##", 2) && sscanf(line, "### %31s", block) != 1) block[0] = 0;
    if (!block[0] || strncmp(line, "| `", 3)) continue;
    check_row(block, line, plain.data);
    rows++;
  }
  assert_true(rows >= 24);
  free(text);
  text_free(&plain);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_snippets), cmocka_unit_test(test_defaults)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
