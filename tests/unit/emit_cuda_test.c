/* The way of a kernel to a GPU, without a GPU: each operation of the table has its exact line of CUDA C; the text is made of the
 * words of kernels/prelude.cu and nothing else; NVRTC takes it for two architectures and as PTX; what ptxas says of a kernel is
 * read; and what cannot be done is refused with a message. What the text computes is tested on the emulator (tests/numeric).
 *
 * Where NVRTC is missing, the tests that need it are skipped with its message. One process opens NVRTC once, so this program runs
 * itself, as `emit_cuda_test without-nvrtc FILE`, where it must not be found. */
#include "compiler/emit/emit.h"
#include "kernels/loop.h"

#include <ctype.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the kernels ---- */

enum { KERNELS = 3 };
static const char *const texts[KERNELS] = {
    "kernel values lanes 64 {\n"
    "  buffer x f32 in  buffer d f64 inout  buffer n i32 in  buffer p u8 in  buffer h bf16 inout  buffer y f32 out\n"
    "  shared t f32[100]  shared w f64[64]  tile acc f32[4] lanes  tile sum f64[1]\n"
    "  %0 = task  %1 = batch  %2 = lane  %3 = iadd %0, 3  %4 = isub %1, %3  %5 = imul %4, %2  %6 = idiv %2, 4\n"
    "  %7 = imod %2, 5  %8 = imin %6, %7  %9 = imax %5, -7  %10 = ilt %8, %9  %11 = ieq %8, %7  %12 = and %10, %11\n"
    "  %13 = or %12, %10  %14 = not %13  %15 = select %14, %6, %7  %16 = to_f32 %15  %17 = to_f64 %16\n"
    "  %18 = load x[%0]  %19 = load_int n[%3]  %20 = load_lanes x[%3] count %19 else -0.5f  %21 = add %20, %18\n"
    "  %22 = sub %21, %16  %23 = mul %22, %20  %24 = div %23, %18  %25 = fma %24, %20, 0.1f  %26 = max %25, -inff\n"
    "  %27 = min %26, 6.0f  %28 = sqrt %27  %29 = exp %17  %30 = log %29  %31 = gt %28, %18  %32 = eq %30, 2.5\n"
    "  %33 = and %31, %32  %34 = gather h[%9] where %33 else 7.0f  %35 = gather p[%9] where %31 else 255\n"
    "  %36 = lane_sum %34  %37 = lane_sum %30  %38 = to_f32 %35  prefetch x[%19]  prefetch y[%0] write\n"
    "  phase outer { phase stage.one { store_lanes t[%0] = %38 count 64 scatter w[%2] = %30 where %31 } }\n"
    "  set acc[0] = %28  unroll %39 = 1 to 4 step 1 { %40 = iadd %39, -1  %41 = get acc[%40]  %42 = mul %41, 3.0f\n"
    "    set acc[%39] = %42 }\n"
    "  for %43 = 0 to %1 step 2 { %44 = iadd %43, %2  %45 = ilt %44, 100  %46 = gather t[%44] where %45 else nanf\n"
    "    %47 = iadd %44, %0  scatter h[%47] = %46 where %45 }\n"
    "  %48 = load w[%0]  %49 = ieq %1, 9  set sum[0] = 0.0  if %49 { set sum[0] = %48 }\n"
    "  if %31 { %50 = to_f64 %36  %51 = fma %50, %37, 0x1.921fb54442d18p+1  %52 = sqrt %51  scatter d[%2] = %52 where %33 }\n"
    "  %53 = get acc[3]  %54 = get sum[0]  store d[%1] = %54\n"
    "  phase last { store_lanes y[%3] = %53 count %19  store y[%0] = %36 }\n"
    "}\n",

    "kernel wide lanes 32 {\n"
    "  buffer x f32 in  buffer d f64 in  buffer h bf16 in  buffer y f32 out  buffer e f64 out  buffer g bf16 out\n"
    "  shared t f32[260]  shared k bf16[256]  tile acc f32[8] lanes  tile two f64[2] lanes\n"
    "  %0 = lane  %1 = imul %0, 8  %2 = imod %0, 3  %3 = ilt %2, 2\n"
    "  phase stage { async_copy t[%1] = x[%1] where %3  async_copy k[%1] = h[%1] where %3  wait }\n"
    "  gather_tile acc[0] = x[%1] width 4 where %3 else 0.0f  gather_tile acc[4] = x[%1] width 2 where %3 else 1.0f\n"
    "  gather_tile acc[6] = t[%1] width 2 where %3 else 1.0f  mma acc[4] += t[0] stride 12 * t[8] stride 8\n"
    "  scatter_tile y[%1] width 4 = acc[4] where %3  gather_tile acc[0] = h[%1] width 8 where %3 else 0.0f\n"
    "  mma acc[0] += k[0] stride 16 * k[128] stride 16  scatter_tile g[%1] width 8 = acc[0] where %3\n"
    "  gather_tile acc[0] = h[%1] width 4 where %3 else 0.0f  gather_tile acc[4] = h[%1] width 2 where %3 else 0.0f\n"
    "  %4 = iadd %1, 256  scatter_tile g[%4] width 4 = acc[0] where %3  %5 = iadd %1, 260\n"
    "  scatter_tile g[%5] width 2 = acc[4] where %3  scatter_tile y[%5] width 2 = acc[2] where %3\n"
    "  gather_tile two[0] = d[%1] width 2 where %3 else 0.25  scatter_tile e[%1] width 2 = two[0] where %3\n"
    "}\n",

    /* Names that C or the prelude has, masks that hold always or never, numbers that C writes in another way. */
    "kernel plain lanes 32 {\n"
    "  buffer float f32 in  buffer LOAD f32 inout  buffer v1 f32 inout  buffer a.b f32 inout  buffer a_b f32 inout\n"
    "  buffer batch f32 inout  shared load_x f32[1]\n"
    "  %0 = task  %1 = load_lanes float[0] count 32 else 1.0f  %2 = load_lanes float[%0] count 0 else 1e30f  %3 = ilt 1, 2\n"
    "  %4 = ieq 1, 2  %5 = gather LOAD[%0] where %3 else 1.0f  %6 = gather LOAD[%0] where %4 else inff\n"
    "  %7 = add %1, %2  %8 = add %5, %6  %9 = add %7, %8  store_lanes v1[0] = %9 count 7  store_lanes v1[%0] = %9 count 0\n"
    "  %10 = iadd %0, -2147483648  %11 = to_f32 %10  %12 = add %11, 16777217.0f  scatter a.b[%0] = %12 where %3\n"
    "  scatter a.b[%0] = %12 where %4  store a_b[%0] = 0.3333333f  store batch[%0] = -0.0f\n"
    "  phase a { store load_x[0] = nanf }  %13 = load load_x[0]  store a_b[%10] = %13\n"
    "}\n",
};

