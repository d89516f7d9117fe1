/* Passes: one file each, one public function each. */
#ifndef ADWP_COMPILER_PASS_PASS_H
#define ADWP_COMPILER_PASS_PASS_H

#include "compiler/graph/graph.h"

/* Appends to `graph` the gradient of the scalar `loss` with respect to each of `wanted` and writes their ids to `gradients`
 * (NO_VALUE: the loss does not depend on it). Only what is needed for `wanted` is emitted. One rule per operation. */
void pass_autodiff(Graph *graph, ValueId loss, const ValueId *wanted, size_t count, ValueId *gradients);

/* The operands of `op` through which its rule leads a gradient: bit i for operand i, all bits for a variadic operation.
 * 0: the operation is never differentiated (leaves, gradients, the optimizer). */
uint32_t pass_autodiff_operands(OpCode op);

/* A new graph in the same module (not added to its steps): constant folding, algebra, equal nodes shared, dead nodes gone. */
Graph *pass_simplify(const Graph *graph);

#endif
