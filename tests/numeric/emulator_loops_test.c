/* Small kernels in the Loop IR's text, each a few words of the emitted CUDA: on the emulator, in three orders of blocks and
 * threads, the very bits that the interpreter leaves. A kernel whose phases are taken away must be found to race. */
#include "tests/numeric/emulator_device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

typedef struct Sample {
  const char *text;
  int64_t tasks, counts[4]; /* elements of each buffer; 0: no more */
  bool races;               /* once its phases are taken away */
} Sample;

static const Sample samples[] = {
    {"kernel arithmetic lanes 64 {\n"
     "  buffer x f32 in\n  buffer y f32 out\n"
     "  %0 = task\n  %1 = lane\n  %2 = batch\n  %3 = imul %0, 64\n  %4 = iadd %3, %1\n  %5 = idiv %4, 7\n  %6 = imod %4, 7\n"
     "  %7 = ilt %6, 3\n  %8 = imin %4, 100\n  %9 = imax %8, %2\n  %10 = isub %9, 1\n"
     "  %11 = gather x[%4] where %7 else -1.5f\n  %12 = gather x[%10] where %7 else inff\n"
     "  %13 = fma %11, %11, %11\n  %14 = mul %11, %12\n  %15 = add %14, %13\n  %16 = gt %15, 0.25f\n  %17 = select %16, %15, "
     "%11\n"
     "  %18 = max %17, -2.0f\n  %19 = min %18, 3.0f\n  %20 = to_f32 %5\n  %21 = add %19, %20\n  %22 = mul %21, %21\n"
     "  %23 = sqrt %22\n  %24 = div %23, 3.0f\n  %25 = not %7\n  %26 = ieq %6, 5\n  %27 = or %7, %26\n  %28 = and %27, %25\n"
     "  %29 = select %28, %6, %5\n  %30 = to_f32 %29\n  %31 = sub %24, %30\n  %32 = eq %31, %24\n  %33 = select %32, 7.0f, %31\n"
     "  %34 = ilt %4, 1000000\n  scatter y[%4] = %33 where %34\n}\n",
     5,
     {400, 320},
     false},
    {"kernel lanes_and_counts lanes 32 {\n"
     "  buffer x f32 in\n  buffer y f32 inout\n  buffer z f64 out\n"
     "  %0 = task\n  %1 = imul %0, 40\n"
     "  %2 = load_lanes x[%1] count 27 else 2.0f\n  %3 = load x[%1]\n  %4 = add %2, %3\n  store_lanes y[%1] = %4 count 29\n"
     "  for %5 = 0 to 3 step 1 {\n    %6 = iadd %1, 32\n    %7 = iadd %6, %5\n    store y[%7] = %3\n  }\n"
     "  %8 = to_f64 %4\n  %9 = imul %0, 32\n  store_lanes z[%9] = %8 count 32\n}\n",
     3,
     {120, 120, 96},
     false},
    {"kernel sums lanes 128 {\n"
     "  buffer x f32 in\n  buffer y f32 out\n  buffer z f64 out\n  shared s f32[128]\n"
     "  %0 = task\n  %1 = lane\n  %2 = imul %0, 128\n  %3 = load_lanes x[%2] count 128 else 0.0f\n"
     "  phase stage {\n    store_lanes s[0] = %3 count 128\n  }\n"
     "  %4 = iadd %1, 37\n  %5 = imod %4, 128\n  %6 = ilt %1, 100\n  %7 = gather s[%5] where %6 else 1.0f\n"
     "  %8 = lane_sum %7\n  %9 = to_f64 %7\n  %10 = div %9, 3.0\n  %11 = lane_sum %10\n  store y[%0] = %8\n  store z[%0] = "
     "%11\n}\n",
     4,
     {512, 4, 4},
     true},
    {"kernel exponentials lanes 32 {\n"
     "  buffer x f32 in\n  buffer y f64 out\n"
     "  %0 = task\n  %1 = lane\n  %2 = imul %0, 32\n  %3 = load_lanes x[%2] count 32 else 0.0f\n  %4 = to_f64 %3\n  %5 = exp %4\n"
     "  %6 = log %5\n  %7 = mul %5, %6\n  %8 = sqrt %7\n  %9 = mul %7, %7\n  %10 = fma %9, %4, %5\n"
     "  store_lanes y[%2] = %10 count 32\n}\n",
     2,
     {64, 64},
     false},
    {"kernel turned lanes 64 {\n" /* every lane reads what others wrote, twice */
     "  buffer x f32 in\n  buffer y f32 out\n  shared s f32[64]\n  shared t f64[64]\n"
     "  %0 = task\n  %1 = lane\n  %2 = imul %0, 64\n  %3 = ilt %1, 64\n"
     "  for %4 = 0 to 3 step 1 {\n"
     "    phase store {\n      %5 = load_lanes x[%2] count 64 else 0.0f\n      %6 = to_f32 %4\n      %7 = add %5, %6\n"
     "      scatter s[%1] = %7 where %3\n      %8 = to_f64 %7\n      scatter t[%1] = %8 where %3\n    }\n"
     "    phase use {\n      %9 = iadd %1, 1\n      %10 = imod %9, 64\n      %11 = gather s[%10] where %3 else 0.0f\n"
     "      %12 = gather t[%10] where %3 else 0.0\n      %13 = to_f32 %12\n      %14 = mul %11, %13\n"
     "      store_lanes y[%2] = %14 count 64\n    }\n  }\n}\n",
     2,
     {128, 128},
     true},
    {"kernel branches lanes 64 {\n"
     "  buffer x f32 in\n  buffer i i32 in\n  buffer u u8 in\n  buffer y f32 out\n  tile acc f32[2] lanes\n"
     "  %0 = task\n  %1 = lane\n  %2 = imul %0, 64\n  %3 = iadd %2, %1\n  %4 = imod %1, 3\n  %5 = ieq %4, 0\n"
     "  set acc[0] = 0.0f\n  set acc[1] = 1.0f\n"
     "  if %5 {\n    for %6 = 0 to 4 step 1 {\n      %7 = imul %6, 3\n      %8 = iadd %3, %7\n      %9 = ilt %8, 128\n"
     "      %10 = gather x[%8] where %9 else 0.5f\n      %11 = get acc[0]\n      %12 = add %11, %10\n      set acc[0] = %12\n    "
     "}\n"
     "    %13 = gather i[%3] where %5 else 3\n    %14 = to_f32 %13\n    %15 = gather u[%3] where %5 else 3\n    %16 = to_f32 "
     "%15\n"
     "    %17 = sub %14, %16\n    set acc[1] = %17\n  }\n"
     "  %18 = get acc[0]\n  %19 = get acc[1]\n  %20 = load_int i[%0]\n  %21 = load_int u[%0]\n  %22 = iadd %20, %21\n"
     "  %23 = to_f32 %22\n  %24 = fma %18, %23, %19\n  store_lanes y[%2] = %24 count 64\n}\n",
     2,
     {128, 128, 128, 128},
     false},
    {"kernel wide lanes 32 {\n"
     "  buffer x f32 in\n  buffer h bf16 in\n  buffer y f32 out\n  buffer g bf16 out\n  tile t f32[16] lanes\n"
     "  %0 = task\n  %1 = lane\n  %2 = imul %0, 256\n  %3 = imul %1, 8\n  %4 = iadd %2, %3\n  %5 = imod %1, 5\n  %6 = ilt %5, 4\n"
     "  gather_tile t[0] = x[%4] width 4 where %6 else 0.5f\n  %7 = iadd %4, 4\n  gather_tile t[4] = x[%7] width 2 where %6 else "
     "1.5f\n"
     "  %8 = iadd %4, 6\n  gather_tile t[6] = x[%8] width 2 where %6 else 1.5f\n"
     "  gather_tile t[8] = h[%4] width 8 where %6 else 0.25f\n"
     "  unroll %9 = 0 to 8 step 1 {\n    %10 = get t[%9]\n    %11 = iadd %9, 8\n    %12 = get t[%11]\n    %13 = mul %10, %12\n"
     "    set t[%9] = %13\n  }\n"
     "  %14 = ilt %1, 32\n  scatter_tile y[%4] width 4 = t[0] where %14\n  scatter_tile y[%7] width 4 = t[4] where %6\n"
     "  scatter_tile g[%4] width 8 = t[0] where %6\n}\n",
     3,
     {768, 768, 768, 768},
     false},
    {"kernel halves lanes 64 {\n"
     "  buffer h bf16 in\n  buffer g bf16 inout\n  buffer y f32 out\n  shared s bf16[128]\n  tile t f32[4] lanes\n"
     "  %0 = task\n  %1 = lane\n  %2 = imul %0, 128\n  %3 = imul %1, 2\n  %4 = iadd %2, %3\n  %5 = ilt %1, 60\n  %6 = ilt %1, "
     "64\n"
     "  phase stage {\n    gather_tile t[0] = h[%4] width 2 where %5 else 3.0f\n"
     "    scatter_tile s[%3] width 2 = t[0] where %6\n  }\n"
     "  %7 = imod %1, 32\n  %8 = imul %7, 4\n  gather_tile t[0] = s[%8] width 4 where %5 else -1.0f\n  %9 = isub 127, %1\n"
     "  %10 = gather s[%9] where %6 else 0.0f\n  %11 = get t[1]\n  %12 = fma %11, %10, %10\n  phase keep {\n    store_lanes "
     "g[%2] = %12 count 64\n  }\n"
     "  %13 = load g[%2]\n  %14 = imul %0, 64\n  %15 = get t[3]\n  store_lanes y[%14] = %15 count 64\n}\n",
     2,
     {256, 256, 128},
     true},
    {"kernel copied lanes 32 {\n"
     "  buffer x f32 in\n  buffer h bf16 in\n  buffer y f32 out\n  shared s f32[256]\n  shared r bf16[256]\n"
     "  %0 = task\n  %1 = lane\n  %2 = imul %1, 4\n  %3 = imul %1, 8\n  %4 = imul %0, 128\n  %5 = iadd %4, %2\n  %6 = imod %1, "
     "4\n"
     "  %7 = ilt %6, 3\n  %8 = imul %0, 256\n  %9 = iadd %8, %3\n"
     "  phase copy {\n    async_copy s[%2] = x[%5] where %7\n    async_copy r[%3] = h[%9] where %7\n    wait\n  }\n"
     "  for %10 = 0 to 4 step 1 {\n    %11 = imul %10, 32\n    %12 = iadd %11, %1\n    %13 = isub 127, %12\n    %14 = ilt %1, "
     "32\n"
     "    %15 = gather s[%13] where %14 else 0.0f\n    %16 = imul %13, 2\n    %17 = gather r[%16] where %14 else 0.0f\n"
     "    %18 = add %15, %17\n    %19 = iadd %4, %11\n    store_lanes y[%19] = %18 count 32\n  }\n}\n",
     3,
     {384, 768, 384},
     true},
    {"kernel products lanes 64 {\n" /* 2 warps: 32 x 8 += 32 x 16 * (8 x 16)^T, tf32 */
     "  buffer x f32 in\n  buffer w f32 in\n  buffer y f32 out\n  shared a f32[640]\n  shared b f32[160]\n  tile d f32[8] lanes\n"
     "  %0 = task\n  %1 = lane\n  %2 = imul %0, 512\n  %3 = ilt %1, 64\n  %4 = idiv %1, 32\n"
     "  phase stage {\n    for %5 = 0 to 512 step 64 {\n      %6 = iadd %5, %1\n      %7 = iadd %2, %6\n"
     "      %8 = gather x[%7] where %3 else 0.0f\n      %9 = idiv %6, 16\n      %10 = imod %6, 16\n      %11 = imul %9, 20\n"
     "      %12 = iadd %11, %10\n      scatter a[%12] = %8 where %3\n    }\n"
     "    for %13 = 0 to 128 step 64 {\n      %14 = iadd %13, %1\n      %15 = gather w[%14] where %3 else 0.0f\n"
     "      %16 = idiv %14, 16\n      %17 = imod %14, 16\n      %18 = imul %16, 20\n      %19 = iadd %18, %17\n"
     "      scatter b[%19] = %15 where %3\n    }\n  }\n"
     "  unroll %20 = 0 to 8 step 1 {\n    set d[%20] = 0.125f\n  }\n"
     "  %21 = imul %4, 320\n"
     "  for %22 = 0 to 16 step 8 {\n    %23 = iadd %21, %22\n    mma d[4] += a[%23] stride 20 * b[%22] stride 20\n  }\n"
     "  %24 = imul %0, 256\n"
     "  unroll %25 = 0 to 4 step 1 {\n    %26 = iadd %25, 4\n    %27 = get d[%26]\n    %28 = imul %25, 64\n    %29 = iadd %24, "
     "%28\n"
     "    store_lanes y[%29] = %27 count 64\n  }\n}\n",
     2,
     {1024, 128, 512},
     true},
    {"kernel half_products lanes 32 {\n"
     "  buffer x bf16 in\n  buffer w bf16 in\n  buffer y f32 out\n  shared a bf16[256]\n  shared b bf16[128]\n  tile d f32[4] "
     "lanes\n"
     "  %0 = task\n  %1 = lane\n  %2 = imul %0, 256\n  %3 = ilt %1, 32\n  %4 = ilt %1, 16\n  %5 = imul %1, 8\n  %6 = iadd %2, "
     "%5\n"
     "  phase stage {\n    async_copy a[%5] = x[%6] where %3\n    if %4 {\n      async_copy b[%5] = w[%5] where %4\n    }\n    "
     "wait\n  }\n"
     "  unroll %7 = 0 to 4 step 1 {\n    set d[%7] = 0.0f\n  }\n  mma d[0] += a[0] stride 16 * b[0] stride 16\n"
     "  %8 = imul %0, 128\n"
     "  unroll %9 = 0 to 4 step 1 {\n    %10 = get d[%9]\n    %11 = imul %9, 32\n    %12 = iadd %8, %11\n"
     "    store_lanes y[%12] = %10 count 32\n  }\n}\n",
     2,
     {512, 128, 256},
     true},
};
enum { SAMPLES = sizeof samples / sizeof *samples, BATCH = 3 };

