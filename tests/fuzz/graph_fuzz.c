/* Fuzzes the Graph IR: any text is refused with a message or becomes a module whose steps verify, whose print reads back to the
 * same print, and which, where it is small, runs; built again with folding and sharing it computes the same. Every pass takes it
 * or refuses it with a message, and leaves what verifies and reads back.
 *
 *   clang-19 -std=c11 -D_GNU_SOURCE -I. -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz/graph_fuzz.c
 * compiler/graph/[a-z]*.c compiler/pass/{autodiff,simplify,hoist,sums,layout,manager}.c dsl/shapes.c runtime/base/[a-z]*.c
 * -lxxhash -lm -o graph_fuzz && ./graph_fuzz -max_total_time=60 CORPUS */
#include "compiler/graph/graph.h"
#include "compiler/pass/pass.h"

#include <math.h>
#include <string.h>

enum { MOST_ELEMENTS = 1 << 14, MOST_WORK = 1 << 20, MOST_INPUTS = 256 };

static void check_text(const Module *module) {
  Arena *arena = arena_new();
  Text first = {0}, second = {0};
  Err err;
  module_print(module, &first);
  Module *again = module_parse(first.data, first.length, arena, &err);
  if (!again) die("the print does not parse: %s\n%s", err.text, first.data);
  module_print(again, &second);
  if (strcmp(first.data, second.data) != 0) die("two prints differ:\n%s\n%s", first.data, second.data);
  text_free(&first);
  text_free(&second);
  module_free_tables(again);
  arena_free(arena);
}

/* An upper bound of the products of a window. */
static double work_of(const Graph *graph, const GraphNode *node, int64_t batch) {
  const Window *w = &node->attributes->window;
  double most = (double)type_elements(node->type, batch);
  for (int32_t i = 0; i < node->operand_count; i++) {
    Type type = graph_type(graph, node->operands[i]);
    most = fmax(most, (double)type_elements(type, batch) * (type.rank ? type.dims[0] : 1));
  }
  return most * w->kernel_y * w->kernel_x;
}

static bool is_small(const Graph *graph, int64_t batch) {
  double elements = 0, work = 0;
  for (size_t i = 0; i < graph->nodes.count; i++) {
    const GraphNode *node = &graph->nodes.data[i];
    elements += (double)type_elements(node->type, batch);
    work += op_table[node->op].class == CLASS_WINDOW ? work_of(graph, node, batch) : 0;
    for (int32_t j = 0; j < node->operand_count; j++) work += (double)type_elements(graph_type(graph, node->operands[j]), batch);
  }
  return elements <= (double)MOST_ELEMENTS && work <= (double)MOST_WORK;
}

/* Inputs are numbers of both signs; labels are 0 and 1. */
static Interpretation *run(const Graph *graph, Arena *arena, int64_t batch) {
  const Module *module = graph->module;
  NamedTensor inputs[MOST_INPUTS];
  size_t count = 0;
  double **parameters = ARENA_ARRAY(arena, double *, module->parameters.count + 1);
  for (size_t i = 0; i < module->parameters.count; i++) {
    int64_t elements = type_elements(module->parameters.data[i].type, 1);
    if (elements > MOST_ELEMENTS) return NULL;
    parameters[i] = ARENA_ARRAY(arena, double, elements);
    for (int64_t e = 0; e < elements; e++) parameters[i][e] = (double)((e * 7 + 3) % 11 - 5) / 4;
  }
  for (size_t i = 0; i < graph->nodes.count && count < MOST_INPUTS; i++) {
    const GraphNode *node = &graph->nodes.data[i];
    if (node->op != OP_INPUT) continue;
    double *data = ARENA_ARRAY(arena, double, type_elements(node->type, batch));
    for (int64_t e = 0; e < type_elements(node->type, batch); e++)
      data[e] = node->type.element == ELEMENT_I32 ? (double)(e % 2) : (double)((e * 5 + (int64_t)i) % 13 - 6) / 4;
    inputs[count++] = (NamedTensor){node->attributes->name, data};
  }
  Err err = {{0}};
  Interpretation *out = graph_interpret(graph, batch, inputs, count, parameters, &err);
  if (!out && !err.text[0]) die("did not run, without a message");
  return out;
}

static bool all_finite(const Graph *graph, const Interpretation *out, int64_t batch) {
  for (size_t i = 0; i < graph->nodes.count; i++)
    for (int64_t e = 0; e < type_elements(graph->nodes.data[i].type, batch); e++)
      if (!isfinite(interpretation_value(out, (ValueId)i)[e])) return false;
  return true;
}

/* Emits every node again, so that it folds; writes where each value went. */
static Graph *emit_again(const Graph *graph, ValueId *map, Arena *arena) {
  Graph *to = graph_new(graph->module, "again");
  for (size_t i = 0; i < graph->nodes.count; i++) {
    const GraphNode *node = &graph->nodes.data[i];
    ValueId *operands = ARENA_ARRAY(arena, ValueId, node->operand_count + 1);
    for (int32_t j = 0; j < node->operand_count; j++) operands[j] = map[node->operands[j]];
    map[i] = graph_emit(to, node->op, operands, node->operand_count, node->attributes);
    if (!type_equal(graph_type(to, map[i]), node->type)) die("value %zu has another type when it is emitted again", i);
  }
  Err err;
  if (graph_has_layouts(graph) && !graph_set_layouts(to, &err)) die("emitted again it has no layouts: %s", err.text);
  if (!graph_verify(to, &err)) die("emitted again it does not verify: %s", err.text);
  return to;
}

static void check_step(Graph *graph, Arena *arena) {
  Err err;
  int64_t batch = graph->module->batch < 2 ? 1 : 2;
  if (!graph_verify(graph, &err)) die("parsed, but does not verify: %s", err.text);
  if (!is_small(graph, batch)) return;
  ValueId *map = ARENA_ARRAY(arena, ValueId, graph->nodes.count + 1);
  Graph *again = emit_again(graph, map, arena);
  Interpretation *a = run(graph, arena, batch), *b = a ? run(again, arena, batch) : NULL;
  bool compare = a && b && all_finite(graph, a, batch);
  for (size_t i = 0; compare && i < graph->nodes.count; i++)
    for (int64_t e = 0; e < type_elements(graph->nodes.data[i].type, batch); e++)
      if (interpretation_value(a, (ValueId)i)[e] != interpretation_value(b, map[i])[e])
        die("element %lld of value %zu is another when it is emitted again", (long long)e, i);
  interpretation_free(a);
  interpretation_free(b);
}

/* All passes in order; one that refuses the module leaves it to the next. `begin`: with which. */
static void check_passes(Module *module, size_t begin) {
  for (size_t i = 0; i < PASS_COUNT; i++) {
    int pass = (int)((begin + i) % PASS_COUNT);
    Err err = {{0}};
    if (!passes_run(module, &pass, 1, NULL, NULL, &err) && !err.text[0])
      die("%s refused without a message", pass_table[pass].name);
    check_text(module);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Arena *arena = arena_new();
  Err err = {{0}};
  Module *module = module_parse((const char *)data, size, arena, &err);
  if (!module && !err.text[0]) die("refused without a message");
  if (module) {
    check_text(module);
    for (size_t i = 0; i < module->steps.count; i++) check_step(module->steps.data[i], arena);
    check_passes(module, size);
    module_free_tables(module);
  }
  arena_free(arena);
  return 0;
}
