/* The Loop IR's interpreter on what threads of a GPU do: integers and bits that vary, an index a lane, wide accesses, regions for
 * some lanes, copies that end at a wait, products of warps, bf16; against plain C, and a message for each breach that only a
 * launch shows. */
#include "tests/unit/loop_text.h"

static void test_varying_integers(void **state) {
  (void)state;
  float y[8];
  int32_t n[1] = {3};
  run_ok("kernel ints lanes 8 { buffer n i32 in buffer y f32 out %0 = lane %1 = load_int n[0] %2 = imul %0, %0 %3 = isub %2, 6\n"
         "%4 = imax %3, %1 %5 = imod %0, %1 %6 = idiv %4, 2 %7 = iadd %6, %5 %8 = ilt %0, 4 %9 = ieq %5, 1 %10 = not %9\n"
         "%11 = and %8, %10 %12 = or %11, %9 %13 = select %12, %7, %0 %14 = imin %13, 9 %15 = to_f32 %14 %16 = ieq 0, 0\n"
         "scatter y[%0] = %15 where %16 }",
         (LoopBuffer[]){{n, 1}, {y, 8}}, 1);
  for (int i = 0; i < 8; i++) {
    int most = i * i - 6 > 3 ? i * i - 6 : 3, sum = most / 2 + i % 3, chosen = i < 4 || i % 3 == 1 ? sum : i;
    assert_true(y[i] == (float)(chosen < 9 ? chosen : 9));
  }
}

static void test_gather_and_scatter(void **state) {
  (void)state;
  float x[5] = {1.5f, 2.5f, 3.5f, 4.5f, 1.0f + 0x1p-8f}, y[8] = {0}, z[8];
  double d[4] = {0.1, 0.2, 0.3, 0.4}, e[4] = {0};
  int32_t n[4] = {4, 0, -9, 1};
  uint8_t p[4] = {0, 255, 128, 7};
  uint16_t h[4] = {0};
  run_ok("kernel gathers lanes 4 { buffer x f32 in buffer y f32 out buffer z f32 out buffer d f64 in buffer e f64 out buffer n "
         "i32 in\n"
         "buffer p u8 in buffer h bf16 inout\n"
         "%0 = lane %1 = ieq %0, 2 %2 = not %1 %3 = gather n[%0] where %2 else -3 %4 = gather x[%3] where %2 else 0.25f\n"
         "%5 = isub 7, %0 scatter y[%5] = %4 where %2 %6 = gather p[%0] where %2 else -1 %7 = to_f32 %6 %8 = ieq 0, 0\n"
         "scatter z[%0] = %7 where %8 %9 = gather d[%0] where %2 else 9.0 scatter e[%0] = %9 where %8\n"
         "scatter h[%0] = %4 where %8 %10 = gather h[%0] where %8 else 0.0f %11 = iadd %0, 4 scatter z[%11] = %10 where %8 }",
         (LoopBuffer[]){{x, 5}, {y, 8}, {z, 8}, {d, 4}, {e, 4}, {n, 4}, {p, 4}, {h, 4}}, 1);
  const float expected_y[8] = {0, 0, 0, 0, 2.5f, 0, 1.5f, 1.0f + 0x1p-8f};
  const float expected_z[8] = {0, 255, -1, 7, 1, 1.5f, 0.25f, 2.5f}; /* 1 + 2^-8 is a tie in bf16: to even */
  const double expected_e[4] = {0.1, 0.2, 9, 0.4};
  assert_memory_equal(y, expected_y, sizeof y);
  assert_memory_equal(z, expected_z, sizeof z);
  assert_memory_equal(e, expected_e, sizeof e);
  assert_int_equal(h[1], 0x3fc0);
}

/* Loads and stores of consecutive bf16 elements, and a uniform one. */
static void test_bf16(void **state) {
  (void)state;
  float x[4] = {1.0f + 0x1.8p-8f, -0x1p-140f, INFINITY, 3.0e38f}, y[5];
  uint16_t h[5] = {0, 0, 0, 0, 0xc000};
  run_ok("kernel halves lanes 4 { buffer x f32 in buffer y f32 out buffer h bf16 inout shared s bf16[8]\n"
         "%0 = load_lanes x[0] count 4 else 0.0f store_lanes s[4] = %0 count 4 %1 = load_lanes s[4] count 3 else 7.0f\n"
         "store_lanes h[0] = %1 count 4 %2 = load_lanes h[0] count 4 else 0.0f store_lanes y[0] = %2 count 4\n"
         "%3 = load h[4] store y[4] = %3 }",
         (LoopBuffer[]){{x, 4}, {y, 5}, {h, 5}}, 1);
  assert_true(y[0] == 1.0f + 0x1p-7f && y[1] == 0 && signbit(y[1]) && isinf(y[2]) && y[3] == 7 && y[4] == -2);
}

