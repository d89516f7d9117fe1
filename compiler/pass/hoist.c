/* hoist: while a search changes only the logits, the gate of w_G is closed and no weight changes. What a step computes from
 * weights alone is then the same each time, so it leaves the step and goes into `search_enter`, which runs whenever the gate
 * closes and on resume; the step reads it from parameters of the kind `hoisted`.
 *
 * A GeneratingBlock reads p, which does change; but without an activation between its layers it is affine in p:
 *
 *   W2 (W1 p + b1) + b2 = u p + v,   u = W2 W1, v = W2 b1 + b2,   and   W1' W2' dw = <dw, u>,
 *
 * with u and v of weights alone: as much work as the convolution's weight has elements, and not that times the hidden layer.
 *
 * Which steps: those that update a logit and no weight. What they update varies, the logits among it; inputs vary; weights and
 * constants do not. Needs: a verified module with gradients in place (a `gradient` is by what stands in the step, and that goes).
 * Breaks: nothing. A second run changes nothing: what depends on hoisted parameters is not hoisted again. */
#include "compiler/pass/pass.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PARAMETERS = 1 << 17, MOST_NAME = 160 }; /* half of what a module may have; below what a name may have */

/* Two layers that were joined: the values are those of the graph under way. */
typedef struct Joined {
  ValueId first_weight, second_weight, slope;
} Joined;

typedef struct Hoisting {
  Module *module;
  Graph *enter; /* search_enter; null: nothing was hoisted yet */
  VECTOR(Joined) joined;
  const bool *fixed;   /* of each value of the graph that is copied */
  const bool *leaving; /* fixed, and what the step reads of it */
  ValueId *map;        /* of each fixed value its copy in search_enter */
  int32_t *parameter;  /* of each value of search_enter the parameter that keeps it; -1: none */
  size_t parameter_count;
} Hoisting;

static bool updates_kind(const Graph *step, ParameterKind kind) {
  for (size_t i = 0; i < step->updates.count; i++)
    if (step->module->parameters.data[step->updates.data[i].parameter].kind == kind) return true;
  return false;
}

static bool is_search(const Graph *step) {
  return updates_kind(step, PARAMETER_ALPHA) && !updates_kind(step, PARAMETER_WEIGHT);
}

static const Parameter *parameter_of(const Graph *graph, ValueId value) {
  const GraphNode *node = graph_node(graph, value);
  return node->op == OP_PARAM ? &graph->module->parameters.data[node->attributes->index] : NULL;
}

static bool is_weight(const Graph *graph, ValueId value) {
  const Parameter *p = parameter_of(graph, value);
  return p && p->kind == PARAMETER_WEIGHT;
}

static bool is_number(const Graph *graph, ValueId value) {
  return type_equal(graph_type(graph, value), type_scalar());
}

/* ---- u p + v ---- */

/* u = W2 W1, from the weights of both layers. */
static ValueId slope_of(Graph *graph, ValueId first, ValueId second) {
  int32_t hidden = graph_type(graph, first).dims[0], outputs = graph_type(graph, second).dims[0];
  Attributes flat = {.shape = type_tensor(1, &hidden, false)};
  ValueId zero = graph_constant(graph, 0, type_tensor(1, &outputs, false));
  return graph_ternary(graph, OP_LINEAR, graph_emit(graph, OP_RESHAPE, &first, 1, &flat), second, zero);
}

/* A layer on a layer on one number, all four parameters weights. */
static ValueId join_layers(Hoisting *h, Graph *out, const ValueId *x) {
  const GraphNode *inner = graph_node(out, x[0]);
  if (inner->op != OP_LINEAR || !is_number(out, inner->operands[0]) || is_weight(out, inner->operands[0])) return NO_VALUE;
  ValueId p = inner->operands[0], first = inner->operands[1], bias = inner->operands[2];
  if (!is_weight(out, first) || !is_weight(out, bias) || !is_weight(out, x[1]) || !is_weight(out, x[2])) return NO_VALUE;
  ValueId slope = slope_of(out, first, x[1]), offset = graph_ternary(out, OP_LINEAR, bias, x[1], x[2]);
  vector_push(&h->joined, ((Joined){first, x[1], slope}));
  return graph_binary(out, OP_ADD, graph_binary(out, OP_SCALE, slope, p), offset);
}

