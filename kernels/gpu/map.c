/* Elementwise expressions on a GPU: threads over pixels x groups of channels, each walking over pixels with its own channels.
 *
 * What does not depend on the pixel (per-channel numbers, scalars and what is computed of them alone: a BN's factor) is
 * evaluated once a thread and kept in registers, as much as fits. The rest is evaluated as the outputs ask for it, one input's
 * vector after another, so that a node's sum of many inputs holds few of them at a time. Operations are the spec's; the order
 * in which independent ones stand has no effect on the bits. Everything is read before anything is written: in-place outputs. */
#include "kernels/family_private.h"
#include "kernels/gpu/threads.h"

#include "runtime/base/err.h"

#include <string.h>

enum {
  MAP_THREADS = 256,
  MAP_KEPT = 64, /* registers for what is kept over the pixels */
  MAP_MOST_OPERANDS = MAP_MAX_INPUTS + MAP_MAX_STEPS,
};

typedef enum MapLevel { MAP_ONCE /* the same in all threads */, MAP_PER_CHANNEL, MAP_PER_PIXEL } MapLevel;

typedef struct Map {
  const MapSpec *s;
  int32_t width;
  int32_t inputs[MAP_MAX_INPUTS], outputs[MAP_MAX_OUTPUTS], partial, sums;
  int32_t read, written; /* tiles: one vector on its way from or to memory */
  MapLevel level[MAP_MOST_OPERANDS];
  bool kept[MAP_MOST_OPERANDS];                       /* evaluated before the pixels, used by them */
  LoopValue value[MAP_MOST_OPERANDS][GPU_MOST_WIDTH]; /* LOOP_NONE: not evaluated yet */
  LoopValue channel, pixel, image, index;             /* where it is evaluated; index: of a flat one */
  GpuSums acc;
} Map;

/* ---- what is evaluated where ---- */

static int map_operands(const MapStep *step, int32_t operand[3]) {
  operand[0] = step->a, operand[1] = step->b, operand[2] = step->c;
  switch (step->op) {
  case LOOP_FLOAT:
  case LOOP_BATCH: return 0;
  case LOOP_SQRT: return 1;
  case LOOP_FMA:
  case LOOP_SELECT: return 3;
  default: return 2;
  }
}

static MapLevel map_input_level(const MapSpec *s, const MapInput *input) {
  if (input->kind == MAP_SCALAR) return MAP_ONCE;
  if (s->flat || input->kind == MAP_TENSOR) return MAP_PER_PIXEL;
  return input->kind == MAP_CHANNEL || s->images == 1 ? MAP_PER_CHANNEL : MAP_PER_PIXEL;
}

static void map_levels(Map *m) {
  const MapSpec *s = m->s;
  for (int32_t i = 0; i < s->input_count; i++) m->level[i] = map_input_level(s, &s->inputs[i]);
  for (int32_t i = 0; i < s->step_count; i++) {
    int32_t operand[3];
    int count = map_operands(&s->steps[i], operand);
    MapLevel level = MAP_ONCE;
    for (int o = 0; o < count; o++)
      if (m->level[operand[o]] > level) level = m->level[operand[o]];
    m->level[s->input_count + i] = level;
  }
}

/* Whether each per-channel operand is used where pixels are; `asked` is set for all that the outputs need. */
static void map_frontier(const Map *m, bool *asked, bool *frontier) {
  const MapSpec *s = m->s;
  for (int32_t i = 0; i < s->output_count; i++) {
    asked[s->outputs[i].value] = true;
    frontier[s->outputs[i].value] = true;
  }
  for (int32_t i = s->step_count; i-- > 0;) {
    int32_t operand[3], number = s->input_count + i;
    if (!asked[number]) continue;
    int count = map_operands(&s->steps[i], operand);
    for (int o = 0; o < count; o++) {
      asked[operand[o]] = true;
      if (m->level[number] == MAP_PER_PIXEL) frontier[operand[o]] = true;
    }
  }
}

