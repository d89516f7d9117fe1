/* Reductions over pixels and over slots on a GPU. Sums of a thread are f32 over at most 32 numbers, then f64; threads are joined
 * as a tree of fixed shape, so the bits depend on the spec and on B alone. */
#include "kernels/family_private.h"
#include "kernels/gpu/threads.h"

#include "runtime/base/err.h"

enum {
  MOMENTS_THREADS = 256,
  FINISH_THREADS = 512,
  FINISH_SLOTS = 512, /* about as many slots have large tensors */
  FINISH_UNROLL = 2,  /* slots whose loads of one thread are in flight together */
  SLOTS_THREADS = 512,
  SLOTS_ROWS = 32, /* slots that are added side by side, where there are threads for them */
  TOTAL_THREADS = 1024,
};

/* ---- moments ---- */

static int32_t plane_width(const Plane *p) {
  int32_t width = gpu_plane_width(p);
  return width > 4 ? 4 : width;
}

/* partial[task, row, channel ..] = tile[at ..] */
static void moments_store(LoopKernel *k, const MomentsSpec *s, int32_t partial, int32_t row, LoopValue channel, int32_t tile,
                          int32_t width, LoopValue where) {
  LoopValue task = loop_task(k);
  LoopValue to = AT(k, (int64_t)row * s->in.channels, {task, 3 * (int64_t)s->in.channels}, {channel, 1});
  gpu_write(k, partial, to, tile, 0, width, where);
}

/* The differences of one pixel from the shift, and their squares, into the sums. */
static void moments_pixel(LoopKernel *k, const GpuSums *sums, int32_t value, int32_t shift, int32_t width) {
  for (int e = 0; e < width; e++) {
    LoopValue at = loop_int(k, e), square_at = loop_int(k, width + e);
    LoopValue x = loop_get(k, value, at);
    LoopValue origin = loop_get(k, shift, at);
    LoopValue difference = loop_op2(k, LOOP_SUB, x, origin);
    gpu_sums_add(k, sums, e, difference);
    LoopValue squares = loop_get(k, sums->acc, square_at);
    squares = loop_op3(k, LOOP_FMA, difference, difference, squares);
    loop_set(k, sums->acc, square_at, squares);
  }
}

static int64_t task_pixels(const MomentsSpec *s) {
  int64_t pixels = (int64_t)s->in.height * s->in.width;
  if (s->bands > 1 && s->in.height % s->bands) die("moments: %d bands of %d rows", s->bands, s->in.height);
  return s->bands > 1 ? pixels / s->bands : pixels * s->images;
}

LoopKernel *gpu_moments(const MomentsSpec *s, Arena *arena) {
  int32_t width = plane_width(&s->in);
  GpuSpread spread = gpu_spread(&s->target, s->in.channels, width, task_pixels(s), MOMENTS_THREADS);
  LoopKernel *k = loop_new(arena, "moments", spread.lanes);
  int32_t x = loop_buffer(k, "x", LOOP_IN, s->in.element);
  int32_t partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
  GpuSums sums = gpu_sums(k, &spread, 2);
  int32_t value = loop_tile(k, "value", LOOP_F32, true, width), shift = loop_tile(k, "shift", LOOP_F32, true, width);
  GpuRange range = gpu_task_range(k, s->images, s->bands, s->in.height, s->in.width);
  LoopValue all = gpu_true(k);
  GpuThread thread = gpu_spread_begin(k, &spread);
  LoopValue first = AT(k, 0, {range.from, s->in.stride}, {thread.channel, 1});
  gpu_read(k, shift, 0, x, first, width, thread.works == LOOP_NONE ? all : thread.works);
  LoopValue pixel = gpu_walk_begin(k, &spread, &thread, &range, &sums);
  LoopValue from = AT(k, 0, {pixel, s->in.stride}, {thread.channel, 1});
  gpu_read(k, value, 0, x, from, width, all);
  moments_pixel(k, &sums, value, shift, width);
  gpu_walk_end(k, &spread, &range, &sums);
  gpu_sums_join(k, &spread, &thread, &sums);
  LoopValue leads = gpu_leads(k, &spread, &thread);
  moments_store(k, s, partial, 0, thread.channel, shift, width, leads);
  for (int32_t i = 0; i < 2; i++) {
    gpu_sums_narrow(k, &sums, i * width, value, width);
    moments_store(k, s, partial, 1 + i, thread.channel, value, width, leads);
  }
  gpu_spread_end(k, &spread);
  return k;
}