/* The gradient of p, (1,), through two layers that were joined: <dw, u>. */
static ValueId join_gradients(const Hoisting *h, Graph *out, const ValueId *x) {
  const GraphNode *inner = graph_node(out, x[0]);
  if (inner->op != OP_LINEAR_GRAD_INPUT || graph_type(out, x[0]).batched) return NO_VALUE;
  for (size_t i = 0; i < h->joined.count; i++) {
    const Joined *j = &h->joined.data[i];
    if (j->first_weight != x[1] || j->second_weight != inner->operands[1]) continue;
    int32_t one = 1;
    Attributes vector = {.shape = type_tensor(1, &one, false)};
    ValueId sum = graph_binary(out, OP_DOT, inner->operands[0], j->slope);
    return graph_emit(out, OP_RESHAPE, &sum, 1, &vector);
  }
  return NO_VALUE;
}

static ValueId join(void *context, Graph *out, const Graph *in, ValueId value, const ValueId *operands) {
  const GraphNode *node = graph_node(in, value);
  ValueId joined = NO_VALUE;
  if (node->op == OP_LINEAR) joined = join_layers(context, out, operands);
  if (node->op == OP_LINEAR_GRAD_INPUT) joined = join_gradients(context, out, operands);
  return joined != NO_VALUE ? joined : graph_emit(out, node->op, operands, node->operand_count, node->attributes);
}

/* ---- what does not change ---- */

/* Made of weights that the step leaves alone, and of constants with them. */
static void find_fixed(const Graph *graph, bool *fixed) {
  bool *constant = memory_alloc(graph->nodes.count + 1);
  for (size_t v = 0; v < graph->nodes.count; v++) {
    const GraphNode *node = &graph->nodes.data[v];
    bool all = !node->type.batched && op_table[node->op].class != CLASS_MARK, any = false;
    for (int32_t i = 0; i < node->operand_count; i++) {
      all &= fixed[node->operands[i]] || constant[node->operands[i]];
      any |= fixed[node->operands[i]];
    }
    constant[v] = node->op == OP_CONST;
    fixed[v] = op_table[node->op].class == CLASS_LEAF ? is_weight(graph, (ValueId)v) : all && any;
  }
  free(constant);
}

/* A fixed value is read by something that is not, and costs something to compute. */
static void find_leaving(const Graph *graph, const bool *fixed, bool *leaving) {
  for (size_t v = 0; v < graph->nodes.count; v++) {
    const GraphNode *node = &graph->nodes.data[v];
    for (int32_t i = 0; i < node->operand_count; i++) leaving[node->operands[i]] |= !fixed[v];
  }
  for (size_t i = 0; i < graph->results.count; i++) leaving[graph->results.data[i].value] = true;
  for (size_t i = 0; i < graph->updates.count; i++) leaving[graph->updates.data[i].value] = true;
  for (size_t v = 0; v < graph->nodes.count; v++) {
    OpClass class = op_table[graph->nodes.data[v].op].class;
    leaving[v] &= fixed[v] && class != CLASS_LEAF && class != CLASS_DATA;
  }
}

/* ---- the parameters that keep it ---- */

/* "cells.0.nodes.1.2.dw1" of "cells.0.nodes.1.2.dw1.fc2.weight", where u or v comes from that layer; else nothing. */
static size_t block_name(const Graph *graph, ValueId value, const char **name) {
  const GraphNode *node = graph_node(graph, value);
  const Parameter *weight = node->op == OP_LINEAR ? parameter_of(graph, node->operands[1]) : NULL;
  if (!weight || weight->generates.rank == 0) return 0;
  *name = weight->name;
  const char *layer = strstr(weight->name, ".fc2.");
  return layer && layer - weight->name <= MOST_NAME ? (size_t)(layer - weight->name) : 0;
}

static const char *free_name(const Hoisting *h, const Graph *graph, ValueId value) {
  const char *block = NULL;
  size_t length = block_name(graph, value, &block);
  if (length) {
    bool offset = is_weight(graph, graph_node(graph, value)->operands[2]);
    const char *name = arena_printf(h->module->arena, "hoisted.%.*s.%s", (int)length, block, offset ? "v" : "u");
    if (module_find_parameter(h->module, name) < 0) return name;
  }
  for (int number = 0;; number++) {
    const char *name = arena_printf(h->module->arena, "hoisted.%d", number);
    if (module_find_parameter(h->module, name) < 0) return name;
  }
}

/* The weights whose elements a vector is; rank 0: of none. */
static Type order_of(const Graph *graph, ValueId value) {
  for (;;) {
    const GraphNode *node = graph_node(graph, value);
    const Parameter *p = parameter_of(graph, node->op == OP_LINEAR ? node->operands[1] : value);
    if (p && p->type.rank != 4) return p->generates;
    if (node->type.rank == 4) return node->type;
    if (op_table[node->op].class != CLASS_MAP && node->op != OP_RESHAPE) return type_scalar();
    bool second = graph_node(graph, node->operands[0])->op == OP_CONST && node->operand_count > 1;
    value = node->operands[second];
  }
}

