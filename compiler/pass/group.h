/* Groups: on a GPU all launches of a segment become one. */
#ifndef ADWP_COMPILER_PASS_GROUP_H
#define ADWP_COMPILER_PASS_GROUP_H

#include "compiler/pass/schedule.h"

typedef struct KernelGroup { /* the kernels that one grouped launch may run: ascending numbers, each once */
  uint32_t *kernels;
  uint32_t count;
} KernelGroup;

typedef struct GroupSet { /* of all steps of a module; in `arena` */
  Arena *arena;
  VECTOR(KernelGroup) groups;
} GroupSet;

/* Sorts the launches of each segment into runs: launches that depend on each other are of one task each, or do one image a task,
 * and a block does them one after another; what does not depend on each other is apart. Needs a schedule for a GPU, before it is
 * planned. */
void pass_group_runs(Schedule *schedule, const KernelSet *kernels);

/* Fills `groups` from all schedules of a module, and `of_segment` with the group of each schedule's segments; -1: it launches
 * only products. */
void pass_group(const Schedule *const *schedules, size_t count, GroupSet *groups, int32_t **of_segment);

/* Which of the group's kernels this one is. */
uint32_t group_body(const KernelGroup *group, int32_t kernel);

#endif
