/* The two levels of x86-64 for which kernels are written. Machine code depends on the level, LLVM's version and the Loop IR
 * alone, so code made on one machine runs on every other of its level and is the same there. (Tuning for the host's own
 * processor was measured on a Zen 4 and gave nothing: a schedule leaves LLVM little to decide.) */
#include "compiler/emit/llvm_private.h"

#include <llvm-c/Target.h>
#include <pthread.h>
#include <string.h>

/* prfchw: prefetches for writing. Processors of these levels that have no such instruction take it as one that does nothing. */
static const EmitTarget levels[] = {
    {.name = "x86-64-v4", .lanes = 16, .features = "+prfchw", .width = "512"},
    {.name = "x86-64-v3", .lanes = 8, .features = "+prfchw", .width = "256"},
};
enum { LEVELS = sizeof levels / sizeof *levels };

static const char triple[] = "x86_64-unknown-linux-gnu";

/* LLVM keeps its list of targets in global state, which must be filled once. */
static pthread_once_t llvm_once = PTHREAD_ONCE_INIT;

static void initialise_llvm(void) {
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
}

/* Asks for the extensions that compilers have long known by name; whatever has these has the rest of its level. */
static bool machine_runs(const EmitTarget *level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool narrow = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                __builtin_cpu_supports("bmi2");
  bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return narrow && (wide || strcmp(level->name, "x86-64-v4") != 0);
#else
  (void)level;
  return false;
#endif
}

static const EmitTarget *find_level(const char *cpu, bool compile_only, Err *err) {
  for (int i = 0; i < LEVELS; i++) {
    if (!cpu && machine_runs(&levels[i])) return &levels[i];
    if (!cpu || strcmp(cpu, levels[i].name) != 0) continue;
    if (compile_only || machine_runs(&levels[i])) return &levels[i];
    err_set(err, "this machine's processor cannot run code for %s: it has no %s", cpu, i == 0 ? "AVX-512" : "AVX2");
    return NULL;
  }
  if (cpu)
    err_set(err, "unknown processor `%s`: x86-64-v3 (AVX2) and x86-64-v4 (AVX-512) are known", cpu);
  else
    err_set(err, "this machine's processor has no AVX2 with FMA and BMI2, which the machine code needs");
  return NULL;
}

EmitTarget *emit_target_new(const char *cpu, bool compile_only, Err *err) {
  const EmitTarget *level = find_level(cpu, compile_only, err);
  if (!level) return NULL;
  pthread_once(&llvm_once, initialise_llvm);
  EmitTarget *target = memory_alloc(sizeof *target);
  *target = *level;
  char *message = NULL;
  if (LLVMGetTargetFromTriple(triple, &target->llvm, &message)) die("LLVM has no %s: %s", triple, message);
  return target;
}

EmitMachine *emit_machine_new(const EmitTarget *target) {
  return LLVMCreateTargetMachine(target->llvm, triple, target->name, target->features, LLVMCodeGenLevelDefault, LLVMRelocPIC,
                                 LLVMCodeModelSmall);
}

void emit_machine_free(EmitMachine *machine) {
  LLVMDisposeTargetMachine(machine);
}

void emit_machine_describe(const EmitTarget *target, Text *out) {
  unsigned major, minor, patch;
  LLVMGetVersion(&major, &minor, &patch);
  text_printf(out, "llvm %u.%u.%u %s %s %s\n", major, minor, patch, triple, target->name, target->features);
}
