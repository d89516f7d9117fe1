/* What the two files of pools' gradients share: the scratch of a task, and where a row of it is. */
#ifndef ADWP_KERNELS_CPU_POOL_GRAD_PRIVATE_H
#define ADWP_KERNELS_CPU_POOL_GRAD_PRIVATE_H

#include "kernels/cpu/pool_private.h"

enum {
  GRADIENT_PIXELS = 4, /* that a sweep's step does */
  GRADIENT_ROWS = 2    /* rows of the input that a step does at least */
};

typedef struct PoolGradient {
  const PoolSpec *s;
  LoopKernel *k;
  Plane to;                /* of the gradient */
  int32_t dy, in, dx;      /* buffers; `dy` is dn where the spec has `bn` */
  int32_t z, coefficients; /* of `bn` */
  int32_t given;           /* shared (rows, given_left + output's width + given_right, across) */
  int32_t pixels;          /* shared (delay + rows, kernel_x - 1 + width + kernel_x - 1, across): a ring */
  int32_t peaks;           /* shared (delay + rows + delay, output's width, across): a ring */
  int32_t given_left, given_right;
  int32_t rows;  /* of the input in a step: a multiple of the stride */
  int32_t delay; /* rows around those of a step that must be known: kernel_y - 1 where the pool is of maxima, else 0 */
  int32_t lead;  /* steps before the first whose rows are all known */
  int64_t across;
} PoolGradient;

static inline int64_t gradient_given_row(const PoolGradient *g) {
  return (g->given_left + g->s->out.width + g->given_right) * g->across;
}
static inline int64_t gradient_pixels_row(const PoolGradient *g) {
  return (g->s->in.width + 2 * (g->s->kernel_x - 1)) * g->across;
}
static inline int64_t gradient_peaks_row(const PoolGradient *g) {
  return g->s->out.width * g->across;
}

/* Where row y + offset stands in a ring of so many rows. */
static inline LoopValue gradient_ring(const PoolGradient *g, LoopValue y, int64_t offset, int64_t rows, int64_t row_elements) {
  LoopValue from = AT(g->k, offset + (int64_t)g->lead * g->rows, {y, 1}), count = loop_int(g->k, rows);
  LoopValue at = loop_op2(g->k, LOOP_IMOD, from, count);
  return AT(g->k, 0, {at, row_elements});
}
static inline LoopValue gradient_pixels(const PoolGradient *g, LoopValue y) {
  return gradient_ring(g, y, 0, g->delay + g->rows, gradient_pixels_row(g));
}
static inline LoopValue gradient_peaks(const PoolGradient *g, LoopValue y, int64_t offset) {
  return gradient_ring(g, y, offset, 2 * (int64_t)g->delay + g->rows, gradient_peaks_row(g));
}

/* Row y of an image, which may be outside it, at one block of channels: its pixels and peaks to the rings. */
void gradient_know_row(const PoolGradient *g, LoopValue image, LoopValue y, LoopValue c, LoopValue lanes);

#endif
