/* Reductions over pixels and over the batch. Slots are checked one by one, so that each stands where its task says. */
#include "tests/numeric/families/case.h"

#include <math.h>
#include <string.h>

static MomentsSpec moments_spec(Case *c, bool bands) {
  MomentsSpec s = {.target = c->target};
  int channels = case_channels(c), height = case_side(c), width = case_side(c);
  if (c->number == 0) channels = 16, height = width = 32, c->batch = 1;
  if (c->number == 1) channels = 300, height = width = 5;
  s.in = case_plane(c, channels, height, width);
  if (bands)
    case_divide(c, height);
  else
    c->tasks = (c->batch + c->images - 1) / c->images;
  s.images = c->images;
  s.bands = c->bands;
  c->text = plane_text(c, &s.in);
  return s;
}

/* Numbers about `mean`, as an activation's may be; powers of two keep them exact enough in every element. */
static const double *add_tensor(Case *c, LoopElement element, int64_t count) {
  double *x = case_input(c, element, count), mean = case_chance(c, 30) ? 4 : 0;
  for (int64_t i = 0; i < count; i++) {
    float moved = (float)(x[i] + mean);
    x[i] = (double)(element == LOOP_ELEMENT_BF16 ? loop_from_bf16(loop_to_bf16(moved)) : moved);
  }
  return x;
}

/* Partials (tasks, 3, C) of x. */
static void moments_slots(const Case *c, const MomentsSpec *s, const double *x, double *partial) {
  int n = s->in.channels;
  bool *seen = ARENA_ARRAY(c->arena, bool, c->tasks);
  for (int b = 0; b < c->batch; b++)
    for (int y = 0; y < s->in.height; y++) {
      int task = case_task(c, b, y, s->in.height);
      double *slot = partial + (int64_t)task * 3 * n;
      for (int column = 0; column < s->in.width; column++)
        for (int ch = 0; ch < n; ch++) {
          double value = x[plane_at(&s->in, b, y, column, ch)];
          if (!seen[task] && column == 0) slot[ch] = value, slot[n + ch] = slot[2 * n + ch] = 0;
          slot[n + ch] += value - slot[ch];
          slot[2 * n + ch] += pow(value - slot[ch], 2);
        }
      seen[task] = true;
    }
}

void case_moments(Case *c) {
  MomentsSpec s = moments_spec(c, true);
  int64_t n = s.in.channels, size = c->tasks * 3 * n;
  const double *x = add_tensor(c, s.in.element, plane_size(c, &s.in));
  double *partial = case_output(c, LOOP_ELEMENT_F32, size);
  case_last(c)->part = n;
  case_last(c)->spread = sqrt((double)(s.in.height * s.in.width * n));
  moments_slots(c, &s, x, partial);
  case_build(c, &s);
}

void case_moments_finish(Case *c) {
  MomentsSpec s = moments_spec(c, true);
  int64_t n = s.in.channels, size = c->tasks * 3 * n, pixels = (int64_t)c->batch * s.in.height * s.in.width;
  const double *x = add_tensor(c, s.in.element, plane_size(c, &s.in));
  c->count = 0; /* x itself is no buffer of the kernel */
  double *partial = case_input(c, LOOP_ELEMENT_F32, size);
  moments_slots(c, &s, x, partial);
  for (int64_t i = 0; i < size; i++) partial[i] = (double)(float)partial[i];
  double *want = case_output(c, LOOP_ELEMENT_F32, 2 * n);
  case_last(c)->part = n;
  for (int64_t ch = 0; ch < n; ch++) {
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < pixels; i++) mean += x[i * s.in.stride + ch] / (double)pixels;
    for (int64_t i = 0; i < pixels; i++) squares += pow(x[i * s.in.stride + ch] - mean, 2);
    want[ch] = mean;
    want[n + ch] = squares / (double)pixels;
  }
  c->tasks = 1;
  case_build(c, &s);
}

void case_global_mean(Case *c) {
  MomentsSpec s = moments_spec(c, false);
  int n = s.in.channels, pixels = s.in.height * s.in.width;
  const double *x = case_input(c, s.in.element, plane_size(c, &s.in));
  double *y = case_output(c, LOOP_ELEMENT_F32, (int64_t)c->batch * n);
  case_last(c)->spread = sqrt((double)c->batch * n / pixels);
  for (int i = 0; i < c->batch * n; i++) {
    y[i] = 0;
    for (int p = 0; p < pixels; p++) y[i] += x[((int64_t)(i / n) * pixels + p) * s.in.stride + i % n] / pixels;
  }
  case_build(c, &s);
}

void case_sum_slots(Case *c) {
  SlotsSpec s = {.target = c->target, .bands = 1, .elements = case_pick(c, 1, 100), .total = case_chance(c, 40)};
  s.chunk = c->target.lanes * case_pick(c, 1, 4);
  if (case_chance(c, 30)) s.elements = case_pick(c, 100, 2000);
  int slots = s.slots = case_chance(c, 80) ? case_pick(c, 1, 5) : case_pick(c, 6, 200);
  if (case_chance(c, 50)) {
    case_divide(c, case_pick(c, 1, 12));
    s.images = c->images, s.bands = c->bands, s.slots = 0;
    slots = c->tasks;
  }
  c->text = arena_printf(c->arena, "%d slots of %d, chunk %d%s", slots, (int)s.elements, (int)s.chunk, s.total ? ", total" : "");
  const double *partial = case_input(c, LOOP_ELEMENT_F32, slots * s.elements);
  int64_t count = s.total ? 1 : s.elements;
  double *y = case_output(c, LOOP_ELEMENT_F32, count);
  memset(y, 0, (size_t)count * sizeof *y);
  for (int64_t i = 0; i < slots * s.elements; i++) y[s.total ? 0 : i % s.elements] += partial[i];
  c->tasks = s.total ? 1 : (int32_t)((s.elements + s.chunk - 1) / s.chunk);
  case_build(c, &s);
}
