/* x[shift_y:, shift_x:] as a copy, and its gradient. Convolutions read shifted and need neither. */
#include "kernels/family_private.h"
#include "kernels/plane.h"

static int64_t shift_skip(const ShiftSpec *s, const Plane *plane) {
  return ((int64_t)s->shift_y * plane->width + s->shift_x) * plane->stride;
}

/* A block of channels of `sides` pixels: y[.. + to_skip] = x[.. + from_skip], or zeros where there is no x. */
static void shift_block(LoopKernel *k, const ShiftSpec *s, int32_t x, int32_t y, LoopValue image, const BlockLoop *block,
                        const Plane *sides, int64_t from_skip, int64_t to_skip) {
  LoopValue c = build_for(k, block->from, block->below, block->step);
  LoopValue row = build_for(k, 0, sides->height, 1);
  LoopValue column = build_for(k, 0, sides->width, 1);
  LoopValue lanes = loop_int(k, block->count);
  LoopValue value;
  if (x >= 0) {
    LoopValue base = plane_index(k, &s->in, image, row, column, c);
    LoopValue from = AT(k, from_skip, {base, 1});
    value = loop_load_lanes(k, x, from, lanes, 0);
  } else {
    value = loop_f32(k, 0);
  }
  LoopValue base = plane_index(k, &s->out, image, row, column, c);
  LoopValue to = AT(k, to_skip, {base, 1});
  loop_store_lanes(k, y, to, value, lanes);
  loop_end(k);
  loop_end(k);
  loop_end(k);
}

static LoopKernel *shift_kernel(const ShiftSpec *s, const char *name, bool back, Arena *arena) {
  LoopKernel *k = loop_new(arena, name, s->target.lanes);
  int32_t x = loop_buffer(k, "x", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t y = loop_buffer(k, "y", LOOP_OUT, LOOP_ELEMENT_F32);
  LoopValue image = build_images(k, s->images);
  BlockLoop blocks[3];
  int count = build_blocks(s->in.channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    if (back) {
      shift_block(k, s, -1, y, image, &blocks[b], &s->out, 0, 0);
      shift_block(k, s, x, y, image, &blocks[b], &s->in, 0, shift_skip(s, &s->out));
    } else {
      shift_block(k, s, x, y, image, &blocks[b], &s->out, shift_skip(s, &s->in), 0);
    }
  }
  loop_end(k);
  return k;
}

LoopKernel *cpu_shift(const ShiftSpec *s, Arena *arena) {
  return shift_kernel(s, "shift", false, arena);
}

LoopKernel *cpu_unshift(const ShiftSpec *s, Arena *arena) {
  return shift_kernel(s, "unshift", true, arena);
}
