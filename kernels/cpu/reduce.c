/* Reductions over pixels and over the batch. A task leaves a partial; a finishing kernel of one task combines the partials in
 * task order, in double, so that the bits do not depend on which thread ran what. */
#include "kernels/build.h"
#include "kernels/family_private.h"

static LoopValue tensor_index(LoopKernel *k, const Plane *p, LoopValue image, LoopValue pixel, LoopValue c) {
  return AT(k, 0, {image, (int64_t)p->height * p->width * p->stride}, {pixel, p->stride}, {c, 1});
}

LoopKernel *cpu_moments(const MomentsSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "moments", s->target.lanes);
  int32_t x = loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 2);
  LoopValue task = loop_task(k);
  int32_t total = loop_tile(k, "total", LOOP_F64, true, 2);
  LoopValue zero = loop_f32(k, 0), wide_zero = loop_f64(k, 0);
  LoopValue slot[2] = {loop_int(k, 0), loop_int(k, 1)};
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue lanes = loop_int(k, blocks[b].count);
    LoopValue first = AT(k, 0, {task, s->images});
    LoopValue at = tensor_index(k, &s->in, first, slot[0], c);
    LoopValue shift = loop_load_lanes(k, x, at, lanes, 0);
    loop_set(k, total, slot[0], wide_zero);
    loop_set(k, total, slot[1], wide_zero);
    LoopValue image = build_images(k, s->images);
    LoopValue row = build_for(k, 0, s->in.height, 1);
    loop_set(k, acc, slot[0], zero);
    loop_set(k, acc, slot[1], zero);
    LoopValue column = build_for(k, 0, s->in.width, 1);
    LoopValue pixel = AT(k, 0, {row, s->in.width}, {column, 1});
    LoopValue from = tensor_index(k, &s->in, image, pixel, c);
    LoopValue value = loop_load_lanes(k, x, from, lanes, 0);
    LoopValue difference = loop_op2(k, LOOP_SUB, value, shift);
    LoopValue sum = loop_get(k, acc, slot[0]);
    sum = loop_op2(k, LOOP_ADD, sum, difference);
    loop_set(k, acc, slot[0], sum);
    LoopValue squares = loop_get(k, acc, slot[1]);
    squares = loop_op3(k, LOOP_FMA, difference, difference, squares);
    loop_set(k, acc, slot[1], squares);
    loop_end(k);
    for (int i = 0; i < 2; i++) {
      LoopValue part = loop_get(k, acc, slot[i]);
      part = loop_op1(k, LOOP_TO_F64, part);
      LoopValue so_far = loop_get(k, total, slot[i]);
      loop_set(k, total, slot[i], loop_op2(k, LOOP_ADD, so_far, part));
    }
    loop_end(k);
    loop_end(k);
    for (int i = 0; i < 3; i++) {
      LoopValue result = i == 0 ? shift : loop_op1(k, LOOP_TO_F32, loop_get(k, total, slot[i - 1]));
      LoopValue to = AT(k, i * s->in.channels, {task, 3 * s->in.channels}, {c, 1});
      loop_store_lanes(k, partial, to, result, lanes);
    }
    loop_end(k);
  }
  return k;
}

