/* What numeric tests of graphs share: a step under test with data for its inputs, running it, and random networks. */
#ifndef ADWP_TESTS_NUMERIC_GRAPH_BENCH_H
#define ADWP_TESTS_NUMERIC_GRAPH_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "compiler/pass/pass.h"
#include "tests/unit/graph_instances.h"

#include <math.h>
#include <string.h>

enum { MOST_INPUTS = 64 };

/* ---- a step under test: a module, one graph, data for its inputs ---- */

typedef struct Bench {
  Arena *arena;
  Module *module;
  Graph *graph;
  InstanceRandom random;
  int64_t batch;
  NamedTensor inputs[MOST_INPUTS];
  double *data[MOST_INPUTS];
  ValueId values[MOST_INPUTS]; /* the INPUT nodes */
  size_t count;
} Bench;

static inline Bench bench_new(uint64_t seed) {
  Bench b = {.arena = arena_new(), .random = {seed, {5, 7}}};
  b.module = module_new(b.arena, "test", 4);
  b.graph = module_add_step(b.module, "step");
  b.batch = 1 + (int64_t)(seed % 3);
  return b;
}

static inline void bench_free(Bench *b) {
  module_free_tables(b->module);
  arena_free(b->arena);
}

static inline double *bench_add(Bench *b, const char *name, Type type, ValueId value) {
  assert_true(b->count < MOST_INPUTS);
  double *data = ARENA_ARRAY(b->arena, double, type_elements(type, b->batch));
  b->data[b->count] = data;
  b->values[b->count] = value;
  b->inputs[b->count++] = (NamedTensor){name, data};
  return data;
}

/* A new input whose numbers have magnitudes between 0.05 and 1. */
static inline ValueId random_input(Bench *b, Type type) {
  const char *name = arena_printf(b->arena, "in%zu", b->count);
  ValueId value = graph_input(b->graph, name, type);
  double *data = bench_add(b, name, type, value);
  for (int64_t e = 0; e < type_elements(type, b->batch); e++) {
    double magnitude = 0.05 + 0.95 * instance_unit(&b->random);
    data[e] = instance_word(&b->random) % 2 ? magnitude : -magnitude;
  }
  return value;
}

static inline Interpretation *interpret(const Bench *b, const Graph *graph) {
  Err err;
  Interpretation *run = graph_interpret(graph, b->batch, b->inputs, b->count, NULL, &err);
  if (!run) fail_msg("%s", err.text);
  return run;
}

static inline double scalar_of(const Bench *b, const Graph *graph, const char *result) {
  Interpretation *run = interpret(b, graph);
  int64_t elements;
  double value = interpretation_result(run, result, &elements)[0];
  assert_int_equal(elements, 1);
  interpretation_free(run);
  return value;
}

static inline void check_verified(const Graph *graph) {
  Err err;
  if (!graph_verify(graph, &err)) fail_msg("%s", err.text);
}

/* ---- random networks ---- */

static inline ValueId random_weight(Bench *b, ValueId p, Type shape) {
  if (instance_word(&b->random) % 2) return random_input(b, shape);
  int32_t outputs = (int32_t)type_elements(shape, 1), hidden = instance_integer(&b->random, 1, 3);
  ValueId w = graph_ternary(b->graph, OP_LINEAR, p, random_input(b, instance_matrix(hidden, 1)),
                            random_input(b, instance_vector(hidden, false)));
  if (instance_word(&b->random) % 2) w = graph_unary(b->graph, OP_RELU, w);
  w = graph_ternary(b->graph, OP_LINEAR, w, random_input(b, instance_matrix(outputs, hidden)),
                    random_input(b, instance_vector(outputs, false)));
  return graph_emit(b->graph, OP_RESHAPE, &w, 1, &(Attributes){.shape = shape});
}

static inline ValueId random_conv(Bench *b, ValueId x, ValueId p) {
  Type type = graph_type(b->graph, x), result;
  Attributes a = {0};
  Type shape;
  do {
    a.window = instance_window(&b->random, false);
    bool depthwise = instance_word(&b->random) % 2;
    a.window.groups = depthwise ? type.dims[0] : 1;
    int32_t out = depthwise ? type.dims[0] : instance_integer(&b->random, 1, 4);
    shape = type_tensor(4, (int32_t[]){out, type.dims[0] / a.window.groups, a.window.kernel_y, a.window.kernel_x}, false);
  } while (!op_result_type(OP_CONV, (Type[]){type, shape}, 2, &a, &result, NULL));
  return graph_emit(b->graph, OP_CONV, (ValueId[]){x, random_weight(b, p, shape)}, 2, &a);
}

