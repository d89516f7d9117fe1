/* The reference interpreter against other ways to say the same: convolutions and pools by their formula over a padded copy,
 * gradients as adjoints (<dy, f(x)> = <df(dy), x> where f is linear in x), and whole steps with their updates and errors.
 * graph_core_test.c has an example with numbers for each operation. */
#include "compiler/graph/graph.h"
#include "tests/unit/graph_instances.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 3, SEEDS = 40 };

/* An instance with numbers in its operands, and its result. */
typedef struct Computed {
  Arena *arena;
  Module *module;
  GraphInstance in;
  TensorValue x[GRAPH_INSTANCE_OPERANDS], y;
} Computed;

static Computed compute(OpCode op, uint64_t seed) {
  Computed c = {.arena = arena_new()};
  c.module = module_new(c.arena, "m", BATCH);
  graph_instance(op, seed, NULL, module_add_step(c.module, "s"), &c.in);
  for (int32_t i = 0; i < c.in.count; i++) {
    c.x[i] = (TensorValue){c.in.types[i], ARENA_ARRAY(c.arena, double, type_elements(c.in.types[i], BATCH))};
    graph_instance_data(&c.in, i, BATCH, seed, c.x[i].data);
  }
  op_interpret(op, &c.in.attributes, c.x, c.in.count, BATCH, &c.y);
  return c;
}

static void done(Computed *c) {
  free(c->y.data);
  module_free_tables(c->module);
  arena_free(c->arena);
}

static void assert_close(double a, double b) {
  if (!(fabs(a - b) <= 1e-12 * (1 + fabs(a) + fabs(b)))) fail_msg("%.17g is not %.17g", a, b);
}

static double inner(const double *a, const double *b, Type type) {
  double sum = 0;
  for (int64_t i = 0; i < type_elements(type, BATCH); i++) sum += a[i] * b[i];
  return sum;
}

static void a_step_computes_what_one_operation_does(void **state) {
  (void)state;
  static const char *const names[GRAPH_INSTANCE_OPERANDS] = {"x0", "x1", "x2", "x3", "x4"};
  for (int op = OP_CONST + 1; op < OP_COUNT; op++) {
    if (op_table[op].class == CLASS_MARK) continue;
    Computed c = compute((OpCode)op, 1);
    NamedTensor inputs[GRAPH_INSTANCE_OPERANDS];
    for (int32_t i = 0; i < c.in.count; i++) inputs[i] = (NamedTensor){names[i], c.x[i].data};
    Err err;
    Interpretation *run = graph_interpret(c.module->steps.data[0], BATCH, inputs, (size_t)c.in.count, NULL, &err);
    if (!run) fail_msg("%s", err.text);
    assert_memory_equal(interpretation_value(run, c.in.value), c.y.data, (size_t)type_elements(c.y.type, BATCH) * sizeof(double));
    interpretation_free(run);
    done(&c);
  }
}

/* ---- windows, by their formula ---- */

/* x[b, channel, y, x] of an image, `outside` where there is no pixel. */
static double pixel(TensorValue x, int64_t b, int64_t channel, int64_t row, int64_t column, double outside) {
  if (row < 0 || column < 0 || row >= x.type.dims[1] || column >= x.type.dims[2]) return outside;
  return x.data[((b * x.type.dims[0] + channel) * x.type.dims[1] + row) * x.type.dims[2] + column];
}

/* Of the output element with these coordinates. */
typedef struct Place {
  int64_t b, channel, row, column;
} Place;

static Place place_of(Type type, int64_t element) {
  int64_t column = element % type.dims[2], row = element / type.dims[2] % type.dims[1];
  int64_t plane = element / type.dims[2] / type.dims[1];
  return (Place){plane / type.dims[0], plane % type.dims[0], row, column};
}

