/* Which candidates a node keeps: read from logits, drawn, and read from files that nobody trusts. */
#include "runtime/architecture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const ProgramCandidate candidates[] = {
    {"sep", 0, 1}, {"pool", 5, 0}, {"identity", 6, 0}, {"sep", 0, 0}, {"dil", 2, 1}, {"pool", 5, 1},
};
static const ProgramNode nodes[] = {{candidates, 6}, {candidates + 1, 4}};
static const ProgramCell cells[] = {{false, nodes, 2}, {true, nodes, 1}};

static void assert_kept(const float *logits, int32_t keep, const char *want) {
  bool row[6];
  kept_discretise(&nodes[0], logits, keep, row);
  for (int k = 0; k < 6; k++) assert_int_equal(row[k], want[k] == 'x');
}

static void test_largest_logits_are_kept(void **state) {
  (void)state;
  assert_kept((const float[]){0, 1, 2, 3, 4, 5}, 2, "....xx");
  assert_kept((const float[]){3, -1, 2, -3, -4, -5}, 2, "x.x...");
  assert_kept((const float[]){-9, -9, -9, -9, -9, 7}, 1, ".....x");
  /* all equal: source 0 before 1, then the order of the space: sep(0), pool(0), identity(0), sep(1), ... */
  assert_kept((const float[]){0, 0, 0, 0, 0, 0}, 1, "...x..");
  assert_kept((const float[]){0, 0, 0, 0, 0, 0}, 2, ".x.x..");
  assert_kept((const float[]){0, 0, 0, 0, 0, 0}, 3, ".xxx..");
  assert_kept((const float[]){0, 0, 0, 0, 0, 0}, 4, "xxxx..");
  assert_kept((const float[]){1, 0, 0, 0, 1, 0}, 3, "x..xx.");
  assert_kept((const float[]){0, 0, 0, 0, 0, 0}, 6, "xxxxxx");
}

/* Each of the 15 pairs of 6 about equally often. */
static void test_samples_are_uniform(void **state) {
  (void)state;
  enum { SAMPLES = 3000 };
  int seen[64] = {0};
  Arena *arena = arena_new();
  for (uint64_t sample = 0; sample < SAMPLES; sample++) {
    KeptOperations *kept = kept_sample(cells, 2, 2, 11, sample, arena);
    int mask = 0, other = 0, count = 0;
    for (int k = 0; k < 6; k++) mask |= kept_node(kept, 0, 0)[k] << k;
    for (int k = 0; k < 6; k++) other |= kept_node(kept, 0, 1)[k] << k;
    for (int k = 0; k < 6; k++) count += kept_node(kept, 1, 0)[k];
    assert_int_equal(__builtin_popcount((unsigned)mask), 2);
    assert_int_equal(__builtin_popcount((unsigned)other), 2);
    assert_true(other < 16); /* that node has four candidates */
    assert_int_equal(count, 2);
    seen[mask]++;
  }
  for (int mask = 0; mask < 64; mask++)
    if (__builtin_popcount((unsigned)mask) == 2)
      assert_in_range(seen[mask], SAMPLES / 15 - 60, SAMPLES / 15 + 60); /* 4.4 deviations */
  KeptOperations *once = kept_sample(cells, 2, 2, 11, 5, arena), *again = kept_sample(cells, 2, 2, 11, 5, arena);
  assert_memory_equal(once->kept, again->kept, 2 * 2 * 6);
  arena_free(arena);
}

static char path[] = "/tmp/adwp-architecture-test-XXXXXX";

static KeptOperations *read_text(const char *text, Arena *arena, Err *err) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  fputs(text, file);
  fclose(file);
  return kept_read(path, cells, 2, arena, err);
}

static void test_what_is_printed_reads_back(void **state) {
  (void)state;
  Arena *arena = arena_new();
  for (uint64_t sample = 0; sample < 20; sample++) {
    KeptOperations *kept = kept_sample(cells, 2, 2, 3, sample, arena);
    Text text = {0};
    Err err;
    kept_print_json(kept, cells, "net", "darts", &text);
    KeptOperations *back = read_text(text.data, arena, &err);
    assert_non_null(back);
    assert_memory_equal(kept->kept, back->kept, 2 * 2 * 6);
    text_free(&text);
  }
  arena_free(arena);
}

