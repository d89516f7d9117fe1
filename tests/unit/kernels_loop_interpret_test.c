/* The Loop IR's interpreter on small kernels: masks, rounding, not-a-number, control, tiles and lanes give the bits that plain C
 * gives, undefined data are seen, and whatever depends on the launch ends with a message instead of touching other memory. */
#include "tests/unit/loop_text.h"

typedef struct Bad {
  const char *text, *message;
} Bad;

static void test_masks(void **state) {
  (void)state;
  float x[6] = {1, 2, 3, 4, 5, 6}, y[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
  run_ok("kernel masks lanes 4 { buffer x f32 in buffer y f32 out %0 = load_lanes x[4] count 2 else 9.0f\n"
         "store_lanes y[0] = %0 count 3 store_lanes y[5] = 7.0f count 2\n"
         "%1 = load_lanes x[-50] count 0 else 3.0f store_lanes y[100] = %1 count 0 %2 = lane_sum %1 store y[7] = %2 }",
         (LoopBuffer[]){{x, 6}, {y, 8}}, 1);
  const float expected[8] = {5, 6, 9, -1, -1, 7, 7, 12};
  assert_memory_equal(y, expected, sizeof y);
}

static void test_rounding(void **state) {
  (void)state;
  float x[2] = {1.0f + 0x1p-12f, 1.0f}, y[4];
  run_ok("kernel rounding lanes 2 { buffer x f32 in buffer y f32 out %0 = load x[0] %1 = mul %0, %0 %2 = sub %1, 0x1.002p+0f\n"
         "%3 = fma %0, %0, -0x1.002p+0f store y[0] = %2 store y[1] = %3\n"
         "%4 = to_f32 0x1.000001p+0 store y[2] = %4 %5 = to_f32 16777217 store y[3] = %5 }",
         (LoopBuffer[]){{x, 2}, {y, 4}}, 1);
  assert_true(y[0] == 0.0f);     /* the product was rounded to f32 */
  assert_true(y[1] == 0x1p-24f); /* and here it was not */
  assert_true(y[2] == 1.0f);
  assert_true(y[3] == 16777216.0f);
}

static void test_max_and_min_of_not_a_number(void **state) {
  (void)state;
  float y[6];
  run_ok("kernel nans lanes 1 { buffer y f32 out %0 = max nanf, 1.0f store y[0] = %0 %1 = max 1.0f, nanf store y[1] = %1\n"
         "%2 = min nanf, 1.0f store y[2] = %2 %3 = gt nanf, nanf %4 = eq nanf, nanf %5 = or %3, %4\n"
         "%6 = select %5, 1.0f, 0.0f store y[3] = %6 %7 = max -0.0f, 0.0f store y[4] = %7 %8 = max 0.0f, -0.0f store y[5] = %8 }",
         (LoopBuffer[]){{y, 6}}, 1);
  assert_true(y[0] == 1 && isnan(y[1]) && y[2] == 1 && y[3] == 0);
  assert_true(!signbit(y[4]) && signbit(y[5]));
}

/* A dot product of 3 vectors with unrolled tiles, over tasks, against plain C. */
static void test_unroll_and_tiles(void **state) {
  (void)state;
  float x[36], w[12], y[36];
  for (int i = 0; i < 36; i++) x[i] = (float)(i * i % 17) / 3, y[i] = -1;
  for (int i = 0; i < 12; i++) w[i] = (float)(i - 5) / 7;
  run_ok("kernel tiles lanes 4 { buffer x f32 in buffer w f32 in buffer y f32 out tile acc f32[3] lanes\n"
         "%0 = task %1 = imul %0, 12 unroll %2 = 0 to 3 step 1 { set acc[%2] = 0.0f }\n"
         "for %3 = 0 to 3 step 1 { %4 = imul %3, 4 %5 = load_lanes w[%4] count 4 else 0.0f unroll %6 = 0 to 3 step 1 {\n"
         "  %7 = imul %6, 4 %8 = iadd %1, %7 %9 = iadd %8, %3 %10 = load x[%9] %11 = get acc[%6] %12 = fma %10, %5, %11\n"
         "  set acc[%6] = %12 } }\n"
         "unroll %13 = 0 to 3 step 1 { %14 = imul %13, 4 %15 = iadd %1, %14 %16 = get acc[%13]\n"
         "  store_lanes y[%15] = %16 count 4 } }",
         (LoopBuffer[]){{x, 36}, {w, 12}, {y, 36}}, 3);
  for (int task = 0; task < 3; task++)
    for (int row = 0; row < 3; row++)
      for (int lane = 0; lane < 4; lane++) {
        float sum = 0;
        for (int i = 0; i < 3; i++) sum = fmaf(x[task * 12 + row * 4 + i], w[i * 4 + lane], sum);
        assert_true(y[task * 12 + row * 4 + lane] == sum);
      }
}

static void test_control(void **state) {
  (void)state;
  double y[8] = {0};
  int32_t n[2] = {-7, 2};
  run_ok("kernel control lanes 1 { buffer n i32 in buffer y f64 inout %0 = batch %1 = load_int n[0] %2 = to_f64 %1\n"
         "%3 = ieq %0, 5 if %3 { store y[0] = %2 } %4 = not %3 if %4 { store y[0] = 99.0 for %5 = 0 to 3 step 1 { } }\n"
         "for %6 = 3 to 3 step 1 { store y[1] = 99.0 }\n"
         "%7 = load_int n[1] for %8 = -3 to 4 step %7 { %9 = load y[2] %10 = add %9, 1.0 store y[2] = %10\n"
         "  if %3 { %11 = to_f64 %8 store y[3] = %11 } }\n"
         "unroll %12 = 7 to 2 step 1 { store y[1] = 99.0 } phase p { %13 = select %3, 4, 5 %14 = select %4, 1.0, 2.0 store "
         "y[%13] = %14 }\n"
         "for %15 = 9223372036854775800 to 9223372036854775807 step 5 { %16 = load y[5] %17 = add %16, 1.0 store y[5] = %17 } }",
         (LoopBuffer[]){{n, 2}, {y, 8}}, 1);
  const double expected[8] = {-7, 0, 4, 3, 2, 2, 0, 0};
  assert_memory_equal(y, expected, sizeof y);
}

static void test_lane_sum(void **state) {
  (void)state;
  float x[8] = {1, 0x1p24f, 3, -0x1p24f, 0x1p-2f, 1, 5, 1}, y[1];
  double d[4] = {0.1, 0.2, 0.3, 0.4}, z[1];
  run_ok("kernel sums lanes 8 { buffer x f32 in buffer y f32 out %0 = load_lanes x[0] count 8 else 0.0f %1 = lane_sum %0\n"
         "store y[0] = %1 }",
         (LoopBuffer[]){{x, 8}, {y, 1}}, 1);
  float a = x[0] + x[4], b = x[1] + x[5], c = x[2] + x[6], e = x[3] + x[7];
  assert_true(y[0] == (a + c) + (b + e));
  run_ok("kernel sums lanes 4 { buffer d f64 in buffer z f64 out %0 = load_lanes d[0] count 4 else 0.0 %1 = lane_sum %0\n"
         "store z[0] = %1 }",
         (LoopBuffer[]){{d, 4}, {z, 1}}, 1);
  assert_true(z[0] == (d[0] + d[2]) + (d[1] + d[3]));
}

static void test_doubles(void **state) {
  (void)state;
  double y[6];
  run_ok("kernel doubles lanes 2 { buffer y f64 out %0 = exp 1.0 %1 = log %0 %2 = sqrt 2.0 %3 = div 1.0, 3.0\n"
         "%4 = fma %3, 3.0, -1.0 %5 = to_f64 0.1f store y[0] = %0 store y[1] = %1 store y[2] = %2 store y[3] = %3\n"
         "store y[4] = %4 store y[5] = %5 }",
         (LoopBuffer[]){{y, 6}}, 1);
  assert_true(y[0] == exp(1.0) && y[1] == log(exp(1.0)) && y[2] == sqrt(2.0) && y[3] == 1.0 / 3.0);
  assert_true(y[4] == fma(1.0 / 3.0, 3.0, -1.0) && y[5] == (double)0.1f);
}

static void test_undefined_data_are_seen(void **state) {
  (void)state;
  float y[8];
  run_ok("kernel undefined lanes 2 { buffer y f32 out shared t f32[4] tile a f32[2] lanes tile u f64[1]\n"
         "%0 = task %1 = imul %0, 4 %2 = load t[3] store y[%1] = %2 %3 = get a[1] %4 = lane_sum %3 %5 = iadd %1, 1\n"
         "store y[%5] = %4 %6 = get u[0] %7 = iadd %1, 2 %10 = to_f32 %6 store y[%7] = %10\n"
         "store t[3] = 1.0f set a[1] = 1.0f set u[0] = 1.0 %8 = load t[3] %9 = iadd %1, 3 store y[%9] = %8 }",
         (LoopBuffer[]){{y, 8}}, 2);
  for (int i = 0; i < 8; i++) assert_true(i % 4 == 3 ? y[i] == 1 : isnan(y[i]));
}

/* Each body runs with x f32[6], y f32[6], n i32 {0, -1, 9}. */
static const Bad bad_runs[] = {
    {"%0 = load x[6]", "line 6, task 0: load: x[6], which has 6 elements"},
    {"%0 = load x[-1]", "x[-1]"},
    {"%0 = load x[9223372036854775807]", "x[9223372036854775807]"},
    {"%0 = load_int n[3]", "n[3], which has 3 elements"},
    {"%0 = load_lanes x[3] count 4 else 0.0f", "x[3] and 3 more, which has 6 elements"},
    {"%0 = load_lanes x[9223372036854775806] count 4 else 0.0f", "and 3 more"},
    {"store y[6] = 0.0f", "store: y[6]"},
    {"store_lanes y[5] = 0.0f count 2", "y[5] and 1 more"},
    {"store t[8] = 0.0f", "t[8], which has 8 elements"},
    {"%0 = load t[-1]", "t[-1]"},
    {"%0 = load_int n[2] store_lanes y[0] = 0.0f count %0", "a count of 9 where there are 4 lanes"},
    {"%0 = load_int n[1] %1 = load_lanes x[0] count %0 else 0.0f", "a count of -1"},
    {"%0 = load_int n[0] %1 = idiv 4, %0", "4 by 0"},
    {"%0 = load_int n[1] %1 = imod %0, 4", "-1 by 4"},
    {"%0 = load_int n[2] %1 = iadd %0, 9223372036854775807", "leave 64 bits"},
    {"%0 = load_int n[2] %1 = imul %0, 9223372036854775807", "leave 64 bits"},
    {"%0 = load_int n[1] %1 = isub -9223372036854775808, 1", "leave 64 bits"},
    {"%0 = load_int n[0] for %1 = 0 to 5 step %0 { }", "for: a step of 0"},
    {"for %0 = 0 to 9000000000000000000 step 1 { }", "is a loop endless?"},
    {"%0 = log 0.0", "log: of 0"},
    {"%0 = log -1.0", "log: of -1"},
};

static void test_bad_runs(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof bad_runs / sizeof *bad_runs; i++) {
    float x[6] = {0}, y[6];
    int32_t n[3] = {0, -1, 9};
    char text[512];
    snprintf(text, sizeof text, "kernel k lanes 4 { buffer x f32 in buffer y f32 out buffer n i32 in shared t f32[8] %s }",
             bad_runs[i].text);
    Err err = {{0}};
    if (run(text, (LoopBuffer[]){{x, 6}, {y, 6}, {n, 3}}, 1, &err)) fail_msg("ran: %s", bad_runs[i].text);
    if (!strstr(err.text, bad_runs[i].message))
      fail_msg("text: %s\nwanted: %s\nseen: %s", bad_runs[i].text, bad_runs[i].message, err.text);
  }
  Err err;
  assert_false(run("kernel none lanes 1 { }", NULL, INT64_MAX, &err));
  assert_non_null(strstr(err.text, "too many tasks"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_masks),
      cmocka_unit_test(test_rounding),
      cmocka_unit_test(test_max_and_min_of_not_a_number),
      cmocka_unit_test(test_unroll_and_tiles),
      cmocka_unit_test(test_control),
      cmocka_unit_test(test_lane_sum),
      cmocka_unit_test(test_doubles),
      cmocka_unit_test(test_undefined_data_are_seen),
      cmocka_unit_test(test_bad_runs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
