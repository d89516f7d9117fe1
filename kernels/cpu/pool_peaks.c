/* What the gradient of a largest pooling must know of the input's rows: their pixels, padded, and their peaks, the largest pixel
 * of a row in the columns of each window. */
#include "kernels/cpu/pool_grad_private.h"

static void copy_pixels(const PoolGradient *g, LoopValue image, LoopValue y, LoopValue to, LoopValue c, LoopValue lanes) {
  LoopKernel *k = g->k;
  LoopValue whole = loop_int(k, k->lanes), nothing = loop_int(k, 0);
  LoopValue base = plane_index(k, &g->s->in, image, y, nothing, c);
  TileLoop tiles[2];
  int count = build_tiles(g->s->in.width, GRADIENT_PIXELS, tiles);
  for (int i = 0; i < count; i++) {
    LoopValue x = build_for(k, tiles[i].from, tiles[i].below, tiles[i].size);
    for (int32_t j = 0; j < tiles[i].size; j++) {
      LoopValue from = AT(k, (int64_t)j * g->s->in.stride, {base, 1}, {x, g->s->in.stride});
      LoopValue value = loop_load_lanes(k, g->in, from, lanes, 0);
      LoopValue at = AT(k, (j + g->s->kernel_x - 1) * g->across, {to, 1}, {x, g->across}, {c, 1});
      loop_store_lanes(k, g->pixels, at, value, whole);
    }
    loop_end(k);
  }
}

/* The largest pixels of a row in the columns of each window. */
static void find_peaks(const PoolGradient *g, LoopValue from, LoopValue to, LoopValue c) {
  const PoolSpec *s = g->s;
  LoopKernel *k = g->k;
  LoopValue whole = loop_int(k, k->lanes);
  TileLoop tiles[2];
  int count = build_tiles(s->out.width, GRADIENT_PIXELS, tiles);
  for (int i = 0; i < count; i++) {
    LoopValue x = build_for(k, tiles[i].from, tiles[i].below, tiles[i].size);
    LoopValue pixel[GRADIENT_PIXELS * POOL_SMALL];
    int32_t loaded = 0;
    for (int32_t j = 0; j < tiles[i].size; j++) {
      LoopValue peak = LOOP_NONE;
      for (int32_t tap = 0; tap < s->kernel_x; tap++) {
        int32_t column = j * s->stride_x + tap;
        if (column >= loaded) {
          int64_t skip = column + s->kernel_x - 1 - s->pad_x;
          LoopValue at = AT(k, skip * g->across, {from, 1}, {x, s->stride_x * g->across}, {c, 1});
          pixel[column] = loop_load_lanes(k, g->pixels, at, whole, 0);
          loaded = column + 1;
        }
        peak = tap ? loop_op2(k, LOOP_MAX, peak, pixel[column]) : pixel[column];
      }
      LoopValue at = AT(k, j * g->across, {to, 1}, {x, g->across}, {c, 1});
      loop_store_lanes(k, g->peaks, at, peak, whole);
    }
    loop_end(k);
  }
}

static void fill_peaks(const PoolGradient *g, LoopValue y, LoopValue to, LoopValue c) {
  LoopKernel *k = g->k;
  LoopValue whole = loop_int(k, k->lanes);
  LoopValue padded = AT(k, g->s->pad_y, {y, 1});
  LoopValue held = pool_inside(k, padded, g->s->in.height + 2 * (int64_t)g->s->pad_y);
  LoopValue least = loop_f32(k, (double)-INFINITY), most = loop_f32(k, (double)INFINITY);
  LoopValue peak = loop_op3(k, LOOP_SELECT, held, least, most);
  LoopValue x = build_for(k, 0, g->s->out.width, 1);
  LoopValue at = AT(k, 0, {to, 1}, {x, g->across}, {c, 1});
  loop_store_lanes(k, g->peaks, at, peak, whole);
  loop_end(k);
}

void gradient_know_row(const PoolGradient *g, LoopValue image, LoopValue y, LoopValue c, LoopValue lanes) {
  LoopKernel *k = g->k;
  LoopValue to = gradient_peaks(g, y, 0);
  LoopValue is_inside = pool_inside(k, y, g->s->in.height);
  LoopValue is_outside = loop_op1(k, LOOP_NOT, is_inside);
  loop_if(k, is_inside);
  LoopValue row = gradient_pixels(g, y);
  copy_pixels(g, image, y, row, c, lanes);
  find_peaks(g, row, to, c);
  loop_end(k);
  loop_if(k, is_outside);
  fill_peaks(g, y, to, c);
  loop_end(k);
}
