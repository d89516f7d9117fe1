/* Vectors over the batch or over many elements on a GPU: a lane an image or an element, one task. What is a handful of numbers
 * alone is in kernels/vector.c, for both targets. */
#include "kernels/gpu/threads.h"
#include "kernels/vector_words.h"

enum { IMAGES_A_TASK = 256, VECTOR_THREADS = 256, PRODUCT_THREADS = 1024, PRODUCT_RUN = 8 /* vectors added in f32 */ };

static LoopValue gather_f64(LoopKernel *k, int32_t array, LoopValue at) {
  LoopValue all = gpu_true(k);
  LoopValue value = loop_gather(k, array, at, all, 0);
  return loop_op1(k, LOOP_TO_F64, value);
}

static void scatter_f32(LoopKernel *k, int32_t array, LoopValue at, LoopValue wide) {
  LoopValue all = gpu_true(k);
  LoopValue narrow = loop_op1(k, LOOP_TO_F32, wide);
  loop_scatter(k, array, at, narrow, all);
}

/* Begins the loop over the batch, an image a lane; end it with gpu_each_end. */
static LoopValue each_image(LoopKernel *k) {
  LoopValue zero = loop_int(k, 0), batch = loop_batch(k);
  return gpu_each_begin(k, zero, batch, 1);
}

/* ---- losses ---- */

typedef struct Loss {
  int32_t logits, rows, largest, total; /* tiles: of a lane's image, in f64 */
  LoopValue image, base, label;
} Loss;

static void loss_tiles(LoopKernel *k, Loss *loss) {
  loss->largest = loop_tile(k, "largest", LOOP_F64, true, 1);
  loss->total = loop_tile(k, "total", LOOP_F64, true, 1);
}

static void loss_image(LoopKernel *k, Loss *loss, int32_t labels) {
  LoopValue all = gpu_true(k);
  loss->image = each_image(k);
  loss->base = AT(k, 0, {loss->image, loss->rows});
  loss->label = loop_gather(k, labels, loss->image, all, 0);
}

/* logit - largest */
static LoopValue loss_difference(LoopKernel *k, const Loss *loss, LoopValue at) {
  LoopValue logit = gather_f64(k, loss->logits, at);
  LoopValue top = vector_result(k, loss->largest);
  return loop_op2(k, LOOP_SUB, logit, top);
}

/* The image's largest logit, and the sum of exp(logit - largest). */
static void loss_sums(LoopKernel *k, const Loss *loss) {
  vector_start(k, loss->largest, -1e300);
  vector_start(k, loss->total, 0);
  LoopValue i = build_for(k, 0, loss->rows, 1);
  LoopValue at = AT(k, 0, {loss->base, 1}, {i, 1});
  LoopValue logit = gather_f64(k, loss->logits, at);
  vector_accumulate(k, loss->largest, LOOP_MAX, logit);
  loop_end(k);
  LoopValue j = build_for(k, 0, loss->rows, 1);
  LoopValue from = AT(k, 0, {loss->base, 1}, {j, 1});
  LoopValue difference = loss_difference(k, loss, from);
  LoopValue power = loop_op1(k, LOOP_EXP, difference);
  vector_accumulate(k, loss->total, LOOP_ADD, power);
  loop_end(k);
}

LoopKernel *gpu_cross_entropy(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "cross_entropy", gpu_lanes(&s->target, IMAGES_A_TASK, IMAGES_A_TASK));
  Loss loss = {.logits = vector_in(k, "logits"), .rows = s->rows};
  int32_t labels = loop_buffer(k, "labels", LOOP_IN, LOOP_ELEMENT_I32), y = vector_out(k, "y");
  loss_tiles(k, &loss);
  loss_image(k, &loss, labels);
  loss_sums(k, &loss);
  LoopValue at = AT(k, 0, {loss.base, 1}, {loss.label, 1});
  LoopValue own = loss_difference(k, &loss, at);
  LoopValue sum = vector_result(k, loss.total);
  LoopValue logarithm = loop_op1(k, LOOP_LOG, sum);
  LoopValue value = loop_op2(k, LOOP_SUB, logarithm, own);
  scatter_f32(k, y, loss.image, value);
  gpu_each_end(k);
  return k;
}

