/* Convolutions: forward, the input's gradient, the weight's gradient a slot. One loop over taps serves all three. */
#include "tests/numeric/families/case.h"

#include <math.h>

/* Shapes of real models: channels in and out, side, kernel, stride, dilation, groups, shift. */
typedef struct Shape {
  int in, out, side, kernel, stride, dilation, groups, shift;
} Shape;
static const Shape shapes[] = {
    {16, 16, 32, 3, 1, 1, 1, 0},    /* a stem */
    {64, 16, 16, 1, 1, 1, 1, 0},    /* a cell's input */
    {32, 64, 8, 1, 1, 1, 1, 0},     /* a separable convolution's second half */
    {32, 32, 16, 5, 1, 2, 32, 0},   /* dilated, depthwise */
    {16, 16, 16, 3, 2, 1, 16, 0},   /* depthwise, reducing */
    {16, 24, 16, 1, 2, 1, 1, 1},    /* half of a factorised reduction */
    {300, 7, 5, 1, 1, 1, 1, 0},     /* nothing divides anything */
    {37, 300, 4, 1, 1, 1, 1, 0},    /* the other way round */
    {300, 300, 5, 3, 1, 1, 300, 0}, /* depthwise */
    {24, 24, 9, 3, 1, 2, 4, 0},     /* grouped */
    {3, 3, 30, 5, 1, 20, 3, 1},     /* windows that no tile holds */
    {3, 3, 45, 5, 2, 20, 3, 0},     /* and with a stride */
    {8, 8, 24, 3, 1, 11, 1, 0},     /* dense */
};

static int out_side(int side, int shift, int pad, int kernel, int stride, int dilation) {
  int room = side - shift + 2 * pad - dilation * (kernel - 1) - 1;
  return side <= shift || room < 0 ? 0 : room / stride + 1;
}

static bool set_planes(Case *c, ConvSpec *s, int in, int out, int height, int width) {
  s->in = case_plane(c, in, height, width);
  s->out = case_plane(c, out, out_side(height, s->shift_y, s->pad_y, s->kernel_y, s->stride_y, s->dilation),
                      out_side(width, s->shift_x, s->pad_x, s->kernel_x, s->stride_x, s->dilation));
  return s->out.height > 0 && s->out.width > 0;
}

static void pad_to_same(ConvSpec *s) {
  s->pad_y = s->dilation * (s->kernel_y / 2);
  s->pad_x = s->dilation * (s->kernel_x / 2);
}

static ConvSpec real_spec(Case *c, const Shape *r) {
  ConvSpec s = {.groups = r->groups, .dilation = r->dilation, .shift_y = r->shift, .shift_x = r->shift};
  s.kernel_y = s.kernel_x = r->kernel;
  s.stride_y = s.stride_x = r->stride;
  pad_to_same(&s);
  c->batch = c->images = 1;
  if (!set_planes(c, &s, r->in, r->out, r->side, r->side)) die("a shape without an output");
  return s;
}

static ConvSpec random_spec(Case *c) {
  for (;;) {
    ConvSpec s = {.dilation = case_pick(c, 1, 2), .groups = 1};
    int kind = case_pick(c, 0, 3), in = case_channels(c), out = case_channels(c);
    if (kind == 1) s.groups = out = in; /* depthwise */
    if (kind == 2) {
      s.groups = case_pick(c, 2, 3);
      in = s.groups * case_pick(c, 1, 20);
      out = s.groups * case_pick(c, 1, 20);
    }
    s.kernel_y = s.kernel_x = 2 * case_pick(c, 0, 2) + 1;
    int shape = case_pick(c, 0, 5);
    if (shape == 0) s.kernel_y = 1, s.kernel_x = 7;
    if (shape == 1) s.kernel_y = 7, s.kernel_x = 1;
    s.stride_y = s.stride_x = case_pick(c, 1, 2);
    if (case_chance(c, 20)) s.stride_x = 3 - s.stride_y;
    if (case_chance(c, 75)) pad_to_same(&s);
    if (case_chance(c, 33)) s.shift_y = case_pick(c, 0, 2), s.shift_x = case_pick(c, 0, 2);
    int height = case_side(c), width = case_side(c);
    if (!set_planes(c, &s, in, out, height, width)) continue;
    int64_t work = (int64_t)c->batch * s.out.height * s.out.width * in * out / s.groups * s.kernel_y * s.kernel_x;
    if (work < (c->target.gpu ? 150000 : 400000)) return s;
  }
}

static ConvSpec conv_spec(Case *c) {
  int real = (int)(sizeof shapes / sizeof *shapes);
  ConvSpec s = c->number < real ? real_spec(c, &shapes[c->number]) : random_spec(c);
  s.target = c->target;
  return s;
}

static void conv_divide(Case *c, ConvSpec *s, int rows) {
  case_divide(c, rows);
  s->images = c->images;
  s->bands = c->bands;
  c->text =
      arena_printf(c->arena, "in %s, out %s, kernel %d x %d, stride %d %d, dilation %d, pad %d %d, groups %d, shift %d %d%s%s%s",
                   plane_text(c, &s->in), plane_text(c, &s->out), s->kernel_y, s->kernel_x, s->stride_y, s->stride_x, s->dilation,
                   s->pad_y, s->pad_x, s->groups, s->shift_y, s->shift_x, s->prologue.affine ? ", affine" : "",
                   s->prologue.relu ? ", relu" : "", s->moments ? ", moments" : "");
}

