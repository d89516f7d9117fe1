/* Measures the machine's figures with kernels in the Loop IR, compiled and run as all others, so that the figures are what our
 * generated code can reach: chains of FMAs in registers, and streams of vectors that are read, written, or both.
 *
 * Each figure is the best of several short runs, since what disturbs a run only makes it slower. Every task streams over memory
 * of its own; which memory, from half a second-level cache up to several times the third, decides what is measured. */
#include "compiler/emit/emit.h"
#include "compiler/machine_private.h"
#include "kernels/loop.h"
#include "runtime/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
  CHAINS = 12, /* FMAs under way: more than latency times units, fewer than registers */
  FMA_ROUNDS = 1 << 17,
  VECTORS = 8, /* of a trip of a stream's loop */
  RUNS = 4,    /* of which the best counts */
  SHORT_SEGMENTS = 100,
  SHORT_ROUNDS = 2000, /* some microseconds */
  LEAST_ROUNDS = 2,
  MOST_ROUNDS = 12,
  LEAST_STREAM = 1 << 25, /* bytes that a run on a cache reads at least */
  HUGE_PAGE = 2 << 20,
};
static const int64_t default_cache2 = 1 << 20, default_cache3 = 32 << 20, most_memory = INT64_C(256) << 20;
static const double enough_seconds = 1;
static const double least_seconds = 1e-9; /* a clock may stand still for as long */

typedef enum Measure { MEASURE_FMA, MEASURE_READ, MEASURE_WRITE, MEASURE_SCALE, MEASURES } Measure;

typedef struct Machine {
  Arena *arena;
  EmitTarget *target;
  LoopKernel *kernels[MEASURES];
  EmitCode *code;
  Pool *pool;
  float *memory; /* what streams go over; its first half is read, its second one written */
  int64_t bytes;
  float *factors; /* 0.5 and 0.5, which keep sums finite and normal */
  float *sums;    /* what a task leaves, so that its work is not dropped */
  int32_t *shape; /* of a stream: elements a task, repetitions */
  int32_t threads;
} Machine;

/* ---- the kernels ---- */

