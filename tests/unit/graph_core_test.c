/* The Graph IR's operations, by walking the table: an operation without an example below, or without a
 * text that its rule refuses, fails the test. Every example is a line of text with numbers worked out by hand (B is 2). */
#include "compiler/graph/graph.h"
#include "runtime/base/file.h"
#include "tests/unit/graph_instances.h"
#include "tests/unit/graph_text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { OPERANDS = 4, NUMBERS = 8 };

#define LN2 0.69314718055994530942
#define LN3 1.09861228866810969140
#define VARIANCE_4 (4 - 1e-5) /* with BN's epsilon a deviation of 2 */
#define ROW "{kernel 1 3, stride 1 2, pad 0 1}"

typedef struct Example {
  OpCode op;
  const char *inputs, *line;
  double x[OPERANDS][NUMBERS], y[NUMBERS];
} Example;

static const Example examples[] = {
    {OP_CONST, "", "%0 f32[2] = const {value 0.5}", {{0}}, {0.5, 0.5}},
    {OP_GRADIENT, "%a f32[]", "%0 f32[] = gradient %a, %a", {{0}}, {0}}, /* not computed: tests/golden/autodiff */
    {OP_SOFTMAX, "%a f32[2]", "%0 f32[2] = softmax %a", {{0, LN3}}, {0.25, 0.75}},
    {OP_SOFTMAX_GRAD, "%a f32[2], %b f32[2]", "%0 f32[2] = softmax_grad %a, %b", {{1, 3}, {0.25, 0.75}}, {-0.375, 0.375}},
    {OP_ELEMENT, "%a f32[3]", "%0 f32[] = element %a {index 1}", {{5, 6, 7}}, {6}},
    {OP_STACK, "%a f32[], %b f32[]", "%0 f32[2] = stack %b, %a", {{2}, {3}}, {3, 2}},
    {OP_LINEAR,
     "%a f32[B, 2], %b f32[3, 2], %c f32[3]",
     "%0 f32[B, 3] = linear %a, %b, %c",
     {{1, 2, 3, 4}, {1, 0, 0, 1, 1, 1}, {10, 20, 30}},
     {11, 22, 33, 13, 24, 37}},
    {OP_LINEAR_GRAD_INPUT,
     "%a f32[B, 3], %b f32[3, 2]",
     "%0 f32[B, 2] = linear_grad_input %a, %b",
     {{1, 2, 3, 4, 5, 6}, {1, 0, 0, 1, 1, 1}},
     {4, 5, 10, 11}},
    {OP_LINEAR_GRAD_WEIGHT,
     "%a f32[B, 2], %b f32[B, 2]",
     "%0 f32[2, 2] = linear_grad_weight %a, %b",
     {{1, 2, 3, 4}, {5, 6, 7, 8}},
     {26, 30, 38, 44}},
    {OP_BATCH_SUM, "%a f32[B, 2]", "%0 f32[2] = batch_sum %a", {{1, 2, 3, 4}}, {4, 6}},
    {OP_ROW_SUM, "%a f32[2, 3]", "%0 f32[] = row_sum %a {index 1}", {{1, 2, 3, 4, 5, 6}}, {15}},
    {OP_RESHAPE, "%a f32[4]", "%0 f32[2, 1, 2] = reshape %a", {{1, 2, 3, 4}}, {1, 2, 3, 4}},
    {OP_CROSS_ENTROPY,
     "%a f32[B, 2], %b i32[B]",
     "%0 f32[B] = cross_entropy %a, %b",
     {{0, LN3, 0, 0}, {1, 0}},
     {2 * LN2 - LN3, LN2}},
    {OP_CROSS_ENTROPY_GRAD,
     "%a f32[B], %b f32[B, 2], %c i32[B]",
     "%0 f32[B, 2] = cross_entropy_grad %a, %b, %c",
     {{2, 4}, {0, LN3, 0, 0}, {1, 0}},
     {0.5, -0.5, -2, 2}},
    {OP_CORRECT, "%a f32[B, 3], %b i32[B]", "%0 f32[B] = correct %a, %b", {{1, 1, 0, 0, 2, 1}, {0, 2}}, {1, 0}},
    {OP_BATCH_MEAN, "%a f32[B]", "%0 f32[] = batch_mean %a", {{1, 4}}, {2.5}},
    {OP_BATCH_MEAN_GRAD, "%a f32[]", "%0 f32[B] = batch_mean_grad %a", {{3}}, {1.5, 1.5}},
    {OP_RELU, "%a f32[3]", "%0 f32[3] = relu %a", {{-1, 0, 2}}, {0, 0, 2}},
    {OP_RELU_GRAD, "%a f32[3], %b f32[3]", "%0 f32[3] = relu_grad %a, %b", {{5, 6, 7}, {-1, 0, 2}}, {0, 0, 7}},
    {OP_ADD, "%a f32[B, 1], %b f32[B, 1]", "%0 f32[B, 1] = add %a, %b", {{1, 2}, {3, 5}}, {4, 7}},
    {OP_MUL, "%a f32[2], %b f32[2]", "%0 f32[2] = mul %a, %b", {{2, 3}, {5, 7}}, {10, 21}},
    {OP_SCALE, "%a f32[B, 1, 1, 1], %b f32[]", "%0 f32[B, 1, 1, 1] = scale %a, %b", {{2, 3}, {5}}, {10, 15}},
    {OP_BN_APPLY,
     "%a f32[B, 1, 1, 2], %b f32[2, 1]",
     "%0 f32[B, 1, 1, 2] = bn_apply %a, %b",
     {{1, 3, 5, 7}, {4, VARIANCE_4}},
     {-1.5, -0.5, 0.5, 1.5}},
    {OP_BN_GRAD,
     "%a f32[B, 1, 1, 2], %b f32[B, 1, 1, 2], %c f32[2, 1], %d f32[2, 1]",
     "%0 f32[B, 1, 1, 2] = bn_grad %a, %b, %c, %d",
     {{1, 0, 0, 0}, {1, 3, 5, 7}, {4, VARIANCE_4}, {4, 8}},
     {1.5, 0, -1, -2}},
    {OP_AFFINE,
     "%a f32[B, 2, 1, 1], %b f32[2], %c f32[2]",
     "%0 f32[B, 2, 1, 1] = affine %a, %b, %c",
     {{1, 2, 3, 4}, {10, 100}, {1, 2}},
     {11, 202, 31, 402}},
    {OP_CHANNEL_SCALE,
     "%a f32[B, 2, 1, 1], %b f32[2]",
     "%0 f32[B, 2, 1, 1] = channel_scale %a, %b",
     {{1, 2, 3, 4}, {10, 100}},
     {10, 200, 30, 400}},
    {OP_BN_MOMENTS, "%a f32[B, 1, 1, 2]", "%0 f32[2, 1] = bn_moments %a", {{1, 3, 5, 7}}, {4, 5}},
    {OP_BN_GRAD_SUMS,
     "%a f32[B, 1, 1, 2], %b f32[B, 1, 1, 2], %c f32[2, 1]",
     "%0 f32[2, 1] = bn_grad_sums %a, %b, %c",
     {{1, 2, 3, 4}, {1, 3, 5, 7}, {4, VARIANCE_4}},
     {10, 5}},
    {OP_CHANNEL_SUM, "%a f32[B, 2, 1, 2]", "%0 f32[2] = channel_sum %a", {{1, 2, 3, 4, 5, 6, 7, 8}}, {14, 22}},
    {OP_CHANNEL_DOT,
     "%a f32[B, 2, 1, 2], %b f32[B, 2, 1, 2]",
     "%0 f32[2] = channel_dot %a, %b",
     {{1, 2, 3, 4, 5, 6, 7, 8}, {1, 0, 1, 0, 0, 1, 0, 1}},
     {7, 11}},
    {OP_DOT, "%a f32[B, 2], %b f32[B, 2]", "%0 f32[] = dot %a, %b", {{1, 2, 3, 4}, {1, 1, 1, 2}}, {14}},
    {OP_GLOBAL_AVG_POOL, "%a f32[B, 1, 1, 2]", "%0 f32[B, 1] = global_avg_pool %a", {{1, 3, 5, 7}}, {2, 6}},
    {OP_GLOBAL_AVG_POOL_GRAD, "%a f32[B, 1]", "%0 f32[B, 1, 1, 2] = global_avg_pool_grad %a {side 1 2}", {{2, 4}}, {1, 1, 2, 2}},
    {OP_CONV,
     "%a f32[B, 1, 1, 3], %b f32[1, 1, 1, 3]",
     "%0 f32[B, 1, 1, 2] = conv %a, %b " ROW,
     {{1, 2, 3, 4, 5, 6}, {1, 10, 100}},
     {210, 32, 540, 65}},
    {OP_CONV_GRAD_INPUT,
     "%a f32[B, 1, 1, 2], %b f32[1, 1, 1, 3]",
     "%0 f32[B, 1, 1, 3] = conv_grad_input %a, %b {side 1 3, kernel 1 3, stride 1 2, pad 0 1}",
     {{1, 2, 3, 4}, {1, 10, 100}},
     {10, 102, 20, 30, 304, 40}},
    {OP_CONV_GRAD_WEIGHT,
     "%a f32[B, 1, 1, 2], %b f32[B, 1, 1, 3]",
     "%0 f32[1, 1, 1, 3] = conv_grad_weight %a, %b " ROW,
     {{1, 2, 3, 4}, {1, 2, 3, 4, 5, 6}},
     {24, 43, 17}},
    {OP_MAX_POOL, "%a f32[B, 1, 1, 3]", "%0 f32[B, 1, 1, 2] = max_pool %a " ROW, {{-1, -2, -3, 4, 6, 6}}, {-1, -2, 6, 6}},
    {OP_MAX_POOL_GRAD,
     "%a f32[B, 1, 1, 2], %b f32[B, 1, 1, 3]",
     "%0 f32[B, 1, 1, 3] = max_pool_grad %a, %b " ROW,
     {{1, 2, 3, 4}, {-1, -2, -3, 4, 6, 6}},
     {1, 2, 0, 0, 7, 0}},
    {OP_AVG_POOL, "%a f32[B, 1, 1, 3]", "%0 f32[B, 1, 1, 2] = avg_pool %a " ROW, {{1, 2, 3, 4, 5, 6}}, {1.5, 2.5, 4.5, 5.5}},
    {OP_AVG_POOL_GRAD,
     "%a f32[B, 1, 1, 2]",
     "%0 f32[B, 1, 1, 3] = avg_pool_grad %a {side 1 3, kernel 1 3, stride 1 2, pad 0 1}",
     {{2, 4, 6, 8}},
     {1, 3, 2, 3, 7, 4}},
    {OP_CONCAT,
     "%a f32[B, 1, 1, 1], %b f32[B, 2, 1, 1]",
     "%0 f32[B, 3, 1, 1] = concat %a, %b",
     {{1, 2}, {3, 4, 5, 6}},
     {1, 3, 4, 2, 5, 6}},
    {OP_SLICE, "%a f32[B, 3, 1, 1]", "%0 f32[B, 2, 1, 1] = slice %a {begin 1, count 2}", {{1, 2, 3, 4, 5, 6}}, {2, 3, 5, 6}},
    {OP_SHIFT, "%a f32[B, 1, 2, 2]", "%0 f32[B, 1, 1, 2] = shift %a {shift 1 0}", {{1, 2, 3, 4, 5, 6, 7, 8}}, {3, 4, 7, 8}},
    {OP_UNSHIFT, "%a f32[B, 1, 1, 2]", "%0 f32[B, 1, 1, 3] = unshift %a {shift 0 1}", {{1, 2, 3, 4}}, {0, 1, 2, 0, 3, 4}},
    {OP_SUM_SQUARES, "%a f32[3]", "%0 f32[] = sum_squares %a", {{1, 2, 3}}, {14}},
    {OP_SQRT, "%a f32[]", "%0 f32[] = sqrt %a", {{9}}, {3}},
    {OP_CLIP, "%a f32[]", "%0 f32[] = clip %a {value 5}", {{10 - 1e-6}}, {0.5}},
    {OP_MOMENTUM,
     "%a f32[1], %b f32[1], %c f32[1], %d f32[]",
     "%0 f32[1] = momentum %a, %b, %c, %d {beta 0.5, decay 0.25}",
     {{4}, {2}, {3}, {2}},
     {8}},
    {OP_DESCEND, "%a f32[1], %b f32[1], %c f32[]", "%0 f32[1] = descend %a, %b, %c", {{10}, {2}, {3}}, {4}},
    {OP_ADAM_MEAN,
     "%a f32[1], %b f32[1], %c f32[1]",
     "%0 f32[1] = adam_mean %a, %b, %c {beta 0.75, decay 0.5}",
     {{4}, {8}, {2}},
     {7}},
    {OP_ADAM_SQUARE,
     "%a f32[1], %b f32[1], %c f32[1]",
     "%0 f32[1] = adam_square %a, %b, %c {beta 0.75, decay 0.5}",
     {{4}, {8}, {2}},
     {10}},
    {OP_ADAM_STEP,
     "%a f32[1], %b f32[1], %c f32[3]",
     "%0 f32[1] = adam_step %a, %b, %c {value 1}",
     {{4}, {36}, {0.5, 2, 4}},
     {0.25}},
};
enum { EXAMPLES = sizeof examples / sizeof *examples };

