/* pipeline: Model to Program, one straight function, a pass a line. */
#ifndef ADWP_COMPILER_PIPELINE_H
#define ADWP_COMPILER_PIPELINE_H

#include "compiler/emit/emit.h"
#include "compiler/lower.h"
#include "compiler/pass/fuse.h"
#include "compiler/pass/pass.h"
#include "kernels/family.h"
#include "runtime/program.h"

typedef struct PipelineOptions {
  unsigned steps;                   /* STEP_... of lower.h */
  const Architecture *architecture; /* null: the whole model */
  const char *device;               /* "cpu", "cuda", "cuda-emulator"; null: cpu */
  const char *cpu;                  /* as emit_target_new */
  const char *arch;                 /* as emit_target_cuda, for "cuda" */
  Products precision;               /* of a GPU; with bf16 activations are stored so, too */
  const char *cache;                /* the kernel cache's folder; null: none */
  int threads;                      /* to compile on */
  int32_t batch;                    /* largest B; 0: the model's */
  PassWatch *watch;                 /* told of each graph pass; null: nobody */
  void *watch_context;
  FuseOptions fuse;
} PipelineOptions;

/* A Program and the code it points to. */
typedef struct Compiled {
  const Program *program;
  EmitStatistics kernels;
} Compiled;

Compiled *pipeline_compile(const Model *model, const PipelineOptions *options, Err *err);
void pipeline_free(Compiled *compiled);

/* What a program's kernel takes of a GPU; of one that is launched in groups only, as they run it. */
const EmitResources *pipeline_resources(const Compiled *compiled, uint32_t kernel);

/* The text of one stage for `adwp emit`, of one step ("train_step", ...; null: all). The sink is called once with "lower" (before
 * all passes), a graph pass's name (after it) or "graph" (after all of them), or once a kernel in the order of the launches
 * ("loop"; "llvm", "asm"; "cuda", "ptx", "cubin"); `name` is null or the kernel's. */
typedef bool PipelineSink(void *context, const char *name, const Text *text, Err *err);
bool pipeline_print(const Model *model, const PipelineOptions *options, const char *stage, const char *step, PipelineSink *sink,
                    void *context, Err *err);

typedef struct MachineFigures MachineFigures;
typedef struct FuseSavings FuseSavings;
/* What was fused in one step (null: in all; then `savings` is the last one's), as explain_fusion says it. */
bool pipeline_explain(const Model *model, const PipelineOptions *options, const char *step, const MachineFigures *machine,
                      Text *out, FuseSavings *savings, Err *err);

/* The name of a precision ("fp32", "tf32", "bf16"); false: no such. */
bool pipeline_precision(const char *name, Products *precision);

#endif
