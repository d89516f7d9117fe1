/* Pools, row by row. A row of the output takes two sweeps: the rows of its windows become one (their largest, or their sum times
 * the share of a pixel) in a task's scratch that is padded to the left and right, then that row's columns are joined, several
 * pixels at a time, stored and added to the moments. Above and below, rows outside the image are replaced by the nearest one
 * inside, which every window there holds as well: for a maximum that changes nothing, in a mean it weighs nothing. */
#include "kernels/cpu/pool_private.h"
#include "kernels/cpu/reduce_private.h"
#include "kernels/family_private.h"

enum { POOL_PIXELS = 8 }; /* of a sweep's step */

typedef struct Pool {
  const PoolSpec *s;
  LoopKernel *k;
  int32_t in, out, partial; /* buffers; `partial` -1: no moments */
  int32_t row;              /* shared (width + 2 pad_x, across): the rows of a window joined */
  int32_t shift, total;     /* shared (across,) and f64 (2, across) */
  int32_t sums, acc;        /* tiles: of a row's moments; one vector */
  int64_t across;           /* channels in whole vectors */
  BlockLoop blocks[3];      /* of the channels */
  int block_count;
} Pool;

/* A row of the output: where the rows of its windows begin, and what a pixel of each weighs in a mean. */
typedef struct PoolRow {
  LoopValue image, y;
  LoopValue from[POOL_SMALL], weight[POOL_SMALL];
} PoolRow;

/* 1 / (rows of the window inside the image * its columns) */
static LoopValue row_share(const Pool *p, LoopValue top) {
  LoopKernel *k = p->k;
  LoopValue bottom = AT(k, p->s->kernel_y, {top, 1});
  LoopValue first = pool_low(k, top, 0), end = pool_high(k, bottom, p->s->in.height);
  LoopValue pixels = AT(k, 0, {end, p->s->kernel_x}, {first, -p->s->kernel_x});
  LoopValue number = loop_op1(k, LOOP_TO_F32, pixels);
  LoopValue one = loop_f32(k, 1);
  return loop_op2(k, LOOP_DIV, one, number);
}

static PoolRow row_of(const Pool *p, LoopValue image, LoopValue y) {
  const PoolSpec *s = p->s;
  LoopKernel *k = p->k;
  PoolRow row = {.image = image, .y = y};
  LoopValue nothing = loop_int(k, 0);
  LoopValue top = AT(k, -(int64_t)s->pad_y, {y, s->stride_y});
  LoopValue share = s->max ? LOOP_NONE : row_share(p, top);
  for (int32_t i = 0; i < s->kernel_y; i++) {
    LoopValue wanted = AT(k, i, {top, 1});
    LoopValue low = pool_low(k, wanted, 0);
    LoopValue inside = pool_high(k, low, s->in.height - 1);
    row.from[i] = plane_index(k, &s->in, image, inside, nothing, nothing);
    if (s->max) continue;
    LoopValue is_inside = loop_op2(k, LOOP_IEQ, wanted, inside);
    LoopValue zero = loop_f32(k, 0);
    row.weight[i] = loop_op3(k, LOOP_SELECT, is_inside, share, zero);
  }
  return row;
}

/* The first sweep, over `size` pixels from x on. */
static void join_rows(const Pool *p, const PoolRow *row, LoopValue x, int32_t size, LoopValue c, LoopValue lanes) {
  const PoolSpec *s = p->s;
  LoopKernel *k = p->k;
  LoopValue whole = loop_int(k, k->lanes);
  for (int32_t j = 0; j < size; j++) {
    LoopValue joined = LOOP_NONE;
    for (int32_t i = 0; i < s->kernel_y; i++) {
      LoopValue at = AT(k, (int64_t)j * s->in.stride, {row->from[i], 1}, {x, s->in.stride}, {c, 1});
      LoopValue value = loop_load_lanes(k, p->in, at, lanes, 0);
      if (s->max)
        joined = i ? loop_op2(k, LOOP_MAX, joined, value) : value;
      else
        joined = i ? loop_op3(k, LOOP_FMA, value, row->weight[i], joined) : loop_op2(k, LOOP_MUL, value, row->weight[i]);
    }
    LoopValue to = AT(k, (j + s->pad_x) * p->across, {x, p->across}, {c, 1});
    loop_store_lanes(k, p->row, to, joined, whole);
  }
}

