/* What moves pixels: pools and their gradients, shifted copies, and batches from a data set's bytes. */
#include "tests/numeric/families/case.h"

#include <math.h>
#include <string.h>

/* ---- pools ---- */

/* `to` is the gradient's plane. Of equal largest elements the first one counts. */
static void pool_reference(const Case *c, const PoolSpec *s, const Plane *to, const double *x, const double *dy, double *y,
                           double *dx) {
  for (int b = 0; b < c->batch; b++)
    for (int i = 0; i < s->out.height * s->out.width * s->out.channels; i++) {
      int ch = i % s->out.channels, px = i / s->out.channels % s->out.width, py = i / s->out.channels / s->out.width;
      double sum = 0, best = -INFINITY, gradient = dy ? dy[plane_at(&s->out, b, py, px, ch)] : 0;
      int n = 0, best_y = 0, best_x = 0;
      for (int pass = 0; pass < 2; pass++)
        for (int k = 0; k < s->kernel_y * s->kernel_x; k++) {
          int row = py * s->stride_y - s->pad_y + k / s->kernel_x, column = px * s->stride_x - s->pad_x + k % s->kernel_x;
          if (row < 0 || column < 0 || row >= s->in.height || column >= s->in.width) continue;
          double value = x ? x[plane_at(&s->in, b, row, column, ch)] : 0;
          if (!pass && value > best) best = value, best_y = row, best_x = column;
          if (!pass) sum += value, n++;
          if (pass && dx && !s->max) dx[plane_at(to, b, row, column, ch)] += gradient / n;
        }
      if (y) y[plane_at(&s->out, b, py, px, ch)] = s->max ? best : sum / n;
      if (dx && s->max) dx[plane_at(to, b, best_y, best_x, ch)] += gradient;
    }
}

/* Channels, side, kernel, stride, padding. The last two have windows that no tile of a GPU holds: the largest's and the mean's.
 * (The gradient of the first of them would take kernel^4 steps a pixel.) */
enum { REAL_POOLS = 6, LARGE_MAX = 4, LARGE_MEAN };
static const int pool_shapes[REAL_POOLS][5] = {
    {16, 32, 3, 1, 1}, {32, 16, 3, 2, 1}, {300, 5, 3, 1, 1}, {16, 8, 2, 2, 0}, {1, 58, 57, 1, 0}, {1, 58, 57, 1, 0},
};

static PoolSpec pool_spec(Case *c, bool gradient) {
  PoolSpec s = {.target = c->target, .max = case_chance(c, 50)};
  int channels = case_channels(c), height = case_pick(c, 3, 9), width = case_pick(c, 3, c->target.gpu ? 20 : 40);
  s.kernel_y = case_pick(c, 1, 3);
  s.kernel_x = case_pick(c, 1, 3);
  s.stride_y = case_pick(c, 1, 2);
  s.stride_x = case_pick(c, 1, 2);
  s.pad_y = s.kernel_y == 3 ? case_pick(c, 0, 1) : 0;
  s.pad_x = s.kernel_x == 3 ? case_pick(c, 0, 1) : 0;
  if (c->number < REAL_POOLS && !(c->number == LARGE_MAX && gradient)) {
    const int *shape = pool_shapes[c->number];
    if (c->number >= LARGE_MAX) s.max = c->number == LARGE_MAX;
    channels = shape[0], height = width = shape[1];
    s.kernel_y = s.kernel_x = shape[2];
    s.stride_y = s.stride_x = shape[3];
    s.pad_y = s.pad_x = shape[4];
    c->batch = c->images = 1;
  }
  s.in = case_plane(c, channels, height, width);
  s.out = case_plane(c, channels, (height + 2 * s.pad_y - s.kernel_y) / s.stride_y + 1,
                     (width + 2 * s.pad_x - s.kernel_x) / s.stride_x + 1);
  return s;
}

static void pool_divide(Case *c, PoolSpec *s, int rows) {
  case_divide(c, rows);
  s->images = c->images;
  s->bands = c->bands;
  c->text = arena_printf(c->arena, "%s in %s, out %s, kernel %d x %d, stride %d %d, pad %d %d, dx_stride %d%s%s%s",
                         s->max ? "max" : "mean", plane_text(c, &s->in), plane_text(c, &s->out), s->kernel_y, s->kernel_x,
                         s->stride_y, s->stride_x, s->pad_y, s->pad_x, s->dx_stride, s->moments ? ", moments" : "",
                         s->bn ? ", bn" : "", s->add ? ", added" : "");
}

