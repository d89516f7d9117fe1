/* Pixels seen through a convolution: which element of the source belongs to a pixel and a (tap, channel). */
#include "kernels/gpu/conv_private.h"

static bool is_single(const ConvSpec *s) {
  return s->kernel_y == 1 && s->kernel_x == 1 && s->stride_y == 1 && s->stride_x == 1 && !s->pad_y && !s->pad_x && !s->shift_y &&
         !s->shift_x;
}

GpuWindow gpu_window_new(const ConvSpec *s, bool gradient) {
  const Plane *pixels = gradient ? &s->in : &s->out, *source = gradient ? &s->out : &s->in;
  GpuWindow w = {.s = s, .gradient = gradient, .source = source, .single = is_single(s)};
  w.channels = source->channels / s->groups;
  w.columns = w.channels * s->kernel_y * s->kernel_x;
  int32_t whole = gpu_plane_width(source), own = gpu_width(w.channels, whole, source->element);
  w.width = (int32_t)build_min(whole, own);
  w.side = pixels->width;
  w.pixels = (int64_t)pixels->height / s->bands * pixels->width;
  return w;
}

GpuWindow gpu_window_plain(const ConvSpec *s, const Plane *plane) {
  GpuWindow w = {.s = s, .source = plane, .single = true, .side = plane->width};
  w.channels = w.columns = plane->channels / s->groups;
  int32_t whole = gpu_plane_width(plane), own = gpu_width(w.channels, whole, plane->element);
  w.width = (int32_t)build_min(whole, own);
  w.pixels = (int64_t)plane->height / s->bands * plane->width;
  return w;
}

/* One axis of a convolution, of what is read. */
typedef struct Axis {
  int64_t kernel, stride, dilation, pad, shift, side, pixels; /* pixels: the side of the plane of pixels */
} Axis;

/* The row (or column) of x that `pixel` reads at `tap`, with the shift. */
static LoopValue forward_axis(LoopKernel *k, const Axis *a, LoopValue pixel, LoopValue tap, LoopValue *inside) {
  LoopValue at = AT(k, -a->pad, {pixel, a->stride}, {tap, a->dilation});
  int64_t last = (a->pixels - 1) * a->stride + (a->kernel - 1) * a->dilation - a->pad;
  if (a->pad || last >= a->side - a->shift) {
    LoopValue bit = gpu_inside(k, at, 0, a->side - a->shift);
    *inside = gpu_both(k, *inside, bit);
  }
  return AT(k, a->shift, {at, 1});
}

/* The row (or column) of dy whose window meets `pixel` of x at `tap`. */
static LoopValue gradient_axis(LoopKernel *k, const Axis *a, LoopValue pixel, LoopValue tap, LoopValue *inside) {
  LoopValue t = AT(k, a->pad - a->shift, {pixel, 1}, {tap, -a->dilation});
  LoopValue zero = loop_int(k, 0);
  LoopValue raised = loop_op2(k, LOOP_IMAX, t, zero);
  LoopValue at = gpu_div(k, raised, a->stride);
  if (a->stride > 1) {
    LoopValue back = AT(k, 0, {at, a->stride});
    LoopValue hit = loop_op2(k, LOOP_IEQ, back, t); /* not where t was raised from below zero, either */
    *inside = gpu_both(k, *inside, hit);
  } else {
    LoopValue hit = loop_op2(k, LOOP_IEQ, raised, t);
    *inside = gpu_both(k, *inside, hit);
  }
  LoopValue below = gpu_below(k, at, a->side);
  *inside = gpu_both(k, *inside, below);
  if (a->shift) {
    LoopValue seen = gpu_inside(k, pixel, a->shift, a->pixels);
    *inside = gpu_both(k, *inside, seen);
  }
  return at;
}

static LoopValue axis(LoopKernel *k, const GpuWindow *w, bool rows, LoopValue pixel, LoopValue tap, LoopValue *inside) {
  const ConvSpec *s = w->s;
  const Plane *pixels = w->gradient ? &s->in : &s->out, *source = w->source;
  Axis y = {s->kernel_y, s->stride_y, s->dilation, s->pad_y, s->shift_y, source->height, pixels->height};
  Axis x = {s->kernel_x, s->stride_x, s->dilation, s->pad_x, s->shift_x, source->width, pixels->width};
  const Axis *a = rows ? &y : &x;
  return w->gradient ? gradient_axis(k, a, pixel, tap, inside) : forward_axis(k, a, pixel, tap, inside);
}

/* Splits a column into tap and channel; the tap is uniform where a chunk's columns lie in one. */
static LoopValue split(LoopKernel *k, const GpuWindow *w, const GpuWindowTile *t, LoopValue base, LoopValue local,
                       LoopValue *channel) {
  LoopValue column = AT(k, 0, {base, 1}, {local, 1});
  if (w->columns == w->channels) {
    *channel = column;
    return loop_int(k, 0);
  }
  if (w->channels % t->columns) {
    *channel = gpu_mod(k, column, w->channels);
    return gpu_div(k, column, w->channels);
  }
  LoopValue first = gpu_mod(k, base, w->channels);
  *channel = AT(k, 0, {first, 1}, {local, 1});
  return gpu_div(k, base, w->channels);
}

void gpu_window_place(LoopKernel *k, const GpuWindow *w, const GpuWindowTile *t, LoopValue pixel, LoopValue base, LoopValue local,
                      GpuMove *move) {
  const Plane *source = w->source;
  int64_t line = (int64_t)source->width * source->stride;
  LoopValue inside = LOOP_NONE, channel;
  if (w->pixels % t->pixels) inside = gpu_below(k, pixel, w->pixels);
  if (w->columns % t->columns) {
    LoopValue column = AT(k, 0, {base, 1}, {local, 1});
    LoopValue exists = gpu_below(k, column, w->columns);
    inside = gpu_both(k, inside, exists);
  }
  LoopValue tap = split(k, w, t, base, local, &channel);
  if (t->group != LOOP_NONE) channel = AT(k, 0, {t->group, w->channels}, {channel, 1});
  if (w->single) {
    move->from = AT(k, 0, {t->image, source->height * line}, {t->row, line}, {pixel, source->stride}, {channel, 1});
  } else {
    LoopValue row = gpu_div(k, pixel, w->side);
    LoopValue column = gpu_mod(k, pixel, w->side);
    row = AT(k, 0, {t->row, 1}, {row, 1});
    LoopValue tap_y = gpu_div(k, tap, w->s->kernel_x);
    LoopValue tap_x = gpu_mod(k, tap, w->s->kernel_x);
    LoopValue y = axis(k, w, true, row, tap_y, &inside);
    LoopValue x = axis(k, w, false, column, tap_x, &inside);
    move->from = AT(k, 0, {t->image, source->height * line}, {y, line}, {x, source->stride}, {channel, 1});
  }
  move->inside = inside;
  move->channel = channel;
}
