/* Between safetensors_read.c and safetensors_write.c: what a type is called and how large it is; where the hash stands. */
#ifndef ADWP_RUNTIME_SAFETENSORS_PRIVATE_H
#define ADWP_RUNTIME_SAFETENSORS_PRIVATE_H

#include "runtime/safetensors.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors files are little-endian, and so must the machine be"
#endif

enum {
  SAFETENSORS_TYPES = SAFETENSORS_U64 + 1,
  SAFETENSORS_LENGTH = 8,            /* bytes of the header's length */
  SAFETENSORS_MOST_HEADER = 1 << 24, /* bytes */
  SAFETENSORS_DIGITS = 32,
  SAFETENSORS_ALIGNMENT = 64, /* of the data within files that we write, and in memory */
};

typedef struct SafetensorsTypeInfo {
  const char *name;
  int64_t bytes;
} SafetensorsTypeInfo;

static const SafetensorsTypeInfo safetensors_types[SAFETENSORS_TYPES] = {
    [SAFETENSORS_F32] = {"F32", 4}, [SAFETENSORS_F64] = {"F64", 8}, [SAFETENSORS_I32] = {"I32", 4},
    [SAFETENSORS_I64] = {"I64", 8}, [SAFETENSORS_U64] = {"U64", 8},
};

/* In a JSON text a quote within a string is escaped, so this can only be the key itself; the digits follow. */
#define SAFETENSORS_HASH_PREFIX "xxh3:"
#define SAFETENSORS_HASH_START "\"hash\":\"" SAFETENSORS_HASH_PREFIX

#endif
