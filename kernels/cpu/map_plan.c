/* How often each step of an expression runs: what is made of scalars and numbers once a task, what is made of channels once a
 * block of them, what is made of an image's numbers once an image, the rest at each pixel; and how many pixels are done side by
 * side, so that their values and the channels' coefficients have registers. */
#include "kernels/cpu/map_private.h"

static void map_levels(Map *m) {
  static const MapLevel levels[] = {
      [MAP_TENSOR] = MAP_EACH_PIXEL, [MAP_CHANNEL] = MAP_EACH_BLOCK, [MAP_SCALAR] = MAP_ONCE, [MAP_IMAGE] = MAP_EACH_IMAGE};
  const MapSpec *s = m->s;
  for (int32_t i = 0; i < s->input_count; i++) {
    m->level[i] = levels[s->inputs[i].kind];
    if (s->flat && m->level[i] != MAP_ONCE) m->level[i] = MAP_EACH_PIXEL;
  }
  for (int32_t i = 0; i < s->step_count; i++) {
    const MapStep *step = &s->steps[i];
    MapLevel level = MAP_ONCE;
    for (int j = 0; j < map_operands(step); j++) {
      MapLevel other = m->level[map_operand(step, j)];
      if (other > level) level = other;
    }
    if (step->op == LOOP_GT && level != MAP_ONCE) level = MAP_EACH_PIXEL; /* a bit is no number that scratch could hold */
    m->level[s->input_count + i] = level;
  }
}

/* Gives what runs at each block a place in scratch if what runs more often, or an output, reads it. */
static void map_keep_operand(Map *m, int32_t operand) {
  bool of_block = operand >= m->s->input_count && m->level[operand] == MAP_EACH_BLOCK;
  if (of_block && m->kept[operand] < 0) m->kept[operand] = m->kept_count++;
}

static void map_keep(Map *m) {
  const MapSpec *s = m->s;
  for (int32_t i = 0; i < MAP_VALUES; i++) m->kept[i] = -1;
  for (int32_t i = 0; i < s->step_count; i++) {
    if (m->level[s->input_count + i] <= MAP_EACH_BLOCK) continue;
    for (int j = 0; j < map_operands(&s->steps[i]); j++) map_keep_operand(m, map_operand(&s->steps[i], j));
  }
  for (int32_t i = 0; i < s->output_count; i++) map_keep_operand(m, s->outputs[i].value);
}

/* The most values of one pixel that are alive at once, when each is loaded where it is first read. */
static int32_t map_alive(const Map *m) {
  const MapSpec *s = m->s;
  int32_t last[MAP_VALUES], alive = 0, most = 1;
  bool begun[MAP_VALUES] = {false};
  for (int32_t i = 0; i < MAP_VALUES; i++) last[i] = -1;
  for (int32_t i = 0; i < s->step_count; i++) {
    for (int j = 0; j < map_operands(&s->steps[i]); j++) last[map_operand(&s->steps[i], j)] = i;
  }
  for (int32_t i = 0; i < s->output_count; i++) last[s->outputs[i].value] = s->step_count;
  for (int32_t i = 0; i < s->step_count; i++) {
    int32_t own = s->input_count + i;
    if (m->level[own] != MAP_EACH_PIXEL) continue;
    for (int j = 0; j < map_operands(&s->steps[i]); j++) {
      int32_t operand = map_operand(&s->steps[i], j);
      if (m->level[operand] != MAP_EACH_PIXEL || begun[operand]) continue;
      begun[operand] = true;
      alive++;
    }
    if (alive > most) most = alive;
    for (int32_t v = 0; v < own; v++) {
      if (!begun[v] || last[v] != i) continue;
      begun[v] = false;
      alive--;
    }
    begun[own] = true;
    alive++;
  }
  return alive > most ? alive : most;
}

/* As many pixels at a time as registers hold beside the coefficients, or a quarter of the registers where those are too many. */
static int32_t map_pixels(const Map *m) {
  const MapSpec *s = m->s;
  int32_t registers = m->k->lanes > 8 ? 32 : 16, coefficients = 0, work = 0;
  bool read[MAP_VALUES] = {false};
  for (int32_t i = 0; i < s->step_count; i++) {
    if (m->level[s->input_count + i] != MAP_EACH_PIXEL) continue;
    for (int j = 0; j < map_operands(&s->steps[i]); j++) {
      int32_t operand = map_operand(&s->steps[i], j);
      coefficients += !read[operand] && m->level[operand] != MAP_EACH_PIXEL;
      read[operand] = true;
    }
    work++;
  }
  for (int32_t i = 0; i < s->input_count; i++) work += m->level[i] == MAP_EACH_PIXEL;
  if (coefficients > registers / 4) coefficients = registers / 4;
  int32_t pixels = MAP_MOST_PIXELS, alive = map_alive(m) + m->sums;
  while (pixels > 1 && (pixels * alive > registers - 2 - coefficients || pixels * work > MAP_MOST_CODE)) pixels /= 2;
  return pixels;
}

/* Pixels of a run: all where one vector holds the channels and nothing is summed. A vector of less than a cache line leaves the
 * rest of the line to the next block of channels, so all tensors' runs must stay in the first-level cache until then. */
static int32_t map_run_pixels(const Map *m) {
  const MapSpec *s = m->s;
  int64_t elements = MAP_RUN_ELEMENTS, tensors = s->output_count;
  if (s->channels <= m->k->lanes && !m->sums) return s->pixels;
  for (int32_t i = 0; i < s->input_count; i++) tensors += s->inputs[i].kind == MAP_TENSOR;
  if (m->k->lanes * 4 < MAP_LINE && elements > MAP_CACHED / tensors) elements = MAP_CACHED / tensors;
  int32_t run = MAP_MOST_RUN;
  while (run > MAP_LEAST_RUN && run * (int64_t)s->channels > elements) run /= 2;
  return run;
}

void map_plan(Map *m) {
  map_levels(m);
  map_keep(m);
  m->pixels = map_pixels(m);
  m->run = map_run_pixels(m);
  m->accumulators = m->pixels < 4 ? m->pixels : 4;
}