/* ---- moments of all slots ----
 * With r, slot 0's shift, as an origin, n pixels, mean m = shift + sum / n and d = m - r in each slot:
 *   mean = r + sum(n d) / N        variance N = sum(squares - sum^2 / n + n d^2) - sum(n d)^2 / N
 * in double, where r is a value of the channel, so that little cancels. No division stands in the loop: all slots but the last
 * have as many pixels. */
typedef struct Finish {
  const MomentsSpec *s;
  GpuSpread spread;
  GpuThread thread;
  GpuSums sums;
  int32_t partial, moments, origin, parts;                     /* tiles: r; shift, sum and squares of FINISH_UNROLL slots */
  LoopValue slots, last, count, share, last_count, last_share; /* pixels of a slot, and one by them */
} Finish;

static void finish_counts(LoopKernel *k, Finish *f) {
  const MomentsSpec *s = f->s;
  int64_t pixels = task_pixels(s), image = (int64_t)s->in.height * s->in.width;
  f->slots = gpu_slots(k, s->images, s->bands);
  f->last = AT(k, -1, {f->slots, 1});
  f->count = loop_f64(k, (double)pixels);
  f->share = loop_f64(k, 1.0 / (double)pixels);
  f->last_count = f->count;
  f->last_share = f->share;
  if (s->images == 1) return;
  LoopValue batch = loop_batch(k);
  LoopValue rest = AT(k, 0, {batch, image}, {f->last, -pixels});
  LoopValue one = loop_f64(k, 1);
  f->last_count = loop_op1(k, LOOP_TO_F64, rest);
  f->last_share = loop_op2(k, LOOP_DIV, one, f->last_count);
}

static LoopValue slot_index(LoopKernel *k, const Finish *f, LoopValue slot, int32_t row) {
  int64_t channels = f->s->in.channels;
  return AT(k, row * channels, {slot, 3 * channels}, {f->thread.channel, 1});
}

static LoopValue part_f64(LoopKernel *k, const Finish *f, int32_t at) {
  LoopValue index = loop_int(k, at);
  LoopValue value = loop_get(k, f->parts, index);
  return loop_op1(k, LOOP_TO_F64, value);
}

static void finish_add(LoopKernel *k, const Finish *f, int32_t at, LoopValue value) {
  LoopValue index = loop_int(k, at);
  LoopValue old = loop_get(k, f->sums.total, index);
  LoopValue sum = loop_op2(k, LOOP_ADD, old, value);
  loop_set(k, f->sums.total, index, sum);
}

/* One slot's three rows in parts[at ..] into the sums; a slot that does not exist has no pixels. */
static void finish_slot(LoopKernel *k, const Finish *f, LoopValue slot, LoopValue exists, int32_t at) {
  int32_t width = f->spread.width;
  LoopValue none = loop_f64(k, 0);
  LoopValue is_last = loop_op2(k, LOOP_IEQ, slot, f->last);
  LoopValue count = loop_op3(k, LOOP_SELECT, is_last, f->last_count, f->count);
  LoopValue share = loop_op3(k, LOOP_SELECT, is_last, f->last_share, f->share);
  count = loop_op3(k, LOOP_SELECT, exists, count, none);
  for (int e = 0; e < width; e++) {
    LoopValue index = loop_int(k, e);
    LoopValue shift = part_f64(k, f, at + e);
    LoopValue sum = part_f64(k, f, at + width + e);
    LoopValue squares = part_f64(k, f, at + 2 * width + e);
    LoopValue origin = loop_get(k, f->origin, index);
    LoopValue offset = loop_op2(k, LOOP_MUL, sum, share);
    LoopValue apart = loop_op2(k, LOOP_SUB, shift, origin);
    LoopValue distance = loop_op2(k, LOOP_ADD, apart, offset);
    LoopValue moment = loop_op2(k, LOOP_MUL, count, distance);
    finish_add(k, f, e, moment);
    LoopValue lost = loop_op2(k, LOOP_MUL, sum, offset);
    LoopValue own = loop_op2(k, LOOP_SUB, squares, lost);
    LoopValue both = loop_op3(k, LOOP_FMA, moment, distance, own);
    finish_add(k, f, width + e, both);
  }
}

