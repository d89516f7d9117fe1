/* safetensors: what is written is read back to the same bits; a flipped bit anywhere is an error; so is every header that lies.
 */
#include "runtime/base/file.h"
#include "runtime/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { LIMIT = 1 << 20 };

typedef struct World {
  char folder[64], path[96], temporary[128];
} World;

static int make_world(void **state) {
  World *world = calloc(1, sizeof *world);
  strcpy(world->folder, "/tmp/adwp-safetensors.XXXXXX");
  if (!mkdtemp(world->folder)) return -1;
  snprintf(world->path, sizeof world->path, "%s/a.safetensors", world->folder);
  snprintf(world->temporary, sizeof world->temporary, "%s.tmp-%ld", world->path, (long)getpid());
  *state = world;
  return 0;
}

static int remove_world(void **state) {
  World *world = *state;
  unlink(world->path);
  rmdir(world->path);
  int left = rmdir(world->folder); /* fails where a temporary file was left behind */
  free(world);
  return left;
}

static const float floats[6] = {1, -2.5f, 0x1p-149f, 3e38f, -0.0f, 0.1f};
static const double doubles[2] = {0.1, -1e300};
static const int32_t integers[3] = {1, -2, INT32_MIN};
static const int64_t longs[1] = {INT64_MIN};
static const uint64_t unsigned_longs[2] = {UINT64_MAX, 7};

static const SafetensorsTensor tensors[] = {
    {.name = "w", .type = SAFETENSORS_F32, .rank = 2, .dims = {2, 3}, .data = floats},
    {.name = "i", .type = SAFETENSORS_I32, .rank = 1, .dims = {3}, .data = integers},
    {.name = "a \"quoted\" \\ name, ä", .type = SAFETENSORS_F64, .rank = 1, .dims = {2}, .data = doubles},
    {.name = "scalar", .type = SAFETENSORS_I64, .rank = 0, .data = longs},
    {.name = "none", .type = SAFETENSORS_F32, .rank = 3, .dims = {4, 0, 2}},
    {.name = "u", .type = SAFETENSORS_U64, .rank = 1, .dims = {2}, .data = unsigned_longs},
};
enum { TENSORS = sizeof tensors / sizeof *tensors };

static const SafetensorsEntry metadata[] = {{"format", "test 1"}, {"trap", "\"hash\":\"xxh3:0000\n\t"}, {"empty", ""}};

static void write_sample(World *world) {
  Err err;
  if (!safetensors_write(world->path, tensors, TENSORS, metadata, 3, NULL, NULL, &err)) fail_msg("%s", err.text);
}

static void what_is_written_is_read(void **state) {
  World *world = *state;
  write_sample(world);
  Err err;
  Safetensors *file = safetensors_read(world->path, LIMIT, true, &err);
  if (!file) fail_msg("%s", err.text);
  assert_int_equal(safetensors_count(file), TENSORS);
  static const size_t bytes[TENSORS] = {24, 12, 16, 8, 0, 16}, widths[TENSORS] = {4, 4, 8, 8, 4, 8};
  for (int i = 0; i < TENSORS; i++) {
    const SafetensorsTensor *tensor = safetensors_find(file, tensors[i].name);
    assert_non_null(tensor);
    assert_int_equal(tensor->type, tensors[i].type);
    assert_int_equal(tensor->rank, tensors[i].rank);
    assert_memory_equal(tensor->dims, tensors[i].dims, (size_t)tensor->rank * sizeof *tensor->dims);
    if (bytes[i]) assert_memory_equal(tensor->data, tensors[i].data, bytes[i]);
    assert_int_equal((uintptr_t)tensor->data % widths[i], 0);
  }
  assert_int_equal(safetensors_find(file, "w")->elements, 6);
  assert_int_equal(safetensors_find(file, "scalar")->elements, 1);
  assert_int_equal(safetensors_find(file, "none")->elements, 0);
  assert_null(safetensors_find(file, "W"));
  for (int i = 0; i < 3; i++) assert_string_equal(safetensors_metadata(file, metadata[i].key), metadata[i].value);
  assert_null(safetensors_metadata(file, "formats"));
  assert_int_equal(safetensors_metadata_count(file), 4); /* with the hash */
  assert_string_equal(safetensors_metadata_at(file, 0).key, "format");
  assert_string_equal(safetensors_path(file), world->path);
  safetensors_free(file);
}

