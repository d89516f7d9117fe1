/* The Graph IR's reference interpreter in double precision, over the simplified steps. */
#include "compiler/lower.h"
#include "compiler/pass/pass.h"
#include "tests/oracle/fixture_backend.h"

#include <stdlib.h>
#include <string.h>

typedef struct InterpreterBackend {
  Backend base;
  Arena *arena;
  Module *module;
  Graph **steps; /* simplified, as module->steps */
  double **parameters;
  Interpretation *last;
} InterpreterBackend;

static void interpreter_free(Backend *backend) {
  InterpreterBackend *b = (InterpreterBackend *)backend;
  if (b->last) interpretation_free(b->last);
  module_free_tables(b->module);
  arena_free(b->arena);
  free(b);
}

static double *find(InterpreterBackend *b, const char *parameter, int64_t elements, Err *err) {
  int32_t i = module_find_parameter(b->module, parameter);
  if (i < 0) {
    err_set(err, "the model has no parameter %s", parameter);
    return NULL;
  }
  int64_t ours = type_elements(b->module->parameters.data[i].type, 1);
  if (ours == elements) return b->parameters[i];
  err_set(err, "%s has %lld elements in the model and %lld in the fixture", parameter, (long long)ours, (long long)elements);
  return NULL;
}

static bool interpreter_set(Backend *backend, const char *parameter, const double *data, int64_t elements, Err *err) {
  double *values = find((InterpreterBackend *)backend, parameter, elements, err);
  if (values) memcpy(values, data, (size_t)elements * sizeof *data);
  return values != NULL;
}

static bool interpreter_get(Backend *backend, const char *parameter, double *data, int64_t elements, Err *err) {
  const double *values = find((InterpreterBackend *)backend, parameter, elements, err);
  if (values) memcpy(data, values, (size_t)elements * sizeof *data);
  return values != NULL;
}

static bool interpreter_run(Backend *backend, const char *step, const BackendInputs *inputs, Err *err) {
  InterpreterBackend *b = (InterpreterBackend *)backend;
  const NamedTensor tensors[] = {
      {"x", inputs->x}, {"y", inputs->y}, {"rate", &inputs->rate}, {"alpha.corrections", inputs->corrections}};
  if (b->last) interpretation_free(b->last);
  b->last = NULL;
  for (size_t i = 0; i < b->module->steps.count; i++)
    if (strcmp(b->steps[i]->name, step) == 0)
      b->last =
          graph_interpret_results(b->steps[i], inputs->batch, tensors, sizeof tensors / sizeof *tensors, b->parameters, err);
  return b->last != NULL;
}

static bool interpreter_result(Backend *backend, const char *name, double *data, int64_t elements, Err *err) {
  int64_t ours;
  const double *values = interpretation_result(((InterpreterBackend *)backend)->last, name, &ours);
  if (!values || ours != elements) return err_set(err, "the step has no result %s of %lld elements", name, (long long)elements);
  memcpy(data, values, (size_t)elements * sizeof *data);
  return true;
}

static const char *interpreter_parameter(Backend *backend, size_t i) {
  const Module *module = ((InterpreterBackend *)backend)->module;
  for (size_t p = 0; p < module->parameters.count; p++) {
    ParameterKind kind = module->parameters.data[p].kind;
    if ((kind == PARAMETER_WEIGHT || kind == PARAMETER_ALPHA) && i-- == 0) return module->parameters.data[p].name;
  }
  return NULL;
}

Backend *backend_interpreter(const Model *model, unsigned steps, const BackendOptions *options, Err *err) {
  (void)options;
  (void)err;
  InterpreterBackend *b = memory_alloc(sizeof *b);
  b->base =
      (Backend){interpreter_free, interpreter_set, interpreter_get, interpreter_run, interpreter_result, interpreter_parameter};
  b->arena = arena_new();
  b->module = lower_model(model, steps, NULL, b->arena);
  b->steps = ARENA_ARRAY(b->arena, Graph *, b->module->steps.count);
  for (size_t i = 0; i < b->module->steps.count; i++) b->steps[i] = pass_simplify(b->module->steps.data[i]);
  b->parameters = ARENA_ARRAY(b->arena, double *, b->module->parameters.count);
  for (size_t i = 0; i < b->module->parameters.count; i++)
    b->parameters[i] = ARENA_ARRAY(b->arena, double, type_elements(b->module->parameters.data[i].type, 1));
  return &b->base;
}
