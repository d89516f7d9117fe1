/* Shape rules against counting: the windows that fit are placed one by one. */
#include "dsl/shapes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* How many windows start within the padded side, `stride` apart, and end within it. */
static int64_t count_windows(int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  int64_t count = 0;
  for (int64_t at = -pad; at + dilation * (kernel - 1) < in + pad; at += stride) count++;
  return count;
}

static void test_window_side(void **state) {
  (void)state;
  for (int64_t in = 1; in <= 12; in++)
    for (int64_t kernel = 1; kernel <= 7; kernel++)
      for (int64_t stride = 1; stride <= 3; stride++)
        for (int64_t dilation = 1; dilation <= 3; dilation++)
          for (int64_t pad = 0; pad <= 8; pad++) {
            int64_t out, wanted = count_windows(in, kernel, stride, dilation, pad);
            bool touches = pad < dilation * (kernel - 1) + 1;
            Err err;
            assert_int_equal(shape_window_side(in, kernel, stride, dilation, pad, &out, &err), touches && wanted > 0);
            if (touches && wanted > 0)
              assert_int_equal(out, wanted);
            else
              assert_true(strlen(err.text) > 0);
          }
}

static void test_extremes(void **state) {
  (void)state;
  static const int64_t wild[] = {INT64_MIN, -1, 0, INT64_MAX, INT64_MAX / 2, (int64_t)1 << 32};
  int64_t out;
  for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
    assert_false(shape_window_side(wild[i], 3, 1, 1, 1, &out, NULL));
    assert_false(shape_window_side(32, wild[i], 1, 1, 0, &out, NULL));
    assert_false(shape_window_side(32, 3, wild[i], 1, 1, &out, NULL));
    assert_false(shape_window_side(32, 3, 1, wild[i], 1, &out, NULL));
    if (wild[i]) assert_false(shape_window_side(32, 3, 1, 1, wild[i], &out, NULL));
    assert_false(shape_same_pad(wild[i], 1, &out, NULL));
    assert_false(shape_convolution_weight(wild[i], 4, 1, 3, 3, NULL));
    assert_false(shape_convolution_weight(4, wild[i], 1, 3, 3, NULL));
    assert_false(shape_convolution_weight(4, 4, wild[i], 3, 3, NULL));
    assert_false(shape_convolution_weight(4, 4, 1, wild[i], 3, NULL));
    assert_false(shape_shift_side(wild[i], 0, &out, NULL));
    if (wild[i]) assert_false(shape_shift_side(32, wild[i], &out, NULL));
  }
}

static void test_weights(void **state) {
  (void)state;
  assert_true(shape_convolution_weight(16, 32, 1, 3, 3, NULL));
  assert_true(shape_convolution_weight(16, 16, 16, 5, 5, NULL));
  assert_true(shape_convolution_weight(16, 32, 16, 3, 3, NULL));
  assert_false(shape_convolution_weight(16, 24, 16, 3, 3, NULL));
  assert_false(shape_convolution_weight(15, 30, 2, 3, 3, NULL));
  assert_true(shape_convolution_weight(46340, 46340, 1, 1, 1, NULL));  /* 2,147,395,600 */
  assert_false(shape_convolution_weight(46341, 46341, 1, 1, 1, NULL)); /* 2,147,488,281 */
}

static void test_padding(void **state) {
  (void)state;
  int64_t pad;
  Err err;
  assert_true(shape_same_pad(5, 2, &pad, &err));
  assert_int_equal(pad, 4);
  assert_false(shape_same_pad(4, 1, &pad, &err));
  assert_non_null(strstr(err.text, "pad: 2"));
  assert_true(shape_pool_pad(3, 1, &err));
  assert_false(shape_pool_pad(3, 2, &err));
  assert_false(shape_pool_pad(3, -1, &err));
}

static void test_shift(void **state) {
  (void)state;
  int64_t out;
  assert_true(shape_shift_side(32, 1, &out, NULL));
  assert_int_equal(out, 31);
  assert_true(shape_shift_side(1, 0, &out, NULL));
  assert_false(shape_shift_side(1, 1, &out, NULL));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_window_side), cmocka_unit_test(test_extremes), cmocka_unit_test(test_weights),
      cmocka_unit_test(test_padding),     cmocka_unit_test(test_shift),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
