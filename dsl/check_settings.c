/* Which setting is in force: the last `--set`, else the file's, else the default. */
#include "dsl/check.h"

#include <string.h>

static unsigned block_of(const Declaration *block) {
  switch (block->kind) {
  case DECLARE_DATA: return BLOCK_DATA;
  case DECLARE_HYPERNETWORK: return BLOCK_HYPERNETWORK;
  case DECLARE_SEARCH: return BLOCK_SEARCH;
  case DECLARE_GENERATOR: return BLOCK_GENERATOR;
  default: return 0;
  }
}

static bool concerns(const Checker *checker, const Override *override, const Declaration *block) {
  if (!(override->blocks & block_of(block))) return false;
  if (block->kind != DECLARE_SEARCH && same_text(override->target, block->name.text)) return true;
  if (!same_text(override->target, declaration_word(block->kind))) return false;
  for (size_t i = 0; i < sizeof checker->used / sizeof *checker->used; i++)
    if (checker->used[i] == block) return true;
  return false;
}

static const Setting *find_setting(const Declaration *block, SettingKind kind) {
  for (const Setting *setting = block->settings; setting; setting = setting->next)
    if (setting->kind == kind) return setting;
  return NULL;
}

const Setting *setting_given(const Checker *checker, const Declaration *block, SettingKind kind) {
  for (Override *override = checker->overrides; override; override = override->next) {
    if (override->kind != kind || !override->setting || !concerns(checker, override, block)) continue;
    override->used = true;
    return override->setting;
  }
  return find_setting(block, kind);
}

const Declaration *default_of(const Checker *checker, DeclarationKind kind) {
  const Declaration *declaration = checker->defaults;
  while (declaration && declaration->kind != kind) declaration = declaration->next;
  return declaration;
}

const Setting *setting_of(Checker *checker, const Declaration *block, SettingKind kind) {
  const Setting *given = setting_given(checker, block, kind);
  const Declaration *standard = given ? NULL : default_of(checker, block->kind);
  return given || !standard ? given : find_setting(standard, kind);
}

static const Argument *find_argument(const Expr *call, const char *name) {
  for (const Argument *argument = call && call->kind == EXPR_CALL ? call->arguments : NULL; argument; argument = argument->next)
    if (argument->name.text && same_text(argument->name.text, name)) return argument;
  return NULL;
}

const Argument *argument_of(Checker *checker, const Declaration *block, SettingKind kind, const Expr *call, const char *name) {
  for (Override *override = checker->overrides; override; override = override->next) {
    if (override->kind != kind || !override->argument || !same_text(override->argument->name.text, name)) continue;
    if (!concerns(checker, override, block)) continue;
    override->used = true;
    return override->argument;
  }
  const Argument *given = find_argument(call, name);
  if (given) return given;
  const Declaration *standard = default_of(checker, block->kind);
  const Setting *setting = standard ? find_setting(standard, kind) : NULL;
  return setting ? find_argument(setting->value, name) : NULL;
}

void check_twice(Checker *checker, const Declaration *block) {
  const Setting *first[SETTING_COUNT] = {0};
  for (const Setting *setting = block->settings; setting; setting = setting->next) {
    if (!first[setting->kind]) {
      first[setting->kind] = setting;
      continue;
    }
    diag_error(checker->diagnostics, setting->where, "`%s` is set twice", setting_word(setting->kind));
    diag_note(checker->diagnostics, first[setting->kind]->where, "the first time is here");
  }
}

bool check_unit(Checker *checker, const Setting *setting, const char *unit) {
  if (!setting->unit.text || (unit && !strncmp(setting->unit.text, unit, strlen(setting->unit.text)))) return true;
  if (unit)
    diag_error(checker->diagnostics, setting->unit.where, "`%s` is measured in %s", setting_word(setting->kind), unit);
  else
    diag_error(checker->diagnostics, setting->unit.where, "`%s` has no unit", setting_word(setting->kind));
  return false;
}

bool is_name(const Expr *expr, const char *name) {
  return expr && expr->kind == EXPR_NAME && same_text(expr->name.text, name);
}
