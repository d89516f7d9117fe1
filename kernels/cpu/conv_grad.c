/* Gradients of dense and grouped convolutions.
 *
 * Weight: register tiles of input channels x output blocks run over a row's pixels and are added to the task's partial.
 * Input: lanes run over input channels, so a task first transposes the weights into its scratch; a plain convolution writes its
 * pixels straight, any other one adds each tap into a padded image in scratch and copies the inside out. */
#include "kernels/cpu/conv_block_private.h"

typedef struct WeightGrad {
  const ConvSpec *s;
  ConvRows rows;
  int32_t x, dy, partial, acc;
  int64_t in, out;       /* channels of a group */
  BlockPrefetch next[2]; /* of a convolution of one tap: the next row of x and of dy */
} WeightGrad;

/* A register tile: input channels x a block of output channels. */
typedef struct WeightTile {
  LoopValue input, gradient, base; /* the row's first elements of its channels; its place in the partial */
  LoopValue number;                /* of the row's tiles */
  int64_t numbers;
  int32_t channels;
  const BlockLoop *b;
} WeightTile;

static LoopValue partial_index(LoopKernel *k, const WeightGrad *f, LoopValue base, LoopValue i, LoopValue block) {
  return AT(k, 0, {base, 1}, {i, f->s->out.channels}, {block, k->lanes});
}

/* Moves the register tile from or to the partial. */
static void move_tile(LoopKernel *k, const WeightGrad *f, const WeightTile *t, bool store) {
  LoopValue i = loop_unroll(k, 0, t->channels, 1);
  LoopValue block = loop_unroll(k, 0, t->b->blocks, 1);
  LoopValue at = partial_index(k, f, t->base, i, block);
  LoopValue lanes = loop_int(k, t->b->count);
  LoopValue slot = AT(k, 0, {i, t->b->blocks}, {block, 1});
  if (store) {
    LoopValue value = loop_get(k, f->acc, slot);
    loop_store_lanes(k, f->partial, at, value, lanes);
  } else {
    LoopValue value = loop_load_lanes(k, f->partial, at, lanes, 0);
    loop_set(k, f->acc, slot, value);
  }
  loop_end(k);
  loop_end(k);
}

/* acc += x[pixel, channels] dy[pixel, block] */
static void weight_pixel(LoopKernel *k, const WeightGrad *f, const WeightTile *t, LoopValue x) {
  const ConvSpec *s = f->s;
  LoopValue row = AT(k, 0, {t->input, 1}, {x, (int64_t)s->stride_x * s->in.channels});
  LoopValue pixel = AT(k, 0, {t->gradient, 1}, {x, s->out.stride});
  LoopValue block = loop_unroll(k, 0, t->b->blocks, 1);
  LoopValue at = AT(k, 0, {pixel, 1}, {block, k->lanes});
  LoopValue lanes = loop_int(k, t->b->count);
  LoopValue vector = loop_load_lanes(k, f->dy, at, lanes, 0);
  LoopValue i = loop_unroll(k, 0, t->channels, 1);
  LoopValue from = AT(k, 0, {row, 1}, {i, 1});
  LoopValue value = loop_load(k, f->rows.array, from);
  LoopValue slot = AT(k, 0, {i, t->b->blocks}, {block, 1});
  LoopValue sum = loop_get(k, f->acc, slot);
  sum = loop_op3(k, LOOP_FMA, value, vector, sum);
  loop_set(k, f->acc, slot, sum);
  loop_end(k);
  loop_end(k);
}

static void weight_tile(LoopKernel *k, const WeightGrad *f, const WeightTile *t) {
  enum { STEP = 4 };
  TileLoop tiles[2];
  int count = build_tiles(f->s->out.width, STEP, tiles);
  move_tile(k, f, t, false);
  for (int i = 0; i < count; i++) {
    LoopValue first = build_for(k, tiles[i].from, tiles[i].below, tiles[i].size);
    if (t->number != LOOP_NONE && tiles[i].size == STEP) {
      LoopValue divisor = loop_int(k, STEP), part = loop_op2(k, LOOP_IDIV, first, divisor);
      LoopValue step = AT(k, 0, {t->number, f->s->out.width / STEP}, {part, 1});
      for (int p = 0; p < 2; p++) block_prefetch_step(k, &f->next[p], step, t->numbers * (f->s->out.width / STEP));
    }
    LoopValue u = loop_unroll(k, 0, tiles[i].size, 1);
    LoopValue x = AT(k, 0, {first, 1}, {u, 1});
    weight_pixel(k, f, t, x);
    loop_end(k);
    loop_end(k);
  }
  move_tile(k, f, t, true);
}

