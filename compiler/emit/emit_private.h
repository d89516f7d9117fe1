/* What the files of the emitter share. The way of a kernel to a CPU: llvm.c walks its Loop IR and writes an LLVM module
 * (llvm_value.c: numbers, llvm_memory.c: arrays, llvm_math.c: exp and log), object.c optimises it and makes an object file of it;
 * to a GPU: cuda.c writes its text, nvrtc.c makes an image of that. compile.c does it for many kernels on several threads,
 * cache.c keeps what comes of it on disk, jit.c links a CPU's objects into this process. */
#ifndef ADWP_COMPILER_EMIT_EMIT_PRIVATE_H
#define ADWP_COMPILER_EMIT_EMIT_PRIVATE_H

#include "compiler/emit/emit.h"
#include "runtime/base/hash.h"

#include <llvm-c/Core.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/TargetMachine.h>

/* ---- target.c ---- */

typedef enum EmitForm { FORM_OBJECT, FORM_CUBIN, FORM_PTX, FORM_CUDA } EmitForm; /* what a kernel becomes; the first: a CPU's */

typedef struct Nvrtc Nvrtc;

struct EmitTarget {
  const char *name; /* a CPU's level, which is also LLVM's name of the processor whose instructions are used; a GPU's `arch` */
  int32_t lanes;
  const char *features; /* LLVM's, beyond the level's */
  const char *width;    /* bits of the widest vectors that LLVM may choose itself */
  LLVMTargetRef llvm;
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

LLVMTargetMachineRef emit_target_machine(const EmitTarget *target); /* one a thread */

/* Everything beside the Loop IR on which machine code depends, as text. */
void emit_target_describe(const EmitTarget *target, Text *out);

/* ---- llvm.c: one kernel's module ---- */

/* A value while it is emitted. Integers are `value + offset` with a null `value` for constants, so that the constants of unrolled
 * code end up in the addresses of instructions whatever way the schedule's arithmetic took. Other types: `value`. */
typedef struct EmitValue {
  LLVMValueRef value;
  int64_t offset;
} EmitValue;

typedef struct EmitArray {
  LLVMTypeRef element;    /* in memory; tiles: vectors where they vary */
  LLVMValueRef pointer;   /* buffers and shared arrays: a parameter */
  LLVMValueRef *elements; /* tiles: an alloca each, promoted to registers by LLVM */
} EmitArray;

typedef struct Emitter {
  const LoopKernel *k;
  const EmitTarget *target;
  Arena *arena;
  LLVMContextRef context;
  LLVMModuleRef module;
  LLVMBuilderRef builder; /* at the end of the block that is written */
  LLVMTypeRef i1, i32, i64, f32, f64, pointer;
  LLVMValueRef body;     /* the function that runs tasks */
  LLVMValueRef task;     /* this task's number */
  LLVMValueRef batch;    /* B */
  LLVMValueRef exp, log; /* the functions of llvm_math.c, once they are used */
  EmitValue *value;      /* of each instruction */
  EmitArray *array;      /* of each array */
  size_t *partner;       /* of each instruction that opens a region: its END */
} Emitter;

LLVMModuleRef emit_module(const EmitTarget *target, LLVMContextRef context, const LoopKernel *k, const char *symbol);

/* ---- llvm_value.c ---- */
EmitValue emit_constant(int64_t value);
LLVMValueRef emit_materialise(const Emitter *e, EmitValue integer); /* one i64 */
LLVMTypeRef emit_type(const Emitter *e, LoopType type, bool varying);
LLVMTypeRef emit_lanes_of(const Emitter *e, LLVMTypeRef element); /* a vector of the kernel's lanes */
LLVMValueRef emit_splat(const Emitter *e, LLVMValueRef scalar);
/* An operand as it is, or broadcast where `varying` is wanted and it is uniform. */
LLVMValueRef emit_operand(const Emitter *e, LoopValue v, bool varying);
LLVMValueRef emit_intrinsic(const Emitter *e, const char *name, const LLVMTypeRef *types, size_t type_count,
                            LLVMValueRef *arguments, unsigned count);
void emit_attribute(const Emitter *e, LLVMValueRef function, unsigned index, const char *name, uint64_t value);
/* Any operation on values alone. */
EmitValue emit_arithmetic(Emitter *e, const LoopInstr *instr);

/* ---- llvm_memory.c ---- */
EmitValue emit_access(Emitter *e, const LoopInstr *instr); /* loads, stores, get, set, prefetch */

/* ---- llvm_math.c ---- */
LLVMValueRef emit_exp(Emitter *e, LLVMValueRef x);
LLVMValueRef emit_log(Emitter *e, LLVMValueRef x);

/* ---- object.c ---- */

/* The object file of a kernel; `symbol` is its function's name. */
bool emit_object(const EmitTarget *target, LLVMTargetMachineRef machine, const LoopKernel *k, const char *symbol,
                 EmitObject *object, Err *err);
bool emit_text_cpu(const EmitTarget *target, const LoopKernel *k, EmitText what, Text *out, Err *err);

/* ---- nvrtc.c ---- */

/* The library, opened at the first call that finds it. Null: `err`. */
const Nvrtc *nvrtc_open(Err *err);
bool nvrtc_check_arch(const Nvrtc *nvrtc, const char *arch, Err *err);
/* Everything on which an image depends beside the kernel's text. */
void nvrtc_describe(const EmitTarget *target, Text *out);
/* The image of a kernel: cubin, PTX, or its text as it is. */
bool nvrtc_image(const EmitTarget *target, const LoopKernel *k, const char *symbol, EmitObject *object, Err *err);

/* ---- jit.c ---- */

/* Links objects into this process; function i is `symbols[i]`. Null: `err`. The linker owns the functions; the objects need not
 * stay. */
LLVMOrcLLJITRef emit_link(const EmitTarget *target, const EmitObject *objects, const char *const *symbols, size_t count,
                          KernelFunction **functions, Err *err);

/* ---- cache.c: object files on disk, by key ---- */

/* What was stored under `key`; false where there is nothing or it is damaged. */
bool emit_cache_load(const char *folder, const HashName *key, EmitObject *object);
/* False: it could not. */
bool emit_cache_store(const char *folder, const HashName *key, const EmitObject *object);

#endif
