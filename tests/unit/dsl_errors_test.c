/* Every file of tests/golden/errors is a wrong program with the exact messages it must give, carets included.
 *
 * A file is the program, then its messages, each line behind `#! `. Lines at its head steer the test: `#set KEY=VALUE` is a
 * `--set`, and `#with base` appends a sound search, so that a case may show one declaration alone. ADWP_BLESS=1 rewrites the
 * messages; the difference is reviewed like code. */
#include "dsl/dsl.h"
#include "runtime/base/file.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LEAST_CASES = 40, MOST_SETTINGS = 8 };

static const char folder[] = ADWP_SOURCE_DIR "/tests/golden/errors";

static const char base[] = "import \"darts.adwp\"\n"
                           "data base { format synthetic }\n"
                           "intensive base of darts keep 1 {\n"
                           "  normal { node 2: identity(0) }\n"
                           "  reduction { node 2: identity(0) }\n"
                           "}\n"
                           "hypernetwork base { cells 3 of base }\n"
                           "search base on base { keep top 1 }\n";

typedef struct Case {
  char *text;          /* the whole file */
  size_t program_size; /* where the messages begin */
  Text program;        /* as it is loaded */
  char *settings[MOST_SETTINGS];
  size_t setting_count;
  Text expected;
} Case;

static void read_directives(Case *test) {
  for (const char *line = test->text; *line == '#'; line = strchr(line, '\n') + 1) {
    size_t length = strcspn(line, "\n");
    if (!strncmp(line, "#set ", 5) && test->setting_count < MOST_SETTINGS)
      test->settings[test->setting_count++] = strndup(line + 5, length - 5);
    if (!strncmp(line, "#with base", 10)) text_add(&test->program, base);
  }
}

static Case read_case(const char *path) {
  Case test = {0};
  size_t size;
  Err err;
  if (!file_read(path, 1 << 20, &test.text, &size, &err)) fail_msg("%s", err.text);
  const char *messages = !strncmp(test.text, "#! ", 3) ? test.text : strstr(test.text, "\n#! ");
  test.program_size = messages ? (size_t)(messages - test.text) + (messages != test.text) : size;
  text_add_bytes(&test.program, test.text, test.program_size);
  read_directives(&test);
  for (const char *line = test.text + test.program_size; *line;) {
    size_t length = strcspn(line, "\n");
    if (length >= 3) text_add_bytes(&test.expected, line + 3, length - 3);
    text_add(&test.expected, "\n");
    line += length + (line[length] == '\n');
  }
  return test;
}

static void bless(const char *path, const Case *test, const char *messages) {
  Text text = {0};
  Err err;
  text_add_bytes(&text, test->text, test->program_size);
  for (const char *line = messages; *line;) {
    size_t length = strcspn(line, "\n");
    text_printf(&text, "#! %.*s\n", (int)length, line);
    line += length + (line[length] == '\n');
  }
  if (!file_replace(path, text.data, text.length, &err)) fail_msg("%s", err.text);
  text_free(&text);
}

static bool run_case(const char *name) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  Case test = read_case(path);
  Arena *arena = arena_new();
  Diagnostics diagnostics = {0};
  DslOptions options = {(const char *const *)test.settings, test.setting_count};
  const Model *model = dsl_load_text(name, test.program.data, test.program.length, &options, arena, &diagnostics);
  const char *messages = diagnostics.out.data ? diagnostics.out.data : "",
             *expected = test.expected.data ? test.expected.data : "";
  bool same = !strcmp(messages, expected) && !model && diagnostics.errors > 0;
  if (!model && diagnostics.errors && getenv("ADWP_BLESS")) {
    bless(path, &test, messages);
    same = true;
  }
  if (!same) print_error("%s: wanted\n%s\nand got%s\n%s\n", name, expected, model ? " a model" : "", messages);
  for (size_t i = 0; i < test.setting_count; i++) free(test.settings[i]);
  text_free(&test.program);
  text_free(&test.expected);
  text_free(&diagnostics.out);
  arena_free(arena);
  free(test.text);
  return same;
}

static void test_errors(void **state) {
  (void)state;
  struct dirent **entries;
  int count = scandir(folder, &entries, NULL, alphasort), cases = 0, wrong = 0;
  assert_true(count > 0);
  for (int i = 0; i < count; i++) {
    size_t length = strlen(entries[i]->d_name);
    if (length > 5 && !strcmp(entries[i]->d_name + length - 5, ".adwp")) {
      cases++;
      wrong += !run_case(entries[i]->d_name);
    }
    free(entries[i]);
  }
  free(entries);
  assert_int_equal(wrong, 0);
  assert_true(cases >= LEAST_CASES);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_errors)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
