/* The input's gradient of a depthwise convolution. Input pixels whose place is the same modulo the stride, a phase, are reached
 * by the same taps, and their gradients are a convolution at stride 1 of dy with those taps, flipped. At stride 1 there is one
 * phase, at stride 2 there are up to four; where stride and dilation share a divisor some have no taps. */
#include "kernels/cpu/conv_block_private.h"

/* A phase along one axis: the input places shift + first + n * stride, for n below `count`. */
typedef struct Phase {
  int64_t first, count;
  int64_t taps, last, step; /* the taps that reach it: `last`, last - step, ... */
  int64_t dilation, pad;    /* of the convolution over dy */
} Phase;

static Phase phase_of(int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad, int64_t first) {
  int64_t divisor = stride, other = dilation;
  while (other) {
    int64_t rest = divisor % other;
    divisor = other;
    other = rest;
  }
  Phase p = {.first = first, .step = stride / divisor, .dilation = dilation / divisor};
  if (in > first) p.count = (in - first + stride - 1) / stride;
  for (int64_t tap = 0; tap < kernel; tap++)
    if ((first + pad - tap * dilation) % stride == 0) p.taps++, p.last = tap;
  p.pad = (p.last * dilation - first - pad) / stride;
  return p;
}

/* flipped[t] = w[last - t * step], in both axes */
static void flip(LoopKernel *k, const ConvSpec *s, const Phase *y, const Phase *x, int32_t w, int32_t flipped) {
  int64_t channels = s->in.channels, row = s->kernel_x * channels;
  BlockLoop blocks[3];
  int count = build_blocks(channels, k->lanes, 1, blocks);
  LoopValue ty = build_for(k, 0, y->taps, 1);
  LoopValue tx = build_for(k, 0, x->taps, 1);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue from = AT(k, y->last * row + x->last * channels, {ty, -y->step * row}, {tx, -x->step * channels}, {c, 1});
    LoopValue lanes = loop_int(k, blocks[b].count);
    LoopValue value = loop_load_lanes(k, w, from, lanes, 0);
    LoopValue to = AT(k, 0, {ty, x->taps * channels}, {tx, channels}, {c, 1});
    loop_store_lanes(k, flipped, to, value, lanes);
    loop_end(k);
  }
  loop_end(k);
  loop_end(k);
}

/* The convolution that gives one phase: from dy to every stride-th pixel of dx. */
static ConvSpec mirror_of(const ConvSpec *s, const Phase *y, const Phase *x) {
  ConvSpec m = {.target = s->target, .images = s->images, .bands = 1, .in = s->out, .out = s->in, .groups = s->groups};
  m.out.height = (int32_t)y->count, m.out.width = (int32_t)x->count;
  m.kernel_y = (int32_t)y->taps, m.kernel_x = (int32_t)x->taps;
  m.pad_y = (int32_t)y->pad, m.pad_x = (int32_t)x->pad;
  m.stride_y = m.stride_x = 1;
  return m;
}

typedef struct Gradient {
  const ConvSpec *s;
  ConvInput dy;
  int32_t w, dx, acc;
} Gradient;

static void phase(LoopKernel *k, const Gradient *f, const Phase *y, const Phase *x) {
  const ConvSpec *s = f->s;
  ConvSpec m = mirror_of(s, y, x);
  const char *suffix = arena_printf(k->arena, "%d.%d", (int)y->first, (int)x->first);
  int32_t flipped = loop_shared(k, arena_printf(k->arena, "flipped%s", suffix), y->taps * x->taps * s->in.channels);
  int64_t band = block_band_rows(s->in.channels, y->count, x->count), line = (int64_t)s->in.width * s->in.stride;
  BlockPlane plane = block_plane_dilated(k, &m, band, y->dilation, x->dilation, arena_printf(k->arena, "plane%s", suffix));
  BlockRows rows = {.plane = &plane, .w = flipped, .acc = f->acc, .to = f->dx, .masked = true};
  rows.to_pitch = (int64_t)s->stride_x * s->in.stride;
  flip(k, s, y, x, f->w, flipped);
  block_plane_clear(k, &plane);
  LoopValue image = build_images(k, s->images);
  TileLoop bands[2];
  int count = build_tiles(y->count, (int32_t)band, bands);
  for (int b = 0; b < count; b++) {
    LoopValue first = build_for(k, bands[b].from, bands[b].below, bands[b].size);
    block_stage_band(k, &plane, f->dy, image, first, bands[b].size);
    LoopValue r = build_for(k, 0, bands[b].size, 1);
    LoopValue row = AT(k, 0, {first, 1}, {r, 1});
    LoopValue to = AT(k, (s->shift_y + y->first) * line + (s->shift_x + x->first) * s->in.stride, {image, s->in.height * line},
                      {row, s->stride_y * line});
    block_depthwise_row(k, &rows, row, to);
    loop_end(k);
    loop_end(k);
  }
  loop_end(k);
}

static void clear(LoopKernel *k, const Gradient *f) {
  const Plane *in = &f->s->in;
  int64_t pixels = (int64_t)in->height * in->width;
  LoopValue zero = loop_f32(k, 0);
  BlockLoop blocks[3];
  int count = build_blocks(in->channels, k->lanes, 1, blocks);
  LoopValue image = build_images(k, f->s->images);
  LoopValue pixel = build_for(k, 0, pixels, 1);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue to = AT(k, 0, {image, pixels * in->stride}, {pixel, in->stride}, {c, 1});
    LoopValue lanes = loop_int(k, blocks[b].count);
    loop_store_lanes(k, f->dx, to, zero, lanes);
    loop_end(k);
  }
  loop_end(k);
  loop_end(k);
}

static Phase row_phase(const ConvSpec *s, int64_t first) {
  return phase_of(s->in.height - s->shift_y, s->kernel_y, s->stride_y, s->dilation, s->pad_y, first);
}

static Phase column_phase(const ConvSpec *s, int64_t first) {
  return phase_of(s->in.width - s->shift_x, s->kernel_x, s->stride_x, s->dilation, s->pad_x, first);
}

LoopKernel *depthwise_grad_input(const ConvSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "depthwise_grad_input", s->target.lanes);
  Gradient f = {.s = s, .dy = {loop_buffer(k, "dy", LOOP_IN, LOOP_ELEMENT_F32), -1, -1}};
  f.w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  f.dx = loop_buffer(k, "dx", LOOP_OUT, LOOP_ELEMENT_F32);
  f.acc = loop_tile(k, "acc", LOOP_F32, true, BLOCK_ACC);
  bool all = !s->shift_y && !s->shift_x; /* whether the phases write all of dx */
  for (int64_t y = 0; y < s->stride_y; y++) all = all && row_phase(s, y).taps;
  for (int64_t x = 0; x < s->stride_x; x++) all = all && column_phase(s, x).taps;
  if (!all) clear(k, &f);
  for (int64_t y = 0; y < s->stride_y; y++) {
    Phase rows = row_phase(s, y);
    for (int64_t x = 0; x < s->stride_x && rows.taps && rows.count; x++) {
      Phase columns = column_phase(s, x);
      if (columns.taps && columns.count) phase(k, &f, &rows, &columns);
    }
  }
  return k;
}
