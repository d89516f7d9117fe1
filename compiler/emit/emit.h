/* emit: Loop IR to machine code through LLVM's C API, with a cache on disk. LLVM headers appear in this folder only.
 *
 * Machine code depends on the target's name, LLVM's version and the Loop IR alone, and gives the interpreter's bits (but for exp
 * and log, which are the emitter's own and within 2 units in the last place). It assumes what the interpreter checks, and that no
 * buffer of a launch shares an element that is written with another one: what is read and written is one `inout` buffer. */
#ifndef ADWP_COMPILER_EMIT_EMIT_H
#define ADWP_COMPILER_EMIT_EMIT_H

#include "kernels/loop.h"
#include "runtime/program.h"

typedef struct EmitTarget EmitTarget;

/* `cpu`: null for this machine's own level, or "x86-64-v3" (AVX2, 8 lanes) or "x86-64-v4" (AVX-512, 16 lanes). Asking for a
 * level that this machine cannot run is an error unless `compile_only`. */
EmitTarget *emit_target_new(const char *cpu, bool compile_only, Err *err);
void emit_target_free(EmitTarget *target);
const char *emit_target_name(const EmitTarget *target); /* "x86-64-v4" */
int32_t emit_target_lanes(const EmitTarget *target);

typedef struct EmitCode EmitCode; /* owns the machine code of a set of kernels; functions live as long as it does */

typedef struct EmitStatistics {
  size_t compiled, cached; /* distinct kernels */
  const char *cache_fault; /* why the cache was not used, or nothing could be added to it: "it is not a folder"; null: it was */
} EmitStatistics;

/* Compiles the kernels (equal Loop IR once, whatever their names) on `threads` threads, taking from and adding to the cache in
 * the folder `cache` (null: none). A damaged entry is compiled again; a folder that cannot be written is no error, and one into
 * which other users can write, or that is another's, is not used; `statistics` says so. A kernel that `loop_verify` refuses is an
 * error. */
EmitCode *emit_compile(EmitTarget *target, const LoopKernel *const *kernels, size_t count, int threads, const char *cache,
                       EmitStatistics *statistics, Err *err);
KernelFunction *emit_code_function(const EmitCode *code, size_t kernel);
void emit_code_free(EmitCode *code);

typedef enum EmitText { EMIT_LLVM, EMIT_ASM } EmitText;
/* Adds the kernel's LLVM IR, as the code generator gets it, or its assembly to `out`. */
bool emit_text(EmitTarget *target, const LoopKernel *kernel, EmitText what, Text *out, Err *err);

/* $XDG_CACHE_HOME/adwp or $HOME/.cache/adwp; null where neither is set. In `arena`. */
const char *emit_cache_folder(Arena *arena);

#endif
