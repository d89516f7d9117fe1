/* Vectors and scalars: linear layers, softmax, the loss, the optimizer's small parts. On a GPU a side may be divided into tasks,
 * and batches and rows reach past a block's threads. */
#include "tests/numeric/families/case.h"

#include <math.h>
#include <string.h>

static double *floats(Case *c, int64_t count) {
  return case_input(c, LOOP_ELEMENT_F32, count);
}
static double *results(Case *c, int64_t count) {
  return case_output(c, LOOP_ELEMENT_F32, count);
}

static int rows(Case *c) {
  return case_chance(c, 70) ? case_pick(c, 1, 40) : case_pick(c, 41, 700);
}

static void larger_batch(Case *c, int most) {
  if (case_chance(c, 40)) c->batch = case_pick(c, 1, most);
}

static void build(Case *c, VectorSpec s) {
  s.target = c->target;
  c->text = arena_printf(c->arena, "rows %d, inner %d%s, index %d, count %d, chunk %d, value %g", s.rows, s.inner,
                         s.batched ? ", batched" : "", s.index, s.count, s.chunk, s.value);
  case_build(c, &s);
}

/* Divides a side into tasks now and then. */
static int32_t divide(Case *c, int side) {
  if (!c->target.gpu || case_chance(c, 40)) return 0;
  static const int units[] = {32, 8, 1};
  int chunk = units[case_pick(c, 0, 2)] * case_pick(c, 1, 4);
  c->tasks = (side + chunk - 1) / chunk;
  return chunk;
}

/* ---- linear layers: `which` 0 forward, 1 the input's gradient, 2 the weight's ---- */

static VectorSpec linear_spec(Case *c, int which) {
  VectorSpec s = {.rows = case_channels(c), .inner = case_channels(c), .batched = case_chance(c, 50)};
  if (c->number == 0) s.rows = 10, s.inner = 128, s.batched = true;
  if (c->number == 1) s.rows = 64, s.inner = 300, s.batched = false;
  if (s.batched && case_chance(c, 30)) c->batch = case_pick(c, 1, 40);
  while (s.batched && c->batch > 1 && (int64_t)c->batch * s.rows * s.inner > 60000) c->batch /= 2;
  s.chunk = divide(c, which == 0 ? s.rows : s.inner);
  return s;
}

static void linear(Case *c, int which) {
  VectorSpec s = linear_spec(c, which);
  int n = s.batched ? c->batch : 1, r = s.rows;
  const double *first = floats(c, (int64_t)n * (which ? r : s.inner));
  const double *second = floats(c, which == 2 ? (int64_t)n * s.inner : (int64_t)s.inner * r);
  const double *bias = which ? NULL : floats(c, r);
  int64_t size = which == 0 ? (int64_t)n * r : which == 1 ? (int64_t)n * s.inner : (int64_t)s.inner * r;
  double *want = results(c, size), squares = 0;
  for (int64_t i = 0; i < size; i++) want[i] = which ? 0 : bias[i % r];
  for (int b = 0; b < n; b++)
    for (int i = 0; i < s.inner; i++)
      for (int o = 0; o < r; o++) {
        double x = first[which ? b * r + o : b * s.inner + i], y = second[which == 2 ? b * s.inner + i : i * r + o];
        want[which == 0 ? b * r + o : which == 1 ? b * s.inner + i : i * r + o] += x * y;
        squares += x * y * x * y;
      }
  case_last(c)->spread = sqrt(squares);
  case_dense(c);
  build(c, s);
}

void case_linear(Case *c) {
  linear(c, 0);
}
void case_linear_grad_input(Case *c) {
  linear(c, 1);
}
void case_linear_grad_weight(Case *c) {
  linear(c, 2);
}

