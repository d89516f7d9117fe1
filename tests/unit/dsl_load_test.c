/* From files to Models: the examples, what the checker makes of them, text and JSON of a model, imports, limits and time. */
#include "dsl/dsl.h"
#include "runtime/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define EXAMPLE(name) ADWP_SOURCE_DIR "/examples/" name

typedef struct Load {
  Arena *arena;
  Diagnostics diagnostics;
  const Model *model;
} Load;

static Load load_file(const char *path) {
  Load load = {.arena = arena_new()};
  load.model = dsl_load(path, NULL, load.arena, &load.diagnostics);
  return load;
}

static Load load_text(const char *text) {
  Load load = {.arena = arena_new()};
  load.model = dsl_load_text("test.adwp", text, strlen(text), NULL, load.arena, &load.diagnostics);
  return load;
}

static void unload(Load *load) {
  text_free(&load->diagnostics.out);
  arena_free(load->arena);
}

static void assert_loads(const Load *load) {
  if (!load->model) fail_msg("%s", load->diagnostics.out.data);
}

static void assert_says(const Load *load, const char *part) {
  assert_null(load->model);
  if (!strstr(load->diagnostics.out.data, part)) fail_msg("`%s` is missing in\n%s", part, load->diagnostics.out.data);
}

static void assert_shape(Shape shape, int channels, int height, int width) {
  assert_int_equal(shape.channels, channels);
  assert_int_equal(shape.height, height);
  assert_int_equal(shape.width, width);
}

/* ---- what the checker makes of the examples ---- */

static void test_tiny(void **state) {
  (void)state;
  Load load = load_file(EXAMPLE("tiny.adwp"));
  assert_loads(&load);
  const Model *model = load.model;
  assert_string_equal(model->name, "tiny");
  assert_string_equal(model->space, "darts");
  assert_string_equal(model->data.format, "synthetic");
  assert_int_equal(model->data.train_images, 1024);
  assert_int_equal(model->data.crop_pad, 4);
  assert_true(model->data.flip);
  assert_int_equal(model->data.cutout, 0);
  assert_int_equal(model->generator.hidden, 16);
  assert_int_equal(model->generator.activation, ACTIVATION_NONE);
  assert_int_equal(model->channels, 8);
  assert_int_equal(model->stem_multiplier, 3);
  assert_shape(model->stem.out, 24, 32, 32);
  assert_int_equal(model->cell_count, 3);
  assert_false(model->cells[0].reduction);
  assert_true(model->cells[1].reduction && model->cells[2].reduction);
  assert_shape(model->cells[0].out, 16, 32, 32);
  assert_shape(model->cells[1].out, 32, 16, 16);
  assert_shape(model->cells[2].out, 64, 8, 8);
  assert_shape(model->head.out, 10, 1, 1);
  assert_float_equal(model->search.lr_start, 0.05, 0);
  assert_float_equal(model->search.momentum, 0.9, 0); /* a default beside a given argument */
  assert_float_equal(model->search.clip, 5, 0);
  assert_float_equal(model->search.alpha_beta1, 0.5, 0);
  assert_float_equal(model->search.alpha_scale, 1, 0);
  assert_float_equal(model->search.alpha_initial, 1e-3, 0);
  assert_int_equal(model->search.cross_start, 16);
  assert_int_equal(model->search.keep, 2);
  assert_false(model->search.last);
  unload(&load);
}

static void assert_stage(const Stage *stage, Primitive kind, const char *name, int stride, int dilation, int pad, int groups,
                         bool generated) {
  assert_int_equal(stage->kind, kind);
  assert_string_equal(stage->name, name);
  if (kind != PRIMITIVE_CONV) return;
  assert_int_equal(stage->stride_y, stride);
  assert_int_equal(stage->stride_x, stride);
  assert_int_equal(stage->dilation, dilation);
  assert_int_equal(stage->pad_y, pad);
  assert_int_equal(stage->pad_x, pad);
  assert_int_equal(stage->groups, groups);
  assert_int_equal(stage->generated, generated);
}

