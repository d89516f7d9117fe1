/* Building: modules with their names and parameters, and graphs whose nodes exist once. A graph's table finds the node that
 * equals a new one (same operation, operands and attributes); it holds the ids of nodes, open addressing, at most half full.
 * A module's table finds names: interned strings, and which of them are parameters. What the graph's user hands in wrongly is
 * a bug here (die); the parser checks first. */
#include "compiler/graph/graph_private.h"

#include "runtime/base/hash.h"

#include <string.h>

/* ---- names ---- */

typedef struct NameEntry {
  const char *name;  /* null: free */
  int32_t parameter; /* -1: none */
} NameEntry;

typedef struct ModuleTable {
  NameEntry *entries;
  size_t capacity, used;
} ModuleTable;

static NameEntry *name_slot(const ModuleTable *table, const char *name) {
  size_t slot = (size_t)hash_u64(name, strlen(name)) & (table->capacity - 1);
  while (table->entries[slot].name && strcmp(table->entries[slot].name, name) != 0) slot = (slot + 1) & (table->capacity - 1);
  return &table->entries[slot];
}

static void grow_names(ModuleTable *table) {
  ModuleTable larger = {memory_alloc(2 * table->capacity * sizeof(NameEntry)), 2 * table->capacity, table->used};
  for (size_t i = 0; i < table->capacity; i++)
    if (table->entries[i].name) *name_slot(&larger, table->entries[i].name) = table->entries[i];
  free(table->entries);
  *table = larger;
}

static NameEntry *intern(Module *module, const char *name) {
  ModuleTable *table = module->table;
  if (2 * (table->used + 1) > table->capacity) grow_names(table);
  NameEntry *entry = name_slot(table, name);
  if (!entry->name) {
    *entry = (NameEntry){arena_copy_string(module->arena, name, strlen(name)), -1};
    table->used++;
  }
  return entry;
}

const char *module_intern(Module *module, const char *name) {
  return intern(module, name)->name;
}

bool graph_name_ok(const char *name) {
  for (size_t i = 0; name[i]; i++) {
    char c = name[i];
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    if (i >= GRAPH_MAX_NAME || !(letter || (i > 0 && ((c >= '0' && c <= '9') || c == '.')))) return false;
  }
  return name[0] != 0;
}

static void demand_name(const char *name) {
  if (!graph_name_ok(name)) die("`%s` is not a name", name);
}

/* ---- modules ---- */

Module *module_new(Arena *arena, const char *name, int32_t batch) {
  enum { NAMES = 64 };
  demand_name(name);
  if (batch < 1 || batch > GRAPH_MAX_BATCH) die("a batch of %d", batch);
  Module *module = ARENA_NEW(arena, Module);
  module->arena = arena;
  module->batch = batch;
  module->table = ARENA_NEW(arena, ModuleTable);
  *module->table = (ModuleTable){memory_alloc(NAMES * sizeof(NameEntry)), NAMES, 0};
  module->name = module_intern(module, name);
  return module;
}

int32_t module_add_parameter(Module *module, Parameter parameter) {
  demand_name(parameter.name);
  if (!type_valid(parameter.type) || parameter.type.batched) die("@%s has no valid type", parameter.name);
  if (module->parameters.count >= GRAPH_MAX_PARAMETERS) die("more than %d parameters", GRAPH_MAX_PARAMETERS);
  NameEntry *entry = intern(module, parameter.name);
  if (entry->parameter >= 0) die("@%s is there already", parameter.name);
  entry->parameter = (int32_t)module->parameters.count;
  parameter.name = entry->name;
  vector_push(&module->parameters, parameter);
  return entry->parameter;
}

int32_t module_find_parameter(const Module *module, const char *name) {
  const NameEntry *entry = name_slot(module->table, name);
  return entry->name ? entry->parameter : -1;
}

Graph *module_find_step(const Module *module, const char *name) {
  for (size_t i = 0; i < module->steps.count; i++)
    if (strcmp(module->steps.data[i]->name, name) == 0) return module->steps.data[i];
  return NULL;
}

/* ---- graphs ---- */

