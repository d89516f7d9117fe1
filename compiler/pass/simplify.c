/* simplify: a clean copy of a graph. Emitting a node already folds constants and shares equal nodes (compiler/graph/fold.c); this
 * pass adds the algebra that looks deeper or trades one value for several, and leaves out what no result and no update needs.
 *
 * Every rule is exact in real arithmetic, so a step means the same before and after, but for rounding. The one that matters most:
 * the gradient of a generator's layer is an outer product dy x, and the norm of all gradients needs its sum of squares, which is
 * |dy|^2 |x|^2; after this the optimizer is the product's only user and nothing has to store it.
 *
 * Needs: a verified graph. Breaks: nothing. A second run changes nothing. */
#include "compiler/pass/pass.h"

#include <string.h>

enum { MOST_PARTS = 64 }; /* of a concatenation that is taken apart */

typedef struct Context {
  Graph *graph; /* that is made */
  bool sums;    /* gradients are in place, and there are bn_grad_sums among them */
} Context;

/* A node about to be emitted; its operands are simplified already. */
typedef struct Candidate {
  const Context *context;
  Graph *graph;
  OpCode op;
  const ValueId *x;
  int32_t count;
  const Attributes *attributes;
} Candidate;

static ValueId simplified(const Context *context, OpCode op, const ValueId *x, int32_t count, const Attributes *attributes);

static ValueId unary(const Candidate *c, OpCode op, ValueId a) {
  return simplified(c->context, op, &a, 1, NULL);
}

static ValueId binary(const Candidate *c, OpCode op, ValueId a, ValueId b) {
  return simplified(c->context, op, (ValueId[]){a, b}, 2, NULL);
}

/* The node of operand i where it is an `op`, else null; valid until something is emitted, its operands always. */
static const GraphNode *operand(const Candidate *c, int32_t i, OpCode op) {
  const GraphNode *node = graph_node(c->graph, c->x[i]);
  return node->op == op ? node : NULL;
}

/* Operand 0 of operand i where that is an `op`. */
static ValueId below(const Candidate *c, int32_t i, OpCode op) {
  const GraphNode *node = operand(c, i, op);
  return node ? node->operands[0] : NO_VALUE;
}

static bool same_type(const Candidate *c, ValueId a, ValueId b) {
  return type_equal(graph_type(c->graph, a), graph_type(c->graph, b));
}

/* (x a) b = x (a b) for `scale` and `channel_scale`; scaling a scalar is a product. */
static ValueId simplify_scale(const Candidate *c) {
  const GraphNode *inner = operand(c, 0, c->op);
  if (c->op == OP_SCALE && same_type(c, c->x[0], c->x[1])) return binary(c, OP_MUL, c->x[0], c->x[1]);
  if (!inner) return NO_VALUE;
  const ValueId *x = inner->operands;
  return binary(c, c->op, x[0], binary(c, OP_MUL, x[1], c->x[1]));
}

/* x a + x b = x (a + b) */
static ValueId simplify_add(const Candidate *c) {
  const GraphNode *a = operand(c, 0, OP_SCALE), *b = operand(c, 1, OP_SCALE);
  if (!a || !b || a->operands[0] != b->operands[0]) return NO_VALUE;
  const ValueId *x = a->operands, *y = b->operands;
  return binary(c, OP_SCALE, x[0], binary(c, OP_ADD, x[1], y[1]));
}

static ValueId simplify_sum_squares(const Candidate *c) {
  const GraphNode *node = graph_node(c->graph, c->x[0]);
  const ValueId *x = node->operands;
  switch (node->op) {
  case OP_RESHAPE: return unary(c, OP_SUM_SQUARES, x[0]);
  case OP_SCALE: return binary(c, OP_MUL, unary(c, OP_SUM_SQUARES, x[0]), binary(c, OP_MUL, x[1], x[1]));
  case OP_LINEAR_GRAD_WEIGHT: /* an outer product where there is no B; with one it is a sum of them */
    if (graph_type(c->graph, x[0]).batched) return NO_VALUE;
    return binary(c, OP_MUL, unary(c, OP_SUM_SQUARES, x[0]), unary(c, OP_SUM_SQUARES, x[1]));
  default: return NO_VALUE;
  }
}

