/* Products of a block: plan, multiplication from shared memory into registers, and the results' places. */
#include "kernels/gpu/conv_private.h"

enum {
  MOST_SUMS = 64,       /* results of a thread */
  ENOUGH_SUMS = 32,     /* more are divided among more warps */
  WARPS = 4,            /* of a block, or more where a thread would have too much */
  MOST_THREADS = 256,   /* of FP32 */
  ENOUGH_THREADS = 128, /* of FP32's teams together */
  MOST_COLUMNS = 64,    /* of a tile */
  MOST_UNROLLED = 64,   /* mma of a warp in one straight piece */
  WARP_ROWS = 16,       /* of an mma */
  WARP_COLUMNS = 8,
};

static bool by_threads(const GpuProduct *p) {
  return p->products == PRODUCTS_FP32;
}

static int64_t sums_of(const GpuProduct *p) { /* of a thread */
  return (int64_t)p->own_rows * p->own_columns * (by_threads(p) ? 1 : 4);
}

static int64_t block_columns(const GpuProduct *p) { /* within which B's rows are reordered: those of 4 threads' pieces */
  return 4 * p->width;
}

int64_t gpu_product_step(const GpuProduct *p) {
  return by_threads(p) ? 1 : p->products == PRODUCTS_TF32 ? 8 : 16;
}

int64_t gpu_product_columns(Products products, int64_t columns) {
  int64_t tiles = (columns + MOST_COLUMNS - 1) / MOST_COLUMNS, each = (columns + tiles - 1) / tiles;
  if (products != PRODUCTS_FP32) return (each + 15) / 16 * 16;
  int64_t power = 8;
  while (power < each) power *= 2;
  return power;
}

static void divide_warps(GpuProduct *p, int32_t most_warps) {
  int64_t rows = p->rows / WARP_ROWS, blocks = p->columns / block_columns(p);
  p->down = rows % 4 == 0 ? 4 : rows % 2 == 0 ? 2 : 1;
  p->across = 1;
  while (p->down * p->across < WARPS && blocks % (2 * p->across) == 0) p->across *= 2;
  while (rows / p->down * (p->columns / 2 / p->across) > ENOUGH_SUMS && blocks % (2 * p->across) == 0) p->across *= 2;
  while (p->down * p->across > most_warps && p->down * p->across > 1)
    if (p->across > 1)
      p->across /= 2;
    else
      p->down /= 2;
  p->own_rows = (int32_t)rows / p->down;
  p->own_columns = (int32_t)p->columns / WARP_COLUMNS / p->across;
}

static void divide_threads(GpuProduct *p, int32_t most) {
  p->own_columns = p->own_rows = 4;
  p->across = (int32_t)p->columns / 4;
  p->down = (int32_t)p->rows / 4;
  while (p->down * p->across > most && p->down > 1) p->down /= 2, p->own_rows *= 2;
}

bool gpu_product_plan(GpuProduct *p, const KernelTarget *target, int64_t rows, int64_t columns, int32_t width, int32_t teams) {
  int32_t unit = by_threads(p) ? 1 : GPU_WARP, most = target->lanes, enough = by_threads(p) ? ENOUGH_THREADS : WARPS * GPU_WARP;
  p->rows = rows;
  p->columns = columns;
  p->width = width;
  if (by_threads(p))
    divide_threads(p, most < MOST_THREADS ? most : MOST_THREADS);
  else
    divide_warps(p, most / GPU_WARP);
  int32_t lanes = p->down * p->across * unit;
  p->teams = 1;
  while (p->teams * 2 <= teams && lanes * p->teams * 2 <= (most < enough ? most : enough)) p->teams *= 2;
  p->lanes = lanes * p->teams;
  return sums_of(p) <= MOST_SUMS && p->lanes <= most && p->lanes >= GPU_WARP;
}

