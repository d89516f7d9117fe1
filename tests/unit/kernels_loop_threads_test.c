/* What the Loop IR has for the threads of a GPU: a message for each rule of it that a kernel can breach, the text that the
 * builder's calls give, what a CPU cannot run, and numbers as bf16. */
#include "kernels/loop.h"
#include "kernels/loop_private.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct Case {
  const char *text, *message; /* null: nothing is wrong */
} Case;

#define ARRAYS                                                                                                                   \
  " lanes 32 {\n buffer x f32 in\n buffer y f32 out\n buffer z f32 inout\n buffer n i32 in\n buffer b bf16 inout\n"              \
  " buffer p u8 in\n buffer q f64 inout\n shared s f32[4096]\n shared h bf16[4096]\n shared d f64[64]\n"                         \
  " tile a f32[8] lanes\n tile u f32[8]\n tile w f64[2] lanes\n"

/* Values of each kind; `%2` varies, `%3` does not. */
#define VALUES                                                                                                                   \
  " %0 = task\n %1 = lane\n %2 = ilt %1, 5\n %3 = ilt %0, 5\n %4 = gather x[%1] where %2 else 0.0f\n %5 = load x[0]\n"           \
  " %6 = to_f64 %4\n"

static const Case types[] = {
    {"%9 = iadd %1, %0 %10 = imul %9, %9 %11 = select %2, %9, 3 %12 = ieq %11, %0 %13 = to_f32 %11", NULL},
    {"%9 = not %2 %10 = or %9, %3 %11 = and %10, %2 if %11 { }", NULL},
    {"%9 = exp %6 %10 = log %9", NULL},
    {"%9 = gather n[%1] where %3 else -1 %10 = gather p[%9] where %2 else 7 %11 = iadd %10, 1", NULL},
    {"%9 = gather b[%0] where %2 else 0.5f %10 = add %9, %5", NULL},
    {"%9 = load_int p[%0]", NULL},
    {"%9 = load b[0] store b[1] = %9 %10 = load_lanes h[0] count 32 else 0.0f store_lanes h[32] = %10 count 3", NULL},
    {"scatter y[%1] = %5 where %3 scatter q[%1] = %6 where %2", NULL},
    {"%9 = iadd %1, %5", "iadd: operand 2 is f32 where int is wanted"},
    {"%9 = lane_sum %1", "lane_sum: operand 1 is int"},
    {"%9 = load x[%1]", "load: operand 1 varies"},
    {"%9 = load_int n[%1]", "load_int: operand 1 varies"},
    {"%9 = load_lanes x[%1] count 4 else 0.0f", "load_lanes: operand 1 varies"},
    {"%9 = load_lanes x[0] count %1 else 0.0f", "load_lanes: operand 2 varies"},
    {"store y[%1] = %5", "store: operand 1 varies"},
    {"store y[0] = %4", "store: operand 2 varies"},
    {"store_lanes y[%1] = %4 count 4", "store_lanes: operand 1 varies"},
    {"store_lanes y[0] = %4 count %1", "store_lanes: operand 3 varies"},
    {"prefetch x[%1]", "prefetch: operand 1 varies"},
    {"set a[%1] = %4", "set: operand 1 varies"},
    {"%9 = get a[%1]", "get: operand 1 varies"},
    {"for %9 = %1 to 4 step 1 { }", "for: operand 1 varies"},
    {"for %9 = 0 to %1 step 1 { }", "for: operand 2 varies"},
    {"for %9 = 0 to 4 step %1 { }", "for: operand 3 varies"},
    {"unroll %9 = 0 to %1 step 1 { }", "unroll: operand 2 is not a constant"},
};

