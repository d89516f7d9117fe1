/* Algorithm 1 in a bad world: damaged and foreign checkpoints, folders that do not fit, a full disk. A run that fails says why,
 * and its last checkpoint stays whole. */
#include "tests/unit/runtime_runs.h"

/* What an undisturbed run leaves. */
static const char *const reference = "reference";

static int make_reference(void **state) {
  SearchSummary summary;
  Err err;
  return make_root(state) || !run_some(&toy_program, reference, false, -1, &summary, &err);
}

/* Through search_run at a few places, and at many through the reader alone. */
static void test_flipped_bits(void **state) {
  (void)state;
  make_half("flipped");
  char path[128];
  snprintf(path, sizeof path, "%s", path_of("flipped", "checkpoint.safetensors"));
  size_t size, metrics_size, now;
  char *data = read_whole("flipped", "checkpoint.safetensors", &size);
  char *metrics = read_whole("flipped", "metrics.jsonl", &metrics_size);
  float best[6];
  Err err;
  Executor *executor = executor_new(&toy_program, &(ExecutorOptions){.threads = 1}, &err);
  SearchState read = {.best_alpha = best};
  Safetensors *whole = safetensors_read(path, size, true, &err);
  snprintf(read.data_hash.hex, sizeof read.data_hash.hex, "%s", safetensors_metadata(whole, "data_hash"));
  safetensors_free(whole);
  if (!checkpoint_read(path, &toy_program, executor, false, &read, &err)) fail_msg("%s", err.text);
  assert_int_equal(read.epoch, 3);
  assert_int_equal(read.epoch_step, 3);
  for (uint64_t n = 0; n < 300; n++) {
    uint32_t bit = random_below(5, RANDOM_TEST, 0, n, (uint32_t)size * 8);
    data[bit / 8] ^= (char)(1 << bit % 8);
    size_t length = n % 3 ? size : random_below(5, RANDOM_TEST, 1, n, (uint32_t)size); /* some cut short too */
    write_bytes(path, data, length);
    data[bit / 8] ^= (char)(1 << bit % 8);
    err = (Err){""};
    assert_false(checkpoint_read(path, &toy_program, executor, false, &read, &err));
    assert_non_null(strstr(err.text, path));
    if (n < 6) assert_fails(&toy_program, "flipped", true, WORDS("cannot resume", "checkpoint.safetensors"));
  }
  executor_free(executor);
  char *after = read_whole("flipped", "metrics.jsonl", &now);
  assert_int_equal(now, metrics_size); /* nothing was lost */
  assert_memory_equal(after, metrics, now);
  write_bytes(path, data, size);
  SearchSummary summary;
  must_run(&toy_program, "flipped", true, &summary);
  assert_same_bytes("flipped", reference);
  free(after);
  free(metrics);
  free(data);
}

static void test_checkpoint_of_another_run(void **state) {
  (void)state;
  make_half("other");
  Program other = toy_program;
  other.model_hash = "fedcba9876543210";
  assert_fails(&other, "other", true, WORDS("cannot resume", "checkpoint.safetensors", "another model", "0123456789abcdef"));
  other = toy_program;
  other.target = "x86-64-v3";
  assert_fails(&other, "other", true, WORDS("cannot resume", "x86-64-v4", "x86-64-v3", "--cpu"));
  other = toy_program;
  other.search.seed = 8;
  assert_fails(&other, "other", true, WORDS("cannot resume", "seed"));
  other = toy_program;
  other.data.train_images = 130;
  assert_fails(&other, "other", true, WORDS("cannot resume", "data_hash", "--data"));
  ProgramParameter wider[8];
  memcpy(wider, toy_parameters, sizeof wider);
  wider[2].name = "alpha.0.7";
  other = toy_program;
  other.parameters = wider;
  assert_fails(&other, "other", true, WORDS("cannot resume", "alpha.0.7"));
  SearchSummary summary;
  must_run(&toy_program, "other", true, &summary);
  assert_same_bytes("other", reference);
}

static void test_metrics_of_another_run(void **state) {
  (void)state;
  make_half("metrics");
  char path[128];
  snprintf(path, sizeof path, "%s", path_of("metrics", "metrics.jsonl"));
  size_t size;
  char *data = read_whole("metrics", "metrics.jsonl", &size);
  data[20] ^= 1;
  write_bytes(path, data, size);
  assert_fails(&toy_program, "metrics", true, WORDS("metrics.jsonl", "missing or changed"));
  data[20] ^= 1;
  write_bytes(path, data, size - 5);
  assert_fails(&toy_program, "metrics", true, WORDS("metrics.jsonl", "missing or changed"));
  unlink(path);
  assert_fails(&toy_program, "metrics", true, WORDS("metrics.jsonl", "the checkpoint was written with", "put it back", "folder"));
  FILE *file = fopen(path, "wb"); /* whole, and with a line that was being written when the process died */
  assert_int_equal(fwrite(data, 1, size, file), size);
  fputs("{\"kind\":\"ep", file);
  fclose(file);
  SearchSummary summary;
  must_run(&toy_program, "metrics", true, &summary);
  assert_same_bytes("metrics", reference);
  free(data);
}

