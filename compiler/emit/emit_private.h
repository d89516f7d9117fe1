/* What the files of the emitter share. The way of a kernel to a CPU: llvm.c walks its Loop IR and writes an LLVM module
 * (llvm_value.c: numbers, llvm_memory.c: arrays, llvm_math.c: exp and log), object.c optimises it and makes an object file of it;
 * to a GPU: cuda.c writes its text, nvrtc.c makes an image of that. cuda_groups.c makes one image of many that share launches,
 * which cuda_link.c links. compile.c does it for many kernels on several threads,
 * cache.c keeps what comes of it on disk, jit.c links a CPU's objects into this process. In a build without LLVM, no_llvm.c
 * stands for the way to a CPU: llvm*.c, object.c and jit.c. */
#ifndef ADWP_COMPILER_EMIT_EMIT_PRIVATE_H
#define ADWP_COMPILER_EMIT_EMIT_PRIVATE_H

#include "compiler/emit/emit.h"
#include "runtime/base/hash.h"

/* LLVM's own, by the names of its headers, which llvm_private.h alone includes: a target, its code generator, which one thread
 * at a time uses, and the linker. In a build without LLVM there are none of them. */
typedef struct LLVMTarget EmitLlvm;
typedef struct LLVMOpaqueTargetMachine EmitMachine;
typedef struct LLVMOrcOpaqueLLJIT EmitLinker;

/* ---- target.c ---- */

typedef enum EmitForm { FORM_OBJECT, FORM_CUBIN, FORM_PTX, FORM_CUDA } EmitForm; /* what a kernel becomes; the first: a CPU's */

typedef struct Nvrtc Nvrtc;

struct EmitTarget {
  const char *name; /* a CPU's level, which is also LLVM's name of the processor whose instructions are used; a GPU's `arch` */
  int32_t lanes;
  const char *features; /* LLVM's, beyond the level's */
  const char *width;    /* bits of the widest vectors that LLVM may choose itself */
  EmitLlvm *llvm;
  EmitForm form;
  const Nvrtc *nvrtc; /* of FORM_CUBIN and FORM_PTX */
  char arch[24];
};

/* What a kernel became: the bytes, which are the owner's to free(), a zero byte after them, and what a GPU's kernel takes. */
typedef struct EmitObject {
  char *data;
  size_t size;
  EmitResources resources;
} EmitObject;

/* Everything beside the Loop IR on which machine code depends, as text. */
void emit_target_describe(const EmitTarget *target, Text *out);

/* ---- compile.c ---- */

/* Of everything on which a kernel's code depends; its name is no part of it. */
HashName emit_key(const EmitTarget *target, const LoopKernel *kernel);
/* Runs `run`, which takes jobs until none of the `total` is left, on up to so many threads. */
void emit_on_threads(void *(*run)(void *), void *work, size_t total, int threads);

/* ---- llvm_target.c ---- */
EmitMachine *emit_machine_new(const EmitTarget *target); /* one a thread */
void emit_machine_free(EmitMachine *machine);
void emit_machine_describe(const EmitTarget *target, Text *out);

/* ---- object.c ---- */

/* The object file of a kernel; `symbol` is its function's name. */
bool emit_object(const EmitTarget *target, EmitMachine *machine, const LoopKernel *k, const char *symbol, EmitObject *object,
                 Err *err);
bool emit_text_cpu(const EmitTarget *target, const LoopKernel *k, EmitText what, Text *out, Err *err);

/* ---- nvrtc.c ---- */

/* The library, opened at the first call that finds it. Null: `err`. */
const Nvrtc *nvrtc_open(Err *err);
bool nvrtc_check_arch(const Nvrtc *nvrtc, const char *arch, Err *err);
/* Everything on which an image depends beside the kernel's text. */
void nvrtc_describe(const EmitTarget *target, Text *out);
/* The image of a kernel: cubin, PTX, or its text as it is. */
bool nvrtc_image(const EmitTarget *target, const LoopKernel *k, const char *symbol, EmitObject *object, Err *err);

/* A part of what is linked into groups: the texts of kernels, or of groups. `name`: for messages. */
bool nvrtc_part(const EmitTarget *target, const char *name, const Text *text, EmitObject *object, Err *err);

/* ---- jit.c ---- */

/* Links objects into this process; function i is `symbols[i]`. Null: `err`. The linker owns the functions; the objects need not
 * stay. */
EmitLinker *emit_link(const EmitTarget *target, const EmitObject *objects, const char *const *symbols, size_t count,
                      KernelFunction **functions, Err *err);
void emit_link_free(EmitLinker *linker); /* and its functions */

/* ---- cache.c: object files on disk, by key ---- */

/* What was stored under `key`; false where there is nothing or it is damaged. */
bool emit_cache_load(const char *folder, const HashName *key, EmitObject *object);
/* False: it could not. */
bool emit_cache_store(const char *folder, const HashName *key, const EmitObject *object);

#endif