static const Case gathers[] = {
    {"%9 = gather x[%5] where %2 else 0.0f", "gather: operand 1 is f32 where int is wanted"},
    {"%9 = gather x[%1] where %1 else 0.0f", "gather: operand 2 is int where bit is wanted"},
    {"%9 = gather x[%1] where %2 else 0.0", "the fill 0.0 is f64 where x is f32"},
    {"%9 = gather n[%1] where %2 else 0.0f", "an integer is wanted, not `0.0f`"},
    {"%9 = gather n[%1] where %2 else 2147483648", "the fill 2147483648 is no i32"},
    {"%9 = gather a[%1] where %2 else 0.0f", "gather: a is a tile"},
    {"%9 = gather p[%1] where %2 else 0 %10 = add %9, %5", "add: operand 1 is int"},
    {"scatter x[%1] = %4 where %2", "scatter: buffer x is only read"},
    {"scatter n[%1] = %1 where %2", "scatter: buffer n is only read"},
    {"scatter a[%1] = %4 where %2", "scatter: a is a tile"},
    {"scatter y[%1] = %6 where %2", "scatter: operand 2 is f64 where f32 is wanted"},
    {"scatter y[%1] = %4 where %4", "scatter: operand 3 is f32 where bit is wanted"},
    {"scatter y[%2] = %4 where %2", "scatter: operand 1 is bit where int is wanted"},
    {"gather_tile a[0] = x[%1] width 4 where %2 else 0.0f gather_tile a[4] = h[%1] width 4 where %3 else 1.0f", NULL},
    {"gather_tile a[0] = b[%1] width 8 where %2 else 0.0f scatter_tile h[%1] width 8 = a[0] where %2", NULL},
    {"gather_tile w[0] = q[%1] width 2 where %2 else 0.0 scatter_tile d[%1] width 2 = w[0] where %2", NULL},
    {"gather_tile a[0] = x[%1] width 8 where %2 else 0.0f", "a width of 8 f32, where 2, 4 or 8 of at most 16 bytes"},
    {"gather_tile w[0] = q[%1] width 4 where %2 else 0.0", "a width of 4 f64"},
    {"gather_tile a[0] = x[%1] width 3 where %2 else 0.0f", "a width of 3"},
    {"gather_tile a[0] = x[%1] width 1 where %2 else 0.0f", "a width of 1"},
    {"gather_tile a[0] = x[%1] width -4 where %2 else 0.0f", "a width of -4"},
    {"scatter_tile y[%1] width 9223372036854775807 = a[0] where %2", "a width of 9223372036854775807"},
    {"gather_tile x[0] = x[%1] width 4 where %2 else 0.0f", "gather_tile: x is no tile"},
    {"gather_tile a[0] = a[%1] width 4 where %2 else 0.0f", "gather_tile: a is a tile"},
    {"gather_tile u[0] = x[%1] width 4 where %2 else 0.0f", "gather_tile: the elements of tile u are uniform"},
    {"gather_tile w[0] = x[%1] width 2 where %2 else 0.0f", "gather_tile: x is f32 where tile w is f64"},
    {"gather_tile a[0] = n[%1] width 2 where %2 else 0", "gather_tile: n is i32 where tile a is f32"},
    {"gather_tile a[0] = x[%1] width 2 where %1 else 0.0f", "gather_tile: operand 2 is int where bit is wanted"},
    {"gather_tile a[%1] = x[%1] width 2 where %2 else 0.0f", "gather_tile: operand 3 varies"},
    {"gather_tile a[%0] = x[%1] width 2 where %2 else 0.0f", "not made of constants and unroll variables alone"},
    {"gather_tile a[5] = x[%1] width 4 where %2 else 0.0f", "the index of tile a may be 8 where it has 8 elements"},
    {"gather_tile a[-1] = x[%1] width 4 where %2 else 0.0f", "may be -1"},
    {"gather_tile a[9223372036854775807] = x[%1] width 4 where %2 else 0.0f", "may be 9223372036854775807"},
    {"unroll %9 = 0 to 8 step 4 { scatter_tile y[%1] width 4 = a[%9] where %2 }", NULL},
    {"unroll %9 = 0 to 8 step 2 { scatter_tile y[%1] width 4 = a[%9] where %2 }", "may be 9 where"},
    {"scatter_tile x[%1] width 4 = a[0] where %2", "scatter_tile: buffer x is only read"},
    {"scatter_tile p[%1] width 4 = a[0] where %2", "scatter_tile: buffer p is only read"},
};

