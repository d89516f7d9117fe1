/* The loader: the same bytes for any number of workers and from any step on; augmentation against a plain definition of it;
 * threads that stop wherever they are. */
#include "runtime/loader.h"
#include "runtime/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { CHANNELS = 3, HEIGHT = 6, WIDTH = 8, IMAGE = CHANNELS * HEIGHT * WIDTH, IMAGES = 47, BATCH = 5, TRAIN = 27 };

/* A data set of bytes that tell where they come from, with `mean` 0.5 and deviation 0.25. Images 0..26 train, 27..46 are valid.
 */
static Dataset *make_dataset(void) {
  Dataset *dataset = calloc(1, sizeof *dataset);
  dataset->channels = CHANNELS;
  dataset->height = HEIGHT;
  dataset->width = WIDTH;
  dataset->classes = 10;
  dataset->image_bytes = IMAGE;
  dataset->count = IMAGES;
  dataset->pixels = malloc(IMAGES * IMAGE);
  dataset->labels = malloc(IMAGES);
  for (int i = 0; i < IMAGES * IMAGE; i++) dataset->pixels[i] = (uint8_t)(1 + random_below(1, RANDOM_TEST, 0, (uint64_t)i, 255));
  for (int i = 0; i < IMAGES; i++) dataset->labels[i] = (uint8_t)(i * 7 % 10);
  for (int part = 0; part < DATASET_PARTS; part++) dataset->parts[part].images = malloc(IMAGES * sizeof(uint32_t));
  for (uint32_t i = 0; i < IMAGES; i++) {
    DatasetList *list = &dataset->parts[i < TRAIN ? DATASET_TRAIN : DATASET_VALID];
    list->images[list->count++] = i;
  }
  for (int c = 0; c < CHANNELS; c++)
    for (int byte = 0; byte < 256; byte++) dataset->normalised[c][byte] = (float)((byte / 255.0 - 0.5) / 0.25) + (float)c;
  return dataset;
}

static LoaderSettings training(int32_t threads) {
  return (LoaderSettings){.part = DATASET_TRAIN,
                          .training = true,
                          .batch = BATCH,
                          .crop_pad = 2,
                          .cutout = 3,
                          .flip = true,
                          .seed = 12,
                          .threads = threads,
                          .ahead = threads};
}

typedef struct Batch {
  float x[BATCH * IMAGE];
  int32_t y[BATCH];
  int64_t images;
} Batch;

static Loader *begin(const Dataset *dataset, const LoaderSettings *settings) {
  Err err;
  Loader *loader = loader_new(dataset, settings, &err);
  if (!loader) fail_msg("%s", err.text);
  return loader;
}

static void next(Loader *loader, Batch *batch) {
  batch->images = loader_next(loader, batch->x, batch->y);
}

static void assert_same(const Batch *a, const Batch *b) {
  assert_int_equal(a->images, b->images);
  assert_memory_equal(a->x, b->x, sizeof a->x);
  assert_memory_equal(a->y, b->y, sizeof a->y);
}

/* Three epochs of five steps with 0, 1 and 3 workers, and batch by batch with loader_make. */
static void workers_do_not_change_bytes(void **state) {
  const Dataset *dataset = *state;
  static const int32_t threads[] = {0, 1, 3};
  Loader *loaders[3];
  LoaderSettings settings;
  for (int i = 0; i < 3; i++) {
    settings = training(threads[i]);
    loaders[i] = begin(dataset, &settings);
  }
  assert_int_equal(loader_steps(dataset, &settings), 5);
  for (int step = 0; step < 15; step++) {
    Batch want, got;
    uint32_t order[TRAIN];
    want.images = loader_make(dataset, &settings, step / 5, step % 5, order, want.x, want.y);
    assert_int_equal(want.images, BATCH);
    for (int i = 0; i < 3; i++) {
      next(loaders[i], &got);
      assert_same(&want, &got);
    }
  }
  for (int i = 0; i < 3; i++) loader_free(loaders[i]);
}

