/* The emulator as a driver: memory, copies, modules, capture and replay, events, products of cuBLAS, and what it says where
 * something is missing. */
#include "tests/emulator/control.h"
#include "tests/emulator/driver.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { THREADS = 32, COUNT = 64 };

static char message[2000];

static void remember(void *context, const char *text) {
  (void)context;
  snprintf(message, sizeof message, "%s", text);
}

/* A kernel that adds `number` to each element of x. */
static CUfunction adder(const char *symbol, const char *number) {
  char text[600];
  snprintf(text, sizeof text,
           "KERNEL(%s, 32, OUT(float, x), int batch) {\nint i = BLOCK * 32 + THREAD;\nSTORE(x, i, LOAD(x, i) + %s);\n}\n"
           "ENTRY(%s, ARG(0, float *), ARG(1, int))\n",
           symbol, number, symbol);
  CUmodule module;
  CUfunction function;
  assert_int_equal(cuModuleLoadData(&module, text), CUDA_SUCCESS);
  assert_int_equal(cuModuleGetFunction(&function, module, "another"), CUDA_ERROR_NOT_FOUND);
  assert_int_equal(cuModuleGetFunction(&function, module, symbol), CUDA_SUCCESS);
  assert_int_equal(cuModuleUnload(module), CUDA_SUCCESS);
  return function;
}

static CUresult launch(CUfunction function, CUdeviceptr x, CUstream stream) {
  int batch = 1;
  void *parameters[] = {&x, &batch};
  CUresult result = cuLaunchKernel(function, COUNT / THREADS, 1, 1, THREADS, 1, 1, 0, stream, parameters, NULL);
  x = 0; /* the values were taken */
  return result;
}

static CUdeviceptr device_memory(size_t bytes) {
  CUdeviceptr memory;
  assert_int_equal(cuMemAlloc_v2(&memory, bytes), CUDA_SUCCESS);
  assert_int_equal(memory % 256, 0);
  return memory;
}

static float first_of(CUdeviceptr x) {
  float value;
  assert_int_equal(cuMemcpyDtoHAsync_v2(&value, x, sizeof value, NULL), CUDA_SUCCESS);
  return value;
}

