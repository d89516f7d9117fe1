/* Every pass keeps the meaning: the interpreter before and after it, on random graphs over the whole table of operations and on
 * the examples' steps (with small images and few channels; the graphs are as large as they are); and the text of every stage
 * reads back to the same text. A failure names the seed. */
#include "tests/numeric/graph_bench.h"

#include "compiler/graph/graph_private.h"
#include "compiler/lower.h"
#include "dsl/dsl.h"

#include <stdio.h>

enum { GRAPHS = 500, FORWARD = 14, BEHIND = 12, MOST_PARAMETERS = 64, TRIES = 6 };

static const double tight = 1e-12, loose = 1e-9;

/* ---- random steps ---- */

/* A bench whose step also has parameters: weights, and the logits of one node. */
typedef struct Soup {
  Bench bench;
  double *parameters[MOST_PARAMETERS];
  VECTOR(ValueId) pool;
  ValueId probability; /* an element of the softmax of the logits */
  size_t unwanted;     /* bit i: no gradient is asked for by input i */
  uint64_t seed;
} Soup;

static uint64_t word(Soup *s) {
  return instance_word(&s->bench.random);
}

static void fill(Soup *s, double *data, int64_t count) {
  for (int64_t e = 0; e < count; e++) {
    double magnitude = 0.05 + 0.95 * instance_unit(&s->bench.random);
    data[e] = word(s) % 2 ? magnitude : -magnitude;
  }
}

static int32_t add_parameter(Soup *s, Type type, ParameterKind kind) {
  Module *module = s->bench.module;
  assert_true(module->parameters.count < MOST_PARAMETERS);
  const char *name = arena_printf(s->bench.arena, "p%zu", module->parameters.count);
  int32_t index = module_add_parameter(module, (Parameter){.name = name, .type = type, .kind = kind});
  s->parameters[index] = ARENA_ARRAY(s->bench.arena, double, type_elements(type, 1));
  fill(s, s->parameters[index], type_elements(type, 1));
  return index;
}

static ValueId weight(Soup *s, Type type) {
  return graph_parameter(s->bench.graph, add_parameter(s, type, PARAMETER_WEIGHT));
}

/* A value of the pool of this type, a constant (most often one that folds), a new parameter, or a new input. No constant images:
 * a normalisation that divides what rounding left of nothing by the root of 1e-5 has no digits to compare. */
static ValueId operand_of(Soup *s, Type type) {
  static const double constants[] = {0, 0, 1, 0.5};
  if (!type.batched && word(s) % 20 == 0) return graph_constant(s->bench.graph, constants[word(s) % 4], type);
  size_t begin = word(s) % s->pool.count;
  for (size_t i = 0; i < s->pool.count && word(s) % 16; i++) {
    ValueId v = s->pool.data[(begin + i) % s->pool.count];
    if (type_equal(graph_type(s->bench.graph, v), type)) return v;
  }
  bool parameter = !type.batched && word(s) % 2 && s->bench.module->parameters.count < MOST_PARAMETERS - 8;
  return parameter ? weight(s, type) : random_input(&s->bench, type);
}

/* An operand that the operation wants in a domain of its own: labels, variances, what stands under a root. */
static ValueId special_operand(Soup *s, const GraphInstance *in, int32_t i, uint64_t seed) {
  Bench *b = &s->bench;
  const char *name = arena_printf(b->arena, "in%zu", b->count);
  ValueId value = graph_input(b->graph, name, in->types[i]);
  s->unwanted |= (size_t)1 << b->count;
  graph_instance_data(in, i, b->batch, seed, bench_add(b, name, in->types[i], value));
  return value;
}

static int32_t fitting(const Soup *s, const GraphInstance *in) {
  int32_t count = 0;
  for (int32_t i = 0; i < in->count; i++)
    for (size_t v = 0; v < s->pool.count; v++)
      if (type_equal(graph_type(s->bench.graph, s->pool.data[v]), in->types[i])) {
        count++;
        break;
      }
  return count;
}

/* `op` on what there is: of a few instances the one whose operands the pool has most of. */
static void add_operation(Soup *s, OpCode op) {
  static const GraphInstanceLimits limits = {3, 4};
  Bench *b = &s->bench;
  GraphInstance best = {0};
  uint64_t best_seed = 0;
  for (int try = 0; try < TRIES; try++) {
    Graph *scratch = graph_new(b->module, "scratch");
    GraphInstance in;
    uint64_t seed = word(s) % 1000;
    graph_instance(op, seed, &limits, scratch, &in);
    if (try == 0 || fitting(s, &in) > fitting(s, &best)) best = in, best_seed = seed;
  }
  ValueId operands[GRAPH_INSTANCE_OPERANDS];
  if (b->count + (size_t)best.count > MOST_INPUTS - 8) return;
  for (int32_t i = 0; i < best.count; i++) {
    bool special = instance_is_positive(&best, i) || instance_is_moments(&best, i) || best.types[i].element == ELEMENT_I32;
    operands[i] = special ? special_operand(s, &best, i, best_seed) : operand_of(s, best.types[i]);
  }
  vector_push(&s->pool, graph_emit(b->graph, op, operands, best.count, &best.attributes));
}

