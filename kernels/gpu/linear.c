/* Linear layers on a GPU: the classifier (a batch, few rows) and the generators (one vector, up to tens of thousands of rows),
 * whose weights (in, out) are streamed once, in order. */
#include "kernels/gpu/threads.h"
#include "kernels/vector_words.h"

enum {
  LINEAR_THREADS = 256,
  LINEAR_BATCH = 256,        /* images, about: how many threads are worth while */
  LINEAR_UNROLL = 8,         /* inputs whose weights are in flight together */
  LINEAR_SHARED_BY = 4,      /* threads that share the inputs of an output, so that there are enough of them */
  VECTOR_THREADS = 1024,     /* of one vector's outputs */
  BLOCK_THREADS = 512,       /* of one input's gradient */
  LINEAR_ROWS_BY_BLOCK = 64, /* from here on all threads add up one input's gradient */
  DESCEND_THREADS = 512,
};

static int64_t chunk_of(const VectorSpec *s, int64_t side) {
  return s->chunk > 0 && s->chunk < side ? s->chunk : side;
}

/* tile[at] = fma(a, b, tile[at]) */
static void multiply_add(LoopKernel *k, int32_t tile, int32_t at, LoopValue a, LoopValue b) {
  LoopValue index = loop_int(k, at);
  LoopValue old = loop_get(k, tile, index);
  LoopValue sum = loop_op3(k, LOOP_FMA, a, b, old);
  loop_set(k, tile, index, sum);
}

static LoopValue element(LoopKernel *k, int32_t tile, int32_t at) {
  LoopValue index = loop_int(k, at);
  return loop_get(k, tile, index);
}

/* 0 .. images * each: what a task does, each of it a number of a side's chunk in an image. */
static LoopValue batch_items(LoopKernel *k, const VectorSpec *s, int64_t each) {
  LoopValue batch = s->batched ? loop_batch(k) : loop_int(k, 1);
  return AT(k, 0, {batch, each});
}

/* ---- y = b + x w ---- */

typedef struct Linear {
  const VectorSpec *s;
  int32_t x, w, b, y, width, step; /* step: inputs at a time */
  int32_t acc, inputs, weights;    /* tiles */
} Linear;

/* acc[0 .. width) += x[i] * w[i, o ..] for `step` inputs */
static void linear_inputs(LoopKernel *k, const Linear *l, LoopValue x_base, LoopValue i, LoopValue o) {
  LoopValue all = gpu_true(k);
  LoopValue from = AT(k, 0, {x_base, 1}, {i, 1});
  gpu_read(k, l->inputs, 0, l->x, from, l->step, all);
  for (int u = 0; u < l->step; u++) {
    LoopValue at = AT(k, (int64_t)u * l->s->rows, {i, l->s->rows}, {o, 1});
    gpu_read(k, l->weights, u * l->width, l->w, at, l->width, all);
  }
  for (int u = 0; u < l->step; u++) {
    LoopValue x = element(k, l->inputs, u);
    for (int e = 0; e < l->width; e++) {
      LoopValue w = element(k, l->weights, u * l->width + e);
      multiply_add(k, l->acc, e, x, w);
    }
  }
}

/* A thread `width` outputs of an image. */
static void linear_batch(LoopKernel *k, const Linear *l, int64_t chunk) {
  const VectorSpec *s = l->s;
  int64_t groups = chunk / l->width;
  GpuRange range = gpu_chunk(k, chunk, s->rows);
  LoopValue zero = loop_int(k, 0), all = gpu_true(k), batch = loop_batch(k);
  LoopValue count = AT(k, 0, {batch, groups});
  LoopValue item = gpu_each_begin(k, zero, count, 1);
  LoopValue image = gpu_div(k, item, groups), group = gpu_mod(k, item, groups);
  LoopValue o = AT(k, 0, {range.from, 1}, {group, l->width});
  LoopValue exists = loop_op2(k, LOOP_ILT, o, range.below);
  loop_if(k, exists);
  gpu_read(k, l->acc, 0, l->b, o, l->width, all);
  LoopValue x_base = AT(k, 0, {image, s->inner});
  LoopValue i = build_for(k, 0, s->inner, l->step);
  linear_inputs(k, l, x_base, i, o);
  loop_end(k);
  LoopValue to = AT(k, 0, {image, s->rows}, {o, 1});
  gpu_write(k, l->y, to, l->acc, 0, l->width, all);
  loop_end(k);
  gpu_each_end(k);
}

