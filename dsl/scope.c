/* Names: one table for all files, a kind of declaration apart from the others. */
#include "dsl/check.h"

#include <string.h>

struct Scope {
  Declaration **slots; /* open addressing; at most half full */
  size_t room;
};

Scope *scope_new(Arena *arena, size_t declarations) {
  Scope *scope = ARENA_NEW(arena, Scope);
  scope->room = 16;
  while (scope->room < 2 * declarations) scope->room *= 2;
  scope->slots = ARENA_ARRAY(arena, Declaration *, scope->room);
  return scope;
}

static size_t slot_of(const Scope *scope, DeclarationKind kind, const char *name) {
  size_t hash = 1469598103934665603u + (size_t)kind;
  for (const char *at = name; *at; at++) hash = (hash ^ (unsigned char)*at) * 1099511628211u;
  size_t slot = (hash ^ hash >> 32) & (scope->room - 1);
  for (;; slot = (slot + 1) & (scope->room - 1)) {
    const Declaration *there = scope->slots[slot];
    if (!there || (there->kind == kind && same_text(there->name.text, name))) return slot;
  }
}

Declaration *scope_add(Scope *scope, Declaration *declaration) {
  size_t slot = slot_of(scope, declaration->kind, declaration->name.text);
  if (scope->slots[slot]) return scope->slots[slot];
  scope->slots[slot] = declaration;
  return NULL;
}

Declaration *scope_find(const Scope *scope, DeclarationKind kind, const char *name) {
  return scope->slots[slot_of(scope, kind, name)];
}

void scope_suggest(const Scope *scope, DeclarationKind kind, Suggestion *suggestion) {
  for (size_t i = 0; i < scope->room; i++)
    if (scope->slots[i] && scope->slots[i]->kind == kind) suggest_offer(suggestion, scope->slots[i]->name.text);
}

Declaration *check_name(Checker *checker, DeclarationKind kind, Name name) {
  Declaration *found = scope_find(checker->scope, kind, name.text);
  if (found || checker->incomplete) return found;
  Suggestion suggestion = suggest_start(name.text);
  if (!diag_full(checker->diagnostics)) scope_suggest(checker->scope, kind, &suggestion);
  diag_error(checker->diagnostics, name.where, "unknown %s `%s`%s", declaration_word(kind), name.text,
             suggest_text(&suggestion, checker->arena));
  return NULL;
}

bool check_first(Checker *checker, Span where) {
  if (diag_full(checker->diagnostics)) return false;
  for (size_t i = 0; i < checker->reported_count; i++)
    if (checker->reported[i].source == where.source && checker->reported[i].begin == where.begin &&
        checker->reported[i].end == where.end)
      return false;
  if (checker->reported_count == checker->reported_room) {
    size_t room = checker->reported_room ? 2 * checker->reported_room : 32;
    Span *more = ARENA_ARRAY(checker->arena, Span, room);
    if (checker->reported_count) memcpy(more, checker->reported, checker->reported_count * sizeof *more);
    checker->reported = more;
    checker->reported_room = room;
  }
  checker->reported[checker->reported_count++] = where;
  return true;
}
