/* Elementwise expressions over pixels x channels, with sums over pixels: ReLU, BN's apply and gradient, a node's weighted sum,
 * optimizer updates, and the reductions that feed BN and the mixing probabilities. The expression is in the spec, so that
 * whatever a schedule fuses becomes one pass over memory. */
#include "kernels/build.h"
#include "kernels/family_private.h"

#include "runtime/base/err.h"

enum { MAP_RUN = 32 }; /* pixels whose sum is carried in f32 */

typedef struct Map {
  const MapSpec *s;
  int32_t inputs[MAP_MAX_INPUTS], outputs[MAP_MAX_OUTPUTS], partial, acc, total, sums; /* acc: of a few pixels, in f32 */
} Map;

static Map map_buffers(LoopKernel *k, const MapSpec *s) {
  static const char *const output_names[MAP_MAX_OUTPUTS] = {"y0", "y1", "y2", "y3"};
  Map m = {.s = s, .partial = -1, .acc = -1};
  for (int32_t i = 0; i < s->input_count; i++) {
    bool written = false;
    for (int32_t o = 0; o < s->output_count; o++) written |= s->outputs[o].in_place && s->outputs[o].input == i;
    m.inputs[i] = loop_buffer(k, arena_printf(k->arena, "a%d", i), written ? LOOP_INOUT : LOOP_IN, LOOP_ELEMENT_F32);
  }
  for (int32_t i = 0; i < s->output_count; i++) {
    if (s->outputs[i].sum)
      m.sums++;
    else if (s->outputs[i].in_place)
      m.outputs[i] = m.inputs[s->outputs[i].input];
    else
      m.outputs[i] = loop_buffer(k, output_names[i], LOOP_OUT, LOOP_ELEMENT_F32);
  }
  if (m.sums) {
    m.partial = loop_buffer(k, "partial", LOOP_OUT, LOOP_ELEMENT_F32);
    m.acc = loop_tile(k, "acc", LOOP_F32, true, m.sums);
    m.total = loop_tile(k, "total", LOOP_F64, true, m.sums);
  }
  return m;
}

static LoopValue map_step(LoopKernel *k, const MapStep *step, const LoopValue *values) {
  switch (step->op) {
  case LOOP_FLOAT: return loop_f32(k, step->value);
  case LOOP_BATCH: {
    LoopValue batch = loop_batch(k);
    LoopValue number = loop_op1(k, LOOP_TO_F32, batch);
    LoopValue scale = loop_f32(k, step->value);
    return loop_op2(k, LOOP_MUL, number, scale);
  }
  case LOOP_SQRT: return loop_op1(k, LOOP_SQRT, values[step->a]);
  case LOOP_FMA:
  case LOOP_SELECT: return loop_op3(k, step->op, values[step->a], values[step->b], values[step->c]);
  default: return loop_op2(k, step->op, values[step->a], values[step->b]);
  }
}

/* The expression at one pixel's block of channels; `image` and `pixel` are LOOP_NONE for flat ones. */
static void map_element(LoopKernel *k, const Map *m, LoopValue image, LoopValue pixel, LoopValue c, LoopValue lanes) {
  const MapSpec *s = m->s;
  LoopValue values[MAP_MAX_INPUTS + MAP_MAX_STEPS];
  for (int32_t i = 0; i < s->input_count; i++) {
    const MapInput *input = &s->inputs[i];
    LoopValue at = c;
    if (input->kind == MAP_TENSOR && !s->flat)
      at = AT(k, input->offset, {image, (int64_t)s->pixels * input->stride}, {pixel, input->stride}, {c, 1});
    else if (input->kind == MAP_IMAGE)
      at = AT(k, input->offset, {image, s->channels}, {c, 1});
    else if (input->kind == MAP_SCALAR)
      at = loop_int(k, input->offset);
    else
      at = AT(k, input->offset, {c, 1});
    values[i] = input->kind == MAP_SCALAR ? loop_load(k, m->inputs[i], at) : loop_load_lanes(k, m->inputs[i], at, lanes, 0);
  }
  for (int32_t i = 0; i < s->step_count; i++) values[s->input_count + i] = map_step(k, &s->steps[i], values);
  int32_t sum = 0;
  for (int32_t i = 0; i < s->output_count; i++) {
    LoopValue value = values[s->outputs[i].value];
    if (s->outputs[i].sum) {
      LoopValue slot = loop_int(k, sum++);
      LoopValue old = loop_get(k, m->acc, slot);
      LoopValue total = loop_op2(k, LOOP_ADD, old, value);
      loop_set(k, m->acc, slot, total);
    } else {
      LoopValue at =
          s->flat ? c : AT(k, 0, {image, (int64_t)s->pixels * s->outputs[i].stride}, {pixel, s->outputs[i].stride}, {c, 1});
      loop_store_lanes(k, m->outputs[i], at, value, lanes);
    }
  }
}

