/* Convolutions, pools and their gradients become launches. */
#include "compiler/pass/schedule_private.h"

Source schedule_source(const Scheduler *s, ValueId v) {
  Source source = {.moments = NO_VALUE};
  const GraphNode *node = graph_node(s->graph, v);
  if (node->op == OP_SHIFT && !s->kept[v]) {
    source.shift_y = node->attributes->shift_y;
    source.shift_x = node->attributes->shift_x;
    v = node->operands[0];
    node = graph_node(s->graph, v);
  }
  if (!s->kept[v] && node->op == OP_RELU) {
    source.relu = true;
    v = node->operands[0];
    node = graph_node(s->graph, v);
  }
  if (!s->kept[v] && node->op == OP_BN_APPLY) {
    source.moments = node->operands[1];
    v = node->operands[0];
  }
  source.base = v;
  return source;
}

static ConvSpec conv_spec(const Window *w) {
  ConvSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.kernel_y = w->kernel_y;
  spec.kernel_x = w->kernel_x;
  spec.stride_y = w->stride_y;
  spec.stride_x = w->stride_x;
  spec.dilation = w->dilation;
  spec.pad_y = w->pad_y;
  spec.pad_x = w->pad_x;
  spec.groups = w->groups;
  return spec;
}

static void conv_sides(const Scheduler *s, ConvSpec *spec, Plane in, Plane out) {
  spec->in = in;
  spec->out = out;
  int64_t read = (int64_t)in.height * in.width, written = (int64_t)out.height * out.width;
  Split split = schedule_split(s, read > written ? read : written);
  spec->images = split.images;
  spec->bands = split.bands;
}

/* The source's buffers: x, [scale, mean]. */
static void conv_source(Scheduler *s, Call *call, ConvSpec *spec, const Source *source) {
  spec->prologue.relu = source->relu;
  spec->shift_y = source->shift_y;
  spec->shift_x = source->shift_x;
  call_read(s, call, source->base);
  if (source->moments == NO_VALUE) return;
  spec->prologue.affine = true;
  Ready ready;
  Place scale = schedule_coefficients(s, source->moments, &ready), mean = scale;
  mean.offset += spec->in.channels;
  call_place(call, scale, ready);
  call_place(call, mean, ready);
}

static bool is_read_as_it_is(const Source *source) {
  return source->moments == NO_VALUE && !source->relu && !source->shift_y && !source->shift_x;
}

static double conv_flops(const Scheduler *s, const ConvSpec *spec) {
  int64_t inputs = spec->in.channels / spec->groups, taps = (int64_t)spec->kernel_y * spec->kernel_x;
  int64_t pixels = s->batch * spec->out.height * spec->out.width;
  return 2.0 * (double)pixels * spec->out.channels * (double)(inputs * taps);
}

/* The convolution v into `to`; `again`: once more and not before `after`, which is no useful operation. `moments`: left
 * with it, or NO_VALUE. */
static Ready launch_conv(Scheduler *s, ValueId v, Place to, Ready after, bool again, ValueId moments) {
  const GraphNode *node = graph_node(s->graph, v);
  Source source = schedule_source(s, node->operands[0]);
  ConvSpec spec = conv_spec(&node->attributes->window);
  Plane out = schedule_plane(s, v, to);
  conv_sides(s, &spec, schedule_plane(s, source.base, s->place[source.base]), out);
  spec.moments = moments != NO_VALUE;
  Call call = {.after = after};
  conv_source(s, &call, &spec, &source);
  call_weight(s, &call, node->operands[1]);
  call_place(&call, to, READY_AT_ONCE);
  if (is_read_as_it_is(&source) && schedule_is_library_conv(s, &node->attributes->window, spec.in, out))
    return schedule_conv_product(s, &call, spec.in, out, LAYER_OUTPUT, conv_flops(s, &spec));
  Split split = {spec.images, spec.bands};
  Place partial = {0};
  if (spec.moments) {
    partial = schedule_storage(s, LOOP_ELEMENT_F32, 3 * (int64_t)out.channels * schedule_tasks(s, split));
    call_place(&call, partial, READY_AT_ONCE);
  }
  Ready ready = call_launch(s, &call, FAMILY_CONV, &spec, spec.images, spec.bands, again ? 0 : conv_flops(s, &spec));
  if (spec.moments) schedule_finish_moments(s, moments, partial, ready, split);
  return ready;
}