/* ---- the table ---- */

static void every_operation_has_a_row(void **state) {
  (void)state;
  for (int op = 0; op < OP_COUNT; op++) {
    assert_non_null(op_table[op].text);
    for (int other = 0; other < op; other++) assert_string_not_equal(op_table[op].text, op_table[other].text);
    bool found = op == OP_INPUT || op == OP_PARAM; /* they stand in the examples' steps, and have no line */
    for (int i = 0; i < EXAMPLES; i++) found = found || examples[i].op == (OpCode)op;
    if (!found) fail_msg("%s has no example", op_table[op].text);
  }
}

static void examples_print_as_they_are_written(void **state) {
  (void)state;
  for (int i = 0; i < EXAMPLES; i++) {
    Arena *arena = arena_new();
    char *text = step_text(examples[i].inputs, examples[i].line), wanted[256];
    Module *module = parse(text, arena);
    Graph *graph = module->steps.data[0];
    assert_int_equal(graph->nodes.data[graph->nodes.count - 1].op, examples[i].op);
    char *printed = print_lines(graph);
    snprintf(wanted, sizeof wanted, " %s\n", examples[i].line);
    assert_string_equal(printed, wanted);
    free(printed);
    free(text);
    module_free_tables(module);
    arena_free(arena);
  }
}

