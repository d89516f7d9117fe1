/* Gradients against central differences in the reference interpreter: every operation of the table that has a rule (the test
 * walks the table, so a new operation must get a rule or a place in the list of those that are never differentiated), then
 * random small networks. And simplify: the same graphs, and random algebra, mean the same before and after. */
#include "tests/numeric/graph_bench.h"

enum { INSTANCES = 12, NETWORKS = 40, SOUPS = 200 };

/* ---- central differences ---- */

/* The loss's gradient with respect to the inputs given by `wanted` (indices into the bench), at up to 6 entries of each. */
static void check_gradients(Bench *b, ValueId loss, const size_t *wanted, size_t count, double step, double tolerance,
                            const char *what) {
  Graph *forward = b->graph;
  graph_result(forward, "loss", loss);
  Graph *clean = pass_simplify(forward); /* without the gradients below */
  for (size_t i = 0; i < count; i++)
    graph_result(forward, arena_printf(b->arena, "grad%zu", i), graph_binary(forward, OP_GRADIENT, loss, b->values[wanted[i]]));
  check_verified(forward);
  Err err;
  if (!pass_autodiff_ready(forward, &err)) fail_msg("%s: %s", what, err.text);
  Graph *after = pass_autodiff(forward);
  check_verified(after);
  Interpretation *run = interpret(b, after);
  for (size_t i = 0; i < count; i++) {
    Type type = graph_type(forward, b->values[wanted[i]]);
    int64_t elements = type_elements(type, b->batch), found;
    const double *gradient = interpretation_result(run, arena_printf(b->arena, "grad%zu", i), &found);
    assert_int_equal(elements, found);
    for (int n = 0; n < 6; n++) {
      int64_t e = (int64_t)(instance_word(&b->random) % (uint64_t)elements);
      double ours = gradient[e];
      double *entry = &b->data[wanted[i]][e], before = *entry;
      *entry = before + step;
      double above = scalar_of(b, clean, "loss");
      *entry = before - step;
      double difference = (above - scalar_of(b, clean, "loss")) / (2 * step);
      *entry = before;
      if (!(fabs(difference - ours) <= tolerance * fmax(1, fabs(ours))))
        fail_msg("%s: input %zu, entry %lld: %.12g, and by differences %.12g", what, wanted[i], (long long)e, ours, difference);
    }
  }
  interpretation_free(run);
  b->graph = after;
}

/* A scalar that every element of `value` has its own weight in. */
static ValueId weighted_sum(Bench *b, ValueId value) {
  return graph_binary(b->graph, OP_DOT, value, random_input(b, graph_type(b->graph, value)));
}

static void check_operation(OpCode op, uint64_t seed) {
  Bench b = bench_new(seed);
  GraphInstance instance;
  size_t wanted[GRAPH_INSTANCE_OPERANDS], count = 0;
  graph_instance(op, seed, NULL, b.graph, &instance);
  for (int32_t i = 0; i < instance.count; i++) {
    double *data = bench_add(&b, arena_printf(b.arena, "x%d", i), instance.types[i], instance.operands[i]);
    graph_instance_data(&instance, i, b.batch, seed, data);
    if (pass_autodiff_operands(op) >> i & 1) wanted[count++] = (size_t)i;
  }
  check_gradients(&b, weighted_sum(&b, instance.value), wanted, count, 1e-5, 1e-6, op_table[op].text);
  bench_free(&b);
}

/* Gradients and optimizers; `correct` is constant almost everywhere; `bn_moments` is part of `bn_apply`'s rule. */
static bool is_never_differentiated(OpCode op) {
  static const OpCode others[] = {OP_BATCH_SUM, OP_CORRECT,   OP_BN_MOMENTS,  OP_SQRT,      OP_CLIP,   OP_MOMENTUM,
                                  OP_DESCEND,   OP_ADAM_MEAN, OP_ADAM_SQUARE, OP_ADAM_STEP, OP_ROW_SUM};
  if (op_table[op].class == CLASS_LEAF || op_table[op].class == CLASS_MARK || strstr(op_table[op].text, "_grad")) return true;
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (others[i] == op) return true;
  return false;
}

