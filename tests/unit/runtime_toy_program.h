/* A program small enough to be written by hand, for tests of the runtime without the compiler: a linear classifier of pooled
 * images.
 *
 * An image (H, W, 3) is averaged to 4 x 4 x 3 = 48 features f. Two nodes of three candidates have logits a0, a1 and p =
 * softmax(a); feature i is scaled by s_i = 1 + p0[i % 3] * p1[i / 3 % 3], and the class scores are W (s * f). W (10, 48) is
 * stored transposed. Launch 1 does images, one a task, and leaves their score gradients; launch 2, one task, sums over the batch
 * in order and updates.
 *
 * Included by one test file, so everything is static. */
#ifndef ADWP_TESTS_RUNTIME_TOY_PROGRAM_H
#define ADWP_TESTS_RUNTIME_TOY_PROGRAM_H

#include "runtime/program.h"

#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

enum {
  TOY_BATCH = 10,
  TOY_SIDE = 32,
  TOY_PIXELS = TOY_SIDE * TOY_SIDE * 3,
  TOY_CLASSES = 10,
  TOY_FEATURES = 48,
  TOY_WEIGHTS = TOY_CLASSES * TOY_FEATURES,
  /* arena, bytes */
  TOY_X = 0,
  TOY_Y = TOY_BATCH * TOY_PIXELS * 4,
  TOY_RATE = TOY_Y + 64,
  TOY_CORRECTIONS = TOY_RATE + 64,
  TOY_F = TOY_CORRECTIONS + 64,
  TOY_DZ = TOY_F + TOY_BATCH * TOY_FEATURES * 4,
  TOY_LOSSES = TOY_DZ + 448,
  TOY_CORRECT = TOY_LOSSES + 64,
  TOY_LOSS = TOY_CORRECT + 64,
  TOY_NORM = TOY_LOSS + 64,
  TOY_ARENA = TOY_NORM + 64,
  /* parameters, bytes */
  TOY_W = 0,
  TOY_MOMENTUM = TOY_W + TOY_WEIGHTS * 4,
  TOY_ALPHA = TOY_MOMENTUM + TOY_WEIGHTS * 4, /* two nodes of logits, mean, square, 64 bytes each */
  TOY_PARAMETERS = TOY_ALPHA + 6 * 64,
};

static atomic_long toy_steps_left =
    -1; /* of train, search and cross steps until `toy_stop` is set, or the process is killed; -1: never */
static volatile sig_atomic_t toy_stop;
static atomic_bool toy_kill;
static atomic_bool toy_poison; /* the next step's loss is not a number */

typedef struct ToyStep {
  char kind; /* 't'rain, 's'earch, 'c'ross */
  float rate, corrections[3], logit;
} ToyStep;
static ToyStep toy_log[64]; /* the inputs of each step since toy_logged was set to 0 */
static int toy_logged;

static void toy_note(char kind, const float *rate, const float *corrections, const float *logits) {
  ToyStep *step = &toy_log[toy_logged++ % 64];
  *step = (ToyStep){.kind = kind, .rate = rate ? *rate : 0, .logit = *logits};
  if (corrections) memcpy(step->corrections, corrections, sizeof step->corrections);
}

static void toy_softmax(const float *logits, float *p) {
  float sum = 0;
  for (int k = 0; k < 3; k++) sum += p[k] = expf(logits[k]);
  for (int k = 0; k < 3; k++) p[k] /= sum;
}

static float toy_scale(const float *p0, const float *p1, int i) {
  return 1 + p0[i % 3] * p1[i / 3 % 3];
}