static double *pool_input(Case *c, const PoolSpec *s) {
  int64_t size = plane_size(c, &s->in);
  double *x = case_input(c, s->in.element, size);
  for (int64_t i = 0; i < size; i++) x[i] = case_pick(c, -2, 1); /* ties */
  return x;
}

/* Partials (tasks, 3, C) of the moments of y. */
static void pool_moments(Case *c, const PoolSpec *s, const double *y) {
  int64_t n = s->out.channels, pixels = (int64_t)s->out.height * s->out.width;
  double *partial = case_output(c, LOOP_ELEMENT_F32, c->tasks * 3 * n);
  case_last(c)->part = n;
  case_last(c)->spread = sqrt((double)(pixels * n));
  for (int64_t i = 0; i < c->batch * pixels * n; i++) {
    int64_t pixel = i / n, channel = i % n, task = pixel / pixels / s->images;
    double value = y[pixel * s->out.stride + channel], *slot = partial + task * 3 * n + channel;
    if (pixel == task * s->images * pixels) slot[0] = value, slot[n] = slot[2 * n] = 0;
    slot[n] += value - slot[0];
    slot[2 * n] += pow(value - slot[0], 2);
  }
}

void case_pool(Case *c) {
  PoolSpec s = pool_spec(c, false);
  s.moments = !c->target.gpu && case_chance(c, 50);
  pool_divide(c, &s, s.out.height);
  const double *x = pool_input(c, &s);
  double *y = case_output(c, s.out.element, plane_size(c, &s.out));
  pool_reference(c, &s, NULL, x, NULL, y, NULL);
  if (s.moments) pool_moments(c, &s, y);
  case_build(c, &s);
}

/* z and the coefficients; what the gradient of the BN makes of dn. */
static const double *pool_through_bn(Case *c, const PoolSpec *s, const double *dn) {
  Plane plane = s->out;
  plane.stride = s->z_stride;
  int n = s->out.channels;
  const double *z = case_input(c, LOOP_ELEMENT_F32, plane_size(c, &plane));
  const double *factor = case_input(c, LOOP_ELEMENT_F32, 4 * (int64_t)n);
  double *dy = ARENA_ARRAY(c->arena, double, plane_size(c, &s->out));
  for (int b = 0; b < c->batch; b++)
    for (int y = 0; y < s->out.height; y++)
      for (int i = 0; i < s->out.width * n; i++) {
        int64_t at = plane_at(&s->out, b, y, i / n, i % n), from = plane_at(&plane, b, y, i / n, i % n);
        dy[at] = factor[i % n] * dn[at] + (factor[n + i % n] * (z[from] - factor[2 * n + i % n]) + factor[3 * n + i % n]);
      }
  return dy;
}

void case_pool_grad(Case *c) {
  PoolSpec s = pool_spec(c, true);
  Plane to = s.in;
  if (case_chance(c, 50)) to.stride = s.dx_stride = s.in.channels + (case_chance(c, 50) ? 8 : case_pick(c, 0, 5));
  bool small = s.kernel_y <= POOL_FUSED && s.kernel_x <= POOL_FUSED && s.stride_y <= POOL_FUSED && s.stride_x <= POOL_FUSED;
  s.bn = small && !c->target.gpu && case_chance(c, 50);
  s.add = small && !c->target.gpu && case_chance(c, 50);
  s.z_stride = s.bn ? s.out.channels + case_pick(c, 0, 5) : 0;
  pool_divide(c, &s, s.in.height);
  const double *dy = case_input(c, s.out.element, plane_size(c, &s.out));
  if (s.bn) dy = pool_through_bn(c, &s, dy);
  const double *x = s.max ? pool_input(c, &s) : NULL;
  double *dx = NULL;
  if (s.add) {
    const double *old = case_update(c, to.element, plane_size(c, &to), &dx);
    memcpy(dx, old, (size_t)plane_size(c, &to) * sizeof *dx);
  } else {
    dx = case_output(c, to.element, plane_size(c, &to));
    plane_clear(c, &to, dx);
  }
  pool_reference(c, &s, &to, x, dy, NULL, dx);
  case_build(c, &s);
}

/* ---- shifted copies ---- */

