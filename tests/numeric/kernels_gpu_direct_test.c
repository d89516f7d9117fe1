/* Depthwise convolutions and pools of a GPU without shared memory (kernels/gpu/direct.h) against those with it, which
 * kernels_gpu_families_test.c holds against plain loops: both from the same random specs, through the interpreter. And specs that
 * only the former can do: the families must choose them, and the kernel must fit. */
#include "kernels/family_private.h"
#include "kernels/gpu/conv_private.h"
#include "kernels/gpu/direct.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 2, CASES = 60, MOST_BUFFERS = 6 };

typedef struct Case {
  Arena *arena;
  uint64_t random;
  int64_t sizes[MOST_BUFFERS]; /* elements; the last is written */
  int count, tasks;
} Case;

static int pick(Case *c, int from, int to) {
  c->random = c->random * 6364136223846793005u + 1442695040888963407u;
  return from + (int)((c->random >> 33) % (uint64_t)(to - from + 1));
}

/* What is written, by a kernel over the same data for the same case. */
static float *run(const Case *c, LoopKernel *k) {
  Case data = {.arena = c->arena, .random = 5};
  LoopBuffer buffers[MOST_BUFFERS];
  Err err;
  assert_int_equal(k->buffer_count, c->count);
  assert_true(loop_scratch(k, NULL) <= GPU_MOST_SHARED);
  for (int i = 0; i < c->count; i++) {
    float *values = ARENA_ARRAY(c->arena, float, c->sizes[i]);
    for (int64_t j = 0; j < c->sizes[i]; j++) values[j] = (float)pick(&data, -3, 3);
    buffers[i] = (LoopBuffer){values, c->sizes[i]};
  }
  if (!loop_interpret(k, buffers, BATCH, 0, c->tasks, &err)) fail_msg("%s", err.text);
  loop_free_tables(k);
  return buffers[c->count - 1].data;
}

/* Small whole numbers: sums are exact, in any order. */
static void compare(const Case *c, LoopKernel *staged, LoopKernel *direct, float tolerance) {
  bool shared = loop_scratch(staged, NULL) > 0;
  assert_true(shared);
  assert_true(loop_scratch(direct, NULL) == 0);
  const float *want = run(c, staged), *got = run(c, direct);
  for (int64_t i = 0; i < c->sizes[c->count - 1]; i++)
    if (!(fabsf(got[i] - want[i]) <= tolerance * fmaxf(1, fabsf(want[i]))))
      fail_msg("element %lld is %g where %g is wanted", (long long)i, (double)got[i], (double)want[i]);
}

static int64_t size_of(const Plane *p) {
  return (int64_t)BATCH * p->height * p->width * p->stride;
}

