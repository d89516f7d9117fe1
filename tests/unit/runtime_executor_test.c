/* The CPU device and the Program's two orders, on a program whose kernels are C functions of this file.
 *
 * Step "mix": x (B, 4) is negated into v by a launch of 3 images a task, beside one that does the same of 1 image to `other`; in
 * the next segment a run of two launches, of 2 images a task, doubles x into u, which stands in the worker's scratch, and adds u,
 * v and the parameter w (4) into `sum` (B, 4); a launch of 4 fixed tasks then sums the columns to `columns` (4). */
#include "runtime/executor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 10, WIDTH = 4 };

static atomic_int scratch_faults;

static void scale_rows(const KernelArgs *args, int64_t first, int64_t last, float factor) {
  const float *x = args->buffers[0];
  float *y = args->buffers[1];
  if (last > args->batch) last = args->batch;
  for (int64_t i = first * WIDTH; i < last * WIDTH; i++) y[i] = factor * x[i];
}

static void run_double(const KernelArgs *args, int64_t task0, int64_t task1) {
  scale_rows(args, 2 * task0, 2 * task1, 2);
}

static void run_negate(const KernelArgs *args, int64_t task0, int64_t task1) {
  scale_rows(args, 3 * task0, 3 * task1, -0.5F);
}

static void run_negate_one(const KernelArgs *args, int64_t task0, int64_t task1) {
  scale_rows(args, task0, task1, -0.5F);
}

static void run_add(const KernelArgs *args, int64_t task0, int64_t task1) {
  const float *u = args->buffers[0], *v = args->buffers[1], *w = args->buffers[2];
  float *sum = args->buffers[3], *scratch = args->scratch;
  if ((uintptr_t)scratch % 64) atomic_fetch_add(&scratch_faults, 1);
  int64_t last = 2 * task1 < args->batch ? 2 * task1 : args->batch;
  for (int64_t i = 2 * task0 * WIDTH; i < last * WIDTH; i++) {
    if (scratch[7] != 0) atomic_fetch_add(&scratch_faults, 1); /* nobody writes it: zero from the start */
    scratch[i % WIDTH] = u[i] + v[i];
    sum[i] = scratch[i % WIDTH] + w[i % WIDTH];
  }
}

static void run_columns(const KernelArgs *args, int64_t task0, int64_t task1) {
  const float *sum = args->buffers[0];
  float *columns = args->buffers[1];
  for (int64_t c = task0; c < task1; c++) {
    columns[c] = 0;
    for (int64_t b = 0; b < args->batch; b++) columns[c] += sum[b * WIDTH + c];
  }
}

enum { AT_X = 0, AT_OTHER = 192, AT_V = 384, AT_SUM = 576, AT_COLUMNS = 768, ARENA_BYTES = 832 };

static const ProgramKernel kernels[] = {
    {.name = "double", .run = run_double},
    {.name = "negate", .run = run_negate},
    {.name = "add", .run = run_add, .scratch_bytes = 64},
    {.name = "columns", .run = run_columns},
    {.name = "negate_one", .run = run_negate_one},
};
static const BufferRef double_buffers[] = {{BUFFER_ARENA, AT_X, 0}, {BUFFER_SCRATCH, 64, 4 * WIDTH}};
static const BufferRef other_buffers[] = {{BUFFER_ARENA, AT_X, 0}, {BUFFER_ARENA, AT_OTHER, 0}};
static const BufferRef negate_buffers[] = {{BUFFER_ARENA, AT_X, 0}, {BUFFER_ARENA, AT_V, 0}};
static const BufferRef add_buffers[] = {
    {BUFFER_SCRATCH, 64, 4 * WIDTH}, {BUFFER_ARENA, AT_V, 0}, {BUFFER_PARAMETER, 64, 0}, {BUFFER_ARENA, AT_SUM, 0}};
static const BufferRef column_buffers[] = {{BUFFER_ARENA, AT_SUM, 0}, {BUFFER_ARENA, AT_COLUMNS, 0}};
static const Launch negate_launches[] = {
    {.kernel = 4, .buffer_count = 2, .buffers = other_buffers, .images = 1, .tasks = 1},
    {.kernel = 1, .buffer_count = 2, .buffers = negate_buffers, .images = 3, .tasks = 1},
};
static const Launch add_launches[] = {
    {.kernel = 0, .buffer_count = 2, .buffers = double_buffers, .images = 2, .tasks = 1},
    {.kernel = 2, .buffer_count = 4, .buffers = add_buffers, .images = 2, .tasks = 1, .joins = true},
};
static const Launch column_launch[] = {{.kernel = 3, .buffer_count = 2, .buffers = column_buffers, .tasks = WIDTH}};
static const Segment segments[] = {
    {.launches = negate_launches, .count = 2}, {.launches = add_launches, .count = 2}, {.launches = column_launch, .count = 1}};
