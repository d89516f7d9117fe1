/* Pools of a GPU and their gradients, over windows in shared memory. The halo of a maximum is -inf, which is never chosen; an
 * average divides by the pixels inside. A gradient's result gathers from the windows that contain it: of an average the share
 * that was computed on the way to shared memory; of a maximum everything, where it is the first of the window's largest. */
#include "kernels/family_private.h"
#include "kernels/gpu/direct.h"
#include "kernels/gpu/window.h"

#include <math.h>

enum { CHOOSE_STRIP = 2 };

static const double LOWEST = -3.402823466e38; /* where the maximum starts, as on a CPU */

typedef struct Pool {
  const PoolSpec *s;
  Window w;
  WindowStage stage; /* x, or of a gradient dy */
  LoopElement element;
  int32_t acc, value; /* tiles */
  /* the gradient of a maximum: */
  WindowStage x;
  int64_t strip;        /* rows of windows of a thread */
  int64_t strips;       /* `strip * strips` is at least the rows of windows */
  int32_t best, chosen; /* shared `best`: the tap that was chosen, a window and channel; tiles */
  int32_t maximum;
} Pool;

/* 1 / (pixels of a window inside the image); of a window outside of all images some number. */
static LoopValue share(LoopKernel *k, const PoolSpec *s, LoopValue row, LoopValue column) {
  LoopValue zero = loop_int(k, 0), height = loop_int(k, s->in.height), width = loop_int(k, s->in.width);
  LoopValue top = AT(k, -(int64_t)s->pad_y, {row, s->stride_y});
  LoopValue left = AT(k, -(int64_t)s->pad_x, {column, s->stride_x});
  LoopValue bottom = AT(k, s->kernel_y, {top, 1});
  LoopValue right = AT(k, s->kernel_x, {left, 1});
  top = loop_op2(k, LOOP_IMAX, top, zero);
  left = loop_op2(k, LOOP_IMAX, left, zero);
  bottom = loop_op2(k, LOOP_IMIN, bottom, height);
  right = loop_op2(k, LOOP_IMIN, right, width);
  LoopValue rows = loop_op2(k, LOOP_ISUB, bottom, top);
  LoopValue columns = loop_op2(k, LOOP_ISUB, right, left);
  LoopValue pixels = loop_op2(k, LOOP_IMUL, rows, columns);
  LoopValue least = loop_int(k, 1);
  pixels = loop_op2(k, LOOP_IMAX, pixels, least);
  LoopValue number = loop_op1(k, LOOP_TO_F32, pixels);
  LoopValue one = loop_f32(k, 1);
  return loop_op2(k, LOOP_DIV, one, number);
}

static void scale(LoopKernel *k, int32_t tile, int64_t at, int64_t count, LoopValue factor) {
  LoopValue i = loop_unroll(k, 0, count, 1);
  LoopValue place = AT(k, at, {i, 1});
  LoopValue value = loop_get(k, tile, place);
  value = loop_op2(k, LOOP_MUL, value, factor);
  loop_set(k, tile, place, value);
  loop_end(k);
}

static bool plan(Pool *p, const PoolSpec *s, bool gradient, WindowBytes bytes) {
  const Plane *results = gradient ? &s->in : &s->out, *source = gradient ? &s->out : &s->in;
  WindowAxis y = {s->kernel_y, s->stride_y, 1, s->pad_y, 0, .gradient = gradient, .side = results->height};
  WindowAxis x = {s->kernel_x, s->stride_x, 1, s->pad_x, 0, .gradient = gradient, .side = results->width};
  int64_t wide = gradient ? s->stride_x : 1;
  *p = (Pool){.s = s};
  if (s->kernel_y > WINDOW_MOST_TAPS || s->kernel_x > WINDOW_MOST_TAPS) return false;
  if (gradient && (s->stride_y > 2 || s->stride_x > 2)) return false;
  p->w.y = window_axis(y, results->height / s->bands, WINDOW_STRIP / wide);
  p->w.x = window_axis(x, results->width, wide);
  p->w.total = s->in.channels;
  p->element = window_element(source, gradient && !s->max);
  int64_t unit = window_unit(source);
  if (gradient && s->max && window_unit(&s->in) > unit) unit = window_unit(&s->in);
  return window_fit(&p->w, unit, bytes, p);
}

static int64_t staged_bytes(const void *context, const Window *w) {
  const Pool *p = context;
  return window_bytes(window_staged(&w->y) * window_staged(&w->x) * w->channels, p->element);
}

