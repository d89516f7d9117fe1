/* The functions of families.def. */
#ifndef ADWP_KERNELS_FAMILY_PRIVATE_H
#define ADWP_KERNELS_FAMILY_PRIVATE_H

#include "kernels/family.h"

#define FAMILY(NAME, cpu, gpu, Spec)                                                                                             \
  LoopKernel *cpu(const Spec *spec, Arena *arena);                                                                               \
  LoopKernel *gpu(const Spec *spec, Arena *arena);
#include "kernels/families.def"
#undef FAMILY

#endif
