/* Loader: batches for steps, made by worker threads ahead of the step that uses them.
 *
 * A batch is a pure function of (data set, settings, epoch, step): the same bytes for any number of threads, and from whatever
 * step one begins. Training: images of a part in the order of (seed, epoch), augmented by (seed, epoch, image), a last smaller
 * batch dropped; after an epoch's last step comes step 0 of the next epoch, without end. Otherwise one pass in file order, not
 * augmented, the last batch filled up with the first images of the part. */
#ifndef ADWP_RUNTIME_LOADER_H
#define ADWP_RUNTIME_LOADER_H

#include "runtime/base/err.h"
#include "runtime/dataset.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct LoaderSettings {
  DatasetPart part;
  bool training;
  int32_t batch;             /* images of a batch */
  int32_t crop_pad, cutout;  /* training: pixels of padding, 0: no crop; side of the square, 0: none */
  bool flip;                 /* training */
  uint64_t seed;             /* training */
  int64_t epoch, first_step; /* where to begin; first_step may be loader_steps(): step 0 of the next epoch */
  int32_t threads;           /* workers; 0: loader_next makes the batch itself */
  int32_t ahead;             /* batches that may lie ready, 1..64; 0: 4 */
} LoaderSettings;

/* The settings with which `data` trains (part DATASET_TRAIN) or is validated; the caller then sets seed, epoch, first_step,
 * threads. */
LoaderSettings loader_training(const ProgramData *data, int32_t batch);
LoaderSettings loader_validation(DatasetPart part, int32_t batch);

/* Steps of an epoch: count / batch rounded down (training) or up. */
int64_t loader_steps(const Dataset *dataset, const LoaderSettings *settings);

/* What happens to one image: output pixel (y, x) shows byte (y + top, x + left) of the image, mirrored where `flip`, 0 outside;
 * the square [hole_top, hole_bottom) x [hole_left, hole_right) becomes zeros. Eight ints: the rows of a plan that a GPU reads. */
typedef struct LoaderImage {
  int32_t image; /* of the data set */
  int32_t top, left, flip;
  int32_t hole_top, hole_bottom, hole_left, hole_right;
} LoaderImage;

typedef struct Loader Loader;

/* `dataset` must outlive the loader. Null: too few images for one batch, or no thread could be made. */
Loader *loader_new(const Dataset *dataset, const LoaderSettings *settings, Err *err);
/* Stops the workers wherever they are; null is allowed. */
void loader_free(Loader *loader);

/* Writes the next batch: x (batch, H, W, C) normalised, y (batch,) labels. Returns how many images, from the first, count:
 * `batch` in training; fewer in a last, filled-up batch; 0, and nothing is written, after the last batch of a validation. Where x
 * or y is null, a step that does not read it, that part of the batch is dropped. Called by one thread. */
int64_t loader_next(Loader *loader, float *x, int32_t *y);

/* The next batch as a plan, not made: `batch` images, and y; either may be null. Only of a loader without threads. */
int64_t loader_next_plan(Loader *loader, LoaderImage *images, int32_t *y);

/* One batch of step `step` < loader_steps() of `epoch`, made here and now; what loader_next gives. `order` is memory for as many
 * indices as the part has images. */
int64_t loader_make(const Dataset *dataset, const LoaderSettings *settings, int64_t epoch, int64_t step, uint32_t *order,
                    float *x, int32_t *y);

#endif