void schedule_conv(Scheduler *s, ValueId v, ValueId moments) {
  schedule_written(s, v, launch_conv(s, v, schedule_place(s, v), READY_AT_ONCE, false, moments));
}

/* A depthwise convolution is a tenth of the work around it, and its output is half of what a forward pass would keep for the
 * backward pass: where a weight's gradient reads it, once `dy` is there, it is computed again. */
static Place computed_again(Scheduler *s, ValueId conv, ValueId dy, Ready *ready) {
  Place copy = schedule_images(s, s->kernels->activation, type_elements(graph_type(s->graph, conv), 1));
  copy.stride = graph_type(s->graph, conv).dims[0];
  *ready = launch_conv(s, conv, copy, s->ready[dy], true, NO_VALUE);
  return copy;
}

static bool is_depthwise(const GraphNode *node) {
  return node->op == OP_CONV && node->attributes->window.groups > 1 && node->attributes->window.groups == node->type.dims[0];
}

void schedule_conv_grad_input(Scheduler *s, ValueId v, ValueId unshift) {
  const GraphNode *node = graph_node(s->graph, v);
  if (node->op != OP_CONV_GRAD_INPUT) die("unshift of %s", op_table[node->op].text);
  ValueId result = unshift == NO_VALUE ? v : unshift, dy = node->operands[0];
  ConvSpec spec = conv_spec(&node->attributes->window);
  Place to = schedule_place(s, result);
  Plane in = schedule_plane(s, result, to);
  conv_sides(s, &spec, in, schedule_plane(s, dy, s->place[dy]));
  if (unshift != NO_VALUE) {
    spec.shift_y = graph_node(s->graph, unshift)->attributes->shift_y;
    spec.shift_x = graph_node(s->graph, unshift)->attributes->shift_x;
  }
  Call call = {0};
  call_read(s, &call, dy);
  call_weight(s, &call, node->operands[1]);
  call_place(&call, to, READY_AT_ONCE);
  bool library = unshift == NO_VALUE && schedule_is_library_conv(s, &node->attributes->window, in, spec.out);
  Ready ready = library ? schedule_conv_product(s, &call, in, spec.out, LAYER_INPUT_GRADIENT, conv_flops(s, &spec))
                        : call_launch(s, &call, FAMILY_CONV_GRAD_INPUT, &spec, spec.images, spec.bands, conv_flops(s, &spec));
  schedule_written(s, result, ready);
}

void schedule_conv_grad_weight(Scheduler *s, ValueId v) {
  const GraphNode *node = graph_node(s->graph, v);
  ValueId dy = node->operands[0];
  Source source = schedule_source(s, node->operands[1]);
  ConvSpec spec = conv_spec(&node->attributes->window);
  Place kept = s->place[source.base];
  Ready kept_ready = s->ready[source.base];
  if (is_depthwise(graph_node(s->graph, source.base)))
    s->place[source.base] = computed_again(s, source.base, dy, &s->ready[source.base]);
  int64_t elements = type_elements(node->type, 1);
  Plane out = schedule_plane(s, dy, s->place[dy]);
  conv_sides(s, &spec, schedule_plane(s, source.base, s->place[source.base]), out);
  Split split = {spec.images, spec.bands};
  Place partial = schedule_storage(s, LOOP_ELEMENT_F32, elements * schedule_tasks(s, split));
  Call call = {0};
  call_read(s, &call, dy);
  conv_source(s, &call, &spec, &source);
  call_place(&call, partial, READY_AT_ONCE);
  Ready ready = call_launch(s, &call, FAMILY_CONV_GRAD_WEIGHT, &spec, split.images, split.bands, conv_flops(s, &spec));
  s->place[source.base] = kept;
  s->ready[source.base] = kept_ready;
  schedule_written(s, v, schedule_sum(s, partial, ready, split, elements, false, schedule_place(s, v)));
}

