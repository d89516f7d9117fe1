/* The driver's interface: one device, its memory, modules and launches. Device pointers are addresses of this process. */
#include "tests/emulator/stream.h"

#include <stdio.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char remembered[1024];

void emulator_lock(void) {
  pthread_mutex_lock(&lock);
}
void emulator_unlock(void) {
  pthread_mutex_unlock(&lock);
}
void emulator_remember(const char *message) {
  snprintf(remembered, sizeof remembered, "%s", message);
}
const char *emulator_remembered(void) {
  return remembered;
}

static void *pointer_of(CUdeviceptr address) {
  return (void *)(uintptr_t)address;
}

/* ---- errors ---- */

static const struct {
  CUresult error;
  const char *name, *text;
} errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a kernel's text does not compile"},
    {CUDA_ERROR_JIT_COMPILER_NOT_FOUND, "CUDA_ERROR_JIT_COMPILER_NOT_FOUND", "there is no C compiler"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error "
     "during capture"},
    {CUDA_ERROR_CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT",
     "operation not permitted on an event last recorded in a capturing "
     "stream"},
};

static int find_error(CUresult error) {
  for (int i = 0; i < (int)(sizeof errors / sizeof *errors); i++)
    if (errors[i].error == error) return i;
  return -1;
}

EMULATOR_EXPORT CUresult cuGetErrorName(CUresult error, const char **name) {
  int i = find_error(error);
  *name = i < 0 ? NULL : errors[i].name;
  return i < 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

/* Of what only this device can say, the message itself. */
EMULATOR_EXPORT CUresult cuGetErrorString(CUresult error, const char **text) {
  int i = find_error(error);
  *text = i < 0 ? NULL : errors[i].text;
  bool own = error == CUDA_ERROR_INVALID_PTX || error == CUDA_ERROR_JIT_COMPILER_NOT_FOUND || error == CUDA_ERROR_LAUNCH_FAILED ||
             error == CUDA_ERROR_INVALID_IMAGE;
  if (own && *remembered) *text = remembered;
  return i < 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

/* ---- the device ---- */

EMULATOR_EXPORT CUresult cuInit(unsigned flags) {
  return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuDriverGetVersion(int *version) {
  *version = 13000;
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuDeviceGetCount(int *count) {
  *count = 1;
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  *device = ordinal;
  return ordinal ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
  if (device || size <= 0) return CUDA_ERROR_INVALID_VALUE;
  snprintf(name, (size_t)size, "CUDA emulator");
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  switch (attribute) {
  case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = EMULATOR_MOST_THREADS; break;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *value = EMULATOR_SHARED_BYTES; break;
  case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = EMULATOR_WARP; break;
  case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: *value = 65536; break;
  case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
  case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = 1000000; break;
  case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *value = 64; break;
  case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 1 << 20; break;
  case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 1; break;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 8; break;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
  default: *value = 0; return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  *bytes = memory_total();
  return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  *context = (CUcontext)(void *)remembered; /* any address that is not null */
  return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
  return !context || context == (CUcontext)(void *)remembered ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

EMULATOR_EXPORT CUresult cuCtxSynchronize(void) {
  if (stream_any_captured()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  emulator_lock();
  CUresult result = stream_finish();
  emulator_unlock();
  return result;
}

/* ---- memory ---- */

EMULATOR_EXPORT CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
  *total = memory_total();
  *available = *total - memory_used();
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
  if (!pointer || !bytes) return CUDA_ERROR_INVALID_VALUE;
  emulator_lock();
  void *memory = NULL;
  CUresult result = CUDA_SUCCESS;
  if (stream_any_captured())
    result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  else if (!memory_device_alloc(&memory, bytes))
    result = CUDA_ERROR_OUT_OF_MEMORY;
  *pointer = (CUdeviceptr)(uintptr_t)memory;
  emulator_unlock();
  return result;
}

EMULATOR_EXPORT CUresult cuMemFree_v2(CUdeviceptr pointer) {
  if (!pointer) return CUDA_SUCCESS;
  emulator_lock();
  CUresult result = CUDA_SUCCESS;
  if (stream_any_captured())
    result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  else if ((result = stream_finish()) == CUDA_SUCCESS && !memory_device_free(pointer_of(pointer)))
    result = CUDA_ERROR_INVALID_VALUE;
  emulator_unlock();
  return result;
}

EMULATOR_EXPORT CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
  (void)flags;
  if (!pointer || !bytes) return CUDA_ERROR_INVALID_VALUE;
  emulator_lock();
  *pointer = malloc(bytes);
  if (*pointer) memory_pin(*pointer, bytes);
  emulator_unlock();
  return *pointer ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

EMULATOR_EXPORT CUresult cuMemFreeHost(void *pointer) {
  emulator_lock();
  CUresult result = stream_finish();
  if (!memory_unpin(pointer))
    result = CUDA_ERROR_INVALID_VALUE;
  else
    free(pointer);
  emulator_unlock();
  return result;
}

/* Puts a copy or a set into the stream, whose device memory must be there. */
static CUresult submit(CUstream stream, const Node *node, const void *first, const void *second, const char *what) {
  if (!node->bytes) return CUDA_SUCCESS;
  if (memory_holds(first, node->bytes) && memory_holds(second, node->bytes)) return stream_submit(stream, node);
  char message[200];
  snprintf(message, sizeof message, "%s of %zu bytes: they do not lie in one allocation of device memory", what, node->bytes);
  emulator_report(message);
  return CUDA_ERROR_INVALID_VALUE;
}

/* Host memory that is not pinned is read before the call returns, and what is copied to it is there when it returns. */
EMULATOR_EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  Node node = {.kind = NODE_COPY, .to = pointer_of(to), .from = from, .bytes = bytes};
  CUstreamCaptureStatus status;
  cuStreamIsCapturing(stream, &status);
  emulator_lock();
  if (status == CU_STREAM_CAPTURE_STATUS_NONE && stream_is_late() && bytes && !memory_is_pinned(from, bytes)) {
    node.from = node.staged = memory_alloc(bytes);
    memcpy(node.staged, from, bytes);
  }
  CUresult result = submit(stream, &node, node.to, node.to, "cuMemcpyHtoDAsync");
  if (result != CUDA_SUCCESS) free(node.staged);
  emulator_unlock();
  return result;
}

EMULATOR_EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  const Node node = {.kind = NODE_COPY, .to = to, .from = pointer_of(from), .bytes = bytes};
  CUstreamCaptureStatus status;
  cuStreamIsCapturing(stream, &status);
  emulator_lock();
  CUresult result = submit(stream, &node, node.from, node.from, "cuMemcpyDtoHAsync");
  if (status == CU_STREAM_CAPTURE_STATUS_NONE && result == CUDA_SUCCESS && !memory_is_pinned(to, bytes)) result = stream_finish();
  emulator_unlock();
  return result;
}

EMULATOR_EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  const Node node = {.kind = NODE_COPY, .to = pointer_of(to), .from = pointer_of(from), .bytes = bytes};
  emulator_lock();
  CUresult result = submit(stream, &node, node.to, node.from, "cuMemcpyDtoDAsync");
  emulator_unlock();
  return result;
}

EMULATOR_EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
  const Node node = {.kind = NODE_SET, .to = pointer_of(to), .value = value, .bytes = bytes};
  emulator_lock();
  CUresult result = submit(stream, &node, node.to, node.to, "cuMemsetD8Async");
  emulator_unlock();
  return result;
}

/* ---- modules and launches ---- */

EMULATOR_EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  if (!module || !image) return CUDA_ERROR_INVALID_VALUE;
  emulator_lock();
  Err err;
  Module *made = compile_add(image, &err);
  if (!made) emulator_remember(err.text);
  *module = (CUmodule)(void *)made;
  emulator_unlock();
  return made ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

EMULATOR_EXPORT CUresult cuModuleUnload(CUmodule module) {
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  emulator_lock();
  compile_forget((Module *)(void *)module);
  emulator_unlock();
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  const Module *own = (Module *)(void *)module;
  if (!function || !module || !name) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < own->kernels.count; i++) {
    if (strcmp(own->kernels.data[i]->symbol, name) != 0) continue;
    *function = (CUfunction)(void *)own->kernels.data[i];
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_NOT_FOUND;
}

EMULATOR_EXPORT CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
  if (!value || !function) return CUDA_ERROR_INVALID_VALUE;
  *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? EMULATOR_MOST_THREADS : 0;
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                                        unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream,
                                        void **parameters, void **extra) {
  if (!function || !parameters || extra || !grid_x || grid_x > 0x7fffffff || grid_y != 1 || grid_z != 1)
    return CUDA_ERROR_INVALID_VALUE;
  if (!block_x || block_x > EMULATOR_MOST_THREADS || block_y != 1 || block_z != 1) return CUDA_ERROR_INVALID_VALUE;
  Kernel *kernel = (Kernel *)(void *)function; /* shared memory beyond a kernel's own arrays is a group's */
  if (shared_bytes > (kernel->bodies.count ? EMULATOR_SHARED_BYTES : 0)) return CUDA_ERROR_INVALID_VALUE;
  const Node node = {.kind = NODE_LAUNCH, .launch = {kernel, grid_x, block_x, parameters, shared_bytes}};
  emulator_lock();
  CUresult result = stream_submit(stream, &node);
  emulator_unlock();
  return result;
}
