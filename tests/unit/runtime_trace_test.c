/* The trace of a step on the CPU device: every task of every launch stands in it once, what one worker did stands in the order of
 * time and does not overlap, and no launch of a segment begins before the segment before it has ended.
 *
 * Step: a run of two launches of 2 images a task, and beside it a launch of 5 tasks; then a launch of 3 tasks. */
#include "runtime/executor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 9, LAUNCHES = 4, MOST_TASKS = 5 };

static void run_some(const KernelArgs *args, int64_t task0, int64_t task1) {
  float *sums = args->buffers[0];
  for (int64_t task = task0; task < task1; task++)
    for (int i = 0; i < 3000; i++) sums[task * 16] = 0.5F * sums[task * 16] + 1;
}

static const ProgramKernel kernels[] = {{.name = "some", .run = run_some}};
static const BufferRef first_buffers[] = {{.space = BUFFER_ARENA, .offset = 0}};
static const BufferRef second_buffers[] = {{.space = BUFFER_ARENA, .offset = 512}};
static const BufferRef third_buffers[] = {{.space = BUFFER_ARENA, .offset = 1024}};
static const Launch first[] = {
    {.buffer_count = 1, .buffers = first_buffers, .images = 2, .tasks = 1},
    {.buffer_count = 1, .buffers = second_buffers, .images = 2, .tasks = 1, .joins = true},
    {.buffer_count = 1, .buffers = third_buffers, .tasks = 5},
};
static const Launch last[] = {{.buffer_count = 1, .buffers = first_buffers, .tasks = 3}};
static const Segment segments[] = {{.launches = first, .count = 3}, {.launches = last, .count = 1}};
static const ProgramStep steps[] = {{.name = "step", .segments = segments, .segment_count = 2, .arena_bytes = 1536}};
static const Program program = {.name = "traced",
                                .batch = BATCH,
                                .parameter_bytes = 64,
                                .kernels = kernels,
                                .kernel_count = 1,
                                .steps = steps,
                                .step_count = 1};

typedef struct Seen {
  int32_t threads;
  int times[LAUNCHES][MOST_TASKS]; /* that each task was done */
  double end[8];                   /* of the last slice of each worker */
  double first_end, last_start;    /* of the first segment's last slice, of the second one's first */
} Seen;

static void look(void *context, const ExecutorSlice *slice) {
  Seen *seen = context;
  assert_in_range(slice->worker, 0, seen->threads - 1);
  assert_in_range(slice->launch, 0, LAUNCHES - 1);
  assert_true(slice->start >= seen->end[slice->worker] && slice->end >= slice->start && slice->end < 60);
  seen->end[slice->worker] = slice->end;
  assert_true(slice->first >= 0 && slice->first < slice->last && slice->last <= MOST_TASKS);
  for (int64_t task = slice->first; task < slice->last; task++) seen->times[slice->launch][task]++;
  bool second = slice->launch == LAUNCHES - 1;
  if (!second && slice->end > seen->first_end) seen->first_end = slice->end;
  if (second && slice->start < seen->last_start) seen->last_start = slice->start;
}

static void test_every_task_once_and_in_order(void **state) {
  (void)state;
  static const int32_t tasks[LAUNCHES] = {(BATCH + 1) / 2, (BATCH + 1) / 2, 5, 3};
  for (int32_t threads = 1; threads <= 4; threads++) {
    Err err;
    Executor *executor = executor_new(&program, &(ExecutorOptions){.threads = threads}, &err);
    if (!executor) fail_msg("%s", err.text);
    for (int round = 0; round < 3; round++) {
      Seen seen = {.threads = threads, .last_start = 1e9};
      assert_true(executor_trace(executor, steps, BATCH, look, &seen, &err));
      for (int l = 0; l < LAUNCHES; l++)
        for (int t = 0; t < MOST_TASKS; t++) assert_int_equal(seen.times[l][t], t < tasks[l]);
      assert_true(seen.last_start >= seen.first_end);
      assert_true(executor_run(executor, steps, BATCH, &err) >= 0); /* which leaves no slices behind */
    }
    executor_free(executor);
  }
}

static void test_profile_goes_on_working(void **state) {
  (void)state;
  Err err;
  Executor *executor = executor_new(&program, &(ExecutorOptions){.threads = 2}, &err);
  if (!executor) fail_msg("%s", err.text);
  Seen seen = {.threads = 2, .last_start = 1e9};
  double seconds[LAUNCHES] = {0};
  assert_true(executor_trace(executor, steps, BATCH, look, &seen, &err));
  assert_true(executor_profile(executor, steps, BATCH, seconds, &err));
  for (int l = 0; l < LAUNCHES; l++) assert_true(seconds[l] > 0 && seconds[l] < 10);
  executor_free(executor);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_task_once_and_in_order),
      cmocka_unit_test(test_profile_goes_on_working),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