static void examples_compute_what_is_written(void **state) {
  (void)state;
  static const char *const names[OPERANDS] = {"a", "b", "c", "d"};
  for (int i = 0; i < EXAMPLES; i++) {
    if (op_table[examples[i].op].class == CLASS_MARK) continue;
    Arena *arena = arena_new();
    char *text = step_text(examples[i].inputs, examples[i].line);
    Module *module = parse(text, arena);
    Graph *graph = module->steps.data[0];
    NamedTensor inputs[OPERANDS];
    for (int j = 0; j < OPERANDS; j++) inputs[j] = (NamedTensor){names[j], examples[i].x[j]};
    Err err;
    Interpretation *run = graph_interpret(graph, BATCH, inputs, OPERANDS, NULL, &err);
    if (!run) fail_msg("%s: %s", examples[i].line, err.text);
    ValueId last = (ValueId)graph->nodes.count - 1;
    const double *y = interpretation_value(run, last);
    int64_t elements = type_elements(graph_type(graph, last), BATCH);
    for (int64_t e = 0; e < elements; e++)
      if (!(fabs(y[e] - examples[i].y[e]) <= 1e-14 * (1 + fabs(y[e]))))
        fail_msg("%s: element %d is %.17g, not %.17g", examples[i].line, (int)e, y[e], examples[i].y[e]);
    interpretation_free(run);
    free(text);
    module_free_tables(module);
    arena_free(arena);
  }
}