static int32_t keep(Hoisting *h, const Graph *graph, ValueId value) {
  Type type = graph_type(graph, value);
  Parameter kept = {.name = free_name(h, graph, value), .type = type, .kind = PARAMETER_HOISTED};
  if (type.rank == 1) kept.generates = order_of(graph, value);
  return module_add_parameter(h->module, kept);
}

/* The parameter that search_enter leaves this value of it in; equal values of several steps have one. */
static int32_t kept_parameter(Hoisting *h, const Graph *graph, ValueId value, ValueId entered) {
  if ((size_t)entered >= h->parameter_count) {
    size_t count = h->enter->nodes.count;
    h->parameter = memory_resize(h->parameter, count * sizeof *h->parameter);
    while (h->parameter_count < count) h->parameter[h->parameter_count++] = -1;
  }
  if (h->parameter[entered] < 0) {
    h->parameter[entered] = keep(h, graph, value);
    graph_update(h->enter, h->parameter[entered], entered);
  }
  return h->parameter[entered];
}

/* ---- the step without it ---- */

static ValueId enter_value(Hoisting *h, const Graph *in, ValueId value) {
  const GraphNode *node = graph_node(in, value);
  if (h->map[value] != NO_VALUE) return h->map[value];
  ValueId *operands = ARENA_ARRAY(h->module->arena, ValueId, node->operand_count);
  for (int32_t i = 0; i < node->operand_count; i++) operands[i] = h->map[node->operands[i]];
  return h->map[value] = graph_emit(h->enter, node->op, operands, node->operand_count, node->attributes);
}

static ValueId take_out(void *context, Graph *out, const Graph *in, ValueId value, const ValueId *operands) {
  Hoisting *h = context;
  const GraphNode *node = graph_node(in, value);
  if (h->fixed[value] || node->op == OP_CONST) enter_value(h, in, value);
  if (h->leaving[value]) return graph_parameter(out, kept_parameter(h, in, value, h->map[value]));
  return graph_emit(out, node->op, operands, node->operand_count, node->attributes);
}

static Graph *hoist_step(Hoisting *h, const Graph *step) {
  h->joined.count = 0;
  Graph *joined = graph_copy(graph_copy(step, join, h), NULL, NULL); /* the second drops what the first left unused */
  size_t count = joined->nodes.count;
  bool *fixed = memory_alloc(count + 1), *leaving = memory_alloc(count + 1);
  h->map = memory_alloc((count + 1) * sizeof *h->map);
  for (size_t v = 0; v < count; v++) h->map[v] = NO_VALUE;
  find_fixed(joined, fixed);
  find_leaving(joined, fixed, leaving);
  h->fixed = fixed, h->leaving = leaving;
  Graph *out = graph_copy(graph_copy(joined, take_out, h), NULL, NULL);
  free(h->map);
  free(fixed);
  free(leaving);
  return out;
}

/* search_enter goes behind the first step that needs it. */
static void insert_step(Module *module, size_t at, Graph *graph) {
  vector_push(&module->steps, graph);
  memmove(&module->steps.data[at + 1], &module->steps.data[at], (module->steps.count - at - 1) * sizeof(Graph *));
  module->steps.data[at] = graph;
}

void pass_hoist(Module *module) {
  Hoisting h = {.module = module};
  size_t behind = 0;
  Graph *enter = module_find_step(module, "search_enter") ? NULL : graph_new(module, "search_enter");
  h.enter = enter;
  for (size_t i = 0; i < module->steps.count && enter; i++) {
    if (!is_search(module->steps.data[i])) continue;
    module->steps.data[i] = hoist_step(&h, module->steps.data[i]);
    if (!behind && enter->updates.count) behind = i + 1;
  }
  if (behind) insert_step(module, behind, graph_copy(enter, NULL, NULL));
  vector_free(&h.joined);
  free(h.parameter);
}

bool pass_hoist_ready(const Module *module, Err *err) {
  for (size_t i = 0; i < module->steps.count; i++) {
    const Graph *step = module->steps.data[i];
    if (graph_has_layouts(step)) return err_set(err, "step %s has layouts; hoist comes before layout", step->name);
    for (size_t v = 0; v < step->nodes.count; v++)
      if (step->nodes.data[v].op == OP_GRADIENT)
        return err_set(err, "step %s asks for gradients; autodiff comes first", step->name);
  }
  if (module->parameters.count > MOST_PARAMETERS || module->steps.count >= 63)
    return err_set(err, "the module has no room for what would be hoisted");
  return true;
}
