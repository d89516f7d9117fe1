/* The builder: equal nodes are one, what is constant or changes nothing is folded away, and all else stays. And the verifier. */
#include "compiler/graph/graph.h"
#include "tests/unit/graph_text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What graph_emit makes of lines that the parser keeps as they are. */
static char *emit_again(const char *inputs, const char *lines) {
  Arena *arena = arena_new();
  char *text = step_text(inputs, lines);
  Module *module = parse(text, arena);
  const Graph *from = module->steps.data[0];
  Graph *to = graph_new(module, "again");
  ValueId map[64], operands[8];
  for (size_t i = 0; i < from->nodes.count; i++) {
    const GraphNode *node = &from->nodes.data[i];
    for (int32_t j = 0; j < node->operand_count; j++) operands[j] = map[node->operands[j]];
    map[i] = graph_emit(to, node->op, operands, node->operand_count, node->attributes);
  }
  for (size_t i = 0; i < from->results.count; i++) graph_result(to, from->results.data[i].name, map[from->results.data[i].value]);
  Err err;
  if (!graph_verify(to, &err)) fail_msg("%s", err.text);
  char *printed = print_lines(to);
  free(text);
  module_free_tables(module);
  arena_free(arena);
  return printed;
}

static const char *const folds[][3] = {
    /* equal nodes are one, in either order where the operation commutes */
    {"%a f32[2], %b f32[2]", "%0 f32[2]=add %a,%b %1 f32[2]=add %b,%a %2 f32[2]=mul %0,%1 result r=%2",
     " %0 f32[2] = add %a, %b\n %1 f32[2] = mul %0, %0\n result r = %1\n"},
    {"%a f32[2], %b f32[2]", "%0 f32[2]=relu_grad %a,%b %1 f32[2]=relu_grad %b,%a",
     " %0 f32[2] = relu_grad %a, %b\n %1 f32[2] = relu_grad %b, %a\n"},
    {"%a f32[3]", "%0 f32[]=element %a{index 1} %1 f32[]=element %a{index 2} %2 f32[]=element %a{index 1} result r=%2",
     " %0 f32[] = element %a {index 1}\n %1 f32[] = element %a {index 2}\n result r = %0\n"},
    {"%a f32[B,1,4,4]", "%0 f32[B,1,4,4]=avg_pool %a{kernel 3,pad 1} %1 f32[B,1,2,2]=avg_pool %a{kernel 3,pad 1,stride 2}",
     " %0 f32[B, 1, 4, 4] = avg_pool %a {kernel 3, pad 1}\n %1 f32[B, 1, 2, 2] = avg_pool %a {kernel 3, stride 2, pad 1}\n"},
    /* what changes nothing */
    {"%a f32[2]", "%0 f32[2]=const{value 0} %1 f32[2]=add %0,%a %2 f32[2]=add %1,%0 result r=%2",
     " %0 f32[2] = const {value 0}\n result r = %a\n"},
    {"%a f32[2]", "%0 f32[2]=const{value 1} %1 f32[2]=mul %0,%a %2 f32[2]=mul %1,%0 result r=%2",
     " %0 f32[2] = const {value 1}\n result r = %a\n"},
    {"%a f32[B,1,2,2]", "%0 f32[]=const{value 1} %1 f32[B,1,2,2]=scale %a,%0 result r=%1",
     " %0 f32[] = const {value 1}\n result r = %a\n"},
    {"%a f32[2]", "%0 f32[2]=relu %a %1 f32[2]=relu %0 result r=%1", " %0 f32[2] = relu %a\n result r = %0\n"},
    {"%a f32[4]", "%0 f32[2,2]=reshape %a %1 f32[1,4]=reshape %0 %2 f32[4]=reshape %1 result r=%2",
     " %0 f32[2, 2] = reshape %a\n %1 f32[1, 4] = reshape %a\n result r = %a\n"},
    {"%a f32[B,3,2,2]",
     "%0 f32[B,3,2,2]=slice %a{begin 0,count 3} %1 f32[B,3,2,2]=shift %0{shift 0} %2 f32[B,3,2,2]=concat %1 result r=%2",
     " result r = %a\n"},
    {"%a f32[B,3,3,3]", "%0 f32[B,2,3,3]=slice %a{begin 1,count 2} %1 f32[B,1,3,3]=slice %0{begin 1,count 1} result r=%1",
     " %0 f32[B, 2, 3, 3] = slice %a {begin 1, count 2}\n %1 f32[B, 1, 3, 3] = slice %a {begin 2, count 1}\n result r = %1\n"},
    {"%a f32[B,3,3,3]", "%0 f32[B,3,2,3]=shift %a{shift 1 0} %1 f32[B,3,2,2]=shift %0{shift 0 1} result r=%1",
     " %0 f32[B, 3, 2, 3] = shift %a {shift 1 0}\n %1 f32[B, 3, 2, 2] = shift %a {shift 1}\n result r = %1\n"},
    {"%a f32[B,3,1,1], %b f32[B,2,1,1]",
     "%0 f32[B,5,1,1]=concat %a,%b %1 f32[B,2,1,1]=slice %0{begin 3,count 2} %2 f32[B,1,1,1]=slice %0{begin 1,count 1} "
     "%3 f32[B,2,1,1]=slice %0{begin 2,count 2} result r=%1",
     " %0 f32[B, 5, 1, 1] = concat %a, %b\n %1 f32[B, 1, 1, 1] = slice %a {begin 1, count 1}\n"
     " %2 f32[B, 2, 1, 1] = slice %0 {begin 2, count 2}\n result r = %b\n"},
    {"%a f32[B,3,1,1]",
     "%0 f32[B,1,1,1]=slice %a{begin 0,count 1} %1 f32[B,2,1,1]=slice %a{begin 1,count 2} %2 f32[B,3,1,1]=concat %0,%1 result "
     "r=%2",
     " %0 f32[B, 1, 1, 1] = slice %a {begin 0, count 1}\n %1 f32[B, 2, 1, 1] = slice %a {begin 1, count 2}\n result r = %a\n"},
    {"%a f32[], %b f32[]", "%0 f32[2]=stack %a,%b %1 f32[]=element %0{index 1} result r=%1",
     " %0 f32[2] = stack %a, %b\n result r = %b\n"},
    {"%a f32[B,2,1,1]",
     "%0 f32[B,1,1,1]=slice %a{begin 0,count 1} %1 f32[B,1,1,1]=slice %a{begin 1,count 1} %2 f32[B,2,1,1]=concat %1,%0",
     " %0 f32[B, 1, 1, 1] = slice %a {begin 0, count 1}\n %1 f32[B, 1, 1, 1] = slice %a {begin 1, count 1}\n"
     " %2 f32[B, 2, 1, 1] = concat %1, %0\n"},
    {"%a f32[2]",
     "%0 f32[]=element %a{index 0} %1 f32[]=element %a{index 1} %2 f32[2]=stack %0,%1 %3 f32[2]=stack %1,%0 result r=%2",
     " %0 f32[] = element %a {index 0}\n %1 f32[] = element %a {index 1}\n %2 f32[2] = stack %1, %0\n result r = %a\n"},
    /* zero */
    {"%a f32[B,1,2,2], %b f32[1,1,1,1]",
     "%0 f32[B,1,2,2]=const{value 0} %1 f32[B,1,2,2]=conv %0,%b %2 f32[1,1,1,1]=conv_grad_weight %0,%a result r=%1 result s=%2",
     " %0 f32[B, 1, 2, 2] = const {value 0}\n %1 f32[1, 1, 1, 1] = const {value 0}\n result r = %0\n result s = %1\n"},
    {"%a f32[B,1,2,2]",
     "%0 f32[]=const{value 0} %1 f32[B,1,2,2]=scale %a,%0 %2 f32[2,1]=bn_moments %1 %3 f32[B,1,2,2]=bn_apply %1,%2 result r=%3",
     " %0 f32[] = const {value 0}\n %1 f32[B, 1, 2, 2] = const {value 0}\n %2 f32[2, 1] = const {value 0}\n result r = %1\n"},
    {"%a f32[2]", "%0 f32[2]=const{value 0} %1 f32[2]=relu_grad %a,%0 %2 f32[2]=relu_grad %0,%a result r=%1 result s=%2",
     " %0 f32[2] = const {value 0}\n %1 f32[2] = relu_grad %a, %0\n result r = %1\n result s = %0\n"},
    /* constants of constants */
    {"", "%0 f32[4]=const{value 7} %1 f32[4]=softmax %0 %2 f32[]=element %1{index 2} %3 f32[]=add %2,%2 result r=%3",
     " %0 f32[4] = const {value 7}\n %1 f32[4] = const {value 0.25}\n %2 f32[] = const {value 0.25}\n"
     " %3 f32[] = const {value 0.5}\n result r = %3\n"},
    {"",
     "%0 f32[B,3,9,9]=const{value 3} %1 f32[]=const{value 0.5} %2 f32[B,3,9,9]=scale %0,%1 %3 f32[B,1,9,9]=slice %2{begin "
     "1,count 1} result r=%3",
     " %0 f32[B, 3, 9, 9] = const {value 3}\n %1 f32[] = const {value 0.5}\n %2 f32[B, 3, 9, 9] = const {value 1.5}\n"
     " %3 f32[B, 1, 9, 9] = const {value 1.5}\n result r = %3\n"},
    {"", "%0 f32[]=const{value 9} %1 f32[]=sqrt %0 %2 f32[]=clip %1{value 0} result r=%2",
     " %0 f32[] = const {value 9}\n %1 f32[] = const {value 3}\n %2 f32[] = const {value 1}\n result r = %2\n"},
    /* what depends on B, or is not the same everywhere, stays */
    {"", "%0 f32[]=const{value 1} %1 f32[B]=batch_mean_grad %0 %2 f32[B]=const{value 1} %3 f32[]=dot %2,%2 result r=%3",
     " %0 f32[] = const {value 1}\n %1 f32[B] = batch_mean_grad %0\n %2 f32[B] = const {value 1}\n %3 f32[] = dot %2, %2\n"
     " result r = %3\n"},
    {"", "%0 f32[B,1,1,1]=const{value 1} %1 f32[B,1,2,2]=unshift %0{shift 1} result r=%1",
     " %0 f32[B, 1, 1, 1] = const {value 1}\n %1 f32[B, 1, 2, 2] = unshift %0 {shift 1}\n result r = %1\n"},
};

