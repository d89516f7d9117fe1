/* What the files of the scheduler share: launches under construction, expressions, and the rules per operation. */
#ifndef ADWP_COMPILER_PASS_SCHEDULE_PRIVATE_H
#define ADWP_COMPILER_PASS_SCHEDULE_PRIVATE_H

#include "compiler/pass/schedule.h"

#include <string.h>

/* From which segment on something in memory may be read: by any launch from `all` on; by one that does `images` images a task,
 * and so reads on each task only what the same task left, from `aligned` on, which is the segment that writes it. */
typedef struct Ready {
  int32_t all, aligned, images;
} Ready;

typedef struct Scheduler {
  const Graph *graph;
  KernelSet *kernels;
  Arena *arena;
  Schedule *out;
  int64_t batch;
  const Fusion *fusion;
  const bool *kept;
  int32_t *use_count;      /* distinct operand slots that read the value */
  Place *place;            /* of each value; storage -1: none yet */
  Ready *ready;            /* of each value */
  int32_t *parameter_read; /* of each parameter: the last segment that reads it, -1: none */
  bool *done;              /* emitted together with another value */
  bool *apart;             /* a GeneratingBlock's, which is not to run beside others */
  Ready last_apart, wait;  /* wait: for the launches that are made now */
  bool *overwritten;       /* its memory holds another value in the end */
  Place *coefficients;     /* of each bn_moments value: (2, C) scale and mean of its bn_apply; storage -1: none yet */
  Ready *coefficients_ready;
} Scheduler;

enum { CALL_MOST_BUFFERS = 80 };

/* A launch under construction: its buffers in the kernel's order. */
typedef struct Call {
  Place buffers[CALL_MOST_BUFFERS];
  Ready ready[CALL_MOST_BUFFERS];
  int32_t reads[CALL_MOST_BUFFERS]; /* parameters that it reads */
  int32_t count, read_count;
  Ready after; /* something else that it waits for */
  bool each_task;
  ValueId generated[2]; /* weights that the run makes for itself, and which buffers they become */
  int32_t generated_buffer[2], generated_count;
} Call;

static const Ready READY_AT_ONCE = {0};

void call_read(Scheduler *s, Call *call, ValueId v);
void call_place(Call *call, Place place, Ready ready); /* memory that is no value */
/* Adds the launch of a kernel of this family and spec (of which every byte is set but for its target, which is set here), with as
 * many tasks as program_tasks says; returns when what it writes may be read. */
Ready call_launch(Scheduler *s, Call *call, Family family, void *spec, int32_t images, int32_t tasks, double flops);
/* The same for a product by the device's library. */
Ready call_product(Scheduler *s, Call *call, const ProgramProduct *product, double flops);

Place schedule_storage(Scheduler *s, LoopElement element, int64_t elements);
/* The same for `elements` of each of the batch's images. */
Place schedule_images(Scheduler *s, LoopElement element, int64_t elements);
/* Where the value is to be written; made now unless a concatenation has given it a place. */
Place schedule_place(Scheduler *s, ValueId v);
void schedule_written(Scheduler *s, ValueId v, Ready ready);
/* `v` is written over `over`, and becomes its heir. */
void schedule_overwrite(Scheduler *s, ValueId v, ValueId over);
/* When both may be read. */
Ready ready_both(Ready a, Ready b);

LoopElement schedule_element(const Scheduler *s, Place place);
/* Whether an activation there begins where vector moves as wide as its channels and stride allow are not possible. */
bool schedule_unaligned(const Scheduler *s, Place place, int32_t channels);
Plane schedule_plane(const Scheduler *s, ValueId v, Place place);

/* How a batch is shared out: `images` images a task, or `bands` tasks an image (kernels/family.h). */
typedef struct Split {
  int32_t images, bands;
} Split;
/* From the pixels of one image that a task touches. On a CPU they alone decide, so that all launches on planes of one size, which
 * a task runs one after another, have the same images; on a GPU a block goes on with the image that it has made. */
Split schedule_split(const Scheduler *s, int64_t pixels);
static inline int64_t schedule_tasks(const Scheduler *s, Split split) {
  return program_tasks(split.images, split.bands, s->batch);
}

