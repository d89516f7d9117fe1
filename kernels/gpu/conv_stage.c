/* Factors on their way to shared memory. */
#include "kernels/gpu/conv_private.h"

enum {
  MOST_HELD = 32,   /* numbers that a thread holds in registers while it multiplies */
  FEW_SCALARS = 8,  /* narrow vectors, each with an address of its own, that are on their way together */
  HELD_SCALARS = 4, /* the same, while it multiplies */
  FEW_COPIES = 8,   /* vectors of a thread that are copied in an unrolled loop */
};

GpuInput gpu_conv_input(LoopKernel *k, const ConvSpec *spec) {
  GpuInput input = {loop_buffer(k, "x", LOOP_IN, spec->in.element), {spec->prologue, -1, -1, -1}};
  if (spec->prologue.affine) {
    input.prologue.scale = loop_buffer(k, "scale", LOOP_IN, LOOP_ELEMENT_F32);
    input.prologue.mean = loop_buffer(k, "mean", LOOP_IN, LOOP_ELEMENT_F32);
  }
  return input;
}

void gpu_conv_input_tile(LoopKernel *k, GpuInput *input, int32_t width) {
  if (input->prologue.spec.affine) input->prologue.spare = loop_tile(k, "prologue", LOOP_F32, true, 2 * width);
}

void gpu_conv_read(LoopKernel *k, const GpuInput *input, int32_t tile, int64_t at, LoopValue index, LoopValue channel,
                   int32_t width, LoopValue where) {
  gpu_read(k, tile, at, input->x, index, width, where);
  gpu_apply(k, &input->prologue, tile, at, channel, width, where);
}

static bool changes(const GpuFactor *f) {
  return f->prologue && (f->prologue->spec.affine || f->prologue->spec.relu);
}

void gpu_factor_declare(LoopKernel *k, GpuFactor *f, const char *tile) {
  LoopElement from = k->arrays.data[f->buffer].element, to = k->arrays.data[f->array].element;
  f->async = from == to && !f->apart && f->width * loop_element_bytes(to) == 16;
  bool given = f->offset[1] != 0;
  for (int64_t i = 0; !given && i < f->width; i++) f->offset[i] = i * f->apart;
  int64_t trips = (f->items + k->lanes - 1) / k->lanes;
  int64_t most = f->width < 4 ? FEW_SCALARS : MOST_HELD / f->width;
  f->batch = f->async ? 1 : (int32_t)build_min(trips, most);
  if (!f->async || changes(f)) f->tile = loop_tile(k, tile, LOOP_F32, true, f->batch * f->width);
}

/* Whether a thread's vectors stay in registers between fetch and put. */
static bool is_held(const LoopKernel *k, const GpuFactor *f) {
  bool few = f->width >= 4 || f->batch <= HELD_SCALARS;
  return !f->async && few && f->items <= (int64_t)f->batch * k->lanes;
}

static GpuMove place(LoopKernel *k, const GpuFactor *f, LoopValue item, LoopValue chunk, LoopValue copy) {
  GpuMove move = {LOOP_NONE, LOOP_NONE, LOOP_NONE, LOOP_NONE};
  f->place(k, f->context, item, chunk, &move);
  move.to = AT(k, 0, {copy, f->size}, {move.to, 1});
  if (move.inside == LOOP_NONE) move.inside = gpu_true(k);
  return move;
}

/* The item of this thread's vector `from` + `u` lanes, and whether there is one. */
static LoopValue item_of(LoopKernel *k, const GpuFactor *f, LoopValue from, LoopValue u, LoopValue *exists) {
  LoopValue lane = loop_lane(k);
  LoopValue item = AT(k, 0, {from, 1}, {u, k->lanes}, {lane, 1});
  *exists = f->items % ((int64_t)f->batch * k->lanes) ? gpu_below(k, item, f->items) : LOOP_NONE;
  return item;
}

static void hold(LoopKernel *k, const GpuFactor *f, LoopValue from, LoopValue chunk, LoopValue copy) {
  LoopValue exists;
  LoopValue u = loop_unroll(k, 0, f->batch, 1);
  LoopValue item = item_of(k, f, from, u, &exists);
  GpuMove move = place(k, f, item, chunk, copy);
  LoopValue where = gpu_both(k, move.inside, exists);
  LoopValue at = AT(k, 0, {u, f->width});
  gpu_read_at(k, f->tile, at, f->buffer, move.from, f->width, where);
  loop_end(k);
}

static void store_apart(LoopKernel *k, const GpuFactor *f, LoopValue to, LoopValue at, LoopValue where) {
  for (int32_t i = 0; i < f->width; i++) {
    LoopValue slot = AT(k, i, {at, 1});
    LoopValue value = loop_get(k, f->tile, slot);
    LoopValue index = AT(k, f->offset[i], {to, 1});
    loop_scatter(k, f->array, index, value, where);
  }
}

