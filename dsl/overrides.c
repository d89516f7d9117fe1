/* `--set KEY=VALUE`: a setting written on the command line. KEY is a block's kind or a declaration's name, the setting, and
 * perhaps one of its arguments (`search.weights.lr`); VALUE is what a file writes behind the setting's word. The text is a
 * source of its own, so that messages can point into it. */
#include "dsl/check.h"
#include "dsl/parse.h"

#include <string.h>

enum { MOST_PARTS = 3 };

typedef struct Key {
  Name parts[MOST_PARTS];
  int count;
  uint32_t value_at;
} Key;

static bool read_key(const Source *source, Arena *arena, Diagnostics *diagnostics, Key *key) {
  const char *equal = memchr(source->text, '=', source->size);
  uint32_t end = equal ? (uint32_t)(equal - source->text) : source->size, at = 0;
  key->count = 0;
  for (;;) {
    uint32_t stop = at;
    while (stop < end && source->text[stop] != '.') stop++;
    if (key->count < MOST_PARTS) {
      uint32_t first = at, last = stop;
      while (first < last && source->text[first] == ' ') first++;
      while (last > first && source->text[last - 1] == ' ') last--;
      key->parts[key->count] = (Name){arena_copy_string(arena, source->text + first, last - first), {source, first, last}};
    }
    key->count++;
    if (stop >= end) break;
    at = stop + 1;
  }
  key->value_at = end + 1;
  if (equal && key->count >= 2 && key->count <= MOST_PARTS) return true;
  diag_error(diagnostics, (Span){source, 0, end}, "a setting is written BLOCK.SETTING=VALUE, as in search.train=3");
  return false;
}

static unsigned blocks_of(const char *target) {
  static const unsigned blocks[] = {BLOCK_DATA, BLOCK_HYPERNETWORK, BLOCK_SEARCH, BLOCK_GENERATOR};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    if (same_text(block_word(blocks[i]), target)) return blocks[i];
  return BLOCK_DATA | BLOCK_HYPERNETWORK | BLOCK_GENERATOR;
}

static bool known_setting(const Key *key, unsigned blocks, SettingKind *kind) {
  const char *word = key->parts[1].text;
  return setting_find(word, blocks, kind) || (same_text(word, "after reduction") && setting_find("after", blocks, kind));
}

/* With the word that was meant, or where none is near, all that there are. */
static void report_setting(Span where, const char *target, const char *word, unsigned blocks, Arena *arena,
                           Diagnostics *diagnostics) {
  Suggestion suggestion = suggest_start(word);
  const char *list = "";
  for (int i = 0; i < SETTING_COUNT; i++) {
    if (!(setting_blocks((SettingKind)i) & blocks)) continue;
    const char *known = setting_word((SettingKind)i);
    suggest_offer(&suggestion, known);
    list = arena_printf(arena, "%s%s %s", list, *list ? "," : "; it has", known);
  }
  diag_error(diagnostics, where, "`%s` has no setting `%s`%s", target, word,
             suggestion.best ? suggest_text(&suggestion, arena) : list);
}

static bool known_argument(const Key *key, SettingKind kind, Arena *arena, Diagnostics *diagnostics) {
  static const char *const weights[] = {"lr", "momentum", "decay", "clip"}, *const alpha[] = {"lr", "betas", "epsilon", "decay"};
  Name name = key->parts[2];
  Suggestion suggestion = suggest_start(name.text);
  for (int i = 0; i < 4 && (kind == SETTING_WEIGHTS || kind == SETTING_ALPHA); i++) {
    const char *known = kind == SETTING_WEIGHTS ? weights[i] : alpha[i];
    if (same_text(known, name.text)) return true;
    suggest_offer(&suggestion, known);
  }
  diag_error(diagnostics, name.where, "`%s` has no argument `%s`%s", setting_word(kind), name.text,
             suggest_text(&suggestion, arena));
  return false;
}

static Override *read_override(const char *text, Arena *arena, Diagnostics *diagnostics) {
  enum { LONGEST = 1 << 16 };
  Source *source = ARENA_NEW(arena, Source);
  size_t size = strlen(text);
  *source = (Source){"--set", text, (uint32_t)(size > LONGEST ? LONGEST : size)};
  Key key;
  if (size > LONGEST) {
    diag_error(diagnostics, (Span){source, 0, 1}, "a setting has at most %d bytes", LONGEST);
    return NULL;
  }
  if (!read_key(source, arena, diagnostics, &key)) return NULL;
  Override *override = ARENA_NEW(arena, Override);
  override->target = key.parts[0].text;
  override->where = key.parts[0].where;
  override->blocks = blocks_of(override->target);
  if (!known_setting(&key, override->blocks, &override->kind)) {
    bool is_kind = same_text(override->target, block_word(override->blocks));
    if (is_kind) report_setting(key.parts[1].where, override->target, key.parts[1].text, override->blocks, arena, diagnostics);
    override->unknown = key.parts[1];
    override->kind = SETTING_COUNT;
    return is_kind ? NULL : override;
  }
  if (key.count == 2)
    override->setting = parse_setting(source, key.value_at, override->kind, key.parts[1].where, arena, diagnostics);
  else if (known_argument(&key, override->kind, arena, diagnostics))
    override->argument = parse_argument(source, key.value_at, key.parts[2], arena, diagnostics);
  return override->setting || override->argument ? override : NULL;
}

Override *read_overrides(const char *const *texts, size_t count, Arena *arena, Diagnostics *diagnostics) {
  Override *last = NULL;
  for (size_t i = 0; i < count; i++) {
    Override *override = read_override(texts[i], arena, diagnostics);
    if (!override) continue;
    override->next = last;
    last = override;
  }
  return last;
}

/* "; there are search, data or toy, hypernetwork or small": what a setting may begin with, as far as this search has them. */
static const char *list_blocks(const Checker *checker) {
  const char *list = "; there are search";
  for (size_t i = 0; i < sizeof checker->used / sizeof *checker->used; i++) {
    const Declaration *block = checker->used[i];
    if (block && block->kind != DECLARE_SEARCH)
      list = arena_printf(checker->arena, "%s, %s or %s", list, declaration_word(block->kind), block->name.text);
  }
  return list;
}

void check_overrides(Checker *checker) {
  static const DeclarationKind kinds[] = {DECLARE_DATA, DECLARE_HYPERNETWORK, DECLARE_GENERATOR};
  for (const Override *override = checker->overrides; override; override = override->next) {
    if (override->used || same_text(override->target, block_word(override->blocks))) continue;
    Suggestion suggestion = suggest_start(override->target);
    unsigned named = 0; /* the blocks of this name */
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
      if (scope_find(checker->scope, kinds[i], override->target)) named |= blocks_of(declaration_word(kinds[i]));
      scope_suggest(checker->scope, kinds[i], &suggestion);
      suggest_offer(&suggestion, declaration_word(kinds[i]));
    }
    suggest_offer(&suggestion, "search");
    const Name *unknown = override->unknown.text ? &override->unknown : NULL;
    if (named)
      report_setting(unknown ? unknown->where : override->where, override->target,
                     unknown ? unknown->text : setting_word(override->kind), named, checker->arena, checker->diagnostics);
    else if (!checker->incomplete)
      diag_error(checker->diagnostics, override->where, "no block is called `%s`%s", override->target,
                 suggestion.best ? suggest_text(&suggestion, checker->arena) : list_blocks(checker));
  }
}