static double conv_by_formula(const Computed *c, Place o) {
  const Window *w = &c->in.attributes.window;
  const int32_t *k = c->x[1].type.dims;
  int64_t group = o.channel / (k[0] / w->groups);
  double sum = 0;
  for (int64_t i = 0; i < k[1]; i++)
    for (int64_t ky = 0; ky < k[2]; ky++)
      for (int64_t kx = 0; kx < k[3]; kx++)
        sum += c->x[1].data[((o.channel * k[1] + i) * k[2] + ky) * k[3] + kx] *
               pixel(c->x[0], o.b, group * k[1] + i, o.row * w->stride_y + ky * w->dilation - w->pad_y,
                     o.column * w->stride_x + kx * w->dilation - w->pad_x, 0);
  return sum;
}

static double pool_by_formula(const Computed *c, Place o) {
  const Window *w = &c->in.attributes.window;
  double most = -INFINITY, sum = 0, inside = 0;
  for (int64_t ky = 0; ky < w->kernel_y; ky++)
    for (int64_t kx = 0; kx < w->kernel_x; kx++) {
      double value =
          pixel(c->x[0], o.b, o.channel, o.row * w->stride_y + ky - w->pad_y, o.column * w->stride_x + kx - w->pad_x, -INFINITY);
      most = fmax(most, value);
      if (isfinite(value)) sum += value, inside++;
    }
  return c->in.op == OP_MAX_POOL ? most : sum / inside;
}

static void windows_follow_their_formula(void **state) {
  (void)state;
  static const OpCode ops[] = {OP_CONV, OP_MAX_POOL, OP_AVG_POOL};
  for (int op = 0; op < 3; op++)
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
      Computed c = compute(ops[op], seed);
      for (int64_t e = 0; e < type_elements(c.y.type, BATCH); e++) {
        Place place = place_of(c.y.type, e);
        assert_close(c.y.data[e], ops[op] == OP_CONV ? conv_by_formula(&c, place) : pool_by_formula(&c, place));
      }
      done(&c);
    }
}

/* Factorized reduce: the second half reads pixels (2i + 1, 2j + 1), on sides of either parity. */
static void a_shift_before_a_strided_convolution_reads_odd_pixels(void **state) {
  (void)state;
  for (int32_t side = 2; side <= 7; side++) {
    double *data = calloc((size_t)side * side, sizeof *data), weight = 3;
    for (int32_t i = 0; i < side * side; i++) data[i] = i;
    TensorValue x = {type_tensor(3, (int32_t[]){1, side, side}, true), data}, shifted = {0}, y = {0};
    op_interpret(OP_SHIFT, &(Attributes){.shift_y = 1, .shift_x = 1}, &x, 1, 1, &shifted);
    TensorValue operands[] = {shifted, {type_tensor(4, (int32_t[]){1, 1, 1, 1}, false), &weight}};
    op_interpret(OP_CONV, &(Attributes){.window = {1, 1, 2, 2, 1, 0, 0, 1}}, operands, 2, 1, &y);
    assert_int_equal(y.type.dims[1], side / 2);
    for (int32_t i = 0; i < side / 2; i++)
      for (int32_t j = 0; j < side / 2; j++) assert_close(y.data[i * (side / 2) + j], weight * ((2 * i + 1) * side + 2 * j + 1));
    free(data);
    free(shifted.data);
    free(y.data);
  }
}

/* ---- gradients as adjoints ---- */

/* <dy, f(x)> must be <df(dy, ...), x_i> for the gradient operation `grad` with operands `g`. */
static void assert_adjoint(const Computed *c, const TensorValue *dy, OpCode grad, const TensorValue *g, int32_t count,
                           int32_t i) {
  Attributes a = c->in.attributes;
  a.side_y = c->x[0].type.dims[1], a.side_x = c->x[0].type.dims[2];
  TensorValue dx = {0};
  op_interpret(grad, &a, g, count, BATCH, &dx);
  assert_true(type_equal(dx.type, c->x[i].type));
  assert_close(inner(dy->data, c->y.data, c->y.type), inner(dx.data, c->x[i].data, c->x[i].type));
  free(dx.data);
}

