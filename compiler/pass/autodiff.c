/* autodiff: reverse-mode differentiation of a step, one rule per operation. A step asks for gradients by name, `gradient %loss,
 * @w`; where the first one by a loss stands the pass puts the gradients of all that are asked for, and each takes its place.
 *
 * The graph is walked from the loss down; every user of a value has a larger id, so a value's adjoint is complete when the walk
 * arrives. Contributions are added in the order of the walk, which makes the sum's order a property of the graph alone. A rule
 * gives the gradient with respect to one operand and is asked only for operands on which something wanted depends, so a step
 * whose gate is closed holds no gradient that it does not use.
 *
 * Needs: a verified graph for which pass_autodiff_ready holds: every way from a loss to what it is differentiated by has a rule.
 * Breaks: nothing. Two things are not local to a node:
 * - The K `element`s of one softmax: their gradients become one `stack` (zero where an entry is not used), not K one-hot vectors.
 * - Batch normalisation: `bn_apply(x, bn_moments(x))` is differentiated as a whole, so `bn_moments` has no rule of its own.
 *   Moments that are given (running statistics) are constants. */
#include "compiler/pass/pass.h"

#include <string.h>

/* One use: value = node.op(x...), whose adjoint is dy. */
typedef struct Use {
  Graph *graph;
  ValueId value, dy;
  const ValueId *x;
  int32_t count;
  const Attributes *attributes;
  bool moments_depend; /* bn_apply: whether operand 1 depends on something wanted */
} Use;

/* The gradient with respect to operand i. */
typedef ValueId GradientRule(const Use *u, int32_t i);

static Type operand_type(const Use *u, int32_t i) {
  return graph_type(u->graph, u->x[i]);
}

static ValueId emit(const Use *u, OpCode op, ValueId a, ValueId b, const Attributes *attributes) {
  return graph_emit(u->graph, op, (ValueId[]){a, b}, b == NO_VALUE ? 1 : 2, attributes);
}

/* ---- vectors and scalars ---- */

static ValueId softmax_rule(const Use *u, int32_t i) {
  (void)i;
  return emit(u, OP_SOFTMAX_GRAD, u->dy, u->value, NULL);
}

static ValueId stack_rule(const Use *u, int32_t i) {
  return emit(u, OP_ELEMENT, u->dy, NO_VALUE, &(Attributes){.index = i});
}

static ValueId reshaped(const Use *u, ValueId value, Type shape) {
  return type_equal(graph_type(u->graph, value), shape) ? value
                                                        : emit(u, OP_RESHAPE, value, NO_VALUE, &(Attributes){.shape = shape});
}

static ValueId reshape_rule(const Use *u, int32_t i) {
  return reshaped(u, u->dy, operand_type(u, i));
}

static ValueId linear_rule(const Use *u, int32_t i) {
  switch (i) {
  case 0: return reshaped(u, emit(u, OP_LINEAR_GRAD_INPUT, u->dy, u->x[1], NULL), operand_type(u, 0));
  case 1: return emit(u, OP_LINEAR_GRAD_WEIGHT, u->dy, u->x[0], NULL);
  default: return graph_type(u->graph, u->dy).batched ? emit(u, OP_BATCH_SUM, u->dy, NO_VALUE, NULL) : u->dy;
  }
}

static ValueId cross_entropy_rule(const Use *u, int32_t i) {
  (void)i;
  return graph_ternary(u->graph, OP_CROSS_ENTROPY_GRAD, u->dy, u->x[0], u->x[1]);
}

static ValueId batch_mean_rule(const Use *u, int32_t i) {
  (void)i;
  return emit(u, OP_BATCH_MEAN_GRAD, u->dy, NO_VALUE, NULL);
}

static ValueId sum_squares_rule(const Use *u, int32_t i) {
  ValueId two = graph_constant(u->graph, 2, type_scalar());
  return emit(u, OP_SCALE, u->x[i], emit(u, OP_MUL, u->dy, two, NULL), NULL);
}

/* ---- elementwise and by channel ---- */

static ValueId relu_rule(const Use *u, int32_t i) {
  return emit(u, OP_RELU_GRAD, u->dy, u->x[i], NULL);
}

static ValueId add_rule(const Use *u, int32_t i) {
  (void)i;
  return u->dy;
}

