/* The reference interpreter: runs a step, value by value, in double precision, or one operation alone. Slow and obvious: what
 * compiled code is compared with must be right by reading. The operations themselves are in interpret_*.c, a file a class. */
#include "compiler/graph/graph_private.h"

#include <stdlib.h>
#include <string.h>

struct Interpretation {
  const Graph *graph;
  int64_t batch;
  double **values; /* one a value of the graph; null: not made, or given back */
};

static void run_call(const Call *call) {
  switch (op_table[call->op].class) {
  case CLASS_SMALL: interpret_small(call); return;
  case CLASS_MAP: interpret_map(call); return;
  case CLASS_WINDOW: interpret_window(call); return;
  case CLASS_REDUCE: interpret_reduce(call); return;
  case CLASS_DATA: interpret_data(call); return;
  case CLASS_LEAF:
  case CLASS_MARK: break;
  }
  die("%s is not computed", op_table[call->op].text);
}

void op_interpret(OpCode op, const Attributes *attributes, const TensorValue *operands, int32_t count, int64_t batch,
                  TensorValue *result) {
  Type few[8], *types = count <= 8 ? few : memory_alloc((size_t)count * sizeof *types);
  Attributes clean = attributes_of(op, attributes);
  Err err = {{0}};
  for (int32_t i = 0; i < count; i++) types[i] = operands[i].type;
  if (!op_result_type(op, types, count, &clean, &result->type, &err)) die("%s", err.text);
  if (types != few) free(types);
  size_t elements = (size_t)type_elements(result->type, batch);
  if (result->data)
    memset(result->data, 0, elements * sizeof(double));
  else
    result->data = memory_alloc(elements * sizeof(double));
  run_call(&(Call){op, &clean, operands, count, batch, result->type, result->data});
}

/* ---- a step ---- */

typedef struct Run {
  Interpretation *out;
  const NamedTensor *inputs;
  size_t input_count;
  double *const *parameters;
  const ValueId *last_use; /* null: every value is kept */
  Err *err;
} Run;

static const double *find_input(const Run *run, const char *name) {
  for (size_t i = 0; i < run->input_count; i++)
    if (strcmp(run->inputs[i].name, name) == 0) return run->inputs[i].data;
  return NULL;
}

static bool fill_leaf(const Run *run, const GraphNode *node, double *data, int64_t elements) {
  const double *source = NULL;
  if (node->op == OP_INPUT) {
    source = find_input(run, node->attributes->name);
    if (!source)
      return err_set(run->err, "the step %s was not given its input %s", run->out->graph->name, node->attributes->name);
  } else if (node->op == OP_PARAM) {
    source = run->parameters[node->attributes->index];
  }
  for (int64_t i = 0; i < elements; i++) data[i] = source ? source[i] : node->attributes->value;
  return true;
}

/* Labels index logits, and they come from outside. */
static bool labels_ok(const Run *run, const GraphNode *node) {
  if (node->op != OP_CROSS_ENTROPY && node->op != OP_CROSS_ENTROPY_GRAD) return true;
  ValueId labels = node->operands[node->operand_count - 1], logits = node->operands[node->operand_count - 2];
  int32_t classes = graph_type(run->out->graph, logits).dims[0];
  for (int64_t i = 0; i < run->out->batch; i++) {
    double label = run->out->values[labels][i];
    if (!(label >= 0 && label < classes) || label != (double)(int32_t)label)
      return err_set(run->err, "label %lld of the step %s is %g where a whole number from 0 to %d is wanted", (long long)i,
                     run->out->graph->name, label, classes - 1);
  }
  return true;
}

static bool run_node(const Run *run, ValueId value) {
  const Interpretation *out = run->out;
  const GraphNode *node = graph_node(out->graph, value);
  int64_t elements = type_elements(node->type, out->batch);
  double *data = out->values[value] = memory_alloc((size_t)elements * sizeof(double));
  if (op_table[node->op].class == CLASS_LEAF) return fill_leaf(run, node, data, elements);
  if (op_table[node->op].class == CLASS_MARK)
    return err_set(run->err, "the step %s asks for a gradient that was not worked out yet; the pass autodiff does it",
                   out->graph->name);
  if (!labels_ok(run, node)) return false;
  TensorValue *operands = memory_alloc((size_t)node->operand_count * sizeof *operands);
  for (int32_t i = 0; i < node->operand_count; i++)
    operands[i] = (TensorValue){graph_type(out->graph, node->operands[i]), out->values[node->operands[i]]};
  run_call(&(Call){node->op, node->attributes, operands, node->operand_count, out->batch, node->type, data});
  free(operands);
  return true;
}