static void declare(LoopKernel *k, Pool *p, const Plane *source, int32_t buffer, const char *name, bool changed) {
  const Window *w = &p->w;
  p->stage.plane = source;
  p->stage.buffer = buffer;
  p->stage.rows = window_staged(&w->y);
  p->stage.columns = window_staged(&w->x);
  p->stage.channels = w->channels;
  window_stage_declare(k, &p->stage, name, changed);
  p->acc = loop_tile(k, "acc", LOOP_F32, true, w->y.each * w->x.each * WINDOW_CHANNELS);
  p->value = loop_tile(k, "value", LOOP_F32, true, WINDOW_CHANNELS);
}

/* acc[at ..] = acc + value, or the larger */
static void join(LoopKernel *k, const Pool *p, int64_t at, bool max) {
  LoopValue c = loop_unroll(k, 0, WINDOW_CHANNELS, 1);
  LoopValue value = loop_get(k, p->value, c);
  LoopValue slot = AT(k, at * WINDOW_CHANNELS, {c, 1});
  LoopValue old = loop_get(k, p->acc, slot);
  LoopValue joined = max ? loop_op2(k, LOOP_MAX, value, old) : loop_op2(k, LOOP_ADD, old, value);
  loop_set(k, p->acc, slot, joined);
  loop_end(k);
}

/* The number of tap (ky, kx) as it stands in `best`. */
static LoopValue tap_number(LoopKernel *k, const Pool *p, int64_t ky, LoopValue kx) {
  LoopValue tap = AT(k, ky * p->s->kernel_x, {kx, 1});
  return loop_op1(k, LOOP_TO_F32, tap);
}

/* acc[at ..] += value where this tap was chosen */
static void join_chosen(LoopKernel *k, const Pool *p, int64_t at, LoopValue number) {
  LoopValue zero = loop_f32(k, 0);
  LoopValue c = loop_unroll(k, 0, WINDOW_CHANNELS, 1);
  LoopValue value = loop_get(k, p->value, c);
  LoopValue chosen = loop_get(k, p->chosen, c);
  LoopValue is = loop_op2(k, LOOP_EQ, chosen, number);
  LoopValue part = loop_op3(k, LOOP_SELECT, is, value, zero);
  LoopValue slot = AT(k, at * WINDOW_CHANNELS, {c, 1});
  LoopValue sum = loop_get(k, p->acc, slot);
  sum = loop_op2(k, LOOP_ADD, sum, part);
  loop_set(k, p->acc, slot, sum);
  loop_end(k);
}

typedef struct Column { /* what window_columns passes on */
  const Pool *p;
  LoopValue corner;
} Column;

/* All that a thread's results in its column `u` take from windows or pixels of one staged column, that of tap `kx`. */
static void column(LoopKernel *k, const void *context, int64_t u, LoopValue kx, LoopValue right) {
  const Column *place = context;
  const Pool *p = place->p;
  const Window *w = &p->w;
  bool gradient = w->y.gradient, chosen = gradient && p->s->max;
  int64_t at;
  for (int64_t row = 0; row < p->stage.rows; row++) {
    bool read = false;
    for (int64_t i = 0; i < w->y.each; i++)
      for (int64_t ky = 0; ky < w->y.kernel; ky++) {
        if (!window_meets(&w->y, i, ky, &at) || at != row) continue;
        if (!read) {
          LoopValue from = AT(k, row * p->stage.columns * w->channels, {place->corner, 1}, {right, w->channels});
          window_read(k, p->value, 0, p->stage.array, from);
          if (chosen) window_read(k, p->chosen, 0, p->best, from);
        }
        read = true;
        if (chosen) {
          LoopValue number = tap_number(k, p, ky, kx);
          join_chosen(k, p, i * w->x.each + u, number);
        } else {
          join(k, p, i * w->x.each + u, p->s->max);
        }
      }
  }
}

static void results(LoopKernel *k, const Pool *p, const WindowResults *r, const WindowTile *tile, LoopValue image,
                    LoopValue channel) {
  const Window *w = &p->w;
  WindowItem item = window_items(k, w->y.count / w->y.each, w->x.count / w->x.each, window_groups(w));
  bool lowest = p->s->max && !w->y.gradient;
  gpu_fill(k, p->acc, 0, w->y.each * w->x.each * WINDOW_CHANNELS, lowest ? LOWEST : 0);
  LoopValue corner = AT(k, 0, {item.strip, window_step(&w->y) * p->stage.columns * w->channels},
                        {item.column, window_step(&w->x) * w->channels}, {item.group, WINDOW_CHANNELS});
  Column place = {p, corner};
  window_columns(k, &w->x, column, &place);
  window_results(k, w, r, tile, &item, image, channel);
  window_items_end(k, &item);
}

