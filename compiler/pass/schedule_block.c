/* Groups become launches: ConvBlocks, their gradients, and moments left by what makes their tensor. */
#include "compiler/pass/schedule_private.h"

static void block_window(ConvBlockSpec *spec, const Window *w) {
  spec->kernel_y = w->kernel_y;
  spec->kernel_x = w->kernel_x;
  spec->stride_y = w->stride_y;
  spec->stride_x = w->stride_x;
  spec->dilation = w->dilation;
  spec->pad_y = w->pad_y;
  spec->pad_x = w->pad_x;
}

static double block_flops(const Scheduler *s, const ConvBlockSpec *spec) {
  double pixels = (double)s->batch * spec->out.height * spec->out.width;
  double taps = spec->pointwise ? 0 : (double)spec->kernel_y * spec->kernel_x;
  return 2 * pixels * spec->in.channels * (taps + spec->out.channels);
}

/* x, [scale, mean], wd, wp: what the block and its gradient both read. */
static void block_source(Scheduler *s, Call *call, ConvBlockSpec *spec, const Source *source, const BlockValues *block) {
  spec->prologue.relu = source->relu;
  call_read(s, call, source->base);
  if (source->moments != NO_VALUE) {
    Ready ready;
    Place scale = schedule_coefficients(s, source->moments, &ready), mean = scale;
    spec->prologue.affine = true;
    mean.offset += spec->in.channels;
    call_place(call, scale, ready);
    call_place(call, mean, ready);
  }
  if (block->d != NO_VALUE) call_weight(s, call, block->wd);
  call_weight(s, call, block->wp);
}

static ConvBlockSpec block_spec(Scheduler *s, const Source *source, const BlockValues *block, Place z) {
  ConvBlockSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.pointwise = block->d == NO_VALUE;
  block_window(&spec, &graph_node(s->graph, spec.pointwise ? block->z : block->d)->attributes->window);
  spec.in = schedule_plane(s, source->base, s->place[source->base]);
  spec.out = schedule_plane(s, block->z, z);
  int64_t in = (int64_t)spec.in.height * spec.in.width, out = (int64_t)spec.out.height * spec.out.width;
  spec.images = schedule_split(s, in > out ? in : out).images;
  return spec;
}

static void schedule_conv_block(Scheduler *s, const BlockValues *block) {
  Source source = schedule_source(s, block->a);
  Place z = schedule_place(s, block->z);
  ConvBlockSpec spec = block_spec(s, &source, block, z);
  Split split = {spec.images, 1};
  Place partial = schedule_storage(s, LOOP_ELEMENT_F32, 3 * (int64_t)spec.out.channels * schedule_tasks(s, split));
  Call call = {0};
  block_source(s, &call, &spec, &source, block);
  call_place(&call, z, READY_AT_ONCE);
  call_place(&call, partial, READY_AT_ONCE);
  Ready ready = call_launch(s, &call, FAMILY_CONV_BLOCK, &spec, spec.images, 1, block_flops(s, &spec));
  schedule_written(s, block->z, ready);
  schedule_finish_moments(s, block->moments, partial, ready, split);
}

/* A weight's gradient from partials of `elements`. */
static void block_partial(Scheduler *s, Call *call, int64_t elements, Split split, Place *partial) {
  *partial = schedule_storage(s, LOOP_ELEMENT_F32, elements * schedule_tasks(s, split));
  call_place(call, *partial, READY_AT_ONCE);
}

static void block_sum(Scheduler *s, ValueId v, Place partial, Ready ready, Split split) {
  schedule_written(
      s, v, schedule_sum(s, partial, ready, split, type_elements(graph_type(s->graph, v), 1), false, schedule_place(s, v)));
}

