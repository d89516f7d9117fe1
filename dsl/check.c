/* The order of the checks: names, operations, spaces, blocks, intensive-spaces, the command line, and then the cells. */
#include "dsl/check.h"

#include <string.h>

static bool is_primitive(Checker *checker, const Declaration *declaration) {
  PrimitiveWord word;
  if (declaration->kind != DECLARE_OP || !primitive_find(declaration->name.text, &word)) return false;
  diag_error(checker->diagnostics, declaration->name.where, "`%s` is a primitive and cannot be defined anew",
             declaration->name.text);
  return true;
}

static void collect(Checker *checker, Declaration *declarations) {
  for (Declaration *declaration = declarations; declaration; declaration = declaration->next) {
    if (declaration->kind == DECLARE_IMPORT || declaration->kind == DECLARE_SEARCH || is_primitive(checker, declaration))
      continue;
    const Declaration *there = scope_add(checker->scope, declaration);
    if (!there) continue;
    diag_error(checker->diagnostics, declaration->name.where, "%s `%s` is declared twice", declaration_word(declaration->kind),
               declaration->name.text);
    diag_note(checker->diagnostics, there->name.where, "the first one is here");
  }
}

/* The search of the file itself; those of imported files are theirs. */
static Declaration *find_search(Checker *checker, Declaration *declarations) {
  Declaration *search = NULL;
  for (Declaration *declaration = declarations; declaration; declaration = declaration->next) {
    if (declaration->kind != DECLARE_SEARCH || declaration->where.source != checker->main) continue;
    if (search) {
      diag_error(checker->diagnostics, declaration->where, "a file has one `search`");
      diag_note(checker->diagnostics, search->where, "the first one is here");
    } else
      search = declaration;
  }
  if (!search && !checker->incomplete)
    diag_error(checker->diagnostics, (Span){checker->main, checker->main->size, checker->main->size}, "the file has no `search`");
  return search;
}

/* What the declarations mean on their own; those that the search uses are kept. */
typedef struct Found {
  const Declaration *data, *hypernetwork, *search, *generator;
  bool data_sound, search_sound, backbone_sound, generator_sound;
  DataSet data_set;
  Search procedure;
  Backbone backbone;
  Generator predictor;
  const IntensiveSpace *space;
} Found;

static void check_blocks(Checker *checker, Declaration *declarations, Found *found) {
  for (Declaration *declaration = declarations; declaration; declaration = declaration->next) {
    DataSet data;
    Search search;
    Backbone backbone;
    Generator generator;
    bool sound;
    switch (declaration->kind) {
    case DECLARE_DATA:
      sound = check_data(checker, declaration, &data);
      if (declaration == found->data) found->data_set = data, found->data_sound = sound;
      break;
    case DECLARE_SEARCH:
      sound = check_search(checker, declaration, &search);
      if (declaration == found->search) found->procedure = search, found->search_sound = sound;
      break;
    case DECLARE_HYPERNETWORK:
      sound = check_backbone(checker, declaration, &backbone);
      if (declaration == found->hypernetwork) found->backbone = backbone, found->backbone_sound = sound;
      break;
    case DECLARE_GENERATOR:
      sound = check_generator(checker, declaration, &generator);
      if (declaration == found->generator) found->predictor = generator, found->generator_sound = sound;
      break;
    default: break;
    }
  }
}

/* The generator that the hypernetwork names; found early, because `--set generator...` means it. */
static const Declaration *generator_of(Checker *checker, const Declaration *hypernetwork) {
  const Setting *predict = hypernetwork ? setting_given(checker, hypernetwork, SETTING_PREDICT) : NULL;
  if (predict) return scope_find(checker->scope, DECLARE_GENERATOR, predict->name.text);
  return default_of(checker, DECLARE_GENERATOR);
}

static void find_used(Checker *checker, Declaration *declarations, Found *found) {
  found->search = find_search(checker, declarations);
  if (found->search) {
    found->hypernetwork = check_name(checker, DECLARE_HYPERNETWORK, found->search->of);
    found->data = check_name(checker, DECLARE_DATA, found->search->on);
  }
  checker->used[0] = found->data, checker->used[1] = found->hypernetwork, checker->used[2] = found->search;
  found->generator = generator_of(checker, found->hypernetwork);
  checker->used[3] = found->generator;
}

static void check_together(Checker *checker, const Found *found) {
  const Search *search = &found->procedure;
  if (search->keep > found->space->keep) {
    const Setting *keep = setting_of(checker, found->search, SETTING_KEEP);
    diag_error(checker->diagnostics, keep->value->where, "`keep top %d` is more than the %d candidates that a node of `%s` has",
               search->keep, found->space->keep, found->space->declaration->name.text);
  }
  const DataSet *data = &found->data_set;
  double images = data->train_images * data->train_fraction;
  if (data->train_images && search->batch > images + 1e-6) {
    const Setting *batch = setting_of(checker, found->search, SETTING_BATCH);
    diag_error(checker->diagnostics, batch->value->where, "a batch of %d is more than the %d images that `%s` trains with",
               search->batch, (int)images, data->name);
  }
}

static Model *build(Checker *checker, const Found *found) {
  Model *model = ARENA_NEW(checker->arena, Model);
  model->name = found->hypernetwork->name.text;
  model->space = found->space->space->name.text;
  model->data = found->data_set;
  model->generator = found->predictor;
  model->search = found->procedure;
  if (!build_cells(checker, &found->backbone, found->space, model)) return NULL;
  ModelSyntax *syntax = ARENA_NEW(checker->arena, ModelSyntax);
  *syntax = (ModelSyntax){checker->scope,   found->data,         found->space->space, found->space->declaration,
                          found->generator, found->hypernetwork, found->space,        found->backbone};
  model->syntax = syntax;
  return model;
}

const Model *check_files(const Files *files, Arena *arena, Diagnostics *diagnostics) {
  Checker *checker = ARENA_NEW(arena, Checker);
  *checker = (Checker){.arena = arena,
                       .diagnostics = diagnostics,
                       .main = files->main,
                       .defaults = files->defaults,
                       .overrides = files->overrides,
                       .incomplete = files->lost};
  size_t count = 0;
  for (const Declaration *declaration = files->declarations; declaration; declaration = declaration->next) count++;
  checker->scope = scope_new(arena, count + 1);
  collect(checker, files->declarations);
  for (Declaration *declaration = files->declarations; declaration; declaration = declaration->next)
    if (declaration->kind == DECLARE_OP) check_op(checker, declaration);
  for (Declaration *declaration = files->declarations; declaration; declaration = declaration->next)
    if (declaration->kind == DECLARE_SPACE) check_space(checker, declaration);
  Found *found = ARENA_NEW(arena, Found);
  find_used(checker, files->declarations, found);
  check_blocks(checker, files->declarations, found);
  if (found->generator && found->generator == default_of(checker, DECLARE_GENERATOR))
    found->generator_sound = check_generator(checker, found->generator, &found->predictor);
  for (Declaration *declaration = files->declarations; declaration; declaration = declaration->next) {
    if (declaration->kind != DECLARE_INTENSIVE) continue;
    const IntensiveSpace *space = check_intensive(checker, declaration);
    if (declaration == found->backbone.intensive) found->space = space;
  }
  check_overrides(checker);
  if (found->space && found->data_sound && found->search_sound) check_together(checker, found);
  bool ready = found->space && found->data_sound && found->backbone_sound && found->generator_sound;
  Model *model = ready ? build(checker, found) : NULL;
  return diagnostics->errors ? NULL : model;
}
