/* Which values are kept in memory. Walks the graph from its end, so that a value's users are decided before it is.
 *
 * ReLU, bn_apply, scale and relu_grad cost less to compute again than to store and read, so they are never kept where all of
 * their users can compute them; other elementwise values only where one user wants them. A convolution can apply a bn_apply
 * and a ReLU to the tensor that it reads, and read it shifted; it needs what is under them in memory. Needs: a simplified
 * graph. */
#include "compiler/pass/schedule.h"

enum { MOST_LEAVES = 36 }; /* of one fused expression, below MAP_MAX_INPUTS with room for a sum's own operands */

/* A reduction over pixels, which computes what it reads; a dot product of vectors reads them from memory. */
static bool is_reduce(const Graph *graph, ValueId v) {
  const GraphNode *node = graph_node(graph, v);
  if (node->op == OP_DOT) return graph_type(graph, node->operands[0]).batched;
  return node->op == OP_BN_GRAD_SUMS || node->op == OP_CHANNEL_SUM || node->op == OP_CHANNEL_DOT;
}

static bool is_elementwise(const Graph *graph, ValueId v) {
  const GraphNode *node = graph_node(graph, v);
  return op_table[node->op].class == CLASS_MAP && node->op != OP_ADAM_STEP;
}

static bool is_cheap(OpCode op) {
  return op == OP_RELU || op == OP_BN_APPLY || op == OP_SCALE || op == OP_RELU_GRAD;
}

typedef struct Uses {
  int32_t count;    /* distinct users */
  bool memory;      /* a user that cannot compute it */
  bool convolution; /* a user that is a convolution reading it as its input */
  bool elementwise; /* a user that computes elementwise values under it */
} Uses;

static void note_use(const Graph *graph, const bool *kept, ValueId user, int32_t operand, Uses *use) {
  const GraphNode *node = graph_node(graph, user);
  bool input = (node->op == OP_CONV && operand == 0) || (node->op == OP_CONV_GRAD_WEIGHT && operand == 1) ||
               (node->op == OP_SHIFT && !kept[user]);
  use->count++;
  if (input)
    use->convolution = true;
  else if (is_elementwise(graph, user) || is_reduce(graph, user))
    use->elementwise = true;
  else
    use->memory = true;
}

static bool can_skip(const Graph *graph, ValueId v, const Uses *use) {
  const GraphNode *node = graph_node(graph, v);
  if (use->memory || use->count == 0) return false;
  if (node->op == OP_SHIFT) return use->convolution && !use->elementwise;
  if (!is_elementwise(graph, v)) return false;
  if (use->convolution) return node->op == OP_RELU || node->op == OP_BN_APPLY;
  return is_cheap(node->op) || use->count == 1;
}

/* A convolution that reads `v` through its prologue needs this in memory. */
static ValueId under_prologue(const Graph *graph, ValueId v) {
  const GraphNode *node = graph_node(graph, v);
  if (node->op == OP_RELU && graph_node(graph, node->operands[0])->op == OP_BN_APPLY) node = graph_node(graph, node->operands[0]);
  return node->operands[0];
}

/* Keeps the largest operand of an expression that has become too wide. */
static void limit_leaves(const Graph *graph, bool *kept) {
  int32_t *leaves = memory_alloc(graph->nodes.count * sizeof *leaves);
  for (size_t v = 0; v < graph->nodes.count; v++) {
    const GraphNode *node = &graph->nodes.data[v];
    leaves[v] = 1;
    if (!is_elementwise(graph, (ValueId)v) && !is_reduce(graph, (ValueId)v)) continue;
    for (;;) {
      int32_t total = 0, widest = -1;
      for (int32_t i = 0; i < node->operand_count; i++) {
        ValueId o = node->operands[i];
        int32_t own = kept[o] ? 2 : leaves[o];
        total += own;
        if (!kept[o] && (widest < 0 || own > leaves[widest])) widest = o;
      }
      leaves[v] = total;
      if (total <= MOST_LEAVES || widest < 0) break;
      kept[widest] = true;
    }
  }
  free(leaves);
}

bool *pass_fuse(const Graph *graph, Arena *arena) {
  size_t count = graph->nodes.count;
  bool *kept = ARENA_ARRAY(arena, bool, count);
  Uses *uses = memory_alloc(count * sizeof *uses);
  for (size_t i = 0; i < graph->results.count; i++) uses[graph->results.data[i].value].memory = true;
  for (size_t i = 0; i < graph->updates.count; i++) uses[graph->updates.data[i].value].memory = true;
  for (size_t v = count; v-- > 0;) {
    const GraphNode *node = &graph->nodes.data[v];
    kept[v] = !can_skip(graph, (ValueId)v, &uses[v]);
    if (!kept[v] && uses[v].convolution && node->op != OP_SHIFT) uses[under_prologue(graph, (ValueId)v)].memory = true;
    for (int32_t i = 0; i < node->operand_count; i++) {
      bool again = false;
      for (int32_t j = 0; j < i; j++) again |= node->operands[j] == node->operands[i];
      if (!again || op_table[node->op].class != CLASS_MAP) note_use(graph, kept, (ValueId)v, i, &uses[node->operands[i]]);
    }
  }
  free(uses);
  limit_leaves(graph, kept);
  return kept;
}
