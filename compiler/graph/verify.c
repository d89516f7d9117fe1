/* The independent check of a graph: what builder and parser promise, asked of every node again. Passes are tested by running it
 * on what they return. */
#include "compiler/graph/graph_private.h"

#include <stdlib.h>
#include <string.h>

static bool wrong(const Graph *graph, size_t value, Err *err, const char *what) {
  return err_set(err, "step %s, value %zu (%s): %s", graph->name, value,
                 graph->nodes.data[value].op < OP_COUNT ? op_table[graph->nodes.data[value].op].text : "?", what);
}

static bool leaf_ok(const Graph *graph, size_t value, Err *err) {
  const GraphNode *node = &graph->nodes.data[value];
  const Module *module = graph->module;
  if (!type_valid(node->type)) return wrong(graph, value, err, "the type is not valid");
  if (node->op == OP_CONST) return true;
  if (!node->attributes->name || !graph_name_ok(node->attributes->name)) return wrong(graph, value, err, "it has no name");
  if (node->op == OP_INPUT) return true;
  int32_t index = node->attributes->index;
  if (index < 0 || (size_t)index >= module->parameters.count || module->parameters.data[index].name != node->attributes->name)
    return wrong(graph, value, err, "the module has no such parameter");
  return type_equal(node->type, module->parameters.data[index].type) ||
         wrong(graph, value, err, "the type is not the parameter's");
}

static bool node_ok(const Graph *graph, size_t value, Err *err) {
  const GraphNode *node = &graph->nodes.data[value];
  if (node->op >= OP_COUNT) return wrong(graph, value, err, "no such operation");
  if (!node->attributes) return wrong(graph, value, err, "attributes are null");
  for (int32_t i = 0; i < node->operand_count; i++)
    if (node->operands[i] < 0 || (size_t)node->operands[i] >= value)
      return wrong(graph, value, err, "an operand does not stand before it");
  Type result = {0}, *types = memory_alloc((size_t)node->operand_count * sizeof *types);
  for (int32_t i = 0; i < node->operand_count; i++) types[i] = graph_type(graph, node->operands[i]);
  Err rule = {{0}};
  bool ok = op_result_type(node->op, types, node->operand_count, node->attributes, &result, &rule);
  free(types);
  if (!ok) return wrong(graph, value, err, rule.text);
  if (!type_equal(result, node->type)) return wrong(graph, value, err, "the type is not the rule's");
  if (node->op == OP_GRADIENT) {
    OpCode by = graph_node(graph, node->operands[1])->op;
    if (by != OP_INPUT && by != OP_PARAM) return wrong(graph, value, err, "a gradient is by an input or a parameter");
  }
  return op_table[node->op].class != CLASS_LEAF || leaf_ok(graph, value, err);
}

static int compare_names(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The name that stands twice, or null; sorts the names. */
static const char *find_twice(const char **names, size_t count) {
  const char *twice = NULL;
  qsort(names, count, sizeof *names, compare_names);
  for (size_t i = 1; i < count; i++)
    if (strcmp(names[i - 1], names[i]) == 0) twice = names[i];
  return twice;
}

/* An input stands once: its name is its place in the step's head. */
static bool inputs_ok(const Graph *graph, Err *err) {
  size_t count = 0;
  const char **names = memory_alloc(graph->nodes.count * sizeof *names);
  for (size_t i = 0; i < graph->nodes.count; i++)
    if (graph->nodes.data[i].op == OP_INPUT) names[count++] = graph->nodes.data[i].attributes->name;
  const char *twice = find_twice(names, count);
  free(names);
  return !twice || err_set(err, "step %s: two inputs %s", graph->name, twice);
}

static bool results_ok(const Graph *graph, Err *err) {
  size_t count = graph->results.count;
  const char **names = memory_alloc(count * sizeof *names);
  for (size_t i = 0; i < count; i++) names[i] = graph->results.data[i].name;
  const char *twice = find_twice(names, count);
  free(names);
  if (twice) return err_set(err, "step %s: two results %s", graph->name, twice);
  for (size_t i = 0; i < count; i++) {
    Result result = graph->results.data[i];
    if (result.value < 0 || (size_t)result.value >= graph->nodes.count)
      return err_set(err, "step %s: the result %s is no value", graph->name, result.name);
  }
  return true;
}

static bool update_ok(const Graph *graph, Update update, bool *seen, Err *err) {
  const Module *module = graph->module;
  if (update.parameter < 0 || (size_t)update.parameter >= module->parameters.count || update.value < 0 ||
      (size_t)update.value >= graph->nodes.count)
    return err_set(err, "step %s: an update has no parameter or no value", graph->name);
  const Parameter *p = &module->parameters.data[update.parameter];
  if (!type_equal(graph_type(graph, update.value), p->type))
    return err_set(err, "step %s: the update of @%s does not have its type", graph->name, p->name);
  if (seen[update.parameter]) return err_set(err, "step %s: @%s is updated twice", graph->name, p->name);
  seen[update.parameter] = true;
  return true;
}

static bool updates_ok(const Graph *graph, Err *err) {
  bool ok = true, *seen = memory_alloc(graph->module->parameters.count * sizeof *seen);
  for (size_t i = 0; i < graph->updates.count && ok; i++) ok = update_ok(graph, graph->updates.data[i], seen, err);
  free(seen);
  return ok;
}

/* Each value is in one group at most, and is marked as computed once. */
static bool marks_ok(const Graph *graph, Err *err) {
  size_t count = graph->nodes.count;
  bool ok = true, *grouped = memory_alloc(count * sizeof *grouped + 1);
  for (size_t i = 0; i < graph->groups.count && ok; i++)
    for (int32_t j = 0; j < graph->groups.data[i].count && ok; j++) {
      ValueId v = graph->groups.data[i].values[j];
      ok = v >= 0 && (size_t)v < count && !grouped[v];
      if (ok) grouped[v] = true;
    }
  if (!ok) err_set(err, "step %s: a value is in two groups", graph->name);
  for (size_t i = 0; i < graph->computed.count && ok; i++) {
    ValueId v = graph->computed.data[i];
    bool next = i == 0 || graph->computed.data[i - 1] < v;
    ok = (next && v >= 0 && (size_t)v < count) || err_set(err, "step %s: computed values do not ascend", graph->name);
  }
  free(grouped);
  return ok;
}

bool graph_verify(const Graph *graph, Err *err) {
  for (size_t i = 0; i < graph->nodes.count; i++)
    if (!node_ok(graph, i, err)) return false;
  return inputs_ok(graph, err) && results_ok(graph, err) && updates_ok(graph, err) && layouts_ok(graph, err) &&
         marks_ok(graph, err);
}
