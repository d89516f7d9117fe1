/* Layouts: in which order kernels keep the elements of each value. A parameter's follows from its shape and from whether it is
 * the last layer of a generator, an image's is always nhwc, and every other value's follows from its operands'; so the layouts of
 * a graph are worked out here in one walk, which pass_layout writes into the types and the verifier repeats.
 *
 * What can go wrong are orders that do not meet: a vector that is read as the weights of a convolution must come from a layer (or
 * a parameter) whose rows lie in the order of just those weights. Constants are uniform and fit everywhere.
 *
 *   nhwc    f32[B, C, H, W]          yxio    f32[O, I/groups, ky, kx], and f32[M] that are its elements
 *   nc      f32[B, C]                io      f32[M, N] as (N, M)
 *                                    i.yxio  f32[M, N] as (N, M) with the M in the order yxio of the weights that they make */
#include "compiler/graph/graph_private.h"

#include <string.h>

/* Of one value; `order`: with LAYOUT_YXIO and LAYOUT_I_YXIO the weights (O, I/groups, ky, kx) whose elements it has. */
typedef struct Placed {
  Layout layout;
  Type order;
  bool any; /* a constant */
} Placed;

typedef struct Layouts {
  const Graph *graph;
  Placed *placed;
  Err *err;
} Layouts;

const char *layout_text(Layout layout) {
  static const char *const text[] = {NULL, "nhwc", "nc", "yxio", "io", "i.yxio"};
  return layout <= LAYOUT_I_YXIO ? text[layout] : NULL;
}

static Layout shape_layout(Type type) {
  if (type.batched) return type.rank == 3 ? LAYOUT_NHWC : type.rank == 1 ? LAYOUT_NC : LAYOUT_PLAIN;
  return type.rank == 4 ? LAYOUT_YXIO : type.rank == 2 ? LAYOUT_IO : LAYOUT_PLAIN;
}

static Placed by_shape(Type type) {
  return (Placed){shape_layout(type), type, false};
}

/* The weight or bias of a layer whose outputs are the weights of a convolution, or such an output that is kept. */
static bool generates(const Parameter *p) {
  bool rows = p->type.rank == 1 || p->type.rank == 2;
  return rows && p->generates.rank == 4 && p->type.dims[0] == type_elements(p->generates, 1);
}

Layout parameter_layout(const Parameter *parameter) {
  if (!generates(parameter)) return shape_layout(parameter->type);
  return parameter->type.rank == 2 ? LAYOUT_I_YXIO : LAYOUT_YXIO;
}

static bool clash(const Layouts *l, ValueId value, const char *what) {
  const GraphNode *node = graph_node(l->graph, value);
  return err_set(l->err, "step %s: no layout for %s of %s: %s", l->graph->name, op_table[node->op].text,
                 node->operand_count ? type_text(graph_type(l->graph, node->operands[0])).text : "nothing", what);
}

static bool same_placed(const Placed *a, const Placed *b) {
  if (a->any || b->any) return true;
  bool ordered = a->layout == LAYOUT_YXIO || a->layout == LAYOUT_I_YXIO;
  return a->layout == b->layout && (!ordered || type_equal(a->order, b->order));
}

static const Placed *operand(const Layouts *l, ValueId value, int32_t i) {
  return &l->placed[graph_node(l->graph, value)->operands[i]];
}

/* Operands of equal types, element by element: all in one order, which the result has too. */
static bool elementwise(const Layouts *l, ValueId value) {
  const GraphNode *node = graph_node(l->graph, value);
  Type type = graph_type(l->graph, node->operands[0]);
  const Placed *first = operand(l, value, 0);
  for (int32_t i = 1; i < node->operand_count; i++) {
    if (!type_equal(graph_type(l->graph, node->operands[i]), type)) continue;
    if (!same_placed(first, operand(l, value, i))) return clash(l, value, "its operands lie in different orders");
    if (first->any) first = operand(l, value, i);
  }
  if (type_equal(node->type, type)) l->placed[value] = *first;
  return true;
}

/* A vector that a layer reads, or that has one entry a channel: nothing permutes it. */
static bool is_plain(const Placed *placed) {
  return placed->any || placed->layout != LAYOUT_YXIO;
}

static bool linear(const Layouts *l, ValueId value) {
  const GraphNode *node = graph_node(l->graph, value);
  const Placed *w = operand(l, value, 1), rows = {LAYOUT_YXIO, w->order, false}, plain = {LAYOUT_PLAIN, {0}, false};
  bool ordered = w->layout == LAYOUT_I_YXIO;
  if (node->op == OP_LINEAR) {
    if (!is_plain(operand(l, value, 0))) return clash(l, value, "its input has the order of a convolution's weights");
    if (node->type.batched) return !ordered || clash(l, value, "weights are generated one at a time, without B");
    if (!same_placed(operand(l, value, 2), ordered ? &rows : &plain)) return clash(l, value, "its bias has another order");
    if (ordered) l->placed[value] = rows;
    return true;
  }
  if (node->op == OP_LINEAR_GRAD_INPUT) {
    if (node->type.batched) return !ordered || clash(l, value, "weights are generated one at a time, without B");
    return same_placed(operand(l, value, 0), ordered ? &rows : &plain) || clash(l, value, "the gradient has another order");
  }
  const Placed *dy = operand(l, value, 0);
  if (!is_plain(w)) return clash(l, value, "its input has the order of a convolution's weights");
  if (!dy->any && dy->layout == LAYOUT_YXIO) l->placed[value] = (Placed){LAYOUT_I_YXIO, dy->order, false};
  return true;
}