/* Where dx goes: over the sum so far, or to memory of its own. */
static ValueId block_target(Scheduler *s, Call *call, const BlockValues *block, ConvBlockSpec *spec, Place *to) {
  if (block->sum != NO_VALUE) {
    spec->gradient = BLOCK_ADD;
    schedule_overwrite(s, block->sum, block->before);
    *to = s->place[block->sum];
    call_place(call, *to, s->ready[block->before]);
    return block->sum;
  }
  /* the BN whose sums they are is seen through the prologue, unless something else wants its output in memory */
  bool sums = block->next_sums != NO_VALUE && spec->prologue.affine;
  spec->gradient = sums ? BLOCK_SUMS : BLOCK_STORE;
  *to = schedule_place(s, block->masked);
  call_place(call, *to, READY_AT_ONCE);
  return block->masked;
}

static void schedule_conv_block_grad(Scheduler *s, const BlockValues *block) {
  Source source = schedule_source(s, block->a);
  ConvBlockSpec spec = block_spec(s, &source, block, s->place[block->z]);
  Split split = {spec.images, 1};
  spec.dn_stride = s->place[block->base].stride;
  Place coefficients, to, dwd = {0}, dwp, sums = {0};
  Ready ready = schedule_bn_coefficients(s, block, &coefficients);
  Call call = {0};
  call_read(s, &call, block->base);
  call_read(s, &call, block->z);
  call_place(&call, coefficients, ready);
  block_source(s, &call, &spec, &source, block);
  spec.prologue.relu |= block->x != NO_VALUE; /* where relu(x) is in memory a second ReLU changes nothing, but masks */
  ValueId result = block_target(s, &call, block, &spec, &to);
  spec.dx_stride = to.stride;
  if (!spec.pointwise) block_partial(s, &call, type_elements(graph_type(s->graph, block->dwd), 1), split, &dwd);
  block_partial(s, &call, type_elements(graph_type(s->graph, block->dwp), 1), split, &dwp);
  if (spec.gradient == BLOCK_SUMS) block_partial(s, &call, 2 * (int64_t)spec.in.channels, split, &sums);
  ready = call_launch(s, &call, FAMILY_CONV_BLOCK_GRAD, &spec, spec.images, 1, 2 * block_flops(s, &spec));
  schedule_written(s, result, ready);
  if (!spec.pointwise) block_sum(s, block->dwd, dwd, ready, split);
  block_sum(s, block->dwp, dwp, ready, split);
  if (spec.gradient == BLOCK_SUMS)
    block_sum(s, block->next_sums, sums, ready, split);
  else if (block->next_sums != NO_VALUE)
    schedule_reduce(s, block->next_sums);
}

static void schedule_pool_grad(Scheduler *s, const BlockValues *block) {
  bool add = block->sum != NO_VALUE;
  if (add) schedule_overwrite(s, block->sum, block->before);
  ValueId result = add ? block->sum : block->da;
  Place to = schedule_place(s, result), coefficients;
  Ready ready = schedule_bn_coefficients(s, block, &coefficients);
  PoolSpec spec = schedule_pool_spec(s, block->da, to, s->place[block->base]);
  spec.bn = true;
  spec.add = add;
  spec.z_stride = s->place[block->z].stride;
  Call call = {0};
  call_read(s, &call, block->base);
  call_read(s, &call, block->z);
  call_place(&call, coefficients, ready);
  if (spec.max) call_read(s, &call, block->a);
  call_place(&call, to, add ? s->ready[block->before] : READY_AT_ONCE);
  schedule_written(s, result, call_launch(s, &call, FAMILY_POOL_GRAD, &spec, spec.images, spec.bands, 0));
}

void schedule_group(Scheduler *s, const FuseGroup *group) {
  switch (group->pattern) {
  case FUSE_MOMENTS:
    if (graph_node(s->graph, group->block.z)->op == OP_CONV)
      schedule_conv(s, group->block.z, group->block.moments);
    else
      schedule_pool(s, group->block.z, group->block.moments);
    return;
  case FUSE_CONV_BLOCK: schedule_conv_block(s, &group->block); return;
  case FUSE_CONV_BLOCK_GRAD:
  case FUSE_POINTWISE_GRAD: schedule_conv_block_grad(s, &group->block); return;
  case FUSE_POOL_GRAD: schedule_pool_grad(s, &group->block); return;
  default: die("no launch for a group %s", fuse_name(group->pattern));
  }
}