static const NamedBuffer inputs[] = {{"x", AT_X, BATCH *WIDTH, false}};
static const NamedBuffer results[] = {{"sum", AT_SUM, BATCH *WIDTH, false}, {"columns", AT_COLUMNS, WIDTH, false}};
static const ProgramStep steps[] = {{.name = "mix",
                                     .segments = segments,
                                     .segment_count = 3,
                                     .arena_bytes = ARENA_BYTES,
                                     .scratch_bytes = 64 + 2 * 4 * WIDTH,
                                     .inputs = inputs,
                                     .input_count = 1,
                                     .results = results,
                                     .result_count = 2}};
static const ProgramParameter parameters[] = {
    {.name = "first", .rank = 1, .dims = {WIDTH}, .offset = 0, .elements = WIDTH},
    {.name = "w", .rank = 1, .dims = {WIDTH}, .offset = 64, .elements = WIDTH},
};
static const Program program = {.name = "mixer",
                                .batch = BATCH,
                                .parameter_bytes = 128,
                                .parameters = parameters,
                                .parameter_count = 2,
                                .kernels = kernels,
                                .kernel_count = 5,
                                .steps = steps,
                                .step_count = 1};

static Executor *begin(int32_t threads) {
  Err err;
  Executor *executor = executor_new(&program, &(ExecutorOptions){.threads = threads}, &err);
  if (!executor) fail_msg("%s", err.text);
  return executor;
}

static void run_and_check(Executor *executor, int64_t batch, double *seconds) {
  float x[BATCH * WIDTH], w[WIDTH];
  Err err;
  for (int i = 0; i < BATCH * WIDTH; i++) x[i] = (float)(i + batch);
  for (int c = 0; c < WIDTH; c++) w[c] = (float)(100 * c);
  assert_true(executor_input(executor, steps, "x", x, batch * WIDTH, &err));
  assert_true(executor_write(executor, 1, w, &err));
  int64_t run = executor_run(executor, steps, batch, &err);
  assert_true(run >= 0);
  if (seconds) assert_true(executor_profile(executor, steps, batch, seconds, &err));
  const float *sum = executor_result(executor, steps, run, "sum", &err);
  const float *columns = executor_result(executor, steps, run, "columns", &err);
  for (int c = 0; c < WIDTH; c++) {
    float total = 0;
    for (int b = 0; b < batch; b++) {
      float want = 1.5F * x[b * WIDTH + c] + w[c];
      assert_true(sum[b * WIDTH + c] == want);
      total += want;
    }
    assert_true(columns[c] == total);
  }
  assert_int_equal(scratch_faults, 0);
}

static void test_any_batch_on_any_threads(void **state) {
  (void)state;
  for (int32_t threads = 1; threads <= 4; threads++) {
    Executor *executor = begin(threads);
    for (int64_t batch = 1; batch <= BATCH; batch++) run_and_check(executor, batch, NULL);
    for (int64_t batch = BATCH; batch >= 1; batch -= 3) run_and_check(executor, batch, NULL);
    executor_free(executor);
  }
}

static void test_profile_times_each_launch(void **state) {
  (void)state;
  Executor *executor = begin(2);
  double seconds[5] = {0};
  run_and_check(executor, 7, seconds);
  for (int i = 0; i < 5; i++) assert_true(seconds[i] > 0 && seconds[i] < 10);
  double before = seconds[4];
  run_and_check(executor, 7, seconds);
  assert_true(seconds[4] > before);
  executor_free(executor);
}

static void test_runs_and_launches_are_counted(void **state) {
  (void)state;
  Err err;
  Executor *executor = begin(1);
  assert_int_equal(executor_depth(executor), 1);
  for (int64_t n = 0; n < 3; n++) assert_int_equal(executor_run(executor, steps, BATCH, &err), n);
  assert_true(executor_finish(executor, &err));
  assert_int_equal(executor_launches(executor, steps, BATCH, &err), 5);
  executor_free(executor);
}

