/* Finds the groups of values that one kernel makes: ConvBlocks, their gradients, and moments with what they are of. Patterns are
 * tried in this order on each value; a value belongs to one group. CPUs have kernels for them (kernels/cpu/conv_block*.c). */
#include "compiler/pass/fuse_private.h"
#include "kernels/family.h"

#include <string.h>

ValueId fuse_user(const Fuser *f, ValueId v, OpCode op, int32_t operand) {
  int32_t count;
  const ValueId *uses = fuse_uses(f, v, &count);
  for (int32_t i = 0; i < count; i++)
    if (fuse_is(f, uses[i], op) && graph_node(f->graph, uses[i])->operands[operand] == v) return uses[i];
  return NO_VALUE;
}

bool fuse_is_depthwise(const Graph *graph, ValueId v) {
  const GraphNode *node = graph_node(graph, v);
  return node->op == OP_CONV && node->attributes->window.groups == node->type.dims[0] && node->type.dims[0] > 1 &&
         graph_type(graph, node->operands[0]).dims[0] == node->type.dims[0];
}

bool fuse_is_pointwise(const Graph *graph, ValueId v) {
  const GraphNode *node = graph_node(graph, v);
  if (node->op != OP_CONV) return false;
  const Window *w = &node->attributes->window;
  return w->groups == 1 && w->kernel_y == 1 && w->kernel_x == 1 && w->stride_y == 1 && w->stride_x == 1 && !w->pad_y && !w->pad_x;
}

static bool match_block(const Graph *graph, ValueId z, BlockValues *out) {
  if (!fuse_is_pointwise(graph, z)) return false;
  out->z = z;
  out->d = graph_node(graph, z)->operands[0];
  out->wp = graph_node(graph, z)->operands[1];
  if (!fuse_is_depthwise(graph, out->d)) return false;
  out->a = graph_node(graph, out->d)->operands[0];
  out->wd = graph_node(graph, out->d)->operands[1];
  return true;
}

static BlockValues no_block(void) {
  BlockValues block;
  memset(&block, 0xff, sizeof block); /* all NO_VALUE */
  return block;
}

static bool grouped(const Fuser *f, ValueId v) {
  return f->out->group[v] >= 0;
}

/* Makes a group of those values that are there and asks that none of them has one. */
static void add_group(Fuser *f, FusePattern pattern, const BlockValues *block, const ValueId *values, int32_t count) {
  ValueId *own = ARENA_ARRAY(f->arena, ValueId, count);
  int32_t kept = 0;
  for (int32_t i = 0; i < count; i++)
    if (values[i] != NO_VALUE) own[kept++] = values[i];
  for (int32_t i = 1; i < kept; i++)
    for (int32_t j = i; j > 0 && own[j - 1] > own[j]; j--) {
      ValueId other = own[j];
      own[j] = own[j - 1];
      own[j - 1] = other;
    }
  for (int32_t i = 0; i < kept; i++) f->out->group[own[i]] = (int32_t)f->out->groups.count;
  vector_push(&f->out->groups, ((FuseGroup){pattern, own, kept, *block}));
}

/* All users of the depthwise result can do without it: the pointwise product, and gradients of that product's weight. */
static bool may_vanish(const Fuser *f, const BlockValues *block) {
  int32_t count;
  const ValueId *uses = fuse_uses(f, block->d, &count);
  for (int32_t i = 0; i < count; i++)
    if (uses[i] != block->z && !fuse_is(f, uses[i], OP_CONV_GRAD_WEIGHT)) return false;
  return true;
}

/* The kernels of a block keep an image's planes in scratch, with their borders; beyond the caches that is no gain. */
static bool fits_scratch(const Fuser *f, const BlockValues *block) {
  enum { MOST_SCRATCH = 4 << 20 };
  Type in = graph_type(f->graph, block->a), out = graph_type(f->graph, block->z);
  const Window *w = &graph_node(f->graph, block->d)->attributes->window;
  int64_t border = 2 * (int64_t)w->dilation * (w->kernel_y > w->kernel_x ? w->kernel_y : w->kernel_x);
  int64_t planes = (in.dims[1] + border) * (in.dims[2] + border) + (out.dims[1] + border) * (out.dims[2] + border);
  return 4 * planes * in.dims[0] <= MOST_SCRATCH;
}

static void find_block(Fuser *f, ValueId moments) {
  BlockValues block = no_block();
  ValueId z = graph_node(f->graph, moments)->operands[0];
  if (!match_block(f->graph, z, &block) || grouped(f, z) || grouped(f, block.d) || !may_vanish(f, &block) ||
      !fits_scratch(f, &block))
    return;
  block.moments = moments;
  ValueId values[] = {block.d, z, moments};
  add_group(f, FUSE_CONV_BLOCK, &block, values, 3);
}

