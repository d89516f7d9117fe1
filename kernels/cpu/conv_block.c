/* A ConvBlock forward: activation or BN-apply and activation -> depthwise -> pointwise -> moments, one image after another, in
 * bands of output rows. A band's new input rows are staged through the prologue into a ring of rows with their halo as zeros, the
 * depthwise rows go to a small scratch, from there the pointwise products to z, and their moments are taken from registers. So x
 * is read once, z is written once, and all else stays in the first-level cache. */
#include "kernels/cpu/conv_block_private.h"

typedef struct Block {
  const ConvBlockSpec *s;
  ConvInput input;
  int32_t z;
  int64_t band; /* output rows */
  BlockPlane plane;
  BlockRows rows;
  BlockSums sums;
  BlockProduct product;
} Block;

/* ---- a band ---- */

/* Elements of output row y. */
static LoopValue z_index(LoopKernel *k, const Block *f, LoopValue image, LoopValue y) {
  int64_t line = (int64_t)f->s->out.width * f->s->out.stride;
  return AT(k, 0, {image, f->s->out.height * line}, {y, line});
}

/* Into the second-level cache, while this band is multiplied: the next band's rows of x, and of z to be written. */
static void next_band(LoopKernel *k, const Block *f, LoopValue image, LoopValue y, int64_t rows, BlockPrefetch next[2]) {
  const ConvBlockSpec *s = f->s;
  int64_t reach = (int64_t)s->dilation * (s->kernel_y - 1) + 1;
  int64_t line = (int64_t)s->in.width * s->in.stride, input_rows = rows * s->stride_y;
  next[0] = (BlockPrefetch){.array = f->input.x, .channels = s->in.channels, .stride = s->in.stride};
  next[0].pixels = input_rows * s->in.width;
  next[0].at = AT(k, (reach - s->pad_y + input_rows - s->stride_y) * line, {image, s->in.height * line}, {y, s->stride_y * line});
  next[1] = (BlockPrefetch){.array = f->z, .channels = s->out.channels, .stride = s->out.stride, .write = true};
  next[1].pixels = rows * s->out.width;
  LoopValue below = AT(k, rows, {y, 1});
  next[1].at = z_index(k, f, image, below);
}

static void band(LoopKernel *k, const Block *f, LoopValue image, LoopValue y, int64_t rows) {
  int64_t width = f->s->out.width;
  block_stage_band(k, &f->plane, f->input, image, y, rows);
  LoopValue r = build_for(k, 0, rows, 1);
  LoopValue row = AT(k, 0, {y, 1}, {r, 1});
  LoopValue at = AT(k, 0, {r, width * f->plane.pitch});
  block_depthwise_row(k, &f->rows, row, at);
  loop_end(k);
  LoopValue start = loop_int(k, 0);
  block_sums_if_first(k, f->s->images, image, y);
  block_product_shift(k, &f->product, start);
  loop_end(k);
  BlockPrefetch next[2];
  next_band(k, f, image, y, rows, next);
  BlockProduct product = f->product;
  product.prefetch = next;
  product.prefetches = 2;
  LoopValue to = z_index(k, f, image, y);
  block_product(k, &product, start, to, rows * width);
}

/* ---- the kernel ---- */

static ConvSpec depthwise_of(const ConvBlockSpec *s) {
  ConvSpec c = {.target = s->target, .in = s->in, .out = s->out, .prologue = s->prologue, .groups = s->in.channels};
  c.out.channels = s->in.channels;
  c.kernel_y = s->kernel_y, c.kernel_x = s->kernel_x;
  c.stride_y = s->stride_y, c.stride_x = s->stride_x;
  c.pad_y = s->pad_y, c.pad_x = s->pad_x;
  c.dilation = s->dilation;
  return c;
}

static void declare_scratch(LoopKernel *k, Block *f, int32_t wd, int32_t wp) {
  const ConvBlockSpec *s = f->s;
  ConvSpec depthwise = depthwise_of(s);
  f->plane = block_plane(k, &depthwise, f->band);
  int64_t pitch = f->plane.pitch;
  int32_t rows = loop_shared(k, "rows", f->band * s->out.width * pitch);
  f->sums = block_sums_new(k, s->out.channels);
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, BLOCK_ACC);
  f->rows = (BlockRows){.plane = &f->plane, .w = wd, .acc = acc, .to = rows, .to_pitch = pitch};
  f->product = (BlockProduct){.from = rows, .w = wp, .to = f->z, .acc = acc, .sums = &f->sums};
  f->product.in = s->in.channels, f->product.from_pitch = pitch;
  f->product.out = s->out.channels, f->product.to_pitch = s->out.stride;
}

LoopKernel *cpu_conv_block(const ConvBlockSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "conv_block", s->target.lanes);
  int64_t widest = s->in.channels > s->out.channels ? s->in.channels : s->out.channels;
  Block f = {.s = s, .band = block_band_rows(widest, s->out.height, s->out.width)};
  f.input = conv_input(k, &s->prologue);
  int32_t wd = loop_buffer(k, "wd", LOOP_IN, LOOP_ELEMENT_F32), wp = loop_buffer(k, "wp", LOOP_IN, LOOP_ELEMENT_F32);
  f.z = loop_buffer(k, "z", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
  declare_scratch(k, &f, wd, wp);
  block_plane_clear(k, &f.plane);
  block_sums_clear(k, &f.sums);
  LoopValue image = build_images(k, s->images);
  TileLoop bands[2];
  int count = build_tiles(s->out.height, (int32_t)f.band, bands);
  for (int b = 0; b < count; b++) {
    LoopValue y = build_for(k, bands[b].from, bands[b].below, bands[b].size);
    band(k, &f, image, y, bands[b].size);
    loop_end(k);
  }
  loop_end(k);
  block_sums_store(k, &f.sums, partial);
  return k;
}
