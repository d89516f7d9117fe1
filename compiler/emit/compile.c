/* Many kernels to machine code. Each distinct kernel becomes an object, from the cache or by one of several threads that take the
 * next kernel from a shared counter, each with its own LLVM target; a GPU's kernels are an NVRTC program each. Then a CPU's
 * objects are linked into this process. A kernel's function is called by the hash of its key, so objects depend on nothing but
 * that. */
#include "compiler/emit/cuda_private.h"
#include "compiler/emit/emit_private.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* To be raised when emitted code changes for equal Loop IR. */
enum { CODE_VERSION = 3 };

typedef struct Symbol {
  char text[40];
} Symbol;

typedef struct Job { /* a distinct kernel */
  const LoopKernel *kernel;
  HashName key;
  bool cached, failed, unstored; /* unstored: the cache did not take it */
  Err err;
} Job;

typedef struct Work {
  const EmitTarget *target;
  const char *cache; /* null: none */
  Job *jobs;
  EmitObject *objects; /* of each job */
  size_t count;
  atomic_size_t next;
} Work;

struct EmitCode {
  EmitLinker *linker;         /* of a CPU */
  KernelFunction **functions; /* of each kernel that was asked for; a CPU's */
  EmitImage *images;          /* likewise; a GPU's */
  size_t count;
  EmitObject *objects; /* of distinct kernels; a CPU's are gone once they are linked */
  Symbol *symbols;
  size_t distinct;
};

static Symbol symbol_of(const HashName *key) {
  Symbol symbol;
  snprintf(symbol.text, sizeof symbol.text, "k_%s", key->hex);
  return symbol;
}

