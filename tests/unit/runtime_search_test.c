/* Algorithm 1 on the toy program: equal bytes on any number of threads and after any interruption, the inputs of each step, and
 * which epoch wins. What the world can spoil is in runtime_search_world_test.c. */
#include "tests/unit/runtime_runs.h"

/* The run that the others are compared with: made by the first test. */
static const char *const reference = "reference";

static json_t *metric_lines(const char *run) {
  size_t size;
  char *data = read_whole(run, "metrics.jsonl", &size);
  json_t *lines = json_array();
  for (char *line = strtok(data, "\n"); line; line = strtok(NULL, "\n")) {
    json_t *object = json_loads(line, 0, NULL);
    assert_non_null(object);
    json_array_append_new(lines, object);
  }
  free(data);
  return lines;
}

static double real_of(const json_t *line, const char *key) {
  assert_true(json_is_number(json_object_get(line, key)));
  return json_number_value(json_object_get(line, key));
}

static void test_whole_run(void **state) {
  (void)state;
  SearchSummary summary;
  must_run(&toy_program, reference, false, &summary);
  assert_int_equal(summary.step, RUN_STEPS);
  assert_int_equal(summary.epoch, 6);
  assert_in_range(summary.best_epoch, 4, 5); /* those that begin at or after cross.end */
  json_t *lines = metric_lines(reference);
  assert_int_equal(json_array_size(lines), 6 * 2 + 1); /* one at step 4 of each epoch, one at its end; the result */
  static const char *const stages[] = {"train", "train", "search", "cross", "search", "search"};
  double best = 0;
  for (size_t e = 0; e < 6; e++) {
    const json_t *steps = json_array_get(lines, 2 * e), *epoch = json_array_get(lines, 2 * e + 1);
    assert_string_equal(json_string_value(json_object_get(steps, "kind")), "steps");
    assert_string_equal(json_string_value(json_object_get(epoch, "kind")), "epoch");
    assert_string_equal(json_string_value(json_object_get(epoch, "stage")), stages[e]);
    assert_int_equal((int)real_of(steps, "step"), 6 * e + 4);
    assert_int_equal((int)real_of(epoch, "step"), 6 * e + 6);
    assert_true(fabs(real_of(epoch, "rate") - 0.025 * (1 + cos(acos(-1) * (double)e / 6))) < 1e-9);
    if (e < 2)
      assert_null(json_object_get(epoch, "valid_accuracy"));
    else if (e >= 4 && real_of(epoch, "valid_accuracy") >= best)
      best = real_of(epoch, "valid_accuracy");
    if (e >= 2 && e < 4) assert_true(json_is_false(json_object_get(epoch, "best")));
  }
  assert_true(real_of(json_array_get(lines, 11), "loss") < real_of(json_array_get(lines, 1), "loss"));
  assert_true(fabs(best - summary.best_accuracy) < 1e-8);
  const json_t *result = json_array_get(lines, 12);
  assert_string_equal(json_string_value(json_object_get(result, "kind")), "result");
  assert_int_equal((int)real_of(result, "epoch"), summary.best_epoch);
  json_decref(lines);
}

/* The architecture is that of the logits in weights.safetensors, and evaluating the weights gives what the search had measured.
 */
static void test_results_belong_together(void **state) {
  (void)state;
  Err err;
  Arena *memory = arena_new();
  KeptOperations *kept = kept_read(path_of(reference, "arch.json"), toy_cells, 1, memory, &err);
  Safetensors *weights = safetensors_read(path_of(reference, "weights.safetensors"), 1 << 20, true, &err);
  assert_non_null(kept);
  assert_non_null(weights);
  assert_int_equal(safetensors_count(weights), 3); /* no momentum, no moments */
  for (int node = 0; node < 2; node++) {
    const float *logits = safetensors_find(weights, node ? "alpha.0.1" : "alpha.0.0")->data;
    const bool *row = kept_node(kept, 0, node);
    int dropped = !row[0] ? 0 : !row[1] ? 1 : 2;
    assert_int_equal(row[0] + row[1] + row[2], 2);
    for (int k = 0; k < 3; k++) assert_true(logits[k] >= logits[dropped]);
    assert_true(fabsf(logits[0] - logits[1]) > 1e-3F); /* Adam has moved them */
  }
  safetensors_free(weights);
  arena_free(memory);

  SearchSummary summary; /* of resuming what is finished */
  must_run(&toy_program, reference, true, &summary);
  EvaluateOptions options = {.weights = path_of(reference, "weights.safetensors"), .threads = 2};
  Evaluator *evaluator = evaluator_new(&options, &err);
  assert_non_null(evaluator);
  assert_true(evaluator_load(evaluator, &toy_program, &err));
  for (int round = 0; round < 2; round++) {
    EvaluateOutcome outcome;
    assert_true(evaluator_run(evaluator, &toy_program, &outcome, &err));
    assert_int_equal(outcome.images, 60);
    assert_true(outcome.accuracy == summary.best_accuracy);
    assert_true(outcome.loss == summary.best_loss);
  }
  evaluator_free(evaluator);
  options.test = true; /* 34 images: the last batch is filled up, and those are not counted */
  evaluator = evaluator_new(&options, &err);
  EvaluateOutcome outcome;
  assert_true(evaluator && evaluator_load(evaluator, &toy_program, &err));
  assert_true(evaluator_run(evaluator, &toy_program, &outcome, &err));
  assert_int_equal(outcome.images, 34);
  evaluator_free(evaluator);
}