static void check_separable(const Chain *chain, int channels, int stride) {
  assert_int_equal(chain->count, 8);
  const Stage *stages = chain->stages;
  assert_stage(&stages[0], PRIMITIVE_RELU, "", 0, 0, 0, 0, false);
  assert_stage(&stages[1], PRIMITIVE_CONV, "dw1", stride, 1, 1, channels, true);
  assert_stage(&stages[2], PRIMITIVE_CONV, "pw1", 1, 1, 0, 1, true);
  assert_stage(&stages[3], PRIMITIVE_BN, "bn1", 0, 0, 0, 0, false);
  assert_stage(&stages[5], PRIMITIVE_CONV, "dw2", 1, 1, 1, channels, true);
  assert_stage(&stages[6], PRIMITIVE_CONV, "pw2", 1, 1, 0, 1, true);
  assert_false(stages[3].affine);
  for (int i = 0; i + 1 < chain->count; i++) assert_memory_equal(&stages[i].out, &stages[i + 1].in, sizeof(Shape));
}

static void check_reduce(const Chain *chain, int channels) {
  assert_int_equal(chain->count, 3);
  const Stage *concat = &chain->stages[1];
  assert_int_equal(concat->kind, PRIMITIVE_CONCAT);
  assert_int_equal(concat->branch_count, 2);
  assert_stage(&concat->branches[0]->stages[0], PRIMITIVE_CONV, "pw1", 2, 1, 0, 1, false);
  assert_int_equal(concat->branches[1]->stages[0].kind, PRIMITIVE_SHIFT);
  assert_int_equal(concat->branches[1]->stages[0].shift_y, 1);
  assert_stage(&concat->branches[1]->stages[1], PRIMITIVE_CONV, "pw2", 2, 1, 0, 1, false);
  assert_int_equal(concat->branches[1]->out.channels, channels / 2);
  assert_stage(&chain->stages[2], PRIMITIVE_BN, "bn1", 0, 0, 0, 0, false);
}

static void test_candidates(void **state) {
  (void)state;
  Load load = load_file(EXAMPLE("tiny.adwp"));
  assert_loads(&load);
  const Cell *normal = &load.model->cells[0], *reduction = &load.model->cells[1];
  check_separable(&normal->nodes[0].candidates[0].chain, 8, 1);
  check_separable(&reduction->nodes[0].candidates[0].chain, 16, 2);
  check_separable(&reduction->nodes[1].candidates[2].chain, 16, 1); /* reads a node, so stride 1 */
  const Candidate *identity = &normal->nodes[0].candidates[1];
  assert_string_equal(identity->operation, "identity");
  assert_int_equal(identity->operation_index, 6);
  assert_int_equal(identity->chain.count, 0);
  check_reduce(&reduction->nodes[0].candidates[2].chain, 16);
  const Chain *dilated = &normal->nodes[0].candidates[2].chain;
  assert_stage(&dilated->stages[1], PRIMITIVE_CONV, "dw1", 1, 2, 2, 8, true);
  check_reduce(&load.model->cells[2].preprocess[0], 32);
  assert_int_equal(load.model->cells[2].preprocess[1].count, 3);
  assert_stage(&normal->preprocess[0].stages[1], PRIMITIVE_CONV, "pw1", 1, 1, 0, 1, false);
  assert_stage(&load.model->stem.stages[0], PRIMITIVE_CONV, "conv1", 1, 1, 1, 1, false);
  assert_true(load.model->stem.stages[1].affine);
  assert_string_equal(load.model->head.stages[1].name, "linear1");
  unload(&load);
}

/* ---- JSON and text of a model ---- */

/* Two JSON texts are the same but for white space. */
static char *without_space(const char *text) {
  char *copy = strdup(text), *end = copy;
  for (; *text; text++)
    if (!strchr(" \n", *text)) *end++ = *text;
  *end = 0;
  return copy;
}

