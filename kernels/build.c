#include "kernels/build.h"

LoopValue build_index(LoopKernel *k, int64_t constant, const Term *terms, int count) {
  LoopValue sum = loop_int(k, constant);
  for (int i = 0; i < count; i++) {
    LoopValue scale = loop_int(k, terms[i].scale);
    LoopValue product = loop_op2(k, LOOP_IMUL, terms[i].value, scale);
    sum = loop_op2(k, LOOP_IADD, sum, product);
  }
  return sum;
}

LoopValue build_images(LoopKernel *k, int32_t images) {
  LoopValue task = loop_task(k);
  LoopValue from = AT(k, 0, {task, images});
  LoopValue end = AT(k, images, {task, images});
  LoopValue batch = loop_batch(k);
  LoopValue below = loop_op2(k, LOOP_IMIN, end, batch);
  LoopValue one = loop_int(k, 1);
  return loop_for(k, from, below, one);
}

LoopValue build_relu(LoopKernel *k, LoopValue value) {
  LoopValue zero = loop_f32(k, 0);
  return loop_op2(k, LOOP_MAX, value, zero);
}

int build_blocks(int64_t channels, int32_t lanes, int32_t group, BlockLoop loops[3]) {
  int64_t grouped = channels / (lanes * group) * (lanes * group), full = channels / lanes * lanes;
  int count = 0;
  if (grouped > 0) loops[count++] = (BlockLoop){0, grouped, (int64_t)lanes * group, group, lanes};
  if (full > grouped) loops[count++] = (BlockLoop){grouped, full, lanes, 1, lanes};
  if (channels > full) loops[count++] = (BlockLoop){full, channels, lanes, 1, (int32_t)(channels - full)};
  return count;
}

int build_tiles(int64_t count, int32_t most, TileLoop loops[2]) {
  int64_t whole = count / most * most;
  int loop_count = 0;
  if (whole > 0) loops[loop_count++] = (TileLoop){0, whole, most};
  if (count > whole) loops[loop_count++] = (TileLoop){whole, count, (int32_t)(count - whole)};
  return loop_count;
}