void case_outer_descend(Case *c) {
  VectorSpec s = {.rows = case_channels(c), .inner = case_channels(c), .value = 0.5, .decay = 0.25};
  if (c->number == 0) s.rows = 64, s.inner = 96;
  s.chunk = divide(c, s.inner);
  int64_t n = (int64_t)s.rows * s.inner;
  double *want_w, *want_buffer;
  const double *w = case_update(c, LOOP_ELEMENT_F32, n, &want_w), *buffer = case_update(c, LOOP_ELEMENT_F32, n, &want_buffer);
  const double *dy = floats(c, s.rows), *x = floats(c, s.inner), *clip = floats(c, 1), *rate = floats(c, 1);
  for (int64_t i = 0; i < n; i++) {
    want_buffer[i] = 0.5 * buffer[i] + clip[0] * x[i / s.rows] * dy[i % s.rows] + 0.25 * w[i];
    want_w[i] = w[i] - rate[0] * want_buffer[i];
  }
  build(c, s);
}

/* ---- softmax ---- */

static double log_sum(const double *x, int count) {
  double sum = 0;
  for (int i = 0; i < count; i++) sum += exp(x[i]);
  return log(sum);
}

void case_softmax(Case *c) {
  VectorSpec s = {.rows = rows(c)};
  double *x = floats(c, s.rows), *p = results(c, s.rows);
  for (int i = 0; i < s.rows; i++) x[i] *= 8;
  for (int i = 0; i < s.rows; i++) p[i] = exp(x[i] - log_sum(x, s.rows));
  build(c, s);
}

void case_softmax_grad(Case *c) {
  VectorSpec s = {.rows = rows(c)};
  const double *dp = floats(c, s.rows), *p = floats(c, s.rows);
  double *dx = results(c, s.rows), mean = 0;
  for (int i = 0; i < s.rows; i++) mean += dp[i] * p[i];
  for (int i = 0; i < s.rows; i++) dx[i] = p[i] * (dp[i] - mean);
  build(c, s);
}

/* ---- the loss ---- */

typedef struct Logits {
  double *x;
  const double *label; /* below `rows` */
} Logits;

/* The largest logit of an image may stand twice, so that the rule of ties matters. */
static Logits add_logits(Case *c, int count) {
  Logits l = {floats(c, (int64_t)c->batch * count), case_integers(c, LOOP_ELEMENT_I32, c->batch, 0, count - 1)};
  for (int b = 0; b < c->batch; b++) {
    if (case_chance(c, 50)) l.x[b * count + (int)l.label[b]] = 1;
    if (case_chance(c, 50)) l.x[b * count + case_pick(c, 0, count - 1)] = 1;
  }
  return l;
}

void case_cross_entropy(Case *c) {
  VectorSpec s = {.rows = case_pick(c, 1, 40)};
  larger_batch(c, 300);
  Logits l = add_logits(c, s.rows);
  double *y = results(c, c->batch);
  for (int b = 0; b < c->batch; b++) y[b] = log_sum(l.x + b * s.rows, s.rows) - l.x[b * s.rows + (int)l.label[b]];
  build(c, s);
}

void case_cross_entropy_grad(Case *c) {
  VectorSpec s = {.rows = case_pick(c, 1, 40)};
  larger_batch(c, 300);
  const double *dl = floats(c, c->batch);
  Logits l = add_logits(c, s.rows);
  double *y = results(c, (int64_t)c->batch * s.rows);
  for (int b = 0; b < c->batch; b++) {
    double all = log_sum(l.x + b * s.rows, s.rows);
    for (int i = 0; i < s.rows; i++) y[b * s.rows + i] = dl[b] * (exp(l.x[b * s.rows + i] - all) - (i == (int)l.label[b]));
  }
  build(c, s);
}

void case_correct(Case *c) {
  VectorSpec s = {.rows = case_pick(c, 1, 40)};
  larger_batch(c, 300);
  Logits l = add_logits(c, s.rows);
  double *y = results(c, c->batch);
  for (int b = 0; b < c->batch; b++) {
    int best = 0;
    for (int i = 1; i < s.rows; i++)
      if (l.x[b * s.rows + i] > l.x[b * s.rows + best]) best = i;
    y[b] = best == (int)l.label[b];
  }
  build(c, s);
}

