/* What the files of the fusion pass share: who uses a value, and the patterns. */
#ifndef ADWP_COMPILER_PASS_FUSE_PRIVATE_H
#define ADWP_COMPILER_PASS_FUSE_PRIVATE_H

#include "compiler/pass/fuse.h"

typedef struct Fuser {
  const Graph *graph;
  const FuseOptions *options;
  Arena *arena;
  Fusion *out;
  int32_t *use_count; /* of each value: how many operands, results and updates it is */
  int32_t *first_use; /* of each value, into `uses`; they stand together, users in ascending order */
  ValueId *uses;      /* NO_VALUE: a result or an update */
} Fuser;

static inline const ValueId *fuse_uses(const Fuser *f, ValueId v, int32_t *count) {
  *count = f->use_count[v];
  return f->uses + f->first_use[v];
}
/* The first user with this operation that reads `v` as this operand; NO_VALUE: none. */
ValueId fuse_user(const Fuser *f, ValueId v, OpCode op, int32_t operand);
static inline bool fuse_is(const Fuser *f, ValueId v, OpCode op) {
  return v != NO_VALUE && graph_node(f->graph, v)->op == op;
}
bool fuse_is_depthwise(const Graph *graph, ValueId v); /* a convolution with a filter a channel */
bool fuse_is_pointwise(const Graph *graph, ValueId v); /* a 1x1 convolution that mixes all channels, pixel by pixel */
/* Whether `v`, an operand of the addition `sum`, may be overwritten by it: nothing else reads its memory. */
bool fuse_may_overwrite(const Graph *graph, const int32_t *use_count, ValueId v);

/* fuse_block.c */
void fuse_find_groups(Fuser *f);

/* fuse_order.c */
void fuse_order(Fuser *f);

#endif