static void release(LoopKernel *k, const GpuFactor *f, LoopValue from, LoopValue chunk, LoopValue copy) {
  LoopValue exists;
  LoopValue u = loop_unroll(k, 0, f->batch, 1);
  LoopValue item = item_of(k, f, from, u, &exists);
  GpuMove move = place(k, f, item, chunk, copy);
  LoopValue at = AT(k, 0, {u, f->width});
  if (changes(f)) {
    LoopValue inside = gpu_both(k, move.inside, exists);
    gpu_apply_at(k, f->prologue, f->tile, at, move.channel, f->width, inside);
  }
  LoopValue where = exists == LOOP_NONE ? gpu_true(k) : exists;
  if (f->apart)
    store_apart(k, f, move.to, at, where);
  else
    gpu_write_at(k, f->array, move.to, f->tile, at, f->width, where);
  loop_end(k);
}

static GpuItem each_copy(LoopKernel *k, const GpuFactor *f) {
  GpuItem item = gpu_items(k, f->items, FEW_COPIES);
  if (item.inside != LOOP_NONE) loop_if(k, item.inside);
  return item;
}

static void each_copy_end(LoopKernel *k, GpuItem item) {
  if (item.inside != LOOP_NONE) loop_end(k);
  loop_end(k);
}

void gpu_factor_fetch(LoopKernel *k, const GpuFactor *f, LoopValue chunk, LoopValue copy) {
  LoopValue zero = loop_int(k, 0);
  if (f->async) {
    GpuItem item = each_copy(k, f);
    GpuMove move = place(k, f, item.number, chunk, copy);
    loop_async_copy(k, f->array, move.to, f->buffer, move.from, move.inside);
    each_copy_end(k, item);
  } else if (is_held(k, f)) {
    hold(k, f, zero, chunk, copy);
  } else {
    LoopValue from = build_for(k, 0, f->items, (int64_t)f->batch * k->lanes);
    hold(k, f, from, chunk, copy);
    release(k, f, from, chunk, copy);
    loop_end(k);
  }
}

/* What a thread copied itself it may read before the phase ends. */
static void change_in_place(LoopKernel *k, const GpuFactor *f, LoopValue chunk, LoopValue copy) {
  LoopValue always = gpu_true(k);
  GpuItem item = each_copy(k, f);
  GpuMove move = place(k, f, item.number, chunk, copy);
  gpu_read(k, f->tile, 0, f->array, move.to, f->width, always);
  gpu_apply(k, f->prologue, f->tile, 0, move.channel, f->width, move.inside);
  gpu_write(k, f->array, move.to, f->tile, 0, f->width, always);
  each_copy_end(k, item);
}

void gpu_factor_put(LoopKernel *k, const GpuFactor *f, LoopValue chunk, LoopValue copy) {
  if (f->async) {
    loop_wait(k);
    if (changes(f)) change_in_place(k, f, chunk, copy);
  } else if (is_held(k, f)) {
    LoopValue zero = loop_int(k, 0);
    release(k, f, zero, chunk, copy);
  }
}

static void stage(LoopKernel *k, const GpuFactor *a, const GpuFactor *b, LoopValue chunk, LoopValue copy) {
  gpu_factor_fetch(k, a, chunk, copy);
  if (b) gpu_factor_fetch(k, b, chunk, copy);
}

static void finish(LoopKernel *k, const GpuFactor *a, const GpuFactor *b, LoopValue chunk, LoopValue copy) {
  gpu_factor_put(k, a, chunk, copy);
  if (b) gpu_factor_put(k, b, chunk, copy);
}

void gpu_product_run(LoopKernel *k, const GpuProduct *p, const GpuFactor *a, const GpuFactor *b, bool b_staged) {
  LoopValue zero = loop_int(k, 0);
  const GpuFactor *moving = b_staged ? NULL : b;
  loop_phase(k, "stage");
  stage(k, a, moving, zero, zero);
  finish(k, a, moving, zero, zero);
  loop_end(k);
  if (p->chunks == 1) {
    loop_phase(k, "multiply");
    gpu_product_multiply(k, p, zero);
    loop_end(k);
    return;
  }
  LoopValue chunk = build_for(k, 0, p->chunks, 1);
  LoopValue next = AT(k, 1, {chunk, 1});
  LoopValue copy = gpu_mod(k, chunk, 2);
  LoopValue other = AT(k, 1, {copy, -1});
  LoopValue more = gpu_below(k, next, p->chunks);
  loop_phase(k, "multiply");
  loop_if(k, more);
  stage(k, a, moving, next, other);
  loop_end(k);
  gpu_product_multiply(k, p, copy);
  loop_if(k, more);
  finish(k, a, moving, next, other);
  loop_end(k);
  loop_end(k);
  loop_end(k);
}
