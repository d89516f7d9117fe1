/* What graph_emit knows without computing tensors: constants of constants, and operations that leave a value as it is. Every
 * rule is exact in real arithmetic and looks one or two nodes deep; products with a constant zero are zero, whatever the other
 * operand holds. A constant is uniform, so a fold that would give different elements is none. */
#include "compiler/graph/graph_private.h"

#include <stdlib.h>
#include <string.h>

static const GraphNode *constant(const Graph *graph, ValueId value) {
  const GraphNode *node = graph_node(graph, value);
  return node->op == OP_CONST ? node : NULL;
}

static bool is_constant(const Graph *graph, ValueId value, double number) {
  const GraphNode *node = constant(graph, value);
  return node && node->attributes->value == number;
}

/* Bit i: the result is zero where operand i is. */
static unsigned zero_operands(OpCode op) {
  switch (op) {
  case OP_MUL:
  case OP_SCALE:
  case OP_CHANNEL_SCALE:
  case OP_CHANNEL_DOT:
  case OP_DOT:
  case OP_CONV:
  case OP_CONV_GRAD_INPUT:
  case OP_CONV_GRAD_WEIGHT:
  case OP_LINEAR_GRAD_INPUT:
  case OP_LINEAR_GRAD_WEIGHT: return 3;
  case OP_SOFTMAX_GRAD:
  case OP_ROW_SUM:
  case OP_BATCH_SUM:
  case OP_CROSS_ENTROPY_GRAD:
  case OP_BATCH_MEAN:
  case OP_BATCH_MEAN_GRAD:
  case OP_RELU:
  case OP_RELU_GRAD:
  case OP_BN_MOMENTS:
  case OP_BN_GRAD_SUMS:
  case OP_CHANNEL_SUM:
  case OP_GLOBAL_AVG_POOL:
  case OP_GLOBAL_AVG_POOL_GRAD:
  case OP_MAX_POOL:
  case OP_MAX_POOL_GRAD:
  case OP_AVG_POOL:
  case OP_AVG_POOL_GRAD:
  case OP_SHIFT:
  case OP_UNSHIFT:
  case OP_SLICE: return 1;
  default: return 0;
  }
}

static bool folds_to_zero(const Graph *graph, OpCode op, const ValueId *operands, int32_t count) {
  unsigned zero = zero_operands(op);
  for (int32_t i = 0; i < count && i < 2; i++)
    if ((zero >> i & 1) && is_constant(graph, operands[i], 0)) return true;
  if (op == OP_BN_APPLY) return is_constant(graph, operands[0], 0) && is_constant(graph, operands[1], 0);
  if (op == OP_BN_GRAD) return is_constant(graph, operands[0], 0) && is_constant(graph, operands[3], 0);
  return false;
}

static bool all_equal_constants(const Graph *graph, const ValueId *operands, int32_t count) {
  if (!constant(graph, operands[0])) return false;
  double value = constant(graph, operands[0])->attributes->value;
  for (int32_t i = 1; i < count; i++)
    if (!is_constant(graph, operands[i], value)) return false;
  return true;
}

/* Elementwise whatever the shape, so that one element tells all. */
static bool is_elementwise(OpCode op) {
  return op == OP_RELU || op == OP_RELU_GRAD || op == OP_ADD || op == OP_MUL || op == OP_SCALE || op == OP_MOMENTUM ||
         op == OP_DESCEND || op == OP_ADAM_MEAN || op == OP_ADAM_SQUARE;
}

/* Where all operands are constant and no B is summed over: runs the operation, on one element of an elementwise one and on the
 * whole of a small one, and keeps a uniform result. */
static bool computes_constant(const Graph *graph, OpCode op, const ValueId *operands, int32_t count, const Attributes *attributes,
                              Type type, double *value) {
  enum { MOST_OPERANDS = 4, MOST_ELEMENTS = 1024 };
  double data[MOST_OPERANDS][MOST_ELEMENTS], y[MOST_ELEMENTS];
  TensorValue x[MOST_OPERANDS], result = {.data = y};
  bool elementwise = is_elementwise(op), small = op_table[op].class == CLASS_SMALL || op == OP_ADAM_STEP;
  if (count < 1 || count > MOST_OPERANDS || !(elementwise || (small && op != OP_STACK && !type.batched))) return false;
  for (int32_t i = 0; i < count; i++) {
    const GraphNode *node = constant(graph, operands[i]);
    if (!node) return false;
    x[i] = (TensorValue){elementwise ? type_scalar() : node->type, data[i]};
    if (x[i].type.batched || type_elements(x[i].type, 1) > MOST_ELEMENTS) return false;
    for (int64_t e = type_elements(x[i].type, 1); e-- > 0;) data[i][e] = node->attributes->value;
  }
  if (!elementwise && type_elements(type, 1) > MOST_ELEMENTS) return false;
  op_interpret(op, attributes, x, count, 1, &result);
  for (int64_t e = 1; e < type_elements(result.type, 1); e++)
    if (y[e] != y[0]) return false;
  *value = y[0];
  return true;
}

/* ---- placement ---- */

/* The slice of a concatenation that lies within one part. */
static ValueId slice_of_concat(Graph *graph, const GraphNode *concat, const Attributes *a) {
  int32_t begin = 0;
  for (int32_t i = 0; i < concat->operand_count; i++) {
    ValueId part = concat->operands[i];
    int32_t channels = graph_type(graph, part).dims[0];
    if (a->begin >= begin && a->begin + a->count <= begin + channels)
      return graph_emit(graph, OP_SLICE, &part, 1, &(Attributes){.begin = a->begin - begin, .count = a->count});
    begin += channels;
  }
  return NO_VALUE;
}