static void emitting_shares_and_folds(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof folds / sizeof *folds; i++) {
    char *printed = emit_again(folds[i][0], folds[i][1]);
    assert_string_equal(printed, folds[i][2]);
    free(printed);
  }
}

/* Every field of the attributes tells nodes apart. */
static void different_attributes_are_different_nodes(void **state) {
  (void)state;
  static const Window usual = {3, 3, 1, 1, 1, 1, 1, 1};
  Attributes pools[7], convs[2], shifts[2], slices[3], steps[3];
  for (int i = 0; i < 7; i++) pools[i] = (Attributes){.window = usual};
  pools[1].window.kernel_y = pools[2].window.kernel_x = pools[3].window.stride_y = pools[4].window.stride_x = 2;
  pools[5].window.pad_y = pools[6].window.pad_x = 0;
  convs[0] = convs[1] = (Attributes){.window = usual};
  convs[1].window.dilation = 2;
  shifts[0] = (Attributes){.shift_y = 1}, shifts[1] = (Attributes){.shift_x = 1};
  slices[0] = (Attributes){.begin = 0, .count = 1}, slices[1] = (Attributes){.begin = 1, .count = 1};
  slices[2] = (Attributes){.begin = 0, .count = 2};
  steps[0] = (Attributes){.beta = 0.5, .decay = 0.5}, steps[1] = (Attributes){.beta = 0.25, .decay = 0.5};
  steps[2] = (Attributes){.beta = 0.5, .decay = 0.25};
  Arena *arena = arena_new();
  Module *module = module_new(arena, "m", BATCH);
  Graph *graph = module_add_step(module, "s");
  ValueId x = graph_input(graph, "x", type_tensor(3, (int32_t[]){3, 8, 8}, true));
  ValueId w = graph_input(graph, "w", type_tensor(4, (int32_t[]){2, 3, 3, 3}, false));
  size_t count = graph->nodes.count;
  for (int repeat = 0; repeat < 2; repeat++) {
    for (int i = 0; i < 7; i++) graph_emit(graph, OP_AVG_POOL, &x, 1, &pools[i]);
    for (int i = 0; i < 2; i++) graph_emit(graph, OP_CONV, (ValueId[]){x, w}, 2, &convs[i]);
    for (int i = 0; i < 2; i++) graph_emit(graph, OP_SHIFT, &x, 1, &shifts[i]);
    for (int i = 0; i < 3; i++) graph_emit(graph, OP_SLICE, &x, 1, &slices[i]);
    for (int i = 0; i < 3; i++) graph_emit(graph, OP_ADAM_MEAN, (ValueId[]){w, w, w}, 3, &steps[i]);
    assert_int_equal(graph->nodes.count, count + 7 + 2 + 2 + 3 + 3);
  }
  module_free_tables(module);
  arena_free(arena);
}

