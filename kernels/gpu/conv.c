/* Dense and grouped convolutions, and their input's gradient: a band's pixels x channels, summed over (tap, channel of the other
 * side). For the gradient the pixels are those of x and the source is dy: each pixel gathers from the windows that hold it, so
 * that nothing is added in memory. */
#include "kernels/gpu/conv_private.h"

#include "runtime/base/err.h"

enum {
  SHARED_SINGLE = 44 << 10, /* bytes up to which a whole sum is staged at once */
  SHARED_DOUBLE = 44 << 10, /* of two copies */
  MOST_MOVED = 16,          /* elements of the source that a thread moves for a chunk */
  MOST_SINGLE = 64,         /* terms that are staged at once */
};

typedef struct Pixels {
  const ConvSpec *s;
  bool gradient;
  const Plane *target;
  GpuWindow window;
  GpuWindowTile tile;
  GpuProduct product;
  int64_t outputs; /* channels of a group that are made */
  int32_t weights_width, target_width;
  int32_t source, w, out;
  LoopValue first_pixel, first_column; /* of the tile */
} Pixels;

/* ---- plan ---- */

/* Terms of a chunk: all of them where they fit, else half of what is staged twice, and so few that a thread moves few vectors:
 * each has addresses of its own. */
static bool divide_sum(GpuProduct *p, int64_t length) {
  int64_t unit = p->products == PRODUCTS_FP32 ? 8 : 16, whole = (length + unit - 1) / unit * unit;
  if (whole <= MOST_SINGLE && gpu_product_divide(p, length, whole) <= SHARED_SINGLE) return true;
  bool few = p->rows * 32 <= MOST_MOVED * p->lanes;
  return (few && gpu_product_divide(p, length, 32) <= SHARED_DOUBLE) || gpu_product_divide(p, length, 16) <= SHARED_DOUBLE;
}

/* The tile's rows: few beyond the band's pixels, and not many tiles. A thread of FP32 makes fewer results where it also has many
 * columns or has to find its way among taps and strides, or registers do not suffice. */
static bool divide_pixels(Pixels *f, int64_t columns, int32_t width) {
  const KernelTarget *target = &f->s->target;
  int64_t best = 0, best_cost = INT64_MAX, most = 128;
  if (target->products == PRODUCTS_FP32 && (columns >= 64 || !f->window.single)) most = 64;
  for (int64_t rows = most; rows >= 8; rows /= 2) {
    if (rows < 16 && target->products != PRODUCTS_FP32) break;
    int64_t cost = (f->window.pixels + rows - 1) / rows * (rows + 16);
    bool fits = gpu_product_plan(&f->product, target, rows, columns, width, 1) && divide_sum(&f->product, f->window.columns);
    if (!fits || cost >= best_cost) continue;
    best = rows;
    best_cost = cost;
  }
  return best > 0 && gpu_product_plan(&f->product, target, best, columns, width, 1) && divide_sum(&f->product, f->window.columns);
}

static Pixels plan(const ConvSpec *s, bool gradient) {
  const Plane *target = gradient ? &s->in : &s->out;
  Pixels f = {.s = s, .gradient = gradient, .target = target, .window = gpu_window_new(s, gradient)};
  f.outputs = target->channels / s->groups;
  f.weights_width = (int32_t)build_min(gpu_width_f32(s->out.channels), gpu_width_f32(s->out.channels / s->groups));
  f.target_width = (int32_t)build_min(gpu_plane_width(target), gpu_width(f.outputs, f.outputs, target->element));
  f.product.products = s->target.products;
  f.product.element = s->target.products == PRODUCTS_BF16 ? LOOP_ELEMENT_BF16 : LOOP_ELEMENT_F32;
  int64_t columns = gpu_product_columns(s->target.products, f.outputs);
  bool wide = s->target.products != PRODUCTS_FP32 && f.target_width == 8 && columns % 32 == 0;
  if (!divide_pixels(&f, columns, wide ? 8 : 4)) die("a convolution of %d threads has no tile", s->target.lanes);
  f.tile = (GpuWindowTile){.group = LOOP_NONE, .pixels = f.product.rows, .columns = f.product.depth};
  return f;
}

