/* What depthwise convolutions and pools of a GPU share: results are made in tiles, and what a tile reads is staged in shared
 * memory first. A thread owns a strip of a few rows (and in a gradient `stride` columns) of 4 channels, so that each element
 * that it reads from shared memory serves several of its results.
 *
 * A gradient's results are elements of `in`, each a sum over the windows that contain it. Row t = y - shift + pad is hit by tap k
 * from window row (t - k * dilation) / stride, where that divides. Strips start at a row whose t has a known remainder (`skew`),
 * so that it is known while building which taps divide. */
#ifndef ADWP_KERNELS_GPU_WINDOW_H
#define ADWP_KERNELS_GPU_WINDOW_H

#include "kernels/gpu/build.h"

enum {
  WINDOW_CHANNELS = 4,   /* of a thread */
  WINDOW_STRIP = 4,      /* results of a thread, at most */
  WINDOW_MOST_TAPS = 16, /* kernel side above which nothing is staged or unrolled */
  WINDOW_MOST_LANES = 256
};

/* One axis of a tile. */
typedef struct WindowAxis {
  int64_t kernel, stride, dilation, pad, shift;
  bool gradient;
  bool aligned;   /* every tile starts at a multiple of `stride` */
  int64_t skew;   /* gradient: (t of a tile's first result) % stride */
  int64_t side;   /* results on this axis of the plane */
  int64_t each;   /* results of a thread */
  int64_t count;  /* results of a tile, a multiple of `each` */
  int64_t useful; /* those that no other tile makes */
} WindowAxis;

/* `band` results on an axis of `side` are divided into tiles; a thread makes about `each`. */
WindowAxis window_axis(WindowAxis axis, int64_t band, int64_t each);
void window_axis_resize(WindowAxis *axis, int64_t useful);
int64_t window_staged(const WindowAxis *axis); /* rows or columns that a tile reads */
int64_t window_step(const WindowAxis *axis);   /* staged rows or columns from thread to thread */

/* Whether result `i` of a thread's meets tap `tap`, and where among the staged ones, counted from the thread's first. */
bool window_meets(const WindowAxis *axis, int64_t i, int64_t tap, int64_t *at);

/* Calls `column` for a thread's results in their column `u` and the tap columns `kx` that meet them; `right` is the staged column
 * where they meet, counted from the thread's first. Where each tap reads a column a fixed step further, kx is a loop's variable,
 * which keeps the kernel's text short; else which taps meet which results is known while building, and they are written out. */
typedef void WindowColumn(LoopKernel *k, const void *context, int64_t u, LoopValue kx, LoopValue right);
void window_columns(LoopKernel *k, const WindowAxis *x, WindowColumn *column, const void *context);

/* The row (or column) of the plane that is staged first, for the tile whose first result is `from`. `*first` is the result that
 * the first thread starts with, which in a gradient may lie before `from`. */
LoopValue window_origin(LoopKernel *k, const WindowAxis *axis, LoopValue from, LoopValue *first);

/* A tile's extent. */
typedef struct Window {
  WindowAxis y, x;
  int64_t channels; /* of a block; a multiple of 4 */
  int64_t total;    /* channels of the plane */
} Window;

/* Shrinks a window until `bytes` of it fit; false where nothing does. `unit`: its channels stay a multiple of it. */
typedef int64_t (*WindowBytes)(const void *context, const Window *w);
bool window_fit(Window *w, int64_t unit, WindowBytes bytes, const void *context);

int64_t window_groups(const Window *w);  /* of 4 channels */
int64_t window_threads(const Window *w); /* pieces of work in a tile */

/* The loop over blocks of channels, and the one over the tiles of a band. */
typedef struct WindowTile {
  LoopValue row, row_end, column, column_end; /* its results: row <= y < row_end; an end is LOOP_NONE where all are inside */
  LoopValue first_row, first_column;          /* of thread 0 */
  LoopValue staged_row, staged_column;        /* of the plane */
  int loops;
} WindowTile;
LoopValue window_blocks(LoopKernel *k, const Window *w); /* gives the first channel; end with window_blocks_end */
void window_blocks_end(LoopKernel *k, const Window *w);
WindowTile window_tiles(LoopKernel *k, const Window *w, const GpuBand *band);
void window_tiles_end(LoopKernel *k, const WindowTile *tile);

