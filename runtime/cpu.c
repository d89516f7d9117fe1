/* The CPU device. What a run needs is worked out once, in cpu_executor_new: the addresses of every launch's buffers and, for the
 * last batch size that a step ran at, where each launch's tasks begin among those of its segment. A run is then one pool_run a
 * segment.
 *
 * Arena, parameters and each worker's scratch are mappings of their own, zero at first, on huge pages where the system has them,
 * with an unmapped page behind each, so that a kernel that runs past the end stops there. */
#include "runtime/base/arena.h"
#include "runtime/base/vector.h"
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
  const BufferRef *scratch; /* of each buffer, where the launch has one in scratch; else null */
  uint32_t buffer_count;
  bool each_task;
} ReadyLaunch;

typedef struct ReadyRun {
  const ReadyLaunch *launches;
  uint32_t count, number; /* number: of its first launch in the step */
  int32_t images, tasks;
  bool by_task;  /* several launches or scratch: a task at a time */
  int64_t first; /* its first task among those of its segment, at the step's batch */
} ReadyRun;

typedef struct ReadySegment {
  ReadyRun *runs;
  uint32_t count;
  int64_t tasks;
} ReadySegment;

typedef struct ReadyStep {
  ReadySegment *segments;
  uint32_t count;
  int64_t batch; /* that `first` and `tasks` are worked out for; 0: none yet */
} ReadyStep;

typedef struct CpuWorker {
  Mapping scratch;              /* of kernels, then of values */
  void **buffers;               /* of the launch under way */
  double *seconds;              /* of each launch of the step that is profiled */
  VECTOR(ExecutorSlice) slices; /* of a run that is traced */
} CpuWorker;

typedef struct CpuExecutor {
  Executor base;
  Arena *memory;
  Pool *pool;
  Mapping arena, parameters;
  CpuWorker *workers;
  int64_t values;   /* where in a worker's scratch values begin */
  ReadyStep *steps; /* one a step of the program */
} CpuExecutor;

typedef struct SegmentRun {
  const CpuExecutor *executor;
  const ReadySegment *segment;
  int64_t batch;
  bool timed, traced;
  double began; /* of a run that is timed or traced */
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
  int64_t arena_bytes = executor_arena_bytes(program), kernels = 0, values = 0;
  for (uint32_t i = 0; i < program->kernel_count; i++)
    if (program->kernels[i].scratch_bytes > kernels) kernels = program->kernels[i].scratch_bytes;
  for (uint32_t i = 0; i < program->step_count; i++)
    if (program->steps[i].scratch_bytes > values) values = program->steps[i].scratch_bytes;
  executor->values = (kernels + LINE - 1) / LINE * LINE;
  if (!mapping_make(&executor->arena, arena_bytes, "activations", err)) return false;
  if (!mapping_make(&executor->parameters, program->parameter_bytes, "weights", err)) return false;
  for (int32_t i = 0; i < threads; i++)
    if (!mapping_make(&executor->workers[i].scratch, executor->values + values, "scratch", err)) return false;
  return true;
}

static void *buffer_address(const CpuExecutor *executor, const ProgramStep *step, BufferRef buffer) {
  bool in_arena = buffer.space == BUFFER_ARENA, in_scratch = buffer.space == BUFFER_SCRATCH;
  int64_t bytes = in_arena ? step->arena_bytes : in_scratch ? step->scratch_bytes : executor->base.program->parameter_bytes;
  if (buffer.offset < 0 || buffer.offset > bytes)
    die("step %s: a buffer lies at %lld of %lld bytes", step->name, (long long)buffer.offset, (long long)bytes);
  if (in_scratch) return NULL;
  return (in_arena ? executor->arena : executor->parameters).data + buffer.offset;
}

static ReadyLaunch ready_launch(CpuExecutor *executor, const ProgramStep *step, const Launch *launch) {
  const Program *program = executor->base.program;
  if (launch->kernel >= program->kernel_count) die("step %s: kernel %u of %u", step->name, launch->kernel, program->kernel_count);
  if (launch->product) die("step %s: a product of a library, which is for GPUs", step->name);
  void **buffers = ARENA_ARRAY(executor->memory, void *, launch->buffer_count);
  bool scratch = false;
  for (uint32_t i = 0; i < launch->buffer_count; i++) {
    buffers[i] = buffer_address(executor, step, launch->buffers[i]);
    scratch |= launch->buffers[i].space == BUFFER_SCRATCH;
  }
  return (ReadyLaunch){.run = program->kernels[launch->kernel].run,
                       .buffers = buffers,
                       .scratch = scratch ? launch->buffers : NULL,
                       .buffer_count = launch->buffer_count,
                       .each_task = launch->each_task};
}

