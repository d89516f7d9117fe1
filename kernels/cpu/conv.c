/* Dense and grouped convolutions, forward. Lanes run over output channels: an accumulator tile of pixels x channel blocks takes
 * one input value broadcast times one vector of weights. The input rows that an output row reads are staged, through the
 * prologue and with their halo as zeros, so that the multiply loops know no border. */
#include "kernels/cpu/conv_block_private.h"

ConvInput conv_input(LoopKernel *k, const Prologue *prologue) {
  ConvInput input = {loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32), -1, -1};
  if (prologue->affine) {
    input.scale = loop_buffer(k, "scale", LOOP_IN, LOOP_ELEMENT_F32);
    input.mean = loop_buffer(k, "mean", LOOP_IN, LOOP_ELEMENT_F32);
  }
  return input;
}

LoopValue conv_read(LoopKernel *k, const Prologue *prologue, ConvInput input, LoopValue index, LoopValue channel, int32_t count) {
  LoopValue lanes = loop_int(k, count);
  LoopValue value = loop_load_lanes(k, input.x, index, lanes, 0);
  if (prologue->affine) {
    LoopValue scale = loop_load_lanes(k, input.scale, channel, lanes, 0);
    LoopValue mean = loop_load_lanes(k, input.mean, channel, lanes, 0);
    value = loop_op2(k, LOOP_SUB, value, mean);
    value = loop_op2(k, LOOP_MUL, value, scale);
  }
  return prologue->relu ? build_relu(k, value) : value;
}

ConvSpec conv_flatten(const ConvSpec *spec) {
  ConvSpec flat = *spec;
  if (!conv_is_plain(spec)) return flat;
  int32_t pixels = spec->in.height * spec->in.width, width = 1, most = spec->in.channels + spec->out.channels <= 64 ? 64 : 32;
  for (int32_t w = 1; w <= most && w <= pixels; w++)
    if (pixels % w == 0) width = w;
  flat.in.height = flat.out.height = pixels / width;
  flat.in.width = flat.out.width = width;
  return flat;
}

ConvRows conv_rows(LoopKernel *k, const ConvSpec *s) {
  int64_t width = (int64_t)(s->out.width - 1) * s->stride_x + (int64_t)s->dilation * (s->kernel_x - 1) + 1;
  /* a lane-wide store of a remainder may run over the end */
  return (ConvRows){loop_shared(k, "rows", s->kernel_y * width * s->in.channels + k->lanes), width};
}

void conv_clear(LoopKernel *k, int32_t array, int64_t from, int64_t below) {
  if (from >= below) return;
  LoopValue zero = loop_f32(k, 0);
  int64_t whole = from + (below - from) / k->lanes * k->lanes;
  if (whole > from) {
    LoopValue i = build_for(k, from, whole, k->lanes);
    LoopValue lanes = loop_int(k, k->lanes);
    loop_store_lanes(k, array, i, zero, lanes);
    loop_end(k);
  }
  if (below > whole) {
    LoopValue i = loop_int(k, whole);
    LoopValue lanes = loop_int(k, below - whole);
    loop_store_lanes(k, array, i, zero, lanes);
  }
}

/* One staged row: columns -pad_x .. of input row `row`, which lies inside the image. */
static void stage_row(LoopKernel *k, const ConvSpec *s, ConvInput input, ConvRows rows, LoopValue image, LoopValue row,
                      LoopValue tap) {
  int64_t inside = s->in.width - s->shift_x, first = build_min(s->pad_x, rows.width),
          end = build_min(rows.width, s->pad_x + inside);
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  int64_t pixel = s->in.stride, line = s->in.width * pixel;
  LoopValue base = AT(k, (s->shift_y * (int64_t)s->in.width + s->shift_x) * pixel, {image, s->in.height * line}, {row, line});
  LoopValue target = AT(k, 0, {tap, rows.width * s->in.channels});
  for (int b = 0; b < count && first < end; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue column = build_for(k, first, end, 1);
    LoopValue from = AT(k, -(int64_t)s->pad_x * pixel, {base, 1}, {column, pixel}, {c, 1});
    LoopValue value = conv_read(k, &s->prologue, input, from, c, blocks[b].count);
    LoopValue to = AT(k, 0, {target, 1}, {column, s->in.channels}, {c, 1});
    LoopValue lanes = loop_int(k, blocks[b].count);
    loop_store_lanes(k, rows.array, to, value, lanes);
    loop_end(k);
    loop_end(k);
  }
}

