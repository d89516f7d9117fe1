#include "runtime/cuda_driver.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { OLDEST_DRIVER = 12000, DRIVER_13 = 13000 };
#define DRIVER_LIBRARY "libcuda.so.1"

/* A function of a library and where its address goes: a pointer to the struct's field, seen as bytes. */
typedef struct Symbol {
  const char *name;
  size_t offset;
} Symbol;

static bool find_symbols(void *library, const char *path, const Symbol *symbols, size_t count, void *functions, Err *err) {
  for (size_t i = 0; i < count; i++) {
    void *address = dlsym(library, symbols[i].name);
    if (!address)
      return err_set(err, "%s has no function %s: it is too old, or not the library it is named for", path, symbols[i].name);
    memcpy((char *)functions + symbols[i].offset, &address, sizeof address);
  }
  return true;
}

static bool open_driver_library(CudaDriver *driver, const char *emulator, Err *err) {
  static const Symbol symbols[] = {
#define X(field, symbol, parameters) {symbol, offsetof(CudaDriver, field)},
      CUDA_DRIVER_FUNCTIONS(X)
#undef X
  };
  const char *path = emulator ? emulator : DRIVER_LIBRARY;
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library && emulator) return err_set(err, "cannot open the CUDA emulator: %s", dlerror());
  if (!library)
    return err_set(err,
                   "there is no CUDA driver on this machine (%s); NVIDIA's driver for the card brings it, and without a card "
                   "there is --device=cpu",
                   dlerror());
  return find_symbols(library, path, symbols, sizeof symbols / sizeof *symbols, driver, err);
}

static bool check_version(CudaDriver *driver, Err *err) {
  if (!driver->version) die("the CUDA driver was not opened");
  if (!cuda_check(driver, driver->version(&driver->driver_version), err, "cannot ask the CUDA driver for its version"))
    return false;
  int version = driver->driver_version;
  return version >= OLDEST_DRIVER ||
         err_set(err, "the CUDA driver speaks CUDA %d.%d, and %d.%d or newer is needed: update NVIDIA's driver", version / 1000,
                 version % 1000 / 10, OLDEST_DRIVER / 1000, OLDEST_DRIVER % 1000 / 10);
}

static bool find_device(CudaDriver *driver, Err *err) {
  int count = 0;
  CudaResult result = driver->init(0);
  if (!result) result = driver->device_count(&count);
  if (result == CUDA_NO_DEVICE || (!result && !count))
    return err_set(
        err, "the CUDA driver finds no GPU; see whether nvidia-smi lists one, and that CUDA_VISIBLE_DEVICES does not hide it");
  if (result == CUDA_STUB_LIBRARY)
    return err_set(err, "the %s that was found is the toolkit's stub and no driver: remove its folder from LD_LIBRARY_PATH",
                   DRIVER_LIBRARY);
  return cuda_check(driver, result, err, "cannot start the CUDA driver%s",
                    result == CUDA_OLD_DRIVER ? " (its library and the kernel's module are of different versions)" : "") &&
         cuda_check(driver, driver->device_get(&driver->device, 0), err, "cannot get the first GPU");
}

bool cuda_driver_open(CudaDriver *driver, const char *emulator, Err *err) {
  *driver = (CudaDriver){0};
  return open_driver_library(driver, emulator, err) && check_version(driver, err) && find_device(driver, err);
}

/* By the loader's own paths, then where the toolkit lies unless told otherwise. */
static void *open_blas_library(const CudaDriver *driver, const char **path) {
  static const char *const newest[] = {"libcublas.so.13", "/usr/local/cuda/lib64/libcublas.so.13"};
  static const char *const older[] = {"libcublas.so.12", "/usr/local/cuda/lib64/libcublas.so.12"};
  void *library = NULL;
  for (int i = 0; i < 2 && !library && driver->driver_version >= DRIVER_13; i++)
    library = dlopen(*path = newest[i], RTLD_NOW | RTLD_LOCAL);
  for (int i = 0; i < 2 && !library; i++) library = dlopen(*path = older[i], RTLD_NOW | RTLD_LOCAL);
  return library;
}

bool cublas_open(Cublas *blas, const CudaDriver *driver, const char *emulator, Err *err) {
  static const Symbol symbols[] = {
#define X(field, symbol, parameters) {symbol, offsetof(Cublas, field)},
      CUBLAS_FUNCTIONS(X)
#undef X
  };
  const char *path = emulator;
  void *library = emulator ? dlopen(emulator, RTLD_NOW | RTLD_LOCAL) : open_blas_library(driver, &path);
  if (!library)
    return err_set(err,
                   "there is no cuBLAS for this driver (%s); it comes with the CUDA toolkit, or NVIDIA's package of cuBLAS "
                   "alone: add its folder to LD_LIBRARY_PATH",
                   driver->driver_version >= DRIVER_13 ? "libcublas.so.13 or libcublas.so.12" : "libcublas.so.12");
  return find_symbols(library, path, symbols, sizeof symbols / sizeof *symbols, blas, err);
}

bool cuda_check(const CudaDriver *driver, CudaResult result, Err *err, const char *what, ...) {
  if (!result) return true;
  const char *name = NULL, *text = NULL;
  driver->error_name(result, &name);
  driver->error_text(result, &text);
  char tried[256];
  va_list arguments;
  va_start(arguments, what);
  vsnprintf(tried, sizeof tried, what, arguments);
  va_end(arguments);
  return err_set(err, "%s: %s (%s, %d)", tried, text ? text : "an error that the driver cannot name", name ? name : "unknown",
                 result);
}

bool cublas_check(int status, Err *err, const char *what) {
  static const char *const names[16] = {
      [1] = "not initialized", [3] = "no memory",         [7] = "invalid value",   [8] = "wrong architecture",
      [11] = "mapping error",  [13] = "execution failed", [14] = "internal error", [15] = "not supported"};
  const char *name = status > 0 && status < 16 ? names[status] : NULL;
  return !status || err_set(err, "%s: cuBLAS says %d, %s", what, status, name ? name : "unknown");
}

bool cuda_capability(const CudaDriver *driver, int *capability, Err *err) {
  int major = 0, minor = 0;
  CudaResult result = driver->device_attribute(&major, CUDA_ATTRIBUTE_MAJOR, driver->device);
  if (!result) result = driver->device_attribute(&minor, CUDA_ATTRIBUTE_MINOR, driver->device);
  *capability = 10 * major + minor;
  return cuda_check(driver, result, err, "cannot ask the GPU what it is");
}
