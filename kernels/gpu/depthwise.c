/* Depthwise convolutions of a GPU. A tile's input is staged with its halo, through the prologue; a thread makes a strip of
 * results of 4 channels. The input's gradient is the same walk in which tap and stride have changed sides: each element of dx
 * sums over the taps that hit it, in a fixed order. */
#include "kernels/gpu/conv_private.h"
#include "kernels/gpu/direct.h"
#include "kernels/gpu/window.h"

typedef struct Depthwise {
  const ConvSpec *s;
  Window w;
  WindowStage stage;
  LoopElement element;                /* of the staged array */
  int32_t weights;                    /* shared: (taps, channels of a block) */
  int32_t source, parameters, target; /* buffers */
  int32_t acc, value, weight;         /* tiles */
  bool relu;                          /* where a staged value is read */
} Depthwise;

static int64_t taps_of(const ConvSpec *s) {
  return (int64_t)s->kernel_y * s->kernel_x;
}

static int64_t staged_elements(const Window *w) {
  return window_staged(&w->y) * window_staged(&w->x) * w->channels;
}

static int64_t bytes(const void *context, const Window *w) {
  const Depthwise *d = context;
  return window_bytes(staged_elements(w), d->element) + window_bytes(taps_of(d->s) * w->channels, LOOP_ELEMENT_F32);
}

static bool unrolls(const ConvSpec *s, bool gradient) {
  bool taps = s->kernel_y <= WINDOW_MOST_TAPS && s->kernel_x <= WINDOW_MOST_TAPS;
  return taps && (!gradient || (s->stride_y <= 2 && s->stride_x <= 2));
}

/* The window of a forward convolution or of its input's gradient; false where it must be done without. */
static bool plan(Depthwise *d, const ConvSpec *s, bool gradient) {
  const Plane *results = gradient ? &s->in : &s->out, *source = gradient ? &s->out : &s->in;
  WindowAxis y = {s->kernel_y, s->stride_y, s->dilation, s->pad_y, s->shift_y, .gradient = gradient, .side = results->height};
  WindowAxis x = {s->kernel_x, s->stride_x, s->dilation, s->pad_x, s->shift_x, .gradient = gradient, .side = results->width};
  int64_t wide = gradient ? s->stride_x : 1;
  *d = (Depthwise){.s = s};
  if (!unrolls(s, gradient)) return false;
  d->w.y = window_axis(y, results->height / s->bands, WINDOW_STRIP / wide);
  d->w.x = window_axis(x, results->width, wide);
  d->w.total = s->in.channels;
  d->element = window_element(source, !gradient && s->prologue.affine);
  return window_fit(&d->w, window_unit(source), bytes, d);
}

static void declare(LoopKernel *k, Depthwise *d, const Plane *source, const char *name, bool changed) {
  const Window *w = &d->w;
  d->stage.plane = source;
  d->stage.buffer = d->source;
  d->stage.rows = window_staged(&w->y);
  d->stage.columns = window_staged(&w->x);
  d->stage.channels = w->channels;
  window_stage_declare(k, &d->stage, name, changed);
  d->value = loop_tile(k, "value", LOOP_F32, true, WINDOW_CHANNELS);
}

static void declare_weights(LoopKernel *k, Depthwise *d) {
  const Window *w = &d->w;
  d->weights = loop_shared(k, "weights", taps_of(d->s) * w->channels);
  d->acc = loop_tile(k, "acc", LOOP_F32, true, w->y.each * w->x.each * WINDOW_CHANNELS);
  d->weight = loop_tile(k, "weight", LOOP_F32, true, d->s->kernel_y * WINDOW_CHANNELS);
}

/* acc[at ..] += value * weight[tap ..] */
static void multiply(LoopKernel *k, const Depthwise *d, int64_t at, int64_t tap) {
  LoopValue c = loop_unroll(k, 0, WINDOW_CHANNELS, 1);
  LoopValue value = loop_get(k, d->value, c);
  LoopValue place = AT(k, tap * WINDOW_CHANNELS, {c, 1});
  LoopValue weight = loop_get(k, d->weight, place);
  LoopValue slot = AT(k, at * WINDOW_CHANNELS, {c, 1});
  LoopValue sum = loop_get(k, d->acc, slot);
  sum = loop_op3(k, LOOP_FMA, value, weight, sum);
  loop_set(k, d->acc, slot, sum);
  loop_end(k);
}

typedef struct Column { /* what window_columns passes on */
  const Depthwise *d;
  LoopValue corner, group;
} Column;

/* All products of a thread's results in its column `u` with taps of column `kx`: a staged element is read once and goes to every
 * result of the strip that it belongs to. */
