/* Pools of any window and their gradients: lanes run over channels, a window's taps are a loop. Borders are computed: a window's
 * rows and columns inside the image run from max(0, ..) to min(side, ..), so no padding is stored. */
#include "kernels/cpu/pool_private.h"
#include "kernels/cpu/reduce_private.h"

typedef struct PoolWindow {
  LoopValue y0, y1, x0, x1; /* of the input, inside the image */
} PoolWindow;

static PoolWindow pool_window(LoopKernel *k, const PoolSpec *s, LoopValue y, LoopValue x) {
  PoolWindow w;
  LoopValue top = AT(k, -(int64_t)s->pad_y, {y, s->stride_y});
  LoopValue left = AT(k, -(int64_t)s->pad_x, {x, s->stride_x});
  LoopValue bottom = AT(k, s->kernel_y, {top, 1});
  LoopValue right = AT(k, s->kernel_x, {left, 1});
  w.y0 = pool_low(k, top, 0);
  w.x0 = pool_low(k, left, 0);
  w.y1 = pool_high(k, bottom, s->in.height);
  w.x1 = pool_high(k, right, s->in.width);
  return w;
}

/* 1 / (pixels of the window inside the image) */
static LoopValue pool_share(LoopKernel *k, PoolWindow w) {
  LoopValue height = loop_op2(k, LOOP_ISUB, w.y1, w.y0);
  LoopValue width = loop_op2(k, LOOP_ISUB, w.x1, w.x0);
  LoopValue pixels = loop_op2(k, LOOP_IMUL, height, width);
  LoopValue number = loop_op1(k, LOOP_TO_F32, pixels);
  LoopValue one = loop_f32(k, 1);
  return loop_op2(k, LOOP_DIV, one, number);
}

static void for_window(LoopKernel *k, PoolWindow w, LoopValue *y, LoopValue *x) {
  LoopValue one = loop_int(k, 1);
  *y = loop_for(k, w.y0, w.y1, one);
  *x = loop_for(k, w.x0, w.x1, one);
}

LoopValue pool_window_value(LoopKernel *k, const PoolSpec *s, int32_t in, int32_t acc, PoolPixel p) {
  PoolWindow w = pool_window(k, s, p.y, p.x);
  LoopValue first = loop_int(k, 0);
  LoopValue start = loop_f32(k, s->max ? -3.402823466e38 : 0);
  loop_set(k, acc, first, start);
  LoopValue y, x;
  for_window(k, w, &y, &x);
  LoopValue at = plane_index(k, &s->in, p.image, y, x, p.c);
  LoopValue lanes = loop_int(k, p.count);
  LoopValue value = loop_load_lanes(k, in, at, lanes, 0);
  LoopValue old = loop_get(k, acc, first);
  LoopValue joined = s->max ? loop_op2(k, LOOP_MAX, value, old) : loop_op2(k, LOOP_ADD, old, value);
  loop_set(k, acc, first, joined);
  loop_end(k);
  loop_end(k);
  LoopValue result = loop_get(k, acc, first);
  if (s->max) return result;
  LoopValue share = pool_share(k, w);
  return loop_op2(k, LOOP_MUL, result, share);
}

LoopKernel *pool_any(const PoolSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, s->max ? "max_pool" : "avg_pool", s->target.lanes);
  int32_t in = loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t out = loop_buffer(k, "y", s->moments ? LOOP_INOUT : LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t partial = s->moments ? loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32) : -1;
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 1);
  PoolPixel p;
  p.image = build_images(k, s->images);
  p.y = build_for(k, 0, s->out.height, 1);
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    p.c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    p.x = build_for(k, 0, s->out.width, 1);
    p.count = blocks[b].count;
    LoopValue result = pool_window_value(k, s, in, acc, p);
    LoopValue to = plane_index(k, &s->out, p.image, p.y, p.x, p.c);
    LoopValue lanes = loop_int(k, p.count);
    loop_store_lanes(k, out, to, result, lanes);
    loop_end(k);
    loop_end(k);
  }
  loop_end(k);
  loop_end(k);
  if (s->moments) moments_of_task(k, moments_tiles(k), &s->out, s->images, out, partial);
  return k;
}

