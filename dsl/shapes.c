#include "dsl/shapes.h"

#include <inttypes.h>

static bool within(int64_t value, int64_t low, int64_t high, const char *what, Err *err) {
  if (value < low || value > high)
    return err_set(err, "%s %" PRId64 " is not within %" PRId64 "..%" PRId64, what, value, low, high);
  return true;
}

bool shape_window_side(int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad, int64_t *out, Err *err) {
  *out = 0;
  if (!within(in, 1, SHAPE_MAX_SIDE, "side", err)) return false;
  if (!within(kernel, 1, SHAPE_MAX_KERNEL, "kernel", err)) return false;
  if (!within(stride, 1, SHAPE_MAX_KERNEL, "stride", err)) return false;
  if (!within(dilation, 1, SHAPE_MAX_KERNEL, "dilation", err)) return false;
  int64_t extent = dilation * (kernel - 1) + 1;
  if (pad < 0 || pad >= extent)
    return err_set(err,
                   "padding %" PRId64 " is not within 0..%" PRId64 ": a window of kernel %" PRId64 " and dilation %" PRId64
                   " covers %" PRId64 " pixels and must touch the image",
                   pad, extent - 1, kernel, dilation, extent);
  if (in + 2 * pad < extent)
    return err_set(err, "a side of %" PRId64 " with padding %" PRId64 " is smaller than the window's %" PRId64 " pixels", in, pad,
                   extent);
  *out = (in + 2 * pad - extent) / stride + 1;
  if (*out > SHAPE_MAX_SIDE) return err_set(err, "the result's side %" PRId64 " is larger than %d", *out, SHAPE_MAX_SIDE);
  return true;
}

bool shape_same_pad(int64_t kernel, int64_t dilation, int64_t *pad, Err *err) {
  *pad = 0;
  if (!within(kernel, 1, SHAPE_MAX_KERNEL, "kernel", err)) return false;
  if (!within(dilation, 1, SHAPE_MAX_KERNEL, "dilation", err)) return false;
  if (kernel % 2 == 0)
    return err_set(err, "a kernel of %" PRId64 " has no middle, so its padding must be given (`pad: %" PRId64 "`, say)", kernel,
                   kernel / 2);
  *pad = dilation * ((kernel - 1) / 2);
  return true;
}

bool shape_pool_pad(int64_t kernel, int64_t pad, Err *err) {
  if (pad < 0 || pad > kernel / 2)
    return err_set(err, "padding %" PRId64 " is not within 0..%" PRId64 ", half the pool's kernel %" PRId64, pad, kernel / 2,
                   kernel);
  return true;
}

bool shape_convolution_weight(int64_t in_channels, int64_t out_channels, int64_t groups, int64_t kernel_y, int64_t kernel_x,
                              Err *err) {
  if (!within(in_channels, 1, SHAPE_MAX_CHANNELS, "input channels", err)) return false;
  if (!within(out_channels, 1, SHAPE_MAX_CHANNELS, "output channels", err)) return false;
  if (!within(kernel_y, 1, SHAPE_MAX_KERNEL, "kernel", err)) return false;
  if (!within(kernel_x, 1, SHAPE_MAX_KERNEL, "kernel", err)) return false;
  if (!within(groups, 1, SHAPE_MAX_CHANNELS, "groups", err)) return false;
  if (in_channels % groups || out_channels % groups)
    return err_set(err, "%" PRId64 " groups do not divide %" PRId64 " input and %" PRId64 " output channels", groups, in_channels,
                   out_channels);
  int64_t weights = out_channels * (in_channels / groups) * kernel_y; /* at most 2^50 */
  if (weights > INT32_MAX / kernel_x)
    return err_set(err,
                   "a convolution of %" PRId64 " to %" PRId64 " channels with kernel %" PRId64 "x%" PRId64
                   " has more than 2^31 - 1 weights",
                   in_channels, out_channels, kernel_y, kernel_x);
  return true;
}

bool shape_shift_side(int64_t in, int64_t shift, int64_t *out, Err *err) {
  *out = 0;
  if (!within(in, 1, SHAPE_MAX_SIDE, "side", err)) return false;
  if (!within(shift, 0, SHAPE_MAX_KERNEL, "shift", err)) return false;
  if (shift >= in) return err_set(err, "a shift by %" PRId64 " leaves nothing of a side of %" PRId64, shift, in);
  *out = in - shift;
  return true;
}
