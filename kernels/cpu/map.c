/* Elementwise expressions over pixels x channels, with sums over pixels: ReLU, BN's apply and gradient, a node's weighted sum,
 * optimizer updates, and the reductions that feed BN and the mixing probabilities. The expression is in the spec, so that
 * whatever a schedule fuses becomes one pass over memory.
 *
 * Each step runs as seldom as what it is made of allows: once a task where that is scalars and numbers alone, once a block of
 * channels where it is per channel (those results stand in scratch), once an image, or at each pixel. Pixels are done a few at a
 * time, step by step: what a channel's coefficient costs to fetch is paid once for all of them, and their chains overlap. A run
 * of pixels is done for all channels before the next one, so that memory is read from end to end. */
#include "kernels/cpu/map_private.h"
#include "kernels/family_private.h"

#include "runtime/base/err.h"

/* Where an expression is evaluated, and what of it is known: `pixel` is LOOP_NONE for flat ones. */
typedef struct MapPlace {
  LoopValue image, pixel, c, lanes;
  LoopValue fixed[MAP_VALUES];                   /* what is the same at each pixel */
  LoopValue values[MAP_MOST_PIXELS][MAP_VALUES]; /* and what is not; LOOP_NONE: not loaded yet */
} MapPlace;

/* ---- values ---- */

static LoopValue map_load(const Map *m, const MapPlace *p, int32_t i, int32_t j) {
  const MapSpec *s = m->s;
  LoopKernel *k = m->k;
  const MapInput *input = &s->inputs[i];
  LoopValue at = LOOP_NONE;
  if (input->kind == MAP_SCALAR) return loop_load(k, m->inputs[i], loop_int(k, input->offset));
  if (s->flat)
    at = AT(k, input->offset + (int64_t)j * k->lanes, {p->c, 1});
  else if (input->kind == MAP_TENSOR)
    at = AT(k, input->offset + (int64_t)j * input->stride, {p->image, (int64_t)s->pixels * input->stride},
            {p->pixel, input->stride}, {p->c, 1});
  else if (input->kind == MAP_IMAGE)
    at = AT(k, input->offset, {p->image, s->channels}, {p->c, 1});
  else
    at = AT(k, input->offset, {p->c, 1});
  return loop_load_lanes(k, m->inputs[i], at, p->lanes, 0);
}

static LoopValue map_step(LoopKernel *k, const MapStep *step, const LoopValue *operand) {
  switch (step->op) {
  case LOOP_FLOAT: return loop_f32(k, step->value);
  case LOOP_BATCH: {
    LoopValue batch = loop_batch(k);
    LoopValue number = loop_op1(k, LOOP_TO_F32, batch);
    LoopValue scale = loop_f32(k, step->value);
    return loop_op2(k, LOOP_MUL, number, scale);
  }
  case LOOP_SQRT: return loop_op1(k, LOOP_SQRT, operand[0]);
  case LOOP_FMA:
  case LOOP_SELECT: return loop_op3(k, step->op, operand[0], operand[1], operand[2]);
  default: return loop_op2(k, step->op, operand[0], operand[1]);
  }
}

static LoopValue map_value(const Map *m, MapPlace *p, int32_t at, int32_t j) {
  if (m->level[at] != MAP_EACH_PIXEL) return p->fixed[at];
  LoopValue *value = &p->values[j][at];
  if (*value == LOOP_NONE) *value = map_load(m, p, at, j);
  return *value;
}

/* The inputs and steps of a level below that of pixels. */
static void map_fixed(const Map *m, MapPlace *p, MapLevel level) {
  const MapSpec *s = m->s;
  for (int32_t i = 0; i < s->input_count; i++)
    if (m->level[i] == level) p->fixed[i] = map_load(m, p, i, 0);
  for (int32_t i = 0; i < s->step_count; i++) {
    const MapStep *step = &s->steps[i];
    if (m->level[s->input_count + i] != level) continue;
    LoopValue operand[3] = {0};
    for (int j = 0; j < map_operands(step); j++) operand[j] = p->fixed[map_operand(step, j)];
    p->fixed[s->input_count + i] = map_step(m->k, step, operand);
  }
}