/* ---- refusals: at least one for each operation with operands ---- */

typedef struct Refusal {
  OpCode op;
  const char *inputs, *line, *message;
} Refusal;

static const Refusal refusals[] = {
    {OP_SOFTMAX, "%a f32[B, 2]", "%0 f32[B, 2] = softmax %a", "softmax: operand 0 is f32[B, 2] where a vector f32[K] is wanted"},
    {OP_SOFTMAX_GRAD, "%a f32[2], %b f32[3]", "%0 f32[2] = softmax_grad %a, %b", "operand 1 is f32[3] where f32[2] is wanted"},
    {OP_ELEMENT, "%a f32[3]", "%0 f32[] = element %a {index 3}", "element: entry 3 of f32[3]"},
    {OP_ELEMENT, "%a f32[3]", "%0 f32[] = element %a {index -1}", "element: entry -1 of f32[3]"},
    {OP_ELEMENT, "%a f32[3]", "%0 f32[] = element %a", "element needs its attribute index"},
    {OP_STACK, "%a f32[], %b f32[1]", "%0 f32[2] = stack %a, %b", "operand 1 is f32[1] where f32[] is wanted"},
    {OP_LINEAR, "%a f32[], %b f32[3, 2], %c f32[3]", "%0 f32[3] = linear %a, %b, %c",
     "operand 1 is f32[3, 2] where f32[M, N] with the N of operand 0 is wanted"},
    {OP_LINEAR, "%a f32[2], %b f32[3, 2], %c f32[2]", "%0 f32[3] = linear %a, %b, %c",
     "operand 2 is f32[2] where f32[3] is wanted"},
    {OP_LINEAR_GRAD_INPUT, "%a f32[2], %b f32[3, 2]", "%0 f32[2] = linear_grad_input %a, %b",
     "operand 1 is f32[3, 2] where f32[M, N] with the M of operand 0 is wanted"},
    {OP_LINEAR_GRAD_WEIGHT, "%a f32[2], %b f32[B, 3]", "%0 f32[2, 3] = linear_grad_weight %a, %b",
     "operand 1 is f32[B, 3] where a tensor with a B where operand 0 has one is wanted"},
    {OP_BATCH_SUM, "%a f32[2]", "%0 f32[2] = batch_sum %a", "operand 0 is f32[2] where f32[B, M] is wanted"},
    {OP_RESHAPE, "%a f32[4]", "%0 f32[3] = reshape %a", "f32[4] does not have the elements of f32[3]"},
    {OP_RESHAPE, "%a f32[4]", "%0 f32[B, 4] = reshape %a", "f32[4] does not have the elements of f32[B, 4]"},
    {OP_CROSS_ENTROPY, "%a f32[B, 2], %b f32[B]", "%0 f32[B] = cross_entropy %a, %b",
     "operand 1 is f32[B] where i32[B] is wanted"},
    {OP_CROSS_ENTROPY_GRAD, "%a f32[], %b f32[B, 2], %c i32[B]", "%0 f32[B, 2] = cross_entropy_grad %a, %b, %c",
     "operand 0 is f32[] where f32[B] is wanted"},
    {OP_CORRECT, "%a f32[2], %b i32[B]", "%0 f32[B] = correct %a, %b", "operand 0 is f32[2] where f32[B, M] is wanted"},
    {OP_BATCH_MEAN, "%a f32[B, 1]", "%0 f32[] = batch_mean %a", "operand 0 is f32[B, 1] where f32[B] is wanted"},
    {OP_BATCH_MEAN_GRAD, "%a f32[B]", "%0 f32[B] = batch_mean_grad %a", "operand 0 is f32[B] where f32[] is wanted"},
    {OP_RELU, "%a i32[B]", "%0 i32[B] = relu %a", "operand 0 is i32[B] where a tensor of f32 is wanted"},
    {OP_RELU_GRAD, "%a f32[1], %b f32[B]", "%0 f32[1] = relu_grad %a, %b", "operand 1 is f32[B] where f32[1] is wanted"},
    {OP_ADD, "%a f32[1], %b f32[]", "%0 f32[1] = add %a, %b", "operand 1 is f32[] where f32[1] is wanted"},
    {OP_ADD, "%a f32[1]", "%0 f32[1] = add %a", "add: 1 operands where 2 are wanted"},
    {OP_ADD, "%a f32[1]", "%0 f32[2] = add %a, %a", "add gives f32[1], not f32[2]"},
    {OP_MUL, "%a f32[B], %b f32[1]", "%0 f32[B] = mul %a, %b", "operand 1 is f32[1] where f32[B] is wanted"},
    {OP_SCALE, "%a f32[1], %b f32[1]", "%0 f32[1] = scale %a, %b", "operand 1 is f32[1] where f32[] is wanted"},
    {OP_BN_APPLY, "%a f32[B, 3, 1, 1], %b f32[2, 2]", "%0 f32[B, 3, 1, 1] = bn_apply %a, %b",
     "operand 1 is f32[2, 2] where f32[2, 3] is wanted"},
    {OP_BN_GRAD, "%a f32[B, 3, 1, 1], %b f32[2, 3], %c f32[2, 2]", "%0 f32[B, 3, 1, 1] = bn_grad %a, %a, %b, %c",
     "operand 3 is f32[2, 2] where f32[2, 3] is wanted"},
    {OP_AFFINE, "%a f32[B, 3, 1, 1], %b f32[3], %c f32[2]", "%0 f32[B, 3, 1, 1] = affine %a, %b, %c",
     "operand 2 is f32[2] where f32[3] is wanted"},
    {OP_CHANNEL_SCALE, "%a f32[B, 3], %b f32[3]", "%0 f32[B, 3] = channel_scale %a, %b",
     "operand 0 is f32[B, 3] where f32[B, C, H, W] is wanted"},
    {OP_BN_MOMENTS, "%a f32[3, 1, 1]", "%0 f32[2, 3] = bn_moments %a", "where f32[B, C, H, W] is wanted"},
    {OP_BN_GRAD_SUMS, "%a f32[B, 3, 1, 1], %b f32[2, 2]", "%0 f32[2, 3] = bn_grad_sums %a, %a, %b",
     "operand 2 is f32[2, 2] where f32[2, 3] is wanted"},
    {OP_CHANNEL_SUM, "%a f32[B, 3]", "%0 f32[3] = channel_sum %a", "where f32[B, C, H, W] is wanted"},
    {OP_CHANNEL_DOT, "%a f32[B, 3, 1, 1], %b f32[B, 3, 1, 2]", "%0 f32[3] = channel_dot %a, %b",
     "operand 1 is f32[B, 3, 1, 2] where f32[B, 3, 1, 1] is wanted"},
    {OP_DOT, "%a f32[2], %b f32[3]", "%0 f32[] = dot %a, %b", "operand 1 is f32[3] where f32[2] is wanted"},
    {OP_GLOBAL_AVG_POOL, "%a f32[B, 3]", "%0 f32[B, 3] = global_avg_pool %a", "where f32[B, C, H, W] is wanted"},
    {OP_GLOBAL_AVG_POOL_GRAD, "%a f32[B, 3]", "%0 f32[B, 3, 1, 1] = global_avg_pool_grad %a {side 0}",
     "the result would be f32[B, 3, 0, 0], which is empty or too large"},
    {OP_CONV, "%a f32[B, 3, 4, 4], %b f32[4, 3, 3, 3]", "%0 f32[B, 4, 4, 4] = conv %a, %b",
     "operand 1 is f32[4, 3, 3, 3] where f32[4, 3, 1, 1] is wanted"},
    {OP_CONV, "%a f32[B, 3, 2, 2], %b f32[4, 3, 3, 3]", "%0 f32[B, 4, 1, 1] = conv %a, %b {kernel 3}",
     "conv: a side of 2 with padding 0 is smaller than the window's 3 pixels"},
    {OP_CONV, "%a f32[B, 3, 2, 2], %b f32[4, 3, 1, 1]", "%0 f32[B, 4, 2, 2] = conv %a, %b {groups 2}",
     "conv: 2 groups do not divide 3 input and 4 output channels"},
    {OP_CONV, "%a f32[B, 3, 2, 2], %b f32[4, 3, 1, 1]", "%0 f32[B, 4, 2, 2] = conv %a, %b {stride 0}",
     "conv: stride 0 is not within"},
    {OP_CONV_GRAD_INPUT, "%a f32[B, 4, 3, 3], %b f32[4, 3, 1, 1]", "%0 f32[B, 3, 5, 5] = conv_grad_input %a, %b {side 5}",
     "operand 0 is f32[B, 4, 3, 3] where f32[B, 4, 5, 5] is wanted"},
    {OP_CONV_GRAD_WEIGHT, "%a f32[B, 4, 3, 3], %b f32[B, 3, 5, 5]", "%0 f32[4, 3, 1, 1] = conv_grad_weight %a, %b {stride 3}",
     "operand 0 is f32[B, 4, 3, 3] where f32[B, 4, 2, 2] is wanted"},
    {OP_MAX_POOL, "%a f32[B, 1, 3, 3]", "%0 f32[B, 1, 3, 3] = max_pool %a {kernel 3, dilation 2}",
     "dilation of a pool must be 1"},
    {OP_MAX_POOL, "%a f32[B, 1, 3, 3]", "%0 f32[B, 1, 5, 5] = max_pool %a {kernel 3, pad 2}",
     "max_pool: padding 2 is not within 0..1"},
    {OP_MAX_POOL_GRAD, "%a f32[B, 1, 3, 3], %b f32[B, 2, 3, 3]", "%0 f32[B, 2, 3, 3] = max_pool_grad %a, %b {kernel 3, pad 1}",
     "operand 0 is f32[B, 1, 3, 3] where f32[B, 2, 3, 3] is wanted"},
    {OP_AVG_POOL, "%a f32[B, 1, 3, 3]", "%0 f32[B, 1, 3, 3] = avg_pool %a {kernel 3, pad 1, groups 2}", "groups and dilation"},
    {OP_AVG_POOL_GRAD, "%a f32[B, 1, 3, 3]", "%0 f32[B, 1, 4, 4] = avg_pool_grad %a {side 4, kernel 3, pad 1}",
     "operand 0 is f32[B, 1, 3, 3] where f32[B, 1, 4, 4] is wanted"},
    {OP_CONCAT, "%a f32[B, 1, 3, 3], %b f32[B, 1, 3, 2]", "%0 f32[B, 2, 3, 3] = concat %a, %b",
     "operand 1 is f32[B, 1, 3, 2] where an image with the sides of operand 0 is wanted"},
    {OP_SLICE, "%a f32[B, 3, 1, 1]", "%0 f32[B, 2, 1, 1] = slice %a {begin 2, count 2}", "channels 2 .. 4 of f32[B, 3, 1, 1]"},
    {OP_SHIFT, "%a f32[B, 3, 1, 2]", "%0 f32[B, 3, 1, 1] = shift %a {shift 1}", "a shift by 1 leaves nothing of a side of 1"},
    {OP_UNSHIFT, "%a f32[B, 3, 1, 2]", "%0 f32[B, 3, 1, 1] = unshift %a {shift -1}", "unshift: by -1 rows, -1 columns"},
    {OP_SUM_SQUARES, "%a f32[B]", "%0 f32[] = sum_squares %a", "operand 0 is f32[B] where a tensor of f32 without B is wanted"},
    {OP_ROW_SUM, "%a f32[2, 3]", "%0 f32[] = row_sum %a {index 2}", "row 2 of f32[2, 3]"},
    {OP_GRADIENT, "%a f32[1]", "%0 f32[1] = gradient %a, %a", "operand 0 is f32[1] where f32[] is wanted"},
    {OP_SQRT, "%a f32[1]", "%0 f32[] = sqrt %a", "operand 0 is f32[1] where f32[] is wanted"},
    {OP_CLIP, "%a f32[1]", "%0 f32[] = clip %a {value 1}", "operand 0 is f32[1] where f32[] is wanted"},
    {OP_MOMENTUM, "%a f32[1], %b f32[]", "%0 f32[1] = momentum %a, %a, %b, %b {beta 1, decay 1}",
     "operand 2 is f32[] where f32[1] is wanted"},
    {OP_MOMENTUM, "%a f32[]", "%0 f32[] = momentum %a, %a, %a, %a {beta 1}", "momentum needs its attribute decay"},
    {OP_DESCEND, "%a f32[1]", "%0 f32[1] = descend %a, %a, %a", "operand 2 is f32[1] where f32[] is wanted"},
    {OP_ADAM_MEAN, "%a f32[1], %b f32[]", "%0 f32[1] = adam_mean %a, %a, %b {beta 1, decay 1}",
     "operand 2 is f32[] where f32[1] is wanted"},
    {OP_ADAM_SQUARE, "%a f32[1], %b f32[]", "%0 f32[1] = adam_square %a, %b, %a {beta 1, decay 1}",
     "operand 1 is f32[] where f32[1] is wanted"},
    {OP_ADAM_STEP, "%a f32[1], %b f32[2]", "%0 f32[1] = adam_step %a, %a, %b {value 1}",
     "operand 2 is f32[2] where f32[3] is wanted"},
};
enum { REFUSALS = sizeof refusals / sizeof *refusals };