static const void *fetch_floats(void *context, size_t tensor, Err *err) {
  (void)err;
  size_t *calls = context;
  assert_true(tensor < 2);
  calls[tensor]++;
  return tensor ? (const void *)integers : (const void *)floats;
}

static void fetched_tensors_give_the_same_file(void **state) {
  World *world = *state;
  SafetensorsTensor two[2] = {tensors[0], tensors[1]};
  Err err;
  char *given, *fetched;
  size_t given_size, fetched_size, calls[2] = {0};
  assert_true(safetensors_write(world->path, two, 2, NULL, 0, NULL, NULL, &err));
  assert_true(file_read(world->path, LIMIT, &given, &given_size, &err));
  two[0].data = two[1].data = NULL;
  assert_true(safetensors_write(world->path, two, 2, NULL, 0, fetch_floats, calls, &err));
  assert_true(file_read(world->path, LIMIT, &fetched, &fetched_size, &err));
  assert_int_equal(given_size, fetched_size);
  assert_memory_equal(given, fetched, given_size);
  assert_true(calls[0] == 1 && calls[1] == 1);
  assert_int_equal((given_size - 36) % 64, 0); /* the data begin at a multiple of 64 */
  free(given);
  free(fetched);
}

static const void *fetch_nothing(void *context, size_t tensor, Err *err) {
  err_set(err, "tensor %zu of %d is gone", tensor, *(int *)context);
  return NULL;
}

static void a_failed_fetch_leaves_the_old_file(void **state) {
  World *world = *state;
  SafetensorsTensor two[2] = {tensors[0], tensors[1]};
  Err err;
  char *before, *after;
  size_t size, now;
  int context = 2;
  assert_true(safetensors_write(world->path, two, 2, NULL, 0, NULL, NULL, &err));
  assert_true(file_read(world->path, LIMIT, &before, &size, &err));
  two[1].data = NULL;
  assert_false(safetensors_write(world->path, two, 2, NULL, 0, fetch_nothing, &context, &err));
  assert_non_null(strstr(err.text, world->path));
  assert_non_null(strstr(err.text, "tensor 1 of 2 is gone"));
  assert_true(file_read(world->path, LIMIT, &after, &now, &err));
  assert_int_equal(now, size);
  assert_memory_equal(before, after, size);
  free(before);
  free(after);
}

/* Each bit of the file in turn, then each length. */
static void any_damage_is_seen(void **state) {
  World *world = *state;
  write_sample(world);
  char *bytes;
  size_t size;
  Err err;
  assert_true(file_read(world->path, LIMIT, &bytes, &size, &err));
  for (size_t bit = 0; bit < 8 * size; bit++) {
    bytes[bit / 8] ^= (char)(1 << bit % 8);
    Safetensors *file = safetensors_parse("x", bytes, size, true, &err);
    if (file) fail_msg("bit %zu of byte %zu may flip", bit % 8, bit / 8);
    bytes[bit / 8] ^= (char)(1 << bit % 8);
  }
  for (size_t length = 0; length < size; length++) assert_null(safetensors_parse("x", bytes, length, true, &err));
  Safetensors *whole = safetensors_parse("x", bytes, size, true, &err);
  assert_non_null(whole);
  safetensors_free(whole);
  bytes = realloc(bytes, size + 1);
  bytes[size] = 0;
  assert_null(safetensors_parse("x", bytes, size + 1, true, &err));
  free(bytes);
}

/* A file of this header and `data_size` bytes of data. */
static Safetensors *parse_header(const char *header, size_t data_size, Err *err) {
  uint64_t length = strlen(header);
  size_t size = 8 + length + data_size;
  char *bytes = calloc(1, size);
  memcpy(bytes, &length, 8);
  memcpy(bytes + 8, header, length);
  Safetensors *file = safetensors_parse("hostile", bytes, size, false, err);
  free(bytes);
  return file;
}

