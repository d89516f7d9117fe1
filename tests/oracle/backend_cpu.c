/* Machine code for this CPU (or for --cpu) on the runtime's threads, by the normal pipeline. float inside, images as (B, H, W,
 * C), parameters in the order that kernels read; a gradient has the order of its parameter. */
#include "compiler/pipeline.h"
#include "runtime/executor.h"
#include "tests/oracle/fixture_backend.h"

#include <stdlib.h>
#include <string.h>

typedef struct CpuBackend {
  Backend base;
  Compiled *compiled;
  Executor *executor;
  const ProgramStep *last;
  int32_t channels, height, width;
} CpuBackend;

static void cpu_free(Backend *backend) {
  CpuBackend *b = (CpuBackend *)backend;
  if (b->executor) executor_free(b->executor);
  if (b->compiled) pipeline_free(b->compiled);
  free(b);
}

static const ProgramParameter *find(CpuBackend *b, const char *parameter, int64_t elements, Err *err) {
  int32_t i = program_find_parameter(b->compiled->program, parameter);
  const ProgramParameter *found = i < 0 ? NULL : &b->compiled->program->parameters[i];
  if (found && found->elements == elements) return found;
  err_set(err, "the program has no parameter %s of %lld elements", parameter, (long long)elements);
  return NULL;
}

static float *stored(CpuBackend *b, const ProgramParameter *parameter) {
  return executor_parameter(b->executor, (uint32_t)(parameter - b->compiled->program->parameters));
}

static bool cpu_set(Backend *backend, const char *parameter, const double *data, int64_t elements, Err *err) {
  CpuBackend *b = (CpuBackend *)backend;
  const ProgramParameter *found = find(b, parameter, elements, err);
  if (!found) return false;
  float *canonical = memory_alloc((size_t)elements * sizeof *canonical);
  for (int64_t i = 0; i < elements; i++) canonical[i] = (float)data[i];
  program_to_stored(found, canonical, stored(b, found));
  free(canonical);
  return true;
}

static void get_canonical(const ProgramParameter *parameter, const float *values, double *data) {
  float *canonical = memory_alloc((size_t)parameter->elements * sizeof *canonical);
  program_to_canonical(parameter, values, canonical);
  for (int64_t i = 0; i < parameter->elements; i++) data[i] = (double)canonical[i];
  free(canonical);
}

static bool cpu_get(Backend *backend, const char *parameter, double *data, int64_t elements, Err *err) {
  CpuBackend *b = (CpuBackend *)backend;
  const ProgramParameter *found = find(b, parameter, elements, err);
  if (found) get_canonical(found, stored(b, found), data);
  return found != NULL;
}

/* (B, C, H, W) in double to (B, H, W, C) in float */
static void write_images(const CpuBackend *b, const BackendInputs *inputs, float *out) {
  int64_t pixels = (int64_t)b->height * b->width;
  for (int64_t image = 0; image < inputs->batch; image++)
    for (int64_t c = 0; c < b->channels; c++)
      for (int64_t p = 0; p < pixels; p++)
        out[(image * pixels + p) * b->channels + c] = (float)inputs->x[(image * b->channels + c) * pixels + p];
}

static bool cpu_run(Backend *backend, const char *step, const BackendInputs *inputs, Err *err) {
  CpuBackend *b = (CpuBackend *)backend;
  b->last = program_find_step(b->compiled->program, step);
  if (!b->last) return err_set(err, "the program has no step %s", step);
  float *x = executor_input(b->executor, b->last, "x"), *rate = executor_input(b->executor, b->last, "rate");
  float *corrections = executor_input(b->executor, b->last, "alpha.corrections");
  int32_t *y = executor_input(b->executor, b->last, "y");
  if (x) write_images(b, inputs, x);
  for (int64_t i = 0; y && i < inputs->batch; i++) y[i] = (int32_t)inputs->y[i];
  if (rate) *rate = (float)inputs->rate;
  for (int i = 0; corrections && i < 3; i++) corrections[i] = (float)inputs->corrections[i];
  executor_run(b->executor, b->last, inputs->batch);
  return true;
}

static bool cpu_result(Backend *backend, const char *name, double *data, int64_t elements, Err *err) {
  CpuBackend *b = (CpuBackend *)backend;
  int64_t ours;
  const float *values = executor_result(b->executor, b->last, name, &ours);
  if (!values || ours < elements) return err_set(err, "the step has no result %s of %lld elements", name, (long long)elements);
  if (strncmp(name, "grad.", 5) == 0) {
    const ProgramParameter *parameter = find(b, name + 5, elements, err);
    if (parameter) get_canonical(parameter, values, data);
    return parameter != NULL;
  }
  for (int64_t i = 0; i < elements; i++) data[i] = (double)values[i];
  return true;
}

static const char *cpu_parameter(Backend *backend, size_t i) {
  const Program *program = ((CpuBackend *)backend)->compiled->program;
  for (uint32_t p = 0; p < program->parameter_count; p++) {
    ProgramParameterKind kind = program->parameters[p].kind;
    if ((kind == PROGRAM_WEIGHT || kind == PROGRAM_ALPHA) && i-- == 0) return program->parameters[p].name;
  }
  return NULL;
}

Backend *backend_cpu(const Model *model, unsigned steps, const BackendOptions *options, Err *err) {
  CpuBackend *b = memory_alloc(sizeof *b);
  b->base = (Backend){cpu_free, cpu_set, cpu_get, cpu_run, cpu_result, cpu_parameter};
  b->channels = model->data.image.channels, b->height = model->data.image.height, b->width = model->data.image.width;
  PipelineOptions pipeline = {.steps = steps, .cpu = options->cpu, .threads = options->threads};
  b->compiled = pipeline_compile(model, &pipeline, err);
  if (b->compiled) b->executor = executor_new(b->compiled->program, options->threads, err);
  if (b->executor) return &b->base;
  cpu_free(&b->base);
  return NULL;
}
