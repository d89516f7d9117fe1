/* lower: walks the checked Model once a step and emits the paper's chain, operation by operation; then marks for the gradients,
 * and the optimizer, that this step's gates leave open. Nothing here is clever: equal prefixes (the ReLU of one source, say) are
 * shared by value numbering, and what could be simpler is the passes' business.
 *
 * Parameters are declared where they are met for the first time; every step walks the same model, so all steps agree on them, and
 * their order in the module is that of the walk, the optimizer's state last. `w_G` is every PARAMETER_WEIGHT: generators and
 * ordinary weights together. The model was checked: what does not fit here is a bug. */
#include "compiler/lower.h"

#include "compiler/pass/pass.h"

#include <math.h>
#include <string.h>

typedef struct Lowering {
  const Model *model;
  const Architecture *architecture; /* null: all candidates, continuous */
  Module *module;
} Lowering;

/* Where a chain stands. */
typedef struct Place {
  const Lowering *lowering;
  Graph *graph;
  const char *prefix;  /* of its parameters' names: "cells.0.nodes.1.2." */
  ValueId probability; /* p_k, what the GeneratingBlocks of this place read; NO_VALUE: generated weights have no business here */
} Place;

/* What a step has computed when the optimizer begins. */
typedef struct Forward {
  ValueId logits, losses, correct, loss;
} Forward;

/* ---- parameters ---- */

static Type vector_type(int32_t n) {
  return type_tensor(1, &n, false);
}

static Type matrix_type(int32_t rows, int32_t columns) {
  return type_tensor(2, (int32_t[]){rows, columns}, false);
}

static Type image_type(Shape shape) {
  return type_tensor(3, (int32_t[]){shape.channels, shape.height, shape.width}, true);
}

/* The index of the parameter PREFIX SUFFIX, declared now unless an earlier step has done it. */
static int32_t declare(Module *module, const char *prefix, const char *suffix, Parameter parameter) {
  const char *name = arena_printf(module->arena, "%s%s", prefix, suffix);
  int32_t known = module_find_parameter(module, name);
  if (known >= 0) return known;
  parameter.name = name;
  return module_add_parameter(module, parameter);
}

static ValueId parameter_value(const Place *place, const char *stage, const char *suffix, Parameter parameter) {
  const char *name = arena_printf(place->graph->arena, "%s.%s", stage, suffix);
  return graph_parameter(place->graph, declare(place->lowering->module, place->prefix, name, parameter));
}

/* Uniform +-1/sqrt(fan_in), as every weight and bias starts. */
static Parameter uniform(Type type, int64_t fan_in) {
  return (Parameter){.type = type, .kind = PARAMETER_WEIGHT, .init = INIT_UNIFORM, .init_value = 1 / sqrt((double)fan_in)};
}

static Parameter constant(Type type, double value, ParameterKind kind) {
  return (Parameter){.type = type, .kind = kind, .init = INIT_CONSTANT, .init_value = value};
}

/* ---- primitives ---- */

/* Eq. 8: p_k -> fc1 (hidden, 1) -> [relu] -> fc2 (elements of the weight, hidden) -> the convolution's weight. */
static ValueId generated_weight(const Place *place, const Stage *stage, Type shape) {
  Graph *graph = place->graph;
  if (place->probability == NO_VALUE) die("%s%s: a generated weight outside a node", place->prefix, stage->name);
  int32_t hidden = place->lowering->model->generator.hidden, outputs = (int32_t)type_elements(shape, 1);
  Parameter weight = uniform(matrix_type(outputs, hidden), hidden), bias = uniform(vector_type(outputs), hidden);
  weight.generates = bias.generates = shape;
  ValueId first = parameter_value(place, stage->name, "fc1.weight", uniform(matrix_type(hidden, 1), 1));
  ValueId first_bias = parameter_value(place, stage->name, "fc1.bias", uniform(vector_type(hidden), 1));
  ValueId value = graph_ternary(graph, OP_LINEAR, place->probability, first, first_bias);
  if (place->lowering->model->generator.activation == ACTIVATION_RELU) value = graph_unary(graph, OP_RELU, value);
  ValueId second = parameter_value(place, stage->name, "fc2.weight", weight);
  ValueId second_bias = parameter_value(place, stage->name, "fc2.bias", bias);
  value = graph_ternary(graph, OP_LINEAR, value, second, second_bias);
  return graph_emit(graph, OP_RESHAPE, &value, 1, &(Attributes){.shape = shape});
}