/* A thread's place in a tile. Begins the loop over the tile's threads and the region of those that have a place. */
typedef struct WindowItem {
  LoopValue strip, column, group; /* of 4 channels */
  int loops;
} WindowItem;
WindowItem window_items(LoopKernel *k, int64_t strips, int64_t columns, int64_t groups);
void window_items_end(LoopKernel *k, const WindowItem *item);

/* Whether a result is this tile's to make; LOOP_NONE: all are. */
LoopValue window_own(LoopKernel *k, const Window *w, const WindowTile *tile, LoopValue row, LoopValue column);

/* ---- window_stage.c ---- */

typedef struct WindowPlace { /* of one move: `width` channels from `channel` on */
  LoopValue image, row, column, channel, inside;
} WindowPlace;

/* Values on their way to shared memory: tile[0 .. width). */
typedef void (*WindowChange)(LoopKernel *k, const void *context, int32_t tile, int32_t width, const WindowPlace *place);

typedef struct WindowStage {
  const Plane *plane;
  int32_t buffer;
  int32_t array, tile;             /* by window_stage_declare; tile: for moves through registers */
  int64_t first_row, first_column; /* of the plane: what lies before counts as outside */
  int64_t rows, columns, channels; /* that are staged, in this order */
  int64_t least;                   /* elements of the array at least: it may serve for something else afterwards */
  int32_t width;                   /* channels of a move */
  bool async;                      /* copied as they are */
  double outside;                  /* what the halo holds */
  const GpuPrologue *prologue;     /* may be null */
  WindowChange change;             /* may be null */
  const void *context;             /* of `change` */
} WindowStage;

LoopElement window_element(const Plane *plane, bool changed);
int32_t window_width(const Plane *plane);                    /* of a move: 16 bytes, or 8 (4 bf16), or one element */
int64_t window_unit(const Plane *plane);                     /* a staged block's channels are a multiple of it */
int64_t window_bytes(int64_t elements, LoopElement element); /* of a shared array */

/* Declares the array, after the last buffer. `changed`: by prologue or `change` (without, the element is the plane's). */
void window_stage_declare(LoopKernel *k, WindowStage *stage, const char *name, bool changed);

/* Stages the piece of the plane that begins at `row`, `column` (which may lie outside), `channel`. Where `async`, a `wait` and
 * the end of the phase stand between this and the readers. */
void window_stage(LoopKernel *k, const WindowStage *stage, LoopValue image, LoopValue row, LoopValue column, LoopValue channel);

/* Stages rows of an f32 matrix of `total` columns: array[row * channels + c] = buffer[row * total + channel + c], zeros behind.
 */
void window_stage_rows(LoopKernel *k, const Window *w, int32_t array, int32_t buffer, int64_t rows, LoopValue channel);

/* tile[at .. at + 4) = shared array[index ..) */
void window_read(LoopKernel *k, int32_t tile, int64_t at, int32_t array, LoopValue index);
void window_relu(LoopKernel *k, int32_t tile); /* of tile[0 .. 4) */

/* tile[at .. at + 4) from or to element `index` of a plane's buffer, for those of the 4 channels that there are, where the bit
 * holds (LOOP_NONE: everywhere). */
void window_load(LoopKernel *k, const Window *w, const Plane *plane, int32_t buffer, LoopValue index, int32_t tile, int64_t at,
                 LoopValue channel, LoopValue where);
void window_store(LoopKernel *k, const Window *w, const Plane *plane, int32_t buffer, LoopValue index, int32_t tile, int64_t at,
                  LoopValue channel, LoopValue where);

/* Stores a thread's results: acc[(row * columns + column) * 4 ..]. `finish` (may be null) does what is left to do to the 4 at
 * acc[at ..] of the result at `row`, `column`. */
typedef void (*WindowFinish)(LoopKernel *k, const void *context, int32_t acc, int64_t at, LoopValue row, LoopValue column);
typedef struct WindowResults {
  const Plane *plane;
  int32_t buffer, acc;
  WindowFinish finish;
  const void *context;
} WindowResults;
void window_results(LoopKernel *k, const Window *w, const WindowResults *results, const WindowTile *tile, const WindowItem *item,
                    LoopValue image, LoopValue channel);

#endif
