/* A compiled Program on the runtime's executor, by the normal pipeline: machine code for this CPU (or for --cpu) on threads, or a
 * GPU's. float inside, images as (B, H, W, C), parameters in the order that kernels read; a gradient has the order of its
 * parameter. */
#include "compiler/pipeline.h"
#include "runtime/cuda.h"
#include "runtime/executor.h"
#include "tests/oracle/fixture_backend.h"

#include <stdlib.h>
#include <string.h>

typedef struct ProgramBackend {
  Backend base;
  Compiled *compiled;
  Executor *executor;
  const ProgramStep *last;
  int64_t last_run;
  int32_t channels, height, width;
} ProgramBackend;

static void program_backend_free(Backend *backend) {
  ProgramBackend *b = (ProgramBackend *)backend;
  if (b->executor) executor_free(b->executor);
  if (b->compiled) pipeline_free(b->compiled);
  free(b);
}

static const ProgramParameter *find(ProgramBackend *b, const char *parameter, int64_t elements, Err *err) {
  int32_t i = program_find_parameter(b->compiled->program, parameter);
  const ProgramParameter *found = i < 0 ? NULL : &b->compiled->program->parameters[i];
  if (found && found->elements == elements) return found;
  err_set(err, "the program has no parameter %s of %lld elements", parameter, (long long)elements);
  return NULL;
}

static uint32_t index_of(ProgramBackend *b, const ProgramParameter *parameter) {
  return (uint32_t)(parameter - b->compiled->program->parameters);
}

static bool program_backend_set(Backend *backend, const char *parameter, const double *data, int64_t elements, Err *err) {
  ProgramBackend *b = (ProgramBackend *)backend;
  const ProgramParameter *found = find(b, parameter, elements, err);
  if (!found) return false;
  float *canonical = memory_alloc(2 * (size_t)elements * sizeof *canonical), *stored = canonical + elements;
  for (int64_t i = 0; i < elements; i++) canonical[i] = (float)data[i];
  program_to_stored(found, canonical, stored);
  bool done = executor_write(b->executor, index_of(b, found), stored, err);
  free(canonical);
  return done;
}

static void get_canonical(const ProgramParameter *parameter, const float *values, double *data) {
  float *canonical = memory_alloc((size_t)parameter->elements * sizeof *canonical);
  program_to_canonical(parameter, values, canonical);
  for (int64_t i = 0; i < parameter->elements; i++) data[i] = (double)canonical[i];
  free(canonical);
}

static bool program_backend_get(Backend *backend, const char *parameter, double *data, int64_t elements, Err *err) {
  ProgramBackend *b = (ProgramBackend *)backend;
  const ProgramParameter *found = find(b, parameter, elements, err);
  if (!found) return false;
  float *stored = memory_alloc((size_t)elements * sizeof *stored);
  bool done = executor_read(b->executor, index_of(b, found), stored, err);
  if (done) get_canonical(found, stored, data);
  free(stored);
  return done;
}

/* (B, C, H, W) in double to (B, H, W, C) in float */
static void write_images(const ProgramBackend *b, const BackendInputs *inputs, float *out) {
  int64_t pixels = (int64_t)b->height * b->width;
  for (int64_t image = 0; image < inputs->batch; image++)
    for (int64_t c = 0; c < b->channels; c++)
      for (int64_t p = 0; p < pixels; p++)
        out[(image * pixels + p) * b->channels + c] = (float)inputs->x[(image * b->channels + c) * pixels + p];
}

static bool set_input(ProgramBackend *b, const char *name, const void *data, int64_t elements, Err *err) {
  return !program_find_input(b->last, name) || executor_input(b->executor, b->last, name, data, elements, err);
}