static Window window_of(const Stage *s) {
  return (Window){s->kernel_y, s->kernel_x, s->stride_y, s->stride_x, s->dilation, s->pad_y, s->pad_x, s->groups};
}

static ValueId lower_conv(const Place *place, const Stage *stage, ValueId x) {
  int32_t inputs = stage->in.channels / stage->groups;
  Type shape = type_tensor(4, (int32_t[]){stage->out.channels, inputs, stage->kernel_y, stage->kernel_x}, false);
  int64_t fan_in = (int64_t)inputs * stage->kernel_y * stage->kernel_x;
  ValueId weight = stage->generated ? generated_weight(place, stage, shape)
                                    : parameter_value(place, stage->name, "weight", uniform(shape, fan_in));
  return graph_emit(place->graph, OP_CONV, (ValueId[]){x, weight}, 2, &(Attributes){.window = window_of(stage)});
}

static ValueId lower_bn(const Place *place, const Stage *stage, ValueId x) {
  Type channels = vector_type(stage->in.channels);
  ValueId y = graph_binary(place->graph, OP_BN_APPLY, x, graph_unary(place->graph, OP_BN_MOMENTS, x));
  if (!stage->affine) return y;
  return graph_ternary(place->graph, OP_AFFINE, y,
                       parameter_value(place, stage->name, "scale", constant(channels, 1, PARAMETER_WEIGHT)),
                       parameter_value(place, stage->name, "shift", constant(channels, 0, PARAMETER_WEIGHT)));
}

static ValueId lower_pool(const Place *place, const Stage *stage, ValueId x, OpCode op) {
  Attributes attributes = {.window = window_of(stage)};
  attributes.window.dilation = attributes.window.groups = 1;
  return graph_emit(place->graph, op, &x, 1, &attributes);
}

static ValueId lower_linear(const Place *place, const Stage *stage, ValueId x) {
  int32_t inputs = stage->in.channels, outputs = stage->out.channels;
  return graph_ternary(place->graph, OP_LINEAR, x,
                       parameter_value(place, stage->name, "weight", uniform(matrix_type(outputs, inputs), inputs)),
                       parameter_value(place, stage->name, "bias", uniform(vector_type(outputs), inputs)));
}

static ValueId lower_chain(const Place *place, const Chain *chain, ValueId x);

static ValueId lower_branches(const Place *place, const Stage *stage, ValueId x) {
  ValueId *parts = ARENA_ARRAY(place->graph->arena, ValueId, stage->branch_count);
  for (int b = 0; b < stage->branch_count; b++) parts[b] = lower_chain(place, stage->branches[b], x);
  if (stage->kind == PRIMITIVE_CONCAT) return graph_emit(place->graph, OP_CONCAT, parts, stage->branch_count, NULL);
  ValueId sum = parts[0];
  for (int b = 1; b < stage->branch_count; b++) sum = graph_binary(place->graph, OP_ADD, sum, parts[b]);
  return sum;
}

static ValueId lower_stage(const Place *place, const Stage *stage, ValueId x) {
  switch (stage->kind) {
  case PRIMITIVE_IDENTITY: return x;
  case PRIMITIVE_ZERO: return graph_constant(place->graph, 0, image_type(stage->out));
  case PRIMITIVE_RELU: return graph_unary(place->graph, OP_RELU, x);
  case PRIMITIVE_CONV: return lower_conv(place, stage, x);
  case PRIMITIVE_BN: return lower_bn(place, stage, x);
  case PRIMITIVE_MAX_POOL: return lower_pool(place, stage, x, OP_MAX_POOL);
  case PRIMITIVE_AVG_POOL: return lower_pool(place, stage, x, OP_AVG_POOL);
  case PRIMITIVE_SHIFT:
    return graph_emit(place->graph, OP_SHIFT, &x, 1, &(Attributes){.shift_y = stage->shift_y, .shift_x = stage->shift_x});
  case PRIMITIVE_CONCAT:
  case PRIMITIVE_ADD: return lower_branches(place, stage, x);
  case PRIMITIVE_GLOBAL_AVG_POOL: return graph_unary(place->graph, OP_GLOBAL_AVG_POOL, x);
  case PRIMITIVE_LINEAR: return lower_linear(place, stage, x);
  }
  die("%s%s: no primitive %d", place->prefix, stage->name, (int)stage->kind);
}

