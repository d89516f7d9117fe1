/* The gradient of a ConvBlock's input, of a vector of channels over a whole image: the depthwise convolution turned around, the
 * mask of the prologue's ReLU, and what the spec wants done with it.
 *
 * Elements of the plane fall into classes, one a remainder of their row and column by the stride: those of a class take the same
 * taps, and neighbours in a class read neighbours in d's gradient. Elements of x that are not in the plane are read by no tap. */
#include "kernels/cpu/conv_block_grad_private.h"

/* ---- classes ---- */

/* Of one axis of the plane: elements first, first + stride, ...; the taps tap, tap + step, ... whose distance from them is a
 * multiple of the stride. For the tap number j the element number i reads `gradient` at i + offset - j * back. */
typedef struct Class {
  int64_t first, elements, tap, taps, step, offset, back;
} Class;

static Class class_of(int64_t first, int64_t end, int64_t kernel, int64_t stride, int64_t dilation, int64_t margin) {
  Class a = {.first = first, .elements = end > first ? (end - first + stride - 1) / stride : 0, .step = 1};
  while (a.tap < kernel && (first + a.tap * (stride - 1) * dilation) % stride) a.tap++; /* first - tap * dilation */
  while (a.step * dilation % stride) a.step++;
  if (a.tap == kernel) return a;
  a.taps = (kernel - a.tap - 1) / a.step + 1;
  a.offset = margin + (first - a.tap * dilation) / stride;
  a.back = a.step * dilation / stride;
  return a;
}

Margin block_grad_margin(int64_t first, int64_t end, int64_t out, int64_t kernel, int64_t stride, int64_t dilation) {
  int64_t over = (kernel - 1) * dilation - first, last = end > first ? (end - 1) / stride + 1 : 0;
  Margin m = {.before = over > 0 ? (over + stride - 1) / stride : 0};
  m.side = m.before + (last > out ? last : out);
  return m;
}

/* ---- a tile: some elements of a class in one row ---- */

typedef struct Tile {
  const Class *y, *x;
  LoopValue i, j; /* the first element's numbers in its class */
  int64_t pixels;
} Tile;

/* acc[i] += gradient[column i] * tap, for the taps of one row. `row` is the row of `gradient` at column j, `taps` the row of wd.
 */
static void multiply_row(LoopKernel *k, const BlockGrad *g, const Tile *t, LoopValue row, LoopValue taps, LoopValue count) {
  const Class *x = t->x;
  LoopValue lanes = loop_int(k, k->lanes);
  LoopValue *weight = ARENA_ARRAY(k->arena, LoopValue, x->taps);
  for (int64_t j = 0; j < x->taps; j++) {
    LoopValue at = AT(k, (x->tap + j * x->step) * g->s->in.channels, {taps, 1});
    weight[j] = loop_load_lanes(k, g->wd, at, count, 0);
  }
  for (int64_t column = x->offset - (x->taps - 1) * x->back; column < x->offset + t->pixels; column++) {
    LoopValue value = LOOP_NONE;
    for (int64_t j = 0; j < x->taps; j++) {
      int64_t i = column - x->offset + j * x->back;
      if (i < 0 || i >= t->pixels) continue;
      if (value == LOOP_NONE) {
        LoopValue at = AT(k, column * g->in, {row, 1});
        value = loop_load_lanes(k, g->product.to, at, lanes, 0);
      }
      LoopValue slot = loop_int(k, i);
      LoopValue sum = loop_get(k, g->acc, slot);
      sum = loop_op3(k, LOOP_FMA, value, weight[j], sum);
      loop_set(k, g->acc, slot, sum);
    }
  }
}

static void multiply(LoopKernel *k, const BlockGrad *g, const Tile *t, Channels c) {
  const Class *y = t->y;
  int64_t line = g->gradient_width * g->in, taps_row = (int64_t)g->s->kernel_x * g->s->in.channels;
  LoopValue zero = loop_f32(k, 0);
  LoopValue i = loop_unroll(k, 0, t->pixels, 1);
  loop_set(k, g->acc, i, zero);
  loop_end(k);
  if (!y->taps || !t->x->taps) return;
  LoopValue tap = build_for(k, 0, y->taps, 1);
  LoopValue row = AT(k, y->offset * line, {t->i, line}, {tap, -y->back * line}, {t->j, g->in}, {c.at, 1});
  LoopValue taps = AT(k, y->tap * taps_row, {tap, y->step * taps_row}, {c.at, 1});
  multiply_row(k, g, t, row, taps, c.count);
  loop_end(k);
}

