/* Passes over graphs: one file each, one public function each, and what runs a list of them. */
#ifndef ADWP_COMPILER_PASS_PASS_H
#define ADWP_COMPILER_PASS_PASS_H

#include "compiler/graph/graph.h"

/* Where the step asks for `gradient loss, x`, the gradient of the scalar `loss` with respect to x; a zero where the loss does not
 * depend on it. One rule per operation. */
Graph *pass_autodiff(const Graph *graph);
/* What pass_autodiff needs beyond a verified graph; false: `err` names the operation that no gradient leads through. */
bool pass_autodiff_ready(const Graph *graph, Err *err);
/* The operands of `op` through which its rule leads a gradient: bit i for operand i, all bits for a variadic operation.
 * 0: the operation is never differentiated (leaves, gradients, the optimizer). */
uint32_t pass_autodiff_operands(OpCode op);

/* Constant folding, algebra, equal nodes shared, dead nodes gone. */
Graph *pass_simplify(const Graph *graph);

/* A simplified graph's sums of activations as chains of additions, each term added as soon as it is there. */
Graph *pass_sums(const Graph *graph);

/* In steps that update logits and no weight: the two layers of a GeneratingBlock without activation become u p + v, and whatever
 * depends on weights alone (u and v among it) becomes a parameter that the new step search_enter computes. */
void pass_hoist(Module *module);
bool pass_hoist_ready(const Module *module, Err *err);

/* Every parameter and value gets its layout. */
void pass_layout(Module *module);
bool pass_layout_ready(const Module *module, Err *err);

/* The marks of what fuse_graph (fuse.h) decides for a CPU: the pass as text. */
Graph *pass_fuse(const Graph *graph);

/* ---- the manager ---- */
typedef struct PassInfo {
  const char *name, *purpose;
} PassInfo;
enum {
#define PASS(NAME, scope, purpose) PASS_##NAME,
#include "compiler/pass/passes.def"
#undef PASS
  PASS_COUNT
};
extern const PassInfo pass_table[PASS_COUNT];
int pass_find(const char *name, size_t length); /* -1: none */

/* Told of each pass before (`seconds` < 0) and after it ran, with the module as it then is. */
typedef void PassWatch(void *context, int pass, const Module *module, double seconds);

/* Runs the passes in order over the steps of the module, and verifies every graph after each. False: `err` says what a pass needs
 * and the module lacks; the module is then as the pass before left it. A graph that does not verify after a pass is a bug. */
bool passes_run(Module *module, const int *passes, size_t count, PassWatch *watch, void *context, Err *err);

#endif