/* Adds this window's gradient to dx: its share to every pixel, or all of it to the first that is the largest. */
static void pool_scatter(LoopKernel *k, const PoolSpec *s, int32_t dy, int32_t in, int32_t dx, int32_t acc, PoolPixel p) {
  PoolWindow w = pool_window(k, s, p.y, p.x);
  LoopValue lanes = loop_int(k, p.count);
  LoopValue from = plane_index(k, &s->out, p.image, p.y, p.x, p.c);
  LoopValue gradient = loop_load_lanes(k, dy, from, lanes, 0);
  LoopValue best_slot = loop_int(k, 0), left_slot = loop_int(k, 1);
  LoopValue y, x;
  if (s->max) {
    LoopValue start = loop_f32(k, -3.402823466e38);
    loop_set(k, acc, best_slot, start);
    loop_set(k, acc, left_slot, gradient); /* what has not been given away yet */
    for_window(k, w, &y, &x);
    LoopValue at = plane_index(k, &s->in, p.image, y, x, p.c);
    LoopValue value = loop_load_lanes(k, in, at, lanes, 0);
    LoopValue best = loop_get(k, acc, best_slot);
    LoopValue larger = loop_op2(k, LOOP_MAX, value, best);
    loop_set(k, acc, best_slot, larger);
    loop_end(k);
    loop_end(k);
  } else {
    LoopValue share = pool_share(k, w);
    gradient = loop_op2(k, LOOP_MUL, gradient, share);
  }
  for_window(k, w, &y, &x);
  Plane plane = pool_gradient_plane(s);
  LoopValue to = plane_index(k, &plane, p.image, y, x, p.c);
  LoopValue part = gradient;
  if (s->max) {
    LoopValue at = plane_index(k, &s->in, p.image, y, x, p.c);
    LoopValue value = loop_load_lanes(k, in, at, lanes, 0);
    LoopValue best = loop_get(k, acc, best_slot);
    LoopValue left = loop_get(k, acc, left_slot);
    LoopValue zero = loop_f32(k, 0);
    LoopValue is_best = loop_op2(k, LOOP_EQ, value, best);
    part = loop_op3(k, LOOP_SELECT, is_best, left, zero);
    LoopValue rest = loop_op3(k, LOOP_SELECT, is_best, zero, left);
    loop_set(k, acc, left_slot, rest);
  }
  LoopValue old = loop_load_lanes(k, dx, to, lanes, 0);
  LoopValue sum = loop_op2(k, LOOP_ADD, old, part);
  loop_store_lanes(k, dx, to, sum, lanes);
  loop_end(k);
  loop_end(k);
}

LoopKernel *pool_any_grad(const PoolSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, s->max ? "max_pool_grad" : "avg_pool_grad", s->target.lanes);
  int32_t dy = loop_buffer(k, "dy", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t in = s->max ? loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32) : -1;
  int32_t dx = loop_buffer(k, "dx", LOOP_INOUT, LOOP_ELEMENT_F32);
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 2);
  PoolPixel p;
  p.image = build_images(k, s->images);
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    p.c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    p.count = blocks[b].count;
    LoopValue row = build_for(k, 0, s->in.height, 1);
    LoopValue column = build_for(k, 0, s->in.width, 1);
    Plane plane = pool_gradient_plane(s);
    LoopValue at = plane_index(k, &plane, p.image, row, column, p.c);
    LoopValue lanes = loop_int(k, p.count);
    LoopValue zero = loop_f32(k, 0);
    loop_store_lanes(k, dx, at, zero, lanes);
    loop_end(k);
    loop_end(k);
    p.y = build_for(k, 0, s->out.height, 1);
    p.x = build_for(k, 0, s->out.width, 1);
    pool_scatter(k, s, dy, in, dx, acc, p);
    loop_end(k);
    loop_end(k);
    loop_end(k);
  }
  loop_end(k);
  return k;
}