static LoopKernel *parse(const char *text, Arena *arena) {
  Err err;
  LoopKernel *k = loop_parse(text, strlen(text), arena, &err);
  if (!k || !loop_verify(k, &err)) fail_msg("%s\n%s", err.text, text);
  return k;
}

/* Numbers that every element's type holds, and none twice. */
static void fill(LoopElement element, LoopBuffer *buffer, int seed) {
  uint64_t state = (uint64_t)seed * 977 + 11;
  for (int64_t i = 0; i < buffer->count; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    int number = (int)(state >> 40) % 4001 - 2000;
    switch (element) {
    case LOOP_ELEMENT_F32: ((float *)buffer->data)[i] = (float)number / 1000.0f; break;
    case LOOP_ELEMENT_F64: ((double *)buffer->data)[i] = number / 1000.0; break;
    case LOOP_ELEMENT_BF16: ((uint16_t *)buffer->data)[i] = loop_to_bf16((float)number / 1000.0f); break;
    case LOOP_ELEMENT_I32: ((int32_t *)buffer->data)[i] = number; break;
    case LOOP_ELEMENT_U8: ((uint8_t *)buffer->data)[i] = (uint8_t)number; break;
    }
  }
}

static void make_buffers(const Sample *s, const LoopKernel *k, Arena *arena, LoopBuffer *buffers) {
  for (int i = 0; i < k->buffer_count; i++) {
    LoopElement element = k->arrays.data[i].element;
    buffers[i] = (LoopBuffer){arena_alloc_array(arena, (size_t)s->counts[i], (size_t)loop_element_bytes(element)), s->counts[i]};
    fill(element, &buffers[i], i);
  }
}

