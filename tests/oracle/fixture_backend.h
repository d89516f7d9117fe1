/* What check-fixtures compares with the oracle: something that runs a model's steps. Tensors go in and out in double and in
 * canonical order (row-major, images as (B, C, H, W)), whatever the backend has inside. */
#ifndef ADWP_TESTS_ORACLE_FIXTURE_BACKEND_H
#define ADWP_TESTS_ORACLE_FIXTURE_BACKEND_H

#include "compiler/pass/fuse.h"
#include "dsl/model.h"
#include "runtime/base/err.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct BackendOptions {
  const char *device;    /* "cpu", "cuda", "cuda-emulator"; null: cpu */
  const char *cpu;       /* null: this machine's */
  const char *precision; /* of a GPU: "fp32", "tf32", "bf16"; null: fp32 */
  FuseOptions fuse;
  int threads;
} BackendOptions;

typedef struct BackendInputs {
  int64_t batch;
  const double *x, *y;
  double rate;           /* of the weights */
  double corrections[3]; /* Adam's: rate, 1 - beta1^t, 1 - beta2^t */
} BackendInputs;

typedef struct Backend Backend;
struct Backend {
  void (*free)(Backend *backend);
  /* False: no parameter of this name and number of elements. */
  bool (*set)(Backend *backend, const char *parameter, const double *data, int64_t elements, Err *err);
  bool (*get)(Backend *backend, const char *parameter, double *data, int64_t elements, Err *err);
  bool (*run)(Backend *backend, const char *step, const BackendInputs *inputs, Err *err);
  /* Of the last run. */
  bool (*result)(Backend *backend, const char *name, double *data, int64_t elements, Err *err);
  /* The name of parameter i among weights and alpha, or null behind the last. */
  const char *(*parameter)(Backend *backend, size_t i);
};

/* `steps`: STEP_... of compiler/lower.h. Null: `err` says why. */
Backend *backend_interpreter(const Model *model, unsigned steps, const BackendOptions *options, Err *err);
Backend *backend_program(const Model *model, unsigned steps, const BackendOptions *options, Err *err);

#endif
