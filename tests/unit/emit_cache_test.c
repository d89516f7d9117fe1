/* Sets of kernels and the kernel cache: equal kernels compiled once, entries read back, every flipped bit and every cut found,
 * processes that fill one folder at once, and folders that must not be used. The same of a GPU's images, where NVRTC is there.
 * Errors of targets and kernels, and the text of a kernel's machine code. */
#include "compiler/emit/emit.h"
#include "kernels/loop.h"
#include "runtime/base/file.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { KERNELS = 6 };

typedef struct Fixture {
  Arena *arena;
  EmitTarget *target;
  LoopKernel *kernels[KERNELS]; /* y[task] = x[task] + i / 2: 2 i and 2 i + 1 are alike but for their names */
  char folder[64];              /* of the cache; not there yet */
  char base[48];
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
  f->target = emit_target_new(NULL, false, &err);
  if (!f->target) fail_msg("%s", err.text);
  for (int i = 0; i < KERNELS; i++) {
    char text[400];
    snprintf(text, sizeof text,
             "kernel add%d lanes 1 { buffer x f32 in buffer y f32 out %%0 = task %%1 = load x[%%0] %%2 = add %%1, %d.0f\n"
             "store y[%%0] = %%2 }",
             i, i / 2);
    f->kernels[i] = parse(f->arena, text);
  }
  snprintf(f->base, sizeof f->base, "emit-cache-test-XXXXXX");
  assert_non_null(mkdtemp(f->base));
  snprintf(f->folder, sizeof f->folder, "%s/cache", f->base);
  *state = f;
  return 0;
}

static void remove_folder(const char *path) {
  chmod(path, 0700);
  DIR *folder = opendir(path);
  if (!folder) return;
  for (struct dirent *entry; (entry = readdir(folder));) {
    char name[400];
    snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && unlink(name)) remove_folder(name);
  }
  closedir(folder);
  rmdir(path);
}

static int tear_down(void **state) {
  Fixture *f = *state;
  remove_folder(f->base);
  for (int i = 0; i < KERNELS; i++) loop_free_tables(f->kernels[i]);
  emit_target_free(f->target);
  arena_free(f->arena);
  free(f);
  return 0;
}

/* Compiles the kernels with the cache `folder`, runs them, and says how many came from where. */
static EmitStatistics compile(const Fixture *f, const char *folder, int threads) {
  Err err;
  EmitStatistics statistics;
  EmitCode *code = emit_compile(f->target, (const LoopKernel *const *)f->kernels, KERNELS, threads, folder, &statistics, &err);
  if (!code) fail_msg("%s", err.text);
  for (int i = 0; i < KERNELS; i++) {
    float x[3] = {1, 2, 3}, y[3] = {-1, -1, -1};
    emit_code_function(code, (size_t)i)(&(KernelArgs){(void *[]){x, y}, NULL, 1}, 1, 3);
    assert_true(y[0] == -1 && y[1] == (float)(2 + i / 2) && y[2] == (float)(3 + i / 2));
  }
  emit_code_free(code);
  return statistics;
}

static void expect(EmitStatistics statistics, size_t compiled, size_t cached) {
  assert_int_equal(statistics.compiled, compiled);
  assert_int_equal(statistics.cached, cached);
}

/* The files of the cache, at most `limit` paths; their number is returned. */
static int list(const char *folder, char (*paths)[128], int limit) {
  DIR *open = opendir(folder);
  assert_non_null(open);
  int count = 0;
  for (struct dirent *entry; (entry = readdir(open));) {
    if (entry->d_name[0] == '.') continue;
    assert_true(count < limit && strlen(entry->d_name) < 60);
    snprintf(paths[count++], sizeof paths[0], "%.60s/%.60s", folder, entry->d_name);
  }
  closedir(open);
  return count;
}

/* ---- the cache ---- */

static void test_equal_kernels_are_compiled_once(void **state) {
  expect(compile(*state, NULL, 1), 3, 0);
  expect(compile(*state, NULL, 8), 3, 0);
}

static void test_cache_is_read_back(void **state) {
  Fixture *f = *state;
  char paths[8][128];
  expect(compile(f, f->folder, 2), 3, 0);
  assert_int_equal(list(f->folder, paths, 8), 3);
  struct stat info;
  assert_true(stat(f->folder, &info) == 0 && (info.st_mode & 0777) == 0700);
  expect(compile(f, f->folder, 2), 0, 3);
  assert_int_equal(unlink(paths[1]), 0);
  expect(compile(f, f->folder, 1), 1, 2);
  expect(compile(f, f->folder, 1), 0, 3);
}

