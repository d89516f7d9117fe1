/* What the words of a kernel's text do. Each access is checked: it lies in the array's region, at a multiple of its own size, and
 * races with no other thread. Two accesses to a word race where one of them writes and no barrier stands between them: by two
 * threads of a block in one epoch, or by two blocks of a launch anywhere in it. For that each word has a shadow cell: whichever
 * of the two comes first in the order of the day, the second one finds it.
 *
 * Numbers are the interpreter's to the bit: a bf16 is stored to nearest, ties to even; a product's factors are rounded to tf32 to
 * nearest, ties away from zero, and summed in double. An ASYNC_COPY's target holds not-a-number until the WAIT, and no one may
 * touch it. */
#include "tests/emulator/emulator_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static Run *const run = &emulator_run;

/* ---- races ---- */

static const char *array_name(const char *name, char text[80]) {
  size_t length = strcspn(name, ":");
  if (length > 79) length = 79;
  memcpy(text, name, length);
  text[length] = 0;
  return text;
}

_Noreturn static void race(const char *name, int64_t index, const char *now, const char *before, uint32_t epoch, int thread) {
  char array[80], who[80], from[80];
  if (thread == CELL_MANY)
    snprintf(who, sizeof who, "several threads");
  else
    snprintf(who, sizeof who, "thread %d", thread);
  uint32_t block = launch_block_of(epoch);
  if (epoch < run->block_epoch)
    snprintf(from, sizeof from, " of block %u", block);
  else
    snprintf(from, sizeof from, ", and no barrier stands between");
  launch_fault("race: %s %s[%lld], which was %s by %s%s", now, array_name(name, array), (long long)index, before, who, from);
}

_Noreturn static void undelivered(const char *name, int64_t index, const char *what) {
  char array[80];
  launch_fault("%s %s[%lld], the target of an ASYNC_COPY that was not waited for (WAIT)", what, array_name(name, array),
               (long long)index);
}

EMULATOR_PLAIN static inline void mark_read(Cell *cell, const char *name, int64_t index, bool shared) {
  const int me = run->current;
  const uint32_t since = shared ? run->block_epoch : run->launch_epoch;
  if (cell->written >= since) {
    if (cell->writer & CELL_PENDING) undelivered(name, index, "reads");
    int writer = cell->writer & CELL_THREAD;
    if (cell->written < run->block_epoch || (cell->written == run->epoch && writer != me))
      race(name, index, "reads", "written", cell->written, writer);
  }
  if (cell->read == run->epoch) {
    if ((cell->reader & CELL_THREAD) != me) cell->reader = (uint16_t)((cell->reader & CELL_OTHER_BLOCK) | CELL_MANY);
    return;
  }
  bool other = !shared && cell->read >= run->launch_epoch && (cell->read < run->block_epoch || cell->reader & CELL_OTHER_BLOCK);
  cell->reader = (uint16_t)(me | (other ? CELL_OTHER_BLOCK : 0));
  cell->read = run->epoch;
}

EMULATOR_PLAIN static inline void mark_write(Cell *cell, const char *name, int64_t index, bool shared) {
  const int me = run->current;
  const uint32_t since = shared ? run->block_epoch : run->launch_epoch;
  if (cell->written >= since) {
    if (cell->writer & CELL_PENDING) undelivered(name, index, "writes to");
    int writer = cell->writer & CELL_THREAD;
    if (cell->written < run->block_epoch || (cell->written == run->epoch && writer != me))
      race(name, index, "writes to", "written", cell->written, writer);
  }
  if (cell->read >= since) {
    int reader = cell->reader & CELL_THREAD;
    if (cell->read < run->block_epoch || (cell->read == run->epoch && reader != me))
      race(name, index, "writes to", "read", cell->read, reader);
    if (!shared && cell->reader & CELL_OTHER_BLOCK) race(name, index, "writes to", "read", run->launch_epoch, CELL_MANY);
  }
  cell->writer = (uint16_t)me;
  cell->written = run->epoch;
}

