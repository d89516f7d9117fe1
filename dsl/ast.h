/* The syntax tree of a `.adwp` file. It says what stands where and means nothing yet; the checker gives it meaning.
 *
 * Everything lives in the arena of the load; lists are chained by `next` in the order of the file. Where the parser recovered
 * from an error it leaves `damaged` behind, so that the checker adds no second message about the same place. */
#ifndef ADWP_DSL_AST_H
#define ADWP_DSL_AST_H

#include "dsl/source.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct Name {
  const char *text; /* null: not given */
  Span where;
} Name;

typedef enum ExprKind {
  EXPR_NUMBER,
  EXPR_NAME,    /* a parameter, C, S; in a chain: an operation without arguments */
  EXPR_CALL,    /* name(arguments) */
  EXPR_LIST,    /* [items] */
  EXPR_CHAIN,   /* items joined by `->` */
  EXPR_SIZE,    /* items joined by `x` */
  EXPR_BINARY,  /* left operator right */
  EXPR_NEGATE,  /* - left */
  EXPR_PERCENT, /* left % */
  EXPR_RANGE,   /* left .. right */
  EXPR_DAMAGED,
} ExprKind;

typedef struct Expr Expr;

typedef struct Argument {
  struct Argument *next;
  Name name; /* optional */
  Expr *value;
  Name schedule; /* `lr: 0.025 -> 0 cosine` */
} Argument;

struct Expr {
  Expr *next; /* in the list it stands in */
  ExprKind kind;
  Span where;
  int depth; /* of the tree below; the parser bounds it, so that recursion over a tree is safe */
  double number;
  bool whole; /* a literal without `.` and exponent, with its exact value */
  uint64_t exact;
  Name name;    /* of a name or a call */
  bool damaged; /* a call whose arguments could not be read */
  Argument *arguments;
  Expr *items;
  char operator; /* + - * / */
  Expr *left, *right;
};

typedef enum SettingKind {
#define SETTING(NAME, word, blocks) SETTING_##NAME,
#include "dsl/settings.def"
#undef SETTING
  SETTING_COUNT
} SettingKind;

/* One line of a block. What is used depends on the kind: most have a `value` alone. */
typedef struct Setting {
  struct Setting *next;
  SettingKind kind;
  Span where; /* its word */
  Expr *value;
  Expr *second;    /* split: the share of valid */
  Name name;       /* format; predict: the generator; cells: the intensive-space */
  Name unit;       /* epochs, images */
  Name what;       /* predict WHAT weights by */
  Expr *fractions; /* reduction at 1/3 and 2/3 */
} Setting;

/* when left operator right [and ...]: chain */
typedef struct Comparison {
  struct Comparison *next;
  Expr *left, *right;
  char operator; /* = ! < > l (<=) g (>=) */
} Comparison;

typedef struct Case {
  struct Case *next;
  Comparison *when; /* null: otherwise */
  Expr *chain;
} Case;

typedef struct Parameter {
  struct Parameter *next;
  Name name;
} Parameter;

typedef struct Entry { /* of a space */
  struct Entry *next;
  Name name;
  Expr *chain; /* null: the operation of this name */
  bool broken; /* the checker reported it */
} Entry;

typedef struct NodeSyntax {
  struct NodeSyntax *next;
  Span where; /* `node 2` */
  Expr *number;
  Expr *items; /* operation(source) */
  bool damaged;
} NodeSyntax;

typedef struct CellSyntax {
  struct CellSyntax *next;
  Name name; /* normal, reduction */
  NodeSyntax *nodes;
  bool damaged;
} CellSyntax;

typedef enum DeclarationKind {
  DECLARE_IMPORT,
  DECLARE_DATA,
  DECLARE_OP,
  DECLARE_SPACE,
  DECLARE_INTENSIVE,
  DECLARE_GENERATOR,
  DECLARE_HYPERNETWORK,
  DECLARE_SEARCH,
} DeclarationKind;

typedef struct Declaration {
  struct Declaration *next;
  DeclarationKind kind;
  Span where; /* its keyword */
  Name name;  /* import: the file's name without quotes */
  Name of;    /* intensive: the space; search: the hypernetwork */
  Name on;    /* search: the data */
  bool own;
  bool damaged;          /* a part of it was lost to a syntax error */
  Parameter *parameters; /* op */
  Case *cases;           /* op */
  Expr *chain;           /* generator */
  Expr *keep;            /* intensive */
  Entry *entries;
  CellSyntax *cells;
  Setting *settings;
  bool broken;      /* the checker reported it: what is built on it says no more */
  int mark, height; /* op: the checker's walk over definitions; how many stand on each other below this one */
} Declaration;

enum { BLOCK_DATA = 1, BLOCK_HYPERNETWORK = 2, BLOCK_SEARCH = 4, BLOCK_GENERATOR = 8, BLOCK_ANY = 15 };

/* The words as messages write them. */
const char *setting_word(SettingKind kind);
unsigned setting_blocks(SettingKind kind); /* bits BLOCK_... */
bool setting_find(const char *word, unsigned blocks, SettingKind *kind);
const char *declaration_word(DeclarationKind kind);
const char *block_word(unsigned block);

Span span_join(Span first, Span last);

static inline bool same_text(const char *a, const char *b) {
  return strcmp(a, b) == 0;
}

#endif
