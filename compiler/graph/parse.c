/* The parser of the Graph IR's text (print.c writes it, docs/ir.md shows it). Text is untrusted: every size has a limit, no
 * function calls itself, and the first thing that is wrong ends it with a message that names line and column. A line becomes
 * one node as it stands: nothing is folded or shared, so that a pass can be tested on exactly the graph that was written.
 * Words are separated by any white space, `#` begins a comment, and values may have any numbers, each defined once. */
#include "compiler/graph/graph_private.h"
#include "runtime/base/words.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

typedef struct Parser {
  Words words;
  Module *module;
  Graph *graph;           /* the step under way */
  VECTOR(ValueId) number; /* of each number in this step's text */
  VECTOR(ValueId) inputs;
  VECTOR(ValueId) operands;
  VECTOR(Type) types;
} Parser;

enum { MAX_INPUTS = 256, MAX_WORD = GRAPH_MAX_NAME + 2, MAX_ENDS = 1 << 19 };

/* The word behind `mark` (0: none), if it is a name. */
static bool name_of(const Parser *p, Word word, char mark, const char *what, char name[MAX_WORD]) {
  size_t skip = mark != 0;
  name[0] = 0;
  if (word.length > skip && word.length - skip <= GRAPH_MAX_NAME && (!mark || word.text[0] == mark)) {
    memcpy(name, word.text + skip, word.length - skip);
    name[word.length - skip] = 0;
  }
  return graph_name_ok(name) || words_wanted(&p->words, what, word);
}

static bool take_name(Parser *p, char mark, const char *what, char name[MAX_WORD]) {
  Word word = words_take(&p->words);
  return name_of(p, word, mark, what, name);
}

/* ---- numbers ---- */

static bool copy_number(const Parser *p, Word word, const char *what, char text[MAX_WORD]) {
  if (word.length == 0 || word.length >= MAX_WORD) return words_wanted(&p->words, what, word);
  memcpy(text, word.text, word.length);
  text[word.length] = 0;
  return true;
}

static bool take_integer(Parser *p, int32_t *value) {
  char text[MAX_WORD], *end;
  Word word = words_take(&p->words);
  if (!copy_number(p, word, "an integer", text)) return false;
  errno = 0;
  long long number = strtoll(text, &end, 10);
  if (end == text || *end) return words_wanted(&p->words, "an integer", word);
  if (errno == ERANGE || number > INT32_MAX || number < INT32_MIN)
    return words_fail(&p->words, "%s does not fit into 32 bits", text);
  *value = (int32_t)number;
  return true;
}

static bool take_number(Parser *p, double *value) {
  char text[MAX_WORD], *end;
  Word word = words_take(&p->words);
  if (!copy_number(p, word, "a number", text)) return false;
  *value = strtod(text, &end);
  return (end != text && !*end) || words_wanted(&p->words, "a number", word);
}

/* `f32[B, 3, 32, 32]` */
static bool take_shape(Parser *p, Type *type) {
  Word word = words_take(&p->words);
  size_t start = p->words.start;
  *type = type_scalar();
  if (!word_is(word, "f32") && !word_is(word, "i32")) return words_wanted(&p->words, "a type like f32[B, 3]", word);
  if (word_is(word, "i32")) type->element = ELEMENT_I32;
  if (!words_expect(&p->words, "[")) return false;
  if (words_accept(&p->words, "]")) return true;
  type->batched = words_accept(&p->words, "B");
  bool more = !type->batched || words_accept(&p->words, ",");
  while (more) {
    if (type->rank == MAX_RANK) return words_fail(&p->words, "more than %d extents", MAX_RANK);
    if (!take_integer(p, &type->dims[type->rank++])) return false;
    more = words_accept(&p->words, ",");
  }
  if (!words_expect(&p->words, "]")) return false;
  p->words.start = start;
  return type_valid(*type) || words_fail(&p->words, "%s is empty or too large", type_text(*type).text);
}