static void write_bytes(const char *path, const char *data, size_t size) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, size, file), size);
  fclose(file);
}

/* Each damage is found, and the entry is whole again afterwards. */
static void test_damaged_entries_are_compiled_again(void **state) {
  Fixture *f = *state;
  char paths[8][128], *data;
  size_t size, again;
  expect(compile(f, f->folder, 1), 3, 0);
  assert_int_equal(list(f->folder, paths, 8), 3);
  assert_true(file_read(paths[0], 1 << 20, &data, &size, NULL));
  for (size_t bit = 0; bit < 8 * size; bit += bit < 8 * 64 ? 23 : 2 * size + 1) {
    data[bit / 8] ^= (char)(1 << bit % 8);
    write_bytes(paths[0], data, size);
    data[bit / 8] ^= (char)(1 << bit % 8);
    expect(compile(f, f->folder, 1), 1, 2);
    char *now;
    assert_true(file_read(paths[0], 1 << 20, &now, &again, NULL));
    assert_int_equal(again, size);
    assert_memory_equal(now, data, size);
    free(now);
  }
  for (size_t cut = 0; cut < size; cut += cut < 60 ? 19 : size / 3) {
    write_bytes(paths[0], data, cut);
    expect(compile(f, f->folder, 1), 1, 2);
  }
  char *longer = calloc(size + 9, 1);
  memcpy(longer, data, size);
  write_bytes(paths[0], longer, size + 9);
  expect(compile(f, f->folder, 1), 1, 2);
  free(longer);
  free(data);
}

/* One kernel's whole entry under another's name is not taken. */
static void test_entry_of_another_kernel(void **state) {
  Fixture *f = *state;
  char paths[8][128], *data;
  size_t size;
  expect(compile(f, f->folder, 1), 3, 0);
  assert_int_equal(list(f->folder, paths, 8), 3);
  assert_true(file_read(paths[0], 1 << 20, &data, &size, NULL));
  write_bytes(paths[1], data, size);
  free(data);
  expect(compile(f, f->folder, 1), 1, 2);
}

