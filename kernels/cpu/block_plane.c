/* The staged plane of a ConvBlock: its shape, its rows through the prologue, and rows of the depthwise convolution, whose
 * register tiles load a column of the plane once for all taps that read it. */
#include "kernels/cpu/conv_block_private.h"

int64_t block_band_rows(int64_t channels, int64_t height, int64_t width) {
  int64_t pixels = channels <= 16 ? 64 : channels <= 128 ? 32 : 16, rows = pixels / width;
  if (rows >= height) return height;
  if (rows < 1) rows = 1;
  for (int64_t even = rows; 2 * even > rows; even--)
    if (height % even == 0) return even;
  return rows;
}

/* ---- the plane ---- */

typedef struct Axis {
  int64_t step, stride, dilation, size, first, end;
} Axis;

/* Of the padded coordinates 0 .. size-1 first .. end-1 lie in the image. */
static Axis axis_of(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  int64_t step = stride, other = kernel > 1 ? dilation : 0;
  while (other) {
    int64_t rest = step % other;
    step = other;
    other = rest;
  }
  Axis a = {.step = step, .stride = stride / step, .dilation = kernel > 1 ? dilation / step : 1};
  a.size = (out - 1) * a.stride + (kernel - 1) * a.dilation + 1;
  a.first = pad > 0 ? build_min((pad + step - 1) / step, a.size) : 0;
  a.end = in + pad > 0 ? build_min((in - 1 + pad) / step + 1, a.size) : 0;
  if (a.end < a.first) a.end = a.first;
  return a;
}

BlockPlane block_plane(LoopKernel *k, const ConvSpec *s, int64_t band) {
  return block_plane_dilated(k, s, band, s->dilation, s->dilation, "plane");
}

BlockPlane block_plane_dilated(LoopKernel *k, const ConvSpec *s, int64_t band, int64_t dilation_y, int64_t dilation_x,
                               const char *name) {
  Axis y = axis_of(s->in.height - s->shift_y, s->out.height, s->kernel_y, s->stride_y, dilation_y, s->pad_y);
  Axis x = axis_of(s->in.width - s->shift_x, s->out.width, s->kernel_x, s->stride_x, dilation_x, s->pad_x);
  BlockPlane p = {.s = *s, .height = y.size, .width = x.size, .pitch = block_pitch(k, s->in.channels)};
  p.top = y.first, p.bottom = y.end;
  p.left = x.first, p.right = x.end;
  p.step_y = y.step, p.step_x = x.step;
  p.stride_y = y.stride, p.stride_x = x.stride;
  p.dilation_y = y.dilation, p.dilation_x = x.dilation;
  p.ring = (band - 1) * p.stride_y + (s->kernel_y - 1) * p.dilation_y + 1;
  p.array = loop_shared(k, name, (p.ring + 1) * p.width * p.pitch);
  return p;
}

static void clear_rectangle(LoopKernel *k, const BlockPlane *p, int64_t top, int64_t bottom, int64_t left, int64_t right) {
  if (top >= bottom || left >= right) return;
  LoopValue zero = loop_f32(k, 0);
  LoopValue row = build_for(k, top, bottom, 1);
  LoopValue at = AT(k, left * p->pitch, {row, p->width * p->pitch});
  LoopValue i = build_for(k, 0, (right - left) * p->pitch, k->lanes);
  LoopValue to = AT(k, 0, {at, 1}, {i, 1});
  LoopValue lanes = loop_int(k, k->lanes);
  loop_store_lanes(k, p->array, to, zero, lanes);
  loop_end(k);
  loop_end(k);
}

void block_plane_clear(LoopKernel *k, const BlockPlane *p) {
  clear_rectangle(k, p, 0, p->ring, 0, p->left);
  clear_rectangle(k, p, 0, p->ring, p->right, p->width);
  clear_rectangle(k, p, p->ring, p->ring + 1, 0, p->width);
}

/* The element where a row begins. */
static LoopValue row_start(LoopKernel *k, const BlockPlane *p, LoopValue row) {
  LoopValue ring = loop_int(k, p->ring), top = loop_int(k, p->top - 1), bottom = loop_int(k, p->bottom);
  LoopValue after = loop_op2(k, LOOP_ILT, top, row);
  LoopValue before = loop_op2(k, LOOP_ILT, row, bottom);
  LoopValue inside = loop_op2(k, LOOP_AND, after, before);
  LoopValue slot = loop_op2(k, LOOP_IMOD, row, ring);
  slot = loop_op3(k, LOOP_SELECT, inside, slot, ring);
  return AT(k, 0, {slot, p->width * p->pitch});
}