/* Where the tiles of one tap and group stand. */
typedef struct WeightPlace {
  LoopValue task, image, y, ky, kx, group;
} WeightPlace;

static void weight_block(LoopKernel *k, const WeightGrad *f, const WeightPlace *p, const BlockLoop *b) {
  const ConvSpec *s = f->s;
  int64_t taps = (int64_t)s->kernel_y * s->kernel_x, row = s->out.channels, channels = s->in.channels;
  int32_t most = k->lanes < 16 ? 8 : b->blocks == 2 ? 8 : 16;
  LoopValue o = build_for(k, b->from, b->below, b->step);
  TileLoop tiles[2];
  int tile_count = build_tiles(f->in, most, tiles);
  for (int t = 0; t < tile_count; t++) {
    LoopValue c = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
    WeightTile place = {.number = LOOP_NONE, .channels = tiles[t].size, .b = b};
    place.input = AT(k, 0, {p->ky, f->rows.width * channels}, {p->kx, s->dilation * channels}, {p->group, f->in}, {c, 1});
    int64_t line = (int64_t)s->out.width * s->out.stride;
    place.gradient = AT(k, 0, {p->image, s->out.height * line}, {p->y, line}, {p->group, f->out}, {o, 1});
    place.base = AT(k, 0, {p->task, taps * f->in * row}, {p->ky, s->kernel_x * f->in * row}, {p->kx, f->in * row}, {c, row},
                    {p->group, f->out}, {o, 1});
    if (f->next[0].pixels && b->from == 0 && t == 0) {
      int64_t each = tiles[0].below / tiles[0].size;
      LoopValue wide = loop_int(k, b->step), high = loop_int(k, tiles[0].size);
      LoopValue block = loop_op2(k, LOOP_IDIV, o, wide), tile = loop_op2(k, LOOP_IDIV, c, high);
      place.number = AT(k, 0, {block, each}, {tile, 1});
      place.numbers = each * ((b->below - b->from + b->step - 1) / b->step);
    }
    weight_tile(k, f, &place);
    loop_end(k);
  }
  loop_end(k);
}

/* One output row: every tap, group, tile of input channels and blocks of output channels. */
static void weight_row(LoopKernel *k, const WeightGrad *f, LoopValue task, LoopValue image, LoopValue y) {
  WeightGrad row = *f;
  const ConvSpec *s = f->s;
  if (conv_is_point(s)) {
    int64_t x_line = (int64_t)s->in.width * s->in.stride, dy_line = (int64_t)s->out.width * s->out.stride;
    row.next[0] = (BlockPrefetch){.array = f->x, .pixels = s->in.width, .channels = s->in.channels, .stride = s->in.stride};
    row.next[1] = (BlockPrefetch){.array = f->dy, .pixels = s->out.width, .channels = s->out.channels, .stride = s->out.stride};
    row.next[0].at = AT(k, (s->shift_y + s->stride_y) * x_line, {image, s->in.height * x_line}, {y, s->stride_y * x_line});
    row.next[1].at = AT(k, dy_line, {image, s->out.height * dy_line}, {y, dy_line});
  }
  WeightPlace place = {.task = task, .image = image, .y = y};
  place.ky = build_for(k, 0, s->kernel_y, 1);
  place.kx = build_for(k, 0, s->kernel_x, 1);
  place.group = build_for(k, 0, s->groups, 1);
  BlockLoop blocks[3];
  int count = build_blocks(f->out, k->lanes, k->lanes >= 16 ? 2 : 1, blocks);
  for (int b = 0; b < count; b++) weight_block(k, &row, &place, &blocks[b]);
  loop_end(k);
  loop_end(k);
  loop_end(k);
}