static ValueId mul_rule(const Use *u, int32_t i) {
  return emit(u, OP_MUL, u->dy, u->x[1 - i], NULL);
}

static ValueId scale_rule(const Use *u, int32_t i) {
  return i == 0 ? emit(u, OP_SCALE, u->dy, u->x[1], NULL) : emit(u, OP_DOT, u->dy, u->x[0], NULL);
}

static ValueId dot_rule(const Use *u, int32_t i) {
  return emit(u, OP_SCALE, u->x[1 - i], u->dy, NULL);
}

static ValueId bn_apply_rule(const Use *u, int32_t i) {
  (void)i;
  ValueId x = u->x[0], moments = u->x[1], sums;
  const GraphNode *source = graph_node(u->graph, moments);
  if (source->op == OP_BN_MOMENTS && source->operands[0] == x)
    sums = graph_ternary(u->graph, OP_BN_GRAD_SUMS, u->dy, x, moments);
  else if (!u->moments_depend)
    sums = graph_constant(u->graph, 0, graph_type(u->graph, moments));
  else
    die("%s: %%%d normalises with moments of another value", u->graph->name, (int)u->value);
  return graph_emit(u->graph, OP_BN_GRAD, (ValueId[]){u->dy, x, moments, sums}, 4, NULL);
}

static ValueId affine_rule(const Use *u, int32_t i) {
  switch (i) {
  case 0: return emit(u, OP_CHANNEL_SCALE, u->dy, u->x[1], NULL);
  case 1: return emit(u, OP_CHANNEL_DOT, u->dy, u->x[0], NULL);
  default: return emit(u, OP_CHANNEL_SUM, u->dy, NO_VALUE, NULL);
  }
}

static ValueId channel_sum_rule(const Use *u, int32_t i) {
  return emit(u, OP_CHANNEL_SCALE, graph_constant(u->graph, 1, operand_type(u, i)), u->dy, NULL);
}

static ValueId channel_dot_rule(const Use *u, int32_t i) {
  return emit(u, OP_CHANNEL_SCALE, u->x[1 - i], u->dy, NULL);
}

/* ---- windows ---- */

/* The window, and the sides of operand 0, which a gradient's own operands do not tell. */
static Attributes with_sides(const Use *u) {
  Type image = operand_type(u, 0);
  return (Attributes){.window = u->attributes->window, .side_y = image.dims[1], .side_x = image.dims[2]};
}

static ValueId global_avg_pool_rule(const Use *u, int32_t i) {
  (void)i;
  Attributes attributes = with_sides(u);
  return emit(u, OP_GLOBAL_AVG_POOL_GRAD, u->dy, NO_VALUE, &attributes);
}

static ValueId conv_rule(const Use *u, int32_t i) {
  Attributes attributes = with_sides(u);
  return emit(u, i == 0 ? OP_CONV_GRAD_INPUT : OP_CONV_GRAD_WEIGHT, u->dy, u->x[1 - i], &attributes);
}

static ValueId max_pool_rule(const Use *u, int32_t i) {
  return emit(u, OP_MAX_POOL_GRAD, u->dy, u->x[i], u->attributes);
}

static ValueId avg_pool_rule(const Use *u, int32_t i) {
  (void)i;
  Attributes attributes = with_sides(u);
  return emit(u, OP_AVG_POOL_GRAD, u->dy, NO_VALUE, &attributes);
}

/* ---- placement ---- */

static ValueId concat_rule(const Use *u, int32_t i) {
  Attributes attributes = {.count = operand_type(u, i).dims[0]};
  for (int32_t before = 0; before < i; before++) attributes.begin += operand_type(u, before).dims[0];
  return emit(u, OP_SLICE, u->dy, NO_VALUE, &attributes);
}

static ValueId slice_rule(const Use *u, int32_t i) {
  Type whole = operand_type(u, i), before = whole, after = whole;
  before.dims[0] = u->attributes->begin;
  after.dims[0] = whole.dims[0] - u->attributes->begin - u->attributes->count;
  ValueId parts[3];
  int32_t count = 0;
  if (before.dims[0] > 0) parts[count++] = graph_constant(u->graph, 0, before);
  parts[count++] = u->dy;
  if (after.dims[0] > 0) parts[count++] = graph_constant(u->graph, 0, after);
  return graph_emit(u->graph, OP_CONCAT, parts, count, NULL);
}

