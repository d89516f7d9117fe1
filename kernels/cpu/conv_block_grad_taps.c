/* The gradient of a ConvBlock: the sums for wd, of a vector of channels over a whole image. */
#include "kernels/cpu/conv_block_grad_private.h"

/* Rows of taps whose sums are held in registers together, beside the gradient of some pixels. */
typedef struct TapRows {
  int64_t rows, pixels;
} TapRows;

static TapRows tap_rows(const BlockGrad *g) {
  const ConvBlockSpec *s = g->s;
  int64_t pixels = s->kernel_x <= 3 && g->registers >= 32 ? 8 : 4;
  int64_t rows = (g->registers - pixels - 1) / s->kernel_x;
  return (TapRows){rows < 1 ? 1 : build_min(rows, s->kernel_y), pixels};
}

/* Loads the first `count` elements of acc from the sums at `index`, or stores them there. */
static void move_taps(LoopKernel *k, const BlockGrad *g, int64_t count, LoopValue index, bool load) {
  LoopValue lanes = loop_int(k, k->lanes);
  LoopValue i = loop_unroll(k, 0, count, 1);
  LoopValue at = AT(k, 0, {index, 1}, {i, g->in});
  if (load) {
    LoopValue sum = loop_load_lanes(k, g->taps_sum, at, lanes, 0);
    loop_set(k, g->acc, i, sum);
  } else {
    LoopValue sum = loop_get(k, g->acc, i);
    loop_store_lanes(k, g->taps_sum, at, sum, lanes);
  }
  loop_end(k);
}

/* acc[row, kx] += plane[column] * gradient[pixel], for `pixels` pixels of one row of d; `corner` is what the first row of taps
 * reads. Columns are read once. */
static void taps_tile(LoopKernel *k, const BlockGrad *g, int64_t rows, int64_t pixels, LoopValue corner, LoopValue d) {
  const BlockPlane *p = &g->plane;
  LoopValue lanes = loop_int(k, k->lanes);
  LoopValue gradient[8];
  for (int64_t i = 0; i < pixels; i++) {
    LoopValue at = AT(k, i * g->in, {d, 1});
    gradient[i] = loop_load_lanes(k, g->product.to, at, lanes, 0);
  }
  LoopValue row = loop_unroll(k, 0, rows, 1);
  LoopValue from = AT(k, 0, {corner, 1}, {row, p->dilation_y * p->width * g->in});
  for (int64_t column = 0; column <= (pixels - 1) * p->stride_x + (p->s.kernel_x - 1) * p->dilation_x; column++) {
    LoopValue value = LOOP_NONE;
    for (int32_t kx = 0; kx < p->s.kernel_x; kx++) {
      int64_t i = column - kx * p->dilation_x;
      if (i < 0 || i % p->stride_x || i / p->stride_x >= pixels) continue;
      if (value == LOOP_NONE) {
        LoopValue at = AT(k, column * g->in, {from, 1});
        value = loop_load_lanes(k, p->array, at, lanes, 0);
      }
      LoopValue slot = AT(k, kx, {row, p->s.kernel_x});
      LoopValue sum = loop_get(k, g->acc, slot);
      sum = loop_op3(k, LOOP_FMA, value, gradient[i / p->stride_x], sum);
      loop_set(k, g->acc, slot, sum);
    }
  }
  loop_end(k);
}

/* The sums of the taps in `rows` rows from `ky` on. */
static void taps_group(LoopKernel *k, const BlockGrad *g, LoopValue channel, LoopValue ky, TapRows group) {
  const ConvBlockSpec *s = g->s;
  const BlockPlane *p = &g->plane;
  int64_t line = p->width * g->in, gradient_line = g->gradient_width * g->in;
  LoopValue sums = AT(k, 0, {ky, s->kernel_x * g->in}, {channel, 1});
  move_taps(k, g, group.rows * s->kernel_x, sums, true);
  TileLoop tiles[2];
  int count = build_tiles(s->out.width, (int32_t)group.pixels, tiles);
  LoopValue y = build_for(k, 0, s->out.height, 1);
  for (int t = 0; t < count; t++) {
    LoopValue x = build_for(k, tiles[t].from, tiles[t].below, tiles[t].size);
    LoopValue corner = AT(k, 0, {y, p->stride_y * line}, {ky, p->dilation_y * line}, {x, p->stride_x * g->in}, {channel, 1});
    LoopValue d = AT(k, g->top * gradient_line + g->left * g->in, {y, gradient_line}, {x, g->in}, {channel, 1});
    taps_tile(k, g, group.rows, tiles[t].size, corner, d);
    loop_end(k);
  }
  loop_end(k);
  move_taps(k, g, group.rows * s->kernel_x, sums, false);
}

void block_grad_taps_sum(LoopKernel *k, const BlockGrad *g, LoopValue channel) {
  TapRows group = tap_rows(g);
  int64_t whole = g->s->kernel_y / group.rows * group.rows;
  LoopValue ky = build_for(k, 0, whole, group.rows);
  taps_group(k, g, channel, ky, group);
  loop_end(k);
  if (whole == g->s->kernel_y) return;
  group.rows = g->s->kernel_y - whole;
  LoopValue rest = loop_int(k, whole);
  taps_group(k, g, channel, rest, group);
}
