/* Chains of operations become Chains of primitives with numbers: channels, sides, strides, paddings. An operation is expanded
 * anew for each place where it stands, because C, S and the input's shape differ from place to place. */
#include "dsl/check.h"

#include "dsl/shapes.h"
#include "runtime/base/vector.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Names { /* how many stages of a name are there already */
  int dw, pw, conv, bn, linear;
} Names;

typedef struct Expansion {
  Checker *checker;
  const Place *place;
  Names names;
  int depth; /* branches within branches */
} Expansion;

typedef VECTOR(Stage) Stages;

bool shape_equal(Shape a, Shape b) {
  return a.channels == b.channels && a.height == b.height && a.width == b.width;
}

const char *shape_text(Arena *arena, Shape shape) {
  return arena_printf(arena, "%d x %d x %d", shape.channels, shape.height, shape.width);
}

static bool expand(Expansion *expansion, const Expr *expr, const Environment *environment, bool own, Shape *shape, Stages *out);

/* A broken rule of shapes: once for each place in the text, with where it came up first. */
static bool refuse(Expansion *expansion, Span where, const Environment *environment, Shape in, const char *message) {
  Checker *checker = expansion->checker;
  if (!check_first(checker, where)) return false;
  diag_error(checker->diagnostics, where, "%s", message);
  diag_note(checker->diagnostics, expansion->place->where,
            "in %s, with C = %d, S = %d and an input of %s (channels x height x width)", expansion->place->what,
            environment->channels, environment->stride, shape_text(checker->arena, in));
  return false;
}

/* Bounds the work of a whole load: operations that use each other twice grow as a power of two. */
static bool within_limits(Expansion *expansion, Span where) {
  Checker *checker = expansion->checker;
  if (++checker->work <= LIMIT_WORK && checker->stages <= LIMIT_STAGES) return true;
  if (!checker->exhausted) diag_error(checker->diagnostics, where, "the model has more than %d primitives", LIMIT_STAGES);
  checker->exhausted = true;
  return false;
}

/* Where the number before came out wrong, if that was just said: C and S are what the place makes them. */
static bool noted(Expansion *expansion, const Environment *environment, int errors_before) {
  if (expansion->checker->diagnostics->errors > errors_before)
    diag_note(expansion->checker->diagnostics, expansion->place->where, "in %s, with C = %d and S = %d", expansion->place->what,
              environment->channels, environment->stride);
  return false;
}

static bool whole(Expansion *expansion, const Argument *argument, const Environment *environment, int low, int high,
                  const char *what, int *value) {
  int before = expansion->checker->diagnostics->errors;
  return !argument || evaluate_whole(expansion->checker, argument->value, environment, low, high, what, value) ||
         noted(expansion, environment, before);
}

static bool pair(Expansion *expansion, const Argument *argument, const Environment *environment, int low, const char *what,
                 int value[2]) {
  int before = expansion->checker->diagnostics->errors;
  return !argument || evaluate_pair(expansion->checker, argument->value, environment, low, SHAPE_MAX_KERNEL, what, value) ||
         noted(expansion, environment, before);
}

static const char *numbered(Arena *arena, const char *prefix, int *count) {
  return arena_printf(arena, "%s%d", prefix, ++*count);
}

typedef struct WindowArguments {
  const Argument *kernel, *channels, *stride, *dilation, *pad, *groups;
} WindowArguments;

/* Fills in a convolution's or a pool's window and the result's shape. */
static bool window(Expansion *expansion, const Expr *call, const Environment *environment, const WindowArguments *given,
                   Stage *stage) {
  int kernel[2] = {1, 1}, stride[2] = {1, 1}, pad[2];
  int64_t same[2], side[2];
  Err err;
  stage->dilation = 1;
  if (!pair(expansion, given->kernel, environment, 1, "a kernel", kernel)) return false;
  if (!pair(expansion, given->stride, environment, 1, "a stride", stride)) return false;
  if (!whole(expansion, given->dilation, environment, 1, SHAPE_MAX_KERNEL, "a dilation", &stage->dilation)) return false;
  for (int i = 0; i < 2 && !given->pad; i++) {
    if (!shape_same_pad(kernel[i], stage->dilation, &same[i], &err))
      return refuse(expansion, call->where, environment, stage->in, err.text);
    pad[i] = (int)same[i];
  }
  if (!pair(expansion, given->pad, environment, 0, "a padding", pad)) return false;
  for (int i = 0; i < 2; i++) {
    int in = i ? stage->in.width : stage->in.height;
    bool pool = stage->kind == PRIMITIVE_MAX_POOL || stage->kind == PRIMITIVE_AVG_POOL;
    if ((pool && !shape_pool_pad(kernel[i], pad[i], &err)) ||
        !shape_window_side(in, kernel[i], stride[i], stage->dilation, pad[i], &side[i], &err))
      return refuse(expansion, call->where, environment, stage->in, err.text);
  }
  stage->kernel_y = kernel[0], stage->kernel_x = kernel[1];
  stage->stride_y = stride[0], stage->stride_x = stride[1];
  stage->pad_y = pad[0], stage->pad_x = pad[1];
  stage->out.height = (int)side[0], stage->out.width = (int)side[1];
  return true;
}

