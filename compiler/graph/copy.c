/* Copying a graph: what most passes are. Walks the old graph upward and lets a rewrite emit each value anew, so that folding and
 * sharing clean up behind it; what no result and no update needs is left out. */
#include "compiler/graph/graph_private.h"

#include <stdlib.h>

/* Which values some result or update needs; the caller's to free(). */
static bool *live_values(const Graph *graph) {
  bool *live = memory_alloc(graph->nodes.count * sizeof *live + 1);
  for (size_t i = 0; i < graph->results.count; i++) live[graph->results.data[i].value] = true;
  for (size_t i = 0; i < graph->updates.count; i++) live[graph->updates.data[i].value] = true;
  for (size_t v = 0; v < graph->nodes.count; v++) /* what a step is given belongs to its signature, read or not */
    if (graph->nodes.data[v].op == OP_INPUT) live[v] = true;
  for (size_t v = graph->nodes.count; v-- > 0;) {
    const GraphNode *node = graph_node(graph, (ValueId)v);
    for (int32_t i = 0; live[v] && i < node->operand_count; i++) live[node->operands[i]] = true;
  }
  return live;
}

static ValueId emit_again(void *context, Graph *out, const Graph *in, ValueId value, const ValueId *operands) {
  (void)context;
  const GraphNode *node = graph_node(in, value);
  return graph_emit(out, node->op, operands, node->operand_count, node->attributes);
}

Graph *graph_copy(const Graph *in, GraphRewrite *rewrite, void *context) {
  Graph *out = graph_new(in->module, in->name);
  bool *live = live_values(in);
  ValueId *map = memory_alloc(in->nodes.count * sizeof *map + 1);
  VECTOR(ValueId) operands = {0};
  if (!rewrite) rewrite = emit_again;
  for (size_t v = 0; v < in->nodes.count; v++) {
    const GraphNode *node = graph_node(in, (ValueId)v);
    if (!live[v]) continue;
    operands.count = 0;
    for (int32_t i = 0; i < node->operand_count; i++) vector_push(&operands, map[node->operands[i]]);
    map[v] = rewrite(context, out, in, (ValueId)v, operands.data);
  }
  /* The old graph was verified, so no name and no parameter stands twice. */
  for (size_t i = 0; i < in->results.count; i++)
    vector_push(&out->results, ((Result){in->results.data[i].name, map[in->results.data[i].value]}));
  for (size_t i = 0; i < in->updates.count; i++)
    vector_push(&out->updates, ((Update){in->updates.data[i].parameter, map[in->updates.data[i].value]}));
  vector_free(&operands);
  free(map);
  free(live);
  return out;
}
