/* The Loop IR's builder: what it folds, what it makes, and that it dies on a breach, which is a bug of a schedule. */
#include "tests/unit/loop_text.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static int64_t constant_of(const LoopKernel *k, LoopValue v) {
  int64_t value = -999;
  assert_true(loop_value_of(k, v, &value));
  return value;
}

static void test_folding(void **state) {
  (void)state;
  Arena *arena = arena_new();
  LoopKernel *k = loop_new(arena, "fold", 8);
  LoopValue t = loop_task(k), zero = loop_int(k, 0), one = loop_int(k, 1), seven = loop_int(k, 7), three = loop_int(k, 3);
  assert_int_equal(constant_of(k, loop_op2(k, LOOP_IADD, seven, three)), 10);
  assert_int_equal(constant_of(k, loop_op2(k, LOOP_ISUB, three, seven)), -4);
  assert_int_equal(constant_of(k, loop_op2(k, LOOP_IMUL, seven, three)), 21);
  assert_int_equal(constant_of(k, loop_op2(k, LOOP_IDIV, seven, three)), 2);
  assert_int_equal(constant_of(k, loop_op2(k, LOOP_IMOD, seven, three)), 1);
  assert_int_equal(constant_of(k, loop_op2(k, LOOP_IMIN, seven, three)), 3);
  assert_int_equal(constant_of(k, loop_op2(k, LOOP_IMAX, seven, three)), 7);
  assert_int_equal(constant_of(k, loop_op2(k, LOOP_IMUL, t, zero)), 0);
  assert_int_equal(constant_of(k, loop_op2(k, LOOP_IMUL, zero, t)), 0);
  assert_int_equal(constant_of(k, loop_op2(k, LOOP_IMOD, t, one)), 0);
  assert_int_equal(loop_op2(k, LOOP_IADD, t, zero), t);
  assert_int_equal(loop_op2(k, LOOP_IADD, zero, t), t);
  assert_int_equal(loop_op2(k, LOOP_ISUB, t, zero), t);
  assert_int_equal(loop_op2(k, LOOP_IMUL, t, one), t);
  assert_int_equal(loop_op2(k, LOOP_IMUL, one, t), t);
  assert_int_equal(loop_op2(k, LOOP_IDIV, t, one), t);
  assert_int_equal(loop_op2(k, LOOP_IMIN, t, t), t);

  int64_t value;
  LoopValue negative = loop_op2(k, LOOP_ISUB, zero, t);
  assert_int_not_equal(negative, t);
  assert_false(loop_value_of(k, negative, &value));
  assert_false(loop_value_of(k, loop_op2(k, LOOP_IADD, t, one), &value));
  LoopValue x = loop_f32(k, 0.0);
  assert_int_not_equal(loop_op2(k, LOOP_ADD, x, x), x);
  assert_true(k->code.data[loop_f32(k, 0.1)].number == (double)0.1f);
  loop_free_tables(k);
  arena_free(arena);
}

