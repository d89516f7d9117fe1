/* Random specs of the kernel families against plain loops in double. Each kernel is verified, printed, parsed and printed again,
 * and interpreted over all its tasks, the last first. An element that the reference leaves alone must keep its sentinel.
 * Built with FAMILIES_MACHINE_CODE (emit_families_test.c), each is also compiled, and must leave the interpreter's very bits. */
#include "kernels/family.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const float UNTOUCHED = 12345.0f;

enum { CASE_MOST_BUFFERS = 12 };

typedef struct Case {
  Arena *arena;
  uint64_t random;
  int number, batch, images, tasks, lanes;
  LoopBuffer buffers[CASE_MOST_BUFFERS]; /* of 4 bytes an element */
  int count;
  const char *family;
} Case;

static bool covered[FAMILY_COUNT];

static LoopKernel *build(Case *c, Family family, const void *spec) {
  covered[family] = true;
  return family_build(family, spec, c->arena);
}

static int pick(Case *c, int from, int to) {
  c->random = c->random * 6364136223846793005u + 1442695040888963407u;
  return from + (int)((c->random >> 33) % (uint64_t)(to - from + 1));
}

static float *add(Case *c, int64_t count, bool written) {
  float *data = ARENA_ARRAY(c->arena, float, count);
  for (int64_t i = 0; i < count; i++) data[i] = written ? UNTOUCHED : (float)pick(c, -1000, 1000) / 1000.0f;
  c->buffers[c->count++] = (LoopBuffer){data, count};
  return data;
}

static double *wanted(Case *c, int64_t count) {
  double *want = ARENA_ARRAY(c->arena, double, count);
  for (int64_t i = 0; i < count; i++) want[i] = (double)UNTOUCHED;
  return want;
}

static void check(Case *c, const float *got, const double *want, int64_t count) {
  double error = 0, norm = 0;
  for (int64_t i = 0; i < count; i++) {
    if (want[i] == (double)UNTOUCHED) {
      if (got[i] != UNTOUCHED) fail_msg("%s, case %d: element %lld was written", c->family, c->number, (long long)i);
      continue;
    }
    error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
    norm += want[i] * want[i];
  }
  if (!(sqrt(error) <= 1e-5 * sqrt(norm) + 1e-6))
    fail_msg("%s, case %d: error %g of norm %g", c->family, c->number, sqrt(error), sqrt(norm));
}

#ifdef FAMILIES_MACHINE_CODE
static void run_machine_code(Case *c, const LoopKernel *k, int tasks, void **buffers);
#else
static void run_machine_code(Case *c, const LoopKernel *k, int tasks, void **buffers) {
  (void)c, (void)k, (void)tasks, (void)buffers;
}
#endif

static void run(Case *c, LoopKernel *k, int tasks) {
  Err err;
  void *copies[CASE_MOST_BUFFERS];
  if (!loop_verify(k, &err)) fail_msg("%s, case %d: %s", c->family, c->number, err.text);
  Text first = {0}, second = {0};
  loop_print(k, &first);
  LoopKernel *again = loop_parse(first.data, first.length, c->arena, &err);
  if (!again) fail_msg("%s, case %d: %s", c->family, c->number, err.text);
  loop_print(again, &second);
  assert_int_equal(first.length, second.length);
  assert_memory_equal(first.data, second.data, first.length);
  text_free(&first);
  text_free(&second);
  loop_free_tables(again);
  assert_int_equal(k->buffer_count, c->count);
  for (int i = 0; i < c->count; i++) {
    copies[i] = arena_alloc(c->arena, (size_t)c->buffers[i].count * 4);
    memcpy(copies[i], c->buffers[i].data, (size_t)c->buffers[i].count * 4);
  }
  for (int task = tasks - 1; task >= 0; task--)
    if (!loop_interpret(k, c->buffers, c->batch, task, task + 1, &err))
      fail_msg("%s, case %d: %s", c->family, c->number, err.text);
  run_machine_code(c, k, tasks, copies);
  loop_free_tables(k);
}

static int64_t plane_size(const Case *c, const Plane *p) {
  return (int64_t)c->batch * p->height * p->width * p->stride - (p->stride - p->channels); /* as a slice of a concatenation */
}
static int64_t at(const Plane *p, int b, int y, int x, int ch) {
  return (((int64_t)b * p->height + y) * p->width + x) * p->stride + ch;
}
static void touch(const Case *c, const Plane *p, double *want) {
  for (int i = 0; i < c->batch * p->height * p->width; i++)
    for (int ch = 0; ch < p->channels; ch++) want[(int64_t)i * p->stride + ch] = 0;
}
static Plane plane(Case *c, int channels, int height, int width) {
  return (Plane){channels, height, width, channels + (pick(c, 0, 2) ? 0 : pick(c, 1, 9))};
}
static int channels(Case *c) {
  return pick(c, 0, 6) ? pick(c, 1, 20) : pick(c, 21, 130);
}
static int side(Case *c) {
  return pick(c, 0, 9) ? pick(c, 1, 7) : pick(c, 8, 40);
}