static void check_spec(const char *example, const char *golden) {
  Load load = load_file(example);
  assert_loads(&load);
  Text spec = {0};
  dsl_print_spec(load.model, &spec);
  char *wanted;
  size_t size;
  Err err;
  if (!file_read(golden, 1 << 20, &wanted, &size, &err)) fail_msg("%s", err.text);
  char *a = without_space(spec.data), *b = without_space(wanted);
  assert_string_equal(a, b);
  free(a);
  free(b);
  free(wanted);
  text_free(&spec);
  unload(&load);
}

static void test_specs(void **state) {
  (void)state;
  check_spec(EXAMPLE("cifar10-8.adwp"), ADWP_SOURCE_DIR "/tests/golden/spec-cifar10-8.json");
  check_spec(EXAMPLE("cifar10-14.adwp"), ADWP_SOURCE_DIR "/tests/golden/spec-cifar10-14.json");
}

static void check_round_trip(const Load *load) {
  assert_loads(load);
  Text once = {0}, twice = {0}, spec = {0}, spec_again = {0};
  dsl_print_model(load->model, &once);
  dsl_print_spec(load->model, &spec);
  Load again = load_text(once.data);
  assert_loads(&again);
  dsl_print_model(again.model, &twice);
  dsl_print_spec(again.model, &spec_again);
  assert_string_equal(once.data, twice.data);
  assert_string_equal(spec.data, spec_again.data);
  assert_memory_equal(&load->model->search, &again.model->search, sizeof(Search));
  assert_memory_equal(&load->model->generator, &again.model->generator, sizeof(Generator));
  assert_float_equal(load->model->data.train_fraction, again.model->data.train_fraction, 0);
  for (int i = 0; i < load->model->data.image.channels; i++) {
    assert_float_equal(load->model->data.mean[i], again.model->data.mean[i], 0);
    assert_float_equal(load->model->data.std[i], again.model->data.std[i], 0);
  }
  for (int l = 0; l < load->model->cell_count; l++)
    assert_memory_equal(&load->model->cells[l].out, &again.model->cells[l].out, sizeof(Shape));
  text_free(&once);
  text_free(&twice);
  text_free(&spec);
  text_free(&spec_again);
  unload(&again);
}

/* Everything that the printer must carry over, in unusual values. */
static const char unusual[] =
    "op pair(k, n) = when k == 1 and n >= 2: relu -> conv(k x 3, C, stride: S, pad: 0 x 1), when S != 1: shared, else: shared\n"
    "own op shared = add(avg_pool(3, stride: S), conv(3, C, stride: S, groups: C/2) -> bn(affine), zero) -> bn\n"
    "op used(n) = (relu -> bn) -> pair(2 - (1 - n/3*3) - 2, -(-n))\n"
    "space odd = { first = used(3) first_again = shared, none = zero }\n"
    "intensive some of odd keep 2 { reduction { node 2: first(0), none(1) } normal { node 2: none(0), first_again(1) node 3: "
    "none(2), first(0) } }\n"
    "data grey { format synthetic image 2 x 20 x 24 classes 7 mean [-0.1, 1e-7] std [0.3333333333333333, 2] split 30% train, 70% "
    "valid\n"
    "  augment crop(pad: 3) -> cutout(5) train 5000 images test 17 images }\n"
    "generator wide = softmax -> fc(3) -> relu -> fc(weights)\n"
    "hypernetwork odd { cells 5 of some, channels C = 6, reduction at [1, 3] stem conv(3, 4*C + 2, stride: 1) -> bn -> relu\n"
    "  preprocess bn -> pwconv(C), after reduction avg_pool(2, stride: S, pad: 0) -> pwconv(C)\n"
    "  predict conv weights by wide head relu -> global_avg_pool -> linear(2*classes) -> linear(classes) -> cross_entropy }\n"
    "search odd on grey { train 0 epochs cross none total 7 epochs batch 12 weights sgd(lr: 0.1, decay: 0, clip: none, momentum: "
    "0.25)\n"
    "  alpha adam(betas: [0, 0.25], lr: 1, epsilon: 1e-3) scale 0.5 initial 0 keep top 1 result last seed 18446744073709551615 "
    "}\n";