/* A GeneratingBlock on the probability, without activation more often than not. */
static void add_block(Soup *s) {
  Graph *g = s->bench.graph;
  int32_t hidden = instance_integer(&s->bench.random, 1, 3), outputs = instance_integer(&s->bench.random, 1, 3);
  if (s->bench.module->parameters.count > MOST_PARAMETERS - 8) return;
  ValueId w = weight(s, instance_matrix(hidden, 1)), b = weight(s, instance_vector(hidden, false));
  ValueId h = graph_ternary(g, OP_LINEAR, s->probability, w, b);
  if (word(s) % 4 == 0) h = graph_unary(g, OP_RELU, h);
  w = weight(s, instance_matrix(outputs, hidden)), b = weight(s, instance_vector(outputs, false));
  vector_push(&s->pool, graph_ternary(g, OP_LINEAR, h, w, b));
}

/* A candidate as a node has it: normalised by its own moments, times a probability. */
static void add_candidate(Soup *s) {
  static const int32_t sides[3] = {2, 2, 2};
  Graph *g = s->bench.graph;
  Type type = type_tensor(3, sides, true);
  for (size_t i = 0; i < s->pool.count; i++) {
    Type own = graph_type(g, s->pool.data[i]);
    if (own.batched && own.rank == 3 && own.dims[1] * own.dims[2] > 2 && word(s) % 2) type = own;
  }
  vector_push(&s->pool, graph_binary(g, OP_SCALE, normalised(&s->bench, operand_of(s, type)), s->probability));
}

static bool is_differentiable(OpCode op) {
  return pass_autodiff_operands(op) != 0 && op_table[op].class != CLASS_MARK;
}

/* A sum over some of the pool, each element with a weight of its own. */
static ValueId add_loss(Soup *s) {
  Graph *g = s->bench.graph;
  ValueId loss = graph_constant(g, 0, type_scalar());
  for (int i = 0; i < 5; i++) {
    ValueId v = s->pool.data[s->pool.count - 1 - word(s) % (s->pool.count < 8 ? s->pool.count : 8)];
    loss = graph_binary(g, OP_ADD, loss, graph_binary(g, OP_DOT, v, random_input(&s->bench, graph_type(g, v))));
  }
  return loss;
}

static void add_gradients(Soup *s, ValueId loss) {
  Bench *b = &s->bench;
  Graph *g = b->graph;
  for (size_t i = 0; i < b->count; i++)
    if (!(s->unwanted >> i & 1)) vector_push(&s->pool, graph_binary(g, OP_GRADIENT, loss, b->values[i]));
  for (size_t i = 0; i < b->module->parameters.count; i++)
    vector_push(&s->pool, graph_binary(g, OP_GRADIENT, loss, graph_parameter(g, (int32_t)i)));
}

static void add_results(Soup *s) {
  for (size_t i = 0; i < s->pool.count; i++)
    if (i + 4 > s->pool.count || word(s) % 2)
      graph_result(s->bench.graph, arena_printf(s->bench.arena, "r%zu", i), s->pool.data[i]);
}

static Soup soup_new(uint64_t seed) {
  Soup s = {.bench = bench_new(seed), .seed = seed};
  Graph *g = s.bench.graph;
  int32_t alpha = add_parameter(&s, instance_vector(3, false), PARAMETER_ALPHA);
  ValueId probabilities = graph_unary(g, OP_SOFTMAX, graph_parameter(g, alpha));
  s.probability = graph_emit(g, OP_ELEMENT, &probabilities, 1, &(Attributes){.index = (int32_t)(word(&s) % 3)});
  vector_push(&s.pool, s.probability);
  for (int i = 0; i < FORWARD; i++) {
    OpCode op = (OpCode)(word(&s) % OP_COUNT);
    while (!is_differentiable(op)) op = (OpCode)(word(&s) % OP_COUNT);
    if (i % 5 == 2)
      add_block(&s);
    else if (i % 5 == 4)
      add_candidate(&s);
    else
      add_operation(&s, op);
  }
  ValueId loss = add_loss(&s);
  graph_result(g, "loss", loss);
  add_gradients(&s, loss);
  for (int i = 0; i < BEHIND; i++) {
    OpCode op = (OpCode)(OP_SOFTMAX + (int)(word(&s) % (OP_COUNT - OP_SOFTMAX)));
    add_operation(&s, op);
  }
  add_results(&s);
  ValueId gradient = graph_binary(g, OP_GRADIENT, loss, graph_parameter(g, alpha));
  graph_update(g, alpha,
               graph_ternary(g, OP_DESCEND, graph_parameter(g, alpha), gradient, graph_constant(g, 0.1, type_scalar())));
  return s;
}

