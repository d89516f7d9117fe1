/* Depthwise convolutions: lanes run over channels, a block of lanes at a time. A block's whole image is staged into scratch,
 * through the prologue and with its halo as zeros, so that the tap loops know no border. */
#include "kernels/cpu/conv_private.h"

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
  LoopValue value = conv_read(k, s, input, from, c, count);
  LoopValue to = AT(k, (s->pad_y * d->width + s->pad_x) * k->lanes, {y, d->width * k->lanes}, {x, k->lanes});
  LoopValue lanes = loop_int(k, k->lanes);
  loop_store_lanes(k, d->staged, to, value, lanes);
  loop_end(k);
  loop_end(k);
}

/* Everything is cleared at the start of a task; `stage` then only ever writes the inside. */
static void clear(LoopKernel *k, const Depthwise *d) {
  conv_clear(k, d->staged, 0, d->height * d->width * k->lanes);
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

static void forward_tile(LoopKernel *k, const Depthwise *d, int32_t acc, int32_t w, int32_t out, LoopValue image, LoopValue y,
                         LoopValue x, LoopValue c, int32_t count, int32_t pixels) {
  const ConvSpec *s = d->s;
  LoopValue zero = loop_f32(k, 0);
  LoopValue first = loop_unroll(k, 0, pixels, 1);
  loop_set(k, acc, first, zero);
  loop_end(k);
  LoopValue corner = AT(k, 0, {y, s->stride_y * d->width * k->lanes}, {x, (int64_t)s->stride_x * k->lanes});
  Taps t = taps_begin(k, s);
  LoopValue at = AT(k, 0, {t.tap, s->in.channels}, {c, 1});
  LoopValue lanes = loop_int(k, count);
  LoopValue weight = loop_load_lanes(k, w, at, lanes, 0);
  LoopValue i = loop_unroll(k, 0, pixels, 1);
  LoopValue from = AT(k, 0, {corner, 1}, {t.ky, s->dilation * d->width * k->lanes}, {t.kx, (int64_t)s->dilation * k->lanes},
                      {i, (int64_t)s->stride_x * k->lanes});
  LoopValue all = loop_int(k, k->lanes);
  LoopValue value = loop_load_lanes(k, d->staged, from, all, 0);
  LoopValue sum = loop_get(k, acc, i);
  sum = loop_op3(k, LOOP_FMA, value, weight, sum);
  loop_set(k, acc, i, sum);
  loop_end(k);
  taps_end(k);
  int64_t pixel = s->out.stride, line = s->out.width * pixel;
  LoopValue to = AT(k, 0, {image, s->out.height * line}, {y, line}, {x, pixel}, {c, 1});
  LoopValue j = loop_unroll(k, 0, pixels, 1);
  LoopValue result = loop_get(k, acc, j);
  LoopValue target = AT(k, 0, {to, 1}, {j, pixel});
  lanes = loop_int(k, count);
  loop_store_lanes(k, out, target, result, lanes);
  loop_end(k);
}

static void forward_rows(LoopKernel *k, const Depthwise *d, int32_t acc, int32_t w, int32_t out, LoopValue image, LoopValue c,
                         int32_t count) {
  const ConvSpec *s = d->s;
  TileLoop tiles[2];
  int tile_count = build_tiles(s->out.width, 8, tiles);
  LoopValue y = build_for(k, 0, s->out.height, 1);
  for (int t = 0; t < tile_count; t++) {
    LoopValue x = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
    forward_tile(k, d, acc, w, out, image, y, x, c, count, tiles[t].size);
    loop_end(k);
  }
  loop_end(k);
}

/* x [scale mean] w y, with `spec` as it stands */
static LoopKernel *forward(const ConvSpec *s, const char *name, Arena *arena) {
  LoopKernel *k = loop_new(arena, name, s->target.lanes);
  ConvInput input = conv_input(k, s);
  int32_t w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t out = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  Depthwise d = depthwise_new(k, s);
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 8);
  clear(k, &d);
  LoopValue image = build_images(k, s->images);
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    stage(k, &d, input, image, c, blocks[b].count);
    forward_rows(k, &d, acc, w, out, image, c, blocks[b].count);
    loop_end(k);
  }
  loop_end(k);
  return k;
}

LoopKernel *depthwise_forward(const ConvSpec *spec, Arena *arena) {
  return forward(spec, "depthwise", arena);
}

/* One pixel's gradient goes to every tap's place in the staged image. */
static void scatter(LoopKernel *k, const Depthwise *d, int32_t dy, int32_t w, LoopValue image, LoopValue c, int32_t count) {
  const ConvSpec *s = d->s;
  LoopValue y = build_for(k, 0, s->out.height, 1);
  LoopValue x = build_for(k, 0, s->out.width, 1);
  int64_t pixel = s->out.stride, line = s->out.width * pixel;
  LoopValue from = AT(k, 0, {image, s->out.height * line}, {y, line}, {x, pixel}, {c, 1});
  LoopValue lanes = loop_int(k, count);
  LoopValue all = loop_int(k, k->lanes);
  LoopValue gradient = loop_load_lanes(k, dy, from, lanes, 0);
  LoopValue corner = AT(k, 0, {y, s->stride_y * d->width * k->lanes}, {x, (int64_t)s->stride_x * k->lanes});
  Taps t = taps_begin(k, s);
  LoopValue at = AT(k, 0, {t.tap, s->in.channels}, {c, 1});
  LoopValue weight = loop_load_lanes(k, w, at, lanes, 0);
  LoopValue to = AT(k, 0, {corner, 1}, {t.ky, s->dilation * d->width * k->lanes}, {t.kx, (int64_t)s->dilation * k->lanes});
  LoopValue old = loop_load_lanes(k, d->staged, to, all, 0);
  LoopValue sum = loop_op3(k, LOOP_FMA, gradient, weight, old);
  loop_store_lanes(k, d->staged, to, sum, all);
  taps_end(k);
  loop_end(k);
  loop_end(k);
}

