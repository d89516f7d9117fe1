/* The Loop IR's text: print -> parse -> print, and a message for each kind of breach that parser and verifier see. */
#include "tests/unit/loop_text.h"

/* Every operation but `int` and `float` (which are seen as operands) and `end` (a brace). */
static const char every_operation[] = "kernel every lanes 32 {\n"
                                      "  buffer x f32 in\n"
                                      "  buffer w f64 inout\n"
                                      "  buffer labels i32 in\n"
                                      "  buffer half bf16 inout\n"
                                      "  buffer pixels u8 in\n"
                                      "  shared t f32[64]\n"
                                      "  shared h bf16[1024]\n"
                                      "  shared d f64[8]\n"
                                      "  tile acc f32[6] lanes\n"
                                      "  tile sum f64[1]\n"
                                      "  tile wide f64[2] lanes\n"
                                      "  %0 = task\n"
                                      "  %1 = batch\n"
                                      "  %2 = iadd %0, -3\n"
                                      "  %3 = isub %1, %2\n"
                                      "  %4 = imul %3, 9223372036854775807\n"
                                      "  %5 = idiv %1, 2\n"
                                      "  %6 = imod %1, 2\n"
                                      "  %7 = imin %5, %6\n"
                                      "  %8 = imax %5, -9223372036854775808\n"
                                      "  %9 = ilt %7, %8\n"
                                      "  %10 = ieq %7, %8\n"
                                      "  %11 = and %9, %10\n"
                                      "  %12 = or %9, %11\n"
                                      "  %13 = not %12\n"
                                      "  %14 = select %13, %7, 4\n"
                                      "  %15 = to_f32 %14\n"
                                      "  %16 = to_f64 %15\n"
                                      "  %17 = load x[%14]\n"
                                      "  %18 = load_int labels[0]\n"
                                      "  %19 = load_lanes x[%18] count 3 else -inff\n"
                                      "  %20 = add %19, %17\n"
                                      "  %21 = sub %20, 0x1.8p-30f\n"
                                      "  %22 = mul %21, 1e-05f\n"
                                      "  %23 = div %22, -0.0f\n"
                                      "  %24 = fma %23, 0.123456f, nanf\n"
                                      "  %25 = max %24, 0.0f\n"
                                      "  %26 = min %25, 0x1.99999cp-4f\n"
                                      "  %27 = sqrt %26\n"
                                      "  %28 = exp 1.5\n"
                                      "  %29 = log inf\n"
                                      "  %30 = gt %27, %26\n"
                                      "  %31 = eq %28, 0x1.921fb54442d18p+1\n"
                                      "  %32 = and %30, %31\n"
                                      "  %33 = select %32, %27, 1.0f\n"
                                      "  %34 = lane_sum %33\n"
                                      "  phase one.a {\n"
                                      "    for %35 = 0 to %1 step %5 {\n"
                                      "      store t[%35] = %34\n"
                                      "      unroll %36 = 0 to 6 step 2 {\n"
                                      "        %37 = iadd %36, 1\n"
                                      "        set acc[%37] = %34\n"
                                      "        %38 = get acc[%37]\n"
                                      "        store_lanes t[%35] = %38 count %36\n"
                                      "      }\n"
                                      "    }\n"
                                      "  }\n"
                                      "  if %31 {\n"
                                      "    set sum[0] = %28\n"
                                      "    store w[0] = 1e+300\n"
                                      "  }\n"
                                      "  prefetch x[-1]\n"
                                      "  prefetch w[%0] write\n"
                                      "  %39 = lane\n"
                                      "  %40 = ilt %39, 7\n"
                                      "  %41 = gather x[%39] where %40 else -0.5f\n"
                                      "  %42 = gather labels[%39] where %40 else -7\n"
                                      "  %43 = gather pixels[0] where %31 else 255\n"
                                      "  %44 = gather half[%42] where %40 else nanf\n"
                                      "  if %40 {\n"
                                      "    scatter half[%43] = %44 where %31\n"
                                      "    scatter d[%39] = 2.0 where %40\n"
                                      "  }\n"
                                      "  %45 = imul %39, 8\n"
                                      "  gather_tile acc[2] = half[%45] width 4 where %40 else inff\n"
                                      "  gather_tile wide[0] = d[%45] width 2 where %31 else 0.25\n"
                                      "  scatter_tile t[%45] width 2 = acc[4] where %40\n"
                                      "  async_copy t[%45] = x[0] where %40\n"
                                      "  async_copy h[%45] = half[%45] where %40\n"
                                      "  wait\n"
                                      "  mma acc[1] += t[%0] stride 12 * t[8] stride 8\n"
                                      "  mma acc[0] += h[0] stride 40 * h[%39] stride 24\n"
                                      "}\n";

