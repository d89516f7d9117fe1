/* Depthwise convolutions, forward and the weight's gradient: lanes run over channels. Forward goes band by band over a staged
 * plane. The gradient does a vector of channels at a time: its image is staged into scratch, through the prologue and with its
 * halo as zeros, so that the tap loops know no border, and the sums of all taps stay in registers. */
#include "kernels/cpu/conv_block_private.h"

/* ---- over a staged plane ---- */

/* y = the convolution of x, with the weights in array w. */
static void convolve(LoopKernel *k, const ConvSpec *s, ConvInput input, int32_t w, int32_t y, int32_t partial) {
  int64_t band = block_band_rows(s->in.channels, s->out.height, s->out.width), line = (int64_t)s->out.width * s->out.stride;
  BlockPlane plane = block_plane(k, s, band);
  BlockRows rows = {.plane = &plane, .w = w, .to = y, .to_pitch = s->out.stride, .masked = true};
  rows.acc = loop_tile(k, "acc", LOOP_F32, true, BLOCK_ACC);
  BlockSums sums;
  if (s->moments) {
    sums = block_sums_new(k, s->out.channels);
    rows.sums = &sums;
    block_sums_clear(k, &sums);
  }
  block_plane_clear(k, &plane);
  LoopValue image = build_images(k, s->images);
  TileLoop bands[2];
  int count = build_tiles(s->out.height, (int32_t)band, bands);
  for (int b = 0; b < count; b++) {
    LoopValue first = build_for(k, bands[b].from, bands[b].below, bands[b].size);
    block_stage_band(k, &plane, input, image, first, bands[b].size);
    if (s->moments) {
      block_sums_if_first(k, s->images, image, first);
      block_depthwise_shift(k, &rows);
      loop_end(k);
    }
    LoopValue r = build_for(k, 0, bands[b].size, 1);
    LoopValue row = AT(k, 0, {first, 1}, {r, 1});
    LoopValue to = AT(k, 0, {image, s->out.height * line}, {row, line});
    block_depthwise_row(k, &rows, row, to);
    loop_end(k);
    loop_end(k);
  }
  loop_end(k);
  if (s->moments) block_sums_store(k, &sums, partial);
}

LoopKernel *depthwise_forward(const ConvSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "depthwise", s->target.lanes);
  ConvInput input = conv_input(k, &s->prologue);
  int32_t w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32), y = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t partial = s->moments ? loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32) : -1;
  convolve(k, s, input, w, y, partial);
  return k;
}

/* ---- a vector of channels at a time ---- */

typedef struct Depthwise {
  const ConvSpec *s;
  int32_t staged; /* (height, width, lanes) */
  int64_t height, width;
} Depthwise;

static Depthwise depthwise_new(LoopKernel *k, const ConvSpec *s) {
  Depthwise d = {.s = s};
  d.height = (int64_t)(s->out.height - 1) * s->stride_y + (int64_t)s->dilation * (s->kernel_y - 1) + 1;
  d.width = (int64_t)(s->out.width - 1) * s->stride_x + (int64_t)s->dilation * (s->kernel_x - 1) + 1;
  /* rows and columns that no tap reads are staged too, so that the inside is one rectangle */
  int64_t height = s->pad_y + s->in.height - s->shift_y, width = s->pad_x + s->in.width - s->shift_x;
  if (d.height < height) d.height = height;
  if (d.width < width) d.width = width;
  d.staged = loop_shared(k, "staged", d.height * d.width * k->lanes);
  return d;
}

static void stage(LoopKernel *k, const Depthwise *d, ConvInput input, LoopValue image, LoopValue c, int32_t count) {
  const ConvSpec *s = d->s;
  LoopValue y = build_for(k, 0, s->in.height - s->shift_y, 1);
  LoopValue x = build_for(k, 0, s->in.width - s->shift_x, 1);
  int64_t pixel = s->in.stride, line = s->in.width * pixel;
  LoopValue from = AT(k, s->shift_y * line + s->shift_x * pixel, {image, s->in.height * line}, {y, line}, {x, pixel}, {c, 1});
  LoopValue value = conv_read(k, &s->prologue, input, from, c, count);
  LoopValue to = AT(k, (s->pad_y * d->width + s->pad_x) * k->lanes, {y, d->width * k->lanes}, {x, k->lanes});
  LoopValue lanes = loop_int(k, k->lanes);
  loop_store_lanes(k, d->staged, to, value, lanes);
  loop_end(k);
  loop_end(k);
}

