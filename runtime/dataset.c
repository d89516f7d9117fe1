/* What all formats share: checking the description, memory, the split into parts, the table of normalised bytes. */
#include "runtime/dataset.h"

#include "runtime/base/arena.h"
#include "runtime/dataset_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CHANNELS = 8, MOST_SIDE = 4096, MOST_CLASSES = 256, MOST_IMAGES = 20000000 };
static const long long MOST_BYTES = 64LL << 30;

static bool check_description(const ProgramData *data, Err *err) {
  const char *name = data->name;
  if (data->channels < 1 || data->channels > MOST_CHANNELS || data->height < 1 || data->height > MOST_SIDE || data->width < 1 ||
      data->width > MOST_SIDE)
    return err_set(err, "data %s: images of %d x %d x %d; at most %d channels and sides of %d are possible", name, data->channels,
                   data->height, data->width, MOST_CHANNELS, MOST_SIDE);
  if (data->classes < 1 || data->classes > MOST_CLASSES)
    return err_set(err, "data %s: %d classes; 1 to %d are possible", name, data->classes, MOST_CLASSES);
  if (!(data->train_fraction >= 0 && data->train_fraction <= 1))
    return err_set(err, "data %s: the training part is %g of the images; it must lie in 0..1", name, data->train_fraction);
  for (int32_t c = 0; c < data->channels; c++)
    if (!isfinite(data->mean[c]) || !isfinite(data->deviation[c]) || data->deviation[c] <= 0)
      return err_set(err, "data %s: channel %d has mean %g and deviation %g; a deviation must be positive", name, c,
                     data->mean[c], data->deviation[c]);
  return true;
}

Dataset *dataset_alloc(const ProgramData *data, int64_t train, int64_t test, Err *err) {
  int64_t image_bytes = (int64_t)data->channels * data->height * data->width;
  if (train < 0 || test < 0 || train > MOST_IMAGES || test > MOST_IMAGES) {
    err_set(err, "data %s: %lld training and %lld test images; at most %d each are possible", data->name, (long long)train,
            (long long)test, MOST_IMAGES);
    return NULL;
  }
  int64_t count = train + test;
  if (count * image_bytes > MOST_BYTES) {
    err_set(err, "data %s: %lld images of %lld bytes; at most %lld GiB are possible", data->name, (long long)count,
            (long long)image_bytes, MOST_BYTES >> 30);
    return NULL;
  }
  Dataset *dataset = memory_alloc(sizeof *dataset);
  dataset->channels = data->channels;
  dataset->height = data->height;
  dataset->width = data->width;
  dataset->classes = data->classes;
  dataset->image_bytes = image_bytes;
  dataset->count = count;
  dataset->pixels = malloc((size_t)count * (size_t)image_bytes + 1);
  dataset->labels = malloc((size_t)count + 1);
  if (dataset->pixels && dataset->labels) return dataset;
  err_set(err, "data %s: no memory for %lld images of %lld bytes", data->name, (long long)count, (long long)image_bytes);
  dataset_free(dataset);
  return NULL;
}

static void list_images(DatasetList *list, const bool *in, int64_t first, int64_t end) {
  list->images = memory_alloc((size_t)(end - first) * sizeof *list->images + 1);
  for (int64_t i = first; i < end; i++)
    if (in[i]) list->images[list->count++] = (uint32_t)i;
}

/* Of a class with n images the first round(fraction * n) are x_train. */
static void split(Dataset *dataset, int64_t train, double fraction) {
  int64_t in_class[MOST_CLASSES] = {0}, seen[MOST_CLASSES] = {0};
  for (int64_t i = 0; i < train; i++) in_class[dataset->labels[i]]++;
  bool *in = memory_alloc((size_t)dataset->count + 1);
  for (int64_t i = 0; i < train; i++) {
    uint8_t label = dataset->labels[i];
    in[i] = seen[label]++ < (int64_t)floor(fraction * (double)in_class[label] + 0.5);
  }
  list_images(&dataset->parts[DATASET_TRAIN], in, 0, train);
  for (int64_t i = 0; i < train; i++) in[i] = !in[i];
  list_images(&dataset->parts[DATASET_VALID], in, 0, train);
  memset(in, true, (size_t)dataset->count);
  list_images(&dataset->parts[DATASET_TEST], in, train, dataset->count);
  free(in);
}

static void fill_normalised(Dataset *dataset, const ProgramData *data) {
  for (int32_t c = 0; c < data->channels; c++)
    for (int byte = 0; byte < 256; byte++)
      dataset->normalised[c][byte] = (float)((byte / 255.0 - data->mean[c]) / data->deviation[c]);
}

Dataset *dataset_load(const ProgramData *data, const char *folder, Err *err) {
  if (!check_description(data, err)) return NULL;
  Dataset *dataset = NULL;
  int64_t train = 0;
  if (strcmp(data->format, "cifar10-binary") == 0)
    dataset = cifar10_load(data, folder, &train, err);
  else if (strcmp(data->format, "synthetic") == 0)
    dataset = synthetic_load(data, &train, err);
  else
    err_set(err, "data %s: format \"%s\" is not known; there are cifar10-binary and synthetic", data->name, data->format);
  if (!dataset) return NULL;
  split(dataset, train, data->train_fraction);
  fill_normalised(dataset, data);
  return dataset;
}

void dataset_free(Dataset *dataset) {
  if (!dataset) return;
  for (int part = 0; part < DATASET_PARTS; part++) free(dataset->parts[part].images);
  free(dataset->pixels);
  free(dataset->labels);
  free(dataset);
}
