/* Words for describing a case: random choices, planes, buffers. The descriptions stand in one file a kind of family. */
#ifndef ADWP_TESTS_FAMILIES_CASE_H
#define ADWP_TESTS_FAMILIES_CASE_H

#include "tests/numeric/families/families.h"

/* Stands in `want` where nothing may be written. */
static const double UNTOUCHED = 12345;

int case_pick(Case *c, int from, int to); /* from .. to */
static inline bool case_chance(Case *c, int percent) {
  return case_pick(c, 1, 100) <= percent;
}
int case_channels(Case *c);
int case_side(Case *c);
/* A plane with a gap between pixels now and then; on a GPU of either element, and with and without room for vector moves. */
Plane case_plane(Case *c, int channels, int height, int width);

/* Divides the rows (or pixels) of an image into bands now and then, on a GPU; sets `images`, `bands` and `tasks`. */
void case_divide(Case *c, int rows);
/* The task, and so the slot, that does this row of this image. */
int case_task(const Case *c, int image, int row, int rows);

/* Each adds a buffer, in the kernel's order. An input's numbers may be replaced by others that the element can hold until the
 * case is run. An output's want begins as UNTOUCHED. */
double *case_input(Case *c, LoopElement element, int64_t count);                       /* -1 .. 1 */
double *case_integers(Case *c, LoopElement element, int64_t count, int from, int to);  /* i32 or u8 */
double *case_output(Case *c, LoopElement element, int64_t count);                      /* gives `want` */
const double *case_update(Case *c, LoopElement element, int64_t count, double **want); /* read and written */
CaseBuffer *case_last(Case *c);                                                        /* the one added last */

int64_t plane_size(const Case *c, const Plane *p); /* elements, without a gap after the last pixel */
int64_t plane_at(const Plane *p, int image, int y, int x, int channel);
void plane_clear(const Case *c, const Plane *p, double *want); /* zeros at all elements, not at the gaps */
const char *plane_text(const Case *c, const Plane *p);

/* ---- convolutions ---- */
typedef struct CaseActivation {
  const double *x, *scale, *mean; /* the last two: of an affine prologue */
} CaseActivation;
CaseActivation case_activation(Case *c, const Prologue *p, const Plane *in); /* adds x, [scale, mean] */
double case_prologue(const Prologue *p, const CaseActivation *a, int64_t i, int channel);

/* A ConvBlock for CONV_BLOCK or its gradient: sets the case's tasks and text. `gradient` and the strides of dn and dx are 0. */
ConvBlockSpec case_block_spec(Case *c);
/* The depthwise sums d[0 .. C) of one output pixel. */
void case_block_depthwise(const ConvBlockSpec *s, const CaseActivation *a, const double *wd, int image, int y, int x, double *d);
/* Partials (tasks, 3, C) of the moments of z, of plane p. */
void case_moments_slots(const Case *c, const Plane *p, const double *z, double *partial);

/* Dense products of the target's kind make the outputs so far (and later ones) as inexact as they are. */
void case_dense(Case *c);
void case_build(Case *c, const void *spec);

typedef void CaseDescription(Case *c);
CaseDescription case_conv, case_conv_grad_input, case_conv_grad_weight;
CaseDescription case_conv_block, case_conv_block_grad;
CaseDescription case_pool, case_pool_grad, case_shift, case_unshift, case_images;
CaseDescription case_map, case_moments, case_moments_finish, case_sum_slots, case_global_mean;
CaseDescription case_softmax, case_softmax_grad, case_element, case_stack, case_linear, case_linear_grad_input;
CaseDescription case_linear_grad_weight, case_outer_descend, case_batch_sum, case_cross_entropy, case_cross_entropy_grad;
CaseDescription case_correct, case_batch_mean, case_batch_mean_grad, case_sum_squares, case_dot, case_sqrt, case_clip;
CaseDescription case_fill, case_adam_step;

#endif
