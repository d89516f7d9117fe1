/* Reductions over pixels and over the batch. A task leaves a partial; a finishing kernel of one task combines the partials in
 * task order, in double, so that the bits do not depend on which thread ran what. */
#include "kernels/cpu/reduce_private.h"
#include "kernels/family_private.h"

enum {
  MOMENTS_PIXELS = 4, /* that have an accumulator each; a power of two */
  MOMENTS_RUN = 64,   /* pixels whose sums are carried in f32 */
  SLOT_VECTORS = 8    /* of elements whose slots are added together */
};

static LoopValue tensor_index(LoopKernel *k, const Plane *p, LoopValue image, LoopValue pixel, LoopValue c) {
  return AT(k, 0, {image, (int64_t)p->height * p->width * p->stride}, {pixel, p->stride}, {c, 1});
}

MomentsTiles moments_tiles(LoopKernel *k) {
  MomentsTiles t;
  t.acc = loop_tile(k, "moments", LOOP_F32, true, 2 * MOMENTS_PIXELS);
  t.total = loop_tile(k, "moments_total", LOOP_F64, true, 2);
  return t;
}

/* The sums over `size` pixels from `pixel` on, each of the tile's accumulators a few pixels. */
static void moments_pixels(LoopKernel *k, MomentsTiles t, const Plane *plane, int32_t x, LoopValue image, LoopValue pixel,
                           int32_t size, LoopValue shift, LoopValue c, LoopValue lanes) {
  LoopValue base = tensor_index(k, plane, image, pixel, c);
  for (int32_t i = 0; i < size; i++) {
    LoopValue slot[2] = {loop_int(k, 2 * i), loop_int(k, 2 * i + 1)};
    LoopValue from = AT(k, (int64_t)i * plane->stride, {base, 1});
    LoopValue value = loop_load_lanes(k, x, from, lanes, 0);
    LoopValue difference = loop_op2(k, LOOP_SUB, value, shift);
    LoopValue sum = loop_get(k, t.acc, slot[0]);
    sum = loop_op2(k, LOOP_ADD, sum, difference);
    loop_set(k, t.acc, slot[0], sum);
    LoopValue squares = loop_get(k, t.acc, slot[1]);
    squares = loop_op3(k, LOOP_FMA, difference, difference, squares);
    loop_set(k, t.acc, slot[1], squares);
  }
}

/* Adds the accumulators in pairs, and what is left to the task's sums. */
static void moments_add(LoopKernel *k, MomentsTiles t) {
  for (int i = 0; i < 2; i++) {
    LoopValue part[MOMENTS_PIXELS];
    for (int j = 0; j < MOMENTS_PIXELS; j++) part[j] = loop_get(k, t.acc, loop_int(k, 2 * j + i));
    for (int half = MOMENTS_PIXELS / 2; half >= 1; half /= 2)
      for (int j = 0; j < half; j++) part[j] = loop_op2(k, LOOP_ADD, part[j], part[j + half]);
    LoopValue wide = loop_op1(k, LOOP_TO_F64, part[0]);
    LoopValue slot = loop_int(k, i);
    LoopValue so_far = loop_get(k, t.total, slot);
    LoopValue sum = loop_op2(k, LOOP_ADD, so_far, wide);
    loop_set(k, t.total, slot, sum);
  }
}

static void moments_store(LoopKernel *k, MomentsTiles t, const Plane *plane, int32_t partial, LoopValue shift, LoopValue c,
                          LoopValue lanes) {
  LoopValue task = loop_task(k);
  for (int i = 0; i < 3; i++) {
    LoopValue result = shift;
    if (i > 0) {
      LoopValue total = loop_get(k, t.total, loop_int(k, i - 1));
      result = loop_op1(k, LOOP_TO_F32, total);
    }
    LoopValue to = AT(k, i * plane->channels, {task, 3 * plane->channels}, {c, 1});
    loop_store_lanes(k, partial, to, result, lanes);
  }
}

