/* What the card can do, measured with the driver and its library and none of our kernels: bytes a second of copies within its
 * memory (read and written), and operations a second of square products in fp32, tf32 and bf16. One JSON object.
 * Arguments: the rows of a product (8192) and the repetitions (10). ADWP_TEST_DEVICE and ADWP_CUDA_EMULATOR choose the device as
 * in tests/numeric/emulator_device.h. */
#include "runtime/cuda.h"
#include "runtime/cuda_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Peaks {
  CudaDriver driver;
  Cublas blas;
  CublasHandle handle;
  CudaPointer a, b, c; /* rows x rows float32 each */
  CudaEvent start, end;
  int rows, repetitions;
  bool retained; /* the device's context */
} Peaks;

typedef struct Products { /* of which type the factors are, and how they are summed */
  int type, sum, math;
} Products;

static bool copy_once(Peaks *p, const Products *products, Err *err) {
  (void)products;
  size_t bytes = (size_t)p->rows * (size_t)p->rows * sizeof(float);
  return cuda_check(&p->driver, p->driver.copy_within(p->c, p->a, bytes, NULL), err, "cannot copy %zu bytes", bytes);
}

static bool multiply_once(Peaks *p, const Products *products, Err *err) {
  const float one = 1, zero = 0;
  int n = p->rows;
  int status = p->blas.set_math(p->handle, products->math);
  if (!status)
    status = p->blas.product(p->handle, CUBLAS_NO_TRANSPOSE, CUBLAS_NO_TRANSPOSE, n, n, n, &one, (const void *)p->a,
                             products->type, n, (const void *)p->b, products->type, n, &zero, (void *)p->c, products->type, n,
                             products->sum, CUBLAS_ALGORITHM);
  return cublas_check(status, err, "cannot multiply");
}

/* The mean of the repetitions, after one to warm up. */
static bool time_of(Peaks *p, bool (*once)(Peaks *p, const Products *products, Err *err), const Products *products,
                    double *seconds, Err *err) {
  float milliseconds = 0;
  if (!once(p, products, err) || !cuda_check(&p->driver, p->driver.event_record(p->start, NULL), err, "cannot record an event"))
    return false;
  for (int i = 0; i < p->repetitions; i++)
    if (!once(p, products, err)) return false;
  CudaResult result = p->driver.event_record(p->end, NULL);
  if (!result) result = p->driver.event_wait(p->end);
  if (!result) result = p->driver.event_milliseconds(&milliseconds, p->start, p->end);
  *seconds = (double)milliseconds / 1e3 / p->repetitions;
  if (*seconds <= 0) *seconds = 1e-9; /* an emulator's clock may stand */
  return cuda_check(&p->driver, result, err, "cannot time the GPU");
}

/* Noise that is a number from 0.5 to 1, or its negative, in either type: products of equal numbers draw less power and are faster
 * than any real ones. */
static CudaResult fill_with_noise(const Peaks *p, CudaPointer matrix) {
  size_t words = 2 * (size_t)p->rows * (size_t)p->rows;
  uint16_t *noise = malloc(words * sizeof *noise);
  if (!noise) return CUDA_OUT_OF_MEMORY;
  uint32_t state = 1;
  for (size_t i = 0; i < words; i++) {
    state = state * 1664525u + 1013904223u;
    noise[i] = (uint16_t)((state >> 16 & 0x807f) | 0x3f00);
  }
  CudaResult result = p->driver.copy_in(matrix, noise, words * sizeof *noise, NULL);
  if (!result) result = p->driver.stream_wait(NULL);
  free(noise);
  return result;
}

static bool set_up(Peaks *p, const char *emulator, Err *err) {
  CudaContext context;
  size_t bytes = (size_t)p->rows * (size_t)p->rows * sizeof(float);
  if (!cuda_driver_open(&p->driver, emulator, err) || !cublas_open(&p->blas, &p->driver, emulator, err)) return false;
  CudaResult result = p->driver.context_retain(&context, p->driver.device);
  p->retained = !result;
  if (!result) result = p->driver.context_set(context);
  CudaPointer *const matrices[] = {&p->a, &p->b, &p->c};
  for (int i = 0; i < 3 && !result; i++) {
    result = p->driver.memory_alloc(matrices[i], bytes);
    if (!result) result = fill_with_noise(p, *matrices[i]);
  }
  if (!result) result = p->driver.event_create(&p->start, 0);
  if (!result) result = p->driver.event_create(&p->end, 0);
  return cuda_check(&p->driver, result, err, "cannot prepare the GPU") &&
         cublas_check(p->blas.create(&p->handle), err, "cannot start cuBLAS");
}

static bool measure(Peaks *p, Err *err) {
  static const Products fp32 = {CUBLAS_F32, CUBLAS_SUM_F32, CUBLAS_DEFAULT_MATH},
                        tf32 = {CUBLAS_F32, CUBLAS_SUM_F32_TF32, CUBLAS_TF32_MATH},
                        bf16 = {CUBLAS_BF16, CUBLAS_SUM_F32, CUBLAS_DEFAULT_MATH};
  double copy, single, rounded, half, n = p->rows;
  if (!time_of(p, copy_once, NULL, &copy, err) || !time_of(p, multiply_once, &fp32, &single, err) ||
      !time_of(p, multiply_once, &tf32, &rounded, err) || !time_of(p, multiply_once, &bf16, &half, err))
    return false;
  printf("{\"rows\":%d,\"copy_gbs\":%.1f,\"fp32_tflops\":%.3f,\"tf32_tflops\":%.3f,\"bf16_tflops\":%.3f}\n", p->rows,
         2 * n * n * 4 / copy / 1e9, 2 * n * n * n / single / 1e12, 2 * n * n * n / rounded / 1e12, 2 * n * n * n / half / 1e12);
  return true;
}

static void tear_down(Peaks *p) {
  CudaPointer matrices[] = {p->a, p->b, p->c};
  if (p->handle) p->blas.destroy(p->handle);
  if (p->start) p->driver.event_destroy(p->start);
  if (p->end) p->driver.event_destroy(p->end);
  for (int i = 0; i < 3; i++)
    if (matrices[i]) p->driver.memory_free(matrices[i]);
  p->driver.context_release(p->driver.device);
}

int main(int count, char **arguments) {
  const char *wanted = getenv("ADWP_TEST_DEVICE"), *emulator = getenv("ADWP_CUDA_EMULATOR");
  if (!wanted || !strcmp(wanted, "cuda")) emulator = NULL;
  Peaks p = {.rows = count > 1 ? atoi(arguments[1]) : 8192, .repetitions = count > 2 ? atoi(arguments[2]) : 10};
  Err err;
  if (p.rows < 8 || p.rows > 32768 || p.rows % 8 || p.repetitions < 1) {
    fprintf(stderr, "usage: device_peaks [ROWS [REPETITIONS]]: rows from 8 to 32768, a multiple of 8\n");
    return 2;
  }
  bool done = set_up(&p, emulator, &err) && measure(&p, &err);
  if (!done) fprintf(stderr, "device_peaks: %s\n", err.text);
  if (p.retained) tear_down(&p);
  return !done;
}
