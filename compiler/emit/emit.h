/* emit: Loop IR to machine code, with a cache on disk: through LLVM's C API for CPUs, as CUDA C through NVRTC for GPUs. LLVM
 * headers and NVRTC appear in this folder only; NVRTC is opened at run time, needs no GPU, and only a GPU's target asks for it.
 *
 * Machine code depends on the target's description, the compiler's version and the Loop IR alone, and gives the interpreter's
 * bits (but for exp, log and mma: exp and log are the emitter's own on a CPU and within 2 units in the last place). It assumes
 * what the interpreter checks, and that no buffer of a launch shares an element that is written with another one: what is read
 * and written is one `inout` buffer. */
#ifndef ADWP_COMPILER_EMIT_EMIT_H
#define ADWP_COMPILER_EMIT_EMIT_H

#include "kernels/loop.h"
#include "runtime/program.h"

typedef struct EmitTarget EmitTarget;

/* `cpu`: null for this machine's own level, or "x86-64-v3" (AVX2, 8 lanes) or "x86-64-v4" (AVX-512, 16 lanes). Asking for a
 * level that this machine cannot run is an error unless `compile_only`. */
EmitTarget *emit_target_new(const char *cpu, bool compile_only, Err *err);
/* `arch`: "sm_90": a cubin for it; "compute_90": PTX for it and newer ones; "cuda-emulator": the CUDA text itself, for which
 * NVRTC is not needed. Null: there is no NVRTC, or it does not know the architecture; `err` says what to do. */
EmitTarget *emit_target_cuda(const char *arch, Err *err);
void emit_target_free(EmitTarget *target);
const char *emit_target_name(const EmitTarget *target); /* "x86-64-v4", "sm_90" */
int32_t emit_target_lanes(const EmitTarget *target);    /* of a CPU's vectors; 0: a GPU */
ProgramDevice emit_target_device(const EmitTarget *target);

typedef struct EmitCode EmitCode; /* owns the machine code of a set of kernels; functions and images live as long as it does */

typedef struct EmitStatistics {
  size_t compiled, cached; /* distinct kernels */
  const char *cache_fault; /* why the cache was not used, or nothing could be added to it: "it is not a folder"; null: it was */
} EmitStatistics;

/* Compiles the kernels (equal Loop IR once, whatever their names) on `threads` threads, taking from and adding to the cache in
 * the folder `cache` (null: none). A damaged entry is compiled again; a folder that cannot be written is no error, and one into
 * which other users can write, or that is another's, is not used; `statistics` says so. A kernel that `loop_verify` refuses, or
 * that does not fit the target, is an error. */
EmitCode *emit_compile(EmitTarget *target, const LoopKernel *const *kernels, size_t count, int threads, const char *cache,
                       EmitStatistics *statistics, Err *err);
KernelFunction *emit_code_function(const EmitCode *code, size_t kernel); /* of a CPU */

/* What a kernel takes of a GPU, as ptxas says; of PTX and of the emulator all 0. */
typedef struct EmitResources {
  int32_t registers;                 /* of a thread */
  int32_t spill_stores, spill_loads; /* bytes */
  int32_t stack_bytes, shared_bytes;
} EmitResources;

typedef struct EmitImage {
  const char *symbol; /* the kernel's function in it: "k_" and a hash */
  const void *data;   /* cubin, PTX or CUDA text; a zero byte follows it */
  size_t size;
  EmitResources resources;
} EmitImage;
const EmitImage *emit_code_image(const EmitCode *code, size_t kernel); /* of a GPU */

void emit_code_free(EmitCode *code);

/* ---- groups: kernels of a GPU that share launches ---- */

/* A block of a group's launch runs some of the group's kernels, one after another, each on one of its tasks: GroupBlock of
 * kernels/prelude.cu. Which they are the runtime writes into tables. */
typedef struct EmitGroup {
  const uint32_t *kernels; /* body i is kernels[i]; no two groups have the same in the same order */
  uint32_t count;
} EmitGroup;

typedef struct EmitGroups EmitGroups; /* owns the one image in which all groups are */

/* As emit_compile. Each kernel is compiled once, in however many groups it is. */
EmitGroups *emit_groups(EmitTarget *target, const LoopKernel *const *kernels, size_t count, const EmitGroup *groups,
                        size_t group_count, int threads, const char *cache, EmitStatistics *statistics, Err *err);
/* Threads: the most lanes of its kernels. `resources.shared_bytes`: to be given at launch. */
const EmitImage *emit_group_image(const EmitGroups *groups, size_t group);
/* Of a kernel as groups run it; its stack has the registers that it saves of its caller's. */
const EmitResources *emit_group_kernel(const EmitGroups *groups, size_t kernel);
void emit_groups_free(EmitGroups *groups);

typedef enum EmitText { EMIT_LLVM, EMIT_ASM, EMIT_CUDA, EMIT_PTX, EMIT_CUBIN } EmitText;
/* Adds the kernel in one form to `out`: LLVM IR, as the code generator gets it, or its assembly (a CPU's target); CUDA C with its
 * prelude, PTX, or the bytes of a cubin (a GPU's). */
bool emit_text(EmitTarget *target, const LoopKernel *kernel, EmitText what, Text *out, Err *err);

/* NVRTC's version ("13.0") and the architectures it knows ("sm_75 sm_80 ..."), for `adwp doctor`. False: `err` says what is
 * missing, which may also be nvJitLink. */
bool emit_find_nvrtc(Text *version, Text *archs, Err *err);

/* $XDG_CACHE_HOME/adwp or $HOME/.cache/adwp; null where neither is set. In `arena`. */
const char *emit_cache_folder(Arena *arena);
/* Whether kernels may be taken from `folder` (made if it is not there): a folder of this user into which no other can write.
 * Null, or what is wrong with it: "it is not a folder". */
const char *emit_cache_open(const char *folder);

#endif
