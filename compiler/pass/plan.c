/* Places every storage of a step in one arena: the largest first, each at the lowest offset where no storage that lives at the
 * same time is. Lifetimes are whole segments: launches of one segment run in any order. */
#include "compiler/pass/schedule.h"

#include <string.h>

enum { ALIGNMENT = 64 };

static bool alive_together(const Storage *a, const Storage *b) {
  return a->first <= b->last && b->first <= a->last;
}

static int64_t rounded(int64_t bytes) {
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int larger_first(const void *a, const void *b) {
  const Storage *x = *(const Storage *const *)a, *y = *(const Storage *const *)b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  if (x->first != y->first) return x->first < y->first ? -1 : 1;
  return x < y ? -1 : x > y;
}

/* The lowest gap between the placed storages (in the order of their offsets) that live together with `storage`. */
static int64_t lowest_gap(Storage *const *placed, size_t count, const Storage *storage) {
  int64_t at = 0;
  for (size_t i = 0; i < count; i++) {
    if (!alive_together(placed[i], storage)) continue;
    if (placed[i]->offset - at >= rounded(storage->bytes)) break;
    int64_t end = placed[i]->offset + rounded(placed[i]->bytes);
    if (end > at) at = end;
  }
  return at;
}

/* Keeps `placed` in the order of offsets. */
static void insert(Storage **placed, size_t count, Storage *storage) {
  size_t at = count;
  while (at > 0 && placed[at - 1]->offset > storage->offset) at--;
  memmove(placed + at + 1, placed + at, (count - at) * sizeof *placed);
  placed[at] = storage;
}

void pass_plan(Schedule *schedule) {
  size_t count = schedule->storages.count, wanted = 0;
  Storage **order = memory_alloc((count + 1) * sizeof *order), **placed = memory_alloc((count + 1) * sizeof *placed);
  for (size_t i = 0; i < count; i++) {
    Storage *storage = &schedule->storages.data[i];
    if (storage->parameter >= 0) continue;
    order[wanted++] = storage;
    if (!storage->whole_step) continue;
    storage->first = 0;
    storage->last = schedule->segment_count;
  }
  qsort(order, wanted, sizeof *order, larger_first);
  schedule->arena_bytes = 0;
  for (size_t i = 0; i < wanted; i++) {
    order[i]->offset = lowest_gap(placed, i, order[i]);
    insert(placed, i, order[i]);
    int64_t end = order[i]->offset + rounded(order[i]->bytes);
    if (end > schedule->arena_bytes) schedule->arena_bytes = end;
  }
  free(order);
  free(placed);
}

static int by_offset(const void *a, const void *b) {
  const Storage *x = *(const Storage *const *)a, *y = *(const Storage *const *)b;
  return x->offset < y->offset ? -1 : x->offset > y->offset;
}

bool plan_check(const Schedule *schedule, Err *err) {
  size_t count = 0;
  const Storage **order = memory_alloc((schedule->storages.count + 1) * sizeof *order);
  for (size_t i = 0; i < schedule->storages.count; i++)
    if (schedule->storages.data[i].parameter < 0) order[count++] = &schedule->storages.data[i];
  qsort(order, count, sizeof *order, by_offset);
  bool good = true;
  for (size_t i = 0; i < count && good; i++) {
    const Storage *a = order[i];
    if (a->offset < 0 || a->offset % ALIGNMENT || a->offset + a->bytes > schedule->arena_bytes)
      good = err_set(err, "a storage of %lld bytes at %lld does not lie in the arena", (long long)a->bytes, (long long)a->offset);
    for (size_t j = i + 1; j < count && good && order[j]->offset < a->offset + a->bytes; j++)
      if (order[j]->bytes > 0 && alive_together(a, order[j]))
        good = err_set(err, "the storages at %lld and %lld overlap while both live", (long long)a->offset,
                       (long long)order[j]->offset);
  }
  free(order);
  return good;
}