static void test_wide_accesses(void **state) {
  (void)state;
  float x[32], y[32] = {0};
  uint16_t h[32];
  double d[8] = {1, 2, 3, 4, 5, 6, 7, 8}, e[8] = {0};
  for (int i = 0; i < 32; i++) x[i] = (float)i, h[i] = loop_to_bf16((float)-i);
  run_ok("kernel wide lanes 4 { buffer x f32 in buffer y f32 out buffer h bf16 in buffer d f64 in buffer e f64 out\n"
         "tile a f32[12] lanes tile w f64[2] lanes %0 = lane %1 = isub 3, %0 %2 = imul %1, 8 %3 = ilt %0, 3 %4 = ieq 0, 0\n"
         "gather_tile a[0] = h[%2] width 8 where %4 else 0.0f gather_tile a[8] = x[%2] width 4 where %3 else 0.5f\n"
         "%5 = imul %0, 8 %6 = iadd %5, 4 scatter_tile y[%5] width 4 = a[3] where %4 scatter_tile y[%6] width 2 = a[8] where %4\n"
         "%7 = iadd %5, 6 scatter_tile y[%7] width 2 = a[10] where %3\n"
         "%8 = imul %0, 2 gather_tile w[0] = d[%8] width 2 where %4 else 0.0 scatter_tile e[%8] width 2 = w[0] where %3 }",
         (LoopBuffer[]){{x, 32}, {y, 32}, {h, 32}, {d, 8}, {e, 8}}, 1);
  for (int i = 0; i < 32; i++) {
    int lane = i / 8, at = i % 8, from = (3 - lane) * 8;
    float expected = at < 4 ? (float)-(from + 3 + at) : lane == 3 ? (at < 6 ? 0.5f : 0) : (float)(from + at - 4);
    assert_true(y[i] == expected);
  }
  for (int i = 0; i < 8; i++) assert_true(e[i] == (i < 6 ? d[i] : 0));
}

/* Nested regions for some lanes: what does not run is not checked and does nothing. */
static void test_masked_regions(void **state) {
  (void)state;
  float x[4] = {1, 2, 3, 4}, y[16] = {0}, z[8];
  const int32_t n[8] = {0, 1, 3, 2, 0, 1, 99, 5};
  run_ok("kernel masked lanes 8 { buffer x f32 in buffer y f32 inout buffer z f32 out buffer n i32 in tile a f32[1] lanes\n"
         "%0 = lane %1 = ieq 0, 0 %2 = gather n[%0] where %1 else 0 set a[0] = -1.0f\n"
         "%3 = ilt 0, %2 %4 = ilt %2, 4 %5 = and %3, %4\n"
         "phase p { for %30 = 0 to 1 step 1 { if %5 { %6 = idiv 6, %2 %7 = gather x[%2] where %1 else 0.0f %8 = to_f32 %6 %9 = "
         "mul %7, %8 set a[0] = %9\n"
         "  %10 = ilt %2, 2 if %10 { %11 = get a[0] %12 = add %11, 100.0f set a[0] = %12 }\n"
         "  scatter y[%0] = 1.0f where %1 } } }\n"
         "%15 = ilt %0, 0 if %15 { %16 = load x[77] set a[0] = %16 }\n"
         "%17 = get a[0] scatter z[%0] = %17 where %1\n"
         "%18 = ilt 5, %0 if %18 { for %19 = 2 to 6 step 3 { %21 = task %22 = iadd %21, %19 %23 = imul %22, 2 %24 = to_f32 %23\n"
         "  %26 = iadd %0, %19 scatter y[%26] = %24 where %1 } } }",
         (LoopBuffer[]){{x, 4}, {y, 16}, {z, 8}, {(void *)(uintptr_t)n, 8}}, 1);
  for (int i = 0; i < 8; i++) {
    bool in = n[i] > 0 && n[i] < 4;
    assert_true(y[i] == (in ? 1 : 0));
    assert_true(z[i] == (in ? x[n[i]] * (float)(6 / n[i]) + (n[i] == 1 ? 100 : 0) : -1));
  }
  const float expected[8] = {4, 4, 0, 10, 10, 0, 0, 0}; /* uniform integers where lane 0 does not run */
  assert_memory_equal(y + 8, expected, sizeof expected);
}

