/* A step as the stream sees it, and its capture: all that a run does on the device becomes one graph, captured once for each
 * batch size and for each data set that feeds it, and launched with one call a run. */
#include "runtime/cuda_private.h"

#include <limits.h>

enum { CAPTURE_RELAXED = 2 }; /* libraries may still load what a first product needs */

static bool copy_within(CudaExecutor *executor, CudaPointer to, CudaPointer from, int64_t bytes, int64_t *nodes, Err *err) {
  ++*nodes;
  return cuda_check(&executor->driver, executor->driver.copy_within(to, from, (size_t)bytes, executor->stream), err,
                    "cannot copy within the GPU's memory");
}

/* Launches with the buffers that `executor->pointers` has. */
static bool put_kernel(CudaExecutor *executor, uint32_t kernel, uint32_t buffers, int64_t tasks, int64_t batch, Err *err) {
  const ProgramKernel *own = &executor->base.program->kernels[kernel];
  int32_t images = (int32_t)batch;
  if (tasks < 1 || tasks > INT_MAX) die("kernel %s: %lld tasks", own->name, (long long)tasks);
  for (uint32_t i = 0; i < buffers; i++) executor->arguments[i] = &executor->pointers[i];
  executor->arguments[buffers] = &images;
  return cuda_check(&executor->driver,
                    executor->driver.launch(executor->functions[kernel], (unsigned)tasks, 1, 1, (unsigned)own->threads, 1, 1, 0,
                                            executor->stream, executor->arguments, NULL),
                    err, "cannot launch the kernel %s", own->name);
}

static bool put_images(CudaExecutor *executor, const CudaStep *step, const NamedBuffer *x, int64_t batch, Err *err) {
  const CudaImages *images = &executor->images.data[step->images];
  executor->pointers[0] = images->pixels;
  executor->pointers[1] = executor->mailbox + (CudaPointer)step->plan_at;
  executor->pointers[2] = images->normalised;
  executor->pointers[3] = executor->arena + (CudaPointer)x->offset;
  return put_kernel(executor, executor->base.program->images_kernel, 4, batch, batch, err);
}

bool cuda_put_inputs(CudaExecutor *executor, CudaStep *step, int64_t batch, int64_t *nodes, Err *err) {
  const NamedBuffer *x = step->images >= 0 ? program_find_input(step->step, "x") : NULL;
  for (uint32_t i = 0; i < step->step->input_count; i++) {
    const NamedBuffer *input = &step->step->inputs[i];
    CudaPointer to = executor->arena + (CudaPointer)input->offset, from = step->inputs[i].copy;
    if (step->inputs[i].mail_at >= 0) from = executor->mailbox + (CudaPointer)step->inputs[i].mail_at;
    if (input != x && from && !copy_within(executor, to, from, 4 * input->elements, nodes, err)) return false;
  }
  return !x || put_images(executor, step, x, batch, err);
}

bool cuda_put_results(CudaExecutor *executor, CudaStep *step, int64_t *nodes, Err *err) {
  for (uint32_t i = 0; i < step->step->result_count; i++) {
    const NamedBuffer *result = &step->step->results[i];
    CudaPointer to = executor->outbox + (CudaPointer)step->result_at[i], from = executor->arena + (CudaPointer)result->offset;
    if (!copy_within(executor, to, from, 4 * result->elements, nodes, err)) return false;
  }
  return true;
}

static int cublas_type(const ProgramMatrix *matrix) {
  return matrix->bf16 ? CUBLAS_BF16 : CUBLAS_F32;
}

static int cublas_operation(const ProgramMatrix *matrix) {
  return matrix->transposed ? CUBLAS_TRANSPOSE : CUBLAS_NO_TRANSPOSE;
}

static int narrow(const ProgramStep *step, int64_t value) {
  if (value < 0 || value > INT_MAX) die("step %s: a product with %lld", step->name, (long long)value);
  return (int)value;
}

/* cuBLAS counts in columns. A row-major matrix is its own transpose there, and C = A B is C^T = B^T A^T: the factors change
 * places, and each keeps its operation. */
static bool put_product(CudaExecutor *executor, const ProgramStep *step, const ProgramProduct *p, int64_t batch, Err *err) {
  const float one = 1;
  int m = narrow(step, p->batch_m ? p->m * batch : p->m), k = narrow(step, p->batch_k ? p->k * batch : p->k);
  const void *a = (const void *)(uintptr_t)executor->pointers[0], *b = (const void *)(uintptr_t)executor->pointers[1];
  void *c = (void *)(uintptr_t)executor->pointers[2];
  bool tf32 = p->tf32 && !p->a.bf16;
  int status = executor->blas.product(executor->products, cublas_operation(&p->b), cublas_operation(&p->a), narrow(step, p->n), m,
                                      k, &one, b, cublas_type(&p->b), narrow(step, p->b.stride), a, cublas_type(&p->a),
                                      narrow(step, p->a.stride), &p->beta, c, cublas_type(&p->c), narrow(step, p->c.stride),
                                      tf32 ? CUBLAS_SUM_F32_TF32 : CUBLAS_SUM_F32, CUBLAS_ALGORITHM);
  return cublas_check(status, err, "a product of matrices");
}