static void clear(LoopKernel *k, const Depthwise *d, int64_t top, int64_t bottom, int64_t left, int64_t right) {
  if (top >= bottom || left >= right) return;
  LoopValue zero = loop_f32(k, 0), lanes = loop_int(k, k->lanes);
  LoopValue y = build_for(k, top, bottom, 1);
  LoopValue x = build_for(k, left, right, 1);
  LoopValue at = AT(k, 0, {y, d->width * k->lanes}, {x, k->lanes});
  loop_store_lanes(k, d->staged, at, zero, lanes);
  loop_end(k);
  loop_end(k);
}

/* At the start of a task; `stage` then only ever writes the inside. */
static void clear_halo(LoopKernel *k, const Depthwise *d) {
  const ConvSpec *s = d->s;
  int64_t top = s->pad_y, bottom = top + s->in.height - s->shift_y, left = s->pad_x, right = left + s->in.width - s->shift_x;
  clear(k, d, 0, top, 0, d->width);
  clear(k, d, top, bottom, 0, left);
  clear(k, d, top, bottom, right, d->width);
  clear(k, d, bottom, d->height, 0, d->width);
}

typedef struct Taps {
  LoopValue ky, kx, tap;
} Taps;

static Taps taps_begin(LoopKernel *k, const ConvSpec *s) {
  Taps t;
  t.ky = loop_unroll(k, 0, s->kernel_y, 1);
  t.kx = loop_unroll(k, 0, s->kernel_x, 1);
  t.tap = AT(k, 0, {t.ky, s->kernel_x}, {t.kx, 1});
  return t;
}

static void taps_end(LoopKernel *k) {
  loop_end(k);
  loop_end(k);
}

static void weight_taps(LoopKernel *k, const Depthwise *d, int32_t acc, int32_t dy, LoopValue image, LoopValue c, int32_t count) {
  const ConvSpec *s = d->s;
  LoopValue y = build_for(k, 0, s->out.height, 1);
  LoopValue x = build_for(k, 0, s->out.width, 1);
  int64_t pixel = s->out.stride, line = s->out.width * pixel;
  LoopValue from = AT(k, 0, {image, s->out.height * line}, {y, line}, {x, pixel}, {c, 1});
  LoopValue lanes = loop_int(k, count);
  LoopValue gradient = loop_load_lanes(k, dy, from, lanes, 0);
  LoopValue corner = AT(k, 0, {y, s->stride_y * d->width * k->lanes}, {x, (int64_t)s->stride_x * k->lanes});
  Taps t = taps_begin(k, s);
  LoopValue at = AT(k, 0, {corner, 1}, {t.ky, s->dilation * d->width * k->lanes}, {t.kx, (int64_t)s->dilation * k->lanes});
  LoopValue all = loop_int(k, k->lanes);
  LoopValue value = loop_load_lanes(k, d->staged, at, all, 0);
  LoopValue sum = loop_get(k, acc, t.tap);
  sum = loop_op3(k, LOOP_FMA, value, gradient, sum);
  loop_set(k, acc, t.tap, sum);
  taps_end(k);
  loop_end(k);
  loop_end(k);
}

LoopKernel *depthwise_grad_weight(const ConvSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "depthwise_grad_weight", s->target.lanes);
  int32_t dy = loop_buffer(k, "dy", LOOP_IN, LOOP_ELEMENT_F32);
  ConvInput input = conv_input(k, &s->prologue);
  int32_t partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
  Depthwise d = depthwise_new(k, s);
  int64_t taps = (int64_t)s->kernel_y * s->kernel_x;
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, taps);
  LoopValue zero = loop_f32(k, 0);
  clear_halo(k, &d);
  LoopValue task = loop_task(k);
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue first = loop_unroll(k, 0, taps, 1);
    loop_set(k, acc, first, zero);
    loop_end(k);
    LoopValue image = build_images(k, s->images);
    stage(k, &d, input, image, c, blocks[b].count);
    weight_taps(k, &d, acc, dy, image, c, blocks[b].count);
    loop_end(k);
    LoopValue tap = loop_unroll(k, 0, taps, 1);
    LoopValue value = loop_get(k, acc, tap);
    LoopValue to = AT(k, 0, {task, taps * s->in.channels}, {tap, s->in.channels}, {c, 1});
    LoopValue lanes = loop_int(k, blocks[b].count);
    loop_store_lanes(k, partial, to, value, lanes);
    loop_end(k);
    loop_end(k);
  }
  return k;
}
