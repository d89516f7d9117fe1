/* lower: names, shapes and first values of parameters, what each step holds and what its gates keep out of it, discrete
 * architectures, and that simplify leaves the meaning of whole steps alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "compiler/lower.h"
#include "compiler/pass/pass.h"
#include "dsl/dsl.h"
#include "tests/unit/graph_instances.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char small_text[] = "import \"darts.adwp\"\n"
                                 "data images { format synthetic image 3 x 8 x 8 classes 5 }\n"
                                 "generator predict = softmax -> fc(3) -> fc(weights)\n"
                                 "intensive kept of darts keep 3 {\n"
                                 "    normal {\n"
                                 "        node 2: sep_conv_3x3(0), identity(0), max_pool_3x3(1)\n"
                                 "        node 3: dil_conv_5x5(1), zero(0), identity(2)\n"
                                 "    }\n"
                                 "    reduction {\n"
                                 "        node 2: sep_conv_5x5(0), identity(1), avg_pool_3x3(0)\n"
                                 "        node 3: dil_conv_3x3(0), sep_conv_3x3(2), zero(1)\n"
                                 "    }\n"
                                 "}\n"
                                 "hypernetwork net {\n"
                                 "    stem conv(3, 3*C) -> bn(affine)\n"
                                 "    cells 2 of kept, channels C = 4, reduction at 1/2\n"
                                 "    predict conv weights by predict\n"
                                 "}\n"
                                 "search net on images { batch 3 }\n";

enum { ALL_STEPS = STEP_TRAIN | STEP_SEARCH | STEP_CROSS | STEP_EVAL | STEP_GRADIENT };

/* A model, lowered, with its parameters at random values. */
typedef struct Fixture {
  Arena *arena;
  const Model *model;
  Module *module;
  double **parameters;
} Fixture;

static double **random_parameters(const Module *module, Arena *arena) {
  double **data = ARENA_ARRAY(arena, double *, module->parameters.count);
  for (size_t i = 0; i < module->parameters.count; i++) {
    const Parameter *p = &module->parameters.data[i];
    InstanceRandom random = {.state = 0};
    for (const char *c = p->name; *c; c++) random.state = random.state * 31 + (uint64_t)*c; /* the same in every module */
    data[i] = ARENA_ARRAY(arena, double, type_elements(p->type, 1));
    for (int64_t e = 0; e < type_elements(p->type, 1); e++) {
      double unit = instance_unit(&random);
      data[i][e] = p->kind == PARAMETER_ADAM_SQUARE ? unit : 2 * unit - 1;
    }
  }
  return data;
}

static Fixture fixture_new(const char *text, unsigned steps) {
  Fixture f = {.arena = arena_new()};
  Diagnostics diagnostics = {0};
  f.model = dsl_load_text("small.adwp", text, strlen(text), NULL, f.arena, &diagnostics);
  if (!f.model) fail_msg("%s", diagnostics.out.data);
  text_free(&diagnostics.out);
  f.module = lower_model(f.model, steps, NULL, f.arena);
  f.parameters = random_parameters(f.module, f.arena);
  return f;
}

static void fixture_free(Fixture *f) {
  module_free_tables(f->module);
  arena_free(f->arena);
}

static const Parameter *parameter(const Fixture *f, const char *name) {
  int32_t i = module_find_parameter(f->module, name);
  if (i < 0) fail_msg("no parameter %s", name);
  return &f->module->parameters.data[i];
}

static int count_of(const Graph *graph, OpCode op) {
  int count = 0;
  for (size_t v = 0; v < graph->nodes.count; v++) count += graph->nodes.data[v].op == op;
  return count;
}

/* ---- parameters ---- */

static void check_parameter(const Fixture *f, const char *name, Type type, double uniform) {
  const Parameter *p = parameter(f, name);
  if (!type_equal(p->type, type)) fail_msg("%s has another type", name);
  if (fabs(p->init_value - uniform) > 1e-15) fail_msg("%s starts with %g and not %g", name, p->init_value, uniform);
  assert_int_equal(p->kind, PARAMETER_WEIGHT);
}

static Type weights_type(int32_t out, int32_t in, int32_t side) {
  return type_tensor(4, (int32_t[]){out, in, side, side}, false);
}

