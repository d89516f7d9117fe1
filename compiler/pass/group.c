/* Launches of one segment share one launch of a GPU: its blocks are divided among them.
 *
 * The scheduler puts a launch into the segment of what it reads where both have one task or do one image a task. Such launches
 * must be done by one block, in order; the others of the segment should be spread over many blocks. So runs are the connected
 * parts of the graph whose edges are conflicts: two launches touch the same elements, and one of them writes. Where in a
 * concatenation a launch reads is told by its channels.
 *
 * A group is a set of kernels that one kernel of the GPU can call. A segment takes the smallest group that has all of its
 * kernels: groups that lie inside another are not made, so that there are fewer to compile. */
#include "compiler/pass/group.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_BODIES = 64 }; /* of a group that segments share */

/* ---- conflicts ---- */

typedef struct Access {
  int32_t storage, launch;
  bool writes;
  int64_t offset;
  int32_t stride;
  int64_t channels; /* from `offset` on, of each pixel; INT64_MAX: unknown */
} Access;

static int32_t wider(Plane a, Plane b) {
  return a.channels > b.channels ? a.channels : b.channels;
}

/* The most channels of a tensor that the kernel touches. */
static int64_t most_channels(const KernelKey *key) {
  switch (key->family) {
  case FAMILY_CONV:
  case FAMILY_CONV_GRAD_INPUT:
  case FAMILY_CONV_GRAD_WEIGHT: return wider(((const ConvSpec *)key->spec)->in, ((const ConvSpec *)key->spec)->out);
  case FAMILY_POOL:
  case FAMILY_POOL_GRAD: return wider(((const PoolSpec *)key->spec)->in, ((const PoolSpec *)key->spec)->out);
  case FAMILY_SHIFT:
  case FAMILY_UNSHIFT: return wider(((const ShiftSpec *)key->spec)->in, ((const ShiftSpec *)key->spec)->out);
  case FAMILY_MOMENTS:
  case FAMILY_GLOBAL_MEAN: return ((const MomentsSpec *)key->spec)->in.channels;
  case FAMILY_MAP: {
    const MapSpec *map = key->spec;
    return map->flat ? INT64_MAX : map->channels;
  }
  default: return INT64_MAX;
  }
}

static int by_storage(const void *a, const void *b) {
  const Access *x = a, *y = b;
  return x->storage != y->storage ? (x->storage < y->storage ? -1 : 1) : x->launch - y->launch;
}

/* Tensors of one stride in one storage lie side by side. */
static bool apart(const Access *a, const Access *b) {
  if (a->stride <= 0 || a->stride != b->stride || a->channels == INT64_MAX || b->channels == INT64_MAX) return false;
  int64_t x = a->offset % a->stride, y = b->offset % b->stride;
  return x + a->channels <= y || y + b->channels <= x;
}

/* ---- runs ---- */

static int32_t root_of(int32_t *parent, int32_t i) {
  while (parent[i] != i) i = parent[i] = parent[parent[i]];
  return i;
}

/* Whether a block may do it before or after another launch. */
static bool joinable(const PlannedLaunch *launch) {
  return launch->kernel >= 0 && launch->tasks == 1;
}

/* Joins the launches [first, end) that conflict; those that cannot be joined do not depend on any other of the segment. */
static void join(const Schedule *schedule, const KernelSet *kernels, int32_t first, int32_t end, int32_t *parent) {
  VECTOR(Access) all = {0};
  for (int32_t l = first; l < end; l++) {
    const PlannedLaunch *launch = &schedule->launches.data[l];
    if (!joinable(launch)) continue;
    const LoopKernel *kernel = kernels->kernels.data[launch->kernel];
    int64_t channels = most_channels(&kernels->keys[launch->kernel]);
    for (int32_t b = 0; b < launch->buffer_count; b++) {
      Place place = launch->buffers[b];
      Access access = {place.storage, l, kernel->arrays.data[b].space != LOOP_IN, place.offset, place.stride, channels};
      vector_push(&all, access);
    }
  }
  if (all.count) qsort(all.data, all.count, sizeof *all.data, by_storage);
  for (size_t i = 0; i < all.count; i++)
    for (size_t j = i + 1; j < all.count && all.data[j].storage == all.data[i].storage; j++) {
      const Access *a = &all.data[i], *b = &all.data[j];
      bool alike = schedule->launches.data[a->launch].images == schedule->launches.data[b->launch].images;
      if (alike && (a->writes || b->writes) && !apart(a, b)) parent[root_of(parent, b->launch)] = root_of(parent, a->launch);
    }
  vector_free(&all);
}

