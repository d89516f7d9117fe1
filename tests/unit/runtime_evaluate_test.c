/* Weights must be those of the model that is measured, and a step may do without the pixels. */
#include "runtime/evaluate.h"

#include "runtime/base/file.h"
#include "runtime/safetensors.h"
#include "runtime/search.h"
#include "tests/unit/runtime_toy_program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64], folder[128], weights[160];

/* The toy's steps without the input x: what its kernels read there is zeros. */
static Program without_pixels(ProgramStep *steps) {
  Program program = toy_program;
  for (uint32_t i = 0; i < toy_program.step_count; i++) {
    steps[i] = toy_steps[i];
    steps[i].inputs++;
    steps[i].input_count--;
  }
  program.steps = steps;
  return program;
}

static void run(const Program *program) {
  SearchOptions options = {.run_folder = folder, .threads = 1};
  SearchSummary summary;
  Err err;
  if (!search_run(program, &options, &summary, &err)) fail_msg("%s", err.text);
}

static void assert_has(const Err *err, const char *words) {
  if (!strstr(err->text, words)) fail_msg("\"%s\" is not in \"%s\"", words, err->text);
}

static void test_step_without_pixels(void **state) {
  (void)state;
  ProgramStep steps[4];
  Program program = without_pixels(steps);
  run(&program);
  EvaluateOptions options = {.weights = weights, .threads = 1};
  Err err;
  EvaluateOutcome outcome;
  Evaluator *evaluator = evaluator_new(&options, &err);
  assert_true(evaluator && evaluator_load(evaluator, &program, &err));
  assert_true(evaluator_run(evaluator, &program, &outcome, &err));
  assert_int_equal(outcome.images, 60);
  assert_true(fabs(outcome.loss - log(10)) < 1e-5); /* no class is likelier than another */
  evaluator_free(evaluator);
}

static void test_weights_of_another_model(void **state) {
  (void)state;
  run(&toy_program);
  EvaluateOptions options = {.weights = weights, .threads = 1};
  Err err;
  Evaluator *evaluator = evaluator_new(&options, &err);
  assert_non_null(evaluator);
  assert_string_equal(evaluator_target(evaluator), "x86-64-v4");
  Program other = toy_program;
  other.model_hash = "fedcba9876543210";
  assert_false(evaluator_load(evaluator, &other, &err));
  assert_has(&err, weights);
  assert_has(&err, "0123456789abcdef, and this model's is fedcba9876543210; put back");
  other.search.seed++;
  assert_false(evaluator_load(evaluator, &other, &err));
  assert_has(&err, "their seed 7, and this model's is fedcba9876543210 and its seed 8");
  assert_true(evaluator_load(evaluator, &toy_program, &err));
  evaluator_free(evaluator);
}

static void test_weights_of_nobody(void **state) {
  (void)state;
  static const float value = 1;
  const SafetensorsTensor tensor = {.name = "classifier.weight", .type = SAFETENSORS_F32, .data = &value};
  SafetensorsEntry metadata[] = {{"format", "adwp-weights 1"}, {"model_hash", toy_program.model_hash}, {"target", "x86-64-v3"}};
  EvaluateOptions options = {.weights = weights, .threads = 1};
  Err err;
  static const char *const missing[] = {"\"format\"", "\"model_hash\"", "\"target\""};
  for (size_t count = 0; count < 3; count++) {
    assert_true(safetensors_write(weights, &tensor, 1, metadata, count, NULL, NULL, &err));
    assert_null(evaluator_new(&options, &err));
    assert_has(&err, missing[count]);
  }
  metadata[0].value = "adwp-weights 7";
  assert_true(safetensors_write(weights, &tensor, 1, metadata, 3, NULL, NULL, &err));
  assert_null(evaluator_new(&options, &err));
  assert_has(&err, "of the format \"adwp-weights 7\", and \"adwp-weights 1\" is wanted");
}

static int make_root(void **state) {
  (void)state;
  snprintf(root, sizeof root, "%s/adwp-evaluate-test-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
  if (!mkdtemp(root)) return -1;
  snprintf(folder, sizeof folder, "%s/run", root);
  snprintf(weights, sizeof weights, "%s/weights.safetensors", folder);
  return 0;
}

static int make_folder(void **state) {
  Err err;
  return make_root(state) == 0 && folder_make(folder, &err) ? 0 : -1;
}

static int remove_root(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", root);
  return system(command);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_step_without_pixels, make_root, remove_root),
      cmocka_unit_test_setup_teardown(test_weights_of_another_model, make_root, remove_root),
      cmocka_unit_test_setup_teardown(test_weights_of_nobody, make_folder, remove_root),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
