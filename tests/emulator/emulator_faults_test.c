/* What the emulator must find, each beside a twin that is right: a planted fault is found whatever the order of blocks and
 * threads, the twin runs through and leaves the right numbers. Texts are written by hand, as compiler/emit/cuda.c would. */
#include "tests/emulator/control.h"
#include "tests/emulator/driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

enum { THREADS = 64, BLOCKS = 3, COUNT = THREADS * BLOCKS };

/* `text` stands in a kernel k(x, y, batch) of 64 threads; `twin` in its place must run, and leave y[i] = `want`(i) for all i. */
typedef struct Fault {
  const char *name, *text, *twin, *message;
  float (*want)(int i);
} Fault;

static float x_of(int i) {
  return (float)(i % 37) - 3.5f;
}
static float next_of(int i) { /* of the next thread in the block */
  return x_of(i / THREADS * THREADS + (i + 1) % THREADS);
}
static float one(int i) {
  return i >= 0 ? 1.0f : 0.0f;
}
static float sum_of(int i) {
  float sum = 0;
  for (int j = 0; j < THREADS; j++) sum += x_of(i / THREADS * THREADS + j);
  return sum;
}

#define ME "int i = BLOCK * 64 + THREAD;\n"
#define SHARE "SHARED(float, s, 64, 0);\n" ME "STORE(s, THREAD, LOAD(x, i));\n"