static void map_flat(LoopKernel *k, const Map *m) {
  const MapSpec *s = m->s;
  LoopValue task = loop_task(k);
  LoopValue from = AT(k, 0, {task, s->chunk});
  LoopValue end = AT(k, s->chunk, {task, s->chunk});
  LoopValue all = loop_int(k, s->channels);
  LoopValue below = loop_op2(k, LOOP_IMIN, end, all);
  LoopValue step = loop_int(k, k->lanes);
  LoopValue c = loop_for(k, from, below, step);
  LoopValue left = AT(k, s->channels, {c, -1});
  LoopValue lanes = loop_op2(k, LOOP_IMIN, left, step);
  map_element(k, m, LOOP_NONE, LOOP_NONE, c, lanes);
  loop_end(k);
}

static void map_clear(LoopKernel *k, const Map *m, int32_t tile, LoopValue zero) {
  if (!m->sums) return;
  LoopValue slot = loop_unroll(k, 0, m->sums, 1);
  loop_set(k, tile, slot, zero);
  loop_end(k);
}

/* total += acc */
static void map_sums_add(LoopKernel *k, const Map *m) {
  if (!m->sums) return;
  LoopValue slot = loop_unroll(k, 0, m->sums, 1);
  LoopValue few = loop_get(k, m->acc, slot);
  LoopValue wide = loop_op1(k, LOOP_TO_F64, few);
  LoopValue old = loop_get(k, m->total, slot);
  LoopValue sum = loop_op2(k, LOOP_ADD, old, wide);
  loop_set(k, m->total, slot, sum);
  loop_end(k);
}

static void map_sums_store(LoopKernel *k, const Map *m, LoopValue c, LoopValue lanes) {
  if (!m->sums) return;
  LoopValue task = loop_task(k);
  LoopValue slot = loop_unroll(k, 0, m->sums, 1);
  LoopValue wide = loop_get(k, m->total, slot);
  LoopValue value = loop_op1(k, LOOP_TO_F32, wide);
  LoopValue at = AT(k, 0, {task, (int64_t)m->sums * m->s->channels}, {slot, m->s->channels}, {c, 1});
  loop_store_lanes(k, m->partial, at, value, lanes);
  loop_end(k);
}

/* All pixels of an image; sums are carried in f32 over a few pixels at a time only. */
static void map_image(LoopKernel *k, const Map *m, LoopValue image, LoopValue c, LoopValue lanes) {
  int64_t pixels = m->s->pixels, run = m->sums ? build_min(pixels, MAP_RUN) : pixels;
  LoopValue zero = loop_f32(k, 0);
  LoopValue first = build_for(k, 0, pixels, run);
  map_clear(k, m, m->acc, zero);
  LoopValue end = AT(k, run, {first, 1});
  LoopValue all = loop_int(k, pixels);
  LoopValue below = loop_op2(k, LOOP_IMIN, end, all);
  LoopValue one = loop_int(k, 1);
  LoopValue pixel = loop_for(k, first, below, one);
  map_element(k, m, image, pixel, c, lanes);
  loop_end(k);
  map_sums_add(k, m);
  loop_end(k);
}

LoopKernel *cpu_map(const MapSpec *s, Arena *arena) {
  if (s->input_count > MAP_MAX_INPUTS || s->step_count > MAP_MAX_STEPS || s->output_count > MAP_MAX_OUTPUTS)
    die("cpu_map: spec too large");
  LoopKernel *k = loop_new(arena, "map", s->target.lanes);
  Map m = map_buffers(k, s);
  if (s->flat) {
    if (m.sums) die("cpu_map: a flat expression has no sums");
    map_flat(k, &m);
    return k;
  }
  BlockLoop blocks[3];
  int count = build_blocks(s->channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue lanes = loop_int(k, blocks[b].count);
    LoopValue zero = loop_f64(k, 0);
    map_clear(k, &m, m.total, zero);
    LoopValue image = build_images(k, s->images);
    map_image(k, &m, image, c, lanes);
    loop_end(k);
    map_sums_store(k, &m, c, lanes);
    loop_end(k);
  }
  return k;
}