/* Each operation on memory in a region for lanes 1 and 2 of 4. */
static void test_masked_memory(void **state) {
  (void)state;
  float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, y[24], z[8] = {0};
  for (int i = 0; i < 24; i++) y[i] = -1;
  run_ok("kernel masked lanes 4 { buffer x f32 in buffer y f32 inout buffer z f32 inout shared s f32[16] tile a f32[4] lanes\n"
         "%0 = lane %1 = ilt 0, %0 %2 = ilt %0, 3 %3 = and %1, %2 %4 = ieq 0, 0 store_lanes s[0] = -2.0f count 4\n"
         "store_lanes s[4] = -2.0f count 4 store_lanes s[8] = -2.0f count 4 store_lanes s[12] = -2.0f count 4\n"
         "unroll %5 = 0 to 4 step 1 { set a[%5] = -3.0f } %6 = isub %0, 1 %7 = imul %6, 4 %8 = imul %0, 4 %9 = ieq %0, 1\n"
         "if %3 { gather_tile a[0] = x[%7] width 2 where %9 else 0.5f scatter_tile y[%7] width 4 = a[0] where %4\n"
         "  async_copy s[%8] = x[%7] where %9 %10 = load_lanes x[5] count 2 else 9.0f set a[3] = %10\n"
         "  prefetch x[-7] }\n"
         "wait %11 = get a[3] scatter z[%0] = %11 where %4 %12 = get a[0] %13 = iadd %0, 4 scatter z[%13] = %12 where %4\n"
         "unroll %14 = 0 to 4 step 1 { %15 = imul %14, 4 %16 = load_lanes s[%15] count 4 else 0.0f %17 = iadd %15, 8\n"
         "  store_lanes y[%17] = %16 count 4 } }",
         (LoopBuffer[]){{x, 8}, {y, 24}, {z, 8}}, 1);
  const float expected_y[24] = {1, 2, -3, -3, 0.5f, 0.5f, -3, -3, -2, -2, -2, -2, 1, 2, 3, 4, 0, 0, 0, 0, -2, -2, -2, -2};
  const float expected_z[8] = {-3, 7, 9, -3, -3, 1, 0.5f, -3};
  assert_memory_equal(y, expected_y, sizeof y);
  assert_memory_equal(z, expected_z, sizeof z);
}

/* What is copied is not there before the wait, and a task does not see the copies of the task before. */
static void test_copies(void **state) {
  (void)state;
  uint16_t h[16];
  float y[48];
  for (int i = 0; i < 16; i++) h[i] = loop_to_bf16((float)(i + 1));
  run_ok("kernel copies lanes 2 { buffer h bf16 in buffer y f32 out shared s bf16[16] %0 = lane %1 = imul %0, 8 %2 = task\n"
         "%3 = ilt %0, 1 %4 = imul %2, 8 %5 = isub 8, %1 %6 = imul %2, 24 %11 = ieq %2, 0\n"
         "for %7 = 0 to 2 step 1 { %8 = ieq %7, 0 if %8 { async_copy s[%5] = h[%4] where %3 }\n"
         "  %9 = imul %7, 8 %10 = iadd %6, %9 if %11 { if %8 { %12 = load s[8] store y[%10] = %12 } wait }\n"
         "  for %13 = 1 to 8 step 1 { %14 = iadd %13, %10 %15 = imul %13, 2 %16 = load s[%15] store y[%14] = %16 } } }",
         (LoopBuffer[]){{h, 16}, {y, 48}}, 2);
  assert_true(isnan(y[0]));
  for (int i = 0; i < 16; i++)
    if (i % 8) assert_true(y[i] == (i % 8 < 4 ? 0 : (float)(i % 8 * 2 - 8 + 1)));
  for (int i = 24; i < 40; i++)
    if (i % 8) assert_true(isnan(y[i]));
  run_ok(
      "kernel left lanes 2 { buffer h bf16 in buffer y f32 out shared s bf16[16] %0 = lane %1 = imul %0, 8 %2 = task %3 = ieq 0, "
      "0\n"
      "%4 = ieq %2, 0 if %4 { async_copy s[%1] = h[%1] where %3 } %5 = not %4 if %5 { wait } %6 = load s[0] store y[%2] = %6 }",
      (LoopBuffer[]){{h, 16}, {y, 48}}, 2);
  assert_true(isnan(y[0]) && isnan(y[1]));
}

