/* The geometry of windows, and the loops over channels, tiles and a tile's results. */
#include "kernels/gpu/window.h"

#include <assert.h>

enum {
  PREFERRED_BYTES = 26 << 10, /* of shared memory: eight blocks on a multiprocessor */
  PREFERRED_ROWS = 4,
  PREFERRED_COLUMNS = 16,
  PREFERRED_CHANNELS = 16, /* what one pixel's piece should not fall below: 64 bytes */
  MOST_CHANNELS = 64
};

static int64_t round_up(int64_t v, int64_t unit) {
  return (v + unit - 1) / unit * unit;
}
static int64_t floor_div(int64_t v, int64_t divisor) {
  return v >= 0 ? v / divisor : -((-v + divisor - 1) / divisor);
}
static int64_t floor_mod(int64_t v, int64_t divisor) {
  return v - floor_div(v, divisor) * divisor;
}

/* ---- an axis ---- */

static int64_t low(const WindowAxis *a) {
  return floor_div(a->skew - (a->kernel - 1) * a->dilation, a->stride);
}

WindowAxis window_axis(WindowAxis axis, int64_t band, int64_t each) {
  axis.aligned = !axis.gradient || band == axis.side || band % axis.stride == 0;
  axis.skew = axis.gradient && axis.aligned ? floor_mod(axis.pad - axis.shift, axis.stride) : 0;
  if (axis.gradient) {
    axis.each = round_up(each, axis.stride);
  } else {
    int64_t threads = (band + each - 1) / each;
    axis.each = (band + threads - 1) / threads;
  }
  window_axis_resize(&axis, band);
  return axis;
}

void window_axis_resize(WindowAxis *a, int64_t useful) {
  int64_t extra = a->aligned ? 0 : a->stride - 1;
  a->count = round_up(useful + extra, a->each);
  a->useful = a->count - extra;
}

int64_t window_staged(const WindowAxis *a) {
  if (!a->gradient) return (a->count - 1) * a->stride + (a->kernel - 1) * a->dilation + 1;
  return floor_div(a->skew + a->count - 1, a->stride) - low(a) + 1;
}

int64_t window_step(const WindowAxis *a) {
  return a->gradient ? a->each / a->stride : a->each * a->stride;
}

bool window_meets(const WindowAxis *a, int64_t i, int64_t tap, int64_t *at) {
  if (!a->gradient) {
    *at = i * a->stride + tap * a->dilation;
    return true;
  }
  int64_t t = a->skew + i - tap * a->dilation;
  *at = floor_div(t, a->stride) - low(a);
  return floor_mod(t, a->stride) == 0;
}

/* Whether the taps meet the only column of results at steps of one size. */
static bool is_regular(const WindowAxis *x, int64_t *first, int64_t *step) {
  int64_t at;
  if (x->each != 1 || x->kernel < 2 || !window_meets(x, 0, 0, first) || !window_meets(x, 0, 1, &at)) return false;
  *step = at - *first;
  for (int64_t kx = 2; kx < x->kernel; kx++)
    if (!window_meets(x, 0, kx, &at) || at != *first + kx * *step) return false;
  return true;
}

void window_columns(LoopKernel *k, const WindowAxis *x, WindowColumn *column, const void *context) {
  int64_t first, step, at;
  if (is_regular(x, &first, &step)) {
    LoopValue kx = build_for(k, 0, x->kernel, 1);
    LoopValue right = AT(k, first, {kx, step});
    column(k, context, 0, kx, right);
    loop_end(k);
    return;
  }
  for (int64_t u = 0; u < x->each; u++)
    for (int64_t kx = 0; kx < x->kernel; kx++) {
      if (!window_meets(x, u, kx, &at)) continue;
      LoopValue tap = loop_int(k, kx), right = loop_int(k, at);
      column(k, context, u, tap, right);
    }
}

LoopValue window_origin(LoopKernel *k, const WindowAxis *a, LoopValue from, LoopValue *first) {
  *first = from;
  if (!a->gradient) return AT(k, a->shift - a->pad, {from, a->stride});
  int64_t lift = a->shift / a->stride + 1; /* so that nothing negative is divided */
  LoopValue t = AT(k, a->pad - a->shift + lift * a->stride, {from, 1});
  if (!a->aligned) {
    LoopValue back = gpu_mod(k, t, a->stride);
    *first = loop_op2(k, LOOP_ISUB, from, back);
  }
  LoopValue lifted = gpu_div(k, t, a->stride);
  return AT(k, low(a) - lift, {lifted, 1});
}

/* ---- the extent of a tile ---- */

static int64_t half(int64_t v) {
  return (v + 1) / 2;
}

