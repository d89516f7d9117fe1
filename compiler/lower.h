/* lower: a checked Model becomes a Module of steps. */
#ifndef ADWP_COMPILER_LOWER_H
#define ADWP_COMPILER_LOWER_H

#include "compiler/graph/graph.h"
#include "dsl/model.h"

/* Which steps to build. Every step has inputs `x` f32[B, C, H, W] (normalised images) and `y` i32[B].
 *   train_step    loss; w_G by SGD (inputs `rate`); results loss, correct (B,), norm
 *   search_step   loss; alpha by Adam (input `alpha.corrections` (3,): rate, 1-beta1^t, 1-beta2^t); results loss, correct
 *   cross_step    both; results loss, correct, norm
 *   eval          results losses (B,), correct (B,), logits (B, M)
 *   gradient_step nothing updated; results logits, loss and "grad.NAME" of every weight and alpha
 * A step with gradients asks for them by marks (`gradient`). search_enter, which stands beside search_step in the end, is made by
 * the pass hoist. alpha is always read from the parameters `alpha.CELL.NODE`; the runtime draws it anew before a train step. */
enum {
  STEP_TRAIN = 1,
  STEP_SEARCH = 2,
  STEP_CROSS = 4,
  STEP_EVAL = 8,
  STEP_GRADIENT = 16,
};

/* A discrete architecture: for each cell, node and candidate whether it is kept. Kept ones have p = 1/T; the others are not
 * computed. Parameter names stay those of the whole model. Null: the whole model with its continuous alpha. */
typedef struct Architecture {
  int cell_count, node_count, candidate_count; /* extents of `kept` */
  const bool *kept;                            /* [cell][node][candidate] */
} Architecture;

Module *lower_steps(const Model *model, unsigned steps, const Architecture *architecture, Arena *arena);
/* The same after autodiff, simplify and hoist: what can be run. */
Module *lower_model(const Model *model, unsigned steps, const Architecture *architecture, Arena *arena);

#endif