static void finish_slots(LoopKernel *k, const Finish *f) {
  int32_t width = f->spread.width, rows = f->spread.rows;
  LoopValue zero = loop_int(k, 0), step = loop_int(k, (int64_t)rows * FINISH_UNROLL);
  LoopValue slot[FINISH_UNROLL], exists[FINISH_UNROLL];
  gpu_sums_clear(k, &f->sums);
  LoopValue base = loop_for(k, zero, f->slots, step);
  for (int32_t u = 0; u < FINISH_UNROLL; u++) {
    slot[u] = AT(k, (int64_t)u * rows, {base, 1}, {f->thread.row, 1});
    LoopValue inside = loop_op2(k, LOOP_ILT, slot[u], f->slots);
    exists[u] = gpu_both(k, inside, f->thread.works);
    for (int32_t row = 0; row < 3; row++) {
      LoopValue from = slot_index(k, f, slot[u], row);
      gpu_read(k, f->parts, (3 * u + row) * width, f->partial, from, width, exists[u]);
    }
  }
  for (int32_t u = 0; u < FINISH_UNROLL; u++) finish_slot(k, f, slot[u], exists[u], 3 * u * width);
  loop_end(k);
}

/* Mean and variance into parts[0 ..] and parts[width ..]. */
static void finish_results(LoopKernel *k, const Finish *f) {
  int32_t width = f->spread.width;
  LoopValue batch = loop_batch(k);
  LoopValue pixels = AT(k, 0, {batch, (int64_t)f->s->in.height * f->s->in.width});
  LoopValue number = loop_op1(k, LOOP_TO_F64, pixels);
  LoopValue zero = loop_f64(k, 0);
  for (int e = 0; e < width; e++) {
    LoopValue at = loop_int(k, e), second = loop_int(k, width + e);
    LoopValue moment = loop_get(k, f->sums.total, at);
    LoopValue squares = loop_get(k, f->sums.total, second);
    LoopValue origin = loop_get(k, f->origin, at);
    LoopValue distance = loop_op2(k, LOOP_DIV, moment, number);
    LoopValue mean = loop_op2(k, LOOP_ADD, origin, distance);
    LoopValue lost = loop_op2(k, LOOP_MUL, moment, distance);
    LoopValue left = loop_op2(k, LOOP_SUB, squares, lost);
    LoopValue variance = loop_op2(k, LOOP_DIV, left, number);
    variance = loop_op2(k, LOOP_MAX, variance, zero);
    LoopValue mean32 = loop_op1(k, LOOP_TO_F32, mean);
    LoopValue variance32 = loop_op1(k, LOOP_TO_F32, variance);
    loop_set(k, f->parts, at, mean32);
    loop_set(k, f->parts, second, variance32);
  }
}

/* The thread's channels in the task's chunk of them. */
static void finish_thread(LoopKernel *k, Finish *f, int32_t chunk) {
  int32_t channels = f->s->in.channels;
  GpuRange range = gpu_chunk(k, chunk, channels);
  f->thread = gpu_spread_begin(k, &f->spread);
  f->thread.channel = loop_op2(k, LOOP_IADD, range.from, f->thread.channel);
  if (channels % chunk == 0) return;
  LoopValue exists = gpu_below(k, f->thread.channel, channels);
  f->thread.works = gpu_both(k, f->thread.works, exists);
}