/* The whole of the third one's. Its phase ends with a barrier, since the kernel goes on. */
static const char plain_text[] = "KERNEL(SYMBOL, 32, IN(float, array2_float), OUT(float, array2_LOAD), OUT(float, array2_v1), "
                                 "OUT(float, a_b), OUT(float, array2_a_b), OUT(float, array2_batch), int batch) {\n"
                                 "  SHARED(float, array2_load_x, 1);\n"
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
                                 "ARG(4, float *), ARG(5, float *), ARG(6, int))\n";

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
    ("SHARED(float, t, 100);\n  SHARED(double, w, 64);\n  float acc[4];\n  double sum[1];\n  SUM_SPACE_F32(64);\n  "
     "SUM_SPACE_F64(64);\n"),
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

typedef struct Fixture {
  Arena *arena;
  EmitTarget *emulator; /* gives the text itself */
  LoopKernel *kernels[KERNELS];
} Fixture;

static LoopKernel *parse(Arena *arena, const char *text) {
  Err err;
  LoopKernel *k = loop_parse(text, strlen(text), arena, &err);
  if (!k) fail_msg("%s", err.text);
  return k;
}

static int set_up(void **state) {
  Fixture *f = calloc(1, sizeof *f);
  Err err;
  f->arena = arena_new();
  f->emulator = emit_target_cuda("cuda-emulator", &err);
  if (!f->emulator) fail_msg("%s", err.text);
  for (int i = 0; i < KERNELS; i++) f->kernels[i] = parse(f->arena, texts[i]);
  *state = f;
  return 0;
}

