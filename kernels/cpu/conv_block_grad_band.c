/* The gradient of a ConvBlock, the part that is done band by band: whatever has the pointwise product in it, and what that
 * reads. */
#include "kernels/cpu/conv_block_grad_private.h"

/* The first element of a band's rows of one of the output's shape. */
static LoopValue output_rows(LoopKernel *k, const BlockGrad *g, LoopValue image, LoopValue y, int64_t stride) {
  int64_t line = g->s->out.width * stride;
  return AT(k, 0, {image, g->s->out.height * line}, {y, line});
}

/* dz = c0 dn + (c1 (z - c2) + c3) */
void block_grad_dz(LoopKernel *k, const BlockGrad *g, Band band) {
  const ConvBlockSpec *s = g->s;
  LoopValue dn_at = output_rows(k, g, band.image, band.first, s->dn_stride);
  LoopValue z_at = output_rows(k, g, band.image, band.first, s->out.stride);
  LoopValue lanes = loop_int(k, k->lanes);
  TileLoop tiles[2];
  int count = build_tiles(band.rows * s->out.width, 8, tiles);
  Channels c = block_grad_channels(k, s->out.channels);
  LoopValue factor[4];
  for (int i = 0; i < 4; i++) {
    LoopValue at = AT(k, (int64_t)i * s->out.channels, {c.at, 1});
    factor[i] = loop_load_lanes(k, g->coefficients, at, c.count, 0);
  }
  for (int t = 0; t < count; t++) {
    LoopValue pixel = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
    LoopValue u = loop_unroll(k, 0, tiles[t].size, 1);
    LoopValue dn_from = AT(k, 0, {dn_at, 1}, {c.at, 1}, {pixel, s->dn_stride}, {u, s->dn_stride});
    LoopValue dn = loop_load_lanes(k, g->dn, dn_from, c.count, 0);
    LoopValue z_from = AT(k, 0, {z_at, 1}, {c.at, 1}, {pixel, s->out.stride}, {u, s->out.stride});
    LoopValue z = loop_load_lanes(k, g->z, z_from, c.count, 0);
    z = loop_op2(k, LOOP_SUB, z, factor[2]);
    z = loop_op3(k, LOOP_FMA, factor[1], z, factor[3]);
    LoopValue dz = loop_op3(k, LOOP_FMA, factor[0], dn, z);
    LoopValue to = AT(k, 0, {c.at, 1}, {pixel, g->out}, {u, g->out});
    loop_store_lanes(k, g->product.from, to, dz, lanes);
    loop_end(k);
    loop_end(k);
  }
  loop_end(k);
}

/* ---- prefetches ---- */

/* What the row of the next band reads of dn and x. */
static void next_row(LoopKernel *k, const BlockGrad *g, Band band, LoopValue y, BlockPrefetch next[2]) {
  const ConvBlockSpec *s = g->s;
  int64_t reach = (int64_t)s->dilation * (s->kernel_y - 1) + 1, line = (int64_t)s->in.width * s->in.stride;
  LoopValue below = AT(k, band.rows, {y, 1});
  next[0] = (BlockPrefetch){.array = g->dn, .channels = s->out.channels, .stride = s->dn_stride, .pixels = s->out.width};
  next[0].at = output_rows(k, g, band.image, below, s->dn_stride);
  next[1] = (BlockPrefetch){.array = g->input.x, .channels = s->in.channels, .stride = s->in.stride};
  next[1].pixels = (int64_t)s->stride_y * s->in.width;
  next[1].at = AT(k, (reach - s->pad_y - s->stride_y) * line, {band.image, s->in.height * line}, {below, s->stride_y * line});
}

/* Of z what the next band reads, of dx where this one's rows stand. */
static void next_band(LoopKernel *k, const BlockGrad *g, Band band, BlockPrefetch next[2]) {
  const ConvBlockSpec *s = g->s;
  int64_t line = (int64_t)s->in.width * s->dx_stride;
  LoopValue below = AT(k, band.rows, {band.first, 1});
  next[0] = (BlockPrefetch){.array = g->z, .channels = s->out.channels, .stride = s->out.stride};
  next[0].pixels = band.rows * s->out.width;
  next[0].at = output_rows(k, g, band.image, below, s->out.stride);
  next[1] = (BlockPrefetch){.array = g->dx, .channels = s->in.channels, .stride = s->dx_stride, .write = true};
  next[1].pixels = band.rows * s->stride_y * s->in.width;
  next[1].at = AT(k, 0, {band.image, s->in.height * line}, {band.first, s->stride_y * line});
}

/* ---- d and its gradient ---- */

void block_grad_pointwise(LoopKernel *k, const BlockGrad *g, Band band) {
  int64_t width = g->s->out.width;
  LoopValue r = build_for(k, 0, band.rows, 1);
  LoopValue y = AT(k, 0, {band.first, 1}, {r, 1});
  LoopValue from = AT(k, 0, {r, width * g->out});
  LoopValue row = g->s->pointwise ? r : y; /* `gradient` holds a band, or the image */
  LoopValue to = AT(k, (g->top * g->gradient_width + g->left) * g->in, {row, g->gradient_width * g->in});
  BlockPrefetch next[2];
  next_row(k, g, band, y, next);
  BlockProduct product = g->product;
  product.prefetch = next;
  product.prefetches = 2;
  block_product(k, &product, from, to, width);
  loop_end(k);
}

