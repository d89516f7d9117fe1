/* What the files of the ConvBlock's gradient share: its arrays and the shapes of its scratch.
 *
 * As everywhere in the blocks' scratch, channels are padded to whole vectors, so that only accesses of buffers and of weights
 * have remainders of lanes; what stands in the lanes past the last channel is never stored. The plane of the prologue's image is
 * kept whole, row r in its slot r. `gradient` is d's gradient with the margins that the taps of the input's gradient reach:
 * (gradient_height, gradient_width, in). Halo and margins are cleared once a task, the insides are written for every image. */
#ifndef ADWP_KERNELS_CONV_BLOCK_GRAD_PRIVATE_H
#define ADWP_KERNELS_CONV_BLOCK_GRAD_PRIVATE_H

#include "kernels/cpu/conv_block_private.h"

typedef struct BlockGrad {
  const ConvBlockSpec *s;
  ConvInput input;
  int32_t dn, z, coefficients, wd, wp, dx, dwd, dwp, sums; /* other buffers; `sums` -1 where there is none */
  BlockPlane plane;
  BlockRows rows;       /* d of a band: (band pixels, in) */
  BlockProduct product; /* from dz of a band, (band pixels, out), to `gradient`; its weights are wp transposed, (O, C) */
  int32_t taps_sum, product_sum, moment_sum; /* of the task: (ky, kx, in), (in, out), (2, in) */
  int32_t acc, totals;                       /* tiles: 32 vectors; the two sums of BLOCK_SUMS */
  int64_t in, out;                           /* channels, padded */
  int64_t gradient_height, gradient_width;
  int64_t top, left; /* margins of `gradient` before its inside */
  int64_t band;      /* output rows of a whole band */
  int64_t registers; /* vectors that the machine has */
} BlockGrad;

/* One vector of channels: the loop's variable, and how many of its lanes are channels. Ended by loop_end. */
typedef struct Channels {
  LoopValue at, count;
} Channels;
Channels block_grad_channels(LoopKernel *k, int64_t channels);

/* `rows` output rows from `first` on. */
typedef struct Band {
  LoopValue image, first;
  int64_t rows;
} Band;

/* conv_block_grad_band.c: what is done for each band */
void block_grad_dz(LoopKernel *k, const BlockGrad *g, Band band);
void block_grad_pointwise(LoopKernel *k, const BlockGrad *g, Band band);
void block_grad_depthwise(LoopKernel *k, const BlockGrad *g, Band band);
void block_grad_product(LoopKernel *k, const BlockGrad *g, Band band);

/* conv_block_grad_taps.c: what is done for a vector of channels of a whole image */
void block_grad_taps_sum(LoopKernel *k, const BlockGrad *g, LoopValue channel);

/* conv_block_grad_input.c: the input's gradient */
/* The margin of `gradient` before its inside, and its side, along one axis of the plane. */
typedef struct Margin {
  int64_t before, side;
} Margin;
Margin block_grad_margin(int64_t first, int64_t end, int64_t out, int64_t kernel, int64_t stride, int64_t dilation);
void block_grad_input(LoopKernel *k, const BlockGrad *g, LoopValue image, Channels c);
/* The same without a depthwise convolution, of a band: `gradient` and the plane hold it from their first element on. */
void block_grad_band_input(LoopKernel *k, const BlockGrad *g, Band band);
/* Zeros to the elements of dx that no tap reads. */
void block_grad_unread(LoopKernel *k, const BlockGrad *g, LoopValue image, Channels c);

#endif
