/* The CPU device. What a run needs is worked out once, in executor_new: the addresses of every launch's buffers and, for the last
 * batch size that a step ran at, where each launch's tasks begin among those of its segment. A run is then one pool_run a
 * segment.
 *
 * Arena, parameters and each worker's scratch are mappings of their own, zero at first, on huge pages where the system has them,
 * with an unmapped page behind each, so that a kernel that runs past the end stops there. */
#include "runtime/executor.h"

#include "runtime/base/arena.h"
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
  int32_t images_per_task, tasks;
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

struct Executor {
  const Program *program;
  Arena *memory;
  Pool *pool;
  Mapping arena, parameters;
  Mapping *scratch; /* one a worker */
  ReadyStep *steps; /* one a step of the program */
};

typedef struct SegmentRun {
  const Executor *executor;
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

static bool make_memory(Executor *executor, int32_t threads, Err *err) {
  const Program *program = executor->program;
  int64_t arena_bytes = 0, scratch_bytes = 0;
  for (uint32_t i = 0; i < program->step_count; i++)
    if (program->steps[i].arena_bytes > arena_bytes) arena_bytes = program->steps[i].arena_bytes;
  for (uint32_t i = 0; i < program->kernel_count; i++)
    if (program->kernels[i].scratch_bytes > scratch_bytes) scratch_bytes = program->kernels[i].scratch_bytes;
  if (!mapping_make(&executor->arena, arena_bytes, "activations", err)) return false;
  if (!mapping_make(&executor->parameters, program->parameter_bytes, "weights", err)) return false;
  for (int32_t i = 0; i < threads; i++)
    if (!mapping_make(&executor->scratch[i], scratch_bytes, "scratch", err)) return false;
  return true;
}

static void *buffer_address(const Executor *executor, const ProgramStep *step, BufferRef buffer) {
  bool in_arena = buffer.space == BUFFER_ARENA;
  int64_t bytes = in_arena ? step->arena_bytes : executor->program->parameter_bytes;
  if (buffer.offset < 0 || buffer.offset > bytes)
    die("step %s: a buffer lies at %lld of %lld bytes", step->name, (long long)buffer.offset, (long long)bytes);
  return (in_arena ? executor->arena : executor->parameters).data + buffer.offset;
}

static void ready_launch(Executor *executor, const ProgramStep *step, const Launch *launch, ReadyLaunch *ready) {
  const Program *program = executor->program;
  if (launch->kernel >= program->kernel_count) die("step %s: kernel %u of %u", step->name, launch->kernel, program->kernel_count);
  void **buffers = ARENA_ARRAY(executor->memory, void *, launch->buffer_count);
  for (uint32_t i = 0; i < launch->buffer_count; i++) buffers[i] = buffer_address(executor, step, launch->buffers[i]);
  *ready = (ReadyLaunch){.run = program->kernels[launch->kernel].run,
                         .buffers = buffers,
                         .images_per_task = launch->images_per_task,
                         .tasks = launch->tasks};
}

static void ready_step(Executor *executor, const ProgramStep *step, ReadyStep *ready) {
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

Executor *executor_new(const Program *program, int32_t threads, Err *err) {
  Pool *pool = pool_new(threads, err);
  if (!pool) return NULL;
  Executor *executor = memory_alloc(sizeof *executor);
  executor->program = program;
  executor->pool = pool;
  executor->memory = arena_new();
  executor->scratch = ARENA_ARRAY(executor->memory, Mapping, threads);
  executor->steps = ARENA_ARRAY(executor->memory, ReadyStep, program->step_count);
  if (!make_memory(executor, threads, err)) {
    executor_free(executor);
    return NULL;
  }
  for (uint32_t i = 0; i < program->step_count; i++) ready_step(executor, &program->steps[i], &executor->steps[i]);
  return executor;
}

void executor_free(Executor *executor) {
  if (!executor) return;
  int32_t threads = pool_threads(executor->pool);
  pool_free(executor->pool);
  for (int32_t i = 0; i < threads; i++) mapping_free(&executor->scratch[i]);
  mapping_free(&executor->arena);
  mapping_free(&executor->parameters);
  arena_free(executor->memory);
  free(executor);
}

float *executor_parameter(Executor *executor, uint32_t parameter) {
  if (parameter >= executor->program->parameter_count) die("parameter %u of %u", parameter, executor->program->parameter_count);
  void *at = executor->parameters.data + executor->program->parameters[parameter].offset;
  return at;
}

static const NamedBuffer *find_named(const NamedBuffer *buffers, uint32_t count, const char *name) {
  for (uint32_t i = 0; i < count; i++)
    if (strcmp(buffers[i].name, name) == 0) return &buffers[i];
  return NULL;
}

void *executor_input(Executor *executor, const ProgramStep *step, const char *name) {
  const NamedBuffer *found = find_named(step->inputs, step->input_count, name);
  return found ? executor->arena.data + found->offset : NULL;
}

const float *executor_result(Executor *executor, const ProgramStep *step, const char *name, int64_t *elements) {
  const NamedBuffer *found = find_named(step->results, step->result_count, name);
  if (elements) *elements = found ? found->elements : 0;
  const void *at = found ? executor->arena.data + found->offset : NULL;
  return at;
}

static int64_t launch_tasks(const ReadyLaunch *launch, int64_t batch) {
  return launch->images_per_task ? (batch + launch->images_per_task - 1) / launch->images_per_task : launch->tasks;
}

static ReadyStep *step_at_batch(Executor *executor, const ProgramStep *step, int64_t batch) {
  const Program *program = executor->program;
  if (step < program->steps || step >= program->steps + program->step_count) die("step %s is not of this program", step->name);
  if (batch < 1 || batch > program->batch)
    die("step %s: a batch of %lld of at most %d", step->name, (long long)batch, program->batch);
  ReadyStep *ready = &executor->steps[step - program->steps];
  if (ready->batch == batch) return ready;
  for (uint32_t s = 0; s < ready->count; s++) {
    ReadySegment *segment = &ready->segments[s];
    segment->tasks = 0;
    for (uint32_t i = 0; i < segment->count; i++) {
      segment->launches[i].first = segment->tasks;
      segment->tasks += launch_tasks(&segment->launches[i], batch);
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

void executor_run(Executor *executor, const ProgramStep *step, int64_t batch) {
  const ReadyStep *ready = step_at_batch(executor, step, batch);
  for (uint32_t s = 0; s < ready->count; s++) {
    SegmentRun run = {.executor = executor, .segment = &ready->segments[s], .batch = batch};
    pool_run(executor->pool, run.segment->tasks, run_tasks, &run);
  }
}

void executor_profile(Executor *executor, const ProgramStep *step, int64_t batch, double *seconds) {
  const ReadyStep *ready = step_at_batch(executor, step, batch);
  for (uint32_t s = 0; s < ready->count; s++)
    for (uint32_t i = 0; i < ready->segments[s].count; i++) {
      ReadyLaunch alone = ready->segments[s].launches[i];
      alone.first = 0;
      ReadySegment segment = {.launches = &alone, .count = 1, .tasks = launch_tasks(&alone, batch)};
      SegmentRun run = {.executor = executor, .segment = &segment, .batch = batch};
      struct timespec start, end;
      clock_gettime(CLOCK_MONOTONIC, &start);
      pool_run(executor->pool, segment.tasks, run_tasks, &run);
      clock_gettime(CLOCK_MONOTONIC, &end);
      *seconds++ += (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    }
}