/* ---- mma ---- */

/* To tf32 in another way than the interpreter's: nearest multiple of the last place, ties away from zero. */
static float to_tf32(float value) {
  int exponent;
  if (value == 0) return value;
  frexpf(value, &exponent);
  float last = ldexpf(1, exponent - 11);
  return roundf(value / last) * last;
}

/* Two warps, each with rows of its own of A and B and two products into one tile, against plain loops. */
static void check_mma(LoopElement element, int depth) {
  enum { A_ROW = 20, B_ROW = 36, A_COUNT = 40 * A_ROW, B_COUNT = 20 * B_ROW };
  static float a[A_COUNT], b[B_COUNT], y[4 * 64];
  srand(5);
  for (int i = 0; i < A_COUNT; i++) a[i] = (float)(rand() % 20001 - 10000) / 3001;
  for (int i = 0; i < B_COUNT; i++) b[i] = (float)(rand() % 20001 - 10000) / 7001;
  a[0] = 1 + 0x1p-11f, a[1] = -1 - 0x3p-11f; /* ties of tf32 */
  const char *name = loop_element_name(element);
  Text text = {0};
  text_printf(&text, "kernel mma lanes 64 { buffer a f32 in buffer b f32 in buffer y f32 out shared s %s[%d] shared t %s[%d]\n",
              name, A_COUNT, name, B_COUNT);
  text_printf(&text, "tile d f32[6] lanes for %%0 = 0 to %d step 1 { %%1 = load a[%%0] store s[%%0] = %%1 }\n", A_COUNT);
  text_printf(&text, "for %%2 = 0 to %d step 1 { %%3 = load b[%%2] store t[%%2] = %%3 }\n", B_COUNT);
  text_printf(&text, "%%4 = lane %%5 = idiv %%4, 32 %%6 = imul %%5, %d %%7 = imul %%5, %d %%9 = ieq 0, 0\n", 20 * A_ROW,
              10 * B_ROW);
  text_printf(&text, "unroll %%10 = 0 to 4 step 1 { %%11 = to_f32 %%10 %%12 = iadd %%10, 1 set d[%%12] = %%11 }\n");
  text_printf(&text, "for %%13 = 0 to %d step %d { %%14 = iadd %%6, %%13 %%15 = iadd %%7, %%13\n", 16, depth);
  text_printf(&text, "mma d[1] += s[%%14] stride %d * t[%%15] stride %d }\n", A_ROW, B_ROW);
  text_printf(&text, "unroll %%16 = 0 to 4 step 1 { %%17 = iadd %%16, 1 %%18 = get d[%%17] %%19 = imul %%16, 64\n"
                     "store_lanes y[%%19] = %%18 count 64 } }");
  run_ok(text.data, (LoopBuffer[]){{a, A_COUNT}, {b, B_COUNT}, {y, 4 * 64}}, 1);
  text_free(&text);
  for (int lane = 0; lane < 64; lane++)
    for (int r = 0; r < 4; r++) {
      int row = lane % 32 / 4 + 8 * (r / 2), column = 2 * (lane % 4) + r % 2, warp = lane / 32;
      float sum = (float)r;
      for (int first = 0; first < 16; first += depth) {
        double exact = (double)sum;
        for (int i = first; i < first + depth; i++) {
          float p = a[(warp * 20 + row) * A_ROW + i], q = b[(warp * 10 + column) * B_ROW + i];
          bool half = element == LOOP_ELEMENT_BF16;
          p = half ? loop_from_bf16(loop_to_bf16(p)) : to_tf32(p), q = half ? loop_from_bf16(loop_to_bf16(q)) : to_tf32(q);
          exact += (double)p * (double)q;
        }
        sum = (float)exact;
      }
      assert_true(y[r * 64 + lane] == sum);
    }
}

