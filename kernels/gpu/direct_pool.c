/* Pools without shared memory. */
#include "kernels/gpu/direct.h"
#include "kernels/plane.h"

#include <math.h>

static const double LOWEST = -3.402823466e38; /* where the maximum starts, as on a CPU */

/* The rows or columns of the image in the window at `at`. */
typedef struct Span {
  LoopValue from, below;
} Span;

static Span span(LoopKernel *k, LoopValue at, int64_t kernel, int64_t stride, int64_t pad, int64_t side) {
  LoopValue zero = loop_int(k, 0), end = loop_int(k, side);
  LoopValue from = AT(k, -pad, {at, stride});
  LoopValue below = AT(k, kernel, {from, 1});
  Span s;
  s.from = loop_op2(k, LOOP_IMAX, from, zero);
  s.below = loop_op2(k, LOOP_IMIN, below, end);
  return s;
}

static LoopValue share(LoopKernel *k, Span y, Span x) {
  LoopValue rows = loop_op2(k, LOOP_ISUB, y.below, y.from);
  LoopValue columns = loop_op2(k, LOOP_ISUB, x.below, x.from);
  LoopValue pixels = loop_op2(k, LOOP_IMUL, rows, columns);
  LoopValue least = loop_int(k, 1);
  pixels = loop_op2(k, LOOP_IMAX, pixels, least);
  LoopValue number = loop_op1(k, LOOP_TO_F32, pixels);
  LoopValue one = loop_f32(k, 1);
  return loop_op2(k, LOOP_DIV, one, number);
}

/* Begins the loops over the taps of the window at (row, column), and reads x there: `fill` outside. End it with two ends. */
typedef struct Tap {
  LoopValue number, value;
} Tap;

static Tap taps(LoopKernel *k, const PoolSpec *s, int32_t x, LoopValue image, LoopValue row, LoopValue column, LoopValue channel,
                LoopValue where, double fill) {
  Tap tap;
  LoopValue ky = build_for(k, 0, s->kernel_y, 1);
  LoopValue kx = build_for(k, 0, s->kernel_x, 1);
  tap.number = AT(k, 0, {ky, s->kernel_x}, {kx, 1});
  LoopValue at_y = AT(k, -(int64_t)s->pad_y, {row, s->stride_y}, {ky, 1});
  LoopValue at_x = AT(k, -(int64_t)s->pad_x, {column, s->stride_x}, {kx, 1});
  LoopValue rows = gpu_inside(k, at_y, 0, s->in.height);
  LoopValue columns = gpu_inside(k, at_x, 0, s->in.width);
  LoopValue inside = loop_op2(k, LOOP_AND, rows, columns);
  inside = gpu_both(k, inside, where);
  LoopValue from = plane_index(k, &s->in, image, at_y, at_x, channel);
  tap.value = loop_gather(k, x, from, inside, fill);
  return tap;
}

LoopKernel *direct_pool(const PoolSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, s->max ? "max_pool" : "avg_pool", direct_lanes(&s->target, &s->out, s->bands));
  int32_t x = loop_buffer(k, "x", LOOP_IN, s->in.element);
  int32_t y = loop_buffer(k, "y", LOOP_OUT, s->out.element);
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 1);
  GpuBand band = gpu_band(k, s->images, s->bands, s->out.height);
  DirectElement e = direct_begin(k, &s->out, &band);
  LoopValue first = loop_int(k, 0);
  gpu_fill(k, acc, 0, 1, s->max ? LOWEST : 0);
  Tap tap = taps(k, s, x, band.image, e.row, e.column, e.channel, LOOP_NONE, s->max ? -INFINITY : 0);
  LoopValue old = loop_get(k, acc, first);
  LoopValue joined = s->max ? loop_op2(k, LOOP_MAX, tap.value, old) : loop_op2(k, LOOP_ADD, old, tap.value);
  loop_set(k, acc, first, joined);
  loop_end(k);
  loop_end(k);
  if (!s->max) {
    Span rows = span(k, e.row, s->kernel_y, s->stride_y, s->pad_y, s->in.height);
    Span columns = span(k, e.column, s->kernel_x, s->stride_x, s->pad_x, s->in.width);
    LoopValue factor = share(k, rows, columns);
    LoopValue sum = loop_get(k, acc, first);
    sum = loop_op2(k, LOOP_MUL, sum, factor);
    loop_set(k, acc, first, sum);
  }
  LoopValue to = plane_index(k, &s->out, band.image, e.row, e.column, e.channel);
  direct_store(k, y, to, acc);
  direct_end(k, &e);
  gpu_band_end(k, s->images);
  return k;
}

