/* Running Loop kernels on a device of CUDA, for tests: emitted as text or cubins, all of a set at once, since the emulator
 * compiles what is loaded together. The device is the emulator, or with ADWP_TEST_DEVICE=cuda the first GPU. On the emulator a
 * kernel runs in several orders of blocks and threads and leaves the interpreter's very bits; a GPU has an order of its own, sums
 * within mma in an order that nobody tells, and has its own exp and log. */
#ifndef ADWP_TESTS_NUMERIC_EMULATOR_DEVICE_H
#define ADWP_TESTS_NUMERIC_EMULATOR_DEVICE_H

#include "compiler/emit/emit.h"
#include "runtime/cuda.h"
#include "runtime/cuda_driver.h"
#include "tests/emulator/control.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEVICE_ORDERS = 3, DEVICE_MOST_BUFFERS = 64 };

typedef void DeviceSetOrder(EmulatorOrder order, uint64_t seed);
typedef void DeviceSetHook(EmulatorHook *hook, void *context);

typedef struct Device {
  CudaDriver driver;
  DeviceSetOrder *set_order; /* null: a GPU */
  char arch[16];             /* empty: it is not open yet */
} Device;

static Device device;
static char device_fault[1200]; /* what the emulator found last */

static inline void device_remember(void *context, const char *message) {
  (void)context;
  snprintf(device_fault, sizeof device_fault, "%s", message);
}

/* The emulator's functions that no driver has. */
static inline bool device_open_emulator(const char *path, Err *err) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  void *order = library ? dlsym(library, "adwp_emulator_set_order") : NULL;
  void *hook = library ? dlsym(library, "adwp_emulator_set_hook") : NULL;
  if (!order || !hook) return err_set(err, "%s is no emulator of CUDA", path);
  DeviceSetHook *set_hook;
  memcpy(&device.set_order, &order, sizeof order);
  memcpy(&set_hook, &hook, sizeof hook);
  set_hook(device_remember, NULL);
  return true;
}

static inline bool device_open(Err *err) {
  if (device.arch[0]) return true;
  const char *wanted = getenv("ADWP_TEST_DEVICE"), *emulator = getenv("ADWP_CUDA_EMULATOR");
  CudaDevice found;
  CudaContext context;
  if (!emulator) emulator = "libadwp_cuda_emulator.so"; /* with which the test is linked */
  if (wanted && !strcmp(wanted, "cuda")) emulator = NULL;
  if ((emulator && !device_open_emulator(emulator, err)) || !cuda_find(emulator, &found, err) ||
      !cuda_driver_open(&device.driver, emulator, err) ||
      !cuda_check(&device.driver, device.driver.context_retain(&context, device.driver.device), err, "cannot use the GPU") ||
      !cuda_check(&device.driver, device.driver.context_set(context), err, "cannot use the GPU"))
    return false;
  snprintf(device.arch, sizeof device.arch, "%s", found.arch);
  return true;
}

/* In how many orders a kernel is worth running. */
static inline int device_orders(void) {
  return device.set_order ? DEVICE_ORDERS : 1;
}

/* Emits the kernels and loads them. `functions` gets one each. */
static inline bool device_load(const LoopKernel *const *kernels, size_t count, CudaFunction *functions, Err *err) {
  if (!device_open(err)) return false;
  EmitTarget *target = emit_target_cuda(device.arch, err);
  if (!target) return false;
  EmitCode *code = emit_compile(target, kernels, count, (int)sysconf(_SC_NPROCESSORS_ONLN), NULL, NULL, err);
  bool ok = code != NULL;
  for (size_t i = 0; ok && i < count; i++) {
    const EmitImage *image = emit_code_image(code, i);
    CudaModule module;
    ok = cuda_check(&device.driver, device.driver.module_load(&module, image->data), err, "kernel %s: it is refused",
                    kernels[i]->name) &&
         cuda_check(&device.driver, device.driver.module_function(&functions[i], module, image->symbol), err,
                    "kernel %s: its module lacks it", kernels[i]->name);
  }
  emit_code_free(code);
  emit_target_free(target);
  return ok;
}

static inline bool device_copy_in(const LoopKernel *k, const LoopBuffer *buffers, CudaPointer *memory, int *made, Err *err) {
  for (*made = 0; *made < k->buffer_count; (*made)++) {
    size_t bytes = (size_t)(buffers[*made].count * loop_element_bytes(k->arrays.data[*made].element));
    if (!cuda_check(&device.driver, device.driver.memory_alloc(&memory[*made], bytes ? bytes : 1), err, "no memory for %zu bytes",
                    bytes))
      return false;
    CudaResult result = device.driver.copy_in(memory[*made], buffers[*made].data, bytes, NULL);
    if (!cuda_check(&device.driver, result, err, "cannot copy %zu bytes in", bytes)) return false;
  }
  return true;
}

