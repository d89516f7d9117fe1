/* Runs and groups of a GPU's launches, on schedules made by hand: what depends on each other stays together and in order, what
 * does not is apart, and segments with much the same kernels share a group. */
#include "compiler/pass/group.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { CHANNELS = 4, STRIDE = 8 };

typedef struct Fixture {
  Arena *arena;
  KernelSet kernels;
  Schedule schedule;
} Fixture;

/* Kernel i reads a tensor of CHANNELS channels and writes another one. */
static void add_kernels(Fixture *f, int count) {
  f->kernels.arena = f->arena;
  f->kernels.target.gpu = true;
  f->kernels.keys = memory_alloc((size_t)count * sizeof *f->kernels.keys);
  for (int i = 0; i < count; i++) {
    LoopKernel *kernel = loop_new(f->arena, "map", 32);
    loop_buffer(kernel, "x", LOOP_IN, LOOP_ELEMENT_F32);
    loop_buffer(kernel, "y", LOOP_OUT, LOOP_ELEMENT_F32);
    MapSpec *spec = ARENA_NEW(f->arena, MapSpec);
    spec->channels = CHANNELS;
    vector_push(&f->kernels.kernels, kernel);
    f->kernels.keys[i] = (KernelKey){.family = FAMILY_MAP, .spec = spec};
  }
}

/* From channel `from` of storage `in` to channel `to` of storage `out`. */
static void add_launch(Fixture *f, int32_t segment, int32_t kernel, int32_t in, int32_t from, int32_t out, int32_t to) {
  Place *places = ARENA_ARRAY(f->arena, Place, 2);
  places[0] = (Place){in, from, STRIDE};
  places[1] = (Place){out, to, STRIDE};
  PlannedLaunch launch = {.kernel = kernel,
                          .segment = segment,
                          .order = (int32_t)f->schedule.launches.count,
                          .buffers = places,
                          .buffer_count = 2,
                          .images = 1,
                          .tasks = 1};
  vector_push(&f->schedule.launches, launch);
  if (segment >= f->schedule.segment_count) f->schedule.segment_count = segment + 1;
}

static PlannedLaunch *last(Fixture *f) {
  return &f->schedule.launches.data[f->schedule.launches.count - 1];
}

/* The launches as "order:run" in the order in which they stand, runs counted from 0. */
static const char *shown(Fixture *f) {
  Text text = {0};
  text_add(&text, "");
  for (size_t i = 0; i < f->schedule.launches.count; i++)
    text_printf(&text, "%s%d:%d", i ? " " : "", f->schedule.launches.data[i].order, f->schedule.launches.data[i].run);
  const char *copy = arena_copy_string(f->arena, text.data, text.length);
  text_free(&text);
  return copy;
}

static int set_up(void **state) {
  Fixture *f = memory_alloc(sizeof *f);
  f->arena = arena_new();
  add_kernels(f, 80);
  *state = f;
  return 0;
}

static int tear_down(void **state) {
  Fixture *f = *state;
  for (size_t i = 0; i < f->kernels.kernels.count; i++) loop_free_tables(f->kernels.kernels.data[i]);
  vector_free(&f->kernels.kernels);
  vector_free(&f->schedule.launches);
  free(f->kernels.keys);
  arena_free(f->arena);
  free(f);
  return 0;
}

/* 0 -> 2 -> 3 is a chain, 1 has nothing to do with it; the chain comes first. The next segment begins anew. */
static void test_chain(void **state) {
  Fixture *f = *state;
  add_launch(f, 0, 0, 0, 0, 1, 0);
  add_launch(f, 0, 1, 0, 0, 2, 0);
  add_launch(f, 0, 2, 1, 0, 3, 0);
  add_launch(f, 0, 3, 3, 0, 4, 0);
  add_launch(f, 1, 4, 4, 0, 5, 0);
  pass_group_runs(&f->schedule, &f->kernels);
  assert_string_equal(shown(f), "0:0 2:0 3:0 1:1 4:2");
  assert_int_equal(f->schedule.run_count, 3);
}

/* Launches come in the order in which they were made, whatever their segments. */
static void test_segments_are_sorted(void **state) {
  Fixture *f = *state;
  add_launch(f, 1, 0, 0, 0, 1, 0);
  add_launch(f, 0, 1, 0, 0, 2, 0);
  add_launch(f, 1, 2, 1, 0, 3, 0);
  pass_group_runs(&f->schedule, &f->kernels);
  assert_string_equal(shown(f), "1:0 0:1 2:1");
}