static void every_operation(void **state) {
  (void)state;
  for (OpCode op = 0; op < OP_COUNT; op++) {
    if ((pass_autodiff_operands(op) == 0) != is_never_differentiated(op)) fail_msg("%s has no rule", op_table[op].text);
    if (pass_autodiff_operands(op))
      for (uint64_t seed = 0; seed < INSTANCES; seed++) check_operation(op, seed);
  }
}

static void batch_normalisation(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed < INSTANCES; seed++) {
    Bench b = bench_new(seed);
    ValueId x = random_input(&b, instance_image(&b.random));
    ValueId y = graph_binary(b.graph, OP_BN_APPLY, x, graph_unary(b.graph, OP_BN_MOMENTS, x));
    check_gradients(&b, weighted_sum(&b, y), (size_t[]){0}, 1, 1e-5, 1e-5, "bn of its own moments");
    bench_free(&b);
  }
}

/* All K elements of one softmax, some of them unused, some used twice, and the vector itself. */
static void elements_of_a_softmax(void **state) {
  (void)state;
  Bench b = bench_new(3);
  ValueId p = graph_unary(b.graph, OP_SOFTMAX, random_input(&b, instance_vector(5, false))), sum = NO_VALUE;
  for (int32_t k = 0; k < 5; k += 2) {
    ValueId x = random_input(&b, instance_vector(4, false));
    ValueId part = graph_binary(b.graph, OP_SCALE, x, graph_emit(b.graph, OP_ELEMENT, &p, 1, &(Attributes){.index = k}));
    sum = sum == NO_VALUE ? part : graph_binary(b.graph, OP_ADD, graph_unary(b.graph, OP_RELU, sum), part);
  }
  sum = graph_binary(b.graph, OP_SCALE, sum, graph_emit(b.graph, OP_ELEMENT, &p, 1, &(Attributes){.index = 2}));
  ValueId loss = graph_binary(b.graph, OP_ADD, weighted_sum(&b, sum), weighted_sum(&b, p));
  check_gradients(&b, loss, (size_t[]){0, 1, 2, 3}, 4, 1e-5, 1e-6, "elements");
  int stacks = 0;
  for (size_t v = 0; v < b.graph->nodes.count; v++) stacks += b.graph->nodes.data[v].op == OP_STACK;
  assert_int_equal(stacks, 1);
  bench_free(&b);
}
/* ---- random networks ---- */

static void random_networks(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < NETWORKS; seed++) {
    Bench b = bench_new(seed);
    size_t wanted[MOST_INPUTS], count = 0;
    ValueId loss = random_network(&b);
    for (size_t i = 0; i < b.count; i++)
      if (i != LABELS) wanted[count++] = i;
    check_gradients(&b, loss, wanted, count, 1e-6, 1e-5, arena_printf(b.arena, "network %d", (int)seed));
    bench_free(&b);
  }
}

/* ---- simplify ---- */

/* The same results, by the interpreter; a second simplify finds nothing to do; nothing dead is left. */
static void check_simplified(Bench *b) {
  Graph *before = b->graph, *after = pass_simplify(before), *again = pass_simplify(after);
  check_verified(after);
  assert_int_equal(again->nodes.count, after->nodes.count);
  Interpretation *one = interpret(b, before), *two = interpret(b, after);
  for (size_t r = 0; r < before->results.count; r++) {
    const char *name = before->results.data[r].name;
    int64_t elements, same;
    const double *x = interpretation_result(one, name, &elements), *y = interpretation_result(two, name, &same);
    double difference = 0, size = 0;
    assert_int_equal(elements, same);
    for (int64_t e = 0; e < elements; e++) difference += (x[e] - y[e]) * (x[e] - y[e]), size += x[e] * x[e];
    if (!(sqrt(difference) <= 1e-12 * sqrt(size) + 1e-14)) fail_msg("%s: %g of %g", name, sqrt(difference), sqrt(size));
  }
  interpretation_free(one);
  interpretation_free(two);
}