static const Case copies[] = {
    {"async_copy s[%1] = x[%0] where %3 async_copy h[%1] = b[%1] where %2 async_copy s[0] = z[0] where %2 wait", NULL},
    {"async_copy y[%1] = x[%1] where %2", "async_copy: y is not shared"},
    {"async_copy s[%1] = y[%1] where %2", "async_copy: y is no buffer that may be read"},
    {"async_copy s[%1] = s[%1] where %2", "async_copy: s is no buffer that may be read"},
    {"async_copy s[%1] = a[%1] where %2", "async_copy: a is a tile"},
    {"async_copy a[%1] = x[%1] where %2", "async_copy: a is a tile"},
    {"async_copy h[%1] = x[%1] where %2", "async_copy: h is bf16 and x is f32, where both are f32 or both bf16"},
    {"async_copy d[%1] = q[%1] where %2", "async_copy: d is f64 and q is f64"},
    {"async_copy s[%1] = x[%1] where %1", "async_copy: operand 3 is int where bit is wanted"},
    {"async_copy s[%1] = x[%4] where %2", "async_copy: operand 2 is f32 where int is wanted"},
    {"%9 = wait", "wait is no value"},
    {"mma a[0] += s[%0] stride 8 * s[%1] stride 12 mma a[4] += h[0] stride 16 * h[0] stride 40", NULL},
    {"mma a[0] += s[0] stride 8 * x[0] stride 8", "mma: x is not shared"},
    {"mma a[0] += x[0] stride 8 * s[0] stride 8", "mma: x is not shared"},
    {"mma a[0] += s[0] stride 8 * h[0] stride 8", "mma: s is f32 and h is bf16"},
    {"mma a[0] += d[0] stride 8 * d[0] stride 8", "mma: d is f64 and d is f64"},
    {"mma a[0] += a[0] stride 8 * s[0] stride 8", "mma: a is a tile"},
    {"mma a[0] += s[0] stride 8 * a[0] stride 8", "mma: a is a tile"},
    {"mma s[0] += s[0] stride 8 * s[0] stride 8", "mma: s is no tile"},
    {"mma u[0] += s[0] stride 8 * s[0] stride 8", "mma: the elements of tile u are uniform"},
    {"mma w[0] += s[0] stride 8 * s[0] stride 8", "mma: tile w is not f32"},
    {"mma a[0] += s[0] stride 7 * s[0] stride 8", "mma: a stride of 7, where a positive even one is wanted"},
    {"mma a[0] += s[0] stride 8 * s[0] stride 0", "mma: a stride of 0"},
    {"mma a[0] += s[0] stride 8 * s[0] stride -2", "mma: a stride of -2"},
    {"mma a[0] += s[0] stride 9223372036854775806 * s[0] stride 8", "mma: a stride of 9223372036854775806"},
    {"mma a[0] += s[%5] stride 8 * s[0] stride 8", "mma: operand 1 is f32 where int is wanted"},
    {"mma a[0] += s[0] stride 8 * s[%5] stride 8", "mma: operand 2 is f32 where int is wanted"},
    {"mma a[%1] += s[0] stride 8 * s[0] stride 8", "mma: operand 3 varies"},
    {"mma a[5] += s[0] stride 8 * s[0] stride 8", "the index of tile a may be 8 where it has 8 elements"},
    {"mma a[0] = s[0] stride 8 * s[0] stride 8", "`+` is wanted, not `=`"},
    {"mma a[0] + s[0] stride 8 * s[0] stride 8", "`=` is wanted, not `s`"},
    {"mma a[0] += s[0] stride 8, s[0] stride 8", "`*` is wanted, not `,`"},
};