/* ---- convolutions ---- */
static ConvSpec conv_spec(Case *c) {
  for (;;) {
    ConvSpec s = {.lanes = c->lanes, .images = c->images, .dilation = pick(c, 1, 2), .groups = 1};
    int kind = pick(c, 0, 3), in = channels(c), out = channels(c);
    if (kind == 1) s.groups = out = in; /* depthwise */
    if (kind == 2) {
      s.groups = pick(c, 2, 3);
      in = s.groups * pick(c, 1, 20);
      out = s.groups * pick(c, 1, 20);
    }
    s.kernel_y = 2 * pick(c, 0, 2) + 1;
    s.kernel_x = s.kernel_y;
    int shape = pick(c, 0, 5);
    if (shape == 0) s.kernel_y = 1, s.kernel_x = 7;
    if (shape == 1) s.kernel_y = 7, s.kernel_x = 1;
    s.stride_y = s.stride_x = pick(c, 1, 2);
    if (!pick(c, 0, 4)) s.stride_x = 3 - s.stride_y;
    if (pick(c, 0, 3)) {
      s.pad_y = s.dilation * (s.kernel_y / 2);
      s.pad_x = s.dilation * (s.kernel_x / 2);
    }
    if (!pick(c, 0, 2)) s.shift_y = pick(c, 0, 2), s.shift_x = pick(c, 0, 2);
    s.in = plane(c, in, side(c), side(c));
    int height = s.in.height - s.shift_y + 2 * s.pad_y - s.dilation * (s.kernel_y - 1) - 1;
    int width = s.in.width - s.shift_x + 2 * s.pad_x - s.dilation * (s.kernel_x - 1) - 1;
    if (height < 0 || width < 0 || s.in.height <= s.shift_y || s.in.width <= s.shift_x) continue;
    s.out = plane(c, out, height / s.stride_y + 1, width / s.stride_x + 1);
    int64_t work = (int64_t)c->batch * s.out.height * s.out.width * in * out / s.groups * s.kernel_y * s.kernel_x;
    if (work < 400000) return s;
  }
}

typedef struct ConvData {
  const float *x, *scale, *mean, *w, *dy;
  double *y, *dx, *dw; /* any may be null */
} ConvData;

static double prologue(const ConvSpec *s, const ConvData *d, int64_t i, int ch) {
  double value = d->x[i];
  if (s->prologue.affine) value = (value - d->mean[ch]) * d->scale[ch];
  return s->prologue.relu && value < 0 ? 0 : value;
}

static void conv_tap(const Case *c, const ConvSpec *s, const ConvData *d, int b, int y, int x, int o, int ky, int kx) {
  (void)c;
  int each = s->in.channels / s->groups, g = o / (s->out.channels / s->groups);
  int row = y * s->stride_y + ky * s->dilation - s->pad_y, column = x * s->stride_x + kx * s->dilation - s->pad_x;
  if (row < 0 || column < 0 || row >= s->in.height - s->shift_y || column >= s->in.width - s->shift_x) return;
  int64_t to = at(&s->out, b, y, x, o);
  for (int i = 0; i < each; i++) {
    int64_t from = at(&s->in, b, row + s->shift_y, column + s->shift_x, g * each + i);
    int64_t w = (((int64_t)ky * s->kernel_x + kx) * each + i) * s->out.channels + o;
    if (d->y) d->y[to] += prologue(s, d, from, g * each + i) * d->w[w];
    if (d->dx) d->dx[from] += (double)d->dy[to] * d->w[w];
    if (d->dw) d->dw[w] += (double)d->dy[to] * prologue(s, d, from, g * each + i);
  }
}

static void conv_reference(const Case *c, const ConvSpec *s, const ConvData *d) {
  for (int b = 0; b < c->batch; b++)
    for (int y = 0; y < s->out.height; y++)
      for (int x = 0; x < s->out.width; x++)
        for (int o = 0; o < s->out.channels; o++)
          for (int ky = 0; ky < s->kernel_y; ky++)
            for (int kx = 0; kx < s->kernel_x; kx++) conv_tap(c, s, d, b, y, x, o, ky, kx);
}

static int64_t weights(const ConvSpec *s) {
  return (int64_t)s->kernel_y * s->kernel_x * (s->in.channels / s->groups) * s->out.channels;
}

static void add_prologue(Case *c, ConvSpec *s, ConvData *d) {
  s->prologue = (Prologue){pick(c, 0, 1), pick(c, 0, 1)};
  d->x = add(c, plane_size(c, &s->in), false);
  if (!s->prologue.affine) return;
  d->scale = add(c, s->in.channels, false);
  d->mean = add(c, s->in.channels, false);
}