static void find_moments(Fuser *f, ValueId moments) {
  ValueId x = graph_node(f->graph, moments)->operands[0];
  bool made = fuse_is(f, x, OP_CONV) || fuse_is(f, x, OP_MAX_POOL) || fuse_is(f, x, OP_AVG_POOL);
  if (!made || grouped(f, x) || grouped(f, moments)) return;
  BlockValues block = no_block();
  block.z = x;
  block.moments = moments;
  ValueId values[] = {x, moments};
  add_group(f, FUSE_MOMENTS, &block, values, 2);
}

/* `v` is read by these alone. */
static bool only_users(const Fuser *f, ValueId v, ValueId a, ValueId b) {
  int32_t count;
  const ValueId *uses = fuse_uses(f, v, &count);
  for (int32_t i = 0; i < count; i++)
    if (uses[i] != a && uses[i] != b) return false;
  return true;
}

/* dz = bn_grad(dy, z, moments, sums). */
static bool match_bn(const Fuser *f, ValueId dz, BlockValues *g) {
  if (!fuse_is(f, dz, OP_BN_GRAD)) return false;
  const GraphNode *bn = graph_node(f->graph, dz);
  g->dz = dz;
  g->dy = bn->operands[0];
  g->z = bn->operands[1];
  g->moments = bn->operands[2];
  g->sums = bn->operands[3];
  return true;
}

/* What is made of dz by the pointwise product: dwp, and the gradient of what it reads. */
static bool match_product(const Fuser *f, ValueId dwp, ValueId input, ValueId *gradient, BlockValues *g) {
  g->dwp = dwp;
  *gradient = fuse_user(f, g->dz, OP_CONV_GRAD_INPUT, 0);
  return graph_node(f->graph, dwp)->operands[1] == input && *gradient != NO_VALUE && only_users(f, g->dz, *gradient, dwp) &&
         graph_node(f->graph, *gradient)->operands[1] == g->wp;
}

/* dz and what is made of it, from the gradient of the pointwise weight down to that of `a`. */
static bool match_gradients(const Fuser *f, ValueId dwp, BlockValues *g) {
  if (!match_bn(f, graph_node(f->graph, dwp)->operands[0], g) || !match_block(f->graph, g->z, g)) return false;
  if (!match_product(f, dwp, g->d, &g->dd, g) || !fits_scratch(f, g)) return false;
  g->dwd = fuse_user(f, g->dd, OP_CONV_GRAD_WEIGHT, 0);
  g->da = fuse_user(f, g->dd, OP_CONV_GRAD_INPUT, 0);
  return g->dwd != NO_VALUE && g->da != NO_VALUE && only_users(f, g->dd, g->dwd, g->da) &&
         graph_node(f->graph, g->dwd)->operands[1] == g->a && graph_node(f->graph, g->da)->operands[1] == g->wd;
}

/* The same without a depthwise convolution. */
static bool match_pointwise(const Fuser *f, ValueId dwp, BlockValues *g) {
  if (!match_bn(f, graph_node(f->graph, dwp)->operands[0], g) || !fuse_is_pointwise(f->graph, g->z)) return false;
  g->a = graph_node(f->graph, g->z)->operands[0];
  g->wp = graph_node(f->graph, g->z)->operands[1];
  bool nowhere = grouped(f, g->a) && f->out->groups.data[f->out->group[g->a]].block.d == g->a; /* inside a ConvBlock */
  return !nowhere && !fuse_is(f, g->a, OP_SHIFT) && match_product(f, dwp, g->a, &g->da, g);
}

/* The ReLU before the block: its gradient must follow at once, for the kernel takes it. */
static bool match_mask(const Fuser *f, BlockValues *g) {
  g->masked = g->da;
  if (!fuse_is(f, g->a, OP_RELU)) return true;
  g->x = graph_node(f->graph, g->a)->operands[0];
  g->masked = fuse_user(f, g->da, OP_RELU_GRAD, 0);
  return g->masked != NO_VALUE && f->use_count[g->da] == 1 && graph_node(f->graph, g->masked)->operands[1] == g->x;
}

/* A slice of something whose other readers read other channels is memory of its own. */
static bool slice_is_own(const Graph *graph, const int32_t *use_count, ValueId slice) {
  const GraphNode *node = graph_node(graph, slice);
  const GraphNode *whole = graph_node(graph, node->operands[0]);
  int32_t slices = 0, begin = node->attributes->begin, end = begin + node->attributes->count;
  for (size_t v = (size_t)node->operands[0] + 1; v < graph->nodes.count; v++) {
    const GraphNode *other = &graph->nodes.data[v];
    if (other->op != OP_SLICE || other->operands[0] != node->operands[0]) continue;
    slices++;
    int32_t from = other->attributes->begin, to = from + other->attributes->count;
    if (other != node && from < end && begin < to) return false;
  }
  return slices == use_count[node->operands[0]] && op_table[whole->op].class != CLASS_LEAF &&
         op_table[whole->op].class != CLASS_DATA;
}

bool fuse_may_overwrite(const Graph *graph, const int32_t *use_count, ValueId v) {
  const GraphNode *node = graph_node(graph, v);
  if (use_count[v] != 1 || !node->type.batched || node->type.rank != 3) return false;
  if (node->op == OP_SLICE) return slice_is_own(graph, use_count, v);
  return op_table[node->op].class == CLASS_MAP || op_table[node->op].class == CLASS_WINDOW;
}