static void test_every_operation_reads_back(void **state) {
  (void)state;
  Arena *arena = arena_new();
  LoopKernel *k = parse(every_operation, arena);
  char *text = print(k);
  assert_string_equal(text, every_operation);
  free(text);
  assert_identity(k);
  bool seen[LOOP_OP_COUNT] = {0};
  for (size_t i = 0; i < k->code.count; i++) seen[k->code.data[i].op] = true;
  for (int op = 0; op < LOOP_OP_COUNT; op++)
    if (!seen[op]) fail_msg("%s stands in no kernel of this test", loop_op_info((LoopOp)op)->text);
  loop_free_tables(k);
  arena_free(arena);
}

static void test_free_form(void **state) {
  (void)state;
  Arena *arena = arena_new();
  LoopKernel *k = parse("kernel a lanes 2{buffer y f32 out # the result\n%900=task\r\n"
                        "\t%3 = to_f32 %900 store y[%900]=%3}# end",
                        arena);
  char *text = print(k);
  assert_string_equal(text, "kernel a lanes 2 {\n  buffer y f32 out\n  %0 = task\n  %1 = to_f32 %0\n  store y[%0] = %1\n}\n");
  free(text);
  loop_free_tables(k);
  arena_free(arena);
}

/* Random bit patterns: a number must come back with its bits. */
static void test_numbers_read_back(void **state) {
  (void)state;
  uint64_t random = 88172645463325252u;
  Arena *arena = arena_new();
  LoopKernel *k = loop_new(arena, "numbers", 1);
  int32_t y = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32), z = loop_buffer(k, "z", LOOP_OUT, LOOP_ELEMENT_F64);
  for (int i = 0; i < 2000; i++) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    uint32_t low = (uint32_t)random;
    float single;
    double wide;
    memcpy(&single, &low, sizeof single);
    memcpy(&wide, &random, sizeof wide);
    if (i % 4 == 0) wide = (double)(i - 1000) / 8, single = (float)(i - 1000) / 100;
    LoopValue index = loop_int(k, i), value = loop_f32(k, (double)single);
    loop_store(k, y, index, value);
    index = loop_int(k, i), value = loop_f64(k, wide);
    loop_store(k, z, index, value);
  }
  char *text = print(k);
  LoopKernel *again = parse(text, arena);
  assert_int_equal(again->code.count, k->code.count);
  for (size_t i = 0; i < k->code.count; i++) {
    const LoopInstr *a = &k->code.data[i], *b = &again->code.data[i];
    assert_int_equal(a->op, b->op);
    assert_int_equal(a->type, b->type);
    if (!isnan(a->number)) assert_memory_equal(&a->number, &b->number, sizeof a->number);
    assert_int_equal(isnan(a->number), isnan(b->number));
  }
  free(text);
  loop_free_tables(k);
  loop_free_tables(again);
  arena_free(arena);
}

#define HEAD                                                                                                                     \
  "kernel k lanes 4 {\n buffer x f32 in\n buffer y f32 out\n buffer d f64 inout\n buffer n i32 in\n shared t f32[8]\n"           \
  " tile a f32[4] lanes\n tile u f32[2]\n %0 = task\n %1 = load x[0]\n %2 = load_lanes x[0] count 4 else 0.0f\n %3 = load "      \
  "d[0]\n"                                                                                                                       \
  " %4 = ilt %0, 3\n"

typedef struct Bad {
  const char *text, *message;
} Bad;