static inline bool device_launch(CudaFunction function, const LoopKernel *k, void **parameters, int64_t tasks, int order,
                                 Err *err) {
  if (device.set_order)
    device.set_order(order == 0 ? EMULATOR_FORWARD : order == 1 ? EMULATOR_BACKWARD : EMULATOR_RANDOM, (uint64_t)order);
  snprintf(device_fault, sizeof device_fault, "no fault");
  CudaResult result = device.driver.launch(function, (unsigned)tasks, 1, 1, (unsigned)k->lanes, 1, 1, 0, NULL, parameters, NULL);
  if (!result) result = device.driver.stream_wait(NULL);
  return cuda_check(&device.driver, result, err, "kernel %s, order %d", k->name, order);
}

/* Runs all tasks on copies of the buffers in memory of the device, in one of the orders, and copies them back. */
static inline bool device_run(CudaFunction function, const LoopKernel *k, const LoopBuffer *buffers, int64_t batch, int64_t tasks,
                              int order, Err *err) {
  CudaPointer memory[DEVICE_MOST_BUFFERS] = {0};
  void *parameters[DEVICE_MOST_BUFFERS + 1];
  int b = (int)batch, made = 0;
  for (int i = 0; i < k->buffer_count; i++) parameters[i] = &memory[i];
  parameters[k->buffer_count] = &b;
  bool ok = device_copy_in(k, buffers, memory, &made, err) && device_launch(function, k, parameters, tasks, order, err);
  for (int i = 0; i < made; i++) {
    size_t bytes = (size_t)(buffers[i].count * loop_element_bytes(k->arrays.data[i].element));
    if (ok) device.driver.copy_out(buffers[i].data, memory[i], bytes, NULL);
  }
  if (ok) ok = cuda_check(&device.driver, device.driver.stream_wait(NULL), err, "kernel %s: what it left", k->name);
  for (int i = 0; i < made; i++) device.driver.memory_free(memory[i]);
  return ok;
}

/* How far from the interpreter's results a kernel's may be, in norm; 0: not a bit. */
static inline double device_tolerance(const LoopKernel *k) {
  double tolerance = 0;
  for (size_t i = 0; !device.set_order && i < k->code.count; i++) {
    const LoopInstr *instr = &k->code.data[i];
    double own = 0;
    if (instr->op == LOOP_MMA) own = k->arrays.data[instr->array].element == LOOP_ELEMENT_BF16 ? 1e-2 : 2e-3;
    if (instr->op == LOOP_EXP || instr->op == LOOP_LOG) own = 1e-5;
    tolerance = fmax(tolerance, own);
  }
  for (int i = 0; tolerance > 0 && i < k->buffer_count; i++) /* what is rounded to bf16 may fall on either side */
    if (k->arrays.data[i].element == LOOP_ELEMENT_BF16) tolerance = fmax(tolerance, 1e-2);
  return tolerance;
}

static inline double device_element(LoopElement element, const void *data, int64_t i) {
  switch (element) {
  case LOOP_ELEMENT_F32: return (double)((const float *)data)[i];
  case LOOP_ELEMENT_F64: return ((const double *)data)[i];
  case LOOP_ELEMENT_BF16: return (double)loop_from_bf16(((const uint16_t *)data)[i]);
  case LOOP_ELEMENT_I32: return (double)((const int32_t *)data)[i];
  case LOOP_ELEMENT_U8: return (double)((const uint8_t *)data)[i];
  }
  return NAN;
}

/* The index of the first element that is too far off (that the norm says so: of the largest error), or -1. */
static inline int64_t device_differs(LoopElement element, const void *got, const void *want, int64_t count, double tolerance) {
  size_t size = (size_t)loop_element_bytes(element);
  double error = 0, norm = 0, largest = -1;
  int64_t worst = -1;
  for (int64_t i = 0; i < count; i++) {
    bool same = !memcmp((const char *)got + (size_t)i * size, (const char *)want + (size_t)i * size, size);
    if (!same && tolerance == 0) return i;
    double x = device_element(element, got, i), y = device_element(element, want, i);
    if (isfinite(y)) norm += y * y;
    if (same) continue;
    if (!isfinite(x) || !isfinite(y)) return i;
    error += (x - y) * (x - y);
    if (fabs(x - y) > largest) largest = fabs(x - y), worst = i;
  }
  return error <= tolerance * tolerance * norm ? -1 : worst;
}

#endif