/* A kernel as the schedules write them: the text is what a reader will see. */
static void test_built_text(void **state) {
  (void)state;
  Arena *arena = arena_new();
  LoopKernel *k = loop_new(arena, "scale.c0", 16);
  int32_t x = loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32), y = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t acc = loop_tile(k, "acc", LOOP_F32, true, 2);
  LoopValue task = loop_task(k), base = loop_op2(k, LOOP_IMUL, task, loop_int(k, 40));
  LoopValue i = loop_for(k, loop_int(k, 0), loop_int(k, 40), loop_int(k, 32));
  LoopValue u = loop_unroll(k, 0, 2, 1);
  LoopValue at = loop_op2(k, LOOP_IADD, i, loop_op2(k, LOOP_IMUL, u, loop_int(k, 16)));
  LoopValue left = loop_op2(k, LOOP_ISUB, loop_int(k, 40), at);
  LoopValue count = loop_op2(k, LOOP_IMAX, loop_int(k, 0), loop_op2(k, LOOP_IMIN, left, loop_int(k, 16)));
  LoopValue index = loop_op2(k, LOOP_IADD, base, at);
  loop_set(k, acc, u, loop_op2(k, LOOP_MUL, loop_load_lanes(k, x, index, count, 0.1f), loop_f32(k, 0.5)));
  loop_store_lanes(k, y, index, loop_get(k, acc, u), count);
  loop_end(k);
  loop_end(k);
  char *text = print(k);
  assert_string_equal(text, "kernel scale.c0 lanes 16 {\n"
                            "  buffer x f32 in\n"
                            "  buffer y f32 out\n"
                            "  tile acc f32[2] lanes\n"
                            "  %0 = task\n"
                            "  %1 = imul %0, 40\n"
                            "  for %2 = 0 to 40 step 32 {\n"
                            "    unroll %3 = 0 to 2 step 1 {\n"
                            "      %4 = imul %3, 16\n"
                            "      %5 = iadd %2, %4\n"
                            "      %6 = isub 40, %5\n"
                            "      %7 = imin %6, 16\n"
                            "      %8 = imax 0, %7\n"
                            "      %9 = iadd %1, %5\n"
                            "      %10 = load_lanes x[%9] count %8 else 0.1f\n"
                            "      %11 = mul %10, 0.5f\n"
                            "      set acc[%3] = %11\n"
                            "      %12 = get acc[%3]\n"
                            "      store_lanes y[%9] = %12 count %8\n"
                            "    }\n"
                            "  }\n"
                            "}\n");
  free(text);
  assert_identity(k);
  assert_int_equal(k->depth, 0);
  assert_int_equal(loop_line(k, k->code.count - 1), 21);

  float in[80], out[82];
  for (int j = 0; j < 80; j++) in[j] = (float)j, out[j] = -1;
  out[80] = out[81] = -1;
  Err err;
  if (!loop_interpret(k, (LoopBuffer[]){{in, 80}, {out, 80}}, 2, 0, 2, &err)) fail_msg("%s", err.text);
  for (int j = 0; j < 80; j++) assert_true(out[j] == (float)j / 2);
  assert_true(out[80] == -1);
  loop_free_tables(k);
  arena_free(arena);
}

typedef void Breach(LoopKernel *k);

static void breach_types(LoopKernel *k) {
  loop_op2(k, LOOP_ADD, loop_f32(k, 1), loop_f64(k, 1));
}
static void breach_end(LoopKernel *k) {
  loop_end(k);
}
static void breach_overflow(LoopKernel *k) {
  loop_op2(k, LOOP_IMUL, loop_int(k, INT64_MAX), loop_int(k, 2));
}
static void breach_divisor(LoopKernel *k) {
  loop_op2(k, LOOP_IDIV, loop_int(k, 1), loop_int(k, 0));
}
static void breach_operands(LoopKernel *k) {
  loop_op1(k, LOOP_ADD, loop_f32(k, 1));
}
static void breach_order(LoopKernel *k) {
  loop_shared(k, "t", 4), loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32);
}
static void breach_none(LoopKernel *k) {
  loop_op1(k, LOOP_SQRT, LOOP_NONE);
}
static void breach_read_only(LoopKernel *k) {
  loop_store(k, loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32), loop_int(k, 0), loop_f32(k, 0));
}

static void test_builder_dies(void **state) {
  (void)state;
  Breach *const breach[] = {breach_types,    breach_end,   breach_overflow, breach_divisor,
                            breach_operands, breach_order, breach_none,     breach_read_only};
  for (size_t i = 0; i < sizeof breach / sizeof *breach; i++) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
      signal(SIGABRT, SIG_DFL);
      if (!freopen("/dev/null", "w", stderr)) _exit(3);
      breach[i](loop_new(arena_new(), "bad", 4));
      _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) fail_msg("breach %zu is not seen", i);
  }
}

static void test_scratch(void **state) {
  (void)state;
  Arena *arena = arena_new();
  LoopKernel *k = loop_new(arena, "scratch", 1);
  assert_int_equal(loop_scratch(k, NULL), 0);
  loop_shared(k, "a", 3);
  loop_tile(k, "t", LOOP_F64, false, 5);
  loop_shared(k, "b", 17);
  loop_shared(k, "c", 16);
  int64_t offset[3];
  assert_int_equal(loop_scratch(k, offset), 64 + 128 + 64);
  assert_int_equal(offset[0], 0);
  assert_int_equal(offset[1], 64);
  assert_int_equal(offset[2], 192);
  loop_free_tables(k);
  arena_free(arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_folding),
      cmocka_unit_test(test_built_text),
      cmocka_unit_test(test_builder_dies),
      cmocka_unit_test(test_scratch),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