static const Case masks[] = {
    {"if %2 { set a[0] = %4 scatter y[%1] = %4 where %2 %9 = load x[0] %10 = gather x[%1] where %2 else 0.0f prefetch x[0]"
     " gather_tile a[0] = x[%1] width 4 where %2 else 0.0f scatter_tile y[%1] width 4 = a[0] where %2"
     " async_copy s[%1] = x[%1] where %2 %11 = load_lanes x[0] count 3 else 0.0f for %12 = 0 to 3 step 1 { if %3 { } } } wait",
     NULL},
    {"if %3 { phase one { } store y[0] = %5 wait mma a[0] += s[0] stride 8 * s[0] stride 8 %9 = lane_sum %4 set u[0] = %5"
     " if %2 { } store y[1] = %5 }",
     NULL},
    {"if %2 { phase one { } }", "phase: stands below an if whose bit varies"},
    {"if %2 { %9 = lane_sum %4 }", "lane_sum: stands below an if whose bit varies"},
    {"if %2 { mma a[0] += s[0] stride 8 * s[0] stride 8 }", "mma: stands below"},
    {"if %2 { wait }", "wait: stands below"},
    {"if %2 { store y[0] = %5 }", "store: stands below"},
    {"if %2 { store_lanes y[0] = %4 count 4 }", "store_lanes: stands below"},
    {"if %2 { set u[0] = %5 }", "set: of uniform tile u stands below"},
    {"if %2 { for %9 = 0 to 4 step 1 { if %3 { store y[0] = %5 } } }", "line 25: store: stands below"},
    {"phase one { if %2 { unroll %9 = 0 to 4 step 1 { phase two { } } } }", "phase: stands below"},
};

static void check(const char *text, const char *message) {
  Arena *arena = arena_new();
  Err err = {{0}};
  LoopKernel *k = loop_parse(text, strlen(text), arena, &err);
  bool ok = k && loop_verify(k, &err);
  if (message ? ok || !strstr(err.text, message) : !ok)
    fail_msg("text: %s\nwanted: %s\nseen: %s", text, message ? message : "no error", ok ? "no error" : err.text);
  if (ok) {
    Text first = {0}, second = {0};
    loop_print(k, &first);
    LoopKernel *again = loop_parse(first.data, first.length, arena, &err);
    if (!again || !loop_verify(again, &err)) fail_msg("%s\n%s", err.text, first.data);
    loop_print(again, &second);
    assert_string_equal(first.data, second.data);
    text_free(&first);
    text_free(&second);
    loop_free_tables(again);
  }
  if (k) loop_free_tables(k);
  arena_free(arena);
}

static void check_all(const Case *cases, size_t count) {
  char text[2048];
  for (size_t i = 0; i < count; i++) {
    snprintf(text, sizeof text, "%s %s }", "kernel g" ARRAYS VALUES, cases[i].text);
    check(text, cases[i].message);
  }
}

#define CHECK_ALL(cases) check_all(cases, sizeof cases / sizeof *cases)

static void test_types(void **state) {
  (void)state;
  CHECK_ALL(types);
}

static void test_gathers_and_scatters(void **state) {
  (void)state;
  CHECK_ALL(gathers);
}

static void test_copies_and_products(void **state) {
  (void)state;
  CHECK_ALL(copies);
  check("kernel k lanes 16 { shared s f32[99] tile a f32[4] lanes mma a[0] += s[0] stride 8 * s[0] stride 8 }",
        "mma: 16 lanes are no warps of 32");
}

static void test_masks(void **state) {
  (void)state;
  CHECK_ALL(masks);
}

