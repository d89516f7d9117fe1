/* Dense convolutions of one tap and their input's gradients: products of pixels with a matrix, in bands of pixels. Forward, a
 * band is first staged through the prologue, unless there is none and its pixels lie one after another, so that the product can
 * read x itself. Backward the weights are transposed into scratch at a task's start. What the next band needs is prefetched in
 * between. */
#include "kernels/cpu/conv_block_private.h"

bool conv_is_point(const ConvSpec *s) {
  return s->kernel_y == 1 && s->kernel_x == 1 && !s->pad_y && !s->pad_x && s->groups == 1;
}

static bool is_dense(const ConvSpec *s) { /* pixel for pixel */
  return s->stride_y == 1 && s->stride_x == 1 && !s->shift_y && !s->shift_x;
}

static int64_t widest(const ConvSpec *s) {
  return s->in.channels > s->out.channels ? s->in.channels : s->out.channels;
}

/* ---- forward ---- */

typedef struct Plain {
  const ConvSpec *s;
  ConvInput input;
  bool dense, staged;
  int64_t height, width; /* of the output; of dense pixels one row a pixel */
  BlockSums sums;
  BlockProduct product;
} Plain;

/* A row of `pixels` pixels, `step` input pixels apart, through the prologue to the band's elements from `to` on. */
static void stage_row(LoopKernel *k, const Plain *f, LoopValue from, LoopValue to, int64_t pixels, int64_t step) {
  int64_t pitch = f->product.from_pitch, stride = step * f->s->in.stride;
  BlockLoop blocks[3];
  int count = build_blocks(f->s->in.channels, k->lanes, 1, blocks);
  TileLoop tiles[2];
  int tile_count = build_tiles(pixels, 8, tiles);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    for (int t = 0; t < tile_count; t++) {
      LoopValue first = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
      LoopValue i = loop_unroll(k, 0, tiles[t].size, 1);
      LoopValue at = AT(k, 0, {from, 1}, {first, stride}, {c, 1}, {i, stride});
      LoopValue value = conv_read(k, &f->s->prologue, f->input, at, c, blocks[b].count);
      LoopValue target = AT(k, 0, {to, 1}, {first, pitch}, {c, 1}, {i, pitch});
      LoopValue lanes = loop_int(k, k->lanes);
      loop_store_lanes(k, f->product.from, target, value, lanes);
      loop_end(k);
      loop_end(k);
    }
    loop_end(k);
  }
}

static void stage_band(LoopKernel *k, const Plain *f, LoopValue x, int64_t rows) {
  const ConvSpec *s = f->s;
  if (f->dense) {
    LoopValue zero = loop_int(k, 0);
    stage_row(k, f, x, zero, rows * f->width, 1);
    return;
  }
  LoopValue r = build_for(k, 0, rows, 1);
  LoopValue from = AT(k, 0, {x, 1}, {r, (int64_t)s->stride_y * s->in.width * s->in.stride});
  LoopValue to = AT(k, 0, {r, f->width * f->product.from_pitch});
  stage_row(k, f, from, to, f->width, s->stride_x);
  loop_end(k);
}

/* The first element of x that output row `row` of an image reads. */
static LoopValue x_index(LoopKernel *k, const Plain *f, LoopValue image, LoopValue row, int64_t after) {
  const ConvSpec *s = f->s;
  int64_t line = (int64_t)s->in.width * s->in.stride, step = f->dense ? f->width * s->in.stride : s->stride_y * line;
  return AT(k, s->shift_y * line + s->shift_x * s->in.stride + after * step, {image, s->in.height * line}, {row, step});
}

static void band(LoopKernel *k, const Plain *f, LoopValue image, LoopValue row, int64_t rows) {
  const ConvSpec *s = f->s;
  int64_t pixels = rows * f->width;
  LoopValue x = x_index(k, f, image, row, 0);
  LoopValue y = AT(k, 0, {image, f->height * f->width * s->out.stride}, {row, f->width * s->out.stride});
  if (f->staged) stage_band(k, f, x, rows);
  LoopValue from = f->staged ? loop_int(k, 0) : x;
  if (s->moments) {
    block_sums_if_first(k, s->images, image, row);
    block_product_shift(k, &f->product, from);
    loop_end(k);
  }
  BlockPrefetch next[2] = {{.array = f->input.x, .pixels = pixels, .channels = s->in.channels, .stride = s->in.stride},
                           {.array = f->product.to, .pixels = pixels, .channels = s->out.channels, .stride = s->out.stride}};
  if (!f->dense) next[0].pixels = rows * s->stride_y * s->in.width;
  next[0].at = x_index(k, f, image, row, rows);
  next[1].at = AT(k, pixels * s->out.stride, {y, 1});
  next[1].write = true;
  BlockProduct product = f->product;
  product.prefetch = next;
  product.prefetches = 2;
  block_product(k, &product, from, y, pixels);
}

