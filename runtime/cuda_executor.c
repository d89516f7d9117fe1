/* Opening the device: its context, memory, and the program's kernels; and closing it, from however far opening got. */
#include "runtime/cuda_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t spare_bytes = 64 << 20; /* for modules and graphs, which say beforehand what they take to nobody */

enum { ALIGNMENT = 64 };

static int64_t rounded(int64_t bytes) {
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

bool cuda_enter(CudaExecutor *executor, Err *err) {
  return cuda_check(&executor->driver, executor->driver.context_set(executor->context), err, "cannot use the GPU");
}

bool cuda_wait(CudaExecutor *executor, Err *err) {
  return cuda_check(&executor->driver, executor->driver.stream_wait(executor->stream), err, "the GPU has stopped");
}

static double megabytes(int64_t bytes) {
  return (double)bytes / 0x1p20;
}

bool cuda_allocate(CudaExecutor *executor, CudaPointer *pointer, int64_t bytes, const char *what, Err *err) {
  const CudaDriver *driver = &executor->driver;
  size_t available = 0, total = 0;
  CudaResult result = driver->memory_alloc(pointer, bytes > 0 ? (size_t)bytes : 1);
  if (!result) return true;
  *pointer = 0;
  driver->memory_info(&available, &total);
  return cuda_check(driver, result, err, "cannot get %.1f MB of the GPU's memory for %s, of which %.1f MB are free",
                    megabytes(bytes), what, megabytes((int64_t)available));
}

/* ---- does the program fit ---- */

/* Whether a kernel's image for `target` runs on a GPU of this capability: a cubin on the same major version from its own minor
 * one on, PTX on anything newer. */
static bool fits(const char *target, int capability) {
  int wanted;
  char kind[16];
  if (sscanf(target, "%15[a-z]_%d", kind, &wanted) != 2) return false;
  if (strcmp(kind, "compute") == 0) return capability >= wanted;
  return strcmp(kind, "sm") == 0 && capability / 10 == wanted / 10 && capability >= wanted;
}

static bool check_target(const CudaExecutor *executor, const char *emulator, Err *err) {
  static const char emulated[] = "cuda-emulator";
  const char *target = executor->base.program->target;
  bool for_emulator = strncmp(target, emulated, sizeof emulated - 1) == 0;
  int capability;
  if (for_emulator != (emulator != NULL))
    return err_set(err, "the kernels are compiled for %s, and the device is %s", target,
                   emulator ? "the CUDA emulator" : "a GPU");
  if (for_emulator) return true;
  if (!cuda_capability(&executor->driver, &capability, err)) return false;
  return fits(target, capability) ||
         err_set(err, "the kernels are compiled for %s, which this GPU of architecture sm_%d cannot run; compile them for sm_%d",
                 target, capability, capability);
}

static bool has_products(const Program *program) {
  for (uint32_t i = 0; i < program->step_count; i++)
    for (uint32_t s = 0; s < program->steps[i].segment_count; s++)
      for (uint32_t l = 0; l < program->steps[i].segments[s].count; l++)
        if (program->steps[i].segments[s].launches[l].product) return true;
  return false;
}

/* What NVIDIA advises for cuBLAS. */
static bool find_workspace(CudaExecutor *executor, Err *err) {
  enum { LARGE_GPU = 90, LARGE = 32 << 20, SMALL = 4 << 20 };
  int capability = 0;
  if (!has_products(executor->base.program)) return true;
  if (!cuda_capability(&executor->driver, &capability, err)) return false;
  executor->workspace_bytes = capability >= LARGE_GPU ? LARGE : SMALL;
  return true;
}

static bool check_memory(const CudaExecutor *executor, int64_t activations, int64_t products, Err *err) {
  const CudaDriver *driver = &executor->driver;
  size_t available = 0, total = 0;
  int64_t weights = executor->base.program->parameter_bytes, wanted;
  if (!cuda_check(driver, driver->memory_info(&available, &total), err, "cannot ask the GPU how much memory it has"))
    return false;
  if (__builtin_add_overflow(activations, weights, &wanted) || __builtin_add_overflow(wanted, products + spare_bytes, &wanted))
    wanted = INT64_MAX;
  return wanted <= (int64_t)available ||
         err_set(
             err,
             "the GPU has too little memory: %.0f MB are needed (%.0f MB for activations at a batch of %d, %.0f MB for weights, "
             "%.0f MB for the libraries), and %.0f of its %.0f MB are free; a smaller batch needs less",
             megabytes(wanted), megabytes(activations), executor->base.program->batch, megabytes(weights),
             megabytes(products + spare_bytes), megabytes((int64_t)available), megabytes((int64_t)total));
}

/* ---- steps and slots ---- */

static void lay_out_step(CudaExecutor *executor, const ProgramStep *step, CudaStep *made) {
  *made = (CudaStep){.step = step, .images = -1};
  made->inputs = ARENA_ARRAY(executor->memory, CudaInput, step->input_count);
  made->result_at = ARENA_ARRAY(executor->memory, int64_t, step->result_count);
  for (uint32_t i = 0; i < step->input_count; i++) {
    int64_t bytes = 4 * step->inputs[i].elements;
    bool small = bytes <= CUDA_SMALL_BYTES;
    made->inputs[i].mail_at = small ? made->mail_bytes : -1;
    if (small) made->mail_bytes += rounded(bytes);
  }
  made->plan_at = made->mail_bytes;
  made->mail_bytes += (int64_t)sizeof(LoaderImage) * executor->base.program->batch;
  made->mail = arena_alloc(executor->memory, (size_t)made->mail_bytes);
  for (uint32_t i = 0; i < step->result_count; i++) {
    made->result_at[i] = made->result_bytes;
    made->result_bytes += rounded(4 * step->results[i].elements);
  }
}

static bool make_slot(CudaExecutor *executor, CudaSlot *slot, int64_t mail, int64_t results, Err *err) {
  const CudaDriver *driver = &executor->driver;
  const int64_t bytes[] = {mail, results, CUDA_WRITES_BYTES};
  char **const memory[] = {&slot->mail, &slot->results, &slot->writes};
  for (int i = 0; i < 3; i++) {
    void *at = NULL;
    if (!cuda_check(driver, driver->host_alloc(&at, (size_t)bytes[i] + 1, 0), err,
                    "cannot get %.1f MB of memory that the GPU can read", megabytes(bytes[i])))
      return false;
    *memory[i] = at;
  }
  return cuda_check(driver, driver->event_create(&slot->done, CUDA_EVENT_DISABLE_TIMING), err, "cannot make an event");
}

static bool make_steps(CudaExecutor *executor, Err *err) {
  const Program *program = executor->base.program;
  int64_t mail = 0, results = 0;
  uint32_t buffers = 4; /* as images_kernel has */
  executor->steps = ARENA_ARRAY(executor->memory, CudaStep, program->step_count);
  for (uint32_t i = 0; i < program->step_count; i++) {
    const ProgramStep *step = &program->steps[i];
    CudaStep *made = &executor->steps[i];
    lay_out_step(executor, step, made);
    if (made->mail_bytes > mail) mail = made->mail_bytes;
    if (made->result_bytes > results) results = made->result_bytes;
    for (uint32_t s = 0; s < step->segment_count; s++)
      for (uint32_t l = 0; l < step->segments[s].count; l++)
        if (step->segments[s].launches[l].buffer_count > buffers) buffers = step->segments[s].launches[l].buffer_count;
  }
  executor->pointers = ARENA_ARRAY(executor->memory, CudaPointer, buffers);
  executor->arguments = ARENA_ARRAY(executor->memory, void *, buffers + 1);
  for (int32_t i = 0; i < executor->base.depth; i++)
    if (!make_slot(executor, &executor->slots[i], mail, results, err)) return false;
  return cuda_allocate(executor, &executor->mailbox, mail, "inputs", err) &&
         cuda_allocate(executor, &executor->outbox, results, "results", err);
}

/* ---- memory, kernels, products ---- */

static bool make_memory(CudaExecutor *executor, Err *err) {
  const CudaDriver *driver = &executor->driver;
  const Program *program = executor->base.program;
  int64_t activations = executor_arena_bytes(program), weights = program->parameter_bytes;
  if (!find_workspace(executor, err) || !check_memory(executor, activations, executor->workspace_bytes, err)) return false;
  return cuda_allocate(executor, &executor->arena, activations, "activations", err) &&
         cuda_allocate(executor, &executor->parameters, weights, "weights", err) &&
         cuda_check(driver, driver->fill(executor->arena, 0, (size_t)activations, executor->stream), err,
                    "cannot clear memory") &&
         cuda_check(driver, driver->fill(executor->parameters, 0, (size_t)weights, executor->stream), err, "cannot clear memory");
}

static bool load_kernel(CudaExecutor *executor, uint32_t kernel, Err *err) {
  const CudaDriver *driver = &executor->driver;
  const ProgramKernel *kernels = executor->base.program->kernels, *own = &kernels[kernel];
  uint32_t first = 0; /* with this image */
  while (kernels[first].image != own->image) first++;
  if (first == kernel) {
    CudaResult result = driver->module_load(&executor->modules[kernel], own->image);
    if (result) executor->modules[kernel] = NULL;
    bool newer = result == CUDA_NEWER_PTX || result == CUDA_BAD_PTX;
    if (!cuda_check(driver, result, err, "cannot load the kernel %s%s", own->name,
                    newer ? ", whose PTX may be newer than the driver: update the driver, or compile for its architecture" : ""))
      return false;
  }
  return cuda_check(driver, driver->module_function(&executor->functions[kernel], executor->modules[first], own->symbol), err,
                    "the image of the kernel %s has no function %s", own->name, own->symbol);
}

static bool load_kernels(CudaExecutor *executor, Err *err) {
  uint32_t count = executor->base.program->kernel_count;
  executor->modules = ARENA_ARRAY(executor->memory, CudaModule, count);
  executor->functions = ARENA_ARRAY(executor->memory, CudaFunction, count);
  for (uint32_t i = 0; i < count; i++)
    if (executor->base.program->kernels[i].image && !load_kernel(executor, i, err)) return false;
  return true;
}

/* A handle with a workspace of its own: with the library's own pool a captured product would allocate, and its bits could depend
 * on what else runs. */
static bool open_products(CudaExecutor *executor, const char *emulator, Err *err) {
  Cublas *blas = &executor->blas;
  if (!executor->workspace_bytes) return true;
  if (!cublas_open(blas, &executor->driver, emulator, err) ||
      !cublas_check(blas->create(&executor->products), err, "cannot start cuBLAS") ||
      !cuda_allocate(executor, &executor->workspace, executor->workspace_bytes, "cuBLAS", err))
    return false;
  void *workspace = (void *)(uintptr_t)executor->workspace;
  return cublas_check(blas->set_stream(executor->products, executor->stream), err, "cannot give cuBLAS a stream") &&
         cublas_check(blas->set_workspace(executor->products, workspace, (size_t)executor->workspace_bytes), err,
                      "cannot give cuBLAS its workspace");
}

/* ---- the device ---- */

static void free_memory(CudaExecutor *executor) {
  const CudaDriver *driver = &executor->driver;
  const CudaPointer own[] = {executor->parameters, executor->arena, executor->workspace, executor->mailbox, executor->outbox};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++)
    if (own[i]) driver->memory_free(own[i]);
  for (size_t i = 0; i < executor->images.count; i++) {
    driver->memory_free(executor->images.data[i].pixels);
    driver->memory_free(executor->images.data[i].normalised);
  }
  for (int i = 0; i < CUDA_MOST_DEPTH; i++) {
    CudaSlot *slot = &executor->slots[i];
    if (slot->done) driver->event_destroy(slot->done);
    if (slot->mail) driver->host_free(slot->mail);
    if (slot->results) driver->host_free(slot->results);
    if (slot->writes) driver->host_free(slot->writes);
  }
}

