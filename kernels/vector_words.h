/* Short words for families of vectors and scalars: f32 buffers, numbers read and written in f64, a tile of one f64 number that is
 * summed or joined into. */
#ifndef ADWP_KERNELS_VECTOR_WORDS_H
#define ADWP_KERNELS_VECTOR_WORDS_H

#include "kernels/build.h"
#include "kernels/family_private.h"

int32_t vector_in(LoopKernel *k, const char *name);
int32_t vector_out(LoopKernel *k, const char *name);

LoopValue vector_load(LoopKernel *k, int32_t array, LoopValue at);             /* uniform, as f64 */
void vector_store(LoopKernel *k, int32_t array, LoopValue at, LoopValue wide); /* uniform, of an f64 */

void vector_start(LoopKernel *k, int32_t tile, double value); /* tile[0] = value */
void vector_accumulate(LoopKernel *k, int32_t tile, LoopOp op, LoopValue value);
LoopValue vector_result(LoopKernel *k, int32_t tile);

/* Leaves the largest of x[base ..+rows] in `largest` and the sum of exp(x - largest) in `total`. */
void vector_exp_sums(LoopKernel *k, int32_t x, LoopValue base, int32_t rows, int32_t largest, int32_t total);
/* exp(x[at] - largest) / total */
LoopValue vector_probability(LoopKernel *k, int32_t x, LoopValue at, int32_t largest, int32_t total);

#endif