static ValueId lower_chain(const Place *place, const Chain *chain, ValueId x) {
  for (int i = 0; i < chain->count; i++) x = lower_stage(place, &chain->stages[i], x);
  return x;
}

/* ---- cells ---- */

static bool is_kept(const Lowering *lowering, int cell, int node, int candidate) {
  const Architecture *a = lowering->architecture;
  return !a || a->kept[((size_t)cell * (size_t)a->node_count + (size_t)node) * (size_t)a->candidate_count + (size_t)candidate];
}

/* N_j = sum_k p_k o_k(N_source), with p = softmax(alpha) (Eq. 4), or 1/T each for the T kept ones of an architecture. */
static ValueId lower_node(const Lowering *lowering, Graph *graph, int l, int j, const ValueId *states) {
  const Node *node = &lowering->model->cells[l].nodes[j];
  ValueId probabilities = NO_VALUE, sum = NO_VALUE;
  int kept = 0;
  for (int k = 0; k < node->count; k++) kept += is_kept(lowering, l, j, k);
  if (kept == 0) die("node %d of cell %d keeps no operation", j, l);
  if (!lowering->architecture) {
    const char *name = arena_printf(graph->arena, "alpha.%d.%d", l, j);
    Parameter alpha = constant(vector_type(node->count), 0, PARAMETER_ALPHA);
    probabilities = graph_unary(graph, OP_SOFTMAX, graph_parameter(graph, declare(lowering->module, name, "", alpha)));
  }
  for (int k = 0; k < node->count; k++) {
    const Candidate *candidate = &node->candidates[k];
    if (!is_kept(lowering, l, j, k)) continue;
    ValueId p = probabilities == NO_VALUE ? graph_constant(graph, 1.0 / kept, type_scalar())
                                          : graph_emit(graph, OP_ELEMENT, &probabilities, 1, &(Attributes){.index = k});
    Place place = {lowering, graph, arena_printf(graph->arena, "cells.%d.nodes.%d.%d.", l, j, k), p};
    ValueId part = graph_binary(graph, OP_SCALE, lower_chain(&place, &candidate->chain, states[candidate->source]), p);
    sum = sum == NO_VALUE ? part : graph_binary(graph, OP_ADD, sum, part);
  }
  return sum;
}

static ValueId lower_cell(const Lowering *lowering, Graph *graph, int l, ValueId before_last, ValueId last) {
  const Cell *cell = &lowering->model->cells[l];
  const ValueId inputs[2] = {before_last, last};
  ValueId *states = ARENA_ARRAY(graph->arena, ValueId, cell->node_count + 2);
  for (int i = 0; i < 2; i++) {
    Place place = {lowering, graph, arena_printf(graph->arena, "cells.%d.pre%d.", l, i), NO_VALUE};
    states[i] = lower_chain(&place, &cell->preprocess[i], inputs[i]);
  }
  for (int j = 0; j < cell->node_count; j++) states[2 + j] = lower_node(lowering, graph, l, j, states);
  return graph_emit(graph, OP_CONCAT, states + 2, cell->node_count, NULL);
}

static Forward lower_forward(const Lowering *lowering, Graph *graph) {
  const Model *model = lowering->model;
  Place stem = {lowering, graph, "stem.", NO_VALUE}, head = {lowering, graph, "head.", NO_VALUE};
  Type per_image = type_tensor(0, NULL, true), labels = per_image;
  labels.element = ELEMENT_I32;
  ValueId x = graph_input(graph, "x", image_type(model->data.image)), y = graph_input(graph, "y", labels);
  ValueId last = lower_chain(&stem, &model->stem, x), before_last = last;
  for (int l = 0; l < model->cell_count; l++) {
    ValueId out = lower_cell(lowering, graph, l, before_last, last);
    before_last = last, last = out;
  }
  Forward f;
  f.logits = lower_chain(&head, &model->head, last);
  f.losses = graph_binary(graph, OP_CROSS_ENTROPY, f.logits, y);
  f.correct = graph_binary(graph, OP_CORRECT, f.logits, y);
  f.loss = graph_unary(graph, OP_BATCH_MEAN, f.losses);
  return f;
}