static ValueId shift_rule(const Use *u, int32_t i) {
  (void)i;
  return emit(u, OP_UNSHIFT, u->dy, NO_VALUE, u->attributes);
}

static ValueId unshift_rule(const Use *u, int32_t i) {
  (void)i;
  return emit(u, OP_SHIFT, u->dy, NO_VALUE, u->attributes);
}

/* ---- the table ---- */

enum { FIRST = 1, BOTH = 3, ALL_THREE = 7 };
static const uint32_t EACH = UINT32_MAX;

typedef struct RuleRow {
  GradientRule *rule;
  uint32_t operands; /* as pass_autodiff_operands */
} RuleRow;

/* `element` has operands and no rule here: the walk collects its gradients. Rows that are missing are never differentiated. */
static const RuleRow rules[OP_COUNT] = {
    [OP_SOFTMAX] = {softmax_rule, FIRST},
    [OP_ELEMENT] = {NULL, FIRST},
    [OP_STACK] = {stack_rule, EACH},
    [OP_LINEAR] = {linear_rule, ALL_THREE},
    [OP_RESHAPE] = {reshape_rule, FIRST},
    [OP_CROSS_ENTROPY] = {cross_entropy_rule, FIRST},
    [OP_BATCH_MEAN] = {batch_mean_rule, FIRST},
    [OP_RELU] = {relu_rule, FIRST},
    [OP_ADD] = {add_rule, BOTH},
    [OP_MUL] = {mul_rule, BOTH},
    [OP_SCALE] = {scale_rule, BOTH},
    [OP_BN_APPLY] = {bn_apply_rule, FIRST},
    [OP_AFFINE] = {affine_rule, ALL_THREE},
    [OP_CHANNEL_SCALE] = {affine_rule, BOTH},
    [OP_CHANNEL_SUM] = {channel_sum_rule, FIRST},
    [OP_CHANNEL_DOT] = {channel_dot_rule, BOTH},
    [OP_DOT] = {dot_rule, BOTH},
    [OP_GLOBAL_AVG_POOL] = {global_avg_pool_rule, FIRST},
    [OP_CONV] = {conv_rule, BOTH},
    [OP_MAX_POOL] = {max_pool_rule, FIRST},
    [OP_AVG_POOL] = {avg_pool_rule, FIRST},
    [OP_CONCAT] = {concat_rule, EACH},
    [OP_SLICE] = {slice_rule, FIRST},
    [OP_SHIFT] = {shift_rule, FIRST},
    [OP_UNSHIFT] = {unshift_rule, FIRST},
    [OP_SUM_SQUARES] = {sum_squares_rule, FIRST},
};

uint32_t pass_autodiff_operands(OpCode op) {
  return rules[op].operands;
}

/* ---- the walk ---- */

typedef struct Walk {
  Graph *graph;
  Arena *scratch;
  bool *depends;      /* on something wanted; by the values that stood before the walk, as all of these */
  ValueId *adjoint;   /* NO_VALUE: none yet */
  ValueId **elements; /* of a vector whose entries were taken: the gradient of each; null: none taken */
} Walk;

static ValueId sum(const Walk *w, ValueId so_far, ValueId gradient) {
  return so_far == NO_VALUE ? gradient : graph_binary(w->graph, OP_ADD, so_far, gradient);
}

/* `element`'s part of the walk: keeps dy until the vector itself is reached. */
static void collect_element(const Walk *w, ValueId vector, int32_t index, ValueId dy) {
  int32_t entries = graph_type(w->graph, vector).dims[0];
  ValueId *elements = w->elements[vector];
  if (!elements) {
    elements = w->elements[vector] = ARENA_ARRAY(w->scratch, ValueId, entries);
    for (int32_t k = 0; k < entries; k++) elements[k] = NO_VALUE;
  }
  elements[index] = sum(w, elements[index], dy);
}

static void stack_elements(const Walk *w, ValueId vector) {
  ValueId *elements = w->elements[vector];
  int32_t entries = graph_type(w->graph, vector).dims[0];
  for (int32_t k = 0; k < entries; k++)
    if (elements[k] == NO_VALUE) elements[k] = graph_constant(w->graph, 0, type_scalar());
  w->adjoint[vector] = sum(w, w->adjoint[vector], graph_emit(w->graph, OP_STACK, elements, entries, NULL));
}

