/* Batches from a data set's bytes: crop, mirror, hole and normalisation as a plan says. A task is an image, a thread takes
 * elements of x in their order; a few consecutive bytes of each channel's plane are read by a warp. */
#include "kernels/family_private.h"
#include "kernels/gpu/threads.h"

enum { IMAGES_THREADS = 256, IMAGES_PLAN = 8 };

typedef enum PlanEntry {
  PLAN_IMAGE,
  PLAN_TOP,
  PLAN_LEFT,
  PLAN_FLIP,
  PLAN_HOLE_TOP,
  PLAN_HOLE_BOTTOM,
  PLAN_HOLE_LEFT,
  PLAN_HOLE_RIGHT
} PlanEntry;

/* from <= v < below */
static LoopValue between(LoopKernel *k, LoopValue v, LoopValue from, LoopValue below) {
  LoopValue before = loop_op2(k, LOOP_ILT, v, from);
  LoopValue after = loop_op1(k, LOOP_NOT, before);
  LoopValue under = loop_op2(k, LOOP_ILT, v, below);
  return loop_op2(k, LOOP_AND, after, under);
}

/* The byte that becomes x at (row, column, channel), 0 outside of the image. */
static LoopValue image_byte(LoopKernel *k, const ImagesSpec *s, int32_t pixels, const LoopValue *plan, LoopValue row,
                            LoopValue column, LoopValue channel) {
  LoopValue zero = loop_int(k, 0);
  LoopValue mirrored = AT(k, s->width - 1, {column, -1});
  LoopValue plain = loop_op2(k, LOOP_IEQ, plan[PLAN_FLIP], zero);
  LoopValue across = loop_op3(k, LOOP_SELECT, plain, column, mirrored);
  LoopValue y = loop_op2(k, LOOP_IADD, row, plan[PLAN_TOP]);
  LoopValue x = loop_op2(k, LOOP_IADD, across, plan[PLAN_LEFT]);
  LoopValue high = gpu_inside(k, y, 0, s->height);
  LoopValue wide = gpu_inside(k, x, 0, s->width);
  LoopValue inside = gpu_both(k, high, wide);
  int64_t plane = (int64_t)s->height * s->width;
  LoopValue at = AT(k, 0, {plan[PLAN_IMAGE], s->channels * plane}, {channel, plane}, {y, s->width}, {x, 1});
  return loop_gather(k, pixels, at, inside, 0);
}

LoopKernel *gpu_images(const ImagesSpec *s, Arena *arena) {
  int64_t elements = (int64_t)s->height * s->width * s->channels;
  LoopKernel *k = loop_new(arena, "images", gpu_lanes(&s->target, elements, IMAGES_THREADS));
  int32_t pixels = loop_buffer(k, "pixels", LOOP_IN, LOOP_ELEMENT_U8);
  int32_t plan = loop_buffer(k, "plan", LOOP_IN, LOOP_ELEMENT_I32);
  int32_t normalised = loop_buffer(k, "normalised", LOOP_IN, LOOP_ELEMENT_F32);
  int32_t out = loop_buffer(k, "x", LOOP_OUT, LOOP_ELEMENT_F32);
  LoopValue task = loop_task(k), entry[IMAGES_PLAN];
  for (int i = 0; i < IMAGES_PLAN; i++) {
    LoopValue at = AT(k, i, {task, IMAGES_PLAN});
    entry[i] = loop_load_int(k, plan, at);
  }
  LoopValue zero = loop_int(k, 0), count = loop_int(k, elements), all = gpu_true(k);
  LoopValue item = gpu_each_begin(k, zero, count, 1);
  LoopValue channel = gpu_mod(k, item, s->channels);
  LoopValue pixel = gpu_div(k, item, s->channels);
  LoopValue row = gpu_div(k, pixel, s->width);
  LoopValue column = gpu_mod(k, pixel, s->width);
  LoopValue byte = image_byte(k, s, pixels, entry, row, column, channel);
  LoopValue high = between(k, row, entry[PLAN_HOLE_TOP], entry[PLAN_HOLE_BOTTOM]);
  LoopValue wide = between(k, column, entry[PLAN_HOLE_LEFT], entry[PLAN_HOLE_RIGHT]);
  LoopValue hole = loop_op2(k, LOOP_AND, high, wide);
  LoopValue kept = loop_op1(k, LOOP_NOT, hole);
  LoopValue from = AT(k, 0, {channel, 256}, {byte, 1});
  LoopValue value = loop_gather(k, normalised, from, kept, 0);
  LoopValue to = AT(k, 0, {task, elements}, {item, 1});
  loop_scatter(k, out, to, value, all);
  gpu_each_end(k);
  return k;
}
