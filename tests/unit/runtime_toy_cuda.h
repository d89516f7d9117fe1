/* The toy program for the CUDA emulator: the same steps, buffers and parameters, with kernels in the words of emitted text
 * (kernels/prelude.cu), each of one thread a block. Included by one test file, so everything is static. */
#ifndef ADWP_TESTS_RUNTIME_TOY_CUDA_H
#define ADWP_TESTS_RUNTIME_TOY_CUDA_H

#include "tests/unit/runtime_toy_program.h"

#define TEXT(...) #__VA_ARGS__

/* clang-format off */
/* Once, should several texts be compiled as one. */
#define TOY_CUDA_COMMON "#ifndef TOY\n#define TOY\n" TEXT( \
  enum { PIXELS = 3072, SIDE = 32, CLASSES = 10, FEATURES = 48 }; \
  static inline void softmax(const float *logits, float *p) { \
    float sum = 0; \
    for (int k = 0; k < 3; k++) sum += p[k] = (float)EXP((double)LOAD(logits, k)); \
    for (int k = 0; k < 3; k++) p[k] /= sum; \
  } \
  static inline float scale(const float *p0, const float *p1, int i) { return 1 + p0[i % 3] * p1[i / 3 % 3]; } \
  static inline void mean(const float *losses, float *loss, int batch) { \
    float sum = 0; \
    for (int image = 0; image < batch; image++) sum += LOAD(losses, image) / (float)batch; \
    STORE(loss, 0, sum); \
  } \
  static inline void update_weights(const float *f, const float *dz, float *w, float *momentum, const float *p0, \
                                    const float *p1, float rate, float *norm, int batch) { \
    double squares = 0; \
    for (int i = 0; i < FEATURES; i++) \
      for (int m = 0; m < CLASSES; m++) { \
        float gradient = 0; \
        for (int image = 0; image < batch; image++) \
          gradient += LOAD(dz, image * CLASSES + m) * scale(p0, p1, i) * LOAD(f, image * FEATURES + i); \
        squares += (double)gradient * (double)gradient; \
        float moved = 0.9f * LOAD(momentum, i * CLASSES + m) + gradient; \
        STORE(momentum, i * CLASSES + m, moved); \
        STORE(w, i * CLASSES + m, LOAD(w, i * CLASSES + m) - rate * moved); \
      } \
    STORE(norm, 0, (float)SQRT_F64(squares)); \
  } \
  static inline void gradient_of_p(const float *f, const float *dz, const float *w, const float *p0, const float *p1, \
                                   float *dp0, float *dp1, int batch) { \
    for (int k = 0; k < 3; k++) dp0[k] = dp1[k] = 0; \
    for (int image = 0; image < batch; image++) \
      for (int i = 0; i < FEATURES; i++) { \
        float ds = 0; \
        for (int m = 0; m < CLASSES; m++) ds += LOAD(dz, image * CLASSES + m) * LOAD(w, i * CLASSES + m); \
        ds *= LOAD(f, image * FEATURES + i); \
        dp0[i % 3] += ds * p1[i / 3 % 3]; \
        dp1[i / 3 % 3] += ds * p0[i % 3]; \
      } \
  } \
  static inline void adam(float *alpha, const float *p, const float *dp, const float *corrections) { \
    float inner = p[0] * dp[0] + p[1] * dp[1] + p[2] * dp[2]; \
    for (int k = 0; k < 3; k++) { \
      float gradient = p[k] * (dp[k] - inner) + 1e-3f * LOAD(alpha, k); \
      float m = 0.5f * LOAD(alpha, 16 + k) + 0.5f * gradient; \
      float s = 0.999f * LOAD(alpha, 32 + k) + 0.001f * gradient * gradient; \
      STORE(alpha, 16 + k, m); \
      STORE(alpha, 32 + k, s); \
      float step = LOAD(corrections, 0) * (m / LOAD(corrections, 1)) / (SQRT_F32(s / LOAD(corrections, 2)) + 1e-8f); \
      STORE(alpha, k, LOAD(alpha, k) - step); \
    } \
  } \
) "\n#endif\n"