/* `f32[B, 3, 32, 32] nhwc`, or without a layout */
static bool take_type(Parser *p, Type *type) {
  if (!take_shape(p, type)) return false;
  size_t start = p->words.start;
  for (int layout = LAYOUT_PLAIN + 1; layout_text((Layout)layout) && !type->layout; layout++)
    if (words_accept(&p->words, layout_text((Layout)layout))) type->layout = (uint8_t)layout;
  p->words.start = start;
  return true;
}

/* ---- attributes ---- */

static bool take_attribute(Parser *p, const AttributeKey *key, Attributes *a) {
  int32_t first = 0, second;
  double number;
  if (key->kind == KEY_NUMBER) {
    if (!take_number(p, &number)) return false;
    memcpy((char *)a + key->offset, &number, sizeof number);
    return true;
  }
  if (!take_integer(p, &first)) return false;
  second = first;
  Word next = words_peek(&p->words);
  if (key->kind == KEY_PAIR && next.length && (word_digit(next.text[0]) || next.text[0] == '-') && !take_integer(p, &second))
    return false;
  memcpy((char *)a + key->offset, &first, sizeof first);
  if (key->kind == KEY_PAIR) memcpy((char *)a + key->second, &second, sizeof second);
  return true;
}

/* `{stride 2, pad 1 0}`, or nothing where every attribute is usual */
static bool take_attributes(Parser *p, OpCode op, Attributes *a) {
  bool seen[ATTRIBUTE_KEYS] = {false}, open = words_accept(&p->words, "{");
  while (open) {
    Word word = words_take(&p->words);
    int i = 0;
    while (i < ATTRIBUTE_KEYS && !((attribute_keys[i].bit & op_table[op].attributes) && word_is(word, attribute_keys[i].text)))
      i++;
    if (i == ATTRIBUTE_KEYS)
      return words_fail(&p->words, "%s has no attribute `%.*s`", op_table[op].text, word_shown(word), word.text);
    if (seen[i]) return words_fail(&p->words, "%s is given twice", attribute_keys[i].text);
    seen[i] = true;
    if (!take_attribute(p, &attribute_keys[i], a)) return false;
    open = words_accept(&p->words, ",");
    if (!open && !words_expect(&p->words, "}")) return false;
  }
  for (int i = 0; i < ATTRIBUTE_KEYS; i++)
    if (attribute_keys[i].required && (attribute_keys[i].bit & op_table[op].attributes) && !seen[i])
      return words_fail(&p->words, "%s needs its attribute %s", op_table[op].text, attribute_keys[i].text);
  return true;
}

/* ---- steps ---- */

static bool number_after_percent(const Parser *p, Word word, size_t *number) {
  *number = 0;
  for (size_t i = 1; i < word.length; i++) {
    if (!word_digit(word.text[i])) return words_wanted(&p->words, "a value like %7", word);
    *number = *number * 10 + (size_t)(word.text[i] - '0');
    if (*number >= GRAPH_MAX_NODES)
      return words_fail(&p->words, "the value %.*s has a number above %d", word_shown(word), word.text, GRAPH_MAX_NODES);
  }
  return word.length >= 2 || words_wanted(&p->words, "a value like %7", word);
}

static bool room(const Parser *p) {
  return p->graph->nodes.count < GRAPH_MAX_NODES || words_fail(&p->words, "more than %d values", GRAPH_MAX_NODES);
}

static bool find_input(const Parser *p, Word word, ValueId *value) {
  char name[MAX_WORD];
  if (!name_of(p, word, '%', "a value like %7", name)) return false;
  for (size_t i = 0; i < p->inputs.count; i++) {
    *value = p->inputs.data[i];
    if (strcmp(graph_node(p->graph, *value)->attributes->name, name) == 0) return true;
  }
  return words_fail(&p->words, "the step %s has no input %s", p->graph->name, name);
}

