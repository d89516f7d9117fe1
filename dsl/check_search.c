/* `search` blocks: epochs, the two optimizers, what is kept. */
#include "dsl/check.h"

#include <string.h>

static bool read_whole(Checker *checker, const Declaration *search, SettingKind kind, int low, int high, const char *unit,
                       int *value) {
  const Setting *setting = setting_of(checker, search, kind);
  return check_unit(checker, setting, unit) &&
         evaluate_whole(checker, setting->value, NULL, low, high, setting_word(kind), value);
}

/* train <= cross.start <= cross.end <= total. */
static bool read_epochs(Checker *checker, const Declaration *declaration, Search *search) {
  const Setting *cross = setting_of(checker, declaration, SETTING_CROSS);
  const Expr *range = cross->value;
  bool sound = read_whole(checker, declaration, SETTING_TOTAL, 1, LIMIT_EPOCHS, "epochs", &search->total);
  sound &= read_whole(checker, declaration, SETTING_TRAIN, 0, LIMIT_EPOCHS, "epochs", &search->train);
  if (!check_unit(checker, cross, "epochs") || range->kind == EXPR_DAMAGED) return false;
  bool none = is_name(range, "none");
  if (!none && range->kind != EXPR_RANGE) {
    diag_error(checker->diagnostics, range->where, "`cross` is a range of epochs, as in `90..100`, or `none`");
    return false;
  }
  if (!none) {
    sound &= evaluate_whole(checker, range->left, NULL, 0, LIMIT_EPOCHS, "cross", &search->cross_start);
    sound &= evaluate_whole(checker, range->right, NULL, 0, LIMIT_EPOCHS, "cross", &search->cross_end);
  }
  bool backwards = search->cross_start > search->cross_end;
  if (backwards) diag_error(checker->diagnostics, range->where, "this range runs backwards");
  if (!sound || backwards) return false;
  if (search->train >= search->total) {
    const Setting *train = setting_of(checker, declaration, SETTING_TRAIN);
    diag_error(checker->diagnostics, train->value->where, "no epoch is left for the search: train is %d and total %d",
               search->train, search->total);
    return false;
  }
  if (none) {
    search->cross_start = search->cross_end = search->total;
    return true;
  }
  if (search->cross_start >= search->train && search->cross_end <= search->total) return true;
  bool early = search->cross_start < search->train;
  diag_error(checker->diagnostics, early ? range->left->where : range->right->where,
             "the cross-search %s at %d, and the search stage runs from %d (train) to %d (total)", early ? "starts" : "ends",
             early ? search->cross_start : search->cross_end, search->train, search->total);
  return false;
}

/* The call that a setting must be, with none but these arguments, by name. */
static const Expr *read_call(Checker *checker, const Declaration *search, SettingKind kind, const Signature *signature) {
  const Setting *setting = setting_of(checker, search, kind);
  const Expr *call = setting->value;
  if (!check_unit(checker, setting, NULL) || call->kind == EXPR_DAMAGED || call->damaged) return NULL;
  if ((call->kind != EXPR_CALL && call->kind != EXPR_NAME) || !same_text(call->name.text, signature->name)) {
    diag_error(checker->diagnostics, call->where, "`%s` must be `%s(...)`", setting_word(kind), signature->name);
    return NULL;
  }
  const Argument *bound[MOST_ARGUMENTS];
  for (const Argument *argument = call->arguments; argument; argument = argument->next) {
    if (argument->name.text) continue;
    diag_error(checker->diagnostics, argument->value->where,
               "the arguments of `%s` are written with their names, as in `%s: ...`", signature->name, signature->arguments[0]);
    return NULL;
  }
  return bind_arguments(checker, call, signature, bound) ? call : NULL;
}

typedef struct Reader { /* of the arguments of one call */
  Checker *checker;
  const Declaration *search;
  SettingKind kind;
  const Expr *call;
} Reader;

static bool read_argument(Reader *reader, const char *name, double low, double high, double *value) {
  const Argument *argument = argument_of(reader->checker, reader->search, reader->kind, reader->call, name);
  if (argument->schedule.text) {
    diag_error(reader->checker->diagnostics, argument->schedule.where, "`%s` has no schedule", name);
    return false;
  }
  return evaluate_real(reader->checker, argument->value, low, high, name, value);
}

/* `0.025 -> 0 cosine`, or one number throughout. */
static bool read_rate(Reader *reader, double *start, double *end) {
  Checker *checker = reader->checker;
  const Argument *argument = argument_of(checker, reader->search, reader->kind, reader->call, "lr");
  const Expr *value = argument->value, *last = value;
  if (value->kind == EXPR_DAMAGED) return false;
  bool ramp = value->kind == EXPR_CHAIN && !value->items->next->next;
  if (ramp) value = value->items, last = value->next;
  if (ramp != (argument->schedule.text != NULL) || (ramp && !same_text(argument->schedule.text, "cosine"))) {
    diag_error(checker->diagnostics, argument->schedule.text ? argument->schedule.where : argument->value->where,
               "a learning rate is one number, or `START -> END cosine`");
    return false;
  }
  if (!evaluate_real(checker, value, 0, 1e3, "lr", start)) return false;
  *end = *start;
  if (ramp && !evaluate_real(checker, last, 0, 1e3, "lr", end)) return false;
  if (*end <= *start) return true;
  diag_error(checker->diagnostics, last->where, "a learning rate falls or stays: this end, %.10g, is above its start, %.10g",
             *end, *start);
  return false;
}