/* All that is done at `count` pixels, or vectors of a flat expression, side by side. */
static void map_elements(const Map *m, MapPlace *p, int32_t count) {
  const MapSpec *s = m->s;
  LoopKernel *k = m->k;
  for (int32_t j = 0; j < count; j++)
    for (int32_t i = 0; i < s->input_count; i++) p->values[j][i] = LOOP_NONE;
  for (int32_t i = 0; i < s->step_count; i++) {
    const MapStep *step = &s->steps[i];
    if (m->level[s->input_count + i] != MAP_EACH_PIXEL) continue;
    LoopValue operand[MAP_MOST_PIXELS][3];
    for (int o = 0; o < map_operands(step); o++)
      for (int32_t j = 0; j < count; j++) operand[j][o] = map_value(m, p, map_operand(step, o), j);
    for (int32_t j = 0; j < count; j++) p->values[j][s->input_count + i] = map_step(k, step, operand[j]);
  }
  int32_t sum = 0;
  for (int32_t i = 0; i < s->output_count; i++) /* all is read before anything is written in place */
    for (int32_t j = 0; j < count; j++) map_value(m, p, s->outputs[i].value, j);
  for (int32_t i = 0; i < s->output_count; i++) {
    const MapOutput *output = &s->outputs[i];
    for (int32_t j = 0; j < count; j++) {
      LoopValue value = map_value(m, p, output->value, j);
      if (output->sum) {
        LoopValue slot = loop_int(k, sum * m->accumulators + j % m->accumulators);
        LoopValue old = loop_get(k, m->acc, slot);
        LoopValue more = loop_op2(k, LOOP_ADD, old, value);
        loop_set(k, m->acc, slot, more);
        continue;
      }
      LoopValue at = s->flat ? AT(k, (int64_t)j * k->lanes, {p->c, 1})
                             : AT(k, (int64_t)j * output->stride, {p->image, (int64_t)s->pixels * output->stride},
                                  {p->pixel, output->stride}, {p->c, 1});
      loop_store_lanes(k, m->outputs[i], at, value, p->lanes);
    }
    sum += output->sum;
  }
}

/* ---- flat expressions ---- */

static void map_flat(const Map *m, MapPlace *p) {
  const MapSpec *s = m->s;
  LoopKernel *k = m->k;
  int64_t group = (int64_t)m->pixels * k->lanes;
  LoopValue task = loop_task(k), all = loop_int(k, s->channels), step = loop_int(k, k->lanes), groups = loop_int(k, group);
  LoopValue from = AT(k, 0, {task, s->chunk});
  LoopValue end = AT(k, s->chunk, {task, s->chunk});
  LoopValue below = loop_op2(k, LOOP_IMIN, end, all);
  LoopValue size = AT(k, 0, {below, 1}, {from, -1});
  LoopValue whole = loop_op2(k, LOOP_IDIV, size, groups);
  LoopValue rest = AT(k, 0, {from, 1}, {whole, group});
  p->c = loop_for(k, from, rest, groups);
  p->lanes = step;
  map_elements(m, p, m->pixels);
  loop_end(k);
  p->c = loop_for(k, rest, below, step);
  LoopValue left = AT(k, 0, {below, 1}, {p->c, -1});
  p->lanes = loop_op2(k, LOOP_IMIN, left, step);
  map_elements(m, p, 1);
  loop_end(k);
}

/* ---- expressions over pixels ---- */

