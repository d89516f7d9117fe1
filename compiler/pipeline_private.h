/* What the files of the pipeline share: pipeline.c schedules and compiles, pipeline_program.c fills in the Program. */
#ifndef ADWP_COMPILER_PIPELINE_PRIVATE_H
#define ADWP_COMPILER_PIPELINE_PRIVATE_H

#include "compiler/pass/group.h"
#include "compiler/pipeline.h"

typedef struct Pipeline {
  Compiled compiled; /* first, so that the one can be told from the other */
  Arena *arena;
  Module *module;
  KernelSet kernels;
  VECTOR(Schedule *) schedules; /* one a step, in the module's order */
  EmitTarget *target;
  EmitCode *code;       /* of a GPU: of the last kernel alone, which makes batches */
  GroupSet groups;      /* of a GPU, as all below */
  int32_t **of_segment; /* of each schedule's segments the group; -1: none */
  EmitGroups *grouped;
} Pipeline;

const char *pipeline_precision_name(Products precision);

/* The code of a kernel for a GPU; null: it is launched in groups only. */
const EmitImage *pipeline_image(const Pipeline *p, size_t kernel);

/* Everything that the runtime needs; the code is there. */
void pipeline_fill_program(const Pipeline *p, const Model *model, Program *program);

#endif
