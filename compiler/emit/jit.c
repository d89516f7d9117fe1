/* Many kernels to functions in this process. Each distinct kernel becomes an object file, from the cache or by one of several
 * threads that take the next kernel from a shared counter, each with its own LLVM target and a fresh context a kernel; then one
 * linker loads all objects. A kernel's function is called by the hash of its key, so objects depend on nothing but that. */
#include "compiler/emit/emit_private.h"

#include <llvm-c/Error.h>
#include <llvm-c/LLJIT.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* To be raised when emitted code changes for equal Loop IR. */
enum { CODE_VERSION = 1 };

typedef struct Symbol {
  char text[40];
} Symbol;

typedef struct Job { /* a distinct kernel */
  const LoopKernel *kernel;
  HashName key;
  LLVMMemoryBufferRef object;
  bool cached, failed, unstored; /* unstored: the cache did not take it */
  Err err;
} Job;

typedef struct Work {
  const EmitTarget *target;
  const char *cache; /* null: none */
  Job *jobs;
  size_t count;
  atomic_size_t next;
} Work;

struct EmitCode {
  LLVMOrcLLJITRef jit;
  KernelFunction **functions; /* of each kernel that was asked for */
  size_t count;
};

static Symbol symbol_of(const Job *job) {
  Symbol symbol;
  snprintf(symbol.text, sizeof symbol.text, "k_%s", job->key.hex);
  return symbol;
}

/* The kernel's name is no part of what it does. */
static HashName key_of(const EmitTarget *target, const LoopKernel *kernel) {
  LoopKernel nameless = *kernel;
  nameless.name = "k";
  Text text = {0};
  text_printf(&text, "adwp object %d\n", CODE_VERSION);
  emit_target_describe(target, &text);
  loop_print(&nameless, &text);
  HashName key = hash_name(text.data, text.length);
  text_free(&text);
  return key;
}

/* ---- objects ---- */

static void get_object(const Work *work, LLVMTargetMachineRef machine, Job *job) {
  Symbol symbol = symbol_of(job);
  char *data;
  size_t size;
  if (work->cache && emit_cache_load(work->cache, &job->key, &data, &size)) {
    job->object = LLVMCreateMemoryBufferWithMemoryRangeCopy(data, size, symbol.text);
    job->cached = true;
    free(data);
    return;
  }
  if (!loop_verify(job->kernel, &job->err)) {
    job->failed = true;
    return;
  }
  job->object = emit_object(work->target, machine, job->kernel, symbol.text, LLVMObjectFile, &job->err);
  job->failed = !job->object;
  if (work->cache && job->object)
    job->unstored = !emit_cache_store(work->cache, &job->key, LLVMGetBufferStart(job->object), LLVMGetBufferSize(job->object));
}

static void *worker(void *argument) {
  Work *work = argument;
  LLVMTargetMachineRef machine = emit_target_machine(work->target);
  for (size_t i; (i = atomic_fetch_add(&work->next, 1)) < work->count;) get_object(work, machine, &work->jobs[i]);
  LLVMDisposeTargetMachine(machine);
  return NULL;
}

/* Where a thread cannot be started, those that are there do its work. */
static void get_objects(Work *work, int threads) {
  enum { MAX_THREADS = 256 };
  pthread_t started[MAX_THREADS];
  int count = 0;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  while (count + 1 < threads && (size_t)count + 1 < work->count && !pthread_create(&started[count], NULL, worker, work)) count++;
  worker(work);
  while (count > 0) pthread_join(started[--count], NULL);
}

/* ---- linking ---- */

static bool llvm_ok(LLVMErrorRef error, const char *what, Err *err) {
  if (!error) return true;
  char *message = LLVMGetErrorMessage(error);
  err_set(err, "LLVM cannot %s: %s", what, message);
  LLVMDisposeErrorMessage(message);
  return false;
}

/* The linker takes a job's object, whatever comes of it. */
static bool add_object(LLVMOrcLLJITRef jit, Job *job, Err *err) {
  LLVMMemoryBufferRef object = job->object;
  job->object = NULL;
  return llvm_ok(LLVMOrcLLJITAddObjectFile(jit, LLVMOrcLLJITGetMainJITDylib(jit), object), "load a kernel's object file", err);
}

