/* Data sets: the split, CIFAR-10's files as they should be and in every way that they should not, and that synthetic images are a
 * task of the wanted difficulty. */
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORD = 3073 };

static const char *const file_names[6] = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                          "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"};
static const int file_records[6] = {4, 1, 3, 2, 5, 3};

typedef struct World {
  char folder[64], inner[128], path[192];
} World;

static const ProgramData cifar = {.name = "cifar10",
                                  .format = "cifar10-binary",
                                  .channels = 3,
                                  .height = 32,
                                  .width = 32,
                                  .classes = 10,
                                  .mean = {0.5, 0.25, 0},
                                  .deviation = {0.5, 0.25, 1},
                                  .train_fraction = 0.5};

static ProgramData synthetic(int32_t train, int32_t test, int32_t side) {
  ProgramData data = cifar;
  data.format = "synthetic";
  data.height = data.width = side;
  data.train_images = train;
  data.test_images = test;
  return data;
}

static uint8_t byte_of(int image, int at) {
  return (uint8_t)(image * 31 + at * 7 + at / 256);
}

/* Records `first`.. of the whole, image i with label i % 2. */
static void write_file(World *world, int file, int first, int records, size_t cut) {
  uint8_t *bytes = malloc((size_t)records * RECORD + 1);
  for (int r = 0; r < records; r++) {
    bytes[r * RECORD] = (uint8_t)((first + r) % 2);
    for (int i = 0; i < RECORD - 1; i++) bytes[r * RECORD + 1 + i] = byte_of(first + r, i);
  }
  snprintf(world->path, sizeof world->path, "%s/%s", world->inner, file_names[file]);
  Err err;
  assert_true(file_replace(world->path, bytes, (size_t)records * RECORD - cut, &err));
  free(bytes);
}

static void write_all(World *world) {
  for (int file = 0, first = 0; file < 6; first += file_records[file++]) write_file(world, file, first, file_records[file], 0);
}

static int make_world(void **state) {
  World *world = calloc(1, sizeof *world);
  strcpy(world->folder, "/tmp/adwp-dataset.XXXXXX");
  if (!mkdtemp(world->folder)) return -1;
  snprintf(world->inner, sizeof world->inner, "%s/cifar-10-batches-bin", world->folder);
  mkdir(world->inner, 0755);
  write_all(world);
  *state = world;
  return 0;
}

static int remove_world(void **state) {
  World *world = *state;
  for (int file = 0; file < 6; file++) {
    snprintf(world->path, sizeof world->path, "%s/%s", world->inner, file_names[file]);
    unlink(world->path);
    rmdir(world->path);
  }
  rmdir(world->inner);
  rmdir(world->folder);
  free(world);
  return 0;
}

static void refuse(const ProgramData *data, const char *folder, const char *part, const char *more) {
  Err err = {{0}};
  assert_null(dataset_load(data, folder, &err));
  if (!strstr(err.text, part) || !strstr(err.text, more)) fail_msg("\"%s\" and \"%s\" are not in: %s", part, more, err.text);
}

static void cifar_is_read_from_either_folder(void **state) {
  World *world = *state;
  Err err;
  const char *folders[2] = {world->folder, world->inner};
  for (int i = 0; i < 2; i++) {
    Dataset *dataset = dataset_load(&cifar, folders[i], &err);
    if (!dataset) fail_msg("%s", err.text);
    assert_int_equal(dataset->count, 18);
    for (int image = 0; image < 18; image++) {
      assert_int_equal(dataset->labels[image], image % 2);
      for (int at = 0; at < 3072; at += 13) assert_int_equal(dataset->pixels[image * 3072 + at], byte_of(image, at));
    }
    dataset_free(dataset);
  }
}

/* 15 training images, labels 0 1 0 1 ...: eight and seven; a half of them is four and, rounded, four. */
static void each_class_is_split_in_file_order(void **state) {
  World *world = *state;
  Err err;
  Dataset *dataset = dataset_load(&cifar, world->folder, &err);
  if (!dataset) fail_msg("%s", err.text);
  const DatasetList *train = &dataset->parts[DATASET_TRAIN], *valid = &dataset->parts[DATASET_VALID],
                    *test = &dataset->parts[DATASET_TEST];
  assert_int_equal(train->count, 8);
  assert_int_equal(valid->count, 7);
  assert_int_equal(test->count, 3);
  for (uint32_t i = 0; i < 8; i++) assert_int_equal(train->images[i], i);
  for (uint32_t i = 0; i < 7; i++) assert_int_equal(valid->images[i], 8 + i);
  for (uint32_t i = 0; i < 3; i++) assert_int_equal(test->images[i], 15 + i);
  dataset_free(dataset);

  ProgramData third = cifar;
  third.train_fraction = 0.3;
  dataset = dataset_load(&third, world->folder, &err);
  assert_int_equal(dataset->parts[DATASET_TRAIN].count, 4); /* two of each class */
  assert_int_equal(dataset->parts[DATASET_VALID].images[0], 4);
  dataset_free(dataset);
}