/* With a momentum of 1 no step is ever forgotten, and the weights run away. */
static bool momentum_fades(Reader *reader, double momentum) {
  if (momentum < 1) return true;
  const Argument *argument = argument_of(reader->checker, reader->search, reader->kind, reader->call, "momentum");
  diag_error(reader->checker->diagnostics, argument->value->where, "momentum must be below 1");
  return false;
}

static bool read_weights(Checker *checker, const Declaration *declaration, Search *search) {
  static const Signature sgd = {.name = "sgd", .arguments = {"lr", "momentum", "decay", "clip"}, .count = 4};
  Reader reader = {checker, declaration, SETTING_WEIGHTS, read_call(checker, declaration, SETTING_WEIGHTS, &sgd)};
  if (!reader.call) return false;
  bool sound = read_rate(&reader, &search->lr_start, &search->lr_end);
  sound &= read_argument(&reader, "momentum", 0, 1, &search->momentum) && momentum_fades(&reader, search->momentum);
  sound &= read_argument(&reader, "decay", 0, 1, &search->decay);
  const Argument *clip = argument_of(checker, declaration, SETTING_WEIGHTS, reader.call, "clip");
  if (is_name(clip->value, "none")) return sound;
  return sound & read_argument(&reader, "clip", 1e-9, 1e9, &search->clip);
}

static bool read_betas(Reader *reader, Search *search) {
  Checker *checker = reader->checker;
  const Argument *argument = argument_of(checker, reader->search, reader->kind, reader->call, "betas");
  const Expr *list = argument->value;
  if (list->kind == EXPR_DAMAGED) return false;
  if (list->kind != EXPR_LIST || !list->items || !list->items->next || list->items->next->next || argument->schedule.text) {
    diag_error(checker->diagnostics, list->where, "betas are two numbers, as in `[0.5, 0.999]`");
    return false;
  }
  bool sound = evaluate_real(checker, list->items, 0, 1 - 1e-9, "a beta", &search->alpha_beta1);
  return evaluate_real(checker, list->items->next, 0, 1 - 1e-9, "a beta", &search->alpha_beta2) && sound;
}

static bool read_alpha(Checker *checker, const Declaration *declaration, Search *search) {
  static const Signature adam = {.name = "adam", .arguments = {"lr", "betas", "epsilon", "decay"}, .count = 4};
  Reader reader = {checker, declaration, SETTING_ALPHA, read_call(checker, declaration, SETTING_ALPHA, &adam)};
  if (!reader.call) return false;
  bool sound = read_argument(&reader, "lr", 0, 1e3, &search->alpha_lr);
  sound &= read_betas(&reader, search);
  sound &= read_argument(&reader, "epsilon", 1e-30, 1, &search->alpha_epsilon);
  return sound & read_argument(&reader, "decay", 0, 1, &search->alpha_decay);
}

static bool read_deviation(Checker *checker, const Declaration *declaration, SettingKind kind, double *value) {
  const Setting *setting = setting_of(checker, declaration, kind);
  return check_unit(checker, setting, NULL) && evaluate_real(checker, setting->value, 0, 1e3, setting_word(kind), value);
}

static bool read_result(Checker *checker, const Declaration *declaration, bool *last) {
  const Setting *setting = setting_of(checker, declaration, SETTING_RESULT);
  *last = is_name(setting->value, "last");
  if (!check_unit(checker, setting, NULL) || setting->value->kind == EXPR_DAMAGED) return false;
  if (*last || is_name(setting->value, "best")) return true;
  diag_error(checker->diagnostics, setting->value->where, "the result is `best` or `last`");
  return false;
}

static bool read_seed(Checker *checker, const Declaration *declaration, uint64_t *seed) {
  const Setting *setting = setting_of(checker, declaration, SETTING_SEED);
  if (!check_unit(checker, setting, NULL) || setting->value->kind == EXPR_DAMAGED) return false;
  *seed = setting->value->exact;
  if (setting->value->kind == EXPR_NUMBER && setting->value->whole) return true;
  diag_error(checker->diagnostics, setting->value->where, "a seed is a whole number from 0 to 2^64 - 1, written out");
  return false;
}

bool check_search(Checker *checker, const Declaration *declaration, Search *search) {
  *search = (Search){0};
  check_twice(checker, declaration);
  bool sound = read_epochs(checker, declaration, search);
  sound &= read_whole(checker, declaration, SETTING_BATCH, 1, LIMIT_BATCH, NULL, &search->batch);
  sound &= read_weights(checker, declaration, search);
  sound &= read_alpha(checker, declaration, search);
  sound &= read_deviation(checker, declaration, SETTING_SCALE, &search->alpha_scale);
  sound &= read_deviation(checker, declaration, SETTING_INITIAL, &search->alpha_initial);
  sound &= read_whole(checker, declaration, SETTING_KEEP, 1, LIMIT_CANDIDATES, NULL, &search->keep);
  sound &= read_result(checker, declaration, &search->last);
  sound &= read_seed(checker, declaration, &search->seed);
  return sound && !declaration->damaged;
}