/* ---- factors ---- */

/* Vectors of a tile of `lines` x `length` elements, in the order in which threads take them: along the lines, or across. */
static void vector_of(LoopKernel *k, LoopValue item, int64_t lines, int64_t length, int32_t width, bool across, LoopValue *line,
                      LoopValue *at) {
  LoopValue part = across ? gpu_div(k, item, lines) : gpu_mod(k, item, length / width);
  *line = across ? gpu_mod(k, item, lines) : gpu_div(k, item, length / width);
  *at = AT(k, 0, {part, width});
}

static void place_source(LoopKernel *k, const void *context, LoopValue item, LoopValue chunk, GpuMove *move) {
  const Pixels *f = context;
  const GpuProduct *p = &f->product;
  bool across = p->products == PRODUCTS_FP32;
  LoopValue row, term;
  vector_of(k, item, p->rows, p->depth, f->window.width, across, &row, &term);
  LoopValue pixel = AT(k, 0, {f->first_pixel, 1}, {row, 1});
  LoopValue base = AT(k, 0, {chunk, p->depth});
  gpu_window_place(k, &f->window, &f->tile, pixel, base, term, move);
  move->to = across ? AT(k, 0, {term, p->a_stride}, {row, 1}) : AT(k, 0, {row, p->a_stride}, {term, 1});
}

/* A weight of x's channel and dy's channel; vectors lie along the latter, so in the gradient along the terms. */
static void place_weights(LoopKernel *k, const void *context, LoopValue item, LoopValue chunk, GpuMove *move) {
  const Pixels *f = context;
  const GpuProduct *p = &f->product;
  const ConvSpec *s = f->s;
  bool rows = p->products != PRODUCTS_FP32; /* staged as (column, term) */
  LoopValue column, term;
  if (f->gradient)
    vector_of(k, item, p->columns, p->depth, f->weights_width, !rows, &column, &term);
  else
    vector_of(k, item, p->depth, p->columns, f->weights_width, rows, &term, &column);
  LoopValue at = rows ? gpu_product_row(k, p, column) : column;
  move->to = rows ? AT(k, 0, {at, p->b_stride}, {term, 1}) : AT(k, 0, {term, p->b_stride}, {at, 1});
  term = AT(k, 0, {chunk, p->depth}, {term, 1});
  column = AT(k, 0, {f->first_column, 1}, {column, 1});
  move->inside = f->window.columns % p->depth ? gpu_below(k, term, f->window.columns) : LOOP_NONE;
  if (f->outputs % p->columns) {
    LoopValue exists = gpu_below(k, column, f->outputs);
    move->inside = gpu_both(k, move->inside, exists);
  }
  LoopValue in = term, out = column; /* (tap, channel of x) and the channel of dy */
  if (f->gradient) {
    LoopValue tap = gpu_div(k, term, f->window.channels);
    out = gpu_mod(k, term, f->window.channels);
    in = AT(k, 0, {tap, f->outputs}, {column, 1});
  }
  LoopValue from = AT(k, 0, {in, s->out.channels}, {out, 1});
  LoopValue group = f->tile.group;
  move->from = group == LOOP_NONE ? from : AT(k, 0, {from, 1}, {group, s->out.channels / s->groups});
}

static GpuFactor source_factor(const Pixels *f, const GpuPrologue *prologue) {
  const GpuProduct *p = &f->product;
  GpuFactor a = {.array = p->a, .buffer = f->source, .size = p->a_size, .width = f->window.width};
  a.items = p->rows * p->depth / a.width;
  a.apart = p->products == PRODUCTS_FP32 ? p->a_stride : 0;
  a.prologue = prologue;
  a.place = place_source;
  a.context = f;
  return a;
}

static GpuFactor weights_factor(const Pixels *f) {
  const GpuProduct *p = &f->product;
  bool rows = p->products != PRODUCTS_FP32;
  GpuFactor b = {.array = p->b, .buffer = f->w, .size = p->b_size, .width = f->weights_width};
  b.items = p->columns * p->depth / b.width;
  if (f->gradient != rows) b.apart = p->b_stride;
  for (int32_t i = 0; b.apart && i < b.width; i++) b.offset[i] = (rows ? gpu_product_row_of(p, i) : i) * p->b_stride;
  b.place = place_weights;
  b.context = f;
  return b;
}

