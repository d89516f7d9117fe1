/* The gradient of a ConvBlock, image by image in a task's scratch (the shapes stand in conv_block_grad_private.h). In bands of
 * output rows, which the first-level cache holds: the input through its prologue, dz, d's gradient, d once more, and the sums for
 * wp. Then, a vector of channels at a time over the whole image, which the second-level cache holds: the sums for wd, and the
 * input's gradient. Without a depthwise convolution d is the staged input itself, of a band, and the input's gradient follows at
 * once. Sums over the task stay in scratch and become its slot at the end. The products prefetch what the next band,
 * or the next image's first, will read, and what dx will be written to. */
#include "kernels/cpu/conv_block_grad_private.h"

Channels block_grad_channels(LoopKernel *k, int64_t channels) {
  Channels c;
  c.at = build_for(k, 0, channels, k->lanes);
  c.count = loop_int(k, build_min(channels, k->lanes));
  if (channels <= k->lanes || channels % k->lanes == 0) return c;
  LoopValue left = AT(k, channels, {c.at, -1});
  LoopValue lanes = loop_int(k, k->lanes);
  c.count = loop_op2(k, LOOP_IMIN, left, lanes);
  return c;
}

/* ---- arrays ---- */

static void declare_buffers(LoopKernel *k, BlockGrad *g) {
  const ConvBlockSpec *s = g->s;
  g->dn = loop_buffer(k, "dn", LOOP_IN, LOOP_ELEMENT_F32);
  g->z = loop_buffer(k, "z", LOOP_IN, LOOP_ELEMENT_F32);
  g->coefficients = loop_buffer(k, "coefficients", LOOP_IN, LOOP_ELEMENT_F32);
  g->input = conv_input(k, &s->prologue);
  if (!s->pointwise) g->wd = loop_buffer(k, "wd", LOOP_IN, LOOP_ELEMENT_F32);
  g->wp = loop_buffer(k, "wp", LOOP_IN, LOOP_ELEMENT_F32);
  g->dx = loop_buffer(k, "dx", s->gradient == BLOCK_ADD ? LOOP_INOUT : LOOP_OUT, LOOP_ELEMENT_F32);
  if (!s->pointwise) g->dwd = loop_buffer(k, "dwd", LOOP_OUT, LOOP_ELEMENT_F32);
  g->dwp = loop_buffer(k, "dwp", LOOP_OUT, LOOP_ELEMENT_F32);
  if (s->gradient == BLOCK_SUMS) g->sums = loop_buffer(k, "sums", LOOP_OUT, LOOP_ELEMENT_F32);
}

static void declare_images(LoopKernel *k, BlockGrad *g) {
  const ConvBlockSpec *s = g->s;
  ConvSpec depthwise = {.target = s->target, .in = s->in, .out = s->out, .prologue = s->prologue, .groups = s->in.channels};
  depthwise.out.channels = s->in.channels;
  depthwise.kernel_y = s->kernel_y, depthwise.kernel_x = s->kernel_x;
  depthwise.stride_y = s->stride_y, depthwise.stride_x = s->stride_x;
  depthwise.pad_y = s->pad_y, depthwise.pad_x = s->pad_x;
  depthwise.dilation = s->dilation;
  g->plane = block_plane(k, &depthwise, s->pointwise ? g->band : s->out.height);
  if (s->pointwise) {
    g->gradient_height = g->band, g->gradient_width = s->out.width;
    return;
  }
  const BlockPlane *p = &g->plane;
  Margin y = block_grad_margin(p->top, p->bottom, s->out.height, s->kernel_y, p->stride_y, p->dilation_y);
  Margin x = block_grad_margin(p->left, p->right, s->out.width, s->kernel_x, p->stride_x, p->dilation_x);
  g->top = y.before, g->gradient_height = y.side;
  g->left = x.before, g->gradient_width = x.side;
}

