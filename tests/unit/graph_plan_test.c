/* The memory plan: random lifetimes never overlap in the arena, the arena is not wasted, and the checker sees a plan that is
 * wrong. */
#include "compiler/pass/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static uint64_t state = 7;

static int32_t draw(int32_t below) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (int32_t)((state >> 33) % (uint64_t)below);
}

/* Storages whose lifetimes fill `segments`; the most bytes that ever live at once go to `peak`. */
static Schedule random_schedule(int32_t count, int32_t segments, int64_t *peak) {
  Schedule schedule = {.segment_count = segments};
  for (int32_t i = 0; i < count; i++) {
    int32_t first = draw(segments);
    Storage storage = {
        .parameter = draw(10) ? -1 : i, .bytes = 64 * (1 + draw(100)), .first = first, .last = first + draw(segments - first)};
    storage.whole_step = draw(20) == 0;
    vector_push(&schedule.storages, storage);
  }
  *peak = 0;
  for (int32_t s = 0; s < segments; s++) {
    int64_t live = 0;
    for (size_t i = 0; i < schedule.storages.count; i++) {
      const Storage *storage = &schedule.storages.data[i];
      bool alive = storage->whole_step || (storage->first <= s && s <= storage->last);
      if (storage->parameter < 0 && alive) live += storage->bytes;
    }
    if (live > *peak) *peak = live;
  }
  return schedule;
}

static void plans_are_right(void **unused) {
  (void)unused;
  for (int i = 0; i < 50; i++) {
    int64_t peak;
    Schedule schedule = random_schedule(1 + draw(200), 1 + draw(40), &peak);
    pass_plan(&schedule);
    Err err;
    if (!plan_check(&schedule, &err)) fail_msg("%s", err.text);
    assert_true(schedule.arena_bytes >= peak && schedule.arena_bytes <= 2 * peak);
    schedule_free(&schedule);
  }
}

static void wrong_plans_are_seen(void **unused) {
  (void)unused;
  int caught = 0;
  for (int i = 0; i < 50; i++) {
    int64_t peak;
    Schedule schedule = random_schedule(40, 1, &peak); /* all live together */
    pass_plan(&schedule);
    size_t victim = (size_t)draw(40);
    Storage *storage = &schedule.storages.data[victim];
    if (storage->parameter < 0) {
      storage->offset += i % 2 ? 64 : -64;
      Err err;
      assert_false(plan_check(&schedule, &err));
      caught++;
    }
    schedule_free(&schedule);
  }
  assert_true(caught > 30);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(plans_are_right), cmocka_unit_test(wrong_plans_are_seen)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