static void resuming_anywhere_gives_the_same(void **state) {
  const Dataset *dataset = *state;
  for (int32_t threads = 0; threads <= 2; threads += 2)
    for (int from = 1; from <= 10; from++) {
      LoaderSettings settings = training(threads), late = settings;
      late.epoch = from / 6;
      late.first_step = from % 6; /* 5 is the end of an epoch */
      Loader *whole = begin(dataset, &settings), *rest = begin(dataset, &late);
      Batch want, got;
      for (int64_t i = 0; i < late.epoch * 5 + late.first_step; i++) next(whole, &want);
      for (int i = 0; i < 7; i++) {
        next(whole, &want);
        next(rest, &got);
        assert_same(&want, &got);
      }
      loader_free(whole);
      loader_free(rest);
    }
}

/* Plain: pad bytes with zeros, crop, mirror, normalise, cut out; channels last. */
static void augment(const Dataset *dataset, const LoaderSettings *settings, uint64_t epoch, uint32_t image, float *x) {
  uint64_t index = epoch << 32 | image;
  uint32_t pad = (uint32_t)settings->crop_pad;
  int top = (int)random_below(settings->seed, RANDOM_AUGMENT, index, 0, 2 * pad + 1);
  int left = (int)random_below(settings->seed, RANDOM_AUGMENT, index, 1, 2 * pad + 1);
  bool flip = random_below(settings->seed, RANDOM_AUGMENT, index, 2, 2);
  int row = (int)random_below(settings->seed, RANDOM_AUGMENT, index, 3, HEIGHT) - settings->cutout / 2;
  int column = (int)random_below(settings->seed, RANDOM_AUGMENT, index, 4, WIDTH) - settings->cutout / 2;
  enum { MOST_PAD = 2 };
  for (int c = 0; c < CHANNELS; c++) {
    uint8_t padded[HEIGHT + 2 * MOST_PAD][WIDTH + 2 * MOST_PAD] = {{0}};
    for (int i = 0; i < HEIGHT * WIDTH; i++)
      padded[settings->crop_pad + i / WIDTH][settings->crop_pad + i % WIDTH] =
          dataset->pixels[(image * CHANNELS + (uint32_t)c) * HEIGHT * WIDTH + (uint32_t)i];
    for (int i = 0; i < HEIGHT * WIDTH; i++) {
      int ty = i / WIDTH, tx = i % WIDTH, from = settings->flip && flip ? WIDTH - 1 - tx : tx;
      bool hole = ty >= row && ty < row + settings->cutout && tx >= column && tx < column + settings->cutout;
      x[i * CHANNELS + c] = hole ? 0 : dataset->normalised[c][padded[top + ty][left + from]];
    }
  }
}

static void augmentation_is_what_it_is_defined_to_be(void **state) {
  const Dataset *dataset = *state;
  for (int variant = 0; variant < 8; variant++) {
    LoaderSettings settings = training(0);
    if (variant & 1) settings.crop_pad = variant & 2 ? 0 : 1;
    if (variant & 2) settings.flip = false;
    if (variant & 4) settings.cutout = 0;
    for (int64_t epoch = 0; epoch < 20; epoch++) {
      uint32_t order[TRAIN], made[TRAIN];
      random_permutation(settings.seed, RANDOM_ORDER, (uint64_t)epoch, order, TRAIN);
      Batch batch;
      loader_make(dataset, &settings, epoch, 3, made, batch.x, batch.y);
      for (uint32_t b = 0; b < BATCH; b++) {
        float want[IMAGE];
        augment(dataset, &settings, (uint64_t)epoch, order[3 * BATCH + b], want);
        assert_memory_equal(want, batch.x + b * IMAGE, sizeof want);
        assert_int_equal(batch.y[b], dataset->labels[order[3 * BATCH + b]]);
      }
    }
  }
}