static void test_round_trips(void **state) {
  (void)state;
  Load load = load_file(EXAMPLE("tiny.adwp"));
  check_round_trip(&load);
  unload(&load);
  load = load_file(EXAMPLE("cifar10-14.adwp"));
  check_round_trip(&load);
  unload(&load);
  load = load_text(unusual);
  check_round_trip(&load);
  assert_true(load.model->search.seed == UINT64_MAX);
  assert_true(load.model->search.last);
  assert_float_equal(load.model->search.clip, 0, 0);
  assert_int_equal(load.model->search.cross_start, load.model->search.cross_end);
  assert_int_equal(load.model->generator.activation, ACTIVATION_RELU);
  assert_int_equal(load.model->stem_multiplier, 0); /* 26 channels are no multiple of 6 */
  unload(&load);
}

/* A whole small model; `%s` are settings of the hypernetwork. */
static const char small[] = "import \"darts.adwp\"\n"
                            "data d { format synthetic image 3 x 8 x 8 }\n"
                            "intensive i of darts keep 1 { normal { node 2: identity(0) } reduction { node 2: identity(0) } }\n"
                            "hypernetwork h { %s }\n"
                            "search h on d { keep top 1 }\n";

static Load load_small(const char *settings) {
  char text[1024];
  snprintf(text, sizeof text, small, settings);
  return load_text(text);
}

static void test_reductions(void **state) {
  (void)state;
  for (int count = 1; count <= 9; count++) { /* L/3 and 2L/3, integer division; they may coincide */
    char settings[64];
    snprintf(settings, sizeof settings, "cells %d of i", count);
    Load load = load_small(settings);
    assert_loads(&load);
    for (int l = 0; l < count; l++) assert_int_equal(load.model->cells[l].reduction, l == count / 3 || l == 2 * count / 3);
    unload(&load);
  }
  Load load = load_small("cells 3 of i, reduction none");
  assert_loads(&load);
  assert_shape(load.model->cells[2].out, 16, 8, 8);
  unload(&load);
  load = load_small("cells 4 of i, reduction at [3, 0]");
  assert_loads(&load);
  assert_true(load.model->cells[0].reduction && load.model->cells[3].reduction && !load.model->cells[1].reduction);
  check_round_trip(&load);
  unload(&load);
}

/* White space means nothing: the whole file on one line is the same model. */
static void test_white_space(void **state) {
  (void)state;
  Load load = load_file(EXAMPLE("tiny.adwp"));
  assert_loads(&load);
  Text text = {0}, again = {0};
  dsl_print_model(load.model, &text);
  for (char *at = text.data; *at; at++)
    if (*at == '\n') *at = ' ';
  Load flat = load_text(text.data);
  assert_loads(&flat);
  dsl_print_model(flat.model, &again);
  text_free(&text);
  dsl_print_model(load.model, &text);
  assert_string_equal(text.data, again.data);
  text_free(&text);
  text_free(&again);
  unload(&flat);
  unload(&load);
}

/* ---- files ---- */

static void write_file(const char *folder, const char *name, const char *text) {
  char path[512];
  Err err;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  if (!file_replace(path, text, strlen(text), &err)) fail_msg("%s", err.text);
}

static void remove_file(const char *folder, const char *name) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  unlink(path);
}

static Load load_in(const char *folder, const char *name) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return load_file(path);
}

static const char rest[] = "data d { format synthetic image 3 x 8 x 8 }\n"
                           "intensive i of mine keep 1 { normal { node 2: same(0) } }\n"
                           "hypernetwork h { cells 1 of i, reduction none }\n"
                           "search h on d { keep top 1 }\n";

