/* CIFAR-10's binary layout: a record is a label byte and 3 x 32 x 32 bytes, channel by channel, row by row. A file may hold any
 * whole number of records, so that excerpts work; every size and every label is checked before an image is used. */
#include "runtime/base/arena.h"
#include "runtime/dataset_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { SIDE = 32, IMAGE = 3 * SIDE * SIDE, RECORD = 1 + IMAGE, CLASSES = 10, MOST_RECORDS = 200000, FILES = 6 };

static const char *const file_names[FILES] = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                              "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"};

#define WHAT_TO_DO "unpack CIFAR-10's binary version (cifar-10-binary.tar.gz) and name its folder with --data"

static bool is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static bool check_description(const ProgramData *data, Err *err) {
  if (data->channels == 3 && data->height == SIDE && data->width == SIDE && data->classes == CLASSES) return true;
  return err_set(err,
                 "data %s: cifar10-binary has images of 3 x 32 x 32 and 10 classes, not %d x %d x %d and %d; correct the model",
                 data->name, data->channels, data->height, data->width, data->classes);
}

/* The folder with the files, which exists; in `memory`. */
static const char *find_folder(const ProgramData *data, const char *folder, Arena *memory, Err *err) {
  if (!folder) {
    err_set(err, "data %s are CIFAR-10, and no folder was given; " WHAT_TO_DO, data->name);
    return NULL;
  }
  struct stat info;
  if (stat(folder, &info)) {
    err_set(err, "cannot open the data folder %s: %s; " WHAT_TO_DO, folder, strerror(errno));
    return NULL;
  }
  const char *inner = arena_printf(memory, "%s/cifar-10-batches-bin", folder);
  if (is_folder(inner)) return inner;
  for (int i = 0; i < FILES; i++)
    if (stat(arena_printf(memory, "%s/%s", folder, file_names[i]), &info) == 0) return folder;
  err_set(err, "%s is no CIFAR-10 folder: it holds neither cifar-10-batches-bin nor %s; " WHAT_TO_DO, folder, file_names[0]);
  return NULL;
}

/* The number of records of the file at `path`. */
static bool count_records(const char *path, int64_t *records, Err *err) {
  struct stat info;
  if (stat(path, &info))
    return err_set(err,
                   "cannot open %s: %s; all of data_batch_1.bin to data_batch_5.bin and test_batch.bin are needed: " WHAT_TO_DO,
                   path, strerror(errno));
  if (!S_ISREG(info.st_mode)) return err_set(err, "cannot read %s: it is not a regular file", path);
  long long size = (long long)info.st_size;
  if (size == 0 || size % RECORD)
    return err_set(
        err,
        "%s has %lld bytes, which is not a whole number of records of %d bytes: it was cut short or is no CIFAR-10 file; "
        "unpack it again",
        path, size, RECORD);
  if (size / RECORD > MOST_RECORDS)
    return err_set(err,
                   "%s has %lld records; at most %d are allowed (CIFAR-10 has 10000): check that it is CIFAR-10's binary version",
                   path, size / RECORD, MOST_RECORDS);
  *records = size / RECORD;
  return true;
}

static bool check_label(const char *path, long long record, int label, Err *err) {
  if (label < CLASSES) return true;
  return err_set(err, "%s is damaged: record %lld (at byte %lld) has label %d, and labels are 0..%d; unpack it again", path,
                 record, record * RECORD, label, CLASSES - 1);
}

/* Appends a file's records to the data set, from image `first` on. */
static bool read_records(const char *path, int64_t records, Dataset *dataset, int64_t first, Err *err) {
  FILE *file = fopen(path, "rbe");
  if (!file) return err_set(err, "cannot open %s: %s", path, strerror(errno));
  setvbuf(file, NULL, _IOFBF, 64 * RECORD);
  bool done = true;
  for (int64_t r = 0; done && r < records; r++) {
    uint8_t *label = dataset->labels + first + r;
    if (fread(label, 1, 1, file) != 1 || fread(dataset->pixels + (first + r) * IMAGE, IMAGE, 1, file) != 1) {
      err_set(err, "cannot read %s: %s", path, ferror(file) ? strerror(errno) : "it became shorter while it was read");
      done = false;
      break;
    }
    done = check_label(path, r, *label, err);
  }
  fclose(file);
  return done;
}

static Dataset *load_files(const ProgramData *data, const char *folder, Arena *memory, int64_t *train, Err *err) {
  const char *paths[FILES];
  int64_t records[FILES] = {0}, total = 0;
  for (int i = 0; i < FILES; i++) {
    paths[i] = arena_printf(memory, "%s/%s", folder, file_names[i]);
    if (!count_records(paths[i], &records[i], err)) return NULL;
    total += records[i];
  }
  *train = total - records[FILES - 1];
  Dataset *dataset = dataset_alloc(data, *train, records[FILES - 1], err);
  int64_t first = 0;
  for (int i = 0; dataset && i < FILES; i++) {
    if (!read_records(paths[i], records[i], dataset, first, err)) {
      dataset_free(dataset);
      return NULL;
    }
    first += records[i];
  }
  return dataset;
}

Dataset *cifar10_load(const ProgramData *data, const char *folder, int64_t *train, Err *err) {
  if (!check_description(data, err)) return NULL;
  Arena *memory = arena_new();
  folder = find_folder(data, folder, memory, err);
  Dataset *dataset = folder ? load_files(data, folder, memory, train, err) : NULL;
  arena_free(memory);
  return dataset;
}