/* totals += dx, dx * a. a is (x - mean) scale, but where the ReLU cut it off, and there dx is 0. */
static void add_totals(LoopKernel *k, const BlockGrad *g, LoopValue dx, LoopValue a) {
  LoopValue first = loop_int(k, 0), second = loop_int(k, 1);
  LoopValue sum = loop_get(k, g->totals, first);
  sum = loop_op2(k, LOOP_ADD, sum, dx);
  loop_set(k, g->totals, first, sum);
  LoopValue products = loop_get(k, g->totals, second);
  products = loop_op3(k, LOOP_FMA, dx, a, products);
  loop_set(k, g->totals, second, products);
}

/* dx at the plane's row and column 0. */
static LoopValue dx_corner(LoopKernel *k, const BlockGrad *g, LoopValue image, LoopValue channel) {
  const ConvBlockSpec *s = g->s;
  int64_t line = (int64_t)s->in.width * s->dx_stride;
  return AT(k, -s->pad_y * line - (int64_t)s->pad_x * s->dx_stride, {image, s->in.height * line}, {channel, 1});
}

/* The gradient `value` of the staged activation at `plane`: masked, and to dx. */
static void finish_element(LoopKernel *k, const BlockGrad *g, LoopValue value, LoopValue plane, LoopValue to, LoopValue count) {
  const ConvBlockSpec *s = g->s;
  LoopValue lanes = loop_int(k, k->lanes);
  LoopValue zero = loop_f32(k, 0);
  LoopValue a = loop_load_lanes(k, g->plane.array, plane, lanes, 0);
  if (s->prologue.relu) {
    LoopValue passes = loop_op2(k, LOOP_GT, a, zero);
    value = loop_op3(k, LOOP_SELECT, passes, value, zero);
  }
  if (s->gradient == BLOCK_ADD) {
    LoopValue old = loop_load_lanes(k, g->dx, to, count, 0);
    value = loop_op2(k, LOOP_ADD, old, value);
  }
  loop_store_lanes(k, g->dx, to, value, count);
  if (s->gradient == BLOCK_SUMS) add_totals(k, g, value, a);
}

static void finish(LoopKernel *k, const BlockGrad *g, const Tile *t, LoopValue image, Channels c) {
  const ConvBlockSpec *s = g->s;
  const BlockPlane *p = &g->plane;
  int64_t line = p->width * g->in, dx_line = p->step_y * s->in.width * s->dx_stride, dx_pixel = p->step_x * s->dx_stride;
  LoopValue corner = dx_corner(k, g, image, c.at);
  LoopValue dx = AT(k, t->y->first * dx_line + t->x->first * dx_pixel, {corner, 1}, {t->i, p->stride_y * dx_line},
                    {t->j, p->stride_x * dx_pixel});
  LoopValue plane =
      AT(k, t->y->first * line + t->x->first * g->in, {t->i, p->stride_y * line}, {t->j, p->stride_x * g->in}, {c.at, 1});
  LoopValue i = loop_unroll(k, 0, t->pixels, 1);
  LoopValue value = loop_get(k, g->acc, i);
  LoopValue at = AT(k, 0, {plane, 1}, {i, p->stride_x * g->in});
  LoopValue to = AT(k, 0, {dx, 1}, {i, p->stride_x * dx_pixel});
  finish_element(k, g, value, at, to, c.count);
  loop_end(k);
}

/* ---- the image ---- */

static void do_class(LoopKernel *k, const BlockGrad *g, const Class *y, const Class *x, LoopValue image, Channels c) {
  const ConvBlockSpec *s = g->s;
  if (!y->elements || !x->elements || (s->gradient == BLOCK_ADD && !(y->taps && x->taps))) return;
  TileLoop tiles[2];
  int count = build_tiles(x->elements, s->kernel_x <= 3 && s->stride_x == 1 && g->registers >= 32 ? 16 : 8, tiles);
  LoopValue i = build_for(k, 0, y->elements, 1);
  for (int t = 0; t < count; t++) {
    LoopValue j = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
    Tile tile = {y, x, i, j, tiles[t].size};
    multiply(k, g, &tile, c);
    finish(k, g, &tile, image, c);
    loop_end(k);
  }
  loop_end(k);
}

/* Loads the sums of BLOCK_SUMS into `totals`, or stores them. */
static void move_totals(LoopKernel *k, const BlockGrad *g, LoopValue channel, bool load) {
  if (g->s->gradient != BLOCK_SUMS) return;
  LoopValue lanes = loop_int(k, k->lanes);
  LoopValue i = loop_unroll(k, 0, 2, 1);
  LoopValue at = AT(k, 0, {i, g->in}, {channel, 1});
  if (load) {
    LoopValue sum = loop_load_lanes(k, g->moment_sum, at, lanes, 0);
    loop_set(k, g->totals, i, sum);
  } else {
    LoopValue sum = loop_get(k, g->totals, i);
    loop_store_lanes(k, g->moment_sum, at, sum, lanes);
  }
  loop_end(k);
}

