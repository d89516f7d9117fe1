/* Places every storage of a step in one arena: the largest first, each at the lowest offset where no storage that lives at the
 * same time is. Lifetimes are whole segments: launches of one segment run in any order. A run's own storages are placed in the
 * same way in a worker's scratch, with as many images as a task has; there a lifetime is some launches of the run. */
#include "compiler/pass/schedule.h"

#include <string.h>

enum { ALIGNMENT = 64 };

/* A storage as a piece of some memory, living from `first` to `last`. */
typedef struct Piece {
  Storage *storage;
  int64_t bytes;
  int32_t first, last;
} Piece;

typedef VECTOR(Piece) Pieces;

static bool alive_together(const Piece *a, const Piece *b) {
  return a->first <= b->last && b->first <= a->last;
}

static int64_t rounded(int64_t bytes) {
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int larger_first(const void *a, const void *b) {
  const Piece *x = a, *y = b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  if (x->first != y->first) return x->first < y->first ? -1 : 1;
  return x->storage < y->storage ? -1 : x->storage > y->storage;
}

/* The lowest gap between the placed pieces (in the order of their offsets) that live together with `piece`. */
static int64_t lowest_gap(const Piece *const *placed, size_t count, const Piece *piece) {
  int64_t at = 0;
  for (size_t i = 0; i < count; i++) {
    if (!alive_together(placed[i], piece)) continue;
    if (placed[i]->storage->offset - at >= rounded(piece->bytes)) break;
    int64_t end = placed[i]->storage->offset + rounded(placed[i]->bytes);
    if (end > at) at = end;
  }
  return at;
}

/* Keeps `placed` in the order of offsets. */
static void insert(const Piece **placed, size_t count, const Piece *piece) {
  size_t at = count;
  while (at > 0 && placed[at - 1]->storage->offset > piece->storage->offset) at--;
  memmove(placed + at + 1, placed + at, (count - at) * sizeof *placed);
  placed[at] = piece;
}

/* Gives every piece an offset; returns how many bytes that takes. */
static int64_t place_all(Pieces *pieces) {
  int64_t most = 0;
  const Piece **placed = memory_alloc((pieces->count + 1) * sizeof *placed);
  if (pieces->count) qsort(pieces->data, pieces->count, sizeof *pieces->data, larger_first);
  for (size_t i = 0; i < pieces->count; i++) {
    Piece *piece = &pieces->data[i];
    piece->storage->offset = lowest_gap(placed, i, piece);
    insert(placed, i, piece);
    int64_t end = piece->storage->offset + rounded(piece->bytes);
    if (end > most) most = end;
  }
  free(placed);
  return most;
}

static Pieces arena_pieces(const Schedule *schedule) {
  Pieces pieces = {0};
  for (size_t i = 0; i < schedule->storages.count; i++) {
    Storage *storage = &schedule->storages.data[i];
    if (storage->parameter >= 0 || storage->in_scratch) continue;
    if (storage->whole_step) {
      storage->first = 0;
      storage->last = schedule->segment_count;
    }
    vector_push(&pieces, ((Piece){storage, storage->bytes, storage->first, storage->last}));
  }
  return pieces;
}

/* Of the run that begins with launch `first`; `end` becomes the launch after it. `known` says 1 + a storage's piece. */
static Pieces run_pieces(const Schedule *schedule, size_t first, size_t *end, int32_t *known) {
  Pieces pieces = {0};
  size_t i = first;
  for (; i < schedule->launches.count && schedule->launches.data[i].run == schedule->launches.data[first].run; i++) {
    const PlannedLaunch *launch = &schedule->launches.data[i];
    for (int32_t b = 0; b < launch->buffer_count; b++) {
      int32_t number = launch->buffers[b].storage;
      Storage *storage = &schedule->storages.data[number];
      if (!storage->in_scratch) continue;
      if (!known[number]) {
        vector_push(&pieces, ((Piece){storage, storage->each_task ? storage->bytes : storage->image_bytes * launch->images,
                                      (int32_t)i, (int32_t)i}));
        known[number] = (int32_t)pieces.count;
      }
      pieces.data[known[number] - 1].last = (int32_t)i;
    }
  }
  *end = i;
  return pieces;
}

void pass_plan(Schedule *schedule) {
  Pieces pieces = arena_pieces(schedule);
  schedule->arena_bytes = place_all(&pieces);
  vector_free(&pieces);
  schedule->scratch_bytes = 0;
  int32_t *known = memory_alloc((schedule->storages.count + 1) * sizeof *known);
  for (size_t i = 0; i < schedule->launches.count;) {
    pieces = run_pieces(schedule, i, &i, known);
    int64_t bytes = place_all(&pieces);
    if (bytes > schedule->scratch_bytes) schedule->scratch_bytes = bytes;
    vector_free(&pieces);
  }
  free(known);
}

static int by_offset(const void *a, const void *b) {
  const Piece *x = a, *y = b;
  return x->storage->offset < y->storage->offset ? -1 : x->storage->offset > y->storage->offset;
}

static bool check_pieces(Pieces *pieces, int64_t bytes, const char *where, Err *err) {
  if (pieces->count) qsort(pieces->data, pieces->count, sizeof *pieces->data, by_offset);
  for (size_t i = 0; i < pieces->count; i++) {
    const Piece *a = &pieces->data[i];
    int64_t offset = a->storage->offset;
    if (offset < 0 || offset % ALIGNMENT || offset + a->bytes > bytes)
      return err_set(err, "a storage of %lld bytes at %lld does not lie in the %s", (long long)a->bytes, (long long)offset,
                     where);
    for (size_t j = i + 1; j < pieces->count && pieces->data[j].storage->offset < offset + a->bytes; j++)
      if (pieces->data[j].bytes > 0 && alive_together(a, &pieces->data[j]))
        return err_set(err, "the storages at %lld and %lld of the %s overlap while both live", (long long)offset,
                       (long long)pieces->data[j].storage->offset, where);
  }
  return true;
}

bool plan_check(const Schedule *schedule, Err *err) {
  Pieces pieces = arena_pieces(schedule);
  bool good = check_pieces(&pieces, schedule->arena_bytes, "arena", err);
  vector_free(&pieces);
  int32_t *known = memory_alloc((schedule->storages.count + 1) * sizeof *known);
  for (size_t i = 0; i < schedule->launches.count && good;) {
    pieces = run_pieces(schedule, i, &i, known);
    good = check_pieces(&pieces, schedule->scratch_bytes, "scratch", err);
    vector_free(&pieces);
  }
  free(known);
  return good;
}
