/* The machine's figures: how fast this CPU multiplies, moves bytes and starts launches. `adwp doctor --measure` measures them
 * once, with kernels of our own emitter on our own pool, and keeps them in the cache's folder; the cost model and `adwp profile`
 * read them. Where nothing was measured there is an estimate, and `measured` says so.
 *
 * All speeds are of all threads together, each on memory of its own, if not said otherwise. */
#ifndef ADWP_COMPILER_MACHINE_H
#define ADWP_COMPILER_MACHINE_H

#include "runtime/base/err.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct EmitTarget EmitTarget;

typedef struct MachineFigures {
  bool measured;
  int32_t threads;
  double fma_one, fma_all;                        /* operations a second (an FMA is two), f32, of one thread and of all */
  double memory_read, memory_write, memory_scale; /* bytes a second; scale, y = a x: read and written ones, added */
  double cache2_read, cache3_read;                /* bytes a second, from what fits each thread's second level, or the third */
  double launch; /* seconds that a segment costs beside its tasks: waking, sharing out, waiting */
} MachineFigures;

/* For who need not know the machine: a server's cores of 2022. */
static inline MachineFigures machine_estimate(int32_t threads) {
  double n = threads, channels = n < 8 ? n : 8; /* more threads than that do not make memory faster */
  return (MachineFigures){.threads = threads,
                          .fma_one = 100e9,
                          .fma_all = 100e9 * n,
                          .memory_read = 18e9 * channels,
                          .memory_write = 14e9 * channels,
                          .memory_scale = 18e9 * channels,
                          .cache2_read = 100e9 * n,
                          .cache3_read = 60e9 * n,
                          .launch = threads > 1 ? 1e-6 + 0.1e-6 * n : 1e-8};
}

/* The figures for code of this target on `threads` threads: those that were measured and kept in the folder `cache` (null: none),
 * else an estimate. `fault` (may be null): why not what was measured, such as a damaged file; null where none was kept. */
void machine_figures(const EmitTarget *target, int32_t threads, const char *cache, MachineFigures *figures, const char **fault);

/* Measures, for a second or two, and keeps the result in `cache` (null: nowhere; a folder that emit_cache_open refuses is an
 * error). `target`: of a CPU. */
bool machine_measure(EmitTarget *target, int32_t threads, const char *cache, MachineFigures *figures, Err *err);

/* ---- the figures as a list, for what prints, keeps and reads them ---- */
enum { MACHINE_FIGURES = 8 };
typedef struct MachineFigure {
  const char *name; /* "memory_read" */
  const char *what; /* "GFLOP/s, one thread" */
  double unit;      /* of `what`, in operations, bytes or seconds */
  double value;     /* in that unit */
} MachineFigure;
void machine_list(const MachineFigures *figures, MachineFigure list[MACHINE_FIGURES]);

/* Each figure's place in a list of them, by the same order. */
double *machine_place(MachineFigures *figures, int index);

#endif