CudaPointer cuda_buffer(const CudaExecutor *executor, const ProgramStep *step, BufferRef buffer) {
  bool in_arena = buffer.space == BUFFER_ARENA;
  int64_t bytes = in_arena ? step->arena_bytes : executor->base.program->parameter_bytes;
  if (buffer.space == BUFFER_SCRATCH) die("step %s: a buffer in a GPU's scratch", step->name);
  if (buffer.offset < 0 || buffer.offset > bytes)
    die("step %s: a buffer lies at %lld of %lld bytes", step->name, (long long)buffer.offset, (long long)bytes);
  return (in_arena ? executor->arena : executor->parameters) + (CudaPointer)buffer.offset;
}

bool cuda_put_launch(CudaExecutor *executor, const ProgramStep *step, const Launch *launch, int64_t batch, Err *err) {
  const Program *program = executor->base.program;
  for (uint32_t i = 0; i < launch->buffer_count; i++) executor->pointers[i] = cuda_buffer(executor, step, launch->buffers[i]);
  if (launch->product) {
    if (launch->buffer_count != 3) die("step %s: a product of %u buffers", step->name, launch->buffer_count);
    return put_product(executor, step, launch->product, batch, err);
  }
  if (launch->kernel >= program->kernel_count) die("step %s: kernel %u of %u", step->name, launch->kernel, program->kernel_count);
  return put_kernel(executor, launch->kernel, launch->buffer_count, program_tasks(launch->images, launch->tasks, batch), batch,
                    err);
}

/* ---- capture ---- */

static bool put_segment(CudaExecutor *executor, const ProgramStep *step, const CudaTables *tables, uint32_t number, int64_t batch,
                        Err *err) {
  const Segment *segment = &step->segments[number];
  if (segment->group && !cuda_put_group(executor, tables, segment->group - 1, number, err)) return false;
  for (uint32_t l = 0; l < segment->count; l++)
    if ((!segment->group || segment->launches[l].product) && !cuda_put_launch(executor, step, &segment->launches[l], batch, err))
      return false;
  return true;
}

static bool put_step(CudaExecutor *executor, CudaStep *own, const CudaTables *tables, int64_t batch, int64_t *nodes, Err *err) {
  if (!cuda_put_inputs(executor, own, batch, nodes, err)) return false;
  for (uint32_t s = 0; s < own->step->segment_count; s++)
    if (!put_segment(executor, own->step, tables, s, batch, err)) return false;
  return cuda_put_results(executor, own, nodes, err);
}

static bool make_graph(CudaExecutor *executor, CudaGraph graph, int64_t copies, CudaGraphOf *made, Err *err) {
  const CudaDriver *driver = &executor->driver;
  size_t nodes = 0;
  if (!cuda_check(driver, driver->graph_nodes(graph, NULL, &nodes), err, "cannot count a graph's nodes") ||
      !cuda_check(driver, driver->graph_make(&made->run, graph, 0), err, "cannot make a graph of %zu nodes", nodes))
    return false;
  made->launches = (int64_t)nodes - copies;
  return true;
}

/* A failed capture must be ended, too; its first error is the one to tell. */
static bool capture(CudaExecutor *executor, CudaStep *step, CudaGraphOf *made, Err *err) {
  const CudaDriver *driver = &executor->driver;
  CudaGraph graph = NULL;
  int64_t copies = 0;
  const CudaTables *tables = cuda_tables(executor, step, made->batch, false, err);
  if (!tables) return false;
  if (!cuda_check(driver, driver->capture_begin(executor->stream, CAPTURE_RELAXED), err, "cannot capture a graph")) return false;
  bool put = put_step(executor, step, tables, made->batch, &copies, err);
  CudaResult ended = driver->capture_end(executor->stream, &graph);
  bool done = put && cuda_check(driver, ended, err, "cannot capture a graph") && make_graph(executor, graph, copies, made, err);
  if (graph) driver->graph_destroy(graph);
  return done || err_wrap(err, "step %s", step->step->name);
}

const CudaGraphOf *cuda_graph(CudaExecutor *executor, CudaStep *step, int64_t batch, Err *err) {
  for (size_t i = 0; i < step->graphs.count; i++)
    if (step->graphs.data[i].batch == batch && step->graphs.data[i].images == step->images) return &step->graphs.data[i];
  CudaGraphOf made = {.batch = batch, .images = step->images};
  if (!capture(executor, step, &made, err)) return NULL;
  vector_push(&step->graphs, made);
  return &step->graphs.data[step->graphs.count - 1];
}

void cuda_free_graphs(CudaExecutor *executor, CudaStep *step) {
  for (size_t i = 0; i < step->graphs.count; i++) executor->driver.graph_run_destroy(step->graphs.data[i].run);
  vector_free(&step->graphs);
}