static void gradients_are_adjoints(void **state) {
  (void)state;
  static const OpCode ops[] = {OP_CONV, OP_MAX_POOL, OP_AVG_POOL, OP_GLOBAL_AVG_POOL, OP_SHIFT, OP_RELU};
  for (size_t op = 0; op < sizeof ops / sizeof *ops; op++)
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
      Computed c = compute(ops[op], seed);
      TensorValue dy = {c.y.type, ARENA_ARRAY(c.arena, double, type_elements(c.y.type, BATCH))};
      for (int64_t e = 0; e < type_elements(c.y.type, BATCH); e++) dy.data[e] = sin((double)e + (double)seed);
      TensorValue with_x[] = {dy, c.x[0]}, with_w[] = {dy, c.x[1]};
      switch (ops[op]) {
      case OP_CONV:
        assert_adjoint(&c, &dy, OP_CONV_GRAD_INPUT, with_w, 2, 0);
        assert_adjoint(&c, &dy, OP_CONV_GRAD_WEIGHT, with_x, 2, 1);
        break;
      case OP_MAX_POOL: assert_adjoint(&c, &dy, OP_MAX_POOL_GRAD, with_x, 2, 0); break;
      case OP_AVG_POOL: assert_adjoint(&c, &dy, OP_AVG_POOL_GRAD, &dy, 1, 0); break;
      case OP_GLOBAL_AVG_POOL: assert_adjoint(&c, &dy, OP_GLOBAL_AVG_POOL_GRAD, &dy, 1, 0); break;
      case OP_SHIFT: assert_adjoint(&c, &dy, OP_UNSHIFT, &dy, 1, 0); break;
      default: assert_adjoint(&c, &dy, OP_RELU_GRAD, with_x, 2, 0); break;
      }
      done(&c);
    }
}

static void normalised_images_have_no_mean_and_unit_variance(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < SEEDS; seed++) {
    Computed c = compute(OP_BN_MOMENTS, seed);
    int32_t channels = c.x[0].type.dims[0];
    TensorValue operands[] = {c.x[0], c.y}, normal = {0}, moments = {0};
    for (int64_t e = 0; e < type_elements(c.x[0].type, BATCH); e++) c.x[0].data[e] += 1e4; /* far from zero: no cancellation */
    op_interpret(OP_BN_MOMENTS, NULL, operands, 1, BATCH, &operands[1]);
    op_interpret(OP_BN_APPLY, NULL, operands, 2, BATCH, &normal);
    op_interpret(OP_BN_MOMENTS, NULL, &normal, 1, BATCH, &moments);
    for (int32_t i = 0; i < channels; i++) {
      double variance = operands[1].data[channels + i];
      if (fabs(moments.data[i]) > 1e-9) fail_msg("mean %g", moments.data[i]);
      if (fabs(moments.data[channels + i] - variance / (variance + 1e-5)) > 1e-9) fail_msg("%g", moments.data[channels + i]);
    }
    free(normal.data);
    free(moments.data);
    done(&c);
  }
}

/* ---- steps ---- */

static const char step_module[] = "module m {batch 4}\n"
                                  "param @w f32[2] {weight, constant 1}\n"
                                  "param @v f32[2] {momentum, constant 0}\n"
                                  "param @u f32[] {weight, constant 0}\n"
                                  "step s(%x f32[2], %logits f32[B, 3], %y i32[B]) {\n"
                                  "  %0 f32[2] = add @w, %x\n"
                                  "  %1 f32[2] = mul %0, %0\n"
                                  "  %2 f32[] = dot %1, %x\n"
                                  "  %3 f32[B] = cross_entropy %logits, %y\n"
                                  "  result square = %1\n"
                                  "  result dot = %2\n"
                                  "  result losses = %3\n"
                                  "  update @w = @v\n"
                                  "  update @v = %0\n"
                                  "}\n";

