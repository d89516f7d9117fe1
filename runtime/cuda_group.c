/* Grouped launches: all launches of a segment in one. Who does what stands in tables on the device, made once for each batch
 * size: an entry a block says which launches it does, one after another, and on which of their tasks; a step, which of the
 * group's kernels that is and where its arguments begin; the arguments are pointers, and last the batch. */
#include "runtime/cuda_private.h"

#include <limits.h>
#include <stdlib.h>

typedef struct Builder {
  CudaExecutor *executor;
  const ProgramStep *step;
  int64_t batch;
  VECTOR(CudaGroupBlock) blocks;
  VECTOR(CudaGroupStep) steps;
  VECTOR(uint64_t) arguments;
} Builder;

static void add_step(Builder *b, const Launch *launch) {
  vector_push(&b->steps, ((CudaGroupStep){launch->body, (uint32_t)b->arguments.count}));
  for (uint32_t i = 0; i < launch->buffer_count; i++)
    vector_push(&b->arguments, cuda_buffer(b->executor, b->step, launch->buffers[i]));
  vector_push(&b->arguments, (uint64_t)b->batch);
}

/* A launch and those that join it. */
static void add_run(Builder *b, const Launch *launches, uint32_t count) {
  int64_t tasks = program_tasks(launches->images, launches->tasks, b->batch);
  uint32_t first = (uint32_t)b->steps.count;
  for (uint32_t i = 0; i < count; i++) {
    if (program_tasks(launches[i].images, launches[i].tasks, b->batch) != tasks)
      die("step %s: launches of one run have different tasks", b->step->name);
    add_step(b, &launches[i]);
  }
  if (tasks < 1 || tasks > INT_MAX - (int64_t)b->blocks.count) die("step %s: %lld tasks", b->step->name, (long long)tasks);
  for (int64_t task = 0; task < tasks; task++)
    vector_push(&b->blocks, ((CudaGroupBlock){.step = first, .count = count, .task = (int32_t)task}));
}

static void add_segment(Builder *b, const Segment *segment) {
  for (uint32_t l = 0, count; l < segment->count; l += count) {
    count = 1;
    if (segment->launches[l].product) continue;
    while (l + count < segment->count && segment->launches[l + count].joins) count++;
    add_run(b, &segment->launches[l], count);
  }
}

static void add_segments(Builder *b, CudaTables *tables) {
  int64_t number = 0;
  for (uint32_t s = 0; s < b->step->segment_count; s++) {
    const Segment *segment = &b->step->segments[s];
    if (!tables->apart) tables->first_block[number++] = (int64_t)b->blocks.count;
    if (!tables->apart && segment->group) add_segment(b, segment);
    for (uint32_t l = 0; tables->apart && l < segment->count; l++) {
      tables->first_block[number++] = (int64_t)b->blocks.count;
      if (segment->group && !segment->launches[l].product) add_run(b, &segment->launches[l], 1);
    }
  }
  tables->first_block[number] = (int64_t)b->blocks.count;
}

static bool send(CudaExecutor *executor, CudaPointer to, const void *from, size_t bytes, Err *err) {
  return !bytes || cuda_check(&executor->driver, executor->driver.copy_in(to, from, bytes, executor->stream), err,
                              "cannot send the tables of grouped launches to the GPU");
}

static bool send_tables(Builder *b, CudaTables *tables, Err *err) {
  size_t blocks = b->blocks.count * sizeof *b->blocks.data, steps = b->steps.count * sizeof *b->steps.data;
  size_t arguments = b->arguments.count * sizeof *b->arguments.data;
  tables->steps_at = (int64_t)blocks; /* all sizes are multiples of 8 */
  tables->arguments_at = tables->steps_at + (int64_t)steps;
  CudaExecutor *executor = b->executor;
  return cuda_allocate(executor, &tables->memory, tables->arguments_at + (int64_t)arguments, "the tables of grouped launches",
                       err) &&
         send(executor, tables->memory, b->blocks.data, blocks, err) &&
         send(executor, tables->memory + (CudaPointer)tables->steps_at, b->steps.data, steps, err) &&
         send(executor, tables->memory + (CudaPointer)tables->arguments_at, b->arguments.data, arguments, err) &&
         cuda_wait(executor, err);
}

static size_t count_numbers(const ProgramStep *step, bool apart) {
  size_t count = step->segment_count;
  if (!apart) return count;
  count = 0;
  for (uint32_t s = 0; s < step->segment_count; s++) count += step->segments[s].count;
  return count;
}

const CudaTables *cuda_tables(CudaExecutor *executor, CudaStep *step, int64_t batch, bool apart, Err *err) {
  for (size_t i = 0; i < step->tables.count; i++)
    if (step->tables.data[i].batch == batch && step->tables.data[i].apart == apart) return &step->tables.data[i];
  CudaTables made = {.batch = batch, .apart = apart};
  made.first_block = ARENA_ARRAY(executor->memory, int64_t, count_numbers(step->step, apart) + 1);
  Builder builder = {.executor = executor, .step = step->step, .batch = batch};
  add_segments(&builder, &made);
  bool sent = send_tables(&builder, &made, err);
  vector_free(&builder.blocks);
  vector_free(&builder.steps);
  vector_free(&builder.arguments);
  if (!sent) {
    if (made.memory) executor->driver.memory_free(made.memory);
    return NULL;
  }
  vector_push(&step->tables, made);
  return &step->tables.data[step->tables.count - 1];
}

bool cuda_put_group(CudaExecutor *executor, const CudaTables *tables, uint32_t kernel, int64_t number, Err *err) {
  const ProgramKernel *own = &executor->base.program->kernels[kernel];
  int64_t first = tables->first_block[number], blocks = tables->first_block[number + 1] - first;
  if (blocks < 1) die("the group %s has no blocks", own->name);
  CudaPointer parameters[3] = {tables->memory + (CudaPointer)first * sizeof(CudaGroupBlock),
                               tables->memory + (CudaPointer)tables->steps_at,
                               tables->memory + (CudaPointer)tables->arguments_at};
  void *arguments[3] = {&parameters[0], &parameters[1], &parameters[2]};
  return cuda_check(&executor->driver,
                    executor->driver.launch(executor->functions[kernel], (unsigned)blocks, 1, 1, (unsigned)own->threads, 1, 1,
                                            (unsigned)own->shared_bytes, executor->stream, arguments, NULL),
                    err, "cannot launch the group %s", own->name);
}

void cuda_free_tables(CudaExecutor *executor, CudaStep *step) {
  for (size_t i = 0; i < step->tables.count; i++) executor->driver.memory_free(step->tables.data[i].memory);
  vector_free(&step->tables);
}
