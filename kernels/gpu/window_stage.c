/* Between planes and a window's arrays in shared memory. */
#include "kernels/gpu/window.h"
#include "kernels/plane.h"

/* Moves as wide as 16 bytes only where every pixel starts at a multiple of them. */
int32_t window_width(const Plane *plane) {
  int32_t width = gpu_plane_width(plane);
  return width >= WINDOW_CHANNELS ? width : 1;
}

LoopElement window_element(const Plane *plane, bool changed) {
  return changed ? LOOP_ELEMENT_F32 : plane->element;
}

int64_t window_unit(const Plane *plane) {
  return window_width(plane) > WINDOW_CHANNELS ? window_width(plane) : WINDOW_CHANNELS;
}

int64_t window_bytes(int64_t elements, LoopElement element) {
  return (elements * loop_element_bytes(element) + 63) / 64 * 64;
}

void window_stage_declare(LoopKernel *k, WindowStage *s, const char *name, bool changed) {
  LoopElement element = window_element(s->plane, changed);
  s->width = window_width(s->plane);
  s->async = !changed && s->width * loop_element_bytes(element) == 16;
  int64_t elements = s->rows * s->columns * s->channels;
  s->array = loop_shared_of(k, name, element, elements > s->least ? elements : s->least);
  if (!s->async) s->tile = loop_tile(k, name[0] == 'x' ? "x_move" : "dy_move", LOOP_F32, true, s->width);
}

static void copy(LoopKernel *k, const WindowStage *s, LoopValue to, LoopValue from, LoopValue inside) {
  if (s->outside == 0) {
    loop_async_copy(k, s->array, to, s->buffer, from, inside);
    return;
  }
  LoopValue always = gpu_true(k);
  loop_if(k, inside);
  loop_async_copy(k, s->array, to, s->buffer, from, always);
  loop_end(k);
  LoopValue halo = loop_op1(k, LOOP_NOT, inside);
  loop_if(k, halo);
  LoopValue value = loop_f32(k, s->outside);
  LoopValue i = loop_unroll(k, 0, s->width, 1);
  LoopValue at = AT(k, 0, {to, 1}, {i, 1});
  loop_scatter(k, s->array, at, value, always);
  loop_end(k);
  loop_end(k);
}

static void move(LoopKernel *k, const WindowStage *s, LoopValue to, LoopValue from, const WindowPlace *place) {
  LoopValue first = loop_int(k, 0), always = gpu_true(k);
  if (s->width == 1) {
    LoopValue value = loop_gather(k, s->buffer, from, place->inside, s->outside);
    loop_set(k, s->tile, first, value);
  } else {
    loop_gather_tile(k, s->tile, first, s->buffer, from, s->width, place->inside, s->outside);
  }
  if (s->prologue) gpu_apply(k, s->prologue, s->tile, 0, place->channel, s->width, place->inside);
  if (s->change) s->change(k, s->context, s->tile, s->width, place);
  gpu_write(k, s->array, to, s->tile, 0, s->width, always);
}

void window_stage(LoopKernel *k, const WindowStage *s, LoopValue image, LoopValue row, LoopValue column, LoopValue channel) {
  const Plane *p = s->plane;
  int64_t moves = s->channels / s->width;
  GpuItem item = gpu_items(k, s->rows * s->columns * moves, s->async ? 1 : 4);
  if (item.inside != LOOP_NONE) loop_if(k, item.inside);
  LoopValue pixel = gpu_div(k, item.number, moves);
  LoopValue part = gpu_mod(k, item.number, moves);
  LoopValue y = gpu_div(k, pixel, s->columns);
  LoopValue x = gpu_mod(k, pixel, s->columns);
  WindowPlace place = {.image = image};
  place.row = AT(k, 0, {row, 1}, {y, 1});
  place.column = AT(k, 0, {column, 1}, {x, 1});
  place.channel = AT(k, 0, {channel, 1}, {part, s->width});
  LoopValue inside_rows = gpu_inside(k, place.row, s->first_row, p->height);
  LoopValue inside_columns = gpu_inside(k, place.column, s->first_column, p->width);
  place.inside = gpu_both(k, inside_rows, inside_columns);
  if (p->channels % s->channels) {
    LoopValue inside_channels = gpu_below(k, place.channel, p->channels);
    place.inside = gpu_both(k, place.inside, inside_channels);
  }
  LoopValue from = plane_index(k, p, image, place.row, place.column, place.channel);
  LoopValue to = AT(k, 0, {item.number, s->width});
  if (s->async)
    copy(k, s, to, from, place.inside);
  else
    move(k, s, to, from, &place);
  if (item.inside != LOOP_NONE) loop_end(k);
  loop_end(k);
}