static void test_network_text(void **state) {
  (void)state;
  Arena *arena = arena_new();
  KeptOperations *kept = kept_new(cells, 2, arena);
  kept_node(kept, 0, 0)[0] = kept_node(kept, 0, 0)[2] = kept_node(kept, 0, 1)[3] = kept_node(kept, 1, 0)[1] = true;
  Text text = {0};
  kept_print_adwp(kept, cells, "net", "darts", &text);
  assert_non_null(strstr(text.data, "import \"darts.adwp\"\n"
                                    "\n"
                                    "network net {\n"
                                    "    cell 0 normal {\n"
                                    "        node 2: sep(1) + identity(0)\n"
                                    "        node 3: dil(1)\n"
                                    "        output concat(2..3)\n"
                                    "    }\n"
                                    "    cell 1 reduction {\n"
                                    "        node 2: pool(0)\n"
                                    "        output concat(2..2)\n"
                                    "    }\n"
                                    "}\n"));
  text_free(&text);
  arena_free(arena);
}

#define CELL0 "{\"kind\":\"normal\",\"nodes\":[[[\"sep\",0]],[[\"dil\",1],[\"pool\",0]]]}"

static void test_bad_files(void **state) {
  (void)state;
  static const struct {
    const char *text, *message;
  } bad[] = {
      {"", "line"},
      {"{", "line 1"},
      {"[]", "no array \"cells\""},
      {"{\"cells\":3}", "no array \"cells\""},
      {"{\"cells\":[" CELL0 "]}", "it has 1 cells, and the model has 2"},
      {"{\"cells\":[" CELL0 ",7]}", "cell 1: it must have \"nodes\""},
      {"{\"cells\":[" CELL0 ",{\"nodes\":[]}]}", "cell 1: it must have \"nodes\""},
      {"{\"cells\":[" CELL0 ",{\"nodes\":[[]]}]}", "cell 1: node 2: it must keep"},
      {"{\"cells\":[" CELL0 ",{\"nodes\":[7]}]}", "cell 1: node 2: it must keep"},
      {"{\"cells\":[" CELL0 ",{\"nodes\":[[[\"sep\"]]]}]}", "cell 1: node 2: an entry must be"},
      {"{\"cells\":[" CELL0 ",{\"nodes\":[[[0,\"sep\"]]]}]}", "cell 1: node 2: an entry must be"},
      {"{\"cells\":[" CELL0 ",{\"nodes\":[[[\"sep\",0.5]]]}]}", "cell 1: node 2: an entry must be"},
      {"{\"cells\":[" CELL0 ",{\"nodes\":[[[\"sep\",2]]]}]}", "the model has no sep(2) there, only sep(1), pool(0)"},
      {"{\"cells\":[" CELL0 ",{\"nodes\":[[[\"sep\",4294967296]]]}]}", "no sep(4294967296)"},
      {"{\"cells\":[" CELL0 ",{\"nodes\":[[[\"sip\",0]]]}]}", "no sip(0)"},
      {"{\"cells\":[" CELL0 ",{\"nodes\":[[[\"sep\",0],[\"sep\",0]]]}]}", "sep(0) stands there twice"},
      {"{\"cells\":[" CELL0 "," CELL0 "]}", "cell 1: it is a reduction cell in the model"},
      {"{\"cells\":[],\"cells\":[]}", "duplicate"},
  };
  Arena *arena = arena_new();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    Err err = {""};
    assert_null(read_text(bad[i].text, arena, &err));
    if (!strstr(err.text, bad[i].message) || !strstr(err.text, path)) fail_msg("%s: %s", bad[i].text, err.text);
  }
  Err err = {""};
  assert_null(kept_read("/nowhere/arch.json", cells, 2, arena, &err));
  assert_non_null(strstr(err.text, "/nowhere/arch.json"));
  assert_non_null(read_text("{\"cells\":[" CELL0 ",{\"nodes\":[[[\"sep\",0]]]}]}", arena, &err));
  arena_free(arena);
}

static int make_path(void **state) {
  (void)state;
  int file = mkstemp(path);
  return file < 0 ? -1 : close(file);
}

static int remove_path(void **state) {
  (void)state;
  return unlink(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_largest_logits_are_kept),
      cmocka_unit_test(test_samples_are_uniform),
      cmocka_unit_test(test_what_is_printed_reads_back),
      cmocka_unit_test(test_network_text),
      cmocka_unit_test(test_bad_files),
  };
  return cmocka_run_group_tests(tests, make_path, remove_path);
}