static void add_moments(const Pool *p, LoopValue value, LoopValue shift) {
  LoopKernel *k = p->k;
  LoopValue slot[2] = {loop_int(k, 0), loop_int(k, 1)};
  LoopValue difference = loop_op2(k, LOOP_SUB, value, shift);
  LoopValue sum = loop_get(k, p->sums, slot[0]);
  sum = loop_op2(k, LOOP_ADD, sum, difference);
  loop_set(k, p->sums, slot[0], sum);
  LoopValue squares = loop_get(k, p->sums, slot[1]);
  squares = loop_op3(k, LOOP_FMA, difference, difference, squares);
  loop_set(k, p->sums, slot[1], squares);
}

/* The second sweep, over `size` pixels of the output from x on, whose sums are multiplied by `scale`. */
static void join_columns(const Pool *p, const PoolRow *row, LoopValue x, int32_t size, double scale, LoopValue c,
                         LoopValue lanes) {
  const PoolSpec *s = p->s;
  LoopKernel *k = p->k;
  LoopValue whole = loop_int(k, k->lanes), nothing = loop_int(k, 0);
  LoopValue base = plane_index(k, &s->out, row->image, row->y, nothing, nothing);
  LoopValue shift = p->partial < 0 ? LOOP_NONE : loop_load_lanes(k, p->shift, c, whole, 0);
  LoopValue column[POOL_PIXELS * POOL_SMALL];
  int32_t loaded = 0;
  for (int32_t j = 0; j < size; j++) {
    LoopValue value = LOOP_NONE;
    for (int32_t i = 0; i < s->kernel_x; i++) {
      int32_t from = j * s->stride_x + i;
      if (from >= loaded) {
        loaded = from + 1;
        LoopValue at = AT(k, from * p->across, {x, s->stride_x * p->across}, {c, 1});
        column[from] = loop_load_lanes(k, p->row, at, whole, 0);
      }
      value = i ? loop_op2(k, s->max ? LOOP_MAX : LOOP_ADD, value, column[from]) : column[from];
    }
    if (scale != 1) {
      LoopValue factor = loop_f32(k, scale);
      value = loop_op2(k, LOOP_MUL, value, factor);
    }
    LoopValue to = AT(k, (int64_t)j * s->out.stride, {base, 1}, {x, s->out.stride}, {c, 1});
    loop_store_lanes(k, p->out, to, value, lanes);
    if (p->partial >= 0) add_moments(p, value, shift);
  }
}

/* All columns: those whose windows leave the image, of which a mean has a larger share a pixel, one by one. */
static void all_columns(const Pool *p, const PoolRow *row, LoopValue c, LoopValue lanes) {
  const PoolSpec *s = p->s;
  LoopKernel *k = p->k;
  int32_t from = 0, below = s->out.width;
  if (!s->max) {
    from = (s->pad_x + s->stride_x - 1) / s->stride_x;
    below = s->in.width + s->pad_x < s->kernel_x ? 0 : (s->in.width + s->pad_x - s->kernel_x) / s->stride_x + 1;
    if (below > s->out.width) below = s->out.width;
    if (from > below) from = below;
    for (int32_t x = 0; x < s->out.width; x++) {
      if (x == from) x = below;
      if (x == s->out.width) break;
      int32_t left = x * s->stride_x - s->pad_x, right = left + s->kernel_x;
      int32_t inside = (right < s->in.width ? right : s->in.width) - (left > 0 ? left : 0);
      join_columns(p, row, loop_int(k, x), 1, (double)s->kernel_x / inside, c, lanes);
    }
  }
  TileLoop tiles[2];
  int count = build_tiles(below - from, POOL_PIXELS, tiles);
  for (int i = 0; i < count; i++) {
    LoopValue x = build_for(k, from + tiles[i].from, from + tiles[i].below, tiles[i].size);
    join_columns(p, row, x, tiles[i].size, 1, c, lanes);
    loop_end(k);
  }
}

/* A row's sums, of a few pixels in f32, to the task's. */
static void row_moments(const Pool *p, LoopValue c) {
  LoopKernel *k = p->k;
  LoopValue whole = loop_int(k, k->lanes);
  for (int i = 0; i < 2; i++) {
    LoopValue slot = loop_int(k, i);
    LoopValue few = loop_get(k, p->sums, slot);
    LoopValue wide = loop_op1(k, LOOP_TO_F64, few);
    LoopValue at = AT(k, i * p->across, {c, 1});
    LoopValue old = loop_load_lanes(k, p->total, at, whole, 0);
    LoopValue sum = loop_op2(k, LOOP_ADD, old, wide);
    loop_store_lanes(k, p->total, at, sum, whole);
  }
}

