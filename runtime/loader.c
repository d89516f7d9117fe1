/* Batches ahead of the step: a ring of slots, filled by worker threads.
 *
 * Tickets number the batches from where the loader began. Ticket t is made in slot t % ahead; a worker takes the next ticket once
 * that slot is free, so at most `ahead` batches lie ready and memory is bounded. What a ticket holds depends on its number alone,
 * so it does not matter who makes it. Each slot has its own order of the images, remade when its epoch changes: nothing is shared
 * between workers but the counters, which the mutex guards. */
#include "runtime/loader.h"

#include "runtime/base/arena.h"
#include "runtime/random.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_AHEAD = 64, MOST_THREADS = 64, DEFAULT_AHEAD = 4, MOST_BATCH = 1 << 20 };

typedef struct Slot {
  float *x;
  int32_t *y;
  uint32_t *order;     /* of `order_epoch`; belongs to whoever makes this slot's ticket */
  int64_t order_epoch; /* -1: none yet */
  int64_t images;      /* of the batch that is ready, how many count */
  bool ready;
} Slot;

struct Loader {
  const Dataset *dataset;
  LoaderSettings settings;
  int64_t steps, tickets; /* of an epoch; that there are at all (training: no end) */
  Slot *slots;
  pthread_mutex_t mutex; /* guards all below, and `ready` and `images` of slots */
  pthread_cond_t made, freed;
  int64_t next_ticket, used; /* the next to make; how many loader_next has given out */
  bool stop;
  int32_t thread_count;
  pthread_t threads[MOST_THREADS];
};

LoaderSettings loader_training(const ProgramData *data, int32_t batch) {
  return (LoaderSettings){.part = DATASET_TRAIN,
                          .training = true,
                          .batch = batch,
                          .crop_pad = data->crop_pad,
                          .cutout = data->cutout,
                          .flip = data->flip};
}

LoaderSettings loader_validation(DatasetPart part, int32_t batch) {
  return (LoaderSettings){.part = part, .batch = batch};
}

int64_t loader_steps(const Dataset *dataset, const LoaderSettings *settings) {
  int64_t count = dataset->parts[settings->part].count, batch = settings->batch;
  return settings->training ? count / batch : (count + batch - 1) / batch;
}

/* Draws 0: row of the crop, 1: column, 2: flip, 3: row of cutout's centre, 4: column. */
static LoaderImage draw_augment(const Dataset *dataset, const LoaderSettings *settings, int64_t epoch, uint32_t image) {
  LoaderImage augment = {.image = (int32_t)image};
  if (!settings->training) return augment;
  uint64_t index = (uint64_t)epoch << 32 | image;
  if (settings->crop_pad > 0) {
    uint32_t offsets = 2 * (uint32_t)settings->crop_pad + 1;
    augment.top = (int32_t)random_below(settings->seed, RANDOM_AUGMENT, index, 0, offsets) - settings->crop_pad;
    augment.left = (int32_t)random_below(settings->seed, RANDOM_AUGMENT, index, 1, offsets) - settings->crop_pad;
  }
  augment.flip = settings->flip && random_below(settings->seed, RANDOM_AUGMENT, index, 2, 2);
  if (settings->cutout > 0) {
    int32_t row = (int32_t)random_below(settings->seed, RANDOM_AUGMENT, index, 3, (uint32_t)dataset->height);
    int32_t column = (int32_t)random_below(settings->seed, RANDOM_AUGMENT, index, 4, (uint32_t)dataset->width);
    augment.hole_top = row - settings->cutout / 2;
    augment.hole_bottom = augment.hole_top + settings->cutout;
    augment.hole_left = column - settings->cutout / 2;
    augment.hole_right = augment.hole_left + settings->cutout;
  }
  return augment;
}

/* One channel of an image (H, W) bytes into its place in x (H, W, C). */
static void write_channel(const Dataset *dataset, const LoaderImage *augment, const uint8_t *bytes, const float *normalised,
                          float *x) {
  int32_t height = dataset->height, width = dataset->width, channels = dataset->channels;
  for (int32_t y = 0; y < height; y++) {
    int32_t from_y = y + augment->top;
    const uint8_t *row = from_y >= 0 && from_y < height ? bytes + (int64_t)from_y * width : NULL;
    bool hole_row = y >= augment->hole_top && y < augment->hole_bottom;
    for (int32_t column = 0; column < width; column++, x += channels) {
      int32_t from_x = (augment->flip ? width - 1 - column : column) + augment->left;
      uint8_t byte = row && from_x >= 0 && from_x < width ? row[from_x] : 0;
      bool hole = hole_row && column >= augment->hole_left && column < augment->hole_right;
      *x = hole ? 0 : normalised[byte];
    }
  }
}

