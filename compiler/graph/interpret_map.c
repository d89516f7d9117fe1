/* The interpreter's elementwise operations, and those that place elements elsewhere. Images are (B, C, H, W), row-major: element
 * i is in channel i / (H W) mod C. */
#include "compiler/graph/graph_private.h"

#include <math.h>
#include <string.h>

static double normalised(double x, const double *moments, int64_t channel, int64_t channels) {
  return (x - moments[channel]) / sqrt(moments[channels + channel] + BATCH_NORM_EPSILON);
}

/* Of an operand that the operation does not have, which it does not read, the first. */
static const double *operand(const Call *call, int32_t i) {
  return call->x[i < call->count ? i : 0].data;
}

/* Operations whose operands give a number a channel. */
static double channel_element(const Call *call, int64_t i, int64_t channel) {
  int64_t channels = call->type.dims[0];
  const double *a = operand(call, 0), *b = operand(call, 1), *c = operand(call, 2);
  switch (call->op) {
  case OP_BN_APPLY: return normalised(a[i], b, channel, channels);
  case OP_AFFINE: return a[i] * b[channel] + c[channel];
  case OP_CHANNEL_SCALE: return a[i] * b[channel];
  case OP_BN_GRAD: {
    const double *sums = operand(call, 3);
    double n = (double)(call->batch * call->type.dims[1] * call->type.dims[2]), xhat = normalised(b[i], c, channel, channels);
    return (a[i] - sums[channel] / n - xhat * sums[channels + channel] / n) / sqrt(c[channels + channel] + BATCH_NORM_EPSILON);
  }
  default: die("%s has no channels", op_table[call->op].text);
  }
}

static double element(const Call *call, int64_t i) {
  const Attributes *a = call->attributes;
  const double *x = operand(call, 0), *y = operand(call, 1), *z = operand(call, 2);
  switch (call->op) {
  case OP_RELU: return x[i] > 0 ? x[i] : 0;
  case OP_RELU_GRAD: return y[i] > 0 ? x[i] : 0;
  case OP_ADD: return x[i] + y[i];
  case OP_MUL: return x[i] * y[i];
  case OP_SCALE: return x[i] * y[0];
  case OP_MOMENTUM: return a->beta * y[i] + (operand(call, 3)[0] * z[i] + a->decay * x[i]);
  case OP_DESCEND: return x[i] - z[0] * y[i];
  case OP_ADAM_MEAN: return a->beta * y[i] + (1 - a->beta) * (z[i] + a->decay * x[i]);
  case OP_ADAM_SQUARE: {
    double gradient = z[i] + a->decay * x[i];
    return a->beta * y[i] + (1 - a->beta) * gradient * gradient;
  }
  case OP_ADAM_STEP: return z[0] * (x[i] / z[1]) / (sqrt(y[i] / z[2]) + a->value);
  default: die("%s is no elementwise operation", op_table[call->op].text);
  }
}

void interpret_map(const Call *call) {
  int64_t elements = type_elements(call->type, call->batch), plane = (int64_t)call->type.dims[1] * call->type.dims[2];
  switch (call->op) {
  case OP_BN_APPLY:
  case OP_BN_GRAD:
  case OP_AFFINE:
  case OP_CHANNEL_SCALE:
    for (int64_t i = 0; i < elements; i++) call->y[i] = channel_element(call, i, i / plane % call->type.dims[0]);
    return;
  case OP_GLOBAL_AVG_POOL_GRAD:
    for (int64_t i = 0; i < elements; i++) call->y[i] = call->x[0].data[i / plane] / (double)plane;
    return;
  default:
    for (int64_t i = 0; i < elements; i++) call->y[i] = element(call, i);
    return;
  }
}

/* ---- placement ---- */

/* Copies a block of rows x columns between images whose rows have other lengths. */
static void copy_rows(double *to, int64_t to_width, const double *from, int64_t from_width, int64_t rows, int64_t columns) {
  for (int64_t row = 0; row < rows; row++) memcpy(to + row * to_width, from + row * from_width, (size_t)columns * sizeof(double));
}

/* `channels` planes of each image, from channel `from` of operand i to channel `to` of the result. */
static void copy_channels(const Call *call, int32_t i, int64_t from, int64_t to, int64_t channels) {
  int64_t plane = (int64_t)call->type.dims[1] * call->type.dims[2];
  for (int64_t b = 0; b < call->batch; b++)
    memcpy(call->y + (b * call->type.dims[0] + to) * plane, call->x[i].data + (b * call->x[i].type.dims[0] + from) * plane,
           (size_t)(channels * plane) * sizeof(double));
}

static void shift(const Call *call) {
  const Attributes *a = call->attributes;
  Type in = call->x[0].type, out = call->type;
  bool back = call->op == OP_UNSHIFT;
  int64_t rows = back ? in.dims[1] : out.dims[1], columns = back ? in.dims[2] : out.dims[2];
  for (int64_t p = 0; p < call->batch * out.dims[0]; p++) {
    double *to = call->y + p * out.dims[1] * out.dims[2];
    const double *from = call->x[0].data + p * in.dims[1] * in.dims[2];
    if (back)
      copy_rows(to + (int64_t)a->shift_y * out.dims[2] + a->shift_x, out.dims[2], from, in.dims[2], rows, columns);
    else
      copy_rows(to, out.dims[2], from + (int64_t)a->shift_y * in.dims[2] + a->shift_x, in.dims[2], rows, columns);
  }
}

void interpret_data(const Call *call) {
  int64_t to = 0;
  switch (call->op) {
  case OP_RESHAPE: memcpy(call->y, call->x[0].data, (size_t)type_elements(call->type, 1) * sizeof(double)); return;
  case OP_CONCAT:
    for (int32_t i = 0; i < call->count; i++) {
      copy_channels(call, i, 0, to, call->x[i].type.dims[0]);
      to += call->x[i].type.dims[0];
    }
    return;
  case OP_SLICE: copy_channels(call, 0, call->attributes->begin, 0, call->attributes->count); return;
  case OP_SHIFT:
  case OP_UNSHIFT: shift(call); return;
  default: die("%s does not place elements", op_table[call->op].text);
  }
}
