/* x[shift_y:, shift_x:] as a copy on a GPU, and its gradient: threads over the pixels and channels of y, in its order. */
#include "kernels/family_private.h"
#include "kernels/gpu/threads.h"

enum { SHIFT_THREADS = 256 };

static int32_t shift_width(const ShiftSpec *s) {
  int32_t from = gpu_plane_width(&s->in);
  int32_t to = gpu_plane_width(&s->out);
  return from < to ? from : to;
}

/* Where y's pixel (row, column) comes from; `exists` stays LOOP_NONE where every one does. */
static LoopValue shift_source(LoopKernel *k, const ShiftSpec *s, LoopValue image, LoopValue row, LoopValue column, bool back,
                              LoopValue *exists) {
  int64_t y = back ? -s->shift_y : s->shift_y, x = back ? -s->shift_x : s->shift_x;
  LoopValue from_row = AT(k, y, {row, 1}), from_column = AT(k, x, {column, 1});
  if (back) {
    LoopValue inside = gpu_inside(k, from_row, 0, s->in.height);
    LoopValue across = gpu_inside(k, from_column, 0, s->in.width);
    *exists = gpu_both(k, inside, across);
  }
  return AT(k, 0, {image, (int64_t)s->in.height * s->in.width}, {from_row, s->in.width}, {from_column, 1});
}

static LoopKernel *shift_kernel(const ShiftSpec *s, const char *name, bool back, Arena *arena) {
  int64_t pixels = (int64_t)s->out.height * s->out.width;
  int32_t width = shift_width(s);
  int64_t task = s->bands > 1 ? pixels / s->bands : pixels * s->images;
  GpuSpread spread = gpu_spread(&s->target, s->out.channels, width, task, SHIFT_THREADS);
  LoopKernel *k = loop_new(arena, name, spread.lanes);
  int32_t x = loop_buffer(k, "x", LOOP_IN, s->in.element), y = loop_buffer(k, "y", LOOP_OUT, s->out.element);
  int32_t value = loop_tile(k, "value", LOOP_F32, true, width);
  LoopValue all = gpu_true(k), exists = LOOP_NONE;
  GpuRange range = gpu_task_range(k, s->images, s->bands, s->out.height, s->out.width);
  GpuThread thread = gpu_spread_begin(k, &spread);
  LoopValue pixel = gpu_walk_begin(k, &spread, &thread, &range, NULL);
  LoopValue image = range.image != LOOP_NONE ? range.image : gpu_div(k, pixel, pixels);
  LoopValue inside = AT(k, 0, {pixel, 1}, {image, -pixels});
  LoopValue row = gpu_div(k, inside, s->out.width);
  LoopValue column = gpu_mod(k, inside, s->out.width);
  LoopValue source = shift_source(k, s, image, row, column, back, &exists);
  LoopValue from = AT(k, 0, {source, s->in.stride}, {thread.channel, 1});
  gpu_read(k, value, 0, x, from, width, exists == LOOP_NONE ? all : exists);
  LoopValue to = AT(k, 0, {pixel, s->out.stride}, {thread.channel, 1});
  gpu_write(k, y, to, value, 0, width, all);
  gpu_walk_end(k, &spread, &range, NULL);
  gpu_spread_end(k, &spread);
  return k;
}

LoopKernel *gpu_shift(const ShiftSpec *s, Arena *arena) {
  return shift_kernel(s, "shift", false, arena);
}

LoopKernel *gpu_unshift(const ShiftSpec *s, Arena *arena) {
  return shift_kernel(s, "unshift", true, arena);
}