/* One step smaller, but not below the least; false where nothing is left to shrink. */
static bool shrink(Window *w, int64_t unit, int64_t rows, int64_t columns, int64_t channels) {
  if (w->channels > channels && w->channels > unit) {
    w->channels = round_up(half(w->channels), unit);
  } else if (w->y.useful > rows && w->y.useful > w->y.each) {
    window_axis_resize(&w->y, half(w->y.useful));
  } else if (w->x.useful > columns && w->x.useful > w->x.each) {
    window_axis_resize(&w->x, half(w->x.useful));
  } else {
    return false;
  }
  return true;
}

bool window_fit(Window *w, int64_t unit, WindowBytes bytes, const void *context) {
  w->channels = round_up(build_min(w->total, MOST_CHANNELS), unit);
  while (bytes(context, w) > PREFERRED_BYTES)
    if (!shrink(w, unit, PREFERRED_ROWS, PREFERRED_COLUMNS, PREFERRED_CHANNELS)) break;
  while (bytes(context, w) > GPU_MOST_SHARED)
    if (!shrink(w, unit, 1, 1, unit)) return false;
  int64_t blocks = (w->total + w->channels - 1) / w->channels;
  w->channels = round_up((w->total + blocks - 1) / blocks, unit);
  return true;
}

int64_t window_groups(const Window *w) {
  return w->channels / WINDOW_CHANNELS;
}

int64_t window_threads(const Window *w) {
  return (w->y.count / w->y.each) * (w->x.count / w->x.each) * window_groups(w);
}

/* ---- loops ---- */

LoopValue window_blocks(LoopKernel *k, const Window *w) {
  return w->channels < w->total ? build_for(k, 0, w->total, w->channels) : loop_int(k, 0);
}

void window_blocks_end(LoopKernel *k, const Window *w) {
  if (w->channels < w->total) loop_end(k);
}

/* The first result of each tile of from .. from + count, and in `*end` where it ends. */
static LoopValue tiles(LoopKernel *k, const WindowAxis *a, LoopValue from, int64_t count, LoopValue *end, int *loops) {
  LoopValue below = AT(k, count, {from, 1}), first = from;
  if (a->useful < count) {
    LoopValue step = loop_int(k, a->useful);
    first = loop_for(k, from, below, step);
    (*loops)++;
  }
  *end = LOOP_NONE;
  if (a->aligned && count % a->useful == 0) return first;
  LoopValue useful = AT(k, a->useful, {first, 1});
  *end = a->useful < count ? loop_op2(k, LOOP_IMIN, useful, below) : below;
  return first;
}

WindowTile window_tiles(LoopKernel *k, const Window *w, const GpuBand *band) {
  WindowTile t = {.loops = 0};
  t.row = tiles(k, &w->y, band->row, band->rows, &t.row_end, &t.loops);
  LoopValue left = loop_int(k, 0);
  t.column = tiles(k, &w->x, left, w->x.side, &t.column_end, &t.loops);
  t.staged_row = window_origin(k, &w->y, t.row, &t.first_row);
  t.staged_column = window_origin(k, &w->x, t.column, &t.first_column);
  return t;
}

void window_tiles_end(LoopKernel *k, const WindowTile *tile) {
  for (int i = 0; i < tile->loops; i++) loop_end(k);
}

WindowItem window_items(LoopKernel *k, int64_t strips, int64_t columns, int64_t groups) {
  WindowItem w = {.loops = 1};
  GpuItem item = gpu_items(k, strips * columns * groups, 1);
  if (item.inside != LOOP_NONE) {
    loop_if(k, item.inside);
    w.loops++;
  }
  LoopValue place = gpu_div(k, item.number, groups);
  w.group = gpu_mod(k, item.number, groups);
  w.strip = gpu_div(k, place, columns);
  w.column = gpu_mod(k, place, columns);
  return w;
}

void window_items_end(LoopKernel *k, const WindowItem *item) {
  for (int i = 0; i < item->loops; i++) loop_end(k);
}

LoopValue window_own(LoopKernel *k, const Window *w, const WindowTile *tile, LoopValue row, LoopValue column) {
  LoopValue own = LOOP_NONE;
  if (tile->row_end != LOOP_NONE) own = loop_op2(k, LOOP_ILT, row, tile->row_end);
  if (!w->y.aligned) {
    LoopValue before = loop_op2(k, LOOP_ILT, row, tile->row);
    LoopValue reached = loop_op1(k, LOOP_NOT, before);
    own = gpu_both(k, own, reached);
  }
  if (tile->column_end == LOOP_NONE) return own;
  LoopValue left = loop_op2(k, LOOP_ILT, column, tile->column_end);
  return gpu_both(k, own, left);
}
