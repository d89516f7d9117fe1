/* Text to syntax tree: the state that scanner, token filter (parse.c) and grammar (parser.y) share.
 *
 * White space means nothing in a correct file. Where a file is wrong, the layout helps to guess what was meant: recovery skips
 * to the next word that is the first of its line. Between the scanner and the grammar stands a filter that balances brackets:
 * the grammar never sees an unbalanced one, and a declaration's keyword closes whatever is open (with a message). */
#ifndef ADWP_DSL_PARSE_H
#define ADWP_DSL_PARSE_H

#include "dsl/ast.h"

enum {
  PARSE_MAX_BRACKETS = 32,      /* brackets within brackets */
  PARSE_MAX_DEPTH = 64,         /* of an expression */
  PARSE_MAX_BYTES = 1 << 22,    /* of a file */
  PARSE_MAX_NAME = 64,          /* characters of a name */
};

typedef struct Word { /* a word of the text, and the setting that it may be the word of */
  Name name;
  SettingKind setting;
} Word;

typedef struct Token {
  int kind; /* of the generated parser; 0: the end */
  Span where;
  bool first; /* of its line */
  Word word;
  double number;
  bool whole;
  uint64_t exact;
} Token;

typedef struct Bracket {
  int kind;
  Span where;
} Bracket;

typedef struct Parse {
  const Source *source;
  Arena *arena;
  Diagnostics *diagnostics;
  void *scanner;
  uint32_t at;        /* the scanner's place in the source */
  bool newline;       /* nothing but white space since the last line end */
  bool quiet;         /* while skipping: say nothing about brackets */
  Bracket brackets[PARSE_MAX_BRACKETS];
  int bracket_count;
  Token pending[2];   /* read already, given next; the last one first */
  int pending_count;
  Token last;         /* given to the grammar last */
  bool gave_start;
  int start;
  Declaration *declarations, **declarations_end;
  Setting *setting;   /* the result for `--set` */
  Argument *argument; /* the same for a setting's argument */
  int errors_before;
} Parse;

/* Parses a file; declarations in order. What was broken is `damaged` or missing, and reported. */
Declaration *parse_file(const Source *source, Arena *arena, Diagnostics *diagnostics);

/* Parses what follows `=` in `--set data.train=2000 images` as this setting; null: reported. `word` is where it is named. */
Setting *parse_setting(const Source *source, uint32_t value_at, SettingKind kind, Span word, Arena *arena, Diagnostics *diagnostics);

/* The same for `--set search.weights.lr=0.1`. */
Argument *parse_argument(const Source *source, uint32_t value_at, Name name, Arena *arena, Diagnostics *diagnostics);

/* For the scanner and the grammar. */
Token parse_next(Parse *parse);
void parse_skip_setting(Parse *parse, int lookahead, bool has_lookahead, bool *keep);
void parse_skip_declaration(Parse *parse, int lookahead, bool has_lookahead, bool *keep);
void parse_skip_entry(Parse *parse, int lookahead, bool has_lookahead, bool *keep);
Expr *parse_expr(Parse *parse, ExprKind kind, Span where, Expr *left, Expr *right);
Expr *parse_append(Parse *parse, Expr *list, ExprKind kind, Expr *item);

#endif
