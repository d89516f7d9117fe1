/* Every access of every launch is listed with the memory that it is to, sorted so that accesses to the same lie side by side, and
 * counted. */
#include "compiler/traffic.h"

#include "kernels/describe.h"

#include <stdlib.h>
#include <string.h>

typedef struct Access {
  int32_t storage, launch, run;
  int64_t offset, bytes; /* the offset in elements */
  bool writes, counts;
} Access;

typedef struct Accesses {
  const Schedule *schedule;
  const KernelSet *kernels;
  int64_t batch;
  VECTOR(Access) list;
} Accesses;

static void add(Accesses *accesses, int32_t launch, const Place *place, int64_t elements, bool reads, bool writes) {
  const Storage *storage = &accesses->schedule->storages.data[place->storage];
  if (storage->in_scratch) return;
  int64_t each = loop_element_bytes(storage->element);
  int64_t rest = storage->bytes / each - place->offset; /* a view that is not known better goes to the end */
  if (elements <= 0 || elements > rest) elements = rest;
  int32_t run = accesses->kernels->target.gpu ? launch : accesses->schedule->launches.data[launch].run;
  Access access = {place->storage, launch, run, place->offset, elements * each, false, false};
  if (reads) vector_push(&accesses->list, access);
  access.writes = true;
  if (writes) vector_push(&accesses->list, access);
}

static void add_kernel(Accesses *accesses, int32_t number, const PlannedLaunch *launch) {
  const LoopKernel *kernel = accesses->kernels->kernels.data[launch->kernel];
  const KernelKey *key = &accesses->kernels->keys[launch->kernel];
  int64_t batch = accesses->batch;
  for (int32_t i = 0; i < launch->buffer_count; i++) {
    const LoopArray *array = &kernel->arrays.data[i];
    int64_t elements = family_elements(key->family, key->spec, array->name, batch);
    add(accesses, number, &launch->buffers[i], elements, array->space != LOOP_OUT, array->space != LOOP_IN);
  }
}

static void add_product(Accesses *accesses, int32_t number, const PlannedLaunch *launch) {
  const ProgramProduct *product = launch->product;
  int64_t batch = accesses->batch;
  int64_t m = product->m * (product->batch_m ? batch : 1), k = product->k * (product->batch_k ? batch : 1);
  add(accesses, number, &launch->buffers[0], m * k, true, false);
  add(accesses, number, &launch->buffers[1], k * product->n, true, false);
  add(accesses, number, &launch->buffers[2], m * product->n, product->beta > 0, true);
}

static int compare(int64_t a, int64_t b) {
  return (a > b) - (a < b);
}

/* By the memory, reads before writes, then by run and in the order of the launches. */
static int compare_accesses(const void *a, const void *b) {
  const Access *first = a, *second = b;
  int order = compare(first->storage, second->storage);
  if (!order) order = compare(first->offset, second->offset);
  if (!order) order = compare(first->bytes, second->bytes);
  if (!order) order = compare(first->writes, second->writes);
  if (!order) order = compare(first->run, second->run);
  return order ? order : compare(first->launch, second->launch);
}

static bool same_memory(const Access *a, const Access *b) {
  return a->storage == b->storage && a->offset == b->offset && a->bytes == b->bytes;
}

/* All accesses to one piece of memory: first reads, then writes, each by runs. Of a run's reads and of its writes the first one
 * counts, and no read that comes after one of its writes. */
static void count_group(Access *group, size_t count, Traffic *traffic) {
  int64_t counted[2] = {0, 0};
  size_t write = 0;
  while (write < count && !group[write].writes) write++;
  for (size_t i = 0; i < count; i++) {
    Access *access = &group[i];
    access->counts = i == 0 || group[i - 1].run != access->run || group[i - 1].writes != access->writes;
    if (!access->writes) {
      while (write < count && group[write].run < access->run) write++;
      if (write < count && group[write].run == access->run && group[write].launch < access->launch) access->counts = false;
    }
    counted[access->writes] += access->counts;
  }
  for (size_t i = 0; i < count; i++) {
    const Access *access = &group[i];
    if (!access->counts) continue;
    Traffic *launch = &traffic[access->launch];
    *(access->writes ? &launch->written : &launch->read) += access->bytes;
    launch->least += access->bytes / counted[access->writes];
  }
}

Traffic *traffic_of(const Schedule *schedule, const KernelSet *kernels, int64_t batch, Arena *arena) {
  Traffic *traffic = ARENA_ARRAY(arena, Traffic, schedule->launches.count + 1);
  Accesses accesses = {.schedule = schedule, .kernels = kernels, .batch = batch};
  for (size_t i = 0; i < schedule->launches.count; i++) {
    const PlannedLaunch *launch = &schedule->launches.data[i];
    if (launch->product)
      add_product(&accesses, (int32_t)i, launch);
    else
      add_kernel(&accesses, (int32_t)i, launch);
  }
  if (accesses.list.count) qsort(accesses.list.data, accesses.list.count, sizeof(Access), compare_accesses);
  for (size_t from = 0, end; from < accesses.list.count; from = end) {
    for (end = from + 1; end < accesses.list.count && same_memory(&accesses.list.data[from], &accesses.list.data[end]); end++) {
    }
    count_group(&accesses.list.data[from], end - from, traffic);
  }
  vector_free(&accesses.list);
  return traffic;
}
