/* The pieces of which ConvBlocks and convolutions are made: the staged plane of a depthwise convolution and its rows, products in
 * register tiles, and the moments of what they store.
 *
 * Everything in scratch has its channels padded to whole vectors, `pitch`, and the padding holds zeros, so that no loop over
 * scratch knows a remainder. The plane is seen in padded coordinates: row and column 0 are what the first tap of the first output
 * pixel reads. Where stride and dilation share a divisor, only every `step`th row and column of the input is read, and only those
 * are staged; `stride_*` and `dilation_*` are those on the plane. */
#ifndef ADWP_KERNELS_CONV_BLOCK_PRIVATE_H
#define ADWP_KERNELS_CONV_BLOCK_PRIVATE_H

#include "kernels/cpu/conv_private.h"

enum { BLOCK_LINE = 16 /* floats of a cache line */, BLOCK_ACC = 16 /* vectors of a register tile */ };

static inline int64_t block_pitch(const LoopKernel *k, int64_t channels) {
  return (channels + k->lanes - 1) / k->lanes * k->lanes;
}

/* Rows of `width` pixels of up to `channels` channels that are done together, so that what they leave in scratch stays in the
 * first-level cache. They divide the height unless that would make bands too thin. */
int64_t block_band_rows(int64_t channels, int64_t height, int64_t width);

/* ---- moments of what a task stores; the shift is its first pixel ---- */
typedef struct BlockSums {
  int64_t channels;
  int32_t shift;  /* shared f32 (pitch) */
  int32_t totals; /* shared f64 (2, pitch): of (value - shift), of its square */
  int32_t part;   /* a tile of f32 lanes: the two sums of up to two vectors of channels */
} BlockSums;

BlockSums block_sums_new(LoopKernel *k, int64_t channels); /* arrays and a tile: after the last buffer */
void block_sums_clear(LoopKernel *k, const BlockSums *sums);
/* Around the pixels of the vectors of channels b from c on: begin loads their shifts, add takes a vector's value in, end adds
 * the parts to the totals. */
void block_sums_begin(LoopKernel *k, const BlockSums *sums, LoopValue c, const BlockLoop *b, LoopValue shift[2]);
void block_sums_add(LoopKernel *k, const BlockSums *sums, LoopValue value, LoopValue shift, int32_t block);
void block_sums_end(LoopKernel *k, const BlockSums *sums, LoopValue c, const BlockLoop *b);
/* Begins a region that runs for output row y of the task's first image, if y is 0: there the shift is found. */
void block_sums_if_first(LoopKernel *k, int32_t images, LoopValue image, LoopValue y);
/* The task's slot of partial (slots, 3, C). */
void block_sums_store(LoopKernel *k, const BlockSums *sums, int32_t partial);

/* ---- the staged plane of a depthwise convolution ---- */
typedef struct BlockPlane {
  ConvSpec s;
  int32_t array;                /* shared f32 (slots, width, pitch) */
  int64_t height, width, pitch; /* of the whole padded plane */
  int64_t top, bottom;          /* the rows top .. bottom-1 lie in the image */
  int64_t left, right;          /* columns, the same */
  int64_t step_y, step_x;       /* input row = shift_y + row * step_y - pad_y */
  int64_t stride_y, stride_x, dilation_y, dilation_x;
  int64_t ring; /* rows held: row r in slot r % ring, rows outside the image in slot `ring` */
} BlockPlane;

/* `band`: output rows a band; the plane holds the rows that one band reads. */
BlockPlane block_plane(LoopKernel *k, const ConvSpec *s, int64_t band);
/* The same with a dilation for each axis instead of the spec's; `name`: of the array. */
BlockPlane block_plane_dilated(LoopKernel *k, const ConvSpec *s, int64_t band, int64_t dilation_y, int64_t dilation_x,
                               const char *name);
/* Zeros outside the image; once a task, as staging never writes there. */
void block_plane_clear(LoopKernel *k, const BlockPlane *p);
/* Through the prologue, the rows that the band of output rows y .. y+band-1 adds to those before it. */
void block_stage_band(LoopKernel *k, const BlockPlane *p, ConvInput input, LoopValue image, LoopValue y, int64_t band);

typedef struct BlockRows { /* depthwise rows, of all channels */
  const BlockPlane *plane;
  int32_t w;   /* (taps, C) */
  int32_t acc; /* a tile of f32 lanes, BLOCK_ACC elements */
  int32_t to;  /* an array of pixels of `to_pitch` elements */
  int64_t to_pitch;
  bool masked;           /* a pixel of `to` ends with its last channel; else it is padded to whole vectors */
  const BlockSums *sums; /* or null */
} BlockRows;
/* Output row y to to[at ..]. */
void block_depthwise_row(LoopKernel *k, const BlockRows *f, LoopValue y, LoopValue at);
/* The shift of `sums`: output pixel (0, 0). */
void block_depthwise_shift(LoopKernel *k, const BlockRows *f);

/* ---- products: to[pixel, o] = sum over c of from[pixel, c] * w[c, o] ---- */
typedef struct BlockPrefetch { /* lines that are spread over a product */
  int32_t array;
  LoopValue at; /* the first element */
  int64_t pixels, channels, stride;
  bool write;
} BlockPrefetch;
/* Step `step` of `steps`: its share of the lines. What goes over the end is harmless. */
void block_prefetch_step(LoopKernel *k, const BlockPrefetch *f, LoopValue step, int64_t steps);

typedef struct BlockProduct {
  int32_t from, w, to;
  int64_t in, out;               /* channels */
  int64_t from_pitch, to_pitch;  /* elements from pixel to pixel */
  int32_t acc;                   /* a tile of f32 lanes, BLOCK_ACC elements */
  const BlockSums *sums;         /* or null */
  const BlockPrefetch *prefetch; /* into the second-level cache */
  int prefetches;
} BlockProduct;

/* `from_at`, `to_at`: the first pixel's elements. */
void block_product(LoopKernel *k, const BlockProduct *p, LoopValue from_at, LoopValue to_at, int64_t pixels);
/* The shift of `sums`: the product of the pixel at `from_at`, with the bits that block_product gives it. */
void block_product_shift(LoopKernel *k, const BlockProduct *p, LoopValue from_at);

#endif
