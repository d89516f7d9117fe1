/* Specs in words, and the sizes of buffers by their specs. */
#include "kernels/describe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void expect(Family family, const void *spec, const char *want) {
  Text text = {0};
  family_describe(family, spec, &text);
  assert_string_equal(text.data ? text.data : "", want);
  text_free(&text);
}

static void test_convolutions(void **state) {
  (void)state;
  ConvSpec s = {.in = {.channels = 16, .height = 32, .width = 32}, .out = {.channels = 16, .height = 32, .width = 32}};
  s.kernel_y = s.kernel_x = 3;
  s.stride_y = s.stride_x = s.dilation = s.groups = 1;
  expect(FAMILY_CONV, &s, "16x32x32 k3");
  s.out.height = s.out.width = 16;
  s.stride_y = s.stride_x = s.dilation = 2;
  s.groups = 16; /* depthwise: the family's own name says so */
  s.prologue = (Prologue){.affine = true, .relu = true};
  expect(FAMILY_CONV, &s, "16x32x32 to 16x16x16 k3 s2 dilation 2 bn relu");
  s.kernel_y = 1;
  s.stride_y = 1;
  s.groups = 4;
  s.shift_x = 1;
  s.moments = true;
  s.prologue.affine = false;
  expect(FAMILY_CONV_GRAD_WEIGHT, &s, "16x32x32 to 16x16x16 k1x3 s1x2 dilation 2 groups 4 shift 0x1 relu moments");
  assert_int_equal(family_elements(FAMILY_CONV, &s, "x", 10), 10 * 16 * 32 * 32);
  assert_int_equal(family_elements(FAMILY_CONV_GRAD_INPUT, &s, "dy", 10), 10 * 16 * 16 * 16);
  assert_int_equal(family_elements(FAMILY_CONV, &s, "w", 10), 0);
}

static void test_blocks(void **state) {
  (void)state;
  ConvBlockSpec s = {.in = {.channels = 8, .height = 4, .width = 4}, .out = {.channels = 16, .height = 4, .width = 4}};
  s.kernel_y = s.kernel_x = 5;
  s.stride_y = s.stride_x = 1;
  s.prologue.relu = true;
  expect(FAMILY_CONV_BLOCK, &s, "8x4x4 to 16x4x4 k5 relu");
  s.pointwise = true;
  s.gradient = BLOCK_ADD;
  expect(FAMILY_CONV_BLOCK_GRAD, &s, "8x4x4 to 16x4x4 k1 relu add");
  assert_int_equal(family_elements(FAMILY_CONV_BLOCK_GRAD, &s, "dn", 2), 2 * 16 * 4 * 4);
  assert_int_equal(family_elements(FAMILY_CONV_BLOCK_GRAD, &s, "dx", 2), 2 * 8 * 4 * 4);
}

static void test_other_specs(void **state) {
  (void)state;
  PoolSpec pool = {.in = {.channels = 4, .height = 8, .width = 6}, .out = {.channels = 4, .height = 8, .width = 6}};
  pool.kernel_y = pool.kernel_x = 3;
  pool.stride_y = pool.stride_x = 1;
  expect(FAMILY_POOL, &pool, "4x8x6 k3");
  pool.bn = pool.add = true;
  expect(FAMILY_POOL_GRAD, &pool, "4x8x6 k3 bn add");
  MomentsSpec moments = {.in = {.channels = 4, .height = 8, .width = 6}};
  expect(FAMILY_MOMENTS, &moments, "4x8x6");
  assert_int_equal(family_elements(FAMILY_MOMENTS, &moments, "x", 3), 3 * 4 * 8 * 6);
  assert_int_equal(family_elements(FAMILY_GLOBAL_MEAN, &moments, "y", 3), 0);
  SlotsSpec slots = {.images = 3, .elements = 4608};
  expect(FAMILY_SUM_SLOTS, &slots, "4608 elements");
  VectorSpec vector = {.rows = 10, .inner = 256};
  expect(FAMILY_LINEAR, &vector, "10 from 256");
  expect(FAMILY_STACK, &(VectorSpec){.count = 5}, "5 scalars");
  expect(FAMILY_SQRT, &(VectorSpec){.rows = 0}, "");
}

static void test_maps(void **state) {
  (void)state;
  MapSpec s = {.channels = 16, .pixels = 64, .input_count = 4, .step_count = 2, .output_count = 2};
  s.inputs[1].kind = MAP_CHANNEL;
  s.inputs[2].kind = MAP_SCALAR;
  s.inputs[3].kind = MAP_IMAGE;
  s.outputs[1].sum = true;
  expect(FAMILY_MAP, &s, "16x64: 4 inputs, 2 steps, 1 outputs, 1 sums");
  assert_int_equal(family_elements(FAMILY_MAP, &s, "a0", 5), 5 * 16 * 64);
  assert_int_equal(family_elements(FAMILY_MAP, &s, "a1", 5), 16);
  assert_int_equal(family_elements(FAMILY_MAP, &s, "a2", 5), 1);
  assert_int_equal(family_elements(FAMILY_MAP, &s, "a3", 5), 5 * 16);
  assert_int_equal(family_elements(FAMILY_MAP, &s, "y0", 5), 5 * 16 * 64);
  assert_int_equal(family_elements(FAMILY_MAP, &s, "partial", 5), 0);
  s.flat = true;
  s.channels = 1000;
  expect(FAMILY_MAP, &s, "1000: 4 inputs, 2 steps, 1 outputs, 1 sums");
  assert_int_equal(family_elements(FAMILY_MAP, &s, "a0", 5), 1000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_convolutions),
      cmocka_unit_test(test_blocks),
      cmocka_unit_test(test_other_specs),
      cmocka_unit_test(test_maps),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
