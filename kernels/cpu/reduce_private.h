/* MOMENTS of tensors that a kernel reads, or has just written. */
#ifndef ADWP_KERNELS_CPU_REDUCE_PRIVATE_H
#define ADWP_KERNELS_CPU_REDUCE_PRIVATE_H

#include "kernels/build.h"
#include "kernels/family.h"

typedef struct MomentsTiles {
  int32_t acc, total;
} MomentsTiles;
MomentsTiles moments_tiles(LoopKernel *k);

/* Leaves the moments of a task's images of `x` in its slot of `partial`. */
void moments_of_task(LoopKernel *k, MomentsTiles t, const Plane *plane, int32_t images, int32_t x, int32_t partial);

#endif