LoopKernel *cpu_conv_grad_weight(const ConvSpec *given, Arena *arena) {
  if (conv_is_depthwise(given)) return depthwise_grad_weight(given, arena);
  ConvSpec spec = conv_flatten(given);
  const ConvSpec *s = &spec;
  LoopKernel *k = loop_new(arena, "conv_grad_weight", s->target.lanes);
  WeightGrad f = {.s = s,
                  .dy = loop_buffer(k, "dy", LOOP_IN, LOOP_ELEMENT_F32),
                  .in = s->in.channels / s->groups,
                  .out = s->out.channels / s->groups};
  ConvInput input = conv_input(k, &s->prologue);
  f.x = input.x;
  f.partial = loop_buffer(k, "partial", LOOP_INOUT, LOOP_ELEMENT_F32);
  f.rows = conv_rows(k, s);
  f.acc = loop_tile(k, "acc", LOOP_F32, true, BLOCK_ACC);
  LoopValue task = loop_task(k);
  int64_t elements = (int64_t)s->kernel_y * s->kernel_x * f.in * s->out.channels;
  LoopValue i = build_for(k, 0, elements, k->lanes);
  LoopValue at = AT(k, 0, {task, elements}, {i, 1});
  LoopValue left = AT(k, elements, {i, -1});
  LoopValue width = loop_int(k, k->lanes);
  LoopValue lanes = loop_op2(k, LOOP_IMIN, left, width);
  LoopValue zero = loop_f32(k, 0);
  loop_store_lanes(k, f.partial, at, zero, lanes);
  loop_end(k);
  LoopValue image = build_images(k, s->images);
  LoopValue y = build_for(k, 0, s->out.height, 1);
  conv_stage_rows(k, s, input, f.rows, image, y);
  weight_row(k, &f, task, image, y);
  loop_end(k);
  loop_end(k);
  return k;
}

typedef struct InputGrad {
  const ConvSpec *s;
  int32_t dy, w, dx, transposed, padded;
  int64_t height, width; /* of the padded image */
  int64_t start, skip;   /* in it: the element of the first output pixel's first tap; that of dx's first pixel */
  int64_t in, out;
  bool plain;
} InputGrad;

/* transposed[tap, o, c] = w[tap, c, o] */
static void transpose(LoopKernel *k, const InputGrad *f) {
  const ConvSpec *s = f->s;
  LoopValue tap = build_for(k, 0, (int64_t)s->kernel_y * s->kernel_x, 1);
  LoopValue c = build_for(k, 0, f->in, 1);
  LoopValue o = build_for(k, 0, s->out.channels, 1);
  LoopValue from = AT(k, 0, {tap, f->in * s->out.channels}, {c, s->out.channels}, {o, 1});
  LoopValue value = loop_load(k, f->w, from);
  LoopValue to = AT(k, 0, {tap, f->in * s->out.channels}, {o, f->in}, {c, 1});
  loop_store(k, f->transposed, to, value);
  loop_end(k);
  loop_end(k);
  loop_end(k);
}

/* acc[pixel, block] = sum over o of dy[pixel, o] * transposed[tap, o, block] */
static void input_product(LoopKernel *k, const InputGrad *f, int32_t acc, LoopValue gradient, LoopValue weight, int32_t pixels,
                          const BlockLoop *b) {
  const ConvSpec *s = f->s;
  LoopValue zero = loop_f32(k, 0);
  LoopValue clear = loop_unroll(k, 0, pixels * b->blocks, 1);
  loop_set(k, acc, clear, zero);
  loop_end(k);
  int64_t steps = f->out % 4 == 0 ? 4 : 1;
  LoopValue o = build_for(k, 0, f->out, steps);
  LoopValue u = loop_unroll(k, 0, steps, 1);
  LoopValue block = loop_unroll(k, 0, b->blocks, 1);
  LoopValue at = AT(k, 0, {weight, 1}, {o, f->in}, {u, f->in}, {block, k->lanes});
  LoopValue lanes = loop_int(k, b->count);
  LoopValue vector = loop_load_lanes(k, f->transposed, at, lanes, 0);
  LoopValue i = loop_unroll(k, 0, pixels, 1);
  LoopValue from = AT(k, 0, {gradient, 1}, {o, 1}, {i, s->out.stride}, {u, 1});
  LoopValue value = loop_load(k, f->dy, from);
  LoopValue slot = AT(k, 0, {i, b->blocks}, {block, 1});
  LoopValue sum = loop_get(k, acc, slot);
  sum = loop_op3(k, LOOP_FMA, value, vector, sum);
  loop_set(k, acc, slot, sum);
  loop_end(k);
  loop_end(k);
  loop_end(k);
  loop_end(k);
}