static void test_capture(void **state) {
  (void)state;
  CUfunction one = adder("add_one", "1.0f"), ten = adder("add_ten", "10.0f");
  CUdeviceptr x = device_memory(COUNT * 4), y = device_memory(COUNT * 4), unused;
  CUstream stream;
  CUgraph graph;
  CUgraphExec exec;
  CUgraphNode nodes[8];
  CUstreamCaptureStatus status;
  size_t count = 8;
  cuStreamCreate(&stream, 1);
  assert_int_equal(cuMemsetD8Async(x, 0, COUNT * 4, stream), CUDA_SUCCESS);
  assert_int_equal(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  assert_int_equal(cuStreamIsCapturing(stream, &status), CUDA_SUCCESS);
  assert_int_equal(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
  launch(one, x, stream);
  launch(ten, x, stream);
  cuMemcpyDtoDAsync_v2(y, x, COUNT * 4, stream);
  cuMemsetD8Async(x + 4, 0, 4, stream);
  assert_int_equal(cuStreamSynchronize(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  assert_int_equal(cuMemAlloc_v2(&unused, 4), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  assert_int_equal(cuStreamEndCapture(stream, &graph), CUDA_SUCCESS);
  assert_true(first_of(x) == 0);
  assert_int_equal(cuGraphGetNodes(graph, NULL, &count), CUDA_SUCCESS);
  assert_int_equal(count, 4);
  assert_int_equal(cuGraphGetNodes(graph, nodes, &count), CUDA_SUCCESS);
  assert_int_equal(cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
  assert_int_equal(cuGraphDestroy(graph), CUDA_SUCCESS);
  for (int i = 0; i < 3; i++) assert_int_equal(cuGraphLaunch(exec, stream), CUDA_SUCCESS);
  assert_int_equal(cuStreamSynchronize(stream), CUDA_SUCCESS);
  assert_true(first_of(x) == 33 && first_of(y) == 33 && first_of(y + 4) == 11 && first_of(x + 4) == 0);
  cuGraphExecDestroy(exec);
  cuStreamDestroy_v2(stream);
  cuMemFree_v2(x);
  cuMemFree_v2(y);
}

static void test_memory(void **state) {
  (void)state;
  size_t available, total, now;
  setenv("ADWP_EMULATOR_MEMORY", "1000000", 1);
  cuMemGetInfo_v2(&available, &total);
  assert_int_equal(total, 1000000);
  CUdeviceptr x = device_memory(600000), y;
  cuMemGetInfo_v2(&now, &total);
  assert_int_equal(now, available - 600000);
  assert_int_equal(cuMemAlloc_v2(&y, 600000), CUDA_ERROR_OUT_OF_MEMORY);
  assert_true(first_of(x) != first_of(x)); /* fresh memory is not a number */
  assert_int_equal(cuMemcpyHtoDAsync_v2(x + 599998, &now, 4, NULL), CUDA_ERROR_INVALID_VALUE);
  assert_non_null(strstr(message, "cuMemcpyHtoDAsync of 4 bytes"));
  assert_int_equal(cuMemFree_v2(x + 4), CUDA_ERROR_INVALID_VALUE);
  assert_int_equal(cuMemFree_v2(x), CUDA_SUCCESS);
  assert_int_equal(cuMemFree_v2(x), CUDA_ERROR_INVALID_VALUE);
  unsetenv("ADWP_EMULATOR_MEMORY");
}

static void test_events(void **state) {
  (void)state;
  CUevent start, end;
  float milliseconds = -1;
  cuEventCreate(&start, 0);
  cuEventCreate(&end, 0);
  assert_int_equal(cuEventElapsedTime_v2(&milliseconds, start, end), CUDA_ERROR_INVALID_HANDLE);
  cuEventRecord(start, NULL);
  usleep(2000);
  cuEventRecord(end, NULL);
  assert_int_equal(cuEventSynchronize(end), CUDA_SUCCESS);
  assert_int_equal(cuEventQuery(end), CUDA_SUCCESS);
  assert_int_equal(cuEventElapsedTime_v2(&milliseconds, start, end), CUDA_SUCCESS);
  assert_true(milliseconds >= 2 && milliseconds < 2000);
  cuEventDestroy_v2(start);
  cuEventDestroy_v2(end);
}

/* C (2, 3) = 2 * A (2, 2) * B (3, 2)^T + C, column-major. */
static void test_product(void **state) {
  (void)state;
  const float a[] = {1, 2, 3, 4}, b[] = {1, 2, 3, 4, 5, 1.0f + 0x1p-12f}, alpha = 2, beta = 1;
  float c[6] = {100, 100, 100, 100, 100, 100};
  CUdeviceptr memory = device_memory(64);
  void *at = (void *)(uintptr_t)memory;
  cublasHandle_t handle;
  assert_int_equal(cublasCreate_v2(&handle), CUBLAS_STATUS_SUCCESS);
  cublasSetStream_v2(handle, NULL);
  for (int tf32 = 0; tf32 < 2; tf32++) {
    cublasSetMathMode(handle, tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH);
    cuMemcpyHtoDAsync_v2(memory, a, sizeof a, NULL);
    cuMemcpyHtoDAsync_v2(memory + 16, b, sizeof b, NULL);
    cuMemcpyHtoDAsync_v2(memory + 40, c, sizeof c, NULL);
    float got[6];
    assert_int_equal(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_T, 2, 3, 2, &alpha, at, CUDA_R_32F, 2, (char *)at + 16,
                                  CUDA_R_32F, 3, &beta, (char *)at + 40, CUDA_R_32F, 2, CUBLAS_COMPUTE_32F, -1),
                     CUBLAS_STATUS_SUCCESS);
    cuMemcpyDtoHAsync_v2(got, memory + 40, sizeof got, NULL);
    for (int i = 0; i < 2; i++)
      for (int j = 0; j < 3; j++) {
        float last = j == 2 ? tf32 ? 1.0f : b[5] : b[3 + j];
        assert_true(got[i + 2 * j] == 100 + 2 * (a[i] * b[j] + a[i + 2] * last));
      }
  }
  message[0] = 0;
  assert_int_equal(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_T, 2, 3, 3, &alpha, at, CUDA_R_32F, 2, (char *)at + 40, CUDA_R_32F,
                                3, &beta, at, CUDA_R_32F, 2, CUBLAS_COMPUTE_32F, -1),
                   CUBLAS_STATUS_INVALID_VALUE);
  assert_non_null(strstr(message, "does not lie in device memory"));
  assert_int_equal(cublasDestroy_v2(handle), CUBLAS_STATUS_SUCCESS);
  cuMemFree_v2(memory);
}

/* A late device reads pinned memory, and writes to it, when it is waited for. */
static void test_late(void **state) {
  (void)state;
  CUdeviceptr x = device_memory(COUNT * 4);
  CUevent event;
  float *pinned, pageable = 5;
  assert_int_equal(cuMemHostAlloc((void **)&pinned, 8, 0), CUDA_SUCCESS);
  cuEventCreate(&event, 0);
  adwp_emulator_set_late(true);
  pinned[0] = 1;
  pinned[1] = -1;
  cuMemcpyHtoDAsync_v2(x, pinned, 4, NULL);
  cuMemcpyHtoDAsync_v2(x + 4, &pageable, 4, NULL);
  assert_int_equal(launch(adder("late", "1.0f"), x, NULL), CUDA_SUCCESS);
  cuMemcpyDtoHAsync_v2(pinned + 1, x, 4, NULL);
  cuEventRecord(event, NULL);
  pinned[0] = 2; /* too early */
  pageable = 6;
  assert_int_equal(cuEventQuery(event), CUDA_ERROR_NOT_READY);
  assert_true(pinned[1] == -1);
  assert_int_equal(cuEventSynchronize(event), CUDA_SUCCESS);
  assert_true(pinned[1] == 3);
  assert_int_equal(cuEventQuery(event), CUDA_SUCCESS);
  assert_true(first_of(x + 4) == 6); /* 5 + 1; the launch ran once */
  adwp_emulator_set_late(false);
  cuEventDestroy_v2(event);
  cuMemFreeHost(pinned);
  cuMemFree_v2(x);
}

static int files_in(const char *folder) {
  DIR *list = opendir(folder);
  int count = -2;
  for (; list && readdir(list); count++) continue;
  if (list) closedir(list);
  return count;
}

/* The objects of texts are kept, and nothing else is left behind. */
static void test_cache(void **state) {
  (void)state;
  char work[] = "/tmp/adwp-emulator-test-XXXXXX", cache[100];
  assert_non_null(mkdtemp(work));
  snprintf(cache, sizeof cache, "%s/cache", work);
  setenv("TMPDIR", work, 1);
  setenv("ADWP_EMULATOR_CACHE", cache, 1);
  CUdeviceptr x = device_memory(COUNT * 4);
  cuMemsetD8Async(x, 0, COUNT * 4, NULL);
  assert_int_equal(launch(adder("add_two", "2.0f"), x, NULL), CUDA_SUCCESS);
  assert_int_equal(files_in(cache), 1);
  assert_int_equal(files_in(work), 1);
  assert_int_equal(launch(adder("add_three", "3.0f"), x, NULL), CUDA_SUCCESS);
  assert_int_equal(launch(adder("add_two", "2.0f"), x, NULL), CUDA_SUCCESS);
  assert_int_equal(files_in(cache), 2);
  assert_true(first_of(x) == 7);
  unsetenv("ADWP_EMULATOR_CACHE");
  unsetenv("TMPDIR");
  char command[200];
  snprintf(command, sizeof command, "rm -r '%s'", work);
  assert_int_equal(system(command), 0);
  cuMemFree_v2(x);
}

static void test_missing(void **state) {
  (void)state;
  const char *text;
  CUmodule module;
  CUdeviceptr x = device_memory(COUNT * 4);
  cuMemsetD8Async(x, 0, COUNT * 4, NULL);
  assert_int_equal(cuModuleLoadData(&module, "no kernel at all"), CUDA_ERROR_INVALID_IMAGE);
  cuGetErrorString(CUDA_ERROR_INVALID_IMAGE, &text);
  assert_non_null(strstr(text, "is no kernel's text"));
  CUfunction function = adder("add_four", "4.0f");
  setenv("CC", "no-such-compiler -O1", 1);
  assert_int_equal(launch(function, x, NULL), CUDA_ERROR_JIT_COMPILER_NOT_FOUND);
  cuGetErrorString(CUDA_ERROR_JIT_COMPILER_NOT_FOUND, &text);
  assert_non_null(strstr(text, "no-such-compiler"));
  unsetenv("CC");
  assert_int_equal(launch(function, x, NULL), CUDA_SUCCESS);
  assert_true(first_of(x) == 4);
  int batch = 1;
  void *parameters[] = {&x, &batch};
  assert_int_equal(cuLaunchKernel(function, 1, 1, 1, 64, 1, 1, 0, NULL, parameters, NULL), CUDA_ERROR_LAUNCH_FAILED);
  assert_non_null(strstr(message, "written for 32 threads"));
  cuMemFree_v2(x);
}

/* Last: a text that does not compile stays among those that wait. */
static void test_broken_text(void **state) {
  (void)state;
  const char *text;
  CUdeviceptr x = device_memory(COUNT * 4);
  assert_int_equal(launch(adder("broken", "unknown_name"), x, NULL), CUDA_ERROR_INVALID_PTX);
  cuGetErrorString(CUDA_ERROR_INVALID_PTX, &text);
  assert_non_null(strstr(text, "does not compile kernel broken"));
  assert_non_null(strstr(text, "unknown_name"));
  cuMemFree_v2(x);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_capture), cmocka_unit_test(test_memory),      cmocka_unit_test(test_events),
      cmocka_unit_test(test_product), cmocka_unit_test(test_late),        cmocka_unit_test(test_cache),
      cmocka_unit_test(test_missing), cmocka_unit_test(test_broken_text),
  };
  adwp_emulator_set_hook(remember, NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
