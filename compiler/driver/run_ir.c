/* adwp run-ir: one step of a Graph IR text in the reference interpreter, in double precision. Values of inputs and parameters
 * come from files, by name; what no file names is drawn from the seed: images between -1 and 1, labels below the number of
 * classes, numbers of a step between 0 and 1, and parameters as their declaration says. A tensor's numbers depend on the seed and
 * on its name alone, so a step before and after a pass is given the same. */
#include "compiler/driver/driver.h"

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/safetensors.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_STEP = 0x200, KEY_BATCH, KEY_SEED, KEY_VALUES, KEY_JSON, USUAL_BATCH = 2, SHOWN = 8, LARGEST_FILE = 1 << 30 };

static const double most_elements = 1u << 28; /* of all values of a step: 2 GiB */

typedef struct RunOptions {
  const char *file, *step; /* step null: the only one */
  VECTOR(const char *) values;
  int32_t batch, seed; /* batch 0: what the values say, or USUAL_BATCH */
  bool json;
} RunOptions;

static error_t parse(int key, char *argument, struct argp_state *state) {
  RunOptions *options = state->input;
  switch (key) {
  case KEY_STEP: options->step = argument; return 0;
  case KEY_BATCH: options->batch = options_number(state, "--batch", argument, 1, 1 << 20); return 0;
  case KEY_SEED: options->seed = options_number(state, "--seed", argument, 0, INT32_MAX); return 0;
  case KEY_VALUES: vector_push(&options->values, argument); return 0;
  case KEY_JSON: options->json = true; return 0;
  case ARGP_KEY_ARG:
    if (state->arg_num) argp_error(state, "one FILE, and not also `%s`", argument);
    options->file = argument;
    return 0;
  case ARGP_KEY_NO_ARGS: argp_error(state, "which FILE? `-` is standard input"); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option option_list[] = {
    {"step", KEY_STEP, "STEP", 0, "Run this step; needed where the module has several", 0},
    {"batch", KEY_BATCH, "B", 0, "So many images; if not given, as the values say, or else 2", 0},
    {"seed", KEY_SEED, "N", 0, "What no file gives a value is drawn from this seed; 0 if not given", 0},
    {"values", KEY_VALUES, "FILE", 0,
     "Take inputs and parameters that this file names from it: .safetensors, or JSON, an object of numbers and arrays; may be "
     "given "
     "several times",
     0},
    {"json", KEY_JSON, 0, 0, "One JSON object with every number", 0},
    {0},
};
static const struct argp argp = {
    .options = option_list,
    .parser = parse,
    .args_doc = "FILE",
    .doc = "Run a step of the module in FILE (`-`: standard input), a Graph IR text, with the reference "
           "interpreter, and print its results and the parameters that it updates."};

/* ---- values from files ---- */

typedef struct NamedValues {
  const char *name, *path;
  double *data;
  int64_t elements, first; /* first: the outermost extent; 1 of a number */
} NamedValues;

typedef VECTOR(NamedValues) ValueList;

static bool flatten(json_t *value, double *to, int64_t *count, int depth) {
  size_t i;
  json_t *part;
  if (json_is_number(value)) {
    if (to) to[*count] = json_number_value(value);
    return (*count)++, true;
  }
  if (!json_is_array(value) || depth > MAX_RANK) return false;
  json_array_foreach(value, i, part) if (!flatten(part, to, count, depth + 1)) return false;
  return true;
}

static bool load_json(const char *path, const char *data, size_t size, ValueList *list, Arena *arena, Err *err) {
  json_error_t why;
  json_t *all = json_loadb(data, size, JSON_REJECT_DUPLICATES, &why), *value;
  if (!all) return err_set(err, "%s: %s, at line %d", path, why.text, why.line);
  bool done = json_is_object(all) || err_set(err, "%s: an object of named numbers and arrays is wanted", path);
  for (void *at = done ? json_object_iter(all) : NULL; at && done; at = json_object_iter_next(all, at)) {
    int64_t count = 0;
    value = json_object_iter_value(at);
    const char *name = arena_printf(arena, "%s", json_object_iter_key(at));
    done = flatten(value, NULL, &count, 0) || err_set(err, "%s: %s is no number and no array of numbers", path, name);
    NamedValues values = {name, path, ARENA_ARRAY(arena, double, count + 1), 0, 1};
    if (done) flatten(value, values.data, &values.elements, 0);
    if (json_is_array(value)) values.first = (int64_t)json_array_size(value);
    vector_push(list, values);
  }
  json_decref(all);
  return done;
}

static double element_of(const SafetensorsTensor *tensor, int64_t i) {
  switch (tensor->type) {
  case SAFETENSORS_F32: return (double)((const float *)tensor->data)[i];
  case SAFETENSORS_F64: return ((const double *)tensor->data)[i];
  case SAFETENSORS_I32: return ((const int32_t *)tensor->data)[i];
  case SAFETENSORS_I64: return (double)((const int64_t *)tensor->data)[i];
  case SAFETENSORS_U64: return (double)((const uint64_t *)tensor->data)[i];
  }
  return NAN;
}

static bool load_safetensors(const char *path, const char *data, size_t size, ValueList *list, Arena *arena, Err *err) {
  Safetensors *file = safetensors_parse(path, data, size, false, err);
  if (!file) return false;
  for (size_t t = 0; t < safetensors_count(file); t++) {
    const SafetensorsTensor *tensor = safetensors_at(file, t);
    NamedValues values = {arena_printf(arena, "%s", tensor->name), path, ARENA_ARRAY(arena, double, tensor->elements + 1),
                          tensor->elements, tensor->rank ? tensor->dims[0] : 1};
    for (int64_t i = 0; i < tensor->elements; i++) values.data[i] = element_of(tensor, i);
    vector_push(list, values);
  }
  safetensors_free(file);
  return true;
}

static bool load_values(const RunOptions *options, ValueList *list, Arena *arena, Err *err) {
  bool done = true;
  for (size_t i = 0; i < options->values.count && done; i++) {
    const char *path = options->values.data[i];
    size_t size, length = strlen(path), suffix = strlen(".safetensors");
    char *data;
    if (!file_read(path, LARGEST_FILE, &data, &size, err)) return false;
    bool tensors = length > suffix && !strcmp(path + length - suffix, ".safetensors");
    done = tensors ? load_safetensors(path, data, size, list, arena, err) : load_json(path, data, size, list, arena, err);
    free(data);
  }
  return done;
}

/* The last that was given of this name. */
static const NamedValues *find_values(const ValueList *list, const char *name) {
  for (size_t i = list->count; i-- > 0;)
    if (!strcmp(list->data[i].name, name)) return &list->data[i];
  return NULL;
}

/* ---- drawn values ---- */

typedef struct Draw {
  uint64_t state;
} Draw;

static Draw draw_of(int32_t seed, const char *name) {
  return (Draw){hash_u64(name, strlen(name)) + (uint64_t)seed};
}

static double draw_unit(Draw *draw) { /* splitmix64; in [0, 1) */
  uint64_t z = draw->state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* The fewest classes that an operation on these labels has; 1 where none reads them. */
static int32_t classes_of(const Graph *graph, ValueId labels) {
  int32_t classes = 0;
  for (size_t v = 0; v < graph->nodes.count; v++) {
    const GraphNode *node = &graph->nodes.data[v];
    bool loss = node->op == OP_CROSS_ENTROPY || node->op == OP_CROSS_ENTROPY_GRAD || node->op == OP_CORRECT;
    if (!loss || node->operands[node->operand_count - 1] != labels) continue;
    int32_t own = graph_type(graph, node->operands[node->operand_count - 2]).dims[0];
    if (!classes || own < classes) classes = own;
  }
  return classes ? classes : 1;
}

static void draw_input(const Graph *graph, ValueId input, int32_t seed, double *data, int64_t elements) {
  Type type = graph_type(graph, input);
  Draw draw = draw_of(seed, graph_node(graph, input)->attributes->name);
  int32_t classes = type.element == ELEMENT_I32 ? classes_of(graph, input) : 0;
  for (int64_t i = 0; i < elements; i++) {
    double unit = draw_unit(&draw);
    data[i] = classes ? floor(unit * classes) : type.batched ? 2 * unit - 1 : unit;
  }
}

static void draw_parameter(const Parameter *p, int32_t seed, double *data, int64_t elements) {
  Draw draw = draw_of(seed, p->name);
  for (int64_t i = 0; i < elements; i++)
    data[i] = p->init == INIT_CONSTANT ? p->init_value : p->init_value * (2 * draw_unit(&draw) - 1);
}

/* ---- a step's data ---- */

typedef struct StepRun {
  const RunOptions *options;
  Arena *arena;
  const Module *module;
  const Graph *step;
  ValueList values;
  int64_t batch;
  VECTOR(NamedTensor) inputs;
  double **parameters;
} StepRun;

static bool choose_step(StepRun *run, Err *err) {
  const Module *module = run->module;
  const char *name = run->options->step;
  bool only = !name && module->steps.count == 1;
  run->step = name ? module_find_step(module, name) : NULL;
  if (only) run->step = module->steps.data[0];
  if (only || run->step) return true;
  Text names = {0};
  for (size_t i = 0; i < module->steps.count; i++) text_printf(&names, "%s%s", i ? ", " : "", module->steps.data[i]->name);
  err_set(err, "%s: %s; the module has %s", run->options->file, name ? "there is no such step" : "no --step is given",
          names.data ? names.data : "none");
  text_free(&names);
  return false;
}

/* A name in a file that nothing has is a mistake. */
static bool check_names(const StepRun *run, Err *err) {
  for (size_t i = 0; i < run->values.count; i++) {
    const NamedValues *values = &run->values.data[i];
    bool found = module_find_parameter(run->module, values->name) >= 0;
    for (size_t s = 0; s < run->module->steps.count && !found; s++)
      for (size_t v = 0; v < run->module->steps.data[s]->nodes.count && !found; v++) {
        const GraphNode *node = graph_node(run->module->steps.data[s], (ValueId)v);
        found = node->op == OP_INPUT && !strcmp(node->attributes->name, values->name);
      }
    if (!found) return err_set(err, "%s: the module has no input and no parameter %s", values->path, values->name);
  }
  return true;
}

static void choose_batch(StepRun *run) {
  run->batch = run->options->batch;
  for (size_t v = 0; v < run->step->nodes.count && !run->batch; v++) {
    const GraphNode *node = &run->step->nodes.data[v];
    const NamedValues *values =
        node->op == OP_INPUT && node->type.batched ? find_values(&run->values, node->attributes->name) : NULL;
    if (values) run->batch = values->first;
  }
  if (!run->batch) run->batch = run->module->batch < USUAL_BATCH ? run->module->batch : USUAL_BATCH;
}

static bool check_size(const StepRun *run, Err *err) {
  double elements = 0;
  for (size_t v = 0; v < run->step->nodes.count; v++)
    elements += (double)type_elements(run->step->nodes.data[v].type, run->batch);
  for (size_t i = 0; i < run->module->parameters.count; i++)
    elements += (double)type_elements(run->module->parameters.data[i].type, 1);
  return elements <= most_elements || err_set(err, "the step %s has %.3g numbers at B = %lld; at most %.3g are interpreted",
                                              run->step->name, elements, (long long)run->batch, most_elements);
}

/* The values of `name` from the files, or null; false: they do not fit. */
static bool given(const StepRun *run, const char *name, Type type, int64_t elements, double **data, Err *err) {
  const NamedValues *values = find_values(&run->values, name);
  *data = values ? values->data : NULL;
  if (!values || values->elements == elements) return true;
  Text shape = {0};
  for (int d = 0; d < type.rank; d++) text_printf(&shape, "%s%d", d ? ", " : "", type.dims[d]);
  err_set(err, "%s: %s has %lld numbers where %lld are wanted, %s[%s%s]%s", values->path, name, (long long)values->elements,
          (long long)elements, type.element == ELEMENT_I32 ? "i32" : "f32", type.batched ? type.rank ? "B, " : "B" : "",
          shape.data ? shape.data : "", type.batched ? " with B images" : "");
  text_free(&shape);
  return false;
}

static bool fill_inputs(StepRun *run, Err *err) {
  for (size_t v = 0; v < run->step->nodes.count; v++) {
    const GraphNode *node = &run->step->nodes.data[v];
    if (node->op != OP_INPUT) continue;
    int64_t elements = type_elements(node->type, run->batch);
    double *data;
    if (!given(run, node->attributes->name, node->type, elements, &data, err)) return false;
    if (!data) {
      data = ARENA_ARRAY(run->arena, double, elements);
      draw_input(run->step, (ValueId)v, run->options->seed, data, elements);
    }
    vector_push(&run->inputs, ((NamedTensor){node->attributes->name, data}));
  }
  return true;
}

static bool fill_parameters(StepRun *run, Err *err) {
  size_t count = run->module->parameters.count;
  run->parameters = ARENA_ARRAY(run->arena, double *, count + 1);
  for (size_t i = 0; i < count; i++) {
    const Parameter *p = &run->module->parameters.data[i];
    int64_t elements = type_elements(p->type, 1);
    if (!given(run, p->name, p->type, elements, &run->parameters[i], err)) return false;
    if (run->parameters[i]) continue;
    run->parameters[i] = ARENA_ARRAY(run->arena, double, elements);
    draw_parameter(p, run->options->seed, run->parameters[i], elements);
  }
  return true;
}

/* ---- printing ---- */

static void print_tensor(const char *mark, const char *name, const double *data, int64_t elements, Text *out) {
  double squares = 0;
  text_printf(out, "%s%s =", mark, name);
  for (int64_t i = 0; i < elements; i++) squares += data[i] * data[i];
  for (int64_t i = 0; i < elements && i < SHOWN; i++) text_printf(out, " %.9g", data[i]);
  if (elements > SHOWN) text_printf(out, " ... (%lld numbers, norm %.9g)", (long long)elements, sqrt(squares));
  text_add(out, "\n");
}

/* JSON has no number for what is not finite. */
static json_t *json_tensor(const double *data, int64_t elements) {
  json_t *list = json_array();
  for (int64_t i = 0; i < elements; i++) json_array_append_new(list, isfinite(data[i]) ? json_real(data[i]) : json_null());
  return list;
}

static void print_run(const StepRun *run, const Interpretation *done, Text *out) {
  json_t *results = json_object(), *updates = json_object();
  for (size_t i = 0; i < run->step->results.count; i++) {
    int64_t elements;
    const char *name = run->step->results.data[i].name;
    const double *data = interpretation_result(done, name, &elements);
    if (run->options->json)
      json_object_set_new(results, name, json_tensor(data, elements));
    else
      print_tensor("", name, data, elements, out);
  }
  for (size_t i = 0; i < run->step->updates.count; i++) {
    int32_t index = run->step->updates.data[i].parameter;
    const Parameter *p = &run->module->parameters.data[index];
    if (run->options->json)
      json_object_set_new(updates, p->name, json_tensor(run->parameters[index], type_elements(p->type, 1)));
    else
      print_tensor("@", p->name, run->parameters[index], type_elements(p->type, 1), out);
  }
  json_t *all = json_pack("{s:s, s:I, s:o, s:o}", "step", run->step->name, "batch", (json_int_t)run->batch, "results", results,
                          "updates", updates);
  char *text = run->options->json ? json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
  if (text) text_printf(out, "%s\n", text);
  free(text);
  json_decref(all);
}

static bool run_step(StepRun *run, Err *err) {
  if (!choose_step(run, err) || !load_values(run->options, &run->values, run->arena, err) || !check_names(run, err)) return false;
  choose_batch(run);
  if (!check_size(run, err) || !fill_inputs(run, err) || !fill_parameters(run, err)) return false;
  Interpretation *done =
      graph_interpret_results(run->step, run->batch, run->inputs.data, run->inputs.count, run->parameters, err);
  if (!done) return err_wrap(err, "%s", run->options->file);
  Text text = {0};
  text_add(&text, "");
  print_run(run, done, &text);
  interpretation_free(done);
  bool written = driver_write(NULL, &text, err);
  text_free(&text);
  return written;
}

int command_run_ir(int count, char **arguments, Err *err) {
  RunOptions options = {0};
  argp_parse(&argp, count, arguments, 0, NULL, &options);
  Arena *arena = arena_new();
  Module *module = driver_load_module(options.file, arena, err);
  StepRun run = {.options = &options, .arena = arena, .module = module};
  bool done = module && run_step(&run, err);
  if (module) module_free_tables(module);
  vector_free(&run.inputs);
  vector_free(&run.values);
  vector_free(&options.values);
  arena_free(arena);
  return done ? STATUS_GOOD : STATUS_FAILED;
}