/* The sample of loop.h, built. */
static void test_built_text(void **state) {
  (void)state;
  Arena *arena = arena_new();
  LoopKernel *k = loop_new(arena, "gpu", 64);
  int32_t x = loop_buffer(k, "x", LOOP_INOUT, LOOP_ELEMENT_BF16), n = loop_buffer(k, "n", LOOP_IN, LOOP_ELEMENT_U8);
  int32_t t = loop_shared_of(k, "t", LOOP_ELEMENT_BF16, 1024), acc = loop_tile(k, "acc", LOOP_F32, true, 8);
  LoopValue lane = loop_lane(k), two = loop_int(k, 2), eight = loop_int(k, 8), four = loop_int(k, 4);
  LoopValue where = loop_op2(k, LOOP_ILT, lane, eight), at = loop_op2(k, LOOP_IMUL, lane, eight);
  LoopValue byte = loop_gather(k, n, lane, where, 128), value = loop_gather(k, x, byte, where, 0.5);
  loop_if(k, where);
  loop_scatter(k, x, byte, value, where);
  loop_end(k);
  loop_gather_tile(k, acc, four, x, at, 4, where, -1);
  loop_scatter_tile(k, x, at, 2, acc, two, where);
  loop_async_copy(k, t, at, x, byte, where);
  loop_wait(k);
  loop_mma(k, acc, two, (LoopFactor){t, eight, 40}, (LoopFactor){t, two, 24});
  Text text = {0};
  loop_print(k, &text);
  assert_string_equal(text.data, "kernel gpu lanes 64 {\n"
                                 "  buffer x bf16 inout\n"
                                 "  buffer n u8 in\n"
                                 "  shared t bf16[1024]\n"
                                 "  tile acc f32[8] lanes\n"
                                 "  %0 = lane\n"
                                 "  %1 = ilt %0, 8\n"
                                 "  %2 = imul %0, 8\n"
                                 "  %3 = gather n[%0] where %1 else 128\n"
                                 "  %4 = gather x[%3] where %1 else 0.5f\n"
                                 "  if %1 {\n"
                                 "    scatter x[%3] = %4 where %1\n"
                                 "  }\n"
                                 "  gather_tile acc[4] = x[%2] width 4 where %1 else -1.0f\n"
                                 "  scatter_tile x[%2] width 2 = acc[2] where %1\n"
                                 "  async_copy t[%2] = x[%3] where %1\n"
                                 "  wait\n"
                                 "  mma acc[2] += t[8] stride 40 * t[2] stride 24\n"
                                 "}\n");
  Err err;
  if (!loop_verify(k, &err)) fail_msg("%s", err.text);
  size_t copy = 0;
  while (k->code.data[copy].op != LOOP_ASYNC_COPY) copy++;
  assert_int_equal(k->code.data[copy].integer, 8);
  check(text.data, NULL);
  text_free(&text);
  loop_free_tables(k);
  arena_free(arena);
}