static void test_processes_share_a_folder(void **state) {
  Fixture *f = *state;
  enum { PROCESSES = 3 };
  pid_t process[PROCESSES];
  for (int i = 0; i < PROCESSES; i++) {
    process[i] = fork();
    assert_true(process[i] >= 0);
    if (process[i] == 0) {
      EmitStatistics statistics = compile(f, f->folder, 1);
      _exit(statistics.compiled + statistics.cached == 3 ? 0 : 1);
    }
  }
  for (int i = 0; i < PROCESSES; i++) {
    int status;
    assert_int_equal(waitpid(process[i], &status, 0), process[i]);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  char paths[8][128];
  assert_int_equal(list(f->folder, paths, 8), 3);
  expect(compile(f, f->folder, 1), 0, 3);
}

/* ---- images of a GPU ---- */

enum { GPU_KERNELS = 4, HEAD = 80 }; /* bytes of an entry before the image */

typedef struct Gpu {
  EmitTarget *target;
  LoopKernel *kernels[GPU_KERNELS]; /* 2 i and 2 i + 1 are alike but for their names; each has a shared array */
} Gpu;

/* Skips the test, with a notice, where there is no NVRTC. */
static Gpu gpu_new(const Fixture *f, const char *arch) {
  Err err;
  Gpu gpu = {.target = emit_target_cuda(arch, &err)};
  if (!gpu.target) {
    print_message("not run: %s\n", err.text);
    skip();
  }
  for (int i = 0; i < GPU_KERNELS; i++) {
    char text[400];
    snprintf(text, sizeof text,
             "kernel add%d lanes 32 { buffer x f32 in buffer y f32 out shared s f32[%d]\n"
             "%%0 = task phase a { %%1 = load_lanes x[%%0] count 32 else 0.0f store_lanes s[%%0] = %%1 count 32 }\n"
             "%%2 = load s[7] store y[%%0] = %%2 }",
             i, 32 << i / 2);
    gpu.kernels[i] = parse(f->arena, text);
  }
  return gpu;
}

static void gpu_free(Gpu *gpu) {
  for (int i = 0; i < GPU_KERNELS; i++) loop_free_tables(gpu->kernels[i]);
  emit_target_free(gpu->target);
}

/* Compiles the kernels with the cache `folder`; `compiled` and `cached` kernels are expected. */
static EmitCode *compile_gpu(const Gpu *gpu, const char *folder, size_t compiled, size_t cached) {
  Err err;
  EmitStatistics statistics;
  EmitCode *code = emit_compile(gpu->target, (const LoopKernel *const *)gpu->kernels, GPU_KERNELS, 2, folder, &statistics, &err);
  if (!code) fail_msg("%s", err.text);
  expect(statistics, compiled, cached);
  assert_null(statistics.cache_fault);
  return code;
}

static void expect_equal(const EmitCode *a, const EmitCode *b) {
  for (size_t i = 0; i < GPU_KERNELS; i++) {
    const EmitImage *x = emit_code_image(a, i), *y = emit_code_image(b, i);
    assert_string_equal(x->symbol, y->symbol);
    assert_int_equal(x->size, y->size);
    assert_memory_equal(x->data, y->data, x->size + 1); /* and the zero byte behind it */
    assert_memory_equal(&x->resources, &y->resources, sizeof x->resources);
  }
}

static void expect_again(const Gpu *gpu, const char *folder, size_t compiled, const EmitCode *wanted) {
  EmitCode *code = compile_gpu(gpu, folder, compiled, 2 - compiled);
  expect_equal(code, wanted);
  emit_code_free(code);
}

static void test_images_are_read_back(void **state) {
  Fixture *f = *state;
  Gpu gpu = gpu_new(f, "sm_90");
  char paths[8][128];
  EmitCode *code = compile_gpu(&gpu, f->folder, 2, 0);
  for (size_t i = 0; i < GPU_KERNELS; i++) {
    EmitResources resources = emit_code_image(code, i)->resources;
    assert_true(resources.registers > 0);
    assert_int_equal(resources.shared_bytes, 4 * (32 << i / 2));
    assert_ptr_equal(emit_code_image(code, i)->data, emit_code_image(code, i / 2 * 2)->data);
  }
  assert_ptr_not_equal(emit_code_image(code, 0)->data, emit_code_image(code, 2)->data);
  assert_int_equal(list(f->folder, paths, 8), 2);
  expect_again(&gpu, f->folder, 0, code);
  expect_again(&gpu, NULL, 2, code);
  assert_int_equal(unlink(paths[0]), 0);
  expect_again(&gpu, f->folder, 1, code);
  emit_code_free(code);
  gpu_free(&gpu);
}

/* Each byte of the head that means something, and the image's first, middle and last one; cuts, and more than was written; and
 * whole entries of another kernel and of another target. */
static void test_damaged_images_are_compiled_again(void **state) {
  Fixture *f = *state;
  Gpu gpu = gpu_new(f, "sm_90");
  char paths[2][128], others[3][128], other[64], *data, *foreign;
  size_t size, foreign_size;
  EmitCode *code = compile_gpu(&gpu, f->folder, 2, 0);
  assert_int_equal(list(f->folder, paths, 2), 2);
  assert_true(file_read(paths[0], 1 << 20, &data, &size, NULL) && size > HEAD);
  const size_t at[] = {0, 8, 40, 44, 48, 52, 56, 60, 64, 71, 72, HEAD, size / 2, size - 1};
  for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
    data[at[i]] ^= 1;
    write_bytes(paths[0], data, size);
    data[at[i]] ^= 1;
    expect_again(&gpu, f->folder, 1, code);
    expect_again(&gpu, f->folder, 0, code);
  }
  const size_t cuts[] = {0, HEAD - 1, HEAD, size - 1};
  for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
    write_bytes(paths[0], data, cuts[i]);
    expect_again(&gpu, f->folder, 1, code);
  }
  data = realloc(data, size + 1);
  data[size] = 0;
  write_bytes(paths[0], data, size + 1);
  expect_again(&gpu, f->folder, 1, code);
  write_bytes(paths[1], data, size);
  expect_again(&gpu, f->folder, 1, code);
  snprintf(other, sizeof other, "%s/cpu", f->base);
  expect(compile(f, other, 1), 3, 0);
  assert_int_equal(list(other, others, 3), 3);
  assert_true(file_read(others[0], 1 << 20, &foreign, &foreign_size, NULL));
  write_bytes(paths[1], foreign, foreign_size);
  expect_again(&gpu, f->folder, 1, code);
  free(foreign);
  free(data);
  emit_code_free(code);
  gpu_free(&gpu);
}