int64_t gpu_product_divide(GpuProduct *p, int64_t length, int64_t depth) {
  p->depth = depth;
  p->chunks = (length + depth - 1) / depth;
  p->copies = p->chunks > 1 ? 2 : 1;
  p->a_stride = by_threads(p) ? p->rows + 4 : depth + 8;
  p->b_stride = by_threads(p) ? p->columns + 4 : depth + 8;
  p->a_size = p->a_stride * (by_threads(p) ? depth : p->rows);
  p->b_size = p->b_stride * (by_threads(p) ? depth : p->columns);
  int64_t factors = (p->a_size + p->b_size) * p->copies * loop_element_bytes(p->element);
  return factors + (p->teams > 1 ? p->lanes * sums_of(p) * 4 : 0) + 3 * 64;
}

void gpu_product_declare(LoopKernel *k, GpuProduct *p) {
  p->a = loop_shared_of(k, "a", p->element, p->a_size * p->copies);
  p->b = loop_shared_of(k, "b", p->element, p->b_size * p->copies);
  p->sums = p->teams > 1 ? loop_shared(k, "sums", p->lanes * sums_of(p)) : -1;
  p->acc = loop_tile(k, "acc", LOOP_F32, true, sums_of(p));
  p->piece = loop_tile(k, "piece", LOOP_F32, true, p->width);
  p->left = by_threads(p) ? loop_tile(k, "left", LOOP_F32, true, p->own_rows) : -1;
  p->right = by_threads(p) ? loop_tile(k, "right", LOOP_F32, true, p->own_columns) : -1;
}

void gpu_product_clear(LoopKernel *k, const GpuProduct *p) {
  gpu_fill(k, p->acc, 0, sums_of(p), 0);
}

/* Where a warp, or a thread, stands. */
typedef struct Stand {
  LoopValue lane; /* in the warp */
  LoopValue team, row, column;
} Stand;

static Stand stand(LoopKernel *k, const GpuProduct *p) {
  Stand s;
  LoopValue lane = loop_lane(k);
  int64_t unit = by_threads(p) ? 1 : GPU_WARP;
  s.lane = gpu_mod(k, lane, GPU_WARP);
  LoopValue worker = gpu_div(k, lane, unit);
  LoopValue zero = loop_int(k, 0);
  s.team = p->teams > 1 ? gpu_div(k, worker, (int64_t)p->down * p->across) : zero;
  if (p->teams > 1) worker = gpu_mod(k, worker, (int64_t)p->down * p->across);
  s.row = p->down > 1 ? gpu_div(k, worker, p->across) : zero;
  s.column = p->down > 1 ? gpu_mod(k, worker, p->across) : worker;
  return s;
}

static void multiply_warps(LoopKernel *k, const GpuProduct *p, LoopValue copy) {
  Stand s = stand(k, p);
  int64_t depth = p->depth / p->teams, step = gpu_product_step(p);
  bool few = depth / step * p->own_rows * p->own_columns <= MOST_UNROLLED;
  LoopValue at = few ? loop_unroll(k, 0, depth, step) : build_for(k, 0, depth, step);
  LoopValue term = AT(k, 0, {s.team, depth}, {at, 1});
  LoopValue i = loop_unroll(k, 0, p->own_rows, 1);
  LoopValue row = AT(k, 0, {s.row, p->own_rows}, {i, 1});
  LoopValue left = AT(k, 0, {copy, p->a_size}, {row, WARP_ROWS * p->a_stride}, {term, 1});
  LoopValue j = loop_unroll(k, 0, p->own_columns, 1);
  LoopValue column = AT(k, 0, {s.column, p->own_columns}, {j, 1});
  LoopValue right = AT(k, 0, {copy, p->b_size}, {column, WARP_COLUMNS * p->b_stride}, {term, 1});
  LoopValue slot = AT(k, 0, {i, 4 * p->own_columns}, {j, 4});
  loop_mma(k, p->acc, slot, (LoopFactor){p->a, left, p->a_stride}, (LoopFactor){p->b, right, p->b_stride});
  loop_end(k);
  loop_end(k);
  loop_end(k);
}