/* Keeps what is computed first (it costs divisions and roots), then what is only loaded, while there are registers. */
static void map_choose_kept(Map *m) {
  bool asked[MAP_MOST_OPERANDS] = {false}, frontier[MAP_MOST_OPERANDS] = {false};
  int32_t operands = m->s->input_count + m->s->step_count, registers = MAP_KEPT;
  map_frontier(m, asked, frontier);
  for (int32_t v = operands; v-- > 0;) {
    if (!frontier[v] || m->level[v] == MAP_PER_PIXEL) continue;
    int32_t cost = m->level[v] == MAP_ONCE ? 0 : m->width;
    m->kept[v] = cost <= registers;
    if (m->kept[v]) registers -= cost;
  }
}

/* ---- the expression ---- */

static LoopValue map_apply(LoopKernel *k, const Map *m, const MapStep *step, int e) {
  switch (step->op) {
  case LOOP_FLOAT: return loop_f32(k, step->value);
  case LOOP_BATCH: {
    LoopValue batch = loop_batch(k);
    LoopValue number = loop_op1(k, LOOP_TO_F32, batch);
    LoopValue scale = loop_f32(k, step->value);
    return loop_op2(k, LOOP_MUL, number, scale);
  }
  case LOOP_SQRT: return loop_op1(k, LOOP_SQRT, m->value[step->a][e]);
  case LOOP_FMA:
  case LOOP_SELECT: return loop_op3(k, step->op, m->value[step->a][e], m->value[step->b][e], m->value[step->c][e]);
  default: return loop_op2(k, step->op, m->value[step->a][e], m->value[step->b][e]);
  }
}

static LoopValue map_input_index(LoopKernel *k, const Map *m, const MapInput *input) {
  if (m->s->flat) return AT(k, input->offset, {m->index, 1});
  if (input->kind == MAP_TENSOR) return AT(k, input->offset, {m->pixel, input->stride}, {m->channel, 1});
  if (input->kind == MAP_CHANNEL) return AT(k, input->offset, {m->channel, 1});
  LoopValue image = m->image == LOOP_NONE ? gpu_div(k, m->pixel, m->s->pixels) : m->image;
  return AT(k, input->offset, {image, m->s->channels}, {m->channel, 1});
}

static void map_load(LoopKernel *k, Map *m, int32_t i, LoopValue where) {
  const MapInput *input = &m->s->inputs[i];
  if (input->kind == MAP_SCALAR) {
    LoopValue at = loop_int(k, input->offset);
    m->value[i][0] = loop_load(k, m->inputs[i], at);
    return;
  }
  LoopValue at = map_input_index(k, m, input);
  gpu_read(k, m->read, 0, m->inputs[i], at, m->width, where);
  for (int e = 0; e < m->width; e++) {
    LoopValue element = loop_int(k, e);
    m->value[i][e] = loop_get(k, m->read, element);
  }
}

/* Evaluates operand v, and before it what it needs. */
static void map_evaluate(LoopKernel *k, Map *m, int32_t v, LoopValue where) {
  if (m->value[v][0] != LOOP_NONE) return;
  int copies = m->level[v] == MAP_ONCE ? 1 : m->width;
  if (v < m->s->input_count) {
    map_load(k, m, v, where);
  } else {
    const MapStep *step = &m->s->steps[v - m->s->input_count];
    int32_t operand[3];
    int count = map_operands(step, operand);
    for (int o = 0; o < count; o++) map_evaluate(k, m, operand[o], where);
    for (int e = 0; e < copies; e++) m->value[v][e] = map_apply(k, m, step, e);
  }
  for (int e = copies; e < m->width; e++) m->value[v][e] = m->value[v][0];
}

