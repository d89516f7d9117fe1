/* Elementwise values and reductions become map kernels: the expression of everything unmaterialised under a value is collected
 * into one spec. BN's coefficients, in-place optimizer steps and copies are maps too. */
#include "compiler/pass/fuse_private.h"
#include "compiler/pass/schedule_private.h"

typedef struct Known {
  ValueId value;
  int32_t offset, operand;
} Known;

/* Operands are numbered while the inputs are still being found: inputs from 0 up, step j as -1 - j. `finish` renumbers. */
typedef struct Expression {
  Scheduler *s;
  Call *call;
  MapSpec spec;
  Known known[MAP_MAX_INPUTS + MAP_MAX_STEPS];
  int32_t known_count;
} Expression;

static void expression_new(Expression *e, Scheduler *s, Call *call) {
  memset(e, 0, sizeof *e);
  e->s = s;
  e->call = call;
}

static int32_t add_step(Expression *e, LoopOp op, int32_t a, int32_t b, int32_t c, double value) {
  if (e->spec.step_count == MAP_MAX_STEPS) die("an expression with more than %d steps", MAP_MAX_STEPS);
  e->spec.steps[e->spec.step_count] = (MapStep){op, a, b, c, value};
  return -1 - e->spec.step_count++;
}

static int32_t number(Expression *e, double value) {
  return add_step(e, LOOP_FLOAT, 0, 0, 0, value);
}
static int32_t binary(Expression *e, LoopOp op, int32_t a, int32_t b) {
  return add_step(e, op, a, b, 0, 0);
}

static int32_t input_number(Expression *e, MapKind kind, Place place, int32_t offset) {
  if (e->spec.input_count == MAP_MAX_INPUTS) die("an expression with more than %d inputs", MAP_MAX_INPUTS);
  MapInput *input = &e->spec.inputs[e->spec.input_count];
  input->kind = kind;
  input->stride = place.stride;
  input->offset = offset;
  input->element = schedule_element(e->s, place);
  input->unaligned = kind == MAP_TENSOR && !e->spec.flat && schedule_unaligned(e->s, place, e->spec.channels);
  return e->spec.input_count++;
}

static int32_t leaf(Expression *e, ValueId v, int32_t offset) {
  Type type = graph_type(e->s->graph, v);
  bool one = type_elements(type, 1) == 1 && !type.batched;
  MapKind kind = one            ? MAP_SCALAR
                 : e->spec.flat ? MAP_TENSOR
                 : type.batched ? (type.rank == 1 && e->spec.pixels > 1 ? MAP_IMAGE : MAP_TENSOR)
                                : MAP_CHANNEL;
  call_read(e->s, e->call, v);
  return input_number(e, kind, e->s->place[v], offset);
}

static int32_t expression_value(Expression *e, ValueId v, int32_t offset, bool root);

static int32_t operand(Expression *e, const GraphNode *node, int32_t i) {
  return expression_value(e, node->operands[i], 0, false);
}

/* Operands are built one by one: C leaves open in which order it evaluates arguments. */
static int32_t both(Expression *e, LoopOp op, const GraphNode *node, int32_t i, int32_t j) {
  int32_t a = operand(e, node, i), b = operand(e, node, j);
  return binary(e, op, a, b);
}

static int32_t with_number(Expression *e, LoopOp op, const GraphNode *node, int32_t i, double value) {
  int32_t a = operand(e, node, i), b = number(e, value);
  return binary(e, op, a, b);
}

/* (x - mean) / sqrt(variance + 1e-5); the second number is the factor. */
static int32_t normalised(Expression *e, ValueId x, ValueId moments, int32_t *factor) {
  int32_t channels = e->spec.channels;
  int32_t value = expression_value(e, x, 0, false);
  int32_t mean = expression_value(e, moments, 0, false), variance = expression_value(e, moments, channels, false);
  int32_t raised = binary(e, LOOP_ADD, variance, number(e, 1e-5));
  int32_t root = add_step(e, LOOP_SQRT, raised, 0, 0, 0);
  *factor = binary(e, LOOP_DIV, number(e, 1), root);
  return binary(e, LOOP_MUL, binary(e, LOOP_SUB, value, mean), *factor);
}