static void check_sample(const Sample *s, const LoopKernel *k, CudaFunction function, int order) {
  Arena *arena = arena_new();
  LoopBuffer want[4], got[4];
  Err err;
  make_buffers(s, k, arena, want);
  make_buffers(s, k, arena, got);
  if (!loop_interpret(k, want, BATCH, 0, s->tasks, &err)) fail_msg("%s", err.text);
  if (!device_run(function, k, got, BATCH, s->tasks, order, &err)) fail_msg("%s", err.text);
  for (int i = 0; i < k->buffer_count; i++) {
    int64_t bytes = loop_element_bytes(k->arrays.data[i].element);
    for (int64_t j = 0; j < want[i].count; j++)
      if (memcmp((char *)want[i].data + j * bytes, (char *)got[i].data + j * bytes, (size_t)bytes) != 0)
        fail_msg("kernel %s, order %d: %s[%d] differs", k->name, order, k->arrays.data[i].name, (int)j);
  }
  arena_free(arena);
}

static void test_samples(void **state) {
  (void)state;
  Arena *arena = arena_new();
  LoopKernel *kernels[SAMPLES];
  CudaFunction functions[SAMPLES];
  Err err;
  for (int i = 0; i < SAMPLES; i++) kernels[i] = parse(samples[i].text, arena);
  if (!device_load((const LoopKernel *const *)kernels, SAMPLES, functions, &err)) fail_msg("%s", err.text);
  for (int i = 0; i < SAMPLES; i++)
    for (int order = 0; order < DEVICE_ORDERS; order++) check_sample(&samples[i], kernels[i], functions[i], order);
  for (int i = 0; i < SAMPLES; i++) loop_free_tables(kernels[i]);
  arena_free(arena);
}