static void test_mma(void **state) {
  (void)state;
  check_mma(LOOP_ELEMENT_F32, 8);
  check_mma(LOOP_ELEMENT_BF16, 16);
}

static void test_varying_functions(void **state) {
  (void)state;
  double x[4] = {1, -3, 0.5, 7}, y[4] = {0};
  run_ok("kernel functions lanes 4 { buffer x f64 in buffer y f64 out %0 = load_lanes x[0] count 4 else 0.0 %1 = exp %0\n"
         "%2 = gt %0, 0.0 if %2 { %3 = log %0 %4 = add %1, %3 %5 = lane scatter y[%5] = %4 where %2 } }",
         (LoopBuffer[]){{x, 4}, {y, 4}}, 1);
  for (int i = 0; i < 4; i++) assert_true(y[i] == (x[i] > 0 ? exp(x[i]) + log(x[i]) : 0));
}

/* ---- what only a launch shows ---- */

typedef struct Bad {
  const char *text, *message;
} Bad;

/* Each body runs with x f32[64], y f32[64], h bf16[64], n i32[4] = {0, 1, 5, 7}, after `%0 = lane`, `%1` that holds everywhere
 * and
 * `%2` that holds in lanes 3 and above. */
static const Bad bad_runs[] = {
    {"%9 = iadd %0, 33 %10 = gather x[%9] where %1 else 0.0f",
     "line 12, task 0: gather: x[64] of lane 31, which has 64 elements"},
    {"%9 = isub %0, 4 %10 = gather x[%9] where %2 else 0.0f", "x[-1] of lane 3"},
    {"%9 = iadd %0, 60 if %2 { %10 = gather x[%9] where %1 else 0.0f }", "x[64] of lane 4"},
    {"%9 = gather n[%0] where %1 else 0", "n[4] of lane 4, which has 4 elements"},
    {"%9 = imul %0, 3 scatter y[%9] = 1.0f where %2", "scatter: y[66] of lane 22"},
    {"scatter y[7] = 1.0f where %1", "scatter: two lanes write y[7]"},
    {"%9 = imod %0, 30 scatter y[%9] = 1.0f where %2 scatter y[%9] = 1.0f where %1",
     "line 13, task 0: scatter: two lanes write y[0]"},
    {"%9 = isub 40, %0 scatter y[%9] = 1.0f where %1 %10 = imul %0, %0 %11 = imod %10, 31 scatter y[%11] = 1.0f where %1",
     "line 15, task 0: scatter: two lanes write y["},
    {"%9 = iadd %0, 1 gather_tile a[0] = x[%9] width 4 where %1 else 0.0f", "gather_tile: x[1] of lane 0, no multiple of 4"},
    {"%9 = imul %0, 4 gather_tile a[0] = x[%9] width 4 where %1 else 0.0f", "x[64] and 3 more of lane 16, which has 64 elements"},
    {"%9 = imul %0, 6 %10 = ilt %0, 8 gather_tile a[0] = h[%9] width 4 where %10 else 0.0f", "h[6] of lane 1, no multiple of 4"},
    {"%9 = isub %0, 64 gather_tile a[0] = x[%9] width 4 where %1 else 0.0f", "x[-64] and 3 more of lane 0"},
    {"%9 = imul %0, 2 %10 = ilt %0, 8 scatter_tile y[%9] width 4 = a[0] where %10", "y[2] of lane 1, no multiple of 4"},
    {"%9 = imod %0, 3 %10 = imul %9, 2 scatter_tile y[%10] width 2 = a[0] where %1", "scatter_tile: two lanes write y[0]"},
    {"%9 = imul %0, 4 async_copy s[%0] = x[%9] where %2", "async_copy: s[1] of lane 1, no multiple of 4"},
    {"%9 = imul %0, 4 async_copy s[%9] = x[%0] where %2", "async_copy: x[3] of lane 3, no multiple of 4"},
    {"%9 = imul %0, 8 async_copy s[%9] = x[0] where %2", "s[64] and 3 more of lane 8"},
    {"%9 = imul %0, 4 %10 = ilt %0, 16 if %10 { async_copy s[%9] = x[%9] where %1 async_copy s[0] = x[%9] where %1 }",
     "async_copy: two lanes write s[0]"},
    {"%9 = imul %0, 2 mma a[0] += s[%9] stride 2 * s[0] stride 2", "mma: lanes 0 and 1 of a warp give the indices 0 and 2"},
    {"%9 = imod %0, 2 mma a[0] += s[0] stride 2 * s[%9] stride 2", "mma: lanes 0 and 1 of a warp give the indices 0 and 1"},
    {"mma a[0] += s[3] stride 2 * s[0] stride 2", "mma: an odd index, 3"},
    {"mma a[0] += s[-2] stride 2 * s[0] stride 2", "mma: s[-2] and 37 more"},
    {"mma a[0] += s[28] stride 2 * s[0] stride 2", "mma: s[28] and 37 more, which has 64 elements"},
    {"mma a[0] += s[0] stride 2 * s[0] stride 10", "mma: s[0] and 77 more"},
    {"%9 = isub %0, 1 %10 = idiv %9, 2", "idiv: -1 by 2"},
    {"%9 = isub %0, 4 if %2 { %10 = imod 7, %9 }", "imod: 7 by -1"},
    {"%9 = imul %0, 4611686018427387904", "2 and 4611686018427387904 leave 64 bits"},
    {"%9 = load_lanes x[33] count 31 else 0.0f if %2 { %10 = load_lanes x[33] count 32 else 0.0f }",
     "load_lanes: x[64], which has"},
    {"if %2 { %10 = load_lanes x[9223372036854775806] count 32 else 0.0f }", "load_lanes: x[-1], which has"},
    {"%9 = load_int n[3] %10 = imul %9, 5 if %2 { %11 = load_lanes x[0] count %10 else 0.0f }", "a count of 35"},
    {"%9 = to_f64 %0 %10 = log %9", "log: of 0"},
    {"for %9 = 0 to 1000000 step 1 { async_copy s[0] = x[0] where %1 }", "two lanes write s[0]"},
};