/* factor * (dy - sums0 / n - xhat * sums1 / n) */
static int32_t bn_gradient(Expression *e, const GraphNode *node) {
  int32_t factor;
  int32_t dy = operand(e, node, 0);
  int32_t xhat = normalised(e, node->operands[1], node->operands[2], &factor);
  int32_t count = add_step(e, LOOP_BATCH, 0, 0, 0, e->spec.pixels);
  int32_t sum = binary(e, LOOP_DIV, expression_value(e, node->operands[3], 0, false), count);
  int32_t product = binary(e, LOOP_DIV, expression_value(e, node->operands[3], e->spec.channels, false), count);
  int32_t centred = binary(e, LOOP_SUB, dy, sum);
  int32_t rest = binary(e, LOOP_SUB, centred, binary(e, LOOP_MUL, xhat, product));
  return binary(e, LOOP_MUL, factor, rest);
}

static int32_t decayed(Expression *e, const GraphNode *node, int32_t gradient) {
  int32_t decay = number(e, node->attributes->decay);
  return add_step(e, LOOP_FMA, decay, operand(e, node, 0), gradient, 0);
}

/* beta * old + (1 - beta) * g */
static int32_t running(Expression *e, const GraphNode *node, int32_t g) {
  int32_t fresh = binary(e, LOOP_MUL, number(e, 1 - node->attributes->beta), g);
  int32_t beta = number(e, node->attributes->beta), old = operand(e, node, 1);
  return add_step(e, LOOP_FMA, beta, old, fresh, 0);
}

static int32_t compute(Expression *e, const GraphNode *node) {
  int32_t factor;
  switch (node->op) {
  case OP_RELU: return with_number(e, LOOP_MAX, node, 0, 0);
  case OP_RELU_GRAD: {
    int32_t dy = operand(e, node, 0), x = operand(e, node, 1), zero = number(e, 0);
    return add_step(e, LOOP_SELECT, binary(e, LOOP_GT, x, zero), dy, zero, 0);
  }
  case OP_ADD: return both(e, LOOP_ADD, node, 0, 1);
  case OP_MUL:
  case OP_SCALE:
  case OP_CHANNEL_SCALE: return both(e, LOOP_MUL, node, 0, 1);
  case OP_BN_APPLY: return normalised(e, node->operands[0], node->operands[1], &factor);
  case OP_BN_GRAD: return bn_gradient(e, node);
  case OP_AFFINE: {
    int32_t x = operand(e, node, 0), scale = operand(e, node, 1);
    return add_step(e, LOOP_FMA, x, scale, operand(e, node, 2), 0);
  }
  case OP_GLOBAL_AVG_POOL_GRAD: return with_number(e, LOOP_MUL, node, 0, 1.0 / e->spec.pixels);
  case OP_MOMENTUM: {
    int32_t clipped = both(e, LOOP_MUL, node, 3, 2), full = decayed(e, node, clipped);
    int32_t beta = number(e, node->attributes->beta), buffer = operand(e, node, 1);
    return add_step(e, LOOP_FMA, beta, buffer, full, 0);
  }
  case OP_DESCEND: {
    int32_t step = both(e, LOOP_MUL, node, 2, 1);
    return binary(e, LOOP_SUB, operand(e, node, 0), step);
  }
  case OP_ADAM_MEAN: return running(e, node, decayed(e, node, operand(e, node, 2)));
  case OP_ADAM_SQUARE: {
    int32_t g = decayed(e, node, operand(e, node, 2));
    return running(e, node, binary(e, LOOP_MUL, g, g));
  }
  default: die("%s is not elementwise", op_table[node->op].text);
  }
}

static int32_t expression_value(Expression *e, ValueId v, int32_t offset, bool root) {
  for (int32_t i = 0; i < e->known_count; i++)
    if (e->known[i].value == v && e->known[i].offset == offset) return e->known[i].operand;
  const GraphNode *node = graph_node(e->s->graph, v);
  int32_t at;
  if (node->op == OP_CONST)
    at = number(e, node->attributes->value);
  else if (root || !e->s->kept[v])
    at = compute(e, node);
  else
    at = leaf(e, v, offset);
  e->known[e->known_count++] = (Known){v, offset, at};
  return at;
}