/* One row or column: a matrix whose elements lie as a vector's do. */
static bool is_line(Type type) {
  return type.rank < 2 || (type.rank == 2 && (type.dims[0] == 1 || type.dims[1] == 1));
}

/* A reshape moves nothing. */
static bool reshape(const Layouts *l, ValueId value) {
  const GraphNode *node = graph_node(l->graph, value);
  const Placed *x = operand(l, value, 0);
  Type from = graph_type(l->graph, node->operands[0]), to = node->type;
  if (x->any) {
    l->placed[value].any = true;
  } else if (type_equal(from, to)) {
    l->placed[value] = *x;
  } else if (x->layout == LAYOUT_YXIO && to.rank == 1) {
    l->placed[value] = (Placed){LAYOUT_YXIO, x->order, false};
  } else if (type_elements(from, 1) == 1) {
    return true;
  } else if (x->layout == LAYOUT_YXIO && to.rank == 4) {
    return type_equal(x->order, to) || clash(l, value, "the elements lie in the order of other weights");
  } else if (to.rank == 4) {
    return clash(l, value, "the elements do not lie in the order of a convolution's weights");
  } else if (!is_line(from) || !is_line(to) || x->layout == LAYOUT_YXIO || x->layout == LAYOUT_I_YXIO) {
    return clash(l, value, "a reshape moves no elements, and this one would");
  }
  return true;
}

static Placed by_parameter(const Parameter *p) {
  return (Placed){parameter_layout(p), generates(p) ? p->generates : p->type, false};
}

static void leaf(const Layouts *l, ValueId value) {
  const GraphNode *node = graph_node(l->graph, value);
  l->placed[value].any = node->op == OP_CONST;
  if (node->op == OP_PARAM) l->placed[value] = by_parameter(&l->graph->module->parameters.data[node->attributes->index]);
}

/* A parameter's next value lies as the parameter does. */
static bool updates_fit(const Layouts *l) {
  for (size_t i = 0; i < l->graph->updates.count; i++) {
    Update update = l->graph->updates.data[i];
    const Parameter *p = &l->graph->module->parameters.data[update.parameter];
    Placed own = by_parameter(p);
    if (!same_placed(&own, &l->placed[update.value]))
      return err_set(l->err, "step %s: no layout for the update of @%s: the value lies in another order", l->graph->name,
                     p->name);
  }
  return true;
}

static bool place(const Layouts *l, ValueId value) {
  const GraphNode *node = graph_node(l->graph, value);
  l->placed[value] = by_shape(node->type);
  switch (node->op) {
  case OP_GRADIENT: l->placed[value] = *operand(l, value, 1); return true;
  case OP_LINEAR:
  case OP_LINEAR_GRAD_INPUT:
  case OP_LINEAR_GRAD_WEIGHT: return linear(l, value);
  case OP_RESHAPE: return reshape(l, value);
  case OP_BN_MOMENTS:
  case OP_BN_GRAD_SUMS: l->placed[value].layout = LAYOUT_PLAIN; return true;
  case OP_DOT: return elementwise(l, value);
  default: break;
  }
  if (op_table[node->op].class == CLASS_LEAF) leaf(l, value);
  if (op_table[node->op].class == CLASS_MAP && node->op != OP_GLOBAL_AVG_POOL_GRAD) return elementwise(l, value);
  return true;
}

/* Each value's, or null and `err`; the caller's to free(). */
static Placed *work_out(const Graph *graph, Err *err) {
  Layouts l = {graph, memory_alloc((graph->nodes.count + 1) * sizeof(Placed)), err};
  bool fit = true;
  for (size_t v = 0; v < graph->nodes.count && fit; v++) fit = place(&l, (ValueId)v);
  if (fit && updates_fit(&l)) return l.placed;
  free(l.placed);
  return NULL;
}

bool graph_set_layouts(Graph *graph, Err *err) {
  Placed *placed = work_out(graph, err);
  for (size_t v = 0; placed && v < graph->nodes.count; v++) graph->nodes.data[v].type.layout = (uint8_t)placed[v].layout;
  free(placed);
  return placed != NULL;
}

bool graph_has_layouts(const Graph *graph) {
  for (size_t v = 0; v < graph->nodes.count; v++)
    if (graph->nodes.data[v].type.layout != LAYOUT_PLAIN) return true;
  return false;
}

bool layouts_ok(const Graph *graph, Err *err) {
  if (!graph_has_layouts(graph)) return true;
  Placed *placed = work_out(graph, err);
  bool ok = placed != NULL;
  for (size_t v = 0; v < graph->nodes.count && ok; v++) {
    const GraphNode *node = &graph->nodes.data[v];
    const char *want = layout_text(ok ? placed[v].layout : LAYOUT_PLAIN);
    if (node->type.layout != placed[v].layout)
      ok = err_set(err, "step %s, value %zu (%s): its layout is %s, not that of %s", graph->name, v, op_table[node->op].text,
                   want ? want : "none", type_text(node->type).text);
  }
  free(placed);
  return ok;
}
