/* What the convolution families of a GPU share: reading an input through its prologue, factors of a product on their way to
 * shared memory, and products of a block.
 *
 * A dense convolution is a product of matrices. Forward (and for the input's gradient): D = pixels of a band x channels, the sum
 * goes over (tap, channel). Weight's gradient: D = (tap, input channel) x output channels, the sum goes over the band's pixels.
 * A block makes D in tiles of `rows` x `columns`, the sum in chunks of `depth`, staged in shared memory, in two copies where
 * there is more than one chunk: the next one is on its way while one is multiplied. */
#ifndef ADWP_KERNELS_GPU_CONV_PRIVATE_H
#define ADWP_KERNELS_GPU_CONV_PRIVATE_H

#include "kernels/family_private.h"
#include "kernels/gpu/build.h"

static inline bool gpu_conv_is_depthwise(const ConvSpec *s) {
  return s->groups > 1 && s->groups == s->in.channels && s->groups == s->out.channels;
}

/* Declares the buffers x, [scale, mean]; the prologue's spare tile comes later, since tiles stand after all buffers. */
typedef struct GpuInput {
  int32_t x;
  GpuPrologue prologue;
} GpuInput;
GpuInput gpu_conv_input(LoopKernel *k, const ConvSpec *spec);
void gpu_conv_input_tile(LoopKernel *k, GpuInput *input, int32_t width); /* after the last buffer */

/* tile[at ..] = `width` channels of x from `index` on, through the prologue; zeros where the bit does not hold. `channel` is the
 * first of them. */
void gpu_conv_read(LoopKernel *k, const GpuInput *input, int32_t tile, int64_t at, LoopValue index, LoopValue channel,
                   int32_t width, LoopValue where);

/* depthwise.c */
LoopKernel *gpu_depthwise(const ConvSpec *spec, Arena *arena);
LoopKernel *gpu_depthwise_grad_input(const ConvSpec *spec, Arena *arena);
LoopKernel *gpu_depthwise_grad_weight(const ConvSpec *spec, Arena *arena);

/* ---- conv_product.c: products of a block ----
 * With tensor cores: A (rows, depth) and B (columns, depth), rows padded by 8 elements, so that a warp's reads meet all banks; a
 * warp has `own_rows` x `own_columns` tiles of 16 x 8. B's rows stand in an order (gpu_product_row) in which a thread's results
 * are consecutive channels. In FP32: A (depth, rows) and B (depth, columns), f32; a thread has `own_rows` x 4 results.
 * `teams` of warps (or threads) divide a chunk's depth among them and add their results at the end, in their order. */
typedef struct GpuProduct {
  Products products;
  LoopElement element; /* of the staged factors */
  int64_t rows, columns, depth;
  int64_t chunks, copies;
  int32_t lanes, teams;
  int32_t across, down;            /* warps, or threads, of a team side by side on the columns and on the rows */
  int32_t own_rows, own_columns;   /* tiles of a warp; or results of a thread */
  int32_t width;                   /* consecutive columns of a thread that are stored together */
  int64_t a_stride, b_stride;      /* of the staged factors */
  int64_t a_size, b_size;          /* elements of one copy */
  int32_t a, b, sums;              /* shared arrays; sums: of the teams, -1 where there is one */
  int32_t acc, piece, left, right; /* tiles; left, right: FP32's factors */
} GpuProduct;

/* `rows` x `columns` of D for `teams` at most; false where a thread would have too much. Sets everything but what follows. */
bool gpu_product_plan(GpuProduct *p, const KernelTarget *target, int64_t rows, int64_t columns, int32_t width, int32_t teams);
/* A sum of `length` terms in chunks of `depth`; gives the bytes of shared arrays. */
int64_t gpu_product_divide(GpuProduct *p, int64_t length, int64_t depth);
int64_t gpu_product_step(const GpuProduct *p);                   /* a team's depth is a multiple of it */
int64_t gpu_product_columns(Products products, int64_t columns); /* of a tile, 8 .. 64, for D with `columns` */

void gpu_product_declare(LoopKernel *k, GpuProduct *p);
void gpu_product_clear(LoopKernel *k, const GpuProduct *p);
void gpu_product_multiply(LoopKernel *k, const GpuProduct *p, LoopValue copy);   /* inside a phase */
LoopValue gpu_product_row(LoopKernel *k, const GpuProduct *p, LoopValue column); /* where B's column is staged (tensor cores) */
int64_t gpu_product_row_of(const GpuProduct *p, int64_t column);