static bool convolution(Expansion *expansion, const Expr *call, PrimitiveWord word, const Environment *environment, bool own,
                        const WindowArguments *given, Stage *stage) {
  Err err;
  stage->kind = PRIMITIVE_CONV;
  stage->groups = word == WORD_DEPTHWISE ? stage->in.channels : 1;
  if (!window(expansion, call, environment, given, stage)) return false;
  if (!whole(expansion, given->channels, environment, 1, LIMIT_CHANNELS, "channels", &stage->out.channels)) return false;
  if (!whole(expansion, given->groups, environment, 1, LIMIT_CHANNELS, "groups", &stage->groups)) return false;
  if (!shape_convolution_weight(stage->in.channels, stage->out.channels, stage->groups, stage->kernel_y, stage->kernel_x, &err))
    return refuse(expansion, call->where, environment, stage->in, err.text);
  Arena *arena = expansion->checker->arena;
  bool pointwise = stage->kernel_y == 1 && stage->kernel_x == 1;
  if (word == WORD_DEPTHWISE || stage->groups > 1)
    stage->name = numbered(arena, "dw", &expansion->names.dw);
  else if (pointwise)
    stage->name = numbered(arena, "pw", &expansion->names.pw);
  else
    stage->name = numbered(arena, "conv", &expansion->names.conv);
  int64_t weights = (int64_t)stage->out.channels * (stage->in.channels / stage->groups) * stage->kernel_y * stage->kernel_x;
  stage->generated = expansion->place->hidden && !own;
  if (!stage->generated || weights * expansion->place->hidden <= INT32_MAX) return true;
  return refuse(
      expansion, call->where, environment, stage->in,
      arena_printf(arena, "the generator of these %lld weights would itself have more than 2^31 - 1", (long long)weights));
}

static bool shift(Expansion *expansion, const Expr *call, const Argument *const bound[], const Environment *environment,
                  Stage *stage) {
  int64_t side;
  Err err;
  if (!whole(expansion, bound[0], environment, 0, SHAPE_MAX_KERNEL, "a shift", &stage->shift_y)) return false;
  if (!whole(expansion, bound[1], environment, 0, SHAPE_MAX_KERNEL, "a shift", &stage->shift_x)) return false;
  if (!shape_shift_side(stage->in.height, stage->shift_y, &side, &err))
    return refuse(expansion, call->where, environment, stage->in, err.text);
  stage->out.height = (int)side;
  if (!shape_shift_side(stage->in.width, stage->shift_x, &side, &err))
    return refuse(expansion, call->where, environment, stage->in, err.text);
  stage->out.width = (int)side;
  return true;
}

static Chain finish_chain(Arena *arena, Stages *stages, Shape in, Shape out) {
  Stage *copy = ARENA_ARRAY(arena, Stage, stages->count);
  if (stages->count) memcpy(copy, stages->data, stages->count * sizeof *copy);
  Chain chain = {copy, (int)stages->count, in, out};
  vector_free(stages);
  return chain;
}

static bool expand_branch(Expansion *expansion, const Expr *expr, const Environment *environment, bool own, Shape in,
                          Chain *out) {
  Stages stages = {0};
  Shape shape = in;
  bool sound = expand(expansion, expr, environment, own, &shape, &stages);
  *out = finish_chain(expansion->checker->arena, &stages, in, shape);
  return sound;
}