static void copy_inside(LoopKernel *k, const Depthwise *d, int32_t dx, LoopValue image, LoopValue c, int32_t count) {
  const ConvSpec *s = d->s;
  LoopValue zero = loop_f32(k, 0);
  LoopValue y = build_for(k, 0, s->in.height, 1);
  LoopValue x = build_for(k, 0, s->in.width, 1);
  int64_t pixel = s->in.stride, line = s->in.width * pixel;
  LoopValue to = AT(k, 0, {image, s->in.height * line}, {y, line}, {x, pixel}, {c, 1});
  LoopValue lanes = loop_int(k, count);
  loop_store_lanes(k, dx, to, zero, lanes);
  loop_end(k);
  loop_end(k);
  LoopValue row = build_for(k, 0, s->in.height - s->shift_y, 1);
  LoopValue column = build_for(k, 0, s->in.width - s->shift_x, 1);
  LoopValue from = AT(k, (s->pad_y * d->width + s->pad_x) * k->lanes, {row, d->width * k->lanes}, {column, k->lanes});
  LoopValue all = loop_int(k, k->lanes);
  LoopValue value = loop_load_lanes(k, d->staged, from, all, 0);
  LoopValue target =
      AT(k, s->shift_y * line + s->shift_x * pixel, {image, s->in.height * line}, {row, line}, {column, pixel}, {c, 1});
  LoopValue inside = loop_int(k, count);
  loop_store_lanes(k, dx, target, value, inside);
  loop_end(k);
  loop_end(k);
}

/* At stride 1 the input's gradient is the convolution of dy with the flipped kernel: w[taps - 1 - tap]. */
static LoopKernel *gather(const ConvSpec *spec, Arena *arena);

LoopKernel *depthwise_grad_input(const ConvSpec *s, Arena *arena) {
  bool dense = s->stride_y == 1 && s->stride_x == 1 && !s->shift_y && !s->shift_x;
  if (dense && s->pad_y <= s->dilation * (s->kernel_y - 1) && s->pad_x <= s->dilation * (s->kernel_x - 1))
    return gather(s, arena);
  LoopKernel *k = loop_new(arena, "depthwise_grad_input", s->target.lanes);
  int32_t dy = loop_buffer(k, "dy", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t dx = loop_buffer(k, "dx", LOOP_OUT, LOOP_ELEMENT_F32);
  Depthwise d = depthwise_new(k, s);
  LoopValue image = build_images(k, s->images);
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    clear(k, &d);
    scatter(k, &d, dy, w, image, c, blocks[b].count);
    copy_inside(k, &d, dx, image, c, blocks[b].count);
    loop_end(k);
  }
  loop_end(k);
  return k;
}

static void flip(LoopKernel *k, const ConvSpec *s, int32_t w, int32_t flipped) {
  int64_t taps = (int64_t)s->kernel_y * s->kernel_x;
  LoopValue tap = build_for(k, 0, taps, 1);
  LoopValue c = build_for(k, 0, s->in.channels, 1);
  LoopValue from = AT(k, (taps - 1) * s->in.channels, {tap, -s->in.channels}, {c, 1});
  LoopValue value = loop_load(k, w, from);
  LoopValue to = AT(k, 0, {tap, s->in.channels}, {c, 1});
  loop_store(k, flipped, to, value);
  loop_end(k);
  loop_end(k);
}

static LoopKernel *gather(const ConvSpec *spec, Arena *arena) {
  ConvSpec mirror = *spec;
  mirror.in = spec->out;
  mirror.out = spec->in;
  mirror.prologue = (Prologue){false, false};
  mirror.pad_y = spec->dilation * (spec->kernel_y - 1) - spec->pad_y;
  mirror.pad_x = spec->dilation * (spec->kernel_x - 1) - spec->pad_x;
  const ConvSpec *s = &mirror;
  LoopKernel *k = loop_new(arena, "depthwise_grad_input", s->target.lanes);
  ConvInput input = conv_input(k, s);
  int32_t w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t dx = loop_buffer(k, "dx", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t flipped = loop_shared(k, "flipped", (int64_t)s->kernel_y * s->kernel_x * s->in.channels + k->lanes);
  Depthwise d = depthwise_new(k, s);
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 8);
  flip(k, s, w, flipped);
  clear(k, &d);
  LoopValue image = build_images(k, s->images);
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    stage(k, &d, input, image, c, blocks[b].count);
    forward_rows(k, &d, acc, flipped, dx, image, c, blocks[b].count);
    loop_end(k);
  }
  loop_end(k);
  return k;
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
  ConvInput input = conv_input(k, s);
  int32_t partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
  Depthwise d = depthwise_new(k, s);
  int64_t taps = (int64_t)s->kernel_y * s->kernel_x;
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, taps);
  LoopValue zero = loop_f32(k, 0);
  clear(k, &d);
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