static void free_steps(CudaExecutor *executor) {
  const Program *program = executor->base.program;
  for (uint32_t i = 0; executor->steps && i < program->step_count; i++) {
    CudaStep *step = &executor->steps[i];
    cuda_free_graphs(executor, step);
    cuda_free_tables(executor, step);
    for (uint32_t n = 0; step->inputs && n < step->step->input_count; n++)
      if (step->inputs[n].copy) executor->driver.memory_free(step->inputs[n].copy);
  }
}

static void cuda_free(Executor *base) {
  CudaExecutor *executor = (CudaExecutor *)base;
  const CudaDriver *driver = &executor->driver;
  if (executor->context) {
    driver->context_set(executor->context);
    if (executor->stream) driver->stream_wait(executor->stream);
    if (executor->products) executor->blas.destroy(executor->products);
    free_steps(executor);
    free_memory(executor);
    for (int i = 0; i < 2; i++)
      if (executor->clock[i]) driver->event_destroy(executor->clock[i]);
    for (uint32_t i = 0; executor->modules && i < base->program->kernel_count; i++)
      if (executor->modules[i]) driver->module_unload(executor->modules[i]);
    if (executor->stream) driver->stream_destroy(executor->stream);
    driver->context_set(NULL);
    driver->context_release(driver->device);
  }
  vector_free(&executor->writes);
  vector_free(&executor->images);
  arena_free(executor->memory);
  free(executor);
}

