/* The backbone: which cell is a reduction, what each cell gets and gives, and every chain of it with its numbers. Also the
 * generator that predicts weights. */
#include "dsl/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- generator: softmax -> fc(hidden) [-> relu] -> fc(weights) ---- */

static const Argument *only_argument(const Expr *call) {
  const Argument *argument = call && call->kind == EXPR_CALL && same_text(call->name.text, "fc") ? call->arguments : NULL;
  return argument && !argument->next && !argument->name.text && !argument->schedule.text ? argument : NULL;
}

static bool read_generator_chain(Checker *checker, const Declaration *declaration, const Expr **hidden, Activation *activation) {
  const Expr *chain = declaration->chain, *steps[4] = {0};
  int count = 0;
  for (const Expr *step = chain->kind == EXPR_CHAIN ? chain->items : chain; step; step = step->next) {
    if (step->kind == EXPR_DAMAGED || step->damaged) return false;
    if (count < 4) steps[count] = step;
    count++;
    if (chain->kind != EXPR_CHAIN) break;
  }
  const Argument *first = only_argument(steps[1]), *last = only_argument(count == 4 ? steps[3] : steps[2]);
  bool relu = count == 4 && is_name(steps[2], "relu");
  if (!is_name(steps[0], "softmax") || !first || !last || !is_name(last->value, "weights") || (count != 3 && !relu)) {
    diag_error(checker->diagnostics, chain->where,
               "a generator is `softmax -> fc(64) -> fc(weights)`, with any width, and with `relu` between the two or not");
    return false;
  }
  *hidden = first->value;
  *activation = relu ? ACTIVATION_RELU : ACTIVATION_NONE;
  return true;
}

bool check_generator(Checker *checker, const Declaration *declaration, Generator *generator) {
  const Expr *hidden = NULL;
  if (!read_generator_chain(checker, declaration, &hidden, &generator->activation)) return false;
  const Setting *setting = setting_given(checker, declaration, SETTING_HIDDEN);
  if (!evaluate_whole(checker, setting ? setting->value : hidden, NULL, 1, 1 << 14, "the width of a generator",
                      &generator->hidden))
    return false;
  setting = setting_given(checker, declaration, SETTING_ACTIVATION);
  if (!setting) return true;
  generator->activation = is_name(setting->value, "relu") ? ACTIVATION_RELU : ACTIVATION_NONE;
  if (is_name(setting->value, "relu") || is_name(setting->value, "none")) return true;
  diag_error(checker->diagnostics, setting->value->where, "an activation is `relu` or `none`");
  return false;
}

/* ---- settings of the hypernetwork ---- */

static const Expr *read_chain(Checker *checker, const Declaration *declaration, SettingKind kind) {
  const Setting *setting = setting_of(checker, declaration, kind);
  return check_unit(checker, setting, NULL) && check_chain(checker, setting->value, NULL) ? setting->value : NULL;
}

/* The head ends in the loss; what is before it makes the logits. */
static const Expr *read_head(Checker *checker, const Declaration *declaration) {
  const Setting *setting = setting_of(checker, declaration, SETTING_HEAD);
  const Expr *value = setting->value, *last = value->kind == EXPR_CHAIN ? value->right : value;
  if (!check_unit(checker, setting, NULL) || value->kind == EXPR_DAMAGED) return NULL;
  if (!is_name(last, "cross_entropy") || value->kind != EXPR_CHAIN) {
    diag_error(checker->diagnostics, last->where, "the head must end in `-> cross_entropy`");
    return NULL;
  }
  Expr *head = ARENA_NEW(checker->arena, Expr), **next = &head->items;
  *head = (Expr){.kind = EXPR_CHAIN, .where = value->where, .depth = value->depth};
  for (const Expr *step = value->items; step != last; step = step->next) {
    *next = ARENA_NEW(checker->arena, Expr);
    **next = *step;
    (*next)->next = NULL;
    head->right = *next;
    head->where.end = step->where.end;
    next = &(*next)->next;
  }
  return check_chain(checker, head, NULL) ? head : NULL;
}