/* The cell of the element at `offset` bytes of the region. */
EMULATOR_PLAIN static inline Cell *cell_of(const Region *region, int64_t offset, int bytes) {
  return region->cells[bytes == 2 && (offset & 2)] + (offset >> 2);
}

EMULATOR_PLAIN static void mark(Region *region, int64_t offset, int64_t index, int width, int bytes, bool write,
                                const char *name) {
  if (bytes == 1) return; /* only read, by all words */
  if (!region->cells[0] && !memory_shadow(region)) launch_fault("no memory for the shadow of %s", name);
  for (int i = 0; i < width; i++) {
    Cell *cell = cell_of(region, offset + (int64_t)i * bytes, bytes);
    if (write)
      mark_write(cell, name, index + i, region->shared);
    else
      mark_read(cell, name, index + i, region->shared);
  }
}

/* ---- places ---- */

/* Elements [index, index + width) of the array, which must be there; in one access, so that they must be aligned. */
EMULATOR_PLAIN static inline void *place(const void *array, int64_t index, int width, int bytes, const char *name, Region **found,
                                         int64_t *offset) {
  char text[80];
  Region *region = memory_find(array);
  if (!region) launch_fault("%s is no array: its address lies in no allocation of the device", array_name(name, text));
  int64_t start = (const char *)array - region->base, at = start + index * bytes;
  if (index < 0 || at + (int64_t)width * bytes > (int64_t)region->size)
    launch_fault("%s[%lld .. %lld) lies outside: the %s holds %lld elements from %s[0] on", array_name(name, text),
                 (long long)index, (long long)(index + width), region->shared ? "array" : "allocation",
                 (long long)(region->size - (size_t)start) / bytes, text);
  char *address = region->base + at;
  if ((uintptr_t)address & (uintptr_t)(width * bytes - 1))
    launch_fault("misaligned access to %s[%lld .. %lld): %d bytes at once must lie at a multiple of that", array_name(name, text),
                 (long long)index, (long long)(index + width), width * bytes);
  *found = region;
  *offset = at;
  return address;
}

EMULATOR_PLAIN static inline void *touch(const void *array, int64_t index, int width, int bytes, bool write, const char *name) {
  Region *region;
  int64_t offset;
  void *address = place(array, index, width, bytes, name, &region, &offset);
  if (run->check) mark(region, offset, index, width, bytes, write, name);
  return address;
}
static inline const void *reading(const void *array, int index, int width, int bytes, const char *name) {
  return touch(array, index, width, bytes, false, name);
}
static inline void *writing(void *array, int index, int width, int bytes, const char *name) {
  return touch(array, index, width, bytes, true, name);
}

static void check_tile(int size, int bytes, int at, int width, const char *name) {
  const char *colon = strchr(name, ':');
  if (at < 0 || at + width > size / bytes)
    launch_fault("%s[%d .. %d) lies outside of the tile, which has %d elements", colon ? colon + 1 : name, at, at + width,
                 size / bytes);
}

/* ---- numbers ---- */

EMULATOR_PLAIN static float from_bf16(bf16 bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

static bf16 to_bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (value != value) return 0x7fff; /* as the instruction gives it */
  return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

EMULATOR_PLAIN static float to_tf32(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7f800000) != 0x7f800000) bits = (bits + 0x1000) & ~(uint32_t)0x1fff;
  memcpy(&value, &bits, sizeof value);
  return value;
}

EMULATOR_EXPORT double emulator_exp(double x) {
  return exp(x);
}
EMULATOR_EXPORT double emulator_log(double x) {
  return log(x);
}

/* ---- loads and stores ---- */

