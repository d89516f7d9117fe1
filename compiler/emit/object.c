/* From a kernel to its object file: the module, a few passes, code generation. The passes are those that the schedule's code
 * needs and no more: tiles become registers, equal addresses are computed once, and what a loop does not change moves out of it;
 * larger pipelines cost thirty times as much and gain nothing, as vectors and unrolling were decided before. */
#include "compiler/emit/llvm_private.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/Error.h>
#include <llvm-c/Target.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <string.h>

static const char passes[] = "function(mem2reg,early-cse,loop-simplify,lcssa),function(loop-mssa(licm))";

static void set_layout(LLVMModuleRef module, EmitMachine *machine) {
  char *triple = LLVMGetTargetMachineTriple(machine);
  LLVMSetTarget(module, triple);
  LLVMDisposeMessage(triple);
  LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(machine);
  LLVMSetModuleDataLayout(module, layout);
  LLVMDisposeTargetData(layout);
}

/* A module that LLVM does not accept is a bug of the emitter. */
static void verify(LLVMModuleRef module, const LoopKernel *k) {
  char *message = NULL;
  if (LLVMVerifyModule(module, LLVMReturnStatusAction, &message)) die("kernel %s: %s", k->name, message);
  LLVMDisposeMessage(message);
}

static bool optimise(LLVMModuleRef module, EmitMachine *machine, const LoopKernel *k, Err *err) {
  LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
  LLVMErrorRef error = LLVMRunPasses(module, passes, machine, options);
  LLVMDisposePassBuilderOptions(options);
  if (!error) return true;
  char *message = LLVMGetErrorMessage(error);
  err_set(err, "kernel %s: LLVM cannot optimise it: %s", k->name, message);
  LLVMDisposeErrorMessage(message);
  return false;
}

static LLVMModuleRef optimised_module(const EmitTarget *target, LLVMContextRef context, EmitMachine *machine, const LoopKernel *k,
                                      const char *symbol, Err *err) {
  LLVMModuleRef module = emit_module(target, context, k, symbol);
  set_layout(module, machine);
  verify(module, k);
  if (optimise(module, machine, k, err)) return module;
  LLVMDisposeModule(module);
  return NULL;
}

/* Object file or assembly text. Null: `err`. */
static LLVMMemoryBufferRef generate(const EmitTarget *target, EmitMachine *machine, const LoopKernel *k, const char *symbol,
                                    LLVMCodeGenFileType type, Err *err) {
  LLVMContextRef context = LLVMContextCreate();
  LLVMMemoryBufferRef object = NULL;
  LLVMModuleRef module = optimised_module(target, context, machine, k, symbol, err);
  char *message = NULL;
  if (module && LLVMTargetMachineEmitToMemoryBuffer(machine, module, type, &message, &object)) {
    err_set(err, "kernel %s: LLVM cannot generate code: %s", k->name, message);
    LLVMDisposeMessage(message);
    object = NULL;
  }
  if (module) LLVMDisposeModule(module);
  LLVMContextDispose(context);
  return object;
}

bool emit_object(const EmitTarget *target, EmitMachine *machine, const LoopKernel *k, const char *symbol, EmitObject *object,
                 Err *err) {
  LLVMMemoryBufferRef buffer = generate(target, machine, k, symbol, LLVMObjectFile, err);
  if (!buffer) return false;
  object->size = LLVMGetBufferSize(buffer);
  object->data = memory_alloc(object->size + 1);
  memcpy(object->data, LLVMGetBufferStart(buffer), object->size);
  LLVMDisposeMemoryBuffer(buffer);
  return true;
}

static bool text_of_module(const EmitTarget *target, EmitMachine *machine, const LoopKernel *k, Text *out, Err *err) {
  LLVMContextRef context = LLVMContextCreate();
  LLVMModuleRef module = optimised_module(target, context, machine, k, k->name, err);
  if (module) {
    char *text = LLVMPrintModuleToString(module);
    text_add(out, text);
    LLVMDisposeMessage(text);
    LLVMDisposeModule(module);
  }
  LLVMContextDispose(context);
  return module != NULL;
}

bool emit_text_cpu(const EmitTarget *target, const LoopKernel *k, EmitText what, Text *out, Err *err) {
  EmitMachine *machine = emit_machine_new(target);
  bool ok;
  if (what == EMIT_LLVM) {
    ok = text_of_module(target, machine, k, out, err);
  } else {
    LLVMMemoryBufferRef text = generate(target, machine, k, k->name, LLVMAssemblyFile, err);
    ok = text != NULL;
    if (text) {
      text_add_bytes(out, LLVMGetBufferStart(text), LLVMGetBufferSize(text));
      LLVMDisposeMemoryBuffer(text);
    }
  }
  emit_machine_free(machine);
  return ok;
}