static void test_bad_runs(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof bad_runs / sizeof *bad_runs; i++) {
    float x[64] = {0}, y[64];
    uint16_t h[64] = {0};
    int32_t n[4] = {0, 1, 5, 7};
    Text text = {0};
    text_add(&text, "kernel k lanes 32 { buffer x f32 in buffer y f32 out buffer h bf16 in buffer n i32 in shared s f32[64]\n"
                    "tile a f32[8] lanes %0 = lane %1 = ieq 0, 0 %2 = ilt 2, %0 ");
    text_add(&text, bad_runs[i].text);
    text_add(&text, " }");
    Err err = {{0}};
    if (run(text.data, (LoopBuffer[]){{x, 64}, {y, 64}, {h, 64}, {n, 4}}, 1, &err)) fail_msg("ran: %s", bad_runs[i].text);
    if (!strstr(err.text, bad_runs[i].message))
      fail_msg("text: %s\nwanted: %s\nseen: %s", bad_runs[i].text, bad_runs[i].message, err.text);
    text_free(&text);
  }
}

/* A text may be within its limits and want more than the interpreter gives. */
static void test_memory_limits(void **state) {
  (void)state;
  Text text = {0};
  Err err;
  text_add(&text, "kernel k lanes 1024 {\n%0 = lane\n");
  for (int i = 0; i < 140000; i++) text_printf(&text, "%%%d = iadd %%0, %%0\n", i + 1);
  text_add(&text, "}");
  assert_false(run(text.data, NULL, 1, &err));
  assert_non_null(strstr(err.text, "more than the interpreter's"));
  text_free(&text);
  static float x[4096];
  assert_false(run("kernel k lanes 1024 { buffer x f32 in shared s f32[4096] %0 = ieq 0, 0 %1 = lane %2 = imul %1, 4\n"
                   "for %3 = 0 to 2000 step 1 { async_copy s[%2] = x[%2] where %0 } }",
                   (LoopBuffer[]){{x, 4096}}, 1, &err));
  assert_non_null(strstr(err.text, "more than 1048576 copies with no wait"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_varying_integers),
      cmocka_unit_test(test_gather_and_scatter),
      cmocka_unit_test(test_bf16),
      cmocka_unit_test(test_wide_accesses),
      cmocka_unit_test(test_masked_regions),
      cmocka_unit_test(test_masked_memory),
      cmocka_unit_test(test_copies),
      cmocka_unit_test(test_mma),
      cmocka_unit_test(test_varying_functions),
      cmocka_unit_test(test_bad_runs),
      cmocka_unit_test(test_memory_limits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
