/* The operations' table and the one place of shape rules: what a node's type is, given its operands'. Everything that makes or
 * reads a node (builder, parser, verifier, interpreter) asks here. Rules take no operand on trust, so that a parsed text is
 * refused with a message; window sizes come from dsl/shapes.c, which the language's checker uses too. */
#include "compiler/graph/graph_private.h"

#include "dsl/shapes.h"

#include <stdarg.h>
#include <stdio.h>

const OpInfo op_table[OP_COUNT] = {
#define OP(NAME, text, arity, attributes, class) [OP_##NAME] = {text, arity, attributes, CLASS_##class},
#include "compiler/graph/ops.def"
#undef OP
};

typedef struct Rule {
  OpCode op;
  const Type *x; /* operands */
  int32_t count;
  const Attributes *attributes;
  Type *result;
  Err *err;
} Rule;

static bool breach(const Rule *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool breach(const Rule *r, const char *format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return err_set(r->err, "%s: %s", op_table[r->op].text, message);
}

static bool wanted(const Rule *r, int32_t i, const char *what) {
  return breach(r, "operand %d is %s where %s is wanted", i, type_text(r->x[i]).text, what);
}

/* ---- what an operand must be ---- */

static bool is_float(Type type, int rank, bool batched) {
  return type.element == ELEMENT_F32 && type.rank == rank && type.batched == batched;
}

static bool any_float(const Rule *r, int32_t i) {
  return r->x[i].element == ELEMENT_F32 || wanted(r, i, "a tensor of f32");
}

static bool parameter_like(const Rule *r, int32_t i) {
  return (r->x[i].element == ELEMENT_F32 && !r->x[i].batched) || wanted(r, i, "a tensor of f32 without B");
}

static bool image(const Rule *r, int32_t i) {
  return is_float(r->x[i], 3, true) || wanted(r, i, "f32[B, C, H, W]");
}

static bool scalar(const Rule *r, int32_t i) {
  return is_float(r->x[i], 0, false) || wanted(r, i, "f32[]");
}

static bool vector(const Rule *r, int32_t i) {
  return is_float(r->x[i], 1, false) || wanted(r, i, "a vector f32[K]");
}

static bool features(const Rule *r, int32_t i) {
  return is_float(r->x[i], 1, true) || wanted(r, i, "f32[B, M]");
}

static bool one_per_image(const Rule *r, int32_t i) {
  return is_float(r->x[i], 0, true) || wanted(r, i, "f32[B]");
}

static bool labels(const Rule *r, int32_t i) {
  Type type = r->x[i];
  return (type.element == ELEMENT_I32 && type.batched && type.rank == 0) || wanted(r, i, "i32[B]");
}

static bool exactly(const Rule *r, int32_t i, Type type) {
  return type_equal(r->x[i], type) || wanted(r, i, type_text(type).text);
}

static Type tensor(bool batched, int rank, int32_t a, int32_t b) {
  return type_tensor(rank, (int32_t[MAX_RANK]){a, b}, batched);
}

static Type image_type(int32_t channels, int32_t side_y, int32_t side_x) {
  return type_tensor(3, (int32_t[MAX_RANK]){channels, side_y, side_x}, true);
}

static bool same(const Rule *r, int32_t first, int32_t count) {
  for (int32_t i = first + 1; i < first + count; i++)
    if (!exactly(r, i, r->x[first])) return false;
  return true;
}

/* (2, C), for an image of C channels as operand 0 */
static bool pair_per_channel(const Rule *r, int32_t i) {
  return exactly(r, i, tensor(false, 2, 2, r->x[0].dims[0]));
}

static bool one_per_channel(const Rule *r, int32_t i) {
  return exactly(r, i, tensor(false, 1, r->x[0].dims[0], 0));
}

static bool give(const Rule *r, Type type) {
  *r->result = type;
  return true;
}

/* ---- windows ---- */

/* A rule of dsl/shapes.c was broken: its message says which. */
static bool broken(const Rule *r) {
  return err_wrap(r->err, "%s", op_table[r->op].text);
}

/* The sides of an image of `channels` channels that a window makes from sides y, x. */
static bool window_image(const Rule *r, int32_t channels, int64_t y, int64_t x, Type *type) {
  const Window *w = &r->attributes->window;
  int64_t out_y, out_x;
  if (!shape_window_side(y, w->kernel_y, w->stride_y, w->dilation, w->pad_y, &out_y, r->err) ||
      !shape_window_side(x, w->kernel_x, w->stride_x, w->dilation, w->pad_x, &out_x, r->err))
    return broken(r);
  *type = image_type(channels, (int32_t)out_y, (int32_t)out_x);
  return true;
}

/* A convolution from an image of `in` channels to one of `out`: the type of its weights. */
static bool conv_weights(const Rule *r, int32_t out, int32_t in, Type *type) {
  const Window *w = &r->attributes->window;
  if (!shape_convolution_weight(in, out, w->groups, w->kernel_y, w->kernel_x, r->err)) return broken(r);
  *type = type_tensor(4, (int32_t[]){out, in / w->groups, w->kernel_y, w->kernel_x}, false);
  return true;
}

static bool weights(const Rule *r, int32_t i) {
  return is_float(r->x[i], 4, false) || wanted(r, i, "weights f32[O, I/groups, ky, kx]");
}

static bool conv_rule(const Rule *r) {
  const Attributes *a = r->attributes;
  Type kernel = type_scalar(), image_out = kernel;
  switch (r->op) {
  case OP_CONV:
    return image(r, 0) && weights(r, 1) && conv_weights(r, r->x[1].dims[0], r->x[0].dims[0], &kernel) && exactly(r, 1, kernel) &&
           window_image(r, r->x[1].dims[0], r->x[0].dims[1], r->x[0].dims[2], r->result);
  case OP_CONV_GRAD_INPUT: {
    if (!image(r, 0) || !weights(r, 1)) return false;
    int64_t in = (int64_t)r->x[1].dims[1] * a->window.groups;
    if (in < 1 || in > INT32_MAX) return breach(r, "%d groups of %d channels", a->window.groups, r->x[1].dims[1]);
    return conv_weights(r, r->x[0].dims[0], (int32_t)in, &kernel) && exactly(r, 1, kernel) &&
           window_image(r, r->x[0].dims[0], a->side_y, a->side_x, &image_out) && exactly(r, 0, image_out) &&
           give(r, image_type((int32_t)in, a->side_y, a->side_x));
  }
  default:
    return image(r, 0) && image(r, 1) && conv_weights(r, r->x[0].dims[0], r->x[1].dims[0], &kernel) &&
           window_image(r, r->x[0].dims[0], r->x[1].dims[1], r->x[1].dims[2], &image_out) && exactly(r, 0, image_out) &&
           give(r, kernel);
  }
}

static bool pool_rule(const Rule *r) {
  const Attributes *a = r->attributes;
  const Window *w = &a->window;
  Type small = type_scalar();
  if (w->groups != 1 || w->dilation != 1) return breach(r, "groups and dilation of a pool must be 1");
  if (!shape_pool_pad(w->kernel_y, w->pad_y, r->err) || !shape_pool_pad(w->kernel_x, w->pad_x, r->err)) return broken(r);
  switch (r->op) {
  case OP_MAX_POOL_GRAD:
    return image(r, 0) && image(r, 1) && window_image(r, r->x[1].dims[0], r->x[1].dims[1], r->x[1].dims[2], &small) &&
           exactly(r, 0, small) && give(r, r->x[1]);
  case OP_AVG_POOL_GRAD:
    return image(r, 0) && window_image(r, r->x[0].dims[0], a->side_y, a->side_x, &small) && exactly(r, 0, small) &&
           give(r, image_type(r->x[0].dims[0], a->side_y, a->side_x));
  default: return image(r, 0) && window_image(r, r->x[0].dims[0], r->x[0].dims[1], r->x[0].dims[2], r->result);
  }
}

/* ---- the generator's and the head's small products ---- */

/* N of a layer's input (), (N,) or (B, N). */
static bool linear_input(const Rule *r, int32_t i, int32_t *n) {
  Type type = r->x[i];
  if (type.element != ELEMENT_F32 || type.rank > 1 || (type.batched && type.rank == 0))
    return wanted(r, i, "f32[], f32[N] or f32[B, N]");
  *n = type.rank ? type.dims[0] : 1;
  return true;
}

static bool linear_rule(const Rule *r) {
  int32_t n = 0, m;
  switch (r->op) {
  case OP_LINEAR:
    if (!linear_input(r, 0, &n)) return false;
    if (!is_float(r->x[1], 2, false) || r->x[1].dims[1] != n) return wanted(r, 1, "f32[M, N] with the N of operand 0");
    m = r->x[1].dims[0];
    return exactly(r, 2, tensor(false, 1, m, 0)) && give(r, tensor(r->x[0].batched, 1, m, 0));
  case OP_LINEAR_GRAD_INPUT:
    if (!is_float(r->x[0], 1, r->x[0].batched)) return wanted(r, 0, "f32[M] or f32[B, M]");
    if (!is_float(r->x[1], 2, false) || r->x[1].dims[0] != r->x[0].dims[0])
      return wanted(r, 1, "f32[M, N] with the M of operand 0");
    return give(r, tensor(r->x[0].batched, 1, r->x[1].dims[1], 0));
  default:
    if (!is_float(r->x[0], 1, r->x[0].batched)) return wanted(r, 0, "f32[M] or f32[B, M]");
    if (!linear_input(r, 1, &n)) return false;
    if (r->x[0].batched != r->x[1].batched) return wanted(r, 1, "a tensor with a B where operand 0 has one");
    return give(r, tensor(false, 2, r->x[0].dims[0], n));
  }
}

static bool stack_rule(const Rule *r) {
  for (int32_t i = 0; i < r->count; i++)
    if (!scalar(r, i)) return false;
  return give(r, tensor(false, 1, r->count, 0));
}

static bool reshape_rule(const Rule *r) {
  Type shape = r->attributes->shape;
  if (!parameter_like(r, 0)) return false;
  if (!type_valid(shape) || shape.element != ELEMENT_F32 || shape.batched || type_elements(shape, 1) != type_elements(r->x[0], 1))
    return breach(r, "%s does not have the elements of %s", type_text(r->x[0]).text, type_text(shape).text);
  return give(r, shape);
}

/* ---- placement ---- */

static bool concat_rule(const Rule *r) {
  int64_t channels = 0;
  for (int32_t i = 0; i < r->count; i++) {
    if (!image(r, i)) return false;
    if (r->x[i].dims[1] != r->x[0].dims[1] || r->x[i].dims[2] != r->x[0].dims[2])
      return wanted(r, i, "an image with the sides of operand 0");
    channels += r->x[i].dims[0];
  }
  if (channels > INT32_MAX) return breach(r, "%lld channels are too many", (long long)channels);
  return give(r, image_type((int32_t)channels, r->x[0].dims[1], r->x[0].dims[2]));
}

static bool slice_rule(const Rule *r) {
  const Attributes *a = r->attributes;
  if (!image(r, 0)) return false;
  int32_t channels = r->x[0].dims[0];
  if (a->begin < 0 || a->count < 1 || a->begin >= channels || a->count > channels - a->begin)
    return breach(r, "channels %d .. %lld of %s", a->begin, (long long)a->begin + a->count, type_text(r->x[0]).text);
  return give(r, image_type(a->count, r->x[0].dims[1], r->x[0].dims[2]));
}

static bool shift_rule(const Rule *r) {
  const Attributes *a = r->attributes;
  if (!image(r, 0)) return false;
  int64_t y = r->x[0].dims[1], x = r->x[0].dims[2], rows = y, columns = x;
  if (r->op == OP_UNSHIFT) { /* the rule is shift's, from the result back to the operand */
    y += a->shift_y, x += a->shift_x;
    if (y < rows || x < columns || y > SHAPE_MAX_SIDE || x > SHAPE_MAX_SIDE)
      return breach(r, "by %d rows, %d columns", a->shift_y, a->shift_x);
  }
  if (!shape_shift_side(y, a->shift_y, &rows, r->err) || !shape_shift_side(x, a->shift_x, &columns, r->err)) return broken(r);
  return give(r, r->op == OP_SHIFT ? image_type(r->x[0].dims[0], (int32_t)rows, (int32_t)columns)
                                   : image_type(r->x[0].dims[0], (int32_t)y, (int32_t)x));
}

static bool rule(const Rule *r) {
  const Attributes *a = r->attributes;
  Type none = type_scalar(), channels = r->count ? tensor(false, 1, r->x[0].dims[0], 0) : none;
  Type moments = tensor(false, 2, 2, channels.dims[0]), per_image = tensor(true, 0, 0, 0);
  switch (r->op) {
  case OP_INPUT:
  case OP_PARAM:
  case OP_CONST: return give(r, a->shape);

  case OP_GRADIENT: return scalar(r, 0) && any_float(r, 1) && give(r, r->x[1]);

  case OP_SOFTMAX: return vector(r, 0) && give(r, r->x[0]);
  case OP_SOFTMAX_GRAD: return vector(r, 0) && same(r, 0, 2) && give(r, r->x[0]);
  case OP_ELEMENT:
    if (!vector(r, 0)) return false;
    if (a->index < 0 || a->index >= r->x[0].dims[0]) return breach(r, "entry %d of %s", a->index, type_text(r->x[0]).text);
    return give(r, none);
  case OP_STACK: return stack_rule(r);
  case OP_LINEAR:
  case OP_LINEAR_GRAD_INPUT:
  case OP_LINEAR_GRAD_WEIGHT: return linear_rule(r);
  case OP_BATCH_SUM: return features(r, 0) && give(r, channels);
  case OP_RESHAPE: return reshape_rule(r);
  case OP_CROSS_ENTROPY:
  case OP_CORRECT: return features(r, 0) && labels(r, 1) && give(r, per_image);
  case OP_CROSS_ENTROPY_GRAD: return one_per_image(r, 0) && features(r, 1) && labels(r, 2) && give(r, r->x[1]);
  case OP_BATCH_MEAN: return one_per_image(r, 0) && give(r, none);
  case OP_BATCH_MEAN_GRAD: return scalar(r, 0) && give(r, per_image);

  case OP_RELU: return any_float(r, 0) && give(r, r->x[0]);
  case OP_RELU_GRAD:
  case OP_ADD:
  case OP_MUL: return any_float(r, 0) && same(r, 0, 2) && give(r, r->x[0]);
  case OP_SCALE: return any_float(r, 0) && scalar(r, 1) && give(r, r->x[0]);
  case OP_BN_APPLY: return image(r, 0) && pair_per_channel(r, 1) && give(r, r->x[0]);
  case OP_BN_GRAD: return image(r, 0) && same(r, 0, 2) && pair_per_channel(r, 2) && pair_per_channel(r, 3) && give(r, r->x[0]);
  case OP_AFFINE: return image(r, 0) && one_per_channel(r, 1) && one_per_channel(r, 2) && give(r, r->x[0]);
  case OP_CHANNEL_SCALE: return image(r, 0) && one_per_channel(r, 1) && give(r, r->x[0]);

  case OP_BN_MOMENTS: return image(r, 0) && give(r, moments);
  case OP_BN_GRAD_SUMS: return image(r, 0) && same(r, 0, 2) && pair_per_channel(r, 2) && give(r, moments);
  case OP_ROW_SUM:
    if (!is_float(r->x[0], 2, false)) return wanted(r, 0, "f32[K, N]");
    if (a->index < 0 || a->index >= r->x[0].dims[0]) return breach(r, "row %d of %s", a->index, type_text(r->x[0]).text);
    return give(r, none);
  case OP_CHANNEL_SUM: return image(r, 0) && give(r, channels);
  case OP_CHANNEL_DOT: return image(r, 0) && same(r, 0, 2) && give(r, channels);
  case OP_DOT: return any_float(r, 0) && same(r, 0, 2) && give(r, none);
  case OP_GLOBAL_AVG_POOL: return image(r, 0) && give(r, tensor(true, 1, r->x[0].dims[0], 0));
  case OP_GLOBAL_AVG_POOL_GRAD: return features(r, 0) && give(r, image_type(r->x[0].dims[0], a->side_y, a->side_x));

  case OP_CONV:
  case OP_CONV_GRAD_INPUT:
  case OP_CONV_GRAD_WEIGHT: return conv_rule(r);
  case OP_MAX_POOL:
  case OP_MAX_POOL_GRAD:
  case OP_AVG_POOL:
  case OP_AVG_POOL_GRAD: return pool_rule(r);

  case OP_CONCAT: return concat_rule(r);
  case OP_SLICE: return slice_rule(r);
  case OP_SHIFT:
  case OP_UNSHIFT: return shift_rule(r);

  case OP_SUM_SQUARES: return parameter_like(r, 0) && give(r, none);
  case OP_SQRT:
  case OP_CLIP: return scalar(r, 0) && give(r, none);
  case OP_MOMENTUM: return parameter_like(r, 0) && same(r, 0, 3) && scalar(r, 3) && give(r, r->x[0]);
  case OP_DESCEND: return parameter_like(r, 0) && same(r, 0, 2) && scalar(r, 2) && give(r, r->x[0]);
  case OP_ADAM_MEAN:
  case OP_ADAM_SQUARE: return parameter_like(r, 0) && same(r, 0, 3) && give(r, r->x[0]);
  case OP_ADAM_STEP: return parameter_like(r, 0) && same(r, 0, 2) && exactly(r, 2, tensor(false, 1, 3, 0)) && give(r, r->x[0]);
  case OP_COUNT: break;
  }
  die("operation %d has no shape rule", (int)r->op);
}

bool op_result_type(OpCode op, const Type *operands, int32_t count, const Attributes *attributes, Type *result, Err *err) {
  Rule r = {op, operands, count, attributes, result, err};
  int32_t arity = op_table[op].arity;
  if (arity == VARIADIC ? count < 1 : count != arity)
    return breach(&r, "%d operands where %s%d are wanted", count, arity == VARIADIC ? "at least " : "",
                  arity == VARIADIC ? 1 : arity);
  if (count > GRAPH_MAX_OPERANDS) return breach(&r, "%d operands, more than %d", count, GRAPH_MAX_OPERANDS);
  for (int32_t i = 0; i < count; i++)
    if (!type_valid(operands[i])) return breach(&r, "operand %d has no valid type", i);
  if (!rule(&r)) return false;
  if (op_table[op].class != CLASS_LEAF) result->layout = LAYOUT_PLAIN; /* graph_set_layouts knows better */
  return type_valid(*result) || breach(&r, "the result would be %s, which is empty or too large", type_text(*result).text);
}
