/* Reading a file that may be anything: nothing in it is used before it was checked. */
#include "runtime/base/arena.h"
#include "runtime/safetensors_private.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

struct Safetensors {
  Arena *memory;
  const char *path;
  char *header; /* header_size bytes, then a zero */
  size_t header_size;
  char *data;
  size_t data_size;
  SafetensorsTensor *tensors;        /* by place in the data */
  const SafetensorsTensor **by_name; /* sorted by name */
  size_t count;
  SafetensorsEntry *entries;
  size_t entry_count;
};

/* What a tensor is while its place is still to be checked. */
typedef struct Placed {
  SafetensorsTensor tensor;
  int64_t begin, end;
} Placed;

/* A string of the file as it may stand in a message: short, and nothing that a terminal would obey. */
static const char *shown(const Safetensors *file, const char *text) {
  char *copy = arena_copy_string(file->memory, text, strnlen(text, 80));
  for (char *c = copy; *c; c++)
    if (iscntrl((unsigned char)*c)) *c = '?';
  return copy;
}

static bool damaged(const Safetensors *file, Err *err, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool damaged(const Safetensors *file, Err *err, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char reason[512];
  vsnprintf(reason, sizeof reason, format, arguments);
  va_end(arguments);
  return err_set(err, "%s is damaged or no safetensors file: %s", file->path, reason);
}

static bool read_type(const Safetensors *file, const char *name, const json_t *value, SafetensorsType *type, Err *err) {
  const char *text = json_string_value(value);
  if (!text) return damaged(file, err, "tensor %s has no dtype", shown(file, name));
  for (int i = 0; i < SAFETENSORS_TYPES; i++) {
    *type = (SafetensorsType)i;
    if (strcmp(text, safetensors_types[i].name) == 0) return true;
  }
  return err_set(err, "cannot read %s: tensor %s is of type %s; F32, F64, I32, I64 and U64 can be read", file->path,
                 shown(file, name), shown(file, text));
}

static bool read_shape(const Safetensors *file, const char *name, const json_t *shape, SafetensorsTensor *tensor, Err *err) {
  size_t rank = json_array_size(shape);
  if (!json_is_array(shape) || rank > SAFETENSORS_MOST_DIMS)
    return damaged(file, err, "tensor %s has no shape of 0 to %d dims", shown(file, name), SAFETENSORS_MOST_DIMS);
  tensor->rank = (int32_t)rank;
  tensor->elements = 1;
  for (size_t d = 0; d < rank; d++) {
    const json_t *dim = json_array_get(shape, d);
    tensor->dims[d] = json_integer_value(dim);
    if (!json_is_integer(dim) || tensor->dims[d] < 0 ||
        __builtin_mul_overflow(tensor->elements, tensor->dims[d], &tensor->elements))
      return damaged(file, err, "the shape of tensor %s is not possible", shown(file, name));
  }
  return true;
}

static bool read_tensor(const Safetensors *file, const char *name, const json_t *value, Placed *placed, Err *err) {
  SafetensorsTensor *tensor = &placed->tensor;
  if (!json_is_object(value)) return damaged(file, err, "the entry of tensor %s is no object", shown(file, name));
  if (!read_type(file, name, json_object_get(value, "dtype"), &tensor->type, err)) return false;
  if (!read_shape(file, name, json_object_get(value, "shape"), tensor, err)) return false;
  const json_t *offsets = json_object_get(value, "data_offsets");
  const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
  if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
    return damaged(file, err, "tensor %s has no data_offsets", shown(file, name));
  placed->begin = json_integer_value(begin);
  placed->end = json_integer_value(end);
  if (placed->begin < 0 || placed->end < placed->begin || (uint64_t)placed->end > file->data_size)
    return damaged(file, err, "tensor %s lies at %lld..%lld of %zu bytes of data; was the file cut short?", shown(file, name),
                   (long long)placed->begin, (long long)placed->end, file->data_size);
  int64_t bytes, width = safetensors_types[tensor->type].bytes;
  if (__builtin_mul_overflow(tensor->elements, width, &bytes) || bytes != placed->end - placed->begin)
    return damaged(file, err, "tensor %s has %lld elements of %lld bytes, but %lld bytes of data", shown(file, name),
                   (long long)tensor->elements, (long long)width, (long long)(placed->end - placed->begin));
  if (placed->begin % width)
    return err_set(err,
                   "cannot read %s: tensor %s begins at byte %lld of the data, which is no multiple of its elements' %lld bytes",
                   file->path, shown(file, name), (long long)placed->begin, (long long)width);
  tensor->name = arena_copy_string(file->memory, name, strlen(name));
  tensor->data = file->data + placed->begin;
  return true;
}

static bool read_metadata(Safetensors *file, json_t *metadata, Err *err) {
  if (!json_is_object(metadata)) return damaged(file, err, "__metadata__ is no object");
  file->entries = ARENA_ARRAY(file->memory, SafetensorsEntry, json_object_size(metadata) + 1);
  const char *key;
  json_t *value;
  json_object_foreach(metadata, key, value) {
    const char *text = json_string_value(value);
    if (!text) return damaged(file, err, "metadata %s is no string", shown(file, key));
    file->entries[file->entry_count++] = (SafetensorsEntry){arena_copy_string(file->memory, key, strlen(key)),
                                                            arena_copy_string(file->memory, text, strlen(text))};
  }
  return true;
}

/* Empty tensors before the one that begins where they do. */
static int compare_places(const void *left, const void *right) {
  const Placed *a = left, *b = right;
  if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
  if (a->end != b->end) return a->end < b->end ? -1 : 1;
  return strcmp(a->tensor.name, b->tensor.name);
}

static int compare_names(const void *left, const void *right) {
  return strcmp((*(SafetensorsTensor *const *)left)->name, (*(SafetensorsTensor *const *)right)->name);
}

/* The tensors must cover the data without a hole and without an overlap. */
static bool place_tensors(Safetensors *file, Placed *placed, size_t count, Err *err) {
  qsort(placed, count, sizeof *placed, compare_places);
  file->tensors = ARENA_ARRAY(file->memory, SafetensorsTensor, count + 1);
  file->by_name = ARENA_ARRAY(file->memory, const SafetensorsTensor *, count + 1);
  int64_t at = 0;
  for (size_t i = 0; i < count; i++) {
    if (placed[i].begin != at)
      return damaged(file, err, "tensor %s begins at byte %lld of the data, where %lld was expected",
                     shown(file, placed[i].tensor.name), (long long)placed[i].begin, (long long)at);
    at = placed[i].end;
    file->tensors[i] = placed[i].tensor;
    file->by_name[i] = &file->tensors[i];
  }
  if ((uint64_t)at != file->data_size)
    return damaged(file, err, "its tensors have %lld bytes, and %zu bytes of data follow the header", (long long)at,
                   file->data_size);
  file->count = count;
  qsort(file->by_name, count, sizeof *file->by_name, compare_names);
  return true;
}

static bool read_object(Safetensors *file, json_t *root, Err *err) {
  if (!json_is_object(root)) return damaged(file, err, "its header is no object");
  Placed *placed = memory_alloc((json_object_size(root) + 1) * sizeof *placed);
  size_t count = 0;
  bool done = true;
  const char *name;
  json_t *value;
  json_object_foreach(root, name, value) {
    if (strcmp(name, "__metadata__") == 0)
      done = read_metadata(file, value, err);
    else
      done = read_tensor(file, name, value, &placed[count++], err);
    if (!done) break;
  }
  done = done && place_tensors(file, placed, count, err);
  free(placed);
  return done;
}

static bool read_header(Safetensors *file, Err *err) {
  json_error_t why;
  json_t *root = json_loadb(file->header, file->header_size, JSON_REJECT_DUPLICATES, &why);
  if (!root) {
    char *near = strstr(why.text, " near "); /* what follows is the file's own text */
    if (near) *near = 0;
    return damaged(file, err, "its header is no JSON: %s, byte %d", why.text, why.position);
  }
  bool done = read_object(file, root, err);
  json_decref(root);
  return done;
}

/* Zeros the digits in the header and compares the file's hash with what stood there. */
static bool check_hash(Safetensors *file, bool need_hash, Err *err) {
  const char *value = safetensors_metadata(file, "hash");
  size_t prefix = strlen(SAFETENSORS_HASH_PREFIX);
  if (!value || strncmp(value, SAFETENSORS_HASH_PREFIX, prefix) != 0)
    return !need_hash || err_set(err, "%s is damaged or was not written by adwp: its metadata hold no hash", file->path);
  char *digits = memmem(file->header, file->header_size, SAFETENSORS_HASH_START, strlen(SAFETENSORS_HASH_START));
  size_t left = digits ? file->header_size - (size_t)(digits - file->header) - strlen(SAFETENSORS_HASH_START) : 0;
  if (strlen(value + prefix) != SAFETENSORS_DIGITS || left < SAFETENSORS_DIGITS)
    return err_set(err, "%s is damaged: its hash is not written as adwp writes it", file->path);
  memset(digits + strlen(SAFETENSORS_HASH_START), '0', SAFETENSORS_DIGITS);
  XXH3_state_t *state = XXH3_createState();
  if (!state) die("no memory for a hash");
  uint64_t length = file->header_size;
  XXH3_128bits_reset(state);
  XXH3_128bits_update(state, &length, SAFETENSORS_LENGTH);
  XXH3_128bits_update(state, file->header, file->header_size);
  XXH3_128bits_update(state, file->data, file->data_size);
  XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  char found[SAFETENSORS_DIGITS + 1];
  snprintf(found, sizeof found, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64, (uint64_t)hash.low64);
  return strcmp(found, value + prefix) == 0 ||
         err_set(err, "%s is damaged: its bytes have hash %s, and %s was written; use another copy", file->path, found,
                 shown(file, value + prefix));
}

static Safetensors *file_new(const char *path) {
  Arena *memory = arena_new();
  Safetensors *file = ARENA_NEW(memory, Safetensors);
  file->memory = memory;
  file->path = arena_copy_string(memory, path, strlen(path));
  return file;
}

void safetensors_free(Safetensors *file) {
  if (!file) return;
  free(file->header);
  free(file->data);
  arena_free(file->memory);
}

/* Memory for header and data of a file of `size` bytes that begins with `length`. */
static bool allocate_parts(Safetensors *file, uint64_t length, size_t size, Err *err) {
  if (size < SAFETENSORS_LENGTH) {
    damaged(file, err, "it has %zu bytes", size);
    return false;
  }
  if (length > SAFETENSORS_MOST_HEADER || length > size - SAFETENSORS_LENGTH) {
    damaged(file, err, "its header has %" PRIu64 " bytes; at most %d are allowed, and the whole file has %zu", length,
            SAFETENSORS_MOST_HEADER, size);
    return false;
  }
  file->header_size = (size_t)length;
  file->data_size = size - SAFETENSORS_LENGTH - file->header_size;
  file->header = malloc(file->header_size + 1);
  void *data = NULL;
  if (posix_memalign(&data, SAFETENSORS_ALIGNMENT, file->data_size ? file->data_size : 1)) data = NULL;
  file->data = data;
  if (!file->header || !file->data) {
    err_set(err, "cannot read %s: no memory for its %zu bytes", file->path, size);
    return false;
  }
  file->header[file->header_size] = 0;
  return true;
}

static Safetensors *finish(Safetensors *file, bool need_hash, Err *err) {
  if (read_header(file, err) && check_hash(file, need_hash, err)) return file;
  safetensors_free(file);
  return NULL;
}

Safetensors *safetensors_parse(const char *path, const void *bytes, size_t size, bool need_hash, Err *err) {
  Safetensors *file = file_new(path);
  uint64_t length = 0;
  if (size >= SAFETENSORS_LENGTH) memcpy(&length, bytes, SAFETENSORS_LENGTH);
  if (!allocate_parts(file, length, size, err)) {
    safetensors_free(file);
    return NULL;
  }
  memcpy(file->header, (const char *)bytes + SAFETENSORS_LENGTH, file->header_size);
  memcpy(file->data, (const char *)bytes + SAFETENSORS_LENGTH + file->header_size, file->data_size);
  return finish(file, need_hash, err);
}

static bool read_all(const Safetensors *file, int fd, void *into, size_t size, Err *err) {
  for (size_t at = 0; at < size;) {
    ssize_t got = read(fd, (char *)into + at, size - at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      return err_set(err, "cannot read %s: %s", file->path, got < 0 ? strerror(errno) : "it became shorter while it was read");
    at += (size_t)got;
  }
  return true;
}

static bool read_parts(Safetensors *file, int fd, size_t limit, Err *err) {
  struct stat info;
  if (fstat(fd, &info)) return err_set(err, "cannot read %s: %s", file->path, strerror(errno));
  if (!S_ISREG(info.st_mode)) return err_set(err, "cannot read %s: it is not a regular file", file->path);
  size_t size = (size_t)info.st_size;
  if (size > limit) return err_set(err, "cannot read %s: it has %zu bytes, and at most %zu are allowed", file->path, size, limit);
  uint64_t length = 0;
  return (size < SAFETENSORS_LENGTH || read_all(file, fd, &length, SAFETENSORS_LENGTH, err)) &&
         allocate_parts(file, length, size, err) && read_all(file, fd, file->header, file->header_size, err) &&
         read_all(file, fd, file->data, file->data_size, err);
}

Safetensors *safetensors_read(const char *path, size_t limit, bool need_hash, Err *err) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe in the file's place must not hold us */
  if (fd < 0) {
    err_set(err, "cannot open %s: %s", path, strerror(errno));
    return NULL;
  }
  Safetensors *file = file_new(path);
  bool done = read_parts(file, fd, limit, err);
  close(fd);
  if (done) return finish(file, need_hash, err);
  safetensors_free(file);
  return NULL;
}

size_t safetensors_count(const Safetensors *file) {
  return file->count;
}

const SafetensorsTensor *safetensors_at(const Safetensors *file, size_t tensor) {
  return &file->tensors[tensor];
}

const SafetensorsTensor *safetensors_find(const Safetensors *file, const char *name) {
  SafetensorsTensor key = {.name = name}, *wanted = &key;
  const SafetensorsTensor **found = bsearch(&wanted, file->by_name, file->count, sizeof *file->by_name, compare_names);
  return found ? *found : NULL;
}

static void print_shape(char *text, size_t size, SafetensorsType type, int32_t rank, const int64_t *dims) {
  size_t at = (size_t)snprintf(text, size, "%s (", safetensors_types[type].name);
  for (int32_t d = 0; d < rank && at < size; d++)
    at += (size_t)snprintf(text + at, size - at, "%s%lld", d ? ", " : "", (long long)dims[d]);
  if (at < size) snprintf(text + at, size - at, ")");
}

const SafetensorsTensor *safetensors_need(const Safetensors *file, const char *name, SafetensorsType type, int32_t rank,
                                          const int64_t *dims, Err *err) {
  const SafetensorsTensor *tensor = safetensors_find(file, name);
  if (!tensor) {
    err_set(err, "%s does not fit: it has no tensor %s", file->path, name);
    return NULL;
  }
  bool fits = tensor->type == type && tensor->rank == rank;
  for (int32_t d = 0; fits && d < rank; d++) fits = tensor->dims[d] == dims[d];
  if (fits) return tensor;
  char here[200], wanted[200];
  print_shape(here, sizeof here, tensor->type, tensor->rank, tensor->dims);
  print_shape(wanted, sizeof wanted, type, rank, dims);
  err_set(err, "%s does not fit: its tensor %s is %s, and %s was expected", file->path, name, here, wanted);
  return NULL;
}

const char *safetensors_metadata(const Safetensors *file, const char *key) {
  for (size_t i = 0; i < file->entry_count; i++)
    if (strcmp(file->entries[i].key, key) == 0) return file->entries[i].value;
  return NULL;
}

size_t safetensors_metadata_count(const Safetensors *file) {
  return file->entry_count;
}

SafetensorsEntry safetensors_metadata_at(const Safetensors *file, size_t entry) {
  return file->entries[entry];
}

const char *safetensors_path(const Safetensors *file) {
  return file->path;
}