static void parameters_of_a_model(void **state) {
  (void)state;
  Fixture f = fixture_new(small_text, ALL_STEPS);
  check_parameter(&f, "stem.conv1.weight", weights_type(12, 3, 3), 1 / sqrt(27));
  check_parameter(&f, "stem.bn1.scale", instance_vector(12, false), 1);
  check_parameter(&f, "stem.bn1.shift", instance_vector(12, false), 0);
  check_parameter(&f, "cells.0.pre0.pw1.weight", weights_type(4, 12, 1), 1 / sqrt(12));
  check_parameter(&f, "cells.0.nodes.0.0.dw1.fc1.weight", instance_matrix(3, 1), 1);
  check_parameter(&f, "cells.0.nodes.0.0.dw1.fc1.bias", instance_vector(3, false), 1);
  check_parameter(&f, "cells.0.nodes.0.0.dw2.fc2.weight", instance_matrix(36, 3), 1 / sqrt(3));
  check_parameter(&f, "cells.1.nodes.1.1.pw2.fc2.bias", instance_vector(64, false), 1 / sqrt(3));
  check_parameter(&f, "cells.1.nodes.0.1.pw2.weight", weights_type(4, 8, 1), 1 / sqrt(8));
  check_parameter(&f, "head.linear1.weight", instance_matrix(5, 16), 0.25);
  check_parameter(&f, "head.linear1.bias", instance_vector(5, false), 0.25);
  assert_true(type_equal(parameter(&f, "cells.0.nodes.0.0.dw1.fc2.weight")->generates, weights_type(4, 1, 3)));
  assert_true(type_equal(parameter(&f, "cells.1.nodes.0.0.pw1.fc2.bias")->generates, weights_type(8, 8, 1)));
  assert_int_equal(parameter(&f, "cells.0.nodes.0.0.dw1.fc1.weight")->generates.rank, 0);
  assert_int_equal(parameter(&f, "stem.bn1.scale")->init, INIT_CONSTANT);
  assert_int_equal(parameter(&f, "alpha.1.1")->kind, PARAMETER_ALPHA);
  assert_int_equal(parameter(&f, "momentum.head.linear1.bias")->kind, PARAMETER_MOMENTUM);
  assert_int_equal(parameter(&f, "adam_mean.alpha.0.1")->kind, PARAMETER_ADAM_MEAN);
  assert_int_equal(parameter(&f, "adam_square.alpha.0.1")->kind, PARAMETER_ADAM_SQUARE);
  assert_int_equal(f.module->batch, 3);
  fixture_free(&f);
}

/* The optimizer's state exists only for steps that use it. */
static void parameters_of_some_steps(void **state) {
  (void)state;
  Fixture f = fixture_new(small_text, STEP_EVAL);
  for (size_t i = 0; i < f.module->parameters.count; i++)
    assert_true(f.module->parameters.data[i].kind == PARAMETER_WEIGHT || f.module->parameters.data[i].kind == PARAMETER_ALPHA);
  assert_int_equal(f.module->steps.count, 1);
  fixture_free(&f);
}

/* ---- steps and gates ---- */

static int updates_of(const Graph *step, ParameterKind kind) {
  int count = 0;
  for (size_t i = 0; i < step->updates.count; i++)
    count += step->module->parameters.data[step->updates.data[i].parameter].kind == kind;
  return count;
}

static int parameters_of(const Module *module, ParameterKind kind) {
  int count = 0;
  for (size_t i = 0; i < module->parameters.count; i++) count += module->parameters.data[i].kind == kind;
  return count;
}

static void check_step(const Fixture *f, const char *name, bool weights, bool alpha) {
  const Graph *step = module_find_step(f->module, name);
  int w = weights ? parameters_of(f->module, PARAMETER_WEIGHT) : 0, a = alpha ? parameters_of(f->module, PARAMETER_ALPHA) : 0;
  assert_int_equal(updates_of(step, PARAMETER_WEIGHT), w);
  assert_int_equal(updates_of(step, PARAMETER_MOMENTUM), w);
  assert_int_equal(updates_of(step, PARAMETER_ALPHA), a);
  assert_int_equal(updates_of(step, PARAMETER_ADAM_MEAN), a);
  assert_int_equal(updates_of(step, PARAMETER_ADAM_SQUARE), a);
  assert_int_equal(count_of(step, OP_SOFTMAX_GRAD), a);
  assert_int_equal(count_of(step, OP_CLIP), weights);
  assert_int_equal(count_of(step, OP_CHANNEL_DOT), weights); /* the stem's BN */
  if (!weights) assert_int_equal(count_of(step, OP_BATCH_SUM), 0);
  if (!weights) assert_int_equal(count_of(step, OP_LINEAR_GRAD_WEIGHT), 0);
}

