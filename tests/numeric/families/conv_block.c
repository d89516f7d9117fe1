/* ConvBlocks: prologue, depthwise and pointwise convolution, moments, as plain loops. */
#include "tests/numeric/families/case.h"

#include <math.h>

/* Shapes of real models: channels in and out, output side, kernel, stride, dilation. */
typedef struct Shape {
  int in, out, side, kernel, stride, dilation;
} Shape;
static const Shape shapes[] = {
    {16, 16, 32, 3, 1, 1}, {16, 16, 32, 5, 1, 2}, {32, 32, 16, 5, 1, 1}, {32, 32, 16, 3, 1, 2}, {64, 64, 8, 3, 1, 1},
    {16, 16, 16, 3, 2, 1}, {32, 32, 8, 5, 2, 2},  {3, 36, 12, 3, 1, 1},  {37, 21, 5, 7, 1, 1},  {130, 3, 3, 3, 1, 1},
};

static int out_side(int side, int pad, int kernel, int stride, int dilation) {
  int room = side + 2 * pad - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

static ConvBlockSpec real_spec(Case *c, const Shape *r) {
  ConvBlockSpec s = {.kernel_y = r->kernel, .kernel_x = r->kernel, .stride_y = r->stride, .stride_x = r->stride};
  s.dilation = r->dilation;
  s.pad_y = s.pad_x = r->dilation * (r->kernel / 2);
  c->batch = c->images = r->side < 16 ? 2 : 1;
  s.in = case_plane(c, r->in, r->side * r->stride, r->side * r->stride);
  s.out = case_plane(c, r->out, r->side, r->side);
  return s;
}

static ConvBlockSpec random_spec(Case *c) {
  for (;;) {
    ConvBlockSpec s = {.kernel_y = case_pick(c, 1, 7), .kernel_x = case_pick(c, 1, 7)};
    if (case_chance(c, 60)) s.kernel_x = s.kernel_y;
    s.dilation = case_pick(c, 1, 4) > 2 ? case_pick(c, 2, 4) : 1;
    s.stride_y = s.stride_x = case_pick(c, 1, 5) > 3 ? case_pick(c, 2, 3) : 1;
    if (case_chance(c, 20)) s.stride_x = case_pick(c, 1, 4);
    s.pad_y = s.dilation * (s.kernel_y / 2);
    s.pad_x = s.dilation * (s.kernel_x / 2);
    if (case_chance(c, 30)) s.pad_y = case_pick(c, 0, 9), s.pad_x = case_pick(c, 0, 9);
    int height = case_side(c), width = case_side(c), in = case_channels(c), out = case_channels(c);
    s.in = case_plane(c, in, height, width);
    s.out = case_plane(c, out, out_side(height, s.pad_y, s.kernel_y, s.stride_y, s.dilation),
                       out_side(width, s.pad_x, s.kernel_x, s.stride_x, s.dilation));
    int64_t pixels = (int64_t)c->batch * s.out.height * s.out.width;
    if (pixels > 0 && pixels * in * (out + s.kernel_y * s.kernel_x) < 400000) return s;
  }
}

ConvBlockSpec case_block_spec(Case *c) {
  int real = (int)(sizeof shapes / sizeof *shapes);
  ConvBlockSpec s = c->number < real ? real_spec(c, &shapes[c->number]) : random_spec(c);
  s.target = c->target;
  s.prologue.affine = case_chance(c, 50);
  s.prologue.relu = case_chance(c, 70);
  s.images = c->images;
  c->tasks = (c->batch + c->images - 1) / c->images;
  c->text = arena_printf(c->arena, "in %s, out %s, kernel %d x %d, stride %d %d, dilation %d, pad %d %d%s%s",
                         plane_text(c, &s.in), plane_text(c, &s.out), s.kernel_y, s.kernel_x, s.stride_y, s.stride_x, s.dilation,
                         s.pad_y, s.pad_x, s.prologue.affine ? ", affine" : "", s.prologue.relu ? ", relu" : "");
  return s;
}

double case_prologue(const Prologue *p, const CaseActivation *a, int64_t i, int channel) {
  double value = a->x[i];
  if (p->affine) value = (value - a->mean[channel]) * a->scale[channel];
  return p->relu && value < 0 ? 0 : value;
}

CaseActivation case_activation(Case *c, const Prologue *p, const Plane *in) {
  CaseActivation a = {.x = case_input(c, in->element, plane_size(c, in))};
  if (!p->affine) return a;
  a.scale = case_input(c, LOOP_ELEMENT_F32, in->channels);
  a.mean = case_input(c, LOOP_ELEMENT_F32, in->channels);
  return a;
}

void case_block_depthwise(const ConvBlockSpec *s, const CaseActivation *a, const double *wd, int image, int y, int x, double *d) {
  for (int ch = 0; ch < s->in.channels; ch++) {
    d[ch] = 0;
    for (int tap = 0; tap < s->kernel_y * s->kernel_x; tap++) {
      int row = y * s->stride_y + tap / s->kernel_x * s->dilation - s->pad_y;
      int column = x * s->stride_x + tap % s->kernel_x * s->dilation - s->pad_x;
      if (row < 0 || column < 0 || row >= s->in.height || column >= s->in.width) continue;
      double value = case_prologue(&s->prologue, a, plane_at(&s->in, image, row, column, ch), ch);
      d[ch] += value * wd[tap * s->in.channels + ch];
    }
  }
}

void case_moments_slots(const Case *c, const Plane *p, const double *z, double *partial) {
  int n = p->channels;
  for (int image = 0; image < c->batch; image++)
    for (int pixel = 0; pixel < p->height * p->width; pixel++)
      for (int ch = 0; ch < n; ch++) {
        double *slot = partial + (int64_t)(image / c->images) * 3 * n + ch;
        double value = z[((int64_t)image * p->height * p->width + pixel) * p->stride + ch];
        if (image % c->images == 0 && pixel == 0) slot[0] = value, slot[n] = slot[2 * n] = 0;
        slot[n] += value - slot[0];
        slot[2 * n] += pow(value - slot[0], 2);
      }
}

/* z, and the norms of the terms that were added to it. */
static void block_reference(const Case *c, const ConvBlockSpec *s, const CaseActivation *a, const double *wd, const double *wp,
                            double *z) {
  double *d = ARENA_ARRAY(c->arena, double, s->in.channels);
  for (int image = 0; image < c->batch; image++)
    for (int y = 0; y < s->out.height; y++)
      for (int x = 0; x < s->out.width; x++) {
        case_block_depthwise(s, a, wd, image, y, x, d);
        for (int o = 0; o < s->out.channels; o++) {
          double *to = &z[plane_at(&s->out, image, y, x, o)];
          *to = 0;
          for (int ch = 0; ch < s->in.channels; ch++) *to += d[ch] * wp[ch * s->out.channels + o];
        }
      }
}

void case_conv_block(Case *c) {
  ConvBlockSpec s = case_block_spec(c);
  CaseActivation a = case_activation(c, &s.prologue, &s.in);
  const double *wd = case_input(c, LOOP_ELEMENT_F32, (int64_t)s.kernel_y * s.kernel_x * s.in.channels);
  const double *wp = case_input(c, LOOP_ELEMENT_F32, (int64_t)s.in.channels * s.out.channels);
  double *z = case_output(c, LOOP_ELEMENT_F32, plane_size(c, &s.out));
  block_reference(c, &s, &a, wd, wp, z);
  double *partial = case_output(c, LOOP_ELEMENT_F32, (int64_t)c->tasks * 3 * s.out.channels);
  case_last(c)->part = s.out.channels;
  case_last(c)->spread = sqrt((double)s.out.height * s.out.width * s.out.channels);
  case_moments_slots(c, &s.out, z, partial);
  case_build(c, &s);
}