static void test_conv(Case *c) {
  ConvSpec s = conv_spec(c);
  ConvData d = {0};
  add_prologue(c, &s, &d);
  int64_t size = plane_size(c, &s.out);
  d.w = add(c, weights(&s), false);
  float *y = add(c, size, true);
  d.y = wanted(c, size);
  touch(c, &s.out, d.y);
  conv_reference(c, &s, &d);
  run(c, build(c, FAMILY_CONV, &s), c->tasks);
  check(c, y, d.y, size);
}

static void test_conv_grad_input(Case *c) {
  ConvSpec s = conv_spec(c);
  ConvData d = {0};
  int64_t size = plane_size(c, &s.in);
  d.dy = add(c, plane_size(c, &s.out), false);
  d.w = add(c, weights(&s), false);
  float *dx = add(c, size, true);
  d.dx = wanted(c, size);
  touch(c, &s.in, d.dx);
  conv_reference(c, &s, &d);
  run(c, build(c, FAMILY_CONV_GRAD_INPUT, &s), c->tasks);
  check(c, dx, d.dx, size);
}

static float *sum_slots(Case *c, float *partial, int64_t elements) {
  c->count = 0;
  c->buffers[c->count++] = (LoopBuffer){partial, c->tasks * elements};
  float *y = add(c, elements, true);
  SlotsSpec slots = {.lanes = c->lanes, .images = c->images, .elements = elements, .chunk = 4 * c->lanes};
  run(c, build(c, FAMILY_SUM_SLOTS, &slots), (int)((elements + slots.chunk - 1) / slots.chunk));
  return y;
}

static void test_conv_grad_weight(Case *c) {
  ConvSpec s = conv_spec(c);
  ConvData d = {0};
  int64_t size = weights(&s);
  d.dy = add(c, plane_size(c, &s.out), false);
  add_prologue(c, &s, &d);
  float *partial = add(c, c->tasks * size, true);
  d.dw = wanted(c, size);
  memset(d.dw, 0, (size_t)size * sizeof(double));
  conv_reference(c, &s, &d);
  run(c, build(c, FAMILY_CONV_GRAD_WEIGHT, &s), c->tasks);
  check(c, sum_slots(c, partial, size), d.dw, size);
}

/* ---- pools ---- */
static void pool_reference(const Case *c, const PoolSpec *s, const Plane *to, const float *x, const float *dy, double *y,
                           double *dx) {
  for (int b = 0; b < c->batch; b++)
    for (int i = 0; i < s->out.height * s->out.width * s->out.channels; i++) {
      int ch = i % s->out.channels, px = i / s->out.channels % s->out.width, py = i / s->out.channels / s->out.width;
      double sum = 0, best = -INFINITY;
      int n = 0, best_y = 0, best_x = 0;
      for (int pass = 0; pass < 2; pass++)
        for (int k = 0; k < s->kernel_y * s->kernel_x; k++) {
          int row = py * s->stride_y - s->pad_y + k / s->kernel_x, column = px * s->stride_x - s->pad_x + k % s->kernel_x;
          if (row < 0 || column < 0 || row >= s->in.height || column >= s->in.width) continue;
          double value = x[at(&s->in, b, row, column, ch)];
          if (!pass && value > best) best = value, best_y = row, best_x = column;
          if (!pass) sum += value, n++;
          if (pass && dx && !s->max) dx[at(to, b, row, column, ch)] += dy[at(&s->out, b, py, px, ch)] / (double)n;
        }
      if (y) y[at(&s->out, b, py, px, ch)] = s->max ? best : sum / n;
      if (dx && s->max) dx[at(to, b, best_y, best_x, ch)] += dy[at(&s->out, b, py, px, ch)];
    }
}

