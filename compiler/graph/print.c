/* The text of graphs and modules: a parameter or operation a line, operands in order, values numbered in the order of their
 * lines. Inputs stand in the step's head, and inputs and parameters are named where they are used (`%x`, `@stem.weight`), so
 * they have no line and no number. parse.c reads it back to the same text; docs/ir.md shows the form. */
#include "compiler/graph/graph_private.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(name) offsetof(Attributes, name)

const AttributeKey attribute_keys[ATTRIBUTE_KEYS] = {
    {"value", A_VALUE, KEY_NUMBER, FIELD(value), 0, true, 0},
    {"index", A_INDEX, KEY_INTEGER, FIELD(index), 0, true, 0},
    {"begin", A_RANGE, KEY_INTEGER, FIELD(begin), 0, true, 0},
    {"count", A_RANGE, KEY_INTEGER, FIELD(count), 0, true, 0},
    {"shift", A_SHIFT, KEY_PAIR, FIELD(shift_y), FIELD(shift_x), true, 0},
    {"side", A_SIDE, KEY_PAIR, FIELD(side_y), FIELD(side_x), true, 0},
    {"beta", A_BETA_DECAY, KEY_NUMBER, FIELD(beta), 0, true, 0},
    {"decay", A_BETA_DECAY, KEY_NUMBER, FIELD(decay), 0, true, 0},
    {"kernel", A_WINDOW, KEY_PAIR, FIELD(window.kernel_y), FIELD(window.kernel_x), false, 1},
    {"stride", A_WINDOW, KEY_PAIR, FIELD(window.stride_y), FIELD(window.stride_x), false, 1},
    {"dilation", A_WINDOW, KEY_INTEGER, FIELD(window.dilation), 0, false, 1},
    {"pad", A_WINDOW, KEY_PAIR, FIELD(window.pad_y), FIELD(window.pad_x), false, 0},
    {"groups", A_WINDOW, KEY_INTEGER, FIELD(window.groups), 0, false, 1},
};

const char *parameter_kind_text(ParameterKind kind) {
  static const char *const text[] = {"weight", "alpha", "momentum", "adam_mean", "adam_square", "hoisted"};
  return kind <= PARAMETER_HOISTED ? text[kind] : NULL;
}

const char *init_kind_text(InitKind kind) {
  static const char *const text[] = {"constant", "uniform"};
  return kind <= INIT_UNIFORM ? text[kind] : NULL;
}

/* A few decimals where they give back exactly its bits, else hexadecimal. */
static void print_number(double number, Text *out) {
  char text[64];
  if (isnan(number) || isinf(number)) {
    text_add(out, isnan(number) ? "nan" : number < 0 ? "-inf" : "inf");
    return;
  }
  bool exact = false;
  for (int digits = 1; !exact && digits <= 12; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, number);
    exact = strtod(text, NULL) == number;
  }
  if (!exact) snprintf(text, sizeof text, "%a", number);
  text_add(out, text);
}

static int32_t integer_at(const Attributes *a, size_t offset) {
  int32_t integer;
  memcpy(&integer, (const char *)a + offset, sizeof integer);
  return integer;
}

static void print_attributes(OpCode op, const Attributes *a, Text *out) {
  const char *before = " {";
  for (int i = 0; i < ATTRIBUTE_KEYS; i++) {
    const AttributeKey *key = &attribute_keys[i];
    if (!(key->bit & op_table[op].attributes)) continue;
    if (key->kind == KEY_NUMBER) {
      double number;
      memcpy(&number, (const char *)a + key->offset, sizeof number);
      text_printf(out, "%s%s ", before, key->text);
      print_number(number, out);
    } else {
      int32_t first = integer_at(a, key->offset), second = key->kind == KEY_PAIR ? integer_at(a, key->second) : first;
      if (!key->required && first == key->usual && second == key->usual) continue;
      text_printf(out, "%s%s %d", before, key->text, first);
      if (second != first) text_printf(out, " %d", second);
    }
    before = ", ";
  }
  if (before[0] == ',') text_add(out, "}");
}

/* ---- steps ---- */

/* Of each value the number of its line. */
static int32_t *number_lines(const Graph *graph) {
  int32_t *number = memory_alloc(graph->nodes.count * sizeof *number), next = 0;
  for (size_t i = 0; i < graph->nodes.count; i++) {
    OpCode op = graph->nodes.data[i].op;
    if (op != OP_INPUT && op != OP_PARAM) number[i] = next++;
  }
  return number;
}

