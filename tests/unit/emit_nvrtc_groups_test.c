/* Groups as NVRTC and nvJitLink make them: one image that has every group's kernel, with the registers of its greediest body; the
 * same image from the cache; PTX; and that there is no nvJitLink is said. */
#include "tests/unit/emit_gpu_kernels.h"

#include <dirent.h>

static const uint32_t all[] = {0, 1, 2}, two[] = {2, 0};
static const EmitGroup groups[] = {{all, 3}, {two, 2}};
enum { GROUPS = sizeof groups / sizeof *groups };

/* Skips the test where there is no NVRTC. */
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
  return target;
}

static EmitGroups *make(const Fixture *f, EmitTarget *target, const char *cache, EmitStatistics *statistics) {
  Err err;
  EmitGroups *made =
      emit_groups(target, (const LoopKernel *const *)f->kernels, KERNELS, groups, GROUPS, 2, cache, statistics, &err);
  if (!made) fail_msg("%s", err.text);
  return made;
}

static void check_cubin(const EmitGroups *made) {
  const EmitImage *first = emit_group_image(made, 0), *second = emit_group_image(made, 1);
  assert_ptr_equal(first->data, second->data);
  assert_memory_equal(first->data, "\177ELF", 4);
  for (size_t i = 0; i < GROUPS; i++) {
    const EmitImage *image = emit_group_image(made, i);
    char section[80];
    snprintf(section, sizeof section, ".text.%s", image->symbol);
    assert_non_null(memmem(image->data, image->size, section, strlen(section)));
    assert_in_range(image->resources.registers, 16, 80);
  }
  for (size_t i = 0; i < KERNELS; i++) {
    const EmitResources *own = emit_group_kernel(made, i);
    assert_in_range(own->registers, 16, 80);
    for (size_t g = 0; g < GROUPS; g++)
      for (uint32_t b = 0; b < groups[g].count; b++)
        if (groups[g].kernels[b] == i) assert_true(own->registers <= emit_group_image(made, g)->resources.registers);
  }
  /* of `wide` 260 f32 and 256 bf16; of `values` 100 f32, 64 f64 and the space of two sums over 64 lanes */
  assert_int_equal(first->resources.shared_bytes, 1040 + 512 > 400 + 512 + 272 + 528 ? 1040 + 512 : 400 + 512 + 272 + 528);
  assert_int_equal(second->resources.shared_bytes, 400 + 512 + 272 + 528);
}

static void test_cubin(void **state) {
  EmitTarget *target = target_of("sm_90");
  EmitStatistics statistics;
  EmitGroups *made = make(*state, target, NULL, &statistics);
  check_cubin(made);
  assert_int_equal(statistics.compiled, KERNELS);
  assert_int_equal(statistics.cached, 0);
  emit_groups_free(made);
  emit_target_free(target);
}

static int files_in(const char *folder, bool remove) {
  DIR *dir = opendir(folder);
  int count = 0;
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    char path[600];
    if (entry->d_name[0] == '.') continue;
    count++;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    if (remove) unlink(path);
  }
  if (dir) closedir(dir);
  return count;
}

/* Two parts (the groups', the kernels') and the whole are kept; the whole is enough. */
static void test_cache(void **state) {
  EmitTarget *target = target_of("sm_80");
  char folder[] = "/tmp/adwp-groups-XXXXXX";
  assert_non_null(mkdtemp(folder));
  EmitStatistics statistics;
  EmitGroups *fresh = make(*state, target, folder, &statistics);
  assert_int_equal(statistics.compiled, KERNELS);
  assert_null(statistics.cache_fault);
  assert_int_equal(files_in(folder, false), 3);
  EmitGroups *cached = make(*state, target, folder, &statistics);
  assert_int_equal(statistics.compiled, 0);
  assert_int_equal(statistics.cached, KERNELS);
  for (size_t i = 0; i < GROUPS; i++) {
    const EmitImage *a = emit_group_image(fresh, i), *b = emit_group_image(cached, i);
    assert_string_equal(a->symbol, b->symbol);
    assert_int_equal(a->size, b->size);
    assert_memory_equal(a->data, b->data, a->size);
    assert_memory_equal(&a->resources, &b->resources, sizeof a->resources);
  }
  emit_groups_free(fresh);
  emit_groups_free(cached);
  files_in(folder, true);
  rmdir(folder);
  emit_target_free(target);
}

static void test_ptx(void **state) {
  EmitTarget *target = target_of("compute_90");
  EmitGroups *made = make(*state, target, NULL, NULL);
  for (size_t i = 0; i < GROUPS; i++) {
    const EmitImage *image = emit_group_image(made, i);
    char entry[80];
    snprintf(entry, sizeof entry, ".entry %s(", image->symbol);
    assert_non_null(strstr(image->data, entry));
  }
  /* pointers out of the tables are known to be global, and shared memory to be shared */
  const char *text = emit_group_image(made, 0)->data;
  static const char *const wanted[] = {"ld.global.f32", "st.global.v4.f32", "st.shared.f32", "bar.sync 1, "};
  static const char *const unknown[] = {"\tld.f32", "\tst.f32", "\tld.v4", "\tst.v4"};
  for (size_t i = 0; i < 4; i++) {
    if (!strstr(text, wanted[i])) fail_msg("there is no %s", wanted[i]);
    if (strstr(text, unknown[i])) fail_msg("there is %s", unknown[i]);
  }
  emit_groups_free(made);
  emit_target_free(target);
}

static void without_linker(void *fixture) {
  Err err = {{0}};
  setenv("ADWP_NVJITLINK", "/nowhere/libnvJitLink.so", 1);
  EmitTarget *target = emit_target_cuda("sm_90", &err);
  const Fixture *f = fixture;
  EmitGroups *made = emit_groups(target, (const LoopKernel *const *)f->kernels, KERNELS, groups, GROUPS, 1, NULL, NULL, &err);
  fprintf(stderr, "%s\n", made ? "made" : err.text);
  emit_target_free(target);
  _exit(0);
}

static void test_without_linker(void **state) {
  emit_target_free(target_of("sm_90"));
  char said[600];
  run_child(without_linker, *state, said, sizeof said);
  if (!strstr(said, "cannot open nvJitLink, which $ADWP_NVJITLINK says is `/nowhere/libnvJitLink.so`")) fail_msg("%s", said);
}

/* The same group again is a bug of the caller. */
static void twice(void *fixture) {
  const Fixture *f = fixture;
  const EmitGroup same[] = {{two, 2}, {two, 2}};
  Err err;
  emit_groups(f->emulator, (const LoopKernel *const *)f->kernels, KERNELS, same, 2, 1, NULL, NULL, &err);
  _exit(0);
}

static void test_the_same_group(void **state) {
  char said[600];
  run_child(twice, *state, said, sizeof said);
  assert_non_null(strstr(said, "group 1 is group 0 again"));
}

/* A kernel that does not fit is an error. */
static void test_refused(void **state) {
  Fixture *f = *state;
  LoopKernel *large =
      parse(f->arena, "kernel large lanes 32 { buffer y f32 out shared s f32[20000] %0 = load s[0] store y[0] = %0 }");
  const LoopKernel *kernels[] = {large};
  const EmitGroup group = {(uint32_t[]){0}, 1};
  Err err;
  assert_null(emit_groups(f->emulator, kernels, 1, &group, 1, 1, NULL, NULL, &err));
  assert_non_null(strstr(err.text, "kernel large does not fit a GPU"));
  loop_free_tables(large);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_cubin, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_cache, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_ptx, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_without_linker, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_the_same_group, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
