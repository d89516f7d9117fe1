/* Kernel families: a plain spec struct becomes one Loop function.
 *
 * Activations are NHWC with `stride` floats from pixel to pixel (more than the channels where the tensor is a part of a
 * concatenation). Convolution weights are stored (ky, kx, in/groups, out). Weights of a linear layer are stored (in, out).
 * A reduction over the batch leaves one partial a task; `sum_slots` adds them in task order, in double.
 * Every family takes any channel count (a masked remainder of the lanes), any side, any B, and `images` images a task. */
#ifndef ADWP_KERNELS_FAMILY_H
#define ADWP_KERNELS_FAMILY_H

#include "kernels/loop.h"

#include <stddef.h>

typedef enum Family {
#define FAMILY(NAME, function, Spec) FAMILY_##NAME,
#include "kernels/families.def"
#undef FAMILY
  FAMILY_COUNT
} Family;

/* Builds a kernel of any family from its spec. */
LoopKernel *family_build(Family family, const void *spec, Arena *arena);
size_t family_spec_bytes(Family family);
const char *family_name(Family family); /* "family_conv" */

typedef struct Plane { /* one image of an activation */
  int32_t channels, height, width;
  int32_t stride; /* floats between pixels */
} Plane;

/* What is done to an input where it is read: x, then (x - mean) * scale a channel, then ReLU. The same operations in the same
 * order as an elementwise bn_apply's, so that every reader of a value sees the same sign: the mask of a ReLU's gradient is exact.
 */
typedef struct Prologue {
  bool affine; /* two more buffers: scale (C,), mean (C,) */
  bool relu;
} Prologue;

/* ---- convolutions (conv.c, conv_grad.c, depthwise.c) ---- */
typedef struct ConvSpec {
  int32_t lanes, images;
  Plane in, out;
  Prologue prologue;
  int32_t kernel_y, kernel_x, stride_y, stride_x, dilation, pad_y, pad_x, groups;
  int32_t shift_y, shift_x; /* reads in[shift_y:, shift_x:]; `in` is the whole plane */
} ConvSpec;

/* buffers: x, [scale, mean], w, y */
LoopKernel *family_conv(const ConvSpec *spec, Arena *arena);
/* buffers: dy, w, dx; no prologue; dx is written whole */
LoopKernel *family_conv_grad_input(const ConvSpec *spec, Arena *arena);
/* buffers: dy, x, [scale, mean], partial (tasks, elements of w) */
LoopKernel *family_conv_grad_weight(const ConvSpec *spec, Arena *arena);

/* ---- pools (pool.c) ---- */
typedef struct PoolSpec {
  int32_t lanes, images;
  Plane in, out;
  int32_t kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x;
  bool max;
  int32_t dx_stride; /* of the gradient, where it is not that of `in`; 0: the same */
} PoolSpec;

LoopKernel *family_pool(const PoolSpec *spec, Arena *arena);      /* x, y */
LoopKernel *family_pool_grad(const PoolSpec *spec, Arena *arena); /* dy, [x where max], dx */

/* ---- elementwise expressions with sums over pixels (map.c) ---- */
typedef enum MapKind { MAP_TENSOR, MAP_CHANNEL, MAP_SCALAR, MAP_IMAGE } MapKind; /* (B,H,W,C); (C,); (); (B,C) */

typedef struct MapInput {
  MapKind kind;
  int32_t stride; /* of a tensor */
  int32_t offset; /* floats into the buffer: the second row of moments */
} MapInput;

enum { MAP_MAX_INPUTS = 48, MAP_MAX_STEPS = 240, MAP_MAX_OUTPUTS = 4 };

/* A step's operands: 0 .. input_count-1 are inputs, input_count + i is step i. */
typedef struct MapStep {
  LoopOp op; /* LOOP_ADD, SUB, MUL, DIV, FMA, MAX, MIN, SQRT, LOOP_GT with LOOP_SELECT, LOOP_FLOAT (`value`), LOOP_BATCH (B *
                `value`) */
  int32_t a, b, c;
  double value;
} MapStep;

typedef struct MapOutput {
  int32_t value; /* an operand number */
  bool sum;      /* over the task's pixels: a partial (tasks, sums, C) row in the order of the outputs; else a tensor */
  int32_t stride;
  bool in_place; /* flat: written over input `input` and not to a buffer of its own */
  int32_t input;
} MapOutput;

typedef struct MapSpec {
  int32_t lanes, images;
  bool flat;                /* parameter-shaped: `channels` elements in all, no B; a task does `chunk` of them */
  int32_t chunk;            /* a multiple of the lanes */
  int32_t channels, pixels; /* of one image */
  MapInput inputs[MAP_MAX_INPUTS];
  int32_t input_count;
  MapStep steps[MAP_MAX_STEPS];
  int32_t step_count;
  MapOutput outputs[MAP_MAX_OUTPUTS];
  int32_t output_count;
} MapSpec;