static void ready_segment(CpuExecutor *executor, const ProgramStep *step, const Segment *segment, uint32_t number,
                          ReadySegment *ready) {
  ReadyLaunch *launches = ARENA_ARRAY(executor->memory, ReadyLaunch, segment->count);
  ready->runs = ARENA_ARRAY(executor->memory, ReadyRun, segment->count);
  for (uint32_t i = 0; i < segment->count; i++) {
    const Launch *launch = &segment->launches[i];
    launches[i] = ready_launch(executor, step, launch);
    if (i == 0 || !launch->joins)
      ready->runs[ready->count++] =
          (ReadyRun){.launches = &launches[i], .number = number + i, .images = launch->images, .tasks = launch->tasks};
    ReadyRun *run = &ready->runs[ready->count - 1];
    if (launch->images != run->images || launch->tasks != run->tasks)
      die("step %s: a run of launches with other tasks", step->name);
    run->count++;
    run->by_task |= run->count > 1 || launches[i].scratch;
  }
}

/* Returns how many launches the step has. */
static uint32_t ready_step(CpuExecutor *executor, const ProgramStep *step, ReadyStep *ready) {
  uint32_t number = 0;
  ready->count = step->segment_count;
  ready->segments = ARENA_ARRAY(executor->memory, ReadySegment, step->segment_count);
  for (uint32_t s = 0; s < step->segment_count; s++) {
    ready_segment(executor, step, &step->segments[s], number, &ready->segments[s]);
    number += step->segments[s].count;
  }
  return number;
}

static void ready_steps(CpuExecutor *executor, int32_t threads) {
  const Program *program = executor->base.program;
  uint32_t most_launches = 0, most_buffers = 0;
  for (uint32_t i = 0; i < program->step_count; i++) {
    const ProgramStep *step = &program->steps[i];
    uint32_t launches = ready_step(executor, step, &executor->steps[i]);
    if (launches > most_launches) most_launches = launches;
    for (uint32_t s = 0; s < step->segment_count; s++)
      for (uint32_t l = 0; l < step->segments[s].count; l++)
        if (step->segments[s].launches[l].buffer_count > most_buffers) most_buffers = step->segments[s].launches[l].buffer_count;
  }
  for (int32_t i = 0; i < threads; i++) {
    executor->workers[i].buffers = ARENA_ARRAY(executor->memory, void *, most_buffers);
    executor->workers[i].seconds = ARENA_ARRAY(executor->memory, double, most_launches);
  }
}

static ReadyStep *step_at_batch(CpuExecutor *executor, const ProgramStep *step, int64_t batch) {
  ReadyStep *ready = &executor->steps[executor_step_index(&executor->base, step)];
  if (ready->batch == batch) return ready;
  for (uint32_t s = 0; s < ready->count; s++) {
    ReadySegment *segment = &ready->segments[s];
    segment->tasks = 0;
    for (uint32_t i = 0; i < segment->count; i++) {
      ReadyRun *run = &segment->runs[i];
      run->first = segment->tasks;
      segment->tasks += program_tasks(run->images, run->tasks, batch);
    }
  }
  ready->batch = batch;
  return ready;
}

static double now_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Tasks first <= t < last of one launch of a run. Values in scratch are addressed as if the whole batch lay there, so kernels
 * need not know; then first + 1 == last. */
static void run_launch(const SegmentRun *at, CpuWorker *worker, const ReadyRun *run, uint32_t number, int64_t first,
                       int64_t last) {
  const ReadyLaunch *launch = &run->launches[number];
  KernelArgs args = {.buffers = launch->buffers, .scratch = worker->scratch.data, .batch = at->batch};
  if (launch->scratch) {
    uintptr_t values = (uintptr_t)(worker->scratch.data + at->executor->values);
    for (uint32_t i = 0; i < launch->buffer_count; i++) {
      const BufferRef *buffer = &launch->scratch[i];
      uintptr_t image = (uintptr_t)(buffer->offset - first * run->images * buffer->image_bytes);
      worker->buffers[i] = buffer->space == BUFFER_SCRATCH ? (void *)(values + image) : launch->buffers[i];
    }
    args.buffers = worker->buffers;
  }
  if (launch->each_task) first = 0, last = 1;
  if (!at->timed && !at->traced) {
    launch->run(&args, first, last);
    return;
  }
  double start = now_seconds();
  launch->run(&args, first, last);
  double end = now_seconds();
  worker->seconds[run->number + number] += end - start;
  if (at->traced) {
    int32_t index = (int32_t)(worker - at->executor->workers);
    ExecutorSlice slice = {index, run->number + number, first, last, start - at->began, end - at->began};
    vector_push(&worker->slices, slice);
  }
}

