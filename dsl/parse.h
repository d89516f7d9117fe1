/* Text to syntax tree: the state that scanner, token filter (parse.c) and grammar (parser.y) share.
 *
 * White space means nothing in a correct file. Where a file is wrong, the layout helps to guess what was meant: recovery skips
 * to the next word that is the first of its line. Between the scanner and the grammar stands a filter that balances brackets:
 * the grammar never sees an unbalanced one, and a declaration's keyword closes whatever is open (with a message). */
#ifndef ADWP_DSL_PARSE_H
#define ADWP_DSL_PARSE_H

#include "dsl/ast.h"

enum {
  PARSE_MAX_BRACKETS = 32,   /* brackets within brackets */
  PARSE_MAX_DEPTH = 64,      /* of an expression */
  PARSE_MAX_BYTES = 1 << 22, /* of a file */
  PARSE_MAX_NAME = 64,       /* characters of a name */
};

typedef struct Word { /* a word of the text, and the setting that it may be the word of */
  Name name;
  SettingKind setting;
} Word;

typedef struct Token {
  int kind; /* of the generated parser; 0: the end */
  Span where;
  bool first;     /* of its line */
  bool synthetic; /* a bracket that the filter closed */
  Word word;
  double number;
  bool whole;
  uint64_t exact;
  bool damaged; /* a number that could not be read */
} Token;

/* A chained list under construction. */
typedef struct Chained {
  void *head, *tail;
  bool damaged;
} Chained;

typedef struct Bracket {
  int kind;
  Span where;
} Bracket;

typedef struct Parse {
  const Source *source;
  Arena *arena;
  Diagnostics *diagnostics;
  void *scanner;
  uint32_t at;   /* the scanner's place in the source */
  bool newline;  /* nothing but white space since the last line end */
  bool stopped;  /* a limit was passed: give nothing but the end */
  bool ended;    /* the scanner gave the end */
  bool lost;     /* a declaration was skipped: names may be missing */
  bool too_deep; /* reported already */
  Bracket brackets[PARSE_MAX_BRACKETS];
  int bracket_count;
  Token pending[4]; /* read already, given next; the last one first */
  int pending_count;
  Token last;              /* given to the grammar last */
  int before_last;         /* the kind of the token before it */
  bool stray, after_stray; /* a character was dropped since the last token; before it */
  unsigned block;          /* BLOCK_... whose settings are read */
  Chained body;            /* of the operation that is read */
  Chained declarations;
  Setting *setting;   /* the result for `--set` */
  Argument *argument; /* the same for a setting's argument */
} Parse;

/* Parses a file; declarations in order. What was broken is `damaged` or missing, and reported; `*lost` becomes true where a
 * declaration is missing. */
Declaration *parse_file(const Source *source, Arena *arena, Diagnostics *diagnostics, bool *lost);

/* Parses what follows `=` in `--set data.train=2000 images` as this setting; null: reported. `word` is where it is named. */
Setting *parse_setting(const Source *source, uint32_t value_at, SettingKind kind, Span word, Arena *arena,
                       Diagnostics *diagnostics);

/* The same for `--set search.weights.lr=0.1`. */
Argument *parse_argument(const Source *source, uint32_t value_at, Name name, Arena *arena, Diagnostics *diagnostics);

/* The next token behind the filter. */
Token parse_next(Parse *parse);

#endif