/* Long runs first: theirs are the blocks that end last. */
static int by_run(const void *a, const void *b) {
  const PlannedLaunch *x = a, *y = b;
  if (x->segment != y->segment) return x->segment < y->segment ? -1 : 1;
  if (x->run != y->run) return x->run < y->run ? -1 : 1;
  return x->order < y->order ? -1 : x->order > y->order;
}

typedef struct Run {
  int32_t launch, count; /* its first */
  bool product;
} Run;

static int longer_first(const void *a, const void *b) {
  const Run *x = a, *y = b;
  if (x->product != y->product) return x->product ? 1 : -1;
  if (x->count != y->count) return x->count > y->count ? -1 : 1;
  return x->launch - y->launch;
}

static void number_runs(Schedule *schedule, int32_t first, int32_t end, int32_t *parent, Run *runs) {
  int32_t count = 0, *at = memory_alloc((size_t)(end - first) * sizeof *at);
  for (int32_t l = first; l < end; l++) {
    int32_t root = root_of(parent, l) - first;
    if (!at[root]) {
      runs[count++] = (Run){.launch = root + first, .product = schedule->launches.data[l].kernel < 0};
      at[root] = count;
    }
    runs[at[root] - 1].count++;
  }
  qsort(runs, (size_t)count, sizeof *runs, longer_first);
  for (int32_t r = 0; r < count; r++) at[runs[r].launch - first] = schedule->run_count + r;
  for (int32_t l = first; l < end; l++) schedule->launches.data[l].run = at[root_of(parent, l) - first];
  schedule->run_count += count;
  free(at);
}

void pass_group_runs(Schedule *schedule, const KernelSet *kernels) {
  int32_t count = (int32_t)schedule->launches.count;
  int32_t *parent = memory_alloc(((size_t)count + 1) * sizeof *parent);
  Run *runs = memory_alloc(((size_t)count + 1) * sizeof *runs);
  schedule->run_count = 0;
  for (int32_t l = 0; l < count; l++) {
    schedule->launches.data[l].run = 0;
    parent[l] = l;
  }
  if (count) qsort(schedule->launches.data, (size_t)count, sizeof *schedule->launches.data, by_run);
  for (int32_t first = 0, end; first < count; first = end) {
    for (end = first; end < count && schedule->launches.data[end].segment == schedule->launches.data[first].segment;) end++;
    join(schedule, kernels, first, end, parent);
    number_runs(schedule, first, end, parent, runs);
  }
  free(parent);
  free(runs);
  if (count) qsort(schedule->launches.data, (size_t)count, sizeof *schedule->launches.data, by_run);
}

/* ---- groups ---- */

static int by_number(const void *a, const void *b) {
  const uint32_t *x = a, *y = b;
  return *x < *y ? -1 : *x > *y;
}

uint32_t group_body(const KernelGroup *group, int32_t kernel) {
  for (uint32_t i = 0; i < group->count; i++)
    if (group->kernels[i] == (uint32_t)kernel) return i;
  die("kernel %d is not in the group", kernel);
}