/* One vector: the outputs are the `channels`, the inputs the `pixels`. */
static void linear_vector(LoopKernel *k, const Linear *l, const GpuSpread *spread, int64_t chunk) {
  const VectorSpec *s = l->s;
  GpuSums sums = gpu_sums(k, spread, 1);
  GpuRange range = gpu_chunk(k, chunk, s->rows), inputs = gpu_chunk(k, 0, s->inner);
  LoopValue all = gpu_true(k);
  GpuThread thread = gpu_spread_begin(k, spread);
  LoopValue o = loop_op2(k, LOOP_IADD, range.from, thread.channel);
  if (s->rows % chunk) {
    LoopValue exists = loop_op2(k, LOOP_ILT, o, range.below);
    thread.works = gpu_both(k, thread.works, exists);
  }
  LoopValue i = gpu_walk_begin(k, spread, &thread, &inputs, &sums);
  LoopValue x = loop_gather(k, l->x, i, all, 0);
  LoopValue at = AT(k, 0, {i, s->rows}, {o, 1});
  gpu_read(k, l->weights, 0, l->w, at, l->width, all);
  for (int e = 0; e < l->width; e++) {
    LoopValue w = element(k, l->weights, e);
    multiply_add(k, sums.acc, e, x, w);
  }
  gpu_walk_end(k, spread, &inputs, &sums);
  gpu_sums_join(k, spread, &thread, &sums);
  LoopValue leads = gpu_leads(k, spread, &thread);
  gpu_read(k, l->acc, 0, l->b, o, l->width, leads);
  for (int e = 0; e < l->width; e++) {
    LoopValue index = loop_int(k, e);
    LoopValue total = loop_get(k, sums.total, index);
    LoopValue bias = loop_get(k, l->acc, index);
    LoopValue wide = loop_op1(k, LOOP_TO_F64, bias);
    LoopValue sum = loop_op2(k, LOOP_ADD, total, wide);
    LoopValue narrow = loop_op1(k, LOOP_TO_F32, sum);
    loop_set(k, l->acc, index, narrow);
  }
  gpu_write(k, l->y, o, l->acc, 0, l->width, leads);
  gpu_spread_end(k, spread);
}

LoopKernel *gpu_linear(const VectorSpec *s, Arena *arena) {
  int64_t chunk = chunk_of(s, s->rows);
  Linear l = {.s = s, .width = gpu_common_width(chunk, s->rows), .step = LINEAR_UNROLL};
  while (s->inner % l.step) l.step /= 2;
  int64_t shared_by = build_min(LINEAR_SHARED_BY, s->inner / LINEAR_UNROLL);
  GpuSpread spread = gpu_spread(&s->target, chunk, l.width, shared_by, VECTOR_THREADS);
  int32_t lanes = s->batched ? gpu_lanes(&s->target, chunk / l.width * LINEAR_BATCH, LINEAR_THREADS) : spread.lanes;
  LoopKernel *k = loop_new(arena, "linear", lanes);
  l.x = vector_in(k, "x"), l.w = vector_in(k, "w"), l.b = vector_in(k, "b"), l.y = vector_out(k, "y");
  l.acc = loop_tile(k, s->batched ? "acc" : "results", LOOP_F32, true, l.width);
  l.inputs = loop_tile(k, "inputs", LOOP_F32, true, l.step);
  l.weights = loop_tile(k, "weights", LOOP_F32, true, l.step * l.width);
  if (s->batched)
    linear_batch(k, &l, chunk);
  else
    linear_vector(k, &l, &spread, chunk);
  return k;
}