static bool read_cells(Checker *checker, const Declaration *declaration, Backbone *backbone) {
  const Setting *setting = setting_of(checker, declaration, SETTING_CELLS), *written = setting;
  if (!setting) {
    if (!declaration->damaged)
      diag_error(checker->diagnostics, declaration->name.where, "hypernetwork `%s` lacks its `cells`", declaration->name.text);
    return false;
  }
  bool sound = evaluate_whole(checker, setting->value, NULL, 1, LIMIT_CELLS, "cells", &backbone->cell_count);
  for (const Setting *other = declaration->settings; other && !written->name.text; other = other->next)
    if (other->kind == SETTING_CELLS) written = other; /* `--set hypernetwork.cells=5` leaves the space as it is */
  if (!written->name.text) {
    diag_error(checker->diagnostics, written->where, "the intensive-space of the cells is missing, as in `cells 8 of NAME`");
    return false;
  }
  backbone->intensive = check_name(checker, DECLARE_INTENSIVE, written->name);
  return sound && backbone->intensive;
}

/* at 1/3 and 2/3: cells floor(L / 3) and floor(2 L / 3); at [2, 5]: these; none. */
static bool read_reductions(Checker *checker, const Declaration *declaration, Backbone *backbone) {
  const Setting *setting = setting_of(checker, declaration, SETTING_REDUCTION);
  int count = backbone->cell_count;
  backbone->reduction = ARENA_ARRAY(checker->arena, bool, count);
  if (setting->what.text) {
    if (same_text(setting->what.text, "none")) return true;
    diag_error(checker->diagnostics, setting->what.where,
               "reduction cells are given as `at 1/3 and 2/3`, as `at [2, 5]`, or as `none`");
    return false;
  }
  bool sound = true;
  for (const Expr *at = setting->fractions; at; at = at->next) {
    int cell;
    double fraction;
    if (at->kind == EXPR_LIST) {
      for (const Expr *item = at->items; item; item = item->next) {
        bool known = evaluate_whole(checker, item, NULL, 0, count - 1, "a reduction cell", &cell);
        if (known) backbone->reduction[cell] = true;
        sound &= known;
      }
    } else if (!evaluate_real(checker, at, 0, 1, "the place of a reduction cell, as a share of all cells,", &fraction))
      sound = false;
    else if (fraction == 1) {
      diag_error(checker->diagnostics, at->where, "no cell is at the end; cells by number are written `at [2, 5]`");
      sound = false;
    } else
      backbone->reduction[(int)floor(fraction * count + 1e-9)] = true;
  }
  return sound;
}

static bool read_channels(Checker *checker, const Declaration *declaration, int *channels) {
  const Setting *setting = setting_of(checker, declaration, SETTING_CHANNELS);
  if (setting->what.text && !same_text(setting->what.text, "C")) {
    diag_error(checker->diagnostics, setting->what.where, "the channels of the first cell are called `C`");
    return false;
  }
  return check_unit(checker, setting, NULL) &&
         evaluate_whole(checker, setting->value, NULL, 1, LIMIT_CHANNELS, "channels", channels);
}

static bool read_predict(Checker *checker, const Declaration *declaration, const Declaration **generator) {
  const Setting *setting = setting_of(checker, declaration, SETTING_PREDICT);
  *generator = NULL;
  if (!setting) {
    *generator = default_of(checker, DECLARE_GENERATOR);
    return true;
  }
  if (!same_text(setting->what.text, "conv")) {
    diag_error(checker->diagnostics, setting->what.where,
               "what is predicted are `conv` weights, as in `predict conv weights by NAME`");
    return false;
  }
  *generator = check_name(checker, DECLARE_GENERATOR, setting->name);
  return *generator != NULL;
}

bool check_backbone(Checker *checker, const Declaration *declaration, Backbone *backbone) {
  *backbone = (Backbone){0};
  check_twice(checker, declaration);
  bool sound = !declaration->damaged;
  backbone->stem = read_chain(checker, declaration, SETTING_STEM);
  bool cells = read_cells(checker, declaration, backbone);
  sound &= cells;
  sound &= read_channels(checker, declaration, &backbone->channels);
  if (backbone->cell_count) sound &= read_reductions(checker, declaration, backbone);
  backbone->preprocess = read_chain(checker, declaration, SETTING_PREPROCESS);
  backbone->after = read_chain(checker, declaration, SETTING_AFTER);
  sound &= read_predict(checker, declaration, &backbone->generator);
  backbone->head = read_head(checker, declaration);
  return sound && backbone->stem && backbone->preprocess && backbone->after && backbone->head;
}

