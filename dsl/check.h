/* The checker's inside: names, arity, numbers, shapes; from syntax trees to the Model.
 *
 * A check says what is wrong at the place where it is wrong and goes on. What was reported is marked `broken` (or was left
 * `damaged` by the parser), and whatever is built on it is quiet, so that one mistake gives one message. */
#ifndef ADWP_DSL_CHECK_H
#define ADWP_DSL_CHECK_H

#include "dsl/ast.h"
#include "dsl/model.h"
#include "dsl/suggest.h"

#include <stddef.h>

enum {
  LIMIT_CELLS = 200,
  LIMIT_NODES = 32,      /* of a cell */
  LIMIT_CANDIDATES = 64, /* kept for a node */
  LIMIT_CHANNELS = 1 << 16,
  LIMIT_SIDE = 1 << 12,
  LIMIT_IMAGE = 1 << 26, /* numbers in the activation of one image */
  LIMIT_STAGES = 200000, /* primitives of a whole model */
  LIMIT_WORK = 2000000,  /* steps to instantiate it */
  LIMIT_HEIGHT = 16,     /* operations defined by operations */
  LIMIT_BRANCHES = 16,   /* `concat` and `add` within one another, operations expanded */
  LIMIT_CLASSES = 1 << 16,
  LIMIT_ENTRIES = 256, /* operations of a space */
  LIMIT_EPOCHS = 1000000,
  LIMIT_BATCH = 1 << 16,
};

/* One `--set`. */
typedef struct Override {
  struct Override *next; /* an earlier one: the last counts */
  const char *target;    /* a kind of block, or a declaration's name */
  Span where;            /* of the target */
  unsigned blocks;       /* the blocks that it may mean */
  SettingKind kind;
  Setting *setting;   /* a whole setting, or */
  Argument *argument; /* one argument of it, or */
  Name unknown;       /* what no block has, of a declaration that is not known before the file is; kind is SETTING_COUNT */
  bool used;
} Override;

typedef struct Scope Scope;

typedef struct Checker {
  Arena *arena;
  Diagnostics *diagnostics;
  Scope *scope;
  bool incomplete; /* declarations were lost: an unknown name may be one of them */
  const Source *main;
  Declaration *defaults; /* of the standard library's defaults.adwp */
  Override *overrides;
  const Declaration *used[4]; /* data, hypernetwork, search, generator of the search */
  Span *reported;             /* places of errors that are found anew in each cell */
  size_t reported_count, reported_room;
  int stages, work;
  int walk;       /* definitions that are open while operations are checked */
  bool exhausted; /* a limit of these two was reported */
} Checker;

/* What a file's loading gives to the checker. */
typedef struct Files {
  const Source *main;
  Declaration *declarations; /* of all files, imports first */
  Declaration *defaults;
  Override *overrides;
  bool lost;
} Files;

const Model *check_files(const Files *files, Arena *arena, Diagnostics *diagnostics);

/* ---- scope.c ---- */
Scope *scope_new(Arena *arena, size_t declarations);
/* Null, or the declaration of this kind and name that is there already. */
Declaration *scope_add(Scope *scope, Declaration *declaration);
Declaration *scope_find(const Scope *scope, DeclarationKind kind, const char *name);
void scope_suggest(const Scope *scope, DeclarationKind kind, Suggestion *suggestion);
/* Finds, or reports an unknown one. */
Declaration *check_name(Checker *checker, DeclarationKind kind, Name name);
/* Reports at a place once: false where it was reported before. */
bool check_first(Checker *checker, Span where);

/* ---- evaluate.c ---- */
typedef struct Environment { /* what names stand for; 0: has no value here */
  int channels, stride, classes;
  const Parameter *parameters;
  const double *values;
} Environment;

/* Only numbers and arithmetic, and names that have a value somewhere. */
bool check_number(Checker *checker, const Expr *expr, const Parameter *parameters);
bool evaluate(Checker *checker, const Expr *expr, const Environment *environment, double *value);
/* `what` begins the message: "batch". */
bool evaluate_whole(Checker *checker, const Expr *expr, const Environment *environment, int low, int high, const char *what,
                    int *value);
bool evaluate_real(Checker *checker, const Expr *expr, double low, double high, const char *what, double *value);
/* `a x b`, or one number for both. */
bool evaluate_pair(Checker *checker, const Expr *expr, const Environment *environment, int low, int high, const char *what,
                   int value[2]);

