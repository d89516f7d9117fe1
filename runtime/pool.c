/* How a segment is shared out.
 *
 * `ticket` holds the segment's number (40 bits) and how many of its tasks nobody has taken yet (24 bits). A thread takes the next
 * tasks by lowering the second with a compare-and-swap; the segment's number in the same word makes a swap fail that a later
 * segment has overtaken. Fields of the segment are read before the swap and count only if it succeeds: then tasks were left, so
 * the caller was still waiting for this segment and had not begun to write the next one. Counting down, not up, is what makes
 * that hold without reading the total: a worker that is late sees zero left, whatever the fields hold by then.
 *
 * Sleeping is Dekker's pattern on both sides: a sleeper announces itself and then looks again; whoever has news publishes it and
 * then looks for sleepers; all four are sequentially consistent, so at least one side sees the other. */
#include "runtime/pool.h"

#include "runtime/base/arena.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
  SPIN_NANOSECONDS = 20000, /* a thread that has nothing to do looks for work this long before it sleeps */
  SPINS_PER_LOOK = 16,      /* pauses between two looks at the clock */
  LEFT_BITS = 24,
  CHUNKS_PER_THREAD = 64, /* a segment of very many small tasks is taken in bites of this fineness */
  MOST_BITE = 16,
};
#define LEFT_MASK ((UINT64_C(1) << LEFT_BITS) - 1)

typedef struct Worker {
  Pool *pool;
  pthread_t thread;
  int32_t index;
} Worker;

struct Pool {
  _Alignas(64) _Atomic uint64_t ticket;
  /* The segment under way. */
  _Alignas(64) _Atomic int64_t tasks;
  _Atomic int64_t bite;
  _Atomic(PoolFunction *) function;
  _Atomic(void *) context;
  _Alignas(64) _Atomic int64_t unfinished; /* tasks of the segment that are not done */
  _Atomic uint32_t caller_sleeps, finish_signal;
  _Alignas(64) _Atomic uint32_t workers_sleep, start_signal;
  _Atomic bool stop;
  _Alignas(64) int32_t threads;
  int32_t started;
  Worker *workers; /* threads - 1 */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void pause_briefly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  atomic_signal_fence(memory_order_seq_cst);
#endif
}

static int64_t now_nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Takes and runs tasks until none are left. */
static void work(Pool *pool, int32_t worker) {
  uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
  for (;;) {
    int64_t left = (int64_t)(ticket & LEFT_MASK);
    if (!left) return;
    int64_t tasks = atomic_load_explicit(&pool->tasks, memory_order_acquire);
    int64_t bite = atomic_load_explicit(&pool->bite, memory_order_acquire);
    PoolFunction *function = atomic_load_explicit(&pool->function, memory_order_acquire);
    void *context = atomic_load_explicit(&pool->context, memory_order_acquire);
    if (bite > left) bite = left;
    if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket - (uint64_t)bite, memory_order_acq_rel,
                                               memory_order_acquire))
      continue;
    function(context, worker, tasks - left, tasks - left + bite);
    if (atomic_fetch_sub(&pool->unfinished, bite) == bite && atomic_load(&pool->caller_sleeps)) {
      atomic_fetch_add(&pool->finish_signal, 1);
      futex_wake_all(&pool->finish_signal);
    }
    ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
  }
}

static bool news_for_worker(Pool *pool, uint64_t seen) {
  return atomic_load(&pool->ticket) >> LEFT_BITS != seen || atomic_load_explicit(&pool->stop, memory_order_relaxed);
}

static bool news_for_caller(Pool *pool) {
  return atomic_load(&pool->unfinished) == 0;
}

static void wait_for_segment(Pool *pool, uint64_t seen) {
  int64_t until = now_nanoseconds() + SPIN_NANOSECONDS;
  do {
    for (int i = 0; i < SPINS_PER_LOOK; i++) {
      if (news_for_worker(pool, seen)) return;
      pause_briefly();
    }
  } while (now_nanoseconds() < until);
  for (;;) {
    uint32_t signal = atomic_load(&pool->start_signal);
    atomic_store(&pool->workers_sleep, 1);
    if (news_for_worker(pool, seen)) return;
    futex_wait(&pool->start_signal, signal);
  }
}