/* factors, sums: CHAINS chains of B rounds. */
static LoopKernel *build_fma(Arena *arena, int32_t lanes) {
  LoopKernel *k = loop_new(arena, "machine_fma", lanes);
  int32_t factors = loop_buffer(k, "factors", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t sums = loop_buffer(k, "sums", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t tile = loop_tile(k, "chain", LOOP_F32, true, CHAINS);
  LoopValue a = loop_load(k, factors, loop_int(k, 0));
  LoopValue b = loop_load(k, factors, loop_int(k, 1));
  LoopValue chain = loop_unroll(k, 0, CHAINS, 1);
  LoopValue start = loop_f32(k, 1);
  loop_set(k, tile, chain, start);
  loop_end(k);
  LoopValue rounds = loop_batch(k), zero = loop_int(k, 0), one = loop_int(k, 1);
  loop_for(k, zero, rounds, one);
  chain = loop_unroll(k, 0, CHAINS, 1);
  LoopValue now = loop_get(k, tile, chain);
  LoopValue next = loop_op3(k, LOOP_FMA, now, a, b);
  loop_set(k, tile, chain, next);
  loop_end(k);
  loop_end(k);
  LoopValue first = loop_op2(k, LOOP_IMUL, loop_task(k), loop_int(k, CHAINS * lanes));
  chain = loop_unroll(k, 0, CHAINS, 1);
  LoopValue offset = loop_op2(k, LOOP_IMUL, chain, loop_int(k, lanes));
  LoopValue at = loop_op2(k, LOOP_IADD, first, offset);
  now = loop_get(k, tile, chain);
  loop_store_lanes(k, sums, at, now, loop_int(k, lanes));
  loop_end(k);
  return k;
}

/* One vector of a stream: x is added to the tile, or y written, or y = a x. */
static void build_vector(LoopKernel *k, Measure measure, const int32_t *arrays, LoopValue a, LoopValue at, LoopValue number) {
  LoopValue lanes = loop_int(k, k->lanes), value = a;
  if (measure != MEASURE_WRITE) value = loop_load_lanes(k, arrays[0], at, lanes, 0);
  if (measure == MEASURE_READ) {
    LoopValue sum = loop_get(k, arrays[2], number);
    value = loop_op2(k, LOOP_ADD, sum, value);
    loop_set(k, arrays[2], number, value);
    return;
  }
  if (measure == MEASURE_SCALE) value = loop_op2(k, LOOP_MUL, value, a);
  loop_store_lanes(k, arrays[1], at, value, lanes);
}

/* x, y, factors, sums, shape: a task goes `shape[1]` times over the `shape[0]` elements that are its own. */
static LoopKernel *build_stream(Arena *arena, Measure measure, const char *name, int32_t lanes) {
  LoopKernel *k = loop_new(arena, name, lanes);
  int32_t x = loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32), y = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t factors = loop_buffer(k, "factors", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t sums = loop_buffer(k, "sums", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t shape = loop_buffer(k, "shape", LOOP_IN, LOOP_ELEMENT_I32);
  int32_t tile = loop_tile(k, "sum", LOOP_F32, true, VECTORS);
  const int32_t arrays[] = {x, y, tile};
  LoopValue a = loop_load(k, factors, loop_int(k, 0));
  LoopValue elements = loop_load_int(k, shape, loop_int(k, 0));
  LoopValue times = loop_load_int(k, shape, loop_int(k, 1));
  LoopValue first = loop_op2(k, LOOP_IMUL, loop_task(k), elements);
  LoopValue end = loop_op2(k, LOOP_IADD, first, elements);
  LoopValue number = loop_unroll(k, 0, VECTORS, 1);
  loop_set(k, tile, number, loop_f32(k, 0));
  loop_end(k);
  LoopValue zero = loop_int(k, 0), one = loop_int(k, 1), step = loop_int(k, VECTORS * lanes);
  loop_for(k, zero, times, one);
  LoopValue from = loop_for(k, first, end, step);
  number = loop_unroll(k, 0, VECTORS, 1);
  LoopValue offset = loop_op2(k, LOOP_IMUL, number, loop_int(k, lanes));
  LoopValue at = loop_op2(k, LOOP_IADD, from, offset);
  build_vector(k, measure, arrays, a, at, number);
  loop_end(k);
  loop_end(k);
  loop_end(k);
  LoopValue base = loop_op2(k, LOOP_IMUL, loop_task(k), loop_int(k, VECTORS * lanes));
  number = loop_unroll(k, 0, VECTORS, 1);
  offset = loop_op2(k, LOOP_IMUL, number, loop_int(k, lanes));
  at = loop_op2(k, LOOP_IADD, base, offset);
  LoopValue sum = loop_get(k, tile, number);
  loop_store_lanes(k, sums, at, sum, loop_int(k, lanes));
  loop_end(k);
  return k;
}

static bool make_code(Machine *machine, Err *err) {
  int32_t lanes = emit_target_lanes(machine->target);
  machine->kernels[MEASURE_FMA] = build_fma(machine->arena, lanes);
  machine->kernels[MEASURE_READ] = build_stream(machine->arena, MEASURE_READ, "machine_read", lanes);
  machine->kernels[MEASURE_WRITE] = build_stream(machine->arena, MEASURE_WRITE, "machine_write", lanes);
  machine->kernels[MEASURE_SCALE] = build_stream(machine->arena, MEASURE_SCALE, "machine_scale", lanes);
  machine->code = emit_compile(machine->target, (const LoopKernel *const *)machine->kernels, MEASURES, 1, NULL, NULL, err);
  return machine->code != NULL;
}

/* ---- running them ---- */

typedef struct Run {
  KernelFunction *function;
  KernelArgs args;
} Run;

static void run_tasks(void *context, int32_t worker, int64_t first, int64_t last) {
  (void)worker;
  const Run *run = context;
  run->function(&run->args, first, last);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* The best time of `tasks` tasks on the pool, or on this thread alone. */
static double best_time(const Machine *machine, Measure measure, int32_t tasks, bool alone, int64_t batch) {
  float *written = machine->memory + machine->bytes / 2 / (int64_t)sizeof(float);
  void *const fma[] = {machine->factors, machine->sums};
  void *const stream[] = {machine->memory, written, machine->factors, machine->sums, machine->shape};
  Run run = {emit_code_function(machine->code, measure), {measure == MEASURE_FMA ? fma : stream, NULL, batch}};
  double best = 1e9;
  for (int i = 0; i < RUNS; i++) {
    double start = now();
    if (alone)
      run_tasks(&run, 0, 0, tasks);
    else
      pool_run(machine->pool, tasks, run_tasks, &run);
    double seconds = now() - start;
    if (seconds < best) best = seconds;
  }
  return best > least_seconds ? best : least_seconds;
}

/* Bytes a second of a stream whose tasks, one a thread, each go over `bytes` bytes often enough. */
static double stream_speed(const Machine *machine, Measure measure, int64_t bytes, int64_t least) {
  int64_t trip = (int64_t)VECTORS * emit_target_lanes(machine->target);
  int64_t elements = bytes / (int64_t)sizeof(float) / trip * trip, once = elements * (int64_t)sizeof(float);
  machine->shape[0] = (int32_t)elements;
  machine->shape[1] = (int32_t)(least / once + 1);
  double all = (double)once * machine->shape[1] * machine->threads * (measure == MEASURE_SCALE ? 2 : 1);
  return all / best_time(machine, measure, machine->threads, false, 1);
}

/* What a segment of one short task a thread takes longer than the task. Empty tasks would not do: the caller would have done them
 * all before another thread has seen them. */
static double launch_seconds(const Machine *machine) {
  void *const buffers[] = {machine->factors, machine->sums};
  Run run = {emit_code_function(machine->code, MEASURE_FMA), {buffers, NULL, SHORT_ROUNDS}};
  double together = 1e9, alone = 1e9;
  for (int i = 0; i < RUNS; i++) {
    double start = now();
    for (int j = 0; j < SHORT_SEGMENTS; j++) pool_run(machine->pool, machine->threads, run_tasks, &run);
    double middle = now();
    for (int j = 0; j < SHORT_SEGMENTS; j++) run_tasks(&run, 0, 0, 1);
    double end = now();
    if (middle - start < together) together = middle - start;
    if (end - middle < alone) alone = end - middle;
  }
  double seconds = (together - alone) / (double)SHORT_SEGMENTS;
  return seconds > least_seconds ? seconds : least_seconds;
}

/* Bytes of a cache, as the system says. */
static int64_t cache_bytes(int name, int64_t otherwise) {
  long bytes = sysconf(name);
  return bytes > 0 ? bytes : otherwise;
}

static void measure_round(const Machine *machine, int64_t cache2, MachineFigures *figures) {
  double round = 2.0 * (double)CHAINS * emit_target_lanes(machine->target) * (double)FMA_ROUNDS;
  int64_t share = machine->bytes / 2 / machine->threads, third = 3 * cache2;
  figures->fma_one = round / best_time(machine, MEASURE_FMA, 1, true, FMA_ROUNDS);
  figures->fma_all = machine->threads * round / best_time(machine, MEASURE_FMA, machine->threads, false, FMA_ROUNDS);
  figures->cache2_read = stream_speed(machine, MEASURE_READ, cache2 / 2, LEAST_STREAM);
  figures->cache3_read = stream_speed(machine, MEASURE_READ, third < share ? third : share, LEAST_STREAM);
  figures->memory_read = stream_speed(machine, MEASURE_READ, share, 0);
  figures->memory_write = stream_speed(machine, MEASURE_WRITE, share, 0);
  figures->memory_scale = stream_speed(machine, MEASURE_SCALE, share, 0);
  figures->launch = launch_seconds(machine);
}

/* The best of several rounds, so that a neighbour which keeps a core busy for a while does not decide a figure. */
static void measure_all(const Machine *machine, int64_t cache2, MachineFigures *figures) {
  double start = now();
  for (int round = 0; round < LEAST_ROUNDS || (round < MOST_ROUNDS && now() - start < enough_seconds); round++) {
    MachineFigures these = {0};
    measure_round(machine, cache2, &these);
    if (!round) *figures = these;
    for (int i = 0; i < MACHINE_FIGURES; i++) {
      double *best = machine_place(figures, i), seen = *machine_place(&these, i);
      bool better = best == &figures->launch ? seen < *best : seen > *best;
      if (better) *best = seen;
    }
  }
  figures->measured = true;
  figures->threads = machine->threads;
}

/* ---- its memory ---- */

static bool make_memory(Machine *machine, int64_t cache3, Err *err) {
  int64_t bytes = 8 * cache3;
  machine->bytes = (bytes < most_memory ? bytes : most_memory) / HUGE_PAGE * HUGE_PAGE;
  if (machine->bytes < 4 * HUGE_PAGE) machine->bytes = 4 * HUGE_PAGE;
  machine->memory = mmap(NULL, (size_t)machine->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (machine->memory == MAP_FAILED) {
    machine->memory = NULL;
    return err_set(err, "cannot measure this machine: no %lld MB of memory: %s", (long long)(machine->bytes >> 20),
                   strerror(errno));
  }
  madvise(machine->memory, (size_t)machine->bytes, MADV_HUGEPAGE); /* without them it is only slower */
  memset(machine->memory, 1, (size_t)machine->bytes);              /* pages that nobody wrote to are all one page of zeros */
  machine->factors = ARENA_ARRAY(machine->arena, float, 2);
  machine->factors[0] = machine->factors[1] = 0.5F;
  machine->shape = ARENA_ARRAY(machine->arena, int32_t, 2);
  machine->sums = ARENA_ARRAY(machine->arena, float, (int64_t)machine->threads *CHAINS *emit_target_lanes(machine->target));
  return true;
}

bool machine_measure(EmitTarget *target, int32_t threads, const char *cache, MachineFigures *figures, Err *err) {
  if (threads > POOL_MOST_THREADS) threads = POOL_MOST_THREADS;
  Machine machine = {.arena = arena_new(), .target = target, .threads = threads};
  int64_t cache2 = cache_bytes(_SC_LEVEL2_CACHE_SIZE, default_cache2),
          cache3 = cache_bytes(_SC_LEVEL3_CACHE_SIZE, default_cache3);
  bool done = make_code(&machine, err) && make_memory(&machine, cache3, err) && (machine.pool = pool_new(threads, err));
  if (done) measure_all(&machine, cache2, figures);
  if (done && !machine_plausible(figures))
    done = err_set(err, "this machine could not be measured: its clock and what was done in that time do not fit");
  done = done && (!cache || machine_store(target, cache, figures, err));
  pool_free(machine.pool);
  if (machine.memory) munmap(machine.memory, (size_t)machine.bytes);
  emit_code_free(machine.code);
  for (int i = 0; i < MEASURES; i++)
    if (machine.kernels[i]) loop_free_tables(machine.kernels[i]);
  arena_free(machine.arena);
  return done;
}
