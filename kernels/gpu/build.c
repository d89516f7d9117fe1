#include "kernels/gpu/build.h"

int32_t gpu_lanes(const KernelTarget *target, int64_t items, int32_t most) {
  int32_t lanes = GPU_WARP;
  while (lanes < items && lanes * 2 <= most && lanes * 2 <= target->lanes) lanes *= 2;
  return lanes;
}

int32_t gpu_width(int64_t channels, int64_t stride, LoopElement element) {
  for (int32_t width = 16 / (int32_t)loop_element_bytes(element); width > 1; width /= 2)
    if (channels % width == 0 && stride % width == 0) return width;
  return 1;
}

LoopValue gpu_true(LoopKernel *k) {
  LoopValue zero = loop_int(k, 0), one = loop_int(k, 1);
  return loop_op2(k, LOOP_ILT, zero, one);
}

LoopValue gpu_both(LoopKernel *k, LoopValue a, LoopValue b) {
  if (a == LOOP_NONE) return b;
  return b == LOOP_NONE ? a : loop_op2(k, LOOP_AND, a, b);
}

LoopValue gpu_below(LoopKernel *k, LoopValue v, int64_t below) {
  LoopValue limit = loop_int(k, below);
  return loop_op2(k, LOOP_ILT, v, limit);
}

LoopValue gpu_inside(LoopKernel *k, LoopValue v, int64_t from, int64_t below) {
  LoopValue limit = loop_int(k, from - 1);
  LoopValue reached = loop_op2(k, LOOP_ILT, limit, v);
  LoopValue left = gpu_below(k, v, below);
  return loop_op2(k, LOOP_AND, reached, left);
}

GpuItem gpu_items(LoopKernel *k, int64_t count, int32_t unrolled) {
  bool few = (count + k->lanes - 1) / k->lanes <= unrolled;
  LoopValue from = few ? loop_unroll(k, 0, count, k->lanes) : build_for(k, 0, count, k->lanes);
  LoopValue lane = loop_lane(k);
  GpuItem item = {AT(k, 0, {from, 1}, {lane, 1}), LOOP_NONE};
  if (count % k->lanes) item.inside = gpu_below(k, item.number, count);
  return item;
}

LoopValue gpu_trips(LoopKernel *k, int64_t below, int64_t step) {
  return below > step ? build_for(k, 0, below, step) : loop_int(k, 0);
}

void gpu_trips_end(LoopKernel *k, int64_t below, int64_t step) {
  if (below > step) loop_end(k);
}

LoopValue gpu_div(LoopKernel *k, LoopValue v, int64_t divisor) {
  LoopValue by = loop_int(k, divisor);
  return loop_op2(k, LOOP_IDIV, v, by);
}

LoopValue gpu_mod(LoopKernel *k, LoopValue v, int64_t divisor) {
  LoopValue by = loop_int(k, divisor);
  return loop_op2(k, LOOP_IMOD, v, by);
}

/* Elements of one access: 16 bytes at most. */
static int32_t access_width(const LoopKernel *k, int32_t array, int32_t width) {
  return (int32_t)build_min(width, 16 / loop_element_bytes(k->arrays.data[array].element));
}

void gpu_read_at(LoopKernel *k, int32_t tile, LoopValue at, int32_t array, LoopValue index, int32_t width, LoopValue where) {
  int32_t step = access_width(k, array, width);
  for (int32_t i = 0; i < width; i += step) {
    LoopValue from = AT(k, i, {index, 1});
    LoopValue to = AT(k, i, {at, 1});
    if (step > 1) {
      loop_gather_tile(k, tile, to, array, from, step, where, 0);
    } else {
      LoopValue value = loop_gather(k, array, from, where, 0);
      loop_set(k, tile, to, value);
    }
  }
}

void gpu_write_at(LoopKernel *k, int32_t array, LoopValue index, int32_t tile, LoopValue at, int32_t width, LoopValue where) {
  int32_t step = access_width(k, array, width);
  for (int32_t i = 0; i < width; i += step) {
    LoopValue to = AT(k, i, {index, 1});
    LoopValue from = AT(k, i, {at, 1});
    if (step > 1) {
      loop_scatter_tile(k, array, to, step, tile, from, where);
    } else {
      LoopValue value = loop_get(k, tile, from);
      loop_scatter(k, array, to, value, where);
    }
  }
}

void gpu_read(LoopKernel *k, int32_t tile, int64_t at, int32_t array, LoopValue index, int32_t width, LoopValue where) {
  LoopValue place = loop_int(k, at);
  gpu_read_at(k, tile, place, array, index, width, where);
}

void gpu_write(LoopKernel *k, int32_t array, LoopValue index, int32_t tile, int64_t at, int32_t width, LoopValue where) {
  LoopValue place = loop_int(k, at);
  gpu_write_at(k, array, index, tile, place, width, where);
}

void gpu_fill(LoopKernel *k, int32_t tile, int64_t at, int64_t count, double value) {
  LoopElement element = k->arrays.data[tile].element;
  LoopValue number = element == LOOP_ELEMENT_F64 ? loop_f64(k, value) : loop_f32(k, value);
  LoopValue i = loop_unroll(k, at, at + count, 1);
  loop_set(k, tile, i, number);
  loop_end(k);
}

GpuBand gpu_band(LoopKernel *k, int32_t images, int32_t bands, int64_t height) {
  GpuBand band = {.rows = height / bands};
  if (images > 1) {
    band.image = build_images(k, images);
    band.row = loop_int(k, 0);
    return band;
  }
  LoopValue task = loop_task(k);
  band.image = gpu_div(k, task, bands);
  LoopValue part = gpu_mod(k, task, bands);
  band.row = AT(k, 0, {part, band.rows});
  return band;
}

void gpu_band_end(LoopKernel *k, int32_t images) {
  if (images > 1) loop_end(k);
}

void gpu_apply_at(LoopKernel *k, const GpuPrologue *p, int32_t tile, LoopValue at, LoopValue channel, int32_t width,
                  LoopValue where) {
  if (!p->spec.affine && !p->spec.relu) return;
  if (p->spec.affine) {
    gpu_read(k, p->spare, 0, p->mean, channel, width, where);
    gpu_read(k, p->spare, width, p->scale, channel, width, where);
  }
  LoopValue zero = loop_f32(k, 0);
  LoopValue i = loop_unroll(k, 0, width, 1);
  LoopValue place = AT(k, 0, {at, 1}, {i, 1});
  LoopValue value = loop_get(k, tile, place);
  if (p->spec.affine) {
    LoopValue mean = loop_get(k, p->spare, i);
    LoopValue second = AT(k, width, {i, 1});
    LoopValue scale = loop_get(k, p->spare, second);
    value = loop_op2(k, LOOP_SUB, value, mean);
    value = loop_op2(k, LOOP_MUL, value, scale);
  }
  if (p->spec.relu) value = build_relu(k, value);
  if (p->spec.affine) value = loop_op3(k, LOOP_SELECT, where, value, zero);
  loop_set(k, tile, place, value);
  loop_end(k);
}

void gpu_apply(LoopKernel *k, const GpuPrologue *p, int32_t tile, int64_t at, LoopValue channel, int32_t width, LoopValue where) {
  LoopValue place = loop_int(k, at);
  gpu_apply_at(k, p, tile, place, channel, width, where);
}