void window_stage_rows(LoopKernel *k, const Window *w, int32_t array, int32_t buffer, int64_t rows, LoopValue channel) {
  GpuItem item = gpu_items(k, rows * w->channels, 4);
  if (item.inside != LOOP_NONE) loop_if(k, item.inside);
  LoopValue row = gpu_div(k, item.number, w->channels);
  LoopValue part = gpu_mod(k, item.number, w->channels);
  LoopValue c = AT(k, 0, {channel, 1}, {part, 1});
  LoopValue always = gpu_true(k);
  LoopValue inside = w->total % w->channels ? gpu_below(k, c, w->total) : always;
  LoopValue from = AT(k, 0, {row, w->total}, {c, 1});
  LoopValue value = loop_gather(k, buffer, from, inside, 0);
  loop_scatter(k, array, item.number, value, always);
  if (item.inside != LOOP_NONE) loop_end(k);
  loop_end(k);
}

void window_read(LoopKernel *k, int32_t tile, int64_t at, int32_t array, LoopValue index) {
  LoopValue first = loop_int(k, at), always = gpu_true(k);
  loop_gather_tile(k, tile, first, array, index, WINDOW_CHANNELS, always, 0);
}

void window_relu(LoopKernel *k, int32_t tile) {
  LoopValue c = loop_unroll(k, 0, WINDOW_CHANNELS, 1);
  LoopValue value = loop_get(k, tile, c);
  value = build_relu(k, value);
  loop_set(k, tile, c, value);
  loop_end(k);
}

/* Moves a thread's channels, in one piece or one by one, where there are such channels in the last block. */
static void move_channels(LoopKernel *k, const Window *w, const Plane *plane, int32_t buffer, LoopValue index, int32_t tile,
                          int64_t at, LoopValue channel, LoopValue where, bool store) {
  bool whole = w->total % w->channels == 0;
  int32_t width = window_width(plane) >= WINDOW_CHANNELS ? WINDOW_CHANNELS : 1;
  for (int64_t i = 0; i < WINDOW_CHANNELS; i += width) {
    LoopValue c = AT(k, i, {channel, 1});
    LoopValue inside = whole ? LOOP_NONE : gpu_below(k, c, w->total);
    LoopValue bit = gpu_both(k, where, inside);
    if (bit == LOOP_NONE) bit = gpu_true(k);
    LoopValue element = AT(k, i, {index, 1});
    if (store)
      gpu_write(k, buffer, element, tile, at + i, width, bit);
    else
      gpu_read(k, tile, at + i, buffer, element, width, bit);
  }
}

void window_load(LoopKernel *k, const Window *w, const Plane *plane, int32_t buffer, LoopValue index, int32_t tile, int64_t at,
                 LoopValue channel, LoopValue where) {
  move_channels(k, w, plane, buffer, index, tile, at, channel, where, false);
}

void window_store(LoopKernel *k, const Window *w, const Plane *plane, int32_t buffer, LoopValue index, int32_t tile, int64_t at,
                  LoopValue channel, LoopValue where) {
  move_channels(k, w, plane, buffer, index, tile, at, channel, where, true);
}

void window_results(LoopKernel *k, const Window *w, const WindowResults *r, const WindowTile *tile, const WindowItem *item,
                    LoopValue image, LoopValue channel) {
  LoopValue c = AT(k, 0, {channel, 1}, {item->group, WINDOW_CHANNELS});
  for (int64_t i = 0; i < w->y.each; i++)
    for (int64_t u = 0; u < w->x.each; u++) {
      int64_t at = (i * w->x.each + u) * WINDOW_CHANNELS;
      LoopValue row = AT(k, i, {tile->first_row, 1}, {item->strip, w->y.each});
      LoopValue column = AT(k, u, {tile->first_column, 1}, {item->column, w->x.each});
      LoopValue own = window_own(k, w, tile, row, column);
      if (r->finish) r->finish(k, r->context, r->acc, at, row, column);
      LoopValue to = plane_index(k, r->plane, image, row, column, c);
      window_store(k, w, r->plane, r->buffer, to, r->acc, at, c, own);
    }
}
