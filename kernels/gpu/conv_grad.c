/* The weight's gradient of dense and grouped convolutions: (tap, input channel) x output channels, summed over the pixels of a
 * band, a partial a task. Where D is small, teams of warps divide the pixels of a chunk and add what they have in their order. */
#include "kernels/gpu/conv_private.h"

#include "runtime/base/err.h"

enum {
  MOST_ROWS = 64, /* of a tile of D */
  MOST_TEAMS = 32,
  SHARED_DEEP = 24 << 10,   /* bytes of shared arrays that more than DEEP pixels of a chunk may take */
  SHARED_DOUBLE = 44 << 10, /* or less than that */
  DEEP = 32,
  MOST_MOVED = 32, /* elements of a factor that one thread moves; in FP32, where each takes registers to find, half, of both */
};

typedef struct Weights {
  const ConvSpec *s;
  GpuWindow x, dy;
  GpuWindowTile x_tile, dy_tile;
  GpuProduct product;
  int32_t source, gradient, partial; /* buffers */
  LoopValue first_row, first_column;
} Weights;

/* ---- plan ---- */

/* Pixels of a chunk: many, but few where each vector of x has to be found among taps and strides. */
static bool divide_sum(GpuProduct *p, const GpuWindow *x) {
  int64_t pixels = x->pixels;
  for (int64_t depth = x->single ? 128 : DEEP; depth >= 16; depth /= 2) {
    if ((depth > 16 && depth / 2 >= pixels) || depth % (p->teams * gpu_product_step(p))) continue;
    int64_t bytes = gpu_product_divide(p, pixels, depth), most = p->rows > p->columns ? p->rows : p->columns;
    if (depth > DEEP && (bytes > SHARED_DEEP || most * depth > MOST_MOVED * p->lanes)) continue;
    bool many = p->products == PRODUCTS_FP32 && 2 * (p->rows + p->columns) * depth > MOST_MOVED * p->lanes;
    if (many && depth > 16) continue;
    if (bytes <= SHARED_DOUBLE) return true;
  }
  return false;
}

static int64_t tile_rows(Products products, int64_t rows, int64_t tiles) {
  int64_t each = (rows + tiles - 1) / tiles, power = 8;
  if (products != PRODUCTS_FP32) return (each + 15) / 16 * 16;
  while (power < each) power *= 2;
  return power;
}

static Weights plan(const ConvSpec *s) {
  Weights f = {.s = s, .x = gpu_window_new(s, false), .dy = gpu_window_plain(s, &s->out)};
  GpuProduct *p = &f.product;
  p->products = s->target.products;
  p->element = p->products == PRODUCTS_BF16 ? LOOP_ELEMENT_BF16 : LOOP_ELEMENT_F32;
  int64_t columns = gpu_product_columns(p->products, f.dy.columns), tiles = (f.x.columns + MOST_ROWS - 1) / MOST_ROWS, rows;
  bool fits = false;
  do {
    rows = tile_rows(p->products, f.x.columns, tiles++);
    for (int32_t teams = MOST_TEAMS; teams >= 1 && !fits; teams /= 2)
      fits = gpu_product_plan(p, &s->target, rows, columns, 4, teams) && divide_sum(p, &f.x);
  } while (!fits && rows > 16);
  if (!fits) die("a weight's gradient of %d threads has no tile", s->target.lanes);
  f.x_tile = (GpuWindowTile){.group = LOOP_NONE, .pixels = p->depth, .columns = p->rows};
  f.dy_tile = (GpuWindowTile){.group = LOOP_NONE, .pixels = p->depth, .columns = p->columns};
  return f;
}

/* ---- factors: pixels are the terms; staged along the pixels for tensor cores, along the channels else ---- */

static void vector_of(LoopKernel *k, const GpuProduct *p, LoopValue item, int64_t length, int32_t width, LoopValue *pixel,
                      LoopValue *at) {
  bool across = p->products != PRODUCTS_FP32;
  LoopValue part = across ? gpu_div(k, item, p->depth) : gpu_mod(k, item, length / width);
  *pixel = across ? gpu_mod(k, item, p->depth) : gpu_div(k, item, length / width);
  *at = AT(k, 0, {part, width});
}

static void place_x(LoopKernel *k, const void *context, LoopValue item, LoopValue chunk, GpuMove *move) {
  const Weights *f = context;
  const GpuProduct *p = &f->product;
  LoopValue pixel, row;
  vector_of(k, p, item, p->rows, f->x.width, &pixel, &row);
  LoopValue term = AT(k, 0, {chunk, p->depth}, {pixel, 1});
  gpu_window_place(k, &f->x, &f->x_tile, term, f->first_row, row, move);
  bool rows = p->products != PRODUCTS_FP32;
  move->to = rows ? AT(k, 0, {row, p->a_stride}, {pixel, 1}) : AT(k, 0, {pixel, p->a_stride}, {row, 1});
}