/* The kernels of a segment's launches, from launch `*at` on; moves it behind them. */
static KernelGroup kernels_of_segment(const Schedule *schedule, int32_t segment, size_t *at, Arena *arena) {
  size_t first = *at;
  while (*at < schedule->launches.count && schedule->launches.data[*at].segment == segment) ++*at;
  KernelGroup group = {ARENA_ARRAY(arena, uint32_t, *at - first + 1), 0};
  for (size_t l = first; l < *at; l++)
    if (schedule->launches.data[l].kernel >= 0) group.kernels[group.count++] = (uint32_t)schedule->launches.data[l].kernel;
  qsort(group.kernels, group.count, sizeof *group.kernels, by_number);
  uint32_t kept = 0;
  for (uint32_t i = 0; i < group.count; i++)
    if (!kept || group.kernels[kept - 1] != group.kernels[i]) group.kernels[kept++] = group.kernels[i];
  group.count = kept;
  return group;
}

static uint32_t shared_with(const KernelGroup *large, const KernelGroup *small) {
  uint32_t found = 0;
  for (uint32_t i = 0, j = 0; i < large->count && j < small->count;) {
    found += large->kernels[i] == small->kernels[j];
    if (large->kernels[i] < small->kernels[j])
      i++;
    else
      j++;
  }
  return found;
}

static KernelGroup both(const KernelGroup *a, const KernelGroup *b, Arena *arena) {
  KernelGroup group = {ARENA_ARRAY(arena, uint32_t, a->count + b->count), 0};
  for (uint32_t i = 0, j = 0; i < a->count || j < b->count;) {
    bool first = j == b->count || (i < a->count && a->kernels[i] <= b->kernels[j]);
    uint32_t kernel = first ? a->kernels[i] : b->kernels[j];
    while (i < a->count && a->kernels[i] == kernel) i++;
    while (j < b->count && b->kernels[j] == kernel) j++;
    group.kernels[group.count++] = kernel;
  }
  return group;
}

typedef struct Wanted {
  KernelGroup group;
  int32_t *result; /* of the segment that wants it */
} Wanted;

static int larger_first(const void *a, const void *b) {
  const Wanted *x = a, *y = b;
  if (x->group.count != y->group.count) return x->group.count > y->group.count ? -1 : 1;
  int order = memcmp(x->group.kernels, y->group.kernels, x->group.count * sizeof *x->group.kernels);
  return order ? order : x->result < y->result ? -1 : x->result > y->result;
}

/* The group that has most of these kernels takes the others in, if it has half of them and stays small; else they are a new one.
 */
static int32_t group_for(GroupSet *groups, const KernelGroup *wanted) {
  int32_t best = -1;
  uint32_t most = 0;
  for (size_t g = 0; g < groups->groups.count; g++) {
    uint32_t found = shared_with(&groups->groups.data[g], wanted);
    bool fits = groups->groups.data[g].count + wanted->count - found <= MOST_BODIES || found == wanted->count;
    if (!fits || found <= most) continue;
    most = found;
    best = (int32_t)g;
  }
  if (2 * most < wanted->count) {
    vector_push(&groups->groups, *wanted);
    return (int32_t)groups->groups.count - 1;
  }
  KernelGroup *group = &groups->groups.data[best];
  if (most < wanted->count) *group = both(group, wanted, groups->arena);
  return best;
}

void pass_group(const Schedule *const *schedules, size_t count, GroupSet *groups, int32_t **of_segment) {
  VECTOR(Wanted) wanted = {0};
  for (size_t i = 0; i < count; i++) {
    size_t at = 0;
    of_segment[i] = ARENA_ARRAY(groups->arena, int32_t, schedules[i]->segment_count + 1);
    for (int32_t s = 0; s < schedules[i]->segment_count; s++) {
      KernelGroup group = kernels_of_segment(schedules[i], s, &at, groups->arena);
      of_segment[i][s] = -1;
      if (group.count) vector_push(&wanted, ((Wanted){group, &of_segment[i][s]}));
    }
  }
  if (wanted.count) qsort(wanted.data, wanted.count, sizeof *wanted.data, larger_first);
  for (size_t i = 0; i < wanted.count; i++) *wanted.data[i].result = group_for(groups, &wanted.data[i].group);
  vector_free(&wanted);
}
