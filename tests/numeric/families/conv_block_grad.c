/* The gradient of a ConvBlock: the block is written out as a depthwise convolution and a product, and each of its gradients as
 * the loops that follow from them. */
#include "tests/numeric/families/case.h"

#include <math.h>

/* The block's values and gradients, in double. */
typedef struct Data {
  const double *dn, *z, *coefficients, *wd, *wp, *old;
  CaseActivation input;
  double *dx, *dwd, *dwp, *sums;
  double *a, *d, *dz, *dd, *da; /* dense, of the batch */
} Data;

static int64_t at_dense(const Plane *p, int b, int y, int x, int channel) {
  return (((int64_t)b * p->height + y) * p->width + x) * p->channels + channel;
}

static Plane with_stride(Plane p, int stride) {
  p.stride = stride;
  return p;
}

#define EACH_ELEMENT(plane)                                                                                                      \
  for (int b = 0; b < c->batch; b++)                                                                                             \
    for (int y = 0; y < (plane)->height; y++)                                                                                    \
      for (int x = 0; x < (plane)->width; x++)                                                                                   \
        for (int ch = 0; ch < (plane)->channels; ch++)

static void read_inputs(const Case *c, const ConvBlockSpec *s, Data *d) {
  const Plane dn = with_stride(s->out, s->dn_stride);
  int outs = s->out.channels;
  EACH_ELEMENT(&s->in) {
    d->a[at_dense(&s->in, b, y, x, ch)] = case_prologue(&s->prologue, &d->input, plane_at(&s->in, b, y, x, ch), ch);
  }
  EACH_ELEMENT(&s->out) {
    const double *factor = d->coefficients + ch;
    d->dz[at_dense(&s->out, b, y, x, ch)] =
        factor[0] * d->dn[plane_at(&dn, b, y, x, ch)] +
        (factor[outs] * (d->z[plane_at(&s->out, b, y, x, ch)] - factor[2 * outs]) + factor[3 * outs]);
  }
}

/* The element of a that a tap of an output reads, or -1. */
static int64_t tap_reads(const ConvBlockSpec *s, int b, int y, int x, int channel, int tap) {
  int row = y * s->stride_y + tap / s->kernel_x * s->dilation - s->pad_y;
  int column = x * s->stride_x + tap % s->kernel_x * s->dilation - s->pad_x;
  if (row < 0 || column < 0 || row >= s->in.height || column >= s->in.width) return -1;
  return at_dense(&s->in, b, row, column, channel);
}

static void back_through(const Case *c, const ConvBlockSpec *s, Data *d, double squares[2]) {
  Plane middle = with_stride(s->out, s->in.channels); /* of d */
  middle.channels = s->in.channels;
  int ins = s->in.channels, outs = s->out.channels, taps = s->kernel_y * s->kernel_x;
  EACH_ELEMENT(&middle) {
    int slot = case_task(c, b, y, s->out.height);
    int64_t at = at_dense(&middle, b, y, x, ch);
    for (int tap = 0; tap < taps; tap++) {
      int64_t from = tap_reads(s, b, y, x, ch, tap);
      if (from >= 0) d->d[at] += d->a[from] * d->wd[tap * ins + ch];
    }
    for (int o = 0; o < outs; o++) {
      double dz = d->dz[at_dense(&s->out, b, y, x, o)], term = d->d[at] * dz;
      d->dd[at] += dz * d->wp[ch * outs + o];
      d->dwp[((int64_t)slot * ins + ch) * outs + o] += term;
      squares[0] += term * term;
    }
    for (int tap = 0; tap < taps; tap++) {
      int64_t from = tap_reads(s, b, y, x, ch, tap);
      if (from < 0) continue;
      double term = d->dd[at] * d->a[from];
      d->da[from] += d->dd[at] * d->wd[tap * ins + ch];
      d->dwd[((int64_t)slot * taps + tap) * ins + ch] += term;
      squares[1] += term * term;
    }
  }
}

static void write_input(const Case *c, const ConvBlockSpec *s, Data *d, double squares[2]) {
  const Plane dx = with_stride(s->in, s->dx_stride);
  EACH_ELEMENT(&s->in) {
    int64_t at = at_dense(&s->in, b, y, x, ch), to = plane_at(&dx, b, y, x, ch);
    double value = s->prologue.relu && !(d->a[at] > 0) ? 0 : d->da[at];
    squares[0] += value * value;
    d->dx[to] = value + (d->old ? d->old[to] : 0);
    if (!d->sums) continue;
    double *sums = d->sums + (int64_t)case_task(c, b, 0, 1) * 2 * s->in.channels + ch;
    double term = value * (d->input.x[plane_at(&s->in, b, y, x, ch)] - d->input.mean[ch]) * d->input.scale[ch];
    sums[0] += value;
    sums[s->in.channels] += term;
    squares[1] += value * value + term * term;
  }
}