typedef struct GraphTable {
  ValueId *slots; /* NO_VALUE: free */
  size_t capacity, used;
} GraphTable;

static ValueId *new_slots(size_t capacity) {
  ValueId *slots = memory_alloc(capacity * sizeof(ValueId));
  for (size_t i = 0; i < capacity; i++) slots[i] = NO_VALUE;
  return slots;
}

Graph *graph_new(Module *module, const char *name) {
  enum { SLOTS = 256 };
  demand_name(name);
  Graph *graph = ARENA_NEW(module->arena, Graph);
  graph->name = module_intern(module, name);
  graph->arena = module->arena;
  graph->module = module;
  graph->table = ARENA_NEW(module->arena, GraphTable);
  *graph->table = (GraphTable){new_slots(SLOTS), SLOTS, 0};
  vector_push(&module->graphs, graph);
  return graph;
}

Graph *module_add_step(Module *module, const char *name) {
  if (module_find_step(module, name)) die("the step %s is there already", name);
  Graph *graph = graph_new(module, name);
  vector_push(&module->steps, graph);
  return graph;
}

void module_free_tables(Module *module) {
  for (size_t i = 0; i < module->graphs.count; i++) {
    Graph *graph = module->graphs.data[i];
    vector_free(&graph->nodes);
    vector_free(&graph->results);
    vector_free(&graph->updates);
    vector_free(&graph->groups);
    vector_free(&graph->computed);
    free(graph->table->slots);
    *graph->table = (GraphTable){0};
  }
  vector_free(&module->graphs);
  vector_free(&module->steps);
  vector_free(&module->parameters);
  free(module->table->entries);
  *module->table = (ModuleTable){0};
}

/* ---- value numbering ---- */

static Type clean_type(Type type) {
  Type clean = type_tensor(type.rank, type.dims, type.batched);
  clean.layout = type.layout;
  return clean;
}

Attributes attributes_of(OpCode op, const Attributes *given) {
  Attributes a = {.window = {1, 1, 1, 1, 1, 0, 0, 1}};
  uint32_t bits = op_table[op].attributes;
  if (!given) return a;
  if (bits & A_NAME) a.name = given->name;
  if (bits & A_VALUE) a.value = given->value;
  if ((bits & A_INDEX) || op == OP_PARAM) a.index = given->index;
  if (bits & A_RANGE) a.begin = given->begin, a.count = given->count;
  if (bits & A_SHIFT) a.shift_y = given->shift_y, a.shift_x = given->shift_x;
  if (bits & A_SIDE) a.side_y = given->side_y, a.side_x = given->side_x;
  if (bits & A_BETA_DECAY) a.beta = given->beta, a.decay = given->decay;
  if (bits & A_WINDOW) a.window = given->window;
  if ((bits & A_SHAPE) || op_table[op].class == CLASS_LEAF) {
    a.shape = clean_type(given->shape);
    a.shape.element = given->shape.element;
  }
  return a;
}

/* -0 and 0 are two constants, and a not-a-number equals itself. */
static bool same_bits(double a, double b) {
  uint64_t a_bits, b_bits;
  memcpy(&a_bits, &a, sizeof a);
  memcpy(&b_bits, &b, sizeof b);
  return a_bits == b_bits;
}

static bool window_equal(const Window *a, const Window *b) {
  return a->kernel_y == b->kernel_y && a->kernel_x == b->kernel_x && a->stride_y == b->stride_y && a->stride_x == b->stride_x &&
         a->dilation == b->dilation && a->pad_y == b->pad_y && a->pad_x == b->pad_x && a->groups == b->groups;
}

static bool attributes_equal(const Attributes *a, const Attributes *b) {
  return a->name == b->name && same_bits(a->value, b->value) && a->index == b->index && a->begin == b->begin &&
         a->count == b->count && a->shift_y == b->shift_y && a->shift_x == b->shift_x && a->side_y == b->side_y &&
         a->side_x == b->side_x && same_bits(a->beta, b->beta) && same_bits(a->decay, b->decay) &&
         window_equal(&a->window, &b->window) && type_equal(a->shape, b->shape);
}

