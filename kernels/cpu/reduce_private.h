/* Sums of moments while a tensor is written: MOMENTS as the end of another kernel. */
#ifndef ADWP_KERNELS_CPU_REDUCE_PRIVATE_H
#define ADWP_KERNELS_CPU_REDUCE_PRIVATE_H

#include "kernels/build.h"
#include "kernels/family.h"

/* MOMENTS of a task's images in `x`, as the whole work of a kernel or after it has written them; declares its tiles first. */
typedef struct MomentsTiles {
  int32_t acc, total;
} MomentsTiles;
MomentsTiles moments_tiles(LoopKernel *k);
void moments_of_task(LoopKernel *k, MomentsTiles t, const Plane *plane, int32_t images, int32_t x, int32_t partial);

#endif