static void declare_scratch(LoopKernel *k, BlockGrad *g) {
  const ConvBlockSpec *s = g->s;
  int64_t ins = s->in.channels, outs = s->out.channels, taps = (int64_t)s->kernel_y * s->kernel_x;
  g->in = block_pitch(k, ins), g->out = block_pitch(k, outs);
  g->band = block_band_rows(ins > outs ? ins : outs, s->out.height, s->out.width);
  g->registers = k->lanes >= 16 ? 32 : 16;
  declare_images(k, g);
  int64_t pixels = g->band * s->out.width;
  int32_t gradient = loop_shared(k, "gradient", g->gradient_height * g->gradient_width * g->in);
  int32_t dz = loop_shared(k, "dz", pixels * g->out), d = s->pointwise ? g->plane.array : loop_shared(k, "d", pixels * g->in);
  int32_t transposed = loop_shared(k, "transposed", ins * outs);
  if (!s->pointwise) g->taps_sum = loop_shared(k, "taps_sum", taps * g->in);
  g->product_sum = loop_shared(k, "product_sum", g->in * g->out);
  if (s->gradient == BLOCK_SUMS) g->moment_sum = loop_shared(k, "moment_sum", 2 * g->in);
  g->acc = loop_tile(k, "acc", LOOP_F32, true, s->kernel_x > 32 ? s->kernel_x : 32);
  g->totals = loop_tile(k, "totals", LOOP_F32, true, 2);
  g->rows = (BlockRows){.plane = &g->plane, .w = g->wd, .acc = g->acc, .to = d, .to_pitch = g->in};
  g->product = (BlockProduct){.from = dz, .w = transposed, .to = gradient, .in = outs, .out = ins, .acc = g->acc};
  g->product.from_pitch = g->out, g->product.to_pitch = g->in;
}

/* ---- the start of a task ---- */

/* Zeros in the rows top .. bottom-1 of an image of `width` pixels, in the columns left .. right-1. */
static void clear_columns(LoopKernel *k, const BlockGrad *g, int32_t array, int64_t width, int64_t top, int64_t bottom,
                          int64_t left, int64_t right) {
  if (left >= right) return;
  LoopValue row = build_for(k, top, bottom, 1);
  LoopValue i = build_for(k, left * g->in, right * g->in, k->lanes);
  LoopValue at = AT(k, 0, {row, width * g->in}, {i, 1});
  LoopValue zero = loop_f32(k, 0);
  LoopValue lanes = loop_int(k, k->lanes);
  loop_store_lanes(k, array, at, zero, lanes);
  loop_end(k);
  loop_end(k);
}

static void clear_margins(LoopKernel *k, const BlockGrad *g) {
  const BlockPlane *p = &g->plane;
  if (g->s->pointwise) return; /* nothing reads past an image */
  int64_t line = p->width * g->in;
  block_plane_clear(k, p);
  conv_clear(k, p->array, 0, p->top * line);
  conv_clear(k, p->array, p->bottom * line, p->height * line);
  int32_t gradient = g->product.to;
  int64_t width = g->gradient_width, bottom = g->top + g->s->out.height;
  conv_clear(k, gradient, 0, g->top * width * g->in);
  conv_clear(k, gradient, bottom * width * g->in, g->gradient_height * width * g->in);
  clear_columns(k, g, gradient, width, g->top, bottom, 0, g->left);
  clear_columns(k, g, gradient, width, g->top, bottom, g->left + g->s->out.width, width);
}

static void transpose(LoopKernel *k, const BlockGrad *g) {
  int64_t ins = g->s->in.channels, outs = g->s->out.channels;
  TileLoop tiles[2];
  int count = build_tiles(ins, 8, tiles);
  LoopValue o = build_for(k, 0, outs, 1);
  for (int t = 0; t < count; t++) {
    LoopValue c = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
    LoopValue source = AT(k, 0, {c, outs}, {o, 1});
    LoopValue target = AT(k, 0, {o, ins}, {c, 1});
    LoopValue u = loop_unroll(k, 0, tiles[t].size, 1);
    LoopValue from = AT(k, 0, {source, 1}, {u, outs});
    LoopValue value = loop_load(k, g->wp, from);
    LoopValue to = AT(k, 0, {target, 1}, {u, 1});
    loop_store(k, g->product.w, to, value);
    loop_end(k);
    loop_end(k);
  }
  loop_end(k);
}