static void test_imports(void **state) {
  (void)state;
  char folder[] = "/tmp/adwp-dsl-XXXXXX", text[2048];
  assert_non_null(mkdtemp(folder));
  write_file(folder, "space.adwp",
             "import \"ops.adwp\"\nimport \"darts.adwp\"\nspace mine = { same = my_op, big = sep_conv(3) }\n");
  write_file(folder, "ops.adwp", "op my_op = relu\nsearch nothing on nothing { }\n"); /* an imported file's search is its own */
  snprintf(text, sizeof text, "import \"space.adwp\" import \"ops.adwp\"\n%s", rest);
  write_file(folder, "main.adwp", text);
  Load load = load_in(folder, "main.adwp");
  assert_loads(&load);
  check_round_trip(&load); /* self-contained: loads without the folder */
  unload(&load);

  write_file(folder, "ops.adwp", "import \"main.adwp\"\nop my_op = relu\n");
  load = load_in(folder, "main.adwp");
  assert_says(&load, "run in a circle: `main.adwp`");
  unload(&load);

  write_file(folder, "ops.adwp", "op my_op = rleu\n");
  load = load_in(folder, "main.adwp");
  assert_says(&load, "ops.adwp:1:12: error: unknown operation `rleu`; did you mean `relu`?");
  unload(&load);

  remove_file(folder, "ops.adwp");
  load = load_in(folder, "main.adwp");
  assert_says(&load, "cannot find `ops.adwp` in the folder of this file or in the standard library");
  assert_int_equal(load.diagnostics.errors, 2); /* the two imports, and nothing about what they would have declared */
  unload(&load);
  remove_file(folder, "main.adwp");
  remove_file(folder, "space.adwp");
  rmdir(folder);
}

static void test_import_limit(void **state) {
  (void)state;
  char folder[] = "/tmp/adwp-dsl-XXXXXX", name[32], text[64];
  assert_non_null(mkdtemp(folder));
  for (int i = 0; i < 80; i++) {
    snprintf(name, sizeof name, "a%d.adwp", i);
    snprintf(text, sizeof text, "import \"a%d.adwp\"\n", i + 1);
    write_file(folder, name, text);
  }
  Load load = load_in(folder, "a0.adwp");
  assert_says(&load, "a file imports at most 63 others");
  unload(&load);
  for (int i = 0; i < 80; i++) {
    snprintf(name, sizeof name, "a%d.adwp", i);
    remove_file(folder, name);
  }
  rmdir(folder);
}

static void test_bad_files(void **state) {
  (void)state;
  Load load = load_file("/nowhere/at/all.adwp");
  assert_says(&load, "error: cannot open /nowhere/at/all.adwp: No such file or directory");
  unload(&load);
  load = load_file("/tmp");
  assert_says(&load, "it is not a regular file");
  unload(&load);
  size_t size = (size_t)5 << 20;
  char *large = malloc(size);
  memset(large, ' ', size);
  load = (Load){.arena = arena_new()};
  load.model = dsl_load_text("large.adwp", large, size, NULL, load.arena, &load.diagnostics);
  assert_says(&load, "large.adwp has 5242880 bytes, and at most 4194304 are allowed");
  unload(&load);
  free(large);
}

/* 10,000 lines: time in proportion, also where every line is wrong. */
static void check_large(const char *line, bool sound) {
  Text text = {0};
  Load small_load = load_small("cells 3 of i");
  assert_loads(&small_load);
  unload(&small_load);
  text_printf(&text, small, "cells 3 of i");
  for (int i = 0; i < 10000; i++) text_printf(&text, line, i, i);
  clock_t start = clock();
  Load load = load_text(text.data);
  double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
  assert_int_equal(load.model != NULL, sound);
  assert_true(seconds < 3); /* 0.1 s without sanitizers */
  unload(&load);
  text_free(&text);
}

static void test_large(void **state) {
  (void)state;
  check_large("op a%d = relu -> conv(3, C + %d) -> bn\n", true);
  check_large("op a%d = relu -> b%d -> bn\n", false);
  check_large("op a%d = relu -> -> bn # %d\n", false);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_tiny),        cmocka_unit_test(test_candidates),   cmocka_unit_test(test_specs),
      cmocka_unit_test(test_round_trips), cmocka_unit_test(test_reductions),   cmocka_unit_test(test_white_space),
      cmocka_unit_test(test_imports),     cmocka_unit_test(test_import_limit), cmocka_unit_test(test_bad_files),
      cmocka_unit_test(test_large),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
