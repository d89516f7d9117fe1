/* Kernel families: a plain spec struct becomes one Loop function, scheduled for the target that the spec names.
 *
 * Activations are NHWC with `stride` elements from pixel to pixel (more than the channels where the tensor is a part of a
 * concatenation). Convolution weights are stored (ky, kx, in/groups, out). Weights of a linear layer are stored (in, out).
 * Activations may be f32 or bf16; weights, statistics, partial sums and everything of the optimizer are f32.
 *
 * Tasks: a kernel over a batch does `images` images a task, or, where `bands` > 1 (then `images` is 1), one of `bands` equal
 * bands of the rows of one image: task = image * bands + band. So there are ceil(B / images) * bands tasks. A reduction over the
 * batch leaves one partial a task, a slot; a finishing kernel adds the slots in task order, in double.
 * Every family takes any channel count, any side and any B. */
#ifndef ADWP_KERNELS_FAMILY_H
#define ADWP_KERNELS_FAMILY_H

#include "kernels/loop.h"

#include <stddef.h>

typedef enum Family {
#define FAMILY(NAME, cpu, gpu, Spec) FAMILY_##NAME,
#include "kernels/families.def"
#undef FAMILY
  FAMILY_COUNT
} Family;

/* How dense products multiply; they always add in f32. */
typedef enum Products {
  PRODUCTS_FP32, /* exactly */
  PRODUCTS_TF32, /* tensor cores, factors rounded to 11 bits */
  PRODUCTS_BF16  /* tensor cores, factors rounded to 8 bits */
} Products;

/* For what a kernel is scheduled. */
typedef struct KernelTarget {
  bool gpu;
  int32_t lanes;     /* CPU: of a vector. GPU: the most threads of a block, 32 .. 1024; a kernel may take fewer */
  Products products; /* CPU: PRODUCTS_FP32 */
} KernelTarget;

enum { GPU_MOST_SHARED = 48 << 10 }; /* bytes of shared arrays of one kernel for a GPU */

/* Builds a kernel of any family from its spec, whose first member is its KernelTarget. */
LoopKernel *family_build(Family family, const void *spec, Arena *arena);
size_t family_spec_bytes(Family family);
bool family_for_gpu(Family family);     /* whether it has a schedule for GPUs */
const char *family_name(Family family); /* "CONV" */

typedef struct Plane { /* one image of an activation */
  int32_t channels, height, width;
  int32_t stride;      /* elements between pixels */
  LoopElement element; /* f32 or bf16 */
  int32_t unaligned;   /* 1: it may begin at any element of its memory, so a GPU moves one element at a time */
} Plane;

/* What is done to an input where it is read: x, then (x - mean) * scale a channel, then ReLU. The same operations in the same
 * order as an elementwise bn_apply's, so that every reader of a value sees the same sign: the mask of a ReLU's gradient is exact.
 */
typedef struct Prologue {
  bool affine; /* two more buffers: scale (C,), mean (C,) */
  bool relu;
} Prologue;

/* ---- convolutions ----
 * CONV              x, [scale, mean], w, y, [partial (slots, 3, O) of y's MOMENTS, on a CPU only]
 * CONV_GRAD_INPUT   dy, w, dx: no prologue; dx is written whole. Bands are of the rows of `in`
 * CONV_GRAD_WEIGHT  dy, x, [scale, mean], partial (slots, elements of w). Bands are of the rows of `out` */
typedef struct ConvSpec {
  KernelTarget target;
  int32_t images, bands;
  Plane in, out;
  Prologue prologue;
  int32_t kernel_y, kernel_x, stride_y, stride_x, dilation, pad_y, pad_x, groups;
  int32_t shift_y, shift_x; /* reads in[shift_y:, shift_x:]; `in` is the whole plane */
  bool moments;             /* CONV: leaves the partials of its output's moments, too */
} ConvSpec;