/* Where a batch goes; each may be null. */
typedef struct Batch {
  float *x;
  LoaderImage *images; /* the plan that x is made from */
  int32_t *y;
} Batch;

static void write_batch(const Dataset *dataset, const LoaderSettings *settings, int64_t epoch, int64_t step,
                        const uint32_t *order, const Batch *batch) {
  const DatasetList *part = &dataset->parts[settings->part];
  int64_t plane = (int64_t)dataset->height * dataset->width;
  for (int64_t b = 0; b < settings->batch; b++) {
    int64_t at = (step * settings->batch + b) % part->count;
    uint32_t image = part->images[settings->training ? order[at] : at];
    LoaderImage augment = draw_augment(dataset, settings, epoch, image);
    for (int32_t c = 0; batch->x && c < dataset->channels; c++)
      write_channel(dataset, &augment, dataset->pixels + image * dataset->image_bytes + c * plane, dataset->normalised[c],
                    batch->x + b * dataset->image_bytes + c);
    if (batch->images) batch->images[b] = augment;
    if (batch->y) batch->y[b] = dataset->labels[image];
  }
}

static int64_t images_of_step(const Dataset *dataset, const LoaderSettings *settings, int64_t step) {
  int64_t left = dataset->parts[settings->part].count - step * settings->batch;
  return left < settings->batch ? left : settings->batch;
}

static void draw_order(const Dataset *dataset, const LoaderSettings *settings, int64_t epoch, uint32_t *order) {
  if (settings->training)
    random_permutation(settings->seed, RANDOM_ORDER, (uint64_t)epoch, order, (uint32_t)dataset->parts[settings->part].count);
}

int64_t loader_make(const Dataset *dataset, const LoaderSettings *settings, int64_t epoch, int64_t step, uint32_t *order,
                    float *x, int32_t *y) {
  if (step < 0 || step >= loader_steps(dataset, settings)) die("batch %lld of an epoch that has fewer", (long long)step);
  draw_order(dataset, settings, epoch, order);
  write_batch(dataset, settings, epoch, step, order, &(Batch){.x = x, .y = y});
  return images_of_step(dataset, settings, step);
}

/* Makes a ticket's batch; `slot` lends its order. Called without the mutex. */
static int64_t make_ticket(const Loader *loader, Slot *slot, int64_t ticket, const Batch *batch) {
  int64_t number = loader->settings.first_step + ticket, step = number % loader->steps;
  int64_t epoch = loader->settings.epoch + number / loader->steps;
  if (slot->order_epoch != epoch) draw_order(loader->dataset, &loader->settings, epoch, slot->order);
  slot->order_epoch = epoch;
  write_batch(loader->dataset, &loader->settings, epoch, step, slot->order, batch);
  return images_of_step(loader->dataset, &loader->settings, step);
}

static bool may_make(const Loader *loader) {
  return loader->next_ticket < loader->tickets && loader->next_ticket < loader->used + loader->settings.ahead;
}

static void *work(void *context) {
  Loader *loader = context;
  pthread_mutex_lock(&loader->mutex);
  for (;;) {
    while (!loader->stop && !may_make(loader)) pthread_cond_wait(&loader->freed, &loader->mutex);
    if (loader->stop) break;
    int64_t ticket = loader->next_ticket++;
    Slot *slot = &loader->slots[ticket % loader->settings.ahead];
    pthread_mutex_unlock(&loader->mutex);
    int64_t images = make_ticket(loader, slot, ticket, &(Batch){.x = slot->x, .y = slot->y});
    pthread_mutex_lock(&loader->mutex);
    slot->images = images;
    slot->ready = true;
    pthread_cond_signal(&loader->made);
  }
  pthread_mutex_unlock(&loader->mutex);
  return NULL;
}

static bool check_settings(const Dataset *dataset, const LoaderSettings *settings, Err *err) {
  static const char *const part_names[DATASET_PARTS] = {"training", "validation", "test"};
  int64_t count = dataset->parts[settings->part].count;
  if (settings->batch < 1 || settings->batch > MOST_BATCH)
    return err_set(err, "batches of %d images; 1 to %d are possible", settings->batch, MOST_BATCH);
  if (settings->crop_pad < 0 || settings->crop_pad > dataset->height || settings->crop_pad > dataset->width)
    return err_set(err, "images of %d x %d cannot be padded by %d before a crop", dataset->height, dataset->width,
                   settings->crop_pad);
  if (settings->cutout < 0 || settings->cutout > 2 * (dataset->height + dataset->width))
    return err_set(err, "a cutout of side %d does not fit images of %d x %d", settings->cutout, dataset->height, dataset->width);
  if (settings->threads < 0 || settings->threads > MOST_THREADS || settings->ahead < 0 || settings->ahead > MOST_AHEAD)
    die("a loader with %d threads, %d batches ahead", settings->threads, settings->ahead);
  if (settings->epoch < 0 || settings->epoch > UINT32_MAX || settings->first_step < 0)
    die("a loader from step %lld of epoch %lld", (long long)settings->first_step, (long long)settings->epoch);
  if (loader_steps(dataset, settings) > 0) return true;
  return err_set(err, "the %s part has %lld images, too few for a batch of %d; give it more images or make the batch smaller",
                 part_names[settings->part], (long long)count, settings->training ? settings->batch : 1);
}