static void test_pool(Case *c, bool gradient) {
  PoolSpec s = {
      .lanes = c->lanes, .images = c->images, .kernel_y = pick(c, 1, 3), .kernel_x = pick(c, 1, 3), .max = pick(c, 0, 1)};
  s.stride_y = pick(c, 1, 2);
  s.stride_x = pick(c, 1, 2);
  s.pad_y = s.kernel_y == 3 ? pick(c, 0, 1) : 0;
  s.pad_x = s.kernel_x == 3 ? pick(c, 0, 1) : 0;
  int ch = channels(c);
  s.in = plane(c, ch, pick(c, 3, 9), pick(c, 3, 40));
  s.out = plane(c, ch, (s.in.height + 2 * s.pad_y - s.kernel_y) / s.stride_y + 1,
                (s.in.width + 2 * s.pad_x - s.kernel_x) / s.stride_x + 1);
  Plane to = s.in;
  if (gradient && pick(c, 0, 1)) to.stride = s.dx_stride = ch + pick(c, 0, 5);
  float *dy = gradient ? add(c, plane_size(c, &s.out), false) : NULL;
  float *x = add(c, plane_size(c, &s.in), false);
  for (int64_t i = 0; i < plane_size(c, &s.in); i++) x[i] = (float)pick(c, -2, 1); /* ties */
  if (gradient && !s.max) c->count--;
  const Plane *written = gradient ? &to : &s.out;
  int64_t size = plane_size(c, written);
  float *y = add(c, size, true);
  double *want = wanted(c, size);
  touch(c, written, want);
  pool_reference(c, &s, &to, x, dy, gradient ? NULL : want, gradient ? want : NULL);
  run(c, gradient ? build(c, FAMILY_POOL_GRAD, &s) : build(c, FAMILY_POOL, &s), c->tasks);
  check(c, y, want, size);
}
static void test_pool_forward(Case *c) {
  test_pool(c, false);
}
static void test_pool_grad(Case *c) {
  test_pool(c, true);
}

/* ---- reductions ---- */
static void test_moments(Case *c) {
  MomentsSpec s = {c->lanes, c->images, plane(c, channels(c), side(c), side(c))};
  int n = s.in.channels, pixels = c->batch * s.in.height * s.in.width;
  float *x = add(c, plane_size(c, &s.in), false);
  float *partial = add(c, (int64_t)c->tasks * 3 * n, true);
  run(c, build(c, FAMILY_MOMENTS, &s), c->tasks);
  c->count = 0;
  c->buffers[c->count++] = (LoopBuffer){partial, (int64_t)c->tasks * 3 * n};
  float *moments = add(c, 2 * n, true);
  run(c, build(c, FAMILY_MOMENTS_FINISH, &s), 1);
  double *want = wanted(c, 2 * n);
  for (int ch = 0; ch < n; ch++) {
    double mean = 0, squares = 0;
    for (int i = 0; i < pixels; i++) mean += (double)x[(int64_t)i * s.in.stride + ch] / pixels;
    for (int i = 0; i < pixels; i++) squares += pow((double)x[(int64_t)i * s.in.stride + ch] - mean, 2);
    want[ch] = mean;
    want[n + ch] = squares / pixels;
  }
  check(c, moments, want, 2 * n);
}

static void test_global_mean(Case *c) {
  MomentsSpec s = {c->lanes, c->images, plane(c, channels(c), side(c), side(c))};
  int n = s.in.channels, pixels = s.in.height * s.in.width;
  float *x = add(c, plane_size(c, &s.in), false), *y = add(c, c->batch * n, true);
  double *want = wanted(c, c->batch * n);
  for (int i = 0; i < c->batch * n; i++) {
    want[i] = 0;
    for (int p = 0; p < pixels; p++) want[i] += (double)x[((int64_t)(i / n) * pixels + p) * s.in.stride + i % n] / pixels;
  }
  run(c, build(c, FAMILY_GLOBAL_MEAN, &s), c->tasks);
  check(c, y, want, c->batch * n);
}

/* max(x * scale + row, 0) as a tensor, with the sum over pixels of it and of x */
static void test_map(Case *c) {
  Plane in = plane(c, channels(c), side(c), side(c)), out = plane(c, in.channels, in.height, in.width);
  int n = in.channels, pixels = in.height * in.width;
  MapSpec s = {.lanes = c->lanes,
               .images = c->images,
               .channels = n,
               .pixels = pixels,
               .input_count = 3,
               .step_count = 3,
               .output_count = 3};
  s.inputs[0] = (MapInput){MAP_TENSOR, in.stride, 0};
  s.inputs[1] = (MapInput){MAP_CHANNEL, 0, n};
  s.inputs[2] = (MapInput){MAP_IMAGE, 0, 0};
  s.steps[0] = (MapStep){.op = LOOP_FMA, .a = 0, .b = 1, .c = 2};
  s.steps[1] = (MapStep){.op = LOOP_FLOAT};
  s.steps[2] = (MapStep){.op = LOOP_MAX, .a = 3, .b = 4};
  s.outputs[0] = (MapOutput){.value = 5, .sum = true};
  s.outputs[1] = (MapOutput){.value = 5, .stride = out.stride};
  s.outputs[2] = (MapOutput){.value = 0, .sum = true};
  float *x = add(c, plane_size(c, &in), false), *scale = add(c, 2 * n, false), *row = add(c, c->batch * n, false);
  int64_t size = plane_size(c, &out);
  float *y = add(c, size, true), *partial = add(c, (int64_t)c->tasks * 2 * n, true);
  double *want = wanted(c, size), *sums = ARENA_ARRAY(c->arena, double, 2 * n);
  for (int i = 0; i < 2 * n; i++) sums[i] = 0;
  for (int64_t p = 0; p < (int64_t)c->batch * pixels; p++)
    for (int ch = 0; ch < n; ch++) {
      double value = fmax((double)x[p * in.stride + ch] * scale[n + ch] + row[p / pixels * n + ch], 0);
      want[p * out.stride + ch] = value;
      sums[ch] += value;
      sums[n + ch] += x[p * in.stride + ch];
    }
  run(c, build(c, FAMILY_MAP, &s), c->tasks);
  check(c, y, want, size);
  check(c, sum_slots(c, partial, 2 * n), sums, 2 * n);
}

