/* Passes: one file each, one public function each. */
#ifndef ADWP_COMPILER_PASS_PASS_H
#define ADWP_COMPILER_PASS_PASS_H

#include "compiler/graph/graph.h"

/* Appends to `graph` the gradient of the scalar `loss` with respect to each of `wanted` and writes their ids to `gradients`
 * (NO_VALUE: the loss does not depend on it). Only what is needed for `wanted` is emitted. One rule per operation. */
void pass_autodiff(Graph *graph, ValueId loss, const ValueId *wanted, size_t count, ValueId *gradients);

/* A new graph in the same module (not added to its steps): constant folding, algebra, equal nodes shared, dead nodes gone. */
Graph *pass_simplify(const Graph *graph);

#endif