/* Two parts of a concatenation are apart, also for who reads one of them; who reads across both joins them. */
static void test_concatenation(void **state) {
  Fixture *f = *state;
  add_launch(f, 0, 0, 0, 0, 1, 0);
  add_launch(f, 0, 1, 0, 0, 1, CHANNELS);
  add_launch(f, 0, 2, 1, CHANNELS, 2, 0);
  pass_group_runs(&f->schedule, &f->kernels);
  assert_string_equal(shown(f), "1:0 2:0 0:1");
  add_launch(f, 0, 3, 1, CHANNELS / 2, 3, 0);
  pass_group_runs(&f->schedule, &f->kernels);
  assert_string_equal(shown(f), "0:0 1:0 2:0 3:0");
}

/* Two that only read the same are apart; one that overwrites what another reads comes after it. */
static void test_readers(void **state) {
  Fixture *f = *state;
  add_launch(f, 0, 0, 0, 0, 1, 0);
  add_launch(f, 0, 1, 0, 0, 2, 0);
  pass_group_runs(&f->schedule, &f->kernels);
  assert_string_equal(shown(f), "0:0 1:1");
  add_launch(f, 0, 2, 3, 0, 0, 0);
  pass_group_runs(&f->schedule, &f->kernels);
  assert_string_equal(shown(f), "0:0 1:0 2:0");
}

/* Bands and products are by themselves, products last; a task of the whole batch is no image's. */
static void test_alone(void **state) {
  Fixture *f = *state;
  add_launch(f, 0, 0, 0, 0, 1, 0);
  last(f)->kernel = -1;
  add_launch(f, 0, 1, 0, 0, 2, 0);
  last(f)->tasks = 2;
  add_launch(f, 0, 2, 2, 0, 3, 0);
  add_launch(f, 0, 3, 2, 0, 4, 0);
  last(f)->images = 0;
  pass_group_runs(&f->schedule, &f->kernels);
  assert_string_equal(shown(f), "1:0 2:1 3:2 0:3");
}

static void test_groups(void **state) {
  Fixture *f = *state;
  GroupSet groups = {.arena = f->arena};
  int32_t *of_segment[1];
  const Schedule *schedules[] = {&f->schedule};
  static const int32_t kernels[][5] = {{3, 1, 2, 1, 9}, {2, 3, 4, 4, 3}, {7, 8, 7, 8, 8}, {1, 1, 1, 1, 1}};
  for (int32_t s = 0; s < 4; s++)
    for (int i = 0; i < 5; i++) add_launch(f, s, kernels[s][i], 0, 0, 10 * s + i + 1, 0);
  add_launch(f, 4, 0, 0, 0, 1, 0);
  last(f)->kernel = -1;
  pass_group(schedules, 1, &groups, of_segment);
  assert_int_equal(groups.groups.count, 2);
  assert_memory_equal(groups.groups.data[0].kernels, ((uint32_t[]){1, 2, 3, 4, 9}), 5 * sizeof(uint32_t));
  assert_int_equal(groups.groups.data[0].count, 5);
  assert_memory_equal(groups.groups.data[1].kernels, ((uint32_t[]){7, 8}), 2 * sizeof(uint32_t));
  assert_memory_equal(of_segment[0], ((int32_t[]){0, 0, 1, 0, -1}), 5 * sizeof(int32_t));
  for (int32_t s = 0; s < 4; s++)
    for (int i = 0; i < 5; i++) {
      const KernelGroup *group = &groups.groups.data[of_segment[0][s]];
      assert_int_equal(group->kernels[group_body(group, kernels[s][i])], kernels[s][i]);
    }
  vector_free(&groups.groups);
}

/* A group that segments share does not grow without end. */
static void test_large_groups(void **state) {
  Fixture *f = *state;
  GroupSet groups = {.arena = f->arena};
  int32_t *of_segment[1];
  const Schedule *schedules[] = {&f->schedule};
  for (int32_t s = 0; s < 2; s++)
    for (int32_t i = 0; i < 50; i++) add_launch(f, s, 20 * s + i, 0, 0, 100 * s + i + 1, 0);
  pass_group(schedules, 1, &groups, of_segment);
  assert_int_equal(groups.groups.count, 2);
  assert_int_not_equal(of_segment[0][0], of_segment[0][1]);
  vector_free(&groups.groups);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_chain, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_segments_are_sorted, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_concatenation, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_readers, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_alone, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_groups, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_large_groups, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
