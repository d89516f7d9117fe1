/* How many bytes each launch of a schedule moves, and how few it could.
 *
 * Moved: each buffer that a launch reads and each that it writes (one that is read and written: both), once, at B = batch; but
 * not what lies in a worker's scratch, nor, on a CPU, what a launch before it in its run has touched already: that is in the
 * caches. Least: as if each value that is kept in memory were written once and read once in the whole step, whoever reads it: a
 * value that three launches read is a third of it for each. So least is at most moved, and what is above it comes from values
 * that are read or written by several launches far apart. */
#ifndef ADWP_COMPILER_TRAFFIC_H
#define ADWP_COMPILER_TRAFFIC_H

#include "compiler/pass/schedule.h"

typedef struct Traffic {
  int64_t read, written, least; /* bytes; least: of both */
} Traffic;

/* One a launch, in the schedule's order; in `arena`. */
Traffic *traffic_of(const Schedule *schedule, const KernelSet *kernels, int64_t batch, Arena *arena);

#endif
