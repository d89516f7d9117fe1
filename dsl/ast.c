/* Constructors of the syntax tree, and the words of its kinds. */
#include "dsl/ast.h"

#include "dsl/grammar.h"

#include <string.h>

typedef struct SettingRow {
  const char *word;
  unsigned blocks;
} SettingRow;

enum { D = BLOCK_DATA, H = BLOCK_HYPERNETWORK, S = BLOCK_SEARCH, G = BLOCK_GENERATOR };
static const SettingRow setting_rows[SETTING_COUNT] = {
#define SETTING(NAME, word, blocks) {word, blocks},
#include "dsl/settings.def"
#undef SETTING
};

const char *setting_word(SettingKind kind) {
  return setting_rows[kind].word;
}
unsigned setting_blocks(SettingKind kind) {
  return setting_rows[kind].blocks;
}

bool setting_find(const char *word, unsigned blocks, SettingKind *kind) {
  for (int i = 0; i < SETTING_COUNT; i++) {
    if (!(setting_rows[i].blocks & blocks) || !same_text(setting_rows[i].word, word)) continue;
    *kind = (SettingKind)i;
    return true;
  }
  return false;
}

const char *declaration_word(DeclarationKind kind) {
  static const char *const words[] = {"import", "data", "op", "space", "intensive", "generator", "hypernetwork", "search"};
  return words[kind];
}

const char *block_word(unsigned block) {
  return block == BLOCK_DATA           ? "data"
         : block == BLOCK_HYPERNETWORK ? "hypernetwork"
         : block == BLOCK_SEARCH       ? "search"
                                       : "generator";
}

Span span_join(Span first, Span last) {
  if (!first.source) return last;
  if (first.source != last.source) return first;
  uint32_t begin = first.begin < last.begin ? first.begin : last.begin;
  return (Span){first.source, begin, first.end > last.end ? first.end : last.end};
}

/* The first member of every listed struct is its `next`. */
Chained chained(Chained list, void *item) {
  if (list.tail)
    memcpy(list.tail, &item, sizeof item);
  else
    list.head = item;
  list.tail = item;
  return list;
}

Declaration *declare(Parse *parse, DeclarationKind kind, Span where, Name name) {
  Declaration *declaration = ARENA_NEW(parse->arena, Declaration);
  declaration->kind = kind;
  declaration->where = where;
  declaration->name = name;
  parse->declarations = chained(parse->declarations, declaration);
  return declaration;
}

static int deeper(int depth, const Expr *child) {
  return child && child->depth + 1 > depth ? child->depth + 1 : depth;
}

static Expr *bounded(Parse *parse, Expr *expr) {
  if (expr->depth <= PARSE_MAX_DEPTH) return expr;
  if (!parse->too_deep)
    diag_error(parse->diagnostics, expr->where, "this expression is nested more than %d deep", PARSE_MAX_DEPTH);
  parse->too_deep = true;
  expr->kind = EXPR_DAMAGED;
  expr->depth = 0;
  return expr;
}

Expr *parse_expr(Parse *parse, ExprKind kind, Span where, Expr *left, Expr *right) {
  Expr *expr = ARENA_NEW(parse->arena, Expr);
  expr->kind = kind;
  expr->where = where;
  expr->left = left;
  expr->right = right;
  expr->depth = deeper(deeper(0, left), right);
  return bounded(parse, expr);
}

/* A list under construction keeps its last item in `right`. */
Expr *parse_append(Parse *parse, Expr *left, ExprKind kind, Expr *item) {
  Expr *list = left;
  if (left->kind != kind) {
    list = parse_expr(parse, kind, left->where, NULL, left);
    list->items = left;
  }
  if (list->kind == EXPR_DAMAGED) return list;
  list->right->next = item;
  list->right = item;
  list->where = span_join(list->where, item->where);
  list->depth = deeper(list->depth, item);
  return bounded(parse, list);
}

Expr *make_call(Parse *parse, Span where, Name name, Chained arguments) {
  Expr *call = parse_expr(parse, EXPR_CALL, where, NULL, NULL);
  call->name = name;
  call->arguments = arguments.head;
  call->damaged = arguments.damaged || parse->stopped;
  for (const Argument *argument = call->arguments; argument; argument = argument->next)
    call->depth = deeper(call->depth, argument->value);
  return bounded(parse, call);
}

Expr *make_list(Parse *parse, Span where, Chained items) {
  Expr *list = parse_expr(parse, EXPR_LIST, where, NULL, NULL);
  list->items = items.head;
  for (const Expr *item = list->items; item; item = item->next) list->depth = deeper(list->depth, item);
  return bounded(parse, list);
}

Argument *make_argument(Parse *parse, Name name, Expr *value, Name schedule) {
  Argument *argument = ARENA_NEW(parse->arena, Argument);
  argument->name = name;
  argument->value = value;
  argument->schedule = schedule;
  return argument;
}

Setting *make_setting(Parse *parse, Word word, Expr *value) {
  Setting *setting = ARENA_NEW(parse->arena, Setting);
  setting->kind = word.setting;
  setting->where = word.name.where;
  setting->value = value;
  return setting;
}

Parameter *make_parameter(Parse *parse, Name name) {
  Parameter *parameter = ARENA_NEW(parse->arena, Parameter);
  parameter->name = name;
  return parameter;
}

Case *make_case(Parse *parse, Comparison *when, Expr *chain) {
  Case *made = ARENA_NEW(parse->arena, Case);
  made->when = when;
  made->chain = chain;
  return made;
}

Comparison *make_comparison(Parse *parse, Expr *left, char operator, Expr * right) {
  Comparison *comparison = ARENA_NEW(parse->arena, Comparison);
  comparison->left = left;
  comparison->operator= operator;
  comparison->right = right;
  return comparison;
}

Entry *make_entry(Parse *parse, Name name, Expr *chain) {
  Entry *entry = ARENA_NEW(parse->arena, Entry);
  entry->name = name;
  entry->chain = chain;
  return entry;
}

CellSyntax *make_cell(Parse *parse, Name name, Chained nodes) {
  CellSyntax *cell = ARENA_NEW(parse->arena, CellSyntax);
  cell->name = name;
  cell->nodes = nodes.head;
  cell->damaged = nodes.damaged;
  return cell;
}

NodeSyntax *make_node(Parse *parse, Span where, Expr *number, Expr *items) {
  NodeSyntax *node = ARENA_NEW(parse->arena, NodeSyntax);
  node->where = where;
  node->number = number;
  node->items = items;
  return node;
}

Name span_name(Parse *parse, Span where) {
  return (Name){arena_copy_string(parse->arena, where.source->text + where.begin, where.end - where.begin), where};
}