static void bytes_are_normalised_by_channel(void **state) {
  World *world = *state;
  Err err;
  Dataset *dataset = dataset_load(&cifar, world->folder, &err);
  if (!dataset) fail_msg("%s", err.text);
  assert_true(dataset->normalised[0][0] == -1 && dataset->normalised[0][255] == 1);
  assert_true(dataset->normalised[1][51] == (float)((51 / 255.0 - 0.25) / 0.25));
  assert_true(dataset->normalised[2][0] == 0 && dataset->normalised[2][255] == 1);
  dataset_free(dataset);
}

static void missing_files_are_named(void **state) {
  World *world = *state;
  refuse(&cifar, NULL, "no folder was given", "--data");
  refuse(&cifar, "/tmp/adwp-there-is-no-such-folder", "/tmp/adwp-there-is-no-such-folder: No such file", "--data");
  snprintf(world->path, sizeof world->path, "%s/data_batch_3.bin", world->inner);
  unlink(world->path);
  refuse(&cifar, world->folder, world->path, "No such file");
  refuse(&cifar, world->inner, world->path, "No such file");
  mkdir(world->path, 0755);
  refuse(&cifar, world->folder, world->path, "not a regular file");
  rmdir(world->path);
  write_all(world);
  snprintf(world->path, sizeof world->path, "%s/test_batch.bin", world->inner);
  unlink(world->path);
  refuse(&cifar, world->folder, world->path, "No such file");
  refuse(&cifar, "/tmp/adwp-there-is-no-such-folder/..", "cannot open the data folder", "cifar-10-binary");
  refuse(&cifar, world->path, "test_batch.bin", "cifar-10-binary");
}

static void a_folder_without_cifar_is_refused(void **state) {
  World *world = *state;
  char empty[] = "/tmp/adwp-empty.XXXXXX";
  assert_non_null(mkdtemp(empty));
  refuse(&cifar, empty, empty, "neither cifar-10-batches-bin nor data_batch_1.bin");
  rmdir(empty);
  (void)world;
}

static void sizes_are_checked(void **state) {
  World *world = *state;
  write_file(world, 1, 4, 1, 1);
  refuse(&cifar, world->folder, "data_batch_2.bin has 3072 bytes", "cut short");
  write_file(world, 1, 4, 1, RECORD);
  refuse(&cifar, world->folder, "data_batch_2.bin has 0 bytes", "whole number of records of 3073");
  write_file(world, 1, 4, 2, RECORD - 1);
  refuse(&cifar, world->folder, "data_batch_2.bin has 3074 bytes", "cut short");
  assert_int_equal(truncate(world->path, 200001ll * RECORD), 0); /* sparse: takes no room */
  refuse(&cifar, world->folder, "200001 records", "at most 200000");
}

static void labels_are_checked(void **state) {
  World *world = *state;
  snprintf(world->path, sizeof world->path, "%s/data_batch_5.bin", world->inner);
  FILE *file = fopen(world->path, "r+b");
  fseek(file, 3 * RECORD, SEEK_SET);
  fputc(10, file);
  fclose(file);
  refuse(&cifar, world->folder, "data_batch_5.bin is damaged: record 3 (at byte 9219) has label 10", "labels are 0..9");
}

static void descriptions_are_checked(void **state) {
  World *world = *state;
  ProgramData data = cifar;
  data.classes = 100;
  refuse(&data, world->folder, "data cifar10: cifar10-binary has images of 3 x 32 x 32", "correct the model");
  data = cifar;
  data.deviation[1] = 0;
  refuse(&data, world->folder, "deviation 0", "positive");
  data = cifar;
  data.train_fraction = 1.5;
  refuse(&data, world->folder, "1.5", "0..1");
  data = cifar;
  data.format = "png";
  refuse(&data, world->folder, "\"png\" is not known", "synthetic");
  data = synthetic(10, 10, 32);
  data.classes = 11;
  refuse(&data, NULL, "at most 10 classes", "correct the model");
  data = synthetic(-1, 10, 32);
  refuse(&data, NULL, "-1 training", "possible");
  data = synthetic(10, 10, 5000);
  refuse(&data, NULL, "3 x 5000 x 5000", "possible");
  data = synthetic(20000000, 20000000, 4096); /* 2 * 10^15 bytes */
  refuse(&data, NULL, "40000000 images of 50331648 bytes", "at most 64 GiB");
}