/* Joins one task's (count, mean, squares about the mean) to the running ones (Chan et al.). */
static void moments_join(LoopKernel *k, const MomentsSpec *s, int32_t partial, int32_t acc, LoopValue task, LoopValue c,
                         LoopValue lanes) {
  LoopValue from = AT(k, 0, {task, s->images});
  LoopValue end = AT(k, s->images, {task, s->images});
  LoopValue batch = loop_batch(k);
  LoopValue below = loop_op2(k, LOOP_IMIN, end, batch);
  int64_t pixels = (int64_t)s->in.height * s->in.width;
  LoopValue own = AT(k, 0, {below, pixels}, {from, -pixels});
  LoopValue before = AT(k, 0, {from, pixels});
  LoopValue after = AT(k, 0, {below, pixels});
  LoopValue own_count = loop_op1(k, LOOP_TO_F64, own);
  LoopValue before_count = loop_op1(k, LOOP_TO_F64, before);
  LoopValue after_count = loop_op1(k, LOOP_TO_F64, after);
  LoopValue part[3];
  for (int i = 0; i < 3; i++) {
    LoopValue at = AT(k, i * s->in.channels, {task, 3 * s->in.channels}, {c, 1});
    LoopValue value = loop_load_lanes(k, partial, at, lanes, 0);
    part[i] = loop_op1(k, LOOP_TO_F64, value);
  }
  LoopValue offset = loop_op2(k, LOOP_DIV, part[1], own_count);
  LoopValue own_mean = loop_op2(k, LOOP_ADD, part[0], offset);
  LoopValue lost = loop_op2(k, LOOP_MUL, part[1], offset);
  LoopValue own_squares = loop_op2(k, LOOP_SUB, part[2], lost);
  LoopValue slot[2] = {loop_int(k, 0), loop_int(k, 1)};
  LoopValue mean = loop_get(k, acc, slot[0]);
  LoopValue squares = loop_get(k, acc, slot[1]);
  LoopValue delta = loop_op2(k, LOOP_SUB, own_mean, mean);
  LoopValue share = loop_op2(k, LOOP_DIV, own_count, after_count);
  LoopValue step = loop_op2(k, LOOP_MUL, delta, share);
  LoopValue moved = loop_op2(k, LOOP_ADD, mean, step);
  loop_set(k, acc, slot[0], moved);
  LoopValue cross = loop_op2(k, LOOP_MUL, delta, step);
  cross = loop_op2(k, LOOP_MUL, cross, before_count);
  LoopValue sum = loop_op2(k, LOOP_ADD, squares, own_squares);
  sum = loop_op2(k, LOOP_ADD, sum, cross);
  loop_set(k, acc, slot[1], sum);
}

/* The number of the producer's tasks, ceil(B / images). */
static LoopValue task_count(LoopKernel *k, int32_t images) {
  LoopValue batch = loop_batch(k);
  LoopValue raised = AT(k, images - 1, {batch, 1});
  LoopValue divisor = loop_int(k, images);
  return loop_op2(k, LOOP_IDIV, raised, divisor);
}

LoopKernel *cpu_moments_finish(const MomentsSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "moments_finish", s->target.lanes);
  int32_t partial = loop_buffer(k, "partial", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t moments = loop_buffer(k, "moments", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t acc = loop_tile(k, "acc", LOOP_F64, true, 2);
  LoopValue zero = loop_f64(k, 0);
  LoopValue slot[2] = {loop_int(k, 0), loop_int(k, 1)};
  LoopValue tasks = task_count(k, s->images);
  LoopValue batch = loop_batch(k);
  LoopValue all = AT(k, 0, {batch, (int64_t)s->in.height * s->in.width});
  LoopValue number = loop_op1(k, LOOP_TO_F64, all);
  LoopValue one = loop_int(k, 1);
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue lanes = loop_int(k, blocks[b].count);
    loop_set(k, acc, slot[0], zero);
    loop_set(k, acc, slot[1], zero);
    LoopValue task = loop_for(k, slot[0], tasks, one);
    moments_join(k, s, partial, acc, task, c, lanes);
    loop_end(k);
    LoopValue mean = loop_get(k, acc, slot[0]);
    LoopValue squares = loop_get(k, acc, slot[1]);
    LoopValue variance = loop_op2(k, LOOP_DIV, squares, number);
    variance = loop_op2(k, LOOP_MAX, variance, zero);
    LoopValue mean32 = loop_op1(k, LOOP_TO_F32, mean);
    LoopValue variance32 = loop_op1(k, LOOP_TO_F32, variance);
    loop_store_lanes(k, moments, c, mean32, lanes);
    LoopValue second = AT(k, s->in.channels, {c, 1});
    loop_store_lanes(k, moments, second, variance32, lanes);
    loop_end(k);
  }
  return k;
}

