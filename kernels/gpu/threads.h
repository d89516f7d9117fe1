/* How a block's threads share pixels x channels, and sums over pixels in a fixed order.
 *
 * A thread keeps its `width` consecutive channels and walks over pixels, so what depends on the channel alone is computed once.
 * `across` threads stand side by side on the channels of a pixel, `rows` pixels are done at a time: neighbours touch consecutive
 * memory. A thread adds up to 32 pixels in f32, then goes on in f64; the rows are joined in f64 as a tree in shared memory. */
#ifndef ADWP_KERNELS_GPU_THREADS_H
#define ADWP_KERNELS_GPU_THREADS_H

#include "kernels/gpu/build.h"

enum {
  GPU_RUN = 32,       /* pixels that one thread adds in f32 */
  GPU_MOST_WIDTH = 8, /* channels of one thread */
};

typedef struct GpuSpread {
  int32_t lanes;
  int32_t width;  /* channels of a thread */
  int32_t groups; /* of `width` channels in all */
  int32_t across; /* groups that are done side by side; the block takes ceil(groups / across) parts one after another */
  int32_t rows;   /* pixels at a time; across * rows <= lanes */
} GpuSpread;

/* `pixels`: how many a task has, about; `most`: threads. `width` divides `channels`. */
GpuSpread gpu_spread(const KernelTarget *target, int64_t channels, int32_t width, int64_t pixels, int32_t most);

typedef struct GpuThread {
  LoopValue lane, row, channel; /* channel: the first of its `width` */
  LoopValue works;              /* a bit; LOOP_NONE: every thread does */
} GpuThread;

/* Begins the loop over parts, if there are more than one. */
GpuThread gpu_spread_begin(LoopKernel *k, const GpuSpread *s);
void gpu_spread_end(LoopKernel *k, const GpuSpread *s);

/* The pixels of a task, counted through the batch: an image has `units` (rows, or pixels) of `pixels` each; bands are of units.
 */
typedef struct GpuRange {
  LoopValue from, below;
  LoopValue image; /* LOOP_NONE where there may be more than one */
  int64_t most;    /* below - from at most */
} GpuRange;
GpuRange gpu_task_range(LoopKernel *k, int32_t images, int32_t bands, int64_t units, int64_t pixels);
GpuRange gpu_batch_range(LoopKernel *k); /* 0 .. B */

typedef struct GpuSums {
  int32_t count; /* of numbers of a thread: sums * width */
  int32_t acc;   /* tile: the f32 sums of a run, to be added to in a walk */
  int32_t total; /* tile: in f64; after gpu_sums_join those of the whole task, in the threads of gpu_leads */
  int32_t part;  /* shared; -1 where there is one row */
} GpuSums;
GpuSums gpu_sums(LoopKernel *k, const GpuSpread *s, int32_t sums);
void gpu_sums_add(LoopKernel *k, const GpuSums *sums, int32_t at, LoopValue value); /* acc[at] += value */
void gpu_sums_clear(LoopKernel *k, const GpuSums *sums); /* the totals: only for who adds to them without a walk */
void gpu_sums_join(LoopKernel *k, const GpuSpread *s, const GpuThread *thread, const GpuSums *sums);
/* tile[0 .. count) = total[from ..] as f32 */
void gpu_sums_narrow(LoopKernel *k, const GpuSums *sums, int32_t from, int32_t tile, int32_t count);
LoopValue gpu_leads(LoopKernel *k, const GpuSpread *s, const GpuThread *thread);

/* Begins the loop over the thread's pixels in the range and returns the pixel; `sums` may be null. The body stands below an
 * `if` that varies. */
LoopValue gpu_walk_begin(LoopKernel *k, const GpuSpread *s, const GpuThread *thread, const GpuRange *range, const GpuSums *sums);
void gpu_walk_end(LoopKernel *k, const GpuSpread *s, const GpuRange *range, const GpuSums *sums);

/* Begins the loop in which each thread takes `width` consecutive numbers of from .. below at a time and returns the first; the
 * body stands below an `if` that varies. */
LoopValue gpu_each_begin(LoopKernel *k, LoopValue from, LoopValue below, int32_t width);
void gpu_each_end(LoopKernel *k);

/* 4, 2 or 1: the most that divides both. */
int32_t gpu_common_width(int64_t a, int64_t b);

/* from = task * chunk, below = min(from + chunk, all); the whole where chunk is 0. */
GpuRange gpu_chunk(LoopKernel *k, int64_t chunk, int64_t all);

/* The number of slots that a producer left. */
LoopValue gpu_slots(LoopKernel *k, int32_t images, int32_t bands);

#endif
