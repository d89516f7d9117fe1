/* NVRTC takes the emitter's text for two architectures and as PTX; what ptxas says of a kernel is read; an unknown architecture,
 * and that there is no NVRTC, are refused with a message.
 *
 * Where NVRTC is missing, the tests that need it are skipped with its message. One process opens NVRTC once, so this program runs
 * itself, as `emit_nvrtc_test without-nvrtc FILE`, where it must not be found. */
#include "tests/unit/emit_gpu_kernels.h"

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
  execl("/proc/self/exe", "emit_nvrtc_test", "without-nvrtc", file, (char *)NULL);
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
      TEST(test_cubins_of_sm_80),          TEST(test_cubins_of_sm_90),       TEST(test_ptx),
      TEST(test_arithmetic_is_as_written), TEST(test_spills_are_read),       TEST(test_largest_shared_array),
      TEST(test_texts_of_a_gpu),           TEST(test_unknown_architectures), TEST(test_nvrtc_is_missing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