/* Evaluates what is kept, and forgets what only led to it. `level`: the scalars, or also what depends on the channel. */
static void map_prepare(LoopKernel *k, Map *m, MapLevel level, LoopValue where) {
  int32_t operands = m->s->input_count + m->s->step_count;
  for (int32_t v = 0; v < operands; v++)
    if (m->kept[v] && m->level[v] <= level) map_evaluate(k, m, v, where);
  for (int32_t v = 0; v < operands; v++)
    if (!m->kept[v] && m->level[v] == MAP_PER_CHANNEL) memset(m->value[v], 0xff, sizeof m->value[v]);
}

/* At one pixel's vector of channels: all outputs. */
static void map_element(LoopKernel *k, Map *m, LoopValue where) {
  const MapSpec *s = m->s;
  for (int32_t i = 0; i < s->output_count; i++) map_evaluate(k, m, s->outputs[i].value, where);
  int32_t sum = 0;
  for (int32_t i = 0; i < s->output_count; i++) {
    const MapOutput *output = &s->outputs[i];
    const LoopValue *value = m->value[output->value];
    if (output->sum) {
      for (int e = 0; e < m->width; e++) gpu_sums_add(k, &m->acc, sum * m->width + e, value[e]);
      sum++;
      continue;
    }
    for (int e = 0; e < m->width; e++) {
      LoopValue at = loop_int(k, e);
      loop_set(k, m->written, at, value[e]);
    }
    LoopValue to = s->flat ? m->index : AT(k, 0, {m->pixel, output->stride}, {m->channel, 1});
    gpu_write(k, m->outputs[i], to, m->written, 0, m->width, where);
  }
}

/* ---- kernels ---- */

static bool map_divides(const MapSpec *s, int32_t width) {
  if (s->channels % width || (s->flat && s->chunk % width)) return false;
  for (int32_t i = 0; i < s->input_count; i++) {
    const MapInput *input = &s->inputs[i];
    if (input->kind == MAP_SCALAR) continue;
    if (input->unaligned && width > 1) return false;
    if (input->offset % width || (!s->flat && input->kind == MAP_TENSOR && input->stride % width)) return false;
  }
  for (int32_t i = 0; i < s->output_count; i++)
    if (!s->flat && !s->outputs[i].sum && (s->outputs[i].stride % width || (s->outputs[i].unaligned && width > 1))) return false;
  return true;
}

/* 8 channels where everything is bf16 and small enough to stay in registers. */
static int32_t map_width(const MapSpec *s, int32_t sums) {
  int32_t tensors = 0, narrow = 0, wide = sums > 2;
  for (int32_t i = 0; i < s->input_count; i++) {
    bool tensor = !s->flat && s->inputs[i].kind == MAP_TENSOR;
    tensors += tensor;
    narrow += tensor && s->inputs[i].element == LOOP_ELEMENT_BF16;
  }
  for (int32_t i = 0; i < s->output_count; i++) wide |= !s->outputs[i].sum && s->outputs[i].element != LOOP_ELEMENT_BF16;
  if (!wide && tensors > 0 && tensors == narrow && s->input_count <= 8 && map_divides(s, 8)) return 8;
  for (int32_t width = 4; width > 1; width /= 2)
    if (map_divides(s, width)) return width;
  return 1;
}

static void map_buffers(LoopKernel *k, Map *m) {
  static const char *const output_names[MAP_MAX_OUTPUTS] = {"y0", "y1", "y2", "y3"};
  const MapSpec *s = m->s;
  for (int32_t i = 0; i < s->input_count; i++) {
    bool written = false;
    for (int32_t o = 0; o < s->output_count; o++) written |= s->outputs[o].in_place && s->outputs[o].input == i;
    LoopElement element = s->inputs[i].kind == MAP_TENSOR ? s->inputs[i].element : LOOP_ELEMENT_F32;
    m->inputs[i] = loop_buffer(k, arena_printf(k->arena, "a%d", i), written ? LOOP_INOUT : LOOP_IN, element);
  }
  for (int32_t i = 0; i < s->output_count; i++) {
    if (s->outputs[i].sum) continue;
    m->outputs[i] = s->outputs[i].in_place ? m->inputs[s->outputs[i].input]
                                           : loop_buffer(k, output_names[i], LOOP_OUT, s->outputs[i].element);
  }
  if (m->sums) m->partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
  m->read = loop_tile(k, "read", LOOP_F32, true, m->width);
  m->written = loop_tile(k, "written", LOOP_F32, true, m->width);
}

