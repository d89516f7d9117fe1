/* The way of a kernel to a GPU, without a GPU: each operation of the table has its exact line of CUDA C; the text is made of the
 * words of kernels/prelude.cu and nothing else; and what fits no GPU is refused with a message. What the text computes is tested
 * on the emulator (tests/numeric), what NVRTC makes of it in emit_nvrtc_test.c. */
#include "tests/unit/emit_gpu_kernels.h"

#include <ctype.h>
#include <signal.h>

/* The whole of the third one's. Its phase ends with a barrier, since the kernel goes on. */
static const char plain_text[] = "KERNEL(SYMBOL, 32, IN(float, array2_float), OUT(float, array2_LOAD), OUT(float, array2_v1), "
                                 "OUT(float, a_b), OUT(float, array2_a_b), OUT(float, array2_batch), int batch) {\n"
                                 "  SHARED(float, array2_load_x, 1, 0);\n"
                                 "  const int v0 = BLOCK;\n"
                                 "  const float v1 = LOAD(array2_float, THREAD);\n"
                                 "  const float v2 = 1e+30f;\n"
                                 "  const int v3 = 1 < 2;\n"
                                 "  const int v4 = 1 == 2;\n"
                                 "  const float v5 = LOAD(array2_LOAD, v0);\n"
                                 "  const float v6 = F32_INFINITY;\n"
                                 "  const float v7 = v1 + v2;\n"
                                 "  const float v8 = v5 + v6;\n"
                                 "  const float v9 = v7 + v8;\n"
                                 "  if (THREAD < 7) STORE(array2_v1, THREAD, v9);\n"
                                 "  const int v10 = v0 + (-2147483647 - 1);\n"
                                 "  const float v11 = (float)v10;\n"
                                 "  const float v12 = v11 + 0x1p+24f;\n"
                                 "  STORE(a_b, v0, v12);\n"
                                 "  if (THREAD == 0) STORE(array2_a_b, v0, 0x1.555554p-2f);\n"
                                 "  if (THREAD == 0) STORE(array2_batch, v0, (-0.0f));\n"
                                 "  { /* a */\n"
                                 "    if (THREAD == 0) STORE(array2_load_x, 0, F32_NAN);\n"
                                 "  }\n"
                                 "  BARRIER();\n"
                                 "  const float v13 = LOAD(array2_load_x, 0);\n"
                                 "  if (THREAD == 0) STORE(array2_a_b, v10, v13);\n"
                                 "}\n"
                                 "ENTRY(SYMBOL, ARG(0, const float *), ARG(1, float *), ARG(2, float *), ARG(3, float *), "
                                 "ARG(4, float *), ARG(5, float *), BATCH(6))\n";

