/* The list of families as a table. */
#include "kernels/family_private.h"

#include "runtime/base/err.h"

LoopKernel *family_build(Family family, const void *spec, Arena *arena) {
  bool for_gpu = ((const KernelTarget *)spec)->gpu;
  if (for_gpu && !family_for_gpu(family)) die("%s has no schedule for GPUs", family_name(family));
  switch (family) {
#define FAMILY(NAME, cpu, gpu, Spec)                                                                                             \
  case FAMILY_##NAME:                                                                                                            \
    return for_gpu ? gpu(spec, arena) : cpu(spec, arena);
#include "kernels/families.def"
#undef FAMILY
  case FAMILY_COUNT: break;
  }
  die("no kernel family %d", (int)family);
}

size_t family_spec_bytes(Family family) {
  static const size_t bytes[FAMILY_COUNT] = {
#define FAMILY(NAME, cpu, gpu, Spec) sizeof(Spec),
#include "kernels/families.def"
#undef FAMILY
  };
  return bytes[family];
}

const char *family_name(Family family) {
  static const char *const names[FAMILY_COUNT] = {
#define FAMILY(NAME, cpu, gpu, Spec) #NAME,
#include "kernels/families.def"
#undef FAMILY
  };
  return names[family];
}

bool family_for_gpu(Family family) {
  static const bool has[FAMILY_COUNT] = {
#define FAMILY(NAME, cpu, gpu, Spec) true,
#define CPU_FAMILY(NAME, cpu, Spec) false,
#include "kernels/families.def"
#undef FAMILY
  };
  return has[family];
}