static void place_dy(LoopKernel *k, const void *context, LoopValue item, LoopValue chunk, GpuMove *move) {
  const Weights *f = context;
  const GpuProduct *p = &f->product;
  LoopValue pixel, column;
  vector_of(k, p, item, p->columns, f->dy.width, &pixel, &column);
  LoopValue term = AT(k, 0, {chunk, p->depth}, {pixel, 1});
  gpu_window_place(k, &f->dy, &f->dy_tile, term, f->first_column, column, move);
  if (p->products == PRODUCTS_FP32) {
    move->to = AT(k, 0, {pixel, p->b_stride}, {column, 1});
  } else {
    LoopValue at = gpu_product_row(k, p, column);
    move->to = AT(k, 0, {at, p->b_stride}, {pixel, 1});
  }
}

static GpuFactor factor(const Weights *f, bool is_dy) {
  const GpuProduct *p = &f->product;
  bool rows = p->products != PRODUCTS_FP32;
  GpuFactor factor = {.array = is_dy ? p->b : p->a, .buffer = is_dy ? f->gradient : f->source};
  factor.size = is_dy ? p->b_size : p->a_size;
  factor.width = is_dy ? f->dy.width : f->x.width;
  factor.items = (is_dy ? p->columns : p->rows) * p->depth / factor.width;
  factor.apart = rows ? (is_dy ? p->b_stride : p->a_stride) : 0;
  for (int32_t i = 0; rows && i < factor.width; i++) factor.offset[i] = (is_dy ? gpu_product_row_of(p, i) : i) * factor.apart;
  factor.place = is_dy ? place_dy : place_x;
  factor.context = f;
  return factor;
}

/* ---- the kernel ---- */

static void store(LoopKernel *k, const Weights *f) {
  const GpuProduct *p = &f->product;
  int64_t out = f->s->out.channels;
  LoopValue task = loop_task(k);
  GpuPiece piece = gpu_product_results(k, p);
  LoopValue row = AT(k, 0, {f->first_row, 1}, {piece.row, 1});
  LoopValue column = AT(k, 0, {f->first_column, 1}, {piece.column, 1});
  LoopValue where = piece.where;
  if (f->x.columns % p->rows) {
    LoopValue exists = gpu_below(k, row, f->x.columns);
    where = gpu_both(k, where, exists);
  }
  LoopValue to = AT(k, 0, {task, f->x.columns * out}, {row, out}, {column, 1});
  if (f->x_tile.group != LOOP_NONE) to = AT(k, 0, {to, 1}, {f->x_tile.group, f->dy.columns});
  int32_t width = (int32_t)build_min(gpu_width_f32(out), gpu_width_f32(f->dy.columns));
  gpu_product_store(k, p, f->partial, to, width, where, column, f->dy.columns);
  gpu_product_results_end(k, &piece);
}

static void body(LoopKernel *k, Weights *f, const GpuFactor *a, const GpuFactor *b) {
  const ConvSpec *s = f->s;
  const GpuProduct *p = &f->product;
  if (s->groups > 1) f->x_tile.group = f->dy_tile.group = build_for(k, 0, s->groups, 1);
  f->first_row = gpu_trips(k, f->x.columns, p->rows);
  f->first_column = gpu_trips(k, f->dy.columns, p->columns);
  gpu_product_clear(k, p);
  GpuBand band = gpu_band(k, s->images, s->bands, s->out.height);
  f->x_tile.image = f->dy_tile.image = band.image;
  f->x_tile.row = f->dy_tile.row = band.row;
  gpu_product_run(k, p, a, b, false);
  gpu_band_end(k, s->images);
  gpu_product_join(k, p);
  store(k, f);
  gpu_trips_end(k, f->dy.columns, p->columns);
  gpu_trips_end(k, f->x.columns, p->rows);
  if (s->groups > 1) loop_end(k);
}

LoopKernel *gpu_conv_grad_weight(const ConvSpec *s, Arena *arena) {
  if (gpu_conv_is_depthwise(s)) return gpu_depthwise_grad_weight(s, arena);
  Weights f = plan(s);
  LoopKernel *k = loop_new(arena, "conv_grad_weight", f.product.lanes);
  f.gradient = loop_buffer(k, "dy", LOOP_IN, s->out.element);
  GpuInput input = gpu_conv_input(k, s);
  f.source = input.x;
  f.partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
  gpu_product_declare(k, &f.product);
  gpu_conv_input_tile(k, &input, f.x.width);
  GpuFactor a = factor(&f, false), b = factor(&f, true);
  a.prologue = &input.prologue;
  gpu_factor_declare(k, &a, "x_move");
  gpu_factor_declare(k, &b, "dy_move");
  body(k, &f, &a, &b);
  return k;
}