/* ---- the optimizers (semantics.md, section 5) ---- */

typedef struct Gradients {
  size_t count;
  int32_t *parameters; /* indices */
  ValueId *values;     /* marks, which autodiff replaces */
} Gradients;

static Gradients gradients_of(Graph *graph, ValueId loss, bool weights, bool alpha) {
  Module *module = graph->module;
  size_t most = module->parameters.count;
  Gradients g = {0, ARENA_ARRAY(graph->arena, int32_t, most), ARENA_ARRAY(graph->arena, ValueId, most)};
  for (size_t i = 0; i < most; i++) {
    ParameterKind kind = module->parameters.data[i].kind;
    if (!(weights && kind == PARAMETER_WEIGHT) && !(alpha && kind == PARAMETER_ALPHA)) continue;
    g.parameters[g.count] = (int32_t)i;
    g.values[g.count++] = graph_parameter(graph, (int32_t)i);
  }
  for (size_t i = 0; i < g.count; i++) g.values[i] = graph_binary(graph, OP_GRADIENT, loss, g.values[i]);
  return g;
}

/* The norm of the gradients of w_G, all as one vector. */
static ValueId weight_norm(Graph *graph, const Gradients *g) {
  ValueId sum = graph_constant(graph, 0, type_scalar());
  for (size_t i = 0; i < g->count; i++)
    if (graph->module->parameters.data[g->parameters[i]].kind == PARAMETER_WEIGHT)
      sum = graph_binary(graph, OP_ADD, sum, graph_unary(graph, OP_SUM_SQUARES, g->values[i]));
  return graph_unary(graph, OP_SQRT, sum);
}

/* The index of the optimizer's state that belongs to a parameter, "momentum.NAME". */
static int32_t declare_state(Module *module, const char *prefix, int32_t of, ParameterKind kind) {
  Parameter owner = module->parameters.data[of];
  Parameter state = constant(owner.type, 0, kind);
  state.generates = owner.generates; /* it lies as its owner does */
  return declare(module, prefix, owner.name, state);
}

static void descend_weight(const Lowering *lowering, Graph *graph, int32_t weight, ValueId gradient, ValueId clip, ValueId rate) {
  const Search *search = &lowering->model->search;
  int32_t momentum = declare_state(lowering->module, "momentum.", weight, PARAMETER_MOMENTUM);
  ValueId w = graph_parameter(graph, weight);
  ValueId buffer = graph_emit(graph, OP_MOMENTUM, (ValueId[]){w, graph_parameter(graph, momentum), gradient, clip}, 4,
                              &(Attributes){.beta = search->momentum, .decay = search->decay});
  graph_update(graph, momentum, buffer);
  graph_update(graph, weight, graph_ternary(graph, OP_DESCEND, w, buffer, rate));
}

/* Decay is part of the gradient, in both moments. */
static void adam_alpha(const Lowering *lowering, Graph *graph, int32_t alpha, ValueId gradient, ValueId corrections) {
  const Search *search = &lowering->model->search;
  int32_t mean = declare_state(lowering->module, "adam_mean.", alpha, PARAMETER_ADAM_MEAN);
  int32_t square = declare_state(lowering->module, "adam_square.", alpha, PARAMETER_ADAM_SQUARE);
  ValueId a = graph_parameter(graph, alpha), one = graph_constant(graph, 1, type_scalar());
  ValueId new_mean = graph_emit(graph, OP_ADAM_MEAN, (ValueId[]){a, graph_parameter(graph, mean), gradient}, 3,
                                &(Attributes){.beta = search->alpha_beta1, .decay = search->alpha_decay});
  ValueId new_square = graph_emit(graph, OP_ADAM_SQUARE, (ValueId[]){a, graph_parameter(graph, square), gradient}, 3,
                                  &(Attributes){.beta = search->alpha_beta2, .decay = search->alpha_decay});
  ValueId step = graph_emit(graph, OP_ADAM_STEP, (ValueId[]){new_mean, new_square, corrections}, 3,
                            &(Attributes){.value = search->alpha_epsilon});
  graph_update(graph, mean, new_mean);
  graph_update(graph, square, new_square);
  graph_update(graph, alpha, graph_ternary(graph, OP_DESCEND, a, step, one));
}