/* A task's start: no sums yet, and what channels alone make. */
static void map_begin(const Map *m, MapPlace *p, const BlockLoop *block) {
  const MapSpec *s = m->s;
  LoopKernel *k = m->k;
  LoopValue whole = loop_int(k, k->lanes), no_sum = loop_f64(k, 0);
  p->c = build_for(k, block->from, block->below, block->step);
  p->lanes = loop_int(k, block->count);
  if (m->channels >= 0) map_fixed(m, p, MAP_EACH_BLOCK);
  for (int32_t i = 0; i < s->step_count; i++) {
    int32_t own = s->input_count + i;
    if (m->kept[own] < 0) continue;
    LoopValue at = AT(k, m->kept[own] * m->across, {p->c, 1});
    loop_store_lanes(k, m->channels, at, p->fixed[own], whole);
  }
  for (int32_t i = 0; i < m->sums; i++) {
    LoopValue at = AT(k, i * m->across, {p->c, 1});
    loop_store_lanes(k, m->total, at, no_sum, whole);
  }
  loop_end(k);
}

/* Fetches what each block and image has. */
static void map_fetch(const Map *m, MapPlace *p) {
  const MapSpec *s = m->s;
  LoopKernel *k = m->k;
  LoopValue whole = loop_int(k, k->lanes);
  for (int32_t i = 0; i < s->input_count; i++)
    if (m->level[i] == MAP_EACH_BLOCK) p->fixed[i] = map_load(m, p, i, 0);
  for (int32_t i = 0; i < s->step_count; i++) {
    int32_t own = s->input_count + i;
    if (m->kept[own] < 0) continue;
    LoopValue at = AT(k, m->kept[own] * m->across, {p->c, 1});
    p->fixed[own] = loop_load_lanes(k, m->channels, at, whole, 0);
  }
  map_fixed(m, p, MAP_EACH_IMAGE);
}

/* total += the run's sums, whose accumulators are added in pairs */
static void map_add_sums(const Map *m, LoopValue c) {
  LoopKernel *k = m->k;
  LoopValue whole = loop_int(k, k->lanes);
  for (int32_t i = 0; i < m->sums; i++) {
    LoopValue part[MAP_MOST_PIXELS];
    for (int32_t j = 0; j < m->accumulators; j++) part[j] = loop_get(k, m->acc, loop_int(k, i * m->accumulators + j));
    for (int32_t half = m->accumulators / 2; half >= 1; half /= 2)
      for (int32_t j = 0; j < half; j++) part[j] = loop_op2(k, LOOP_ADD, part[j], part[j + half]);
    LoopValue wide = loop_op1(k, LOOP_TO_F64, part[0]);
    LoopValue at = AT(k, i * m->across, {c, 1});
    LoopValue old = loop_load_lanes(k, m->total, at, whole, 0);
    LoopValue sum = loop_op2(k, LOOP_ADD, old, wide);
    loop_store_lanes(k, m->total, at, sum, whole);
  }
}

/* `size` pixels from `run` on at one block of channels. */
static void map_run(const Map *m, MapPlace *p, LoopValue run, int32_t size) {
  LoopKernel *k = m->k;
  LoopValue zero = loop_f32(k, 0);
  map_fetch(m, p);
  for (int32_t i = 0; i < m->sums * m->accumulators; i++) loop_set(k, m->acc, loop_int(k, i), zero);
  TileLoop tiles[2];
  int count = build_tiles(size, m->pixels, tiles);
  for (int i = 0; i < count; i++) {
    LoopValue inner = build_for(k, tiles[i].from, tiles[i].below, tiles[i].size);
    p->pixel = AT(k, 0, {run, 1}, {inner, 1});
    map_elements(m, p, tiles[i].size);
    loop_end(k);
  }
  map_add_sums(m, p->c);
}