static void soup_free(Soup *s) {
  vector_free(&s->pool);
  bench_free(&s->bench);
}

/* ---- before and after ---- */

/* The results of a step and the parameters behind it. */
typedef struct Outcome {
  Interpretation *run;
  double **parameters;
} Outcome;

/* Runs search_enter first where there is one. */
static Outcome run_step(const Graph *step, int64_t batch, const NamedTensor *inputs, size_t count, double *const *given,
                        size_t given_count, Arena *arena) {
  const Module *module = step->module;
  Outcome out = {.parameters = ARENA_ARRAY(arena, double *, module->parameters.count)};
  Err err;
  for (size_t i = 0; i < module->parameters.count; i++) {
    int64_t elements = type_elements(module->parameters.data[i].type, 1);
    out.parameters[i] = ARENA_ARRAY(arena, double, elements);
    if (i < given_count) memcpy(out.parameters[i], given[i], (size_t)elements * sizeof(double));
  }
  const Graph *enter = module_find_step(module, "search_enter");
  if (enter) {
    Interpretation *entered = graph_interpret_results(enter, batch, NULL, 0, out.parameters, &err);
    if (!entered) fail_msg("%s", err.text);
    interpretation_free(entered);
  }
  out.run = graph_interpret_results(step, batch, inputs, count, out.parameters, &err);
  if (!out.run) fail_msg("%s", err.text);
  return out;
}

/* In norm; what is not finite before says nothing. */
static void check_close(const char *what, const char *name, const double *x, const double *y, int64_t elements, double bound) {
  double difference = 0, size = 0;
  for (int64_t e = 0; e < elements; e++) {
    if (!isfinite(x[e])) return;
    difference += (x[e] - y[e]) * (x[e] - y[e]), size += x[e] * x[e];
  }
  if (!(sqrt(difference) <= bound * (1 + sqrt(size))))
    fail_msg("%s: %s differs by %g of %g", what, name, sqrt(difference), sqrt(size));
}

static void check_same(const char *what, const Graph *step, const Outcome *one, const Outcome *two, size_t parameters,
                       double bound) {
  const Module *module = step->module;
  for (size_t r = 0; r < step->results.count; r++) {
    const char *name = step->results.data[r].name;
    int64_t elements, same;
    const double *x = interpretation_result(one->run, name, &elements), *y = interpretation_result(two->run, name, &same);
    if (!x || !y || elements != same) fail_msg("%s: the result %s is not there, or another size", what, name);
    check_close(what, name, x, y, elements, bound);
  }
  for (size_t i = 0; i < parameters; i++)
    check_close(what, module->parameters.data[i].name, one->parameters[i], two->parameters[i],
                type_elements(module->parameters.data[i].type, 1), bound);
}

static void check_text(const char *what, const Module *module) {
  Arena *arena = arena_new();
  Text first = {0}, second = {0};
  Err err;
  module_print(module, &first);
  Module *again = module_parse(first.data, first.length, arena, &err);
  if (!again) fail_msg("%s: the print does not parse: %s", what, err.text);
  module_print(again, &second);
  if (strcmp(first.data, second.data) != 0) fail_msg("%s: two prints differ", what);
  module_free_tables(again);
  text_free(&first);
  text_free(&second);
  arena_free(arena);
}

static double bound_of(int pass) {
  return pass == PASS_hoist ? loose : tight;
}