static void synthetic_images_are_always_the_same(void **state) {
  (void)state;
  Err err;
  ProgramData few = synthetic(20, 10, 32), more = synthetic(25, 25, 32), small = synthetic(10, 0, 8);
  Dataset *a = dataset_load(&few, NULL, &err), *b = dataset_load(&more, "/nowhere", &err), *c = dataset_load(&small, NULL, &err);
  assert_non_null(a);
  assert_non_null(b);
  assert_non_null(c);
  assert_int_equal(a->count, 30);
  for (int i = 0; i < 30; i++) assert_int_equal(a->labels[i], i % 10);
  assert_memory_equal(a->pixels, b->pixels, 30 * 3072);
  assert_string_equal(hash_name(a->pixels, 30 * 3072).hex, "9297207de9d3875a69d088fe96829b8e");
  dataset_free(a);
  dataset_free(b);
  dataset_free(c);
}

/* Softmax regression on the normalised pixels by SGD: the accuracy on the test images after `epochs`. */
static double linear_accuracy(const Dataset *dataset, int epochs) {
  enum { INPUTS = 3072, CLASSES = 10 };
  float *weights = calloc(INPUTS * CLASSES, sizeof *weights);
  const float *table = dataset->normalised[0];
  int64_t train = dataset->parts[DATASET_TRAIN].count, right = 0;
  for (int64_t n = 0; n < epochs * train + (dataset->count - train); n++) {
    int64_t image = n < epochs * train ? n % train : train + n - epochs * train;
    const uint8_t *bytes = dataset->pixels + image * INPUTS;
    float x[INPUTS], scores[CLASSES] = {0}, sum = 0;
    int best = 0;
    for (int i = 0; i < INPUTS; i++) x[i] = table[bytes[i]];
    for (int c = 0; c < CLASSES; c++) {
      for (int i = 0; i < INPUTS; i++) scores[c] += weights[c * INPUTS + i] * x[i];
      if (scores[c] > scores[best]) best = c;
    }
    if (image >= train) {
      right += best == dataset->labels[image];
      continue;
    }
    float top = scores[best];
    for (int c = 0; c < CLASSES; c++) sum += scores[c] = __builtin_expf(scores[c] - top);
    for (int c = 0; c < CLASSES; c++) {
      float step = 1e-4f * (scores[c] / sum - (c == dataset->labels[image]));
      for (int i = 0; i < INPUTS; i++) weights[c * INPUTS + i] -= step * x[i];
    }
  }
  free(weights);
  return (double)right / (double)(dataset->count - train);
}

static void a_linear_classifier_does_not_get_far(void **state) {
  (void)state;
  Err err;
  ProgramData data = synthetic(800, 400, 32);
  data.mean[0] = 0.35; /* of the pixels, about */
  data.deviation[0] = 0.22;
  data.train_fraction = 1;
  Dataset *dataset = dataset_load(&data, NULL, &err);
  assert_non_null(dataset);
  double accuracy = linear_accuracy(dataset, 4);
  print_message("a linear classifier has %.1f %%\n", 100 * accuracy);
  assert_true(accuracy < 0.6);
  assert_true(accuracy > 0.1); /* it did learn something: chance is 0.1 */
  dataset_free(dataset);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(cifar_is_read_from_either_folder, make_world, remove_world),
      cmocka_unit_test_setup_teardown(each_class_is_split_in_file_order, make_world, remove_world),
      cmocka_unit_test_setup_teardown(bytes_are_normalised_by_channel, make_world, remove_world),
      cmocka_unit_test_setup_teardown(missing_files_are_named, make_world, remove_world),
      cmocka_unit_test_setup_teardown(a_folder_without_cifar_is_refused, make_world, remove_world),
      cmocka_unit_test_setup_teardown(sizes_are_checked, make_world, remove_world),
      cmocka_unit_test_setup_teardown(labels_are_checked, make_world, remove_world),
      cmocka_unit_test_setup_teardown(descriptions_are_checked, make_world, remove_world),
      cmocka_unit_test(synthetic_images_are_always_the_same),
      cmocka_unit_test(a_linear_classifier_does_not_get_far),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