static void headers_that_lie_are_refused(void **state) {
  (void)state;
#define T(dtype, shape, begin, end) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"
  static const struct {
    const char *header;
    size_t data;
    const char *message;
  } cases[] = {
      {"", 0, "its header is no JSON"},
      {"{", 0, "its header is no JSON"},
      {"{} x", 0, "its header is no JSON"},
      {"{\"a\xff\":1}", 0, "its header is no JSON"},
      {"[]", 0, "its header is no object"},
      {"{}", 1, "its tensors have 0 bytes, and 1 bytes"},
      {"{\"a\":1}", 0, "the entry of tensor a is no object"},
      {"{\"a\\u001b[31m\":1}", 0, "the entry of tensor a?[31m is no object"},
      {"{\"a\":{}}", 0, "tensor a has no dtype"},
      {"{\"a\":" T("F31", "[1]", 0, 4) "}", 4, "tensor a is of type F31"},
      {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "tensor a has no shape"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "tensor a has no data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, "tensor a has no data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", 4, "tensor a has no data_offsets"},
      {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, "no shape of 0 to 8 dims"},
      {"{\"a\":" T("F32", "[-1]", 0, 4) "}", 4, "the shape of tensor a is not possible"},
      {"{\"a\":" T("F32", "[1.0]", 0, 4) "}", 4, "the shape of tensor a is not possible"},
      {"{\"a\":" T("F32", "[4294967296,4294967296]", 0, 0) "}", 0, "the shape of tensor a is not possible"},
      {"{\"a\":" T("F32", "[4611686018427387905]", 0, 4) "}", 4, "tensor a has 4611686018427387905 elements"},
      {"{\"a\":" T("F32", "[9223372036854775808]", 0, 4) "}", 4, "its header is no JSON"},
      {"{\"a\":" T("F32", "[1]", 4, 0) "}", 4, "tensor a lies at 4..0"},
      {"{\"a\":" T("F32", "[1]", -4, 0) "}", 4, "tensor a lies at -4..0"},
      {"{\"a\":" T("F32", "[2]", 0, 8) "}", 4, "tensor a lies at 0..8 of 4 bytes of data; was the file cut short?"},
      {"{\"a\":" T("F32", "[2]", 0, 4) "}", 4, "tensor a has 2 elements of 4 bytes, but 4 bytes of data"},
      {"{\"a\":" T("F32", "[1]", 0, 4) "}", 8, "its tensors have 4 bytes, and 8 bytes"},
      {"{\"a\":" T("F32", "[1]", 4, 8) "}", 8, "tensor a begins at byte 4 of the data, where 0 was expected"},
      {"{\"a\":" T("F32", "[2]", 0, 8) ",\"b\":" T("F32", "[2]", 4, 12) "}", 12, "tensor b begins at byte 4"},
      {"{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 0, 4) "}", 4, "tensor b begins at byte 0"},
      {"{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 8, 12) "}", 12, "tensor b begins at byte 8"},
      {"{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F64", "[1]", 4, 12) "}", 12,
       "tensor b begins at byte 4 of the data, which is no"},
      {"{\"a\":" T("F32", "[1]", 0, 4) ",\"a\":" T("F32", "[1]", 4, 8) "}", 8, "duplicate object key"},
      {"{\"__metadata__\":[]}", 0, "__metadata__ is no object"},
      {"{\"__metadata__\":{\"a\":1}}", 0, "metadata a is no string"},
      {"{\"__metadata__\":{\"hash\":\"xxh3:12\"}}", 0, "its hash is not written as adwp writes it"},
      {"{\"__metadata__\":{\"hash\":\"xxh3:00000000000000000000000000000000\"}}", 0, "its bytes have hash"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    Err err = {{0}};
    assert_null(parse_header(cases[i].header, cases[i].data, &err));
    if (!strstr(err.text, cases[i].message) || !strstr(err.text, "hostile")) fail_msg("%s\ngives: %s", cases[i].header, err.text);
  }
  Err err;
  Safetensors *file =
      parse_header("{\"b\":" T("F32", "[1]", 4, 8) ",\"e\":" T("F32", "[0]", 4, 4) ",\"a\":" T("F32", "[]", 0, 4) "} ", 8,
                   &err); /* any order, and an empty tensor in between */
  if (!file) fail_msg("%s", err.text);
  assert_string_equal(safetensors_at(file, 0)->name, "a");
  assert_string_equal(safetensors_at(file, 2)->name, "b");
  safetensors_free(file);
#undef T
}

static void a_header_larger_than_the_file_is_refused(void **state) {
  (void)state;
  Err err;
  static const uint64_t lengths[] = {1, 9, 1 << 25, INT64_MAX, UINT64_MAX};
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    assert_null(safetensors_parse("x", &lengths[i], 8, false, &err));
    assert_non_null(strstr(err.text, "its header has"));
  }
  assert_null(safetensors_parse("x", "1234567", 7, false, &err));
  assert_non_null(strstr(err.text, "it has 7 bytes"));
}

