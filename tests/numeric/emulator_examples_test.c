/* Every kernel of the examples, scheduled for a GPU at the example's own batch, on one or two images of noise: CUDA text on the
 * emulator leaves the interpreter's bits in three orders of blocks and threads, without a race or an access outside.
 * Arguments: an example's path, its precision ("fp32", "tf32", "bf16") and the images; without any, a list that covers the
 * examples. As examples_on_device it runs them on a GPU too (emulator_device.h). */
#include "compiler/lower.h"
#include "compiler/pass/pass.h"
#include "compiler/pass/schedule.h"
#include "dsl/dsl.h"
#include "tests/numeric/emulator_device.h"

enum { SMALL_ARRAY = 256 << 10, CLASSES = 10 };

typedef struct Example {
  const char *path, *precision;
  int64_t images;
} Example;

typedef struct Sample { /* a kernel and the first launch of it */
  const LoopKernel *kernel;
  LoopBuffer *buffers;
  int64_t tasks;
} Sample;

typedef struct Run {
  const Example *example;
  Arena *arena; /* of the buffers in flight */
  VECTOR(Sample) samples;
  int kernels, failed;
  uint32_t random;
} Run;

static uint32_t next_random(Run *run) {
  run->random = run->random * 1664525u + 1013904223u;
  return run->random >> 8;
}

/* Noise around zero; what statistics and losses take the root or the logarithm of is never far below it. */
static void fill(Run *run, LoopElement element, void *data, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    float value = (float)next_random(run) / (float)(1 << 24) - 0.25f;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (element == LOOP_ELEMENT_BF16)
      ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
    else if (element == LOOP_ELEMENT_I32)
      ((int32_t *)data)[i] = (int32_t)(next_random(run) % CLASSES);
    else
      ((float *)data)[i] = value;
  }
}

/* What a launch may touch of a storage from `offset` on with `images` of the batch's images. */
static int64_t elements_of(const Run *run, const Storage *storage, int64_t offset, int64_t batch) {
  int64_t all = storage->bytes / loop_element_bytes(storage->element);
  bool whole = storage->parameter >= 0 || all <= SMALL_ARRAY;
  return (whole ? all : (all / batch) * run->example->images) - offset;
}

static void add_sample(Run *run, const Schedule *schedule, const KernelSet *kernels, const PlannedLaunch *launch) {
  int64_t batch = schedule->graph->module->batch;
  Sample sample = {.kernel = kernels->kernels.data[launch->kernel]};
  sample.tasks = program_tasks(launch->images, launch->tasks, run->example->images);
  sample.buffers = ARENA_ARRAY(run->arena, LoopBuffer, launch->buffer_count);
  for (int32_t i = 0; i < launch->buffer_count; i++) {
    const Storage *storage = &schedule->storages.data[launch->buffers[i].storage];
    int64_t count = elements_of(run, storage, launch->buffers[i].offset, batch);
    sample.buffers[i] = (LoopBuffer){arena_alloc(run->arena, (size_t)(count * 8)), count};
    fill(run, storage->element, sample.buffers[i].data, count);
  }
  vector_push(&run->samples, sample);
}

static LoopBuffer *copies_of(Arena *arena, const Sample *sample) {
  LoopBuffer *copies = ARENA_ARRAY(arena, LoopBuffer, sample->kernel->buffer_count);
  for (int32_t i = 0; i < sample->kernel->buffer_count; i++) {
    size_t bytes = (size_t)(sample->buffers[i].count * loop_element_bytes(sample->kernel->arrays.data[i].element));
    copies[i] = (LoopBuffer){arena_alloc(arena, bytes), sample->buffers[i].count};
    memcpy(copies[i].data, sample->buffers[i].data, bytes);
  }
  return copies;
}

static bool same(const Sample *sample, const LoopBuffer *got, const LoopBuffer *want, int order, Err *err) {
  for (int32_t i = 0; i < sample->kernel->buffer_count; i++) {
    const LoopArray *array = &sample->kernel->arrays.data[i];
    if (device_differs(array->element, got[i].data, want[i].data, want[i].count, device_tolerance(sample->kernel)) >= 0)
      return err_set(err, "kernel %s, order %d: %s differs from the interpreter's", sample->kernel->name, order, array->name);
  }
  return true;
}