LoopKernel *gpu_moments_finish(const MomentsSpec *s, Arena *arena) {
  int32_t chunk = s->chunk > 0 && s->chunk < s->in.channels ? s->chunk : s->in.channels;
  int32_t width = gpu_common_width(chunk, s->in.channels);
  Finish f = {.s = s, .spread = gpu_spread(&s->target, chunk, width, FINISH_SLOTS, FINISH_THREADS)};
  LoopKernel *k = loop_new(arena, "moments_finish", f.spread.lanes);
  f.partial = loop_buffer(k, "partial", LOOP_IN, LOOP_ELEMENT_F32);
  f.moments = loop_buffer(k, "moments", LOOP_OUT, LOOP_ELEMENT_F32);
  f.sums = gpu_sums(k, &f.spread, 2);
  f.origin = loop_tile(k, "origin", LOOP_F64, true, width);
  f.parts = loop_tile(k, "parts", LOOP_F32, true, 3 * width * FINISH_UNROLL);
  finish_counts(k, &f);
  LoopValue zero = loop_int(k, 0), all = gpu_true(k);
  finish_thread(k, &f, chunk);
  LoopValue first = slot_index(k, &f, zero, 0);
  gpu_read(k, f.parts, 0, f.partial, first, width, f.thread.works == LOOP_NONE ? all : f.thread.works);
  for (int e = 0; e < width; e++) {
    LoopValue at = loop_int(k, e);
    LoopValue origin = part_f64(k, &f, e);
    loop_set(k, f.origin, at, origin);
  }
  finish_slots(k, &f);
  gpu_sums_join(k, &f.spread, &f.thread, &f.sums);
  LoopValue leads = gpu_leads(k, &f.spread, &f.thread);
  finish_results(k, &f);
  gpu_write(k, f.moments, f.thread.channel, f.parts, 0, width, leads);
  LoopValue second = AT(k, s->in.channels, {f.thread.channel, 1});
  gpu_write(k, f.moments, second, f.parts, width, width, leads);
  gpu_spread_end(k, &f.spread);
  return k;
}

/* ---- sums over slots ---- */

/* total[0] += the sum of `width` consecutive numbers. */
static void total_add(LoopKernel *k, int32_t tile, int32_t total, int32_t width) {
  LoopValue first = loop_int(k, 0);
  for (int e = 0; e < width; e++) {
    LoopValue at = loop_int(k, e);
    LoopValue value = loop_get(k, tile, at);
    LoopValue wide = loop_op1(k, LOOP_TO_F64, value);
    LoopValue old = loop_get(k, total, first);
    LoopValue sum = loop_op2(k, LOOP_ADD, old, wide);
    loop_set(k, total, first, sum);
  }
}