/* ---- cells ---- */

typedef struct Building {
  Checker *checker;
  const Backbone *backbone;
  const IntensiveSpace *space;
  Model *model;
  bool sound;
} Building;

static const char *cell_name(const Building *building, int index) {
  return arena_printf(building->checker->arena, "cell %d (%s)", index,
                      building->backbone->reduction[index] ? "reduction" : "normal");
}

/* The two inputs, brought to C channels and to one side. */
static bool build_inputs(Building *building, int index, const Shape previous[2], Cell *cell) {
  Checker *checker = building->checker;
  bool after = index > 0 && building->backbone->reduction[index - 1];
  bool sound = true;
  for (int i = 0; i < 2; i++) {
    bool reduces = i == 0 && after;
    const Expr *chain = reduces ? building->backbone->after : building->backbone->preprocess;
    Environment environment = {.channels = cell->channels, .stride = reduces ? 2 : 1};
    Place place = {.what = arena_printf(checker->arena, "the preprocessing of input %d of %s", i, cell_name(building, index)),
                   .where = chain->where};
    sound &= instantiate(checker, chain, &environment, &place, previous[i], &cell->preprocess[i]);
  }
  if (!sound) return false;
  Shape a = cell->preprocess[0].out, b = cell->preprocess[1].out;
  if (shape_equal(a, b)) return true;
  const Expr *chain = after ? building->backbone->after : building->backbone->preprocess;
  if (check_first(checker, chain->where))
    diag_error(checker->diagnostics, chain->where, "the two inputs of %s differ in shape: %s and %s (channels x height x width)",
               cell_name(building, index), shape_text(checker->arena, a), shape_text(checker->arena, b));
  return false;
}

static bool build_node(Building *building, int index, const Cell *cell, int number, const NodeSpace *space, const Shape *sources,
                       Node *node, Shape *out) {
  Checker *checker = building->checker;
  bool sound = true, known = false;
  node->candidates = ARENA_ARRAY(checker->arena, Candidate, space->count);
  node->count = space->count;
  for (int k = 0; k < space->count; k++) {
    const Pair *pair = &space->pairs[k];
    Candidate *candidate = &node->candidates[k];
    *candidate = (Candidate){.operation = pair->entry->name.text, .operation_index = pair->index, .source = pair->source};
    Environment environment = {.channels = cell->channels, .stride = cell->reduction && pair->source < 2 ? 2 : 1};
    Place place = {
        .what = arena_printf(checker->arena, "`%s(%d)` of node %d in %s", candidate->operation, pair->source, number,
                             cell_name(building, index)),
        .where = pair->where,
        .hidden = building->model->generator.hidden,
    };
    if (pair->entry->broken ||
        !instantiate(checker, pair->entry->chain, &environment, &place, sources[pair->source], &candidate->chain)) {
      sound = false;
      continue;
    }
    if (!known) *out = candidate->chain.out;
    known = true;
    if (shape_equal(*out, candidate->chain.out)) continue;
    if (check_first(checker, pair->where))
      diag_error(checker->diagnostics, pair->where, "%s gives %s, and what is before it gives %s (channels x height x width)",
                 place.what, shape_text(checker->arena, candidate->chain.out), shape_text(checker->arena, *out));
    sound = false;
  }
  return sound && known;
}