/* ---- staging ---- */

/* One row, of one loop over channel blocks: columns in tiles, so that their loads stand together. */
static void stage_row(LoopKernel *k, const BlockPlane *p, ConvInput input, LoopValue source, LoopValue target,
                      const BlockLoop *b) {
  const ConvSpec *s = &p->s;
  TileLoop tiles[2];
  int tile_count = build_tiles(p->right - p->left, 8, tiles);
  LoopValue c = build_for(k, b->from, b->below, b->step);
  for (int t = 0; t < tile_count; t++) {
    LoopValue first = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
    LoopValue i = loop_unroll(k, 0, tiles[t].size, 1);
    LoopValue from = AT(k, (s->shift_x + p->left * p->step_x - s->pad_x) * s->in.stride, {source, 1}, {c, 1},
                        {first, p->step_x * s->in.stride}, {i, p->step_x * s->in.stride});
    LoopValue value = conv_read(k, &s->prologue, input, from, c, b->count);
    LoopValue to = AT(k, p->left * p->pitch, {target, 1}, {c, 1}, {first, p->pitch}, {i, p->pitch});
    LoopValue lanes = loop_int(k, k->lanes);
    loop_store_lanes(k, p->array, to, value, lanes);
    loop_end(k);
    loop_end(k);
  }
  loop_end(k);
}

/* The rows from .. below-1, but for those outside the image. */
static void stage_rows(LoopKernel *k, const BlockPlane *p, ConvInput input, LoopValue image, LoopValue from, LoopValue below) {
  const ConvSpec *s = &p->s;
  LoopValue top = loop_int(k, p->top), bottom = loop_int(k, p->bottom), one = loop_int(k, 1);
  LoopValue first = loop_op2(k, LOOP_IMAX, from, top);
  LoopValue end = loop_op2(k, LOOP_IMIN, below, bottom);
  LoopValue row = loop_for(k, first, end, one);
  int64_t line = (int64_t)s->in.width * s->in.stride;
  LoopValue source = AT(k, (s->shift_y - s->pad_y) * line, {image, s->in.height * line}, {row, p->step_y * line});
  LoopValue target = row_start(k, p, row);
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) stage_row(k, p, input, source, target, &blocks[b]);
  loop_end(k);
}

void block_stage_band(LoopKernel *k, const BlockPlane *p, ConvInput input, LoopValue image, LoopValue y, int64_t band) {
  if (p->top >= p->bottom || p->left >= p->right) return;
  int64_t reach = (p->s.kernel_y - 1) * p->dilation_y + 1;
  LoopValue zero = loop_int(k, 0);
  LoopValue is_first = loop_op2(k, LOOP_IEQ, y, zero);
  LoopValue staged = AT(k, reach - p->stride_y, {y, p->stride_y});
  LoopValue from = loop_op3(k, LOOP_SELECT, is_first, zero, staged);
  LoopValue below = AT(k, reach + (band - 1) * p->stride_y, {y, p->stride_y});
  stage_rows(k, p, input, image, from, below);
}

/* ---- depthwise rows ---- */

/* The most pixels of a register tile. */
static int32_t row_pixels(const LoopKernel *k, const ConvSpec *s) {
  if (k->lanes < 16) return s->kernel_x > 5 ? 6 : 8; /* of 16 registers */
  return s->kernel_x > 3 && s->out.width >= 16 ? 16 : 8;
}

/* The taps of one kernel row: each column of the plane is loaded once and multiplied into every sum that reads it. */
static void multiply_columns(LoopKernel *k, const BlockRows *f, const LoopValue *weight, LoopValue row, int32_t pixels) {
  const BlockPlane *p = f->plane;
  int64_t stride = p->stride_x, dilation = p->dilation_x, kernel = p->s.kernel_x;
  LoopValue lanes = loop_int(k, k->lanes);
  for (int64_t column = 0; column <= (pixels - 1) * stride + (kernel - 1) * dilation; column++) {
    LoopValue value = LOOP_NONE;
    for (int64_t tap = 0; tap < kernel; tap++) {
      int64_t at = column - tap * dilation;
      if (at < 0 || at % stride || at / stride >= pixels) continue;
      if (value == LOOP_NONE) {
        LoopValue from = AT(k, column * p->pitch, {row, 1});
        value = loop_load_lanes(k, p->array, from, lanes, 0);
      }
      LoopValue slot = loop_int(k, at / stride);
      LoopValue sum = loop_get(k, f->acc, slot);
      sum = loop_op3(k, LOOP_FMA, value, weight[tap], sum);
      loop_set(k, f->acc, slot, sum);
    }
  }
}

