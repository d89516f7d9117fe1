/* Gradients of pools, a few rows of the input at a time and without adding into memory. A window's share first goes to its rows,
 * then to the columns of each: `given` is, for a row of the input and every column of windows, what the windows give to that row.
 *
 * Of a largest pooling, the first of equal largest pixels in row-major order is the first, in its row, of the first row whose own
 * largest pixel is the window's. So a row's peaks (its largest in each window's columns) say which row a window's gradient goes
 * to: the row whose peak is greater than those before it and not less than those after it; and a row's pixels say the column in
 * the same way. Peaks of the rows around stand in a ring, and pixels of a few rows in another, padded. Rows and columns outside
 * the image hold -infinity, which wins nothing. Rows that no window of the output holds have peaks of +infinity, so that windows
 * outside the output, whose gradients are read from the nearest row inside, give nothing. */
#include "kernels/cpu/pool_grad_private.h"
#include "kernels/family_private.h"

#include <string.h>

enum { MOST_ROWS = GRADIENT_ROWS + POOL_SMALL - 1, MOST_AROUND = MOST_ROWS + 2 * (POOL_SMALL - 1) };

/* A step's rows of the input, first = rows * step - lead * rows, at one block of channels. */
typedef struct GradientRows {
  LoopValue image, first, c, lanes;
  LoopValue factor[4]; /* of `bn`: its coefficients of these channels */
  int32_t count;
  LoopValue peaks[MOST_AROUND];  /* where the peaks of rows first - delay .. first + count - 1 + delay begin */
  LoopValue window[MOST_AROUND]; /* the output's rows whose windows hold them, from the uppermost on: those inside, */
  LoopValue weight[MOST_AROUND]; /* and what their gradients weigh in a mean: 0 where they are outside */
  int32_t uppermost;             /* `window` 0, counted from the one that begins with row first - pad */
} GradientRows;

/* The window of which row first + j is row `tap`. */
static int32_t window_of(const PoolGradient *g, const GradientRows *r, int32_t j, int32_t tap) {
  int32_t raised = POOL_SMALL * g->s->stride_y; /* C rounds quotients to 0 */
  return (j + g->s->pad_y - tap + raised) / g->s->stride_y - POOL_SMALL - r->uppermost;
}

/* ---- what windows give to rows ---- */

/* What is loaded or found out once for all rows at one column of windows. */
typedef struct Column {
  LoopValue peak[MOST_AROUND], gradient[MOST_AROUND];
  LoopValue beats[MOST_AROUND][POOL_SMALL]; /* whether peak i + d is greater than peak i */
} Column;

static LoopValue peak_at(const PoolGradient *g, const GradientRows *r, Column *column, LoopValue x, int32_t j, int32_t i) {
  LoopKernel *k = g->k;
  if (column->peak[i] == LOOP_NONE) {
    LoopValue whole = loop_int(k, k->lanes);
    LoopValue at = AT(k, j * g->across, {r->peaks[i], 1}, {x, g->across}, {r->c, 1});
    column->peak[i] = loop_load_lanes(k, g->peaks, at, whole, 0);
  }
  return column->peak[i];
}

/* dz = c0 dn + (c1 (z - c2) + c3), dn as loaded */
static LoopValue through_bn(const PoolGradient *g, const GradientRows *r, LoopValue dn, LoopValue x, int32_t j, int32_t i) {
  LoopKernel *k = g->k;
  Plane plane = g->s->out;
  plane.stride = g->s->z_stride;
  LoopValue nothing = loop_int(k, 0);
  LoopValue base = plane_index(k, &plane, r->image, r->window[i], nothing, r->c);
  LoopValue at = AT(k, (int64_t)j * plane.stride, {base, 1}, {x, plane.stride});
  LoopValue z = loop_load_lanes(k, g->z, at, r->lanes, 0);
  z = loop_op2(k, LOOP_SUB, z, r->factor[2]);
  z = loop_op3(k, LOOP_FMA, r->factor[1], z, r->factor[3]);
  return loop_op3(k, LOOP_FMA, r->factor[0], dn, z);
}

static LoopValue gradient_at(const PoolGradient *g, const GradientRows *r, Column *column, LoopValue x, int32_t j, int32_t i) {
  LoopKernel *k = g->k;
  if (column->gradient[i] == LOOP_NONE) {
    LoopValue nothing = loop_int(k, 0);
    LoopValue base = plane_index(k, &g->s->out, r->image, r->window[i], nothing, r->c);
    LoopValue at = AT(k, (int64_t)j * g->s->out.stride, {base, 1}, {x, g->s->out.stride});
    LoopValue value = loop_load_lanes(k, g->dy, at, r->lanes, 0);
    column->gradient[i] = g->s->bn ? through_bn(g, r, value, x, j, i) : value;
  }
  return column->gradient[i];
}