/* ---- dx = dy w^T ---- */

typedef struct LinearGrad {
  const VectorSpec *s;
  int32_t dy, w, dx, width;
  int32_t acc, gradients, weights; /* tiles */
} LinearGrad;

/* acc += dy[from ..] * w[at ..], a sum for each of the vector's elements */
static void grad_input_add(LoopKernel *k, const LinearGrad *g, LoopValue from, LoopValue at) {
  LoopValue all = gpu_true(k);
  gpu_read(k, g->gradients, 0, g->dy, from, g->width, all);
  gpu_read(k, g->weights, 0, g->w, at, g->width, all);
  for (int e = 0; e < g->width; e++) {
    LoopValue gradient = element(k, g->gradients, e), weight = element(k, g->weights, e);
    multiply_add(k, g->acc, e, gradient, weight);
  }
}

/* The sum of acc, in double. */
static LoopValue grad_input_sum(LoopKernel *k, const LinearGrad *g) {
  LoopValue sum = LOOP_NONE;
  for (int e = 0; e < g->width; e++) {
    LoopValue part = element(k, g->acc, e);
    LoopValue wide = loop_op1(k, LOOP_TO_F64, part);
    sum = e == 0 ? wide : loop_op2(k, LOOP_ADD, sum, wide);
  }
  return sum;
}

/* A thread an input of an image. */
static void grad_input_by_thread(LoopKernel *k, const LinearGrad *g, const GpuRange *range, int64_t chunk) {
  const VectorSpec *s = g->s;
  LoopValue zero = loop_int(k, 0), all = gpu_true(k);
  LoopValue count = batch_items(k, s, chunk);
  LoopValue item = gpu_each_begin(k, zero, count, 1);
  LoopValue image = gpu_div(k, item, chunk), number = gpu_mod(k, item, chunk);
  LoopValue i = loop_op2(k, LOOP_IADD, range->from, number);
  LoopValue exists = loop_op2(k, LOOP_ILT, i, range->below);
  loop_if(k, exists);
  gpu_fill(k, g->acc, 0, g->width, 0);
  LoopValue o = build_for(k, 0, s->rows, g->width);
  LoopValue from = AT(k, 0, {image, s->rows}, {o, 1});
  LoopValue at = AT(k, 0, {i, s->rows}, {o, 1});
  grad_input_add(k, g, from, at);
  loop_end(k);
  LoopValue sum = grad_input_sum(k, g);
  LoopValue narrow = loop_op1(k, LOOP_TO_F32, sum);
  LoopValue to = AT(k, 0, {image, s->inner}, {i, 1});
  loop_scatter(k, g->dx, to, narrow, all);
  loop_end(k);
  gpu_each_end(k);
}

/* All threads an input, one input after another: few inputs of many rows. */
static void grad_input_by_block(LoopKernel *k, const LinearGrad *g, const GpuRange *range) {
  const VectorSpec *s = g->s;
  LoopValue zero = loop_int(k, 0), one = loop_int(k, 1), rows = loop_int(k, s->rows);
  LoopValue batch = s->batched ? loop_batch(k) : one;
  LoopValue image = loop_for(k, zero, batch, one);
  LoopValue i = loop_for(k, range->from, range->below, one);
  gpu_fill(k, g->acc, 0, g->width, 0);
  LoopValue o = gpu_each_begin(k, zero, rows, g->width);
  LoopValue from = AT(k, 0, {image, s->rows}, {o, 1});
  LoopValue at = AT(k, 0, {i, s->rows}, {o, 1});
  grad_input_add(k, g, from, at);
  gpu_each_end(k);
  LoopValue own = grad_input_sum(k, g);
  LoopValue sum = loop_op1(k, LOOP_LANE_SUM, own);
  LoopValue narrow = loop_op1(k, LOOP_TO_F32, sum);
  LoopValue to = AT(k, 0, {image, s->inner}, {i, 1});
  loop_store(k, g->dx, to, narrow);
  loop_end(k);
  loop_end(k);
}