static void test_unshift(Case *c) {
  ShiftSpec s = {.lanes = c->lanes, .images = c->images, .shift_y = pick(c, 0, 1), .shift_x = pick(c, 0, 1)};
  s.in = plane(c, channels(c), side(c), side(c));
  s.out = plane(c, s.in.channels, s.in.height + s.shift_y, s.in.width + s.shift_x);
  int64_t size = plane_size(c, &s.out);
  float *x = add(c, plane_size(c, &s.in), false), *got = add(c, size, true);
  double *want = wanted(c, size);
  touch(c, &s.out, want);
  for (int b = 0; b < c->batch; b++)
    for (int y = 0; y < s.in.height; y++)
      for (int i = 0; i < s.in.width * s.in.channels; i++)
        want[at(&s.out, b, y + s.shift_y, i / s.in.channels + s.shift_x, i % s.in.channels)] =
            x[at(&s.in, b, y, i / s.in.channels, i % s.in.channels)];
  run(c, build(c, FAMILY_UNSHIFT, &s), c->tasks);
  check(c, got, want, size);
}

static void test_shift(Case *c) {
  ShiftSpec s = {.lanes = c->lanes, .images = c->images, .shift_y = pick(c, 0, 2), .shift_x = pick(c, 0, 2)};
  s.out = plane(c, channels(c), side(c), side(c));
  s.in = plane(c, s.out.channels, s.out.height + s.shift_y, s.out.width + s.shift_x);
  int64_t size = plane_size(c, &s.out);
  float *x = add(c, plane_size(c, &s.in), false), *got = add(c, size, true);
  double *want = wanted(c, size);
  for (int b = 0; b < c->batch; b++)
    for (int y = 0; y < s.out.height; y++)
      for (int i = 0; i < s.out.width * s.out.channels; i++)
        want[at(&s.out, b, y, i / s.out.channels, i % s.out.channels)] =
            x[at(&s.in, b, y + s.shift_y, i / s.out.channels + s.shift_x, i % s.out.channels)];
  run(c, build(c, FAMILY_SHIFT, &s), c->tasks);
  check(c, got, want, size);
}

/* ---- linear layers: `which` 0 forward, 1 the input's gradient, 2 the weight's ---- */
static void test_linear(Case *c) {
  int which = pick(c, 0, 2), rows = channels(c), inner = channels(c);
  VectorSpec s = {.lanes = c->lanes, .rows = rows, .inner = inner, .batched = pick(c, 0, 1)};
  int n = s.batched ? c->batch : 1;
  float *first = add(c, n * (which ? rows : inner), false);
  float *second = add(c, which == 2 ? n * inner : inner * rows, false);
  float *bias = which ? NULL : add(c, rows, false);
  int size = which == 0 ? n * rows : which == 1 ? n * inner : inner * rows;
  float *got = add(c, size, true);
  double *want = wanted(c, size);
  for (int i = 0; i < size; i++) want[i] = which ? 0 : bias[i % rows];
  for (int b = 0; b < n; b++)
    for (int i = 0; i < inner; i++)
      for (int o = 0; o < rows; o++) {
        if (which == 0) want[b * rows + o] += (double)first[b * inner + i] * second[i * rows + o];
        if (which == 1) want[b * inner + i] += (double)first[b * rows + o] * second[i * rows + o];
        if (which == 2) want[i * rows + o] += (double)first[b * rows + o] * second[b * inner + i];
      }
  static const Family make[] = {FAMILY_LINEAR, FAMILY_LINEAR_GRAD_INPUT, FAMILY_LINEAR_GRAD_WEIGHT};
  run(c, build(c, make[which], &s), 1);
  check(c, got, want, size);
}