static void test_threads_change_nothing(void **state) {
  (void)state;
  for (int32_t threads = 1; threads <= 3; threads++) {
    char run[32];
    snprintf(run, sizeof run, "threads-%d", threads);
    SearchOptions options = options_of(run);
    options.threads = threads;
    options.stop = NULL;
    SearchSummary summary;
    Err err;
    assert_true(search_run(&toy_program, &options, &summary, &err));
    assert_same_bytes(run, reference);
  }
}

/* One run stopped after every step, and one stopped before its first. */
static void test_stop_after_each_step(void **state) {
  (void)state;
  SearchSummary summary = {0};
  Err err;
  for (int resumed = 0; !summary.finished; resumed++) {
    assert_in_range(resumed, 0, RUN_STEPS);
    if (!run_some(&toy_program, "stopped", resumed > 0, 1, &summary, &err)) fail_msg("%s", err.text);
    assert_int_equal(summary.step, resumed < RUN_STEPS ? resumed + 1 : RUN_STEPS);
  }
  assert_same_bytes("stopped", reference);
  SearchOptions options = options_of("stopped-at-once");
  toy_stop = 1;
  assert_true(search_run(&toy_program, &options, &summary, &err));
  assert_int_equal(summary.step, 0);
  assert_false(summary.finished);
  must_run(&toy_program, "stopped-at-once", true, &summary);
  assert_same_bytes("stopped-at-once", reference);
}