static void print_value(const Graph *graph, const int32_t *number, ValueId value, Text *out) {
  if (value < 0 || (size_t)value >= graph->nodes.count) {
    text_add(out, "%?");
    return;
  }
  const GraphNode *node = graph_node(graph, value);
  if (node->op == OP_INPUT || node->op == OP_PARAM)
    text_printf(out, "%c%s", node->op == OP_INPUT ? '%' : '@', node->attributes->name);
  else
    text_printf(out, "%%%d", number[value]);
}

static void print_head(const Graph *graph, Text *out) {
  const char *before = "";
  text_printf(out, "step %s(", graph->name);
  for (size_t i = 0; i < graph->nodes.count; i++) {
    const GraphNode *node = &graph->nodes.data[i];
    if (node->op != OP_INPUT) continue;
    text_printf(out, "%s%%%s %s", before, node->attributes->name, type_text(node->type).text);
    before = ", ";
  }
  text_add(out, ") {\n");
}

enum { COLUMN = 26, LAYOUT_COLUMN = 32 }; /* where most definitions have ended, without and with layouts */

static void print_node(const Graph *graph, const int32_t *number, ValueId value, int column, Text *out) {
  const GraphNode *node = graph_node(graph, value);
  char definition[96];
  snprintf(definition, sizeof definition, "%%%d %s", number[value], type_text(node->type).text);
  text_printf(out, "  %-*s = %s", column, definition, op_table[node->op].text);
  for (int32_t i = 0; i < node->operand_count; i++) {
    text_add(out, i ? ", " : " ");
    print_value(graph, number, node->operands[i], out);
  }
  print_attributes(node->op, node->attributes, out);
  text_add(out, "\n");
}

/* Values that are never in memory, a few to a line. */
static void print_computed(const Graph *graph, const int32_t *number, Text *out) {
  enum { VALUES_A_LINE = 12 };
  size_t count = graph->computed.count;
  for (size_t i = 0; i < count; i++) {
    text_add(out, i % VALUES_A_LINE == 0 ? "  computed " : ", ");
    print_value(graph, number, graph->computed.data[i], out);
    if (i + 1 == count || (i + 1) % VALUES_A_LINE == 0) text_add(out, "\n");
  }
}

static void print_group(const Graph *graph, const int32_t *number, const GraphGroup *group, Text *out) {
  text_printf(out, "  group %s ", group->pattern);
  for (int32_t i = 0; i < group->count; i++) {
    if (i) text_add(out, ", ");
    print_value(graph, number, group->values[i], out);
  }
  text_add(out, "\n");
}

void graph_print(const Graph *graph, Text *out) {
  int32_t *number = number_lines(graph);
  int column = graph_has_layouts(graph) ? LAYOUT_COLUMN : COLUMN;
  print_head(graph, out);
  for (size_t i = 0; i < graph->nodes.count; i++) {
    OpCode op = graph->nodes.data[i].op;
    if (op != OP_INPUT && op != OP_PARAM) print_node(graph, number, (ValueId)i, column, out);
  }
  for (size_t i = 0; i < graph->results.count; i++) {
    text_printf(out, "  result %s = ", graph->results.data[i].name);
    print_value(graph, number, graph->results.data[i].value, out);
    text_add(out, "\n");
  }
  for (size_t i = 0; i < graph->updates.count; i++) {
    text_printf(out, "  update @%s = ", graph->module->parameters.data[graph->updates.data[i].parameter].name);
    print_value(graph, number, graph->updates.data[i].value, out);
    text_add(out, "\n");
  }
  for (size_t i = 0; i < graph->groups.count; i++) print_group(graph, number, &graph->groups.data[i], out);
  print_computed(graph, number, out);
  text_add(out, "}\n");
  free(number);
}

/* ---- modules ---- */

static void print_parameter(const Parameter *p, Text *out) {
  text_printf(out, "param @%s %s {%s, %s ", p->name, type_text(p->type).text, parameter_kind_text(p->kind),
              init_kind_text(p->init));
  print_number(p->init_value, out);
  if (p->generates.rank) text_printf(out, ", generates %s", type_text(p->generates).text);
  text_add(out, "}\n");
}

void module_print(const Module *module, Text *out) {
  text_printf(out, "module %s {batch %d}\n\n", module->name, module->batch);
  for (size_t i = 0; i < module->parameters.count; i++) print_parameter(&module->parameters.data[i], out);
  for (size_t i = 0; i < module->steps.count; i++) {
    if (i || module->parameters.count) text_add(out, "\n");
    graph_print(module->steps.data[i], out);
  }
}
