/* What all devices share: calls are checked here, once, and handed to the program's device. A call that no correct caller makes
 * (a parameter that is not there, a batch larger than the program's, a result that has been overwritten) dies. */
#include "runtime/executor_private.h"

#include "runtime/base/arena.h"

#include <stdlib.h>

Executor *executor_new(const Program *program, const ExecutorOptions *options, Err *err) {
  switch (program->device) {
  case PROGRAM_CPU: return cpu_executor_new(program, options, err);
  case PROGRAM_CUDA: return cuda_executor_new(program, options, err);
  }
  die("a program for device %d", (int)program->device);
}

void executor_free(Executor *executor) {
  if (executor) executor->device->free(executor);
}

int executor_depth(const Executor *executor) {
  return executor->depth;
}

uint32_t executor_step_index(const Executor *executor, const ProgramStep *step) {
  const Program *program = executor->program;
  if (step < program->steps || step >= program->steps + program->step_count) die("step %s is not of this program", step->name);
  return (uint32_t)(step - program->steps);
}

int64_t executor_arena_bytes(const Program *program) {
  int64_t bytes = 0;
  for (uint32_t i = 0; i < program->step_count; i++)
    if (program->steps[i].arena_bytes > bytes) bytes = program->steps[i].arena_bytes;
  return bytes;
}

static const ProgramParameter *parameter_at(const Executor *executor, uint32_t parameter) {
  const Program *program = executor->program;
  if (parameter >= program->parameter_count) die("parameter %u of %u", parameter, program->parameter_count);
  return &program->parameters[parameter];
}

bool executor_read(Executor *executor, uint32_t parameter, float *stored, Err *err) {
  return executor->device->read(executor, parameter_at(executor, parameter), stored, err);
}

bool executor_write(Executor *executor, uint32_t parameter, const float *stored, Err *err) {
  return executor->device->write(executor, parameter_at(executor, parameter), stored, err);
}

bool executor_input(Executor *executor, const ProgramStep *step, const char *name, const void *data, int64_t elements, Err *err) {
  executor_step_index(executor, step);
  const NamedBuffer *input = program_find_input(step, name);
  if (!input) die("step %s has no input %s", step->name, name);
  if (elements < 0 || elements > input->elements)
    die("step %s: %lld elements for its input %s of %lld", step->name, (long long)elements, name, (long long)input->elements);
  return executor->device->input(executor, step, (uint32_t)(input - step->inputs), data, elements, err);
}

static void check_batch(const Executor *executor, const ProgramStep *step, int64_t batch) {
  executor_step_index(executor, step);
  if (batch < 1 || batch > executor->program->batch)
    die("step %s: a batch of %lld of at most %d", step->name, (long long)batch, executor->program->batch);
}

int64_t executor_run(Executor *executor, const ProgramStep *step, int64_t batch, Err *err) {
  check_batch(executor, step, batch);
  int64_t run = executor->runs;
  if (!executor->device->run(executor, step, batch, run, err)) return -1;
  executor->runs++;
  return run;
}

const float *executor_result(Executor *executor, const ProgramStep *step, int64_t run, const char *name, Err *err) {
  executor_step_index(executor, step);
  const NamedBuffer *result = program_find_result(step, name);
  if (!result) die("step %s has no result %s", step->name, name);
  if (run < 0 || run >= executor->runs || run < executor->runs - executor->depth)
    die("results of run %lld, where %lld were started and %d are kept", (long long)run, (long long)executor->runs,
        executor->depth);
  return executor->device->result(executor, step, run, (uint32_t)(result - step->results), err);
}

bool executor_finish(Executor *executor, Err *err) {
  return executor->device->finish(executor, err);
}

bool executor_profile(Executor *executor, const ProgramStep *step, int64_t batch, double *seconds, Err *err) {
  check_batch(executor, step, batch);
  return executor->device->profile(executor, step, batch, seconds, err);
}

/* The trace of a device that only times launch by launch. */
static bool trace_profile(Executor *executor, const ProgramStep *step, int64_t batch, ExecutorSink *sink, void *context,
                          Err *err) {
  size_t count = 0;
  for (uint32_t s = 0; s < step->segment_count; s++) count += step->segments[s].count;
  double *seconds = memory_alloc((count + 1) * sizeof *seconds), start = 0;
  bool done = executor->device->profile(executor, step, batch, seconds, err);
  for (uint32_t s = 0, number = 0; s < step->segment_count && done; s++)
    for (uint32_t l = 0; l < step->segments[s].count; l++, number++) {
      const Launch *launch = &step->segments[s].launches[l];
      int64_t tasks = program_tasks(launch->images, launch->tasks, batch);
      ExecutorSlice slice = {.launch = number, .last = tasks, .start = start, .end = start + seconds[number]};
      sink(context, &slice);
      start = slice.end;
    }
  free(seconds);
  return done;
}

bool executor_trace(Executor *executor, const ProgramStep *step, int64_t batch, ExecutorSink *sink, void *context, Err *err) {
  check_batch(executor, step, batch);
  bool own = executor->device->trace;
  return own ? executor->device->trace(executor, step, batch, sink, context, err)
             : trace_profile(executor, step, batch, sink, context, err);
}

int64_t executor_launches(Executor *executor, const ProgramStep *step, int64_t batch, Err *err) {
  check_batch(executor, step, batch);
  return executor->device->launches(executor, step, batch, err);
}

Feed *feed_new(Executor *executor, const Dataset *dataset, const LoaderSettings *settings, Err *err) {
  const ProgramData *data = &executor->program->data;
  if (settings->batch > executor->program->batch)
    die("batches of %d images for a program of %d", settings->batch, executor->program->batch);
  if (dataset->channels != data->channels || dataset->height != data->height || dataset->width != data->width)
    die("images of %d x %d x %d for the program of %s", dataset->channels, dataset->height, dataset->width,
        executor->program->name);
  return executor->device->feed(executor, dataset, settings, err);
}

void feed_free(Feed *feed) {
  if (feed) feed->executor->device->feed_free(feed);
}

int64_t feed_next(Feed *feed, const ProgramStep *step, Err *err) {
  executor_step_index(feed->executor, step);
  return feed->executor->device->feed_next(feed, step, err);
}
