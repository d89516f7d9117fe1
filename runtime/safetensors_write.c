/* Writing: header, then one tensor after another, into a temporary file; the hash, which is known only then, goes into its place
 * in the header; fsync; rename. Nothing but one tensor needs to be in memory at a time. */
#include "runtime/base/arena.h"
#include "runtime/base/file.h"
#include "runtime/safetensors_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define ZEROS "00000000000000000000000000000000"
_Static_assert(sizeof ZEROS == SAFETENSORS_DIGITS + 1, "as many zeros as digits");

static size_t tensor_bytes(const SafetensorsTensor *tensor) {
  int64_t bytes = safetensors_types[tensor->type].bytes;
  if (tensor->rank < 0 || tensor->rank > SAFETENSORS_MOST_DIMS) die("tensor %s of rank %d", tensor->name, tensor->rank);
  for (int32_t d = 0; d < tensor->rank; d++)
    if (tensor->dims[d] < 0 || __builtin_mul_overflow(bytes, tensor->dims[d], &bytes)) die("the dims of tensor %s", tensor->name);
  return (size_t)bytes;
}

static json_t *metadata_object(const SafetensorsEntry *metadata, size_t count) {
  json_t *object = json_object();
  for (size_t i = 0; i < count; i++) {
    if (strcmp(metadata[i].key, "hash") == 0) die("metadata \"hash\" is the writer's own");
    if (json_object_set_new(object, metadata[i].key, json_string(metadata[i].value))) {
      json_decref(object);
      return NULL;
    }
  }
  json_object_set_new(object, "hash", json_string(SAFETENSORS_HASH_PREFIX ZEROS));
  return object;
}

static json_t *tensor_object(const SafetensorsTensor *tensor, size_t begin, size_t end) {
  json_t *shape = json_array();
  for (int32_t d = 0; d < tensor->rank; d++) json_array_append_new(shape, json_integer(tensor->dims[d]));
  return json_pack("{s:s, s:o, s:[I, I]}", "dtype", safetensors_types[tensor->type].name, "shape", shape, "data_offsets",
                   (json_int_t)begin, (json_int_t)end);
}

/* The places of the tensors in the file: wider types first. */
static void sort_by_width(const SafetensorsTensor *tensors, size_t count, size_t *order) {
  size_t placed = 0;
  for (int64_t bytes = 8; bytes >= 4; bytes /= 2)
    for (size_t i = 0; i < count; i++)
      if (safetensors_types[tensors[i].type].bytes == bytes) order[placed++] = i;
}

/* The header's text, to be freed; null: a name or a string is not UTF-8, or a name comes twice. */
static char *header_text(const SafetensorsTensor *tensors, const size_t *order, size_t count, const SafetensorsEntry *metadata,
                         size_t metadata_count) {
  json_t *header = json_object(), *strings = metadata_object(metadata, metadata_count);
  bool done = strings && json_object_set_new(header, "__metadata__", strings) == 0;
  size_t offset = 0;
  for (size_t i = 0; done && i < count; i++) {
    const SafetensorsTensor *tensor = &tensors[order[i]];
    size_t begin = offset;
    offset += tensor_bytes(tensor);
    done = !json_object_get(header, tensor->name) &&
           json_object_set_new(header, tensor->name, tensor_object(tensor, begin, offset)) == 0;
  }
  char *text = done ? json_dumps(header, JSON_COMPACT) : NULL;
  json_decref(header);
  return text;
}

typedef struct Output {
  int fd;
  XXH3_state_t *hash;
  bool fetch_failed;
} Output;

static bool output(Output *out, const void *data, size_t size) {
  XXH3_128bits_update(out->hash, data, size);
  for (size_t at = 0; at < size;) {
    ssize_t put = write(out->fd, (const char *)data + at, size - at);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    at += (size_t)put;
  }
  return true;
}

/* The header, filled up with spaces so that the data begin at a multiple of SAFETENSORS_ALIGNMENT. */
static bool output_header(Output *out, const char *text) {
  size_t length = strlen(text), padded = length;
  while ((SAFETENSORS_LENGTH + padded) % SAFETENSORS_ALIGNMENT) padded++;
  uint64_t written = padded;
  char spaces[SAFETENSORS_ALIGNMENT];
  memset(spaces, ' ', sizeof spaces);
  return output(out, &written, SAFETENSORS_LENGTH) && output(out, text, length) && output(out, spaces, padded - length);
}

