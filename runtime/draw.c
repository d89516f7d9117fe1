#include "runtime/draw.h"

#include "runtime/base/arena.h"
#include "runtime/base/err.h"
#include "runtime/random.h"

#include <stdlib.h>
#include <string.h>

static void draw_weight(const ProgramParameter *parameter, uint64_t seed, float *canonical) {
  if (parameter->uniform == 0) {
    for (int64_t i = 0; i < parameter->elements; i++) canonical[i] = (float)parameter->constant;
    return;
  }
  random_fill_uniform(seed, RANDOM_INIT, random_name_index(parameter->name), 0, canonical, (size_t)parameter->elements);
  for (int64_t i = 0; i < parameter->elements; i++)
    canonical[i] = (float)(parameter->uniform * (2.0 * (double)canonical[i] - 1.0));
}

void draw_weights(const Program *program, Executor *executor, uint64_t seed) {
  for (uint32_t i = 0; i < program->parameter_count; i++) {
    const ProgramParameter *parameter = &program->parameters[i];
    float *stored = executor_parameter(executor, i);
    if (parameter->kind != PROGRAM_WEIGHT) {
      memset(stored, 0, (size_t)parameter->elements * sizeof *stored);
      continue;
    }
    float *canonical = memory_alloc((size_t)parameter->elements * sizeof *canonical);
    draw_weight(parameter, seed, canonical);
    program_to_stored(parameter, canonical, stored);
    free(canonical);
  }
}

/* All logits, one after another in the order of the parameters, are the draws n = 0, 1, ... of (stream, index). */
static void draw_alpha(const Program *program, Executor *executor, uint64_t seed, RandomStream stream, uint64_t index,
                       double scale) {
  uint64_t n = 0;
  for (uint32_t i = 0; i < program->parameter_count; i++) {
    const ProgramParameter *parameter = &program->parameters[i];
    if (parameter->kind != PROGRAM_ALPHA) continue;
    if (parameter->view_rank) die("the logits %s are not stored in canonical order", parameter->name);
    float *logits = executor_parameter(executor, i);
    random_fill_normal(seed, stream, index, n, logits, (size_t)parameter->elements);
    for (int64_t k = 0; k < parameter->elements; k++) logits[k] = (float)(scale * (double)logits[k]);
    n += (uint64_t)parameter->elements;
  }
}

void draw_random_alpha(const Program *program, Executor *executor, uint64_t seed, int64_t step, double scale) {
  draw_alpha(program, executor, seed, RANDOM_ALPHA, (uint64_t)step, scale);
}

void draw_initial_alpha(const Program *program, Executor *executor, uint64_t seed, double scale) {
  draw_alpha(program, executor, seed, RANDOM_ALPHA_START, 0, scale);
  for (uint32_t i = 0; i < program->parameter_count; i++) {
    const ProgramParameter *parameter = &program->parameters[i];
    if (parameter->kind != PROGRAM_ADAM_MEAN && parameter->kind != PROGRAM_ADAM_SQUARE) continue;
    memset(executor_parameter(executor, i), 0, (size_t)parameter->elements * sizeof(float));
  }
}