/* ---- vectors ---- */
static void test_softmax(Case *c) {
  VectorSpec s = {.lanes = c->lanes, .rows = pick(c, 1, 70)};
  float *x = add(c, s.rows, false), *p = add(c, s.rows, true);
  double *want = wanted(c, s.rows), total = 0, mean = 0;
  for (int i = 0; i < s.rows; i++) total += exp((double)x[i]);
  for (int i = 0; i < s.rows; i++) want[i] = exp((double)x[i]) / total;
  run(c, build(c, FAMILY_SOFTMAX, &s), 1);
  check(c, p, want, s.rows);
  c->count = 0;
  float *dp = add(c, s.rows, false);
  c->buffers[c->count++] = (LoopBuffer){p, s.rows};
  float *dx = add(c, s.rows, true);
  for (int i = 0; i < s.rows; i++) mean += (double)dp[i] * p[i];
  for (int i = 0; i < s.rows; i++) want[i] = p[i] * (dp[i] - mean);
  run(c, build(c, FAMILY_SOFTMAX_GRAD, &s), 1);
  check(c, dx, want, s.rows);
}

static void test_batch_sum(Case *c) {
  VectorSpec s = {.lanes = c->lanes, .rows = channels(c), .batched = true};
  float *x = add(c, c->batch * s.rows, false), *y = add(c, s.rows, true);
  double *want = wanted(c, s.rows);
  for (int i = 0; i < s.rows; i++) want[i] = 0;
  for (int i = 0; i < c->batch * s.rows; i++) want[i % s.rows] += x[i];
  run(c, build(c, FAMILY_BATCH_SUM, &s), 1);
  check(c, y, want, s.rows);
}

static void test_sum_squares(Case *c) {
  VectorSpec s = {.lanes = c->lanes, .rows = pick(c, 1, 400)};
  float *x = add(c, s.rows, false), *y = add(c, 1, true);
  double want = 0;
  for (int i = 0; i < s.rows; i++) want += (double)x[i] * x[i];
  run(c, build(c, FAMILY_SUM_SQUARES, &s), 1);
  check(c, y, &want, 1);
}

static void test_outer_descend(Case *c) {
  VectorSpec s = {.lanes = c->lanes, .rows = channels(c), .inner = channels(c), .value = 0.5, .decay = 0.25};
  int n = s.rows * s.inner;
  float *w = add(c, n, false), *buffer = add(c, n, false), *dy = add(c, s.rows, false), *x = add(c, s.inner, false);
  float *clip = add(c, 1, false), *rate = add(c, 1, false);
  double *want_w = wanted(c, n), *want_buffer = wanted(c, n);
  for (int i = 0; i < n; i++) {
    want_buffer[i] = 0.5 * buffer[i] + (double)clip[0] * x[i / s.rows] * dy[i % s.rows] + 0.25 * w[i];
    want_w[i] = w[i] - rate[0] * want_buffer[i];
  }
  run(c, build(c, FAMILY_OUTER_DESCEND, &s), 1);
  check(c, w, want_w, n);
  check(c, buffer, want_buffer, n);
}

static VectorSpec vector_spec(Case *c) {
  return (VectorSpec){.lanes = c->lanes, .rows = pick(c, 1, 40)};
}

static void test_gather(Case *c) {
  VectorSpec s = vector_spec(c);
  s.index = pick(c, 0, s.rows - 1);
  const float *x = add(c, s.rows, false);
  float *y = add(c, 1, true);
  double want = x[s.index];
  run(c, build(c, FAMILY_ELEMENT, &s), 1);
  check(c, y, &want, 1);
}

static void test_stack(Case *c) {
  VectorSpec s = {.lanes = c->lanes, .count = pick(c, 1, 6)};
  double want[6];
  for (int i = 0; i < s.count; i++) want[i] = *add(c, 1, false);
  float *y = add(c, s.count, true);
  run(c, build(c, FAMILY_STACK, &s), 1);
  check(c, y, want, s.count);
}

/* Adds labels below `rows`; the largest logit of an image may stand twice, so that the rule of ties matters. */
static const int32_t *add_labels(Case *c, float *logits, int rows) {
  int32_t *labels = ARENA_ARRAY(c->arena, int32_t, c->batch);
  for (int b = 0; b < c->batch; b++) {
    labels[b] = pick(c, 0, rows - 1);
    if (pick(c, 0, 1)) logits[b * rows + labels[b]] = 1;
    if (pick(c, 0, 1)) logits[b * rows + pick(c, 0, rows - 1)] = 1;
  }
  c->buffers[c->count++] = (LoopBuffer){labels, c->batch};
  return labels;
}

static double log_sum(const float *x, int rows) {
  double sum = 0;
  for (int i = 0; i < rows; i++) sum += exp((double)x[i]);
  return log(sum);
}

static void test_cross_entropy(Case *c) {
  VectorSpec s = vector_spec(c);
  float *x = add(c, c->batch * s.rows, false);
  const int32_t *label = add_labels(c, x, s.rows);
  float *y = add(c, c->batch, true);
  double *want = wanted(c, c->batch);
  for (int b = 0; b < c->batch; b++) want[b] = log_sum(x + b * s.rows, s.rows) - (double)x[b * s.rows + label[b]];
  run(c, build(c, FAMILY_CROSS_ENTROPY, &s), 1);
  check(c, y, want, c->batch);
}

