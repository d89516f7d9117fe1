/* Places every storage of a step in one arena: the largest first, each at the lowest offset where no storage that lives at the
 * same time is. Lifetimes are whole segments: launches of one segment run in any order. */
#include "compiler/pass/schedule.h"

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

static int by_offset(const void *a, const void *b) {
  const Storage *x = *(const Storage *const *)a, *y = *(const Storage *const *)b;
  return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The lowest gap between the placed storages that live together with `storage`. */
static int64_t lowest_gap(Storage **placed, size_t count, Storage **near, const Storage *storage) {
  size_t n = 0;
  for (size_t i = 0; i < count; i++)
    if (alive_together(placed[i], storage)) near[n++] = placed[i];
  qsort(near, n, sizeof *near, by_offset);
  int64_t at = 0;
  for (size_t i = 0; i < n; i++) {
    if (near[i]->offset - at >= rounded(storage->bytes)) break;
    int64_t end = near[i]->offset + rounded(near[i]->bytes);
    if (end > at) at = end;
  }
  return at;
}

void pass_plan(Schedule *schedule) {
  size_t count = schedule->storages.count, placed = 0, wanted = 0;
  Storage **order = memory_alloc((count + 1) * sizeof *order), **done = memory_alloc((count + 1) * sizeof *done),
          **near = memory_alloc((count + 1) * sizeof *near);
  for (size_t i = 0; i < count; i++)
    if (schedule->storages.data[i].parameter < 0) order[wanted++] = &schedule->storages.data[i];
  for (size_t i = 0; i < wanted; i++)
    if (order[i]->whole_step) {
      order[i]->first = 0;
      order[i]->last = schedule->segment_count;
    }
  qsort(order, wanted, sizeof *order, larger_first);
  schedule->arena_bytes = 0;
  for (size_t i = 0; i < wanted; i++) {
    Storage *storage = order[i];
    storage->offset = lowest_gap(done, placed, near, storage);
    done[placed++] = storage;
    int64_t end = storage->offset + rounded(storage->bytes);
    if (end > schedule->arena_bytes) schedule->arena_bytes = end;
  }
  free(order);
  free(done);
  free(near);
}

bool plan_check(const Schedule *schedule, Err *err) {
  for (size_t i = 0; i < schedule->storages.count; i++) {
    const Storage *a = &schedule->storages.data[i];
    if (a->parameter >= 0) continue;
    if (a->offset < 0 || a->offset % ALIGNMENT || a->offset + a->bytes > schedule->arena_bytes)
      return err_set(err, "storage %zu does not lie in the arena", i);
    for (size_t j = 0; j < i; j++) {
      const Storage *b = &schedule->storages.data[j];
      if (b->parameter >= 0 || !alive_together(a, b)) continue;
      if (a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes)
        return err_set(err, "storages %zu and %zu overlap while both live", j, i);
    }
  }
  return true;
}