LoopKernel *gpu_linear_grad_input(const VectorSpec *s, Arena *arena) {
  int64_t chunk = chunk_of(s, s->inner);
  LinearGrad g = {.s = s, .width = gpu_width_f32(s->rows)};
  bool by_block = s->rows >= LINEAR_ROWS_BY_BLOCK && !s->batched;
  int64_t items = by_block ? s->rows / g.width : chunk * (s->batched ? LINEAR_BATCH : 1);
  LoopKernel *k = loop_new(arena, "linear_grad_input", gpu_lanes(&s->target, items, by_block ? BLOCK_THREADS : LINEAR_THREADS));
  g.dy = vector_in(k, "dy"), g.w = vector_in(k, "w"), g.dx = vector_out(k, "dx");
  g.acc = loop_tile(k, "acc", LOOP_F32, true, g.width);
  g.gradients = loop_tile(k, "gradients", LOOP_F32, true, g.width);
  g.weights = loop_tile(k, "weights", LOOP_F32, true, g.width);
  GpuRange range = gpu_chunk(k, chunk, s->inner);
  if (by_block)
    grad_input_by_block(k, &g, &range);
  else
    grad_input_by_thread(k, &g, &range, chunk);
  return k;
}

/* ---- dw = x^T dy ----
 * The elements of a task's inputs stand one after another in dw: they are the `channels`, the batch is the `pixels`. */
LoopKernel *gpu_linear_grad_weight(const VectorSpec *s, Arena *arena) {
  int64_t chunk = chunk_of(s, s->inner);
  int32_t width = gpu_width_f32(s->rows);
  GpuSpread spread = gpu_spread(&s->target, chunk * s->rows, width, s->batched ? LINEAR_BATCH : 1, LINEAR_THREADS);
  LoopKernel *k = loop_new(arena, "linear_grad_weight", spread.lanes);
  int32_t dy = vector_in(k, "dy"), x = vector_in(k, "x"), dw = vector_out(k, "dw");
  GpuSums sums = gpu_sums(k, &spread, 1);
  int32_t value = loop_tile(k, "value", LOOP_F32, true, width);
  LoopValue all = gpu_true(k), one = loop_int(k, 1);
  GpuRange range = gpu_chunk(k, chunk, s->inner), batch = gpu_batch_range(k);
  if (!s->batched) batch.below = one, batch.most = 1;
  GpuThread thread = gpu_spread_begin(k, &spread);
  LoopValue number = gpu_div(k, thread.channel, s->rows), o = gpu_mod(k, thread.channel, s->rows);
  LoopValue i = loop_op2(k, LOOP_IADD, range.from, number);
  if (s->inner % chunk) {
    LoopValue inside = loop_op2(k, LOOP_ILT, i, range.below);
    thread.works = gpu_both(k, thread.works, inside);
  }
  LoopValue image = gpu_walk_begin(k, &spread, &thread, &batch, &sums);
  LoopValue x_at = AT(k, 0, {image, s->inner}, {i, 1}), dy_at = AT(k, 0, {image, s->rows}, {o, 1});
  LoopValue input = loop_gather(k, x, x_at, all, 0);
  gpu_read(k, value, 0, dy, dy_at, width, all);
  for (int e = 0; e < width; e++) {
    LoopValue gradient = element(k, value, e);
    multiply_add(k, sums.acc, e, input, gradient);
  }
  gpu_walk_end(k, &spread, &batch, &sums);
  gpu_sums_join(k, &spread, &thread, &sums);
  LoopValue leads = gpu_leads(k, &spread, &thread);
  gpu_sums_narrow(k, &sums, 0, value, width);
  LoopValue to = AT(k, 0, {range.from, s->rows}, {thread.channel, 1});
  gpu_write(k, dw, to, value, 0, width, leads);
  gpu_spread_end(k, &spread);
  return k;
}

