/* Vectors over the batch and layers: GeneratingBlocks' layers, the classifier, the loss, the optimizer's vectors. One task each;
 * many of them run together in one segment. */
#include "kernels/vector_words.h"

static LoopValue for_batch(LoopKernel *k) {
  LoopValue zero = loop_int(k, 0), one = loop_int(k, 1);
  LoopValue batch = loop_batch(k);
  return loop_for(k, zero, batch, one);
}

/* y[o] = b[o] + sum over i of x[i] * w[i, o], for a row of x that begins at `x_base` */
static void linear_row(LoopKernel *k, const VectorSpec *s, const int32_t *buffer, int32_t acc, LoopValue x_base,
                       LoopValue y_base) {
  BlockLoop blocks[3];
  int count = build_blocks(s->rows, k->lanes, 4, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue o = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue lanes = loop_int(k, blocks[b].count);
    LoopValue u = loop_unroll(k, 0, blocks[b].blocks, 1);
    LoopValue at = AT(k, 0, {o, 1}, {u, k->lanes});
    LoopValue bias = loop_load_lanes(k, buffer[2], at, lanes, 0);
    loop_set(k, acc, u, bias);
    loop_end(k);
    LoopValue i = build_for(k, 0, s->inner, 1);
    LoopValue x_at = AT(k, 0, {x_base, 1}, {i, 1});
    LoopValue x = loop_load(k, buffer[0], x_at);
    LoopValue v = loop_unroll(k, 0, blocks[b].blocks, 1);
    LoopValue w_at = AT(k, 0, {i, s->rows}, {o, 1}, {v, k->lanes});
    LoopValue w = loop_load_lanes(k, buffer[1], w_at, lanes, 0);
    LoopValue sum = loop_get(k, acc, v);
    sum = loop_op3(k, LOOP_FMA, x, w, sum);
    loop_set(k, acc, v, sum);
    loop_end(k);
    loop_end(k);
    LoopValue z = loop_unroll(k, 0, blocks[b].blocks, 1);
    LoopValue value = loop_get(k, acc, z);
    LoopValue to = AT(k, 0, {y_base, 1}, {o, 1}, {z, k->lanes});
    loop_store_lanes(k, buffer[3], to, value, lanes);
    loop_end(k);
    loop_end(k);
  }
}

LoopKernel *cpu_linear(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "linear", s->target.lanes);
  int32_t x = vector_in(k, "x"), w = vector_in(k, "w"), b = vector_in(k, "b"), y = vector_out(k, "y");
  const int32_t buffer[4] = {x, w, b, y};
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 4);
  LoopValue image = s->batched ? for_batch(k) : loop_int(k, 0);
  LoopValue x_base = AT(k, 0, {image, s->inner});
  LoopValue y_base = AT(k, 0, {image, s->rows});
  linear_row(k, s, buffer, acc, x_base, y_base);
  if (s->batched) loop_end(k);
  return k;
}

LoopKernel *cpu_linear_grad_input(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "linear_grad_input", s->target.lanes);
  int32_t dy = vector_in(k, "dy"), w = vector_in(k, "w"), dx = vector_out(k, "dx");
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 1);
  LoopValue image = s->batched ? for_batch(k) : loop_int(k, 0);
  LoopValue first = loop_int(k, 0), zero = loop_f32(k, 0);
  LoopValue i = build_for(k, 0, s->inner, 1);
  loop_set(k, acc, first, zero);
  BlockLoop blocks[3];
  int count = build_blocks(s->rows, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue o = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue lanes = loop_int(k, blocks[b].count);
    LoopValue dy_at = AT(k, 0, {image, s->rows}, {o, 1});
    LoopValue gradient = loop_load_lanes(k, dy, dy_at, lanes, 0);
    LoopValue w_at = AT(k, 0, {i, s->rows}, {o, 1});
    LoopValue weight = loop_load_lanes(k, w, w_at, lanes, 0);
    LoopValue sum = loop_get(k, acc, first);
    sum = loop_op3(k, LOOP_FMA, gradient, weight, sum);
    loop_set(k, acc, first, sum);
    loop_end(k);
  }
  LoopValue all = loop_get(k, acc, first);
  LoopValue total = loop_op1(k, LOOP_LANE_SUM, all);
  LoopValue to = AT(k, 0, {image, s->inner}, {i, 1});
  loop_store(k, dx, to, total);
  loop_end(k);
  if (s->batched) loop_end(k);
  return k;
}