/* <d, (z - mean) / deviation> is what the gradient of that normalisation needs too, channel by channel: dL/dp of a mixed
 * candidate falls out of a sum that is there anyway. */
static ValueId dot_of_normalised(const Candidate *c) {
  if (!c->context->sums) return NO_VALUE; /* autodiff knows no way through the sums */
  for (int32_t i = 2; i-- > 0;) {
    const GraphNode *bn = operand(c, i, OP_BN_APPLY);
    if (!bn) continue;
    ValueId sums = simplified(c->context, OP_BN_GRAD_SUMS, (ValueId[]){c->x[1 - i], bn->operands[0], bn->operands[1]}, 3, NULL);
    return simplified(c->context, OP_ROW_SUM, &sums, 1, &(Attributes){.index = 1});
  }
  return NO_VALUE;
}

/* The sums of d p are p times those of d, where those are there. */
static ValueId simplify_bn_grad_sums(const Candidate *c) {
  const GraphNode *scaled = operand(c, 0, OP_SCALE);
  if (!scaled) return NO_VALUE;
  const ValueId *x = scaled->operands;
  ValueId sums = graph_find(c->graph, OP_BN_GRAD_SUMS, (ValueId[]){x[0], c->x[1], c->x[2]}, 3, NULL);
  return sums != NO_VALUE ? binary(c, OP_SCALE, sums, x[1]) : NO_VALUE;
}

/* The sum of a row of x s. */
static ValueId simplify_row_sum(const Candidate *c) {
  const GraphNode *scaled = operand(c, 0, OP_SCALE);
  if (!scaled) return NO_VALUE;
  const ValueId *x = scaled->operands;
  return binary(c, OP_MUL, simplified(c->context, OP_ROW_SUM, &x[0], 1, c->attributes), x[1]);
}

/* <a s, b> = <a, b> s; a common reshape of both does not matter; <a, a> = |a|^2 */
static ValueId simplify_dot(const Candidate *c) {
  for (int32_t i = 0; i < 2; i++) {
    const GraphNode *scaled = operand(c, i, OP_SCALE);
    if (!scaled) continue;
    const ValueId *x = scaled->operands;
    return binary(c, OP_MUL, binary(c, OP_DOT, x[0], c->x[1 - i]), x[1]);
  }
  ValueId a = below(c, 0, OP_RESHAPE), b = below(c, 1, OP_RESHAPE);
  if (a != NO_VALUE && b != NO_VALUE && same_type(c, a, b)) return binary(c, OP_DOT, a, b);
  if (c->x[0] == c->x[1] && !graph_type(c->graph, c->x[0]).batched) return unary(c, OP_SUM_SQUARES, c->x[0]);
  return dot_of_normalised(c);
}

/* relu(x) > 0 where x > 0, and a second mask by the same x changes nothing. */
static ValueId simplify_relu_grad(const Candidate *c) {
  ValueId x = below(c, 1, OP_RELU);
  if (x != NO_VALUE) return binary(c, OP_RELU_GRAD, c->x[0], x);
  const GraphNode *inner = operand(c, 0, OP_RELU_GRAD);
  return inner && inner->operands[1] == c->x[1] ? c->x[0] : NO_VALUE;
}

/* Rows and columns that were put before an image and are taken away again. */
static ValueId simplify_shift(const Candidate *c) {
  const GraphNode *inner = operand(c, 0, OP_UNSHIFT);
  bool undone =
      inner && inner->attributes->shift_y == c->attributes->shift_y && inner->attributes->shift_x == c->attributes->shift_x;
  return undone ? inner->operands[0] : NO_VALUE;
}

