/* Threads over pixels x channels; sums over pixels. */
#include "kernels/gpu/threads.h"

static int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

GpuSpread gpu_spread(const KernelTarget *target, int64_t channels, int32_t width, int64_t pixels, int32_t most) {
  int64_t groups = channels / width;
  if (pixels < 1) pixels = 1;
  GpuSpread s = {.width = width, .groups = (int32_t)groups, .lanes = gpu_lanes(target, groups * pixels, most)};
  double best = 0;
  for (int64_t parts = ceil_div(groups, s.lanes), tried = 0; tried < 4 && parts <= groups; parts++, tried++) {
    int64_t across = ceil_div(groups, parts), rows = build_min(s.lanes / across, pixels);
    double busy = (double)(groups * rows) / (double)parts; /* threads with work, on average */
    if (busy <= 1.1 * best) continue;
    best = busy;
    s.across = (int32_t)across;
    s.rows = (int32_t)rows;
  }
  return s;
}

static bool spread_in_parts(const GpuSpread *s) {
  return s->groups > s->across;
}

GpuThread gpu_spread_begin(LoopKernel *k, const GpuSpread *s) {
  GpuThread t = {.lane = loop_lane(k), .works = LOOP_NONE};
  t.row = gpu_div(k, t.lane, s->across);
  LoopValue group = gpu_mod(k, t.lane, s->across);
  if (s->across * s->rows < s->lanes) t.works = gpu_below(k, t.lane, (int64_t)s->across * s->rows);
  if (spread_in_parts(s)) {
    LoopValue part = build_for(k, 0, s->groups, s->across);
    group = loop_op2(k, LOOP_IADD, part, group);
    if (s->groups % s->across) {
      LoopValue exists = gpu_below(k, group, s->groups);
      t.works = gpu_both(k, t.works, exists);
    }
  }
  t.channel = AT(k, 0, {group, s->width});
  return t;
}

void gpu_spread_end(LoopKernel *k, const GpuSpread *s) {
  if (spread_in_parts(s)) loop_end(k);
}

GpuRange gpu_task_range(LoopKernel *k, int32_t images, int32_t bands, int64_t units, int64_t pixels) {
  LoopValue task = loop_task(k);
  int64_t all = units * pixels;
  GpuRange r = {.image = LOOP_NONE, .most = images * all};
  if (bands > 1) {
    int64_t band_units = ceil_div(units, bands);
    r.most = band_units * pixels;
    r.image = gpu_div(k, task, bands);
    LoopValue band = gpu_mod(k, task, bands);
    LoopValue base = AT(k, 0, {r.image, all});
    LoopValue first = AT(k, 0, {band, r.most});
    LoopValue last = AT(k, r.most, {band, r.most});
    LoopValue most = loop_int(k, all);
    if (units % bands) last = loop_op2(k, LOOP_IMIN, last, most);
    r.from = loop_op2(k, LOOP_IADD, base, first);
    r.below = loop_op2(k, LOOP_IADD, base, last);
    return r;
  }
  r.from = AT(k, 0, {task, r.most});
  r.below = AT(k, r.most, {task, r.most});
  if (images == 1) {
    r.image = task;
    return r;
  }
  LoopValue batch = loop_batch(k);
  LoopValue end = AT(k, 0, {batch, all});
  r.below = loop_op2(k, LOOP_IMIN, r.below, end);
  return r;
}

GpuRange gpu_batch_range(LoopKernel *k) {
  LoopValue batch = loop_batch(k);
  return (GpuRange){.from = loop_int(k, 0), .below = batch, .image = LOOP_NONE, .most = INT32_MAX};
}

GpuRange gpu_chunk(LoopKernel *k, int64_t chunk, int64_t all) {
  LoopValue most = loop_int(k, all);
  if (chunk == 0 || chunk >= all) return (GpuRange){.from = loop_int(k, 0), .below = most, .image = LOOP_NONE, .most = all};
  LoopValue task = loop_task(k);
  LoopValue from = AT(k, 0, {task, chunk});
  LoopValue below = AT(k, chunk, {task, chunk});
  if (all % chunk) below = loop_op2(k, LOOP_IMIN, below, most);
  return (GpuRange){.from = from, .below = below, .image = LOOP_NONE, .most = chunk};
}

LoopValue gpu_slots(LoopKernel *k, int32_t images, int32_t bands) {
  LoopValue batch = loop_batch(k);
  if (bands > 1) return AT(k, 0, {batch, bands});
  LoopValue raised = AT(k, images - 1, {batch, 1});
  return gpu_div(k, raised, images);
}

int32_t gpu_common_width(int64_t a, int64_t b) {
  return a % 4 == 0 && b % 4 == 0 ? 4 : a % 2 == 0 && b % 2 == 0 ? 2 : 1;
}

/* ---- sums ---- */

GpuSums gpu_sums(LoopKernel *k, const GpuSpread *s, int32_t sums) {
  GpuSums g = {.count = sums * s->width, .part = -1};
  if (s->rows > 1) g.part = loop_shared_of(k, "part", LOOP_ELEMENT_F64, (int64_t)g.count * s->lanes);
  g.acc = loop_tile(k, "acc", LOOP_F32, true, g.count);
  g.total = loop_tile(k, "total", LOOP_F64, true, g.count);
  return g;
}

void gpu_sums_add(LoopKernel *k, const GpuSums *sums, int32_t at, LoopValue value) {
  LoopValue index = loop_int(k, at);
  LoopValue old = loop_get(k, sums->acc, index);
  LoopValue sum = loop_op2(k, LOOP_ADD, old, value);
  loop_set(k, sums->acc, index, sum);
}

