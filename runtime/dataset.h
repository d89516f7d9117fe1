/* Dataset: all images of a data set as bytes in memory, and the lists of its parts. Read-only once loaded, so any number of
 * threads may read it. It owns everything it points to. */
#ifndef ADWP_RUNTIME_DATASET_H
#define ADWP_RUNTIME_DATASET_H

#include "runtime/base/err.h"
#include "runtime/program.h"

#include <stdint.h>

typedef enum DatasetPart {
  DATASET_TRAIN, /* x_train: of each class the first `train_fraction` in file order */
  DATASET_VALID, /* x_val: the rest of the training files */
  DATASET_TEST,
  DATASET_PARTS
} DatasetPart;

typedef struct DatasetList { /* indices of images, in file order */
  uint32_t *images;
  int64_t count;
} DatasetList;

typedef struct Dataset {
  int32_t channels, height, width, classes;
  int64_t image_bytes; /* channels * height * width */
  int64_t count;       /* images: first those of the training files in file order, then the test images */
  uint8_t *pixels;     /* (count, channels, height, width) */
  uint8_t *labels;     /* (count,), < classes */
  DatasetList parts[DATASET_PARTS];
  float normalised[8][256]; /* per channel and byte: (byte / 255 - mean) / deviation */
} Dataset;

/* Formats "cifar10-binary" (`folder` holds cifar-10-batches-bin, or is that folder itself) and "synthetic" (`folder` null or
 * ignored; the same images for every run, whatever its seed). Null: `err` says which file, what was expected and what to do. */
Dataset *dataset_load(const ProgramData *data, const char *folder, Err *err);
void dataset_free(Dataset *dataset); /* null is allowed */

#endif
