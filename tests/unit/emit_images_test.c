/* Images of a GPU's kernels and the kernel cache: what is read back is what was stored, resources included; architectures have
 * entries of their own; a damaged entry is compiled again; equal kernels share an image whatever their names. Skipped where there
 * is no NVRTC. */
#include "compiler/emit/emit.h"
#include "kernels/loop.h"
#include "runtime/base/file.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { KERNELS = 3 };

typedef struct Fixture {
  Arena *arena;
  EmitTarget *target; /* null: there is no NVRTC */
  LoopKernel *kernels[KERNELS];
  char folder[40];
} Fixture;

/* The first two are equal but for their names, the third takes more than 48 KB / 2 of shared memory and spills nothing. */
static const char *const texts[KERNELS] = {
    "kernel add lanes 32 { buffer x f32 in buffer y f32 out %0 = task %1 = imul %0, 32 %2 = load_lanes x[%1] count 32 else 0.0f\n"
    "%3 = add %2, 1.0f store_lanes y[%1] = %3 count 32 }",
    "kernel other lanes 32 { buffer x f32 in buffer y f32 out %0 = task %1 = imul %0, 32 %2 = load_lanes x[%1] count 32 else "
    "0.0f\n"
    "%3 = add %2, 1.0f store_lanes y[%1] = %3 count 32 }",
    "kernel stage lanes 64 { buffer x f32 in buffer y f32 out shared s f32[6400] %0 = lane %1 = imul %0, 100\n"
    "phase stage { %2 = load_lanes x[0] count 64 else 0.0f %3 = ilt 0, 1 scatter s[%1] = %2 where %3 }\n"
    "%4 = load s[6300] store_lanes y[0] = %4 count 64 }",
};

static int set_up(void **state) {
  Fixture *f = calloc(1, sizeof *f);
  Err err;
  f->arena = arena_new();
  f->target = emit_target_cuda("sm_90", &err);
  if (!f->target) print_message("not run: %s\n", err.text);
  for (int i = 0; i < KERNELS; i++) {
    f->kernels[i] = loop_parse(texts[i], strlen(texts[i]), f->arena, &err);
    if (!f->kernels[i]) fail_msg("%s", err.text);
  }
  snprintf(f->folder, sizeof f->folder, "emit-images-test-XXXXXX");
  assert_non_null(mkdtemp(f->folder));
  *state = f;
  return 0;
}

/* Does something to each file of the cache; returns their number. */
static int each_file(const char *folder, void (*act)(const char *path)) {
  DIR *open = opendir(folder);
  assert_non_null(open);
  int count = 0;
  for (struct dirent *entry; (entry = readdir(open));) {
    char path[400];
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    if (act) act(path);
    count++;
  }
  closedir(open);
  return count;
}

static void remove_file(const char *path) {
  unlink(path);
}

/* One bit of the image's last byte, and of the resources that stand in the entry's head. */
static void flip(const char *path, size_t from_end, size_t from_start) {
  char *data;
  size_t size;
  assert_true(file_read(path, 1 << 24, &data, &size, NULL));
  data[from_end ? size - from_end : from_start] ^= 4;
  assert_true(file_replace(path, data, size, NULL));
  free(data);
}
static void damage_image(const char *path) {
  flip(path, 1, 0);
}
static void damage_resources(const char *path) {
  flip(path, 0, 8 + 32);
}

static int tear_down(void **state) {
  Fixture *f = *state;
  each_file(f->folder, remove_file);
  rmdir(f->folder);
  for (int i = 0; i < KERNELS; i++) loop_free_tables(f->kernels[i]);
  emit_target_free(f->target);
  arena_free(f->arena);
  free(f);
  return 0;
}

static EmitCode *compile(const Fixture *f, EmitTarget *target, size_t compiled, size_t cached) {
  Err err;
  EmitStatistics statistics;
  EmitCode *code = emit_compile(target, (const LoopKernel *const *)f->kernels, KERNELS, 2, f->folder, &statistics, &err);
  if (!code) fail_msg("%s", err.text);
  assert_int_equal(statistics.compiled, compiled);
  assert_int_equal(statistics.cached, cached);
  assert_null(statistics.cache_fault);
  return code;
}

static void expect_equal(const EmitCode *a, const EmitCode *b) {
  for (size_t i = 0; i < KERNELS; i++) {
    const EmitImage *x = emit_code_image(a, i), *y = emit_code_image(b, i);
    assert_string_equal(x->symbol, y->symbol);
    assert_int_equal(x->size, y->size);
    assert_memory_equal(x->data, y->data, x->size + 1); /* the zero byte behind it, too */
    assert_memory_equal(&x->resources, &y->resources, sizeof x->resources);
  }
}

static void test_cache_gives_the_same_image(void **state) {
  Fixture *f = *state;
  if (!f->target) skip();
  EmitCode *fresh = compile(f, f->target, 2, 0), *cached = compile(f, f->target, 0, 2);
  expect_equal(fresh, cached);
  const EmitImage *image = emit_code_image(cached, 2);
  assert_true(image->resources.registers > 0);
  assert_int_equal(image->resources.shared_bytes, 6400 * sizeof(float));
  assert_ptr_equal(emit_code_image(cached, 0)->data, emit_code_image(cached, 1)->data);
  assert_string_not_equal(emit_code_image(cached, 0)->symbol, image->symbol);
  emit_code_free(fresh);
  emit_code_free(cached);
}

static void test_each_architecture_has_its_entries(void **state) {
  Fixture *f = *state;
  if (!f->target) skip();
  static const char *const others[] = {"sm_80", "compute_90"};
  emit_code_free(compile(f, f->target, 2, 0));
  for (int i = 0; i < 2; i++) {
    EmitTarget *other = emit_target_cuda(others[i], NULL);
    assert_non_null(other);
    emit_code_free(compile(f, other, 2, 0));
    assert_int_equal(each_file(f->folder, NULL), 4 + 2 * i);
    emit_target_free(other);
  }
  emit_code_free(compile(f, f->target, 0, 2));
}

static void test_damaged_entries_are_compiled_again(void **state) {
  Fixture *f = *state;
  if (!f->target) skip();
  EmitCode *fresh = compile(f, f->target, 2, 0);
  static void (*const damages[])(const char *) = {damage_image, damage_resources};
  for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
    assert_int_equal(each_file(f->folder, damages[i]), 2);
    EmitCode *again = compile(f, f->target, 2, 0);
    expect_equal(fresh, again);
    emit_code_free(again);
  }
  emit_code_free(compile(f, f->target, 0, 2));
  emit_code_free(fresh);
}

/* The emulator's text is made faster than it is read. */
static void test_texts_are_not_cached(void **state) {
  Fixture *f = *state;
  EmitTarget *target = emit_target_cuda("cuda-emulator", NULL);
  assert_non_null(target);
  for (int i = 0; i < 2; i++) emit_code_free(compile(f, target, 2, 0));
  assert_int_equal(each_file(f->folder, NULL), 0);
  emit_target_free(target);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(test_cache_gives_the_same_image),
      TEST(test_each_architecture_has_its_entries),
      TEST(test_damaged_entries_are_compiled_again),
      TEST(test_texts_are_not_cached),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