static double *zeros(Case *c, int64_t count) {
  return ARENA_ARRAY(c->arena, double, count);
}

/* Adds an output of `count` zeros; `*buffer` is its number. */
static double *add_sums(Case *c, int64_t count, int *buffer) {
  double *want = case_output(c, LOOP_ELEMENT_F32, count);
  for (int64_t i = 0; i < count; i++) want[i] = 0;
  *buffer = c->count - 1;
  return want;
}

/* A depthwise convolution that changes nothing. */
static const double *one_tap(Case *c, int64_t channels) {
  double *taps = zeros(c, channels);
  for (int64_t i = 0; i < channels; i++) taps[i] = 1;
  return taps;
}

static void make_pointwise(ConvBlockSpec *s) {
  s->pointwise = true;
  s->kernel_y = s->kernel_x = s->stride_y = s->stride_x = s->dilation = 1;
  s->pad_y = s->pad_x = 0;
  s->in.height = s->out.height;
  s->in.width = s->out.width;
}

static ConvBlockSpec gradient_spec(Case *c) {
  ConvBlockSpec s = case_block_spec(c);
  if (c->number % 3 == 2) make_pointwise(&s);
  s.gradient = case_chance(c, 33) ? BLOCK_ADD : s.prologue.affine && case_chance(c, 70) ? BLOCK_SUMS : BLOCK_STORE;
  s.dn_stride = s.out.channels + (case_chance(c, 35) ? case_pick(c, 1, 9) : 0);
  s.dx_stride = s.in.channels + (case_chance(c, 35) ? case_pick(c, 1, 9) : 0);
  static const char *const epilogues[] = {[BLOCK_STORE] = "store", [BLOCK_ADD] = "add", [BLOCK_SUMS] = "sums"};
  c->text = arena_printf(c->arena, "%s%s, %s, dn stride %d, dx stride %d", s.pointwise ? "pointwise, first of all " : "", c->text,
                         epilogues[s.gradient], s.dn_stride, s.dx_stride);
  return s;
}

void case_conv_block_grad(Case *c) {
  ConvBlockSpec s = gradient_spec(c);
  const Plane dn = with_stride(s.out, s.dn_stride), dx = with_stride(s.in, s.dx_stride);
  int64_t ins = s.in.channels, outs = s.out.channels, taps = (int64_t)s.kernel_y * s.kernel_x;
  int64_t in_pixels = (int64_t)c->batch * s.in.height * s.in.width, out_pixels = (int64_t)c->batch * s.out.height * s.out.width;
  Data d = {.dn = case_input(c, LOOP_ELEMENT_F32, plane_size(c, &dn))};
  d.z = case_input(c, LOOP_ELEMENT_F32, plane_size(c, &s.out));
  d.coefficients = case_input(c, LOOP_ELEMENT_F32, 4 * outs);
  d.input = case_activation(c, &s.prologue, &s.in);
  d.wd = s.pointwise ? one_tap(c, ins) : case_input(c, LOOP_ELEMENT_F32, taps * ins);
  d.wp = case_input(c, LOOP_ELEMENT_F32, ins * outs);
  if (s.gradient == BLOCK_ADD)
    d.old = case_update(c, LOOP_ELEMENT_F32, plane_size(c, &dx), &d.dx);
  else
    d.dx = case_output(c, LOOP_ELEMENT_F32, plane_size(c, &dx));
  int dx_buffer = c->count - 1, dwd_buffer = -1, dwp_buffer, sums_buffer = -1;
  d.dwd = s.pointwise ? zeros(c, c->tasks * ins) : add_sums(c, c->tasks * taps * ins, &dwd_buffer);
  d.dwp = add_sums(c, c->tasks * ins * outs, &dwp_buffer);
  if (s.gradient == BLOCK_SUMS) d.sums = add_sums(c, c->tasks * 2 * ins, &sums_buffer);
  d.a = zeros(c, in_pixels * ins), d.da = zeros(c, in_pixels * ins);
  d.d = zeros(c, out_pixels * ins), d.dd = zeros(c, out_pixels * ins), d.dz = zeros(c, out_pixels * outs);
  double weights[2] = {0}, inputs[2] = {0};
  read_inputs(c, &s, &d);
  back_through(c, &s, &d, weights);
  write_input(c, &s, &d, inputs);
  c->buffers[dwp_buffer].spread = sqrt(weights[0]);
  if (dwd_buffer >= 0) c->buffers[dwd_buffer].spread = sqrt(weights[1]);
  c->buffers[dx_buffer].spread = sqrt(inputs[0]);
  if (sums_buffer >= 0) c->buffers[sums_buffer].spread = sqrt(inputs[1]);
  case_build(c, &s);
}
