/* The list of families as a table. */
#include "kernels/family.h"

#include "runtime/base/err.h"

LoopKernel *family_build(Family family, const void *spec, Arena *arena) {
  switch (family) {
#define FAMILY(NAME, function, Spec)                                                                                             \
  case FAMILY_##NAME:                                                                                                            \
    return function(spec, arena);
#include "kernels/families.def"
#undef FAMILY
  case FAMILY_COUNT: break;
  }
  die("no kernel family %d", (int)family);
}

size_t family_spec_bytes(Family family) {
  static const size_t bytes[FAMILY_COUNT] = {
#define FAMILY(NAME, function, Spec) sizeof(Spec),
#include "kernels/families.def"
#undef FAMILY
  };
  return bytes[family];
}

const char *family_name(Family family) {
  static const char *const names[FAMILY_COUNT] = {
#define FAMILY(NAME, function, Spec) #function,
#include "kernels/families.def"
#undef FAMILY
  };
  return names[family];
}
