/* Short words for writing kernel families over loop.h. C does not fix the order in which arguments are evaluated, so a family
 * never builds two instructions inside one call: `at` takes a list of (value, scale) terms that are already built. */
#ifndef ADWP_KERNELS_BUILD_H
#define ADWP_KERNELS_BUILD_H

#include "kernels/loop.h"

typedef struct Term {
  LoopValue value;
  int64_t scale;
} Term;

/* constant + sum of value * scale */
LoopValue build_index(LoopKernel *k, int64_t constant, const Term *terms, int count);
#define AT(k, constant, ...)                                                                                                     \
  build_index((k), (constant), (const Term[]){__VA_ARGS__}, (int)(sizeof((const Term[]){__VA_ARGS__}) / sizeof(Term)))

static inline LoopValue build_for(LoopKernel *k, int64_t from, int64_t below, int64_t step) {
  LoopValue a = loop_int(k, from);
  LoopValue b = loop_int(k, below);
  LoopValue c = loop_int(k, step);
  return loop_for(k, a, b, c);
}

/* Begins the loop over this task's images, task * images .. min(B, (task + 1) * images); end it with loop_end. */
LoopValue build_images(LoopKernel *k, int32_t images);

/* max(v, 0) */
LoopValue build_relu(LoopKernel *k, LoopValue value);

/* Channels in blocks of lanes: loops `from .. below` by `step`, each trip doing `blocks` blocks of `count` lanes each. Whole
 * groups of `group` blocks first, then single blocks, then the masked remainder. */
typedef struct BlockLoop {
  int64_t from, below, step;
  int32_t blocks, count;
} BlockLoop;
int build_blocks(int64_t channels, int32_t lanes, int32_t group, BlockLoop loops[3]);

/* A range in tiles of `most`, then what is left as one smaller tile: up to two loops `from .. below` by `size`. */
typedef struct TileLoop {
  int64_t from, below;
  int32_t size;
} TileLoop;
int build_tiles(int64_t count, int32_t most, TileLoop loops[2]);

static inline int64_t build_min(int64_t a, int64_t b) {
  return a < b ? a : b;
}

#endif