/* An entry is one architecture's and one form's; the emulator's text is not kept. */
static void test_images_of_other_architectures(void **state) {
  static const char *const archs[] = {"sm_90", "sm_80", "compute_90", "compute_80", "cuda-emulator"};
  enum { ARCHS = sizeof archs / sizeof *archs };
  Fixture *f = *state;
  char paths[2 * ARCHS][128];
  EmitCode *codes[ARCHS];
  Gpu gpu[ARCHS];
  for (int i = 0; i < ARCHS; i++) {
    gpu[i] = gpu_new(f, archs[i]);
    codes[i] = compile_gpu(&gpu[i], f->folder, 2, 0);
    assert_int_equal(list(f->folder, paths, 2 * ARCHS), i < 4 ? 2 * (i + 1) : 8);
  }
  for (int i = 0; i < ARCHS; i++) {
    expect_again(&gpu[i], f->folder, i < 4 ? 0 : 2, codes[i]);
    emit_code_free(codes[i]);
    gpu_free(&gpu[i]);
  }
}

/* ---- folders that cannot or must not be used ---- */

/* The cache gave and took nothing, and the statistics say why. */
static void expect_fault(EmitStatistics statistics, const char *fault) {
  expect(statistics, 3, 0);
  assert_non_null(statistics.cache_fault);
  assert_string_equal(statistics.cache_fault, fault);
}

static void test_unusable_folders(void **state) {
  Fixture *f = *state;
  char path[128], paths[8][128];
  snprintf(path, sizeof path, "%s/file", f->base);
  write_bytes(path, "x", 1);
  expect_fault(compile(f, path, 1), "it is not a folder");
  snprintf(path, sizeof path, "%s/file/below", f->base);
  expect_fault(compile(f, path, 1), "it cannot be made");
  expect_fault(compile(f, "/proc/no/such/place", 1), "it cannot be made");
  assert_int_equal(mkdir(f->folder, 0700), 0);
  assert_int_equal(chmod(f->folder, 0500), 0); /* root writes all the same */
  EmitStatistics statistics = compile(f, f->folder, 1);
  if (geteuid() != 0) expect_fault(statistics, "it cannot be written");
  assert_int_equal(chmod(f->folder, 0700), 0);
  compile(f, f->folder, 1);
  assert_int_equal(list(f->folder, paths, 8), 3);
  assert_int_equal(chmod(f->folder, 0777), 0); /* what anyone can write is not run */
  expect_fault(compile(f, f->folder, 1), "other users can write into it");
  assert_int_equal(chmod(f->folder, 0770), 0);
  expect_fault(compile(f, f->folder, 1), "other users can write into it");
  assert_int_equal(chmod(f->folder, 0755), 0);
  expect(compile(f, f->folder, 1), 0, 3);
  assert_null(compile(f, f->folder, 1).cache_fault);
  char name[256]; /* an entry's place that is taken: root cannot write there either */
  assert_int_equal(list(f->folder, paths, 8), 3);
  snprintf(name, sizeof name, "%s", paths[0]);
  assert_int_equal(unlink(name), 0);
  assert_int_equal(mkdir(name, 0700), 0);
  statistics = compile(f, f->folder, 1);
  expect(statistics, 1, 2);
  assert_string_equal(statistics.cache_fault, "it cannot be written");
}

/* A folder that belongs to another user is not used: seen where the test is root and can give one away. */
static void test_folder_of_another_user(void **state) {
  Fixture *f = *state;
  if (geteuid() != 0) skip();
  expect(compile(f, f->folder, 1), 3, 0);
  assert_int_equal(chown(f->folder, 12345, 12345), 0);
  expect_fault(compile(f, f->folder, 1), "it belongs to another user");
}

static void test_cache_folder(void **state) {
  Fixture *f = *state;
  char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  char *old_xdg = xdg ? strdup(xdg) : NULL, *old_home = home ? strdup(home) : NULL;
  setenv("XDG_CACHE_HOME", "/a/b", 1);
  setenv("HOME", "/h", 1);
  assert_string_equal(emit_cache_folder(f->arena), "/a/b/adwp");
  setenv("XDG_CACHE_HOME", "relative", 1);
  assert_string_equal(emit_cache_folder(f->arena), "/h/.cache/adwp");
  unsetenv("XDG_CACHE_HOME");
  assert_string_equal(emit_cache_folder(f->arena), "/h/.cache/adwp");
  unsetenv("HOME");
  assert_null(emit_cache_folder(f->arena));
  if (old_xdg) setenv("XDG_CACHE_HOME", old_xdg, 1);
  if (old_home) setenv("HOME", old_home, 1);
  free(old_xdg);
  free(old_home);
}

/* ---- errors and texts ---- */