/* Many nodes: the table grows, and finds each of them again. */
static void sharing_survives_growth(void **state) {
  (void)state;
  enum { VALUES = 5000 };
  Arena *arena = arena_new();
  Module *module = module_new(arena, "m", BATCH);
  Graph *graph = module_add_step(module, "s");
  ValueId x = graph_input(graph, "x", type_scalar()), first[VALUES];
  for (int i = 0; i < VALUES; i++) first[i] = graph_binary(graph, OP_ADD, x, graph_constant(graph, i + 1, type_scalar()));
  size_t count = graph->nodes.count;
  assert_int_equal(count, 1 + 2 * VALUES);
  for (int i = 0; i < VALUES; i++)
    assert_int_equal(graph_binary(graph, OP_ADD, graph_constant(graph, i + 1, type_scalar()), x), first[i]);
  assert_int_equal(graph->nodes.count, count);
  for (int i = 0; i < VALUES; i++) {
    char name[16];
    snprintf(name, sizeof name, "p%d", i);
    Parameter parameter = {.name = name, .type = type_scalar()};
    assert_int_equal(module_add_parameter(module, parameter), i);
  }
  assert_int_equal(module_find_parameter(module, "p4321"), 4321);
  assert_int_equal(module_find_parameter(module, "x"), -1);
  assert_int_equal(module_find_parameter(module, "q"), -1);
  module_free_tables(module);
  arena_free(arena);
}