static void a_hash_that_is_needed_must_be_there(void **state) {
  (void)state;
  Err err;
  Safetensors *file = parse_header("{\"__metadata__\":{\"hash\":\"another kind\"}}", 0, &err);
  assert_non_null(file);
  safetensors_free(file);
  assert_null(safetensors_parse("x", "\2\0\0\0\0\0\0\0{}", 10, true, &err));
  assert_non_null(strstr(err.text, "hold no hash"));
}

static void a_tensor_that_does_not_fit_is_named(void **state) {
  World *world = *state;
  write_sample(world);
  Err err;
  Safetensors *file = safetensors_read(world->path, LIMIT, true, &err);
  assert_non_null(file);
  assert_non_null(safetensors_need(file, "w", SAFETENSORS_F32, 2, (int64_t[]){2, 3}, &err));
  assert_null(safetensors_need(file, "w", SAFETENSORS_F32, 2, (int64_t[]){3, 2}, &err));
  assert_non_null(strstr(err.text, "its tensor w is F32 (2, 3), and F32 (3, 2) was expected"));
  assert_null(safetensors_need(file, "w", SAFETENSORS_F64, 2, (int64_t[]){2, 3}, &err));
  assert_null(safetensors_need(file, "w", SAFETENSORS_F32, 1, (int64_t[]){6}, &err));
  assert_null(safetensors_need(file, "v", SAFETENSORS_F32, 1, (int64_t[]){6}, &err));
  assert_non_null(strstr(err.text, "it has no tensor v"));
  safetensors_free(file);
}

static void bad_paths_are_named(void **state) {
  World *world = *state;
  Err err;
  assert_null(safetensors_read(world->path, LIMIT, true, &err));
  assert_non_null(strstr(err.text, world->path));
  assert_non_null(strstr(err.text, "No such file"));
  mkdir(world->path, 0755);
  assert_null(safetensors_read(world->path, LIMIT, true, &err));
  assert_non_null(strstr(err.text, "not a regular file"));
  assert_false(safetensors_write(world->path, tensors, TENSORS, NULL, 0, NULL, NULL, &err));
  assert_non_null(strstr(err.text, "cannot write "));
  assert_int_equal(access(world->temporary, F_OK), -1);
  rmdir(world->path);
  assert_int_equal(mkfifo(world->path, 0644), 0);
  assert_null(safetensors_read(world->path, LIMIT, true, &err));
  assert_non_null(strstr(err.text, "not a regular file"));
  unlink(world->path);
  write_sample(world);
  assert_null(safetensors_read(world->path, 100, true, &err));
  assert_non_null(strstr(err.text, "at most 100 are allowed"));
  assert_false(safetensors_write("/tmp/adwp-no-such-folder/a", tensors, TENSORS, NULL, 0, NULL, NULL, &err));
  assert_non_null(strstr(err.text, "/tmp/adwp-no-such-folder/a: No such file"));
}