/* Writes the tile to dx (plain), or adds it to the padded image. */
static void input_store(LoopKernel *k, const InputGrad *f, int32_t acc, LoopValue to, int64_t pixel, int32_t pixels,
                        const BlockLoop *b) {
  LoopValue i = loop_unroll(k, 0, pixels, 1);
  LoopValue block = loop_unroll(k, 0, b->blocks, 1);
  LoopValue slot = AT(k, 0, {i, b->blocks}, {block, 1});
  LoopValue value = loop_get(k, acc, slot);
  LoopValue at = AT(k, 0, {to, 1}, {i, pixel}, {block, k->lanes});
  LoopValue lanes = loop_int(k, b->count);
  if (f->plain) {
    loop_store_lanes(k, f->dx, at, value, lanes);
  } else {
    LoopValue old = loop_load_lanes(k, f->padded, at, lanes, 0);
    LoopValue sum = loop_op2(k, LOOP_ADD, old, value);
    loop_store_lanes(k, f->padded, at, sum, lanes);
  }
  loop_end(k);
  loop_end(k);
}

static void input_tile(LoopKernel *k, const InputGrad *f, int32_t acc, LoopValue image, LoopValue y, LoopValue x, LoopValue group,
                       LoopValue c, int32_t pixels, const BlockLoop *b) {
  const ConvSpec *s = f->s;
  int64_t line = (int64_t)s->out.width * s->out.stride;
  LoopValue gradient = AT(k, 0, {image, s->out.height * line}, {y, line}, {x, s->out.stride}, {group, f->out});
  LoopValue ky = build_for(k, 0, s->kernel_y, 1);
  LoopValue kx = build_for(k, 0, s->kernel_x, 1);
  int64_t tap = f->in * s->out.channels;
  LoopValue weight = AT(k, 0, {ky, s->kernel_x * tap}, {kx, tap}, {group, f->out * f->in}, {c, 1});
  input_product(k, f, acc, gradient, weight, pixels, b);
  if (f->plain) {
    int64_t row = (int64_t)s->in.width * s->in.stride;
    LoopValue to = AT(k, 0, {image, s->in.height * row}, {y, row}, {x, s->in.stride}, {group, f->in}, {c, 1});
    input_store(k, f, acc, to, s->in.stride, pixels, b);
  } else {
    int64_t pixel = s->in.channels, row = f->width * pixel;
    LoopValue to = AT(k, f->start, {y, s->stride_y * row}, {ky, s->dilation * row}, {x, s->stride_x * pixel},
                      {kx, s->dilation * pixel}, {group, f->in}, {c, 1});
    input_store(k, f, acc, to, s->stride_x * pixel, pixels, b);
  }
  loop_end(k);
  loop_end(k);
}

/* A rectangle of dx: the inside of the padded image, or zeros. */
static void copy_rectangle(LoopKernel *k, const InputGrad *f, LoopValue image, int32_t y0, int32_t y1, int32_t x0, int32_t x1,
                           bool inside) {
  const ConvSpec *s = f->s;
  if (y0 >= y1 || x0 >= x1) return;
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  LoopValue zero = loop_f32(k, 0);
  LoopValue y = build_for(k, y0, y1, 1);
  LoopValue x = build_for(k, x0, x1, 1);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    int64_t pixel = s->in.channels;
    LoopValue lanes = loop_int(k, blocks[b].count);
    LoopValue value = zero;
    if (inside) {
      LoopValue from = AT(k, f->skip, {y, f->width * pixel}, {x, pixel}, {c, 1});
      value = loop_load_lanes(k, f->padded, from, lanes, 0);
    }
    int64_t line = (int64_t)s->in.width * s->in.stride;
    LoopValue to = AT(k, 0, {image, s->in.height * line}, {y, line}, {x, s->in.stride}, {c, 1});
    loop_store_lanes(k, f->dx, to, value, lanes);
    loop_end(k);
  }
  loop_end(k);
  loop_end(k);
}