/* Every image at most once an epoch, in an order of the epoch's own; two epochs augment differently. */
static void an_epoch_is_a_permutation(void **state) {
  const Dataset *dataset = *state;
  LoaderSettings settings = training(0);
  settings.crop_pad = settings.cutout = 0;
  settings.flip = false;
  Loader *loader = begin(dataset, &settings);
  float first_pixels[2] = {0};
  for (int epoch = 0; epoch < 2; epoch++) {
    int seen[IMAGES] = {0};
    for (int step = 0; step < 5; step++) {
      Batch batch;
      next(loader, &batch);
      if (step == 0) first_pixels[epoch] = batch.x[0] + batch.x[IMAGE] + batch.x[2 * IMAGE];
      for (int b = 0; b < BATCH; b++)
        for (uint32_t i = 0; i < IMAGES; i++)
          seen[i] += memcmp(&batch.x[b * IMAGE], &dataset->normalised[0][dataset->pixels[i * IMAGE]], sizeof(float)) == 0 &&
                     batch.x[b * IMAGE + 3] == dataset->normalised[0][dataset->pixels[i * IMAGE + 1]] &&
                     batch.x[b * IMAGE + 1] == dataset->normalised[1][dataset->pixels[i * IMAGE + HEIGHT * WIDTH]];
    }
    int total = 0;
    for (int i = 0; i < IMAGES; i++) {
      assert_true(seen[i] <= 1);
      assert_true(i < TRAIN || !seen[i]);
      total += seen[i];
    }
    assert_int_equal(total, 25);
  }
  assert_true(first_pixels[0] != first_pixels[1]);
  loader_free(loader);
}

static void validation_counts_each_image_once(void **state) {
  const Dataset *dataset = *state;
  for (int32_t threads = 0; threads <= 3; threads++) {
    LoaderSettings settings = loader_validation(DATASET_VALID, 3);
    settings.threads = threads;
    assert_int_equal(loader_steps(dataset, &settings), 7);
    Loader *loader = begin(dataset, &settings);
    Batch batch;
    for (uint32_t step = 0; step < 7; step++) {
      next(loader, &batch);
      assert_int_equal(batch.images, step < 6 ? 3 : 2);
      for (uint32_t b = 0; b < 3; b++) {
        uint32_t image = TRAIN + (step * 3 + b) % 20; /* the last batch is filled up with the first image */
        assert_int_equal(batch.y[b], dataset->labels[image]);
        for (uint32_t i = 0; i < IMAGE; i++) {
          uint32_t c = i % CHANNELS;
          assert_true(batch.x[b * IMAGE + i] ==
                      dataset->normalised[c][dataset->pixels[image * IMAGE + c * HEIGHT * WIDTH + i / CHANNELS]]);
        }
      }
    }
    for (int i = 0; i < 2; i++) assert_int_equal(loader_next(loader, batch.x, batch.y), 0);
    loader_free(loader);
  }
}

/* A step that does not read the pixels, or the labels, gives no place for them; the batches after it are the same. */
static void what_is_not_wanted_is_dropped(void **state) {
  const Dataset *dataset = *state;
  for (int32_t threads = 0; threads < 2; threads++) {
    LoaderSettings settings = loader_validation(DATASET_VALID, BATCH);
    settings.threads = threads;
    Loader *whole = begin(dataset, &settings), *part = begin(dataset, &settings);
    Batch want, got;
    next(whole, &want);
    assert_int_equal(loader_next(part, NULL, NULL), want.images);
    next(whole, &want);
    got = want;
    memset(got.y, 0xFF, sizeof got.y);
    got.images = loader_next(part, NULL, got.y);
    assert_same(&got, &want);
    next(whole, &want);
    got = want;
    memset(got.x, 0xFF, sizeof got.x);
    got.images = loader_next(part, got.x, NULL);
    assert_same(&got, &want);
    loader_free(whole);
    loader_free(part);
  }
}

/* What a GPU makes of a plan, in plain words. */
static void make_planned(const Dataset *dataset, const LoaderImage *plan, float *x) {
  for (int i = 0; i < IMAGE; i++) {
    int row = i / CHANNELS / WIDTH, column = i / CHANNELS % WIDTH, c = i % CHANNELS;
    int y = row + plan->top, from = (plan->flip ? WIDTH - 1 - column : column) + plan->left;
    bool inside = y >= 0 && y < HEIGHT && from >= 0 && from < WIDTH;
    bool hole = row >= plan->hole_top && row < plan->hole_bottom && column >= plan->hole_left && column < plan->hole_right;
    uint8_t byte = inside ? dataset->pixels[((plan->image * CHANNELS + c) * HEIGHT + y) * WIDTH + from] : 0;
    x[i] = hole ? 0 : dataset->normalised[c][byte];
  }
}