void block_grad_depthwise(LoopKernel *k, const BlockGrad *g, Band band) {
  LoopValue r = build_for(k, 0, band.rows, 1);
  LoopValue y = AT(k, 0, {band.first, 1}, {r, 1});
  LoopValue to = AT(k, 0, {r, g->s->out.width * g->in});
  block_depthwise_row(k, &g->rows, y, to);
  loop_end(k);
}

/* ---- the sums for wp ---- */

typedef struct SumTile { /* of channels of d times vectors of channels of dz; `step` pixels at once */
  int64_t rows, blocks, step;
} SumTile;

static void sum_prefetch(LoopKernel *k, const BlockGrad *g, const SumTile *t, Band band, LoopValue c, LoopValue o, LoopValue p) {
  int64_t by_pixels = band.rows * g->s->out.width / t->step, by_blocks = g->out / (t->blocks * k->lanes);
  int64_t steps = (g->s->in.channels + t->rows - 1) / t->rows * by_blocks * by_pixels;
  LoopValue step = loop_int(k, t->step), rows = loop_int(k, t->rows), blocks = loop_int(k, t->blocks * k->lanes);
  LoopValue part = loop_op2(k, LOOP_IDIV, p, step);
  LoopValue row = loop_op2(k, LOOP_IDIV, c, rows);
  LoopValue block = loop_op2(k, LOOP_IDIV, o, blocks);
  LoopValue number = AT(k, 0, {row, by_blocks * by_pixels}, {block, by_pixels}, {part, 1});
  BlockPrefetch next[2];
  next_band(k, g, band, next);
  for (int i = 0; i < 2; i++) { /* where there are more steps than lines, some in a row prefetch the same one */
    int64_t lines = next[i].pixels * ((next[i].channels + BLOCK_LINE - 1) / BLOCK_LINE);
    int64_t again = steps > lines ? steps / lines : 1;
    LoopValue divisor = loop_int(k, again);
    LoopValue share = loop_op2(k, LOOP_IDIV, number, divisor);
    block_prefetch_step(k, &next[i], share, steps / again);
  }
}

/* acc[row, block] += d[pixel, c + row] * dz[pixel, o + block] over the band */
static void sum_pixels(LoopKernel *k, const BlockGrad *g, const SumTile *t, Band band, LoopValue c, LoopValue o) {
  LoopValue lanes = loop_int(k, k->lanes);
  LoopValue p = build_for(k, 0, band.rows * g->s->out.width, t->step);
  sum_prefetch(k, g, t, band, c, o, p);
  LoopValue d = AT(k, 0, {p, g->in}, {c, 1});
  LoopValue dz = AT(k, 0, {p, g->out}, {o, 1});
  LoopValue u = loop_unroll(k, 0, t->step, 1);
  LoopValue vector[4];
  for (int64_t b = 0; b < t->blocks; b++) {
    LoopValue at = AT(k, b * k->lanes, {dz, 1}, {u, g->out});
    vector[b] = loop_load_lanes(k, g->product.from, at, lanes, 0);
  }
  LoopValue i = loop_unroll(k, 0, t->rows, 1);
  LoopValue at = AT(k, 0, {d, 1}, {u, g->in}, {i, 1});
  LoopValue value = loop_load(k, g->rows.to, at);
  for (int64_t b = 0; b < t->blocks; b++) {
    LoopValue slot = AT(k, b, {i, t->blocks});
    LoopValue sum = loop_get(k, g->acc, slot);
    sum = loop_op3(k, LOOP_FMA, value, vector[b], sum);
    loop_set(k, g->acc, slot, sum);
  }
  loop_end(k);
  loop_end(k);
  loop_end(k);
}

/* Loads acc from the sums at `index`, or stores it there. */
static void move_sums(LoopKernel *k, const BlockGrad *g, const SumTile *t, LoopValue index, bool load) {
  LoopValue lanes = loop_int(k, k->lanes);
  LoopValue i = loop_unroll(k, 0, t->rows, 1);
  LoopValue b = loop_unroll(k, 0, t->blocks, 1);
  LoopValue slot = AT(k, 0, {i, t->blocks}, {b, 1});
  LoopValue at = AT(k, 0, {index, 1}, {i, g->out}, {b, k->lanes});
  if (load) {
    LoopValue sum = loop_load_lanes(k, g->product_sum, at, lanes, 0);
    loop_set(k, g->acc, slot, sum);
  } else {
    LoopValue sum = loop_get(k, g->acc, slot);
    loop_store_lanes(k, g->product_sum, at, sum, lanes);
  }
  loop_end(k);
  loop_end(k);
}

/* Tiles as square as half the registers allow. Their rows divide the padded channels. */
void block_grad_product(LoopKernel *k, const BlockGrad *g, Band band) {
  int64_t vectors = g->registers / 2, of_dz = g->out / k->lanes;
  int64_t blocks = of_dz % 4 == 0 && vectors == 16 ? 4 : of_dz % 2 == 0 ? 2 : 1;
  SumTile t = {vectors / blocks, blocks, band.rows * g->s->out.width % 2 ? 1 : 2};
  LoopValue c = build_for(k, 0, g->s->in.channels, t.rows);
  LoopValue o = build_for(k, 0, g->out, blocks * k->lanes);
  LoopValue sums = AT(k, 0, {c, g->out}, {o, 1});
  move_sums(k, g, &t, sums, true);
  sum_pixels(k, g, &t, band, c, o);
  move_sums(k, g, &t, sums, false);
  loop_end(k);
  loop_end(k);
}
