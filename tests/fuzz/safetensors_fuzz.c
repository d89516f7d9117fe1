/* Fuzzes the safetensors reader: any bytes are refused with a message or become tensors whose every byte may be read. The input
 * is the file, but for its first eight bytes, which the fuzzer would rarely guess: they are made from two of its bytes.
 *
 *   clang-19 -std=c11 -D_GNU_SOURCE -I. -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz/safetensors_fuzz.c \
 *     runtime/safetensors_*.c runtime/base/arena.c runtime/base/err.c -ljansson -lxxhash -o safetensors_fuzz && \
 *     ./safetensors_fuzz -max_total_time=60 CORPUS */
#include "runtime/base/err.h"
#include "runtime/safetensors.h"

#include <stdlib.h>
#include <string.h>

static void read_everything(const Safetensors *file) {
  static const size_t widths[] = {4, 8, 4, 8, 8};
  volatile unsigned char sum = 0;
  for (size_t i = 0; i < safetensors_count(file); i++) {
    const SafetensorsTensor *tensor = safetensors_at(file, i);
    size_t bytes = (size_t)tensor->elements * widths[tensor->type];
    for (size_t b = 0; b < bytes; b++) sum = (unsigned char)(sum + ((const unsigned char *)tensor->data)[b]);
    if ((uintptr_t)tensor->data % widths[tensor->type]) die("tensor %s is not aligned", tensor->name);
    if (safetensors_find(file, tensor->name) != tensor) die("tensor %s is not found", tensor->name);
    Err err;
    if (!safetensors_need(file, tensor->name, tensor->type, tensor->rank, tensor->dims, &err)) die("%s", err.text);
  }
  for (size_t i = 0; i < safetensors_metadata_count(file); i++) {
    SafetensorsEntry entry = safetensors_metadata_at(file, i);
    const char *found = safetensors_metadata(file, entry.key);
    if (!found || strcmp(found, entry.value) != 0) die("metadata %s are not found", entry.key);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  uint64_t length = data[0] | (uint64_t)data[1] << 8;
  if (data[1] == 0xff) length = (uint64_t)data[0] << 56;
  char *bytes = malloc(size + 6);
  if (!bytes) die("no memory");
  memcpy(bytes, &length, 8);
  memcpy(bytes + 8, data + 2, size - 2);
  Err err = {{0}};
  Safetensors *file = safetensors_parse("fuzz", bytes, size + 6, false, &err);
  free(bytes);
  if (file)
    read_everything(file);
  else if (!err.text[0])
    die("refused without a message");
  safetensors_free(file);
  return 0;
}
