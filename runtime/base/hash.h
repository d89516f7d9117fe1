/* 128-bit hashes (XXH3) as 32 hexadecimal digits: names of cache entries, checks of files. Not against an adversary. */
#ifndef ADWP_RUNTIME_BASE_HASH_H
#define ADWP_RUNTIME_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct HashName {
  char hex[33];
} HashName;

HashName hash_name(const void *data, size_t size);
uint64_t hash_u64(const void *data, size_t size);

#endif