static void check_results(const Fixture *f, const char *step, const char *const *names, size_t count) {
  const Graph *graph = module_find_step(f->module, step);
  assert_int_equal(graph->results.count, count);
  for (size_t i = 0; i < count; i++) assert_string_equal(graph->results.data[i].name, names[i]);
}

static void results(void **state) {
  (void)state;
  Fixture f = fixture_new(small_text, ALL_STEPS);
  check_results(&f, "train_step", (const char *[]){"loss", "correct", "norm"}, 3);
  check_results(&f, "search_step", (const char *[]){"loss", "correct"}, 2);
  check_results(&f, "cross_step", (const char *[]){"loss", "correct", "norm"}, 3);
  check_results(&f, "eval", (const char *[]){"losses", "correct", "logits"}, 3);
  const Graph *gradients = module_find_step(f.module, "gradient_step");
  int trained = parameters_of(f.module, PARAMETER_WEIGHT) + parameters_of(f.module, PARAMETER_ALPHA);
  assert_int_equal(gradients->results.count, 2 + trained);
  assert_int_equal(gradients->updates.count, 0);
  fixture_free(&f);
}

static void gates(void **state) {
  (void)state;
  Fixture f = fixture_new(small_text, ALL_STEPS);
  check_step(&f, "train_step", true, false);
  check_step(&f, "search_step", false, true);
  check_step(&f, "cross_step", true, true);
  check_step(&f, "eval", false, false);
  const Graph *eval = module_find_step(f.module, "eval");
  for (size_t v = 0; v < eval->nodes.count; v++) assert_null(strstr(op_table[eval->nodes.data[v].op].text, "_grad"));
  fixture_free(&f);
}

/* Operations that begin alike share the beginning: one relu of a cell's input, whoever reads it. */
static void shared_prefixes(void **state) {
  (void)state;
  Fixture f = fixture_new(small_text, STEP_EVAL);
  const Graph *eval = module_find_step(f.module, "eval");
  for (size_t v = 0; v < eval->nodes.count; v++)
    for (size_t u = 0; u < v; u++)
      if (eval->nodes.data[v].op == OP_RELU && eval->nodes.data[u].op == OP_RELU)
        assert_int_not_equal(eval->nodes.data[v].operands[0], eval->nodes.data[u].operands[0]);
  fixture_free(&f);
}

/* ---- running ---- */

static Interpretation *run(const Fixture *f, const Graph *step, double *const *parameters) {
  enum { BATCH = 2 };
  double y[BATCH] = {1, 4}, rate = 0.1, corrections[3] = {0.01, 0.5, 0.001};
  Shape image = f->model->data.image;
  size_t pixels = (size_t)(BATCH * image.channels * image.height * image.width);
  double *x = memory_alloc(pixels * sizeof *x);
  InstanceRandom random = {.state = 5};
  for (size_t i = 0; i < pixels; i++) x[i] = 4 * instance_unit(&random) - 2;
  const NamedTensor inputs[] = {{"x", x}, {"y", y}, {"rate", &rate}, {"alpha.corrections", corrections}};
  Err err;
  Interpretation *result = graph_interpret_results(step, BATCH, inputs, 4, parameters, &err);
  if (!result) fail_msg("%s", err.text);
  free(x);
  return result;
}

static void check_close(const char *name, const double *a, const double *b, int64_t elements) {
  double difference = 0, size = 0;
  for (int64_t e = 0; e < elements; e++) difference += (a[e] - b[e]) * (a[e] - b[e]), size += a[e] * a[e];
  if (!(sqrt(difference) <= 1e-12 * (sqrt(size) + 1))) fail_msg("%s differs by %g of %g", name, sqrt(difference), sqrt(size));
}

