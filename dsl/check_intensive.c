/* An intensive-space: for each node the kept pairs of an operation and a source. */
#include "dsl/check.h"

#include <stdio.h>
#include <string.h>

typedef struct Reading {
  Checker *checker;
  const Declaration *intensive, *space;
  int keep; /* 0: could not be read */
  bool sound;
} Reading;

static const Entry *find_entry(Reading *reading, Name name, int *index) {
  Suggestion suggestion = suggest_start(name.text);
  *index = 0;
  for (const Entry *entry = reading->space->entries; entry; entry = entry->next, ++*index) {
    if (same_text(entry->name.text, name.text)) return entry;
    suggest_offer(&suggestion, entry->name.text);
  }
  if (!reading->checker->incomplete && !reading->space->damaged)
    diag_error(reading->checker->diagnostics, name.where, "space `%s` has no operation `%s`%s", reading->space->name.text,
               name.text, suggest_text(&suggestion, reading->checker->arena));
  return NULL;
}

static bool read_source(Reading *reading, const Expr *item, int node, int *source) {
  const Argument *argument = item->kind == EXPR_CALL ? item->arguments : NULL;
  if (item->damaged || item->kind == EXPR_DAMAGED) return false;
  if (!argument || argument->next || argument->name.text || argument->schedule.text) {
    diag_error(reading->checker->diagnostics, item->where, "a candidate is written `operation(source)`");
    return false;
  }
  if (!evaluate_whole(reading->checker, argument->value, NULL, 0, LIMIT_NODES + 1, "a source", source)) return false;
  if (*source < node) return true;
  diag_error(reading->checker->diagnostics, argument->value->where, "node %d can read nodes 0..%d, and not %s", node, node - 1,
             *source == node ? "itself" : "a later one");
  return false;
}

static void read_node(Reading *reading, const NodeSyntax *syntax, int number, NodeSpace *node) {
  Checker *checker = reading->checker;
  int room = 0;
  for (const Expr *item = syntax->items; item; item = item->next) room++;
  if (room > LIMIT_CANDIDATES) {
    diag_error(checker->diagnostics, syntax->where, "a node has at most %d candidates, and this one has %d", LIMIT_CANDIDATES,
               room);
    reading->sound = false;
    return;
  }
  node->pairs = ARENA_ARRAY(checker->arena, Pair, room);
  for (const Expr *item = syntax->items; item; item = item->next) {
    Pair pair = {.where = item->where};
    bool sound = read_source(reading, item, number, &pair.source);
    if (item->kind == EXPR_NAME || item->kind == EXPR_CALL) pair.entry = find_entry(reading, item->name, &pair.index);
    if (!sound || !pair.entry) {
      reading->sound = false;
      continue;
    }
    for (int i = 0; i < node->count; i++) {
      if (node->pairs[i].entry != pair.entry || node->pairs[i].source != pair.source) continue;
      diag_error(checker->diagnostics, item->where, "node %d has `%s(%d)` twice", number, pair.entry->name.text, pair.source);
      reading->sound = false;
      break;
    }
    node->pairs[node->count++] = pair;
  }
  if (reading->keep && room != reading->keep) {
    diag_error(checker->diagnostics, syntax->where, "node %d has %d candidate%s, and `%s` keeps %d", number, room,
               room == 1 ? "" : "s", reading->intensive->name.text, reading->keep);
    reading->sound = false;
  }
}

static void read_cell(Reading *reading, const CellSyntax *syntax, CellSpace *cell) {
  Checker *checker = reading->checker;
  int room = 0;
  for (const NodeSyntax *node = syntax->nodes; node; node = node->next) room++;
  cell->given = true;
  if (syntax->damaged) reading->sound = false;
  if (room > LIMIT_NODES || (!room && !syntax->damaged)) {
    diag_error(checker->diagnostics, syntax->name.where, "a cell has 1..%d nodes, and this one has %d", LIMIT_NODES, room);
    reading->sound = false;
    return;
  }
  cell->nodes = ARENA_ARRAY(checker->arena, NodeSpace, room);
  for (const NodeSyntax *node = syntax->nodes; node; node = node->next) {
    int number = cell->count + 2, written = 0;
    if (!evaluate_whole(checker, node->number, NULL, 0, LIMIT_NODES + 1, "a node's number", &written))
      reading->sound = false;
    else if (written != number && !syntax->damaged) {
      diag_error(
          checker->diagnostics, node->where,
          "node %d is wanted here, and this is node %d: nodes 0 and 1 are the cell's inputs, and the others stand in order",
          number, written);
      reading->sound = false;
      number = written;
    }
    read_node(reading, node, number, &cell->nodes[cell->count++]);
  }
}

const IntensiveSpace *check_intensive(Checker *checker, Declaration *intensive) {
  IntensiveSpace *space = ARENA_NEW(checker->arena, IntensiveSpace);
  Reading reading = {.checker = checker, .intensive = intensive, .sound = !intensive->damaged};
  space->declaration = intensive;
  space->space = reading.space = check_name(checker, DECLARE_SPACE, intensive->of);
  if (!evaluate_whole(checker, intensive->keep, NULL, 1, LIMIT_CANDIDATES, "keep", &space->keep)) reading.sound = false;
  reading.keep = space->keep;
  if (!reading.space || reading.space->broken) return NULL;
  for (const CellSyntax *cell = intensive->cells; cell; cell = cell->next) {
    int kind = same_text(cell->name.text, "normal") ? 0 : same_text(cell->name.text, "reduction") ? 1 : -1;
    if (kind < 0 || space->kinds[kind].given) {
      diag_error(checker->diagnostics, cell->name.where,
                 kind < 0 ? "a cell is `normal` or `reduction`, and not `%s`" : "`%s` is there twice", cell->name.text);
      reading.sound = false;
      continue;
    }
    read_cell(&reading, cell, &space->kinds[kind]);
  }
  if (!intensive->cells && !intensive->damaged) {
    diag_error(checker->diagnostics, intensive->name.where, "`%s` has neither a `normal` nor a `reduction` cell",
               intensive->name.text);
    reading.sound = false;
  }
  return reading.sound ? space : NULL;
}