HashName emit_key(const EmitTarget *target, const LoopKernel *kernel) {
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

static bool fits(const EmitTarget *target, const LoopKernel *kernel, Err *err) {
  if (!loop_verify(kernel, err)) return false;
  if (target->form != FORM_OBJECT) return cuda_fits(kernel, err);
  if (loop_fits_cpu(kernel)) return true;
  return err_set(err, "kernel %s does not fit a CPU: it was written for the threads of a GPU", kernel->name);
}

static bool make_object(const Work *work, EmitMachine *machine, const Job *job, EmitObject *object, Err *err) {
  Symbol symbol = symbol_of(&job->key);
  if (!fits(work->target, job->kernel, err)) return false;
  if (work->target->form == FORM_OBJECT) return emit_object(work->target, machine, job->kernel, symbol.text, object, err);
  return nvrtc_image(work->target, job->kernel, symbol.text, object, err);
}

static void get_object(const Work *work, EmitMachine *machine, size_t i) {
  Job *job = &work->jobs[i];
  job->cached = work->cache && emit_cache_load(work->cache, &job->key, &work->objects[i]);
  if (job->cached) return;
  job->failed = !make_object(work, machine, job, &work->objects[i], &job->err);
  job->unstored = work->cache && !job->failed && !emit_cache_store(work->cache, &job->key, &work->objects[i]);
}

static void *worker(void *argument) {
  Work *work = argument;
  EmitMachine *machine = work->target->form == FORM_OBJECT ? emit_machine_new(work->target) : NULL;
  for (size_t i; (i = atomic_fetch_add(&work->next, 1)) < work->count;) get_object(work, machine, i);
  if (machine) emit_machine_free(machine);
  return NULL;
}

/* Where a thread cannot be started, those that are there do its work. */
void emit_on_threads(void *(*run)(void *), void *work, size_t total, int threads) {
  enum { MAX_THREADS = 256 };
  pthread_t started[MAX_THREADS];
  int count = 0;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  while (count + 1 < threads && (size_t)count + 1 < total && !pthread_create(&started[count], NULL, run, work)) count++;
  run(work);
  while (count > 0) pthread_join(started[--count], NULL);
}

/* ---- the whole ---- */

/* Fills `jobs` with the distinct kernels and `job_of` with each kernel's. Returns how many are distinct. */
static size_t find_distinct(const EmitTarget *target, const LoopKernel *const *kernels, size_t count, Job *jobs, size_t *job_of) {
  size_t distinct = 0;
  for (size_t i = 0; i < count; i++) {
    HashName key = emit_key(target, kernels[i]);
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

/* Every job's error is looked at, and the first counts, so that the message does not depend on the threads. */
static bool count_jobs(const Work *work, EmitStatistics *statistics, Err *err) {
  for (size_t i = 0; i < work->count; i++) {
    const Job *job = &work->jobs[i];
    if (job->failed) return err_set(err, "%s", job->err.text);
    if (!statistics) continue;
    statistics->cached += job->cached;
    statistics->compiled += !job->cached;
    if (job->unstored) statistics->cache_fault = "it cannot be written";
  }
  return true;
}

static bool link_functions(EmitCode *code, const EmitTarget *target, const size_t *job_of, Arena *arena, Err *err) {
  KernelFunction **functions = ARENA_ARRAY(arena, KernelFunction *, code->distinct + 1);
  const char **symbols = ARENA_ARRAY(arena, const char *, code->distinct + 1);
  for (size_t i = 0; i < code->distinct; i++) symbols[i] = code->symbols[i].text;
  code->linker = emit_link(target, code->objects, symbols, code->distinct, functions, err);
  if (!code->linker) return false;
  code->functions = memory_alloc((code->count + 1) * sizeof *code->functions);
  for (size_t i = 0; i < code->count; i++) code->functions[i] = functions[job_of[i]];
  for (size_t i = 0; i < code->distinct; i++) {
    free(code->objects[i].data);
    code->objects[i].data = NULL;
  }
  return true;
}

static bool fill_images(EmitCode *code, const size_t *job_of) {
  code->images = memory_alloc((code->count + 1) * sizeof *code->images);
  for (size_t i = 0; i < code->count; i++) {
    const EmitObject *object = &code->objects[job_of[i]];
    code->images[i] = (EmitImage){code->symbols[job_of[i]].text, object->data, object->size, object->resources};
  }
  return true;
}

EmitCode *emit_compile(EmitTarget *target, const LoopKernel *const *kernels, size_t count, int threads, const char *cache,
                       EmitStatistics *statistics, Err *err) {
  Arena *arena = arena_new();
  Job *jobs = ARENA_ARRAY(arena, Job, count + 1);
  size_t *job_of = ARENA_ARRAY(arena, size_t, count + 1);
  if (target->form == FORM_CUDA) cache = NULL; /* the text is made faster than it is read */
  const char *fault = cache ? emit_cache_open(cache) : NULL;
  if (statistics) *statistics = (EmitStatistics){.cache_fault = fault};
  Work work = {.target = target, .jobs = jobs, .cache = fault ? NULL : cache};
  work.count = find_distinct(target, kernels, count, jobs, job_of);

  EmitCode *code = memory_alloc(sizeof *code);
  code->count = count;
  code->distinct = work.count;
  code->objects = work.objects = memory_alloc((work.count + 1) * sizeof *code->objects);
  code->symbols = memory_alloc((work.count + 1) * sizeof *code->symbols);
  for (size_t i = 0; i < work.count; i++) code->symbols[i] = symbol_of(&jobs[i].key);
  emit_on_threads(worker, &work, work.count, threads);
  bool ok = count_jobs(&work, statistics, err) &&
            (target->form == FORM_OBJECT ? link_functions(code, target, job_of, arena, err) : fill_images(code, job_of));
  arena_free(arena);
  if (ok) return code;
  emit_code_free(code);
  return NULL;
}

KernelFunction *emit_code_function(const EmitCode *code, size_t kernel) {
  if (kernel >= code->count || !code->functions) die("kernel %zu of %zu", kernel, code->count);
  return code->functions[kernel];
}

const EmitImage *emit_code_image(const EmitCode *code, size_t kernel) {
  if (kernel >= code->count || !code->images) die("kernel %zu of %zu", kernel, code->count);
  return &code->images[kernel];
}

void emit_code_free(EmitCode *code) {
  if (!code) return;
  if (code->linker) emit_link_free(code->linker);
  for (size_t i = 0; i < code->distinct; i++) free(code->objects[i].data);
  free(code->objects);
  free(code->symbols);
  free(code->functions);
  free(code->images);
  free(code);
}

/* ---- one kernel as text ---- */

static bool text_of_gpu(const EmitTarget *target, const LoopKernel *kernel, EmitText what, Text *out, Err *err) {
  HashName key = emit_key(target, kernel);
  Symbol symbol = symbol_of(&key);
  if (what == EMIT_CUDA) {
    text_printf(out, "%s\n/* %s */\n", emit_prelude, kernel->name);
    cuda_text(kernel, symbol.text, out);
    return true;
  }
  if (target->form == FORM_CUDA) return err_set(err, "NVRTC makes no code for %s", target->name);
  if (target->form == FORM_PTX && what == EMIT_CUBIN)
    return err_set(err, "a cubin is for one architecture, such as sm_90, and not for %s", target->name);
  EmitTarget wanted = *target;
  wanted.form = what == EMIT_PTX ? FORM_PTX : FORM_CUBIN;
  EmitObject object = {0};
  if (!nvrtc_image(&wanted, kernel, symbol.text, &object, err)) return false;
  text_add_bytes(out, object.data, object.size);
  free(object.data);
  return true;
}

bool emit_text(EmitTarget *target, const LoopKernel *kernel, EmitText what, Text *out, Err *err) {
  bool cpu = target->form == FORM_OBJECT, wants_cpu = what == EMIT_LLVM || what == EMIT_ASM;
  if (cpu != wants_cpu) die("a text of a %s's kernel from target %s", wants_cpu ? "CPU" : "GPU", target->name);
  if (!fits(target, kernel, err)) return false;
  return cpu ? emit_text_cpu(target, kernel, what, out, err) : text_of_gpu(target, kernel, what, out, err);
}