static void rules_refuse_with_a_message(void **state) {
  (void)state;
  for (int i = 0; i < REFUSALS; i++) {
    char *text = step_text(refusals[i].inputs, refusals[i].line);
    refuses(text, refusals[i].message);
    free(text);
  }
  for (int op = 0; op < OP_COUNT; op++) {
    bool found = op_table[op].arity == 0;
    for (int i = 0; i < REFUSALS; i++) found = found || refusals[i].op == (OpCode)op;
    if (!found) fail_msg("%s has no refusal", op_table[op].text);
  }
}

static void random_instances_print_and_parse(void **state) {
  (void)state;
  enum { SEEDS = 25 };
  for (int op = OP_CONST + 1; op < OP_COUNT; op++)
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
      Arena *arena = arena_new();
      Module *module = module_new(arena, "m", BATCH);
      Graph *graph = module_add_step(module, "s");
      GraphInstance instance;
      Err err;
      graph_instance((OpCode)op, seed, NULL, graph, &instance);
      assert_int_equal(graph_node(graph, instance.value)->op, op);
      if (!graph_verify(graph, &err)) fail_msg("%s", err.text);
      char *first = print(module);
      Module *again = parse(first, arena);
      char *second = print(again);
      assert_string_equal(first, second);
      free(first);
      free(second);
      module_free_tables(module);
      module_free_tables(again);
      arena_free(arena);
    }
}

