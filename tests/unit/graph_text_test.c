/* The text of modules and steps: what is printed, what is read, and what is refused and how. graph_core_test.c has the lines of
 * each operation. */
#include "compiler/graph/graph.h"
#include "tests/unit/graph_text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char whole_module[] = "module net {batch 98}\n"
                                   "\n"
                                   "param @fc1.weight f32[4, 1] {weight, uniform 1}\n"
                                   "param @fc2.weight f32[2, 4] {weight, uniform 0.5, generates f32[2, 1, 1, 1]}\n"
                                   "param @momentum.fc1.weight f32[4, 1] {momentum, constant 0}\n"
                                   "param @alpha.0.0 f32[2] {alpha, uniform 0x1.0624dd2f1a9fbp-10}\n"
                                   "param @adam_mean.alpha.0.0 f32[2] {adam_mean, constant 0}\n"
                                   "param @adam_square.alpha.0.0 f32[2] {adam_square, constant 0.49139968}\n"
                                   "\n"
                                   "step train(%x f32[B, 1, 4, 4], %y i32[B], %rate f32[]) {\n"
                                   "  %0 f32[2]                  = softmax @alpha.0.0\n"
                                   "  %1 f32[]                   = element %0 {index 1}\n"
                                   "  %2 f32[4]                  = const {value 0x1.999999999999p-4}\n"
                                   "  %3 f32[4]                  = linear %1, @fc1.weight, %2\n"
                                   "  %4 f32[4, 1]               = reshape %3\n"
                                   "  %5 f32[4, 1]               = descend @fc1.weight, %4, %rate\n"
                                   "  %6 f32[B, 1, 2, 4]         = max_pool %x {kernel 3 1, stride 2 1, pad 1 0}\n"
                                   "  result p = %0\n"
                                   "  result images = %x\n"
                                   "  update @fc1.weight = %5\n"
                                   "  update @momentum.fc1.weight = @fc1.weight\n"
                                   "}\n"
                                   "\n"
                                   "step empty() {\n"
                                   "}\n";

static void a_module_prints_as_it_is_written(void **state) {
  (void)state;
  Arena *arena = arena_new();
  Module *module = parse(whole_module, arena);
  char *printed = print(module);
  assert_string_equal(printed, whole_module);
  assert_int_equal(module->parameters.data[1].generates.dims[0], 2);
  assert_true(module->parameters.data[3].init_value == nextafter(0.001, 0));
  free(printed);
  module_free_tables(module);
  arena_free(arena);
}

static void text_is_free_in_space_numbers_and_comments(void **state) {
  (void)state;
  Arena *arena = arena_new();
  Module *module = parse("module m{batch 2}step s(%a f32[2]){# a comment } \n %70 f32 [ 2 ]=add\n%a,%a%3 f32[2]=relu %70 "
                         "result r=%3 }# the end",
                         arena);
  char *lines = print_lines(module->steps.data[0]);
  assert_string_equal(lines, " %0 f32[2] = add %a, %a\n %1 f32[2] = relu %0\n result r = %1\n");
  free(lines);
  module_free_tables(module);
  arena_free(arena);
}

static void bad_text_is_refused(void **state) {
  (void)state;
  static const char *const texts[][2] = {
      {"", "`module` is wanted where the text ends"},
      {"module m {batch 0}", "a batch of 0"},
      {"module m {batch 99999999999}", "does not fit into 32 bits"},
      {"module m {batch 1} garbage", "line 1, column 20: `param`, `step` or the end of the text is wanted, not `garbage`"},
      {"module m {batch 1}\nparam @a f32[2] {thing, constant 0}", "line 2, column 18: a kind of parameter"},
      {"module m {batch 1} param @a f32[B, 2] {weight, constant 0}", "the parameter @a has a B"},
      {"module m {batch 1} param @a f32[2] {weight, constant 0} param @a f32[2] {weight, constant 0}", "two parameters @a"},
      {"module m {batch 1} param @a f32[0] {weight, constant 0}", "f32[0] is empty or too large"},
      {"module m {batch 1} param @a f32[65536, 65536] {weight, constant 0}", "f32[65536, 65536] is empty or too large"},
      {"module m {batch 1} param @a f32[1, 1, 1, 1, 1] {weight, constant 0}", "more than 4 extents"},
      {"module m {batch 1} step s() {} param @a f32[2] {weight, constant 0}", "parameters come first"},
      {"module m {batch 1} step s() {} step s() {}", "two steps s"},
      {"module m {batch 1} step s(%a f32[], %a f32[]) {}", "two inputs a"},
      {"module m {batch 1} step s() { %0 f32[] = sqrt %1 }", "%1 is used before it is defined"},
      {"module m {batch 1} step s() { %0 f32[] = sqrt %0 }", "%0 is used before it is defined"},
      {"module m {batch 1} step s() { %0 f32[] = sqrt %a }", "the step s has no input a"},
      {"module m {batch 1} step s() { %0 f32[] = sqrt @a }", "the module has no parameter @a"},
      {"module m {batch 1} step s() { %0 f32[] = const {value 1} %0 f32[] = const {value 1} }", "%0 is defined twice"},
      {"module m {batch 1} step s() { %9999999999 f32[] = const {value 1} }", "has a number above"},
      {"module m {batch 1} step s() { %0 f32[] = const {value 1, value 2} }", "value is given twice"},
      {"module m {batch 1} step s() { %0 f32[] = const {price 1} }", "const has no attribute `price`"},
      {"module m {batch 1} step s() { %0 f32[] = const {value one} }", "a number is wanted, not `one`"},
      {"module m {batch 1} step s() { %0 f32[] = input {value 1} }", "an operation is wanted, not `input`"},
      {"module m {batch 1} step s(%a f32[]) { result r = %a result r = %a }", "two results r"},
      {"module m {batch 1} param @a f32[] {weight, constant 0} step s() { update @a = @a update @a = @a }",
       "@a is updated twice"},
      {"module m {batch 1} param @a f32[] {weight, constant 0} step s(%b f32[1]) { update @a = %b }",
       "the update of @a does not have its type"},
      {"module m {batch 1} step s() {", "where the text ends"},
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) refuses(texts[i][0], texts[i][1]);
  for (size_t length = 0; length < sizeof whole_module - 2; length++) { /* every prefix */
    Arena *arena = arena_new();
    Err err;
    Module *module = module_parse(whole_module, length, arena, &err);
    if (module) module_free_tables(module);
    arena_free(arena);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_module_prints_as_it_is_written),
      cmocka_unit_test(text_is_free_in_space_numbers_and_comments),
      cmocka_unit_test(bad_text_is_refused),
  };
  return cmocka_run_group_tests_name("graph text", tests, NULL, NULL);
}