static ValueId fold_slice(Graph *graph, ValueId value, const Attributes *a) {
  const GraphNode *node = graph_node(graph, value);
  if (node->op == OP_CONCAT) return slice_of_concat(graph, node, a);
  if (node->op != OP_SLICE) return NO_VALUE;
  return graph_emit(graph, OP_SLICE, node->operands, 1,
                    &(Attributes){.begin = node->attributes->begin + a->begin, .count = a->count});
}

static ValueId fold_shift(Graph *graph, OpCode op, ValueId value, const Attributes *a) {
  const GraphNode *node = graph_node(graph, value);
  if (node->op != op) return NO_VALUE;
  Attributes both = {.shift_y = node->attributes->shift_y + a->shift_y, .shift_x = node->attributes->shift_x + a->shift_x};
  return graph_emit(graph, op, node->operands, 1, &both);
}

static bool has_type(const Graph *graph, ValueId value, Type type) {
  return type_equal(graph_type(graph, value), type);
}

/* Slices of one value, in order and without gaps, are that value again. */
static ValueId concat_of_slices(const Graph *graph, const ValueId *operands, int32_t count, Type type) {
  int32_t begin = 0;
  for (int32_t i = 0; i < count; i++) {
    const GraphNode *part = graph_node(graph, operands[i]);
    if (part->op != OP_SLICE || part->operands[0] != graph_node(graph, operands[0])->operands[0]) return NO_VALUE;
    if (part->attributes->begin != begin) return NO_VALUE;
    begin += part->attributes->count;
  }
  ValueId whole = graph_node(graph, operands[0])->operands[0];
  return has_type(graph, whole, type) ? whole : NO_VALUE;
}

/* Elements of one vector, in order and all of them, are that vector again. */
static ValueId stack_of_elements(const Graph *graph, const ValueId *operands, int32_t count, Type type) {
  for (int32_t i = 0; i < count; i++) {
    const GraphNode *part = graph_node(graph, operands[i]);
    if (part->op != OP_ELEMENT || part->attributes->index != i) return NO_VALUE;
    if (part->operands[0] != graph_node(graph, operands[0])->operands[0]) return NO_VALUE;
  }
  ValueId whole = graph_node(graph, operands[0])->operands[0];
  return has_type(graph, whole, type) ? whole : NO_VALUE;
}

/* ---- operations that leave a value as it is ---- */

static ValueId fold_identity(Graph *graph, OpCode op, const ValueId *operands, int32_t count, const Attributes *a, Type type) {
  ValueId x = operands[0];
  const GraphNode *node = graph_node(graph, x);
  switch (op) {
  case OP_ADD:
    if (is_constant(graph, operands[1], 0)) return x;
    return is_constant(graph, x, 0) ? operands[1] : NO_VALUE;
  case OP_MUL:
    if (is_constant(graph, operands[1], 1)) return x;
    return is_constant(graph, x, 1) ? operands[1] : NO_VALUE;
  case OP_SCALE:
  case OP_CHANNEL_SCALE: return is_constant(graph, operands[1], 1) ? x : NO_VALUE;
  case OP_AFFINE: return is_constant(graph, operands[1], 1) && is_constant(graph, operands[2], 0) ? x : NO_VALUE;
  case OP_RELU: return node->op == OP_RELU ? x : NO_VALUE;
  case OP_ELEMENT: return node->op == OP_STACK ? node->operands[a->index] : NO_VALUE;
  case OP_STACK: return stack_of_elements(graph, operands, count, type);
  case OP_DESCEND: return is_constant(graph, operands[1], 0) || is_constant(graph, operands[2], 0) ? x : NO_VALUE;
  case OP_RESHAPE:
    if (has_type(graph, x, type)) return x;
    return node->op == OP_RESHAPE ? graph_emit(graph, op, node->operands, 1, a) : NO_VALUE;
  case OP_SLICE: return has_type(graph, x, type) ? x : fold_slice(graph, x, a);
  case OP_SHIFT:
  case OP_UNSHIFT: return has_type(graph, x, type) ? x : fold_shift(graph, op, x, a);
  case OP_CONCAT: return count == 1 ? x : concat_of_slices(graph, operands, count, type);
  default: return NO_VALUE;
  }
}

ValueId graph_fold(Graph *graph, OpCode op, const ValueId *operands, int32_t count, const Attributes *attributes, Type type) {
  double value;
  if (count == 0) return NO_VALUE;
  if (folds_to_zero(graph, op, operands, count)) return graph_constant(graph, 0, type);
  bool placed = op == OP_STACK || op == OP_CONCAT || op == OP_SLICE || op == OP_SHIFT || op == OP_RESHAPE || op == OP_ELEMENT;
  if (placed && all_equal_constants(graph, operands, count))
    return graph_constant(graph, constant(graph, operands[0])->attributes->value, type);
  ValueId same = fold_identity(graph, op, operands, count, attributes, type);
  if (same != NO_VALUE) return same;
  if (computes_constant(graph, op, operands, count, attributes, type, &value)) return graph_constant(graph, value, type);
  return NO_VALUE;
}