void moments_of_task(LoopKernel *k, MomentsTiles t, const Plane *plane, int32_t images, int32_t x, int32_t partial) {
  LoopValue zero = loop_f32(k, 0), wide_zero = loop_f64(k, 0), start = loop_int(k, 0), task = loop_task(k);
  int64_t pixels = (int64_t)plane->height * plane->width;
  BlockLoop blocks[3];
  TileLoop runs[2], tiles[2];
  int count = build_blocks(plane->channels, k->lanes, 1, blocks), run_count = build_tiles(pixels, MOMENTS_RUN, runs);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue lanes = loop_int(k, blocks[b].count);
    LoopValue first = AT(k, 0, {task, images});
    LoopValue at = tensor_index(k, plane, first, start, c);
    LoopValue shift = loop_load_lanes(k, x, at, lanes, 0);
    for (int i = 0; i < 2; i++) loop_set(k, t.total, loop_int(k, i), wide_zero);
    LoopValue image = build_images(k, images);
    for (int r = 0; r < run_count; r++) {
      LoopValue run = build_for(k, runs[r].from, runs[r].below, runs[r].size);
      for (int i = 0; i < 2 * MOMENTS_PIXELS; i++) loop_set(k, t.acc, loop_int(k, i), zero);
      int tile_count = build_tiles(runs[r].size, MOMENTS_PIXELS, tiles);
      for (int i = 0; i < tile_count; i++) {
        LoopValue inner = build_for(k, tiles[i].from, tiles[i].below, tiles[i].size);
        LoopValue pixel = AT(k, 0, {run, 1}, {inner, 1});
        moments_pixels(k, t, plane, x, image, pixel, tiles[i].size, shift, c, lanes);
        loop_end(k);
      }
      moments_add(k, t);
      loop_end(k);
    }
    loop_end(k);
    moments_store(k, t, plane, partial, shift, c, lanes);
    loop_end(k);
  }
}

LoopKernel *cpu_moments(const MomentsSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "moments", s->target.lanes);
  int32_t x = loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
  MomentsTiles tiles = moments_tiles(k);
  moments_of_task(k, tiles, &s->in, s->images, x, partial);
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
  LoopValue one = loop_f64(k, 1);
  LoopValue inverse = loop_op2(k, LOOP_DIV, one, own_count);
  LoopValue offset = loop_op2(k, LOOP_MUL, part[1], inverse);
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

/* acc[i] += partial[at + i lanes ..] as f64, i = 0 .. vectors - 1 */
static void add_vectors(LoopKernel *k, int32_t partial, int32_t acc, LoopValue at, int32_t vectors, LoopValue lanes) {
  for (int32_t i = 0; i < vectors; i++) {
    LoopValue slot = loop_int(k, i);
    LoopValue from = AT(k, (int64_t)i * k->lanes, {at, 1});
    LoopValue value = loop_load_lanes(k, partial, from, lanes, 0);
    LoopValue wide = loop_op1(k, LOOP_TO_F64, value);
    LoopValue sum = loop_get(k, acc, slot);
    sum = loop_op2(k, LOOP_ADD, sum, wide);
    loop_set(k, acc, slot, sum);
  }
}

static void clear_vectors(LoopKernel *k, int32_t acc, int32_t vectors) {
  LoopValue zero = loop_f64(k, 0);
  for (int32_t i = 0; i < vectors; i++) loop_set(k, acc, loop_int(k, i), zero);
}

static LoopValue slot_count(LoopKernel *k, const SlotsSpec *s) {
  return s->images ? task_count(k, s->images) : loop_int(k, s->slots);
}

/* A range in whole groups of vectors and a rest of single ones. */
typedef struct SlotRange {
  LoopValue from, below, rest; /* elements; `rest`: where the whole groups end */
} SlotRange;

static SlotRange slot_range(LoopKernel *k, LoopValue from, LoopValue below, int64_t group) {
  SlotRange r = {.from = from, .below = below};
  LoopValue size = AT(k, 0, {below, 1}, {from, -1}), groups = loop_int(k, group);
  LoopValue whole = loop_op2(k, LOOP_IDIV, size, groups);
  r.rest = AT(k, 0, {from, 1}, {whole, group});
  return r;
}

