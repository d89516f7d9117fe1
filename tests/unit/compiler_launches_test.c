/* What a GPU is given for one step of the examples: all of it stands in one captured CUDA graph, whose launches are counted here
 * and compared with tests/golden/launches.txt. BLESS=1 in the environment writes that file anew. */
#include "compiler/pipeline.h"
#include "dsl/dsl.h"
#include "runtime/base/file.h"
#include "runtime/executor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char golden[] = ADWP_SOURCE_DIR "/tests/golden/launches.txt";

static int64_t planned(const ProgramStep *step) {
  int64_t count = 0;
  for (uint32_t s = 0; s < step->segment_count; s++) count += step->segments[s].count;
  return count;
}

static void count_example(const char *name, const char *emulator, Text *out) {
  Arena *arena = arena_new();
  Diagnostics diagnostics = {0};
  DslOptions none = {0};
  Err err = {{0}};
  const Model *model = dsl_load(arena_printf(arena, "%s/examples/%s.adwp", ADWP_SOURCE_DIR, name), &none, arena, &diagnostics);
  if (!model) fail_msg("%s", diagnostics.out.data);
  PipelineOptions options = {.steps = STEP_TRAIN | STEP_SEARCH | STEP_CROSS | STEP_EVAL,
                             .device = "cuda-emulator",
                             .threads = 1,
                             .batch = 2}; /* the number does not depend on it, and memory does */
  Compiled *compiled = pipeline_compile(model, &options, &err);
  if (!compiled) fail_msg("%s", err.text);
  Executor *executor = executor_new(compiled->program, &(ExecutorOptions){.threads = 1, .emulator = emulator}, &err);
  if (!executor) fail_msg("%s", err.text);
  for (uint32_t i = 0; i < compiled->program->step_count; i++) {
    const ProgramStep *step = &compiled->program->steps[i];
    int64_t captured = executor_launches(executor, step, 2, &err);
    if (captured < 0) fail_msg("%s", err.text);
    assert_int_equal(captured, planned(step));
    text_printf(out, "%-12s %-12s %5lld\n", name, step->name, (long long)captured);
  }
  executor_free(executor);
  pipeline_free(compiled);
  text_free(&diagnostics.out);
  arena_free(arena);
}

static void test_launches(void **unused) {
  (void)unused;
  const char *emulator = EMULATOR_LIBRARY;
  if (access(emulator, R_OK)) skip();
  Text text = {0};
  Err err;
  text_add(&text, "# example    step         launches of one run\n");
  count_example("tiny", emulator, &text);
  count_example("cifar10-8", emulator, &text);
  count_example("cifar10-14", emulator, &text);
  if (getenv("BLESS") && !file_replace(golden, text.data, text.length, &err)) fail_msg("%s", err.text);
  char *want;
  size_t size;
  if (!file_read(golden, 1 << 20, &want, &size, &err)) fail_msg("%s", err.text);
  assert_string_equal(text.data, want);
  free(want);
  text_free(&text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_launches)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