static void simplified_networks(void **state) {
  (void)state;
  for (uint64_t seed = 100; seed < 100 + NETWORKS; seed++) {
    Bench b = bench_new(seed);
    ValueId loss = random_network(&b);
    graph_result(b.graph, "loss", loss);
    for (size_t i = 0; i < b.count; i++) {
      if (i == LABELS) continue;
      ValueId gradient = graph_binary(b.graph, OP_GRADIENT, loss, b.values[i]);
      graph_result(b.graph, arena_printf(b.arena, "grad%zu", i), gradient);
      if (!graph_type(b.graph, gradient).batched)
        graph_result(b.graph, arena_printf(b.arena, "size%zu", i), graph_unary(b.graph, OP_SUM_SQUARES, gradient));
    }
    b.graph = pass_autodiff(b.graph);
    check_simplified(&b);
    bench_free(&b);
  }
}

typedef VECTOR(ValueId) Values;

/* One more value from those there are: what simplify has rules for, more often than not on top of each other. */
static ValueId random_algebra(Bench *b, const Values *values) {
  Graph *g = b->graph;
  InstanceRandom *r = &b->random;
  ValueId x = values->data[instance_word(r) % values->count], y = values->data[instance_word(r) % values->count];
  Type type = graph_type(g, x), other = graph_type(g, y);
  bool image = type.batched && type.rank == 3, equal = type_equal(type, other);
  bool vector = !type.batched && type.rank == 1;
  switch (instance_integer(r, 0, 11)) {
  case 0: return graph_binary(g, OP_SCALE, x, type_equal(other, type_scalar()) ? y : random_input(b, type_scalar()));
  case 1: return graph_binary(g, OP_ADD, x, equal ? y : graph_constant(g, 0, type));
  case 2: return graph_unary(g, OP_RELU, x);
  case 3: return equal ? graph_binary(g, OP_RELU_GRAD, x, y) : x;
  case 4: return equal ? graph_binary(g, OP_DOT, x, y) : x;
  case 5: return type.batched ? x : graph_unary(g, OP_SUM_SQUARES, x);
  case 6: return vector && !other.batched && other.rank <= 1 ? graph_binary(g, OP_LINEAR_GRAD_WEIGHT, x, y) : x;
  case 7:
    if (!image || !other.batched || other.rank != 3 || type.dims[1] != other.dims[1] || type.dims[2] != other.dims[2]) return x;
    return graph_binary(g, OP_CONCAT, x, y);
  case 8: {
    int32_t begin = image ? instance_integer(r, 0, type.dims[0] - 1) : 0;
    Attributes range = {.begin = begin, .count = image ? instance_integer(r, 1, type.dims[0] - begin) : 0};
    return image ? graph_emit(g, OP_SLICE, &x, 1, &range) : x;
  }
  case 9:
  case 10: {
    if (!image || type.dims[1] > 8 || type.dims[1] < 2) return x;
    return graph_emit(g, instance_word(r) % 2 ? OP_SHIFT : OP_UNSHIFT, &x, 1, &(Attributes){.shift_y = 1});
  }
  default: {
    Type flat = instance_vector((int32_t)type_elements(type, 1), false);
    return type.batched ? x : graph_emit(g, OP_RESHAPE, &x, 1, &(Attributes){.shape = flat});
  }
  }
}

static void simplified_algebra(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < SOUPS; seed++) {
    Bench b = bench_new(seed);
    Values values = {0};
    Type image = type_tensor(3, (int32_t[]){3, 4, 4}, true);
    for (int i = 0; i < 2; i++) {
      vector_push(&values, random_input(&b, image));
      vector_push(&values, random_input(&b, instance_vector(4, false)));
    }
    while (b.count < 24 && values.count < 48) {
      ValueId next = random_algebra(&b, &values);
      vector_push(&values, next);
    }
    for (int i = 0; i < 8; i++) graph_result(b.graph, arena_printf(b.arena, "r%d", i), values.data[values.count - 1 - (size_t)i]);
    check_simplified(&b);
    vector_free(&values);
    bench_free(&b);
  }
}

static int count_of(const Graph *graph, OpCode op) {
  int count = 0;
  for (size_t v = 0; v < graph->nodes.count; v++) count += graph->nodes.data[v].op == op;
  return count;
}