LoopKernel *gpu_cross_entropy_grad(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "cross_entropy_grad", gpu_lanes(&s->target, IMAGES_A_TASK, IMAGES_A_TASK));
  int32_t dl = vector_in(k, "dl");
  Loss loss = {.logits = vector_in(k, "logits"), .rows = s->rows};
  int32_t labels = loop_buffer(k, "labels", LOOP_IN, LOOP_ELEMENT_I32), y = vector_out(k, "y");
  loss_tiles(k, &loss);
  loss_image(k, &loss, labels);
  loss_sums(k, &loss);
  LoopValue weight = gather_f64(k, dl, loss.image);
  LoopValue zero = loop_f64(k, 0), one = loop_f64(k, 1);
  LoopValue i = build_for(k, 0, s->rows, 1);
  LoopValue at = AT(k, 0, {loss.base, 1}, {i, 1});
  LoopValue difference = loss_difference(k, &loss, at);
  LoopValue power = loop_op1(k, LOOP_EXP, difference);
  LoopValue sum = vector_result(k, loss.total);
  LoopValue p = loop_op2(k, LOOP_DIV, power, sum);
  LoopValue is_label = loop_op2(k, LOOP_IEQ, i, loss.label);
  LoopValue target = loop_op3(k, LOOP_SELECT, is_label, one, zero);
  LoopValue above = loop_op2(k, LOOP_SUB, p, target);
  LoopValue gradient = loop_op2(k, LOOP_MUL, weight, above);
  scatter_f32(k, y, at, gradient);
  loop_end(k);
  gpu_each_end(k);
  return k;
}

LoopKernel *gpu_correct(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "correct", gpu_lanes(&s->target, IMAGES_A_TASK, IMAGES_A_TASK));
  Loss loss = {.logits = vector_in(k, "logits"), .rows = s->rows};
  int32_t labels = loop_buffer(k, "labels", LOOP_IN, LOOP_ELEMENT_I32), y = vector_out(k, "y");
  int32_t good = loop_tile(k, "good", LOOP_F64, true, 1);
  loss_image(k, &loss, labels);
  LoopValue own_at = AT(k, 0, {loss.base, 1}, {loss.label, 1});
  LoopValue own = gather_f64(k, loss.logits, own_at);
  LoopValue zero = loop_f64(k, 0), one = loop_f64(k, 1);
  vector_start(k, good, 1);
  LoopValue i = build_for(k, 0, s->rows, 1);
  LoopValue at = AT(k, 0, {loss.base, 1}, {i, 1});
  LoopValue other = gather_f64(k, loss.logits, at);
  LoopValue larger = loop_op2(k, LOOP_GT, other, own);
  LoopValue equal = loop_op2(k, LOOP_EQ, other, own);
  LoopValue before = loop_op2(k, LOOP_ILT, i, loss.label);
  LoopValue tie = loop_op2(k, LOOP_AND, equal, before);
  LoopValue beaten = loop_op2(k, LOOP_OR, larger, tie);
  LoopValue factor = loop_op3(k, LOOP_SELECT, beaten, zero, one);
  vector_accumulate(k, good, LOOP_MUL, factor);
  loop_end(k);
  LoopValue outcome = vector_result(k, good);
  scatter_f32(k, y, loss.image, outcome);
  gpu_each_end(k);
  return k;
}

/* ---- over the batch ---- */

LoopKernel *gpu_batch_sum(const VectorSpec *s, Arena *arena) {
  int32_t width = gpu_width_f32(s->rows);
  GpuSpread spread = gpu_spread(&s->target, s->rows, width, IMAGES_A_TASK, VECTOR_THREADS);
  LoopKernel *k = loop_new(arena, "batch_sum", spread.lanes);
  int32_t x = vector_in(k, "x"), y = vector_out(k, "y");
  GpuSums sums = gpu_sums(k, &spread, 1);
  int32_t value = loop_tile(k, "value", LOOP_F32, true, width);
  LoopValue all = gpu_true(k);
  GpuRange range = gpu_batch_range(k);
  GpuThread thread = gpu_spread_begin(k, &spread);
  LoopValue image = gpu_walk_begin(k, &spread, &thread, &range, &sums);
  LoopValue from = AT(k, 0, {image, s->rows}, {thread.channel, 1});
  gpu_read(k, value, 0, x, from, width, all);
  for (int e = 0; e < width; e++) {
    LoopValue at = loop_int(k, e);
    LoopValue own = loop_get(k, value, at);
    gpu_sums_add(k, &sums, e, own);
  }
  gpu_walk_end(k, &spread, &range, &sums);
  gpu_sums_join(k, &spread, &thread, &sums);
  LoopValue leads = gpu_leads(k, &spread, &thread);
  gpu_sums_narrow(k, &sums, 0, value, width);
  gpu_write(k, y, thread.channel, value, 0, width, leads);
  gpu_spread_end(k, &spread);
  return k;
}

