/* What the files share that write LLVM modules and make objects of them; none of it is in a build without LLVM. */
#ifndef ADWP_COMPILER_EMIT_LLVM_PRIVATE_H
#define ADWP_COMPILER_EMIT_LLVM_PRIVATE_H

#include "compiler/emit/emit_private.h"

#include <llvm-c/Core.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/TargetMachine.h>

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

#endif
