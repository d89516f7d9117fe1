/* The families' descriptions as a table, and the run over all of it. */
#include "tests/numeric/families/case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Description {
  CaseDescription *describe;
  int cpu_cases, gpu_cases;
} Description;

static const Description descriptions[FAMILIES] = {
    [FAMILY_CONV] = {case_conv, 100, 80},
    [FAMILY_CONV_GRAD_INPUT] = {case_conv_grad_input, 80, 80},
    [FAMILY_CONV_GRAD_WEIGHT] = {case_conv_grad_weight, 80, 80},
    [FAMILY_CONV_BLOCK] = {case_conv_block, 80, 0},
    [FAMILY_CONV_BLOCK_GRAD] = {case_conv_block_grad, 80, 0},
    [FAMILY_POOL] = {case_pool, 30, 30},
    [FAMILY_POOL_GRAD] = {case_pool_grad, 40, 40},
    [FAMILY_SHIFT] = {case_shift, 10, 20},
    [FAMILY_UNSHIFT] = {case_unshift, 10, 20},
    [FAMILY_MAP] = {case_map, 60, 60},
    [FAMILY_MOMENTS] = {case_moments, 20, 30},
    [FAMILY_MOMENTS_FINISH] = {case_moments_finish, 20, 20},
    [FAMILY_SUM_SLOTS] = {case_sum_slots, 30, 30},
    [FAMILY_GLOBAL_MEAN] = {case_global_mean, 10, 20},
    [FAMILY_SOFTMAX] = {case_softmax, 10, 10},
    [FAMILY_SOFTMAX_GRAD] = {case_softmax_grad, 10, 10},
    [FAMILY_ELEMENT] = {case_element, 5, 5},
    [FAMILY_STACK] = {case_stack, 5, 5},
    [FAMILY_LINEAR] = {case_linear, 20, 30},
    [FAMILY_LINEAR_GRAD_INPUT] = {case_linear_grad_input, 20, 30},
    [FAMILY_LINEAR_GRAD_WEIGHT] = {case_linear_grad_weight, 20, 30},
    [FAMILY_OUTER_DESCEND] = {case_outer_descend, 10, 15},
    [FAMILY_BATCH_SUM] = {case_batch_sum, 10, 10},
    [FAMILY_CROSS_ENTROPY] = {case_cross_entropy, 10, 10},
    [FAMILY_CROSS_ENTROPY_GRAD] = {case_cross_entropy_grad, 10, 10},
    [FAMILY_CORRECT] = {case_correct, 20, 20},
    [FAMILY_BATCH_MEAN] = {case_batch_mean, 10, 10},
    [FAMILY_BATCH_MEAN_GRAD] = {case_batch_mean_grad, 10, 10},
    [FAMILY_SUM_SQUARES] = {case_sum_squares, 10, 10},
    [FAMILY_DOT] = {case_dot, 10, 10},
    [FAMILY_SQRT] = {case_sqrt, 5, 5},
    [FAMILY_CLIP] = {case_clip, 15, 15},
    [FAMILY_FILL] = {case_fill, 10, 10},
    [FAMILY_ADAM_STEP] = {case_adam_step, 10, 10},
    [FAMILY_IMAGES] = {case_images, 0, 20},
};

const char *families_name(int family) {
  return family < FAMILY_COUNT ? family_name((Family)family) : "IMAGES";
}

int families_cases(int family, bool gpu) {
  return gpu ? descriptions[family].gpu_cases : descriptions[family].cpu_cases;
}

Case *families_case(int family, int number, uint64_t seed, bool gpu) {
  Arena *arena = arena_new();
  Case *c = ARENA_NEW(arena, Case);
  *c = (Case){.arena = arena, .family = family, .number = number};
  c->random = (seed * 1000 + (uint64_t)family) * 100000 + (uint64_t)number;
  for (int warm = 0; warm < 4; warm++) case_pick(c, 0, 1);
  c->target.gpu = gpu;
  c->target.lanes = gpu ? 64 << case_pick(c, 0, 2) : 8 << case_pick(c, 0, 1);
  c->target.products = gpu ? (Products)case_pick(c, PRODUCTS_FP32, PRODUCTS_BF16) : PRODUCTS_FP32;
  c->activation = gpu && case_chance(c, 50) ? LOOP_ELEMENT_BF16 : LOOP_ELEMENT_F32;
  c->batch = case_pick(c, 1, gpu ? 3 : 5);
  c->images = case_pick(c, 1, gpu ? 2 : 3);
  c->bands = c->tasks = 1;
  c->text = "";
  descriptions[family].describe(c);
  static const char *const products[] = {"fp32", "tf32", "bf16"};
  c->text = arena_printf(arena, "%s, case=%d seed=%d (%s of %d lanes%s%s, B %d, images %d, bands %d, tasks %d; %s)",
                         families_name(family), number, (int)seed, gpu ? "GPU" : "CPU", c->target.lanes, gpu ? ", " : "",
                         gpu ? products[c->target.products] : "", c->batch, c->images, c->bands, c->tasks, c->text);
  return c;
}

void case_free(Case *c) {
  loop_free_tables(c->kernel);
  arena_free(c->arena);
}

bool families_options(int argc, char **argv, FamilyOptions *options, Err *err) {
  for (int i = 1; i < argc; i++) {
    const char *word = argv[i];
    int family = 0;
    while (family < FAMILIES && strcmp(word, families_name(family)) != 0) family++;
    if (family < FAMILIES)
      options->chosen[family] = true;
    else if (strncmp(word, "case=", 5) == 0)
      options->first = atoi(word + 5), options->most = 1;
    else if (strncmp(word, "cases=", 6) == 0)
      options->most = atoi(word + 6);
    else if (strncmp(word, "seed=", 5) == 0)
      options->seed = strtoull(word + 5, NULL, 10);
    else if (strcmp(word, "print") == 0)
      options->print = true;
    else
      return err_set(err, "%s: no family's name, and not case=N, cases=N, seed=N or print", word);
  }
  return true;
}

static bool run_case(const FamilyOptions *o, int family, int number, Err *err) {
  Case *c = families_case(family, number, o->seed, o->gpu);
  bool take = false;
  if (o->print) {
    Text text = {0};
    loop_print(c->kernel, &text);
    printf("# %s\n%.*s\n", c->text, (int)text.length, text.data);
    fflush(stdout);
    text_free(&text);
  }
  bool ok = case_interpret(c, err) && case_matches_reference(c, err) && (!o->hook || o->hook(o->context, c, &take, err));
  if (!take) case_free(c);
  return ok;
}

bool families_run(const FamilyOptions *o, Err *err) {
  bool all = true;
  int failed = 0, run = 0;
  Text messages = {0};
  for (int family = 0; family < FAMILIES; family++) all &= !o->chosen[family];
  for (int family = 0; family < FAMILIES; family++) {
    if (!all && !o->chosen[family]) continue;
    if (family == FAMILY_IMAGES ? !o->gpu : o->gpu && !family_for_gpu((Family)family)) continue;
    int count = families_cases(family, o->gpu);
    if (!descriptions[family].describe || count <= 0) return err_set(err, "%s has no random specs", families_name(family));
    if (o->most) count = o->most;
    int step = o->every && !o->most ? o->every : 1;
    for (int number = o->first; number < o->first + count; number += step, run++) {
      Err one;
      if (run_case(o, family, number, &one)) continue;
      if (failed++ < 8) text_printf(&messages, "\n%s", one.text);
    }
  }
  if (failed) err_set(err, "%d of %d cases failed:%.*s", failed, run, (int)messages.length, messages.data);
  text_free(&messages);
  return failed == 0;
}