static const Fault faults[] = {
    {"a phase's end is gone: shared", SHARE "STORE(y, i, LOAD(s, (THREAD + 1) % 64));\n",
     SHARE "BARRIER();\nSTORE(y, i, LOAD(s, (THREAD + 1) % 64));\n", "race: ", next_of},
    {"a phase's end is gone: global",
     ME "STORE(y, i, LOAD(x, i));\nfloat v = LOAD(y, BLOCK * 64 + (THREAD + 1) % 64);\nBARRIER();\n"
        "STORE(y, i, v);\n",
     ME "STORE(y, i, LOAD(x, i));\nBARRIER();\nfloat v = LOAD(y, BLOCK * 64 + (THREAD + 1) % 64);\nBARRIER();\nSTORE(y, i, v);\n",
     "race: ", next_of},
    {"the second barrier is gone",
     SHARE "BARRIER();\nfloat v = LOAD(s, (THREAD + 1) % 64);\nSTORE(s, THREAD, 0.0f);\nSTORE(y, i, v);\n",
     SHARE "BARRIER();\nfloat v = LOAD(s, (THREAD + 1) % 64);\nBARRIER();\nSTORE(s, THREAD, 0.0f);\nSTORE(y, i, v);\n",
     "race: ", next_of},
    {"one thread reads what another writes",
     SHARE
     "BARRIER();\nfloat v = 0.0f;\nif (THREAD == 0) v = LOAD(s, 5);\nif (THREAD == 5) STORE(s, 5, 0.0f);\nSTORE(y, i, v);\n",
     SHARE "BARRIER();\nfloat v = 0.0f;\nif (THREAD == 0) v = LOAD(s, 5);\nBARRIER();\nif (THREAD == 5) STORE(s, 5, v);\n"
           "STORE(y, i, v * 0.0f + 1.0f);\n",
     "race: ", one},
    {"two threads write one element", ME "STORE(y, i / 2 * 2, 1.0f);\n", ME "STORE(y, i, 1.0f);\n", "race: writes to y[", one},
    {"two threads write one vector's element", ME "float t[2];\nFILL(t, 0, 2, 1.0f);\nSTORE_F32X2(y, i / 2 * 2, t, 0);\n",
     ME "float t[2];\nFILL(t, 0, 2, 1.0f);\nif (THREAD % 2 == 0) STORE_F32X2(y, i, t, 0);\n", "race: writes to y[", one},
    {"two blocks write one element", ME "if (THREAD == 0) STORE(y, 0, 1.0f);\nBARRIER();\nif (BLOCK > 0) STORE(y, i, 1.0f);\n",
     ME "STORE(y, i, 1.0f);\n", "race: ", one},
    {"a block reads what another writes",
     ME "STORE(y, i, 1.0f);\nBARRIER();\nfloat v = LOAD(y, (i + 64) % 192);\nBARRIER();\nSTORE(y, i, v);\n",
     ME "STORE(y, i, 1.0f);\nBARRIER();\nfloat v = LOAD(y, BLOCK * 64 + (i + 32) % 64);\nBARRIER();\nSTORE(y, i, v);\n",
     "of block ", one},
    {"a block writes what all have read",
     ME "float v = LOAD(y, 0);\nBARRIER();\nif (BLOCK == 2 && THREAD == 0) STORE(y, 0, v);\nBARRIER();\n"
        "if (BLOCK == 2) STORE(y, i, 1.0f);\n",
     ME "float v = LOAD(x, 0);\nBARRIER();\nif (v < 0.0f) STORE(y, i, 1.0f);\n", "race: ", one},
    {"a divergent barrier", ME "STORE(y, i, 1.0f);\nif (THREAD < 40) {\nBARRIER();\n} else {\nBARRIER();\n}\n",
     ME "STORE(y, i, 1.0f);\nif (BLOCK < 2) {\nBARRIER();\n} else {\nBARRIER();\n}\n", "divergent barrier: ", one},
    {"a barrier that some do not reach", ME "STORE(y, i, 1.0f);\nif (THREAD != 5) BARRIER();\n",
     ME "STORE(y, i, 1.0f);\nBARRIER();\n", "divergent barrier: ", one},
    {"a sum that some do not reach",
     "SUM_SPACE_F32(64, 0);\n" ME "float v = 0.0f;\nif (THREAD < 32) v = BLOCK_SUM_F32(LOAD(x, i), 64);\nSTORE(y, i, v);\n",
     "SUM_SPACE_F32(64, 0);\n" ME "float v = BLOCK_SUM_F32(LOAD(x, i), 64);\nSTORE(y, i, v);\n", "divergent barrier: ", sum_of},
    {"an index past a shared array", SHARE "BARRIER();\nSTORE(y, i, LOAD(s, THREAD + 1));\n",
     SHARE "BARRIER();\nSTORE(y, i, LOAD(s, (THREAD + 1) % 64));\n", "s[64 .. 65) lies outside", next_of},
    {"an index past a shared array, after a phase",
     "SHARED(float, s, 64, 0);\n" ME
     "{ /* stage */\nSTORE(s, THREAD, LOAD(x, i));\n}\nBARRIER();\nSTORE(y, i, LOAD(s, THREAD + 64));\n",
     "SHARED(float, s, 64, 0);\n" ME
     "{ /* stage */\nSTORE(s, THREAD, LOAD(x, i));\n}\nBARRIER();\nSTORE(y, i, LOAD(s, THREAD));\n",
     ", phase stage): s[", x_of},
    {"an index before a shared array", SHARE "BARRIER();\nSTORE(y, i, LOAD(s, THREAD - 1));\n",
     SHARE "BARRIER();\nSTORE(y, i, LOAD(s, (THREAD + 1) % 64));\n", "s[-1 .. 0) lies outside", next_of},
    {"an index past an allocation", ME "STORE(y, i, LOAD(x, i + 1) * 0.0f + 1.0f);\n",
     ME "STORE(y, i, LOAD(x, i) * 0.0f + 1.0f);\n", "x[192 .. 193) lies outside", one},
    {"a vector past the tile", ME "float t[4];\nFILL(t, 0, 4, 0.0f);\nLOAD_F32X2(t, 3, x, i / 2 * 2);\nSTORE(y, i, t[3]);\n",
     ME "float t[4];\nLOAD_F32X2(t, 2, x, i / 2 * 2);\nSTORE(y, i, i % 2 ? t[3] : t[2]);\n", "t[3 .. 5) lies outside of the tile",
     x_of},
    {"a misaligned vector load", ME "float t[4];\nif (i < 188) LOAD_F32X4(t, 0, x, i);\nSTORE(y, i, 1.0f);\n",
     ME "float t[4];\nLOAD_F32X4(t, 0, x, i / 4 * 4);\nSTORE(y, i, t[i % 4]);\n", "misaligned access to x[", x_of},
    {"a missing WAIT",
     "SHARED(float, s, 64, 0);\n" ME "if (THREAD % 4 == 0) ASYNC_COPY(s, THREAD, x, i, 1);\nBARRIER();\n"
     "STORE(y, i, LOAD(s, (THREAD + 1) % 64));\n",
     "SHARED(float, s, 64, 0);\n" ME "if (THREAD % 4 == 0) ASYNC_COPY(s, THREAD, x, i, 1);\nWAIT();\nBARRIER();\n"
     "STORE(y, i, LOAD(s, (THREAD + 1) % 64));\n",
     "was not waited for", next_of},
    {"a WAIT without a barrier",
     "SHARED(float, s, 64, 0);\n" ME "if (THREAD % 4 == 0) ASYNC_COPY(s, THREAD, x, i, 1);\nWAIT();\n"
     "STORE(y, i, LOAD(s, (THREAD + 1) % 64));\n",
     "SHARED(float, s, 64, 0);\n" ME
     "if (THREAD % 4 == 0) ASYNC_COPY(s, THREAD, x, i, THREAD < 32);\nBARRIER();\nWAIT();\nBARRIER();\n"
     "STORE(y, i, THREAD == 63 || THREAD < 31 ? LOAD(s, (THREAD + 1) % 64) : LOAD(s, THREAD) + LOAD(x, BLOCK * 64 + (i + 1) % "
     "64));\n",
     "", NULL},
    {"products that a thread leaves out",
     "SHARED(float, s, 256, 0);\n" ME
     "float d[4];\nFILL(d, 0, 4, 0.0f);\nfor (int j = 0; j < 4; j++) STORE(s, THREAD * 4 + j, 1.0f);\nBARRIER();\n"
     "if (THREAD != 37) MMA_TF32(d, 0, s, 0, 8, s, 128, 8);\nBARRIER();\nSTORE(y, i, d[0] - 7.0f);\n",
     "SHARED(float, s, 256, 0);\n" ME
     "float d[4];\nFILL(d, 0, 4, 0.0f);\nfor (int j = 0; j < 4; j++) STORE(s, THREAD * 4 + j, 1.0f);\nBARRIER();\n"
     "MMA_TF32(d, 0, s, 0, 8, s, 128, 8);\nBARRIER();\nSTORE(y, i, d[0] - 7.0f);\n",
     "the same products", one},
    {"products at two places",
     "SHARED(bf16, s, 512, 0);\n" ME
     "float d[4];\nFILL(d, 0, 4, 0.0f);\nfor (int j = 0; j < 8; j++) STORE_BF16(s, THREAD * 8 + j, 1.0f);\nBARRIER();\n"
     "MMA_BF16(d, 0, s, 0, 16, s, THREAD == 3 ? 128 : 256, 16);\nSTORE(y, i, d[3] - 15.0f);\n",
     "SHARED(bf16, s, 512, 0);\n" ME
     "float d[4];\nFILL(d, 0, 4, 0.0f);\nfor (int j = 0; j < 8; j++) STORE_BF16(s, THREAD * 8 + j, 1.0f);\nBARRIER();\n"
     "MMA_BF16(d, 0, s, 0, 16, s, 256, 16);\nSTORE(y, i, d[3] - 15.0f);\n",
     "the same products", one},
    {"too much shared memory",
     "SHARED(float, s, 8000, 0);\nSHARED(float, t, 8000, 0);\n" ME "STORE(s, 0 * i + THREAD, LOAD(t, 7));\n",
     "SHARED(float, s, 8000, 0);\n" ME "STORE(s, THREAD, 1.0f);\nSTORE(y, i, LOAD(s, THREAD));\n", "bytes of shared memory", one},
};
enum { FAULTS = sizeof faults / sizeof *faults };