static bool open_device(CudaExecutor *executor, const ExecutorOptions *options, Err *err) {
  CudaDriver *driver = &executor->driver;
  CudaContext context;
  if (!cuda_driver_open(driver, options->emulator, err) || !check_target(executor, options->emulator, err) ||
      !cuda_check(driver, driver->context_retain(&context, driver->device), err, "cannot use the GPU"))
    return false;
  executor->context = context;
  return cuda_enter(executor, err) &&
         cuda_check(driver, driver->stream_create(&executor->stream, CUDA_STREAM_NON_BLOCKING), err, "cannot make a stream") &&
         make_memory(executor, err) && make_steps(executor, err) && load_kernels(executor, err) &&
         open_products(executor, options->emulator, err) && cuda_wait(executor, err);
}

static const ExecutorDevice cuda_device = {
    .free = cuda_free,
    .read = cuda_read,
    .write = cuda_write,
    .input = cuda_input,
    .run = cuda_run,
    .result = cuda_result,
    .finish = cuda_finish,
    .profile = cuda_profile,
    .launches = cuda_launches,
    .feed = cuda_feed,
    .feed_free = cuda_feed_free,
    .feed_next = cuda_feed_next,
};

Executor *cuda_executor_new(const Program *program, const ExecutorOptions *options, Err *err) {
  if (options->depth < 0 || options->depth > CUDA_MOST_DEPTH) die("%d runs under way", options->depth);
  CudaExecutor *executor = memory_alloc(sizeof *executor);
  int32_t depth = options->depth ? options->depth : CUDA_DEFAULT_DEPTH;
  executor->base = (Executor){.device = &cuda_device, .program = program, .depth = depth};
  executor->memory = arena_new();
  if (open_device(executor, options, err)) return &executor->base;
  cuda_free(&executor->base);
  return NULL;
}