/* ---- the end of a task ---- */

/* Sums (rows, padded) to the task's slot (rows, channels). */
static void store_slot(LoopKernel *k, int32_t sums, int32_t slot, int64_t rows, int64_t padded, int64_t channels) {
  LoopValue task = loop_task(k);
  LoopValue lanes = loop_int(k, k->lanes);
  Channels c = block_grad_channels(k, channels);
  LoopValue row = build_for(k, 0, rows, 1);
  LoopValue from = AT(k, 0, {row, padded}, {c.at, 1});
  LoopValue value = loop_load_lanes(k, sums, from, lanes, 0);
  LoopValue to = AT(k, 0, {task, rows * channels}, {row, channels}, {c.at, 1});
  loop_store_lanes(k, slot, to, value, c.count);
  loop_end(k);
  loop_end(k);
}

/* ---- the kernel ---- */

static void do_bands(LoopKernel *k, const BlockGrad *g, LoopValue image) {
  TileLoop bands[2];
  int count = build_tiles(g->s->out.height, (int32_t)g->band, bands);
  for (int b = 0; b < count; b++) {
    Band band = {.image = image, .rows = bands[b].size};
    band.first = build_for(k, bands[b].from, bands[b].below, bands[b].size);
    block_stage_band(k, &g->plane, g->input, image, band.first, band.rows);
    block_grad_dz(k, g, band);
    block_grad_pointwise(k, g, band);
    if (g->s->pointwise)
      block_grad_band_input(k, g, band);
    else
      block_grad_depthwise(k, g, band);
    block_grad_product(k, g, band);
    loop_end(k);
  }
}

static void do_images(LoopKernel *k, const BlockGrad *g) {
  LoopValue image = build_images(k, g->s->images);
  do_bands(k, g, image);
  if (g->s->pointwise) {
    loop_end(k);
    return;
  }
  Channels c = block_grad_channels(k, g->s->in.channels);
  block_grad_taps_sum(k, g, c.at);
  block_grad_input(k, g, image, c);
  block_grad_unread(k, g, image, c);
  loop_end(k);
  loop_end(k);
}

LoopKernel *cpu_conv_block_grad(const ConvBlockSpec *s, Arena *arena) {
  if (s->gradient == BLOCK_SUMS && !s->prologue.affine) die("sums of a ConvBlock's gradient without the BN that they are of");
  if (s->pointwise && (s->kernel_y != 1 || s->kernel_x != 1 || s->stride_y != 1 || s->stride_x != 1 || s->pad_y || s->pad_x))
    die("a pointwise ConvBlock's gradient with a window");
  LoopKernel *k = loop_new(arena, "conv_block_grad", s->target.lanes);
  BlockGrad g = {.s = s, .sums = -1};
  declare_buffers(k, &g);
  declare_scratch(k, &g);
  int64_t ins = s->in.channels, outs = s->out.channels, taps = (int64_t)s->kernel_y * s->kernel_x;
  clear_margins(k, &g);
  if (!s->pointwise) conv_clear(k, g.taps_sum, 0, taps * g.in);
  conv_clear(k, g.product_sum, 0, g.in * g.out);
  if (s->gradient == BLOCK_SUMS) conv_clear(k, g.moment_sum, 0, 2 * g.in);
  transpose(k, &g);
  do_images(k, &g);
  if (!s->pointwise) store_slot(k, g.taps_sum, g.dwd, taps, g.in, ins);
  store_slot(k, g.product_sum, g.dwp, ins, g.out, outs);
  if (s->gradient == BLOCK_SUMS) store_slot(k, g.moment_sum, g.sums, 2, g.in, ins);
  return k;
}