/* A concatenation inside another gives its parts to it, while they are not too many: a text can double them line by line. */
static ValueId simplify_concat(const Candidate *c) {
  VECTOR(ValueId) parts = {0};
  for (int32_t i = 0; i < c->count; i++) {
    const GraphNode *inner = operand(c, i, OP_CONCAT);
    for (int32_t k = 0; inner && k < inner->operand_count; k++) vector_push(&parts, inner->operands[k]);
    if (!inner) vector_push(&parts, c->x[i]);
  }
  ValueId flat = (int32_t)parts.count == c->count || parts.count > MOST_PARTS
                     ? NO_VALUE
                     : simplified(c->context, OP_CONCAT, parts.data, (int32_t)parts.count, NULL);
  vector_free(&parts);
  return flat;
}

/* The slice of a concatenation: the parts that it touches, the first and the last of them cut. One part alone is folded already.
 */
static ValueId simplify_slice(const Candidate *c) {
  const GraphNode *concat = operand(c, 0, OP_CONCAT);
  if (!concat || concat->operand_count > MOST_PARTS) return NO_VALUE;
  const ValueId *x = concat->operands;
  int32_t count = concat->operand_count, from = 0, end = c->attributes->begin + c->attributes->count;
  VECTOR(ValueId) parts = {0};
  for (int32_t i = 0; i < count; i++) {
    int32_t channels = graph_type(c->graph, x[i]).dims[0];
    int32_t first = c->attributes->begin > from ? c->attributes->begin - from : 0;
    int32_t last = end < from + channels ? end - from : channels;
    if (first < last)
      vector_push(&parts, simplified(c->context, OP_SLICE, &x[i], 1, &(Attributes){.begin = first, .count = last - first}));
    from += channels;
  }
  ValueId slice = simplified(c->context, OP_CONCAT, parts.data, (int32_t)parts.count, NULL);
  vector_free(&parts);
  return slice;
}

/* Something equal that is simpler, or NO_VALUE. */
static ValueId rewrite(const Candidate *c) {
  switch (c->op) {
  case OP_SCALE:
  case OP_CHANNEL_SCALE: return simplify_scale(c);
  case OP_ADD: return simplify_add(c);
  case OP_SUM_SQUARES: return simplify_sum_squares(c);
  case OP_DOT: return simplify_dot(c);
  case OP_BN_GRAD_SUMS: return simplify_bn_grad_sums(c);
  case OP_ROW_SUM: return simplify_row_sum(c);
  case OP_RELU_GRAD: return simplify_relu_grad(c);
  case OP_SHIFT: return simplify_shift(c);
  case OP_CONCAT: return simplify_concat(c);
  case OP_SLICE: return simplify_slice(c);
  default: return NO_VALUE;
  }
}

static ValueId simplified(const Context *context, OpCode op, const ValueId *x, int32_t count, const Attributes *attributes) {
  Candidate candidate = {context, context->graph, op, x, count, attributes};
  ValueId simpler = count > 0 ? rewrite(&candidate) : NO_VALUE;
  return simpler != NO_VALUE ? simpler : graph_emit(context->graph, op, x, count, attributes);
}

static ValueId emit_simplified(void *context, Graph *out, const Graph *in, ValueId value, const ValueId *operands) {
  const GraphNode *node = graph_node(in, value);
  Context *c = context;
  c->graph = out;
  return simplified(c, node->op, operands, node->operand_count, node->attributes);
}

static Graph *simplify_once(const Graph *graph) {
  bool sums = false, marks = false;
  for (size_t v = 0; v < graph->nodes.count; v++) {
    sums |= graph->nodes.data[v].op == OP_BN_GRAD_SUMS;
    marks |= graph->nodes.data[v].op == OP_GRADIENT;
  }
  Context context = {.sums = sums && !marks};
  return graph_copy(graph, emit_simplified, &context);
}

Graph *pass_simplify(const Graph *graph) {
  /* A rewrite leaves the values that it replaced without users, and may open the way for another one further up. */
  Graph *before = simplify_once(graph), *after = simplify_once(before);
  while (after->nodes.count != before->nodes.count) {
    before = after;
    after = simplify_once(before);
  }
  return after;
}