/* Where the gradient goes: over the sum of other gradients, or to the BN of the block before. */
static void match_target(const Fuser *f, BlockValues *g) {
  ValueId v = g->masked;
  if (f->use_count[v] == 1 && fuse_is(f, fuse_uses(f, v, &(int32_t){0})[0], OP_ADD)) {
    ValueId sum = fuse_uses(f, v, &(int32_t){0})[0];
    ValueId other = graph_node(f->graph, sum)->operands[0]; /* the sum so far; where it is v itself, v is the first term */
    if (other != v && !grouped(f, sum) && fuse_wants(f->options, FUSE_ACCUMULATE) &&
        fuse_may_overwrite(f->graph, f->use_count, other)) {
      g->sum = sum;
      g->before = other;
    }
    return;
  }
  if (g->x == NO_VALUE || !fuse_is(f, g->x, OP_BN_APPLY)) return;
  const GraphNode *bn = graph_node(f->graph, g->x);
  ValueId sums = fuse_user(f, v, OP_BN_GRAD_SUMS, 0);
  if (sums == NO_VALUE) return;
  const GraphNode *node = graph_node(f->graph, sums);
  if (node->operands[1] == bn->operands[0] && node->operands[2] == bn->operands[1]) g->next_sums = sums;
}

/* A scaled gradient is not made for its own sake. */
static void match_base(const Fuser *f, BlockValues *g) {
  g->base = g->dy;
  if (!fuse_is(f, g->dy, OP_SCALE)) return;
  int32_t count;
  const ValueId *uses = fuse_uses(f, g->dy, &count);
  for (int32_t i = 0; i < count; i++)
    if (uses[i] == NO_VALUE || (!fuse_is(f, uses[i], OP_BN_GRAD) && !fuse_is(f, uses[i], OP_BN_GRAD_SUMS))) return;
  g->base = graph_node(f->graph, g->dy)->operands[0];
  g->factor = graph_node(f->graph, g->dy)->operands[1];
}

static void find_gradient(Fuser *f, ValueId dwp, FusePattern pattern) {
  BlockValues g = no_block();
  bool found = pattern == FUSE_CONV_BLOCK_GRAD ? match_gradients(f, dwp, &g) : match_pointwise(f, dwp, &g);
  if (!found || !match_mask(f, &g)) return;
  match_target(f, &g);
  match_base(f, &g);
  ValueId values[] = {g.dz, g.dwp, g.dd, g.dwd, g.da, g.masked == g.da ? NO_VALUE : g.masked, g.sum, g.next_sums};
  enum { COUNT = sizeof values / sizeof *values };
  for (int i = 0; i < COUNT; i++)
    if (values[i] != NO_VALUE && grouped(f, values[i])) return;
  add_group(f, pattern, &g, values, COUNT);
}

static void find_pool_gradient(Fuser *f, ValueId gradient) {
  BlockValues g = no_block();
  const GraphNode *node = graph_node(f->graph, gradient);
  const Window *w = &node->attributes->window;
  bool small = w->kernel_y <= POOL_FUSED && w->kernel_x <= POOL_FUSED && w->stride_y <= POOL_FUSED && w->stride_x <= POOL_FUSED;
  if (!small || !match_bn(f, node->operands[0], &g) || f->use_count[g.dz] != 1) return;
  g.da = g.masked = gradient;
  if (node->op == OP_MAX_POOL_GRAD) g.a = node->operands[1];
  match_target(f, &g);
  match_base(f, &g);
  ValueId values[] = {g.dz, gradient, g.sum};
  for (int i = 0; i < 3; i++)
    if (values[i] != NO_VALUE && grouped(f, values[i])) return;
  add_group(f, FUSE_POOL_GRAD, &g, values, 3);
}

static bool wanted(const Fuser *f, FusePattern pattern) {
  return !f->options->gpu && fuse_wants(f->options, pattern);
}

void fuse_find_groups(Fuser *f) {
  for (size_t v = 0; v < f->graph->nodes.count; v++) {
    OpCode op = f->graph->nodes.data[v].op;
    if (op == OP_BN_MOMENTS && wanted(f, FUSE_CONV_BLOCK)) find_block(f, (ValueId)v);
    if (op == OP_BN_MOMENTS && wanted(f, FUSE_MOMENTS)) find_moments(f, (ValueId)v);
    if (op == OP_CONV_GRAD_WEIGHT && wanted(f, FUSE_CONV_BLOCK_GRAD)) find_gradient(f, (ValueId)v, FUSE_CONV_BLOCK_GRAD);
    if (op == OP_CONV_GRAD_WEIGHT && wanted(f, FUSE_POINTWISE_GRAD)) find_gradient(f, (ValueId)v, FUSE_POINTWISE_GRAD);
    if ((op == OP_MAX_POOL_GRAD || op == OP_AVG_POOL_GRAD) && wanted(f, FUSE_POOL_GRAD)) find_pool_gradient(f, (ValueId)v);
  }
}
