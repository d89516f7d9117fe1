#include "runtime/cuda.h"

#include "runtime/cuda_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* cuBLAS is a matter of its own: a device without it is still a device. */
static void describe_blas(const CudaDriver *driver, const char *emulator, CudaDevice *device) {
  Err err;
  Cublas blas;
  CublasHandle handle = NULL;
  int version = 0;
  device->has_blas = cublas_open(&blas, driver, emulator, &err) &&
                     cublas_check(blas.create(&handle), &err, "cannot start cuBLAS") &&
                     cublas_check(blas.version(handle, &version), &err, "cannot ask cuBLAS for its version");
  if (device->has_blas) /* 10000 * major + 100 * minor + patch */
    snprintf(device->blas, sizeof device->blas, "cuBLAS %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
  else
    snprintf(device->blas, sizeof device->blas, "%.*s", (int)sizeof device->blas - 1, err.text);
  if (handle) blas.destroy(handle);
}

static bool describe(const CudaDriver *driver, const char *emulator, CudaDevice *device, Err *err) {
  size_t available = 0, total = 0;
  int capability = 0;
  if (!cuda_check(driver, driver->device_name(device->name, sizeof device->name, driver->device), err,
                  "cannot ask the GPU its name") ||
      !cuda_check(driver, driver->device_attribute(&device->processors, CUDA_ATTRIBUTE_PROCESSORS, driver->device), err,
                  "cannot ask the GPU how many processors it has") ||
      !cuda_capability(driver, &capability, err) ||
      !cuda_check(driver, driver->memory_info(&available, &total), err, "cannot ask the GPU how much memory it has"))
    return false;
  if (emulator)
    snprintf(device->arch, sizeof device->arch, "cuda-emulator");
  else
    snprintf(device->arch, sizeof device->arch, "sm_%d", capability);
  snprintf(device->driver, sizeof device->driver, "%d.%d", driver->driver_version / 1000, driver->driver_version % 1000 / 10);
  device->memory_bytes = (int64_t)total;
  device->free_bytes = (int64_t)available;
  describe_blas(driver, emulator, device);
  return true;
}

bool cuda_find(const char *emulator, CudaDevice *device, Err *err) {
  CudaDriver driver;
  CudaContext context;
  *device = (CudaDevice){0};
  if (!cuda_driver_open(&driver, emulator, err) ||
      !cuda_check(&driver, driver.context_retain(&context, driver.device), err, "cannot use the GPU"))
    return false;
  bool done =
      cuda_check(&driver, driver.context_set(context), err, "cannot use the GPU") && describe(&driver, emulator, device, err);
  driver.context_set(NULL);
  driver.context_release(driver.device);
  return done;
}

#define EMULATOR_NAME "libadwp_cuda_emulator.so"

bool cuda_emulator_path(char path[4096], Err *err) {
  enum { SIZE = 4096 };
  const char *given = getenv("ADWP_CUDA_EMULATOR");
  char program[SIZE - 64];
  ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  program[length > 0 ? length : 0] = 0;
  char *slash = strrchr(program, '/');
  if (slash) *slash = 0;
  if (given && strlen(given) >= SIZE) return err_set(err, "ADWP_CUDA_EMULATOR names no file: it is too long");
  if (given)
    snprintf(path, SIZE, "%s", given);
  else
    snprintf(path, SIZE, "%s/%s", slash ? program : ".", EMULATOR_NAME);
  return access(path, R_OK) == 0 ||
         err_set(
             err,
             "the CUDA emulator is a device for tests and in no built program: there is no %.800s; a build with tests makes it, "
             "and ADWP_CUDA_EMULATOR names one that lies elsewhere",
             path);
}