static int tear_down(void **state) {
  Fixture *f = *state;
  for (int i = 0; i < KERNELS; i++) loop_free_tables(f->kernels[i]);
  emit_target_free(f->emulator);
  arena_free(f->arena);
  free(f);
  return 0;
}

static EmitCode *compile(EmitTarget *target, LoopKernel *const *kernels, size_t count) {
  Err err;
  EmitCode *code = emit_compile(target, (const LoopKernel *const *)kernels, count, 2, NULL, NULL, &err);
  if (!code) fail_msg("%s", err.text);
  return code;
}

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
  return !strcmp(word, "ARG"); /* stands inside ENTRY, which is empty there */
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
  if (pointer && strncmp(at, "*), ARG(", strlen("*), ARG(")) != 0) fail_msg("kernel %s: a pointer: %.40s", k->name, at);
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

/* Skips the test, with a notice, where there is no NVRTC. */
static EmitTarget *target_of(const char *arch) {
  Err err;
  Text version = {0}, archs = {0};
  if (!emit_find_nvrtc(&version, &archs, &err)) {
    print_message("not run: %s\n", err.text);
    skip();
  }
  text_free(&version);
  text_free(&archs);
  EmitTarget *target = emit_target_cuda(arch, &err);
  if (!target) fail_msg("%s", err.text);
  assert_string_equal(emit_target_name(target), arch);
  return target;
}

static bool contains(const EmitImage *image, const char *what) {
  return memmem(image->data, image->size, what, strlen(what)) != NULL;
}

/* Bytes of shared memory that the kernel asks for: its arrays, and what its sums need. */
static int64_t shared_of(const LoopKernel *k) {
  int64_t bytes = 0;
  bool sums[2] = {0};
  for (size_t i = 0; i < k->arrays.count; i++) {
    const LoopArray *array = &k->arrays.data[i];
    if (array->space == LOOP_SHARED) bytes += array->count * loop_element_bytes(array->element);
  }
  for (size_t i = 0; i < k->code.count; i++)
    if (k->code.data[i].op == LOOP_LANE_SUM) sums[k->code.data[i].type == LOOP_F64] = true;
  return bytes + (k->lanes + 1) * (4 * sums[0] + 8 * sums[1]);
}

static void check_cubins(void **state, const char *arch) {
  Fixture *f = *state;
  EmitTarget *target = target_of(arch);
  EmitCode *code = compile(target, f->kernels, KERNELS);
  for (size_t i = 0; i < KERNELS; i++) {
    const EmitImage *image = emit_code_image(code, i);
    char section[80];
    snprintf(section, sizeof section, ".text.%s", image->symbol);
    assert_true(image->size > 64);
    assert_memory_equal(image->data, "\177ELF", 4);
    assert_true(contains(image, section));
    assert_in_range(image->resources.registers, 1, 255);
    assert_int_equal(image->resources.spill_stores, 0);
    assert_int_equal(image->resources.spill_loads, 0);
    int64_t shared = shared_of(f->kernels[i]); /* and what aligns them */
    assert_in_range(image->resources.shared_bytes, shared, shared + 15);
  }
  emit_code_free(code);
  emit_target_free(target);
}