static const char toy_cuda_images[] = TOY_CUDA_COMMON TEXT(
  KERNEL(images, 1, IN(float, x), IN(int, y), IN(float, w), IN(float, a0), IN(float, a1), OUT(float, f), OUT(float, dz),
         OUT(float, losses), OUT(float, correct), int batch) {
    float p0[3], p1[3], z[CLASSES], sum = 0, top = -F32_INFINITY;
    int label = LOAD(y, BLOCK);
    softmax(a0, p0);
    softmax(a1, p1);
    for (int i = 0; i < FEATURES; i++) {
      float pooled = 0;
      for (int at = 0; at < 64; at++) {
        int row = i / 12 * 8 + at / 8, column = i / 3 % 4 * 8 + at % 8;
        pooled += LOAD(x, BLOCK * PIXELS + (row * SIDE + column) * 3 + i % 3) / 64;
      }
      STORE(f, BLOCK * FEATURES + i, pooled);
    }
    for (int m = 0; m < CLASSES; m++) z[m] = 0;
    for (int i = 0; i < FEATURES; i++)
      for (int m = 0; m < CLASSES; m++) z[m] += LOAD(w, i * CLASSES + m) * scale(p0, p1, i) * LOAD(f, BLOCK * FEATURES + i);
    for (int m = 0; m < CLASSES; m++) top = z[m] > top ? z[m] : top;
    STORE(correct, BLOCK, z[label] == top);
    for (int m = 0; m < CLASSES; m++) sum += (float)EXP((double)(z[m] - top));
    STORE(losses, BLOCK, (float)LOG((double)sum) + top - z[label]);
    for (int m = 0; m < CLASSES; m++)
      STORE(dz, BLOCK * CLASSES + m, ((float)EXP((double)(z[m] - top)) / sum - (m == label ? 1.0f : 0.0f)) / (float)batch);
  }) "\n" TEXT(
  ENTRY(images, ARG(0, const float *), ARG(1, const int *), ARG(2, const float *), ARG(3, const float *), ARG(4, const float *),
        ARG(5, float *), ARG(6, float *), ARG(7, float *), ARG(8, float *), ARG(9, int))) "\n";

static const char toy_cuda_train[] = TOY_CUDA_COMMON TEXT(
  KERNEL(train, 1, IN(float, losses), OUT(float, loss), IN(float, f), IN(float, dz), OUT(float, w), OUT(float, momentum),
         IN(float, a0), IN(float, a1), IN(float, rate), OUT(float, norm), int batch) {
    float p0[3], p1[3];
    softmax(a0, p0);
    softmax(a1, p1);
    update_weights(f, dz, w, momentum, p0, p1, LOAD(rate, 0), norm, batch);
    mean(losses, loss, batch);
  }) "\n" TEXT(
  ENTRY(train, ARG(0, const float *), ARG(1, float *), ARG(2, const float *), ARG(3, const float *), ARG(4, float *),
        ARG(5, float *), ARG(6, const float *), ARG(7, const float *), ARG(8, const float *), ARG(9, float *),
        ARG(10, int))) "\n";

static const char toy_cuda_search[] = TOY_CUDA_COMMON TEXT(
  KERNEL(search, 1, IN(float, losses), OUT(float, loss), IN(float, f), IN(float, dz), IN(float, w), IN(float, momentum),
         OUT(float, a0), OUT(float, a1), IN(float, corrections), int batch) {
    float p0[3], p1[3], dp0[3], dp1[3];
    softmax(a0, p0);
    softmax(a1, p1);
    gradient_of_p(f, dz, w, p0, p1, dp0, dp1, batch);
    adam(a0, p0, dp0, corrections);
    adam(a1, p1, dp1, corrections);
    mean(losses, loss, batch);
  }) "\n" TEXT(
  ENTRY(search, ARG(0, const float *), ARG(1, float *), ARG(2, const float *), ARG(3, const float *), ARG(4, const float *),
        ARG(5, const float *), ARG(6, float *), ARG(7, float *), ARG(8, const float *), ARG(9, int))) "\n";

