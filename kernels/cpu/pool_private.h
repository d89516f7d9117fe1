/* What the schedules of pools on a CPU share. A window of at most POOL_SMALL on each side has a schedule of its own, row by row
 * in a task's scratch; any other goes the way of pool_window.c. */
#ifndef ADWP_KERNELS_CPU_POOL_PRIVATE_H
#define ADWP_KERNELS_CPU_POOL_PRIVATE_H

#include "kernels/build.h"
#include "kernels/family.h"
#include "kernels/plane.h"

#include <math.h>

enum { POOL_SMALL = POOL_FUSED };

static inline bool pool_is_small(const PoolSpec *s) {
  bool kernel = s->kernel_y <= POOL_SMALL && s->kernel_x <= POOL_SMALL;
  bool stride = s->stride_y <= POOL_SMALL && s->stride_x <= POOL_SMALL;
  return kernel && stride && s->pad_y < s->kernel_y && s->pad_x < s->kernel_x;
}

/* Elements of a pixel in scratch: whole vectors. */
static inline int64_t pool_across(const PoolSpec *s) {
  return (s->in.channels + s->target.lanes - 1) / s->target.lanes * s->target.lanes;
}

static inline Plane pool_gradient_plane(const PoolSpec *s) {
  Plane plane = s->in;
  if (s->dx_stride) plane.stride = s->dx_stride;
  return plane;
}

static inline LoopValue pool_low(LoopKernel *k, LoopValue v, int64_t least) {
  LoopValue bound = loop_int(k, least);
  return loop_op2(k, LOOP_IMAX, v, bound);
}

static inline LoopValue pool_high(LoopKernel *k, LoopValue v, int64_t most) {
  LoopValue bound = loop_int(k, most);
  return loop_op2(k, LOOP_IMIN, v, bound);
}

/* 0 <= v < side */
static inline LoopValue pool_inside(LoopKernel *k, LoopValue v, int64_t side) {
  LoopValue before_end = loop_int(k, side), minus = loop_int(k, -1);
  LoopValue low = loop_op2(k, LOOP_ILT, minus, v);
  LoopValue high = loop_op2(k, LOOP_ILT, v, before_end);
  return loop_op2(k, LOOP_AND, low, high);
}

/* Of an output pixel: count channels from c on. */
typedef struct PoolPixel {
  LoopValue image, y, x, c;
  int32_t count;
} PoolPixel;

/* The pool at one pixel of any window; `acc` is a tile of one vector. */
LoopValue pool_window_value(LoopKernel *k, const PoolSpec *s, int32_t in, int32_t acc, PoolPixel p);

/* Pools of any window, tap by tap from memory and into it. */
LoopKernel *pool_any(const PoolSpec *s, Arena *arena);
LoopKernel *pool_any_grad(const PoolSpec *s, Arena *arena);

#endif