static LLVMOrcLLJITRef new_linker(const EmitTarget *target, Err *err) {
  LLVMOrcLLJITBuilderRef builder = LLVMOrcCreateLLJITBuilder();
  LLVMOrcLLJITBuilderSetJITTargetMachineBuilder(
      builder, LLVMOrcJITTargetMachineBuilderCreateFromTargetMachine(emit_target_machine(target)));
  LLVMOrcLLJITRef jit = NULL;
  return llvm_ok(LLVMOrcCreateLLJIT(&jit, builder), "start its linker", err) ? jit : NULL;
}

static bool link_objects(EmitCode *code, const Work *work, KernelFunction **functions, Err *err) {
  code->jit = new_linker(work->target, err);
  if (!code->jit) return false;
  for (size_t i = 0; i < work->count; i++)
    if (!add_object(code->jit, &work->jobs[i], err)) return false;
  for (size_t i = 0; i < work->count; i++) {
    Symbol symbol = symbol_of(&work->jobs[i]);
    LLVMOrcExecutorAddress address;
    if (!llvm_ok(LLVMOrcLLJITLookup(code->jit, &address, symbol.text), "link a kernel", err)) return false;
    functions[i] = (KernelFunction *)(uintptr_t)address;
  }
  return true;
}

/* ---- the whole ---- */

/* Fills `jobs` with the distinct kernels and `job_of` with each kernel's. Returns how many are distinct. */
static size_t find_distinct(const EmitTarget *target, const LoopKernel *const *kernels, size_t count, Job *jobs, size_t *job_of) {
  size_t distinct = 0;
  for (size_t i = 0; i < count; i++) {
    HashName key = key_of(target, kernels[i]);
    size_t j = 0;
    while (j < distinct && memcmp(&jobs[j].key, &key, sizeof key) != 0) j++;
    if (j == distinct) {
      jobs[distinct].kernel = kernels[i];
      jobs[distinct++].key = key;
    }
    job_of[i] = j;
  }
  return distinct;
}

static bool compile_and_link(EmitCode *code, Work *work, int threads, KernelFunction **functions, EmitStatistics *statistics,
                             Err *err) {
  get_objects(work, threads);
  bool ok = true;
  for (size_t i = 0; i < work->count && ok; i++) {
    Job *job = &work->jobs[i];
    if (job->failed) ok = err_set(err, "%s", job->err.text);
    if (statistics && job->cached) statistics->cached++;
    if (statistics && !job->cached) statistics->compiled++;
    if (statistics && job->unstored) statistics->cache_fault = "it cannot be written";
  }
  ok = ok && link_objects(code, work, functions, err);
  for (size_t i = 0; i < work->count; i++)
    if (work->jobs[i].object) LLVMDisposeMemoryBuffer(work->jobs[i].object);
  return ok;
}

EmitCode *emit_compile(EmitTarget *target, const LoopKernel *const *kernels, size_t count, int threads, const char *cache,
                       EmitStatistics *statistics, Err *err) {
  Arena *arena = arena_new();
  Job *jobs = ARENA_ARRAY(arena, Job, count + 1);
  size_t *job_of = ARENA_ARRAY(arena, size_t, count + 1);
  const char *fault = cache ? emit_cache_open(cache) : NULL;
  Work work = {.target = target, .jobs = jobs, .cache = fault ? NULL : cache};
  work.count = find_distinct(target, kernels, count, jobs, job_of);
  KernelFunction **functions = ARENA_ARRAY(arena, KernelFunction *, work.count + 1);
  if (statistics) *statistics = (EmitStatistics){.cache_fault = fault};

  EmitCode *code = memory_alloc(sizeof *code);
  code->count = count;
  code->functions = memory_alloc((count + 1) * sizeof *code->functions);
  if (compile_and_link(code, &work, threads, functions, statistics, err)) {
    for (size_t i = 0; i < count; i++) code->functions[i] = functions[job_of[i]];
  } else {
    emit_code_free(code);
    code = NULL;
  }
  arena_free(arena);
  return code;
}

KernelFunction *emit_code_function(const EmitCode *code, size_t kernel) {
  if (kernel >= code->count) die("kernel %zu of %zu", kernel, code->count);
  return code->functions[kernel];
}

void emit_code_free(EmitCode *code) {
  if (!code) return;
  if (code->jit) LLVMConsumeError(LLVMOrcDisposeLLJIT(code->jit));
  free(code->functions);
  free(code);
}
