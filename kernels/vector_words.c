#include "kernels/vector_words.h"

int32_t vector_in(LoopKernel *k, const char *name) {
  return loop_buffer(k, name, LOOP_IN, LOOP_ELEMENT_F32);
}

int32_t vector_out(LoopKernel *k, const char *name) {
  return loop_buffer(k, name, LOOP_OUT, LOOP_ELEMENT_F32);
}

LoopValue vector_load(LoopKernel *k, int32_t array, LoopValue at) {
  LoopValue value = loop_load(k, array, at);
  return loop_op1(k, LOOP_TO_F64, value);
}

void vector_store(LoopKernel *k, int32_t array, LoopValue at, LoopValue wide) {
  LoopValue narrow = loop_op1(k, LOOP_TO_F32, wide);
  loop_store(k, array, at, narrow);
}

void vector_accumulate(LoopKernel *k, int32_t tile, LoopOp op, LoopValue value) {
  LoopValue first = loop_int(k, 0);
  LoopValue old = loop_get(k, tile, first);
  LoopValue joined = loop_op2(k, op, old, value);
  loop_set(k, tile, first, joined);
}

void vector_start(LoopKernel *k, int32_t tile, double value) {
  LoopValue first = loop_int(k, 0);
  LoopValue number = loop_f64(k, value);
  loop_set(k, tile, first, number);
}

LoopValue vector_result(LoopKernel *k, int32_t tile) {
  LoopValue first = loop_int(k, 0);
  return loop_get(k, tile, first);
}

void vector_exp_sums(LoopKernel *k, int32_t x, LoopValue base, int32_t rows, int32_t largest, int32_t total) {
  vector_start(k, largest, -1e300);
  LoopValue i = build_for(k, 0, rows, 1);
  LoopValue at = AT(k, 0, {base, 1}, {i, 1});
  LoopValue value = vector_load(k, x, at);
  vector_accumulate(k, largest, LOOP_MAX, value);
  loop_end(k);
  vector_start(k, total, 0);
  LoopValue j = build_for(k, 0, rows, 1);
  LoopValue from = AT(k, 0, {base, 1}, {j, 1});
  LoopValue logit = vector_load(k, x, from);
  LoopValue top = vector_result(k, largest);
  LoopValue difference = loop_op2(k, LOOP_SUB, logit, top);
  LoopValue power = loop_op1(k, LOOP_EXP, difference);
  vector_accumulate(k, total, LOOP_ADD, power);
  loop_end(k);
}

LoopValue vector_probability(LoopKernel *k, int32_t x, LoopValue at, int32_t largest, int32_t total) {
  LoopValue logit = vector_load(k, x, at);
  LoopValue top = vector_result(k, largest);
  LoopValue difference = loop_op2(k, LOOP_SUB, logit, top);
  LoopValue power = loop_op1(k, LOOP_EXP, difference);
  LoopValue sum = vector_result(k, total);
  return loop_op2(k, LOOP_DIV, power, sum);
}
