/* Files that are none, and text from anywhere. */
#include "runtime/base/err.h"
#include "runtime/base/file.h"
#include "runtime/base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A pipe without a writer would hold the reader for ever. */
static void test_pipe_is_no_file(void **state) {
  (void)state;
  char folder[] = "base-world-test-XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/pipe", folder);
  assert_int_equal(mkfifo(path, 0600), 0);
  char *data;
  size_t size;
  Err err;
  alarm(10);
  assert_false(file_read(path, 100, &data, &size, &err));
  alarm(0);
  assert_non_null(strstr(err.text, "it is not a regular file"));
  assert_false(file_read(folder, 100, &data, &size, &err));
  assert_non_null(strstr(err.text, "it is not a regular file"));
  unlink(path);
  rmdir(folder);
}

static void assert_printable(const char *string, const char *want) {
  Text text = {0};
  text_add(&text, "<");
  text_add_printable(&text, string);
  text_add(&text, ">");
  assert_string_equal(text.data, want);
  text_free(&text);
}

static void test_control_characters_are_written_out(void **state) {
  (void)state;
  assert_printable("", "<>");
  assert_printable("sep_conv_3x3: \"a\" \\ ~", "<sep_conv_3x3: \"a\" \\ ~>");
  assert_printable("\033[31mred\nline\x7F", "<\\x1b[31mred\\x0aline\\x7f>");
  assert_printable("gr\xC3\xBC\xC3\x9F \xE4\xB8\xAD", "<gr\xC3\xBC\xC3\x9F \xE4\xB8\xAD>");
  assert_printable("\xC2\x9B"
                   "31m\xC2\xA0\xC2",
                   "<\\xc2\\x9b31m\xC2\xA0\xC2>"); /* CSI as one character of UTF-8 */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_pipe_is_no_file),
      cmocka_unit_test(test_control_characters_are_written_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