static void differentiate(const Walk *w, ValueId value) {
  GraphNode node = *graph_node(w->graph, value); /* a copy: emitting moves the nodes */
  RuleRow row = rules[node.op];
  Use use = {w->graph,
             value,
             w->adjoint[value],
             node.operands,
             node.operand_count,
             node.attributes,
             node.op == OP_BN_APPLY && w->depends[node.operands[1]]};
  for (int32_t i = 0; i < node.operand_count; i++) {
    ValueId x = node.operands[i];
    if (!w->depends[x] || (node.op == OP_BN_APPLY && i == 1)) continue;
    if (!(row.operands >> (i < 31 ? i : 31) & 1))
      die("%s: %%%d = %s is never differentiated by its operand %d", w->graph->name, (int)value, op_table[node.op].text, i);
    if (node.op == OP_ELEMENT)
      collect_element(w, x, node.attributes->index, use.dy);
    else
      w->adjoint[x] = sum(w, w->adjoint[x], row.rule(&use, i));
  }
}

static void mark_dependent(const Walk *w, ValueId loss, const ValueId *wanted, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (wanted[i] <= loss) w->depends[wanted[i]] = true;
  for (ValueId v = 0; v <= loss; v++) {
    const GraphNode *node = graph_node(w->graph, v);
    for (int32_t i = 0; i < node->operand_count; i++) w->depends[v] |= w->depends[node->operands[i]];
  }
}

/* Appends the gradients of `loss` by each of `wanted`; NO_VALUE where it does not depend on one. */
static void append_gradients(Graph *graph, ValueId loss, const ValueId *wanted, size_t count, ValueId *gradients) {
  Arena *scratch = arena_new();
  size_t values = (size_t)loss + 1;
  Walk w = {graph, scratch, ARENA_ARRAY(scratch, bool, values), ARENA_ARRAY(scratch, ValueId, values),
            ARENA_ARRAY(scratch, ValueId *, values)};
  for (size_t v = 0; v < values; v++) w.adjoint[v] = NO_VALUE;
  mark_dependent(&w, loss, wanted, count);
  if (w.depends[loss]) w.adjoint[loss] = graph_constant(graph, 1, type_scalar());
  for (ValueId v = loss; v >= 0; v--) {
    if (w.elements[v]) stack_elements(&w, v);
    if (w.adjoint[v] != NO_VALUE) differentiate(&w, v);
  }
  for (size_t i = 0; i < count; i++) gradients[i] = wanted[i] <= loss ? w.adjoint[wanted[i]] : NO_VALUE;
  arena_free(scratch);
}

/* ---- the pass ---- */

/* What the copy so far has found out about the marks of the old graph. */
typedef struct Marks {
  ValueId *gradient; /* of each old mark its value in the new graph; NO_VALUE: not yet */
  ValueId *map;      /* of each old value that was copied */
} Marks;

/* The gradients by all marks of one loss, in the order of the marks. */
static void put_gradients(Marks *marks, Graph *out, const Graph *in, ValueId loss, ValueId first) {
  size_t count = 0, most = in->nodes.count;
  ValueId *wanted = memory_alloc(most * sizeof *wanted), *found = memory_alloc(most * sizeof *found);
  for (size_t v = (size_t)first; v < most; v++) {
    const GraphNode *node = graph_node(in, (ValueId)v);
    if (node->op != OP_GRADIENT || node->operands[0] != loss) continue;
    ValueId by = marks->map[node->operands[1]]; /* NO_VALUE: it stands below, so the loss does not depend on it */
    wanted[count++] = by == NO_VALUE ? (ValueId)out->nodes.count : by;
  }
  append_gradients(out, marks->map[loss], wanted, count, found);
  count = 0;
  for (size_t v = (size_t)first; v < most; v++) {
    const GraphNode *node = graph_node(in, (ValueId)v);
    if (node->op != OP_GRADIENT || node->operands[0] != loss) continue;
    ValueId gradient = found[count++];
    marks->gradient[v] = gradient != NO_VALUE ? gradient : graph_constant(out, 0, node->type);
  }
  free(wanted);
  free(found);
}