LoopKernel *cpu_linear_grad_weight(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "linear_grad_weight", s->target.lanes);
  int32_t dy = vector_in(k, "dy"), x = vector_in(k, "x"), dw = vector_out(k, "dw");
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 1);
  LoopValue first = loop_int(k, 0), zero = loop_f32(k, 0);
  LoopValue i = build_for(k, 0, s->inner, 1);
  BlockLoop blocks[3];
  int count = build_blocks(s->rows, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue o = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue lanes = loop_int(k, blocks[b].count);
    loop_set(k, acc, first, zero);
    LoopValue image = s->batched ? for_batch(k) : first;
    LoopValue x_at = AT(k, 0, {image, s->inner}, {i, 1});
    LoopValue value = loop_load(k, x, x_at);
    LoopValue dy_at = AT(k, 0, {image, s->rows}, {o, 1});
    LoopValue gradient = loop_load_lanes(k, dy, dy_at, lanes, 0);
    LoopValue sum = loop_get(k, acc, first);
    sum = loop_op3(k, LOOP_FMA, value, gradient, sum);
    loop_set(k, acc, first, sum);
    if (s->batched) loop_end(k);
    LoopValue total = loop_get(k, acc, first);
    LoopValue to = AT(k, 0, {i, s->rows}, {o, 1});
    loop_store_lanes(k, dw, to, total, lanes);
    loop_end(k);
  }
  loop_end(k);
  return k;
}

LoopKernel *cpu_outer_descend(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "outer_descend", s->target.lanes);
  int32_t w = loop_buffer(k, "w", LOOP_INOUT, LOOP_ELEMENT_F32), buffer = loop_buffer(k, "buffer", LOOP_INOUT, LOOP_ELEMENT_F32);
  int32_t dy = vector_in(k, "dy"), x = vector_in(k, "x"), clip = vector_in(k, "clip"), rate = vector_in(k, "rate");
  LoopValue first = loop_int(k, 0);
  LoopValue clipping = loop_load(k, clip, first);
  LoopValue step = loop_load(k, rate, first);
  LoopValue zero = loop_f32(k, 0), beta = loop_f32(k, s->value), decay = loop_f32(k, s->decay);
  LoopValue back = loop_op2(k, LOOP_SUB, zero, step);
  LoopValue i = build_for(k, 0, s->inner, 1);
  LoopValue value = loop_load(k, x, i);
  LoopValue scale = loop_op2(k, LOOP_MUL, value, clipping);
  BlockLoop blocks[3];
  int count = build_blocks(s->rows, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue o = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue lanes = loop_int(k, blocks[b].count);
    LoopValue gradient = loop_load_lanes(k, dy, o, lanes, 0);
    LoopValue at = AT(k, 0, {i, s->rows}, {o, 1});
    LoopValue weight = loop_load_lanes(k, w, at, lanes, 0);
    LoopValue old = loop_load_lanes(k, buffer, at, lanes, 0);
    LoopValue decayed = loop_op2(k, LOOP_MUL, decay, weight);
    LoopValue full = loop_op3(k, LOOP_FMA, gradient, scale, decayed);
    LoopValue momentum = loop_op3(k, LOOP_FMA, beta, old, full);
    loop_store_lanes(k, buffer, at, momentum, lanes);
    LoopValue moved = loop_op3(k, LOOP_FMA, back, momentum, weight);
    loop_store_lanes(k, w, at, moved, lanes);
    loop_end(k);
  }
  loop_end(k);
  return k;
}

LoopKernel *cpu_batch_sum(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "batch_sum", s->target.lanes);
  int32_t x = vector_in(k, "x"), y = vector_out(k, "y");
  int32_t total = loop_tile(k, "total", LOOP_F64, false, 1);
  LoopValue i = build_for(k, 0, s->rows, 1);
  vector_start(k, total, 0);
  LoopValue image = for_batch(k);
  LoopValue at = AT(k, 0, {image, s->rows}, {i, 1});
  LoopValue value = vector_load(k, x, at);
  vector_accumulate(k, total, LOOP_ADD, value);
  loop_end(k);
  LoopValue sum = vector_result(k, total);
  vector_store(k, y, i, sum);
  loop_end(k);
  return k;
}

