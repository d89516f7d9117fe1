/* safetensors: named tensors and strings in one file (eight bytes of header length, a JSON header, raw little-endian data).
 *
 * Files that adwp writes carry in their metadata `hash`: "xxh3:" and the 32 hexadecimal digits of the XXH3 of the whole file in
 * which those digits are zeros. It is checked wherever it is present. Reading trusts nothing: sizes, offsets and names are
 * checked, and the data must cover the file exactly. */
#ifndef ADWP_RUNTIME_SAFETENSORS_H
#define ADWP_RUNTIME_SAFETENSORS_H

#include "runtime/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum SafetensorsType {
  SAFETENSORS_F32,
  SAFETENSORS_F64,
  SAFETENSORS_I32,
  SAFETENSORS_I64,
  SAFETENSORS_U64,
} SafetensorsType;

enum { SAFETENSORS_MOST_DIMS = 8 };

typedef struct SafetensorsTensor {
  const char *name;
  SafetensorsType type;
  int32_t rank; /* 0: a scalar */
  int64_t dims[SAFETENSORS_MOST_DIMS];
  int64_t elements; /* reading: the product of dims; writing: ignored */
  const void *data; /* row-major; aligned to its elements */
} SafetensorsTensor;

typedef struct SafetensorsEntry {
  const char *key, *value;
} SafetensorsEntry;

/* Where a tensor's `data` is null, `fetch` gives it when its turn comes: its elements, valid until the next call, or null with
 * `err`, and nothing is written. Tensors lie in the file in the order given, but those of 8-byte types before those of 4-byte
 * ones, so that each is aligned. */
typedef const void *SafetensorsFetch(void *context, size_t tensor, Err *err);

/* Replaces the file at `path` as a whole: at any moment, and after a crash or a full disk, the old or the new one is there. */
bool safetensors_write(const char *path, const SafetensorsTensor *tensors, size_t tensor_count, const SafetensorsEntry *metadata,
                       size_t metadata_count, SafetensorsFetch *fetch, void *context, Err *err);

typedef struct Safetensors Safetensors;

/* Reads a file whole, of at most `limit` bytes. `need_hash`: one without adwp's hash is an error too. */
Safetensors *safetensors_read(const char *path, size_t limit, bool need_hash, Err *err);
/* The same from bytes in memory, which are copied; `path` only names them in messages. */
Safetensors *safetensors_parse(const char *path, const void *bytes, size_t size, bool need_hash, Err *err);
void safetensors_free(Safetensors *file); /* null is allowed */

size_t safetensors_count(const Safetensors *file);
const SafetensorsTensor *safetensors_at(const Safetensors *file, size_t tensor);      /* in the order of their data */
const SafetensorsTensor *safetensors_find(const Safetensors *file, const char *name); /* null: there is none */
/* As safetensors_find, but of this type and these dims, or an error that says what is there instead. */
const SafetensorsTensor *safetensors_need(const Safetensors *file, const char *name, SafetensorsType type, int32_t rank,
                                          const int64_t *dims, Err *err);
const char *safetensors_metadata(const Safetensors *file, const char *key); /* null: there is none */
size_t safetensors_metadata_count(const Safetensors *file);
SafetensorsEntry safetensors_metadata_at(const Safetensors *file, size_t entry);
const char *safetensors_path(const Safetensors *file);

#endif
