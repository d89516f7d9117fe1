/* The CPU device. What a run needs is worked out once, in cpu_executor_new: the addresses of every launch's buffers and, for the
 * last batch size that a step ran at, where each launch's tasks begin among those of its segment. A run is then one pool_run a
 * segment.
 *
 * Arena, parameters and each worker's scratch are mappings of their own, zero at first, on huge pages where the system has them,
 * with an unmapped page behind each, so that a kernel that runs past the end stops there. */
#include "runtime/base/arena.h"
#include "runtime/executor_private.h"
#include "runtime/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { HUGE_PAGE = 2 << 20, PAGE = 4096, LINE = 64 };

typedef struct Mapping {
  char *data;
  char *whole; /* with what lies around `data` */
  size_t whole_bytes;
} Mapping;

typedef struct ReadyLaunch {
  KernelFunction *run;
  void *const *buffers;
  int32_t images, tasks;
  int64_t first; /* its first task among those of its segment, at the step's batch */
} ReadyLaunch;

typedef struct ReadySegment {
  ReadyLaunch *launches;
  uint32_t count;
  int64_t tasks;
} ReadySegment;

typedef struct ReadyStep {
  ReadySegment *segments;
  uint32_t count;
  int64_t batch; /* that `first` and `tasks` are worked out for; 0: none yet */
} ReadyStep;

typedef struct CpuExecutor {
  Executor base;
  Arena *memory;
  Pool *pool;
  Mapping arena, parameters;
  Mapping *scratch; /* one a worker */
  ReadyStep *steps; /* one a step of the program */
} CpuExecutor;

typedef struct SegmentRun {
  const CpuExecutor *executor;
  const ReadySegment *segment;
  int64_t batch;
} SegmentRun;

static bool mapping_make(Mapping *mapping, int64_t bytes, const char *what, Err *err) {
  size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : PAGE;
  size_t size = ((size_t)bytes + LINE + PAGE - 1) / PAGE * PAGE;
  size_t whole = size + align + PAGE;
  void *at = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED)
    return err_set(err, "cannot get %lld MB of memory for %s: %s", (long long)(bytes >> 20), what, strerror(errno));
  mapping->whole = at;
  mapping->whole_bytes = whole;
  mapping->data = (char *)(((uintptr_t)at + align - 1) / align * align);
  if (mprotect(mapping->data, size, PROT_READ | PROT_WRITE))
    return err_set(err, "cannot get %lld MB of memory for %s: %s", (long long)(bytes >> 20), what, strerror(errno));
  if (align == HUGE_PAGE) madvise(mapping->data, size, MADV_HUGEPAGE); /* without them it is only slower */
  return true;
}

static void mapping_free(Mapping *mapping) {
  if (mapping->whole) munmap(mapping->whole, mapping->whole_bytes);
}

static bool make_memory(CpuExecutor *executor, int32_t threads, Err *err) {
  const Program *program = executor->base.program;
  int64_t arena_bytes = executor_arena_bytes(program), scratch_bytes = 0;
  for (uint32_t i = 0; i < program->kernel_count; i++)
    if (program->kernels[i].scratch_bytes > scratch_bytes) scratch_bytes = program->kernels[i].scratch_bytes;
  if (!mapping_make(&executor->arena, arena_bytes, "activations", err)) return false;
  if (!mapping_make(&executor->parameters, program->parameter_bytes, "weights", err)) return false;
  for (int32_t i = 0; i < threads; i++)
    if (!mapping_make(&executor->scratch[i], scratch_bytes, "scratch", err)) return false;
  return true;
}

static void *buffer_address(const CpuExecutor *executor, const ProgramStep *step, BufferRef buffer) {
  bool in_arena = buffer.space == BUFFER_ARENA;
  int64_t bytes = in_arena ? step->arena_bytes : executor->base.program->parameter_bytes;
  if (buffer.offset < 0 || buffer.offset > bytes)
    die("step %s: a buffer lies at %lld of %lld bytes", step->name, (long long)buffer.offset, (long long)bytes);
  return (in_arena ? executor->arena : executor->parameters).data + buffer.offset;
}