static bool build_cell(Building *building, int index, const Shape previous[2], Cell *cell) {
  Checker *checker = building->checker;
  cell->reduction = building->backbone->reduction[index];
  const CellSpace *space = &building->space->kinds[cell->reduction];
  if (!build_inputs(building, index, previous, cell)) return false;
  Shape *sources = ARENA_ARRAY(checker->arena, Shape, space->count + 2);
  sources[0] = cell->preprocess[0].out, sources[1] = cell->preprocess[1].out;
  cell->nodes = ARENA_ARRAY(checker->arena, Node, space->count);
  cell->node_count = space->count;
  int64_t channels = 0;
  for (int j = 0; j < space->count; j++) {
    if (!build_node(building, index, cell, j + 2, &space->nodes[j], sources, &cell->nodes[j], &sources[j + 2])) return false;
    channels += sources[j + 2].channels;
    if (sources[j + 2].height == sources[2].height && sources[j + 2].width == sources[2].width) continue;
    if (check_first(checker, space->nodes[j].pairs[0].where))
      diag_error(checker->diagnostics, space->nodes[j].pairs[0].where,
                 "node %d of %s is %s, and node 2 is %s: their sides must be equal to be joined", j + 2,
                 cell_name(building, index), shape_text(checker->arena, sources[j + 2]), shape_text(checker->arena, sources[2]));
    return false;
  }
  cell->out = sources[2];
  cell->out.channels = (int)channels;
  if (channels <= LIMIT_CHANNELS && channels * cell->out.height * cell->out.width <= LIMIT_IMAGE) return true;
  diag_error(checker->diagnostics, building->space->declaration->name.where,
             "the output of %s has %lld channels of %d x %d, which is too large", cell_name(building, index), (long long)channels,
             cell->out.height, cell->out.width);
  return false;
}

static bool has_kinds(Building *building) {
  Checker *checker = building->checker;
  const Declaration *intensive = building->space->declaration;
  for (int l = 0; l < building->backbone->cell_count; l++) {
    if (building->space->kinds[building->backbone->reduction[l]].given) continue;
    diag_error(checker->diagnostics, intensive->name.where, "`%s` has no `%s` cell, which %s wants", intensive->name.text,
               building->backbone->reduction[l] ? "reduction" : "normal", cell_name(building, l));
    return false;
  }
  return true;
}

static bool build_head(Building *building, Shape in) {
  Checker *checker = building->checker;
  Model *model = building->model;
  const Expr *head = building->backbone->head;
  Environment environment = {
      .channels = model->cells[model->cell_count - 1].channels, .stride = 1, .classes = model->data.classes};
  Place place = {.what = "the head", .where = head->where};
  if (!instantiate(checker, head, &environment, &place, in, &model->head)) return false;
  Shape wanted = {model->data.classes, 1, 1};
  if (shape_equal(model->head.out, wanted)) return true;
  diag_error(checker->diagnostics, head->where, "the head gives %s, and the loss wants %d logits, one a class",
             shape_text(checker->arena, model->head.out), model->data.classes);
  return false;
}

bool build_cells(Checker *checker, const Backbone *backbone, const IntensiveSpace *space, Model *model) {
  Building building = {.checker = checker, .backbone = backbone, .space = space, .model = model};
  if (!has_kinds(&building)) return false;
  Environment environment = {.channels = backbone->channels, .stride = 1};
  Place place = {.what = "the stem", .where = backbone->stem->where};
  if (!instantiate(checker, backbone->stem, &environment, &place, model->data.image, &model->stem)) return false;
  model->channels = backbone->channels;
  model->stem_multiplier = model->stem.out.channels % model->channels ? 0 : model->stem.out.channels / model->channels;
  model->cell_count = backbone->cell_count;
  model->cells = ARENA_ARRAY(checker->arena, Cell, model->cell_count);
  Shape previous[2] = {model->stem.out, model->stem.out};
  int channels = model->channels;
  for (int l = 0; l < model->cell_count; l++) {
    Cell *cell = &model->cells[l];
    if (backbone->reduction[l]) channels *= 2;
    if (channels > LIMIT_CHANNELS) {
      diag_error(checker->diagnostics, space->declaration->name.where,
                 "cell %d would have %d channels, and at most %d are allowed: each reduction cell doubles them", l, channels,
                 LIMIT_CHANNELS);
      return false;
    }
    cell->channels = channels;
    if (!build_cell(&building, l, previous, cell)) return false;
    previous[0] = previous[1];
    previous[1] = cell->out;
  }
  return build_head(&building, previous[1]);
}