static bool output_hash(Output *out, const char *text) {
  XXH128_hash_t hash = XXH3_128bits_digest(out->hash);
  char digits[SAFETENSORS_DIGITS + 1];
  snprintf(digits, sizeof digits, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64, (uint64_t)hash.low64);
  const char *start = strstr(text, SAFETENSORS_HASH_START);
  off_t place = SAFETENSORS_LENGTH + (start - text) + (off_t)strlen(SAFETENSORS_HASH_START);
  ssize_t put = pwrite(out->fd, digits, SAFETENSORS_DIGITS, place);
  if (put >= 0 && put < SAFETENSORS_DIGITS) errno = EIO;
  return put == SAFETENSORS_DIGITS;
}

/* Everything into the open temporary file; false: errno says why, or where a fetch failed `err`. */
static bool write_contents(Output *out, const char *text, const SafetensorsTensor *tensors, const size_t *order, size_t count,
                           SafetensorsFetch *fetch, void *context, Err *err) {
  if (!output_header(out, text)) return false;
  for (size_t i = 0; i < count; i++) {
    const SafetensorsTensor *tensor = &tensors[order[i]];
    size_t bytes = tensor_bytes(tensor);
    const void *data = tensor->data;
    if (!data && bytes) {
      data = fetch(context, order[i], err);
      out->fetch_failed = !data;
    }
    if (out->fetch_failed || (bytes && !output(out, data, bytes))) return false;
  }
  return output_hash(out, text) && fsync(out->fd) == 0;
}

static bool replace(const char *path, const char *temporary, const char *text, const SafetensorsTensor *tensors,
                    const size_t *order, size_t count, SafetensorsFetch *fetch, void *context, Err *err) {
  Output out = {.fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), .hash = XXH3_createState()};
  if (!out.hash) die("no memory for a hash");
  XXH3_128bits_reset(out.hash);
  bool done = out.fd >= 0 && write_contents(&out, text, tensors, order, count, fetch, context, err);
  int why = errno;
  if (out.fd >= 0 && close(out.fd) && done) {
    done = false;
    why = errno;
  }
  if (done && rename(temporary, path)) {
    done = false;
    why = errno;
  }
  XXH3_freeState(out.hash);
  if (done) {
    file_sync_folder_of(path);
    return true;
  }
  if (out.fd >= 0) unlink(temporary);
  if (out.fetch_failed) return err_wrap(err, "cannot write %s", path);
  const char *advice = why == ENOSPC || why == EDQUOT  ? "; make room there"
                       : why == EACCES || why == EROFS ? "; make it writable"
                                                       : "";
  return err_set(err, "cannot write %s: %s%s", path, strerror(why), advice);
}

bool safetensors_write(const char *path, const SafetensorsTensor *tensors, size_t tensor_count, const SafetensorsEntry *metadata,
                       size_t metadata_count, SafetensorsFetch *fetch, void *context, Err *err) {
  size_t *order = memory_alloc((tensor_count + 1) * sizeof *order);
  sort_by_width(tensors, tensor_count, order);
  char *text = header_text(tensors, order, tensor_count, metadata, metadata_count);
  bool done;
  if (!text) {
    done = err_set(err, "cannot write %s: a name or a string in it is not UTF-8, or two tensors have one name", path);
  } else if (strlen(text) > SAFETENSORS_MOST_HEADER - SAFETENSORS_ALIGNMENT) {
    done = err_set(err, "cannot write %s: its header of %zu bytes is longer than %d, which readers allow", path, strlen(text),
                   SAFETENSORS_MOST_HEADER);
  } else {
    size_t length = strlen(path) + 32;
    char *temporary = memory_alloc(length);
    snprintf(temporary, length, "%s.tmp-%ld", path, (long)getpid());
    done = replace(path, temporary, text, tensors, order, tensor_count, fetch, context, err);
    free(temporary);
  }
  free(text);
  free(order);
  return done;
}
