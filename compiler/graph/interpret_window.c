/* The interpreter's convolutions and pools. The three products of a convolution walk the same (image, output channel, input
 * channel, tap), and for a tap the output pixels whose input pixel lies inside the image; padding is never touched. */
#include "compiler/graph/graph_private.h"

#include <math.h>

/* One image's sides, and the window between them. */
typedef struct Planes {
  const Window *window;
  int64_t big_y, big_x;     /* the input's sides */
  int64_t small_y, small_x; /* the output's */
} Planes;

static Planes planes_of(const Window *window, Type big, Type small) {
  return (Planes){window, big.dims[1], big.dims[2], small.dims[1], small.dims[2]};
}

/* The outputs o for which o * stride + offset is an input: first <= o < end. */
typedef struct Span {
  int64_t first, end, stride, offset;
} Span;

static Span span_of(int64_t big, int64_t small, int64_t stride, int64_t offset) {
  Span span = {offset < 0 ? (-offset + stride - 1) / stride : 0, offset < big ? (big - offset + stride - 1) / stride : 0, stride,
               offset};
  if (span.end > small) span.end = small;
  return span;
}

static Span span_y(const Planes *p, int64_t tap) {
  const Window *w = p->window;
  return span_of(p->big_y, p->small_y, w->stride_y, tap * w->dilation - w->pad_y);
}

static Span span_x(const Planes *p, int64_t tap) {
  const Window *w = p->window;
  return span_of(p->big_x, p->small_x, w->stride_x, tap * w->dilation - w->pad_x);
}

/* ---- convolutions ---- */

typedef struct Conv {
  OpCode op;
  Planes planes;
  int64_t batch, out, in, groups; /* channels */
  double *y, *x, *w;              /* of them one is written: y by conv, x by conv_grad_input, w by conv_grad_weight */
} Conv;

/* One tap over one pair of planes. */
static void conv_tap(const Conv *c, double *y, double *x, double *w, Span rows, Span columns) {
  double sum = 0, weight = *w;
  for (int64_t row = rows.first; row < rows.end; row++) {
    double *small = y + row * c->planes.small_x;
    double *big = x + (row * rows.stride + rows.offset) * c->planes.big_x;
    if (c->op == OP_CONV)
      for (int64_t i = columns.first; i < columns.end; i++) small[i] += weight * big[i * columns.stride + columns.offset];
    else if (c->op == OP_CONV_GRAD_INPUT)
      for (int64_t i = columns.first; i < columns.end; i++) big[i * columns.stride + columns.offset] += weight * small[i];
    else
      for (int64_t i = columns.first; i < columns.end; i++) sum += small[i] * big[i * columns.stride + columns.offset];
  }
  if (c->op == OP_CONV_GRAD_WEIGHT) *w += sum;
}

static void conv_planes(const Conv *c, double *y, double *x, double *w) {
  const Window *window = c->planes.window;
  for (int64_t ky = 0; ky < window->kernel_y; ky++)
    for (int64_t kx = 0; kx < window->kernel_x; kx++)
      conv_tap(c, y, x, w + ky * window->kernel_x + kx, span_y(&c->planes, ky), span_x(&c->planes, kx));
}

static void conv_all(const Conv *c) {
  int64_t in_group = c->in / c->groups, out_group = c->out / c->groups,
          taps = (int64_t)c->planes.window->kernel_y * c->planes.window->kernel_x;
  int64_t small = c->planes.small_y * c->planes.small_x, big = c->planes.big_y * c->planes.big_x;
  for (int64_t b = 0; b < c->batch; b++)
    for (int64_t o = 0; o < c->out; o++)
      for (int64_t i = 0; i < in_group; i++) {
        int64_t channel = o / out_group * in_group + i;
        conv_planes(c, c->y + (b * c->out + o) * small, c->x + (b * c->in + channel) * big, c->w + (o * in_group + i) * taps);
      }
}

