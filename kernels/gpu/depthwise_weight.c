/* The weight's gradient of a depthwise convolution. A thread keeps the sums of a block of taps of 4 channels in registers and
 * walks over strips of pixels of all tiles and images of the task; the threads of one block of taps, its slots, are then added in
 * their order through shared memory. 3 x 3 taps are one block, of larger kernels a row of taps is. */
#include "kernels/gpu/conv_private.h"
#include "kernels/gpu/direct.h"
#include "kernels/gpu/window.h"
#include "kernels/plane.h"

enum {
  MOST_THREAD_TAPS = 12, /* 48 registers */
  MOST_LANES = 128,
  MOST_SUM_BYTES = 20 << 10 /* of shared memory for the slots' sums */
};

typedef struct WeightGrad {
  const ConvSpec *s;
  Window w;
  WindowStage stage;
  LoopElement element;
  int32_t most_lanes, lanes;
  int64_t taps_y, taps_x; /* of a thread */
  int64_t blocks;         /* of taps */
  int64_t slots;
  int64_t chunk;       /* taps of a thread that are added at once */
  int32_t sums;        /* shared */
  int32_t dy, partial; /* buffers */
  int32_t acc, value, gradient, total;
  bool relu; /* where a staged value is read */
} WeightGrad;

typedef struct Thread {
  LoopValue group, block, slot;
  LoopValue row, column; /* of taps: the block's first */
  LoopValue works;       /* LOOP_NONE: every thread does */
} Thread;

static int64_t largest_divisor(int64_t v, int64_t most) {
  for (int64_t divisor = build_min(v, most); divisor > 1; divisor--)
    if (v % divisor == 0) return divisor;
  return 1;
}

static int64_t sum_elements(const WeightGrad *g, const Window *w, int64_t taps) {
  int64_t teams = g->blocks * window_groups(w);
  return g->most_lanes / teams * teams * taps * WINDOW_CHANNELS;
}

static int64_t bytes(const void *context, const Window *w) {
  const WeightGrad *g = context;
  int64_t staged = window_bytes(window_staged(&w->y) * window_staged(&w->x) * w->channels, g->element);
  int64_t sums = window_bytes(sum_elements(g, w, g->chunk), LOOP_ELEMENT_F32);
  if (g->blocks * window_groups(w) > g->most_lanes) return INT64_MAX;
  if (g->element != LOOP_ELEMENT_F32) return staged + sums;
  return staged > sums ? staged : sums; /* one array for both */
}

static bool plan(WeightGrad *g, const ConvSpec *s) {
  WindowAxis y = {s->kernel_y, s->stride_y, s->dilation, s->pad_y, s->shift_y, .side = s->out.height};
  WindowAxis x = {s->kernel_x, s->stride_x, s->dilation, s->pad_x, s->shift_x, .side = s->out.width};
  *g = (WeightGrad){.s = s, .element = window_element(&s->in, s->prologue.affine)};
  if (s->kernel_y > WINDOW_MOST_TAPS || s->kernel_x > WINDOW_MOST_TAPS) return false;
  g->most_lanes = (int32_t)build_min(s->target.lanes, MOST_LANES);
  g->taps_x = largest_divisor(s->kernel_x, MOST_THREAD_TAPS);
  g->taps_y = largest_divisor(s->kernel_y, MOST_THREAD_TAPS / g->taps_x);
  g->blocks = (s->kernel_y / g->taps_y) * (s->kernel_x / g->taps_x);
  int64_t most = MOST_SUM_BYTES / 4 / WINDOW_CHANNELS / g->most_lanes, taps = g->taps_y * g->taps_x;
  int64_t rounds = (taps + most - 1) / most;
  g->chunk = (taps + rounds - 1) / rounds;
  /* rows of one tap row share no input: longer strips would only take registers */
  g->w.y = window_axis(y, s->out.height / s->bands, g->taps_y > 1 ? WINDOW_STRIP : WINDOW_STRIP / 2);
  g->w.x = window_axis(x, s->out.width, 1);
  g->w.total = s->in.channels;
  if (!window_fit(&g->w, window_unit(&s->in), bytes, g)) return false;
  g->lanes = gpu_lanes(&s->target, window_threads(&g->w) * g->blocks, g->most_lanes);
  g->slots = g->lanes / (g->blocks * window_groups(&g->w));
  return g->slots > 0;
}

static void declare(LoopKernel *k, WeightGrad *g, GpuInput *input) {
  const Window *w = &g->w;
  int64_t sums = sum_elements(g, w, g->chunk);
  bool one = g->element == LOOP_ELEMENT_F32;
  g->stage.plane = &g->s->in;
  g->stage.buffer = input->x;
  g->stage.rows = window_staged(&w->y);
  g->stage.columns = window_staged(&w->x);
  g->stage.channels = w->channels;
  g->stage.first_row = g->s->shift_y;
  g->stage.first_column = g->s->shift_x;
  if (one) g->stage.least = sums;
  window_stage_declare(k, &g->stage, "x_window", g->s->prologue.affine);
  g->relu = g->s->prologue.relu && g->stage.async;
  if (!g->stage.async) {
    gpu_conv_input_tile(k, input, g->stage.width);
    g->stage.prologue = &input->prologue;
  }
  g->sums = one ? g->stage.array : loop_shared(k, "sums", sums);
  g->acc = loop_tile(k, "acc", LOOP_F32, true, g->taps_y * g->taps_x * WINDOW_CHANNELS);
  g->value = loop_tile(k, "value", LOOP_F32, true, WINDOW_CHANNELS);
  g->gradient = loop_tile(k, "gradient", LOOP_F32, true, w->y.each * WINDOW_CHANNELS);
  g->total = loop_tile(k, "total", LOOP_F32, true, 1);
}