/* `pixels` pixels from x on of a vector of channels. Few taps are unrolled, and their weights stay in registers. */
static void row_tile(LoopKernel *k, const BlockRows *f, LoopValue y, LoopValue x, LoopValue c, int32_t count, int32_t pixels) {
  const BlockPlane *p = f->plane;
  const ConvSpec *s = &p->s;
  LoopValue zero = loop_f32(k, 0);
  LoopValue i = loop_unroll(k, 0, pixels, 1);
  loop_set(k, f->acc, i, zero);
  loop_end(k);
  bool few = s->kernel_y * s->kernel_x <= 9;
  LoopValue ky = few ? loop_unroll(k, 0, s->kernel_y, 1) : build_for(k, 0, s->kernel_y, 1);
  LoopValue *weight = ARENA_ARRAY(k->arena, LoopValue, s->kernel_x), lanes = loop_int(k, count);
  for (int32_t kx = 0; kx < s->kernel_x; kx++) {
    LoopValue at = AT(k, (int64_t)kx * s->in.channels, {c, 1}, {ky, (int64_t)s->kernel_x * s->in.channels});
    weight[kx] = loop_load_lanes(k, f->w, at, lanes, 0);
  }
  LoopValue row = AT(k, 0, {y, p->stride_y}, {ky, p->dilation_y});
  LoopValue start = row_start(k, p, row);
  LoopValue at = AT(k, 0, {start, 1}, {c, 1}, {x, p->stride_x * p->pitch});
  multiply_columns(k, f, weight, at, pixels);
  loop_end(k);
}

static void store_row_tile(LoopKernel *k, const BlockRows *f, LoopValue at, int32_t count, int32_t pixels, LoopValue shift) {
  LoopValue lanes = loop_int(k, f->masked ? count : k->lanes);
  LoopValue i = loop_unroll(k, 0, pixels, 1);
  LoopValue value = loop_get(k, f->acc, i);
  LoopValue to = AT(k, 0, {at, 1}, {i, f->to_pitch});
  loop_store_lanes(k, f->to, to, value, lanes);
  if (f->sums) block_sums_add(k, f->sums, value, shift, 0);
  loop_end(k);
}

void block_depthwise_row(LoopKernel *k, const BlockRows *f, LoopValue y, LoopValue at) {
  const ConvSpec *s = &f->plane->s;
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  TileLoop tiles[2];
  int tile_count = build_tiles(s->out.width, row_pixels(k, s), tiles);
  for (int b = 0; b < count; b++) {
    LoopValue shift[2] = {LOOP_NONE, LOOP_NONE};
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    if (f->sums) block_sums_begin(k, f->sums, c, &blocks[b], shift);
    for (int t = 0; t < tile_count; t++) {
      LoopValue x = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
      row_tile(k, f, y, x, c, blocks[b].count, tiles[t].size);
      LoopValue to = AT(k, 0, {at, 1}, {c, 1}, {x, f->to_pitch});
      store_row_tile(k, f, to, blocks[b].count, tiles[t].size, shift[0]);
      loop_end(k);
    }
    if (f->sums) block_sums_end(k, f->sums, c, &blocks[b]);
    loop_end(k);
  }
}

void block_depthwise_shift(LoopKernel *k, const BlockRows *f) {
  LoopValue zero = loop_int(k, 0), lanes = loop_int(k, k->lanes);
  BlockLoop blocks[3];
  int count = build_blocks(f->plane->s.in.channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    row_tile(k, f, zero, zero, c, blocks[b].count, 1);
    LoopValue shift = loop_get(k, f->acc, zero);
    loop_store_lanes(k, f->sums->shift, c, shift, lanes);
    loop_end(k);
  }
}