void gpu_sums_clear(LoopKernel *k, const GpuSums *sums) {
  LoopValue zero = loop_f64(k, 0);
  for (int32_t i = 0; i < sums->count; i++) {
    LoopValue at = loop_int(k, i);
    loop_set(k, sums->total, at, zero);
  }
}

/* total = acc, or total += acc */
static void sums_widen(LoopKernel *k, const GpuSums *sums, bool add) {
  for (int32_t i = 0; i < sums->count; i++) {
    LoopValue at = loop_int(k, i);
    LoopValue few = loop_get(k, sums->acc, at);
    LoopValue wide = loop_op1(k, LOOP_TO_F64, few);
    if (add) {
      LoopValue old = loop_get(k, sums->total, at);
      wide = loop_op2(k, LOOP_ADD, old, wide);
    }
    loop_set(k, sums->total, at, wide);
  }
}

static bool walks_in_runs(const GpuSpread *s, const GpuRange *range) {
  return range->most > (int64_t)s->rows * GPU_RUN;
}

LoopValue gpu_walk_begin(LoopKernel *k, const GpuSpread *s, const GpuThread *thread, const GpuRange *range, const GpuSums *sums) {
  LoopValue from = range->from, below = range->below, rows = loop_int(k, s->rows);
  if (sums && walks_in_runs(s, range)) {
    gpu_sums_clear(k, sums);
    LoopValue run = loop_int(k, (int64_t)s->rows * GPU_RUN);
    from = loop_for(k, from, below, run);
    LoopValue end = AT(k, (int64_t)s->rows * GPU_RUN, {from, 1});
    below = loop_op2(k, LOOP_IMIN, end, below);
  }
  if (sums) gpu_fill(k, sums->acc, 0, sums->count, 0);
  LoopValue base = loop_for(k, from, below, rows);
  LoopValue pixel = loop_op2(k, LOOP_IADD, base, thread->row);
  LoopValue exists = loop_op2(k, LOOP_ILT, pixel, below);
  LoopValue works = gpu_both(k, exists, thread->works);
  loop_if(k, works);
  return pixel;
}

void gpu_walk_end(LoopKernel *k, const GpuSpread *s, const GpuRange *range, const GpuSums *sums) {
  loop_end(k);
  loop_end(k);
  if (!sums) return;
  bool runs = walks_in_runs(s, range);
  sums_widen(k, sums, runs);
  if (runs) loop_end(k);
}

/* Threads with a row `half` further on, which is there, add its totals to theirs; `more`: the next step reads the sums. */
static void sums_fold(LoopKernel *k, const GpuSpread *s, LoopValue lane, const GpuSums *sums, int32_t half, bool more) {
  loop_phase(k, "sums");
  LoopValue partner = AT(k, (int64_t)half * s->across, {lane, 1});
  LoopValue there = gpu_below(k, partner, build_min(2 * half, s->rows) * s->across);
  LoopValue stays = more ? gpu_below(k, lane, (int64_t)half * s->across) : LOOP_NONE;
  for (int32_t i = 0; i < sums->count; i++) {
    LoopValue at = loop_int(k, i);
    LoopValue from = AT(k, (int64_t)i * s->lanes, {partner, 1});
    LoopValue other = loop_gather(k, sums->part, from, there, 0);
    LoopValue own = loop_get(k, sums->total, at);
    LoopValue sum = loop_op2(k, LOOP_ADD, own, other);
    loop_set(k, sums->total, at, sum);
    LoopValue to = AT(k, (int64_t)i * s->lanes, {lane, 1});
    if (more) loop_scatter(k, sums->part, to, sum, stays);
  }
  loop_end(k);
}

void gpu_sums_join(LoopKernel *k, const GpuSpread *s, const GpuThread *thread, const GpuSums *sums) {
  if (s->rows == 1) return;
  LoopValue all = gpu_true(k);
  loop_phase(k, "sums");
  for (int32_t i = 0; i < sums->count; i++) {
    LoopValue at = loop_int(k, i);
    LoopValue own = loop_get(k, sums->total, at);
    LoopValue to = AT(k, (int64_t)i * s->lanes, {thread->lane, 1});
    loop_scatter(k, sums->part, to, own, all);
  }
  loop_end(k);
  int32_t half = 1;
  while (2 * half < s->rows) half *= 2;
  for (; half >= 1; half /= 2) sums_fold(k, s, thread->lane, sums, half, half > 1);
}

void gpu_sums_narrow(LoopKernel *k, const GpuSums *sums, int32_t from, int32_t tile, int32_t count) {
  for (int32_t i = 0; i < count; i++) {
    LoopValue source = loop_int(k, from + i), at = loop_int(k, i);
    LoopValue wide = loop_get(k, sums->total, source);
    LoopValue narrow = loop_op1(k, LOOP_TO_F32, wide);
    loop_set(k, tile, at, narrow);
  }
}

LoopValue gpu_leads(LoopKernel *k, const GpuSpread *s, const GpuThread *thread) {
  LoopValue first = s->across < s->lanes ? gpu_below(k, thread->lane, s->across) : LOOP_NONE;
  LoopValue leads = gpu_both(k, first, thread->works);
  return leads == LOOP_NONE ? gpu_true(k) : leads;
}

/* ---- consecutive numbers ---- */

LoopValue gpu_each_begin(LoopKernel *k, LoopValue from, LoopValue below, int32_t width) {
  LoopValue lane = loop_lane(k), step = loop_int(k, (int64_t)k->lanes * width);
  LoopValue base = loop_for(k, from, below, step);
  LoopValue item = AT(k, 0, {base, 1}, {lane, width});
  LoopValue exists = loop_op2(k, LOOP_ILT, item, below);
  loop_if(k, exists);
  return item;
}

void gpu_each_end(LoopKernel *k) {
  loop_end(k);
  loop_end(k);
}
