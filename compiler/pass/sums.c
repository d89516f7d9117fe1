/* Sums of activations, term by term. A gradient is the sum of what each user of a value sends back; autodiff adds them in
 * whatever tree the users make, and takes a ReLU's gradient of a whole part of the tree. Here each tree of additions becomes one
 * chain in which every term is added as soon as it is there, and a ReLU's gradient is taken of each term by itself (it is linear,
 * and exactly so in floating point). A kernel that makes a term can then mask it and add it to what is there. Needs a simplified
 * graph: an addition that nobody reads would be taken for the root of a tree. Only the order of additions changes. */
#include "compiler/pass/pass.h"

#include <stdlib.h>

/* `value` is a term of the tree with root `root`, with the gradient of a ReLU of `mask` taken of it. */
typedef struct Term {
  ValueId value, root, mask; /* mask NO_VALUE: none */
  int32_t next;              /* of those that are there with the same value; -1: none */
} Term;

typedef struct Sums {
  const Graph *in;
  Graph *out;
  int32_t *uses;
  ValueId *user;        /* of a value with one use */
  ValueId *root, *mask; /* of an addition, or the ReLU's gradient of one, in a tree; root NO_VALUE: in none */
  int32_t *terms;       /* of each value the first of the Terms that can be added once it is there; -1: none */
  VECTOR(Term) all;
  ValueId *sum; /* of each root, in `out`: of the terms so far */
  ValueId *map;
} Sums;

static bool is_addition(const Graph *graph, ValueId v) {
  const GraphNode *node = graph_node(graph, v);
  return node->op == OP_ADD && node->type.batched && node->type.rank == 3;
}

static void count_uses(Sums *s) {
  for (size_t v = 0; v < s->in->nodes.count; v++) {
    const GraphNode *node = graph_node(s->in, (ValueId)v);
    for (int32_t i = 0; i < node->operand_count; i++) {
      s->uses[node->operands[i]]++;
      s->user[node->operands[i]] = (ValueId)v;
    }
  }
  for (size_t i = 0; i < s->in->results.count; i++) s->uses[s->in->results.data[i].value] += 2;
  for (size_t i = 0; i < s->in->updates.count; i++) s->uses[s->in->updates.data[i].value] += 2;
}

/* Walks up from the end: a value's users are decided before it is. */
static void find_trees(Sums *s) {
  for (size_t i = s->in->nodes.count; i-- > 0;) {
    ValueId v = (ValueId)i;
    const GraphNode *node = graph_node(s->in, v);
    ValueId user = s->uses[v] == 1 ? s->user[v] : NO_VALUE;
    bool inside = user != NO_VALUE && s->root[user] != NO_VALUE;
    if (is_addition(s->in, v)) {
      s->root[v] = inside ? s->root[user] : v;
      s->mask[v] = inside ? s->mask[user] : NO_VALUE;
    } else if (node->op == OP_RELU_GRAD && s->uses[node->operands[0]] == 1 && is_addition(s->in, node->operands[0]) &&
               (!inside || s->mask[user] == NO_VALUE)) {
      s->root[v] = inside ? s->root[user] : v;
      s->mask[v] = node->operands[1];
    }
  }
}

static void note_terms(Sums *s) {
  for (size_t i = 0; i < s->in->nodes.count; i++) {
    const GraphNode *node = graph_node(s->in, (ValueId)i);
    if (s->root[i] == NO_VALUE) continue;
    for (int32_t o = 0; o < node->operand_count; o++) {
      ValueId term = node->operands[o];
      bool inner = s->root[term] == s->root[i] && s->uses[term] == 1;
      if (inner || (node->op == OP_RELU_GRAD)) continue; /* its one operand that counts is an addition of the tree */
      ValueId last = s->mask[i] > term ? s->mask[i] : term;
      vector_push(&s->all, ((Term){term, s->root[i], s->mask[i], s->terms[last]}));
      s->terms[last] = (int32_t)s->all.count - 1;
    }
  }
}

static void add_terms(Sums *s, ValueId v) {
  for (int32_t t = s->terms[v]; t >= 0; t = s->all.data[t].next) {
    const Term *term = &s->all.data[t];
    ValueId value = s->map[term->value], *sum = &s->sum[term->root];
    if (term->mask != NO_VALUE) value = graph_binary(s->out, OP_RELU_GRAD, value, s->map[term->mask]);
    *sum = *sum == NO_VALUE ? value : graph_binary(s->out, OP_ADD, *sum, value);
  }
}

static void rebuild(Sums *s) {
  VECTOR(ValueId) operands = {0};
  for (size_t i = 0; i < s->in->nodes.count; i++) {
    ValueId v = (ValueId)i;
    const GraphNode *node = graph_node(s->in, v);
    if (s->root[v] == v) {
      s->map[v] = s->sum[v];
    } else if (s->root[v] == NO_VALUE) {
      operands.count = 0;
      for (int32_t o = 0; o < node->operand_count; o++) vector_push(&operands, s->map[node->operands[o]]);
      s->map[v] = graph_emit(s->out, node->op, operands.data, node->operand_count, node->attributes);
    } else {
      continue;
    }
    add_terms(s, v);
  }
  vector_free(&operands);
}

static ValueId *no_values(size_t count) {
  ValueId *values = memory_alloc(count * sizeof *values + 1);
  for (size_t i = 0; i < count; i++) values[i] = NO_VALUE;
  return values;
}

Graph *pass_sums(const Graph *graph) {
  size_t count = graph->nodes.count;
  Sums s = {.in = graph, .out = graph_new(graph->module, graph->name)};
  s.uses = memory_alloc(count * sizeof *s.uses + 1);
  s.user = no_values(count), s.root = no_values(count), s.mask = no_values(count), s.sum = no_values(count),
  s.map = no_values(count);
  s.terms = no_values(count);
  count_uses(&s);
  find_trees(&s);
  note_terms(&s);
  rebuild(&s);
  for (size_t i = 0; i < graph->results.count; i++)
    graph_result(s.out, graph->results.data[i].name, s.map[graph->results.data[i].value]);
  for (size_t i = 0; i < graph->updates.count; i++)
    graph_update(s.out, graph->updates.data[i].parameter, s.map[graph->updates.data[i].value]);
  free(s.uses), free(s.user), free(s.root), free(s.mask), free(s.sum), free(s.map), free(s.terms);
  vector_free(&s.all);
  return s.out;
}
