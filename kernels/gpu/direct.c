/* Depthwise convolutions without shared memory. */
#include "kernels/gpu/direct.h"
#include "kernels/gpu/conv_private.h"
#include "kernels/plane.h"

enum { MOST_LANES = 256 };

DirectElement direct_begin(LoopKernel *k, const Plane *plane, const GpuBand *band) {
  GpuItem item = gpu_items(k, band->rows * plane->width * plane->channels, 1);
  DirectElement e = {.masked = item.inside != LOOP_NONE};
  if (e.masked) loop_if(k, item.inside);
  LoopValue pixel = gpu_div(k, item.number, plane->channels);
  e.channel = gpu_mod(k, item.number, plane->channels);
  LoopValue row = gpu_div(k, pixel, plane->width);
  e.column = gpu_mod(k, pixel, plane->width);
  e.row = AT(k, 0, {band->row, 1}, {row, 1});
  return e;
}

void direct_end(LoopKernel *k, const DirectElement *e) {
  if (e->masked) loop_end(k);
  loop_end(k);
}

int32_t direct_lanes(const KernelTarget *target, const Plane *plane, int32_t bands) {
  return gpu_lanes(target, (int64_t)plane->height / bands * plane->width * plane->channels, MOST_LANES);
}

/* What tap (ky, kx) of the result at (row, column) reads, and whether that is inside. */
static LoopValue tapped(LoopKernel *k, const ConvSpec *s, LoopValue image, LoopValue row, LoopValue column, LoopValue channel,
                        LoopValue ky, LoopValue kx, LoopValue *inside) {
  LoopValue y = AT(k, s->shift_y - s->pad_y, {row, s->stride_y}, {ky, s->dilation});
  LoopValue x = AT(k, s->shift_x - s->pad_x, {column, s->stride_x}, {kx, s->dilation});
  LoopValue rows = gpu_inside(k, y, s->shift_y, s->in.height);
  LoopValue columns = gpu_inside(k, x, s->shift_x, s->in.width);
  *inside = loop_op2(k, LOOP_AND, rows, columns);
  return plane_index(k, &s->in, image, y, x, channel);
}

LoopValue direct_gather(LoopKernel *k, int32_t array, LoopValue index) {
  LoopValue always = gpu_true(k);
  return loop_gather(k, array, index, always, 0);
}

static void add_product(LoopKernel *k, int32_t acc, LoopValue a, LoopValue b) {
  LoopValue zero = loop_int(k, 0);
  LoopValue sum = loop_get(k, acc, zero);
  sum = loop_op3(k, LOOP_FMA, a, b, sum);
  loop_set(k, acc, zero, sum);
}

void direct_store(LoopKernel *k, int32_t buffer, LoopValue index, int32_t acc) {
  LoopValue zero = loop_int(k, 0), always = gpu_true(k);
  LoopValue sum = loop_get(k, acc, zero);
  loop_scatter(k, buffer, index, sum, always);
}

LoopKernel *direct_depthwise(const ConvSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "depthwise", direct_lanes(&s->target, &s->out, s->bands));
  GpuInput input = gpu_conv_input(k, s);
  int32_t w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t y = loop_buffer(k, "y", LOOP_OUT, s->out.element);
  gpu_conv_input_tile(k, &input, 1);
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 1);
  int32_t value = loop_tile(k, "value", LOOP_F32, true, 1);
  GpuBand band = gpu_band(k, s->images, s->bands, s->out.height);
  DirectElement e = direct_begin(k, &s->out, &band);
  gpu_fill(k, acc, 0, 1, 0);
  LoopValue ky = build_for(k, 0, s->kernel_y, 1);
  LoopValue kx = build_for(k, 0, s->kernel_x, 1);
  LoopValue inside;
  LoopValue from = tapped(k, s, band.image, e.row, e.column, e.channel, ky, kx, &inside);
  gpu_conv_read(k, &input, value, 0, from, e.channel, 1, inside);
  LoopValue tap = AT(k, 0, {ky, s->kernel_x * s->in.channels}, {kx, s->in.channels}, {e.channel, 1});
  LoopValue weight = direct_gather(k, w, tap);
  LoopValue zero = loop_int(k, 0);
  LoopValue x = loop_get(k, value, zero);
  add_product(k, acc, x, weight);
  loop_end(k);
  loop_end(k);
  LoopValue to = plane_index(k, &s->out, band.image, e.row, e.column, e.channel);
  direct_store(k, y, to, acc);
  direct_end(k, &e);
  gpu_band_end(k, s->images);
  return k;
}

DirectSide direct_side(LoopKernel *k, DirectAxis a, LoopValue at, LoopValue tap) {
  int64_t lift = (a.shift + (a.kernel - 1) * a.dilation) / a.stride + 1; /* so that nothing negative is divided */
  DirectSide side;
  LoopValue t = AT(k, a.pad - a.shift + lift * a.stride, {at, 1}, {tap, -a.dilation});
  LoopValue rest = gpu_mod(k, t, a.stride);
  LoopValue lifted = gpu_div(k, t, a.stride);
  side.window = AT(k, -lift, {lifted, 1});
  LoopValue zero = loop_int(k, 0);
  LoopValue divides = loop_op2(k, LOOP_IEQ, rest, zero);
  LoopValue exists = gpu_inside(k, side.window, 0, a.windows);
  side.meets = loop_op2(k, LOOP_AND, divides, exists);
  if (a.shift) {
    LoopValue before = gpu_below(k, at, a.shift);
    LoopValue reached = loop_op1(k, LOOP_NOT, before);
    side.meets = loop_op2(k, LOOP_AND, side.meets, reached);
  }
  return side;
}