/* What stands in the texts of the first two for each operation. */
static const char *const line_of[LOOP_OP_COUNT] = {
    [LOOP_INTEGER] = "v3 = v0 + 3;\n",
    [LOOP_FLOAT] = "v27 = v26 < 6.0f ? v26 : 6.0f;\n",
    [LOOP_TASK] = "  const int v0 = BLOCK;\n",
    [LOOP_BATCH] = "  const int v1 = batch;\n",
    [LOOP_LANE] = "  const int v2 = THREAD;\n",
    [LOOP_IADD] = "  const int v3 = v0 + 3;\n",
    [LOOP_ISUB] = "  const int v4 = v1 - v3;\n",
    [LOOP_IMUL] = "  const int v5 = v4 * v2;\n",
    [LOOP_IDIV] = "  const int v6 = v2 / 4;\n",
    [LOOP_IMOD] = "  const int v7 = v2 % 5;\n",
    [LOOP_IMIN] = "  const int v8 = v6 < v7 ? v6 : v7;\n",
    [LOOP_IMAX] = "  const int v9 = v5 > (-7) ? v5 : (-7);\n",
    [LOOP_ILT] = "  const int v10 = v8 < v9;\n",
    [LOOP_IEQ] = "  const int v11 = v8 == v7;\n",
    [LOOP_AND] = "  const int v12 = v10 & v11;\n",
    [LOOP_OR] = "  const int v13 = v12 | v10;\n",
    [LOOP_NOT] = "  const int v14 = !v13;\n",
    [LOOP_SELECT] = "  const int v15 = v14 ? v6 : v7;\n",
    [LOOP_TO_F32] = "  const float v16 = (float)v15;\n",
    [LOOP_TO_F64] = "  const double v17 = (double)v16;\n",
    [LOOP_ADD] = "  const float v21 = v20 + v18;\n",
    [LOOP_SUB] = "  const float v22 = v21 - v16;\n",
    [LOOP_MUL] = "  const float v23 = v22 * v20;\n",
    [LOOP_DIV] = "  const float v24 = v23 / v18;\n",
    [LOOP_FMA] = "  const float v25 = FMA_F32(v24, v20, 0.1f);\n",
    [LOOP_MAX] = "  const float v26 = v25 > (-F32_INFINITY) ? v25 : (-F32_INFINITY);\n",
    [LOOP_MIN] = "  const float v27 = v26 < 6.0f ? v26 : 6.0f;\n",
    [LOOP_SQRT] = "  const float v28 = SQRT_F32(v27);\n",
    [LOOP_EXP] = "  const double v29 = EXP(v17);\n",
    [LOOP_LOG] = "  const double v30 = LOG(v29);\n",
    [LOOP_GT] = "  const int v31 = v28 > v18;\n",
    [LOOP_EQ] = "  const int v32 = v30 == 2.5;\n",
    [LOOP_LOAD] = "  const float v18 = LOAD(x, v0);\n",
    [LOOP_LOAD_INT] = "  const int v19 = LOAD(n, v3);\n",
    [LOOP_LOAD_LANES] = "  const float v20 = THREAD < v19 ? LOAD(x, v3 + THREAD) : (-0.5f);\n",
    [LOOP_STORE] = "  if (THREAD == 0) STORE(y, v0, v36);\n",
    [LOOP_STORE_LANES] = "  if (THREAD < v19) STORE(y, v3 + THREAD, v53);\n",
    [LOOP_GATHER] = "  const float v34 = v33 ? LOAD_BF16(h, v9) : 7.0f;\n  const int v35 = v31 ? LOAD(p, v9) : 255;\n",
    [LOOP_SCATTER] = "    if (v45) STORE_BF16(h, v47, v46);\n",
    [LOOP_GATHER_TILE] = "  if (v3) LOAD_F32X4(acc, 0, x, v1); else FILL(acc, 0, 4, 0.0f);\n",
    [LOOP_SCATTER_TILE] = "  if (v3) STORE_BF16X8(g, v1, acc, 0);\n",
    [LOOP_ASYNC_COPY] = "    ASYNC_COPY(t, v1, x, v1, v3);\n    ASYNC_COPY(k, v1, h, v1, v3);\n",
    [LOOP_WAIT] = "    WAIT();\n  }\n  BARRIER();\n",
    [LOOP_MMA] = "  MMA_TF32(acc, 4, t, 0, 12, t, 8, 8);\n",
    [LOOP_GET] = "    const float v41 = acc[v40];\n",
    [LOOP_SET] = "    acc[v39] = v42;\n",
    [LOOP_LANE_SUM] = "  const float v36 = BLOCK_SUM_F32(v34, 64);\n  const double v37 = BLOCK_SUM_F64(v30, 64);\n",
    [LOOP_PREFETCH] = "  const float v38 = (float)v35;\n  { /* outer */\n", /* between these it stood */
    [LOOP_FOR] = "  LOOP for (int v43 = 0; v43 < v1; v43 += 2) {\n    const int v44",
    [LOOP_UNROLL] = "  UNROLL for (int v39 = 1; v39 < 4; v39 += 1) {\n    const int v40",
    [LOOP_IF] = "  if (v49) {\n    sum[0] = v48;\n  }\n",
    [LOOP_PHASE] = "  { /* outer */\n    { /* stage.one */\n      STORE(t, v0 + THREAD, v38);\n",
    [LOOP_END] = "    }\n    BARRIER();\n  }\n  acc[0] = v28;\n", /* one barrier for two phases */
};