static void test_cross_entropy_grad(Case *c) {
  VectorSpec s = vector_spec(c);
  const float *dl = add(c, c->batch, false);
  float *x = add(c, c->batch * s.rows, false);
  const int32_t *label = add_labels(c, x, s.rows);
  float *y = add(c, c->batch * s.rows, true);
  double *want = wanted(c, c->batch * s.rows);
  for (int b = 0; b < c->batch; b++)
    for (int i = 0; i < s.rows; i++)
      want[b * s.rows + i] = (double)dl[b] * (exp((double)x[b * s.rows + i] - log_sum(x + b * s.rows, s.rows)) - (i == label[b]));
  run(c, build(c, FAMILY_CROSS_ENTROPY_GRAD, &s), 1);
  check(c, y, want, c->batch * s.rows);
}

static void test_correct(Case *c) {
  VectorSpec s = vector_spec(c);
  float *x = add(c, c->batch * s.rows, false);
  const int32_t *label = add_labels(c, x, s.rows);
  float *y = add(c, c->batch, true);
  double *want = wanted(c, c->batch);
  for (int b = 0; b < c->batch; b++) {
    int best = 0;
    for (int i = 1; i < s.rows; i++)
      if (x[b * s.rows + i] > x[b * s.rows + best]) best = i;
    want[b] = best == label[b];
  }
  run(c, build(c, FAMILY_CORRECT, &s), 1);
  check(c, y, want, c->batch);
}

static void test_batch_mean(Case *c) {
  VectorSpec s = {.lanes = c->lanes};
  bool gradient = pick(c, 0, 1);
  const float *x = add(c, gradient ? 1 : c->batch, false);
  float *y = add(c, gradient ? c->batch : 1, true);
  double *want = wanted(c, c->batch), sum = 0;
  for (int b = 0; b < c->batch && !gradient; b++) sum += (double)x[b] / c->batch;
  for (int b = 0; b < c->batch; b++) want[b] = gradient ? (double)x[0] / c->batch : sum;
  run(c, gradient ? build(c, FAMILY_BATCH_MEAN_GRAD, &s) : build(c, FAMILY_BATCH_MEAN, &s), 1);
  check(c, y, want, gradient ? c->batch : 1);
}

static void test_sqrt_and_clip(Case *c) {
  VectorSpec s = {.lanes = c->lanes, .value = pick(c, 0, 2) / 2.0};
  bool clip = pick(c, 0, 1);
  float *x = add(c, 1, false);
  *x = 3 * fabsf(*x);
  float *y = add(c, 1, true);
  double want = clip ? (s.value > 0 ? fmin(1, s.value / ((double)*x + 1e-6)) : 1) : sqrt((double)*x);
  run(c, clip ? build(c, FAMILY_CLIP, &s) : build(c, FAMILY_SQRT, &s), 1);
  check(c, y, &want, 1);
}

static void test_fill(Case *c) {
  VectorSpec s = vector_spec(c);
  s.value = 0.75;
  s.batched = pick(c, 0, 1);
  int count = s.rows * (s.batched ? c->batch : 1);
  float *y = add(c, count, true);
  double *want = wanted(c, count);
  for (int i = 0; i < count; i++) want[i] = s.value;
  run(c, build(c, FAMILY_FILL, &s), 1);
  check(c, y, want, count);
}

static void test_dot(Case *c) {
  VectorSpec s = vector_spec(c);
  const float *a = add(c, s.rows, false), *b = add(c, s.rows, false);
  float *y = add(c, 1, true);
  double want = 0;
  for (int i = 0; i < s.rows; i++) want += (double)a[i] * (double)b[i];
  run(c, build(c, FAMILY_DOT, &s), 1);
  check(c, y, &want, 1);
}

static void test_adam_step(Case *c) {
  VectorSpec s = vector_spec(c);
  s.value = 1e-8;
  const float *m = add(c, s.rows, false);
  float *v = add(c, s.rows, false), *corrections = add(c, 3, false);
  for (int i = 0; i < s.rows; i++) v[i] = fabsf(v[i]);
  corrections[0] = 0.01f, corrections[1] = 0.5f, corrections[2] = 0.001f;
  float *y = add(c, s.rows, true);
  double *want = wanted(c, s.rows);
  for (int i = 0; i < s.rows; i++)
    want[i] =
        (double)corrections[0] * ((double)m[i] / (double)corrections[1]) / (sqrt((double)v[i] / (double)corrections[2]) + 1e-8);
  run(c, build(c, FAMILY_ADAM_STEP, &s), 1);
  check(c, y, want, s.rows);
}

