/* Families that are a handful of numbers (softmax and its gradient over a mixture's operations, element, stack, sqrt, clip): the
 * same function serves both targets. On a GPU it is one warp whose lanes all compute the same, every value uniform, lane 0
 * storing it. None reads what it stored. All other vectors have a schedule in cpu/ and one in gpu/. */
#include "kernels/vector_words.h"

enum { VECTOR_WARP = 32 };

/* A kernel that also serves a GPU. */
static LoopKernel *small_kernel(const VectorSpec *s, const char *name, Arena *arena) {
  return loop_new(arena, name, s->target.gpu ? VECTOR_WARP : s->target.lanes);
}

LoopKernel *vector_softmax(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = small_kernel(s, "softmax", arena);
  int32_t x = vector_in(k, "x"), y = vector_out(k, "y");
  int32_t largest = loop_tile(k, "largest", LOOP_F64, false, 1), total = loop_tile(k, "total", LOOP_F64, false, 1);
  LoopValue base = loop_int(k, 0);
  vector_exp_sums(k, x, base, s->rows, largest, total);
  LoopValue i = build_for(k, 0, s->rows, 1);
  LoopValue p = vector_probability(k, x, i, largest, total);
  vector_store(k, y, i, p);
  loop_end(k);
  return k;
}

LoopKernel *vector_softmax_grad(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = small_kernel(s, "softmax_grad", arena);
  int32_t dp = vector_in(k, "dp"), p = vector_in(k, "p"), y = vector_out(k, "y");
  int32_t total = loop_tile(k, "total", LOOP_F64, false, 1);
  vector_start(k, total, 0);
  LoopValue i = build_for(k, 0, s->rows, 1);
  LoopValue a = vector_load(k, dp, i);
  LoopValue b = vector_load(k, p, i);
  LoopValue product = loop_op2(k, LOOP_MUL, a, b);
  vector_accumulate(k, total, LOOP_ADD, product);
  loop_end(k);
  LoopValue j = build_for(k, 0, s->rows, 1);
  LoopValue gradient = vector_load(k, dp, j);
  LoopValue probability_j = vector_load(k, p, j);
  LoopValue mean = vector_result(k, total);
  LoopValue difference = loop_op2(k, LOOP_SUB, gradient, mean);
  LoopValue value = loop_op2(k, LOOP_MUL, probability_j, difference);
  vector_store(k, y, j, value);
  loop_end(k);
  return k;
}

LoopKernel *vector_element(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = small_kernel(s, "element", arena);
  int32_t x = vector_in(k, "x"), y = vector_out(k, "y");
  LoopValue at = loop_int(k, s->index), first = loop_int(k, 0);
  LoopValue value = loop_load(k, x, at);
  loop_store(k, y, first, value);
  return k;
}

LoopKernel *vector_stack(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = small_kernel(s, "stack", arena);
  int32_t first_input = 0;
  for (int32_t i = 0; i < s->count; i++) {
    int32_t buffer = vector_in(k, arena_printf(arena, "a%d", i));
    if (i == 0) first_input = buffer;
  }
  int32_t y = vector_out(k, "y");
  for (int32_t i = 0; i < s->count; i++) {
    LoopValue zero = loop_int(k, 0), at = loop_int(k, i);
    LoopValue value = loop_load(k, first_input + i, zero);
    loop_store(k, y, at, value);
  }
  return k;
}

LoopKernel *vector_sqrt(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = small_kernel(s, "sqrt", arena);
  int32_t x = vector_in(k, "x"), y = vector_out(k, "y");
  LoopValue first = loop_int(k, 0);
  LoopValue value = loop_load(k, x, first);
  LoopValue root = loop_op1(k, LOOP_SQRT, value);
  loop_store(k, y, first, root);
  return k;
}

LoopKernel *vector_clip(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = small_kernel(s, "clip", arena);
  int32_t norm = vector_in(k, "norm"), y = vector_out(k, "y");
  LoopValue first = loop_int(k, 0);
  LoopValue one = loop_f64(k, 1);
  LoopValue factor = one;
  if (s->value > 0) {
    LoopValue value = vector_load(k, norm, first);
    LoopValue guard = loop_f64(k, 1e-6);
    LoopValue raised = loop_op2(k, LOOP_ADD, value, guard);
    LoopValue most = loop_f64(k, s->value);
    LoopValue ratio = loop_op2(k, LOOP_DIV, most, raised);
    factor = loop_op2(k, LOOP_MIN, ratio, one);
  }
  vector_store(k, y, first, factor);
  return k;
}