static void check_same_step(const Fixture *f, const Graph *before, const Graph *after) {
  double **one = random_parameters(f->module, f->arena), **two = random_parameters(f->module, f->arena);
  Interpretation *first = run(f, before, one), *second = run(f, after, two);
  assert_int_equal(before->results.count, after->results.count);
  for (size_t r = 0; r < before->results.count; r++) {
    int64_t elements, same;
    const char *name = before->results.data[r].name;
    const double *a = interpretation_result(first, name, &elements), *b = interpretation_result(second, name, &same);
    assert_int_equal(elements, same);
    check_close(name, a, b, elements);
  }
  for (size_t i = 0; i < f->module->parameters.count; i++)
    check_close(f->module->parameters.data[i].name, one[i], two[i], type_elements(f->module->parameters.data[i].type, 1));
  interpretation_free(first);
  interpretation_free(second);
}

/* The outer products that are the generators' gradients go to the optimizer and nowhere else. */
static void check_outer_products(const Graph *step) {
  for (size_t v = 0; v < step->nodes.count; v++) {
    const GraphNode *node = &step->nodes.data[v];
    for (int32_t i = 0; i < node->operand_count; i++) {
      const GraphNode *x = graph_node(step, node->operands[i]);
      if (x->op == OP_LINEAR_GRAD_WEIGHT && !graph_type(step, x->operands[0]).batched) assert_int_equal(node->op, OP_MOMENTUM);
    }
  }
}

static void simplified_steps_of(const Fixture *f) {
  for (size_t i = 0; i < f->module->steps.count; i++) {
    const Graph *step = f->module->steps.data[i], *clean = pass_simplify(step);
    Err err;
    if (!graph_verify(step, &err) || !graph_verify(clean, &err)) fail_msg("%s: %s", step->name, err.text);
    check_outer_products(clean);
    check_same_step(f, step, clean);
  }
}

static void simplified_steps(void **state) {
  (void)state;
  Fixture f = fixture_new(small_text, ALL_STEPS);
  simplified_steps_of(&f);
  fixture_free(&f);
}

static void simplified_example(void **state) {
  (void)state;
  Fixture f = {.arena = arena_new()};
  Diagnostics diagnostics = {0};
  f.model = dsl_load(ADWP_SOURCE_DIR "/examples/tiny.adwp", NULL, f.arena, &diagnostics);
  if (!f.model) fail_msg("%s", diagnostics.out.data);
  text_free(&diagnostics.out);
  f.module = lower_model(f.model, STEP_CROSS, NULL, f.arena);
  simplified_steps_of(&f);
  fixture_free(&f);
}

/* ---- discrete architectures ---- */

/* A kept set gives what the whole model gives where the logits of the kept are equal and the others' are hopeless. */
static void architectures(void **state) {
  (void)state;
  Fixture f = fixture_new(small_text, STEP_EVAL);
  bool kept[2 * 2 * 3] = {1, 1, 0, /**/ 0, 1, 1, /**/ 1, 0, 1, /**/ 0, 1, 0};
  Module *discrete = lower_model(f.model, STEP_EVAL, &(Architecture){2, 2, 3, kept}, f.arena);
  double **own = random_parameters(discrete, f.arena);
  assert_int_equal(parameters_of(discrete, PARAMETER_ALPHA), 0);
  assert_true(module_find_parameter(discrete, "cells.0.nodes.1.0.dw1.fc1.weight") < 0);
  for (int node = 0; node < 4; node++) {
    char name[32];
    snprintf(name, sizeof name, "alpha.%d.%d", node / 2, node % 2);
    double *alpha = f.parameters[module_find_parameter(f.module, name)];
    for (int k = 0; k < 3; k++) alpha[k] = kept[3 * node + k] ? 0.25 : -1e6;
  }
  Interpretation *whole = run(&f, module_find_step(f.module, "eval"), f.parameters);
  Interpretation *part = run(&f, module_find_step(discrete, "eval"), own);
  int64_t elements;
  const double *ours = interpretation_result(part, "logits", &elements);
  check_close("logits", interpretation_result(whole, "logits", &elements), ours, elements);
  interpretation_free(whole);
  interpretation_free(part);
  module_free_tables(discrete);
  fixture_free(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(parameters_of_a_model),
      cmocka_unit_test(parameters_of_some_steps),
      cmocka_unit_test(results),
      cmocka_unit_test(gates),
      cmocka_unit_test(shared_prefixes),
      cmocka_unit_test(simplified_steps),
      cmocka_unit_test(simplified_example),
      cmocka_unit_test(architectures),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