EMULATOR_EXPORT float emulator_load_f32(const float *array, int index, const char *name) {
  return *(const float *)reading(array, index, 1, 4, name);
}
EMULATOR_EXPORT double emulator_load_f64(const double *array, int index, const char *name) {
  return *(const double *)reading(array, index, 1, 8, name);
}
EMULATOR_EXPORT int emulator_load_i32(const int *array, int index, const char *name) {
  return *(const int *)reading(array, index, 1, 4, name);
}
EMULATOR_EXPORT int emulator_load_u8(const u8 *array, int index, const char *name) {
  return *(const u8 *)reading(array, index, 1, 1, name);
}
EMULATOR_EXPORT float emulator_load_bf16(const bf16 *array, int index, const char *name) {
  return from_bf16(*(const bf16 *)reading(array, index, 1, 2, name));
}
EMULATOR_EXPORT void emulator_store_f32(float *array, int index, float value, const char *name) {
  *(float *)writing(array, index, 1, 4, name) = value;
}
EMULATOR_EXPORT void emulator_store_f64(double *array, int index, double value, const char *name) {
  *(double *)writing(array, index, 1, 8, name) = value;
}
EMULATOR_EXPORT void emulator_store_bf16(bf16 *array, int index, float value, const char *name) {
  *(bf16 *)writing(array, index, 1, 2, name) = to_bf16(value);
}

EMULATOR_EXPORT void emulator_load_f32s(float *tile, int size, int at, const float *array, int index, int width,
                                        const char *name) {
  check_tile(size, 4, at, width, name);
  memcpy(tile + at, reading(array, index, width, 4, name), (size_t)width * 4);
}
EMULATOR_EXPORT void emulator_load_f64s(double *tile, int size, int at, const double *array, int index, int width,
                                        const char *name) {
  check_tile(size, 8, at, width, name);
  memcpy(tile + at, reading(array, index, width, 8, name), (size_t)width * 8);
}
EMULATOR_EXPORT void emulator_load_bf16s(float *tile, int size, int at, const bf16 *array, int index, int width,
                                         const char *name) {
  check_tile(size, 4, at, width, name);
  const bf16 *from = reading(array, index, width, 2, name);
  for (int i = 0; i < width; i++) tile[at + i] = from_bf16(from[i]);
}
EMULATOR_EXPORT void emulator_store_f32s(float *array, int index, const float *tile, int size, int at, int width,
                                         const char *name) {
  check_tile(size, 4, at, width, name);
  memcpy(writing(array, index, width, 4, name), tile + at, (size_t)width * 4);
}
EMULATOR_EXPORT void emulator_store_f64s(double *array, int index, const double *tile, int size, int at, int width,
                                         const char *name) {
  check_tile(size, 8, at, width, name);
  memcpy(writing(array, index, width, 8, name), tile + at, (size_t)width * 8);
}
EMULATOR_EXPORT void emulator_store_bf16s(bf16 *array, int index, const float *tile, int size, int at, int width,
                                          const char *name) {
  check_tile(size, 4, at, width, name);
  bf16 *to = writing(array, index, width, 2, name);
  for (int i = 0; i < width; i++) to[i] = to_bf16(tile[at + i]);
}

/* ---- copies that are not waited for ---- */

enum { COPY_BYTES = 16 };

EMULATOR_EXPORT void emulator_async_copy(void *shared, int to, const void *array, int from, int where, int bytes,
                                         const char *name) {
  const char *source = strchr(name, ':') + 1;
  Region *region, *other;
  int64_t offset, start;
  const int width = COPY_BYTES / bytes;
  void *target = place(shared, to, width, bytes, name, &region, &offset);
  if (!region->shared) launch_fault("an ASYNC_COPY to %s, which is not a shared array", name);
  if (where) {
    place(array, from, width, bytes, source, &other, &start);
    if (run->check) mark(other, start, from, width, bytes, false, source);
  }
  if (run->check) {
    mark(region, offset, to, width, bytes, true, name);
    for (int i = 0; i < width; i++) cell_of(region, offset + i * bytes, bytes)->writer |= CELL_PENDING;
  }
  memset(target, 0xff, COPY_BYTES);
  Thread *thread = &run->thread[run->current];
  vector_push(&thread->copies, ((PendingCopy){shared, array, to, from, bytes, where != 0, name}));
}