LoopKernel *gpu_batch_mean(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "batch_mean", gpu_lanes(&s->target, IMAGES_A_TASK, IMAGES_A_TASK));
  int32_t x = vector_in(k, "x"), y = vector_out(k, "y");
  int32_t total = loop_tile(k, "total", LOOP_F64, true, 1);
  vector_start(k, total, 0);
  LoopValue image = each_image(k);
  LoopValue value = gather_f64(k, x, image);
  vector_accumulate(k, total, LOOP_ADD, value);
  gpu_each_end(k);
  LoopValue own = vector_result(k, total);
  LoopValue sum = loop_op1(k, LOOP_LANE_SUM, own);
  LoopValue batch = loop_batch(k);
  LoopValue number = loop_op1(k, LOOP_TO_F64, batch);
  LoopValue mean = loop_op2(k, LOOP_DIV, sum, number);
  LoopValue first = loop_int(k, 0);
  vector_store(k, y, first, mean);
  return k;
}

LoopKernel *gpu_batch_mean_grad(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "batch_mean_grad", gpu_lanes(&s->target, IMAGES_A_TASK, IMAGES_A_TASK));
  int32_t d = vector_in(k, "d"), y = vector_out(k, "y");
  LoopValue first = loop_int(k, 0);
  LoopValue loaded = loop_load(k, d, first);
  LoopValue whole = loop_op1(k, LOOP_TO_F64, loaded);
  LoopValue batch = loop_batch(k);
  LoopValue number = loop_op1(k, LOOP_TO_F64, batch);
  LoopValue share = loop_op2(k, LOOP_DIV, whole, number);
  LoopValue image = each_image(k);
  scatter_f32(k, y, image, share);
  gpu_each_end(k);
  return k;
}

/* ---- sums of products: a and b together, or a with itself ---- */

typedef struct ProductSums {
  int32_t a, b, width;      /* buffers; b -1: a again */
  int32_t left, right;      /* tiles: vectors that were read */
  int32_t acc, total, rows; /* tiles: f32 sums of a run, f64 sum */
} ProductSums;

/* acc += a * b, for PRODUCT_RUN vectors of a lane from `base` on whose loads are in flight together. */
static void products_run(LoopKernel *k, const ProductSums *p, LoopValue base) {
  LoopValue lane = loop_lane(k);
  for (int u = 0; u < PRODUCT_RUN; u++) {
    LoopValue from = AT(k, (int64_t)u * k->lanes * p->width, {base, 1}, {lane, p->width});
    LoopValue exists = gpu_below(k, from, p->rows);
    gpu_read(k, p->left, u * p->width, p->a, from, p->width, exists);
    if (p->b >= 0) gpu_read(k, p->right, u * p->width, p->b, from, p->width, exists);
  }
  for (int u = 0; u < PRODUCT_RUN * p->width; u++) {
    LoopValue at = loop_int(k, u), to = loop_int(k, u % p->width);
    LoopValue a = loop_get(k, p->left, at);
    LoopValue b = p->b >= 0 ? loop_get(k, p->right, at) : a;
    LoopValue old = loop_get(k, p->acc, to);
    LoopValue sum = loop_op3(k, LOOP_FMA, a, b, old);
    loop_set(k, p->acc, to, sum);
  }
}

