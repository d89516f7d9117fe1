/* Running Loop kernels on the CUDA emulator, for tests: emitted as text, all of a set at once, since the emulator compiles what
 * is loaded together. */
#ifndef ADWP_TESTS_NUMERIC_EMULATOR_DEVICE_H
#define ADWP_TESTS_NUMERIC_EMULATOR_DEVICE_H

#include "compiler/emit/emit.h"
#include "tests/emulator/control.h"
#include "tests/emulator/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICE_ORDERS = 3, DEVICE_MOST_BUFFERS = 64 };

static char device_fault[1200]; /* what the emulator found last */

static inline void device_remember(void *context, const char *message) {
  (void)context;
  snprintf(device_fault, sizeof device_fault, "%s", message);
}

/* Emits the kernels and loads them. `functions` gets one each. */
static inline bool device_load(const LoopKernel *const *kernels, size_t count, CUfunction *functions, Err *err) {
  adwp_emulator_set_hook(device_remember, NULL);
  EmitTarget *target = emit_target_cuda("cuda-emulator", err);
  if (!target) return false;
  EmitCode *code = emit_compile(target, kernels, count, 1, NULL, NULL, err);
  bool ok = code != NULL;
  for (size_t i = 0; ok && i < count; i++) {
    const EmitImage *image = emit_code_image(code, i);
    CUmodule module;
    ok = cuModuleLoadData(&module, image->data) == CUDA_SUCCESS &&
         cuModuleGetFunction(&functions[i], module, image->symbol) == CUDA_SUCCESS;
    if (!ok) err_set(err, "kernel %s: its text is refused", kernels[i]->name);
  }
  emit_code_free(code);
  emit_target_free(target);
  return ok;
}

/* Runs all tasks on copies of the buffers in memory of the device, in one of the orders, and copies them back. */
static inline bool device_run(CUfunction function, const LoopKernel *k, const LoopBuffer *buffers, int64_t batch, int64_t tasks,
                              int order, Err *err) {
  CUdeviceptr memory[DEVICE_MOST_BUFFERS];
  void *parameters[DEVICE_MOST_BUFFERS + 1];
  int b = (int)batch;
  for (int i = 0; i < k->buffer_count; i++) {
    size_t bytes = (size_t)(buffers[i].count * loop_element_bytes(k->arrays.data[i].element));
    if (cuMemAlloc_v2(&memory[i], bytes) != CUDA_SUCCESS) return err_set(err, "no memory for %zu bytes", bytes);
    cuMemcpyHtoDAsync_v2(memory[i], buffers[i].data, bytes, NULL);
    parameters[i] = &memory[i];
  }
  parameters[k->buffer_count] = &b;
  adwp_emulator_set_order(order == 0 ? EMULATOR_FORWARD : order == 1 ? EMULATOR_BACKWARD : EMULATOR_RANDOM, (uint64_t)order);
  snprintf(device_fault, sizeof device_fault, "no fault");
  CUresult result = cuLaunchKernel(function, (unsigned)tasks, 1, 1, (unsigned)k->lanes, 1, 1, 0, NULL, parameters, NULL);
  const char *text;
  cuGetErrorString(result, &text);
  for (int i = 0; i < k->buffer_count; i++) {
    cuMemcpyDtoHAsync_v2(buffers[i].data, memory[i], (size_t)(buffers[i].count * loop_element_bytes(k->arrays.data[i].element)),
                         NULL);
    cuMemFree_v2(memory[i]);
  }
  return result == CUDA_SUCCESS || err_set(err, "kernel %s, order %d: %s", k->name, order, text);
}

#endif
