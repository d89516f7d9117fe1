/* CUDA as the machine has it: the driver's library, opened when first asked for. CUDA's types appear in runtime/cuda*.c only. */
#ifndef ADWP_RUNTIME_CUDA_H
#define ADWP_RUNTIME_CUDA_H

#include "runtime/base/err.h"

#include <stdint.h>

typedef struct CudaDevice {
  char name[128];  /* "NVIDIA H100 80GB HBM3" */
  char arch[16];   /* "sm_90": what its kernels are compiled for; of the emulator "cuda-emulator" */
  char driver[16]; /* the CUDA version that the driver speaks: "13.0" */
  int64_t memory_bytes, free_bytes;
  int32_t processors; /* streaming multiprocessors */
  char blas[128];     /* cuBLAS: its version, or what is missing */
  bool has_blas;
} CudaDevice;

/* What --device=cuda would use. `emulator`: the library that stands for the driver, or null for the driver itself. False: there
 * is no driver's library, it is too old, or there is no device; `err` says which, and what to do. */
bool cuda_find(const char *emulator, CudaDevice *device, Err *err);

/* The path of the emulator's library, which only a tests' build has: $ADWP_CUDA_EMULATOR, or libadwp_cuda_emulator.so beside the
 * running program. In `path`. False: `err` says that it is a device for tests, and where it was looked for. */
bool cuda_emulator_path(char path[4096], Err *err);

#endif
