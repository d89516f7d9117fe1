/* Depthwise convolutions and pools without shared memory: for kernels, strides and dilations so large that what one result reads
 * does not fit there, or is not worth unrolling. A thread makes one element at a time and reads memory for each tap. */
#ifndef ADWP_KERNELS_GPU_DIRECT_H
#define ADWP_KERNELS_GPU_DIRECT_H

#include "kernels/gpu/build.h"

LoopKernel *direct_depthwise(const ConvSpec *spec, Arena *arena);
LoopKernel *direct_depthwise_grad_input(const ConvSpec *spec, Arena *arena);
LoopKernel *direct_depthwise_grad_weight(const ConvSpec *spec, Arena *arena);
LoopKernel *direct_pool(const PoolSpec *spec, Arena *arena);
LoopKernel *direct_pool_grad(const PoolSpec *spec, Arena *arena);

/* ---- what they share ---- */
typedef struct DirectElement { /* that a thread makes: a pixel of the band, a channel */
  LoopValue row, column, channel;
  bool masked;
} DirectElement;
int32_t direct_lanes(const KernelTarget *target, const Plane *plane, int32_t bands);
DirectElement direct_begin(LoopKernel *k, const Plane *plane, const GpuBand *band);
void direct_end(LoopKernel *k, const DirectElement *element);

LoopValue direct_gather(LoopKernel *k, int32_t array, LoopValue index);
void direct_store(LoopKernel *k, int32_t buffer, LoopValue index, int32_t acc); /* buffer[index] = acc[0] */

/* One side of a gradient: the window in which `at` is tap `tap`, and whether there is one. */
typedef struct DirectAxis {
  int64_t kernel, stride, dilation, pad, shift, windows;
} DirectAxis;
typedef struct DirectSide {
  LoopValue window, meets;
} DirectSide;
DirectSide direct_side(LoopKernel *k, DirectAxis axis, LoopValue at, LoopValue tap);

#endif