/* And more of it: each word of the prelude stands in a text. */
static const char *const more_lines[] = {
    ("SHARED(float, t, 100, 0);\n  SHARED(double, w, 64, 400);\n  float acc[4];\n  double sum[1];\n  SUM_SPACE_F32(64, 912);\n  "
     "SUM_SPACE_F64(64, 1184);\n"),
    "FMA_F64(v50, v37, 0x1.921fb54442d18p+1);\n    const double v52 = SQRT_F64(v51);\n    if (v33) STORE(d, v2, v52);\n",
    "  { /* last */\n    if (THREAD < v19)",
    "STORE(y, v0, v36);\n  }\n}\n", /* no barrier at the kernel's end */
    "v46 = v45 ? LOAD(t, v44) : F32_NAN;\n",
    "  if (v3) LOAD_F32X2(acc, 4, x, v1); else FILL(acc, 4, 2, 1.0f);\n  if (v3) LOAD_F32X2(acc, 6, t, v1); else",
    "  MMA_BF16(acc, 0, k, 0, 16, k, 128, 16);\n",
    "  if (v3) LOAD_BF16X8(acc, 0, h, v1); else FILL(acc, 0, 8, 0.0f);\n",
    "  if (v3) LOAD_BF16X4(acc, 0, h, v1); else",
    "  if (v3) LOAD_BF16X2(acc, 4, h, v1); else",
    "  if (v3) LOAD_F64X2(two, 0, d, v1); else FILL(two, 0, 2, 0.25);\n  if (v3) STORE_F64X2(e, v1, two, 0);\n",
    "  if (v3) STORE_F32X4(y, v1, acc, 4);\n",
    "  if (v3) STORE_F32X2(y, v5, acc, 2);\n",
    "  if (v3) STORE_BF16X4(g, v4, acc, 0);\n",
    "  if (v3) STORE_BF16X2(g, v5, acc, 4);\n",
};

/* ---- the text ---- */

static bool stands(const EmitCode *code, const char *line) {
  return strstr(emit_code_image(code, 0)->data, line) || strstr(emit_code_image(code, 1)->data, line);
}

static void test_each_operation_has_its_line(void **state) {
  Fixture *f = *state;
  EmitCode *code = compile(f->emulator, f->kernels, KERNELS);
  bool seen[LOOP_OP_COUNT] = {0};
  for (int i = 0; i < 2; i++)
    for (size_t j = 0; j < f->kernels[i]->code.count; j++) seen[f->kernels[i]->code.data[j].op] = true;
  for (int op = 0; op < LOOP_OP_COUNT; op++) {
    if (!seen[op]) fail_msg("operation %d stands in no kernel of this test", op);
    if (!line_of[op]) fail_msg("this test does not know the line of operation %d", op);
    if (!stands(code, line_of[op])) fail_msg("operation %d: no line `%s`", op, line_of[op]);
  }
  for (size_t i = 0; i < sizeof more_lines / sizeof *more_lines; i++)
    if (!stands(code, more_lines[i])) fail_msg("no line `%s`", more_lines[i]);
  emit_code_free(code);
}

/* The text of the emulator's image with its symbol taken out. */
static char *without_symbol(const Fixture *f, const EmitImage *image) {
  Text text = {0};
  const char *at = image->data;
  for (const char *found; (found = strstr(at, image->symbol)); at = found + strlen(image->symbol)) {
    text_add_bytes(&text, at, (size_t)(found - at));
    text_add(&text, "SYMBOL");
  }
  text_add(&text, at);
  char *copy = arena_copy_string(f->arena, text.data, text.length);
  text_free(&text);
  return copy;
}

static void test_whole_text(void **state) {
  Fixture *f = *state;
  EmitCode *code = compile(f->emulator, &f->kernels[2], 1);
  const EmitImage *image = emit_code_image(code, 0);
  assert_string_equal(without_symbol(f, image), plain_text);
  assert_int_equal(strlen(image->data), image->size);
  const EmitResources none = {0};
  assert_memory_equal(&image->resources, &none, sizeof none);
  assert_string_equal(emit_target_name(f->emulator), "cuda-emulator");
  assert_int_equal(emit_target_device(f->emulator), PROGRAM_CUDA);
  assert_int_equal(emit_target_lanes(f->emulator), 0);
  emit_code_free(code);
}

/* Equal Loop IR, read again and under another name, gives the same bytes; other Loop IR another symbol. */
static void test_text_depends_on_the_loop_ir_alone(void **state) {
  Fixture *f = *state;
  LoopKernel *again[KERNELS];
  for (int i = 0; i < KERNELS; i++) {
    Text text = {0};
    loop_print(f->kernels[i], &text);
    again[i] = parse(f->arena, text.data);
    again[i]->name = "another";
    text_free(&text);
  }
  EmitCode *first = compile(f->emulator, f->kernels, KERNELS), *second = compile(f->emulator, again, KERNELS);
  for (size_t i = 0; i < KERNELS; i++) {
    const EmitImage *a = emit_code_image(first, i), *b = emit_code_image(second, i);
    assert_string_equal(a->symbol, b->symbol);
    assert_int_equal(a->size, b->size);
    assert_memory_equal(a->data, b->data, a->size + 1);
    if (i > 0) assert_string_not_equal(a->symbol, emit_code_image(first, 0)->symbol);
    loop_free_tables(again[i]);
  }
  emit_code_free(first);
  emit_code_free(second);
}

