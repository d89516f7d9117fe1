/* What tests/fuzz/graph_fuzz.c checks, without a fuzzer: texts from the golden files, with words and lines deleted, doubled,
 * exchanged and taken from other texts, for some seconds (FUZZ_SECONDS; 20 if it is not set). Where it breaks it prints the
 * number of the text, and with FUZZ_TEXT=NUMBER the text itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/base/file.h"
#include "tests/fuzz/graph_fuzz.c"

#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 1 << 14 };

static volatile sig_atomic_t number; /* of the text under way, for the handler */

static void tell(int signal_number) {
  char text[80];
  int length = snprintf(text, sizeof text, "text %d breaks it; FUZZ_TEXT=%d prints it\n", (int)number, (int)number);
  if (write(STDERR_FILENO, text, (size_t)length) < 0) _exit(1);
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

/* So that a sanitizer's report, too, comes with the number. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
  return "abort_on_error=1";
}

typedef struct Seeds {
  char **texts; /* both halves of each golden file */
  size_t count;
} Seeds;

static Seeds load_seeds(void) {
  glob_t found;
  Seeds seeds = {0};
  assert_int_equal(glob(ADWP_SOURCE_DIR "/tests/golden/*/*.ir", 0, NULL, &found), 0);
  seeds.texts = memory_alloc(2 * found.gl_pathc * sizeof(char *));
  for (size_t i = 0; i < found.gl_pathc; i++) {
    char *data;
    size_t size;
    Err err;
    if (!file_read(found.gl_pathv[i], 1 << 20, &data, &size, &err)) fail_msg("%s", err.text);
    char *half = strstr(data, "# after ");
    if (size >= LONGEST) {
      free(data);
      continue;
    }
    if (half) {
      char *second = strchr(half, '\n');
      if (second) seeds.texts[seeds.count++] = strdup(second + 1);
      *half = 0;
    }
    seeds.texts[seeds.count++] = data;
  }
  globfree(&found);
  return seeds;
}

static uint64_t word_of(uint64_t *state) { /* splitmix64 */
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* A random piece of the text that begins and ends at white space; with `lines` at ends of lines. */
static const char *piece(const char *text, bool lines, uint64_t *state, size_t *length) {
  const char *stop = lines ? "\n" : " \n,";
  size_t size = strlen(text);
  *length = 0;
  if (size == 0) return text;
  const char *at = text + word_of(state) % size;
  while (at > text && !strchr(stop, at[-1])) at--;
  *length = strcspn(at, stop);
  if (at[*length]) ++*length;
  return at;
}

/* One change; `with` lends a piece. */
static char *change(const char *text, const char *with, uint64_t *state) {
  bool lines = word_of(state) % 3 == 0;
  size_t length, lent;
  const char *at = piece(text, lines, state, &length), *other = piece(word_of(state) % 4 ? text : with, lines, state, &lent);
  size_t before = (size_t)(at - text);
  Text out = {0};
  text_add_bytes(&out, text, before);
  switch (word_of(state) % 4) {
  case 0: break;                                                                      /* deleted */
  case 1: text_add_bytes(&out, at, length), text_add_bytes(&out, other, lent); break; /* something put behind it */
  case 2: text_printf(&out, "%d ", (int)(word_of(state) % 9) - 1); break;             /* a number in its place */
  default: text_add_bytes(&out, other, lent); break;                                  /* something else in its place */
  }
  text_add(&out, at + length);
  return out.data;
}

static char *text_of(const Seeds *seeds, int which) {
  uint64_t state = (uint64_t)which;
  char *text = strdup(seeds->texts[word_of(&state) % seeds->count]);
  for (uint64_t changes = 1 + word_of(&state) % 4; changes > 0; changes--) {
    char *next = change(text, seeds->texts[word_of(&state) % seeds->count], &state);
    free(text);
    text = next;
  }
  return text;
}

static void changed_texts(void **state) {
  (void)state;
  const char *seconds = getenv("FUZZ_SECONDS"), *only = getenv("FUZZ_TEXT");
  Seeds seeds = load_seeds();
  assert_true(seeds.count > 100);
  signal(SIGABRT, tell);
  signal(SIGSEGV, tell);
  time_t end = time(NULL) + (seconds ? atoi(seconds) : 20);
  for (number = only ? atoi(only) : 0; only || time(NULL) < end; number++) {
    char *text = text_of(&seeds, number);
    if (only) puts(text);
    LLVMFuzzerTestOneInput((const uint8_t *)text, strlen(text));
    free(text);
    if (only) break;
  }
  print_message("%d texts\n", (int)number);
  for (size_t i = 0; i < seeds.count; i++) free(seeds.texts[i]);
  free(seeds.texts);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(changed_texts)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
