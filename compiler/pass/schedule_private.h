/* What the files of the scheduler share: launches under construction, expressions, and the rules per operation. */
#ifndef ADWP_COMPILER_PASS_SCHEDULE_PRIVATE_H
#define ADWP_COMPILER_PASS_SCHEDULE_PRIVATE_H

#include "compiler/pass/schedule.h"

#include <string.h>

typedef struct Scheduler {
  const Graph *graph;
  KernelSet *kernels;
  Arena *arena;
  Schedule *out;
  int64_t batch;
  const bool *kept;
  int32_t *use_count;      /* distinct operand slots that read the value */
  Place *place;            /* of each value; storage -1: none yet */
  int32_t *ready;          /* of each value: the first segment that may read it */
  int32_t *parameter_read; /* of each parameter: the last segment that reads it, -1: none */
  bool *done;              /* emitted together with another value */
  Place *coefficients;     /* of each bn_moments value: (2, C) scale and mean of its bn_apply; storage -1: none yet */
  int32_t *coefficients_ready;
} Scheduler;

enum { CALL_MOST_BUFFERS = 80 };

/* A launch under construction: its buffers in the kernel's order. */
typedef struct Call {
  Place buffers[CALL_MOST_BUFFERS];
  int32_t reads[CALL_MOST_BUFFERS]; /* parameters that it reads */
  int32_t count, read_count;
  int32_t segment; /* the earliest possible */
} Call;

void call_read(Scheduler *s, Call *call, ValueId v);
void call_place(Call *call, Place place, int32_t ready); /* memory that is no value */
/* Adds the launch of a kernel of this family and spec (of which every byte is set but for its target, which is set here), with as
 * many tasks as program_tasks says; returns the first segment that may read what it writes. */
int32_t call_launch(Scheduler *s, Call *call, Family family, void *spec, int32_t images, int32_t tasks, double flops);
/* The same for a product by the device's library. */
int32_t call_product(Scheduler *s, Call *call, const ProgramProduct *product, double flops);

Place schedule_storage(Scheduler *s, LoopElement element, int64_t elements);
/* Where the value is to be written; made now unless a concatenation has given it a place. */
Place schedule_place(Scheduler *s, ValueId v);
/* The value is written by a launch whose results may be read from segment `ready` on. */
void schedule_written(Scheduler *s, ValueId v, int32_t ready);

LoopElement schedule_element(const Scheduler *s, Place place);
/* Whether an activation there begins where vector moves as wide as its channels and stride allow are not possible. */
bool schedule_unaligned(const Scheduler *s, Place place, int32_t channels);
Plane schedule_plane(const Scheduler *s, ValueId v, Place place);

/* How a batch is shared out: `images` images a task, or `bands` tasks an image (kernels/family.h). */
typedef struct Split {
  int32_t images, bands;
} Split;
/* From the elements of one image that a task touches and the rows that bands may divide. `slot`: elements of a partial that each
 * task leaves behind, 0: none. */
Split schedule_split(const Scheduler *s, int64_t elements, int32_t rows, int64_t slot);
static inline int64_t schedule_tasks(const Scheduler *s, Split split) {
  return program_tasks(split.images, split.bands, s->batch);
}

/* Sums partials (tasks, elements) into `to`; returns when it is ready. */
int32_t schedule_sum(Scheduler *s, Place partial, int32_t ready, Split split, int64_t elements, bool total, Place to);

/* schedule_map.c: an elementwise value, or a reduction, with everything unmaterialised under it. */
void schedule_map(Scheduler *s, ValueId v);
void schedule_reduce(Scheduler *s, ValueId v);
/* (2, C): scale and mean of bn_apply with these moments. */
Place schedule_coefficients(Scheduler *s, ValueId moments, int32_t *ready);
/* w and its momentum, updated in place by one pass. */
void schedule_descend(Scheduler *s, const Update *weight, const Update *momentum);
/* A parameter takes the value by a copy. */
void schedule_copy_update(Scheduler *s, const Update *update);
/* Channels of `from` copied to `to`. */
int32_t schedule_copy(Scheduler *s, ValueId from, Place to);

/* (rows,) as every image's row of `v` in `to`: what a layer's product is added to. Returns when it is ready. */
int32_t schedule_spread(Scheduler *s, ValueId bias, ValueId v, Place to);

/* schedule_window.c */
void schedule_conv(Scheduler *s, ValueId v);
void schedule_conv_grad_input(Scheduler *s, ValueId v, ValueId unshift); /* unshift: NO_VALUE or the one reader */
void schedule_conv_grad_weight(Scheduler *s, ValueId v);
void schedule_pool(Scheduler *s, ValueId v);
/* A shift that something else than a convolution reads, copied; or an unshift: of a convolution's gradient that nothing else
 * reads, written shifted straight away, of anything else a copy. */
void schedule_shift(Scheduler *s, ValueId v);

/* schedule_product.c: layers y = x w that a GPU's library multiplies */
typedef enum LayerPart { LAYER_OUTPUT, LAYER_INPUT_GRADIENT, LAYER_WEIGHT_GRADIENT } LayerPart;
/* Whether it does this convolution, whose input is read as it is. */
bool schedule_is_library_conv(const Scheduler *s, const Window *window, Plane in, Plane out);
/* The call's buffers: x, w, y; dy, w, dx; or x, dy, dw. Returns when it is ready. */
int32_t schedule_conv_product(Scheduler *s, Call *call, Plane in, Plane out, LayerPart made, double flops);
/* A batched linear layer or one of its gradients; false: the library does not do it. */
bool schedule_linear_product(Scheduler *s, ValueId v, double flops);

/* schedule_vector.c */
/* The chunk of a family of vectors: a CPU does all in one task, there are many such launches in a segment. */
int32_t schedule_chunk(const Scheduler *s, Family family, const VectorSpec *spec);
static inline int32_t schedule_chunks(int32_t side, int32_t chunk) {
  return chunk ? (side + chunk - 1) / chunk : 1;
}
void schedule_vector(Scheduler *s, ValueId v);

#endif
