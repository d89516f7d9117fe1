#include "runtime/draw.h"

#include "runtime/base/arena.h"
#include "runtime/random.h"

#include <stdlib.h>

static void draw_weight(const ProgramParameter *parameter, uint64_t seed, float *canonical) {
  if (parameter->uniform == 0) {
    for (int64_t i = 0; i < parameter->elements; i++) canonical[i] = (float)parameter->constant;
    return;
  }
  random_fill_uniform(seed, RANDOM_INIT, random_name_index(parameter->name), 0, canonical, (size_t)parameter->elements);
  for (int64_t i = 0; i < parameter->elements; i++)
    canonical[i] = (float)(parameter->uniform * (2.0 * (double)canonical[i] - 1.0));
}

static bool write_zeros(const Program *program, Executor *executor, uint32_t i, Err *err) {
  float *zeros = memory_alloc((size_t)program->parameters[i].elements * sizeof *zeros);
  bool done = executor_write(executor, i, zeros, err);
  free(zeros);
  return done;
}

bool draw_weights(const Program *program, Executor *executor, uint64_t seed, Err *err) {
  bool done = true;
  for (uint32_t i = 0; i < program->parameter_count && done; i++) {
    const ProgramParameter *parameter = &program->parameters[i];
    if (parameter->kind != PROGRAM_WEIGHT) {
      done = write_zeros(program, executor, i, err);
      continue;
    }
    float *canonical = memory_alloc(2 * (size_t)parameter->elements * sizeof *canonical);
    float *stored = canonical + parameter->elements;
    draw_weight(parameter, seed, canonical);
    program_to_stored(parameter, canonical, stored);
    done = executor_write(executor, i, stored, err);
    free(canonical);
  }
  return done;
}

/* All logits, one after another in the order of the parameters, are the draws n = 0, 1, ... of (stream, index). */
static bool draw_alpha(const Program *program, Executor *executor, uint64_t seed, RandomStream stream, uint64_t index,
                       double scale, Err *err) {
  uint64_t n = 0;
  bool done = true;
  for (uint32_t i = 0; i < program->parameter_count && done; i++) {
    const ProgramParameter *parameter = &program->parameters[i];
    if (parameter->kind != PROGRAM_ALPHA) continue;
    if (parameter->view_rank) die("the logits %s are not stored in canonical order", parameter->name);
    float *logits = memory_alloc((size_t)parameter->elements * sizeof *logits);
    random_fill_normal(seed, stream, index, n, logits, (size_t)parameter->elements);
    for (int64_t k = 0; k < parameter->elements; k++) logits[k] = (float)(scale * (double)logits[k]);
    done = executor_write(executor, i, logits, err);
    n += (uint64_t)parameter->elements;
    free(logits);
  }
  return done;
}

bool draw_random_alpha(const Program *program, Executor *executor, uint64_t seed, int64_t step, double scale, Err *err) {
  return draw_alpha(program, executor, seed, RANDOM_ALPHA, (uint64_t)step, scale, err);
}

bool draw_initial_alpha(const Program *program, Executor *executor, uint64_t seed, double scale, Err *err) {
  if (!draw_alpha(program, executor, seed, RANDOM_ALPHA_START, 0, scale, err)) return false;
  for (uint32_t i = 0; i < program->parameter_count; i++) {
    ProgramParameterKind kind = program->parameters[i].kind;
    bool moment = kind == PROGRAM_ADAM_MEAN || kind == PROGRAM_ADAM_SQUARE;
    if (moment && !write_zeros(program, executor, i, err)) return false;
  }
  return true;
}