static const Bad bad_texts[] = {
    {"", "`kernel` is wanted"},
    {"kernel", "a name is wanted where the text ends"},
    {"kernel 3 lanes 4 {}", "a name is wanted, not `3`"},
    {"kernel k lanes 3 {}", "3 lanes; a power of two up to 1024 is wanted"},
    {"kernel k lanes 2048 {}", "2048 lanes"},
    {"kernel k lanes 4 {", "an operation is wanted where the text ends"},
    {"kernel k lanes 4 {}\n}", "line 2, column 1: the end of the text is wanted"},
    {"kernel k lanes 4 {\n buffer x f16 in }", "line 2, column 11: f32, f64, bf16, i32 or u8 is wanted, not `f16`"},
    {"kernel k lanes 4 { buffer x f32 t }", "in, out or inout is wanted"},
    {"kernel k lanes 4 { buffer x f32 in buffer x f32 in }", "two arrays are named x"},
    {"kernel k lanes 4 { shared t f32[4] buffer x f32 in }", "buffer x stands after"},
    {"kernel k lanes 4 { shared t i32[4] }", "a shared array holds f32, f64 or bf16"},
    {"kernel k lanes 4 { shared t u8[4] }", "a shared array holds f32, f64 or bf16"},
    {"kernel k lanes 4 { shared t f32[4] lanes }", "a shared array holds f32"},
    {"kernel k lanes 4 { shared t f32[0] }", "has 0 elements"},
    {"kernel k lanes 4 { shared t f32[99999999999999999999] }", "does not fit into 64 bits"},
    {"kernel k lanes 4 { shared t f32[9223372036854775807] }", "has 9223372036854775807 elements"},
    {"kernel k lanes 4 { shared t f32[16000000] shared v f32[16000000] }", "all shared arrays together have"},
    {"kernel k lanes 4 { shared t f64[6000000] shared v f64[6000000] }", "all shared arrays together have 96000000 bytes"},
    {"kernel k lanes 4 { shared t bf16[33000000] shared v bf16[600000] }", "all shared arrays together have 67200000 bytes"},
    {"kernel k lanes 4 { tile a i32[4] }", "a tile holds f32 or f64"},
    {"kernel k lanes 4 { tile a f32[65537] }", "all tiles together have 65537 elements"},
    {"kernel k lanes 1024 { tile a f32[2048] lanes tile b f32[1] lanes }", "have 2098176 elements in 1024 lanes"},
    {"kernel k lanes 4 { tile a bf16[4] }", "a tile holds f32 or f64"},
};