static void test_targets(void **state) {
  (void)state;
  Err err;
  assert_null(emit_target_new("pentium", false, &err));
  assert_string_equal(err.text, "unknown processor `pentium`: x86-64-v3 (AVX2) and x86-64-v4 (AVX-512) are known");
  EmitTarget *wide = emit_target_new("x86-64-v4", true, &err), *narrow = emit_target_new("x86-64-v3", true, &err);
  assert_true(wide && narrow);
  assert_int_equal(emit_target_lanes(wide), 16);
  assert_int_equal(emit_target_lanes(narrow), 8);
  assert_string_equal(emit_target_name(wide), "x86-64-v4");
  emit_target_free(wide);
  emit_target_free(narrow);
}

static void test_kernel_that_is_wrong(void **state) {
  Fixture *f = *state;
  LoopKernel *open = loop_new(f->arena, "open", 4);
  loop_phase(open, "p");
  Err err;
  const LoopKernel *kernels[2] = {f->kernels[0], open};
  assert_null(emit_compile(f->target, kernels, 2, 2, f->folder, NULL, &err));
  assert_string_equal(err.text, "kernel open, line 2: the region of phase has no end");
  Text text = {0};
  assert_false(emit_text(f->target, open, EMIT_ASM, &text, &err));
  text_free(&text);
  loop_free_tables(open);
}

static void test_no_kernels(void **state) {
  Fixture *f = *state;
  Err err;
  EmitStatistics statistics;
  EmitCode *code = emit_compile(f->target, NULL, 0, 2, f->folder, &statistics, &err);
  assert_non_null(code);
  expect(statistics, 0, 0);
  emit_code_free(code);
}

/* The heart of every product of matrices: eight accumulators stay in registers, and broadcasts are operands of the FMAs. */
static void test_tile_code(void **state) {
  Fixture *f = *state;
  LoopKernel *k = parse(
      f->arena, "kernel product lanes 16 { buffer x f32 in buffer w f32 in buffer y f32 out tile acc f32[8] lanes %0 = task\n"
                "%1 = imul %0, 512 unroll %2 = 0 to 8 step 1 { set acc[%2] = 0.0f }\n"
                "for %3 = 0 to 64 step 4 { unroll %4 = 0 to 4 step 1 { %5 = iadd %3, %4 %6 = imul %5, 16\n"
                "%7 = load_lanes w[%6] count 16 else 0.0f unroll %8 = 0 to 8 step 1 { %9 = imul %8, 64 %10 = iadd %1, %9\n"
                "%11 = iadd %10, %5 %12 = load x[%11] %13 = get acc[%8] %14 = fma %12, %7, %13 set acc[%8] = %14 } } }\n"
                "%15 = imul %0, 128 unroll %16 = 0 to 8 step 1 { %17 = imul %16, 16 %18 = iadd %15, %17 %19 = get acc[%16]\n"
                "store_lanes y[%18] = %19 count 16 } }");
  Err err;
  EmitTarget *target = emit_target_new("x86-64-v4", true, &err);
  assert_non_null(target);
  Text text = {0};
  assert_true(emit_text(target, k, EMIT_ASM, &text, &err));
  int folded = 0, spilled = 0;
  for (char *line = strtok(text.data, "\n"); line; line = strtok(NULL, "\n")) {
    if (strstr(line, "vfmadd") && strstr(line, "{1to16}")) folded++;
    if (strstr(line, "zmm") && strstr(line, "(%rsp)")) spilled++;
  }
  assert_int_equal(folded, 32);
  assert_int_equal(spilled, 0);
  text_free(&text);
  assert_true(emit_text(target, k, EMIT_LLVM, &text, &err));
  assert_non_null(strstr(text.data, "<16 x float> @llvm.fma.v16f32"));
  assert_null(strstr(text.data, "alloca"));
  text_free(&text);
  emit_target_free(target);
  loop_free_tables(k);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(test_equal_kernels_are_compiled_once),
      TEST(test_cache_is_read_back),
      TEST(test_damaged_entries_are_compiled_again),
      TEST(test_entry_of_another_kernel),
      TEST(test_processes_share_a_folder),
      TEST(test_images_are_read_back),
      TEST(test_damaged_images_are_compiled_again),
      TEST(test_images_of_other_architectures),
      TEST(test_unusable_folders),
      TEST(test_folder_of_another_user),
      TEST(test_cache_folder),
      TEST(test_targets),
      TEST(test_kernel_that_is_wrong),
      TEST(test_no_kernels),
      TEST(test_tile_code),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