static int out_side(int side, int kernel, int stride, int dilation, int pad) {
  int room = side + 2 * pad - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

static ConvSpec conv_spec(Case *c) {
  for (;;) {
    int channels = pick(c, 2, 10), pixel = channels + pick(c, 0, 2);
    ConvSpec s = {.target = {true, 64, PRODUCTS_FP32}, .images = pick(c, 1, 2), .bands = 1, .groups = channels};
    s.prologue.relu = true;
    s.kernel_y = pick(c, 1, 5), s.kernel_x = pick(c, 1, 5);
    s.stride_y = pick(c, 1, 2), s.stride_x = pick(c, 1, 2);
    s.dilation = pick(c, 1, 2);
    s.pad_y = pick(c, 0, s.kernel_y / 2), s.pad_x = pick(c, 0, s.kernel_x / 2);
    s.shift_y = pick(c, 0, 1), s.shift_x = pick(c, 0, 1);
    s.in = (Plane){channels, pick(c, 2, 9), pick(c, 2, 9), pixel, LOOP_ELEMENT_F32, 0};
    s.out = s.in;
    s.out.height = out_side(s.in.height - s.shift_y, s.kernel_y, s.stride_y, s.dilation, s.pad_y);
    s.out.width = out_side(s.in.width - s.shift_x, s.kernel_x, s.stride_x, s.dilation, s.pad_x);
    if (s.out.height > 0 && s.out.width > 0) return s;
  }
}

static PoolSpec pool_spec(Case *c) {
  for (;;) {
    int channels = pick(c, 1, 10);
    PoolSpec s = {.target = {true, 64, PRODUCTS_FP32}, .images = pick(c, 1, 2), .bands = 1, .max = pick(c, 0, 1)};
    s.kernel_y = pick(c, 1, 4), s.kernel_x = pick(c, 1, 4);
    s.stride_y = pick(c, 1, 2), s.stride_x = pick(c, 1, 2);
    s.pad_y = pick(c, 0, s.kernel_y / 2), s.pad_x = pick(c, 0, s.kernel_x / 2);
    s.in = (Plane){channels, pick(c, 2, 9), pick(c, 2, 9), channels + pick(c, 0, 2), LOOP_ELEMENT_F32, 0};
    s.out = s.in;
    s.out.height = out_side(s.in.height, s.kernel_y, s.stride_y, 1, s.pad_y);
    s.out.width = out_side(s.in.width, s.kernel_x, s.stride_x, 1, s.pad_x);
    if (s.out.height > 0 && s.out.width > 0) return s;
  }
}

static void test_convolutions(void **state) {
  (void)state;
  for (int i = 0; i < CASES; i++) {
    Case c = {.arena = arena_new(), .random = (uint64_t)i * 7919};
    ConvSpec s = conv_spec(&c), linear = s;
    linear.prologue.relu = false;
    int64_t in = size_of(&s.in), out = size_of(&s.out), weights = (int64_t)s.kernel_y * s.kernel_x * s.in.channels;
    c.tasks = BATCH / s.images, c.count = 3;
    memcpy(c.sizes, (int64_t[]){in, weights, out}, 3 * sizeof(int64_t));
    compare(&c, gpu_depthwise(&s, c.arena), direct_depthwise(&s, c.arena), 0);
    memcpy(c.sizes, (int64_t[]){out, weights, in}, 3 * sizeof(int64_t));
    compare(&c, gpu_depthwise_grad_input(&linear, c.arena), direct_depthwise_grad_input(&linear, c.arena), 0);
    memcpy(c.sizes, (int64_t[]){out, in, weights * c.tasks}, 3 * sizeof(int64_t));
    compare(&c, gpu_depthwise_grad_weight(&s, c.arena), direct_depthwise_grad_weight(&s, c.arena), 0);
    arena_free(c.arena);
  }
}

static void test_pools(void **state) {
  (void)state;
  for (int i = 0; i < CASES; i++) {
    Case c = {.arena = arena_new(), .random = (uint64_t)i * 7919};
    PoolSpec s = pool_spec(&c);
    int64_t in = size_of(&s.in), out = size_of(&s.out);
    c.tasks = BATCH / s.images, c.count = 2;
    memcpy(c.sizes, (int64_t[]){in, out}, 2 * sizeof(int64_t));
    compare(&c, gpu_pool(&s, c.arena), direct_pool(&s, c.arena), 1e-6f);
    if (s.max) c.sizes[c.count++] = 0;
    memcpy(c.sizes, s.max ? (int64_t[]){out, in, in} : (int64_t[]){out, in, 0}, 3 * sizeof(int64_t));
    compare(&c, gpu_pool_grad(&s, c.arena), direct_pool_grad(&s, c.arena), 1e-6f);
    arena_free(c.arena);
  }
}

/* Kernels, strides and dilations at the language's limits. */
static void test_extremes(void **state) {
  (void)state;
  Arena *arena = arena_new();
  static const int shapes[][4] = {{1023, 1, 1, 512}, {17, 3, 1, 8}, {3, 1024, 1, 0}, {3, 1, 1024, 1}, {5, 5, 5, 10}};
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
    int kernel = shapes[i][0], dilation = shapes[i][1], stride = shapes[i][2], pad = shapes[i][3], side = 3000;
    Plane in = {8, side, side, 8, LOOP_ELEMENT_F32, 0}, out = in;
    out.height = out.width = out_side(side, kernel, stride, dilation, pad);
    ConvSpec s = {.target = {true, 1024, PRODUCTS_FP32}, .images = 1, .bands = 1, .in = in, .out = out, .groups = 8};
    s.kernel_y = s.kernel_x = kernel, s.dilation = dilation;
    s.stride_y = s.stride_x = stride, s.pad_y = s.pad_x = pad;
    PoolSpec p = {.target = s.target, .images = 1, .bands = 1, .in = in, .out = out, .max = i % 2};
    p.kernel_y = p.kernel_x = kernel, p.stride_y = p.stride_x = stride;
    LoopKernel *kernels[] = {gpu_depthwise(&s, arena), gpu_depthwise_grad_input(&s, arena), gpu_depthwise_grad_weight(&s, arena),
                             gpu_pool(&p, arena), gpu_pool_grad(&p, arena)};
    for (size_t j = 0; j < sizeof kernels / sizeof kernels[0]; j++) {
      Err err;
      if (!loop_verify(kernels[j], &err)) fail_msg("%s", err.text);
      assert_true(loop_scratch(kernels[j], NULL) <= GPU_MOST_SHARED);
      loop_free_tables(kernels[j]);
    }
  }
  arena_free(arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_convolutions), cmocka_unit_test(test_pools),
                                     cmocka_unit_test(test_extremes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