/* ---- the gradient of a maximum: which tap each window chose ---- */

static int64_t round_up(int64_t v, int64_t unit) {
  return (v + unit - 1) / unit * unit;
}

/* Rows of windows of a thread: few, since each of its windows takes 8 registers. */
static int64_t strip_of(int64_t rows) {
  return build_min(rows, CHOOSE_STRIP);
}

static int64_t x_rows(const Pool *p, int64_t rows) {
  return (round_up(rows, strip_of(rows)) - 1) * p->s->stride_y + p->s->kernel_y;
}
static int64_t x_columns(const Pool *p, int64_t columns) {
  return (columns - 1) * p->s->stride_x + p->s->kernel_x;
}

static int64_t max_bytes(const void *context, const Window *w) {
  const Pool *p = context;
  int64_t rows = window_staged(&w->y), columns = window_staged(&w->x);
  int64_t x = x_rows(p, rows) * x_columns(p, columns) * w->channels;
  int64_t best = round_up(rows, strip_of(rows)) * columns * w->channels;
  return staged_bytes(p, w) + window_bytes(best, LOOP_ELEMENT_F32) + window_bytes(x, p->s->in.element);
}

static void declare_max(LoopKernel *k, Pool *p, int32_t x) {
  int64_t rows = p->stage.rows, columns = p->stage.columns;
  p->strip = strip_of(rows);
  p->strips = round_up(rows, p->strip) / p->strip;
  p->x.plane = &p->s->in;
  p->x.buffer = x;
  p->x.rows = x_rows(p, rows);
  p->x.columns = x_columns(p, columns);
  p->x.channels = p->w.channels;
  p->x.outside = -INFINITY;
  window_stage_declare(k, &p->x, "x_window", false);
  p->best = loop_shared(k, "best", p->strips * p->strip * columns * p->w.channels);
  p->maximum = loop_tile(k, "maximum", LOOP_F32, true, p->strip * WINDOW_CHANNELS);
  p->chosen = loop_tile(k, "chosen", LOOP_F32, true, p->strip * WINDOW_CHANNELS);
}

/* The window's pixels come in their order, so that the first of equal ones stays. */
static void compare(LoopKernel *k, const Pool *p, int64_t i, LoopValue number) {
  LoopValue c = loop_unroll(k, 0, WINDOW_CHANNELS, 1);
  LoopValue value = loop_get(k, p->value, c);
  LoopValue slot = AT(k, i * WINDOW_CHANNELS, {c, 1});
  LoopValue maximum = loop_get(k, p->maximum, slot);
  LoopValue chosen = loop_get(k, p->chosen, slot);
  LoopValue larger = loop_op2(k, LOOP_GT, value, maximum);
  maximum = loop_op3(k, LOOP_SELECT, larger, value, maximum);
  chosen = loop_op3(k, LOOP_SELECT, larger, number, chosen);
  loop_set(k, p->maximum, slot, maximum);
  loop_set(k, p->chosen, slot, chosen);
  loop_end(k);
}

static void choose(LoopKernel *k, const Pool *p) {
  const PoolSpec *s = p->s;
  int64_t channels = p->w.channels, rows = (p->strip - 1) * s->stride_y + s->kernel_y;
  WindowItem item = window_items(k, p->strips, p->stage.columns, window_groups(&p->w));
  gpu_fill(k, p->maximum, 0, p->strip * WINDOW_CHANNELS, -INFINITY);
  gpu_fill(k, p->chosen, 0, p->strip * WINDOW_CHANNELS, -1);
  LoopValue corner = AT(k, 0, {item.strip, p->strip * s->stride_y * p->x.columns * channels},
                        {item.column, s->stride_x * channels}, {item.group, WINDOW_CHANNELS});
  for (int64_t row = 0; row < rows; row++) {
    LoopValue kx = build_for(k, 0, s->kernel_x, 1);
    LoopValue from = AT(k, row * p->x.columns * channels, {corner, 1}, {kx, channels});
    window_read(k, p->value, 0, p->x.array, from);
    for (int64_t i = 0; i < p->strip; i++) {
      int64_t ky = row - i * s->stride_y;
      if (ky < 0 || ky >= s->kernel_y) continue;
      LoopValue number = tap_number(k, p, ky, kx);
      compare(k, p, i, number);
    }
    loop_end(k);
  }
  LoopValue to =
      AT(k, 0, {item.strip, p->strip * p->stage.columns * channels}, {item.column, channels}, {item.group, WINDOW_CHANNELS});
  LoopValue always = gpu_true(k);
  for (int64_t i = 0; i < p->strip; i++) {
    LoopValue at = AT(k, i * p->stage.columns * channels, {to, 1});
    gpu_write(k, p->best, at, p->chosen, i * WINDOW_CHANNELS, WINDOW_CHANNELS, always);
  }
  window_items_end(k, &item);
}