static void test_folders_that_do_not_fit(void **state) {
  (void)state;
  size_t size;
  char *before = read_whole(reference, "checkpoint.safetensors", &size);
  assert_fails(&toy_program, reference, false, WORDS("already holds a run", "--resume"));
  size_t now;
  char *after = read_whole(reference, "checkpoint.safetensors", &now);
  assert_int_equal(size, now);
  assert_memory_equal(before, after, size);
  free(before);
  free(after);
  assert_fails(&toy_program, "missing", true, WORDS("missing", "no such folder"));
  Err err;
  assert_true(folder_make(path_of("empty", NULL), &err));
  assert_fails(&toy_program, "empty", true, WORDS("empty", "holds no run"));
  write_bytes(path_of("empty", "model.adwp"), "hypernetwork other {}\n", 22);
  assert_fails(&toy_program, "empty", true, WORDS("model.adwp", "another model"));
  write_bytes(path_of("file", NULL), "", 0);
  assert_fails(&toy_program, "file", false, WORDS("cannot make folder", "file"));
}

static void test_begun_without_checkpoint(void **state) {
  (void)state;
  Err err;
  assert_true(folder_make(path_of("begun", NULL), &err));
  write_bytes(path_of("begun", "model.adwp"), toy_program.model_text, strlen(toy_program.model_text));
  write_bytes(path_of("begun", "checkpoint.safetensors.tmp-123"), "half", 4);
  write_bytes(path_of("begun", "notes.tmp-mine"), "kept", 4);
  SearchSummary summary;
  must_run(&toy_program, "begun", true, &summary);
  assert_same_bytes("begun", reference);
  assert_int_not_equal(access(path_of("begun", "checkpoint.safetensors.tmp-123"), F_OK), 0);
  assert_int_equal(access(path_of("begun", "notes.tmp-mine"), F_OK), 0);
}

static void test_locked_folder(void **state) {
  (void)state;
  make_half("locked");
  Err err;
  RunFolder *folder = run_folder_resume(path_of("locked", NULL), &err);
  assert_non_null(folder);
  assert_fails(&toy_program, "locked", true, WORDS("locked", "in use by another adwp"));
  run_folder_free(folder);
  SearchSummary summary;
  must_run(&toy_program, "locked", true, &summary);
}

static void test_unwritable_folder(void **state) {
  (void)state;
  Err err;
  assert_true(folder_make(path_of("read-only", NULL), &err));
  chmod(path_of("read-only", NULL), 0555);
  pid_t child = fork();
  if (child == 0) { /* as somebody for whom permissions count */
    if (getuid() == 0 && setuid(65534)) _exit(77);
    SearchSummary summary;
    bool done = run_some(&toy_program, "read-only", false, -1, &summary, &err);
    bool told = strstr(err.text, "read-only") && strstr(err.text, "Permission denied");
    bool made = run_some(&toy_program, "read-only/below", false, -1, &summary, &err);
    _exit(!done && told && !made && strstr(err.text, "cannot make folder") ? 0 : 1);
  }
  int status;
  waitpid(child, &status, 0);
  assert_true(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) skip();
  assert_int_equal(WEXITSTATUS(status), 0);
}

/* No file may grow past 4500 bytes, which is less than a checkpoint and more than the metrics. */
static void test_full_disk(void **state) {
  (void)state;
  make_half("full");
  size_t size, now;
  char *before = read_whole("full", "checkpoint.safetensors", &size);
  assert_true(size > 4500);
  pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {4500, 4500};
    setrlimit(RLIMIT_FSIZE, &limit);
    SearchSummary summary;
    Err err;
    bool done = run_some(&toy_program, "full", true, -1, &summary, &err);
    _exit(!done && strstr(err.text, "checkpoint.safetensors") && strstr(err.text, "File too large") ? 0 : 1);
  }
  int status;
  waitpid(child, &status, 0);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
  char *after = read_whole("full", "checkpoint.safetensors", &now);
  assert_int_equal(size, now);
  assert_memory_equal(before, after, size);
  free(before);
  free(after);
  SearchSummary summary;
  must_run(&toy_program, "full", true, &summary);
  assert_same_bytes("full", reference);
}
int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_flipped_bits),
      cmocka_unit_test(test_checkpoint_of_another_run),
      cmocka_unit_test(test_metrics_of_another_run),
      cmocka_unit_test(test_folders_that_do_not_fit),
      cmocka_unit_test(test_begun_without_checkpoint),
      cmocka_unit_test(test_locked_folder),
      cmocka_unit_test(test_unwritable_folder),
      cmocka_unit_test(test_full_disk),
  };
  return cmocka_run_group_tests(tests, make_reference, remove_root);
}
