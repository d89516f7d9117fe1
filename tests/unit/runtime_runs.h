/* Runs of the toy program in a folder of their own, stopped wherever a test wants, for the tests of the search. */
#ifndef ADWP_TESTS_UNIT_RUNTIME_RUNS_H
#define ADWP_TESTS_UNIT_RUNTIME_RUNS_H

#include "runtime/search.h"

#include "runtime/architecture.h"
#include "runtime/base/file.h"
#include "runtime/base/text.h"
#include "runtime/checkpoint.h"
#include "runtime/evaluate.h"
#include "runtime/random.h"
#include "runtime/run_folder.h"
#include "runtime/safetensors.h"
#include "tests/unit/runtime_toy_program.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { EPOCH_STEPS = 6, RUN_STEPS = 36 };

static char root[64]; /* in memory where it can be: each checkpoint waits for the disk */
static const char *const result_files[] = {"model.adwp", "metrics.jsonl",       "arch.adwp",
                                           "arch.json",  "weights.safetensors", "checkpoint.safetensors"};
enum { RESULT_FILES = sizeof result_files / sizeof *result_files };

/* The path of a file, or with no name the folder, of the run `run`; in one of a few buffers that take turns. */
static inline const char *path_of(const char *run, const char *name) {
  static char paths[8][512];
  static int turn;
  char *path = paths[turn++ % 8];
  snprintf(path, sizeof paths[0], "%s/%s%s%s", root, run, name ? "/" : "", name ? name : "");
  return path;
}

static inline SearchOptions options_of(const char *run) {
  static char folder[512];
  snprintf(folder, sizeof folder, "%s/%s", root, run);
  return (SearchOptions){.run_folder = folder, .threads = 2, .metric_steps = 4, .stop = &toy_stop};
}

/* Runs until `steps` more steps are done (-1: to the end). */
static inline bool run_some(const Program *program, const char *run, bool resume, long steps, SearchSummary *summary, Err *err) {
  SearchOptions options = options_of(run);
  options.resume = resume;
  toy_stop = 0;
  atomic_store(&toy_steps_left, steps);
  *err = (Err){""};
  bool done = search_run(program, &options, summary, err);
  atomic_store(&toy_steps_left, -1);
  return done;
}

static inline void must_run(const Program *program, const char *run, bool resume, SearchSummary *summary) {
  Err err;
  if (!run_some(program, run, resume, -1, summary, &err)) fail_msg("%s", err.text);
  assert_true(summary->finished);
}

static inline char *read_whole(const char *run, const char *name, size_t *size) {
  char *data;
  Err err;
  if (!file_read(path_of(run, name), 1 << 24, &data, size, &err)) fail_msg("%s", err.text);
  return data;
}

static inline void assert_same_bytes(const char *run, const char *other) {
  for (int i = 0; i < RESULT_FILES; i++) {
    size_t size, other_size;
    char *data = read_whole(run, result_files[i], &size), *other_data = read_whole(other, result_files[i], &other_size);
    if (size != other_size || memcmp(data, other_data, size))
      fail_msg("%s differs between %s and %s", result_files[i], run, other);
    free(data);
    free(other_data);
  }
}

static inline void write_bytes(const char *path, const char *data, size_t size) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
}

static inline void assert_fails(const Program *program, const char *run, bool resume, const char *const *words) {
  SearchSummary summary;
  Err err;
  assert_false(run_some(program, run, resume, -1, &summary, &err));
  for (; *words; words++)
    if (!strstr(err.text, *words)) fail_msg("\"%s\" is not in \"%s\"", *words, err.text);
}
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* A run that was stopped in epoch 3; the tests of bad worlds start from it. */
static inline void make_half(const char *run) {
  SearchSummary summary;
  Err err;
  assert_true(run_some(&toy_program, run, false, 21, &summary, &err));
  assert_int_equal(summary.step, 21);
}

static inline int make_root(void **state) {
  (void)state;
  snprintf(root, sizeof root, "%s/adwp-search-test-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
  return mkdtemp(root) && chmod(root, 0755) == 0 ? 0 : -1;
}

static inline int remove_root(void **state) {
  (void)state;
  Text command = {0};
  text_printf(&command, "rm -rf %s", root);
  int status = system(command.data);
  text_free(&command);
  return status;
}

#endif