/* ---- ConvBlocks: depthwise -> pointwise -> moments of one image in a task's scratch, and its gradient; on a CPU only ----
 * With a = prologue(x), d = depthwise(a, wd), z = d wp:
 * CONV_BLOCK       x, [scale, mean], wd (ky, kx, C), wp (C, O), z, partial (slots, 3, O): MOMENTS of z
 * CONV_BLOCK_GRAD  dn, z, coefficients (4, O), x, [scale, mean], wd, wp, dx, partial of dwd, partial of dwp, [partial (slots, 2,
 * C)] dz = c0 dn + (c1 (z - c2) + c3), the gradient of BN in one pass, with c0 .. c3 the rows of `coefficients`. From dz come the
 * gradients of wp (d is computed again), of d, of wd, and of a; with the prologue's ReLU that of x is it where a > 0, else 0. It
 * is stored to dx, or added to what is there, or stored with the sums over pixels of dx and of dx (x - mean) scale: the
 * BN_GRAD_SUMS of the block before. The BN of an affine prologue is not differentiated. */
typedef enum BlockGradient { BLOCK_STORE, BLOCK_ADD, BLOCK_SUMS } BlockGradient;

typedef struct ConvBlockSpec {
  KernelTarget target;
  int32_t images;
  Plane in, out;  /* x; z */
  bool pointwise; /* of CONV_BLOCK_GRAD: there is no depthwise convolution, no wd and no partial of dwd; d = a */
  Prologue prologue;
  int32_t kernel_y, kernel_x, stride_y, stride_x, dilation, pad_y, pad_x; /* of the depthwise convolution */
  BlockGradient gradient;       /* of CONV_BLOCK_GRAD; BLOCK_SUMS wants an affine prologue */
  int32_t dn_stride, dx_stride; /* of CONV_BLOCK_GRAD */
} ConvBlockSpec;

/* ---- pools ----
 * POOL       x, y, [partial (slots, 3, C) of y's MOMENTS, on a CPU only]: bands of the rows of `out`
 * POOL_GRAD  dy, [x where max], dx: bands of the rows of `in` */
enum { POOL_FUSED = 4 }; /* sides of the largest window, and largest strides, that `bn` and `add` are for */

typedef struct PoolSpec {
  KernelTarget target;
  int32_t images, bands;
  Plane in, out;
  int32_t kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x;
  bool max;
  int32_t dx_stride; /* of the gradient, where it is not that of `in`; 0: the same */
  bool moments;      /* POOL: leaves the partials of its output's moments, too */
  /* POOL_GRAD on a CPU: dy is the gradient of a BN, made where it is read: dn, z, coefficients (4, C) in the place of dy, as of a
   * CONV_BLOCK_GRAD; dn is `out`, z has the same sides and `z_stride` */
  bool bn;
  int32_t z_stride;
  bool add; /* POOL_GRAD on a CPU: dx is added to what is there */
} PoolSpec;

/* ---- elementwise expressions with sums over pixels ----
 * MAP  the inputs in order, tensor outputs in order, then partial where there are sums. Bands are of the pixels */
typedef enum MapKind { MAP_TENSOR, MAP_CHANNEL, MAP_SCALAR, MAP_IMAGE } MapKind; /* (B,H,W,C); (C,); (); (B,C) */

typedef struct MapInput {
  MapKind kind;
  int32_t stride;      /* of a tensor */
  int32_t offset;      /* elements into the buffer: the second row of moments */
  LoopElement element; /* f32, or of a tensor also bf16 */
  bool unaligned;      /* as a Plane's */
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
  bool sum;      /* over the task's pixels: a partial (slots, sums, C) row in the order of the outputs; else a tensor */
  int32_t stride;
  LoopElement element; /* of a tensor */
  bool unaligned;
  bool in_place; /* written over input `input`, of the same stride, and not to a buffer of its own */
  int32_t input;
} MapOutput;