static void test_cubins_of_sm_80(void **state) {
  check_cubins(state, "sm_80");
}

static void test_cubins_of_sm_90(void **state) {
  check_cubins(state, "sm_90");
}

static void test_ptx(void **state) {
  Fixture *f = *state;
  EmitTarget *target = target_of("compute_90");
  EmitCode *code = compile(target, f->kernels, KERNELS);
  static const char *const instructions[2] = {"cvt.rn.bf16.f32", "mma.sync.aligned.m16n8k8"};
  for (size_t i = 0; i < KERNELS; i++) {
    const EmitImage *image = emit_code_image(code, i);
    char entry[80];
    snprintf(entry, sizeof entry, ".visible .entry %s(", image->symbol);
    assert_true(contains(image, ".target sm_90") && contains(image, entry));
    assert_int_equal(strlen(image->data), image->size);
    if (i < 2) assert_true(contains(image, instructions[i]));
    assert_int_equal(image->resources.registers, 0);
  }
  emit_code_free(code);
  emit_target_free(target);
}

/* What is asked for is what the arithmetic of the interpreter needs: no product joined with a sum, and a division and a square
 * root rounded to nearest. */
static void test_arithmetic_is_as_written(void **state) {
  Fixture *f = *state;
  EmitTarget *target = target_of("compute_80");
  LoopKernel *k = parse(f->arena, "kernel k lanes 32 { buffer x f32 in buffer y f32 out %0 = load_lanes x[0] count 32 else 0.0f\n"
                                  "%1 = mul %0, 3.0f %2 = add %1, %0 %3 = div %2, %0 %4 = sqrt %3\n"
                                  "store_lanes y[0] = %4 count 32 }");
  EmitCode *code = compile(target, &k, 1);
  const EmitImage *image = emit_code_image(code, 0);
  assert_true(contains(image, "mul.rn.f32") && contains(image, "add.rn.f32"));
  assert_true(contains(image, "div.rn.f32") && contains(image, "sqrt.rn.f32"));
  assert_false(contains(image, "fma.rn") || contains(image, ".ftz"));
  emit_code_free(code);
  emit_target_free(target);
  loop_free_tables(k);
}

/* 96 numbers that live together where a thread of 1024 may have 64 registers; and where one of 32 may have 255. */
static LoopKernel *crowded(Arena *arena, int lanes) {
  char text[1000];
  snprintf(text, sizeof text,
           "kernel crowded lanes %d { buffer x f32 in buffer y f32 out tile a f32[96] lanes %%0 = batch\n"
           "unroll %%1 = 0 to 96 step 1 { %%2 = imul %%1, %d %%3 = load_lanes x[%%2] count %d else 0.0f set a[%%1] = %%3 }\n"
           "for %%4 = 0 to %%0 step 1 { unroll %%5 = 0 to 96 step 1 { %%6 = iadd %%5, 7 %%7 = imod %%6, 96\n"
           "%%8 = get a[%%5] %%9 = get a[%%7] %%10 = fma %%8, %%9, %%8 set a[%%5] = %%10 } }\n"
           "unroll %%11 = 0 to 96 step 1 { %%12 = imul %%11, %d %%13 = get a[%%11]\n"
           "store_lanes y[%%12] = %%13 count %d } }",
           lanes, lanes, lanes, lanes, lanes);
  return parse(arena, text);
}

