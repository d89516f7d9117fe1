/* Products of a ConvBlock: register tiles of pixels x vectors of output channels, one value of scratch broadcast times one vector
 * of weights. What comes next is prefetched in between, a few lines for every eight input channels: in bursts prefetches fill the
 * queues of the second-level cache. The moments of a band are added in f32 and then to the task's totals in f64. */
#include "kernels/cpu/conv_block_private.h"

enum { PRODUCT_STEPS = 8 /* input channels between prefetches */, PREFETCH_MOST = 32 /* lines at once */ };

/* Where a tile stands: its first output channel and pixel. */
typedef struct Tile {
  LoopValue o, x;
  int32_t pixels;
  const BlockLoop *b;
} Tile;

static int64_t ceil_divide(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/* ---- prefetches ---- */

/* The element of line `line`: pixels one after another, each of `lines` lines. */
static LoopValue line_index(LoopKernel *k, const BlockPrefetch *f, LoopValue line) {
  int64_t lines = ceil_divide(f->channels, BLOCK_LINE);
  if (f->stride == lines * BLOCK_LINE) return AT(k, 0, {f->at, 1}, {line, BLOCK_LINE});
  LoopValue divisor = loop_int(k, lines);
  LoopValue pixel = loop_op2(k, LOOP_IDIV, line, divisor);
  LoopValue part = loop_op2(k, LOOP_IMOD, line, divisor);
  return AT(k, 0, {f->at, 1}, {pixel, f->stride}, {part, BLOCK_LINE});
}

void block_prefetch_step(LoopKernel *k, const BlockPrefetch *f, LoopValue step, int64_t steps) {
  int64_t lines = f->pixels * ceil_divide(f->channels, BLOCK_LINE), each = build_min(ceil_divide(lines, steps), PREFETCH_MOST);
  LoopValue i = loop_unroll(k, 0, each, 1);
  LoopValue line = AT(k, 0, {step, each}, {i, 1});
  LoopValue at = line_index(k, f, line);
  loop_prefetch(k, f->array, at, f->write);
  loop_end(k);
}

/* Steps are counted over the whole loop nest: blocks of output channels, tiles of pixels, input channels. */
static void prefetch(LoopKernel *k, const BlockProduct *p, const Tile *t, LoopValue c, int64_t pixels) {
  if (!p->prefetches) return;
  int64_t by_channels = p->in / PRODUCT_STEPS, by_pixels = pixels / t->pixels;
  int64_t by_blocks = ceil_divide(t->b->below - t->b->from, t->b->step);
  LoopValue step = loop_int(k, t->b->step), wide = loop_int(k, t->pixels), channels = loop_int(k, PRODUCT_STEPS);
  LoopValue block = loop_op2(k, LOOP_IDIV, t->o, step);
  LoopValue tile = loop_op2(k, LOOP_IDIV, t->x, wide);
  LoopValue part = loop_op2(k, LOOP_IDIV, c, channels);
  LoopValue number = AT(k, 0, {block, by_pixels * by_channels}, {tile, by_channels}, {part, 1});
  for (int i = 0; i < p->prefetches; i++) block_prefetch_step(k, &p->prefetch[i], number, by_channels * by_pixels * by_blocks);
}

/* ---- tiles ---- */

/* acc[pixel, block] += from[pixel, c ..] * w[c .., block] for `steps` input channels. */
static void multiply(LoopKernel *k, const BlockProduct *p, const Tile *t, LoopValue from, LoopValue c, int32_t steps) {
  LoopValue weight = AT(k, 0, {c, p->out}, {t->o, 1});
  LoopValue input = AT(k, 0, {from, 1}, {t->x, p->from_pitch}, {c, 1});
  LoopValue lanes = loop_int(k, t->b->count);
  LoopValue u = loop_unroll(k, 0, steps, 1);
  LoopValue vector[2];
  for (int32_t b = 0; b < t->b->blocks; b++) {
    LoopValue at = AT(k, (int64_t)b * k->lanes, {weight, 1}, {u, p->out});
    vector[b] = loop_load_lanes(k, p->w, at, lanes, 0);
  }
  LoopValue i = loop_unroll(k, 0, t->pixels, 1);
  LoopValue at = AT(k, 0, {input, 1}, {i, p->from_pitch}, {u, 1});
  LoopValue value = loop_load(k, p->from, at);
  for (int32_t b = 0; b < t->b->blocks; b++) {
    LoopValue slot = AT(k, b, {i, t->b->blocks});
    LoopValue sum = loop_get(k, p->acc, slot);
    sum = loop_op3(k, LOOP_FMA, value, vector[b], sum);
    loop_set(k, p->acc, slot, sum);
  }
  loop_end(k);
  loop_end(k);
}

static void store_tile(LoopKernel *k, const BlockProduct *p, const Tile *t, LoopValue to_at, const LoopValue *shift) {
  LoopValue to = AT(k, 0, {to_at, 1}, {t->x, p->to_pitch}, {t->o, 1});
  LoopValue lanes = loop_int(k, t->b->count);
  LoopValue i = loop_unroll(k, 0, t->pixels, 1);
  for (int32_t b = 0; b < t->b->blocks; b++) {
    LoopValue slot = AT(k, b, {i, t->b->blocks});
    LoopValue value = loop_get(k, p->acc, slot);
    LoopValue at = AT(k, (int64_t)b * k->lanes, {to, 1}, {i, p->to_pitch});
    loop_store_lanes(k, p->to, at, value, lanes);
    if (p->sums) block_sums_add(k, p->sums, value, shift[b], b);
  }
  loop_end(k);
}

static void tile(LoopKernel *k, const BlockProduct *p, const Tile *t, LoopValue from_at, LoopValue to_at, int64_t pixels,
                 bool prefetches, const LoopValue *shift) {
  LoopValue zero = loop_f32(k, 0);
  LoopValue i = loop_unroll(k, 0, t->pixels * t->b->blocks, 1);
  loop_set(k, p->acc, i, zero);
  loop_end(k);
  TileLoop loops[2];
  int count = build_tiles(p->in, PRODUCT_STEPS, loops);
  for (int l = 0; l < count; l++) {
    LoopValue c = build_for(k, loops[l].from, loops[l].below, loops[l].size);
    if (prefetches && loops[l].size == PRODUCT_STEPS) prefetch(k, p, t, c, pixels);
    multiply(k, p, t, from_at, c, loops[l].size);
    loop_end(k);
  }
  store_tile(k, p, t, to_at, shift);
}

void block_product(LoopKernel *k, const BlockProduct *p, LoopValue from_at, LoopValue to_at, int64_t pixels) {
  BlockLoop blocks[3];
  int count = build_blocks(p->out, k->lanes, 2, blocks);
  for (int b = 0; b < count; b++) {
    int32_t most = blocks[b].blocks == 1 ? (k->lanes >= 16 ? 16 : 8) : k->lanes >= 16 ? 8 : 4;
    TileLoop tiles[2];
    int tile_count = build_tiles(pixels, most, tiles);
    LoopValue shift[2] = {LOOP_NONE, LOOP_NONE};
    LoopValue o = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    if (p->sums) block_sums_begin(k, p->sums, o, &blocks[b], shift);
    for (int t = 0; t < tile_count; t++) {
      LoopValue x = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
      Tile place = {o, x, tiles[t].size, &blocks[b]};
      tile(k, p, &place, from_at, to_at, pixels, b == 0 && t == 0, shift);
      loop_end(k);
    }
    if (p->sums) block_sums_end(k, p->sums, o, &blocks[b]);
    loop_end(k);
  }
}

void block_product_shift(LoopKernel *k, const BlockProduct *p, LoopValue from_at) {
  LoopValue zero = loop_f32(k, 0), all = loop_int(k, k->lanes), first = loop_int(k, 0);
  BlockLoop blocks[3];
  int count = build_blocks(p->out, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue o = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    loop_set(k, p->acc, first, zero);
    LoopValue c = build_for(k, 0, p->in, 1);
    LoopValue at = AT(k, 0, {c, p->out}, {o, 1});
    LoopValue lanes = loop_int(k, blocks[b].count);
    LoopValue weight = loop_load_lanes(k, p->w, at, lanes, 0);
    LoopValue from = AT(k, 0, {from_at, 1}, {c, 1});
    LoopValue value = loop_load(k, p->from, from);
    LoopValue sum = loop_get(k, p->acc, first);
    sum = loop_op3(k, LOOP_FMA, value, weight, sum);
    loop_set(k, p->acc, first, sum);
    loop_end(k);
    LoopValue shift = loop_get(k, p->acc, first);
    loop_store_lanes(k, p->sums->shift, o, shift, all);
    loop_end(k);
  }
}