PoolSpec schedule_pool_spec(const Scheduler *s, ValueId v, Place to, Place from) {
  const GraphNode *node = graph_node(s->graph, v);
  bool gradient = node->op == OP_MAX_POOL_GRAD || node->op == OP_AVG_POOL_GRAD;
  const Window *w = &node->attributes->window;
  PoolSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.kernel_y = w->kernel_y;
  spec.kernel_x = w->kernel_x;
  spec.stride_y = w->stride_y;
  spec.stride_x = w->stride_x;
  spec.pad_y = w->pad_y;
  spec.pad_x = w->pad_x;
  spec.max = node->op == OP_MAX_POOL || node->op == OP_MAX_POOL_GRAD;
  Plane own = schedule_plane(s, v, to), other = schedule_plane(s, node->operands[0], from);
  spec.in = gradient ? own : other;
  spec.out = gradient ? other : own;
  if (gradient && spec.max) {
    spec.dx_stride = own.stride;
    Place x = s->place[node->operands[1]];
    spec.in.stride = x.stride;
    spec.in.unaligned |= schedule_unaligned(s, x, spec.in.channels);
  }
  Split split = schedule_split(s, (int64_t)spec.in.height * spec.in.width);
  spec.images = split.images;
  spec.bands = split.bands;
  return spec;
}

void schedule_pool(Scheduler *s, ValueId v, ValueId moments) {
  const GraphNode *node = graph_node(s->graph, v);
  bool gradient = node->op == OP_MAX_POOL_GRAD || node->op == OP_AVG_POOL_GRAD;
  Place to = schedule_place(s, v);
  PoolSpec spec = schedule_pool_spec(s, v, to, s->place[node->operands[0]]);
  Split split = {spec.images, spec.bands};
  Call call = {0};
  for (int32_t i = 0; i < node->operand_count; i++) call_read(s, &call, node->operands[i]);
  call_place(&call, to, READY_AT_ONCE);
  Family family = gradient ? FAMILY_POOL_GRAD : FAMILY_POOL;
  Place partial = {0};
  spec.moments = moments != NO_VALUE;
  if (spec.moments) {
    partial = schedule_storage(s, LOOP_ELEMENT_F32, 3 * (int64_t)spec.out.channels * schedule_tasks(s, split));
    call_place(&call, partial, READY_AT_ONCE);
  }
  schedule_written(s, v, call_launch(s, &call, family, &spec, split.images, split.bands, 0));
  if (spec.moments) schedule_finish_moments(s, moments, partial, s->ready[v], split);
}

static ShiftSpec shift_spec(Scheduler *s, ValueId v, Place to) {
  const GraphNode *node = graph_node(s->graph, v);
  ShiftSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.in = schedule_plane(s, node->operands[0], s->place[node->operands[0]]);
  spec.out = schedule_plane(s, v, to);
  spec.shift_y = node->attributes->shift_y;
  spec.shift_x = node->attributes->shift_x;
  int64_t in = (int64_t)spec.in.height * spec.in.width, out = (int64_t)spec.out.height * spec.out.width;
  Split split = schedule_split(s, in > out ? in : out);
  spec.images = split.images;
  spec.bands = split.bands;
  return spec;
}

void schedule_shift(Scheduler *s, ValueId v) {
  const GraphNode *node = graph_node(s->graph, v);
  ValueId from = node->operands[0];
  bool back = node->op == OP_UNSHIFT;
  if (back && graph_node(s->graph, from)->op == OP_CONV_GRAD_INPUT && s->use_count[from] == 1) {
    schedule_conv_grad_input(s, from, v);
    return;
  }
  Place to = schedule_place(s, v);
  ShiftSpec spec = shift_spec(s, v, to);
  Call call = {0};
  call_read(s, &call, from);
  call_place(&call, to, READY_AT_ONCE);
  schedule_written(s, v, call_launch(s, &call, back ? FAMILY_UNSHIFT : FAMILY_SHIFT, &spec, spec.images, spec.bands, 0));
}