/* ---- the subset of C in which it is written ---- */

static bool is_array(const LoopKernel *k, const char *word, bool tile) {
  for (size_t i = 0; i < k->arrays.count; i++) /* a kernel here whose arrays are not renamed */
    if (!strcmp(k->arrays.data[i].name, word)) return tile == (k->arrays.data[i].space == LOOP_TILE);
  return false;
}

static bool is_value(const char *word) {
  return *word == 'v' && word[1] && strspn(word + 1, "0123456789") == strlen(word + 1);
}

/* A word of the prelude: in capitals, and defined there. */
static bool is_prelude_word(const char *prelude, const char *word) {
  char definition[80];
  snprintf(definition, sizeof definition, "#define %.60s", word);
  for (const char *at = word; *at; at++)
    if (!isupper((unsigned char)*at) && !isdigit((unsigned char)*at) && *at != '_') return false;
  size_t length = strlen(definition);
  for (const char *found = prelude; (found = strstr(found, definition)); found += length)
    if (found[length] == '(' || found[length] == ' ') return true;
  return false;
}

static void check_word(const LoopKernel *k, const char *prelude, const char *symbol, const char *word, const char *next) {
  static const char *const plain[] = {"const", "int", "float", "double", "bf16", "u8", "for", "if", "else", "batch"};
  if (is_array(k, word, false)) { /* a buffer or a shared array: a word's argument, whole */
    if (*next != ',' && *next != ')') fail_msg("kernel %s: `%s` is no argument of a word: %.40s", k->name, word, next);
    return;
  }
  if (*next == '[' && !is_array(k, word, true)) fail_msg("kernel %s: %s is no tile: %.40s", k->name, word, next);
  bool known = is_array(k, word, true) || is_value(word) || !strcmp(word, symbol) || is_prelude_word(prelude, word);
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) known |= !strcmp(word, plain[i]);
  if (!known) fail_msg("kernel %s: `%s` is no word of the prelude", k->name, word);
}

static const char *check_token(const LoopKernel *k, const char *prelude, const char *symbol, const char *at) {
  if (isdigit((unsigned char)*at)) { /* a number; its sign in an exponent is part of it */
    at += strspn(at, "0123456789abcdefxp.");
    return at + ((*at == '-' || *at == '+') && (at[-1] == 'p' || at[-1] == 'e') ? 1 + strspn(at + 1, "0123456789f") : 0);
  }
  if (isalpha((unsigned char)*at) || *at == '_') {
    size_t length = 0;
    char word[80];
    while (isalnum((unsigned char)at[length]) || at[length] == '_') length++;
    snprintf(word, sizeof word, "%.*s", (int)length, at);
    check_word(k, prelude, symbol, word, at + length);
    return at + length;
  }
  if (!strncmp(at, "/* ", 3)) return strstr(at, " */\n") + 3;
  if (*at == '[' && !isalnum((unsigned char)at[-1])) fail_msg("kernel %s: no name before: %.40s", k->name, at);
  bool pointer = (*at == '*' && at[1] != ' ') || (*at == '&' && (at[-1] != ' ' || at[1] != ' '));
  bool parameter = !strncmp(at, "*), ARG(", strlen("*), ARG(")) || !strncmp(at, "*), BATCH(", strlen("*), BATCH("));
  if (pointer && !parameter) fail_msg("kernel %s: a pointer: %.40s", k->name, at);
  if (!strchr(" \n(){}[],;=+-*/%<>!?:&|", *at) || !strncmp(at, "::", 2) || !strncmp(at, "->", 2))
    fail_msg("kernel %s: is not plain C: %.40s", k->name, at);
  return at + 1;
}

static void test_text_is_plain(void **state) {
  Fixture *f = *state;
  for (size_t i = 0; i < 2; i++) {
    Text prelude = {0};
    Err err;
    assert_true(emit_text(f->emulator, f->kernels[i], EMIT_CUDA, &prelude, &err));
    assert_null(strstr(prelude.data, "#include"));
    assert_null(strstr(prelude.data, "template"));
    EmitCode *code = compile(f->emulator, &f->kernels[i], 1);
    const EmitImage *image = emit_code_image(code, 0);
    assert_non_null(strstr(prelude.data, image->data)); /* with its prelude it is the same text */
    for (const char *at = image->data; *at;) at = check_token(f->kernels[i], prelude.data, image->symbol, at);
    emit_code_free(code);
    text_free(&prelude);
  }
}