static void map_store_sums(const Map *m, LoopValue c, LoopValue lanes) {
  LoopKernel *k = m->k;
  LoopValue task = loop_task(k), whole = loop_int(k, k->lanes);
  for (int32_t i = 0; i < m->sums; i++) {
    LoopValue from = AT(k, i * m->across, {c, 1});
    LoopValue wide = loop_load_lanes(k, m->total, from, whole, 0);
    LoopValue value = loop_op1(k, LOOP_TO_F32, wide);
    LoopValue at = AT(k, (int64_t)i * m->s->channels, {task, (int64_t)m->sums * m->s->channels}, {c, 1});
    loop_store_lanes(k, m->partial, at, value, lanes);
  }
}

static void map_images(const Map *m, MapPlace *p) {
  const MapSpec *s = m->s;
  LoopKernel *k = m->k;
  BlockLoop blocks[3];
  TileLoop runs[2];
  int count = build_blocks(s->channels, k->lanes, 1, blocks), run_count = build_tiles(s->pixels, m->run, runs);
  for (int b = 0; b < count && (m->channels >= 0 || m->sums); b++) map_begin(m, p, &blocks[b]);
  p->image = build_images(k, s->images);
  for (int r = 0; r < run_count; r++) {
    LoopValue run = build_for(k, runs[r].from, runs[r].below, runs[r].size);
    for (int b = 0; b < count; b++) {
      p->c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
      p->lanes = loop_int(k, blocks[b].count);
      map_run(m, p, run, runs[r].size);
      loop_end(k);
    }
    loop_end(k);
  }
  loop_end(k);
  for (int b = 0; b < count && m->sums; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    map_store_sums(m, c, loop_int(k, blocks[b].count));
    loop_end(k);
  }
}

/* ---- the kernel ---- */

static void map_buffers(Map *m) {
  static const char *const output_names[MAP_MAX_OUTPUTS] = {"y0", "y1", "y2", "y3"};
  const MapSpec *s = m->s;
  LoopKernel *k = m->k;
  for (int32_t i = 0; i < s->input_count; i++) {
    bool written = false;
    for (int32_t o = 0; o < s->output_count; o++) written |= s->outputs[o].in_place && s->outputs[o].input == i;
    m->inputs[i] = loop_buffer(k, arena_printf(k->arena, "a%d", i), written ? LOOP_INOUT : LOOP_IN, LOOP_ELEMENT_F32);
  }
  for (int32_t i = 0; i < s->output_count; i++) {
    if (s->outputs[i].sum)
      m->sums++;
    else if (s->outputs[i].in_place)
      m->outputs[i] = m->inputs[s->outputs[i].input];
    else
      m->outputs[i] = loop_buffer(k, output_names[i], LOOP_OUT, LOOP_ELEMENT_F32);
  }
  if (m->sums) m->partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
}

LoopKernel *cpu_map(const MapSpec *s, Arena *arena) {
  if (s->input_count > MAP_MAX_INPUTS || s->step_count > MAP_MAX_STEPS || s->output_count > MAP_MAX_OUTPUTS)
    die("cpu_map: spec too large");
  LoopKernel *k = loop_new(arena, "map", s->target.lanes);
  Map *m = ARENA_NEW(arena, Map);
  MapPlace *p = ARENA_NEW(arena, MapPlace);
  *m = (Map){.s = s, .k = k, .channels = -1, .across = (s->channels + k->lanes - 1) / k->lanes * (int64_t)k->lanes};
  map_buffers(m);
  if (s->flat && m->sums) die("cpu_map: a flat expression has no sums");
  map_plan(m);
  if (!s->flat && m->kept_count) m->channels = loop_shared(k, "channels", m->kept_count * m->across);
  if (m->sums) {
    m->total = loop_shared_of(k, "total", LOOP_ELEMENT_F64, m->sums * m->across);
    m->acc = loop_tile(k, "acc", LOOP_F32, true, (int64_t)m->sums * m->accumulators);
  }
  map_fixed(m, p, MAP_ONCE);
  if (s->flat)
    map_flat(m, p);
  else
    map_images(m, p);
  return k;
}
