/* What stands for the way to a CPU in a build without LLVM: there is no target for CPUs, so nothing else of it is ever asked
 * for. */
#include "compiler/emit/emit_private.h"

EmitTarget *emit_target_new(const char *cpu, bool compile_only, Err *err) {
  (void)cpu, (void)compile_only;
  err_set(err, "this build has no compiler for CPUs; use --device=cuda");
  return NULL;
}

static _Noreturn void no_cpu(const EmitTarget *target) {
  die("target %s in a build without LLVM", target ? target->name : "of a CPU");
}

EmitMachine *emit_machine_new(const EmitTarget *target) {
  no_cpu(target);
}

void emit_machine_free(EmitMachine *machine) {
  (void)machine;
  no_cpu(NULL);
}

void emit_machine_describe(const EmitTarget *target, Text *out) {
  (void)out;
  no_cpu(target);
}

bool emit_object(const EmitTarget *target, EmitMachine *machine, const LoopKernel *k, const char *symbol, EmitObject *object,
                 Err *err) {
  (void)machine, (void)k, (void)symbol, (void)object, (void)err;
  no_cpu(target);
}

bool emit_text_cpu(const EmitTarget *target, const LoopKernel *k, EmitText what, Text *out, Err *err) {
  (void)k, (void)what, (void)out, (void)err;
  no_cpu(target);
}

EmitLinker *emit_link(const EmitTarget *target, const EmitObject *objects, const char *const *symbols, size_t count,
                      KernelFunction **functions, Err *err) {
  (void)objects, (void)symbols, (void)count, (void)functions, (void)err;
  no_cpu(target);
}

void emit_link_free(EmitLinker *linker) {
  (void)linker;
  no_cpu(NULL);
}
