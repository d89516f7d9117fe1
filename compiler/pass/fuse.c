/* Which values are kept in memory, and which groups of values one kernel makes. Walks the graph from its end, so that a value's
 * users are decided before it is.
 *
 * ReLU, bn_apply, scale and relu_grad cost less to compute again than to store and read, so they are never kept where all of
 * their users can compute them; other elementwise values only where one user wants them. A convolution can apply a bn_apply
 * and a ReLU to the tensor that it reads, and read it shifted; it needs what is under them in memory. Needs: a simplified
 * graph, with its sums in chains. */
#include "compiler/pass/fuse_private.h"
#include "compiler/pass/pass.h"

#include <string.h>

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
  bool scaled;      /* a ConvBlock's gradient, which takes the factor of a scale as its own */
} Uses;

/* Moments, sums, a factor a channel: an expression over an image reads them from memory, row by row. */
static bool is_row_operand(const Graph *graph, ValueId user, ValueId v) {
  return graph_type(graph, graph_node(graph, user)->operands[0]).batched && !graph_type(graph, v).batched &&
         graph_type(graph, v).rank > 0;
}

static void note_use(const Fuser *f, ValueId user, int32_t operand, Uses *use) {
  const Graph *graph = f->graph;
  const GraphNode *node = graph_node(graph, user);
  bool input = (node->op == OP_CONV && operand == 0) || (node->op == OP_CONV_GRAD_WEIGHT && operand == 1) ||
               (node->op == OP_SHIFT && !f->out->kept[user]);
  int32_t group = f->out->group[user];
  const FuseGroup *gradient = group >= 0 && f->out->groups.data[group].block.dz != NO_VALUE ? &f->out->groups.data[group] : NULL;
  ValueId v = node->operands[operand];
  use->count++;
  if (input) {
    use->convolution = true;
  } else if (gradient && v == gradient->block.x) {
    use->convolution = true; /* seen through the prologue */
  } else if (gradient && v == gradient->block.dy && gradient->block.factor != NO_VALUE) {
    use->scaled = true;
  } else if (!gradient && !is_row_operand(graph, user, v) && (is_elementwise(graph, user) || is_reduce(graph, user))) {
    use->elementwise = true;
  } else {
    use->memory = true;
  }
}

static bool can_skip(const Fuser *f, ValueId v, const Uses *use) {
  const Graph *graph = f->graph;
  const GraphNode *node = graph_node(graph, v);
  if (use->memory || use->count == 0) return false;
  if (use->convolution && !fuse_wants(f->options, FUSE_PROLOGUE)) return false;
  if (use->elementwise && !fuse_wants(f->options, FUSE_MAP)) return false;
  if (use->scaled) return node->op == OP_SCALE && !use->convolution;
  if (node->op == OP_SHIFT) return use->convolution && !use->elementwise;
  if (!is_elementwise(graph, v)) return false;
  if (use->convolution) return node->op == OP_RELU || node->op == OP_BN_APPLY;
  return is_cheap(node->op) || use->count == 1;
}

/* Inside a group a value is in memory only where something else reads it. */
static bool group_keeps(const Fuser *f, ValueId v) {
  int32_t count, group = f->out->group[v];
  const ValueId *uses = fuse_uses(f, v, &count);
  const BlockValues *block = &f->out->groups.data[group].block;
  for (int32_t i = 0; i < count; i++)
    if (uses[i] == NO_VALUE || f->out->group[uses[i]] != group) return v != block->d;
  return false;
}

/* A convolution that reads `v` through its prologue, or a gradient that scales it, needs this in memory. */
static ValueId under_prologue(const Graph *graph, ValueId v) {
  const GraphNode *node = graph_node(graph, v);
  if (node->op == OP_RELU && graph_node(graph, node->operands[0])->op == OP_BN_APPLY) node = graph_node(graph, node->operands[0]);
  return node->operands[0];
}

