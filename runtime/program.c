/* Looking things up in a Program, and the two orders of a parameter. */
#include "runtime/program.h"

#include "runtime/base/err.h"

#include <string.h>

enum { MOST_VIEW_DIMS = 6 };

/* The stored tensor's dims and, for each, how far apart its elements are in canonical order. */
typedef struct StoredOrder {
  int64_t extent[MOST_VIEW_DIMS], stride[MOST_VIEW_DIMS];
} StoredOrder;

static StoredOrder stored_order(const ProgramParameter *parameter) {
  int32_t rank = parameter->view_rank;
  if (rank < 1 || rank > MOST_VIEW_DIMS) die("parameter %s is viewed with %d dims", parameter->name, rank);
  int64_t canonical_stride[MOST_VIEW_DIMS] = {0}, elements = 1;
  for (int32_t d = rank - 1; d >= 0; d--) {
    canonical_stride[d] = elements;
    elements *= parameter->view[d];
  }
  if (elements != parameter->elements) die("parameter %s: its view has %lld elements", parameter->name, (long long)elements);
  StoredOrder order = {0};
  for (int32_t d = 0; d < rank; d++) { /* filled up in front with dims of 1, so that the walk always has six */
    if (parameter->order[d] < 0 || parameter->order[d] >= rank)
      die("parameter %s: order %d", parameter->name, parameter->order[d]);
    order.extent[MOST_VIEW_DIMS - rank + d] = parameter->view[parameter->order[d]];
    order.stride[MOST_VIEW_DIMS - rank + d] = canonical_stride[parameter->order[d]];
  }
  for (int32_t d = 0; d < MOST_VIEW_DIMS - rank; d++) order.extent[d] = 1;
  return order;
}

/* Where in canonical order a row, the last stored dim, begins. */
static int64_t row_start(const StoredOrder *order, int64_t row) {
  int64_t at = 0;
  for (int32_t d = MOST_VIEW_DIMS - 2; d >= 0; d--) {
    at += row % order->extent[d] * order->stride[d];
    row /= order->extent[d];
  }
  return at;
}

void program_to_stored(const ProgramParameter *parameter, const float *canonical, float *stored) {
  if (!parameter->view_rank) {
    memcpy(stored, canonical, (size_t)parameter->elements * sizeof *stored);
    return;
  }
  StoredOrder order = stored_order(parameter);
  int64_t width = order.extent[MOST_VIEW_DIMS - 1], stride = order.stride[MOST_VIEW_DIMS - 1];
  for (int64_t n = 0; n < parameter->elements; n += width) {
    const float *row = canonical + row_start(&order, n / width);
    for (int64_t i = 0; i < width; i++) stored[n + i] = row[i * stride];
  }
}

void program_to_canonical(const ProgramParameter *parameter, const float *stored, float *canonical) {
  if (!parameter->view_rank) {
    memcpy(canonical, stored, (size_t)parameter->elements * sizeof *stored);
    return;
  }
  StoredOrder order = stored_order(parameter);
  int64_t width = order.extent[MOST_VIEW_DIMS - 1], stride = order.stride[MOST_VIEW_DIMS - 1];
  for (int64_t n = 0; n < parameter->elements; n += width) {
    float *row = canonical + row_start(&order, n / width);
    for (int64_t i = 0; i < width; i++) row[i * stride] = stored[n + i];
  }
}

static const NamedBuffer *find_named(const NamedBuffer *buffers, uint32_t count, const char *name) {
  for (uint32_t i = 0; i < count; i++)
    if (strcmp(buffers[i].name, name) == 0) return &buffers[i];
  return NULL;
}

const NamedBuffer *program_find_input(const ProgramStep *step, const char *name) {
  return find_named(step->inputs, step->input_count, name);
}

const NamedBuffer *program_find_result(const ProgramStep *step, const char *name) {
  return find_named(step->results, step->result_count, name);
}

const ProgramStep *program_find_step(const Program *program, const char *name) {
  for (uint32_t i = 0; i < program->step_count; i++)
    if (strcmp(program->steps[i].name, name) == 0) return &program->steps[i];
  return NULL;
}

int32_t program_find_parameter(const Program *program, const char *name) {
  for (uint32_t i = 0; i < program->parameter_count; i++)
    if (strcmp(program->parameters[i].name, name) == 0) return (int32_t)i;
  return -1;
}
