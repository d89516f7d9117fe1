/* Fixtures over the runtime's reader of safetensors, with every tensor turned to double; labels are far below 2^53. */
#include "tests/oracle/fixture_file.h"

#include <string.h>

static const double *to_doubles(const SafetensorsTensor *tensor, Arena *arena, Err *err) {
  double *out = ARENA_ARRAY(arena, double, tensor->elements);
  for (int64_t i = 0; i < tensor->elements; i++) {
    switch (tensor->type) {
    case SAFETENSORS_F32: out[i] = (double)((const float *)tensor->data)[i]; break;
    case SAFETENSORS_F64: out[i] = ((const double *)tensor->data)[i]; break;
    case SAFETENSORS_I64: out[i] = (double)((const int64_t *)tensor->data)[i]; break;
    default: err_set(err, "the type of %s is not F32, F64 or I64", tensor->name); return NULL;
    }
  }
  return out;
}

Fixture *fixture_read(const char *path, Arena *arena, Err *err) {
  enum { MOST_BYTES = 1 << 30 };
  Safetensors *file = safetensors_read(path, MOST_BYTES, false, err);
  if (!file) return NULL;
  Fixture *fixture = ARENA_NEW(arena, Fixture);
  *fixture = (Fixture){file, ARENA_ARRAY(arena, FixtureTensor, safetensors_count(file)), safetensors_count(file)};
  for (size_t i = 0; i < fixture->count; i++) {
    const SafetensorsTensor *tensor = safetensors_at(file, i);
    const double *data = to_doubles(tensor, arena, err);
    fixture->tensors[i] = (FixtureTensor){tensor->name, tensor->rank, tensor->dims, tensor->elements, data};
    if (data) continue;
    fixture_free(fixture);
    return NULL;
  }
  return fixture;
}

void fixture_free(Fixture *fixture) {
  if (fixture) safetensors_free(fixture->file);
}

const FixtureTensor *fixture_find(const Fixture *fixture, const char *name) {
  for (size_t i = 0; i < fixture->count; i++)
    if (strcmp(fixture->tensors[i].name, name) == 0) return &fixture->tensors[i];
  return NULL;
}

const FixtureTensor *fixture_demand(const Fixture *fixture, const char *name, Err *err) {
  const FixtureTensor *tensor = fixture_find(fixture, name);
  if (!tensor) err_set(err, "it holds no tensor %s", name);
  return tensor;
}

const char *fixture_metadata(const Fixture *fixture, const char *key) {
  return safetensors_metadata(fixture->file, key);
}