static void add_output(Expression *e, int32_t value, Place to) {
  MapOutput *output = &e->spec.outputs[e->spec.output_count++];
  output->value = value;
  output->stride = to.stride;
  output->element = schedule_element(e->s, to);
  output->unaligned = !e->spec.flat && schedule_unaligned(e->s, to, e->spec.channels);
}

static void add_sum(Expression *e, int32_t value) {
  MapOutput *output = &e->spec.outputs[e->spec.output_count++];
  output->value = value;
  output->sum = true;
}

static int32_t renumbered(const Expression *e, int32_t at) {
  return at < 0 ? e->spec.input_count - 1 - at : at;
}

static void finish(Expression *e) {
  for (int32_t i = 0; i < e->spec.step_count; i++) {
    MapStep *step = &e->spec.steps[i];
    step->a = renumbered(e, step->a);
    step->b = renumbered(e, step->b);
    step->c = renumbered(e, step->c);
  }
  for (int32_t i = 0; i < e->spec.output_count; i++) e->spec.outputs[i].value = renumbered(e, e->spec.outputs[i].value);
}

/* The space that the expression runs over: an activation's pixels, or a parameter's elements. */
static void expression_space(Expression *e, Type type) {
  bool gpu = e->s->kernels->target.gpu;
  e->spec.flat = !type.batched;
  if (type.batched) {
    e->spec.channels = type.dims[0];
    e->spec.pixels = type.rank == 3 ? type.dims[1] * type.dims[2] : 1;
    Split split = schedule_split(e->s, e->spec.pixels);
    e->spec.images = split.images;
    e->spec.bands = split.bands;
  } else {
    e->spec.channels = (int32_t)type_elements(type, 1);
    e->spec.chunk = gpu ? 2048 : 4096;
  }
}

static Ready expression_launch(Expression *e) {
  finish(e);
  int32_t tasks = e->spec.flat ? (e->spec.channels + e->spec.chunk - 1) / e->spec.chunk : e->spec.bands;
  return call_launch(e->s, e->call, FAMILY_MAP, &e->spec, e->spec.images, tasks, 0);
}

Ready schedule_vector_map(Scheduler *s, Call *call, ValueId v, Place to, int32_t images) {
  Expression e;
  expression_new(&e, s, call);
  expression_space(&e, graph_type(s->graph, v));
  e.spec.chunk = (e.spec.channels + s->kernels->target.lanes - 1) / s->kernels->target.lanes * s->kernels->target.lanes;
  add_output(&e, expression_value(&e, v, 0, true), to);
  call_place(call, to, READY_AT_ONCE);
  finish(&e);
  return call_launch(s, call, FAMILY_MAP, &e.spec, images, 1, 0);
}

/* A sum is written over the sum so far, where nothing else reads that. */
static ValueId overwritten(const Scheduler *s, ValueId v) {
  const GraphNode *node = graph_node(s->graph, v);
  if (node->op != OP_ADD || !fuse_wants(&s->kernels->fuse, FUSE_ACCUMULATE)) return NO_VALUE;
  for (int i = 0; i < 2; i++)
    if (s->kept[node->operands[i]] && fuse_may_overwrite(s->graph, s->use_count, node->operands[i])) return node->operands[i];
  return NO_VALUE;
}

void schedule_map(Scheduler *s, ValueId v) {
  Call call = {0};
  Expression e;
  expression_new(&e, s, &call);
  expression_space(&e, graph_type(s->graph, v));
  int32_t value = expression_value(&e, v, 0, true);
  ValueId over = s->place[v].storage < 0 ? overwritten(s, v) : NO_VALUE;
  if (over != NO_VALUE) schedule_overwrite(s, v, over);
  Place to = schedule_place(s, v);
  add_output(&e, value, to);
  if (over == NO_VALUE) {
    call_place(&call, to, READY_AT_ONCE);
  } else {
    e.spec.outputs[0].in_place = true;
    e.spec.outputs[0].input = expression_value(&e, over, 0, false);
  }
  schedule_written(s, v, expression_launch(&e));
}