typedef struct MapSpec {
  KernelTarget target;
  int32_t images, bands;
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

/* ---- reductions ----
 * MOMENTS         x, partial (slots, 3, C): the slot's first pixel as a shift, sum of (x - shift), sum of its square
 * MOMENTS_FINISH  partial, moments (2, C): mean, biased variance; combined in double, in a fixed order. One task, or on a GPU
 *                 where `chunk` is not 0 ceil(C / chunk) tasks of so many channels
 * GLOBAL_MEAN     x, y (B, C) f32: the mean over pixels. No bands */
typedef struct MomentsSpec {
  KernelTarget target;
  int32_t images, bands;
  Plane in;
  int32_t chunk; /* of MOMENTS_FINISH */
} MomentsSpec;

/* SUM_SLOTS  partial (slots, elements), y (elements): a task adds `chunk` elements of all slots; `total`: y () */
typedef struct SlotsSpec {
  KernelTarget target;
  int32_t images, bands; /* of the producer: slots = ceil(B / images) * bands; images 0: `slots` */
  int32_t slots;
  int64_t elements; /* of one slot */
  int64_t chunk;    /* elements a task: a multiple of the lanes */
  bool total;       /* one number: the sum of all elements (one task) */
} SlotsSpec;

/* SHIFT    x, y: y = x[shift_y:, shift_x:]
 * UNSHIFT  x, y: y[shift_y:, shift_x:] = x, zeros before. Bands are of the rows of `out` */
typedef struct ShiftSpec {
  KernelTarget target;
  int32_t images, bands;
  Plane in, out;
  int32_t shift_y, shift_x;
} ShiftSpec;

/* ---- vectors and scalars; all f32. One task, or where `chunk` is not 0 ceil(side / chunk) tasks ----
 * SOFTMAX             x, y (rows)
 * SOFTMAX_GRAD        dp, p, y (rows)
 * ELEMENT             x, y: y[0] = x[index]
 * STACK               `count` scalars, y
 * LINEAR              x, w, b, y; chunk: of the rows
 * LINEAR_GRAD_INPUT   dy, w, dx; chunk: of the inner side
 * LINEAR_GRAD_WEIGHT  dy, x, dw; chunk: of the inner side
 * OUTER_DESCEND       w, buffer, dy, x, clip (), rate (): one SGD step of a weight whose gradient is an outer product that is
 *                     never stored: g = x[inner] * dy[rows]; buffer = value * buffer + (clip * g + decay * w);
 *                     w -= rate * buffer; chunk: of the inner side
 * BATCH_SUM           x (B, rows), y (rows)
 * CROSS_ENTROPY       logits, labels, y (B)
 * CROSS_ENTROPY_GRAD  dl, logits, labels, y
 * CORRECT             logits, labels, y (B): 1 where no logit before the label is as large, and none after it larger
 * BATCH_MEAN          x (B), y ()
 * BATCH_MEAN_GRAD     d (), y (B)
 * SUM_SQUARES         x (rows), y ()
 * DOT                 a, b (rows), y ()
 * SQRT                x, y
 * CLIP                norm, y
 * FILL                y (rows, or B x rows) = value
 * ADAM_STEP           m, v, corrections (3), y (rows) */
typedef struct VectorSpec {
  KernelTarget target;
  int32_t rows;  /* K or classes, or a linear layer's outputs */
  int32_t inner; /* a linear layer's inputs */
  bool batched;
  int32_t index;
  int32_t count; /* operands of stack */
  int32_t chunk; /* of the side that is divided among tasks; 0: one task */
  double value, decay;
} VectorSpec;

/* ---- batches from a data set's bytes, on a GPU only; in no list of families ----
 * pixels u8 (images, C, H, W), plan i32 (B, 8), normalised f32 (C, 256), x (B, H, W, C). A row of the plan: image, top, left,
 * flip, hole_top, hole_bottom, hole_left, hole_right: x at (y, x, c) is 0 inside the hole [top, bottom) x [left, right), else
 * normalised[c][byte], the byte of the image at (y + top, (flip ? W - 1 - x : x) + left), 0 outside. A task is an image. */
typedef struct ImagesSpec {
  KernelTarget target;
  int32_t channels, height, width;
} ImagesSpec;
LoopKernel *gpu_images(const ImagesSpec *spec, Arena *arena);

#endif