static void give_back(const Run *run, ValueId value, ValueId now) {
  if (run->last_use[value] != now) return;
  free(run->out->values[value]);
  run->out->values[value] = NULL;
}

static bool run_nodes(const Run *run) {
  const Graph *graph = run->out->graph;
  for (ValueId value = 0; (size_t)value < graph->nodes.count; value++) {
    if (!run_node(run, value)) return false;
    if (!run->last_use) continue;
    const GraphNode *node = graph_node(graph, value);
    for (int32_t i = 0; i < node->operand_count; i++) give_back(run, node->operands[i], value);
    give_back(run, value, value);
  }
  return true;
}

/* Of each value the last node that reads it: itself where none does, nodes.count where a result or an update does. */
static ValueId *last_uses(const Graph *graph) {
  ValueId *last = memory_alloc(graph->nodes.count * sizeof *last), end = (ValueId)graph->nodes.count;
  for (ValueId value = 0; value < end; value++) {
    last[value] = value;
    for (int32_t i = 0; i < graph_node(graph, value)->operand_count; i++) last[graph_node(graph, value)->operands[i]] = value;
  }
  for (size_t i = 0; i < graph->results.count; i++) last[graph->results.data[i].value] = end;
  for (size_t i = 0; i < graph->updates.count; i++) last[graph->updates.data[i].value] = end;
  return last;
}

static void update_parameters(const Run *run) {
  const Graph *graph = run->out->graph;
  for (size_t i = 0; i < graph->updates.count; i++) {
    Update update = graph->updates.data[i];
    size_t elements = (size_t)type_elements(graph_type(graph, update.value), 1);
    memcpy(run->parameters[update.parameter], run->out->values[update.value], elements * sizeof(double));
  }
}

static Interpretation *interpret(const Graph *graph, Run *run, int64_t batch, bool keep) {
  if (batch < 1 || batch > graph->module->batch) {
    err_set(run->err, "the step %s takes batches of 1 to %d images, not %lld", graph->name, graph->module->batch,
            (long long)batch);
    return NULL;
  }
  run->out = memory_alloc(sizeof *run->out);
  *run->out = (Interpretation){graph, batch, memory_alloc(graph->nodes.count * sizeof(double *))};
  ValueId *last = keep ? NULL : last_uses(graph);
  run->last_use = last;
  bool ok = run_nodes(run);
  free(last);
  if (ok) {
    update_parameters(run);
    return run->out;
  }
  interpretation_free(run->out);
  return NULL;
}

Interpretation *graph_interpret(const Graph *graph, int64_t batch, const NamedTensor *inputs, size_t input_count,
                                double *const *parameters, Err *err) {
  Run run = {.inputs = inputs, .input_count = input_count, .parameters = parameters, .err = err};
  return interpret(graph, &run, batch, true);
}

Interpretation *graph_interpret_results(const Graph *graph, int64_t batch, const NamedTensor *inputs, size_t input_count,
                                        double *const *parameters, Err *err) {
  Run run = {.inputs = inputs, .input_count = input_count, .parameters = parameters, .err = err};
  return interpret(graph, &run, batch, false);
}

const double *interpretation_value(const Interpretation *run, ValueId value) {
  return run->values[value];
}

const double *interpretation_result(const Interpretation *run, const char *name, int64_t *elements) {
  for (size_t i = 0; i < run->graph->results.count; i++) {
    Result result = run->graph->results.data[i];
    if (strcmp(result.name, name) != 0) continue;
    if (elements) *elements = type_elements(graph_type(run->graph, result.value), run->batch);
    return run->values[result.value];
  }
  return NULL;
}

void interpretation_free(Interpretation *run) {
  if (!run) return;
  for (size_t i = 0; i < run->graph->nodes.count; i++) free(run->values[i]);
  free(run->values);
  free(run);
}
