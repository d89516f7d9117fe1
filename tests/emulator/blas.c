/* cuBLAS: products of matrices in column-major order, summed in double and rounded once. */
#include "tests/emulator/driver.h"
#include "tests/emulator/stream.h"

#include <string.h>

struct cublasContext {
  CUstream stream;
  cublasMath_t math;
};

static float element(const Matrix *matrix, int64_t row, int64_t column, bool tf32) {
  int64_t at = matrix->transposed ? column + row * matrix->stride : row + column * matrix->stride;
  uint32_t bits;
  float value;
  if (matrix->bf16) {
    bits = (uint32_t)((const uint16_t *)matrix->data)[at] << 16;
  } else {
    memcpy(&bits, (const float *)matrix->data + at, sizeof bits);
    if (tf32 && (bits & 0x7f800000) != 0x7f800000) bits = (bits + 0x1000) & ~(uint32_t)0x1fff;
  }
  memcpy(&value, &bits, sizeof value);
  return value;
}

static void set(const Matrix *matrix, int64_t row, int64_t column, float value) {
  int64_t at = row + column * matrix->stride;
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (!matrix->bf16)
    ((float *)(uintptr_t)matrix->data)[at] = value;
  else
    ((uint16_t *)(uintptr_t)matrix->data)[at] = (uint16_t)(value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void product_run(const Product *product) {
  double *column = memory_alloc((size_t)product->m * sizeof *column);
  for (int64_t j = 0; j < product->n; j++) {
    memset(column, 0, (size_t)product->m * sizeof *column);
    for (int64_t p = 0; p < product->k; p++) {
      double b = (double)element(&product->b, p, j, product->tf32);
      for (int64_t i = 0; i < product->m; i++) column[i] += (double)element(&product->a, i, p, product->tf32) * b;
    }
    for (int64_t i = 0; i < product->m; i++) {
      double old = product->beta != 0 ? (double)product->beta * (double)element(&product->c, i, j, false) : 0;
      set(&product->c, i, j, (float)((double)product->alpha * column[i] + old));
    }
  }
  free(column);
}

/* All of a matrix of rows x columns elements, as it is stored, lies in one allocation. */
static bool inside(const Matrix *matrix, int64_t rows, int64_t columns) {
  size_t size = matrix->bf16 ? 2 : 4;
  if (matrix->transposed) {
    int64_t swapped = rows;
    rows = columns;
    columns = swapped;
  }
  if (matrix->stride < rows || (uintptr_t)matrix->data % size) return false;
  return memory_holds(matrix->data, (size_t)((columns - 1) * matrix->stride + rows) * size);
}

EMULATOR_EXPORT cublasStatus_t cublasCreate_v2(cublasHandle_t *handle) {
  if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
  *handle = memory_alloc(sizeof **handle);
  return CUBLAS_STATUS_SUCCESS;
}

EMULATOR_EXPORT cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  free(handle);
  return CUBLAS_STATUS_SUCCESS;
}

EMULATOR_EXPORT cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, CUstream stream) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

EMULATOR_EXPORT cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!bytes) return CUBLAS_STATUS_SUCCESS;
  emulator_lock();
  bool held = memory_holds(workspace, bytes) && (uintptr_t)workspace % 256 == 0;
  emulator_unlock();
  return held ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

EMULATOR_EXPORT cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->math = mode;
  return CUBLAS_STATUS_SUCCESS;
}

EMULATOR_EXPORT cublasStatus_t cublasGetVersion_v2(cublasHandle_t handle, int *version) {
  (void)handle;
  *version = 130000;
  return CUBLAS_STATUS_SUCCESS;
}

EMULATOR_EXPORT const char *cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
  case CUBLAS_STATUS_SUCCESS: return "success";
  case CUBLAS_STATUS_NOT_INITIALIZED: return "the library was not initialized";
  case CUBLAS_STATUS_ALLOC_FAILED: return "the resource allocation failed";
  case CUBLAS_STATUS_INVALID_VALUE: return "an invalid value was used as an argument";
  case CUBLAS_STATUS_NOT_SUPPORTED: return "the functionality is not supported";
  default: return "the GPU program failed to execute";
  }
}

static bool known_type(cudaDataType_t type) {
  return type == CUDA_R_32F || type == CUDA_R_16BF;
}

EMULATOR_EXPORT cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t a_op, cublasOperation_t b_op, int m, int n,
                                            int k, const void *alpha, const void *a, cudaDataType_t a_type, int a_stride,
                                            const void *b, cudaDataType_t b_type, int b_stride, const void *beta, void *c,
                                            cudaDataType_t c_type, int c_stride, cublasComputeType_t compute, int algorithm) {
  (void)algorithm;
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (m < 0 || n < 0 || k < 0 || !alpha || !beta) return CUBLAS_STATUS_INVALID_VALUE;
  bool computes =
      compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC || compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  if (!known_type(a_type) || a_type != b_type || !known_type(c_type) || (a_type == CUDA_R_32F && c_type != CUDA_R_32F) ||
      !computes)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
  Product product = {.m = m, .n = n, .k = k};
  product.a = (Matrix){a, a_op != CUBLAS_OP_N, a_type == CUDA_R_16BF, a_stride};
  product.b = (Matrix){b, b_op != CUBLAS_OP_N, b_type == CUDA_R_16BF, b_stride};
  product.c = (Matrix){c, false, c_type == CUDA_R_16BF, c_stride};
  product.tf32 =
      compute == CUBLAS_COMPUTE_32F_FAST_TF32 || (compute == CUBLAS_COMPUTE_32F && handle->math == CUBLAS_TF32_TENSOR_OP_MATH);
  memcpy(&product.alpha, alpha, sizeof product.alpha);
  memcpy(&product.beta, beta, sizeof product.beta);
  emulator_lock();
  bool fits = (!k || (inside(&product.a, m, k) && inside(&product.b, k, n))) && inside(&product.c, m, n);
  if (!fits) emulator_report("cublasGemmEx: a matrix does not lie in device memory, or its stride is smaller than its rows");
  CUresult done =
      fits ? stream_submit(handle->stream, &(Node){.kind = NODE_PRODUCT, .product = product}) : CUDA_ERROR_INVALID_VALUE;
  emulator_unlock();
  return done == CUDA_SUCCESS ? CUBLAS_STATUS_SUCCESS : fits ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_INVALID_VALUE;
}