static ValueId replace_marks(void *context, Graph *out, const Graph *in, ValueId value, const ValueId *operands) {
  Marks *marks = context;
  const GraphNode *node = graph_node(in, value);
  if (node->op != OP_GRADIENT)
    return marks->map[value] = graph_emit(out, node->op, operands, node->operand_count, node->attributes);
  if (marks->gradient[value] == NO_VALUE) put_gradients(marks, out, in, node->operands[0], value);
  return marks->map[value] = marks->gradient[value];
}

Graph *pass_autodiff(const Graph *in) {
  size_t count = in->nodes.count;
  Marks marks = {memory_alloc((count + 1) * sizeof(ValueId)), memory_alloc((count + 1) * sizeof(ValueId))};
  for (size_t v = 0; v < count; v++) marks.gradient[v] = marks.map[v] = NO_VALUE;
  Graph *out = graph_copy(graph_copy(in, replace_marks, &marks), NULL, NULL); /* some of what was appended has no user */
  free(marks.gradient);
  free(marks.map);
  return out;
}

/* ---- what it needs ---- */

/* Whether the gradient of `value` can be led through its operand i; `depends` as the walk's. */
static bool has_rule(const Graph *graph, ValueId value, int32_t i, const bool *depends, Err *err) {
  const GraphNode *node = graph_node(graph, value);
  if (node->op == OP_BN_APPLY) {
    const GraphNode *moments = graph_node(graph, node->operands[1]);
    bool own = moments->op == OP_BN_MOMENTS && moments->operands[0] == node->operands[0];
    return own || !depends[node->operands[1]] ||
           err_set(err, "step %s: no gradient leads through bn_apply where its moments are those of another value", graph->name);
  }
  return rules[node->op].operands >> (i < 31 ? i : 31) & 1 ||
         err_set(err, "step %s: no gradient leads through operand %d of %s", graph->name, i, op_table[node->op].text);
}

/* Whether every way from the loss to what is asked for has rules. */
static bool ways_ready(const Graph *graph, ValueId loss, bool *depends, bool *reached, Err *err) {
  size_t count = graph->nodes.count;
  for (size_t v = 0; v < count; v++) depends[v] = reached[v] = false;
  for (size_t v = (size_t)loss + 1; v < count; v++)
    if (graph_node(graph, (ValueId)v)->op == OP_GRADIENT && graph_node(graph, (ValueId)v)->operands[0] == loss)
      depends[graph_node(graph, (ValueId)v)->operands[1]] = true;
  for (ValueId v = 0; v <= loss; v++) {
    const GraphNode *node = graph_node(graph, v);
    for (int32_t i = 0; i < node->operand_count; i++) depends[v] |= depends[node->operands[i]];
  }
  reached[loss] = true;
  for (ValueId v = loss; v >= 0; v--) {
    const GraphNode *node = graph_node(graph, v);
    for (int32_t i = 0; reached[v] && i < node->operand_count; i++) {
      ValueId x = node->operands[i];
      if (!depends[x]) continue;
      if (!has_rule(graph, v, i, depends, err)) return false;
      reached[x] |= !(node->op == OP_BN_APPLY && i == 1);
    }
  }
  return true;
}

bool pass_autodiff_ready(const Graph *graph, Err *err) {
  enum { MOST_VALUES = 1 << 18, MOST_LOSSES = 16 }; /* what comes of them is below what a graph may have */
  size_t count = graph->nodes.count, losses = 0;
  bool ready = true, *depends = memory_alloc(count + 1), *reached = memory_alloc(count + 1), *done = memory_alloc(count + 1);
  for (size_t v = 0; v < count && ready; v++) {
    const GraphNode *node = &graph->nodes.data[v];
    if (node->op != OP_GRADIENT || done[node->operands[0]]) continue;
    done[node->operands[0]] = true;
    losses++;
    ready = ways_ready(graph, node->operands[0], depends, reached, err);
  }
  if (ready && losses && count > MOST_VALUES / (losses < MOST_LOSSES ? losses : MOST_LOSSES))
    ready = err_set(err, "step %s: %zu values are too many for the gradients of %zu losses", graph->name, count, losses);
  if (ready && losses > MOST_LOSSES) ready = err_set(err, "step %s: gradients of more than %d losses", graph->name, MOST_LOSSES);
  free(depends);
  free(reached);
  free(done);
  return ready;
}