Ready schedule_copy(Scheduler *s, ValueId from, Place to) {
  Call call = {0};
  Expression e;
  expression_new(&e, s, &call);
  expression_space(&e, graph_type(s->graph, from));
  add_output(&e, leaf(&e, from, 0), to);
  call_place(&call, to, READY_AT_ONCE);
  return expression_launch(&e);
}

Ready schedule_spread(Scheduler *s, ValueId bias, ValueId v, Place to) {
  Call call = {0};
  Expression e;
  expression_new(&e, s, &call);
  expression_space(&e, graph_type(s->graph, v));
  add_output(&e, leaf(&e, bias, 0), to);
  call_place(&call, to, READY_AT_ONCE);
  return expression_launch(&e);
}

void schedule_reduce(Scheduler *s, ValueId v) {
  const GraphNode *node = graph_node(s->graph, v);
  Call call = {0};
  Expression e;
  expression_new(&e, s, &call);
  Type type = graph_type(s->graph, node->operands[0]);
  if (!type.batched) die("%s of a value without a batch", op_table[node->op].text);
  int32_t sums = node->op == OP_BN_GRAD_SUMS ? 2 : 1, factor;
  expression_space(&e, type);
  int32_t first = operand(&e, node, 0);
  switch (node->op) {
  case OP_BN_GRAD_SUMS: {
    int32_t xhat = normalised(&e, node->operands[1], node->operands[2], &factor);
    add_sum(&e, first);
    add_sum(&e, binary(&e, LOOP_MUL, first, xhat));
    break;
  }
  case OP_CHANNEL_SUM: add_sum(&e, first); break;
  default: add_sum(&e, binary(&e, LOOP_MUL, first, operand(&e, node, 1)));
  }
  int64_t elements = (int64_t)sums * e.spec.channels;
  Split split = {e.spec.images, e.spec.bands};
  Place partial = schedule_storage(s, LOOP_ELEMENT_F32, elements * schedule_tasks(s, split));
  call_place(&call, partial, READY_AT_ONCE);
  Ready ready = expression_launch(&e);
  schedule_written(s, v, schedule_sum(s, partial, ready, split, elements, node->op == OP_DOT, schedule_place(s, v)));
}

Place schedule_coefficients(Scheduler *s, ValueId moments, Ready *ready) {
  if (s->coefficients[moments].storage < 0) {
    int32_t channels = graph_type(s->graph, moments).dims[1];
    Place scale = schedule_storage(s, LOOP_ELEMENT_F32, 2 * (int64_t)channels), second = scale;
    second.offset = channels;
    Call call = {0};
    Expression e;
    expression_new(&e, s, &call);
    e.spec.flat = true;
    e.spec.channels = channels;
    e.spec.chunk = 4096;
    int32_t mean = leaf(&e, moments, 0), variance = leaf(&e, moments, channels);
    int32_t raised = binary(&e, LOOP_ADD, variance, number(&e, 1e-5));
    int32_t root = add_step(&e, LOOP_SQRT, raised, 0, 0, 0);
    int32_t factor = binary(&e, LOOP_DIV, number(&e, 1), root);
    add_output(&e, factor, scale);
    add_output(&e, mean, second);
    call_place(&call, scale, READY_AT_ONCE);
    call_place(&call, second, READY_AT_ONCE);
    s->coefficients_ready[moments] = expression_launch(&e);
    s->coefficients[moments] = scale;
  }
  *ready = s->coefficients_ready[moments];
  return s->coefficients[moments];
}