/* ---- the reference ---- */

typedef struct Data {
  const double *x, *scale, *mean, *w, *dy;
  double *y, *dx, *dw; /* any may be null; dw: (tasks, elements of w) */
  double squares;      /* of all terms that were added */
} Data;

static double prologue(const ConvSpec *s, const Data *d, int64_t i, int channel) {
  double value = d->x[i];
  if (s->prologue.affine) value = (value - d->mean[channel]) * d->scale[channel];
  return s->prologue.relu && value < 0 ? 0 : value;
}

static int64_t weights(const ConvSpec *s) {
  return (int64_t)s->kernel_y * s->kernel_x * (s->in.channels / s->groups) * s->out.channels;
}

static void add_term(Data *d, double *to, double term) {
  *to += term;
  d->squares += term * term;
}

static void conv_tap(const Case *c, const ConvSpec *s, Data *d, int b, int y, int x, int o, int tap) {
  int each = s->in.channels / s->groups, g = o / (s->out.channels / s->groups);
  int row = y * s->stride_y + tap / s->kernel_x * s->dilation - s->pad_y;
  int column = x * s->stride_x + tap % s->kernel_x * s->dilation - s->pad_x;
  if (row < 0 || column < 0 || row >= s->in.height - s->shift_y || column >= s->in.width - s->shift_x) return;
  int64_t to = plane_at(&s->out, b, y, x, o);
  for (int i = 0; i < each; i++) {
    int channel = g * each + i;
    int64_t from = plane_at(&s->in, b, row + s->shift_y, column + s->shift_x, channel);
    int64_t w = ((int64_t)tap * each + i) * s->out.channels + o;
    if (d->y) add_term(d, &d->y[to], prologue(s, d, from, channel) * d->w[w]);
    if (d->dx) add_term(d, &d->dx[from], d->dy[to] * d->w[w]);
    if (d->dw) {
      int64_t slot = case_task(c, b, y, s->out.height);
      add_term(d, &d->dw[slot * weights(s) + w], d->dy[to] * prologue(s, d, from, channel));
    }
  }
}

static void conv_reference(Case *c, const ConvSpec *s, Data *d) {
  for (int b = 0; b < c->batch; b++)
    for (int y = 0; y < s->out.height; y++)
      for (int x = 0; x < s->out.width; x++)
        for (int o = 0; o < s->out.channels; o++)
          for (int tap = 0; tap < s->kernel_y * s->kernel_x; tap++) conv_tap(c, s, d, b, y, x, o, tap);
  case_last(c)->spread = sqrt(d->squares);
  bool depthwise = s->groups > 1 && s->groups == s->in.channels && s->groups == s->out.channels;
  if (!depthwise) case_dense(c);
}

/* ---- the descriptions ---- */

static void add_x(Case *c, const ConvSpec *s, Data *d) {
  d->x = case_input(c, s->in.element, plane_size(c, &s->in));
  if (!s->prologue.affine) return;
  d->scale = case_input(c, LOOP_ELEMENT_F32, s->in.channels);
  d->mean = case_input(c, LOOP_ELEMENT_F32, s->in.channels);
}

void case_conv(Case *c) {
  ConvSpec s = conv_spec(c);
  Data d = {0};
  s.prologue.affine = case_chance(c, 50);
  s.prologue.relu = case_chance(c, 50);
  s.moments = !c->target.gpu && case_chance(c, 40);
  conv_divide(c, &s, s.out.height);
  add_x(c, &s, &d);
  d.w = case_input(c, LOOP_ELEMENT_F32, weights(&s));
  d.y = case_output(c, s.out.element, plane_size(c, &s.out));
  plane_clear(c, &s.out, d.y);
  conv_reference(c, &s, &d);
  if (s.moments) {
    double *partial = case_output(c, LOOP_ELEMENT_F32, (int64_t)c->tasks * 3 * s.out.channels);
    case_last(c)->part = s.out.channels;
    case_last(c)->spread = sqrt((double)s.out.height * s.out.width * s.out.channels);
    case_moments_slots(c, &s.out, d.y, partial);
  }
  case_build(c, &s);
}

void case_conv_grad_input(Case *c) {
  ConvSpec s = conv_spec(c);
  Data d = {0};
  conv_divide(c, &s, s.in.height);
  d.dy = case_input(c, s.out.element, plane_size(c, &s.out));
  d.w = case_input(c, LOOP_ELEMENT_F32, weights(&s));
  d.dx = case_output(c, s.in.element, plane_size(c, &s.in));
  plane_clear(c, &s.in, d.dx);
  conv_reference(c, &s, &d);
  case_build(c, &s);
}

void case_conv_grad_weight(Case *c) {
  ConvSpec s = conv_spec(c);
  Data d = {0};
  s.prologue.affine = case_chance(c, 50);
  s.prologue.relu = case_chance(c, 50);
  conv_divide(c, &s, s.out.height);
  d.dy = case_input(c, s.out.element, plane_size(c, &s.out));
  add_x(c, &s, &d);
  int64_t size = c->tasks * weights(&s);
  d.dw = case_output(c, LOOP_ELEMENT_F32, size);
  for (int64_t i = 0; i < size; i++) d.dw[i] = 0;
  conv_reference(c, &s, &d);
  case_build(c, &s);
}