/* The module's first step, which has its gradients, before and after `pass`. False: the pass cannot take it. */
static bool check_pass(Soup *s, int pass) {
  Bench *b = &s->bench;
  Module *module = b->module;
  const char *what = arena_printf(b->arena, "seed %d, %s", (int)s->seed, pass_table[pass].name);
  size_t parameters = module->parameters.count;
  const Graph *before = module->steps.data[0];
  double **all = ARENA_ARRAY(b->arena, double *, parameters);
  for (size_t i = 0; i < parameters; i++)
    all[i] = i < MOST_PARAMETERS && s->parameters[i]
                 ? s->parameters[i]
                 : ARENA_ARRAY(b->arena, double, type_elements(module->parameters.data[i].type, 1));
  Outcome one = run_step(before, b->batch, b->inputs, b->count, all, parameters, b->arena);
  Err err;
  bool ran = passes_run(module, &pass, 1, NULL, NULL, &err);
  if (ran) {
    check_text(what, module);
    Outcome two = run_step(module->steps.data[0], b->batch, b->inputs, b->count, all, parameters, b->arena);
    check_same(what, before, &one, &two, parameters, bound_of(pass));
    interpretation_free(two.run);
  }
  interpretation_free(one.run);
  return ran;
}

/* autodiff: whether algebra comes before it or behind it does not matter, and what is no gradient stays. */
static void check_autodiff(Soup *s) {
  Bench *b = &s->bench;
  const char *what = arena_printf(b->arena, "seed %d, autodiff", (int)s->seed);
  Err err;
  if (!pass_autodiff_ready(b->graph, &err)) fail_msg("%s: %s", what, err.text);
  check_text(what, b->module);
  Graph *plain = pass_autodiff(b->graph), *simple = pass_autodiff(pass_simplify(b->graph));
  check_verified(plain);
  check_verified(simple);
  size_t parameters = b->module->parameters.count;
  Outcome one = run_step(plain, b->batch, b->inputs, b->count, s->parameters, parameters, b->arena);
  Outcome two = run_step(simple, b->batch, b->inputs, b->count, s->parameters, parameters, b->arena);
  check_same(what, plain, &one, &two, parameters, tight);
  interpretation_free(one.run);
  interpretation_free(two.run);
  b->module->steps.data[0] = plain;
}

/* The graph as a text could have it: nothing folded, nothing shared, and some of its vectors and numbers constants. */
static Graph *unfolded(Soup *s, const Graph *graph) {
  static const double constants[] = {0, 0, 1, 0.5};
  Graph *out = graph_new(graph->module, graph->name);
  ValueId *map = ARENA_ARRAY(s->bench.arena, ValueId, graph->nodes.count);
  for (size_t v = 0; v < graph->nodes.count; v++) {
    const GraphNode *node = &graph->nodes.data[v];
    ValueId *operands = ARENA_ARRAY(s->bench.arena, ValueId, node->operand_count);
    for (int32_t i = 0; i < node->operand_count; i++) {
      Type type = graph_type(graph, node->operands[i]);
      Attributes constant = {.value = constants[word(s) % 4], .shape = type};
      bool leaf = op_table[graph_node(graph, node->operands[i])->op].class == CLASS_LEAF;
      operands[i] = leaf && !type.batched && word(s) % 8 == 0 ? graph_append(out, OP_CONST, NULL, 0, &constant, type)
                                                              : map[node->operands[i]];
    }
    map[v] = graph_append(out, node->op, operands, node->operand_count, node->attributes, node->type);
  }
  for (size_t i = 0; i < graph->results.count; i++)
    graph_result(out, graph->results.data[i].name, map[graph->results.data[i].value]);
  for (size_t i = 0; i < graph->updates.count; i++)
    graph_update(out, graph->updates.data[i].parameter, map[graph->updates.data[i].value]);
  check_verified(out);
  return out;
}

static void random_graphs(void **state) {
  (void)state;
  int hoisted = 0, laid_out = 0, seen[OP_COUNT] = {0};
  for (uint64_t seed = 0; seed < GRAPHS; seed++) {
    Soup s = soup_new(seed);
    check_autodiff(&s);
    const Graph *plain = s.bench.module->steps.data[0];
    for (size_t v = 0; v < plain->nodes.count; v++) seen[plain->nodes.data[v].op]++;
    s.bench.module->steps.data[0] = unfolded(&s, plain);
    assert_true(check_pass(&s, PASS_simplify));
    assert_true(check_pass(&s, PASS_hoist));
    hoisted += module_find_step(s.bench.module, "search_enter") != NULL;
    assert_true(check_pass(&s, PASS_simplify));
    assert_true(check_pass(&s, PASS_sums));
    laid_out += check_pass(&s, PASS_layout);
    soup_free(&s);
  }
  for (int op = OP_SOFTMAX; op < OP_COUNT; op++)
    if (seen[op] < GRAPHS / 20) fail_msg("%s stands in %d random graphs only", op_table[op].text, seen[op]);
  print_message("%d of %d graphs had something to hoist, %d had layouts\n", hoisted, GRAPHS, laid_out);
  assert_true(hoisted > GRAPHS / 2 && laid_out > GRAPHS / 20);
}

/* ---- the examples ---- */