static void pool_row(const Pool *p, LoopValue image, LoopValue y) {
  LoopKernel *k = p->k;
  PoolRow row = row_of(p, image, y);
  for (int b = 0; b < p->block_count; b++) {
    LoopValue c = build_for(k, p->blocks[b].from, p->blocks[b].below, p->blocks[b].step);
    LoopValue lanes = loop_int(k, p->blocks[b].count);
    TileLoop tiles[2];
    int count = build_tiles(p->s->in.width, POOL_PIXELS, tiles);
    for (int i = 0; i < count; i++) {
      LoopValue x = build_for(k, tiles[i].from, tiles[i].below, tiles[i].size);
      join_rows(p, &row, x, tiles[i].size, c, lanes);
      loop_end(k);
    }
    LoopValue zero = loop_f32(k, 0);
    for (int i = 0; i < 2 && p->partial >= 0; i++) loop_set(k, p->sums, loop_int(k, i), zero);
    all_columns(p, &row, c, lanes);
    if (p->partial >= 0) row_moments(p, c);
    loop_end(k);
  }
}

/* Scratch at a task's start: the padding of the row, the first pixel as shift, no sums. */
static void pool_begin(const Pool *p) {
  const PoolSpec *s = p->s;
  LoopKernel *k = p->k;
  LoopValue whole = loop_int(k, k->lanes), task = loop_task(k), nothing = loop_int(k, 0);
  LoopValue outside = loop_f32(k, s->max ? (double)-INFINITY : 0), no_sum = loop_f64(k, 0);
  for (int b = 0; b < p->block_count; b++) {
    LoopValue c = build_for(k, p->blocks[b].from, p->blocks[b].below, p->blocks[b].step);
    for (int32_t i = 0; i < 2 * s->pad_x; i++) {
      LoopValue at = AT(k, (i < s->pad_x ? i : s->in.width + i) * p->across, {c, 1});
      loop_store_lanes(k, p->row, at, outside, whole);
    }
    if (p->partial >= 0) {
      PoolPixel first = {.y = nothing, .x = nothing, .c = c, .count = p->blocks[b].count};
      first.image = AT(k, 0, {task, s->images});
      LoopValue shift = pool_window_value(k, s, p->in, p->acc, first);
      loop_store_lanes(k, p->shift, c, shift, whole);
      for (int i = 0; i < 2; i++) {
        LoopValue at = AT(k, i * p->across, {c, 1});
        loop_store_lanes(k, p->total, at, no_sum, whole);
      }
    }
    loop_end(k);
  }
}

static void pool_finish(const Pool *p) {
  LoopKernel *k = p->k;
  int64_t channels = p->s->in.channels;
  LoopValue whole = loop_int(k, k->lanes), task = loop_task(k);
  for (int b = 0; b < p->block_count; b++) {
    LoopValue c = build_for(k, p->blocks[b].from, p->blocks[b].below, p->blocks[b].step);
    LoopValue lanes = loop_int(k, p->blocks[b].count);
    for (int i = 0; i < 3; i++) {
      LoopValue from = AT(k, i ? (i - 1) * p->across : 0, {c, 1});
      LoopValue value = loop_load_lanes(k, i ? p->total : p->shift, from, whole, 0);
      if (i) value = loop_op1(k, LOOP_TO_F32, value);
      LoopValue to = AT(k, i * channels, {task, 3 * channels}, {c, 1});
      loop_store_lanes(k, p->partial, to, value, lanes);
    }
    loop_end(k);
  }
}

LoopKernel *cpu_pool(const PoolSpec *s, Arena *arena) {
  if (!pool_is_small(s)) return pool_any(s, arena);
  LoopKernel *k = loop_new(arena, s->max ? "max_pool" : "avg_pool", s->target.lanes);
  Pool p = {.s = s, .k = k, .partial = -1, .across = pool_across(s)};
  p.in = loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32);
  p.out = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  if (s->moments) p.partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
  p.row = loop_shared(k, "row", (s->in.width + 2 * s->pad_x) * p.across);
  if (s->moments) {
    p.shift = loop_shared(k, "shift", p.across);
    p.total = loop_shared_of(k, "total", LOOP_ELEMENT_F64, 2 * p.across);
    p.sums = loop_tile(k, "sums", LOOP_F32, true, 2);
    p.acc = loop_tile(k, "acc", LOOP_F32, true, 1);
  }
  p.block_count = build_blocks(s->in.channels, k->lanes, 1, p.blocks);
  pool_begin(&p);
  LoopValue image = build_images(k, s->images);
  LoopValue y = build_for(k, 0, s->out.height, 1);
  pool_row(&p, image, y);
  loop_end(k);
  loop_end(k);
  if (s->moments) pool_finish(&p);
  return k;
}