/* ---- NVRTC ---- */

/* ---- refusals ---- */

static void expect_refusal(EmitTarget *target, const LoopKernel *k, const char *message) {
  Err err;
  assert_null(emit_compile(target, &k, 1, 1, NULL, NULL, &err));
  assert_string_equal(err.text, message);
  Text text = {0};
  assert_false(emit_text(target, k, emit_target_device(target) == PROGRAM_CPU ? EMIT_ASM : EMIT_CUDA, &text, &err));
  assert_string_equal(err.text, message);
  text_free(&text);
}

static void refuse_text(const Fixture *f, const char *text, const char *message) {
  LoopKernel *k = parse(f->arena, text);
  expect_refusal(f->emulator, k, message);
  loop_free_tables(k);
}

static void test_kernels_that_fit_no_gpu(void **state) {
  Fixture *f = *state;
  refuse_text(f, "kernel k lanes 16 { buffer y f32 out store y[0] = 0.0f }",
              "kernel k does not fit a GPU: it has 16 lanes, where whole warps of 32 and at most 1024 are wanted");
  refuse_text(f, "kernel k lanes 32 { buffer y f32 out shared s f32[12289] store y[0] = 0.0f }",
              "kernel k does not fit a GPU: its shared arrays and sums take 49168 bytes, more than 49152");
  refuse_text(f,
              "kernel k lanes 32 { buffer x f32 in buffer y f32 out shared s f32[12288] %0 = load_lanes x[0] count 32 else 0.0f\n"
              "%1 = lane_sum %0 store y[0] = %1 }",
              "kernel k does not fit a GPU: its shared arrays and sums take 49296 bytes, more than 49152");
  refuse_text(f, "kernel k lanes 32 { buffer y f32 out tile t f64[8193] lanes store y[0] = 0.0f }",
              "kernel k does not fit a GPU: its tiles take 65544 bytes of a thread, more than 65536");
  refuse_text(f, "kernel k lanes 32 { buffer y f32 out store y[2147483648] = 0.0f }",
              "kernel k does not fit a GPU: 2147483648 does not fit 32 bits");
  LoopKernel *many = loop_new(f->arena, "many", 32);
  for (int i = 0; i < 512; i++) loop_buffer(many, arena_printf(f->arena, "b%d", i), LOOP_INOUT, LOOP_ELEMENT_F32);
  expect_refusal(f->emulator, many, "kernel many does not fit a GPU: it has 512 buffers");
  loop_free_tables(many);
}

static void test_gpu_kernel_for_a_cpu(void **state) {
  Fixture *f = *state;
  Err err;
  EmitTarget *cpu = emit_target_new("x86-64-v3", true, &err);
  if (!cpu) {
    print_message("not run: %s\n", err.text);
    skip();
  }
  expect_refusal(cpu, f->kernels[1], "kernel wide does not fit a CPU: it was written for the threads of a GPU");
  emit_target_free(cpu);
}

static void ask_for_assembly(void *argument) {
  Fixture *f = argument;
  Text text = {0};
  Err err;
  signal(SIGABRT, SIG_DFL);
  emit_text(f->emulator, f->kernels[0], EMIT_ASM, &text, &err);
}

/* Who asks for the wrong text has a bug. */
static void test_assembly_of_a_gpu_is_a_bug(void **state) {
  Fixture *f = *state;
  char said[2000];
  int status = run_child(ask_for_assembly, f, said, sizeof said);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  assert_non_null(strstr(said, "internal error at "));
  assert_non_null(strstr(said, "a text of a CPU's kernel from target cuda-emulator\n"));
  Err err;
  Text text = {0};
  assert_false(emit_text(f->emulator, f->kernels[0], EMIT_PTX, &text, &err));
  assert_string_equal(err.text, "NVRTC makes no code for cuda-emulator");
  text_free(&text);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(test_each_operation_has_its_line),       TEST(test_whole_text),
      TEST(test_text_depends_on_the_loop_ir_alone), TEST(test_text_is_plain),
      TEST(test_kernels_that_fit_no_gpu),           TEST(test_gpu_kernel_for_a_cpu),
      TEST(test_assembly_of_a_gpu_is_a_bug),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