/* dx from the padded image. What the shift cut off was not read, so it gets nothing; the padded image may hold there what the
 * padding's taps left. */
static void copy_inside(LoopKernel *k, const InputGrad *f, LoopValue image) {
  const Plane *in = &f->s->in;
  int32_t y = f->s->shift_y, x = f->s->shift_x;
  copy_rectangle(k, f, image, 0, y, 0, in->width, false);
  copy_rectangle(k, f, image, y, in->height, 0, x, false);
  copy_rectangle(k, f, image, y, in->height, x, in->width, true);
}

LoopKernel *cpu_conv_grad_input(const ConvSpec *given, Arena *arena) {
  if (conv_is_depthwise(given)) return depthwise_grad_input(given, arena);
  if (conv_is_point(given)) return conv_point_grad_input(given, arena);
  ConvSpec spec = conv_flatten(given);
  const ConvSpec *s = &spec;
  LoopKernel *k = loop_new(arena, "conv_grad_input", s->target.lanes);
  InputGrad f = {.s = s, .plain = conv_is_plain(s), .in = s->in.channels / s->groups, .out = s->out.channels / s->groups};
  f.dy = loop_buffer(k, "dy", LOOP_IN, LOOP_ELEMENT_F32);
  f.w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  f.dx = loop_buffer(k, "dx", LOOP_OUT, LOOP_ELEMENT_F32);
  f.transposed = loop_shared(k, "transposed", (int64_t)s->kernel_y * s->kernel_x * f.in * s->out.channels);
  /* The padded image starts where the first tap of the first output pixel reads: `pad - shift` pixels before dx. */
  int64_t before_y = s->pad_y - s->shift_y, before_x = s->pad_x - s->shift_x;
  int64_t skip_y = before_y > 0 ? before_y : 0, skip_x = before_x > 0 ? before_x : 0;     /* rows and columns before dx */
  int64_t start_y = before_y < 0 ? -before_y : 0, start_x = before_x < 0 ? -before_x : 0; /* of dx that nothing reaches */
  int64_t reach_y = start_y + (int64_t)(s->out.height - 1) * s->stride_y + (int64_t)s->dilation * (s->kernel_y - 1) + 1;
  int64_t reach_x = start_x + (int64_t)(s->out.width - 1) * s->stride_x + (int64_t)s->dilation * (s->kernel_x - 1) + 1;
  f.height = reach_y > skip_y + s->in.height ? reach_y : skip_y + s->in.height;
  f.width = reach_x > skip_x + s->in.width ? reach_x : skip_x + s->in.width;
  if (!f.plain) f.padded = loop_shared(k, "padded", f.height * f.width * s->in.channels);
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 16);
  transpose(k, &f);
  LoopValue image = build_images(k, s->images);
  if (!f.plain) conv_clear(k, f.padded, 0, f.height * f.width * s->in.channels);
  LoopValue y = build_for(k, 0, s->out.height, 1);
  LoopValue group = build_for(k, 0, s->groups, 1);
  BlockLoop blocks[3];
  int count = build_blocks(f.in, k->lanes, k->lanes >= 16 ? 2 : 1, blocks);
  f.start = (start_y * f.width + start_x) * s->in.channels;
  f.skip = (skip_y * f.width + skip_x) * s->in.channels;
  for (int b = 0; b < count; b++) {
    int32_t most = k->lanes >= 16 ? (blocks[b].blocks == 2 ? 8 : 16) : 6;
    TileLoop tiles[2];
    int tile_count = build_tiles(s->out.width, most, tiles);
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    for (int t = 0; t < tile_count; t++) {
      LoopValue x = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
      input_tile(k, &f, acc, image, y, x, group, c, tiles[t].size, &blocks[b]);
      loop_end(k);
    }
    loop_end(k);
  }
  loop_end(k);
  loop_end(k);
  if (!f.plain) copy_inside(k, &f, image);
  loop_end(k);
  return k;
}