static void test_spills_are_read(void **state) {
  Fixture *f = *state;
  EmitTarget *target = target_of("sm_90");
  LoopKernel *kernels[2] = {crowded(f->arena, 1024), crowded(f->arena, 32)};
  EmitCode *code = compile(target, kernels, 2);
  EmitResources tight = emit_code_image(code, 0)->resources, roomy = emit_code_image(code, 1)->resources;
  assert_in_range(tight.registers, 32, 64);
  assert_true(tight.spill_stores >= 4 && tight.spill_loads >= 4 && tight.stack_bytes >= 4);
  assert_int_equal(tight.spill_stores % 4, 0);
  assert_int_equal(tight.shared_bytes, 0);
  assert_in_range(roomy.registers, 96, 255);
  assert_true(roomy.spill_stores == 0 && roomy.spill_loads == 0 && roomy.stack_bytes == 0);
  emit_code_free(code);
  emit_target_free(target);
  for (int i = 0; i < 2; i++) loop_free_tables(kernels[i]);
}

/* As much shared memory as may be asked for can be had. */
static void test_largest_shared_array(void **state) {
  Fixture *f = *state;
  EmitTarget *target = target_of("sm_80");
  LoopKernel *k = parse(f->arena, "kernel k lanes 32 { buffer x f32 in buffer y f32 out shared s f32[12288] %0 = lane\n"
                                  "%1 = load_lanes x[0] count 32 else 0.0f store_lanes s[0] = %1 count 32\n"
                                  "store_lanes s[12256] = %1 count 32 %2 = load s[5] store y[0] = %2 }");
  EmitCode *code = compile(target, &k, 1);
  assert_int_equal(emit_code_image(code, 0)->resources.shared_bytes, 48 << 10);
  emit_code_free(code);
  emit_target_free(target);
  loop_free_tables(k);
}

static void test_texts_of_a_gpu(void **state) {
  Fixture *f = *state;
  EmitTarget *target = target_of("sm_80"), *portable = target_of("compute_80");
  Err err;
  Text ptx = {0}, cubin = {0}, same = {0};
  assert_true(emit_text(target, f->kernels[1], EMIT_PTX, &ptx, &err));
  assert_non_null(strstr(ptx.data, ".target sm_80"));
  assert_true(emit_text(target, f->kernels[1], EMIT_CUBIN, &cubin, &err));
  assert_memory_equal(cubin.data, "\177ELF", 4);
  assert_true(emit_text(portable, f->kernels[1], EMIT_PTX, &same, &err));
  assert_non_null(strstr(same.data, ".target sm_80"));
  assert_false(emit_text(portable, f->kernels[1], EMIT_CUBIN, &same, &err));
  assert_string_equal(err.text, "a cubin is for one architecture, such as sm_90, and not for compute_80");
  text_free(&ptx);
  text_free(&cubin);
  text_free(&same);
  emit_target_free(target);
  emit_target_free(portable);
}

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
              "kernel k does not fit a GPU: its shared arrays and sums take 49300 bytes, more than 49152");
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

static void test_unknown_architectures(void **state) {
  (void)state;
  emit_target_free(target_of("sm_80"));
  static const char *const wrong[] = {"sm_12", "sm_xx", "sm_75",  "compute_75",  "sm_", "compute_", "",       "sm",
                                      "80",    "SM_80", "sm_80 ", "sm_80;sm_90", "x",   "sm_-80",   "sm_0x50"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    Err err;
    char begin[80];
    snprintf(begin, sizeof begin, "unknown GPU architecture `%s`: the NVRTC here knows sm_80 ", wrong[i]);
    if (emit_target_cuda(wrong[i], &err)) fail_msg("`%s` is taken for an architecture", wrong[i]);
    if (strncmp(err.text, begin, strlen(begin)) != 0) fail_msg("not `%s`: %s", begin, err.text);
    assert_non_null(strstr(err.text, " sm_90"));
  }
  char longest[600];
  memset(longest, '9', sizeof longest - 1);
  longest[sizeof longest - 1] = 0;
  memcpy(longest, "sm_", 3);
  assert_null(emit_target_cuda(longest, &(Err){0}));
}