enum { SUM, MAXIMUM, CHOSEN, ACC_COUNT };

/* The tap that the window at (row, column) chose: the first of its largest. */
static LoopValue chosen(LoopKernel *k, const PoolSpec *s, int32_t x, int32_t acc, LoopValue image, LoopValue row,
                        LoopValue column, LoopValue channel, LoopValue where) {
  gpu_fill(k, acc, MAXIMUM, 1, -INFINITY);
  gpu_fill(k, acc, CHOSEN, 1, -1);
  Tap tap = taps(k, s, x, image, row, column, channel, where, -INFINITY);
  LoopValue maximum_at = loop_int(k, MAXIMUM), chosen_at = loop_int(k, CHOSEN);
  LoopValue number = loop_op1(k, LOOP_TO_F32, tap.number);
  LoopValue maximum = loop_get(k, acc, maximum_at);
  LoopValue best = loop_get(k, acc, chosen_at);
  LoopValue larger = loop_op2(k, LOOP_GT, tap.value, maximum);
  maximum = loop_op3(k, LOOP_SELECT, larger, tap.value, maximum);
  best = loop_op3(k, LOOP_SELECT, larger, number, best);
  loop_set(k, acc, maximum_at, maximum);
  loop_set(k, acc, chosen_at, best);
  loop_end(k);
  loop_end(k);
  LoopValue result = loop_int(k, CHOSEN);
  return loop_get(k, acc, result);
}

LoopKernel *direct_pool_grad(const PoolSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, s->max ? "max_pool_grad" : "avg_pool_grad", direct_lanes(&s->target, &s->in, s->bands));
  Plane plane = s->in;
  if (s->dx_stride) plane.stride = s->dx_stride;
  int32_t dy = loop_buffer(k, "dy", LOOP_IN, s->out.element);
  int32_t x = s->max ? loop_buffer(k, "x", LOOP_IN, s->in.element) : -1;
  int32_t dx = loop_buffer(k, "dx", LOOP_OUT, s->in.element);
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, ACC_COUNT);
  DirectAxis axis_y = {s->kernel_y, s->stride_y, 1, s->pad_y, 0, s->out.height};
  DirectAxis axis_x = {s->kernel_x, s->stride_x, 1, s->pad_x, 0, s->out.width};
  GpuBand band = gpu_band(k, s->images, s->bands, s->in.height);
  DirectElement e = direct_begin(k, &s->in, &band);
  LoopValue sum_at = loop_int(k, SUM);
  gpu_fill(k, acc, SUM, 1, 0);
  LoopValue ky = build_for(k, 0, s->kernel_y, 1);
  DirectSide down = direct_side(k, axis_y, e.row, ky);
  LoopValue kx = build_for(k, 0, s->kernel_x, 1);
  DirectSide right = direct_side(k, axis_x, e.column, kx);
  LoopValue meets = loop_op2(k, LOOP_AND, down.meets, right.meets);
  LoopValue from = plane_index(k, &s->out, band.image, down.window, right.window, e.channel);
  LoopValue part = loop_gather(k, dy, from, meets, 0);
  if (s->max) {
    LoopValue tap = AT(k, 0, {ky, s->kernel_x}, {kx, 1});
    LoopValue number = loop_op1(k, LOOP_TO_F32, tap);
    LoopValue best = chosen(k, s, x, acc, band.image, down.window, right.window, e.channel, meets);
    LoopValue is = loop_op2(k, LOOP_EQ, best, number);
    LoopValue zero = loop_f32(k, 0);
    part = loop_op3(k, LOOP_SELECT, is, part, zero);
  } else {
    Span rows = span(k, down.window, s->kernel_y, s->stride_y, s->pad_y, s->in.height);
    Span columns = span(k, right.window, s->kernel_x, s->stride_x, s->pad_x, s->in.width);
    LoopValue factor = share(k, rows, columns);
    part = loop_op2(k, LOOP_MUL, part, factor);
  }
  LoopValue sum = loop_get(k, acc, sum_at);
  sum = loop_op2(k, LOOP_ADD, sum, part);
  loop_set(k, acc, sum_at, sum);
  loop_end(k);
  loop_end(k);
  LoopValue to = plane_index(k, &plane, band.image, e.row, e.column, e.channel);
  direct_store(k, dx, to, acc);
  direct_end(k, &e);
  gpu_band_end(k, s->images);
  return k;
}