/* Over the fields one by one: structs have padding. Fields that seldom tell nodes apart are left to the comparison. */
static uint64_t node_hash(OpCode op, const ValueId *operands, int32_t count, const Attributes *a) {
  struct {
    uint64_t operands, name;
    double value, beta;
    int32_t op, count, index, begin, channels, shift, side, kernel, stride, dims[MAX_RANK];
    uint32_t batched;
  } key;
  memset(&key, 0, sizeof key);
  key.operands = count ? hash_u64(operands, (size_t)count * sizeof *operands) : 0;
  key.name = (uint64_t)(uintptr_t)a->name;
  key.value = a->value, key.beta = a->beta;
  key.op = (int32_t)op, key.count = count, key.index = a->index, key.begin = a->begin, key.channels = a->count;
  key.shift = a->shift_y, key.side = a->side_y, key.kernel = a->window.kernel_y, key.stride = a->window.stride_y;
  memcpy(key.dims, a->shape.dims, sizeof key.dims);
  key.batched = a->shape.batched;
  return hash_u64(&key, sizeof key);
}

static bool node_equal(const GraphNode *node, OpCode op, const ValueId *operands, int32_t count, const Attributes *attributes) {
  return node->op == op && node->operand_count == count &&
         (count == 0 || memcmp(node->operands, operands, (size_t)count * sizeof *operands) == 0) &&
         attributes_equal(node->attributes, attributes);
}

/* The slot of the equal node, or the free one where it would stand. */
static ValueId *find_slot(const Graph *graph, OpCode op, const ValueId *operands, int32_t count, const Attributes *attributes) {
  const GraphTable *table = graph->table;
  size_t slot = (size_t)node_hash(op, operands, count, attributes) & (table->capacity - 1);
  while (table->slots[slot] != NO_VALUE && !node_equal(graph_node(graph, table->slots[slot]), op, operands, count, attributes))
    slot = (slot + 1) & (table->capacity - 1);
  return &table->slots[slot];
}

static ValueId *slot_of(const Graph *graph, ValueId value) {
  const GraphNode *node = graph_node(graph, value);
  return find_slot(graph, node->op, node->operands, node->operand_count, node->attributes);
}

static void grow_slots(Graph *graph) {
  GraphTable *table = graph->table;
  free(table->slots);
  table->capacity *= 2;
  table->slots = new_slots(table->capacity);
  for (size_t i = 0; i < graph->nodes.count; i++) {
    ValueId *slot = slot_of(graph, (ValueId)i);
    if (*slot == NO_VALUE) *slot = (ValueId)i; /* of equal nodes, which only a text has, the first */
  }
}

ValueId graph_append(Graph *graph, OpCode op, const ValueId *operands, int32_t count, const Attributes *attributes, Type type) {
  if (graph->nodes.count >= GRAPH_MAX_NODES) die("%s: more than %d values", graph->name, GRAPH_MAX_NODES);
  Attributes *copy = ARENA_NEW(graph->arena, Attributes);
  *copy = attributes_of(op, attributes);
  ValueId *copied = ARENA_ARRAY(graph->arena, ValueId, count);
  if (count) memcpy(copied, operands, (size_t)count * sizeof *operands);
  ValueId value = (ValueId)graph->nodes.count;
  vector_push(&graph->nodes, ((GraphNode){op, type, count, copied, copy}));
  if (2 * (++graph->table->used) > graph->table->capacity) {
    grow_slots(graph);
  } else {
    ValueId *slot = slot_of(graph, value);
    if (*slot == NO_VALUE) *slot = value;
  }
  return value;
}

static Type type_of_new(const Graph *graph, OpCode op, const ValueId *operands, int32_t count, const Attributes *attributes) {
  Type type = {0}, few[8], *types = count <= 8 ? few : memory_alloc((size_t)count * sizeof *types);
  Err err = {{0}};
  for (int32_t i = 0; i < count; i++) {
    if (operands[i] < 0 || (size_t)operands[i] >= graph->nodes.count) die("%s: operand %d is no value", op_table[op].text, i);
    types[i] = graph_type(graph, operands[i]);
  }
  if (!op_result_type(op, types, count, attributes, &type, &err)) die("%s: %s", graph->name, err.text);
  if (types != few) free(types);
  return type;
}