static bool find_parameter(Parser *p, Word word, int32_t *parameter) {
  char name[MAX_WORD];
  if (!name_of(p, word, '@', "a parameter like @stem.weight", name)) return false;
  *parameter = module_find_parameter(p->module, name);
  return *parameter >= 0 || words_fail(&p->words, "the module has no parameter @%s", name);
}

static bool take_value(Parser *p, ValueId *value) {
  Word word = words_take(&p->words);
  size_t number;
  int32_t parameter = -1;
  if (word.length && word.text[0] == '@') {
    if (!find_parameter(p, word, &parameter) || !room(p)) return false;
    *value = graph_parameter(p->graph, parameter);
    return true;
  }
  if (word.length < 2 || word.text[0] != '%') return words_wanted(&p->words, "a value", word);
  if (!word_digit(word.text[1])) return find_input(p, word, value);
  if (!number_after_percent(p, word, &number)) return false;
  *value = number < p->number.count ? p->number.data[number] : NO_VALUE;
  return *value != NO_VALUE || words_fail(&p->words, "%.*s is used before it is defined", word_shown(word), word.text);
}

static bool take_operands(Parser *p, OpCode op) {
  p->operands.count = p->types.count = 0;
  if (op_table[op].arity == 0) return true;
  do {
    ValueId value = NO_VALUE;
    if (p->operands.count == GRAPH_MAX_OPERANDS) return words_fail(&p->words, "more than %d operands", GRAPH_MAX_OPERANDS);
    if (!take_value(p, &value)) return false;
    vector_push(&p->operands, value);
    vector_push(&p->types, graph_type(p->graph, value));
  } while (words_accept(&p->words, ","));
  return true;
}

static bool take_operation(Parser *p, OpCode *op) {
  Word word = words_take(&p->words);
  for (int i = 0; i < OP_COUNT; i++)
    if (i != OP_INPUT && i != OP_PARAM && word_is(word, op_table[i].text)) return *op = (OpCode)i, true;
  return words_wanted(&p->words, "an operation", word);
}

/* `%7 f32[B, 16, 32, 32] = conv %5, %6 {groups 16}`, from behind its first word */
static bool parse_node(Parser *p, Word word) {
  size_t number, start = p->words.start;
  Type declared, result;
  OpCode op = OP_CONST;
  if (!number_after_percent(p, word, &number)) return false;
  while (p->number.count <= number) vector_push(&p->number, NO_VALUE);
  if (p->number.data[number] != NO_VALUE) return words_fail(&p->words, "%.*s is defined twice", word_shown(word), word.text);
  if (!take_type(p, &declared) || !words_expect(&p->words, "=") || !take_operation(p, &op) || !take_operands(p, op)) return false;
  Attributes attributes = attributes_of(op, NULL);
  if ((op_table[op].attributes & A_SHAPE) || op == OP_CONST) attributes.shape = declared;
  if (!take_attributes(p, op, &attributes)) return false;
  p->words.start = start;
  Err err = {{0}};
  int32_t count = (int32_t)p->operands.count;
  if (!op_result_type(op, p->types.data, count, &attributes, &result, &err)) return words_fail(&p->words, "%s", err.text);
  if (!type_equal(result, declared))
    return words_fail(&p->words, "%s gives %s, not %s", op_table[op].text, type_text(result).text, type_text(declared).text);
  if (!room(p)) return false;
  result.layout = declared.layout;
  p->number.data[number] = graph_append(p->graph, op, p->operands.data, count, &attributes, result);
  return true;
}

static bool parse_input(Parser *p) {
  char name[MAX_WORD];
  Type type;
  if (!take_name(p, '%', "an input like %x", name)) return false;
  for (size_t i = 0; i < p->inputs.count; i++)
    if (strcmp(graph_node(p->graph, p->inputs.data[i])->attributes->name, name) == 0)
      return words_fail(&p->words, "two inputs %s", name);
  if (p->inputs.count == MAX_INPUTS) return words_fail(&p->words, "more than %d inputs", MAX_INPUTS);
  if (!take_type(p, &type)) return false;
  ValueId value = graph_input(p->graph, name, type);
  vector_push(&p->inputs, value);
  return true;
}