static void allocate_slots(Loader *loader) {
  int64_t images = loader->dataset->parts[loader->settings.part].count, batch = loader->settings.batch;
  bool buffers = loader->settings.threads > 0;
  loader->slots = memory_alloc((size_t)loader->settings.ahead * sizeof *loader->slots);
  for (int32_t i = 0; i < loader->settings.ahead; i++) {
    Slot *slot = &loader->slots[i];
    slot->order_epoch = -1;
    slot->order = memory_alloc(loader->settings.training ? (size_t)images * sizeof *slot->order : 1);
    if (!buffers) continue;
    slot->x = memory_alloc((size_t)(batch * loader->dataset->image_bytes) * sizeof *slot->x);
    slot->y = memory_alloc((size_t)batch * sizeof *slot->y);
  }
}

Loader *loader_new(const Dataset *dataset, const LoaderSettings *settings, Err *err) {
  if (!check_settings(dataset, settings, err)) return NULL;
  Loader *loader = memory_alloc(sizeof *loader);
  loader->dataset = dataset;
  loader->settings = *settings;
  if (!settings->threads)
    loader->settings.ahead = 1;
  else if (!settings->ahead)
    loader->settings.ahead = DEFAULT_AHEAD;
  loader->steps = loader_steps(dataset, settings);
  loader->tickets = settings->training ? INT64_MAX : loader->steps - settings->first_step;
  allocate_slots(loader);
  pthread_mutex_init(&loader->mutex, NULL);
  pthread_cond_init(&loader->made, NULL);
  pthread_cond_init(&loader->freed, NULL);
  for (int32_t i = 0; i < settings->threads; i++) {
    int why = pthread_create(&loader->threads[i], NULL, work, loader);
    if (why) {
      err_set(err, "cannot start a thread that prepares images: %s", strerror(why));
      loader_free(loader);
      return NULL;
    }
    loader->thread_count++;
  }
  return loader;
}

void loader_free(Loader *loader) {
  if (!loader) return;
  pthread_mutex_lock(&loader->mutex);
  loader->stop = true;
  pthread_cond_broadcast(&loader->freed);
  pthread_mutex_unlock(&loader->mutex);
  for (int32_t i = 0; i < loader->thread_count; i++) pthread_join(loader->threads[i], NULL);
  pthread_cond_destroy(&loader->freed);
  pthread_cond_destroy(&loader->made);
  pthread_mutex_destroy(&loader->mutex);
  for (int32_t i = 0; i < loader->settings.ahead; i++) {
    free(loader->slots[i].x);
    free(loader->slots[i].y);
    free(loader->slots[i].order);
  }
  free(loader->slots);
  free(loader);
}

int64_t loader_next(Loader *loader, float *x, int32_t *y) {
  int64_t ticket = loader->used; /* only this thread writes it */
  if (ticket >= loader->tickets) return 0;
  Slot *slot = &loader->slots[ticket % loader->settings.ahead];
  if (!loader->thread_count) {
    loader->used++;
    return make_ticket(loader, slot, ticket, &(Batch){.x = x, .y = y});
  }
  pthread_mutex_lock(&loader->mutex);
  while (!slot->ready) pthread_cond_wait(&loader->made, &loader->mutex);
  pthread_mutex_unlock(&loader->mutex);
  if (x) memcpy(x, slot->x, (size_t)(loader->settings.batch * loader->dataset->image_bytes) * sizeof *x);
  if (y) memcpy(y, slot->y, (size_t)loader->settings.batch * sizeof *y);
  pthread_mutex_lock(&loader->mutex);
  int64_t images = slot->images;
  slot->ready = false;
  loader->used++;
  pthread_cond_signal(&loader->freed);
  pthread_mutex_unlock(&loader->mutex);
  return images;
}

int64_t loader_next_plan(Loader *loader, LoaderImage *images, int32_t *y) {
  if (loader->thread_count) die("a plan from a loader whose threads make batches");
  if (loader->used >= loader->tickets) return 0;
  return make_ticket(loader, &loader->slots[0], loader->used++, &(Batch){.images = images, .y = y});
}
