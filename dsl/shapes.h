/* Shape rules of primitives, written once: the front end's checker and the Graph IR's table of operations both call them.
 *
 * Every rule takes 64-bit numbers from anywhere (a file, a text of the IR) and answers false with the broken rule in `err`;
 * nothing overflows. The limits are far above any network that fits a machine, so that products of two sides, or of a side
 * and a kernel, stay far below 2^63. */
#ifndef ADWP_DSL_SHAPES_H
#define ADWP_DSL_SHAPES_H

#include "runtime/base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
  SHAPE_MAX_SIDE = 1 << 16,     /* height or width of an activation */
  SHAPE_MAX_CHANNELS = 1 << 20, /* channels, or features behind a global pool */
  SHAPE_MAX_KERNEL = 1 << 10,   /* also of strides, dilations and shifts */
};

/* The side of the result of a convolution or pool: (in + 2 pad - dilation (kernel - 1) - 1) / stride + 1, rounded down. */
bool shape_window_side(int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad, int64_t *out, Err *err);

/* The padding that keeps the side at stride 1, dilation (kernel - 1) / 2; an even kernel has none. */
bool shape_same_pad(int64_t kernel, int64_t dilation, int64_t *pad, Err *err);

/* A pool's padding must leave every window a pixel of the image. */
bool shape_pool_pad(int64_t kernel, int64_t pad, Err *err);

/* The weight (out, in/groups, kernel_y, kernel_x) of a convolution must exist and hold at most 2^31 - 1 numbers. */
bool shape_convolution_weight(int64_t in_channels, int64_t out_channels, int64_t groups, int64_t kernel_y, int64_t kernel_x,
                              Err *err);

/* The side behind x[shift:]; nothing left is an error. */
bool shape_shift_side(int64_t in, int64_t shift, int64_t *out, Err *err);

#endif