/* The kernel's CUDA text without its barriers. */
static CudaFunction without_barriers(const LoopKernel *k) {
  Err err;
  CudaModule module;
  CudaFunction function;
  if (!device_open(&err)) fail_msg("%s", err.text);
  EmitTarget *target = emit_target_cuda("cuda-emulator", &err);
  EmitCode *code = target ? emit_compile(target, &k, 1, 1, NULL, NULL, &err) : NULL;
  if (!code) fail_msg("%s", err.text);
  const EmitImage *image = emit_code_image(code, 0);
  char *text = strdup(image->data);
  int barriers = 0;
  for (char *at = text; (at = strstr(at, "BARRIER()")); barriers++) memcpy(at, "         ", 9);
  assert_true(barriers > 0);
  assert_int_equal(device.driver.module_load(&module, text), 0);
  assert_int_equal(device.driver.module_function(&function, module, image->symbol), 0);
  free(text);
  emit_code_free(code);
  emit_target_free(target);
  return function;
}

static void test_races(void **state) {
  (void)state;
  Arena *arena = arena_new();
  CudaFunction functions[SAMPLES];
  LoopKernel *kernels[SAMPLES];
  for (int i = 0; i < SAMPLES; i++) {
    kernels[i] = parse(samples[i].text, arena);
    if (samples[i].races) functions[i] = without_barriers(kernels[i]);
  }
  for (int i = 0; i < SAMPLES; i++) {
    for (int order = 0; samples[i].races && order < DEVICE_ORDERS; order++) {
      LoopBuffer buffers[4];
      Err err;
      make_buffers(&samples[i], kernels[i], arena, buffers);
      if (device_run(functions[i], kernels[i], buffers, BATCH, samples[i].tasks, order, &err))
        fail_msg("kernel %s without its phases, order %d: no race was found", kernels[i]->name, order);
      if (!strstr(device_fault, "race: ") && !strstr(device_fault, "not waited for")) fail_msg("%s", device_fault);
    }
    loop_free_tables(kernels[i]);
  }
  arena_free(arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_samples), cmocka_unit_test(test_races)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