static void conv(const Call *call) {
  const Window *window = &call->attributes->window;
  const TensorValue *x = call->x;
  TensorValue result = {call->type, call->y};
  TensorValue small = call->op == OP_CONV ? result : x[0];
  TensorValue big = call->op == OP_CONV ? x[0] : call->op == OP_CONV_GRAD_INPUT ? result : x[1];
  TensorValue weights = call->op == OP_CONV_GRAD_WEIGHT ? result : x[1];
  conv_all(&(Conv){call->op, planes_of(window, big.type, small.type), call->batch, small.type.dims[0], big.type.dims[0],
                   window->groups, small.data, big.data, weights.data});
}

/* ---- pools ---- */

/* The input pixels of one output pixel: rows y0 .. y1, columns x0 .. x1, at least one of them. */
typedef struct Field {
  int64_t y0, y1, x0, x1;
} Field;

static Field field_of(const Planes *p, int64_t row, int64_t column) {
  int64_t y = row * p->window->stride_y - p->window->pad_y, x = column * p->window->stride_x - p->window->pad_x;
  int64_t y1 = y + p->window->kernel_y, x1 = x + p->window->kernel_x;
  return (Field){y < 0 ? 0 : y, y1 > p->big_y ? p->big_y : y1, x < 0 ? 0 : x, x1 > p->big_x ? p->big_x : x1};
}

/* Of the largest pixel; of equal ones the first in row-major order. */
static int64_t largest_pixel(const Planes *p, Field f, const double *x) {
  int64_t best = f.y0 * p->big_x + f.x0;
  for (int64_t row = f.y0; row < f.y1; row++)
    for (int64_t column = f.x0; column < f.x1; column++)
      if (x[row * p->big_x + column] > x[best]) best = row * p->big_x + column;
  return best;
}

static double mean_pixel(const Planes *p, Field f, const double *x) {
  double sum = 0;
  for (int64_t row = f.y0; row < f.y1; row++)
    for (int64_t column = f.x0; column < f.x1; column++) sum += x[row * p->big_x + column];
  return sum / (double)((f.y1 - f.y0) * (f.x1 - f.x0));
}

static void spread_mean(const Planes *p, Field f, double gradient, double *dx) {
  double share = gradient / (double)((f.y1 - f.y0) * (f.x1 - f.x0));
  for (int64_t row = f.y0; row < f.y1; row++)
    for (int64_t column = f.x0; column < f.x1; column++) dx[row * p->big_x + column] += share;
}

/* One output pixel of one plane: `in` and `out` are the planes of the operands and of the result. */
static void pool_pixel(const Call *call, const Planes *p, Field f, int64_t pixel, int64_t small, int64_t big) {
  const double *a = call->x[0].data;
  switch (call->op) {
  case OP_MAX_POOL: call->y[small + pixel] = a[big + largest_pixel(p, f, a + big)]; return;
  case OP_AVG_POOL: call->y[small + pixel] = mean_pixel(p, f, a + big); return;
  case OP_MAX_POOL_GRAD: call->y[big + largest_pixel(p, f, call->x[1].data + big)] += a[small + pixel]; return;
  default: spread_mean(p, f, a[small + pixel], call->y + big); return;
  }
}

static void pool(const Call *call) {
  bool back = call->op == OP_MAX_POOL_GRAD || call->op == OP_AVG_POOL_GRAD;
  Type big = back ? call->type : call->x[0].type, small = back ? call->x[0].type : call->type;
  Planes p = planes_of(&call->attributes->window, big, small);
  for (int64_t plane = 0; plane < call->batch * big.dims[0]; plane++)
    for (int64_t pixel = 0; pixel < p.small_y * p.small_x; pixel++)
      pool_pixel(call, &p, field_of(&p, pixel / p.small_x, pixel % p.small_x), pixel, plane * p.small_y * p.small_x,
                 plane * p.big_y * p.big_x);
}

void interpret_window(const Call *call) {
  switch (call->op) {
  case OP_CONV:
  case OP_CONV_GRAD_INPUT:
  case OP_CONV_GRAD_WEIGHT: conv(call); return;
  case OP_MAX_POOL:
  case OP_MAX_POOL_GRAD:
  case OP_AVG_POOL:
  case OP_AVG_POOL_GRAD: pool(call); return;
  default: die("%s has no window", op_table[call->op].text);
  }
}