/* Keeps the largest operand of an expression that has become too wide. */
static void limit_leaves(const Graph *graph, bool *kept, const int32_t *group) {
  int32_t *leaves = memory_alloc(graph->nodes.count * sizeof *leaves);
  for (size_t v = 0; v < graph->nodes.count; v++) {
    const GraphNode *node = &graph->nodes.data[v];
    leaves[v] = 1;
    if (group[v] >= 0 || (!is_elementwise(graph, (ValueId)v) && !is_reduce(graph, (ValueId)v))) continue;
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

static void find_kept(Fuser *f) {
  const Graph *graph = f->graph;
  size_t count = graph->nodes.count;
  Uses *uses = memory_alloc(count * sizeof *uses + 1);
  for (size_t i = 0; i < graph->results.count; i++) uses[graph->results.data[i].value].memory = true;
  for (size_t i = 0; i < graph->updates.count; i++) uses[graph->updates.data[i].value].memory = true;
  for (size_t v = count; v-- > 0;) {
    const GraphNode *node = &graph->nodes.data[v];
    bool *kept = f->out->kept;
    kept[v] = f->out->group[v] >= 0 ? group_keeps(f, (ValueId)v) : !can_skip(f, (ValueId)v, &uses[v]);
    bool through = f->out->group[v] < 0 && !kept[v] && (uses[v].convolution || uses[v].scaled) && node->op != OP_SHIFT;
    if (through) uses[under_prologue(graph, (ValueId)v)].memory = true;
    for (int32_t i = 0; i < node->operand_count; i++) {
      bool again = false;
      for (int32_t j = 0; j < i; j++) again |= node->operands[j] == node->operands[i];
      if (!again || op_table[node->op].class != CLASS_MAP) note_use(f, (ValueId)v, i, &uses[node->operands[i]]);
    }
  }
  free(uses);
}

/* Lists each value's users: how many there are, then who. */
static void find_uses(Fuser *f) {
  const Graph *graph = f->graph;
  size_t count = graph->nodes.count, total = 0;
  f->use_count = ARENA_ARRAY(f->arena, int32_t, count + 1);
  f->first_use = ARENA_ARRAY(f->arena, int32_t, count + 1);
  int32_t *room = memory_alloc(count * sizeof *room + 1);
  for (size_t v = 0; v < count; v++)
    for (int32_t i = 0; i < graph->nodes.data[v].operand_count; i++) f->use_count[graph->nodes.data[v].operands[i]]++;
  for (size_t i = 0; i < graph->results.count; i++) f->use_count[graph->results.data[i].value]++;
  for (size_t i = 0; i < graph->updates.count; i++) f->use_count[graph->updates.data[i].value]++;
  for (size_t v = 0; v < count; v++) {
    room[v] = f->first_use[v] = (int32_t)total;
    total += (size_t)f->use_count[v];
  }
  f->uses = ARENA_ARRAY(f->arena, ValueId, total + 1);
  for (size_t v = 0; v < count; v++)
    for (int32_t i = 0; i < graph->nodes.data[v].operand_count; i++)
      f->uses[room[graph->nodes.data[v].operands[i]]++] = (ValueId)v;
  for (size_t i = 0; i < graph->results.count; i++) f->uses[room[graph->results.data[i].value]++] = NO_VALUE;
  for (size_t i = 0; i < graph->updates.count; i++) f->uses[room[graph->updates.data[i].value]++] = NO_VALUE;
  free(room);
}

Fusion *fuse_graph(const Graph *graph, const FuseOptions *options, Arena *arena) {
  size_t count = graph->nodes.count;
  Fuser f = {.graph = graph, .options = options, .arena = arena, .out = ARENA_NEW(arena, Fusion)};
  f.out->options = *options;
  f.out->kept = ARENA_ARRAY(arena, bool, count + 1);
  f.out->group = ARENA_ARRAY(arena, int32_t, count + 1);
  for (size_t v = 0; v < count; v++) f.out->group[v] = -1;
  find_uses(&f);
  fuse_find_groups(&f);
  fuse_order(&f);
  find_kept(&f);
  limit_leaves(graph, f.out->kept, f.out->group);
  return f.out;
}

void fuse_mark(Graph *graph, const Fusion *fusion) {
  graph->groups.count = graph->computed.count = 0;
  for (size_t i = 0; i < fusion->groups.count; i++) {
    const FuseGroup *group = &fusion->groups.data[i];
    ValueId *values = ARENA_ARRAY(graph->arena, ValueId, group->count + 1);
    memcpy(values, group->values, (size_t)group->count * sizeof *values);
    if (group->count) vector_push(&graph->groups, ((GraphGroup){fuse_name(group->pattern), values, group->count}));
  }
  for (size_t v = 0; v < graph->nodes.count; v++) {
    bool leaf = op_table[graph->nodes.data[v].op].class == CLASS_LEAF;
    if (!leaf && !fusion->kept[v]) vector_push(&graph->computed, (ValueId)v);
  }
}

Graph *pass_fuse(const Graph *graph) {
  Graph *marked = graph_copy(graph, NULL, NULL);
  Fusion *fusion = fuse_graph(marked, &(FuseOptions){0}, graph->module->arena);
  fuse_mark(marked, fusion);
  fusion_free(fusion);
  return marked;
}

void fusion_free(Fusion *fusion) {
  vector_free(&fusion->groups);
}