static Thread thread_of(LoopKernel *k, const WeightGrad *g) {
  int64_t groups = window_groups(&g->w), across = g->s->kernel_x / g->taps_x;
  Thread t = {.works = LOOP_NONE};
  LoopValue lane = loop_lane(k);
  LoopValue team = gpu_div(k, lane, groups);
  t.group = gpu_mod(k, lane, groups);
  t.block = gpu_mod(k, team, g->blocks);
  t.slot = gpu_div(k, team, g->blocks);
  LoopValue y = gpu_div(k, t.block, across);
  LoopValue x = gpu_mod(k, t.block, across);
  t.row = AT(k, 0, {y, g->taps_y});
  t.column = AT(k, 0, {x, g->taps_x});
  if (g->slots * g->blocks * groups < g->lanes) t.works = gpu_below(k, t.slot, g->slots);
  return t;
}

/* acc[tap ..] += value * gradient[i ..], of the tap in row `ky` of a thread's and in column `kx`. */
static void multiply(LoopKernel *k, const WeightGrad *g, int64_t ky, LoopValue kx, int64_t i) {
  LoopValue c = loop_unroll(k, 0, WINDOW_CHANNELS, 1);
  LoopValue value = loop_get(k, g->value, c);
  LoopValue place = AT(k, i * WINDOW_CHANNELS, {c, 1});
  LoopValue gradient = loop_get(k, g->gradient, place);
  LoopValue slot = AT(k, ky * g->taps_x * WINDOW_CHANNELS, {kx, WINDOW_CHANNELS}, {c, 1});
  LoopValue sum = loop_get(k, g->acc, slot);
  sum = loop_op3(k, LOOP_FMA, value, gradient, sum);
  loop_set(k, g->acc, slot, sum);
  loop_end(k);
}

/* What one column of a thread's taps reads: each staged element goes to all taps and pixels of the strip that meet there. */
static void column(LoopKernel *k, const WeightGrad *g, LoopValue corner, LoopValue kx) {
  const Window *w = &g->w;
  int64_t at;
  for (int64_t row = 0; row < g->stage.rows; row++) {
    bool read = false;
    for (int64_t i = 0; i < w->y.each; i++)
      for (int64_t ky = 0; ky < g->taps_y; ky++) {
        if (!window_meets(&w->y, i, ky, &at) || at != row) continue;
        if (!read) {
          LoopValue from = AT(k, row * g->stage.columns * w->channels, {corner, 1}, {kx, w->x.dilation * w->channels});
          window_read(k, g->value, 0, g->stage.array, from);
          if (g->relu) window_relu(k, g->value);
        }
        read = true;
        multiply(k, g, ky, kx, i);
      }
  }
}

static void strip(LoopKernel *k, const WeightGrad *g, const Thread *t, const WindowTile *tile, LoopValue image, LoopValue channel,
                  LoopValue number) {
  const Window *w = &g->w;
  const Plane *out = &g->s->out;
  LoopValue down = gpu_div(k, number, w->x.count);
  LoopValue across = gpu_mod(k, number, w->x.count);
  LoopValue x = AT(k, 0, {tile->column, 1}, {across, 1});
  LoopValue c = AT(k, 0, {channel, 1}, {t->group, WINDOW_CHANNELS});
  for (int64_t i = 0; i < w->y.each; i++) {
    LoopValue y = AT(k, i, {tile->row, 1}, {down, w->y.each});
    LoopValue own = window_own(k, w, tile, y, x);
    LoopValue from = plane_index(k, out, image, y, x, c);
    window_load(k, w, out, g->dy, from, g->gradient, i * WINDOW_CHANNELS, c, own);
  }
  int64_t row = g->stage.columns * w->channels;
  LoopValue corner =
      AT(k, 0, {down, window_step(&w->y) * row}, {t->row, w->y.dilation * row}, {across, window_step(&w->x) * w->channels},
         {t->column, w->x.dilation * w->channels}, {t->group, WINDOW_CHANNELS});
  LoopValue kx = loop_unroll(k, 0, g->taps_x, 1);
  column(k, g, corner, kx);
  loop_end(k);
}

