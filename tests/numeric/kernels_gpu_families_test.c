/* Random specs of the kernel families for a GPU, in blocks of 64 to 256 threads, products of every kind, f32 and bf16 planes,
 * tasks of several images and of bands: the Loop IR's interpreter against plain loops in double. Shared memory and threads stay
 * within the target's limits.
 * Arguments choose cases: `kernels_gpu_families_test CONV POOL_GRAD`, `... CONV case=17`, `... seed=3 cases=1000`; `print` also
 * shows each kernel. A failing case's message names them. */
#include "tests/numeric/families/families.h"

#include <stdio.h>

int main(int argc, char **argv) {
  FamilyOptions options = {.gpu = true};
  Err err;
  if (families_options(argc, argv, &options, &err) && families_run(&options, &err)) return 0;
  fprintf(stderr, "%s\n", err.text);
  return 1;
}
