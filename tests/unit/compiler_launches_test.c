/* What a GPU is given for one step of the examples: all of it stands in one captured CUDA graph, whose launches are counted here,
 * beside how many they would be without groups, and compared with tests/golden/launches.txt. BLESS=1 in the environment writes
 * that file anew. */
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

enum { MOST_LAUNCHES = 260 }; /* of a training step of cifar10-8, its update included */

static const char golden[] = ADWP_SOURCE_DIR "/tests/golden/launches.txt";

/* One a segment, and its products. */
static int64_t planned(const ProgramStep *step, int64_t *before) {
  int64_t count = 0;
  *before = 0;
  for (uint32_t s = 0; s < step->segment_count; s++) {
    const Segment *segment = &step->segments[s];
    int64_t products = 0;
    for (uint32_t l = 0; l < segment->count; l++) products += segment->launches[l].product != NULL;
    *before += segment->count;
    count += segment->group ? 1 + products : (int64_t)segment->count;
  }
  return count;
}

/* Bytes that the step's launches read and write, and the least that they could, by the static model. */
static void traffic(const ProgramStep *step, double *moved, double *least) {
  *moved = *least = 0;
  for (uint32_t s = 0; s < step->segment_count; s++)
    for (uint32_t l = 0; l < step->segments[s].count; l++) {
      const Launch *launch = &step->segments[s].launches[l];
      *moved += (double)(launch->read_bytes + launch->written_bytes) / 1e6;
      *least += (double)launch->least_bytes / 1e6;
    }
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
    int64_t before;
    assert_int_equal(captured, planned(step, &before));
    double moved, least;
    traffic(step, &moved, &least);
    text_printf(out, "%-12s %-12s %7lld %10lld %9.1f %9.1f\n", name, step->name, (long long)captured, (long long)before, moved,
                least);
    if (!strcmp(name, "cifar10-8") && !strcmp(step->name, "train_step")) assert_true(captured <= MOST_LAUNCHES);
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
  text_add(&text, "# example    step        launches  ungrouped  moved MB  least MB (at a batch of 2)\n");
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