/* One term of the sum: acc[i, j] += left[i] * right[j]. A thread's rows stand in fours, `down` fours apart. */
static void multiply_term(LoopKernel *k, const GpuProduct *p, const Stand *s, LoopValue copy, LoopValue term) {
  LoopValue always = gpu_true(k);
  LoopValue left = AT(k, 0, {copy, p->a_size}, {term, p->a_stride}, {s->row, 4});
  LoopValue right = AT(k, 0, {copy, p->b_size}, {term, p->b_stride}, {s->column, 4});
  for (int32_t i = 0; i < p->own_rows; i += 4) {
    LoopValue from = AT(k, (int64_t)i * p->down, {left, 1});
    gpu_read(k, p->left, i, p->a, from, 4, always);
  }
  gpu_read(k, p->right, 0, p->b, right, 4, always);
  LoopValue i = loop_unroll(k, 0, p->own_rows, 1);
  LoopValue x = loop_get(k, p->left, i);
  LoopValue j = loop_unroll(k, 0, 4, 1);
  LoopValue y = loop_get(k, p->right, j);
  LoopValue slot = AT(k, 0, {i, 4}, {j, 1});
  LoopValue sum = loop_get(k, p->acc, slot);
  sum = loop_op3(k, LOOP_FMA, x, y, sum);
  loop_set(k, p->acc, slot, sum);
  loop_end(k);
  loop_end(k);
}

static void multiply_threads(LoopKernel *k, const GpuProduct *p, LoopValue copy) {
  Stand s = stand(k, p);
  int64_t depth = p->depth / p->teams, step = depth % 4 == 0 ? 4 : 1;
  LoopValue at = build_for(k, 0, depth, step);
  LoopValue u = loop_unroll(k, 0, step, 1);
  LoopValue term = AT(k, 0, {s.team, depth}, {at, 1}, {u, 1});
  multiply_term(k, p, &s, copy, term);
  loop_end(k);
  loop_end(k);
}

void gpu_product_multiply(LoopKernel *k, const GpuProduct *p, LoopValue copy) {
  if (by_threads(p))
    multiply_threads(k, p, copy);
  else
    multiply_warps(k, p, copy);
}

/* A warp's thread t of 4 has columns 2t, 2t + 1 of each 8: those of `width` / 2 neighbouring eights shall be its channels
 * width * t .. width * (t + 1), so channel width * t + 2 * j + r is staged as row 8 * j + 2 * t + r of its block. */
int64_t gpu_product_row_of(const GpuProduct *p, int64_t column) {
  int64_t block = block_columns(p), in = column % block, part = in % p->width;
  return column / block * block + part / 2 * 8 + in / p->width * 2 + part % 2;
}

LoopValue gpu_product_row(LoopKernel *k, const GpuProduct *p, LoopValue column) {
  LoopValue block = gpu_div(k, column, block_columns(p));
  LoopValue in = gpu_mod(k, column, block_columns(p));
  LoopValue thread = gpu_div(k, in, p->width);
  LoopValue part = gpu_mod(k, in, p->width);
  LoopValue eight = gpu_div(k, part, 2);
  LoopValue rest = gpu_mod(k, part, 2);
  return AT(k, 0, {block, block_columns(p)}, {eight, 8}, {thread, 2}, {rest, 1});
}