/* ---- check_ops.c ---- */
typedef enum PrimitiveWord {
#define PRIMITIVE(NAME, word, required, optional) WORD_##NAME,
#include "dsl/primitives.def"
#undef PRIMITIVE
  WORD_COUNT
} PrimitiveWord;

enum { MOST_ARGUMENTS = 16 };
typedef struct Signature {
  const char *name;
  const char *arguments[MOST_ARGUMENTS];
  int required, count;
  bool variadic; /* chains */
} Signature;

bool primitive_find(const char *name, PrimitiveWord *word);
Signature primitive_signature(PrimitiveWord word);
/* Sorts a call's arguments by the signature; `bound[i]` is null where an optional one is not given. */
bool bind_arguments(Checker *checker, const Expr *call, const Signature *signature, const Argument *bound[MOST_ARGUMENTS]);
bool check_chain(Checker *checker, Expr *expr, const Parameter *parameters);
void check_op(Checker *checker, Declaration *op);
void check_space(Checker *checker, Declaration *space);

/* ---- instantiate.c ---- */
typedef struct Place { /* where a chain stands: for its stages' names and for messages */
  const char *what;    /* "`sep_conv_3x3(0)` of node 2 in cell 3 (reduction)" */
  Span where;
  int hidden; /* its convolutions' weights are predicted by generators of this width, but not in an `own op`; 0: none are */
} Place;

bool instantiate(Checker *checker, const Expr *chain, const Environment *environment, const Place *place, Shape in, Chain *out);
bool shape_equal(Shape a, Shape b);
const char *shape_text(Arena *arena, Shape shape); /* "16 x 32 x 32" */

/* ---- check_intensive.c ---- */
typedef struct Pair {
  const Entry *entry;
  int index, source;
  Span where;
} Pair;

typedef struct NodeSpace {
  Pair *pairs;
  int count;
} NodeSpace;

typedef struct CellSpace {
  bool given;
  NodeSpace *nodes;
  int count;
} CellSpace;

typedef struct IntensiveSpace {
  const Declaration *declaration, *space;
  CellSpace kinds[2]; /* normal, reduction */
  int keep;
} IntensiveSpace;

/* Null: reported. */
const IntensiveSpace *check_intensive(Checker *checker, Declaration *intensive);

/* ---- settings ---- */
/* The setting in force: `--set`, the file's, the default; null where there is none of them. */
const Setting *setting_of(Checker *checker, const Declaration *block, SettingKind kind);
/* An argument of a setting that is a call: the same order; null where there is none. */
const Argument *argument_of(Checker *checker, const Declaration *block, SettingKind kind, const Expr *call, const char *name);
const Setting *setting_given(const Checker *checker, const Declaration *block, SettingKind kind); /* without the default */
const Declaration *default_of(const Checker *checker, DeclarationKind kind);
void check_twice(Checker *checker, const Declaration *block);
bool check_unit(Checker *checker, const Setting *setting, const char *unit); /* null: it has none */
bool is_name(const Expr *expr, const char *name);

bool check_data(Checker *checker, const Declaration *declaration, DataSet *data);
bool check_search(Checker *checker, const Declaration *declaration, Search *search);
bool check_generator(Checker *checker, const Declaration *declaration, Generator *generator);

/* ---- check_hypernetwork.c ---- */
typedef struct Backbone { /* a hypernetwork's settings */
  int cell_count, channels;
  bool *reduction; /* a cell */
  const Expr *stem, *preprocess, *after, *head;
  const Declaration *intensive, *generator;
} Backbone;

bool check_backbone(Checker *checker, const Declaration *declaration, Backbone *backbone);
/* Stem, cells and head of the model, whose data and generator are known. */
bool build_cells(Checker *checker, const Backbone *backbone, const IntensiveSpace *space, Model *model);

/* ---- overrides.c ---- */
/* Reads the texts of `--set`; the list's first element is the last given. */
Override *read_overrides(const char *const *texts, size_t count, Arena *arena, Diagnostics *diagnostics);
void check_overrides(Checker *checker);

/* What dsl_print_model and dsl_print_spec need beyond the Model's numbers. */
typedef struct ModelSyntax {
  const Scope *scope;
  const Declaration *data, *space, *intensive, *generator, *hypernetwork;
  const IntensiveSpace *pairs;
  Backbone backbone;
} ModelSyntax;

#endif