/* ---- the document ---- */

/* As the document names them. */
static void attribute_names(uint32_t bits, Text *out) {
  static const struct {
    uint32_t bit;
    const char *names;
  } rows[] = {{A_NAME, "name"},
              {A_VALUE, "value"},
              {A_INDEX, "index"},
              {A_RANGE, "begin, count"},
              {A_SHIFT, "shift"},
              {A_SIDE, "side"},
              {A_BETA_DECAY, "beta, decay"},
              {A_WINDOW, "window"},
              {A_SHAPE, "shape"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (bits & rows[i].bit) text_printf(out, "%s%s", out->length ? ", " : "", rows[i].names);
}

static void the_document_has_every_operation_and_parses(void **state) {
  (void)state;
  char *document;
  size_t size;
  Err err;
  if (!file_read(ADWP_SOURCE_DIR "/docs/ir.md", 1 << 20, &document, &size, &err)) fail_msg("%s", err.text);
  for (int op = 0; op < OP_COUNT; op++) {
    Text names = {0}, row = {0};
    attribute_names(op_table[op].attributes, &names);
    text_printf(&row, "\n| `%s` | ", op_table[op].text);
    if (op_table[op].arity == VARIADIC)
      text_add(&row, "1..");
    else
      text_printf(&row, "%d", op_table[op].arity);
    text_printf(&row, " | %s |", names.data ? names.data : "");
    if (!strstr(document, row.data)) fail_msg("docs/ir.md has no row that begins%s", row.data);
    text_free(&names);
    text_free(&row);
  }
  char *begin = strstr(document, "```\nmodule"), *end = begin ? strstr(begin + 3, "```") : NULL;
  assert_non_null(end);
  *end = 0;
  Arena *arena = arena_new();
  module_free_tables(parse(begin + 4, arena));
  arena_free(arena);
  free(document);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_operation_has_a_row),        cmocka_unit_test(examples_print_as_they_are_written),
      cmocka_unit_test(examples_compute_what_is_written), cmocka_unit_test(rules_refuse_with_a_message),
      cmocka_unit_test(random_instances_print_and_parse), cmocka_unit_test(the_document_has_every_operation_and_parses),
  };
  return cmocka_run_group_tests_name("graph core", tests, NULL, NULL);
}
