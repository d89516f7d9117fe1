/* What the convolution families share: reading an input through its prologue, and staging it with its halo. */
#ifndef ADWP_KERNELS_CONV_PRIVATE_H
#define ADWP_KERNELS_CONV_PRIVATE_H

#include "kernels/build.h"
#include "kernels/family_private.h"

typedef struct ConvInput {
  int32_t x, scale, mean; /* buffers; scale and mean -1 where there is no affine prologue */
} ConvInput;

ConvInput conv_input(LoopKernel *k, const Prologue *prologue); /* declares the buffers x, [scale, mean] */

/* `count` lanes of channels from `channel` on of the element at `index`, through the prologue. */
LoopValue conv_read(LoopKernel *k, const Prologue *prologue, ConvInput input, LoopValue index, LoopValue channel, int32_t count);

static inline bool conv_is_depthwise(const ConvSpec *s) {
  return s->groups > 1 && s->groups == s->in.channels && s->groups == s->out.channels;
}
static inline bool conv_is_plain(const ConvSpec *s) { /* one pixel in, one pixel out */
  return s->kernel_y == 1 && s->kernel_x == 1 && s->stride_y == 1 && s->stride_x == 1 && !s->pad_y && !s->pad_x && !s->shift_y &&
         !s->shift_x;
}

/* A plain convolution sees an image as rows of up to 64 pixels, whatever its sides; of 32, where 64 pixels of both tensors would
 * fill the first-level cache. */
ConvSpec conv_flatten(const ConvSpec *spec);

/* The input rows that one output row reads, staged with their halo: (ky, width, in channels). */
typedef struct ConvRows {
  int32_t array;
  int64_t width;
} ConvRows;
ConvRows conv_rows(LoopKernel *k, const ConvSpec *spec);
void conv_stage_rows(LoopKernel *k, const ConvSpec *spec, ConvInput input, ConvRows rows, LoopValue image, LoopValue y);

/* conv_point.c: one tap, no padding, one group */
bool conv_is_point(const ConvSpec *spec);
LoopKernel *conv_point_forward(const ConvSpec *spec, Arena *arena);
LoopKernel *conv_point_grad_input(const ConvSpec *spec, Arena *arena);

/* depthwise.c, depthwise_grad_input.c */
LoopKernel *depthwise_forward(const ConvSpec *spec, Arena *arena);
LoopKernel *depthwise_grad_input(const ConvSpec *spec, Arena *arena);
LoopKernel *depthwise_grad_weight(const ConvSpec *spec, Arena *arena);

/* Stores zero to `lanes`-wide elements from .. below of an array. */
void conv_clear(LoopKernel *k, int32_t array, int64_t from, int64_t below);

#endif