static void ready_launch(CpuExecutor *executor, const ProgramStep *step, const Launch *launch, ReadyLaunch *ready) {
  const Program *program = executor->base.program;
  if (launch->kernel >= program->kernel_count) die("step %s: kernel %u of %u", step->name, launch->kernel, program->kernel_count);
  if (launch->product) die("step %s: a product of a library, which is for GPUs", step->name);
  void **buffers = ARENA_ARRAY(executor->memory, void *, launch->buffer_count);
  for (uint32_t i = 0; i < launch->buffer_count; i++) buffers[i] = buffer_address(executor, step, launch->buffers[i]);
  *ready = (ReadyLaunch){
      .run = program->kernels[launch->kernel].run, .buffers = buffers, .images = launch->images, .tasks = launch->tasks};
}

static void ready_step(CpuExecutor *executor, const ProgramStep *step, ReadyStep *ready) {
  ready->count = step->segment_count;
  ready->segments = ARENA_ARRAY(executor->memory, ReadySegment, step->segment_count);
  for (uint32_t s = 0; s < step->segment_count; s++) {
    const Segment *segment = &step->segments[s];
    ReadySegment *made = &ready->segments[s];
    made->count = segment->count;
    made->launches = ARENA_ARRAY(executor->memory, ReadyLaunch, segment->count);
    for (uint32_t i = 0; i < segment->count; i++) ready_launch(executor, step, &segment->launches[i], &made->launches[i]);
  }
}

static ReadyStep *step_at_batch(CpuExecutor *executor, const ProgramStep *step, int64_t batch) {
  ReadyStep *ready = &executor->steps[executor_step_index(&executor->base, step)];
  if (ready->batch == batch) return ready;
  for (uint32_t s = 0; s < ready->count; s++) {
    ReadySegment *segment = &ready->segments[s];
    segment->tasks = 0;
    for (uint32_t i = 0; i < segment->count; i++) {
      ReadyLaunch *launch = &segment->launches[i];
      launch->first = segment->tasks;
      segment->tasks += program_tasks(launch->images, launch->tasks, batch);
    }
  }
  ready->batch = batch;
  return ready;
}

/* Tasks first <= t < last of a segment, which may lie in several launches. */
static void run_tasks(void *context, int32_t worker, int64_t first, int64_t last) {
  const SegmentRun *run = context;
  const ReadySegment *segment = run->segment;
  uint32_t low = 0, high = segment->count; /* the launch of `first` is in low <= i < high */
  while (high - low > 1) {
    uint32_t middle = low + (high - low) / 2;
    if (segment->launches[middle].first <= first)
      low = middle;
    else
      high = middle;
  }
  while (first < last) {
    const ReadyLaunch *launch = &segment->launches[low];
    int64_t end = low + 1 < segment->count ? segment->launches[low + 1].first : segment->tasks;
    if (end > last) end = last;
    KernelArgs args = {.buffers = launch->buffers, .scratch = run->executor->scratch[worker].data, .batch = run->batch};
    if (first < end) launch->run(&args, first - launch->first, end - launch->first);
    first = end;
    low++;
  }
}

static bool cpu_run(Executor *base, const ProgramStep *step, int64_t batch, int64_t number, Err *err) {
  (void)number, (void)err;
  CpuExecutor *executor = (CpuExecutor *)base;
  const ReadyStep *ready = step_at_batch(executor, step, batch);
  for (uint32_t s = 0; s < ready->count; s++) {
    SegmentRun run = {.executor = executor, .segment = &ready->segments[s], .batch = batch};
    pool_run(executor->pool, run.segment->tasks, run_tasks, &run);
  }
  return true;
}