/* buffers: the inputs in order, tensor outputs in order, then partial where there are sums */
LoopKernel *family_map(const MapSpec *spec, Arena *arena);

/* ---- reductions (reduce.c) ---- */
/* buffers: x, partial (tasks, 3, C): the task's first pixel as a shift, sum of (x - shift), sum of its square */
typedef struct MomentsSpec {
  int32_t lanes, images;
  Plane in;
} MomentsSpec;
LoopKernel *family_moments(const MomentsSpec *spec, Arena *arena);
/* buffers: partial, moments (2, C): mean, biased variance; combined in double, in task order */
LoopKernel *family_moments_finish(const MomentsSpec *spec, Arena *arena);

typedef struct SlotsSpec {
  int32_t lanes;
  int32_t images; /* a task of the producer: slots = ceil(B / images); 0: `slots` */
  int32_t slots;
  int64_t elements; /* of one slot */
  int64_t chunk;    /* elements a task: a multiple of the lanes */
  bool total;       /* one number: the sum of all elements (one task) */
} SlotsSpec;
LoopKernel *family_sum_slots(const SlotsSpec *spec, Arena *arena); /* partial, y */

typedef struct ShiftSpec {
  int32_t lanes, images;
  Plane in, out;
  int32_t shift_y, shift_x;
} ShiftSpec;
LoopKernel *family_shift(const ShiftSpec *spec, Arena *arena);   /* x, y: y = x[shift_y:, shift_x:] */
LoopKernel *family_unshift(const ShiftSpec *spec, Arena *arena); /* x, y: y[shift_y:, shift_x:] = x, zeros before */

/* x (B,H,W,C), y (B,C): the mean over pixels */
LoopKernel *family_global_mean(const MomentsSpec *spec, Arena *arena);

/* ---- vectors and scalars (vector.c) ---- */
typedef struct VectorSpec {
  int32_t lanes;
  int32_t rows;  /* K or classes, or a linear layer's outputs */
  int32_t inner; /* a linear layer's inputs */
  bool batched;
  int32_t index;
  int32_t count; /* operands of stack */
  double value, decay;
} VectorSpec;
LoopKernel *family_softmax(const VectorSpec *spec, Arena *arena);            /* x, y (rows) */
LoopKernel *family_softmax_grad(const VectorSpec *spec, Arena *arena);       /* dp, p, y */
LoopKernel *family_element(const VectorSpec *spec, Arena *arena);            /* x, y: y[0] = x[index] */
LoopKernel *family_stack(const VectorSpec *spec, Arena *arena);              /* count scalars, y */
LoopKernel *family_linear(const VectorSpec *spec, Arena *arena);             /* x, w, b, y */
LoopKernel *family_linear_grad_input(const VectorSpec *spec, Arena *arena);  /* dy, w, dx */
LoopKernel *family_linear_grad_weight(const VectorSpec *spec, Arena *arena); /* dy, x, dw */
/* One SGD step of a weight whose gradient is an outer product that is never stored: w, buffer, dy, x, clip (), rate ();
 * g = x[inner] * dy[rows]; buffer = value * buffer + (clip * g + decay * w); w -= rate * buffer. */
LoopKernel *family_outer_descend(const VectorSpec *spec, Arena *arena);
LoopKernel *family_batch_sum(const VectorSpec *spec, Arena *arena);          /* x (B, rows), y (rows) */
LoopKernel *family_cross_entropy(const VectorSpec *spec, Arena *arena);      /* logits, labels, y (B) */
LoopKernel *family_cross_entropy_grad(const VectorSpec *spec, Arena *arena); /* dl, logits, labels, y */
LoopKernel *family_correct(const VectorSpec *spec, Arena *arena);            /* logits, labels, y (B) */
LoopKernel *family_batch_mean(const VectorSpec *spec, Arena *arena);         /* x (B), y () */
LoopKernel *family_batch_mean_grad(const VectorSpec *spec, Arena *arena);    /* d (), y (B) */
LoopKernel *family_sum_squares(const VectorSpec *spec, Arena *arena);        /* x (rows), y () */
LoopKernel *family_dot(const VectorSpec *spec, Arena *arena);                /* a, b (rows), y () */
LoopKernel *family_sqrt(const VectorSpec *spec, Arena *arena);               /* x, y */
LoopKernel *family_clip(const VectorSpec *spec, Arena *arena);               /* norm, y */
LoopKernel *family_fill(const VectorSpec *spec, Arena *arena);               /* y (rows) = value */
LoopKernel *family_adam_step(const VectorSpec *spec, Arena *arena);          /* m, v, corrections (3), y (rows) */

#endif