/* a = a * 0.5 + s in place; y = a > b ? a : B * 2, over a parameter's elements in chunks. */
static void test_flat_map(Case *c) {
  int n = pick(c, 1, 200);
  MapSpec s = {.lanes = c->lanes,
               .flat = true,
               .chunk = 16 * pick(c, 1, 4),
               .channels = n,
               .input_count = 3,
               .step_count = 5,
               .output_count = 2};
  s.inputs[0].kind = s.inputs[1].kind = MAP_TENSOR;
  s.inputs[2].kind = MAP_SCALAR;
  s.steps[0] = (MapStep){LOOP_FLOAT, 0, 0, 0, 0.5};
  s.steps[1] = (MapStep){LOOP_FMA, 0, 3, 2, 0};
  s.steps[2] = (MapStep){LOOP_BATCH, 0, 0, 0, 2};
  s.steps[3] = (MapStep){LOOP_GT, 0, 1, 0, 0};
  s.steps[4] = (MapStep){LOOP_SELECT, 6, 0, 5, 0};
  s.outputs[0] = (MapOutput){.value = 4, .in_place = true, .input = 0};
  s.outputs[1] = (MapOutput){.value = 7};
  float *a = add(c, n, false);
  const float *b = add(c, n, false), *scalar = add(c, 1, false);
  float *y = add(c, n, true);
  double *want_a = wanted(c, n), *want_y = wanted(c, n);
  for (int i = 0; i < n; i++) {
    want_a[i] = (double)a[i] * 0.5 + (double)scalar[0];
    want_y[i] = a[i] > b[i] ? (double)a[i] : 2.0 * c->batch;
  }
  run(c, build(c, FAMILY_MAP, &s), (n + s.chunk - 1) / s.chunk);
  check(c, a, want_a, n);
  check(c, y, want_y, n);
}

static void test_sum_slots(Case *c) {
  SlotsSpec s = {.lanes = c->lanes,
                 .slots = pick(c, 1, 5),
                 .elements = pick(c, 1, 100),
                 .chunk = 16 * pick(c, 1, 4),
                 .total = pick(c, 0, 1)};
  const float *partial = add(c, s.slots * s.elements, false);
  int64_t count = s.total ? 1 : s.elements;
  float *y = add(c, count, true);
  double *want = wanted(c, count);
  for (int64_t i = 0; i < count; i++) want[i] = 0;
  for (int64_t i = 0; i < s.slots * s.elements; i++) want[s.total ? 0 : i % s.elements] += (double)partial[i];
  run(c, build(c, FAMILY_SUM_SLOTS, &s), s.total ? 1 : (int)((s.elements + s.chunk - 1) / s.chunk));
  check(c, y, want, count);
}

static const struct {
  const char *name;
  void (*test)(Case *c);
  int cases;
} families[] = {
    {"conv", test_conv, 100},
    {"conv_grad_input", test_conv_grad_input, 80},
    {"conv_grad_weight", test_conv_grad_weight, 80},
    {"pool", test_pool_forward, 30},
    {"pool_grad", test_pool_grad, 40},
    {"moments", test_moments, 20},
    {"global_mean", test_global_mean, 10},
    {"map", test_map, 20},
    {"shift", test_shift, 10},
    {"unshift", test_unshift, 10},
    {"linear", test_linear, 30},
    {"softmax", test_softmax, 10},
    {"batch_sum", test_batch_sum, 10},
    {"sum_squares", test_sum_squares, 10},
    {"outer_descend", test_outer_descend, 10},
    {"element", test_gather, 5},
    {"stack", test_stack, 5},
    {"cross_entropy", test_cross_entropy, 10},
    {"cross_entropy_grad", test_cross_entropy_grad, 10},
    {"correct", test_correct, 20},
    {"batch_mean", test_batch_mean, 10},
    {"sqrt, clip", test_sqrt_and_clip, 20},
    {"fill", test_fill, 10},
    {"dot", test_dot, 10},
    {"adam_step", test_adam_step, 10},
    {"flat map", test_flat_map, 20},
    {"sum_slots", test_sum_slots, 20},
};

static void every_family_matches_its_reference(void **state) {
  (void)state;
  for (size_t f = 0; f < sizeof families / sizeof families[0]; f++)
    for (int i = 0; i < families[f].cases; i++) {
      Case c = {.arena = arena_new(), .random = 1000 * f + (uint64_t)i + 1, .number = i, .family = families[f].name};
      for (int warm = 0; warm < 4; warm++) pick(&c, 0, 1);
      c.batch = pick(&c, 1, 5);
      c.images = pick(&c, 1, 3);
      c.tasks = (c.batch + c.images - 1) / c.images;
      c.lanes = pick(&c, 0, 1) ? 16 : 8;
      families[f].test(&c);
      arena_free(c.arena);
    }
  for (Family family = 0; family < FAMILY_COUNT; family++)
    if (!covered[family]) fail_msg("%s has no random specs", family_name(family));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_family_matches_its_reference)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