static bool parse_result(Parser *p) {
  char name[MAX_WORD];
  Result result;
  if (p->graph->results.count == MAX_ENDS) return words_fail(&p->words, "more than %d results", MAX_ENDS);
  if (!take_name(p, 0, "a result's name", name) || !words_expect(&p->words, "=") || !take_value(p, &result.value)) return false;
  result.name = module_intern(p->module, name);
  vector_push(&p->graph->results, result);
  return true;
}

static bool parse_update(Parser *p) {
  Update update;
  if (p->graph->updates.count == MAX_ENDS) return words_fail(&p->words, "more than %d updates", MAX_ENDS);
  Word word = words_take(&p->words);
  if (!find_parameter(p, word, &update.parameter) || !words_expect(&p->words, "=") || !take_value(p, &update.value)) return false;
  vector_push(&p->graph->updates, update);
  return true;
}

/* Values behind a mark: at least one, ascending. */
static bool take_values(Parser *p, ValueId **values, int32_t *count) {
  VECTOR(ValueId) list = {0};
  bool ok = true;
  do {
    ValueId value = NO_VALUE;
    ok = take_value(p, &value);
    if (ok && list.count && list.data[list.count - 1] >= value) ok = words_fail(&p->words, "marked values do not ascend");
    if (ok) vector_push(&list, value);
  } while (ok && words_accept(&p->words, ","));
  *count = (int32_t)list.count;
  *values = ARENA_ARRAY(p->graph->arena, ValueId, list.count + 1);
  if (ok) memcpy(*values, list.data, list.count * sizeof *list.data);
  vector_free(&list);
  return ok;
}

static bool parse_group(Parser *p) {
  char name[MAX_WORD];
  ValueId *values;
  GraphGroup group = {0};
  if (p->graph->groups.count == MAX_ENDS) return words_fail(&p->words, "more than %d groups", MAX_ENDS);
  if (!take_name(p, 0, "a group's pattern", name) || !take_values(p, &values, &group.count)) return false;
  group.pattern = module_intern(p->module, name);
  group.values = values;
  vector_push(&p->graph->groups, group);
  return true;
}

static bool parse_computed(Parser *p) {
  ValueId *values;
  int32_t count;
  if (!take_values(p, &values, &count)) return false;
  for (int32_t i = 0; i < count; i++) vector_push(&p->graph->computed, values[i]);
  return true;
}

static bool parse_body(Parser *p) {
  for (;;) {
    Word word = words_take(&p->words);
    if (word_is(word, "}")) return true;
    bool ok = word_is(word, "result")     ? parse_result(p)
              : word_is(word, "update")   ? parse_update(p)
              : word_is(word, "group")    ? parse_group(p)
              : word_is(word, "computed") ? parse_computed(p)
              : word.length > 1 && word.text[0] == '%'
                  ? parse_node(p, word)
                  : words_wanted(&p->words, "a value, `result`, `update`, `group`, `computed` or `}`", word);
    if (!ok) return false;
  }
}

static bool parse_step(Parser *p) {
  char name[MAX_WORD];
  size_t start = p->words.start;
  if (!take_name(p, 0, "a step's name", name)) return false;
  if (module_find_step(p->module, name)) return words_fail(&p->words, "two steps %s", name);
  if (p->module->steps.count == GRAPH_MAX_STEPS) return words_fail(&p->words, "more than %d steps", GRAPH_MAX_STEPS);
  p->graph = module_add_step(p->module, name);
  p->number.count = p->inputs.count = 0;
  if (!words_expect(&p->words, "(")) return false;
  if (!words_accept(&p->words, ")")) {
    do
      if (!parse_input(p)) return false;
    while (words_accept(&p->words, ","));
    if (!words_expect(&p->words, ")")) return false;
  }
  if (!words_expect(&p->words, "{") || !parse_body(p)) return false;
  Err err = {{0}};
  p->words.start = start;
  return graph_verify(p->graph, &err) || words_fail(&p->words, "%s", err.text);
}