static void declare(LoopKernel *k, Plain *f, int64_t rows) {
  const ConvSpec *s = f->s;
  f->product.in = s->in.channels, f->product.out = s->out.channels;
  f->product.from_pitch = f->staged ? block_pitch(k, s->in.channels) : s->in.stride;
  f->product.to_pitch = s->out.stride;
  f->product.from = f->staged ? loop_shared(k, "band", rows * f->width * f->product.from_pitch) : f->input.x;
  f->product.acc = loop_tile(k, "acc", LOOP_F32, true, BLOCK_ACC);
  if (!s->moments) return;
  f->sums = block_sums_new(k, s->out.channels);
  f->product.sums = &f->sums;
  block_sums_clear(k, &f->sums);
}

LoopKernel *conv_point_forward(const ConvSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "conv", s->target.lanes);
  Plain f = {.s = s, .dense = is_dense(s), .height = s->out.height, .width = s->out.width};
  if (f.dense) f.height *= f.width, f.width = 1;
  f.staged = s->prologue.affine || s->prologue.relu || !f.dense;
  f.input = conv_input(k, &s->prologue);
  f.product.w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  f.product.to = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t partial = s->moments ? loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32) : -1;
  int64_t rows = block_band_rows(widest(s), f.height, f.width);
  declare(k, &f, rows);
  LoopValue image = build_images(k, s->images);
  TileLoop bands[2];
  int count = build_tiles(f.height, (int32_t)rows, bands);
  for (int b = 0; b < count; b++) {
    LoopValue row = build_for(k, bands[b].from, bands[b].below, bands[b].size);
    band(k, &f, image, row, bands[b].size);
    loop_end(k);
  }
  loop_end(k);
  if (s->moments) block_sums_store(k, &f.sums, partial);
  return k;
}

/* ---- the input's gradient ---- */

/* Zeros to the pixels `first` below `end` of the row of dx at `at`. */
static void clear_pixels(LoopKernel *k, const ConvSpec *s, int32_t dx, LoopValue at, int64_t first, int64_t end, int64_t step) {
  if (first >= end) return;
  LoopValue zero = loop_f32(k, 0);
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  LoopValue x = build_for(k, first, end, step);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue lanes = loop_int(k, blocks[b].count);
    LoopValue to = AT(k, 0, {at, 1}, {x, s->in.stride}, {c, 1});
    loop_store_lanes(k, dx, to, zero, lanes);
    loop_end(k);
  }
  loop_end(k);
}

/* Zeros to whole rows. */
static void clear_rows(LoopKernel *k, const ConvSpec *s, int32_t dx, LoopValue image, LoopValue from, LoopValue below) {
  int64_t line = (int64_t)s->in.width * s->in.stride;
  LoopValue one = loop_int(k, 1);
  LoopValue y = loop_for(k, from, below, one);
  LoopValue at = AT(k, 0, {image, s->in.height * line}, {y, line});
  clear_pixels(k, s, dx, at, 0, s->in.width, 1);
  loop_end(k);
}

/* Zeros between the pixels that output row y reads, and to the rows from there to the next row that is read or the last. */
static void clear_between(LoopKernel *k, const ConvSpec *s, int32_t dx, LoopValue image, LoopValue y) {
  int64_t line = (int64_t)s->in.width * s->in.stride, after = s->shift_x + (int64_t)(s->out.width - 1) * s->stride_x + 1;
  LoopValue row = AT(k, s->shift_y, {y, s->stride_y});
  LoopValue at = AT(k, 0, {image, s->in.height * line}, {row, line});
  clear_pixels(k, s, dx, at, 0, s->shift_x, 1);
  LoopValue i = build_for(k, 1, s->stride_x, 1);
  LoopValue beside = AT(k, 0, {at, 1}, {i, s->in.stride});
  clear_pixels(k, s, dx, beside, s->shift_x, after - 1, s->stride_x);
  loop_end(k);
  clear_pixels(k, s, dx, at, after, s->in.width, 1);
  LoopValue from = AT(k, 1, {row, 1}), next = AT(k, s->stride_y, {row, 1}), height = loop_int(k, s->in.height);
  LoopValue below = loop_op2(k, LOOP_IMIN, next, height);
  clear_rows(k, s, dx, image, from, below);
}