static void the_verifier_sees_what_is_wrong(void **state) {
  (void)state;
  Arena *arena = arena_new();
  char *text = step_text("%a f32[2]", "%0 f32[2]=relu %a %1 f32[2]=add %0,%a result r=%1");
  Module *module = parse(text, arena);
  Graph *graph = module->steps.data[0];
  GraphNode whole = graph->nodes.data[2], input = graph->nodes.data[0];
  ValueId late[] = {2, 0};
  Err err;
  assert_true(graph_verify(graph, &err));
  graph->nodes.data[2].operands = late;
  assert_false(graph_verify(graph, &err));
  assert_string_equal(err.text, "step s, value 2 (add): an operand does not stand before it");
  graph->nodes.data[2] = whole;
  graph->nodes.data[2].type = type_scalar();
  assert_false(graph_verify(graph, &err));
  assert_string_equal(err.text, "step s, value 2 (add): the type is not the rule's");
  graph->nodes.data[2] = whole;
  graph->nodes.data[0].type = type_scalar();
  assert_false(graph_verify(graph, &err));
  graph->nodes.data[0] = input;
  graph->results.data[0].value = 3;
  assert_false(graph_verify(graph, &err));
  assert_string_equal(err.text, "step s: the result r is no value");
  graph->results.data[0].value = 2;
  vector_push(&graph->updates, ((Update){0, 2}));
  assert_false(graph_verify(graph, &err));
  graph->updates.count = 0;
  assert_true(graph_verify(graph, &err));
  free(text);
  module_free_tables(module);
  arena_free(arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(emitting_shares_and_folds),
      cmocka_unit_test(different_attributes_are_different_nodes),
      cmocka_unit_test(sharing_survives_growth),
      cmocka_unit_test(the_verifier_sees_what_is_wrong),
  };
  return cmocka_run_group_tests_name("graph build", tests, NULL, NULL);
}