static char message[2000];

static void remember(void *context, const char *text) {
  (void)context;
  snprintf(message, sizeof message, "%s", text);
}

static CUfunction load(const char *symbol, const char *body) {
  char text[4000];
  snprintf(text, sizeof text,
           "KERNEL(%s, 64, IN(float, x), OUT(float, y), int batch) {\n%s}\n"
           "ENTRY(%s, ARG(0, const float *), ARG(1, float *), ARG(2, int))\n",
           symbol, body, symbol);
  CUmodule module;
  CUfunction function;
  assert_int_equal(cuModuleLoadData(&module, text), CUDA_SUCCESS);
  assert_int_equal(cuModuleGetFunction(&function, module, symbol), CUDA_SUCCESS);
  return function;
}

static CUresult launch(CUfunction function, CUdeviceptr x, CUdeviceptr y) {
  int batch = 1;
  void *parameters[] = {&x, &y, &batch};
  message[0] = 0;
  return cuLaunchKernel(function, BLOCKS, 1, 1, THREADS, 1, 1, 0, NULL, parameters, NULL);
}

static void set_order(int order) {
  adwp_emulator_set_order(order == 0 ? EMULATOR_FORWARD : order == 1 ? EMULATOR_BACKWARD : EMULATOR_RANDOM, (uint64_t)order);
}