void gpu_product_join(LoopKernel *k, const GpuProduct *p); /* every team's results become the sum of all teams' */

/* Begins loops over the pieces of D that this thread stores: `width` results, in tile `piece`, from (row, column) on. */
typedef struct GpuPiece {
  LoopValue row, column;
  LoopValue where; /* a bit: those of the first team; LOOP_NONE where there is one */
  int loops;
} GpuPiece;
GpuPiece gpu_product_results(LoopKernel *k, const GpuProduct *p);
void gpu_product_results_end(LoopKernel *k, const GpuPiece *piece);
/* Stores the piece to `array` from `index` on, by up to `width` elements an access; those of columns from `columns` on are not
 * stored where the tiles go beyond. `column`: the piece's first, in D. */
void gpu_product_store(LoopKernel *k, const GpuProduct *p, int32_t array, LoopValue index, int32_t width, LoopValue where,
                       LoopValue column, int64_t columns);

/* ---- conv_stage.c: factors on their way to shared memory ----
 * Each thread moves vectors of `width` elements of a buffer: copied without waiting where nothing changes on the way but through
 * the prologue (which the thread then applies in place); else through registers, where they stay while the chunk before is
 * multiplied, if they are few. */
typedef struct GpuMove { /* of one vector */
  LoopValue from, to;    /* in the buffer; in the array */
  LoopValue inside;      /* a bit: else zeros. LOOP_NONE: always */
  LoopValue channel;     /* for the prologue */
} GpuMove;

typedef struct GpuFactor {
  int32_t array, buffer;
  int64_t size;  /* of one copy in the array */
  int64_t items; /* vectors of a chunk */
  int32_t width;
  int64_t apart;     /* 0: elements of a vector stand side by side in the array; else so far apart, or by `offsets` */
  int64_t offset[8]; /* of the elements, by gpu_factor_declare unless set */
  const GpuPrologue *prologue;
  void (*place)(LoopKernel *k, const void *context, LoopValue item, LoopValue chunk, GpuMove *move);
  const void *context;
  bool async;          /* these by gpu_factor_declare */
  int32_t batch, tile; /* vectors that a thread holds at a time, and where */
} GpuFactor;
void gpu_factor_declare(LoopKernel *k, GpuFactor *f, const char *tile);
/* A chunk into copy `copy`: fetch begins it, put ends it; both stand in one phase, whatever is between. */
void gpu_factor_fetch(LoopKernel *k, const GpuFactor *f, LoopValue chunk, LoopValue copy);
void gpu_factor_put(LoopKernel *k, const GpuFactor *f, LoopValue chunk, LoopValue copy);

/* Stages and multiplies all chunks of a sum; `b_staged`: B's only chunk stands there already. Results of teams are to be joined
 * after it. */
void gpu_product_run(LoopKernel *k, const GpuProduct *p, const GpuFactor *a, const GpuFactor *b, bool b_staged);

/* ---- conv_window.c: pixels seen through a convolution, a matrix of pixels x (tap, channel of the source) ---- */
typedef struct GpuWindow {
  const ConvSpec *s;
  bool gradient; /* pixels are those of `in`, the source is dy; else those of `out`, the source is x */
  const Plane *source;
  int32_t width;        /* channels of a vector */
  int64_t channels;     /* of a group, in the source */
  int64_t columns;      /* taps * channels */
  int64_t side, pixels; /* columns of the plane of pixels; pixels of a band */
  bool single;          /* one tap, pixel by pixel: source and pixels lie alike */
} GpuWindow;
GpuWindow gpu_window_new(const ConvSpec *s, bool gradient);
GpuWindow gpu_window_plain(const ConvSpec *s, const Plane *plane); /* the plane of dy itself, for the weight's gradient */

typedef struct GpuWindowTile { /* what a block has staged */
  LoopValue image, row;        /* of the band */
  LoopValue group;             /* LOOP_NONE: one */
  int64_t pixels, columns;     /* of a chunk */
} GpuWindowTile;
/* The place of one vector: pixel (in the band) and column = base + local, `base` a multiple of the chunk's columns. */
void gpu_window_place(LoopKernel *k, const GpuWindow *w, const GpuWindowTile *tile, LoopValue pixel, LoopValue base,
                      LoopValue local, GpuMove *move);

#endif
