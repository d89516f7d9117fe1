/* Random specs of the kernel families for a CPU, of 8 and 16 lanes: the Loop IR's interpreter against plain loops in double.
 * Arguments choose cases: `kernels_families_test CONV POOL_GRAD`, `... CONV case=17`, `... seed=3 cases=1000`; `print` also shows
 * each kernel. A failing case's message names them. */
#include "tests/numeric/families/families.h"

#include <stdio.h>

int main(int argc, char **argv) {
  FamilyOptions options = {.gpu = false};
  Err err;
  if (families_options(argc, argv, &options, &err) && families_run(&options, &err)) return 0;
  fprintf(stderr, "%s\n", err.text);
  return 1;
}