Ready schedule_bn_coefficients(Scheduler *s, const BlockValues *block, Place *to) {
  int32_t channels = graph_type(s->graph, block->moments).dims[1];
  Type image = graph_type(s->graph, block->z);
  Call call = {0};
  Expression e;
  expression_new(&e, s, &call);
  e.spec.flat = true;
  e.spec.channels = channels;
  e.spec.chunk = 4096;
  int32_t mean = leaf(&e, block->moments, 0), variance = leaf(&e, block->moments, channels);
  int32_t raised = binary(&e, LOOP_ADD, variance, number(&e, 1e-5));
  int32_t root = add_step(&e, LOOP_SQRT, raised, 0, 0, 0);
  int32_t factor = binary(&e, LOOP_DIV, number(&e, 1), root);
  int32_t scale = block->factor == NO_VALUE ? factor : binary(&e, LOOP_MUL, factor, leaf(&e, block->factor, 0));
  int32_t count = add_step(&e, LOOP_BATCH, 0, 0, 0, (double)image.dims[1] * image.dims[2]);
  int32_t negative = binary(&e, LOOP_DIV, number(&e, -1), count);
  int32_t share = binary(&e, LOOP_MUL, negative, factor);
  int32_t sum = leaf(&e, block->sums, 0), product = leaf(&e, block->sums, channels);
  int32_t slope = binary(&e, LOOP_MUL, binary(&e, LOOP_MUL, share, factor), product);
  int32_t shift = binary(&e, LOOP_MUL, share, sum);
  *to = schedule_storage(s, LOOP_ELEMENT_F32, 4 * (int64_t)channels);
  const int32_t rows[] = {scale, slope, mean, shift};
  for (int32_t i = 0; i < 4; i++) {
    Place row = {to->storage, i * channels, 0};
    add_output(&e, rows[i], row);
    call_place(&call, row, READY_AT_ONCE);
  }
  return expression_launch(&e);
}

/* Parameters are written after every launch that reads them. */
static void wait_for_readers(const Scheduler *s, Call *call, int32_t parameter) {
  call->after = ready_both(call->after, (Ready){.all = s->parameter_read[parameter] + 1});
}

static void outer_descend(Scheduler *s, const Update *weight, const Update *momentum, const GraphNode *step,
                          const GraphNode *gradient) {
  const GraphNode *descend = graph_node(s->graph, weight->value);
  VectorSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.rows = gradient->type.dims[0];
  spec.inner = gradient->type.dims[1];
  spec.value = step->attributes->beta;
  spec.decay = step->attributes->decay;
  Call call = {0};
  call_place(&call, (Place){.storage = weight->parameter}, READY_AT_ONCE);
  call_place(&call, (Place){.storage = momentum->parameter}, READY_AT_ONCE);
  call_read(s, &call, gradient->operands[0]);
  call_read(s, &call, gradient->operands[1]);
  call_read(s, &call, step->operands[3]);
  call_read(s, &call, descend->operands[2]);
  wait_for_readers(s, &call, weight->parameter);
  wait_for_readers(s, &call, momentum->parameter);
  spec.chunk = schedule_chunk(s, FAMILY_OUTER_DESCEND, &spec);
  call_launch(s, &call, FAMILY_OUTER_DESCEND, &spec, 0, schedule_chunks(spec.inner, spec.chunk), 0);
}

void schedule_descend(Scheduler *s, const Update *weight, const Update *momentum) {
  const GraphNode *descend = graph_node(s->graph, weight->value);
  const GraphNode *step = graph_node(s->graph, momentum->value);
  if (s->done[step->operands[2]]) {
    outer_descend(s, weight, momentum, step, graph_node(s->graph, step->operands[2]));
    return;
  }
  Call call = {0};
  Expression e;
  expression_new(&e, s, &call);
  expression_space(&e, descend->type);
  /* The two in place come first, so that they are inputs 0 and 1. */
  int32_t w = expression_value(&e, step->operands[0], 0, false), buffer = expression_value(&e, step->operands[1], 0, false);
  int32_t moved = expression_value(&e, momentum->value, 0, true);
  int32_t lower = expression_value(&e, weight->value, 0, true);
  add_output(&e, moved, (Place){.storage = momentum->parameter});
  add_output(&e, lower, (Place){.storage = weight->parameter});
  e.spec.outputs[0].in_place = e.spec.outputs[1].in_place = true;
  e.spec.outputs[0].input = buffer;
  e.spec.outputs[1].input = w;
  wait_for_readers(s, &call, weight->parameter);
  wait_for_readers(s, &call, momentum->parameter);
  expression_launch(&e);
}

void schedule_copy_update(Scheduler *s, const Update *update) {
  Call call = {0};
  Expression e;
  expression_new(&e, s, &call);
  expression_space(&e, graph_type(s->graph, update->value));
  add_output(&e, leaf(&e, update->value, 0), (Place){.storage = update->parameter});
  call_place(&call, (Place){.storage = update->parameter}, READY_AT_ONCE);
  wait_for_readers(s, &call, update->parameter);
  expression_launch(&e);
}