LoopKernel *cpu_cross_entropy(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "cross_entropy", s->target.lanes);
  int32_t x = vector_in(k, "logits"), labels = loop_buffer(k, "labels", LOOP_IN, LOOP_ELEMENT_I32), y = vector_out(k, "y");
  int32_t largest = loop_tile(k, "largest", LOOP_F64, false, 1), total = loop_tile(k, "total", LOOP_F64, false, 1);
  LoopValue image = for_batch(k);
  LoopValue base = AT(k, 0, {image, s->rows});
  vector_exp_sums(k, x, base, s->rows, largest, total);
  LoopValue label = loop_load_int(k, labels, image);
  LoopValue at = AT(k, 0, {base, 1}, {label, 1});
  LoopValue own = vector_load(k, x, at);
  LoopValue top = vector_result(k, largest);
  LoopValue sum = vector_result(k, total);
  LoopValue logarithm = loop_op1(k, LOOP_LOG, sum);
  LoopValue all = loop_op2(k, LOOP_ADD, logarithm, top);
  LoopValue loss = loop_op2(k, LOOP_SUB, all, own);
  vector_store(k, y, image, loss);
  loop_end(k);
  return k;
}

LoopKernel *cpu_cross_entropy_grad(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "cross_entropy_grad", s->target.lanes);
  int32_t dl = vector_in(k, "dl"), x = vector_in(k, "logits"), labels = loop_buffer(k, "labels", LOOP_IN, LOOP_ELEMENT_I32),
          y = vector_out(k, "y");
  int32_t largest = loop_tile(k, "largest", LOOP_F64, false, 1), total = loop_tile(k, "total", LOOP_F64, false, 1);
  LoopValue image = for_batch(k);
  LoopValue base = AT(k, 0, {image, s->rows});
  vector_exp_sums(k, x, base, s->rows, largest, total);
  LoopValue label = loop_load_int(k, labels, image);
  LoopValue weight = vector_load(k, dl, image);
  LoopValue zero = loop_f64(k, 0), one = loop_f64(k, 1);
  LoopValue i = build_for(k, 0, s->rows, 1);
  LoopValue at = AT(k, 0, {base, 1}, {i, 1});
  LoopValue p = vector_probability(k, x, at, largest, total);
  LoopValue is_label = loop_op2(k, LOOP_IEQ, i, label);
  LoopValue target = loop_op3(k, LOOP_SELECT, is_label, one, zero);
  LoopValue difference = loop_op2(k, LOOP_SUB, p, target);
  LoopValue gradient = loop_op2(k, LOOP_MUL, weight, difference);
  vector_store(k, y, at, gradient);
  loop_end(k);
  loop_end(k);
  return k;
}

/* 1 where no logit before the label is as large, and none after it larger. */
LoopKernel *cpu_correct(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "correct", s->target.lanes);
  int32_t x = vector_in(k, "logits"), labels = loop_buffer(k, "labels", LOOP_IN, LOOP_ELEMENT_I32), y = vector_out(k, "y");
  int32_t good = loop_tile(k, "good", LOOP_F64, false, 1);
  LoopValue image = for_batch(k);
  LoopValue base = AT(k, 0, {image, s->rows});
  LoopValue label = loop_load_int(k, labels, image);
  LoopValue own_at = AT(k, 0, {base, 1}, {label, 1});
  LoopValue own = vector_load(k, x, own_at);
  LoopValue zero = loop_f64(k, 0), one = loop_f64(k, 1);
  vector_start(k, good, 1);
  LoopValue i = build_for(k, 0, s->rows, 1);
  LoopValue at = AT(k, 0, {base, 1}, {i, 1});
  LoopValue other = vector_load(k, x, at);
  LoopValue larger = loop_op2(k, LOOP_GT, other, own);
  LoopValue equal = loop_op2(k, LOOP_EQ, other, own);
  LoopValue before = loop_op2(k, LOOP_ILT, i, label);
  LoopValue tie = loop_op2(k, LOOP_AND, equal, before);
  LoopValue beaten = loop_op2(k, LOOP_OR, larger, tie);
  LoopValue factor = loop_op3(k, LOOP_SELECT, beaten, zero, one);
  vector_accumulate(k, good, LOOP_MUL, factor);
  loop_end(k);
  LoopValue outcome = vector_result(k, good);
  vector_store(k, y, image, outcome);
  loop_end(k);
  return k;
}

LoopKernel *cpu_batch_mean(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "batch_mean", s->target.lanes);
  int32_t x = vector_in(k, "x"), y = vector_out(k, "y");
  int32_t total = loop_tile(k, "total", LOOP_F64, false, 1);
  vector_start(k, total, 0);
  LoopValue image = for_batch(k);
  LoopValue value = vector_load(k, x, image);
  vector_accumulate(k, total, LOOP_ADD, value);
  loop_end(k);
  LoopValue sum = vector_result(k, total);
  LoopValue batch = loop_batch(k);
  LoopValue number = loop_op1(k, LOOP_TO_F64, batch);
  LoopValue mean = loop_op2(k, LOOP_DIV, sum, number);
  LoopValue first = loop_int(k, 0);
  vector_store(k, y, first, mean);
  return k;
}