/* x, y, W, alpha0, alpha1, f, dz, losses, correct: dz = (softmax(z) - onehot(y)) / batch */
static void toy_images(const KernelArgs *args, int64_t task0, int64_t task1) {
  const float *w = args->buffers[2];
  float p0[3], p1[3];
  toy_softmax(args->buffers[3], p0);
  toy_softmax(args->buffers[4], p1);
  for (int64_t image = task0; image < task1; image++) {
    const float *x = (const float *)args->buffers[0] + image * TOY_PIXELS;
    int32_t label = ((const int32_t *)args->buffers[1])[image];
    float *f = (float *)args->buffers[5] + image * TOY_FEATURES, *dz = (float *)args->buffers[6] + image * TOY_CLASSES;
    float z[TOY_CLASSES] = {0}, sum = 0, top = -INFINITY;
    memset(f, 0, TOY_FEATURES * sizeof *f);
    for (int row = 0; row < TOY_SIDE; row++)
      for (int column = 0; column < TOY_SIDE; column++)
        for (int c = 0; c < 3; c++) f[(row / 8 * 4 + column / 8) * 3 + c] += x[(row * TOY_SIDE + column) * 3 + c] / 64;
    for (int i = 0; i < TOY_FEATURES; i++)
      for (int m = 0; m < TOY_CLASSES; m++) z[m] += w[i * TOY_CLASSES + m] * toy_scale(p0, p1, i) * f[i];
    for (int m = 0; m < TOY_CLASSES; m++) top = z[m] > top ? z[m] : top;
    ((float *)args->buffers[8])[image] = z[label] == top;
    for (int m = 0; m < TOY_CLASSES; m++) sum += expf(z[m] - top);
    ((float *)args->buffers[7])[image] = logf(sum) + top - z[label];
    for (int m = 0; m < TOY_CLASSES; m++) dz[m] = (expf(z[m] - top) / sum - (m == label ? 1.0F : 0.0F)) / (float)args->batch;
  }
}

/* losses, loss: the mean */
static void toy_mean(const KernelArgs *args) {
  float *loss = args->buffers[1];
  *loss = 0;
  for (int64_t image = 0; image < args->batch; image++) *loss += ((const float *)args->buffers[0])[image] / (float)args->batch;
  if (atomic_exchange(&toy_poison, false)) *loss = NAN;
  if (atomic_load(&toy_steps_left) > 0 && atomic_fetch_sub(&toy_steps_left, 1) == 1) {
    if (atomic_load(&toy_kill)) raise(SIGKILL);
    toy_stop = 1;
  }
}

/* losses, loss, f, dz, W, momentum, alpha0, alpha1, rate, norm: momentum 0.9, no decay, no clipping */
static void toy_update_weights(const KernelArgs *args) {
  const float *f = args->buffers[2], *dz = args->buffers[3];
  float *w = args->buffers[4], *momentum = args->buffers[5], rate = *(const float *)args->buffers[8], p0[3], p1[3];
  double squares = 0;
  toy_softmax(args->buffers[6], p0);
  toy_softmax(args->buffers[7], p1);
  for (int i = 0; i < TOY_FEATURES; i++)
    for (int m = 0; m < TOY_CLASSES; m++) {
      float gradient = 0;
      for (int64_t image = 0; image < args->batch; image++)
        gradient += dz[image * TOY_CLASSES + m] * toy_scale(p0, p1, i) * f[image * TOY_FEATURES + i];
      squares += (double)gradient * gradient;
      float *buffer = &momentum[i * TOY_CLASSES + m];
      *buffer = 0.9F * *buffer + gradient;
      w[i * TOY_CLASSES + m] -= rate * *buffer;
    }
  *(float *)args->buffers[9] = (float)sqrt(squares);
}

static void toy_adam(float *alpha, const float *p, const float *dp, const float *corrections) {
  float *mean = alpha + 16, *square = alpha + 32; /* 64 bytes further each */
  float inner = p[0] * dp[0] + p[1] * dp[1] + p[2] * dp[2];
  for (int k = 0; k < 3; k++) {
    float gradient = p[k] * (dp[k] - inner) + 1e-3F * alpha[k];
    mean[k] = 0.5F * mean[k] + 0.5F * gradient;
    square[k] = 0.999F * square[k] + 0.001F * gradient * gradient;
    alpha[k] -= corrections[0] * (mean[k] / corrections[1]) / (sqrtf(square[k] / corrections[2]) + 1e-8F);
  }
}