/* Bodies of the kernel that HEAD begins. */
static const Bad bad_bodies[] = {
    {"%9 = frob %0 }", "an operation is wanted, not `frob`"},
    {"%9 = int }", "an operation is wanted, not `int`"},
    {"%9 = float }", "an operation is wanted, not `float`"},
    {"end }", "an operation is wanted, not `end`"},
    {"%9 = store y[0] = %1 }", "store is no value"},
    {"add %1, %1 }", "add is a value, which is wanted as"},
    {"%0 = task }", "%0 is defined twice"},
    {"%9 = iadd %9, 1 }", "%9 is used before it is defined"},
    {"%9 = iadd %0 }", "`,` is wanted"},
    {"%999999999 = task }", "has a number above"},
    {"%x = task }", "a value like %7 is wanted"},
    {"%9 = iadd %0, 1x }", "an integer is wanted, not `1x`"},
    {"%9 = iadd %0, - }", "an integer is wanted, not `-`"},
    {"%9 = add %1, 1e60f }", "is wanted"},
    {"%9 = add %1, 0x1f }", "is wanted"},
    {"%9 = add %1, 1.5.5f }", "is wanted"},
    {"%9 = load z[0] }", "the name of an array is wanted, not `z`"},
    {"%9 = add %1, 1.0 }", "add: operand 2 is f64 where f32 is wanted"},
    {"%9 = add %0, %1 }", "add: operand 1 is int where f32 or f64 is wanted"},
    {"%9 = iadd %0, %1 }", "iadd: operand 2 is f32 where int is wanted"},
    {"%9 = and %4, %0 }", "and: operand 2 is int where bit is wanted"},
    {"%9 = select %0, %1, %1 }", "select: operand 1 is int where bit is wanted"},
    {"%9 = select %4, %0, %1 }", "select: operand 3 is f32 where int is wanted"},
    {"%9 = to_f32 %1 }", "to_f32: operand 1 is f32 where int or f64 is wanted"},
    {"%9 = exp %1 }", "exp: operand 1 is f32 where f64 is wanted"},
    {"%9 = lane_sum %1 }", "lane_sum: operand 1 is uniform"},
    {"%9 = load n[0] }", "load: n is i32"},
    {"%9 = load_int x[0] }", "load_int: x is f32"},
    {"%9 = load a[0] }", "load: a is a tile"},
    {"%9 = get x[0] }", "get: x is no tile"},
    {"%9 = load_lanes x[0] count 5 else 0.0f }", "a count of 5 where there are 4 lanes"},
    {"%9 = load_lanes x[0] count -1 else 0.0f }", "a count of -1"},
    {"%9 = load_lanes x[0] count 4 else 0.0 }", "the fill 0.0 is f64 where x is f32"},
    {"store x[0] = %1 }", "store: buffer x is only read"},
    {"store n[0] = %0 }", "store: buffer n is only read"},
    {"store y[0] = %2 }", "store: operand 2 varies"},
    {"store d[0] = %1 }", "store: operand 2 is f32 where f64 is wanted"},
    {"store y[%1] = %1 }", "store: operand 1 is f32 where int is wanted"},
    {"set u[0] = %2 }", "set: operand 2 varies"},
    {"prefetch a[0] }", "prefetch: a is a tile"},
    {"if %0 { } }", "if: operand 1 is int where bit is wanted"},
    {"for %9 = 0 to 4 step 0 { } }", "for: a step of 0"},
    {"for %9 = 0 to %1 step 1 { } }", "for: operand 2 is f32 where int is wanted"},
    {"unroll %9 = 0 to 4 step -1 { } }", "unroll: a step of -1"},
    {"unroll %9 = 0 to %0 step 1 { } }", "unroll: operand 2 is not a constant"},
    {"unroll %9 = 0 to 5000 step 1 { } }", "more than 4096 iterations"},
    {"unroll %9 = -9223372036854775808 to 9223372036854775807 step 1 { } }", "more than 4096 iterations"},
    {"phase { } }", "a name is wanted, not `{`"},
    {"for %9 = 0 to 4 step 1 { }", "an operation is wanted where the text ends"},
    /* what only the whole kernel shows */
    {"if %4 { %9 = task } %10 = iadd %9, 1 }", "line 17: iadd: operand 1 was defined in a region that has ended"},
    {"for %9 = 0 to 4 step 1 { } %10 = iadd %9, 1 }", "was defined in a region that has ended"},
    {"%9 = get a[%0] }", "not made of constants and unroll variables alone"},
    {"for %9 = 0 to 4 step 1 { set a[%9] = %1 } }", "not made of constants and unroll variables alone"},
    {"%9 = get a[4] }", "may be 4 where it has 4 elements"},
    {"unroll %9 = 0 to 4 step 1 { %10 = isub %9, 1 set a[%10] = %1 } }", "may be -1 where it has 4 elements"},
    {"unroll %9 = 0 to 9 step 4 { set a[%9] = %1 } }", "may be 8 where"},
    {"unroll %9 = 0 to 2 step 1 { %10 = idiv 3, %9 set a[%10] = %1 } }", "not made of constants"},
    {"%9 = iadd 9223372036854775807, 1 set a[%9] = %1 }", "not made of constants"},
    {"unroll %9 = 0 to 4096 step 1 { unroll %10 = 0 to 300 step 1 { %11 = task } } }", "once it is unrolled"},
};

static void expect_refused(const char *text, const char *message) {
  Arena *arena = arena_new();
  Err err = {{0}};
  LoopKernel *k = loop_parse(text, strlen(text), arena, &err);
  if (k && loop_verify(k, &err)) fail_msg("accepted: %s", text);
  if (!strstr(err.text, message)) fail_msg("text: %.500s\nwanted: %s\nseen: %s", text, message, err.text);
  if (k) loop_free_tables(k);
  arena_free(arena);
}

static void test_bad_texts(void **state) {
  (void)state;
  char text[1024];
  for (size_t i = 0; i < sizeof bad_texts / sizeof *bad_texts; i++) expect_refused(bad_texts[i].text, bad_texts[i].message);
  for (size_t i = 0; i < sizeof bad_bodies / sizeof *bad_bodies; i++) {
    snprintf(text, sizeof text, "%s%s", HEAD, bad_bodies[i].text);
    expect_refused(text, bad_bodies[i].message);
  }
}

/* Indices that look dangerous and are not. */
static void test_good_tile_indices(void **state) {
  (void)state;
  static const char *const good[] = {
      "unroll %9 = 0 to 8 step 1 { %10 = imod %9, 4 set a[%10] = %1 }",
      "unroll %9 = 0 to 8 step 1 { %10 = idiv %9, 2 set a[%10] = %1 }",
      "unroll %9 = -2 to 6 step 3 { %10 = imax %9, 0 %11 = imin %10, 3 set a[%11] = %1 }",
      "unroll %9 = 0 to 2 step 1 { unroll %10 = 0 to 2 step 1 { %11 = imul %9, 2 %12 = iadd %11, %10 set a[%12] = %1 } }",
      "unroll %9 = 0 to 0 step 1 { set a[7] = %1 }",
      "unroll %9 = 8 to 12 step 1 { %10 = imod %9, 8 set a[%10] = %1 }",
  };
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    char text[1024];
    snprintf(text, sizeof text, "%s %s }", HEAD, good[i]);
    Arena *arena = arena_new();
    LoopKernel *k = parse(text, arena);
    assert_identity(k);
    loop_free_tables(k);
    arena_free(arena);
  }
}