/* Sums partials (tasks, elements) into `to`; returns when it is ready. */
Ready schedule_sum(Scheduler *s, Place partial, Ready ready, Split split, int64_t elements, bool total, Place to);

/* schedule_map.c: an elementwise value, or a reduction, with everything unmaterialised under it. */
void schedule_map(Scheduler *s, ValueId v);
void schedule_reduce(Scheduler *s, ValueId v);
/* (2, C): scale and mean of bn_apply with these moments. */
Place schedule_coefficients(Scheduler *s, ValueId moments, Ready *ready);
/* w and its momentum, updated in place by one pass. */
void schedule_descend(Scheduler *s, const Update *weight, const Update *momentum);
/* A parameter takes the value by a copy. */
void schedule_copy_update(Scheduler *s, const Update *update);
/* Channels of `from` copied to `to`. */
Ready schedule_copy(Scheduler *s, ValueId from, Place to);

/* (rows,) as every image's row of `v` in `to`: what a layer's product is added to. Returns when it is ready. */
Ready schedule_spread(Scheduler *s, ValueId bias, ValueId v, Place to);

/* dz = c0 dn + (c1 (z - c2) + c3): (4, C), the gradient of a block's BN for its kernel. Returns when they are ready. */
Ready schedule_bn_coefficients(Scheduler *s, const BlockValues *block, Place *to);

/* schedule_vector.c: moments from the partials that tasks left */
void schedule_finish_moments(Scheduler *s, ValueId moments, Place partial, Ready ready, Split split);

/* schedule_generate.c */
void schedule_find_generators(Scheduler *s);
/* A convolution's weight: in memory, or made by the run. */
void call_weight(Scheduler *s, Call *call, ValueId w);
void call_make_weights(Scheduler *s, Call *call, int32_t images, int32_t segment);
/* A vector, written to `to` by a launch that belongs to a run of `images` images a task. */
Ready schedule_layer(Scheduler *s, Call *call, ValueId v, Place to, int32_t images);
Ready schedule_vector_map(Scheduler *s, Call *call, ValueId v, Place to, int32_t images);

/* schedule_block.c */
void schedule_group(Scheduler *s, const FuseGroup *group);

/* schedule_window.c */
/* What a convolution reads: `base` in memory, seen through a shift, a bn_apply and a ReLU. */
typedef struct Source {
  ValueId base, moments; /* moments NO_VALUE: no bn_apply */
  bool relu;
  int32_t shift_y, shift_x;
} Source;
Source schedule_source(const Scheduler *s, ValueId v);
/* `moments`: left by the same launch; NO_VALUE: not wanted */
void schedule_conv(Scheduler *s, ValueId v, ValueId moments);
void schedule_conv_grad_input(Scheduler *s, ValueId v, ValueId unshift); /* unshift: NO_VALUE or the one reader */
void schedule_conv_grad_weight(Scheduler *s, ValueId v);
void schedule_pool(Scheduler *s, ValueId v, ValueId moments);
/* Of a pool or its gradient, written to `to`; `from`: where its first operand is. */
PoolSpec schedule_pool_spec(const Scheduler *s, ValueId v, Place to, Place from);
/* A shift that something else than a convolution reads, copied; or an unshift: of a convolution's gradient that nothing else
 * reads, written shifted straight away, of anything else a copy. */
void schedule_shift(Scheduler *s, ValueId v);

/* schedule_product.c: layers y = x w that a GPU's library multiplies */
typedef enum LayerPart { LAYER_OUTPUT, LAYER_INPUT_GRADIENT, LAYER_WEIGHT_GRADIENT } LayerPart;
/* Whether it does this convolution, whose input is read as it is. */
bool schedule_is_library_conv(const Scheduler *s, const Window *window, Plane in, Plane out);
/* The call's buffers: x, w, y; dy, w, dx; or x, dy, dw. Returns when it is ready. */
Ready schedule_conv_product(Scheduler *s, Call *call, Plane in, Plane out, LayerPart made, double flops);
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