/* Whether the bits say that the one at `tap` of `count` is the first largest of them: `beats` gives whether, of two, the later is
 * greater. LOOP_NONE where it is alone. */
static LoopValue first_largest(LoopKernel *k, const LoopValue *later_is_greater, int32_t tap, int32_t count) {
  LoopValue wins = LOOP_NONE;
  for (int32_t i = 0; i < count; i++) {
    if (i == tap) continue;
    LoopValue ahead = i < tap ? later_is_greater[i] : loop_op1(k, LOOP_NOT, later_is_greater[i]);
    wins = wins == LOOP_NONE ? ahead : loop_op2(k, LOOP_AND, wins, ahead);
  }
  return wins;
}

/* sum, or the sum and `value` where the bit holds */
static LoopValue add_where(LoopKernel *k, LoopValue sum, LoopValue bit, LoopValue value) {
  LoopValue zero = loop_f32(k, 0);
  LoopValue more = sum == LOOP_NONE ? value : loop_op2(k, LOOP_ADD, sum, value);
  if (bit == LOOP_NONE) return more;
  return loop_op3(k, LOOP_SELECT, bit, more, sum == LOOP_NONE ? zero : sum);
}

/* Whether the peak of row first + row is its window's as row `tap` of it. */
static LoopValue wins_window(const PoolGradient *g, const GradientRows *r, Column *column, LoopValue x, int32_t j, int32_t row,
                             int32_t tap) {
  LoopValue bits[POOL_SMALL];
  for (int32_t i = 0; i < g->s->kernel_y; i++) {
    int32_t own = row + g->delay, other = own + i - tap, low = i < tap ? other : own, high = i < tap ? own : other;
    LoopValue *beats = &column->beats[low][high - low];
    if (i != tap && *beats == LOOP_NONE) {
      LoopValue later = peak_at(g, r, column, x, j, high), earlier = peak_at(g, r, column, x, j, low);
      *beats = loop_op2(g->k, LOOP_GT, later, earlier);
    }
    bits[i] = *beats;
  }
  return first_largest(g->k, bits, tap, g->s->kernel_y);
}

static LoopValue given_to(const PoolGradient *g, const GradientRows *r, Column *column, LoopValue x, int32_t j, int32_t row) {
  const PoolSpec *s = g->s;
  LoopKernel *k = g->k;
  LoopValue sum = LOOP_NONE;
  for (int32_t tap = (row + s->pad_y) % s->stride_y; tap < s->kernel_y; tap += s->stride_y) {
    int32_t window = window_of(g, r, row, tap);
    LoopValue gradient = gradient_at(g, r, column, x, j, window);
    if (s->max) {
      LoopValue wins = wins_window(g, r, column, x, j, row, tap);
      sum = add_where(k, sum, wins, gradient);
    } else if (sum == LOOP_NONE) {
      sum = loop_op2(k, LOOP_MUL, gradient, r->weight[window]);
    } else {
      sum = loop_op3(k, LOOP_FMA, gradient, r->weight[window], sum);
    }
  }
  return sum == LOOP_NONE ? loop_f32(k, 0) : sum;
}

/* A mean's windows that leave the image to the left or right have a larger share for each column inside. */
static void raise_edges(const PoolGradient *g, const GradientRows *r) {
  const PoolSpec *s = g->s;
  LoopKernel *k = g->k;
  LoopValue whole = loop_int(k, k->lanes);
  for (int32_t i = 0; i < r->count * s->out.width; i++) {
    int32_t x = i % s->out.width, left = x * s->stride_x - s->pad_x, right = left + s->kernel_x;
    int32_t columns = (right < s->in.width ? right : s->in.width) - (left > 0 ? left : 0);
    if (columns == s->kernel_x) continue;
    LoopValue at = AT(k, i / s->out.width * gradient_given_row(g) + (g->given_left + x) * g->across, {r->c, 1});
    LoopValue value = loop_load_lanes(k, g->given, at, whole, 0);
    LoopValue factor = loop_f32(k, (double)s->kernel_x / columns);
    LoopValue raised = loop_op2(k, LOOP_MUL, value, factor);
    loop_store_lanes(k, g->given, at, raised, whole);
  }
}

