/* What the two files of maps share: how often each step of an expression runs, and how many pixels are done at a time. */
#ifndef ADWP_KERNELS_CPU_MAP_PRIVATE_H
#define ADWP_KERNELS_CPU_MAP_PRIVATE_H

#include "kernels/build.h"
#include "kernels/family.h"

enum {
  MAP_RUN_ELEMENTS = 2048, /* of a tensor in a run of pixels, */
  MAP_CACHED = 4096,       /* or of all tensors, */
  MAP_LEAST_RUN = 8,       /* but at least so many pixels, */
  MAP_MOST_RUN = 64,       /* and at most so many, as sums are carried in f32 within one */
  MAP_MOST_PIXELS = 4,     /* at a time, */
  MAP_MOST_CODE = 320,     /* as long as that makes no more steps of code */
  MAP_LINE = 64,           /* bytes of a cache line */
  MAP_VALUES = MAP_MAX_INPUTS + MAP_MAX_STEPS
};

typedef enum MapLevel { MAP_ONCE, MAP_EACH_BLOCK, MAP_EACH_IMAGE, MAP_EACH_PIXEL } MapLevel;

typedef struct Map {
  const MapSpec *s;
  LoopKernel *k;
  int32_t inputs[MAP_MAX_INPUTS], outputs[MAP_MAX_OUTPUTS], partial; /* buffers */
  MapLevel level[MAP_VALUES];
  int32_t kept_count;
  int32_t kept[MAP_VALUES]; /* steps of each block that later ones read: their place in `channels`, else -1 */
  int32_t channels;         /* shared (kept steps, across) */
  int32_t total;            /* shared f64 (sums, across) */
  int32_t acc;              /* tile (sums, accumulators) of a run, in f32 */
  int32_t sums, accumulators;
  int32_t pixels; /* at a time; a power of two */
  int32_t run;    /* pixels that are done for all channels before the next ones */
  int64_t across; /* channels in whole vectors */
} Map;

/* A step's operands: the first so many of a, b and c. */
static inline int map_operands(const MapStep *step) {
  switch (step->op) {
  case LOOP_FLOAT:
  case LOOP_BATCH: return 0;
  case LOOP_SQRT: return 1;
  case LOOP_FMA:
  case LOOP_SELECT: return 3;
  default: return 2;
  }
}

static inline int32_t map_operand(const MapStep *step, int i) {
  return i == 0 ? step->a : i == 1 ? step->b : step->c;
}

/* Fills `level`, `kept`, `kept_count`, `pixels`, `run` and `accumulators`; the buffers and sums are known. */
void map_plan(Map *m);

#endif
