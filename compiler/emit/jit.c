/* Object files of kernels to functions in this process. A kernel's function is called by the hash of its key. */
#include "compiler/emit/llvm_private.h"

#include <llvm-c/Error.h>

static bool llvm_ok(LLVMErrorRef error, const char *what, Err *err) {
  if (!error) return true;
  char *message = LLVMGetErrorMessage(error);
  err_set(err, "LLVM cannot %s: %s", what, message);
  LLVMDisposeErrorMessage(message);
  return false;
}

/* The linker takes the buffer, whatever comes of it. */
static bool add_object(LLVMOrcLLJITRef jit, const EmitObject *object, const char *symbol, Err *err) {
  LLVMMemoryBufferRef buffer = LLVMCreateMemoryBufferWithMemoryRangeCopy(object->data, object->size, symbol);
  return llvm_ok(LLVMOrcLLJITAddObjectFile(jit, LLVMOrcLLJITGetMainJITDylib(jit), buffer), "load a kernel's object file", err);
}

static LLVMOrcLLJITRef new_linker(const EmitTarget *target, Err *err) {
  LLVMOrcLLJITBuilderRef builder = LLVMOrcCreateLLJITBuilder();
  LLVMOrcLLJITBuilderSetJITTargetMachineBuilder(builder,
                                                LLVMOrcJITTargetMachineBuilderCreateFromTargetMachine(emit_machine_new(target)));
  LLVMOrcLLJITRef jit = NULL;
  return llvm_ok(LLVMOrcCreateLLJIT(&jit, builder), "start its linker", err) ? jit : NULL;
}

static bool link_objects(LLVMOrcLLJITRef jit, const EmitObject *objects, const char *const *symbols, size_t count,
                         KernelFunction **functions, Err *err) {
  for (size_t i = 0; i < count; i++)
    if (!add_object(jit, &objects[i], symbols[i], err)) return false;
  for (size_t i = 0; i < count; i++) {
    LLVMOrcExecutorAddress address;
    if (!llvm_ok(LLVMOrcLLJITLookup(jit, &address, symbols[i]), "link a kernel", err)) return false;
    functions[i] = (KernelFunction *)(uintptr_t)address;
  }
  return true;
}

EmitLinker *emit_link(const EmitTarget *target, const EmitObject *objects, const char *const *symbols, size_t count,
                      KernelFunction **functions, Err *err) {
  LLVMOrcLLJITRef jit = new_linker(target, err);
  if (!jit || link_objects(jit, objects, symbols, count, functions, err)) return jit;
  emit_link_free(jit);
  return NULL;
}

void emit_link_free(EmitLinker *linker) {
  LLVMConsumeError(LLVMOrcDisposeLLJIT(linker));
}