static void give_to_rows(const PoolGradient *g, const GradientRows *r) {
  LoopKernel *k = g->k;
  LoopValue whole = loop_int(k, k->lanes);
  TileLoop tiles[2];
  int count = build_tiles(g->s->out.width, GRADIENT_PIXELS, tiles);
  for (int i = 0; i < count; i++) {
    LoopValue x = build_for(k, tiles[i].from, tiles[i].below, tiles[i].size);
    for (int32_t j = 0; j < tiles[i].size; j++) {
      Column column;
      memset(&column, 0xff, sizeof column); /* LOOP_NONE */
      for (int32_t row = 0; row < r->count; row++) {
        LoopValue value = given_to(g, r, &column, x, j, row);
        LoopValue at = AT(k, row * gradient_given_row(g) + (g->given_left + j) * g->across, {x, g->across}, {r->c, 1});
        loop_store_lanes(k, g->given, at, value, whole);
      }
    }
    loop_end(k);
  }
  if (!g->s->max) raise_edges(g, r);
}

/* ---- what a row gives to its pixels ---- */

/* A row, and what is loaded or found out of pixels side by side in it. */
typedef struct Beside {
  LoopValue given, pixels, c; /* where the row begins in scratch */
  LoopValue value[GRADIENT_PIXELS + 2 * POOL_SMALL];
  LoopValue beats[GRADIENT_PIXELS + 2 * POOL_SMALL][POOL_SMALL]; /* whether pixel i + d is greater than pixel i */
  LoopValue window[GRADIENT_PIXELS + 2 * POOL_SMALL];
} Beside;

static LoopValue value_beside(const PoolGradient *g, Beside *b, LoopValue x, int32_t i) {
  LoopKernel *k = g->k;
  if (b->value[i] == LOOP_NONE) {
    LoopValue whole = loop_int(k, k->lanes);
    LoopValue at = AT(k, i * g->across, {b->pixels, 1}, {x, g->across}, {b->c, 1});
    b->value[i] = loop_load_lanes(k, g->pixels, at, whole, 0);
  }
  return b->value[i];
}

/* Whether pixel j is the first largest of a window's columns as the one at `tap`. */
static LoopValue wins_row(const PoolGradient *g, Beside *b, LoopValue x, int32_t j, int32_t tap) {
  LoopValue bits[POOL_SMALL];
  for (int32_t i = 0; i < g->s->kernel_x; i++) {
    int32_t own = j + g->s->kernel_x - 1, other = own + i - tap, low = i < tap ? other : own, high = i < tap ? own : other;
    LoopValue *beats = &b->beats[low][high - low];
    if (i != tap && *beats == LOOP_NONE) {
      LoopValue later = value_beside(g, b, x, high), earlier = value_beside(g, b, x, low);
      *beats = loop_op2(g->k, LOOP_GT, later, earlier);
    }
    bits[i] = *beats;
  }
  return first_largest(g->k, bits, tap, g->s->kernel_x);
}

/* The gradient of pixel x + j; `first` is the window column (x + pad) / stride. */
static LoopValue pixel_gradient(const PoolGradient *g, Beside *b, LoopValue x, LoopValue first, int32_t j) {
  const PoolSpec *s = g->s;
  LoopKernel *k = g->k;
  LoopValue whole = loop_int(k, k->lanes), sum = LOOP_NONE;
  for (int32_t tap = (j + s->pad_x) % s->stride_x; tap < s->kernel_x; tap += s->stride_x) {
    int32_t window = (j + s->pad_x - tap + s->stride_x * POOL_SMALL) / s->stride_x - POOL_SMALL;
    LoopValue *given = &b->window[window + POOL_SMALL];
    if (*given == LOOP_NONE) {
      LoopValue at = AT(k, (g->given_left + window) * g->across, {b->given, 1}, {first, g->across}, {b->c, 1});
      *given = loop_load_lanes(k, g->given, at, whole, 0);
    }
    LoopValue wins = s->max ? wins_row(g, b, x, j, tap) : LOOP_NONE;
    sum = add_where(k, sum, wins, *given);
  }
  return sum == LOOP_NONE ? loop_f32(k, 0) : sum;
}