LoopKernel *cpu_batch_mean_grad(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "batch_mean_grad", s->target.lanes);
  int32_t d = vector_in(k, "d"), y = vector_out(k, "y");
  LoopValue first = loop_int(k, 0);
  LoopValue whole = vector_load(k, d, first);
  LoopValue batch = loop_batch(k);
  LoopValue number = loop_op1(k, LOOP_TO_F64, batch);
  LoopValue share = loop_op2(k, LOOP_DIV, whole, number);
  LoopValue image = for_batch(k);
  vector_store(k, y, image, share);
  loop_end(k);
  return k;
}

/* The sum of a * b; of a * a where there is no b. */
static LoopKernel *sum_products(const VectorSpec *s, const char *name, bool two, Arena *arena) {
  LoopKernel *k = loop_new(arena, name, s->target.lanes);
  int32_t a = vector_in(k, two ? "a" : "x"), b = two ? vector_in(k, "b") : a, y = vector_out(k, "y");
  int32_t total = loop_tile(k, "total", LOOP_F64, true, 1);
  vector_start(k, total, 0);
  LoopValue i = build_for(k, 0, s->rows, k->lanes);
  LoopValue left = AT(k, s->rows, {i, -1});
  LoopValue width = loop_int(k, k->lanes);
  LoopValue lanes = loop_op2(k, LOOP_IMIN, left, width);
  LoopValue first_value = loop_load_lanes(k, a, i, lanes, 0);
  LoopValue wide = loop_op1(k, LOOP_TO_F64, first_value), other = wide;
  if (two) {
    LoopValue second_value = loop_load_lanes(k, b, i, lanes, 0);
    other = loop_op1(k, LOOP_TO_F64, second_value);
  }
  LoopValue product = loop_op2(k, LOOP_MUL, wide, other);
  vector_accumulate(k, total, LOOP_ADD, product);
  loop_end(k);
  LoopValue all = vector_result(k, total);
  LoopValue sum = loop_op1(k, LOOP_LANE_SUM, all);
  LoopValue first = loop_int(k, 0);
  vector_store(k, y, first, sum);
  return k;
}

LoopKernel *cpu_sum_squares(const VectorSpec *s, Arena *arena) {
  return sum_products(s, "sum_squares", false, arena);
}

LoopKernel *cpu_dot(const VectorSpec *s, Arena *arena) {
  return sum_products(s, "dot", true, arena);
}

LoopKernel *cpu_fill(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "fill", s->target.lanes);
  int32_t y = vector_out(k, "y");
  LoopValue value = loop_f32(k, s->value);
  LoopValue image = s->batched ? for_batch(k) : loop_int(k, 0);
  LoopValue i = build_for(k, 0, s->rows, k->lanes);
  LoopValue left = AT(k, s->rows, {i, -1});
  LoopValue width = loop_int(k, k->lanes);
  LoopValue lanes = loop_op2(k, LOOP_IMIN, left, width);
  LoopValue at = AT(k, 0, {image, s->rows}, {i, 1});
  loop_store_lanes(k, y, at, value, lanes);
  loop_end(k);
  if (s->batched) loop_end(k);
  return k;
}

LoopKernel *cpu_adam_step(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "adam_step", s->target.lanes);
  int32_t m = vector_in(k, "m"), v = vector_in(k, "v"), corrections = vector_in(k, "corrections"), y = vector_out(k, "y");
  LoopValue rate, first, second;
  LoopValue at0 = loop_int(k, 0), at1 = loop_int(k, 1), at2 = loop_int(k, 2);
  rate = vector_load(k, corrections, at0);
  first = vector_load(k, corrections, at1);
  second = vector_load(k, corrections, at2);
  LoopValue epsilon = loop_f64(k, s->value);
  LoopValue i = build_for(k, 0, s->rows, 1);
  LoopValue mean = vector_load(k, m, i);
  LoopValue square = vector_load(k, v, i);
  LoopValue unbiased = loop_op2(k, LOOP_DIV, mean, first);
  LoopValue spread = loop_op2(k, LOOP_DIV, square, second);
  LoopValue root = loop_op1(k, LOOP_SQRT, spread);
  LoopValue divisor = loop_op2(k, LOOP_ADD, root, epsilon);
  LoopValue ratio = loop_op2(k, LOOP_DIV, unbiased, divisor);
  LoopValue step = loop_op2(k, LOOP_MUL, rate, ratio);
  vector_store(k, y, i, step);
  loop_end(k);
  return k;
}