static LoopKernel *sum_products(const VectorSpec *s, const char *name, bool two, Arena *arena) {
  int32_t width = gpu_width_f32(s->rows);
  LoopKernel *k = loop_new(arena, name, gpu_lanes(&s->target, s->rows / width, PRODUCT_THREADS));
  ProductSums p = {.a = vector_in(k, two ? "a" : "x"), .b = -1, .width = width, .rows = s->rows};
  if (two) p.b = vector_in(k, "b");
  int32_t y = vector_out(k, "y");
  p.left = loop_tile(k, "left", LOOP_F32, true, PRODUCT_RUN * width);
  p.right = two ? loop_tile(k, "right", LOOP_F32, true, PRODUCT_RUN * width) : -1;
  p.acc = loop_tile(k, "acc", LOOP_F32, true, width);
  p.total = loop_tile(k, "total", LOOP_F64, true, 1);
  vector_start(k, p.total, 0);
  LoopValue base = build_for(k, 0, s->rows, (int64_t)k->lanes * width * PRODUCT_RUN);
  gpu_fill(k, p.acc, 0, width, 0);
  products_run(k, &p, base);
  for (int e = 0; e < width; e++) {
    LoopValue at = loop_int(k, e);
    LoopValue few = loop_get(k, p.acc, at);
    LoopValue wide = loop_op1(k, LOOP_TO_F64, few);
    vector_accumulate(k, p.total, LOOP_ADD, wide);
  }
  loop_end(k);
  LoopValue own = vector_result(k, p.total);
  LoopValue sum = loop_op1(k, LOOP_LANE_SUM, own);
  LoopValue first = loop_int(k, 0);
  vector_store(k, y, first, sum);
  return k;
}

LoopKernel *gpu_sum_squares(const VectorSpec *s, Arena *arena) {
  return sum_products(s, "sum_squares", false, arena);
}

LoopKernel *gpu_dot(const VectorSpec *s, Arena *arena) {
  return sum_products(s, "dot", true, arena);
}

/* ---- over elements ---- */

LoopKernel *gpu_constant(const VectorSpec *s, Arena *arena) {
  int32_t width = gpu_width_f32(s->rows);
  LoopKernel *k =
      loop_new(arena, "fill", gpu_lanes(&s->target, s->rows / width * (s->batched ? IMAGES_A_TASK : 1), VECTOR_THREADS));
  int32_t y = vector_out(k, "y"), value = loop_tile(k, "value", LOOP_F32, true, width);
  gpu_fill(k, value, 0, width, s->value);
  LoopValue batch = s->batched ? loop_batch(k) : loop_int(k, 1);
  LoopValue count = AT(k, 0, {batch, s->rows});
  LoopValue zero = loop_int(k, 0), all = gpu_true(k);
  LoopValue i = gpu_each_begin(k, zero, count, width);
  gpu_write(k, y, i, value, 0, width, all);
  gpu_each_end(k);
  return k;
}

LoopKernel *gpu_adam_step(const VectorSpec *s, Arena *arena) {
  LoopKernel *k = loop_new(arena, "adam_step", gpu_lanes(&s->target, s->rows, VECTOR_THREADS));
  int32_t m = vector_in(k, "m"), v = vector_in(k, "v"), corrections = vector_in(k, "corrections"), y = vector_out(k, "y");
  LoopValue number[3];
  for (int i = 0; i < 3; i++) {
    LoopValue at = loop_int(k, i);
    LoopValue narrow = loop_load(k, corrections, at);
    number[i] = loop_op1(k, LOOP_TO_F64, narrow);
  }
  LoopValue epsilon = loop_f64(k, s->value);
  LoopValue zero = loop_int(k, 0), rows = loop_int(k, s->rows);
  LoopValue i = gpu_each_begin(k, zero, rows, 1);
  LoopValue mean = gather_f64(k, m, i);
  LoopValue square = gather_f64(k, v, i);
  LoopValue unbiased = loop_op2(k, LOOP_DIV, mean, number[1]);
  LoopValue spread = loop_op2(k, LOOP_DIV, square, number[2]);
  LoopValue root = loop_op1(k, LOOP_SQRT, spread);
  LoopValue divisor = loop_op2(k, LOOP_ADD, root, epsilon);
  LoopValue ratio = loop_op2(k, LOOP_DIV, unbiased, divisor);
  LoopValue step = loop_op2(k, LOOP_MUL, number[0], ratio);
  scatter_f32(k, y, i, step);
  gpu_each_end(k);
  return k;
}