/* ---- the module ---- */

static bool take_kind(Parser *p, ParameterKind *kind) {
  Word word = words_take(&p->words);
  for (*kind = PARAMETER_WEIGHT; parameter_kind_text(*kind); (*kind)++)
    if (word_is(word, parameter_kind_text(*kind))) return true;
  return words_wanted(&p->words, "a kind of parameter: weight, alpha, momentum, adam_mean, adam_square or hoisted", word);
}

static bool take_init(Parser *p, Parameter *parameter) {
  Word word = words_take(&p->words);
  for (parameter->init = INIT_CONSTANT; init_kind_text(parameter->init); parameter->init++)
    if (word_is(word, init_kind_text(parameter->init))) return take_number(p, &parameter->init_value);
  return words_wanted(&p->words, "constant or uniform", word);
}

static bool parse_parameter(Parser *p) {
  char name[MAX_WORD];
  Parameter parameter = {.name = name};
  if (!take_name(p, '@', "a parameter like @stem.weight", name)) return false;
  if (module_find_parameter(p->module, name) >= 0) return words_fail(&p->words, "two parameters @%s", name);
  if (p->module->parameters.count == GRAPH_MAX_PARAMETERS)
    return words_fail(&p->words, "more than %d parameters", GRAPH_MAX_PARAMETERS);
  if (p->module->steps.count) return words_fail(&p->words, "the parameter @%s stands behind a step; parameters come first", name);
  if (!take_type(p, &parameter.type)) return false;
  if (parameter.type.batched) return words_fail(&p->words, "the parameter @%s has a B", name);
  if (!words_expect(&p->words, "{") || !take_kind(p, &parameter.kind) || !words_expect(&p->words, ",") ||
      !take_init(p, &parameter))
    return false;
  if (words_accept(&p->words, ",")) {
    if (!words_expect(&p->words, "generates") || !take_shape(p, &parameter.generates)) return false;
    if (parameter.generates.batched || parameter.generates.rank == 0)
      return words_fail(&p->words, "@%s generates %s, which has no shape", name, type_text(parameter.generates).text);
  }
  if (!words_expect(&p->words, "}")) return false;
  module_add_parameter(p->module, parameter);
  return true;
}

static bool parse_module(Parser *p, Arena *arena) {
  char name[MAX_WORD];
  int32_t batch = 0;
  if (p->words.size > GRAPH_MAX_TEXT)
    return err_set(p->words.err, "graph text of %zu bytes, more than %d", p->words.size, GRAPH_MAX_TEXT);
  if (!words_expect(&p->words, "module") || !take_name(p, 0, "a module's name", name) || !words_expect(&p->words, "{") ||
      !words_expect(&p->words, "batch") || !take_integer(p, &batch))
    return false;
  if (batch < 1 || batch > GRAPH_MAX_BATCH)
    return words_fail(&p->words, "a batch of %d; 1 to %d are wanted", batch, GRAPH_MAX_BATCH);
  if (!words_expect(&p->words, "}")) return false;
  p->module = module_new(arena, name, batch);
  for (;;) {
    Word word = words_take(&p->words);
    if (word.length == 0) return true;
    bool ok = word_is(word, "param")  ? parse_parameter(p)
              : word_is(word, "step") ? parse_step(p)
                                      : words_wanted(&p->words, "`param`, `step` or the end of the text", word);
    if (!ok) return false;
  }
}

Module *module_parse(const char *text, size_t size, Arena *arena, Err *err) {
  Parser p = {.words = {.text = text, .size = size, .what = "graph text", .err = err}};
  bool ok = parse_module(&p, arena);
  vector_free(&p.number);
  vector_free(&p.inputs);
  vector_free(&p.operands);
  vector_free(&p.types);
  if (ok) return p.module;
  if (p.module) module_free_tables(p.module);
  return NULL;
}