static bool cpu_profile(Executor *base, const ProgramStep *step, int64_t batch, double *seconds, Err *err) {
  (void)err;
  CpuExecutor *executor = (CpuExecutor *)base;
  const ReadyStep *ready = step_at_batch(executor, step, batch);
  for (uint32_t s = 0; s < ready->count; s++)
    for (uint32_t i = 0; i < ready->segments[s].count; i++) {
      ReadyLaunch alone = ready->segments[s].launches[i];
      alone.first = 0;
      ReadySegment segment = {.launches = &alone, .count = 1, .tasks = program_tasks(alone.images, alone.tasks, batch)};
      SegmentRun run = {.executor = executor, .segment = &segment, .batch = batch};
      struct timespec start, end;
      clock_gettime(CLOCK_MONOTONIC, &start);
      pool_run(executor->pool, segment.tasks, run_tasks, &run);
      clock_gettime(CLOCK_MONOTONIC, &end);
      *seconds++ += (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    }
  return true;
}

static int64_t cpu_launches(Executor *base, const ProgramStep *step, int64_t batch, Err *err) {
  (void)base, (void)batch, (void)err;
  int64_t count = 0;
  for (uint32_t s = 0; s < step->segment_count; s++) count += step->segments[s].count;
  return count;
}

/* ---- parameters, inputs, results ---- */

static bool cpu_read(Executor *base, const ProgramParameter *parameter, float *stored, Err *err) {
  (void)err;
  memcpy(stored, ((CpuExecutor *)base)->parameters.data + parameter->offset, (size_t)parameter->elements * sizeof *stored);
  return true;
}

static bool cpu_write(Executor *base, const ProgramParameter *parameter, const float *stored, Err *err) {
  (void)err;
  memcpy(((CpuExecutor *)base)->parameters.data + parameter->offset, stored, (size_t)parameter->elements * sizeof *stored);
  return true;
}

static bool cpu_input(Executor *base, const ProgramStep *step, uint32_t input, const void *data, int64_t elements, Err *err) {
  (void)err;
  memcpy(((CpuExecutor *)base)->arena.data + step->inputs[input].offset, data, 4 * (size_t)elements);
  return true;
}

static const float *cpu_result(Executor *base, const ProgramStep *step, int64_t run, uint32_t result, Err *err) {
  (void)run, (void)err;
  const void *at = ((CpuExecutor *)base)->arena.data + step->results[result].offset;
  return at;
}

static bool cpu_finish(Executor *base, Err *err) {
  (void)base, (void)err;
  return true;
}

/* ---- feed ---- */

static Feed *cpu_feed(Executor *executor, const Dataset *dataset, const LoaderSettings *settings, Err *err) {
  Loader *loader = loader_new(dataset, settings, err);
  if (!loader) return NULL;
  Feed *feed = memory_alloc(sizeof *feed);
  *feed = (Feed){executor, loader};
  return feed;
}

static void cpu_feed_free(Feed *feed) {
  loader_free(feed->loader);
  free(feed);
}

static void *input_address(const Executor *base, const ProgramStep *step, const char *name) {
  const NamedBuffer *input = program_find_input(step, name);
  return input ? ((const CpuExecutor *)base)->arena.data + input->offset : NULL;
}

static int64_t cpu_feed_next(Feed *feed, const ProgramStep *step, Err *err) {
  (void)err;
  return loader_next(feed->loader, input_address(feed->executor, step, "x"), input_address(feed->executor, step, "y"));
}

/* ---- the device ---- */

static void cpu_free(Executor *base) {
  CpuExecutor *executor = (CpuExecutor *)base;
  int32_t threads = pool_threads(executor->pool);
  pool_free(executor->pool);
  for (int32_t i = 0; i < threads; i++) mapping_free(&executor->scratch[i]);
  mapping_free(&executor->arena);
  mapping_free(&executor->parameters);
  arena_free(executor->memory);
  free(executor);
}

static const ExecutorDevice cpu_device = {
    .free = cpu_free,
    .read = cpu_read,
    .write = cpu_write,
    .input = cpu_input,
    .run = cpu_run,
    .result = cpu_result,
    .finish = cpu_finish,
    .profile = cpu_profile,
    .launches = cpu_launches,
    .feed = cpu_feed,
    .feed_free = cpu_feed_free,
    .feed_next = cpu_feed_next,
};

Executor *cpu_executor_new(const Program *program, const ExecutorOptions *options, Err *err) {
  Pool *pool = pool_new(options->threads, err);
  if (!pool) return NULL;
  CpuExecutor *executor = memory_alloc(sizeof *executor);
  executor->base = (Executor){.device = &cpu_device, .program = program, .depth = 1};
  executor->pool = pool;
  executor->memory = arena_new();
  executor->scratch = ARENA_ARRAY(executor->memory, Mapping, options->threads);
  executor->steps = ARENA_ARRAY(executor->memory, ReadyStep, program->step_count);
  if (!make_memory(executor, options->threads, err)) {
    cpu_free(&executor->base);
    return NULL;
  }
  for (uint32_t i = 0; i < program->step_count; i++) ready_step(executor, &program->steps[i], &executor->steps[i]);
  return &executor->base;
}