/* losses, loss, f, dz, W, -, alpha0, alpha1, corrections */
static void toy_update_alpha(const KernelArgs *args) {
  const float *f = args->buffers[2], *dz = args->buffers[3], *w = args->buffers[4], *corrections = args->buffers[8];
  float *alpha0 = args->buffers[6], *alpha1 = args->buffers[7], p0[3], p1[3], dp0[3] = {0}, dp1[3] = {0};
  toy_softmax(alpha0, p0);
  toy_softmax(alpha1, p1);
  for (int64_t image = 0; image < args->batch; image++)
    for (int i = 0; i < TOY_FEATURES; i++) {
      float ds = 0;
      for (int m = 0; m < TOY_CLASSES; m++) ds += dz[image * TOY_CLASSES + m] * w[i * TOY_CLASSES + m];
      ds *= f[image * TOY_FEATURES + i];
      dp0[i % 3] += ds * p1[i / 3 % 3];
      dp1[i / 3 % 3] += ds * p0[i % 3];
    }
  toy_adam(alpha0, p0, dp0, corrections);
  toy_adam(alpha1, p1, dp1, corrections);
}

static void toy_train(const KernelArgs *args, int64_t task0, int64_t task1) {
  (void)task0, (void)task1;
  toy_note('t', args->buffers[8], NULL, args->buffers[6]);
  toy_update_weights(args);
  toy_mean(args);
}

static void toy_search(const KernelArgs *args, int64_t task0, int64_t task1) {
  (void)task0, (void)task1;
  toy_note('s', NULL, args->buffers[8], args->buffers[6]);
  toy_update_alpha(args);
  toy_mean(args);
}

/* losses, loss, f, dz, W, momentum, alpha0, alpha1, rate, norm, corrections; the logits' gradient is of the weights before their
 * update */
static void toy_cross(const KernelArgs *args, int64_t task0, int64_t task1) {
  (void)task0, (void)task1;
  toy_note('c', args->buffers[8], args->buffers[10], args->buffers[6]);
  void *buffers[11];
  memcpy(buffers, args->buffers, sizeof buffers);
  static _Thread_local float weights[TOY_WEIGHTS];
  memcpy(weights, buffers[4], sizeof weights);
  toy_update_weights(args);
  buffers[4] = weights;
  buffers[8] = buffers[10];
  toy_update_alpha(&(KernelArgs){.buffers = buffers, .batch = args->batch});
  toy_mean(args);
}

#define TOY_ALPHA_AT(node, part) (TOY_ALPHA + ((node)*3 + (part)) * 64)

static const ProgramKernel toy_kernels[] = {
    {.name = "images", .run = toy_images},
    {.name = "train", .run = toy_train},
    {.name = "search", .run = toy_search},
    {.name = "cross", .run = toy_cross},
};

static const BufferRef toy_image_buffers[] = {
    {BUFFER_ARENA, TOY_X, 0},
    {BUFFER_ARENA, TOY_Y, 0},
    {BUFFER_PARAMETER, TOY_W, 0},
    {BUFFER_PARAMETER, TOY_ALPHA_AT(0, 0), 0},
    {BUFFER_PARAMETER, TOY_ALPHA_AT(1, 0), 0},
    {BUFFER_ARENA, TOY_F, 0},
    {BUFFER_ARENA, TOY_DZ, 0},
    {BUFFER_ARENA, TOY_LOSSES, 0},
    {BUFFER_ARENA, TOY_CORRECT, 0},
};
#define TOY_UPDATE_BUFFERS                                                                                                       \
  {BUFFER_ARENA, TOY_LOSSES, 0}, {BUFFER_ARENA, TOY_LOSS, 0}, {BUFFER_ARENA, TOY_F, 0}, {BUFFER_ARENA, TOY_DZ, 0},               \
      {BUFFER_PARAMETER, TOY_W, 0}, {BUFFER_PARAMETER, TOY_MOMENTUM, 0}, {BUFFER_PARAMETER, TOY_ALPHA_AT(0, 0), 0}, {            \
    BUFFER_PARAMETER, TOY_ALPHA_AT(1, 0), 0                                                                                      \
  }