static void give_to_pixels(const PoolGradient *g, const GradientRows *r) {
  const PoolSpec *s = g->s;
  LoopKernel *k = g->k;
  LoopValue nothing = loop_int(k, 0), stride = loop_int(k, s->stride_x);
  LoopValue row = build_for(k, 0, r->count, 1);
  LoopValue y = AT(k, 0, {r->first, 1}, {row, 1});
  LoopValue base = plane_index(k, &g->to, r->image, y, nothing, r->c);
  LoopValue given = AT(k, 0, {row, gradient_given_row(g)}), pixels = s->max ? gradient_pixels(g, y) : nothing;
  TileLoop tiles[2];
  int count = build_tiles(s->in.width, GRADIENT_PIXELS / s->stride_x * s->stride_x, tiles);
  for (int i = 0; i < count; i++) {
    LoopValue x = build_for(k, tiles[i].from, tiles[i].below, tiles[i].size);
    LoopValue first = loop_op2(k, LOOP_IDIV, x, stride);
    Beside beside;
    memset(&beside, 0xff, sizeof beside); /* LOOP_NONE */
    beside.given = given, beside.pixels = pixels, beside.c = r->c;
    for (int32_t j = 0; j < tiles[i].size; j++) {
      LoopValue gradient = pixel_gradient(g, &beside, x, first, j);
      LoopValue at = AT(k, (int64_t)j * g->to.stride, {base, 1}, {x, g->to.stride});
      if (s->add) {
        LoopValue old = loop_load_lanes(k, g->dx, at, r->lanes, 0);
        gradient = loop_op2(k, LOOP_ADD, old, gradient);
      }
      loop_store_lanes(k, g->dx, at, gradient, r->lanes);
    }
    loop_end(k);
  }
  loop_end(k);
}

/* ---- steps ---- */

/* 1 / (rows of the window inside the image * its columns), 0 for a window outside the output */
static LoopValue window_weight(const PoolGradient *g, LoopValue wanted, LoopValue window) {
  const PoolSpec *s = g->s;
  LoopKernel *k = g->k;
  LoopValue top = AT(k, -(int64_t)s->pad_y, {window, s->stride_y});
  LoopValue bottom = AT(k, s->kernel_y, {top, 1});
  LoopValue from = pool_low(k, top, 0), below = pool_high(k, bottom, s->in.height);
  LoopValue pixels = AT(k, 0, {below, s->kernel_x}, {from, -s->kernel_x});
  LoopValue number = loop_op1(k, LOOP_TO_F32, pixels);
  LoopValue one = loop_f32(k, 1), zero = loop_f32(k, 0);
  LoopValue share = loop_op2(k, LOOP_DIV, one, number);
  LoopValue is_inside = loop_op2(k, LOOP_IEQ, wanted, window);
  return loop_op3(k, LOOP_SELECT, is_inside, share, zero);
}

/* The first `count` rows of a step, whose number is counted from the first with rows of the image. */
static GradientRows gradient_rows(const PoolGradient *g, LoopValue image, LoopValue step, int32_t count) {
  const PoolSpec *s = g->s;
  LoopKernel *k = g->k;
  GradientRows r = {.image = image, .count = count};
  r.first = AT(k, 0, {step, g->rows});
  r.uppermost = window_of(g, &r, 0, s->kernel_y - 1);
  int32_t windows = (count - 1 + s->pad_y) / s->stride_y - r.uppermost + 1;
  for (int32_t i = 0; i < windows; i++) {
    LoopValue wanted = AT(k, i + r.uppermost, {step, g->rows / s->stride_y});
    LoopValue low = pool_low(k, wanted, 0);
    r.window[i] = pool_high(k, low, s->out.height - 1);
    if (!s->max) r.weight[i] = window_weight(g, wanted, r.window[i]);
  }
  for (int32_t i = 0; i < count + 2 * g->delay && s->max; i++) r.peaks[i] = gradient_peaks(g, r.first, i - g->delay);
  return r;
}

static void gradient_step(const PoolGradient *g, LoopValue image, LoopValue step, int32_t count, LoopValue c, LoopValue lanes) {
  GradientRows r = gradient_rows(g, image, step, count);
  r.c = c;
  r.lanes = lanes;
  for (int i = 0; i < 4 && g->s->bn; i++) {
    LoopValue at = AT(g->k, (int64_t)i * g->s->out.channels, {c, 1});
    r.factor[i] = loop_load_lanes(g->k, g->coefficients, at, lanes, 0);
  }
  give_to_rows(g, &r);
  give_to_pixels(g, &r);
}