static void clear_columns(LoopKernel *k, const ConvSpec *s, ConvRows rows, LoopValue tap, int64_t from, int64_t below) {
  if (from >= below) return;
  LoopValue i = build_for(k, from * s->in.channels, below * s->in.channels, 1);
  LoopValue to = AT(k, 0, {tap, rows.width * s->in.channels}, {i, 1});
  LoopValue zero = loop_f32(k, 0);
  loop_store(k, rows.array, to, zero);
  loop_end(k);
}

void conv_stage_rows(LoopKernel *k, const ConvSpec *s, ConvInput input, ConvRows rows, LoopValue image, LoopValue y) {
  int64_t inside = s->in.width - s->shift_x, first = build_min(s->pad_x, rows.width),
          end = build_min(rows.width, s->pad_x + inside);
  LoopValue tap = build_for(k, 0, s->kernel_y, 1);
  LoopValue row = AT(k, -(int64_t)s->pad_y, {y, s->stride_y}, {tap, s->dilation});
  LoopValue minus = loop_int(k, -1);
  LoopValue after = loop_op2(k, LOOP_ILT, minus, row);
  LoopValue height = loop_int(k, s->in.height - s->shift_y);
  LoopValue before = loop_op2(k, LOOP_ILT, row, height);
  LoopValue valid = loop_op2(k, LOOP_AND, after, before);
  loop_if(k, valid);
  stage_row(k, s, input, rows, image, row, tap);
  clear_columns(k, s, rows, tap, 0, first);
  clear_columns(k, s, rows, tap, end, rows.width);
  loop_end(k);
  if (s->pad_y) {
    LoopValue outside = loop_op1(k, LOOP_NOT, valid);
    loop_if(k, outside);
    clear_columns(k, s, rows, tap, 0, rows.width);
    loop_end(k);
  }
  loop_end(k);
}

typedef struct Forward {
  const ConvSpec *s;
  ConvRows rows;
  int32_t w, y;
  int64_t in, out;       /* channels of a group */
  int32_t acc;           /* a tile of up to 16 vectors */
  const BlockSums *sums; /* or null */
} Forward;

/* A register tile's place. */
typedef struct Tile {
  LoopValue image, y, x, group, o;
  int32_t pixels;
  const BlockLoop *b;
} Tile;

/* acc[pixel, block] += rows[tap, pixel, c] * w[tap, c, block] for one step of input channels. */
static void multiply(LoopKernel *k, const Forward *f, const Tile *t, LoopValue input, LoopValue weight, int64_t steps) {
  const ConvSpec *s = f->s;
  LoopValue u = loop_unroll(k, 0, steps, 1);
  LoopValue block = loop_unroll(k, 0, t->b->blocks, 1);
  LoopValue at = AT(k, 0, {weight, 1}, {u, s->out.channels}, {block, k->lanes});
  LoopValue lanes = loop_int(k, t->b->count);
  LoopValue vector = loop_load_lanes(k, f->w, at, lanes, 0);
  LoopValue i = loop_unroll(k, 0, t->pixels, 1);
  LoopValue from = AT(k, 0, {input, 1}, {i, (int64_t)s->stride_x * s->in.channels}, {u, 1});
  LoopValue value = loop_load(k, f->rows.array, from);
  LoopValue slot = AT(k, 0, {i, t->b->blocks}, {block, 1});
  LoopValue sum = loop_get(k, f->acc, slot);
  sum = loop_op3(k, LOOP_FMA, value, vector, sum);
  loop_set(k, f->acc, slot, sum);
  loop_end(k);
  loop_end(k);
  loop_end(k);
}

/* acc = the tile's sums */
static void tile_product(LoopKernel *k, const Forward *f, const Tile *t) {
  const ConvSpec *s = f->s;
  LoopValue zero = loop_f32(k, 0);
  LoopValue clear = loop_unroll(k, 0, t->pixels * t->b->blocks, 1);
  loop_set(k, f->acc, clear, zero);
  loop_end(k);
  LoopValue ky = build_for(k, 0, s->kernel_y, 1);
  LoopValue kx = build_for(k, 0, s->kernel_x, 1);
  int64_t steps = f->in % 4 == 0 ? 4 : 1;
  LoopValue c = build_for(k, 0, f->in, steps);
  int64_t channels = s->in.channels;
  LoopValue input = AT(k, 0, {ky, f->rows.width * channels}, {kx, s->dilation * channels}, {t->x, s->stride_x * channels},
                       {t->group, f->in}, {c, 1});
  int64_t row = s->out.channels;
  LoopValue weight = AT(k, 0, {ky, s->kernel_x * f->in * row}, {kx, f->in * row}, {c, row}, {t->group, f->out}, {t->o, 1});
  multiply(k, f, t, input, weight, steps);
  loop_end(k);
  loop_end(k);
  loop_end(k);
}