void gpu_product_join(LoopKernel *k, const GpuProduct *p) {
  if (p->teams == 1) return;
  LoopValue lane = loop_lane(k);
  LoopValue always = gpu_true(k);
  int64_t team = p->lanes / p->teams;
  loop_phase(k, "teams");
  LoopValue i = loop_unroll(k, 0, sums_of(p), 1);
  LoopValue value = loop_get(k, p->acc, i);
  LoopValue to = AT(k, 0, {i, p->lanes}, {lane, 1});
  loop_scatter(k, p->sums, to, value, always);
  loop_end(k);
  loop_end(k);
  LoopValue own = gpu_mod(k, lane, team);
  LoopValue j = loop_unroll(k, 0, sums_of(p), 1);
  LoopValue first = AT(k, 0, {j, p->lanes}, {own, 1});
  LoopValue sum = loop_gather(k, p->sums, first, always, 0);
  for (int32_t t = 1; t < p->teams; t++) {
    LoopValue from = AT(k, t * team, {first, 1});
    LoopValue more = loop_gather(k, p->sums, from, always, 0);
    sum = loop_op2(k, LOOP_ADD, sum, more);
  }
  loop_set(k, p->acc, j, sum);
  loop_end(k);
}

static void fill_piece(LoopKernel *k, const GpuProduct *p, LoopValue first) {
  for (int64_t e = 0; e < p->width; e++) {
    int64_t apart = by_threads(p) ? e : e / 2 * 4 + e % 2; /* the next tile of 8 columns is 4 on */
    LoopValue slot = AT(k, apart, {first, 1});
    LoopValue to = loop_int(k, e);
    LoopValue value = loop_get(k, p->acc, slot);
    loop_set(k, p->piece, to, value);
  }
}

GpuPiece gpu_product_results(LoopKernel *k, const GpuProduct *p) {
  GpuPiece piece = {.where = LOOP_NONE};
  Stand s = stand(k, p);
  LoopValue first;
  if (by_threads(p)) {
    LoopValue i = loop_unroll(k, 0, p->own_rows, 1);
    LoopValue four = gpu_div(k, i, 4);
    LoopValue rest = gpu_mod(k, i, 4);
    piece.row = AT(k, 0, {four, 4 * (int64_t)p->down}, {s.row, 4}, {rest, 1});
    piece.column = AT(k, 0, {s.column, 4});
    first = AT(k, 0, {i, 4});
    piece.loops = 1;
  } else {
    int64_t block = block_columns(p);
    LoopValue i = loop_unroll(k, 0, p->own_rows, 1);
    LoopValue half = loop_unroll(k, 0, 2, 1);
    LoopValue j = loop_unroll(k, 0, p->own_columns * WARP_COLUMNS / block, 1);
    LoopValue in_row = gpu_div(k, s.lane, 4);
    LoopValue in_column = gpu_mod(k, s.lane, 4);
    piece.row = AT(k, 0, {s.row, (int64_t)p->own_rows * WARP_ROWS}, {i, WARP_ROWS}, {half, 8}, {in_row, 1});
    piece.column = AT(k, 0, {s.column, (int64_t)p->own_columns * WARP_COLUMNS}, {j, block}, {in_column, p->width});
    first = AT(k, 0, {i, 4 * (int64_t)p->own_columns}, {j, block / WARP_COLUMNS * 4}, {half, 2});
    piece.loops = 3;
  }
  if (p->teams > 1) piece.where = gpu_below(k, s.team, 1);
  fill_piece(k, p, first);
  return piece;
}

void gpu_product_results_end(LoopKernel *k, const GpuPiece *piece) {
  for (int i = 0; i < piece->loops; i++) loop_end(k);
}

void gpu_product_store(LoopKernel *k, const GpuProduct *p, int32_t array, LoopValue index, int32_t width, LoopValue where,
                       LoopValue column, int64_t columns) {
  int32_t step = width < p->width ? width : p->width;
  for (int32_t i = 0; i < p->width; i += step) {
    LoopValue to = AT(k, i, {index, 1});
    LoopValue bit = where;
    if (columns % p->columns) {
      LoopValue at = AT(k, i, {column, 1});
      LoopValue exists = gpu_below(k, at, columns);
      bit = gpu_both(k, bit, exists);
    }
    if (bit == LOOP_NONE) bit = gpu_true(k);
    gpu_write(k, array, to, p->piece, i, step, bit);
  }
}