static void wake_workers(Pool *pool) {
  if (!atomic_load(&pool->workers_sleep) || !atomic_exchange(&pool->workers_sleep, 0)) return;
  atomic_fetch_add(&pool->start_signal, 1);
  futex_wake_all(&pool->start_signal);
}

/* Sleeping gives this core to a worker that was pushed from its own in the middle of a task. */
static void wait_for_tasks(Pool *pool) {
  int64_t until = now_nanoseconds() + SPIN_NANOSECONDS;
  do {
    for (int i = 0; i < SPINS_PER_LOOK; i++) {
      if (news_for_caller(pool)) return;
      pause_briefly();
    }
  } while (now_nanoseconds() < until);
  atomic_store(&pool->caller_sleeps, 1);
  for (;;) {
    uint32_t signal = atomic_load(&pool->finish_signal);
    if (news_for_caller(pool)) break;
    futex_wait(&pool->finish_signal, signal);
  }
  atomic_store(&pool->caller_sleeps, 0);
}

static void *worker_main(void *argument) {
  Worker *worker = argument;
  Pool *pool = worker->pool;
  uint64_t seen = 0;
  while (!atomic_load_explicit(&pool->stop, memory_order_acquire)) {
    wait_for_segment(pool, seen);
    seen = atomic_load(&pool->ticket) >> LEFT_BITS;
    work(pool, worker->index);
  }
  return NULL;
}

void pool_run(Pool *pool, int64_t tasks, PoolFunction *function, void *context) {
  if (tasks < 1) return;
  if (tasks == 1 || pool->threads == 1) {
    function(context, 0, 0, tasks);
    return;
  }
  if (tasks > (int64_t)LEFT_MASK) die("a segment of %lld tasks", (long long)tasks);
  int64_t bite = tasks / ((int64_t)CHUNKS_PER_THREAD * pool->threads);
  bite = bite < 1 ? 1 : bite > MOST_BITE ? MOST_BITE : bite;
  atomic_store_explicit(&pool->tasks, tasks, memory_order_release);
  atomic_store_explicit(&pool->bite, bite, memory_order_release);
  atomic_store_explicit(&pool->function, function, memory_order_release);
  atomic_store_explicit(&pool->context, context, memory_order_release);
  atomic_store_explicit(&pool->unfinished, tasks, memory_order_release);
  uint64_t segment = (atomic_load_explicit(&pool->ticket, memory_order_relaxed) >> LEFT_BITS) + 1;
  atomic_store(&pool->ticket, segment << LEFT_BITS | (uint64_t)tasks);
  wake_workers(pool);
  work(pool, 0);
  wait_for_tasks(pool);
}

Pool *pool_new(int32_t threads, Err *err) {
  if (threads < 1 || threads > POOL_MOST_THREADS) {
    err_set(err, "cannot use %d threads: between 1 and %d are possible", threads, POOL_MOST_THREADS);
    return NULL;
  }
  Pool *pool = aligned_alloc(_Alignof(Pool), sizeof(Pool));
  if (!pool) {
    err_set(err, "cannot start threads: no memory");
    return NULL;
  }
  memset(pool, 0, sizeof *pool);
  pool->threads = threads;
  pool->workers = memory_alloc((size_t)threads * sizeof *pool->workers);
  for (int32_t i = 1; i < threads; i++) {
    Worker *worker = &pool->workers[i - 1];
    *worker = (Worker){.pool = pool, .index = i};
    int why = pthread_create(&worker->thread, NULL, worker_main, worker);
    if (why) {
      err_set(err, "cannot start thread %d of %d: %s; use fewer with --threads", i + 1, threads, strerror(why));
      pool_free(pool);
      return NULL;
    }
    pool->started++;
  }
  return pool;
}

void pool_free(Pool *pool) {
  if (!pool) return;
  atomic_store(&pool->stop, true);
  atomic_fetch_add(&pool->start_signal, 1);
  futex_wake_all(&pool->start_signal);
  for (int32_t i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
  free(pool->workers);
  free(pool);
}

int32_t pool_threads(const Pool *pool) {
  return pool->threads;
}