static bool check_sample(const Run *run, const Sample *sample, CudaFunction function, Err *err) {
  Arena *arena = arena_new();
  LoopBuffer *want = copies_of(arena, sample);
  bool ok = loop_interpret(sample->kernel, want, run->example->images, 0, sample->tasks, err);
  for (int order = 0; ok && order < device_orders(); order++) {
    LoopBuffer *got = copies_of(arena, sample);
    ok = device_run(function, sample->kernel, got, run->example->images, sample->tasks, order, err) &&
         same(sample, got, want, order, err);
  }
  arena_free(arena);
  return ok;
}

static void check_samples(Run *run) {
  size_t count = run->samples.count;
  const LoopKernel **kernels = memory_alloc((count + 1) * sizeof(const LoopKernel *));
  CudaFunction *functions = memory_alloc((count + 1) * sizeof *functions);
  Err err;
  for (size_t i = 0; i < count; i++) kernels[i] = run->samples.data[i].kernel;
  bool loaded = device_load(kernels, count, functions, &err);
  if (!loaded) fprintf(stderr, "%s\n", err.text);
  for (size_t i = 0; i < count; i++) {
    if (loaded && check_sample(run, &run->samples.data[i], functions[i], &err)) continue;
    if (loaded && run->failed < 8) fprintf(stderr, "%s (%s): %s\n", run->example->path, run->example->precision, err.text);
    run->failed++;
  }
  run->kernels += (int)count;
  run->samples.count = 0;
  arena_free(run->arena);
  run->arena = arena_new();
  free(kernels);
  free(functions);
}

static void check_steps(Run *run, const Module *module, KernelSet *kernels, Arena *arena) {
  size_t known = 0; /* kernels that have had their launch */
  for (size_t i = 0; i < module->steps.count; i++) {
    Schedule *schedule = schedule_graph(module->steps.data[i], kernels, arena);
    for (size_t l = 0; l < schedule->launches.count;
         l++) { /* kernels are numbered in the order in which they were first wanted */
      const PlannedLaunch *launch = &schedule->launches.data[l];
      if (launch->kernel < (int32_t)known) continue;
      bool first = true;
      for (size_t s = 0; s < run->samples.count; s++)
        first &= run->samples.data[s].kernel != kernels->kernels.data[launch->kernel];
      if (first) add_sample(run, schedule, kernels, launch);
    }
    known = kernels->kernels.count;
    check_samples(run);
    schedule_free(schedule);
  }
}

static bool check_example(const Example *example) {
  Arena *arena = arena_new();
  Diagnostics diagnostics = {0};
  DslOptions none = {0};
  Products products = !strcmp(example->precision, "bf16")   ? PRODUCTS_BF16
                      : !strcmp(example->precision, "tf32") ? PRODUCTS_TF32
                                                            : PRODUCTS_FP32;
  const Model *model = dsl_load(example->path, &none, arena, &diagnostics);
  if (!model) {
    fprintf(stderr, "%s\n", diagnostics.out.data);
    return false;
  }
  Module *module = lower_model(model, STEP_TRAIN | STEP_SEARCH | STEP_CROSS | STEP_EVAL, NULL, arena);
  KernelSet kernels = {.arena = arena, .target = {true, 256, products}};
  if (products == PRODUCTS_BF16) kernels.activation = LOOP_ELEMENT_BF16;
  Run run = {.example = example, .arena = arena_new(), .random = 1};
  check_steps(&run, module, &kernels, arena);
  printf("%s %s: %d kernels, %d differ\n", example->path, example->precision, run.kernels, run.failed);
  for (size_t i = 0; i < kernels.kernels.count; i++) loop_free_tables(kernels.kernels.data[i]);
  vector_free(&kernels.kernels);
  vector_free(&run.samples);
  free(kernels.keys);
  module_free_tables(module);
  text_free(&diagnostics.out);
  arena_free(run.arena);
  arena_free(arena);
  return run.failed == 0 && run.kernels > 0;
}

int main(int count, char **arguments) {
  static const Example all[] = {
      {ADWP_SOURCE_DIR "/examples/tiny.adwp", "fp32", 2},      {ADWP_SOURCE_DIR "/examples/tiny.adwp", "tf32", 2},
      {ADWP_SOURCE_DIR "/examples/tiny.adwp", "bf16", 2},      {ADWP_SOURCE_DIR "/examples/cifar10-8.adwp", "fp32", 1},
      {ADWP_SOURCE_DIR "/examples/cifar10-8.adwp", "bf16", 1}, {ADWP_SOURCE_DIR "/examples/cifar10-14.adwp", "fp32", 1},
  };
  bool ok = true;
  if (count == 4) {
    Example one = {arguments[1], arguments[2], atoll(arguments[3])};
    return !check_example(&one);
  }
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) ok = check_example(&all[i]) && ok;
  return !ok;
}