static inline ValueId random_pool(Bench *b, ValueId x, OpCode op) {
  Type type = graph_type(b->graph, x), result;
  Attributes a = {0};
  do a.window = instance_window(&b->random, true);
  while (!op_result_type(op, &type, 1, &a, &result, NULL));
  return graph_emit(b->graph, op, &x, 1, &a);
}

static inline ValueId normalised(Bench *b, ValueId x) {
  return graph_binary(b->graph, OP_BN_APPLY, x, graph_unary(b->graph, OP_BN_MOMENTS, x));
}

/* One more operation on x; `old` is an earlier image of any shape. */
static inline ValueId random_stage(Bench *b, ValueId x, ValueId old, ValueId p) {
  Graph *g = b->graph;
  Type type = graph_type(g, x);
  Type channels = instance_vector(type.dims[0], false);
  switch (instance_integer(&b->random, 0, 8)) {
  case 0: return graph_unary(g, OP_RELU, x);
  case 1: return random_conv(b, x, p);
  case 2: return type.dims[1] * type.dims[2] > 2 ? normalised(b, x) : x;
  case 3: return graph_ternary(g, OP_AFFINE, x, random_input(b, channels), random_input(b, channels));
  case 4: return random_pool(b, x, instance_word(&b->random) % 2 ? OP_MAX_POOL : OP_AVG_POOL);
  case 5: return graph_binary(g, OP_SCALE, x, p);
  case 6: return type_equal(type, graph_type(g, old)) ? graph_binary(g, OP_ADD, x, old) : x;
  case 7: {
    bool fits = type.dims[1] == graph_type(g, old).dims[1] && type.dims[2] == graph_type(g, old).dims[2];
    ValueId both = fits ? graph_binary(g, OP_CONCAT, x, old) : x;
    int32_t all = graph_type(g, both).dims[0], begin = instance_integer(&b->random, 0, all - 1);
    return graph_emit(g, OP_SLICE, &both, 1,
                      &(Attributes){.begin = begin, .count = instance_integer(&b->random, 1, all - begin)});
  }
  default: {
    Attributes shift = {.shift_y = type.dims[1] > 1, .shift_x = 0};
    ValueId cut = graph_emit(g, OP_SHIFT, &x, 1, &shift);
    return instance_word(&b->random) % 2 ? cut : graph_emit(g, OP_UNSHIFT, &cut, 1, &shift);
  }
  }
}

enum { LABELS = 1 };

/* A loss from images, which are input 0, labels, which are input LABELS, and weights, which are all others. */
static inline ValueId random_network(Bench *b) {
  enum { STAGES = 8, CLASSES = 3 };
  Graph *g = b->graph;
  ValueId images[STAGES + 1] = {random_input(b, instance_image(&b->random))};
  ValueId y = random_input(b, instance_per_image(ELEMENT_I32));
  for (int64_t i = 0; i < b->batch; i++) b->data[1][i] = instance_integer(&b->random, 0, CLASSES - 1);
  ValueId probabilities = graph_unary(g, OP_SOFTMAX, random_input(b, instance_vector(3, false)));
  for (int i = 0; i < STAGES; i++) {
    Attributes which = {.index = instance_integer(&b->random, 0, 2)};
    ValueId p = graph_emit(g, OP_ELEMENT, &probabilities, 1, &which);
    images[i + 1] = random_stage(b, images[i], images[instance_integer(&b->random, 0, i)], p);
  }
  ValueId features = graph_unary(g, OP_GLOBAL_AVG_POOL, images[STAGES]);
  int32_t inputs = graph_type(g, features).dims[0];
  ValueId logits = graph_ternary(g, OP_LINEAR, features, random_input(b, instance_matrix(CLASSES, inputs)),
                                 random_input(b, instance_vector(CLASSES, false)));
  return graph_unary(g, OP_BATCH_MEAN, graph_binary(g, OP_CROSS_ENTROPY, logits, y));
}

#endif
