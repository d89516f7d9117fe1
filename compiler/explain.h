/* What was fused with what in a step, what that should save, or what was in the way. */
#ifndef ADWP_COMPILER_EXPLAIN_H
#define ADWP_COMPILER_EXPLAIN_H

#include "compiler/machine.h"
#include "compiler/pass/fuse.h"

typedef struct Schedule Schedule;

/* What the model of costs expects of each pattern in a whole step: seconds saved beside the same step without that pattern alone.
 */
typedef struct FuseSavings {
  double seconds[FUSE_PATTERN_COUNT];
  int32_t count[FUSE_PATTERN_COUNT]; /* how often it was used */
} FuseSavings;

/* A line for every GeneratingBlock, convolution, BN, ReLU, pool and sum of the step, gradients too, then one for each pattern.
 * `savings` may be null. */
void explain_fusion(const Schedule *schedule, const MachineFigures *machine, Text *out, FuseSavings *savings);

#endif