static bool set_inputs(ProgramBackend *b, const BackendInputs *inputs, Err *err) {
  int64_t pixels = inputs->batch * b->channels * b->height * b->width;
  float *x = memory_alloc((size_t)pixels * sizeof *x);
  int32_t *y = memory_alloc((size_t)inputs->batch * sizeof *y);
  write_images(b, inputs, x);
  for (int64_t i = 0; i < inputs->batch; i++) y[i] = (int32_t)inputs->y[i];
  const float rate = (float)inputs->rate;
  const float corrections[3] = {(float)inputs->corrections[0], (float)inputs->corrections[1], (float)inputs->corrections[2]};
  bool done = set_input(b, "x", x, pixels, err) && set_input(b, "y", y, inputs->batch, err) &&
              set_input(b, "rate", &rate, 1, err) && set_input(b, "alpha.corrections", corrections, 3, err);
  free(x);
  free(y);
  return done;
}

static bool program_backend_run(Backend *backend, const char *step, const BackendInputs *inputs, Err *err) {
  ProgramBackend *b = (ProgramBackend *)backend;
  b->last = program_find_step(b->compiled->program, step);
  if (!b->last) return err_set(err, "the program has no step %s", step);
  if (!set_inputs(b, inputs, err)) return false;
  b->last_run = executor_run(b->executor, b->last, inputs->batch, err);
  return b->last_run >= 0;
}

static bool program_backend_result(Backend *backend, const char *name, double *data, int64_t elements, Err *err) {
  ProgramBackend *b = (ProgramBackend *)backend;
  const NamedBuffer *result = program_find_result(b->last, name);
  if (!result || result->elements < elements)
    return err_set(err, "the step has no result %s of %lld elements", name, (long long)elements);
  const float *values = executor_result(b->executor, b->last, b->last_run, name, err);
  if (!values) return false;
  if (strncmp(name, "grad.", 5) == 0) {
    const ProgramParameter *parameter = find(b, name + 5, elements, err);
    if (parameter) get_canonical(parameter, values, data);
    return parameter != NULL;
  }
  for (int64_t i = 0; i < elements; i++) data[i] = (double)values[i];
  return true;
}

static const char *program_backend_parameter(Backend *backend, size_t i) {
  const Program *program = ((ProgramBackend *)backend)->compiled->program;
  for (uint32_t p = 0; p < program->parameter_count; p++) {
    ProgramParameterKind kind = program->parameters[p].kind;
    if ((kind == PROGRAM_WEIGHT || kind == PROGRAM_ALPHA) && i-- == 0) return program->parameters[p].name;
  }
  return NULL;
}

/* What to compile for, and the emulator's library where it is for that. */
static bool find_target(const BackendOptions *options, PipelineOptions *pipeline, CudaDevice *device, char *emulator, Err *err) {
  const char *name = options->device ? options->device : "cpu";
  pipeline->device = name;
  pipeline->cpu = options->cpu;
  if (options->precision && !pipeline_precision(options->precision, &pipeline->precision))
    return err_set(err, "no precision `%s`; there are fp32, tf32 and bf16", options->precision);
  if (strcmp(name, "cuda-emulator") == 0) return cuda_emulator_path(emulator, err);
  if (strcmp(name, "cuda") != 0) return true;
  pipeline->arch = device->arch;
  return cuda_find(NULL, device, err);
}

Backend *backend_program(const Model *model, unsigned steps, const BackendOptions *options, Err *err) {
  ProgramBackend *b = memory_alloc(sizeof *b);
  b->base = (Backend){program_backend_free, program_backend_set,    program_backend_get,
                      program_backend_run,  program_backend_result, program_backend_parameter};
  b->channels = model->data.image.channels, b->height = model->data.image.height, b->width = model->data.image.width;
  PipelineOptions pipeline = {.steps = steps, .threads = options->threads, .fuse = options->fuse};
  ExecutorOptions how = {.threads = options->threads};
  CudaDevice device;
  char emulator[4096] = "";
  if (find_target(options, &pipeline, &device, emulator, err)) b->compiled = pipeline_compile(model, &pipeline, err);
  if (*emulator) how.emulator = emulator;
  if (b->compiled) b->executor = executor_new(b->compiled->program, &how, err);
  if (b->executor) return &b->base;
  program_backend_free(&b->base);
  return NULL;
}