/* What must be gone after simplify, by name. */
static void simplified_patterns(void **state) {
  (void)state;
  Bench b = bench_new(1);
  Graph *g = b.graph;
  ValueId dy = random_input(&b, instance_vector(5, false)), h = random_input(&b, instance_vector(3, false));
  ValueId p = random_input(&b, type_scalar()), image = random_input(&b, type_tensor(3, (int32_t[]){4, 3, 3}, true));
  ValueId twice = graph_binary(g, OP_SCALE, graph_binary(g, OP_SCALE, image, p), p);
  Attributes shift = {.shift_y = 1, .shift_x = 2};
  ValueId unshifted = graph_emit(g, OP_UNSHIFT, &image, 1, &shift);
  graph_result(g, "norm", graph_unary(g, OP_SUM_SQUARES, graph_binary(g, OP_LINEAR_GRAD_WEIGHT, dy, h)));
  graph_result(g, "twice", twice);
  graph_result(g, "mask", graph_binary(g, OP_RELU_GRAD, twice, graph_unary(g, OP_RELU, image)));
  graph_result(g, "shift", graph_emit(g, OP_SHIFT, &unshifted, 1, &shift));
  Graph *after = pass_simplify(g);
  assert_int_equal(count_of(after, OP_LINEAR_GRAD_WEIGHT), 0);
  assert_int_equal(count_of(after, OP_SUM_SQUARES), 2);
  assert_int_equal(count_of(after, OP_SCALE), 1);
  assert_int_equal(count_of(after, OP_RELU), 0);
  assert_int_equal(count_of(after, OP_SHIFT) + count_of(after, OP_UNSHIFT), 0);
  check_simplified(&b);
  bench_free(&b);
}

/* A common factor of a sum is taken out, and two different ones are not. */
static void simplified_sums(void **state) {
  (void)state;
  Bench b = bench_new(1);
  Graph *g = b.graph;
  Type type = type_tensor(3, (int32_t[]){4, 3, 3}, true);
  ValueId x = random_input(&b, type), y = random_input(&b, type);
  ValueId p = random_input(&b, type_scalar()), q = random_input(&b, type_scalar());
  ValueId px = graph_binary(g, OP_SCALE, x, p), qx = graph_binary(g, OP_SCALE, x, q), qy = graph_binary(g, OP_SCALE, y, q);
  graph_result(g, "common", graph_binary(g, OP_ADD, px, qx));
  assert_int_equal(count_of(pass_simplify(g), OP_SCALE), 1);
  graph_result(g, "different", graph_binary(g, OP_ADD, px, qy));
  assert_int_equal(count_of(pass_simplify(g), OP_SCALE), 3);
  check_simplified(&b);
  bench_free(&b);
}

/* The parts that a slice touches, and concatenations within concatenations. */
static void simplified_concatenations(void **state) {
  (void)state;
  Bench b = bench_new(1);
  Graph *g = b.graph;
  Type type = type_tensor(3, (int32_t[]){4, 3, 3}, true);
  ValueId x = random_input(&b, type), y = random_input(&b, type), z = random_input(&b, type);
  ValueId all = graph_binary(g, OP_CONCAT, graph_binary(g, OP_CONCAT, x, y), z);
  graph_result(g, "one", graph_emit(g, OP_SLICE, &all, 1, &(Attributes){.begin = 4, .count = 4}));
  assert_int_equal(pass_simplify(g)->nodes.count, 3); /* the inputs stay */
  graph_result(g, "two", graph_emit(g, OP_SLICE, &all, 1, &(Attributes){.begin = 4, .count = 8}));
  assert_int_equal(pass_simplify(g)->nodes.count, 4);
  graph_result(g, "cut", graph_emit(g, OP_SLICE, &all, 1, &(Attributes){.begin = 3, .count = 7}));
  graph_result(g, "all", all);
  Graph *after = pass_simplify(g);
  assert_int_equal(count_of(after, OP_SLICE), 2);
  assert_int_equal(count_of(after, OP_CONCAT), 3);
  check_simplified(&b);
  bench_free(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_operation),     cmocka_unit_test(batch_normalisation), cmocka_unit_test(elements_of_a_softmax),
      cmocka_unit_test(random_networks),     cmocka_unit_test(simplified_networks), cmocka_unit_test(simplified_algebra),
      cmocka_unit_test(simplified_patterns), cmocka_unit_test(simplified_sums),     cmocka_unit_test(simplified_concatenations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