static void plans_are_of_the_same_batches(void **state) {
  const Dataset *dataset = *state;
  for (int validation = 0; validation < 2; validation++) {
    LoaderSettings settings = validation ? loader_validation(DATASET_VALID, BATCH) : training(0);
    settings.first_step = 2;
    Loader *whole = begin(dataset, &settings), *planned = begin(dataset, &settings);
    for (int step = 0; step < 8; step++) {
      Batch want, got;
      LoaderImage plan[BATCH];
      next(whole, &want);
      got = want;
      got.images = loader_next_plan(planned, plan, got.y);
      for (int b = 0; b < BATCH && got.images; b++) make_planned(dataset, &plan[b], got.x + b * IMAGE);
      assert_same(&want, &got);
    }
    loader_free(whole);
    loader_free(planned);
  }
}

/* A batch larger than the part repeats it as often as it takes. */
static void a_validation_smaller_than_a_batch_is_filled_up(void **state) {
  const Dataset *dataset = *state;
  LoaderSettings settings = loader_validation(DATASET_VALID, 45);
  assert_int_equal(loader_steps(dataset, &settings), 1);
  float *x = malloc(45 * IMAGE * sizeof *x);
  int32_t y[45];
  assert_int_equal(loader_make(dataset, &settings, 0, 0, NULL, x, y), 20);
  for (int b = 0; b < 45; b++) assert_int_equal(y[b], dataset->labels[TRAIN + b % 20]);
  free(x);
}

static void workers_stop_wherever_they_are(void **state) {
  const Dataset *dataset = *state;
  for (int round = 0; round < 60; round++) {
    LoaderSettings settings = training(1 + round % 4);
    settings.ahead = 1 + round % 3;
    Loader *loader = begin(dataset, &settings);
    Batch batch;
    for (int i = 0; i < round % 5; i++) next(loader, &batch);
    if (round % 7 == 0) nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); /* until they wait for room */
    loader_free(loader);
  }
}

static void what_cannot_be_is_refused(void **state) {
  const Dataset *dataset = *state;
  Err err;
  LoaderSettings settings = training(0);
  settings.batch = TRAIN + 1;
  assert_null(loader_new(dataset, &settings, &err));
  assert_non_null(strstr(err.text, "the training part has 27 images, too few for a batch of 28"));
  settings = loader_validation(DATASET_TEST, 4);
  assert_null(loader_new(dataset, &settings, &err));
  assert_non_null(strstr(err.text, "the test part has 0 images"));
  settings = training(0);
  settings.batch = 0;
  assert_null(loader_new(dataset, &settings, &err));
  settings = training(0);
  settings.crop_pad = 7;
  assert_null(loader_new(dataset, &settings, &err));
  assert_non_null(strstr(err.text, "cannot be padded by 7"));
  settings = training(0);
  settings.cutout = -1;
  assert_null(loader_new(dataset, &settings, &err));
}

static int set_up(void **state) {
  *state = make_dataset();
  return 0;
}

static int tear_down(void **state) {
  dataset_free(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(workers_do_not_change_bytes),
      cmocka_unit_test(resuming_anywhere_gives_the_same),
      cmocka_unit_test(augmentation_is_what_it_is_defined_to_be),
      cmocka_unit_test(an_epoch_is_a_permutation),
      cmocka_unit_test(validation_counts_each_image_once),
      cmocka_unit_test(what_is_not_wanted_is_dropped),
      cmocka_unit_test(plans_are_of_the_same_batches),
      cmocka_unit_test(a_validation_smaller_than_a_batch_is_filled_up),
      cmocka_unit_test(workers_stop_wherever_they_are),
      cmocka_unit_test(what_cannot_be_is_refused),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
