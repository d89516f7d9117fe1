/* The functions of the CUDA driver's library and of cuBLAS that we use, found when the libraries are opened. No header of CUDA is
 * needed to build: the types and constants are declared here, as NVIDIA's manuals give them; they are part of the libraries'
 * binary interface and do not change. */
#ifndef ADWP_RUNTIME_CUDA_DRIVER_H
#define ADWP_RUNTIME_CUDA_DRIVER_H

#include "runtime/base/err.h"

#include <stddef.h>
#include <stdint.h>

typedef int CudaResult; /* CUresult */
typedef uint64_t CudaPointer;
typedef struct CUctx_st *CudaContext;
typedef struct CUmod_st *CudaModule;
typedef struct CUfunc_st *CudaFunction;
typedef struct CUstream_st *CudaStream;
typedef struct CUevent_st *CudaEvent;
typedef struct CUgraph_st *CudaGraph;
typedef struct CUgraphNode_st *CudaNode;
typedef struct CUgraphExec_st *CudaGraphRun;

enum {
  CUDA_OUT_OF_MEMORY = 2,
  CUDA_STUB_LIBRARY = 34,
  CUDA_NO_DEVICE = 100,
  CUDA_NO_BINARY = 209, /* no code in an image for this device */
  CUDA_BAD_PTX = 218,
  CUDA_NEWER_PTX = 222, /* than the driver knows */
  CUDA_OLD_DRIVER = 803,
  CUDA_ATTRIBUTE_PROCESSORS = 16,
  CUDA_ATTRIBUTE_MAJOR = 75, /* of the compute capability */
  CUDA_ATTRIBUTE_MINOR = 76,
  CUDA_STREAM_NON_BLOCKING = 1,
  CUDA_EVENT_DISABLE_TIMING = 2,
  CUDA_CAPTURE_THREAD_LOCAL = 1,
};

/* field, symbol, parameters */
#define CUDA_DRIVER_FUNCTIONS(X)                                                                                                 \
  X(init, "cuInit", (unsigned flags))                                                                                            \
  X(version, "cuDriverGetVersion", (int *version))                                                                               \
  X(error_name, "cuGetErrorName", (CudaResult result, const char **name))                                                        \
  X(error_text, "cuGetErrorString", (CudaResult result, const char **text))                                                      \
  X(device_count, "cuDeviceGetCount", (int *count))                                                                              \
  X(device_get, "cuDeviceGet", (int *device, int ordinal))                                                                       \
  X(device_name, "cuDeviceGetName", (char *name, int size, int device))                                                          \
  X(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, int device))                                           \
  X(context_retain, "cuDevicePrimaryCtxRetain", (CudaContext * context, int device))                                             \
  X(context_release, "cuDevicePrimaryCtxRelease_v2", (int device))                                                               \
  X(context_set, "cuCtxSetCurrent", (CudaContext context))                                                                       \
  X(memory_info, "cuMemGetInfo_v2", (size_t * free_bytes, size_t * total))                                                       \
  X(memory_alloc, "cuMemAlloc_v2", (CudaPointer * pointer, size_t bytes))                                                        \
  X(memory_free, "cuMemFree_v2", (CudaPointer pointer))                                                                          \
  X(host_alloc, "cuMemHostAlloc", (void **pointer, size_t bytes, unsigned flags))                                                \
  X(host_free, "cuMemFreeHost", (void *pointer))                                                                                 \
  X(copy_in, "cuMemcpyHtoDAsync_v2", (CudaPointer to, const void *from, size_t bytes, CudaStream stream))                        \
  X(copy_out, "cuMemcpyDtoHAsync_v2", (void *to, CudaPointer from, size_t bytes, CudaStream stream))                             \
  X(copy_within, "cuMemcpyDtoDAsync_v2", (CudaPointer to, CudaPointer from, size_t bytes, CudaStream stream))                    \
  X(fill, "cuMemsetD8Async", (CudaPointer to, unsigned char value, size_t bytes, CudaStream stream))                             \
  X(module_load, "cuModuleLoadData", (CudaModule * module, const void *image))                                                   \
  X(module_unload, "cuModuleUnload", (CudaModule module))                                                                        \
  X(module_function, "cuModuleGetFunction", (CudaFunction * function, CudaModule module, const char *name))                      \
  X(launch, "cuLaunchKernel",                                                                                                    \
    (CudaFunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,               \
     unsigned block_z, unsigned shared_bytes, CudaStream stream, void **parameters, void **extra))                               \
  X(stream_create, "cuStreamCreate", (CudaStream * stream, unsigned flags))                                                      \
  X(stream_destroy, "cuStreamDestroy_v2", (CudaStream stream))                                                                   \
  X(stream_wait, "cuStreamSynchronize", (CudaStream stream))                                                                     \
  X(capture_begin, "cuStreamBeginCapture_v2", (CudaStream stream, int mode))                                                     \
  X(capture_end, "cuStreamEndCapture", (CudaStream stream, CudaGraph * graph))                                                   \
  X(graph_nodes, "cuGraphGetNodes", (CudaGraph graph, CudaNode * nodes, size_t * count))                                         \
  X(graph_make, "cuGraphInstantiateWithFlags", (CudaGraphRun * made, CudaGraph graph, unsigned long long flags))                 \
  X(graph_launch, "cuGraphLaunch", (CudaGraphRun made, CudaStream stream))                                                       \
  X(graph_run_destroy, "cuGraphExecDestroy", (CudaGraphRun made))                                                                \
  X(graph_destroy, "cuGraphDestroy", (CudaGraph graph))                                                                          \
  X(event_create, "cuEventCreate", (CudaEvent * event, unsigned flags))                                                          \
  X(event_record, "cuEventRecord", (CudaEvent event, CudaStream stream))                                                         \
  X(event_wait, "cuEventSynchronize", (CudaEvent event))                                                                         \
  X(event_milliseconds, "cuEventElapsedTime", (float *milliseconds, CudaEvent start, CudaEvent end))                             \
  X(event_destroy, "cuEventDestroy_v2", (CudaEvent event))