LoopKernel *direct_depthwise_grad_input(const ConvSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "depthwise_grad_input", direct_lanes(&s->target, &s->in, s->bands));
  int32_t dy = loop_buffer(k, "dy", LOOP_IN, s->out.element);
  int32_t w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t dx = loop_buffer(k, "dx", LOOP_OUT, s->in.element);
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 1);
  DirectAxis y = {s->kernel_y, s->stride_y, s->dilation, s->pad_y, s->shift_y, s->out.height};
  DirectAxis x = {s->kernel_x, s->stride_x, s->dilation, s->pad_x, s->shift_x, s->out.width};
  GpuBand band = gpu_band(k, s->images, s->bands, s->in.height);
  DirectElement e = direct_begin(k, &s->in, &band);
  gpu_fill(k, acc, 0, 1, 0);
  LoopValue ky = build_for(k, 0, s->kernel_y, 1);
  DirectSide down = direct_side(k, y, e.row, ky);
  LoopValue kx = build_for(k, 0, s->kernel_x, 1);
  DirectSide right = direct_side(k, x, e.column, kx);
  LoopValue meets = loop_op2(k, LOOP_AND, down.meets, right.meets);
  LoopValue from = plane_index(k, &s->out, band.image, down.window, right.window, e.channel);
  LoopValue gradient = loop_gather(k, dy, from, meets, 0);
  LoopValue tap = AT(k, 0, {ky, s->kernel_x * s->in.channels}, {kx, s->in.channels}, {e.channel, 1});
  LoopValue weight = direct_gather(k, w, tap);
  add_product(k, acc, gradient, weight);
  loop_end(k);
  loop_end(k);
  LoopValue to = plane_index(k, &s->in, band.image, e.row, e.column, e.channel);
  direct_store(k, dx, to, acc);
  direct_end(k, &e);
  gpu_band_end(k, s->images);
  return k;
}

/* A thread adds all pixels of the task for one tap of one channel, in f64. */
LoopKernel *direct_depthwise_grad_weight(const ConvSpec *s, Arena *arena) {
  int64_t elements = (int64_t)s->kernel_y * s->kernel_x * s->in.channels;
  LoopKernel *k = loop_new(arena, "depthwise_grad_weight", gpu_lanes(&s->target, elements, MOST_LANES));
  int32_t dy = loop_buffer(k, "dy", LOOP_IN, s->out.element);
  GpuInput input = gpu_conv_input(k, s);
  int32_t partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
  gpu_conv_input_tile(k, &input, 1);
  int32_t value = loop_tile(k, "value", LOOP_F32, true, 1);
  int32_t acc = loop_tile(k, "acc", LOOP_F64, true, 1);
  GpuItem item = gpu_items(k, elements, 1);
  if (item.inside != LOOP_NONE) loop_if(k, item.inside);
  LoopValue tap = gpu_div(k, item.number, s->in.channels);
  LoopValue channel = gpu_mod(k, item.number, s->in.channels);
  LoopValue ky = gpu_div(k, tap, s->kernel_x);
  LoopValue kx = gpu_mod(k, tap, s->kernel_x);
  LoopValue first = loop_int(k, 0), nothing = loop_f64(k, 0);
  loop_set(k, acc, first, nothing);
  GpuBand band = gpu_band(k, s->images, s->bands, s->out.height);
  LoopValue row = build_for(k, 0, band.rows, 1);
  LoopValue y = AT(k, 0, {band.row, 1}, {row, 1});
  LoopValue x = build_for(k, 0, s->out.width, 1);
  LoopValue inside;
  LoopValue from = tapped(k, s, band.image, y, x, channel, ky, kx, &inside);
  gpu_conv_read(k, &input, value, 0, from, channel, 1, inside);
  LoopValue at = plane_index(k, &s->out, band.image, y, x, channel);
  LoopValue gradient = direct_gather(k, dy, at);
  LoopValue zero = loop_int(k, 0);
  LoopValue staged = loop_get(k, value, zero);
  LoopValue wide = loop_op1(k, LOOP_TO_F64, staged);
  gradient = loop_op1(k, LOOP_TO_F64, gradient);
  add_product(k, acc, wide, gradient);
  loop_end(k);
  loop_end(k);
  gpu_band_end(k, s->images);
  LoopValue task = loop_task(k);
  LoopValue to = AT(k, 0, {task, elements}, {item.number, 1});
  zero = loop_int(k, 0);
  LoopValue sum = loop_get(k, acc, zero);
  sum = loop_op1(k, LOOP_TO_F32, sum);
  LoopValue always = gpu_true(k);
  loop_scatter(k, partial, to, sum, always);
  if (item.inside != LOOP_NONE) loop_end(k);
  loop_end(k);
  return k;
}
