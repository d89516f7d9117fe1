/* Bytes that launches move, on schedules made by hand: whom a value's bytes are counted to, what a run finds in the caches, what
 * stays in scratch, views of some channels, and values that are read and written. */
#include "compiler/traffic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 10, ELEMENTS = 1000, BYTES = 4 * ELEMENTS };

typedef struct Fixture {
  Arena *arena;
  KernelSet kernels; /* 0: reads x, writes y. 1: reads x only (as MOMENTS of 2 channels of 5x5). 2: updates x */
  Schedule schedule;
  MomentsSpec moments;
  VectorSpec vector;
} Fixture;

static void add_kernel(Fixture *f, LoopSpace x, bool y, Family family, const void *spec) {
  LoopKernel *kernel = loop_new(f->arena, "kernel", 8);
  loop_buffer(kernel, "x", x, LOOP_ELEMENT_F32);
  if (y) loop_buffer(kernel, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  vector_push(&f->kernels.kernels, kernel);
  KernelKey key = {.family = family, .spec = spec};
  f->kernels.keys[f->kernels.kernels.count - 1] = key;
}

static int set_up(void **state) {
  Fixture *f = memory_alloc(sizeof *f);
  f->arena = arena_new();
  f->moments.in = (Plane){.channels = 2, .height = 5, .width = 5, .stride = 4};
  f->kernels.keys = memory_alloc(3 * sizeof *f->kernels.keys);
  add_kernel(f, LOOP_IN, true, FAMILY_SQRT, &f->vector);
  add_kernel(f, LOOP_IN, false, FAMILY_MOMENTS, &f->moments);
  add_kernel(f, LOOP_INOUT, false, FAMILY_SQRT, &f->vector);
  for (int i = 0; i < 4; i++) {
    Storage storage = {.parameter = -1, .element = LOOP_ELEMENT_F32, .bytes = BYTES, .in_scratch = i == 3};
    vector_push(&f->schedule.storages, storage);
  }
  *state = f;
  return 0;
}

static int tear_down(void **state) {
  Fixture *f = *state;
  for (size_t i = 0; i < f->kernels.kernels.count; i++) loop_free_tables(f->kernels.kernels.data[i]);
  vector_free(&f->kernels.kernels);
  free(f->kernels.keys);
  vector_free(&f->schedule.storages);
  vector_free(&f->schedule.launches);
  arena_free(f->arena);
  free(f);
  return 0;
}

/* A launch of run `run` that reads (or updates) storage x and writes storage y. */
static void launch(Fixture *f, int32_t kernel, int32_t run, int32_t x, int32_t y) {
  Place *places = ARENA_ARRAY(f->arena, Place, 2);
  places[0] = (Place){.storage = x};
  places[1] = (Place){.storage = y};
  PlannedLaunch one = {.kernel = kernel, .run = run, .buffers = places, .buffer_count = kernel == 0 ? 2 : 1};
  vector_push(&f->schedule.launches, one);
}

static void expect(const Traffic *traffic, int64_t read, int64_t written, int64_t least) {
  assert_int_equal(traffic->read, read);
  assert_int_equal(traffic->written, written);
  assert_int_equal(traffic->least, least);
}

static void test_readers_share_what_one_read_would_take(void **state) {
  Fixture *f = *state;
  launch(f, 0, 0, 0, 1);
  launch(f, 0, 1, 1, 2);
  launch(f, 0, 2, 1, 0);
  const Traffic *traffic = traffic_of(&f->schedule, &f->kernels, BATCH, f->arena);
  expect(&traffic[0], BYTES, BYTES, 2 * BYTES);
  expect(&traffic[1], BYTES, BYTES, BYTES / 2 + BYTES);
  expect(&traffic[2], BYTES, BYTES, BYTES / 2 + BYTES);
}

static void test_a_run_finds_in_the_caches_what_it_touched(void **state) {
  Fixture *f = *state;
  launch(f, 0, 0, 0, 1); /* 0 is read, 1 written */
  launch(f, 0, 0, 1, 2); /* 1 was just written */
  launch(f, 0, 0, 0, 1); /* 0 was just read, 1 is written again */
  launch(f, 0, 1, 0, 2); /* another run reads 0 again and writes 2 again */
  const Traffic *traffic = traffic_of(&f->schedule, &f->kernels, BATCH, f->arena);
  expect(&traffic[0], BYTES, BYTES, BYTES / 2 + BYTES);
  expect(&traffic[1], 0, BYTES, BYTES / 2);
  expect(&traffic[2], 0, 0, 0);
  expect(&traffic[3], BYTES, BYTES, BYTES);
}

static void test_a_gpu_has_no_runs(void **state) {
  Fixture *f = *state;
  f->kernels.target.gpu = true;
  launch(f, 0, 0, 0, 1);
  launch(f, 0, 0, 1, 2);
  const Traffic *traffic = traffic_of(&f->schedule, &f->kernels, BATCH, f->arena);
  expect(&traffic[1], BYTES, BYTES, 2 * BYTES);
}

static void test_scratch_is_no_traffic(void **state) {
  Fixture *f = *state;
  launch(f, 0, 0, 0, 3);
  launch(f, 0, 0, 3, 1);
  const Traffic *traffic = traffic_of(&f->schedule, &f->kernels, BATCH, f->arena);
  expect(&traffic[0], BYTES, 0, BYTES);
  expect(&traffic[1], 0, BYTES, BYTES);
}

static void test_a_view_is_as_large_as_its_channels(void **state) {
  Fixture *f = *state;
  launch(f, 1, 0, 0, 0);
  const Traffic *traffic = traffic_of(&f->schedule, &f->kernels, BATCH, f->arena);
  expect(&traffic[0], 4 * 2 * 5 * 5 * BATCH, 0, 4 * 2 * 5 * 5 * BATCH);
  traffic = traffic_of(&f->schedule, &f->kernels, 1000, f->arena); /* never more than there is */
  expect(&traffic[0], BYTES, 0, BYTES);
}

static void test_an_update_reads_and_writes(void **state) {
  Fixture *f = *state;
  launch(f, 2, 0, 0, 0);
  launch(f, 2, 1, 0, 0);
  const Traffic *traffic = traffic_of(&f->schedule, &f->kernels, BATCH, f->arena);
  expect(&traffic[0], BYTES, BYTES, BYTES);
  expect(&traffic[1], BYTES, BYTES, BYTES);
}

static void test_products_of_the_library(void **state) {
  Fixture *f = *state;
  Place places[] = {{.storage = 0}, {.storage = 1}, {.storage = 2}};
  ProgramProduct product = {.m = 3, .n = 5, .k = 7, .batch_m = true, .beta = 1};
  PlannedLaunch one = {.kernel = -1, .product = &product, .buffers = places, .buffer_count = 3};
  vector_push(&f->schedule.launches, one);
  f->kernels.target.gpu = true;
  const Traffic *traffic = traffic_of(&f->schedule, &f->kernels, BATCH, f->arena);
  expect(&traffic[0], 4 * (3 * BATCH * 7 + 7 * 5 + 3 * BATCH * 5), 4 * 3 * BATCH * 5,
         4 * (3 * BATCH * 7 + 35 + 2 * 3 * BATCH * 5));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(test_readers_share_what_one_read_would_take),
      TEST(test_a_run_finds_in_the_caches_what_it_touched),
      TEST(test_a_gpu_has_no_runs),
      TEST(test_scratch_is_no_traffic),
      TEST(test_a_view_is_as_large_as_its_channels),
      TEST(test_an_update_reads_and_writes),
      TEST(test_products_of_the_library),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
