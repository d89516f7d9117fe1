/* What the files of the CUDA emitter share: cuda.c writes a kernel's text (cuda_value.c: numbers, cuda_memory.c: arrays), nvrtc.c
 * compiles it. The words of the text are explained in kernels/prelude.cu. */
#ifndef ADWP_COMPILER_EMIT_CUDA_PRIVATE_H
#define ADWP_COMPILER_EMIT_CUDA_PRIVATE_H

#include "compiler/emit/emit.h"

extern const char emit_prelude[]; /* kernels/prelude.cu */

enum { CUDA_MAX_SHARED = 48 << 10, CUDA_MAX_THREADS = 1024, CUDA_WARP = 32 };

/* Whether a verified kernel can be a block of a GPU. */
bool cuda_fits(const LoopKernel *k, Err *err);

/* Of its shared arrays and sums. */
int64_t cuda_shared_bytes(const LoopKernel *k);

/* Adds the text of a verified kernel that fits, without the prelude. The kernel's name is no part of it. */
void cuda_text(const LoopKernel *k, const char *symbol, Text *out);

/* Adds the text of a group's kernel: its bodies are these kernels, by their symbols. */
void cuda_group_text(const LoopKernel *const *kernels, const char *const *symbols, size_t count, const char *symbol, Text *out);
int32_t cuda_group_threads(const LoopKernel *const *kernels, size_t count); /* the most of any */

/* ---- nvrtc.c ---- */

/* A library of the CUDA toolkit by its names: where the dynamic linker looks, in $CUDA_HOME, $CUDA_PATH, /usr/local/cuda. Null:
 * it is in none of them. */
void *cuda_open_toolkit(const char *const *names, size_t count);

/* ---- cuda_link.c ---- */

bool cuda_find_linker(Err *err); /* whether there is one; else what to do */

typedef struct CudaSymbol {
  const char *name;
  bool body; /* of the kernel of that name the function that groups call; else a group's kernel */
} CudaSymbol;

struct EmitObject;
/* Joins relocatable cubins into one, which is the caller's to free(); `resources` gets what each symbol takes, but for shared
 * memory. */
bool cuda_link(const char *arch, const struct EmitObject *objects, size_t count, const CudaSymbol *symbols, size_t symbol_count,
               EmitResources *resources, struct EmitObject *linked, Err *err);

typedef struct CudaWriter {
  const LoopKernel *k;
  Text *out;
  Arena *arena;
  const char **name; /* of each array, as the text has it */
  int32_t *number;   /* of each value that is no constant: v0, v1, as in the kernel's own text */
  size_t *opener;    /* of each END */
  int depth;         /* of the regions around what is written */
} CudaWriter;

/* ---- cuda_value.c ---- */

void cuda_line(const CudaWriter *w);               /* begins one: the indentation */
void cuda_declare(const CudaWriter *w, size_t at); /* begins one: `const int v3 = ` */
void cuda_value(const CudaWriter *w, LoopValue v); /* a variable or a constant */
void cuda_number(const CudaWriter *w, LoopType type, double number);
/* Whether the bit is the same whatever happens, and then which. */
bool cuda_bit_known(const CudaWriter *w, LoopValue v, bool *bit);
/* Any operation on values alone, after its `const T vN = `. */
void cuda_arithmetic(const CudaWriter *w, const LoopInstr *instr);
const char *cuda_type(LoopType type);
const char *cuda_element(LoopElement element);

/* ---- cuda_memory.c ---- */

void cuda_access(const CudaWriter *w, size_t at); /* the line or lines of any operation with an array */

#endif
