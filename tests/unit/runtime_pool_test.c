/* The pool: every task runs once, whatever the number of threads and tasks; and a worker that does not run holds nobody up. */
#include "runtime/pool.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST_TASKS = 5000 };

typedef struct Count {
  unsigned char ran[MOST_TASKS]; /* plain memory: a task that ran twice at once is a race that TSan sees */
  int64_t tasks, sum_seen;
  int32_t threads;
  atomic_int outside; /* tasks or workers that do not exist */
} Count;

static void count_tasks(void *context, int32_t worker, int64_t first, int64_t last) {
  Count *count = context;
  if (worker < 0 || worker >= count->threads || first < 0 || first >= last || last > count->tasks) {
    atomic_fetch_add(&count->outside, 1);
    return;
  }
  for (int64_t t = first; t < last; t++) count->ran[t]++;
}

static void run_segment(Pool *pool, Count *count, int64_t tasks) {
  memset(count->ran, 0, sizeof count->ran);
  count->tasks = tasks;
  pool_run(pool, tasks, count_tasks, count);
  for (int64_t t = 0; t < MOST_TASKS; t++) assert_int_equal(count->ran[t], t < tasks);
  assert_int_equal(count->outside, 0);
}

static void test_every_task_runs_once(void **state) {
  (void)state;
  const int64_t sizes[] = {0, 1, 2, 3, 7, 98, 300, MOST_TASKS};
  for (int32_t threads = 1; threads <= 5; threads++) {
    Err err;
    Pool *pool = pool_new(threads, &err);
    assert_non_null(pool);
    assert_int_equal(pool_threads(pool), threads);
    Count *count = test_calloc(1, sizeof *count);
    count->threads = threads;
    for (int round = 0; round < 40; round++) run_segment(pool, count, sizes[round % 8]);
    test_free(count);
    pool_free(pool);
  }
}

static void nap(long nanoseconds) {
  nanosleep(&(struct timespec){.tv_nsec = nanoseconds}, NULL);
}

/* Between the segments workers are caught spinning, falling asleep and asleep. */
static void test_sleeping_workers_wake(void **state) {
  (void)state;
  Err err;
  Pool *pool = pool_new(3, &err);
  assert_non_null(pool);
  Count *count = test_calloc(1, sizeof *count);
  count->threads = 3;
  for (int round = 0; round < 100; round++) {
    run_segment(pool, count, 40);
    nap(round % 10 * 10000);
  }
  test_free(count);
  pool_free(pool);
}

typedef struct Chain {
  int64_t value[64];
  int64_t step;
} Chain;

/* Each segment reads what another task of the segment before wrote. */
static void read_neighbour(void *context, int32_t worker, int64_t first, int64_t last) {
  (void)worker;
  Chain *chain = context;
  int64_t from = chain->step % 2 * 32, to = 32 - from;
  for (int64_t t = first; t < last; t++) chain->value[to + t] = chain->value[from + (t + 1) % 32] + 1;
}

static void test_segments_follow_one_another(void **state) {
  (void)state;
  Err err;
  Pool *pool = pool_new(4, &err);
  assert_non_null(pool);
  Chain chain = {0};
  for (chain.step = 0; chain.step < 2000; chain.step++) pool_run(pool, 32, read_neighbour, &chain);
  for (int t = 0; t < 32; t++) assert_int_equal(chain.value[t], 2000);
  pool_free(pool);
}

static atomic_int caught, released;
static atomic_long worker_thread;

static void hold_this_thread(int number) {
  (void)number;
  atomic_store(&caught, 1);
  while (!atomic_load(&released)) nap(100000);
}

static void learn_worker(void *context, int32_t worker, int64_t first, int64_t last) {
  (void)context, (void)first, (void)last;
  if (worker == 1)
    atomic_store(&worker_thread, syscall(SYS_gettid));
  else
    for (int i = 0; i < 1000 && !atomic_load(&worker_thread); i++) nap(100000); /* leaves a task for the worker */
}

/* A signal handler holds the only worker between two segments, as a system holds a thread whose core it gave away. */
static void test_worker_that_does_not_run_holds_nobody_up(void **state) {
  (void)state;
  Err err;
  Pool *pool = pool_new(2, &err);
  assert_non_null(pool);
  signal(SIGUSR1, hold_this_thread);
  for (int i = 0; i < 100 && !atomic_load(&worker_thread); i++) pool_run(pool, 2, learn_worker, NULL);
  assert_int_not_equal(atomic_load(&worker_thread), 0);
  syscall(SYS_tgkill, getpid(), atomic_load(&worker_thread), SIGUSR1);
  while (!atomic_load(&caught)) nap(100000);
  Count *count = test_calloc(1, sizeof *count);
  count->threads = 1; /* the caller alone */
  for (int round = 0; round < 50; round++) run_segment(pool, count, 98);
  atomic_store(&released, 1);
  count->threads = 2;
  for (int round = 0; round < 50; round++) run_segment(pool, count, 98);
  test_free(count);
  pool_free(pool);
}

static void test_impossible_thread_counts(void **state) {
  (void)state;
  Err err = {""};
  assert_null(pool_new(0, &err));
  assert_non_null(strstr(err.text, "cannot use 0 threads"));
  assert_null(pool_new(POOL_MOST_THREADS + 1, &err));
  pool_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_task_runs_once),        cmocka_unit_test(test_sleeping_workers_wake),
      cmocka_unit_test(test_segments_follow_one_another), cmocka_unit_test(test_worker_that_does_not_run_holds_nobody_up),
      cmocka_unit_test(test_impossible_thread_counts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