/* ---- kernels ---- */

static void body(LoopKernel *k, const Pool *p, const WindowResults *r) {
  const PoolSpec *s = p->s;
  bool chosen = p->w.y.gradient && s->max;
  LoopValue channel = window_blocks(k, &p->w);
  GpuBand band = gpu_band(k, s->images, s->bands, r->plane->height);
  WindowTile tile = window_tiles(k, &p->w, &band);
  loop_phase(k, "stage");
  window_stage(k, &p->stage, band.image, tile.staged_row, tile.staged_column, channel);
  if (chosen) {
    LoopValue row = AT(k, -(int64_t)s->pad_y, {tile.staged_row, s->stride_y});
    LoopValue left = AT(k, -(int64_t)s->pad_x, {tile.staged_column, s->stride_x});
    window_stage(k, &p->x, band.image, row, left, channel);
  }
  if (p->stage.async || (chosen && p->x.async)) loop_wait(k);
  loop_end(k);
  if (chosen) {
    loop_phase(k, "choose");
    choose(k, p);
    loop_end(k);
  }
  loop_phase(k, "pool");
  results(k, p, r, &tile, band.image, channel);
  loop_end(k);
  window_tiles_end(k, &tile);
  gpu_band_end(k, s->images);
  window_blocks_end(k, &p->w);
}

/* The average of a forward pool. */
static void divide(LoopKernel *k, const void *context, int32_t acc, int64_t at, LoopValue row, LoopValue x) {
  LoopValue factor = share(k, context, row, x);
  scale(k, acc, at, WINDOW_CHANNELS, factor);
}

LoopKernel *gpu_pool(const PoolSpec *s, Arena *arena) {
  Pool p;
  if (!plan(&p, s, false, staged_bytes)) return direct_pool(s, arena);
  int32_t lanes = gpu_lanes(&s->target, window_threads(&p.w), WINDOW_MOST_LANES);
  LoopKernel *k = loop_new(arena, s->max ? "max_pool" : "avg_pool", lanes);
  int32_t x = loop_buffer(k, "x", LOOP_IN, s->in.element);
  int32_t y = loop_buffer(k, "y", LOOP_OUT, s->out.element);
  if (s->max) p.stage.outside = -INFINITY;
  declare(k, &p, &s->in, x, "x_window", false);
  WindowResults r = {&s->out, y, p.acc, s->max ? NULL : divide, s};
  body(k, &p, &r);
  return k;
}

/* The gradient of an average is shared out as it is staged. */
static void share_out(LoopKernel *k, const void *context, int32_t tile, int32_t width, const WindowPlace *place) {
  LoopValue factor = share(k, context, place->row, place->column);
  scale(k, tile, 0, width, factor);
}

LoopKernel *gpu_pool_grad(const PoolSpec *s, Arena *arena) {
  Pool p;
  if (!plan(&p, s, true, s->max ? max_bytes : staged_bytes)) return direct_pool_grad(s, arena);
  int64_t threads = window_threads(&p.w), windows = window_staged(&p.w.y) * window_staged(&p.w.x) * window_groups(&p.w);
  if (s->max && threads < windows / CHOOSE_STRIP) threads = windows / CHOOSE_STRIP;
  int32_t lanes = gpu_lanes(&s->target, threads, WINDOW_MOST_LANES);
  LoopKernel *k = loop_new(arena, s->max ? "max_pool_grad" : "avg_pool_grad", lanes);
  Plane plane = s->in;
  if (s->dx_stride) plane.stride = s->dx_stride;
  int32_t dy = loop_buffer(k, "dy", LOOP_IN, s->out.element);
  int32_t x = s->max ? loop_buffer(k, "x", LOOP_IN, s->in.element) : -1;
  int32_t dx = loop_buffer(k, "dx", LOOP_OUT, s->in.element);
  if (!s->max) p.stage.change = share_out;
  p.stage.context = s;
  declare(k, &p, &s->out, dy, "dy_window", !s->max);
  if (s->max) declare_max(k, &p, x);
  WindowResults r = {&plane, dx, p.acc, NULL, NULL};
  body(k, &p, &r);
  return k;
}