/* Runs `child` in a process of its own and returns how that ended; what it writes to stderr goes to `said`. */
static int run_child(void (*child)(void *), void *argument, char *said, size_t size) {
  int pipes[2], status;
  assert_int_equal(pipe(pipes), 0);
  pid_t process = fork();
  assert_true(process >= 0);
  if (process == 0) {
    dup2(pipes[1], STDERR_FILENO);
    child(argument);
    _exit(127);
  }
  close(pipes[1]);
  size_t length = 0;
  for (ssize_t got; length + 1 < size && (got = read(pipes[0], said + length, size - 1 - length)) > 0;) length += (size_t)got;
  said[length] = 0;
  close(pipes[0]);
  assert_int_equal(waitpid(process, &status, 0), process);
  return status;
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

/* ---- without NVRTC ---- */

/* In the child: says what is wrong with the NVRTC that $ADWP_NVRTC names, having seen that the emulator needs none. */
static int main_without_nvrtc(const char *file) {
  Err err, again;
  Text version = {0}, archs = {0}, text = {0};
  setenv("ADWP_NVRTC", file, 1);
  bool found = emit_find_nvrtc(&version, &archs, &err);
  if (found || emit_target_cuda("sm_90", &again) || emit_target_cuda("compute_90", &again)) return 1;
  fprintf(stderr, "%s\n%s\n", err.text, again.text);
  Arena *arena = arena_new();
  EmitTarget *emulator = emit_target_cuda("cuda-emulator", &err);
  LoopKernel *k = loop_parse(texts[2], strlen(texts[2]), arena, &err);
  bool ok = emulator && k && emit_text(emulator, k, EMIT_CUDA, &text, &err) && strstr(text.data, "  SHARED(float, ");
  if (k) loop_free_tables(k);
  emit_target_free(emulator);
  text_free(&text);
  arena_free(arena);
  return ok ? 0 : 2;
}

static void run_without_nvrtc(void *file) {
  execl("/proc/self/exe", "emit_cuda_test", "without-nvrtc", file, (char *)NULL);
}

static void expect_no_nvrtc(const char *file, const char *message) {
  char said[4000], twice[4000], name[200];
  snprintf(name, sizeof name, "%s", file);
  int status = run_child(run_without_nvrtc, name, said, sizeof said);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("status %d: %s", status, said);
  const char *end = strchr(said, '\n');
  assert_non_null(end);
  int length = (int)(end - said);
  snprintf(twice, sizeof twice, "%.*s\n%.*s\n", length, said, length, said); /* whoever asks gets it */
  assert_string_equal(said, twice);
  if (strncmp(said, message, strlen(message)) != 0) fail_msg("not `%s`: %s", message, said);
}

static void test_nvrtc_is_missing(void **state) {
  (void)state;
  expect_no_nvrtc("/no/such/libnvrtc.so", "cannot open NVRTC, which $ADWP_NVRTC says is `/no/such/libnvrtc.so`: ");
  expect_no_nvrtc("/proc/self/exe", "cannot open NVRTC, which $ADWP_NVRTC says is `/proc/self/exe`: ");
  expect_no_nvrtc("libm.so.6", "the NVRTC found has no nvrtcVersion: CUDA 12 or newer is needed");
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "without-nvrtc")) return main_without_nvrtc(argv[2]);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(test_each_operation_has_its_line),
      TEST(test_whole_text),
      TEST(test_text_depends_on_the_loop_ir_alone),
      TEST(test_text_is_plain),
      TEST(test_cubins_of_sm_80),
      TEST(test_cubins_of_sm_90),
      TEST(test_ptx),
      TEST(test_arithmetic_is_as_written),
      TEST(test_spills_are_read),
      TEST(test_largest_shared_array),
      TEST(test_texts_of_a_gpu),
      TEST(test_kernels_that_fit_no_gpu),
      TEST(test_gpu_kernel_for_a_cpu),
      TEST(test_unknown_architectures),
      TEST(test_assembly_of_a_gpu_is_a_bug),
      TEST(test_nvrtc_is_missing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
