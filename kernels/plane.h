/* Where an element of an activation is. */
#ifndef ADWP_KERNELS_PLANE_H
#define ADWP_KERNELS_PLANE_H

#include "kernels/build.h"
#include "kernels/family.h"

static inline LoopValue plane_index(LoopKernel *k, const Plane *p, LoopValue image, LoopValue y, LoopValue x, LoopValue c) {
  int64_t pixel = p->stride, line = p->width * pixel;
  return AT(k, 0, {image, p->height * line}, {y, line}, {x, pixel}, {c, 1});
}

#endif