static void names_must_be_text_and_different(void **state) {
  World *world = *state;
  write_sample(world);
  Err err;
  SafetensorsTensor two[2] = {tensors[0], tensors[0]};
  assert_false(safetensors_write(world->path, two, 2, NULL, 0, NULL, NULL, &err));
  assert_non_null(strstr(err.text, "two tensors have one name"));
  two[1].name = "\xff";
  assert_false(safetensors_write(world->path, two, 2, NULL, 0, NULL, NULL, &err));
  const SafetensorsEntry bad = {"key", "\xff"};
  assert_false(safetensors_write(world->path, two, 1, &bad, 1, NULL, NULL, &err));
}

/* A limit on the size of files stands for the full disk: the write fails in the middle, and the old file stays as it was. */
static void a_failed_write_leaves_the_old_file(void **state) {
  World *world = *state;
  write_sample(world);
  struct rlimit old, small = {500, RLIM_INFINITY};
  getrlimit(RLIMIT_FSIZE, &old);
  small.rlim_max = old.rlim_max;
  signal(SIGXFSZ, SIG_IGN);
  static float many[1000];
  const SafetensorsTensor large = {.name = "w", .type = SAFETENSORS_F32, .rank = 1, .dims = {1000}, .data = many};
  Err err;
  setrlimit(RLIMIT_FSIZE, &small);
  bool done = safetensors_write(world->path, &large, 1, NULL, 0, NULL, NULL, &err);
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, SIG_DFL);
  assert_false(done);
  assert_non_null(strstr(err.text, strerror(EFBIG)));
  assert_int_equal(access(world->temporary, F_OK), -1);
  Safetensors *file = safetensors_read(world->path, LIMIT, true, &err);
  assert_non_null(file);
  assert_non_null(safetensors_find(file, "scalar"));
  safetensors_free(file);
}

/* Written by PyTorch's users' own library: double precision, labels in 64 bits, the model in the metadata. */
static void files_of_the_reference_are_read(void **state) {
  (void)state;
  Err err;
  const char *path = ADWP_SOURCE_DIR "/tests/oracle/fixtures/hyper-small.safetensors";
  Safetensors *file = safetensors_read(path, 64 << 20, false, &err);
  if (!file) fail_msg("%s", err.text);
  const SafetensorsTensor *x = safetensors_find(file, "x"), *y = safetensors_find(file, "y");
  assert_true(x && x->type == SAFETENSORS_F64 && x->rank == 4 && x->dims[1] == 3);
  assert_true(y && y->type == SAFETENSORS_I64 && y->rank == 1 && y->dims[0] == x->dims[0]);
  for (int64_t i = 0; i < y->elements; i++) assert_true(((const int64_t *)y->data)[i] >= 0 && ((const int64_t *)y->data)[i] < 10);
  assert_non_null(safetensors_metadata(file, "spec"));
  safetensors_free(file);
  assert_null(safetensors_read(path, 64 << 20, true, &err));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(what_is_written_is_read, make_world, remove_world),
      cmocka_unit_test_setup_teardown(fetched_tensors_give_the_same_file, make_world, remove_world),
      cmocka_unit_test_setup_teardown(a_failed_fetch_leaves_the_old_file, make_world, remove_world),
      cmocka_unit_test_setup_teardown(any_damage_is_seen, make_world, remove_world),
      cmocka_unit_test(headers_that_lie_are_refused),
      cmocka_unit_test(a_header_larger_than_the_file_is_refused),
      cmocka_unit_test(a_hash_that_is_needed_must_be_there),
      cmocka_unit_test_setup_teardown(a_tensor_that_does_not_fit_is_named, make_world, remove_world),
      cmocka_unit_test_setup_teardown(bad_paths_are_named, make_world, remove_world),
      cmocka_unit_test_setup_teardown(names_must_be_text_and_different, make_world, remove_world),
      cmocka_unit_test_setup_teardown(a_failed_write_leaves_the_old_file, make_world, remove_world),
      cmocka_unit_test(files_of_the_reference_are_read),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
