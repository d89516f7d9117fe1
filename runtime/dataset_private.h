/* Between dataset.c and the formats. */
#ifndef ADWP_RUNTIME_DATASET_PRIVATE_H
#define ADWP_RUNTIME_DATASET_PRIVATE_H

#include "runtime/dataset.h"

/* Memory for `train` + `test` images; the caller fills pixels and labels. Null: too many, or no memory. */
Dataset *dataset_alloc(const ProgramData *data, int64_t train, int64_t test, Err *err);

/* The two formats: everything but the lists of parts. `*train` is the number of images of the training files. */
Dataset *cifar10_load(const ProgramData *data, const char *folder, int64_t *train, Err *err);
Dataset *synthetic_load(const ProgramData *data, int64_t *train, Err *err);

#endif