static void tile_store(LoopKernel *k, const Forward *f, const Tile *t, const LoopValue shift[2]) {
  int64_t pixel = f->s->out.stride, line = f->s->out.width * pixel;
  LoopValue to = AT(k, 0, {t->image, f->s->out.height * line}, {t->y, line}, {t->x, pixel}, {t->group, f->out}, {t->o, 1});
  LoopValue lanes = loop_int(k, t->b->count);
  LoopValue i = loop_unroll(k, 0, t->pixels, 1);
  for (int32_t block = 0; block < t->b->blocks; block++) {
    LoopValue slot = AT(k, block, {i, t->b->blocks});
    LoopValue value = loop_get(k, f->acc, slot);
    LoopValue at = AT(k, (int64_t)block * k->lanes, {to, 1}, {i, pixel});
    loop_store_lanes(k, f->y, at, value, lanes);
    if (f->sums) block_sums_add(k, f->sums, value, shift[block], block);
  }
  loop_end(k);
}

/* The blocks of output channels o .. of one row. */
static void row_blocks(LoopKernel *k, const Forward *f, LoopValue image, LoopValue y, LoopValue group, const BlockLoop *b) {
  int32_t most = k->lanes < 16 ? 6 : b->blocks == 1 ? 16 : 8;
  TileLoop tiles[2];
  int tile_count = build_tiles(f->s->out.width, most, tiles);
  LoopValue shift[2] = {LOOP_NONE, LOOP_NONE};
  LoopValue o = build_for(k, b->from, b->below, b->step);
  LoopValue channel = AT(k, 0, {group, f->out}, {o, 1});
  if (f->sums) block_sums_begin(k, f->sums, channel, b, shift);
  for (int t = 0; t < tile_count; t++) {
    LoopValue x = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
    Tile place = {image, y, x, group, o, tiles[t].size, b};
    tile_product(k, f, &place);
    tile_store(k, f, &place, shift);
    loop_end(k);
  }
  if (f->sums) block_sums_end(k, f->sums, channel, b);
  loop_end(k);
}

/* The shift of the moments: pixel (0, 0). */
static void first_pixel(LoopKernel *k, const Forward *f, LoopValue image, LoopValue group) {
  LoopValue zero = loop_int(k, 0);
  BlockLoop blocks[3];
  int count = build_blocks(f->out, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue o = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    Tile place = {image, zero, zero, group, o, 1, &blocks[b]};
    tile_product(k, f, &place);
    LoopValue shift = loop_get(k, f->acc, zero);
    LoopValue to = AT(k, 0, {group, f->out}, {o, 1});
    LoopValue lanes = loop_int(k, blocks[b].count);
    loop_store_lanes(k, f->sums->shift, to, shift, lanes);
    loop_end(k);
  }
}

static void row(LoopKernel *k, const Forward *f, LoopValue image, LoopValue y) {
  if (f->sums) {
    block_sums_if_first(k, f->s->images, image, y);
    LoopValue group = build_for(k, 0, f->s->groups, 1);
    first_pixel(k, f, image, group);
    loop_end(k);
    loop_end(k);
  }
  LoopValue group = build_for(k, 0, f->s->groups, 1);
  BlockLoop blocks[3];
  int count = build_blocks(f->out, k->lanes, k->lanes >= 16 ? 2 : 1, blocks);
  for (int b = 0; b < count; b++) row_blocks(k, f, image, y, group, &blocks[b]);
  loop_end(k);
}

LoopKernel *cpu_conv(const ConvSpec *s, Arena *arena) {
  if (conv_is_depthwise(s)) return depthwise_forward(s, arena);
  if (conv_is_point(s)) return conv_point_forward(s, arena);
  LoopKernel *k = loop_new(arena, "conv", s->target.lanes);
  ConvInput input = conv_input(k, &s->prologue);
  Forward f = {.s = s, .in = s->in.channels / s->groups, .out = s->out.channels / s->groups};
  f.w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  f.y = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t partial = s->moments ? loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32) : -1;
  f.rows = conv_rows(k, s);
  f.acc = loop_tile(k, "acc", LOOP_F32, true, BLOCK_ACC);
  BlockSums sums;
  if (s->moments) {
    sums = block_sums_new(k, s->out.channels);
    f.sums = &sums;
    block_sums_clear(k, &sums);
  }
  LoopValue image = build_images(k, s->images);
  LoopValue y = build_for(k, 0, s->out.height, 1);
  conv_stage_rows(k, s, input, f.rows, image, y);
  row(k, &f, image, y);
  loop_end(k);
  loop_end(k);
  if (s->moments) block_sums_store(k, &sums, partial);
  return k;
}