typedef struct CudaDriver {
#define X(field, symbol, parameters) CudaResult(*field) parameters;
  CUDA_DRIVER_FUNCTIONS(X)
#undef X
  int device;
  int driver_version; /* 1000 * major + 10 * minor */
} CudaDriver;

typedef struct cublasContext *CublasHandle;

enum {
  CUBLAS_NO_TRANSPOSE = 0,
  CUBLAS_TRANSPOSE = 1,
  CUBLAS_F32 = 0, /* cudaDataType_t */
  CUBLAS_BF16 = 14,
  CUBLAS_SUM_F32 = 68, /* cublasComputeType_t */
  CUBLAS_SUM_F32_TF32 = 77,
  CUBLAS_ALGORITHM = -1, /* cublasGemmAlgo_t: the library's own choice, which depends on types and shapes alone */
  CUBLAS_DEFAULT_MATH = 0,
  CUBLAS_TF32_MATH = 3,
};

#define CUBLAS_FUNCTIONS(X)                                                                                                      \
  X(create, "cublasCreate_v2", (CublasHandle * handle))                                                                          \
  X(destroy, "cublasDestroy_v2", (CublasHandle handle))                                                                          \
  X(set_stream, "cublasSetStream_v2", (CublasHandle handle, CudaStream stream))                                                  \
  X(set_workspace, "cublasSetWorkspace_v2", (CublasHandle handle, void *workspace, size_t bytes))                                \
  X(set_math, "cublasSetMathMode", (CublasHandle handle, int mode))                                                              \
  X(version, "cublasGetVersion_v2", (CublasHandle handle, int *version))                                                         \
  X(product, "cublasGemmEx",                                                                                                     \
    (CublasHandle handle, int a_op, int b_op, int m, int n, int k, const void *alpha, const void *a, int a_type, int a_stride,   \
     const void *b, int b_type, int b_stride, const void *beta, void *c, int c_type, int c_stride, int compute, int algorithm))

typedef struct Cublas {
#define X(field, symbol, parameters) int(*field) parameters;
  CUBLAS_FUNCTIONS(X)
#undef X
} Cublas;

/* Opens the driver's library (or `emulator`), and its first device. The libraries stay open as long as the process: they leave
 * handlers behind. False: `err` says what is missing and what to do. */
bool cuda_driver_open(CudaDriver *driver, const char *emulator, Err *err);
/* Opens cuBLAS, of the version that fits the driver. */
bool cublas_open(Cublas *blas, const CudaDriver *driver, const char *emulator, Err *err);

/* True where `result` is success; else `err` says what was tried, formatted, and what the driver says. */
bool cuda_check(const CudaDriver *driver, CudaResult result, Err *err, const char *what, ...)
    __attribute__((format(printf, 4, 5)));
bool cublas_check(int status, Err *err, const char *what);

/* The device's compute capability: 90 for 9.0. */
bool cuda_capability(const CudaDriver *driver, int *capability, Err *err);

#endif