static void map_flat(LoopKernel *k, Map *m) {
  map_buffers(k, m);
  GpuRange range = gpu_chunk(k, m->s->chunk, m->s->channels);
  LoopValue all = gpu_true(k);
  map_prepare(k, m, MAP_ONCE, all);
  m->index = gpu_each_begin(k, range.from, range.below, m->width);
  map_element(k, m, all);
  gpu_each_end(k);
}

static void map_store_sums(LoopKernel *k, const Map *m, const GpuSpread *spread, const GpuThread *thread) {
  gpu_sums_join(k, spread, thread, &m->acc);
  LoopValue leads = gpu_leads(k, spread, thread), task = loop_task(k);
  for (int32_t sum = 0; sum < m->sums; sum++) {
    gpu_sums_narrow(k, &m->acc, sum * m->width, m->written, m->width);
    LoopValue to = AT(k, (int64_t)sum * m->s->channels, {task, (int64_t)m->sums * m->s->channels}, {thread->channel, 1});
    gpu_write(k, m->partial, to, m->written, 0, m->width, leads);
  }
}

static void map_pixels(LoopKernel *k, Map *m, const GpuSpread *spread) {
  const MapSpec *s = m->s;
  map_buffers(k, m);
  if (m->sums) m->acc = gpu_sums(k, spread, m->sums);
  GpuRange range = gpu_task_range(k, s->images, s->bands, s->pixels, 1);
  LoopValue all = gpu_true(k);
  map_prepare(k, m, MAP_ONCE, all);
  GpuThread thread = gpu_spread_begin(k, spread);
  m->channel = thread.channel;
  m->image = range.image;
  map_prepare(k, m, MAP_PER_CHANNEL, thread.works == LOOP_NONE ? all : thread.works);
  m->pixel = gpu_walk_begin(k, spread, &thread, &range, m->sums ? &m->acc : NULL);
  map_element(k, m, all);
  gpu_walk_end(k, spread, &range, m->sums ? &m->acc : NULL);
  if (m->sums) map_store_sums(k, m, spread, &thread);
  gpu_spread_end(k, spread);
}

LoopKernel *gpu_map(const MapSpec *s, Arena *arena) {
  if (s->input_count > MAP_MAX_INPUTS || s->step_count > MAP_MAX_STEPS || s->output_count > MAP_MAX_OUTPUTS)
    die("gpu_map: spec too large");
  Map *m = ARENA_NEW(arena, Map);
  *m = (Map){.s = s, .partial = -1, .image = LOOP_NONE};
  memset(m->value, 0xff, sizeof m->value); /* LOOP_NONE */
  for (int32_t i = 0; i < s->output_count; i++) m->sums += s->outputs[i].sum;
  if (s->flat && m->sums) die("gpu_map: a flat expression has no sums");
  m->width = map_width(s, m->sums);
  map_levels(m);
  map_choose_kept(m);
  int64_t pixels = s->bands > 1 ? s->pixels / s->bands : (int64_t)s->images * s->pixels;
  GpuSpread spread = gpu_spread(&s->target, s->channels, m->width, pixels, MAP_THREADS);
  int64_t chunk = s->chunk > 0 && s->chunk < s->channels ? s->chunk : s->channels;
  int32_t lanes = s->flat ? gpu_lanes(&s->target, chunk / m->width, MAP_THREADS) : spread.lanes;
  LoopKernel *k = loop_new(arena, "map", lanes);
  if (s->flat)
    map_flat(k, m);
  else
    map_pixels(k, m, &spread);
  return k;
}