/* All slots as one line of numbers. */
static LoopKernel *slots_total(const SlotsSpec *s, Arena *arena) {
  int32_t width = gpu_width_f32(s->elements);
  LoopKernel *k = loop_new(arena, "sum_total", gpu_lanes(&s->target, TOTAL_THREADS, TOTAL_THREADS));
  int32_t partial = loop_buffer(k, "partial", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t y = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  int32_t total = loop_tile(k, "total", LOOP_F64, true, 1), value = loop_tile(k, "value", LOOP_F32, true, width);
  LoopValue slots = s->images ? gpu_slots(k, s->images, s->bands) : loop_int(k, s->slots);
  LoopValue numbers = AT(k, 0, {slots, s->elements});
  LoopValue first = loop_int(k, 0), none = loop_f64(k, 0), all = gpu_true(k);
  loop_set(k, total, first, none);
  LoopValue i = gpu_each_begin(k, first, numbers, width);
  gpu_read(k, value, 0, partial, i, width, all);
  total_add(k, value, total, width);
  gpu_each_end(k);
  LoopValue own = loop_get(k, total, first);
  LoopValue sum = loop_op1(k, LOOP_LANE_SUM, own);
  LoopValue narrow = loop_op1(k, LOOP_TO_F32, sum);
  loop_store(k, y, first, narrow);
  return k;
}

/* The thread's `width` elements of every `rows`th slot. */
static void slots_walk(LoopKernel *k, const SlotsSpec *s, const GpuSpread *spread, const GpuThread *thread, const GpuSums *sums,
                       int32_t partial, int32_t value, LoopValue element, LoopValue works) {
  LoopValue slots = s->images ? gpu_slots(k, s->images, s->bands) : loop_int(k, s->slots);
  LoopValue zero = loop_int(k, 0), rows = loop_int(k, spread->rows);
  gpu_sums_clear(k, sums);
  LoopValue base = loop_for(k, zero, slots, rows);
  LoopValue slot = loop_op2(k, LOOP_IADD, base, thread->row);
  LoopValue inside = loop_op2(k, LOOP_ILT, slot, slots);
  LoopValue exists = gpu_both(k, inside, works);
  LoopValue from = AT(k, 0, {slot, s->elements}, {element, 1});
  gpu_read(k, value, 0, partial, from, spread->width, exists);
  for (int e = 0; e < spread->width; e++) {
    LoopValue at = loop_int(k, e);
    LoopValue narrow = loop_get(k, value, at);
    LoopValue wide = loop_op1(k, LOOP_TO_F64, narrow);
    LoopValue old = loop_get(k, sums->total, at);
    LoopValue sum = loop_op2(k, LOOP_ADD, old, wide);
    loop_set(k, sums->total, at, sum);
  }
  loop_end(k);
}

LoopKernel *gpu_sum_slots(const SlotsSpec *s, Arena *arena) {
  if (s->total) return slots_total(s, arena);
  int64_t chunk = s->chunk > 0 && s->chunk < s->elements ? s->chunk : s->elements;
  int32_t width = gpu_common_width(chunk, s->elements);
  GpuSpread spread =
      gpu_spread(&s->target, chunk, width, s->images ? SLOTS_ROWS : build_min(s->slots, SLOTS_ROWS), SLOTS_THREADS);
  LoopKernel *k = loop_new(arena, "sum_slots", spread.lanes);
  int32_t partial = loop_buffer(k, "partial", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t y = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  GpuSums sums = gpu_sums(k, &spread, 1);
  int32_t value = loop_tile(k, "value", LOOP_F32, true, width);
  GpuRange range = gpu_chunk(k, chunk, s->elements);
  GpuThread thread = gpu_spread_begin(k, &spread);
  LoopValue element = loop_op2(k, LOOP_IADD, range.from, thread.channel);
  LoopValue works = thread.works;
  if (s->elements % chunk) {
    LoopValue inside = gpu_below(k, element, s->elements);
    works = gpu_both(k, works, inside);
  }
  slots_walk(k, s, &spread, &thread, &sums, partial, value, element, works);
  gpu_sums_join(k, &spread, &thread, &sums);
  thread.works = works;
  LoopValue leads = gpu_leads(k, &spread, &thread);
  gpu_sums_narrow(k, &sums, 0, value, width);
  gpu_write(k, y, element, value, 0, width, leads);
  gpu_spread_end(k, &spread);
  return k;
}

/* ---- means of images ---- */

LoopKernel *gpu_global_mean(const MomentsSpec *s, Arena *arena) {
  int64_t pixels = (int64_t)s->in.height * s->in.width;
  int32_t width = plane_width(&s->in);
  GpuSpread spread = gpu_spread(&s->target, s->in.channels, width, pixels, MOMENTS_THREADS);
  LoopKernel *k = loop_new(arena, "global_mean", spread.lanes);
  int32_t x = loop_buffer(k, "x", LOOP_IN, s->in.element);
  int32_t y = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  GpuSums sums = gpu_sums(k, &spread, 1);
  int32_t value = loop_tile(k, "value", LOOP_F32, true, width);
  LoopValue all = gpu_true(k), share = loop_f32(k, 1.0f / (float)pixels);
  LoopValue image = build_images(k, s->images);
  GpuRange range = {.image = image, .most = pixels};
  range.from = AT(k, 0, {image, pixels});
  range.below = AT(k, pixels, {image, pixels});
  GpuThread thread = gpu_spread_begin(k, &spread);
  LoopValue pixel = gpu_walk_begin(k, &spread, &thread, &range, &sums);
  LoopValue from = AT(k, 0, {pixel, s->in.stride}, {thread.channel, 1});
  gpu_read(k, value, 0, x, from, width, all);
  for (int e = 0; e < width; e++) {
    LoopValue at = loop_int(k, e);
    LoopValue own = loop_get(k, value, at);
    gpu_sums_add(k, &sums, e, own);
  }
  gpu_walk_end(k, &spread, &range, &sums);
  gpu_sums_join(k, &spread, &thread, &sums);
  LoopValue leads = gpu_leads(k, &spread, &thread);
  gpu_sums_narrow(k, &sums, 0, value, width);
  for (int e = 0; e < width; e++) {
    LoopValue at = loop_int(k, e);
    LoopValue total = loop_get(k, value, at);
    LoopValue mean = loop_op2(k, LOOP_MUL, total, share);
    loop_set(k, value, at, mean);
  }
  LoopValue to = AT(k, 0, {image, s->in.channels}, {thread.channel, 1});
  gpu_write(k, y, to, value, 0, width, leads);
  gpu_spread_end(k, &spread);
  loop_end(k);
  return k;
}