/* acc += sum over slots of partial[slot, at ..] */
static void add_slots(LoopKernel *k, const SlotsSpec *s, int32_t partial, int32_t acc, LoopValue slots, LoopValue at,
                      LoopValue lanes) {
  LoopValue zero = loop_int(k, 0), one = loop_int(k, 1);
  LoopValue slot = loop_for(k, zero, slots, one);
  LoopValue from = AT(k, 0, {slot, s->elements}, {at, 1});
  LoopValue value = loop_load_lanes(k, partial, from, lanes, 0);
  LoopValue wide = loop_op1(k, LOOP_TO_F64, value);
  LoopValue sum = loop_get(k, acc, zero);
  sum = loop_op2(k, LOOP_ADD, sum, wide);
  loop_set(k, acc, zero, sum);
  loop_end(k);
}

LoopKernel *cpu_sum_slots(const SlotsSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, s->total ? "sum_total" : "sum_slots", s->target.lanes);
  int32_t partial = loop_buffer(k, "partial", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t y = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t acc = loop_tile(k, "acc", LOOP_F64, true, 1);
  LoopValue zero = loop_f64(k, 0), first = loop_int(k, 0);
  LoopValue slots = s->images ? task_count(k, s->images) : loop_int(k, s->slots);
  LoopValue task = loop_task(k);
  int64_t chunk = s->total ? s->elements : s->chunk;
  LoopValue from = AT(k, 0, {task, chunk});
  LoopValue end = AT(k, chunk, {task, chunk});
  LoopValue all = loop_int(k, s->elements);
  LoopValue below = loop_op2(k, LOOP_IMIN, end, all);
  LoopValue step = loop_int(k, k->lanes);
  if (s->total) loop_set(k, acc, first, zero);
  LoopValue i = loop_for(k, from, below, step);
  LoopValue left = AT(k, s->elements, {i, -1});
  LoopValue lanes = loop_op2(k, LOOP_IMIN, left, step);
  if (!s->total) loop_set(k, acc, first, zero);
  add_slots(k, s, partial, acc, slots, i, lanes);
  if (!s->total) {
    LoopValue sum = loop_get(k, acc, first);
    LoopValue narrow = loop_op1(k, LOOP_TO_F32, sum);
    loop_store_lanes(k, y, i, narrow, lanes);
  }
  loop_end(k);
  if (s->total) {
    LoopValue sum = loop_get(k, acc, first);
    LoopValue one = loop_op1(k, LOOP_LANE_SUM, sum);
    LoopValue narrow = loop_op1(k, LOOP_TO_F32, one);
    loop_store(k, y, first, narrow);
  }
  return k;
}

LoopKernel *cpu_global_mean(const MomentsSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "global_mean", s->target.lanes);
  int32_t x = loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t y = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 1);
  int64_t pixels = (int64_t)s->in.height * s->in.width;
  LoopValue zero = loop_f32(k, 0), share = loop_f32(k, 1.0 / (double)pixels), first = loop_int(k, 0);
  LoopValue image = build_images(k, s->images);
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue lanes = loop_int(k, blocks[b].count);
    loop_set(k, acc, first, zero);
    LoopValue pixel = build_for(k, 0, pixels, 1);
    LoopValue from = tensor_index(k, &s->in, image, pixel, c);
    LoopValue value = loop_load_lanes(k, x, from, lanes, 0);
    LoopValue sum = loop_get(k, acc, first);
    sum = loop_op2(k, LOOP_ADD, sum, value);
    loop_set(k, acc, first, sum);
    loop_end(k);
    LoopValue total = loop_get(k, acc, first);
    LoopValue mean = loop_op2(k, LOOP_MUL, total, share);
    LoopValue to = AT(k, 0, {image, s->in.channels}, {c, 1});
    loop_store_lanes(k, y, to, mean, lanes);
    loop_end(k);
  }
  loop_end(k);
  return k;
}