/* Runs in a process of its own and is killed: after `steps` steps, or, where they are 0, after `microseconds`. */
static int run_and_kill(const char *run, bool resume, long steps, useconds_t microseconds) {
  pid_t child = fork();
  if (child == 0) {
    SearchOptions options = options_of(run);
    options.resume = resume;
    options.checkpoint_steps = 4;
    atomic_store(&toy_kill, true);
    atomic_store(&toy_steps_left, steps ? steps : -1);
    SearchSummary summary;
    Err err;
    _exit(search_run(&toy_program, &options, &summary, &err) ? 0 : 1);
  }
  if (!steps) {
    usleep(microseconds);
    kill(child, SIGKILL);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  return status;
}

static bool has_run(const char *run) {
  return access(path_of(run, "model.adwp"), F_OK) == 0;
}

static void test_killed_and_resumed(void **state) {
  (void)state;
  for (int round = 0; round < 3; round++) { /* a checkpoint every 4 steps, a death after 5 or more: each run gets further */
    char run[32];
    snprintf(run, sizeof run, "killed-%d", round);
    int status = 1;
    for (uint64_t n = 0; status; n++) {
      assert_in_range(n, 0, 100);
      status = run_and_kill(run, has_run(run), 5 + random_below(3, RANDOM_TEST, (uint64_t)round, n, 9), 0);
      if (status) assert_true(WIFSIGNALED(status));
    }
    assert_same_bytes(run, reference);
  }
}

static void test_killed_at_any_moment(void **state) {
  (void)state;
  SearchSummary summary;
  for (uint64_t n = 0; n < 20; n++) {
    int status = run_and_kill("killed-anywhere", has_run("killed-anywhere"), 0, random_below(4, RANDOM_TEST, 0, n, 40000));
    if (!WIFSIGNALED(status)) assert_int_equal(WEXITSTATUS(status), 0);
  }
  must_run(&toy_program, "killed-anywhere", has_run("killed-anywhere"), &summary);
  assert_same_bytes("killed-anywhere", reference);
}

static void test_loss_that_is_not_a_number(void **state) {
  (void)state;
  make_half("diverged");
  atomic_store(&toy_poison, true);
  assert_fails(&toy_program, "diverged", true,
               WORDS("not a number", "step 4 of epoch 4/6", "step 22 of the run", "last good checkpoint is",
                     "diverged/checkpoint.safetensors"));
  SearchSummary summary;
  must_run(&toy_program, "diverged", true, &summary);
  assert_same_bytes("diverged", reference);
  atomic_store(&toy_poison, true);
  assert_fails(&toy_program, "diverged-at-once", false, WORDS("no checkpoint yet"));
}

static void test_which_epoch_wins(void **state) {
  (void)state;
  SearchSummary summary;
  Program program = toy_program;
  program.search.last = true;
  must_run(&program, "last", false, &summary);
  assert_int_equal(summary.best_epoch, 5);

  program = toy_program;
  program.search.cross_start = program.search.cross_end = 0;
  program.search.alpha_lr = 0; /* nothing changes after epoch 2: all tie, and the later wins */
  must_run(&program, "ties", false, &summary);
  assert_int_equal(summary.best_epoch, 5);

  program = toy_program;
  program.search.cross_start = 4;
  program.search.cross_end = 6; /* none begins after it: all of the search stage count */
  must_run(&program, "crossed", false, &summary);
  assert_in_range(summary.best_epoch, 2, 5);
  json_t *lines = metric_lines("crossed");
  double best = 0;
  for (size_t e = 2; e < 6; e++) best = fmax(best, real_of(json_array_get(lines, 2 * e + 1), "valid_accuracy"));
  assert_true(real_of(json_array_get(lines, 2 * (size_t)summary.best_epoch + 1), "valid_accuracy") == best);
  json_decref(lines);

  program = toy_program;
  program.search.total = program.search.train;
  program.search.cross_start = program.search.cross_end = 0;
  must_run(&program, "no-search", false, &summary);
  assert_int_equal(summary.best_epoch, -1);
  assert_int_equal(access(path_of("no-search", "arch.json"), F_OK), 0);
}

/* Stage by stage, what moves: the weights, their momentum, the logits. */
static void test_gates(void **state) {
  (void)state;
  float weights[RUN_STEPS / EPOCH_STEPS + 1], momentum[RUN_STEPS / EPOCH_STEPS + 1], logits[RUN_STEPS / EPOCH_STEPS + 1];
  SearchSummary summary;
  Err err;
  for (int epoch = 1; epoch <= 6; epoch++) { /* stopped in the epoch's last step: the checkpoint is of after it */
    assert_true(run_some(&toy_program, "gates", epoch > 1, EPOCH_STEPS, &summary, &err));
    Safetensors *file = safetensors_read(path_of("gates", "checkpoint.safetensors"), 1 << 20, true, &err);
    assert_non_null(file);
    weights[epoch] = *(const float *)safetensors_find(file, "classifier.weight")->data;
    momentum[epoch] = *(const float *)safetensors_find(file, "momentum.classifier.weight")->data;
    logits[epoch] = *(const float *)safetensors_find(file, "alpha.0.0")->data;
    safetensors_free(file);
  }
  assert_true(weights[1] != weights[2] && weights[2] == weights[3] && weights[3] != weights[4] && weights[4] == weights[5]);
  assert_true(momentum[2] == momentum[3] && momentum[3] != momentum[4] && momentum[4] == momentum[6]);
  assert_true(fabsf(logits[2]) > 0.01F); /* random of deviation 1 */
  assert_true(fabsf(logits[3]) < 0.07F); /* six Adam steps of 0.01 from 1e-3 */
  assert_true(logits[3] != logits[4] && logits[4] != logits[5] && logits[5] != logits[6]);
}

/* What each step is given: the rate of its epoch, Adam's corrections from the first step of the search on, new logits in
 * training. */
static void test_inputs_of_steps(void **state) {
  (void)state;
  SearchSummary summary;
  toy_logged = 0;
  must_run(&toy_program, "inputs", false, &summary);
  assert_int_equal(toy_logged, RUN_STEPS);
  for (int n = 0; n < RUN_STEPS; n++) {
    const ToyStep *step = &toy_log[n];
    int epoch = n / EPOCH_STEPS, t = n - 2 * EPOCH_STEPS + 1;
    assert_int_equal(step->kind, "ttscss"[epoch]);
    if (step->kind != 's') assert_true(fabs(step->rate - 0.025 * (1 + cos(acos(-1) * epoch / 6))) < 1e-8);
    if (step->kind == 't') {
      assert_true(step->logit == random_normal(7, RANDOM_ALPHA, (uint64_t)n, 0));
      continue;
    }
    assert_true(step->corrections[0] == 0.01F);
    assert_true(step->corrections[1] == (float)(1 - pow(0.5, t)));
    assert_true(step->corrections[2] == (float)(1 - pow(0.999, t)));
    if (t == 1) assert_true(step->logit == (float)(1e-3 * (double)random_normal(7, RANDOM_ALPHA_START, 0, 0)));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_whole_run),
      cmocka_unit_test(test_results_belong_together),
      cmocka_unit_test(test_threads_change_nothing),
      cmocka_unit_test(test_stop_after_each_step),
      cmocka_unit_test(test_killed_and_resumed),
      cmocka_unit_test(test_killed_at_any_moment),
      cmocka_unit_test(test_loss_that_is_not_a_number),
      cmocka_unit_test(test_which_epoch_wins),
      cmocka_unit_test(test_gates),
      cmocka_unit_test(test_inputs_of_steps),
  };
  return cmocka_run_group_tests(tests, make_root, remove_root);
}