typedef struct Step {
  Arena *arena;
  Module *module;
  double w[2], v[2], u[1], x[2], logits[12], y[4];
} Step;

static Step step_new(void) {
  Step s = {.arena = arena_new(), .w = {1, 2}, .v = {7, 8}, .u = {9}, .x = {10, 20}, .y = {0, 1, 2, 0}};
  Err err;
  s.module = module_parse(step_module, strlen(step_module), s.arena, &err);
  if (!s.module) fail_msg("%s", err.text);
  return s;
}

static Interpretation *step_run(Step *s, bool keep, size_t input_count, int64_t batch, Err *err) {
  NamedTensor inputs[] = {{"unknown", NULL}, {"x", s->x}, {"logits", s->logits}, {"y", s->y}};
  double *parameters[] = {s->w, s->v, s->u};
  const Graph *graph = s->module->steps.data[0];
  return keep ? graph_interpret(graph, batch, inputs, input_count, parameters, err)
              : graph_interpret_results(graph, batch, inputs, input_count, parameters, err);
}

static void step_done(Step *s) {
  module_free_tables(s->module);
  arena_free(s->arena);
}

static void a_step_gives_results_and_updates_at_once(void **state) {
  (void)state;
  for (int keep = 0; keep <= 1; keep++) {
    Step s = step_new();
    Err err;
    Interpretation *run = step_run(&s, keep, 4, 2, &err);
    if (!run) fail_msg("%s", err.text);
    int64_t elements;
    const double *square = interpretation_result(run, "square", &elements);
    assert_int_equal(elements, 2);
    assert_close(square[0], 121);
    assert_close(square[1], 484);
    assert_close(*interpretation_result(run, "dot", NULL), 121 * 10 + 484 * 20);
    assert_close(interpretation_result(run, "losses", &elements)[1], log(3));
    assert_int_equal(elements, 2);
    assert_null(interpretation_result(run, "other", NULL));
    assert_close(s.w[0], 7); /* what v was before */
    assert_close(s.w[1], 8);
    assert_close(s.v[0], 11);
    assert_close(s.v[1], 22);
    assert_close(s.u[0], 9);
    ValueId sum = 2; /* %0, behind the inputs, once @w has its place */
    while (graph_node(s.module->steps.data[0], sum)->op != OP_ADD) sum++;
    if (keep) assert_close(interpretation_value(run, sum)[1], 22);
    interpretation_free(run);
    step_done(&s);
  }
}

static void a_step_that_cannot_run_says_why(void **state) {
  (void)state;
  Step s = step_new();
  Err err;
  assert_null(step_run(&s, true, 4, 5, &err));
  assert_string_equal(err.text, "the step s takes batches of 1 to 4 images, not 5");
  assert_null(step_run(&s, true, 3, 2, &err));
  assert_string_equal(err.text, "the step s was not given its input y");
  s.y[1] = 3;
  assert_null(step_run(&s, false, 4, 2, &err));
  assert_string_equal(err.text, "label 1 of the step s is 3 where a whole number from 0 to 2 is wanted");
  s.y[1] = NAN;
  assert_null(step_run(&s, true, 4, 2, &err));
  s.y[1] = 0.5;
  assert_null(step_run(&s, true, 4, 2, &err));
  assert_close(s.w[0], 1);
  step_done(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_step_computes_what_one_operation_does),
      cmocka_unit_test(windows_follow_their_formula),
      cmocka_unit_test(a_shift_before_a_strided_convolution_reads_odd_pixels),
      cmocka_unit_test(gradients_are_adjoints),
      cmocka_unit_test(normalised_images_have_no_mean_and_unit_variance),
      cmocka_unit_test(a_step_gives_results_and_updates_at_once),
      cmocka_unit_test(a_step_that_cannot_run_says_why),
  };
  return cmocka_run_group_tests_name("graph interpret", tests, NULL, NULL);
}