/* ---- one step of a weight whose gradient is x dy ---- */

typedef struct Descend {
  const VectorSpec *s;
  int32_t w, buffer, dy, x, clip, rate, width;
  int32_t weights, momenta, gradients; /* tiles */
  LoopValue clipping, back, beta, decay;
} Descend;

static void descend_scalars(LoopKernel *k, Descend *d) {
  LoopValue first = loop_int(k, 0), zero = loop_f32(k, 0);
  d->clipping = loop_load(k, d->clip, first);
  LoopValue step = loop_load(k, d->rate, first);
  d->back = loop_op2(k, LOOP_SUB, zero, step);
  d->beta = loop_f32(k, d->s->value);
  d->decay = loop_f32(k, d->s->decay);
}

/* `width` weights from element `at` on, of one input and of the rows from `o` on. */
static void descend_vector(LoopKernel *k, const Descend *d, LoopValue at, LoopValue i, LoopValue o) {
  LoopValue all = gpu_true(k);
  gpu_read(k, d->weights, 0, d->w, at, d->width, all);
  gpu_read(k, d->momenta, 0, d->buffer, at, d->width, all);
  gpu_read(k, d->gradients, 0, d->dy, o, d->width, all);
  LoopValue value = loop_gather(k, d->x, i, all, 0);
  LoopValue scale = loop_op2(k, LOOP_MUL, value, d->clipping);
  for (int e = 0; e < d->width; e++) {
    LoopValue index = loop_int(k, e);
    LoopValue weight = loop_get(k, d->weights, index);
    LoopValue old = loop_get(k, d->momenta, index);
    LoopValue gradient = loop_get(k, d->gradients, index);
    LoopValue decayed = loop_op2(k, LOOP_MUL, d->decay, weight);
    LoopValue full = loop_op3(k, LOOP_FMA, gradient, scale, decayed);
    LoopValue momentum = loop_op3(k, LOOP_FMA, d->beta, old, full);
    LoopValue moved = loop_op3(k, LOOP_FMA, d->back, momentum, weight);
    loop_set(k, d->momenta, index, momentum);
    loop_set(k, d->weights, index, moved);
  }
  gpu_write(k, d->buffer, at, d->momenta, 0, d->width, all);
  gpu_write(k, d->w, at, d->weights, 0, d->width, all);
}

LoopKernel *gpu_outer_descend(const VectorSpec *s, Arena *arena) {
  int64_t chunk = chunk_of(s, s->inner);
  Descend d = {.s = s, .width = gpu_width_f32(s->rows)};
  LoopKernel *k = loop_new(arena, "outer_descend", gpu_lanes(&s->target, chunk * s->rows / d.width, DESCEND_THREADS));
  d.w = loop_buffer(k, "w", LOOP_INOUT, LOOP_ELEMENT_F32);
  d.buffer = loop_buffer(k, "buffer", LOOP_INOUT, LOOP_ELEMENT_F32);
  d.dy = vector_in(k, "dy"), d.x = vector_in(k, "x"), d.clip = vector_in(k, "clip"), d.rate = vector_in(k, "rate");
  d.weights = loop_tile(k, "weights", LOOP_F32, true, d.width);
  d.momenta = loop_tile(k, "momenta", LOOP_F32, true, d.width);
  d.gradients = loop_tile(k, "gradients", LOOP_F32, true, d.width);
  descend_scalars(k, &d);
  GpuRange range = gpu_chunk(k, chunk, s->inner);
  LoopValue from = AT(k, 0, {range.from, s->rows}), below = AT(k, 0, {range.below, s->rows});
  LoopValue at = gpu_each_begin(k, from, below, d.width);
  LoopValue i = gpu_div(k, at, s->rows), o = gpu_mod(k, at, s->rows);
  descend_vector(k, &d, at, i, o);
  gpu_each_end(k);
  return k;
}
