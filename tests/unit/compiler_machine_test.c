/* The machine's figures: an estimate where nothing was measured, what was measured comes back from its file, every flipped bit
 * and every cut of the file is found, and what was measured of other numbers of threads is not taken for it. */
#include "compiler/emit/emit.h"
#include "compiler/machine.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct Fixture {
  EmitTarget *target;
  MachineFigures measured; /* once, for all tests */
  char folder[64], path[512];
} Fixture;

static int set_up(void **state) {
  Fixture *f = calloc(1, sizeof *f);
  Err err;
  f->target = emit_target_new(NULL, false, &err);
  if (!f->target) fail_msg("%s", err.text);
  snprintf(f->folder, sizeof f->folder, "compiler-machine-test-XXXXXX");
  assert_non_null(mkdtemp(f->folder));
  if (!machine_measure(f->target, 1, f->folder, &f->measured, &err)) fail_msg("%s", err.text);
  DIR *folder = opendir(f->folder);
  assert_non_null(folder);
  for (struct dirent *entry; (entry = readdir(folder));)
    if (entry->d_name[0] != '.') snprintf(f->path, sizeof f->path, "%s/%s", f->folder, entry->d_name);
  closedir(folder);
  *state = f;
  return 0;
}

static int tear_down(void **state) {
  Fixture *f = *state;
  unlink(f->path);
  rmdir(f->folder);
  emit_target_free(f->target);
  free(f);
  return 0;
}

static void test_estimate_where_nothing_was_measured(void **state) {
  const Fixture *f = *state;
  MachineFigures figures;
  const char *fault = "none";
  machine_figures(f->target, 3, NULL, &figures, &fault);
  assert_null(fault);
  assert_false(figures.measured);
  assert_int_equal(figures.threads, 3);
  machine_figures(f->target, 3, f->folder, &figures, &fault); /* one thread was measured */
  assert_null(fault);
  assert_false(figures.measured);
  MachineFigure list[MACHINE_FIGURES];
  machine_list(&figures, list);
  for (int i = 0; i < MACHINE_FIGURES; i++) assert_true(list[i].value > 0 && list[i].name[0] && list[i].what[0]);
}

static void test_what_was_measured_is_kept(void **state) {
  const Fixture *f = *state;
  MachineFigures figures, measured = f->measured;
  const char *fault = "none";
  machine_figures(f->target, 1, f->folder, &figures, &fault);
  assert_null(fault);
  assert_true(figures.measured);
  assert_int_equal(figures.threads, 1);
  for (int i = 0; i < MACHINE_FIGURES; i++) {
    double kept = *machine_place(&figures, i), seen = *machine_place(&measured, i);
    assert_true(kept > 0.9999 * seen && kept < 1.0001 * seen);
  }
}

/* Bounds that any machine of the last ten years keeps, sanitizers or not, since what is timed is generated code. */
static void test_figures_are_of_a_machine(void **state) {
  const Fixture *f = *state;
  const MachineFigures *figures = &f->measured;
  assert_true(figures->fma_one > 2e9 && figures->fma_one < 1e12);
  assert_true(figures->fma_all > 0.3 * figures->fma_one && figures->fma_all < 3 * figures->fma_one);
  assert_true(figures->memory_read > 0.5e9 && figures->memory_read < 1e12);
  assert_true(figures->memory_write > 0.3e9 && figures->memory_scale > 0.3e9);
  assert_true(figures->cache2_read > figures->memory_read);
  assert_true(figures->launch < 0.01);
}

static void expect_damaged(const Fixture *f, const char *data, size_t size) {
  MachineFigures figures;
  const char *fault = NULL;
  FILE *file = fopen(f->path, "w"); /* file_replace would wait for the disk, some hundred times */
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
  machine_figures(f->target, 1, f->folder, &figures, &fault);
  assert_false(figures.measured);
  assert_non_null(fault);
  assert_true(figures.fma_all > 0);
}

static void test_every_damage_is_found(void **state) {
  Fixture *f = *state;
  char *data;
  size_t size;
  Err err;
  assert_true(file_read(f->path, 1 << 14, &data, &size, &err));
  char *broken = malloc(2 * size);
  for (size_t at = 0; at < size; at++) {
    memcpy(broken, data, size);
    broken[at] = (char)(broken[at] ^ 1 << at % 8);
    expect_damaged(f, broken, size);
  }
  for (size_t length = 0; length < size; length += 7) expect_damaged(f, data, length);
  memcpy(broken, data, size);
  memcpy(broken + size, data, size);
  expect_damaged(f, broken, 2 * size);
  unlink(f->path);
  mkdir(f->path, 0700);
  MachineFigures figures;
  machine_figures(f->target, 1, f->folder, &figures, NULL);
  assert_false(figures.measured);
  rmdir(f->path);
  assert_true(file_replace(f->path, data, size, &err));
  machine_figures(f->target, 1, f->folder, &figures, NULL);
  assert_true(figures.measured);
  free(broken);
  free(data);
}

/* What is whole, but of another machine, such as a file that somebody copied. */
static void test_figures_of_others_are_not_taken(void **state) {
  const Fixture *f = *state;
  char *data;
  size_t size;
  Err err;
  assert_true(file_read(f->path, 1 << 14, &data, &size, &err));
  char *threads = strstr(data, "threads 1"), *check = strstr(data, "check ");
  assert_non_null(threads);
  assert_non_null(check);
  threads[strlen("threads ")] = '2';
  HashName right = hash_name(data, (size_t)(check - data));
  memcpy(check + strlen("check "), right.hex, 32);
  expect_damaged(f, data, size);
  free(data);
}

static void test_a_folder_that_others_can_write_is_not_used(void **state) {
  Fixture *f = *state;
  MachineFigures figures;
  const char *fault = NULL;
  Err err;
  assert_int_equal(chmod(f->folder, 0777), 0);
  machine_figures(f->target, 1, f->folder, &figures, &fault);
  assert_false(figures.measured);
  assert_non_null(strstr(fault, "other users"));
  assert_false(machine_measure(f->target, 1, f->folder, &figures, &err));
  assert_non_null(strstr(err.text, "other users"));
  assert_int_equal(chmod(f->folder, 0700), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_estimate_where_nothing_was_measured),
      cmocka_unit_test(test_what_was_measured_is_kept),
      cmocka_unit_test(test_figures_are_of_a_machine),
      cmocka_unit_test(test_every_damage_is_found),
      cmocka_unit_test(test_figures_of_others_are_not_taken),
      cmocka_unit_test(test_a_folder_that_others_can_write_is_not_used),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