/* ---- the kernel ---- */

static void store(LoopKernel *k, const Pixels *f) {
  const GpuProduct *p = &f->product;
  const Plane *target = f->target;
  int64_t line = (int64_t)target->width * target->stride;
  GpuPiece piece = gpu_product_results(k, p);
  LoopValue pixel = AT(k, 0, {f->first_pixel, 1}, {piece.row, 1});
  LoopValue column = AT(k, 0, {f->first_column, 1}, {piece.column, 1});
  LoopValue where = f->window.pixels % p->rows ? gpu_below(k, pixel, f->window.pixels) : LOOP_NONE;
  LoopValue to = AT(k, 0, {f->tile.image, target->height * line}, {f->tile.row, line}, {pixel, target->stride}, {column, 1});
  if (f->tile.group != LOOP_NONE) to = AT(k, 0, {to, 1}, {f->tile.group, f->outputs});
  gpu_product_store(k, p, f->out, to, f->target_width, where, column, f->outputs);
  gpu_product_results_end(k, &piece);
}

static void multiply(LoopKernel *k, Pixels *f, const GpuFactor *a, const GpuFactor *b) {
  const ConvSpec *s = f->s;
  const GpuProduct *p = &f->product;
  bool once = p->chunks == 1 && f->window.pixels > p->rows; /* the weights serve all tiles of pixels */
  if (s->groups > 1) f->tile.group = build_for(k, 0, s->groups, 1);
  f->first_column = gpu_trips(k, f->outputs, p->columns);
  if (once) {
    LoopValue zero = loop_int(k, 0);
    loop_phase(k, "weights");
    gpu_factor_fetch(k, b, zero, zero);
    gpu_factor_put(k, b, zero, zero);
    loop_end(k);
  }
  f->first_pixel = gpu_trips(k, f->window.pixels, p->rows);
  gpu_product_clear(k, p);
  gpu_product_run(k, p, a, b, once);
  store(k, f);
  gpu_trips_end(k, f->window.pixels, p->rows);
  gpu_trips_end(k, f->outputs, p->columns);
  if (s->groups > 1) loop_end(k);
}

static void body(LoopKernel *k, Pixels *f, const GpuPrologue *prologue) {
  GpuFactor a = source_factor(f, prologue), b = weights_factor(f);
  gpu_factor_declare(k, &a, "a_move");
  gpu_factor_declare(k, &b, "b_move");
  GpuBand band = gpu_band(k, f->s->images, f->s->bands, f->target->height);
  f->tile.image = band.image;
  f->tile.row = band.row;
  multiply(k, f, &a, &b);
  gpu_band_end(k, f->s->images);
}

LoopKernel *gpu_conv(const ConvSpec *s, Arena *arena) {
  if (gpu_conv_is_depthwise(s)) return gpu_depthwise(s, arena);
  Pixels f = plan(s, false);
  LoopKernel *k = loop_new(arena, "conv", f.product.lanes);
  GpuInput input = gpu_conv_input(k, s);
  f.source = input.x;
  f.w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  f.out = loop_buffer(k, "y", LOOP_OUT, s->out.element);
  gpu_product_declare(k, &f.product);
  gpu_conv_input_tile(k, &input, f.window.width);
  body(k, &f, &input.prologue);
  return k;
}

LoopKernel *gpu_conv_grad_input(const ConvSpec *s, Arena *arena) {
  if (gpu_conv_is_depthwise(s)) return gpu_depthwise_grad_input(s, arena);
  Pixels f = plan(s, true);
  LoopKernel *k = loop_new(arena, "conv_grad_input", f.product.lanes);
  f.source = loop_buffer(k, "dy", LOOP_IN, s->out.element);
  f.w = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  f.out = loop_buffer(k, "dx", LOOP_OUT, s->in.element);
  gpu_product_declare(k, &f.product);
  body(k, &f, NULL);
  return k;
}
