/* Random instances of every operation of the Graph IR that is no leaf, for tests that walk the table.
 *
 *   GraphInstance instance;
 *   graph_instance(OP_CONV, seed, NULL, module_add_step(module, "s"), &instance);
 *     the step now has inputs "x0", "x1", ..., one an operand, and the operation on them; nothing folds
 *   graph_instance_data(&instance, i, batch, seed, data)
 *     fills operand i with numbers that suit the operation: labels below the number of classes, positive variances, inputs of
 *     relu away from 0, pixels of a max pool all different (so that central differences with steps below 1e-3 are smooth)
 *
 * The same seed gives the same instance. Limits bound the shapes; null means small ones. */
#ifndef ADWP_TESTS_UNIT_GRAPH_INSTANCES_H
#define ADWP_TESTS_UNIT_GRAPH_INSTANCES_H

#include "compiler/graph/graph.h"

#include <stdio.h>

typedef struct GraphInstanceLimits {
  int32_t channels; /* also entries of vectors */
  int32_t side;
} GraphInstanceLimits;

enum { GRAPH_INSTANCE_OPERANDS = 5 };

typedef struct GraphInstance {
  OpCode op;
  Attributes attributes;
  int32_t count;
  Type types[GRAPH_INSTANCE_OPERANDS];
  Type type; /* of the result */
  ValueId operands[GRAPH_INSTANCE_OPERANDS];
  ValueId value;
} GraphInstance;

typedef struct InstanceRandom {
  uint64_t state;
  GraphInstanceLimits limits;
} InstanceRandom;