typedef struct Example {
  Arena *arena;
  const Model *model;
  Module *module;
  VECTOR(double *) parameters;
  const char *name;
} Example;

static Example example_new(const char *name) {
  static const char *const settings[] = {"data.format=synthetic", "data.image=3 x 8 x 8", "hypernetwork.channels=2",
                                         "search.batch=2"};
  Example e = {.arena = arena_new(), .name = name};
  Diagnostics diagnostics = {0};
  const char *path = arena_printf(e.arena, "%s/examples/%s.adwp", ADWP_SOURCE_DIR, name);
  DslOptions options = {.settings = settings, .setting_count = sizeof settings / sizeof *settings};
  e.model = dsl_load(path, &options, e.arena, &diagnostics);
  if (!e.model) fail_msg("%s", diagnostics.out.data);
  text_free(&diagnostics.out);
  e.module = lower_steps(e.model, STEP_TRAIN | STEP_SEARCH | STEP_CROSS | STEP_EVAL | STEP_GRADIENT, NULL, e.arena);
  for (size_t i = 0; i < e.module->parameters.count; i++) {
    const Parameter *p = &e.module->parameters.data[i];
    InstanceRandom random = {.state = i};
    double *data = ARENA_ARRAY(e.arena, double, type_elements(p->type, 1));
    for (int64_t k = 0; k < type_elements(p->type, 1); k++) {
      double unit = instance_unit(&random);
      data[k] = p->kind == PARAMETER_ADAM_SQUARE ? unit : (2 * unit - 1) * (p->init == INIT_UNIFORM ? p->init_value : 1);
    }
    vector_push(&e.parameters, data);
  }
  return e;
}

static void example_free(Example *e) {
  vector_free(&e->parameters);
  module_free_tables(e->module);
  arena_free(e->arena);
}

static Outcome run_example(const Example *e, const char *step) {
  enum { IMAGES = 2, PIXELS = IMAGES * 3 * 8 * 8 };
  double x[PIXELS], y[IMAGES] = {1, 4}, rate = 0.1, corrections[3] = {0.01, 0.5, 0.001};
  InstanceRandom random = {.state = 5};
  for (int i = 0; i < PIXELS; i++) x[i] = 4 * instance_unit(&random) - 2;
  const NamedTensor inputs[] = {{"x", x}, {"y", y}, {"rate", &rate}, {"alpha.corrections", corrections}};
  return run_step(module_find_step(e->module, step), IMAGES, inputs, 4, e->parameters.data, e->parameters.count, e->arena);
}

/* All passes in the compiler's order; `each`: the step runs after each of them and not only before the first and after the last.
 */
static void check_example(const char *name, const char *const *steps, size_t step_count, bool each) {
  static const int passes[] = {PASS_autodiff, PASS_simplify, PASS_hoist, PASS_sums, PASS_layout};
  enum { PASSES = sizeof passes / sizeof *passes };
  Example e = example_new(name);
  Outcome before[8] = {{0}};
  size_t parameters = e.module->parameters.count;
  check_text(name, e.module);
  for (int p = 0; p < PASSES; p++) {
    Err err;
    if (!passes_run(e.module, &passes[p], 1, NULL, NULL, &err)) fail_msg("%s: %s", name, err.text);
    const char *what = arena_printf(e.arena, "%s, %s", name, pass_table[passes[p]].name);
    check_text(what, e.module);
    if (p > 0 && p < PASSES - 1 && !each) continue;
    for (size_t i = 0; i < step_count; i++) {
      Outcome after = run_example(&e, steps[i]);
      if (before[i].run) {
        check_same(arena_printf(e.arena, "%s, %s", what, steps[i]), module_find_step(e.module, steps[i]), &before[i], &after,
                   parameters, each ? bound_of(passes[p]) : loose);
        interpretation_free(before[i].run);
      }
      before[i] = after;
    }
  }
  for (size_t i = 0; i < step_count; i++) interpretation_free(before[i].run);
  example_free(&e);
}

static const char *const all_steps[] = {"train_step", "search_step", "cross_step", "eval", "gradient_step"};

static void tiny_after_each_pass(void **state) {
  (void)state;
  check_example("tiny", all_steps, 5, true);
}

static void the_papers_8_cells(void **state) {
  (void)state;
  check_example("cifar10-8", all_steps, 4, false);
}

static void the_papers_14_cells(void **state) {
  (void)state;
  check_example("cifar10-14", &all_steps[3], 1, false);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_graphs),
      cmocka_unit_test(tiny_after_each_pass),
      cmocka_unit_test(the_papers_8_cells),
      cmocka_unit_test(the_papers_14_cells),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
