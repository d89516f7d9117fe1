/* Regions of memory that a kernel may touch: allocations of device memory, one malloc each so that ASan guards them too, in order
 * of their addresses; and the shared arrays of the block that runs. Shadow cells are made when a region is first looked at, from
 * pages that take memory when they are touched. Fresh memory holds not-a-number. */
#include "tests/emulator/emulator_private.h"

#include <string.h>
#include <sys/mman.h>

enum { RECENT = 32, ALIGNMENT = 256, SPARE = 64, MOST_SPARE_BYTES = 16 << 20 };

static struct {
  VECTOR(Region *) allocations; /* ascending */
  size_t used;
  VECTOR(Region) pinned; /* host memory */
  Region shared[EMULATOR_MOST_SHARED];
  int shared_count;
  Cell shared_cells[2][EMULATOR_SHARED_BYTES / 4 + EMULATOR_MOST_SHARED];
  size_t shared_cells_used;
  struct {
    Cell *cells;
    size_t bytes;
  } spare[SPARE];         /* cells of regions that are gone: what stands in them is older than any launch to come */
  Region *recent[RECENT]; /* by a hash of the address; what is there may be of another */
} memory;

EMULATOR_PLAIN static bool contains(const Region *region, const void *address) {
  return (uintptr_t)address - (uintptr_t)region->base < region->size;
}

/* How many allocations begin at or before the address. */
EMULATOR_PLAIN static size_t allocations_until(const void *address) {
  size_t from = 0, below = memory.allocations.count;
  while (from < below) {
    size_t middle = (from + below) / 2;
    if ((uintptr_t)memory.allocations.data[middle]->base <= (uintptr_t)address)
      from = middle + 1;
    else
      below = middle;
  }
  return from;
}

EMULATOR_PLAIN static Region *find_allocation(const void *address) {
  size_t count = allocations_until(address);
  return count && contains(memory.allocations.data[count - 1], address) ? memory.allocations.data[count - 1] : NULL;
}

EMULATOR_PLAIN Region *memory_find(const void *address) {
  Region **recent = &memory.recent[((uintptr_t)address >> 4 ^ (uintptr_t)address >> 9) % RECENT];
  if (*recent && contains(*recent, address)) return *recent;
  for (int i = 0; i < memory.shared_count; i++)
    if (contains(&memory.shared[i], address)) return *recent = &memory.shared[i];
  Region *region = find_allocation(address);
  if (region) *recent = region;
  return region;
}

bool memory_holds(const void *address, size_t bytes) {
  const Region *region = find_allocation(address);
  return region && bytes <= region->size - (size_t)((const char *)address - region->base);
}

/* ---- shared arrays ---- */

Region *memory_shared(void *array, size_t size) {
  for (int i = 0; i < memory.shared_count; i++)
    if (memory.shared[i].base == array) return &memory.shared[i];
  if (memory.shared_count == EMULATOR_MOST_SHARED || size > EMULATOR_SHARED_BYTES) return NULL;
  size_t cells = (size + 3) / 4;
  if (memory.shared_cells_used + cells > EMULATOR_SHARED_BYTES / 4 + EMULATOR_MOST_SHARED) return NULL;
  Region *region = &memory.shared[memory.shared_count++];
  *region = (Region){.base = array, .size = size, .shared = true};
  for (int plane = 0; plane < 2; plane++) region->cells[plane] = &memory.shared_cells[plane][memory.shared_cells_used];
  memory.shared_cells_used += cells;
  memset(array, 0xff, size);
  return region;
}

void memory_next_block(void) {
  memory.shared_count = 0;
  memory.shared_cells_used = 0;
}

/* ---- device memory ---- */

size_t memory_total(void) {
  const char *wanted = getenv("ADWP_EMULATOR_MEMORY");
  unsigned long long bytes = wanted ? strtoull(wanted, NULL, 10) : 0;
  return bytes ? (size_t)bytes : (size_t)8 << 30;
}

size_t memory_used(void) {
  return memory.used;
}

bool memory_device_alloc(void **pointer, size_t bytes) {
  if (!bytes || bytes > memory_total() || memory.used > memory_total() - bytes) return false;
  void *base = NULL;
  if (posix_memalign(&base, ALIGNMENT, bytes)) return false;
  memset(base, 0xff, bytes);
  Region *region = memory_alloc(sizeof *region);
  *region = (Region){.base = base, .size = bytes};
  size_t at = allocations_until(base), count = memory.allocations.count;
  vector_push(&memory.allocations, region);
  memmove(&memory.allocations.data[at + 1], &memory.allocations.data[at], (count - at) * sizeof(Region *));
  memory.allocations.data[at] = region;
  memory.used += bytes;
  *pointer = base;
  return true;
}

/* ---- shadow cells of device memory ---- */

static Cell *take_cells(size_t bytes, size_t *mapped) {
  for (int i = 0; i < SPARE; i++) {
    if (memory.spare[i].bytes < bytes || memory.spare[i].bytes / 4 > bytes) continue;
    Cell *cells = memory.spare[i].cells;
    *mapped = memory.spare[i].bytes;
    memory.spare[i].bytes = 0;
    return cells;
  }
  void *cells = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  *mapped = bytes;
  return cells == MAP_FAILED ? NULL : cells;
}

static void give_cells(Cell *cells, size_t bytes) {
  for (int i = 0; cells && bytes <= MOST_SPARE_BYTES && i < SPARE; i++) {
    if (memory.spare[i].bytes) continue;
    memory.spare[i].cells = cells;
    memory.spare[i].bytes = bytes;
    return;
  }
  if (cells) munmap(cells, bytes);
}

bool memory_shadow(Region *region) {
  for (int plane = 0; plane < 2 && !region->shared; plane++) {
    if (region->cells[plane]) continue;
    region->cells[plane] = take_cells((region->size + 3) / 4 * sizeof(Cell), &region->cell_bytes[plane]);
    if (!region->cells[plane]) return false;
  }
  return true;
}

bool memory_device_free(void *pointer) {
  Region *region = find_allocation(pointer);
  if (!region || region->base != pointer) return false;
  size_t at = allocations_until(pointer) - 1;
  memory.allocations.count--;
  memmove(&memory.allocations.data[at], &memory.allocations.data[at + 1], (memory.allocations.count - at) * sizeof(Region *));
  memset(memory.recent, 0, sizeof memory.recent);
  memory.used -= region->size;
  for (int plane = 0; plane < 2; plane++) give_cells(region->cells[plane], region->cell_bytes[plane]);
  if (!memory.allocations.count) vector_free(&memory.allocations);
  free(region->base);
  free(region);
  return true;
}

/* ---- pinned host memory ---- */

void memory_pin(void *pointer, size_t bytes) {
  vector_push(&memory.pinned, ((Region){.base = pointer, .size = bytes}));
}

bool memory_unpin(const void *pointer) {
  for (size_t i = 0; i < memory.pinned.count; i++) {
    if (memory.pinned.data[i].base != pointer) continue;
    memory.pinned.data[i] = memory.pinned.data[--memory.pinned.count];
    if (!memory.pinned.count) vector_free(&memory.pinned);
    return true;
  }
  return !pointer;
}

bool memory_is_pinned(const void *address, size_t bytes) {
  for (size_t i = 0; i < memory.pinned.count; i++) {
    const Region *region = &memory.pinned.data[i];
    if (contains(region, address)) return bytes <= region->size - (size_t)((const char *)address - region->base);
  }
  return false;
}