static void test_limits(void **state) {
  (void)state;
  Text text = {0};
  text_add(&text, "kernel k lanes 4 {\n");
  for (int i = 0; i < LOOP_MAX_DEPTH + 1; i++) text_add(&text, "phase p {\n");
  expect_refused(text.data, "more than 64 regions inside each other");
  text_free(&text);

  text = (Text){0};
  text_add(&text, "kernel k lanes 4 {\n");
  for (int i = 0; i < LOOP_MAX_ARRAYS + 1; i++) text_printf(&text, "buffer b%d f32 in\n", i);
  expect_refused(text.data, "more than 4096 arrays");
  text_free(&text);

  text = (Text){0};
  text_add(&text, "kernel k lanes 4 {\n%0 = task\n");
  for (int i = 0; i < LOOP_MAX_CODE; i++) text_printf(&text, "%%%d = task\n", i + 1);
  expect_refused(text.data, "above 262144");
  text_free(&text);

  text = (Text){0};
  text_add(&text, "kernel k lanes 4 {\n");
  for (int i = 0; i < LOOP_MAX_CODE + 1; i++) text_add(&text, "phase p { }\n");
  expect_refused(text.data, "more than 262144 instructions");
  text_free(&text);

  text = (Text){0};
  text_add(&text, "kernel ");
  for (int i = 0; i < LOOP_MAX_NAME + 1; i++) text_add(&text, "n");
  text_add(&text, " lanes 4 { }");
  expect_refused(text.data, "a name is wanted");
  text_free(&text);
}

static void expect_unverified(const LoopKernel *k, const char *message) {
  Err err = {{0}};
  assert_false(loop_verify(k, &err));
  if (!strstr(err.text, message)) fail_msg("wanted: %s\nseen: %s", message, err.text);
}

/* Breaches that text cannot express. */
static void test_bad_tables(void **state) {
  (void)state;
  Arena *arena = arena_new();
  LoopKernel *k = parse(HEAD "%9 = add %1, %2 if %4 { } }", arena);
  size_t sum = 0;
  while (k->code.data[sum].op != LOOP_ADD) sum++;
  LoopInstr *instr = &k->code.data[sum];
  const LoopInstr good = *instr;

  instr->type = LOOP_F64;
  expect_unverified(k, "add: is marked varying f64 where it gives varying f32");
  *instr = good, instr->varying = false;
  expect_unverified(k, "is marked uniform f32");
  *instr = good, instr->operand[1] = (LoopValue)sum;
  expect_unverified(k, "operand 2 is no value that was defined before");
  *instr = good, instr->operand[0] = -7;
  expect_unverified(k, "operand 1 is no value");
  *instr = good, instr->operand[2] = 0;
  expect_unverified(k, "more than 2 operands");
  *instr = good, instr->array = 0;
  expect_unverified(k, "add: has an array");
  *instr = good, instr->op = (LoopOp)99;
  expect_unverified(k, "operation 99 does not exist");
  *instr = loop_instr(LOOP_FLOAT), instr->type = LOOP_F32, instr->number = 0.1;
  expect_unverified(k, "the number is no f32");
  *instr = loop_instr(LOOP_END);
  expect_unverified(k, "end: no region is open");
  *instr = good;
  k->code.count--;
  expect_unverified(k, "the region of if has no end");
  k->code.count++;
  k->buffer_count++;
  expect_unverified(k, "4 buffers, not 5");
  k->buffer_count--;
  k->lanes = 5;
  expect_unverified(k, "5 lanes");
  k->lanes = 4;
  Err err;
  assert_true(loop_verify(k, &err));
  loop_free_tables(k);
  arena_free(arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_operation_reads_back),
      cmocka_unit_test(test_free_form),
      cmocka_unit_test(test_numbers_read_back),
      cmocka_unit_test(test_bad_texts),
      cmocka_unit_test(test_good_tile_indices),
      cmocka_unit_test(test_limits),
      cmocka_unit_test(test_bad_tables),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
