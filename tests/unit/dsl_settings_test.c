/* `--set`: what it reaches, what wins, and that a setting is checked as if the file had written it. Its messages stand in
 * tests/golden/errors/set_*.adwp. */
#include "dsl/dsl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct Load {
  Arena *arena;
  Diagnostics diagnostics;
  const Model *model;
} Load;

static Load load_with(const char *file, const char *const *settings, size_t count) {
  Load load = {.arena = arena_new()};
  DslOptions options = {settings, count};
  load.model = dsl_load(file, &options, load.arena, &load.diagnostics);
  return load;
}

static void unload(Load *load) {
  text_free(&load->diagnostics.out);
  arena_free(load->arena);
}

#define WITH(...)                                                                                                                \
  load_with(ADWP_SOURCE_DIR "/examples/tiny.adwp", (const char *const[]){__VA_ARGS__},                                           \
            sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

#define LOADS(load)                                                                                                              \
  if (!(load).model) fail_msg("%s", (load).diagnostics.out.data)

static void test_every_block(void **state) {
  (void)state;
  Load load = WITH("search.train=3", "search.cross=4..5", "search.total=6 epochs", "data.train=200 images", "data.augment=none",
                   "hypernetwork.cells=5", "hypernetwork.channels=4", "generator.hidden=7", "generator.activation=relu",
                   "search.seed=12345678901234567890");
  LOADS(load);
  const Model *model = load.model;
  assert_int_equal(model->search.train, 3);
  assert_int_equal(model->search.cross_start, 4);
  assert_int_equal(model->search.cross_end, 5);
  assert_int_equal(model->search.total, 6);
  assert_int_equal(model->search.batch, 32); /* the file's, still */
  assert_true(model->search.seed == 12345678901234567890u);
  assert_int_equal(model->data.train_images, 200);
  assert_int_equal(model->data.crop_pad, 0);
  assert_false(model->data.flip);
  assert_int_equal(model->cell_count, 5);
  assert_int_equal(model->channels, 4);
  assert_int_equal(model->generator.hidden, 7);
  assert_int_equal(model->generator.activation, ACTIVATION_RELU);
  unload(&load);
}

static void test_by_name(void **state) {
  (void)state;
  Load load = WITH("shapes.test=9", "tiny.reduction=at [1]", "predict.hidden=5", " tiny . channels = C = 6 ");
  LOADS(load);
  assert_int_equal(load.model->data.test_images, 9);
  assert_true(load.model->cells[1].reduction && !load.model->cells[2].reduction);
  assert_int_equal(load.model->generator.hidden, 5);
  assert_int_equal(load.model->channels, 6);
  unload(&load);
}

static void test_arguments(void **state) {
  (void)state;
  Load load = WITH("search.weights.momentum=0.5", "search.alpha.betas=[0.1, 0.2]", "search.weights.clip=none");
  LOADS(load);
  assert_float_equal(load.model->search.momentum, 0.5, 0);
  assert_float_equal(load.model->search.lr_start, 0.05, 0); /* the file's */
  assert_float_equal(load.model->search.alpha_beta1, 0.1, 0);
  assert_float_equal(load.model->search.alpha_lr, 0.02, 0); /* the file's */
  assert_float_equal(load.model->search.clip, 0, 0);
  unload(&load);
  load = WITH("search.weights=sgd(momentum: 0.5)");
  LOADS(load);
  assert_float_equal(load.model->search.momentum, 0.5, 0);
  assert_float_equal(load.model->search.lr_start, 0.025, 0); /* a whole call replaces the file's: the default */
  unload(&load);
  load = WITH("search.weights.lr=0.4 -> 0.1 cosine");
  LOADS(load);
  assert_float_equal(load.model->search.lr_start, 0.4, 0);
  assert_float_equal(load.model->search.lr_end, 0.1, 0);
  unload(&load);
}

static void test_last_wins(void **state) {
  (void)state;
  Load load = WITH("search.batch=8", "search.batch=16");
  LOADS(load);
  assert_int_equal(load.model->search.batch, 16);
  unload(&load);
}

/* The filled-in text records what was set. */
static void test_recorded(void **state) {
  (void)state;
  Load load = WITH("search.batch=8", "hypernetwork.cells=4");
  LOADS(load);
  Text text = {0};
  dsl_print_model(load.model, &text);
  assert_non_null(strstr(text.data, "    batch    8\n"));
  assert_non_null(strstr(text.data, "    cells            4 of small\n"));
  text_free(&text);
  unload(&load);
}

/* A wrong one is an error, also where nothing else is wrong. */
static void test_refused(void **state) {
  (void)state;
  static const char *const wrong[] = {
      "",
      "=",
      ".",
      "search",
      "search.",
      "search.=3",
      ".train=3",
      "search.train",
      "search.train=",
      "search.train=-1",
      "search.train=24",
      "search.train=3 images",
      "search.total=3",
      "search.cross=1..2",
      "data.batch=3",
      "shapes.cells=3",
      "small.keep=3",
      "darts.train=1",
      "search.keep=3",
      "search.keep=top 4",
      "hypernetwork.cells=5 of nothing",
      "hypernetwork.head=linear(10)",
      "data.format=cifar10-binary",
      "generator.hidden=0",
      "generator.activation=tanh",
      "search.train.epochs=3",
      "search.weights.lr=x",
      "search.train=3 }",
      "search.train=3 op a = relu",
      "data.image=3 x 32 x 32 x",
      "search.batch=(3",
      "search.batch=[3]",
      "search.seed=-1",
      "search.seed=18446744073709551616",
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    Load load = WITH(wrong[i]);
    if (load.model || !load.diagnostics.errors || !strstr(load.diagnostics.out.data, "error: "))
      fail_msg("`--set %s` is taken", wrong[i]);
    unload(&load);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_block), cmocka_unit_test(test_by_name),  cmocka_unit_test(test_arguments),
      cmocka_unit_test(test_last_wins),   cmocka_unit_test(test_recorded), cmocka_unit_test(test_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