/* concat: equal sides, channels add up; add: equal shapes. */
static bool branches(Expansion *expansion, const Expr *call, const Environment *environment, bool own, Stage *stage) {
  Arena *arena = expansion->checker->arena;
  bool concat = stage->kind == PRIMITIVE_CONCAT;
  int count = 0;
  if (expansion->depth == LIMIT_BRANCHES)
    return refuse(expansion, call->where, environment, stage->in,
                  arena_printf(arena, "branches are nested more than %d deep", LIMIT_BRANCHES));
  for (const Argument *argument = call->arguments; argument; argument = argument->next) count++;
  const Chain **chains = ARENA_ARRAY(arena, const Chain *, count);
  int64_t channels = 0;
  for (const Argument *argument = call->arguments; argument; argument = argument->next) {
    Chain *chain = ARENA_NEW(arena, Chain);
    expansion->depth++;
    bool sound = expand_branch(expansion, argument->value, environment, own, stage->in, chain);
    expansion->depth--;
    if (!sound) return false;
    Shape first = stage->branch_count ? chains[0]->out : chain->out;
    chains[stage->branch_count++] = chain;
    channels += chain->out.channels;
    bool fits = concat ? first.height == chain->out.height && first.width == chain->out.width : shape_equal(first, chain->out);
    if (!fits)
      return refuse(expansion, argument->value->where, environment, stage->in,
                    arena_printf(arena, "the branches of `%s` differ in %s: the first gives %s, and this one %s", call->name.text,
                                 concat ? "their sides" : "shape", shape_text(arena, first), shape_text(arena, chain->out)));
  }
  stage->branches = chains;
  stage->out = chains[0]->out;
  if (!concat) return true;
  if (channels > LIMIT_CHANNELS)
    return refuse(expansion, call->where, environment, stage->in,
                  arena_printf(arena, "the result has more than %d channels", LIMIT_CHANNELS));
  stage->out.channels = (int)channels;
  return true;
}

static bool zero(Expansion *expansion, const Expr *call, const Environment *environment, Stage *stage) {
  int64_t side[2];
  int stride = environment->stride ? environment->stride : 1;
  Err err;
  for (int i = 0; i < 2; i++)
    if (!shape_window_side(i ? stage->in.width : stage->in.height, 1, stride, 1, 0, &side[i], &err))
      return refuse(expansion, call->where, environment, stage->in, err.text);
  stage->out.height = (int)side[0], stage->out.width = (int)side[1];
  return true;
}

static bool linear(Expansion *expansion, const Expr *call, const Argument *features, const Environment *environment,
                   Stage *stage) {
  if (stage->in.height != 1 || stage->in.width != 1)
    return refuse(expansion, call->where, environment, stage->in,
                  "`linear` takes features, not an image; put `global_avg_pool` before it");
  Err err;
  if (!whole(expansion, features, environment, 1, LIMIT_CHANNELS, "features", &stage->out.channels)) return false;
  if (!shape_convolution_weight(stage->in.channels, stage->out.channels, 1, 1, 1, &err))
    return refuse(expansion, call->where, environment, stage->in, err.text);
  stage->name = numbered(expansion->checker->arena, "linear", &expansion->names.linear);
  return true;
}