/* First the rows below become known, then the rows whose neighbours all are get their gradients. */
static void gradient_image(const PoolGradient *g, LoopValue image) {
  const PoolSpec *s = g->s;
  LoopKernel *k = g->k;
  int32_t whole = s->in.height / g->rows, rest = s->in.height % g->rows;
  BlockLoop blocks[3];
  int block_count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  LoopValue number = build_for(k, 0, g->lead + whole + (rest > 0), 1);
  LoopValue step = AT(k, -(int64_t)g->lead, {number, 1});
  for (int b = 0; b < block_count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue lanes = loop_int(k, blocks[b].count);
    if (s->max) {
      LoopValue i = build_for(k, 0, g->rows, 1);
      LoopValue y = AT(k, g->delay, {step, g->rows}, {i, 1});
      gradient_know_row(g, image, y, c, lanes);
      loop_end(k);
    }
    LoopValue is_whole = pool_inside(k, step, whole);
    loop_if(k, is_whole);
    gradient_step(g, image, step, g->rows, c, lanes);
    loop_end(k);
    if (rest) {
      LoopValue last = loop_int(k, whole);
      LoopValue is_last = loop_op2(k, LOOP_IEQ, step, last);
      loop_if(k, is_last);
      gradient_step(g, image, step, rest, c, lanes);
      loop_end(k);
    }
    loop_end(k);
  }
  loop_end(k);
}

/* Scratch at a task's start: the paddings, which no row overwrites. */
static void gradient_begin(const PoolGradient *g) {
  const PoolSpec *s = g->s;
  LoopKernel *k = g->k;
  LoopValue whole = loop_int(k, k->lanes), zero = loop_f32(k, 0), least = loop_f32(k, (double)-INFINITY);
  int32_t sides = g->given_left + g->given_right, padding = s->max ? s->kernel_x - 1 : 0;
  LoopValue c = build_for(k, 0, g->across, k->lanes);
  for (int32_t i = 0; i < sides * g->rows; i++) {
    int32_t column = i % sides, row = i / sides;
    if (column >= g->given_left) column += s->out.width;
    LoopValue at = AT(k, row * gradient_given_row(g) + column * g->across, {c, 1});
    loop_store_lanes(k, g->given, at, zero, whole);
  }
  for (int32_t i = 0; i < 2 * padding * (g->delay + g->rows); i++) {
    int32_t column = i % (2 * padding), row = i / (2 * padding);
    if (column >= padding) column += s->in.width;
    LoopValue at = AT(k, row * gradient_pixels_row(g) + column * g->across, {c, 1});
    loop_store_lanes(k, g->pixels, at, least, whole);
  }
  loop_end(k);
}

LoopKernel *cpu_pool_grad(const PoolSpec *s, Arena *arena) {
  if (!pool_is_small(s)) {
    if (s->bn || s->add) die("a large pool's gradient with a BN or a sum");
    return pool_any_grad(s, arena);
  }
  LoopKernel *k = loop_new(arena, s->max ? "max_pool_grad" : "avg_pool_grad", s->target.lanes);
  PoolGradient g = {.s = s, .k = k, .to = pool_gradient_plane(s), .across = pool_across(s)};
  g.dy = loop_buffer(k, s->bn ? "dn" : "dy", LOOP_IN, LOOP_ELEMENT_F32);
  if (s->bn) {
    g.z = loop_buffer(k, "z", LOOP_IN, LOOP_ELEMENT_F32);
    g.coefficients = loop_buffer(k, "coefficients", LOOP_IN, LOOP_ELEMENT_F32);
  }
  if (s->max) g.in = loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32);
  g.dx = loop_buffer(k, "dx", s->add ? LOOP_INOUT : LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t last = (s->in.width - 1 + s->pad_x) / s->stride_x;
  g.given_left = s->kernel_x - 1;
  g.given_right = last < s->out.width ? 0 : last - s->out.width + 1;
  g.rows = (GRADIENT_ROWS + s->stride_y - 1) / s->stride_y * s->stride_y;
  g.delay = s->max ? s->kernel_y - 1 : 0;
  g.lead = (2 * g.delay + g.rows - 1) / g.rows;
  g.given = loop_shared(k, "given", g.rows * gradient_given_row(&g));
  if (s->max) {
    g.pixels = loop_shared(k, "pixels", (g.delay + g.rows) * gradient_pixels_row(&g));
    g.peaks = loop_shared(k, "peaks", (2 * g.delay + g.rows) * gradient_peaks_row(&g));
  }
  gradient_begin(&g);
  LoopValue image = build_images(k, s->images);
  gradient_image(&g, image);
  loop_end(k);
  return k;
}
