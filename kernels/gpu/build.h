/* Short words for schedules of a GPU, over kernels/build.h: a block's threads run over items (pixels, groups of channels, rows
 * of weights), and each moves a few consecutive elements from or to a register tile. As there, no call builds two instructions
 * of its own arguments. */
#ifndef ADWP_KERNELS_GPU_BUILD_H
#define ADWP_KERNELS_GPU_BUILD_H

#include "kernels/build.h"
#include "kernels/family.h"

enum { GPU_WARP = 32 };

/* Threads for a block with `items` equal pieces of work: a multiple of a warp, at most `most` and what the target allows. */
int32_t gpu_lanes(const KernelTarget *target, int64_t items, int32_t most);

/* Channels of one vector move of an activation: the most of 8 (bf16 only), 4, 2 and 1 that divides channels and stride. */
int32_t gpu_width(int64_t channels, int64_t stride, LoopElement element);
static inline int32_t gpu_plane_width(const Plane *p) {
  return p->unaligned ? 1 : gpu_width(p->channels, p->stride, p->element);
}
/* The same for f32 weights and vectors of `channels`: 4, 2 or 1. */
static inline int32_t gpu_width_f32(int64_t channels) {
  return gpu_width(channels, channels, LOOP_ELEMENT_F32);
}

LoopValue gpu_true(LoopKernel *k);                                             /* a bit that holds */
LoopValue gpu_both(LoopKernel *k, LoopValue a, LoopValue b);                   /* either may be LOOP_NONE: no condition */
LoopValue gpu_inside(LoopKernel *k, LoopValue v, int64_t from, int64_t below); /* from <= v < below */
LoopValue gpu_below(LoopKernel *k, LoopValue v, int64_t below);

/* Begins a loop in which the threads take the items 0 .. count-1, `lanes` a trip; end it with loop_end. `inside` is false for
 * the threads that have none in the last trip. Loops of up to `unrolled` trips are unrolled, so that their loads are in flight
 * together. */
typedef struct GpuItem {
  LoopValue number, inside;
} GpuItem;
GpuItem gpu_items(LoopKernel *k, int64_t count, int32_t unrolled);

/* Begins a loop 0 .. below by `step` where there is more than one trip; else gives 0. End it with gpu_trips_end. */
LoopValue gpu_trips(LoopKernel *k, int64_t below, int64_t step);
void gpu_trips_end(LoopKernel *k, int64_t below, int64_t step);

LoopValue gpu_div(LoopKernel *k, LoopValue v, int64_t divisor);
LoopValue gpu_mod(LoopKernel *k, LoopValue v, int64_t divisor);

/* tile[at ..] = array[index .. index + width) where the bit holds, else zeros; width 1, 2, 4 or 8, moved by 16 bytes at most.
 * `_at` ones take a value that is known once loops are unrolled. */
void gpu_read_at(LoopKernel *k, int32_t tile, LoopValue at, int32_t array, LoopValue index, int32_t width, LoopValue where);
void gpu_write_at(LoopKernel *k, int32_t array, LoopValue index, int32_t tile, LoopValue at, int32_t width, LoopValue where);
void gpu_read(LoopKernel *k, int32_t tile, int64_t at, int32_t array, LoopValue index, int32_t width, LoopValue where);
void gpu_write(LoopKernel *k, int32_t array, LoopValue index, int32_t tile, int64_t at, int32_t width, LoopValue where);

/* tile[at .. at + count) = value */
void gpu_fill(LoopKernel *k, int32_t tile, int64_t at, int64_t count, double value);

/* What a task does: begins the loop over its images (none where images is 1: a task is a band of one image). End it with
 * gpu_band_end. `row` is the band's first of `rows` rows. */
typedef struct GpuBand {
  LoopValue image, row;
  int64_t rows;
} GpuBand;
GpuBand gpu_band(LoopKernel *k, int32_t images, int32_t bands, int64_t height);
void gpu_band_end(LoopKernel *k, int32_t images);

/* The buffers of a prologue, and what it does to `width` channels from `channel` on that stand in tile[at ..]: the operations
 * of the elementwise bn_apply in its order. Lanes where the bit does not hold get zeros (the halo). `spare` is a tile of 2 *
 * width. */
typedef struct GpuPrologue {
  Prologue spec;
  int32_t scale, mean, spare; /* buffers, -1 without affine; tile */
} GpuPrologue;
void gpu_apply_at(LoopKernel *k, const GpuPrologue *p, int32_t tile, LoopValue at, LoopValue channel, int32_t width,
                  LoopValue where);
void gpu_apply(LoopKernel *k, const GpuPrologue *p, int32_t tile, int64_t at, LoopValue channel, int32_t width, LoopValue where);

#endif
