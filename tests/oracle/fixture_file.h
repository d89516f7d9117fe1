/* A fixture: named tensors that the reference computed, in a safetensors file, with the model in the file's metadata. */
#ifndef ADWP_TESTS_ORACLE_FIXTURE_FILE_H
#define ADWP_TESTS_ORACLE_FIXTURE_FILE_H

#include "runtime/base/arena.h"
#include "runtime/base/err.h"
#include "runtime/safetensors.h"

#include <stddef.h>
#include <stdint.h>

typedef struct FixtureTensor {
  const char *name;
  int32_t rank;
  const int64_t *dims;
  int64_t elements;
  const double *data; /* row-major, whatever the file's type */
} FixtureTensor;

typedef struct Fixture {
  Safetensors *file;
  FixtureTensor *tensors;
  size_t count;
} Fixture;

/* Null: `err` says why. The tensors live in the arena; fixture_free gives back the file. */
Fixture *fixture_read(const char *path, Arena *arena, Err *err);
void fixture_free(Fixture *fixture); /* null is allowed */

const FixtureTensor *fixture_find(const Fixture *fixture, const char *name); /* null: none */
/* The same, for one that must be there. */
const FixtureTensor *fixture_demand(const Fixture *fixture, const char *name, Err *err);
const char *fixture_metadata(const Fixture *fixture, const char *key); /* null: none */

#endif