/* Both ways: a pixel of the smaller plane belongs to one of the larger. */
static void shift_case(Case *c, bool back) {
  ShiftSpec s = {.target = c->target, .shift_y = case_pick(c, 0, 2), .shift_x = case_pick(c, 0, 2)};
  int channels = case_channels(c), height = case_side(c), width = case_side(c);
  Plane small = case_plane(c, channels, height, width);
  Plane large = case_plane(c, channels, height + s.shift_y, width + s.shift_x);
  s.in = back ? small : large;
  s.out = back ? large : small;
  case_divide(c, s.out.height);
  s.images = c->images;
  s.bands = c->bands;
  c->text =
      arena_printf(c->arena, "in %s, out %s, shift %d %d", plane_text(c, &s.in), plane_text(c, &s.out), s.shift_y, s.shift_x);
  const double *x = case_input(c, s.in.element, plane_size(c, &s.in));
  double *got = case_output(c, s.out.element, plane_size(c, &s.out));
  plane_clear(c, &s.out, got);
  for (int b = 0; b < c->batch; b++)
    for (int y = 0; y < height; y++)
      for (int i = 0; i < width * channels; i++) {
        int64_t at = plane_at(&small, b, y, i / channels, i % channels);
        int64_t shifted = plane_at(&large, b, y + s.shift_y, i / channels + s.shift_x, i % channels);
        got[back ? shifted : at] = x[back ? at : shifted];
      }
  case_build(c, &s);
}

void case_shift(Case *c) {
  shift_case(c, false);
}

void case_unshift(Case *c) {
  shift_case(c, true);
}

/* ---- batches ---- */

enum { PLAN_IMAGE, PLAN_TOP, PLAN_LEFT, PLAN_FLIP, PLAN_HOLE_TOP, PLAN_HOLE_BOTTOM, PLAN_HOLE_LEFT, PLAN_HOLE_RIGHT, PLAN_ROW };

static void images_plan(Case *c, const ImagesSpec *s, int images, double *plan) {
  for (int b = 0; b < c->batch; b++) {
    double *row = plan + (ptrdiff_t)b * PLAN_ROW;
    bool hole = case_chance(c, 60);
    row[PLAN_IMAGE] = case_pick(c, 0, images - 1);
    row[PLAN_TOP] = case_pick(c, -4, 4);
    row[PLAN_LEFT] = case_pick(c, -4, 4);
    row[PLAN_FLIP] = case_pick(c, 0, 1);
    row[PLAN_HOLE_TOP] = hole ? case_pick(c, 0, s->height) : 0;
    row[PLAN_HOLE_BOTTOM] = hole ? case_pick(c, (int)row[PLAN_HOLE_TOP], s->height) : 0;
    row[PLAN_HOLE_LEFT] = hole ? case_pick(c, 0, s->width) : 0;
    row[PLAN_HOLE_RIGHT] = hole ? case_pick(c, (int)row[PLAN_HOLE_LEFT], s->width) : 0;
  }
}

static double images_pixel(const ImagesSpec *s, const double *plan, const double *pixels, const double *normalised, int y, int x,
                           int channel) {
  if (y >= plan[PLAN_HOLE_TOP] && y < plan[PLAN_HOLE_BOTTOM] && x >= plan[PLAN_HOLE_LEFT] && x < plan[PLAN_HOLE_RIGHT]) return 0;
  int row = y + (int)plan[PLAN_TOP], column = (plan[PLAN_FLIP] != 0 ? s->width - 1 - x : x) + (int)plan[PLAN_LEFT];
  int byte = 0;
  if (row >= 0 && row < s->height && column >= 0 && column < s->width)
    byte = (int)pixels[(((int64_t)plan[PLAN_IMAGE] * s->channels + channel) * s->height + row) * s->width + column];
  return normalised[channel * 256 + byte];
}

void case_images(Case *c) {
  ImagesSpec s = {
      .target = c->target, .channels = case_pick(c, 1, 4), .height = case_pick(c, 1, 12), .width = case_pick(c, 1, 12)};
  if (c->number == 0) s.channels = 3, s.height = s.width = 32;
  int images = case_pick(c, 1, 6);
  c->images = 1;
  c->tasks = c->batch;
  c->text = arena_printf(c->arena, "(%d, %d, %d), %d images", s.height, s.width, s.channels, images);
  int64_t size = (int64_t)s.height * s.width * s.channels;
  const double *pixels = case_integers(c, LOOP_ELEMENT_U8, images * size, 0, 255);
  double *plan = case_integers(c, LOOP_ELEMENT_I32, (int64_t)c->batch * PLAN_ROW, 0, 0);
  const double *normalised = case_input(c, LOOP_ELEMENT_F32, (int64_t)s.channels * 256);
  double *x = case_output(c, LOOP_ELEMENT_F32, c->batch * size);
  images_plan(c, &s, images, plan);
  for (int64_t i = 0; i < c->batch * size; i++) {
    int channel = (int)(i % s.channels), column = (int)(i / s.channels % s.width),
        row = (int)(i / s.channels / s.width % s.height);
    x[i] = images_pixel(&s, plan + i / size * PLAN_ROW, pixels, normalised, row, column, channel);
  }
  c->kernel = gpu_images(&s, c->arena);
}
