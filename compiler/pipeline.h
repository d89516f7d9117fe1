/* pipeline: Model to Program, one straight function, a pass a line. */
#ifndef ADWP_COMPILER_PIPELINE_H
#define ADWP_COMPILER_PIPELINE_H

#include "compiler/emit/emit.h"
#include "compiler/lower.h"
#include "runtime/program.h"

typedef struct PipelineOptions {
  unsigned steps;                   /* STEP_... of lower.h */
  const Architecture *architecture; /* null: the whole model */
  const char *cpu;                  /* as emit_target_new */
  const char *cache;                /* the kernel cache's folder; null: none */
  int threads;                      /* to compile on */
  int32_t batch;                    /* largest B; 0: the model's */
} PipelineOptions;

/* A Program and the code it points to. */
typedef struct Compiled {
  const Program *program;
  EmitStatistics kernels;
} Compiled;

Compiled *pipeline_compile(const Model *model, const PipelineOptions *options, Err *err);
void pipeline_free(Compiled *compiled);

/* The text of one stage for `adwp emit`: "graph", "loop", "llvm" or "asm" of one step ("train_step", ...; null: all). */
bool pipeline_print(const Model *model, const PipelineOptions *options, const char *stage, const char *step, Text *out, Err *err);

#endif