/* Breaches that text cannot express. */
static void test_bad_tables(void **state) {
  (void)state;
  static const char text[] = "kernel g" ARRAYS VALUES "async_copy s[%1] = x[%1] where %2\n %9 = gather n[0] where %2 else 0 }";
  Arena *arena = arena_new();
  Err err;
  LoopKernel *k = loop_parse(text, sizeof text - 1, arena, &err);
  assert_non_null(k);
  assert_true(loop_verify(k, &err));
  size_t copy = 0;
  while (k->code.data[copy].op != LOOP_ASYNC_COPY) copy++;
  LoopInstr *instr = &k->code.data[copy];
  const LoopInstr good = *instr;
  const struct {
    LoopInstr instr;
    const char *message;
  } bad[] = {
      {{.integer = 8}, "async_copy: of 8 elements where 4 are wanted"},
      {{.tile = 10}, "async_copy: has a tile"},
      {{.other = 77}, "async_copy: no such array"},
      {{.array = -1}, "async_copy: no such array"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    *instr = good;
    if (bad[i].instr.integer) instr->integer = bad[i].instr.integer;
    if (bad[i].instr.tile) instr->tile = bad[i].instr.tile;
    if (bad[i].instr.other) instr->other = bad[i].instr.other;
    if (bad[i].instr.array) instr->array = bad[i].instr.array;
    assert_false(loop_verify(k, &err));
    if (!strstr(err.text, bad[i].message)) fail_msg("wanted: %s\nseen: %s", bad[i].message, err.text);
  }
  *instr = good;
  LoopInstr *gather = &k->code.data[k->code.count - 1];
  assert_int_equal(gather->op, LOOP_GATHER);
  const double fills[] = {0.5, 1e10, (double)NAN, -2147483649.0};
  for (size_t i = 0; i < sizeof fills / sizeof *fills; i++) {
    gather->number = fills[i];
    assert_false(loop_verify(k, &err));
    assert_non_null(strstr(err.text, "gather: the fill is no i32"));
  }
  gather->number = 0, gather->other = 1;
  assert_false(loop_verify(k, &err));
  assert_non_null(strstr(err.text, "gather: has another array"));
  loop_free_tables(k);
  arena_free(arena);
}

static bool fits_cpu(const char *body, int lanes) {
  char text[1024];
  snprintf(text, sizeof text, "kernel c lanes %d { buffer x f32 inout buffer n i32 in %s }", lanes, body);
  Arena *arena = arena_new();
  Err err;
  LoopKernel *k = loop_parse(text, strlen(text), arena, &err);
  if (!k || !loop_verify(k, &err)) fail_msg("%s", err.text);
  bool fits = loop_fits_cpu(k);
  loop_free_tables(k);
  arena_free(arena);
  return fits;
}

static void test_fits_cpu(void **state) {
  (void)state;
  static const char varying[] =
      "shared s f32[64] %0 = load_lanes x[0] count 3 else 0.0f %1 = gt %0, 0.5f %2 = select %1, %0, 0.0f"
      " %3 = lane_sum %2 store s[0] = %3 %4 = load_int n[0] %5 = ilt %4, 3 if %5 { phase p { } }";
  assert_true(fits_cpu(varying, 32));
  assert_false(fits_cpu(varying, 64));
  assert_false(fits_cpu("buffer b bf16 in", 8));
  assert_false(fits_cpu("buffer b u8 in", 8));
  assert_false(fits_cpu("shared s bf16[8]", 8));
  assert_false(fits_cpu("%0 = lane", 8));
  assert_false(fits_cpu("%0 = ilt 1, 2 %1 = gather x[0] where %0 else 0.0f", 8));
  assert_false(fits_cpu("%0 = ilt 1, 2 scatter x[0] = 1.0f where %0", 8));
  assert_false(fits_cpu("tile t f32[2] lanes %0 = ilt 1, 2 scatter_tile x[0] width 2 = t[0] where %0", 8));
  assert_false(fits_cpu("tile t f32[4] lanes shared s f32[256] mma t[0] += s[0] stride 8 * s[0] stride 8", 32));
  assert_false(fits_cpu("wait", 8));
  assert_false(fits_cpu("%0 = load_lanes x[0] count 3 else 0.0f %1 = gt %0, 0.5f if %1 { }", 8));
  assert_false(fits_cpu("%0 = load_lanes x[0] count 3 else 0.0f %1 = to_f64 %0 %2 = exp %1", 8));
}

static void test_scratch(void **state) {
  (void)state;
  Arena *arena = arena_new();
  LoopKernel *k = loop_new(arena, "scratch", 32);
  loop_shared_of(k, "a", LOOP_ELEMENT_BF16, 33); /* 66 bytes */
  loop_shared_of(k, "b", LOOP_ELEMENT_F64, 8);
  loop_shared(k, "c", 1);
  int64_t offset[3];
  assert_int_equal(loop_scratch(k, offset), 128 + 64 + 64);
  assert_int_equal(offset[1], 128);
  assert_int_equal(offset[2], 192);
  loop_free_tables(k);
  arena_free(arena);
}

static void test_bf16(void **state) {
  (void)state;
  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    float value = loop_from_bf16((uint16_t)bits);
    if (isnan(value))
      assert_true(isnan(loop_from_bf16(loop_to_bf16(value))));
    else
      assert_int_equal(loop_to_bf16(value), bits);
  }
  static const struct {
    float value;
    uint16_t bits;
  } rounded[] = {{0x1.01p0f, 0x3f80},     {0x1.010002p0f, 0x3f81},   {0x1.03p0f, 0x3f82}, {-0x1.03p0f, 0xbf82},
                 {0x1.02fffep0f, 0x3f81}, {0x1.fffffep127f, 0x7f80}, {0x1p-149f, 0x0000}, {-0x1p-149f, 0x8000},
                 {0x1p-134f, 0x0000},     {0x1.0002p-134f, 0x0001}};
  for (size_t i = 0; i < sizeof rounded / sizeof *rounded; i++)
    if (loop_to_bf16(rounded[i].value) != rounded[i].bits)
      fail_msg("%a gives %04x, not %04x", (double)rounded[i].value, loop_to_bf16(rounded[i].value), rounded[i].bits);
  float last_nan;
  memcpy(&last_nan, &(uint32_t){0xffffffff}, sizeof last_nan);
  assert_true(isnan(loop_from_bf16(loop_to_bf16(last_nan))));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_types),      cmocka_unit_test(test_gathers_and_scatters),
      cmocka_unit_test(test_masks),      cmocka_unit_test(test_copies_and_products),
      cmocka_unit_test(test_built_text), cmocka_unit_test(test_bad_tables),
      cmocka_unit_test(test_fits_cpu),   cmocka_unit_test(test_scratch),
      cmocka_unit_test(test_bf16),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
