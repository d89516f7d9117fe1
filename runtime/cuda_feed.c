/* Batches on the device: the data set's bytes lie there, and what the loader draws for each image travels with the step. The
 * draws stay on the host, so the pixels are those of a CPU's loader. */
#include "runtime/cuda_private.h"

#include <stdlib.h>

typedef struct CudaFeed {
  Feed base;
  int32_t images, batch; /* of executor.images; images of a batch */
  int32_t *y;            /* their labels */
} CudaFeed;

static bool send_images(CudaExecutor *executor, const Dataset *dataset, CudaImages *images, Err *err) {
  const CudaDriver *driver = &executor->driver;
  int64_t bytes = dataset->count * dataset->image_bytes;
  int64_t table_bytes = dataset->channels * (int64_t)sizeof dataset->normalised[0];
  *images = (CudaImages){.dataset = dataset};
  if (bytes > INT32_MAX) /* kernels count elements in ints */
    return err_set(err, "the data set has %lld bytes of images, and a GPU's kernels reach the first %d", (long long)bytes,
                   INT32_MAX);
  if (!cuda_allocate(executor, &images->pixels, bytes, "the data set's images", err) ||
      !cuda_allocate(executor, &images->normalised, table_bytes, "the data set's table of pixels", err))
    return false;
  return cuda_check(driver, driver->copy_in(images->pixels, dataset->pixels, (size_t)bytes, executor->stream), err,
                    "cannot send the data set's images to the GPU") &&
         cuda_check(driver, driver->copy_in(images->normalised, dataset->normalised, (size_t)table_bytes, executor->stream), err,
                    "cannot send the data set's table of pixels to the GPU") &&
         cuda_wait(executor, err);
}

/* Which of the executor's images are this data set's; they are sent when first asked for. -1: `err`. */
static int32_t find_images(CudaExecutor *executor, const Dataset *dataset, Err *err) {
  for (size_t i = 0; i < executor->images.count; i++)
    if (executor->images.data[i].dataset == dataset) return (int32_t)i;
  CudaImages images;
  bool sent = send_images(executor, dataset, &images, err);
  if (sent) {
    vector_push(&executor->images, images);
    return (int32_t)executor->images.count - 1;
  }
  if (images.pixels) executor->driver.memory_free(images.pixels);
  if (images.normalised) executor->driver.memory_free(images.normalised);
  return -1;
}

Feed *cuda_feed(Executor *base, const Dataset *dataset, const LoaderSettings *settings, Err *err) {
  CudaExecutor *executor = (CudaExecutor *)base;
  LoaderSettings plans = *settings;
  plans.threads = 0; /* a plan is made in microseconds */
  if (base->program->images_kernel >= base->program->kernel_count) die("the program has no kernel that makes images");
  int32_t images = cuda_enter(executor, err) ? find_images(executor, dataset, err) : -1;
  Loader *loader = images >= 0 ? loader_new(dataset, &plans, err) : NULL;
  if (!loader) return NULL;
  CudaFeed *feed = memory_alloc(sizeof *feed);
  *feed = (CudaFeed){{base, loader}, images, settings->batch, memory_alloc((size_t)settings->batch * sizeof *feed->y)};
  return &feed->base;
}

void cuda_feed_free(Feed *base) {
  CudaFeed *feed = (CudaFeed *)base;
  loader_free(base->loader);
  free(feed->y);
  free(feed);
}

int64_t cuda_feed_next(Feed *base, const ProgramStep *step, Err *err) {
  CudaFeed *feed = (CudaFeed *)base;
  CudaExecutor *executor = (CudaExecutor *)base->executor;
  CudaStep *own = &executor->steps[executor_step_index(base->executor, step)];
  const NamedBuffer *y = program_find_input(step, "y");
  void *plan = own->mail + own->plan_at;
  int64_t images = loader_next_plan(base->loader, plan, feed->y);
  if (images < 1) return images;
  own->images = program_find_input(step, "x") ? feed->images : -1;
  bool done = !y || cuda_input(base->executor, step, (uint32_t)(y - step->inputs), feed->y, feed->batch, err);
  return done ? images : -1;
}