EMULATOR_EXPORT void emulator_wait(void) {
  Thread *thread = &run->thread[run->current];
  for (size_t i = 0; i < thread->copies.count; i++) {
    const PendingCopy *copy = &thread->copies.data[i];
    Region *region;
    int64_t offset;
    const int width = COPY_BYTES / copy->bytes;
    void *target = place(copy->shared, copy->to, width, copy->bytes, copy->name, &region, &offset);
    for (int j = 0; j < width && run->check; j++) {
      Cell *cell = cell_of(region, offset + j * copy->bytes, copy->bytes);
      cell->writer = (uint16_t)run->current;
      cell->written = run->epoch;
    }
    if (copy->where)
      memcpy(target, reading(copy->array, copy->from, width, copy->bytes, strchr(copy->name, ':') + 1), COPY_BYTES);
    else
      memset(target, 0, COPY_BYTES);
  }
  thread->copies.count = 0;
}

/* ---- products ---- */

typedef struct Factor {
  const void *array;
  int index, stride;
} Factor;

/* Notes that this thread takes part, for the comparison at the barrier, and checks what all threads of the warp have in common.
 */
static void take_part(Factor a, Factor b, int at) {
  Thread *thread = &run->thread[run->current];
  if (run->threads % EMULATOR_WARP) launch_fault("a product in a block of %d threads, whose last warp is not full", run->threads);
  if ((a.index | a.stride | b.index | b.stride) & 1)
    launch_fault("a product whose indices (%d, %d) or strides (%d, %d) are odd", a.index, b.index, a.stride, b.stride);
  const uint64_t parts[] = {(uintptr_t)a.array, (uint64_t)a.index,  (uint64_t)a.stride, (uintptr_t)b.array,
                            (uint64_t)b.index,  (uint64_t)b.stride, (uint64_t)at};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    thread->products = (thread->products ^ parts[i]) * 0x9e3779b97f4a7c15u + i;
  thread->product_count++;
}

/* One row of a factor: `k` numbers as they are multiplied. */
EMULATOR_PLAIN static void row_of(Factor factor, int row, int k, bool half, const char *name, double *out) {
  Region *region;
  int64_t offset;
  const int bytes = half ? 2 : 4, index = factor.index + row * factor.stride;
  const char *last =
      place(factor.array, index + k - 1, 1, bytes, name, &region, &offset); /* the row ends inside, so it lies inside */
  if (index < 0) launch_fault("a product reads %s[%d]", name, index);
  const char *data = last - (k - 1) * bytes;
  if (run->check) mark(region, offset - (k - 1) * bytes, index, k, bytes, false, name);
  for (int i = 0; i < k; i++) out[i] = (double)(half ? from_bf16(((const bf16 *)data)[i]) : to_tf32(((const float *)data)[i]));
}

EMULATOR_PLAIN static void multiply(float *tile, Factor a, Factor b, int k, bool half, const char *name) {
  const int lane = run->current % EMULATOR_WARP;
  const char *b_name = strchr(name, ':') + 1;
  double rows[2][16], columns[2][16];
  for (int i = 0; i < 2; i++) {
    row_of(a, lane / 4 + 8 * i, k, half, name, rows[i]);
    row_of(b, 2 * (lane % 4) + i, k, half, b_name, columns[i]);
  }
  for (int r = 0; r < 4; r++) {
    double sum = (double)tile[r];
    for (int i = 0; i < k; i++) sum += rows[r / 2][i] * columns[r % 2][i];
    tile[r] = (float)sum;
  }
}

EMULATOR_EXPORT void emulator_mma_tf32(float *tile, int size, int at, const float *a, int a_index, int a_stride, const float *b,
                                       int b_index, int b_stride, const char *name) {
  const Factor left = {a, a_index, a_stride}, right = {b, b_index, b_stride};
  check_tile(size, 4, at, 4, "product:tile");
  take_part(left, right, at);
  multiply(tile + at, left, right, 8, false, name);
}

EMULATOR_EXPORT void emulator_mma_bf16(float *tile, int size, int at, const bf16 *a, int a_index, int a_stride, const bf16 *b,
                                       int b_index, int b_stride, const char *name) {
  const Factor left = {a, a_index, a_stride}, right = {b, b_index, b_stride};
  check_tile(size, 4, at, 4, "product:tile");
  take_part(left, right, at);
  multiply(tile + at, left, right, 16, true, name);
}