/* y[at ..] = the sum over slots of several vectors of elements, each in f64 and in the order of the slots. */
static void sum_vectors(LoopKernel *k, const SlotsSpec *s, int32_t partial, int32_t y, int32_t acc, LoopValue slots, LoopValue at,
                        int32_t vectors, LoopValue lanes) {
  LoopValue zero = loop_int(k, 0), one = loop_int(k, 1);
  clear_vectors(k, acc, vectors);
  LoopValue slot = loop_for(k, zero, slots, one);
  LoopValue from = AT(k, 0, {slot, s->elements}, {at, 1});
  add_vectors(k, partial, acc, from, vectors, lanes);
  loop_end(k);
  for (int32_t i = 0; i < vectors; i++) {
    LoopValue sum = loop_get(k, acc, loop_int(k, i));
    LoopValue narrow = loop_op1(k, LOOP_TO_F32, sum);
    LoopValue to = AT(k, (int64_t)i * k->lanes, {at, 1});
    loop_store_lanes(k, y, to, narrow, lanes);
  }
}

static void sum_elements(LoopKernel *k, const SlotsSpec *s, int32_t partial, int32_t y, int32_t acc, int32_t vectors) {
  LoopValue slots = slot_count(k, s), task = loop_task(k), all = loop_int(k, s->elements);
  LoopValue first = AT(k, 0, {task, s->chunk}), end = AT(k, s->chunk, {task, s->chunk});
  LoopValue below = loop_op2(k, LOOP_IMIN, end, all);
  int64_t group = (int64_t)vectors * k->lanes;
  SlotRange r = slot_range(k, first, below, group);
  LoopValue step = loop_int(k, k->lanes), groups = loop_int(k, group);
  LoopValue at = loop_for(k, r.from, r.rest, groups);
  sum_vectors(k, s, partial, y, acc, slots, at, vectors, step);
  loop_end(k);
  at = loop_for(k, r.rest, r.below, step);
  LoopValue left = AT(k, 0, {r.below, 1}, {at, -1});
  LoopValue lanes = loop_op2(k, LOOP_IMIN, left, step);
  sum_vectors(k, s, partial, y, acc, slots, at, 1, lanes);
  loop_end(k);
}

/* The sum of all elements of all slots, from end to end of the memory. */
static void sum_total(LoopKernel *k, const SlotsSpec *s, int32_t partial, int32_t y, int32_t acc, int32_t vectors) {
  LoopValue slots = slot_count(k, s), zero = loop_int(k, 0);
  LoopValue all = AT(k, 0, {slots, s->elements});
  int64_t group = (int64_t)vectors * k->lanes;
  SlotRange r = slot_range(k, zero, all, group);
  LoopValue step = loop_int(k, k->lanes), groups = loop_int(k, group);
  clear_vectors(k, acc, vectors);
  LoopValue at = loop_for(k, r.from, r.rest, groups);
  add_vectors(k, partial, acc, at, vectors, step);
  loop_end(k);
  at = loop_for(k, r.rest, r.below, step);
  LoopValue left = AT(k, 0, {r.below, 1}, {at, -1});
  LoopValue lanes = loop_op2(k, LOOP_IMIN, left, step);
  add_vectors(k, partial, acc, at, 1, lanes);
  loop_end(k);
  LoopValue sum = loop_get(k, acc, zero);
  for (int32_t i = 1; i < vectors; i++) {
    LoopValue next = loop_get(k, acc, loop_int(k, i));
    sum = loop_op2(k, LOOP_ADD, sum, next);
  }
  LoopValue one = loop_op1(k, LOOP_LANE_SUM, sum);
  LoopValue narrow = loop_op1(k, LOOP_TO_F32, one);
  loop_store(k, y, zero, narrow);
}

LoopKernel *cpu_sum_slots(const SlotsSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, s->total ? "sum_total" : "sum_slots", s->target.lanes);
  int32_t partial = loop_buffer(k, "partial", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t y = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t vectors = k->lanes > 8 ? SLOT_VECTORS : SLOT_VECTORS / 2; /* of f64, in half of the registers */
  int32_t acc = loop_tile(k, "acc", LOOP_F64, true, vectors);
  if (s->total)
    sum_total(k, s, partial, y, acc, vectors);
  else
    sum_elements(k, s, partial, y, acc, vectors);
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