static void column(LoopKernel *k, const void *context, int64_t u, LoopValue kx, LoopValue right) {
  const Column *place = context;
  const Depthwise *d = place->d;
  const Window *w = &d->w;
  int64_t at;
  for (int64_t ky = 0; ky < w->y.kernel; ky++) {
    LoopValue from = AT(k, ky * w->x.kernel * w->channels, {kx, w->channels}, {place->group, WINDOW_CHANNELS});
    window_read(k, d->weight, ky * WINDOW_CHANNELS, d->weights, from);
  }
  for (int64_t row = 0; row < d->stage.rows; row++) {
    bool read = false;
    for (int64_t i = 0; i < w->y.each; i++)
      for (int64_t ky = 0; ky < w->y.kernel; ky++) {
        if (!window_meets(&w->y, i, ky, &at) || at != row) continue;
        if (!read) {
          LoopValue from = AT(k, row * d->stage.columns * w->channels, {place->corner, 1}, {right, w->channels});
          window_read(k, d->value, 0, d->stage.array, from);
          if (d->relu) window_relu(k, d->value);
        }
        read = true;
        multiply(k, d, i * w->x.each + u, ky);
      }
  }
}

/* Zeros for what `shift` leaves out of a convolution's input. */
static void clear_shifted(LoopKernel *k, const void *context, int32_t acc, int64_t at, LoopValue row, LoopValue x) {
  const ConvSpec *s = context;
  LoopValue above = gpu_below(k, row, s->shift_y);
  LoopValue before = gpu_below(k, x, s->shift_x);
  LoopValue out = loop_op2(k, LOOP_OR, above, before);
  LoopValue zero = loop_f32(k, 0);
  LoopValue c = loop_unroll(k, 0, WINDOW_CHANNELS, 1);
  LoopValue slot = AT(k, at, {c, 1});
  LoopValue value = loop_get(k, acc, slot);
  value = loop_op3(k, LOOP_SELECT, out, zero, value);
  loop_set(k, acc, slot, value);
  loop_end(k);
}

static void results(LoopKernel *k, const Depthwise *d, const Plane *plane, const WindowTile *tile, LoopValue image,
                    LoopValue channel) {
  const Window *w = &d->w;
  bool shifted = w->y.gradient && (d->s->shift_y || d->s->shift_x);
  WindowItem item = window_items(k, w->y.count / w->y.each, w->x.count / w->x.each, window_groups(w));
  gpu_fill(k, d->acc, 0, w->y.each * w->x.each * WINDOW_CHANNELS, 0);
  LoopValue corner = AT(k, 0, {item.strip, window_step(&w->y) * d->stage.columns * w->channels},
                        {item.column, window_step(&w->x) * w->channels}, {item.group, WINDOW_CHANNELS});
  Column place = {d, corner, item.group};
  window_columns(k, &w->x, column, &place);
  WindowResults r = {plane, d->target, d->acc, shifted ? clear_shifted : NULL, d->s};
  window_results(k, w, &r, tile, &item, image, channel);
  window_items_end(k, &item);
}

/* Blocks of channels, the task's images, tiles: stage, then make the results. */
static void body(LoopKernel *k, const Depthwise *d, const Plane *plane) {
  const ConvSpec *s = d->s;
  LoopValue channel = window_blocks(k, &d->w);
  loop_phase(k, "weights");
  window_stage_rows(k, &d->w, d->weights, d->parameters, taps_of(s), channel);
  loop_end(k);
  GpuBand band = gpu_band(k, s->images, s->bands, plane->height);
  WindowTile tile = window_tiles(k, &d->w, &band);
  loop_phase(k, "stage");
  window_stage(k, &d->stage, band.image, tile.staged_row, tile.staged_column, channel);
  if (d->stage.async) loop_wait(k);
  loop_end(k);
  loop_phase(k, "multiply");
  results(k, d, plane, &tile, band.image, channel);
  loop_end(k);
  window_tiles_end(k, &tile);
  gpu_band_end(k, s->images);
  window_blocks_end(k, &d->w);
}

LoopKernel *gpu_depthwise(const ConvSpec *s, Arena *arena) {
  Depthwise d;
  if (!plan(&d, s, false)) return direct_depthwise(s, arena);
  LoopKernel *k = loop_new(arena, "depthwise", gpu_lanes(&s->target, window_threads(&d.w), WINDOW_MOST_LANES));
  GpuInput input = gpu_conv_input(k, s);
  d.source = input.x;
  d.parameters = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  d.target = loop_buffer(k, "y", LOOP_OUT, s->out.element);
  d.stage.first_row = s->shift_y;
  d.stage.first_column = s->shift_x;
  declare(k, &d, &s->in, "x_window", s->prologue.affine);
  declare_weights(k, &d);
  d.relu = s->prologue.relu && d.stage.async;
  if (!d.stage.async) {
    gpu_conv_input_tile(k, &input, d.stage.width);
    d.stage.prologue = &input.prologue;
  }
  body(k, &d, &s->out);
  return k;
}

LoopKernel *gpu_depthwise_grad_input(const ConvSpec *s, Arena *arena) {
  Depthwise d;
  if (!plan(&d, s, true)) return direct_depthwise_grad_input(s, arena);
  LoopKernel *k = loop_new(arena, "depthwise_grad_input", gpu_lanes(&s->target, window_threads(&d.w), WINDOW_MOST_LANES));
  d.source = loop_buffer(k, "dy", LOOP_IN, s->out.element);
  d.parameters = loop_buffer(k, "w", LOOP_IN, LOOP_ELEMENT_F32);
  d.target = loop_buffer(k, "dx", LOOP_OUT, s->in.element);
  declare(k, &d, &s->out, "dy_window", false);
  declare_weights(k, &d);
  body(k, &d, &s->in);
  return k;
}
