/* The interpreter's operations on vectors and scalars: softmax, generators, the loss, norms. */
#include "compiler/graph/graph_private.h"

#include <math.h>

/* Rows of a matrix-like value with or without B: B or 1. */
static int64_t rows_of(const Call *call, int32_t operand) {
  return call->x[operand].type.batched ? call->batch : 1;
}

static double largest(const double *x, int64_t count) {
  double most = x[0];
  for (int64_t i = 1; i < count; i++) most = fmax(most, x[i]);
  return most;
}

static void softmax(const double *x, int64_t count, double *y) {
  double most = largest(x, count), sum = 0;
  for (int64_t i = 0; i < count; i++) sum += y[i] = exp(x[i] - most);
  for (int64_t i = 0; i < count; i++) y[i] /= sum;
}

/* p * (dp - <dp, p>) */
static void softmax_grad(const double *dp, const double *p, int64_t count, double *y) {
  double dot = 0;
  for (int64_t i = 0; i < count; i++) dot += dp[i] * p[i];
  for (int64_t i = 0; i < count; i++) y[i] = p[i] * (dp[i] - dot);
}

static void linear(const Call *call) {
  const double *x = call->x[0].data, *w = call->x[1].data, *b = call->x[2].data;
  int64_t m = call->x[1].type.dims[0], n = call->x[1].type.dims[1];
  for (int64_t row = 0; row < rows_of(call, 0); row++)
    for (int64_t o = 0; o < m; o++) {
      double sum = b[o];
      for (int64_t i = 0; i < n; i++) sum += w[o * n + i] * x[row * n + i];
      call->y[row * m + o] = sum;
    }
}

static void linear_grad_input(const Call *call) {
  const double *dy = call->x[0].data, *w = call->x[1].data;
  int64_t m = call->x[1].type.dims[0], n = call->x[1].type.dims[1];
  for (int64_t row = 0; row < rows_of(call, 0); row++)
    for (int64_t o = 0; o < m; o++)
      for (int64_t i = 0; i < n; i++) call->y[row * n + i] += dy[row * m + o] * w[o * n + i];
}

static void linear_grad_weight(const Call *call) {
  const double *dy = call->x[0].data, *x = call->x[1].data;
  int64_t m = call->type.dims[0], n = call->type.dims[1];
  for (int64_t row = 0; row < rows_of(call, 0); row++)
    for (int64_t o = 0; o < m; o++)
      for (int64_t i = 0; i < n; i++) call->y[o * n + i] += dy[row * m + o] * x[row * n + i];
}

static void cross_entropy(const Call *call) {
  int64_t m = call->x[0].type.dims[0];
  for (int64_t row = 0; row < call->batch; row++) {
    const double *logits = call->x[0].data + row * m;
    double most = largest(logits, m), sum = 0;
    for (int64_t i = 0; i < m; i++) sum += exp(logits[i] - most);
    call->y[row] = log(sum) + most - logits[(int64_t)call->x[1].data[row]];
  }
}

static void cross_entropy_grad(const Call *call) {
  int64_t m = call->type.dims[0];
  for (int64_t row = 0; row < call->batch; row++) {
    double *y = call->y + row * m;
    softmax(call->x[1].data + row * m, m, y);
    y[(int64_t)call->x[2].data[row]] -= 1;
    for (int64_t i = 0; i < m; i++) y[i] *= call->x[0].data[row];
  }
}

static void correct(const Call *call) {
  int64_t m = call->x[0].type.dims[0];
  for (int64_t row = 0; row < call->batch; row++) {
    const double *logits = call->x[0].data + row * m;
    int64_t best = 0;
    for (int64_t i = 1; i < m; i++)
      if (logits[i] > logits[best]) best = i;
    call->y[row] = call->x[1].data[row] == (double)best;
  }
}

static void batch_sum(const Call *call) {
  int64_t m = type_elements(call->type, 1);
  for (int64_t row = 0; row < call->batch; row++)
    for (int64_t i = 0; i < m; i++) call->y[i] += call->x[0].data[row * m + i];
}

void interpret_small(const Call *call) {
  const double *x = call->x[0].data;
  int64_t elements = type_elements(call->x[0].type, call->batch);
  switch (call->op) {
  case OP_SOFTMAX: softmax(x, elements, call->y); return;
  case OP_SOFTMAX_GRAD: softmax_grad(x, call->x[1].data, elements, call->y); return;
  case OP_ELEMENT: call->y[0] = x[call->attributes->index]; return;
  case OP_STACK:
    for (int32_t i = 0; i < call->count; i++) call->y[i] = call->x[i].data[0];
    return;
  case OP_LINEAR: linear(call); return;
  case OP_LINEAR_GRAD_INPUT: linear_grad_input(call); return;
  case OP_LINEAR_GRAD_WEIGHT: linear_grad_weight(call); return;
  case OP_BATCH_SUM: batch_sum(call); return;
  case OP_CROSS_ENTROPY: cross_entropy(call); return;
  case OP_CROSS_ENTROPY_GRAD: cross_entropy_grad(call); return;
  case OP_CORRECT: correct(call); return;
  case OP_BATCH_MEAN:
    for (int64_t i = 0; i < call->batch; i++) call->y[0] += x[i] / (double)call->batch;
    return;
  case OP_BATCH_MEAN_GRAD:
    for (int64_t i = 0; i < call->batch; i++) call->y[i] = x[0] / (double)call->batch;
    return;
  case OP_SUM_SQUARES:
    for (int64_t i = 0; i < elements; i++) call->y[0] += x[i] * x[i];
    return;
  case OP_ROW_SUM:
    for (int64_t i = 0, n = call->x[0].type.dims[1]; i < n; i++) call->y[0] += x[call->attributes->index * n + i];
    return;
  case OP_SQRT: call->y[0] = sqrt(x[0]); return;
  case OP_CLIP: call->y[0] = call->attributes->value == 0 ? 1 : fmin(1, call->attributes->value / (x[0] + 1e-6)); return;
  default: die("%s is no small operation", op_table[call->op].text);
  }
}