/* ---- sums ---- */

void case_batch_sum(Case *c) {
  VectorSpec s = {.rows = rows(c), .batched = true};
  larger_batch(c, 40);
  const double *x = floats(c, (int64_t)c->batch * s.rows);
  double *y = results(c, s.rows);
  for (int i = 0; i < s.rows; i++) y[i] = 0;
  for (int i = 0; i < c->batch * s.rows; i++) y[i % s.rows] += x[i];
  build(c, s);
}

void case_batch_mean(Case *c) {
  larger_batch(c, 700);
  const double *x = floats(c, c->batch);
  double *y = results(c, 1);
  *y = 0;
  for (int b = 0; b < c->batch; b++) *y += x[b] / c->batch;
  build(c, (VectorSpec){0});
}

void case_batch_mean_grad(Case *c) {
  larger_batch(c, 700);
  const double *d = floats(c, 1);
  double *y = results(c, c->batch);
  for (int b = 0; b < c->batch; b++) y[b] = d[0] / c->batch;
  build(c, (VectorSpec){0});
}

static void products(Case *c, bool two) {
  VectorSpec s = {.rows = rows(c)};
  if (case_chance(c, 30)) s.rows = case_pick(c, 700, 3000);
  const double *a = floats(c, s.rows), *b = two ? floats(c, s.rows) : a;
  double *y = results(c, 1);
  *y = 0;
  for (int i = 0; i < s.rows; i++) *y += a[i] * b[i];
  build(c, s);
}

void case_sum_squares(Case *c) {
  products(c, false);
}
void case_dot(Case *c) {
  products(c, true);
}

/* ---- scalars and small vectors ---- */

void case_element(Case *c) {
  VectorSpec s = {.rows = case_pick(c, 1, 40)};
  s.index = case_pick(c, 0, s.rows - 1);
  const double *x = floats(c, s.rows);
  *results(c, 1) = x[s.index];
  build(c, s);
}

void case_stack(Case *c) {
  VectorSpec s = {.count = case_pick(c, 1, 6)};
  double values[6];
  for (int i = 0; i < s.count; i++) values[i] = *floats(c, 1);
  memcpy(results(c, s.count), values, (size_t)s.count * sizeof *values);
  build(c, s);
}

void case_sqrt(Case *c) {
  double *x = floats(c, 1);
  *x = fabs(*x);
  *results(c, 1) = sqrt(*x);
  build(c, (VectorSpec){0});
}

void case_clip(Case *c) {
  VectorSpec s = {.value = case_pick(c, 0, 2) / 2.0};
  double *norm = floats(c, 1);
  *norm = 4 * fabs(*norm);
  *results(c, 1) = s.value > 0 ? fmin(1, s.value / (*norm + 1e-6)) : 1;
  build(c, s);
}

void case_fill(Case *c) {
  VectorSpec s = {.rows = rows(c), .batched = case_chance(c, 50), .value = 0.75};
  int64_t count = (int64_t)s.rows * (s.batched ? c->batch : 1);
  double *y = results(c, count);
  for (int64_t i = 0; i < count; i++) y[i] = s.value;
  build(c, s);
}

void case_adam_step(Case *c) {
  VectorSpec s = {.rows = rows(c), .value = 1e-8};
  const double *m = floats(c, s.rows);
  double *v = floats(c, s.rows), *corrections = floats(c, 3);
  for (int i = 0; i < s.rows; i++) v[i] = fabs(v[i]);
  corrections[0] = (double)0.01f, corrections[1] = 0.5, corrections[2] = (double)0.001f;
  double *y = results(c, s.rows);
  for (int i = 0; i < s.rows; i++) y[i] = corrections[0] * (m[i] / corrections[1]) / (sqrt(v[i] / corrections[2]) + 1e-8);
  build(c, s);
}