static const BufferRef toy_train_buffers[] = {TOY_UPDATE_BUFFERS, {BUFFER_ARENA, TOY_RATE, 0}, {BUFFER_ARENA, TOY_NORM, 0}};
static const BufferRef toy_search_buffers[] = {TOY_UPDATE_BUFFERS, {BUFFER_ARENA, TOY_CORRECTIONS, 0}};
static const BufferRef toy_cross_buffers[] = {
    TOY_UPDATE_BUFFERS, {BUFFER_ARENA, TOY_RATE, 0}, {BUFFER_ARENA, TOY_NORM, 0}, {BUFFER_ARENA, TOY_CORRECTIONS, 0}};

static const Launch toy_image_launch = {.kernel = 0, .buffer_count = 9, .buffers = toy_image_buffers, .images = 1, .tasks = 1};
static const Launch toy_update_launches[] = {
    {.kernel = 1, .buffer_count = 10, .buffers = toy_train_buffers, .tasks = 1},
    {.kernel = 2, .buffer_count = 9, .buffers = toy_search_buffers, .tasks = 1},
    {.kernel = 3, .buffer_count = 11, .buffers = toy_cross_buffers, .tasks = 1},
};
#define TOY_SEGMENT(launch)                                                                                                      \
  { .launches = &(launch), .count = 1 }
static const Segment toy_train_segments[] = {TOY_SEGMENT(toy_image_launch), TOY_SEGMENT(toy_update_launches[0])};
static const Segment toy_search_segments[] = {TOY_SEGMENT(toy_image_launch), TOY_SEGMENT(toy_update_launches[1])};
static const Segment toy_cross_segments[] = {TOY_SEGMENT(toy_image_launch), TOY_SEGMENT(toy_update_launches[2])};

static const NamedBuffer toy_inputs[] = {
    {"x", TOY_X, TOY_BATCH *TOY_PIXELS, false},
    {"y", TOY_Y, TOY_BATCH, true},
    {"rate", TOY_RATE, 1, false},
    {"alpha.corrections", TOY_CORRECTIONS, 3, false},
};
static const NamedBuffer toy_search_inputs[] = {
    {"x", TOY_X, TOY_BATCH *TOY_PIXELS, false}, {"y", TOY_Y, TOY_BATCH, true}, {"alpha.corrections", TOY_CORRECTIONS, 3, false}};
static const NamedBuffer toy_results[] = {
    {"loss", TOY_LOSS, 1, false}, {"correct", TOY_CORRECT, TOY_BATCH, false}, {"norm", TOY_NORM, 1, false}};
static const NamedBuffer toy_eval_results[] = {{"losses", TOY_LOSSES, TOY_BATCH, false},
                                               {"correct", TOY_CORRECT, TOY_BATCH, false}};

static const ProgramStep toy_steps[] = {
    {"train_step", toy_train_segments, 2, TOY_ARENA, 0, toy_inputs, 3, toy_results, 3},
    {"search_step", toy_search_segments, 2, TOY_ARENA, 0, toy_search_inputs, 3, toy_results, 2},
    {"cross_step", toy_cross_segments, 2, TOY_ARENA, 0, toy_inputs, 4, toy_results, 3},
    {"eval", toy_train_segments, 1, TOY_ARENA, 0, toy_inputs, 2, toy_eval_results, 2},
};