/* ---- steps ---- */

/* train_step, search_step or cross_step: the gates say whose gradients exist. */
static void lower_update_step(const Lowering *lowering, const char *name, bool weights, bool alpha) {
  Graph *graph = module_add_step(lowering->module, name);
  Forward f = lower_forward(lowering, graph);
  Gradients g = gradients_of(graph, f.loss, weights, alpha);
  ValueId norm = NO_VALUE, clip = NO_VALUE, rate = NO_VALUE, corrections = NO_VALUE;
  if (weights) {
    norm = weight_norm(graph, &g);
    clip = graph_emit(graph, OP_CLIP, &norm, 1, &(Attributes){.value = lowering->model->search.clip});
    rate = graph_input(graph, "rate", type_scalar());
  }
  if (alpha) corrections = graph_input(graph, "alpha.corrections", vector_type(3));
  for (size_t i = 0; i < g.count; i++) {
    if (lowering->module->parameters.data[g.parameters[i]].kind == PARAMETER_WEIGHT)
      descend_weight(lowering, graph, g.parameters[i], g.values[i], clip, rate);
    else
      adam_alpha(lowering, graph, g.parameters[i], g.values[i], corrections);
  }
  graph_result(graph, "loss", f.loss);
  graph_result(graph, "correct", f.correct);
  if (weights) graph_result(graph, "norm", norm);
}

static void lower_eval(const Lowering *lowering) {
  Graph *graph = module_add_step(lowering->module, "eval");
  Forward f = lower_forward(lowering, graph);
  graph_result(graph, "losses", f.losses);
  graph_result(graph, "correct", f.correct);
  graph_result(graph, "logits", f.logits);
}

static void lower_gradient_step(const Lowering *lowering) {
  Graph *graph = module_add_step(lowering->module, "gradient_step");
  Forward f = lower_forward(lowering, graph);
  Gradients g = gradients_of(graph, f.loss, true, true);
  graph_result(graph, "logits", f.logits);
  graph_result(graph, "loss", f.loss);
  for (size_t i = 0; i < g.count; i++) {
    const char *name = lowering->module->parameters.data[g.parameters[i]].name;
    graph_result(graph, arena_printf(graph->arena, "grad.%s", name), g.values[i]);
  }
}

static void demand_fit(const Model *model, const Architecture *a) {
  if (a->cell_count != model->cell_count) die("an architecture of %d cells for %d", a->cell_count, model->cell_count);
  for (int l = 0; l < model->cell_count; l++) {
    const Cell *cell = &model->cells[l];
    if (cell->node_count > a->node_count) die("an architecture of %d nodes for %d", a->node_count, cell->node_count);
    for (int j = 0; j < cell->node_count; j++)
      if (cell->nodes[j].count > a->candidate_count)
        die("an architecture of %d candidates for %d", a->candidate_count, cell->nodes[j].count);
  }
}

Module *lower_steps(const Model *model, unsigned steps, const Architecture *architecture, Arena *arena) {
  if (architecture) demand_fit(model, architecture);
  Lowering lowering = {model, architecture, module_new(arena, model->name, model->search.batch)};
  if (steps & STEP_TRAIN) lower_update_step(&lowering, "train_step", true, false);
  if (steps & STEP_SEARCH) lower_update_step(&lowering, "search_step", false, true);
  if (steps & STEP_CROSS) lower_update_step(&lowering, "cross_step", true, true);
  if (steps & STEP_EVAL) lower_eval(&lowering);
  if (steps & STEP_GRADIENT) lower_gradient_step(&lowering);
  return lowering.module;
}

Module *lower_model(const Model *model, unsigned steps, const Architecture *architecture, Arena *arena) {
  static const int passes[] = {PASS_autodiff, PASS_simplify, PASS_hoist};
  Module *module = lower_steps(model, steps, architecture, arena);
  Err err;
  if (!passes_run(module, passes, sizeof passes / sizeof *passes, NULL, NULL, &err)) die("%s", err.text);
  return module;
}