ValueId graph_find(const Graph *graph, OpCode op, const ValueId *operands, int32_t count, const Attributes *attributes) {
  Attributes clean = attributes_of(op, attributes);
  return *find_slot(graph, op, operands, count, &clean);
}

ValueId graph_emit(Graph *graph, OpCode op, const ValueId *operands, int32_t count, const Attributes *attributes) {
  Attributes clean = attributes_of(op, attributes);
  if (clean.name) clean.name = module_intern(graph->module, clean.name);
  Type type = type_of_new(graph, op, operands, count, &clean);
  ValueId known = graph_fold(graph, op, operands, count, &clean, type);
  if (known == NO_VALUE) known = *find_slot(graph, op, operands, count, &clean);
  if (known == NO_VALUE && (op == OP_ADD || op == OP_MUL))
    known = *find_slot(graph, op, (ValueId[]){operands[1], operands[0]}, 2, &clean);
  return known != NO_VALUE ? known : graph_append(graph, op, operands, count, &clean, type);
}

/* ---- shorthands ---- */

ValueId graph_input(Graph *graph, const char *name, Type type) {
  demand_name(name);
  const char *interned = module_intern(graph->module, name);
  for (size_t i = 0; i < graph->nodes.count; i++) {
    const GraphNode *node = &graph->nodes.data[i];
    if (node->op == OP_INPUT && node->attributes->name == interned && !type_equal(node->type, type))
      die("%s: the input %s is there already with another type", graph->name, name);
  }
  return graph_emit(graph, OP_INPUT, NULL, 0, &(Attributes){.name = interned, .shape = type});
}

ValueId graph_parameter(Graph *graph, int32_t parameter) {
  if (parameter < 0 || (size_t)parameter >= graph->module->parameters.count) die("%s: no parameter %d", graph->name, parameter);
  const Parameter *p = &graph->module->parameters.data[parameter];
  return graph_emit(graph, OP_PARAM, NULL, 0, &(Attributes){.name = p->name, .index = parameter, .shape = p->type});
}

ValueId graph_constant(Graph *graph, double value, Type type) {
  return graph_emit(graph, OP_CONST, NULL, 0, &(Attributes){.value = value, .shape = type});
}

ValueId graph_unary(Graph *graph, OpCode op, ValueId a) {
  return graph_emit(graph, op, (ValueId[]){a}, 1, NULL);
}

ValueId graph_binary(Graph *graph, OpCode op, ValueId a, ValueId b) {
  return graph_emit(graph, op, (ValueId[]){a, b}, 2, NULL);
}

ValueId graph_ternary(Graph *graph, OpCode op, ValueId a, ValueId b, ValueId c) {
  return graph_emit(graph, op, (ValueId[]){a, b, c}, 3, NULL);
}

void graph_result(Graph *graph, const char *name, ValueId value) {
  demand_name(name);
  const char *interned = module_intern(graph->module, name);
  if (value < 0 || (size_t)value >= graph->nodes.count) die("%s: the result %s is no value", graph->name, name);
  for (size_t i = 0; i < graph->results.count; i++)
    if (graph->results.data[i].name == interned) die("%s: the result %s is there already", graph->name, name);
  vector_push(&graph->results, ((Result){interned, value}));
}

void graph_update(Graph *graph, int32_t parameter, ValueId value) {
  if (parameter < 0 || (size_t)parameter >= graph->module->parameters.count) die("%s: no parameter %d", graph->name, parameter);
  const Parameter *p = &graph->module->parameters.data[parameter];
  if (value < 0 || (size_t)value >= graph->nodes.count || !type_equal(graph_type(graph, value), p->type))
    die("%s: the update of @%s does not have its type", graph->name, p->name);
  for (size_t i = 0; i < graph->updates.count; i++)
    if (graph->updates.data[i].parameter == parameter) die("%s: @%s is updated twice", graph->name, p->name);
  vector_push(&graph->updates, ((Update){parameter, value}));
}