static void tile_taps(LoopKernel *k, const WeightGrad *g, const Thread *t, const WindowTile *tile, LoopValue image,
                      LoopValue channel) {
  int64_t strips = g->w.y.count / g->w.y.each * g->w.x.count;
  LoopValue first = build_for(k, 0, strips, g->slots);
  LoopValue number = AT(k, 0, {first, 1}, {t->slot, 1});
  LoopValue left = strips % g->slots ? gpu_below(k, number, strips) : LOOP_NONE;
  LoopValue works = gpu_both(k, left, t->works);
  if (works != LOOP_NONE) loop_if(k, works);
  strip(k, g, t, tile, image, channel, number);
  if (works != LOOP_NONE) loop_end(k);
  loop_end(k);
}

/* Adds the slots' sums of taps from .. from + count of each thread; a result a thread. */
static void join(LoopKernel *k, const WeightGrad *g, const Thread *t, LoopValue channel, int64_t from, int64_t count) {
  const Window *w = &g->w;
  int64_t across = g->s->kernel_x / g->taps_x, taps = (int64_t)g->s->kernel_y * g->s->kernel_x;
  int64_t results = g->blocks * count * w->channels;
  loop_phase(k, "spread");
  if (t->works != LOOP_NONE) loop_if(k, t->works);
  LoopValue team = AT(k, 0, {t->slot, results}, {t->block, count * w->channels}, {t->group, WINDOW_CHANNELS});
  LoopValue always = gpu_true(k);
  for (int64_t i = 0; i < count; i++) {
    LoopValue to = AT(k, i * w->channels, {team, 1});
    gpu_write(k, g->sums, to, g->acc, (from + i) * WINDOW_CHANNELS, WINDOW_CHANNELS, always);
  }
  if (t->works != LOOP_NONE) loop_end(k);
  loop_end(k);
  loop_phase(k, "sum");
  GpuItem item = gpu_items(k, results, 1);
  if (item.inside != LOOP_NONE) loop_if(k, item.inside);
  gpu_fill(k, g->total, 0, 1, 0);
  LoopValue slot = build_for(k, 0, g->slots, 1);
  LoopValue at = AT(k, 0, {slot, results}, {item.number, 1});
  always = gpu_true(k);
  LoopValue part = loop_gather(k, g->sums, at, always, 0);
  LoopValue zero = loop_int(k, 0);
  LoopValue sum = loop_get(k, g->total, zero);
  sum = loop_op2(k, LOOP_ADD, sum, part);
  loop_set(k, g->total, zero, sum);
  loop_end(k);
  LoopValue rest = gpu_div(k, item.number, w->channels);
  LoopValue c = gpu_mod(k, item.number, w->channels);
  LoopValue block = gpu_div(k, rest, count);
  LoopValue tap = gpu_mod(k, rest, count);
  tap = AT(k, from, {tap, 1});
  LoopValue down = gpu_div(k, tap, g->taps_x);
  LoopValue right = gpu_mod(k, tap, g->taps_x);
  LoopValue block_y = gpu_div(k, block, across);
  LoopValue block_x = gpu_mod(k, block, across);
  LoopValue task = loop_task(k);
  c = AT(k, 0, {c, 1}, {channel, 1});
  LoopValue to = AT(k, 0, {task, taps * w->total}, {block_y, g->taps_y * g->s->kernel_x * w->total},
                    {down, g->s->kernel_x * w->total}, {block_x, g->taps_x * w->total}, {right, w->total}, {c, 1});
  zero = loop_int(k, 0);
  LoopValue value = loop_get(k, g->total, zero);
  LoopValue inside = w->total % w->channels ? gpu_below(k, c, w->total) : gpu_true(k);
  loop_scatter(k, g->partial, to, value, inside);
  if (item.inside != LOOP_NONE) loop_end(k);
  loop_end(k);
  loop_end(k);
}

LoopKernel *gpu_depthwise_grad_weight(const ConvSpec *s, Arena *arena) {
  WeightGrad g;
  if (!plan(&g, s)) return direct_depthwise_grad_weight(s, arena);
  LoopKernel *k = loop_new(arena, "depthwise_grad_weight", g.lanes);
  g.dy = loop_buffer(k, "dy", LOOP_IN, s->out.element);
  GpuInput input = gpu_conv_input(k, s);
  g.partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
  declare(k, &g, &input);
  Thread thread = thread_of(k, &g);
  int64_t taps = g.taps_y * g.taps_x;
  LoopValue channel = window_blocks(k, &g.w);
  gpu_fill(k, g.acc, 0, taps * WINDOW_CHANNELS, 0);
  GpuBand band = gpu_band(k, s->images, s->bands, s->out.height);
  WindowTile tile = window_tiles(k, &g.w, &band);
  loop_phase(k, "stage");
  window_stage(k, &g.stage, band.image, tile.staged_row, tile.staged_column, channel);
  if (g.stage.async) loop_wait(k);
  loop_end(k);
  loop_phase(k, "multiply");
  tile_taps(k, &g, &thread, &tile, band.image, channel);
  loop_end(k);
  window_tiles_end(k, &tile);
  gpu_band_end(k, s->images);
  for (int64_t from = 0; from < taps; from += g.chunk) join(k, &g, &thread, channel, from, build_min(g.chunk, taps - from));
  window_blocks_end(k, &g.w);
  return k;
}