static bool expand_primitive(Expansion *expansion, const Expr *call, PrimitiveWord word, const Environment *environment, bool own,
                             Shape *shape, Stages *out) {
  Checker *checker = expansion->checker;
  const Argument *bound[MOST_ARGUMENTS] = {0};
  Signature signature = primitive_signature(word);
  if (!signature.variadic && !bind_arguments(checker, call, &signature, bound)) return false;
  Stage stage = {.name = "", .in = *shape, .out = *shape, .where = call->where};
  WindowArguments given = {0};
  bool sound = true;
  switch (word) {
  case WORD_IDENTITY: return true;
  case WORD_ZERO: stage.kind = PRIMITIVE_ZERO, sound = zero(expansion, call, environment, &stage); break;
  case WORD_RELU: stage.kind = PRIMITIVE_RELU; break;
  case WORD_CONV:
    given = (WindowArguments){bound[0], bound[1], bound[2], bound[3], bound[4], bound[5]};
    sound = convolution(expansion, call, word, environment, own, &given, &stage);
    break;
  case WORD_DEPTHWISE:
    given = (WindowArguments){.kernel = bound[0], .stride = bound[1], .dilation = bound[2], .pad = bound[3]};
    sound = convolution(expansion, call, word, environment, own, &given, &stage);
    break;
  case WORD_POINTWISE:
    given = (WindowArguments){.channels = bound[0], .stride = bound[1], .groups = bound[2]};
    sound = convolution(expansion, call, word, environment, own, &given, &stage);
    break;
  case WORD_BN:
    stage.kind = PRIMITIVE_BN;
    stage.affine = bound[0] != NULL;
    stage.name = numbered(checker->arena, "bn", &expansion->names.bn);
    break;
  case WORD_MAX_POOL:
  case WORD_AVG_POOL:
    stage.kind = word == WORD_MAX_POOL ? PRIMITIVE_MAX_POOL : PRIMITIVE_AVG_POOL;
    stage.groups = 1;
    given = (WindowArguments){.kernel = bound[0], .stride = bound[1], .pad = bound[2]};
    sound = window(expansion, call, environment, &given, &stage);
    break;
  case WORD_SHIFT: stage.kind = PRIMITIVE_SHIFT, sound = shift(expansion, call, bound, environment, &stage); break;
  case WORD_CONCAT: stage.kind = PRIMITIVE_CONCAT, sound = branches(expansion, call, environment, own, &stage); break;
  case WORD_ADD: stage.kind = PRIMITIVE_ADD, sound = branches(expansion, call, environment, own, &stage); break;
  case WORD_GLOBAL_AVG_POOL:
    stage.kind = PRIMITIVE_GLOBAL_AVG_POOL;
    stage.out.height = stage.out.width = 1;
    break;
  case WORD_LINEAR: stage.kind = PRIMITIVE_LINEAR, sound = linear(expansion, call, bound[0], environment, &stage); break;
  case WORD_COUNT: break;
  }
  if (!sound) return false;
  if ((int64_t)stage.out.channels * stage.out.height * stage.out.width > LIMIT_IMAGE)
    return refuse(expansion, call->where, environment, stage.in,
                  arena_printf(checker->arena, "the result has more than %d numbers an image", LIMIT_IMAGE));
  checker->stages++;
  vector_push(out, stage);
  *shape = stage.out;
  return true;
}

static bool holds(Expansion *expansion, const Comparison *when, const Environment *environment, bool *value) {
  *value = true;
  for (; when; when = when->next) {
    double left, right;
    if (!evaluate(expansion->checker, when->left, environment, &left)) return false;
    if (!evaluate(expansion->checker, when->right, environment, &right)) return false;
    bool one = when->operator== '='   ? left == right
               : when->operator== '!' ? left != right
               : when->operator== '<' ? left < right
               : when->operator== '>' ? left > right
               : when->operator== 'l' ? left <= right
                                      : left >= right;
    *value &= one;
  }
  return true;
}

static bool expand_op(Expansion *expansion, const Expr *call, const Declaration *op, const Environment *environment, bool own,
                      Shape *shape, Stages *out) {
  if (op->broken) return false;
  Signature signature = {.name = op->name.text};
  for (const Parameter *parameter = op->parameters; parameter; parameter = parameter->next)
    signature.arguments[signature.count++] = parameter->name.text;
  signature.required = signature.count;
  const Argument *bound[MOST_ARGUMENTS];
  if (!bind_arguments(expansion->checker, call, &signature, bound)) return false;
  double values[MOST_ARGUMENTS];
  for (int i = 0; i < signature.count; i++)
    if (!evaluate(expansion->checker, bound[i]->value, environment, &values[i])) return false;
  Environment inside = {environment->channels, environment->stride, environment->classes, op->parameters, values};
  for (const Case *one = op->cases; one; one = one->next) {
    bool taken;
    if (!holds(expansion, one->when, &inside, &taken)) return false;
    if (taken) return expand(expansion, one->chain, &inside, own || op->own, shape, out);
  }
  return false;
}

static bool expand(Expansion *expansion, const Expr *expr, const Environment *environment, bool own, Shape *shape, Stages *out) {
  if (!within_limits(expansion, expr->where)) return false;
  if (expr->kind == EXPR_CHAIN) {
    for (const Expr *item = expr->items; item; item = item->next)
      if (!expand(expansion, item, environment, own, shape, out)) return false;
    return true;
  }
  if (expr->kind != EXPR_NAME && expr->kind != EXPR_CALL) return false;
  PrimitiveWord word;
  if (primitive_find(expr->name.text, &word)) return expand_primitive(expansion, expr, word, environment, own, shape, out);
  const Declaration *op = scope_find(expansion->checker->scope, DECLARE_OP, expr->name.text);
  return op && expand_op(expansion, expr, op, environment, own, shape, out);
}

bool instantiate(Checker *checker, const Expr *chain, const Environment *environment, const Place *place, Shape in, Chain *out) {
  Expansion expansion = {.checker = checker, .place = place};
  return expand_branch(&expansion, chain, environment, false, in, out);
}