void block_grad_input(LoopKernel *k, const BlockGrad *g, LoopValue image, Channels c) {
  const BlockPlane *p = &g->plane;
  move_totals(k, g, c.at, true);
  for (int64_t row = 0; row < p->stride_y; row++) {
    Class y = class_of(p->top + row, p->bottom, p->s.kernel_y, p->stride_y, p->dilation_y, g->top);
    for (int64_t column = 0; column < p->stride_x; column++) {
      Class x = class_of(p->left + column, p->right, p->s.kernel_x, p->stride_x, p->dilation_x, g->left);
      do_class(k, g, &y, &x, image, c);
    }
  }
  move_totals(k, g, c.at, false);
}

void block_grad_band_input(LoopKernel *k, const BlockGrad *g, Band band) {
  const ConvBlockSpec *s = g->s;
  int64_t line = (int64_t)s->in.width * s->dx_stride;
  LoopValue first = AT(k, 0, {band.image, s->in.height * line}, {band.first, line});
  LoopValue lanes = loop_int(k, k->lanes);
  TileLoop tiles[2];
  int count = build_tiles(band.rows * s->in.width, 8, tiles);
  Channels c = block_grad_channels(k, s->in.channels);
  move_totals(k, g, c.at, true);
  for (int t = 0; t < count; t++) {
    LoopValue pixel = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
    LoopValue u = loop_unroll(k, 0, tiles[t].size, 1);
    LoopValue at = AT(k, 0, {pixel, g->in}, {u, g->in}, {c.at, 1});
    LoopValue value = loop_load_lanes(k, g->product.to, at, lanes, 0);
    LoopValue to = AT(k, 0, {first, 1}, {pixel, s->dx_stride}, {u, s->dx_stride}, {c.at, 1});
    finish_element(k, g, value, at, to, c.count);
    loop_end(k);
    loop_end(k);
  }
  move_totals(k, g, c.at, false);
  loop_end(k);
}

/* ---- elements of x outside the plane ---- */

static void clear(LoopKernel *k, const BlockGrad *g, LoopValue image, Channels c, TileLoop rows, TileLoop columns) {
  const ConvBlockSpec *s = g->s;
  if (rows.from >= rows.below || columns.from >= columns.below) return;
  int64_t line = (int64_t)s->in.width * s->dx_stride;
  LoopValue zero = loop_f32(k, 0);
  LoopValue y = build_for(k, rows.from, rows.below, rows.size);
  LoopValue x = build_for(k, columns.from, columns.below, columns.size);
  LoopValue to = AT(k, 0, {image, s->in.height * line}, {y, line}, {x, s->dx_stride}, {c.at, 1});
  loop_store_lanes(k, g->dx, to, zero, c.count);
  loop_end(k);
  loop_end(k);
}

/* The elements 0 .. side-1 of one axis of x as progressions: those in the plane first, then all others. */
static int split_axis(LoopKernel *k, int64_t side, int64_t first, int64_t end, int64_t step, int64_t pad, TileLoop **parts) {
  int64_t from = first * step - pad, below = first < end ? (end - 1) * step - pad + 1 : from;
  int count = 0;
  *parts = ARENA_ARRAY(k->arena, TileLoop, step + 2);
  (*parts)[count++] = (TileLoop){from, below, (int32_t)step};
  if (first >= end) {
    (*parts)[count++] = (TileLoop){0, side, 1};
    return count;
  }
  for (int64_t i = 0; i < step; i++) {
    bool inside = i == from % step;
    (*parts)[count++] = (TileLoop){i, inside ? from : side, (int32_t)step};
    if (inside) (*parts)[count++] = (TileLoop){below - 1 + step, side, (int32_t)step};
  }
  return count;
}

void block_grad_unread(LoopKernel *k, const BlockGrad *g, LoopValue image, Channels c) {
  const ConvBlockSpec *s = g->s;
  const BlockPlane *p = &g->plane;
  if (s->gradient == BLOCK_ADD) return;
  TileLoop *rows, *columns, all = {0, s->in.width, 1};
  int row_parts = split_axis(k, s->in.height, p->top, p->bottom, p->step_y, s->pad_y, &rows);
  int column_parts = split_axis(k, s->in.width, p->left, p->right, p->step_x, s->pad_x, &columns);
  for (int i = 1; i < row_parts; i++) clear(k, g, image, c, rows[i], all);
  for (int i = 1; i < column_parts; i++) clear(k, g, image, c, rows[0], columns[i]);
}