static const char toy_cuda_cross[] = TOY_CUDA_COMMON TEXT(
  KERNEL(cross, 1, IN(float, losses), OUT(float, loss), IN(float, f), IN(float, dz), OUT(float, w), OUT(float, momentum),
         OUT(float, a0), OUT(float, a1), IN(float, rate), OUT(float, norm), IN(float, corrections), int batch) {
    float p0[3], p1[3], dp0[3], dp1[3];
    softmax(a0, p0);
    softmax(a1, p1);
    gradient_of_p(f, dz, w, p0, p1, dp0, dp1, batch);
    update_weights(f, dz, w, momentum, p0, p1, LOAD(rate, 0), norm, batch);
    adam(a0, p0, dp0, corrections);
    adam(a1, p1, dp1, corrections);
    mean(losses, loss, batch);
  }) "\n" TEXT(
  ENTRY(cross, ARG(0, const float *), ARG(1, float *), ARG(2, const float *), ARG(3, const float *), ARG(4, float *),
        ARG(5, float *), ARG(6, float *), ARG(7, float *), ARG(8, const float *), ARG(9, float *), ARG(10, const float *),
        ARG(11, int))) "\n";

/* Of images (3, 32, 32) of bytes, as Program.images_kernel is defined. */
static const char toy_cuda_pixels[] = TEXT(
  KERNEL(pixels, 32, IN(u8, bytes), IN(int, plan), IN(float, normalised), OUT(float, x), int batch) {
    for (int i = THREAD; i < 3072; i += 32) {
      int c = i % 3, row = i / 96, column = i / 3 % 32;
      int y = row + LOAD(plan, BLOCK * 8 + 1), from = (LOAD(plan, BLOCK * 8 + 3) ? 31 - column : column) + LOAD(plan, BLOCK * 8 + 2);
      int hole = row >= LOAD(plan, BLOCK * 8 + 4) && row < LOAD(plan, BLOCK * 8 + 5) && column >= LOAD(plan, BLOCK * 8 + 6) &&
                 column < LOAD(plan, BLOCK * 8 + 7);
      int byte = y >= 0 && y < 32 && from >= 0 && from < 32 ? LOAD(bytes, LOAD(plan, BLOCK * 8) * 3072 + (c * 32 + y) * 32 + from) : 0;
      STORE(x, BLOCK * 3072 + i, hole ? 0.0f : LOAD(normalised, c * 256 + byte));
    }
  }) "\n" TEXT(
  ENTRY(pixels, ARG(0, const u8 *), ARG(1, const int *), ARG(2, const float *), ARG(3, float *), ARG(4, int))) "\n";

#define TOY_CUDA_KERNEL(symbol_name, text, block) \
  {.name = symbol_name, .symbol = symbol_name, .image = text, .image_bytes = sizeof text - 1, .threads = block}
/* clang-format on */

static const ProgramKernel toy_cuda_kernels[] = {
    TOY_CUDA_KERNEL("images", toy_cuda_images, 1),  TOY_CUDA_KERNEL("train", toy_cuda_train, 1),
    TOY_CUDA_KERNEL("search", toy_cuda_search, 1),  TOY_CUDA_KERNEL("cross", toy_cuda_cross, 1),
    TOY_CUDA_KERNEL("pixels", toy_cuda_pixels, 32),
};

static Program toy_cuda_program(void) {
  Program program = toy_program;
  program.device = PROGRAM_CUDA;
  program.target = "cuda-emulator";
  program.kernels = toy_cuda_kernels;
  program.kernel_count = 5;
  program.images_kernel = 4;
  return program;
}

#endif