/* transposed[o, c] = w[c, o] */
static void transpose(LoopKernel *k, const ConvSpec *s, int32_t w, int32_t transposed) {
  LoopValue c = build_for(k, 0, s->in.channels, 1);
  LoopValue o = build_for(k, 0, s->out.channels, 1);
  LoopValue from = AT(k, 0, {c, s->out.channels}, {o, 1});
  LoopValue value = loop_load(k, w, from);
  LoopValue to = AT(k, 0, {o, s->in.channels}, {c, 1});
  loop_store(k, transposed, to, value);
  loop_end(k);
  loop_end(k);
}

/* `next`: the pixels of dx that come after those of the band. */
static void gradient_band(LoopKernel *k, const ConvSpec *s, const BlockProduct *p, LoopValue from, LoopValue to, int64_t pixels,
                          LoopValue next_to, int64_t next_pixels) {
  BlockPrefetch next[2] = {
      {.array = p->from, .pixels = pixels, .channels = s->out.channels, .stride = s->out.stride},
      {.array = p->to, .at = next_to, .pixels = next_pixels, .channels = s->in.channels, .stride = s->in.stride, .write = true}};
  next[0].at = AT(k, pixels * s->out.stride, {from, 1});
  BlockProduct product = *p;
  product.prefetch = next;
  product.prefetches = 2;
  block_product(k, &product, from, to, pixels);
}

static void dense_gradient(LoopKernel *k, const ConvSpec *s, const BlockProduct *p, LoopValue image) {
  int64_t all = (int64_t)s->in.height * s->in.width, most = block_band_rows(widest(s), all, 1);
  TileLoop bands[2];
  int count = build_tiles(all, (int32_t)most, bands);
  for (int b = 0; b < count; b++) {
    LoopValue first = build_for(k, bands[b].from, bands[b].below, bands[b].size);
    LoopValue from = AT(k, 0, {image, all * s->out.stride}, {first, s->out.stride});
    LoopValue to = AT(k, 0, {image, all * s->in.stride}, {first, s->in.stride});
    LoopValue next = AT(k, (int64_t)bands[b].size * s->in.stride, {to, 1});
    gradient_band(k, s, p, from, to, bands[b].size, next, bands[b].size);
    loop_end(k);
  }
}

static void strided_gradient(LoopKernel *k, const ConvSpec *s, const BlockProduct *p, LoopValue image) {
  int64_t line = (int64_t)s->in.width * s->in.stride, row = (int64_t)s->out.width * s->out.stride;
  LoopValue zero = loop_int(k, 0), shift = loop_int(k, s->shift_y);
  clear_rows(k, s, p->to, image, zero, shift);
  LoopValue y = build_for(k, 0, s->out.height, 1);
  clear_between(k, s, p->to, image, y);
  LoopValue from = AT(k, 0, {image, s->out.height * row}, {y, row});
  LoopValue first = AT(k, s->shift_y * line, {image, s->in.height * line}, {y, s->stride_y * line});
  LoopValue to = AT(k, (int64_t)s->shift_x * s->in.stride, {first, 1}), next = AT(k, s->stride_y * line, {first, 1});
  gradient_band(k, s, p, from, to, s->out.width, next, (int64_t)s->stride_y * s->in.width);
  loop_end(k);
}

LoopKernel *conv_point_grad_input(const ConvSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "conv_grad_input", s->target.lanes);
  bool dense = is_dense(s);
  BlockProduct p = {.in = s->out.channels, .out = s->in.channels, .from_pitch = s->out.stride};
  p.to_pitch = (dense ? 1 : s->stride_x) * (int64_t)s->in.stride;
  p.from = loop_buffer(k, "dy", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  p.to = loop_buffer(k, "dx", LOOP_OUT, LOOP_ELEMENT_F32);
  p.w = loop_shared(k, "transposed", (int64_t)s->in.channels * s->out.channels);
  p.acc = loop_tile(k, "acc", LOOP_F32, true, BLOCK_ACC);
  transpose(k, s, w, p.w);
  LoopValue image = build_images(k, s->images);
  if (dense)
    dense_gradient(k, s, &p, image);
  else
    strided_gradient(k, s, &p, image);
  loop_end(k);
  return k;
}