#define TOY_LOGITS(prefix, node, parameter_kind, part)                                                                           \
  {                                                                                                                              \
    .name = prefix "alpha.0." #node, .kind = parameter_kind, .rank = 1, .dims = {3}, .offset = TOY_ALPHA_AT(node, part),         \
    .elements = 3                                                                                                                \
  }
static const ProgramParameter toy_parameters[] = {
    {.name = "classifier.weight",
     .kind = PROGRAM_WEIGHT,
     .rank = 2,
     .dims = {TOY_CLASSES, TOY_FEATURES},
     .offset = TOY_W,
     .elements = TOY_WEIGHTS,
     .view_rank = 2,
     .view = {TOY_CLASSES, TOY_FEATURES},
     .order = {1, 0},
     .uniform = 0.14},
    {.name = "momentum.classifier.weight",
     .kind = PROGRAM_MOMENTUM,
     .rank = 2,
     .dims = {TOY_CLASSES, TOY_FEATURES},
     .offset = TOY_MOMENTUM,
     .elements = TOY_WEIGHTS,
     .view_rank = 2,
     .view = {TOY_CLASSES, TOY_FEATURES},
     .order = {1, 0}},
    TOY_LOGITS("", 0, PROGRAM_ALPHA, 0),
    TOY_LOGITS("adam_mean.", 0, PROGRAM_ADAM_MEAN, 1),
    TOY_LOGITS("adam_square.", 0, PROGRAM_ADAM_SQUARE, 2),
    TOY_LOGITS("", 1, PROGRAM_ALPHA, 0),
    TOY_LOGITS("adam_mean.", 1, PROGRAM_ADAM_MEAN, 1),
    TOY_LOGITS("adam_square.", 1, PROGRAM_ADAM_SQUARE, 2),
};

static const ProgramCandidate toy_candidates[2][3] = {
    {{"sep_conv_3x3", 0, 0}, {"identity", 6, 0}, {"sep_conv_3x3", 0, 1}},
    {{"max_pool_3x3", 5, 1}, {"sep_conv_3x3", 0, 1}, {"identity", 6, 2}},
};
static const ProgramNode toy_nodes[] = {{toy_candidates[0], 3}, {toy_candidates[1], 3}};
static const ProgramCell toy_cells[] = {{false, toy_nodes, 2}};

/* 120 training and validation images, half each: 6 steps an epoch. Epochs 0-1 train, 2-5 search, 3 of them crossed. */
static const Program toy_program = {
    .name = "toy",
    .space = "darts",
    .target = "x86-64-v4",
    .model_text = "# the toy's model\n",
    .model_hash = "0123456789abcdef",
    .batch = TOY_BATCH,
    .parameter_bytes = TOY_PARAMETERS,
    .parameters = toy_parameters,
    .parameter_count = 8,
    .kernels = toy_kernels,
    .kernel_count = 4,
    .steps = toy_steps,
    .step_count = 4,
    .cells = toy_cells,
    .cell_count = 1,
    .data = {.name = "shapes",
             .format = "synthetic",
             .channels = 3,
             .height = TOY_SIDE,
             .width = TOY_SIDE,
             .classes = TOY_CLASSES,
             .mean = {0.5, 0.5, 0.5},
             .deviation = {0.25, 0.25, 0.25},
             .train_fraction = 0.5,
             .crop_pad = 4,
             .flip = true,
             .train_images = 120,
             .test_images = 34},
    .search = {.train = 2,
               .cross_start = 3,
               .cross_end = 4,
               .total = 6,
               .batch = TOY_BATCH,
               .keep = 2,
               .lr_start = 0.05,
               .alpha_lr = 0.01,
               .alpha_beta1 = 0.5,
               .alpha_beta2 = 0.999,
               .alpha_scale = 1,
               .alpha_initial = 1e-3,
               .seed = 7},
};

#endif
