#include "runtime/base/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <xxhash.h>

HashName hash_name(const void *data, size_t size) {
  XXH128_hash_t hash = XXH3_128bits(data, size);
  HashName name;
  snprintf(name.hex, sizeof name.hex, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64, (uint64_t)hash.low64);
  return name;
}

uint64_t hash_u64(const void *data, size_t size) {
  return XXH3_64bits(data, size);
}