static void run_part(const SegmentRun *at, CpuWorker *worker, const ReadyRun *run, int64_t first, int64_t last) {
  if (!run->by_task) {
    if (first < last) run_launch(at, worker, run, 0, first, last);
    return;
  }
  for (int64_t task = first; task < last; task++)
    for (uint32_t i = 0; i < run->count; i++) run_launch(at, worker, run, i, task, task + 1);
}

/* Tasks first <= t < last of a segment, which may lie in several runs. */
static void run_tasks(void *context, int32_t worker, int64_t first, int64_t last) {
  const SegmentRun *at = context;
  const ReadySegment *segment = at->segment;
  uint32_t low = 0, high = segment->count; /* the run of `first` is in low <= i < high */
  while (high - low > 1) {
    uint32_t middle = low + (high - low) / 2;
    if (segment->runs[middle].first <= first)
      low = middle;
    else
      high = middle;
  }
  while (first < last) {
    const ReadyRun *run = &segment->runs[low];
    int64_t end = low + 1 < segment->count ? segment->runs[low + 1].first : segment->tasks;
    if (end > last) end = last;
    run_part(at, &at->executor->workers[worker], run, first - run->first, end - run->first);
    first = end;
    low++;
  }
}

/* `how`: whether it is timed or traced. */
static void run_segments(CpuExecutor *executor, const ProgramStep *step, int64_t batch, SegmentRun how) {
  const ReadyStep *ready = step_at_batch(executor, step, batch);
  for (uint32_t s = 0; s < ready->count; s++) {
    how.executor = executor;
    how.segment = &ready->segments[s];
    how.batch = batch;
    pool_run(executor->pool, how.segment->tasks, run_tasks, &how);
  }
}

static bool cpu_run(Executor *base, const ProgramStep *step, int64_t batch, int64_t number, Err *err) {
  (void)number, (void)err;
  run_segments((CpuExecutor *)base, step, batch, (SegmentRun){0});
  return true;
}

static int64_t cpu_launches(Executor *base, const ProgramStep *step, int64_t batch, Err *err);

/* A launch's time is that of its tasks on all workers, divided by their number. */
static bool cpu_profile(Executor *base, const ProgramStep *step, int64_t batch, double *seconds, Err *err) {
  CpuExecutor *executor = (CpuExecutor *)base;
  int64_t launches = cpu_launches(base, step, batch, err);
  int32_t threads = pool_threads(executor->pool);
  for (int32_t w = 0; w < threads; w++) memset(executor->workers[w].seconds, 0, (size_t)launches * sizeof *seconds);
  run_segments(executor, step, batch, (SegmentRun){.timed = true});
  for (int32_t w = 0; w < threads; w++)
    for (int64_t l = 0; l < launches; l++) seconds[l] += executor->workers[w].seconds[l] / threads;
  return true;
}

static int64_t cpu_launches(Executor *base, const ProgramStep *step, int64_t batch, Err *err) {
  (void)base, (void)batch, (void)err;
  int64_t count = 0;
  for (uint32_t s = 0; s < step->segment_count; s++) count += step->segments[s].count;
  return count;
}

static bool cpu_trace(Executor *base, const ProgramStep *step, int64_t batch, ExecutorSink *sink, void *context, Err *err) {
  (void)err;
  CpuExecutor *executor = (CpuExecutor *)base;
  int32_t threads = pool_threads(executor->pool);
  for (int32_t w = 0; w < threads; w++) executor->workers[w].slices.count = 0;
  run_segments(executor, step, batch, (SegmentRun){.traced = true, .began = now_seconds()});
  for (int32_t w = 0; w < threads; w++)
    for (size_t i = 0; i < executor->workers[w].slices.count; i++) sink(context, &executor->workers[w].slices.data[i]);
  return true;
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
  for (int32_t i = 0; i < threads; i++) {
    mapping_free(&executor->workers[i].scratch);
    vector_free(&executor->workers[i].slices);
  }
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
    .trace = cpu_trace,
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
  executor->workers = ARENA_ARRAY(executor->memory, CpuWorker, options->threads);
  executor->steps = ARENA_ARRAY(executor->memory, ReadyStep, program->step_count);
  if (!make_memory(executor, options->threads, err)) {
    cpu_free(&executor->base);
    return NULL;
  }
  ready_steps(executor, options->threads);
  return &executor->base;
}
