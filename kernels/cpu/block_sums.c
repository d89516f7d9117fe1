/* Moments as an epilogue: what a kernel stores is taken from registers, less a shift, which is the task's first pixel and has to
 * be computed before. A row's or band's sums are f32, the task's f64, as those of the kernel `moments`. */
#include "kernels/cpu/conv_block_private.h"

BlockSums block_sums_new(LoopKernel *k, int64_t channels) {
  int64_t pitch = block_pitch(k, channels);
  BlockSums sums = {.channels = channels, .shift = loop_shared(k, "shift", pitch)};
  sums.totals = loop_shared_of(k, "totals", LOOP_ELEMENT_F64, 2 * pitch);
  sums.part = loop_tile(k, "sums", LOOP_F32, true, 4);
  return sums;
}

void block_sums_clear(LoopKernel *k, const BlockSums *sums) {
  LoopValue zero = loop_f64(k, 0), lanes = loop_int(k, k->lanes);
  LoopValue i = build_for(k, 0, 2 * block_pitch(k, sums->channels), k->lanes);
  loop_store_lanes(k, sums->totals, i, zero, lanes);
  loop_end(k);
}

void block_sums_begin(LoopKernel *k, const BlockSums *sums, LoopValue c, const BlockLoop *b, LoopValue shift[2]) {
  LoopValue zero = loop_f32(k, 0), lanes = loop_int(k, b->count);
  for (int32_t block = 0; block < b->blocks; block++) {
    LoopValue at = AT(k, (int64_t)block * k->lanes, {c, 1});
    shift[block] = loop_load_lanes(k, sums->shift, at, lanes, 0);
    for (int i = 0; i < 2; i++) {
      LoopValue slot = loop_int(k, 2 * block + i);
      loop_set(k, sums->part, slot, zero);
    }
  }
}

void block_sums_add(LoopKernel *k, const BlockSums *sums, LoopValue value, LoopValue shift, int32_t block) {
  LoopValue first = loop_int(k, 2 * block), second = loop_int(k, 2 * block + 1);
  LoopValue difference = loop_op2(k, LOOP_SUB, value, shift);
  LoopValue sum = loop_get(k, sums->part, first);
  sum = loop_op2(k, LOOP_ADD, sum, difference);
  loop_set(k, sums->part, first, sum);
  LoopValue squares = loop_get(k, sums->part, second);
  squares = loop_op3(k, LOOP_FMA, difference, difference, squares);
  loop_set(k, sums->part, second, squares);
}

void block_sums_end(LoopKernel *k, const BlockSums *sums, LoopValue c, const BlockLoop *b) {
  LoopValue lanes = loop_int(k, b->count);
  for (int32_t i = 0; i < 2 * b->blocks; i++) {
    LoopValue slot = loop_int(k, i);
    LoopValue part = loop_get(k, sums->part, slot);
    part = loop_op1(k, LOOP_TO_F64, part);
    LoopValue at = AT(k, i % 2 * block_pitch(k, sums->channels) + (int64_t)(i / 2) * k->lanes, {c, 1});
    LoopValue total = loop_load_lanes(k, sums->totals, at, lanes, 0);
    total = loop_op2(k, LOOP_ADD, total, part);
    loop_store_lanes(k, sums->totals, at, total, lanes);
  }
}

void block_sums_if_first(LoopKernel *k, int32_t images, LoopValue image, LoopValue y) {
  LoopValue task = loop_task(k), zero = loop_int(k, 0);
  LoopValue first = AT(k, 0, {task, images});
  LoopValue is_image = loop_op2(k, LOOP_IEQ, image, first);
  LoopValue is_row = loop_op2(k, LOOP_IEQ, y, zero);
  LoopValue both = loop_op2(k, LOOP_AND, is_image, is_row);
  loop_if(k, both);
}

void block_sums_store(LoopKernel *k, const BlockSums *sums, int32_t partial) {
  int64_t channels = sums->channels;
  LoopValue task = loop_task(k);
  BlockLoop blocks[3];
  int count = build_blocks(channels, k->lanes, 1, blocks);
  for (int b = 0; b < count; b++) {
    LoopValue c = build_for(k, blocks[b].from, blocks[b].below, blocks[b].step);
    LoopValue lanes = loop_int(k, blocks[b].count);
    LoopValue value = loop_load_lanes(k, sums->shift, c, lanes, 0);
    for (int i = 0; i < 3; i++) {
      if (i > 0) {
        LoopValue from = AT(k, (i - 1) * block_pitch(k, channels), {c, 1});
        LoopValue total = loop_load_lanes(k, sums->totals, from, lanes, 0);
        value = loop_op1(k, LOOP_TO_F32, total);
      }
      LoopValue to = AT(k, i * channels, {task, 3 * channels}, {c, 1});
      loop_store_lanes(k, partial, to, value, lanes);
    }
    loop_end(k);
  }
}