static inline uint64_t instance_word(InstanceRandom *r) { /* splitmix64 */
  uint64_t z = r->state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* From `low` to `high`, both possible. */
static inline int32_t instance_integer(InstanceRandom *r, int32_t low, int32_t high) {
  return high <= low ? low : low + (int32_t)(instance_word(r) % (uint64_t)(high - low + 1));
}

/* In [0, 1). */
static inline double instance_unit(InstanceRandom *r) {
  return (double)(instance_word(r) >> 11) * 0x1p-53;
}

static inline int32_t instance_channels(InstanceRandom *r) {
  return instance_integer(r, 1, r->limits.channels);
}

static inline Type instance_image(InstanceRandom *r) {
  return type_tensor(
      3, (int32_t[]){instance_channels(r), instance_integer(r, 1, r->limits.side), instance_integer(r, 1, r->limits.side)}, true);
}

static inline Type instance_vector(int32_t entries, bool batched) {
  return type_tensor(1, &entries, batched);
}

static inline Type instance_matrix(int32_t rows, int32_t columns) {
  return type_tensor(2, (int32_t[]){rows, columns}, false);
}

static inline Type instance_per_image(ElementType element) {
  Type type = type_tensor(0, NULL, true);
  type.element = element;
  return type;
}

/* A parameter's shape, of any rank. */
static inline Type instance_parameter(InstanceRandom *r) {
  int32_t dims[MAX_RANK] = {instance_channels(r), instance_channels(r), instance_integer(r, 1, 5), instance_integer(r, 1, 5)};
  return type_tensor(instance_integer(r, 0, MAX_RANK), dims, false);
}

static inline Type instance_any(InstanceRandom *r) {
  switch (instance_integer(r, 0, 3)) {
  case 0: return instance_parameter(r);
  case 1: return instance_vector(instance_channels(r), true);
  default: return instance_image(r);
  }
}

static inline Window instance_window(InstanceRandom *r, bool pool) {
  static const int32_t kernels[] = {1, 2, 3, 3, 3, 5, 7};
  Window w = {.groups = 1, .dilation = pool ? 1 : instance_integer(r, 1, 2)};
  bool square = instance_integer(r, 0, 2) > 0;
  w.kernel_y = kernels[instance_integer(r, 0, 6)];
  w.kernel_x = square ? w.kernel_y : kernels[instance_integer(r, 0, 6)];
  w.stride_y = instance_integer(r, 1, 3);
  w.stride_x = square ? w.stride_y : instance_integer(r, 1, 3);
  w.pad_y = instance_integer(r, 0, pool ? w.kernel_y / 2 : w.dilation * (w.kernel_y - 1));
  w.pad_x = square ? w.pad_y : instance_integer(r, 0, pool ? w.kernel_x / 2 : w.dilation * (w.kernel_x - 1));
  return w;
}

/* A convolution's, or a pool's, types and window; false where the window is larger than the image. */
static inline bool instance_conv(InstanceRandom *r, Window *w, Type *x, Type *weights, Type *y) {
  *x = instance_image(r);
  *w = instance_window(r, false);
  int32_t kind = instance_integer(r, 0, 2), divisor = instance_integer(r, 1, x->dims[0]), channels = x->dims[0];
  w->groups = kind == 0 ? 1 : kind == 1 ? channels : channels % divisor == 0 ? divisor : 1;
  int32_t most = r->limits.channels / w->groups;
  int32_t out = w->groups * instance_integer(r, 1, kind == 1 ? (most < 2 ? most : 2) : most);
  *weights = type_tensor(4, (int32_t[]){out, channels / w->groups, w->kernel_y, w->kernel_x}, false);
  return op_result_type(OP_CONV, (Type[]){*x, *weights}, 2, &(Attributes){.window = *w}, y, NULL);
}

static inline bool instance_pool(InstanceRandom *r, OpCode op, Window *w, Type *x, Type *y) {
  *x = instance_image(r);
  *w = instance_window(r, true);
  return op_result_type(op, x, 1, &(Attributes){.window = *w}, y, NULL);
}

static inline void instance_put(GraphInstance *in, Type type) {
  in->types[in->count++] = type;
}

static inline bool instance_windowed(InstanceRandom *r, GraphInstance *in) {
  Attributes *a = &in->attributes;
  Type x, w, y;
  bool pool = in->op != OP_CONV && in->op != OP_CONV_GRAD_INPUT && in->op != OP_CONV_GRAD_WEIGHT;
  OpCode forward = in->op == OP_MAX_POOL_GRAD ? OP_MAX_POOL : OP_AVG_POOL;
  if (pool ? !instance_pool(r, forward, &a->window, &x, &y) : !instance_conv(r, &a->window, &x, &w, &y)) return false;
  a->side_y = x.dims[1], a->side_x = x.dims[2];
  bool forwards = in->op == OP_CONV || in->op == OP_MAX_POOL || in->op == OP_AVG_POOL;
  instance_put(in, forwards ? x : y);
  if (in->op == OP_CONV || in->op == OP_CONV_GRAD_INPUT) instance_put(in, w);
  if (in->op == OP_CONV_GRAD_WEIGHT || in->op == OP_MAX_POOL_GRAD) instance_put(in, x);
  return true;
}

static inline bool instance_linear(InstanceRandom *r, GraphInstance *in) {
  int32_t m = instance_channels(r), n = instance_channels(r);
  bool batched = instance_integer(r, 0, 1), scalar = !batched && instance_integer(r, 0, 2) == 0;
  if (scalar) n = 1;
  Type x = scalar ? type_scalar() : instance_vector(n, batched), y = instance_vector(m, batched);
  instance_put(in, in->op == OP_LINEAR ? x : y);
  instance_put(in, in->op == OP_LINEAR_GRAD_WEIGHT ? x : instance_matrix(m, n));
  if (in->op == OP_LINEAR) instance_put(in, instance_vector(m, false));
  return true;
}

static inline bool instance_placed(InstanceRandom *r, GraphInstance *in) {
  Attributes *a = &in->attributes;
  Type x = instance_image(r);
  switch (in->op) {
  case OP_RESHAPE:
    x = instance_parameter(r);
    int32_t elements = (int32_t)type_elements(x, 1);
    a->shape = x.rank == 1 ? instance_matrix(1, elements) : instance_vector(elements, false);
    break;
  case OP_CONCAT:
    for (int32_t parts = instance_integer(r, 2, GRAPH_INSTANCE_OPERANDS); in->count < parts - 1; x.dims[0] = instance_channels(r))
      instance_put(in, x);
    break;
  case OP_SLICE:
    x.dims[0]++;
    a->count = instance_integer(r, 1, x.dims[0] - 1);
    a->begin = instance_integer(r, 0, x.dims[0] - a->count);
    break;
  default:
    x.dims[1]++;
    a->shift_y = 1, a->shift_x = instance_integer(r, 0, x.dims[2] > 1);
    break;
  }
  instance_put(in, x);
  return true;
}

static inline bool instance_vectors(InstanceRandom *r, GraphInstance *in) {
  int32_t k = instance_channels(r);
  Type per_image = instance_per_image(ELEMENT_F32), logits = instance_vector(k, true), labels = instance_per_image(ELEMENT_I32);
  switch (in->op) {
  case OP_SOFTMAX_GRAD: instance_put(in, instance_vector(k, false)); /* fall through */
  case OP_SOFTMAX: instance_put(in, instance_vector(k, false)); return true;
  case OP_ELEMENT:
    instance_put(in, instance_vector(k, false));
    in->attributes.index = instance_integer(r, 0, k - 1);
    return true;
  case OP_STACK:
    for (k = instance_integer(r, 1, GRAPH_INSTANCE_OPERANDS); in->count < k;) instance_put(in, type_scalar());
    return true;
  case OP_ROW_SUM:
    instance_put(in, instance_matrix(k, instance_channels(r)));
    in->attributes.index = instance_integer(r, 0, k - 1);
    return true;
  case OP_BATCH_SUM: instance_put(in, logits); return true;
  case OP_CROSS_ENTROPY_GRAD: instance_put(in, per_image); /* fall through */
  case OP_CROSS_ENTROPY:
  case OP_CORRECT:
    instance_put(in, logits);
    instance_put(in, labels);
    return true;
  case OP_BATCH_MEAN: instance_put(in, per_image); return true;
  case OP_CLIP: in->attributes.value = instance_integer(r, 0, 3) ? 0.5 + instance_unit(r) : 0; /* fall through */
  default: instance_put(in, type_scalar()); return true;
  }
}

static inline bool instance_per_channel(InstanceRandom *r, GraphInstance *in) {
  Type x = instance_image(r), pair = instance_matrix(2, x.dims[0]), one = instance_vector(x.dims[0], false);
  instance_put(in, x);
  if (in->op == OP_BN_GRAD || in->op == OP_BN_GRAD_SUMS || in->op == OP_CHANNEL_DOT) instance_put(in, x);
  if (in->op == OP_BN_APPLY || in->op == OP_BN_GRAD || in->op == OP_BN_GRAD_SUMS) instance_put(in, pair);
  if (in->op == OP_BN_GRAD) instance_put(in, pair);
  if (in->op == OP_AFFINE || in->op == OP_CHANNEL_SCALE) instance_put(in, one);
  if (in->op == OP_AFFINE) instance_put(in, one);
  return true;
}

static inline bool instance_optimizer(InstanceRandom *r, GraphInstance *in) {
  Type p = instance_parameter(r);
  in->attributes.beta = instance_unit(r);
  in->attributes.decay = 0.01 * instance_unit(r);
  in->attributes.value = 1e-8;
  instance_put(in, p);
  if (in->op != OP_SUM_SQUARES) instance_put(in, p);
  if (in->op == OP_MOMENTUM || in->op == OP_ADAM_MEAN || in->op == OP_ADAM_SQUARE) instance_put(in, p);
  if (in->op == OP_MOMENTUM || in->op == OP_DESCEND) instance_put(in, type_scalar());
  if (in->op == OP_ADAM_STEP) instance_put(in, instance_vector(3, false));
  return true;
}

static inline bool instance_shape(InstanceRandom *r, GraphInstance *in) {
  switch (in->op) {
  case OP_LINEAR:
  case OP_LINEAR_GRAD_INPUT:
  case OP_LINEAR_GRAD_WEIGHT: return instance_linear(r, in);
  case OP_RELU_GRAD:
  case OP_ADD:
  case OP_MUL:
  case OP_DOT:
    instance_put(in, instance_any(r));
    instance_put(in, in->types[0]);
    return true;
  case OP_GRADIENT: instance_put(in, type_scalar()); /* fall through */
  case OP_RELU: instance_put(in, instance_any(r)); return true;
  case OP_SCALE:
    instance_put(in, instance_any(r));
    instance_put(in, type_scalar());
    return true;
  case OP_GLOBAL_AVG_POOL_GRAD:
    instance_put(in, instance_vector(instance_channels(r), true));
    in->attributes.side_y = instance_integer(r, 1, r->limits.side);
    in->attributes.side_x = instance_integer(r, 1, r->limits.side);
    return true;
  case OP_SUM_SQUARES:
  case OP_MOMENTUM:
  case OP_DESCEND:
  case OP_ADAM_MEAN:
  case OP_ADAM_SQUARE:
  case OP_ADAM_STEP: return instance_optimizer(r, in);
  case OP_RESHAPE: return instance_placed(r, in);
  default: break;
  }
  switch (op_table[in->op].class) {
  case CLASS_WINDOW: return instance_windowed(r, in);
  case CLASS_DATA: return instance_placed(r, in);
  case CLASS_SMALL: return instance_vectors(r, in);
  default: return instance_per_channel(r, in);
  }
}

/* Fills `graph`, which must be empty, with an instance of `op`, which must be no leaf. */
static inline void graph_instance(OpCode op, uint64_t seed, const GraphInstanceLimits *limits, Graph *graph, GraphInstance *in) {
  InstanceRandom r = {seed * 1000003u + (uint64_t)op, limits ? *limits : (GraphInstanceLimits){6, 8}};
  do *in = (GraphInstance){.op = op, .attributes.window = {1, 1, 1, 1, 1, 0, 0, 1}};
  while (!instance_shape(&r, in));
  for (int32_t i = 0; i < in->count; i++) {
    char name[16];
    snprintf(name, sizeof name, "x%d", i);
    in->operands[i] = graph_input(graph, name, in->types[i]);
  }
  in->value = graph_emit(graph, op, in->operands, in->count, &in->attributes);
  in->type = graph_type(graph, in->value);
}

/* Whether operand i must be positive: variances, and what stands under a root. */
static inline bool instance_is_positive(const GraphInstance *in, int32_t i) {
  return in->op == OP_SQRT || in->op == OP_CLIP || (in->op == OP_ADAM_STEP && i > 0) || (in->op == OP_MOMENTUM && i == 3);
}

static inline bool instance_is_moments(const GraphInstance *in, int32_t i) {
  return (in->op == OP_BN_APPLY && i == 1) || ((in->op == OP_BN_GRAD || in->op == OP_BN_GRAD_SUMS) && i == 2);
}

/* Fills operand i. */
static inline void graph_instance_data(const GraphInstance *in, int32_t i, int64_t batch, uint64_t seed, double *data) {
  InstanceRandom r = {seed * 2000003u + (uint64_t)in->op * 64 + (uint64_t)i, {0, 0}};
  int64_t elements = type_elements(in->types[i], batch);
  bool distinct = (in->op == OP_MAX_POOL && i == 0) || (in->op == OP_MAX_POOL_GRAD && i == 1);
  for (int64_t e = 0; e < elements; e++) {
    double magnitude = 0.05 + 0.95 * instance_unit(&r);
    bool positive = instance_is_positive(in, i) || (instance_is_moments(in, i) && e >= elements / 2);
    data[e] = positive || instance_word(&r) % 2 ? magnitude : -magnitude;
    if (in->types[i].element == ELEMENT_I32) data[e] = instance_integer(&r, 0, in->types[i - 1].dims[0] - 1);
    if (!distinct) continue;
    int64_t other = (int64_t)(instance_word(&r) % (uint64_t)(e + 1)); /* a random order of multiples of 4 / elements */
    data[e] = data[other];
    data[other] = 4 * ((double)e + 0.5) / (double)elements - 2;
  }
}

#endif