/* A part of an input may be set alone, from its first element on; parameters come back as they were written. */
static void test_inputs_and_parameters_are_copies(void **state) {
  (void)state;
  Err err;
  Executor *executor = begin(1);
  const float whole[2 * WIDTH] = {1, 2, 3, 4, 5, 6, 7, 8}, part[2] = {10, 20}, first[WIDTH] = {3, 1, 4, 1};
  float back[WIDTH];
  assert_true(executor_read(executor, 0, back, &err));
  for (int c = 0; c < WIDTH; c++) assert_true(back[c] == 0); /* as at the start */
  assert_true(executor_write(executor, 0, first, &err));
  assert_true(executor_input(executor, steps, "x", whole, 2 * WIDTH, &err));
  assert_true(executor_input(executor, steps, "x", part, 2, &err));
  const float *sum = executor_result(executor, steps, executor_run(executor, steps, 2, &err), "sum", &err);
  static const float want[2 * WIDTH] = {15, 30, 4.5F, 6, 7.5F, 9, 10.5F, 12};
  assert_memory_equal(sum, want, sizeof want);
  assert_true(executor_read(executor, 0, back, &err));
  assert_memory_equal(back, first, sizeof back);
  executor_free(executor);
}

static void test_names(void **state) {
  (void)state;
  assert_ptr_equal(program_find_step(&program, "mix"), steps);
  assert_null(program_find_step(&program, "mi"));
  assert_ptr_equal(program_find_input(steps, "x"), inputs);
  assert_null(program_find_input(steps, "sum"));
  assert_ptr_equal(program_find_result(steps, "columns"), results + 1);
  assert_null(program_find_result(steps, "x"));
  assert_int_equal(program_find_parameter(&program, "w"), 1);
  assert_int_equal(program_find_parameter(&program, "v"), -1);
}

static void test_no_memory_is_an_error(void **state) {
  (void)state;
  ProgramStep huge = steps[0];
  huge.arena_bytes = INT64_C(1) << 50;
  Program with_huge = program;
  with_huge.steps = &huge;
  Err err = {""};
  assert_null(executor_new(&with_huge, &(ExecutorOptions){.threads = 2}, &err));
  assert_non_null(strstr(err.text, "1073741824 MB of memory for activations"));
}

/* A weight (6, 5, 3): rows in blocks of 2, stored with the block's two rows innermost: view (3, 2, 15), order (0, 2, 1). */
static void test_stored_order(void **state) {
  (void)state;
  ProgramParameter parameter = {
      .name = "w", .rank = 3, .dims = {6, 5, 3}, .elements = 90, .view_rank = 3, .view = {3, 2, 15}, .order = {0, 2, 1}};
  float canonical[90], stored[90], back[90];
  for (int i = 0; i < 90; i++) canonical[i] = (float)i;
  program_to_stored(&parameter, canonical, stored);
  for (int block = 0; block < 3; block++)
    for (int row = 0; row < 2; row++)
      for (int i = 0; i < 15; i++) assert_true(stored[(block * 15 + i) * 2 + row] == (float)((block * 2 + row) * 15 + i));
  program_to_canonical(&parameter, stored, back);
  assert_memory_equal(canonical, back, sizeof back);

  parameter.view_rank = 0;
  program_to_stored(&parameter, canonical, stored);
  assert_memory_equal(canonical, stored, sizeof stored);
  program_to_canonical(&parameter, stored, back);
  assert_memory_equal(canonical, back, sizeof back);

  ProgramParameter six = {.name = "v", .elements = 96, .view_rank = 6, .view = {2, 2, 2, 3, 2, 2}, .order = {5, 3, 1, 0, 4, 2}};
  float source[96], there[96], again[96];
  for (int i = 0; i < 96; i++) source[i] = (float)(i * i);
  program_to_stored(&six, source, there);
  program_to_canonical(&six, there, again);
  assert_memory_equal(source, again, sizeof again);
  /* stored index (f, d, b, a, e, c) of canonical (a, b, c, d, e, f) = (1, 0, 1, 2, 0, 1) */
  int canonical_at = ((((1 * 2 + 0) * 2 + 1) * 3 + 2) * 2 + 0) * 2 + 1,
      stored_at = ((((1 * 3 + 2) * 2 + 0) * 2 + 1) * 2 + 0) * 2 + 1;
  assert_true(there[stored_at] == source[canonical_at]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_any_batch_on_any_threads),
      cmocka_unit_test(test_profile_times_each_launch),
      cmocka_unit_test(test_runs_and_launches_are_counted),
      cmocka_unit_test(test_inputs_and_parameters_are_copies),
      cmocka_unit_test(test_names),
      cmocka_unit_test(test_no_memory_is_an_error),
      cmocka_unit_test(test_stored_order),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