static void test_faults(void **state) {
  (void)state;
  CUfunction wrong[FAULTS], right[FAULTS];
  CUdeviceptr x, y;
  float in[COUNT], out[COUNT];
  for (int i = 0; i < COUNT; i++) in[i] = x_of(i);
  for (int i = 0; i < FAULTS; i++) {
    char symbol[2][32];
    snprintf(symbol[0], sizeof symbol[0], "wrong_%d", i);
    snprintf(symbol[1], sizeof symbol[1], "right_%d", i);
    wrong[i] = load(symbol[0], faults[i].text);
    right[i] = load(symbol[1], faults[i].twin);
  }
  assert_int_equal(cuMemAlloc_v2(&x, sizeof in), CUDA_SUCCESS);
  assert_int_equal(cuMemAlloc_v2(&y, sizeof out), CUDA_SUCCESS);
  cuMemcpyHtoDAsync_v2(x, in, sizeof in, NULL);
  for (int order = 0; order < 5; order++) {
    set_order(order);
    for (int i = 0; i < FAULTS; i++) {
      const Fault *f = &faults[i];
      if (launch(wrong[i], x, y) != CUDA_ERROR_LAUNCH_FAILED) fail_msg("%s, order %d: not found", f->name, order);
      if (!strstr(message, f->message)) fail_msg("%s, order %d: %s", f->name, order, message);
      if (order == 0 && getenv("SHOW_MESSAGES")) printf("%s:\n  %s\n", f->name, message);
      cuMemsetD8Async(y, 0xff, sizeof out, NULL);
      if (launch(right[i], x, y) != CUDA_SUCCESS) fail_msg("the twin of %s, order %d: %s", f->name, order, message);
      cuMemcpyDtoHAsync_v2(out, y, sizeof out, NULL);
      for (int j = 0; j < COUNT && f->want; j++)
        if (out[j] != f->want(j)) fail_msg("the twin of %s, order %d: y[%d] is %g", f->name, order, j, (double)out[j]);
    }
  }
  cuMemFree_v2(x);
  cuMemFree_v2(y);
}

/* Runs the kernel in a child without the hook: it must not end well. What it says is in `message`. */
static void run_in_child(const char *symbol, const char *body) {
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    CUdeviceptr memory;
    adwp_emulator_set_hook(NULL, NULL);
    cuMemAlloc_v2(&memory, COUNT * sizeof(float));
    launch(load(symbol, body), memory, memory);
    _exit(0);
  }
  close(ends[1]);
  size_t length = 0;
  for (ssize_t got; length < sizeof message - 1 && (got = read(ends[0], message + length, sizeof message - 1 - length)) > 0;)
    length += (size_t)got;
  message[length] = 0;
  for (char rest[500]; read(ends[0], rest, sizeof rest) > 0;) continue;
  close(ends[0]);
  int status;
  waitpid(child, &status, 0);
  assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_abort(void **state) {
  (void)state;
  run_in_child("racing", ME "STORE(y, i / 2 * 2, 1.0f);\n");
  assert_non_null(strstr(message, "CUDA emulator: kernel racing, block "));
  assert_non_null(strstr(message, "race: writes to y["));
}

/* What a text does to its own tiles the sanitizers see, as they see overflow of its integers. */
static void test_sanitizers(void **state) {
  (void)state;
#ifdef SANITIZED
  run_in_child("past_tile", ME "float t[4];\nFILL(t, 0, 4, 0.0f);\nt[THREAD / 8] = 1.0f;\nSTORE(y, i, t[0]);\n");
  if (!strstr(message, "out of bounds for type")) fail_msg("%s", message);
  run_in_child("overflow", ME "int j = (THREAD + 100) * 20000000;\nSTORE(y, i, (float)j);\n");
  if (!strstr(message, "signed integer overflow")) fail_msg("%s", message);
#else
  skip();
#endif
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_faults), cmocka_unit_test(test_abort),
                                     cmocka_unit_test(test_sanitizers)};
  adwp_emulator_set_hook(remember, NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
