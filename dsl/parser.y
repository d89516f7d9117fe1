/* The grammar of `.adwp` files; docs/language.md is its reference. Actions only build the tree: what a thing means, and whether
 * it may stand there, is the checker's business.
 *
 * Recovery: an error inside brackets is given up at the closing one; an error in a setting, entry or node at the next one; in a
 * declaration at the next declaration. parse.c keeps brackets balanced, so none of these can run past its end. */
%define api.pure full
%define api.prefix {dsl_parse_}
%define api.location.type {Span}
%define parse.error custom
%define parse.lac full
%expect 0
%locations
%param {Parse *parse}

%code requires {
#include "dsl/parse.h"
}

%code provides {
int dsl_parse_lex(DSL_PARSE_STYPE *value, DSL_PARSE_LTYPE *where, Parse *parse);
}

%code {
#include "dsl/grammar.h"

#include <string.h>

#define YYLLOC_DEFAULT(current, rhs, count)                                                                            \
  ((current) = (count) ? span_join(YYRHSLOC(rhs, 1), YYRHSLOC(rhs, count))                                             \
                       : (Span){YYRHSLOC(rhs, 0).source, YYRHSLOC(rhs, 0).end, YYRHSLOC(rhs, 0).end})

/* After `error`: skips, and drops the token that did not fit unless the next attempt starts with it. */
#define RECOVER(skip)                                                                                                  \
  do {                                                                                                                 \
    bool keep_token = false;                                                                                           \
    skip(parse, yychar, yychar != DSL_PARSE_EMPTY, &keep_token);                                                      \
    if (!keep_token) yyclearin;                                                                                        \
    yyerrok;                                                                                                           \
  } while (0)
}

%union {
  Word word;
  Expr *expr;
  Argument *argument;
  Setting *setting;
  Case *cases;
  Comparison *comparison;
  Entry *entry;
  NodeSyntax *node;
  CellSyntax *cell;
  Parameter *parameter;
  Chained list;
  Name name;
  char operator;
  bool flag;
}

%token END 0 "the end of the file"
%token START_FILE START_SETTING START_ARGUMENT
%token <expr> NUMBER "a number"
%token <name> STRING "a file name in quotes"
%token <word> NAME "a name" SETTING "a setting"
%token <word> FORMAT "format" SPLIT "split" TRAIN "train" CELLS "cells" CHANNELS "channels" REDUCTION "reduction" AFTER "after"
%token <word> PREDICT "predict" WEIGHTS "weights" KEEP "keep"
%token <word> OF "of" ON "on" AT "at" AND "and" BY "by" X "x" TOP "top" NODE "node"
%token <word> EPOCHS "epochs" IMAGES "images" VALID "valid"
%token IMPORT "import" DATA "data" OP "op" OWN "own" SPACE "space" INTENSIVE "intensive" GENERATOR "generator"
%token HYPERNETWORK "hypernetwork" SEARCH "search" WHEN "when" ELSE "else"
%token ARROW "->" DOTS ".." EQUAL "==" UNEQUAL "!=" AT_MOST "<=" AT_LEAST ">="

%type <name> name any_name hyphenated
%type <word> setting_word word
%type <expr> value chain sum product unary postfix primary sizes item fraction
%type <list> arguments some_arguments values settings entries nodes items cells fractions
%type <list> parameters some_parameters conditions cases
%type <argument> argument
%type <setting> setting setting_body
%type <comparison> comparison
%type <operator> comparator
%type <entry> entry
%type <node> node
%type <cell> cell
%type <parameter> parameter
%type <flag> own

%start input

%%

input
  : START_FILE file
  | START_SETTING setting_body          { parse->setting = $2; }
  | START_ARGUMENT argument             { parse->argument = $2; }
  ;

file
  : %empty
  | file declaration
  | file error                          { RECOVER(parse_skip_declaration); }
  ;

declaration
  : IMPORT STRING                       { declare(parse, DECLARE_IMPORT, @1, $2); }
  | DATA name { parse->block = BLOCK_DATA; } '{' settings '}'
                                        { Declaration *d = declare(parse, DECLARE_DATA, @1, $2);
                                          d->settings = $5.head; d->damaged = $5.damaged; }
  | own OP name parameters '=' body     { Declaration *d = declare(parse, DECLARE_OP, @2, $3);
                                          d->own = $1; d->parameters = $4.head; d->cases = parse->body.head; }
  | SPACE name '=' '{' entries '}'      { Declaration *d = declare(parse, DECLARE_SPACE, @1, $2);
                                          d->entries = $5.head; d->damaged = $5.damaged; }
  | INTENSIVE name OF name KEEP sum '{' cells '}'
                                        { Declaration *d = declare(parse, DECLARE_INTENSIVE, @1, $2);
                                          d->of = $4; d->keep = $6; d->cells = $8.head; d->damaged = $8.damaged; }
  | GENERATOR name '=' chain            { declare(parse, DECLARE_GENERATOR, @1, $2)->chain = $4; }
  | HYPERNETWORK name { parse->block = BLOCK_HYPERNETWORK; } '{' settings '}'
                                        { Declaration *d = declare(parse, DECLARE_HYPERNETWORK, @1, $2);
                                          d->settings = $5.head; d->damaged = $5.damaged; }
  | SEARCH name ON name { parse->block = BLOCK_SEARCH; } '{' settings '}'
                                        { Declaration *d = declare(parse, DECLARE_SEARCH, @1, $2);
                                          d->of = $2; d->on = $4; d->settings = $7.head; d->damaged = $7.damaged; }
  ;

own
  : %empty                              { $$ = false; }
  | OWN                                 { $$ = true; }
  ;

parameters
  : %empty                              { $$ = (Chained){0}; }
  | '(' some_parameters ')'             { $$ = $2; }
  | '(' damaged ')'                     { $$ = (Chained){.damaged = true}; }
  ;

some_parameters
  : parameter                           { $$ = chained((Chained){0}, $1); }
  | some_parameters ',' parameter       { $$ = chained($1, $3); }
  ;

parameter
  : name                                { $$ = make_parameter(parse, $1); }
  ;

body
  : chain                               { parse->body = chained((Chained){0}, make_case(parse, NULL, $1)); }
  | cases ELSE ':' chain                { parse->body = chained($1, make_case(parse, NULL, $4)); }
  ;

cases
  : WHEN conditions ':' chain ','       { $$ = chained((Chained){0}, make_case(parse, $2.head, $4)); }
  | cases WHEN conditions ':' chain ',' { $$ = chained($1, make_case(parse, $3.head, $5)); }
  ;

conditions
  : comparison                          { $$ = chained((Chained){0}, $1); }
  | conditions AND comparison           { $$ = chained($1, $3); }
  ;

comparison
  : sum comparator sum                  { $$ = make_comparison(parse, $1, $2, $3); }
  ;

comparator
  : EQUAL                               { $$ = '='; }
  | UNEQUAL                             { $$ = '!'; }
  | '<'                                 { $$ = '<'; }
  | '>'                                 { $$ = '>'; }
  | AT_MOST                             { $$ = 'l'; }
  | AT_LEAST                            { $$ = 'g'; }
  ;

entries
  : %empty                              { $$ = (Chained){0}; }
  | entries entry                       { $$ = chained($1, $2); }
  | entries ','                         { $$ = $1; }
  | entries error                       { RECOVER(parse_skip_entry); $$ = $1; $$.damaged = true; }
  ;

entry
  : any_name                            { $$ = make_entry(parse, $1, NULL); }
  | any_name '=' chain                  { $$ = make_entry(parse, $1, $3); }
  ;

cells
  : %empty                              { $$ = (Chained){0}; }
  | cells cell                          { $$ = chained($1, $2); }
  | cells error                         { RECOVER(parse_skip_entry); $$ = $1; $$.damaged = true; }
  ;

cell
  : name '{' nodes '}'                  { $$ = make_cell(parse, $1, $3); }
  ;

nodes
  : %empty                              { $$ = (Chained){0}; }
  | nodes node                          { $$ = chained($1, $2); }
  | nodes error                         { RECOVER(parse_skip_node); $$ = $1; $$.damaged = true; }
  ;

node
  : NODE sum ':' items                  { $$ = make_node(parse, span_join(@1, @2), $2, $4.head); }
  ;

items
  : item                                { $$ = chained((Chained){0}, $1); }
  | items ',' item                      { $$ = chained($1, $3); }
  ;

item
  : primary
  ;

settings
  : %empty                              { $$ = (Chained){0}; }
  | settings setting                    { $$ = $2 ? chained($1, $2) : $1; $$.damaged |= !$2; }
  | settings ','                        { $$ = $1; }
  | settings error                      { RECOVER(parse_skip_setting); $$ = $1; $$.damaged = true; }
  ;

setting
  : setting_body                        { $$ = check_block(parse, $1) ? $1 : NULL; }
  | NAME                                { unknown_setting(parse, $1.name); $$ = NULL; }
  ;

setting_body
  : SETTING value                       { $$ = make_setting(parse, $1, $2); }
  | WEIGHTS value                       { $$ = make_setting(parse, $1, $2); }
  | TRAIN value                         { $$ = make_setting(parse, $1, $2); }
  | TRAIN value EPOCHS                  { $$ = make_setting(parse, $1, $2); $$->unit = $3.name; }
  | TRAIN value IMAGES                  { $$ = make_setting(parse, $1, $2); $$->unit = $3.name; }
  | SETTING value EPOCHS                { $$ = make_setting(parse, $1, $2); $$->unit = $3.name; }
  | SETTING value IMAGES                { $$ = make_setting(parse, $1, $2); $$->unit = $3.name; }
  | FORMAT hyphenated                   { $$ = make_setting(parse, $1, NULL); $$->name = $2; }
  | SPLIT value TRAIN ',' value VALID   { $$ = make_setting(parse, $1, $2); $$->second = $5; }
  | CELLS value                         { $$ = make_setting(parse, $1, $2); }
  | CELLS value OF name                 { $$ = make_setting(parse, $1, $2); $$->name = $4; }
  | CHANNELS value                      { $$ = make_setting(parse, $1, $2); }
  | CHANNELS name '=' value             { $$ = make_setting(parse, $1, $4); $$->what = $2; }
  | REDUCTION AT fractions              { $$ = make_setting(parse, $1, NULL); $$->fractions = $3.head; }
  | REDUCTION NAME                      { $$ = make_setting(parse, $1, NULL); $$->what = $2.name; }
  | AFTER REDUCTION value               { $$ = make_setting(parse, $1, $3); $$->where = span_join(@1, @2); }
  | PREDICT name WEIGHTS BY name        { $$ = make_setting(parse, $1, NULL); $$->what = $2; $$->name = $5; }
  | KEEP TOP value                      { $$ = make_setting(parse, $1, $3); }
  ;

fractions
  : fraction                            { $$ = chained((Chained){0}, $1); }
  | fractions AND fraction              { $$ = chained($1, $3); }
  ;

fraction
  : sum
  ;

hyphenated
  : any_name
  | hyphenated '-' any_name             { $$ = span_name(parse, @$); }
  ;

value
  : chain
  | sizes
  | sum DOTS sum                        { $$ = parse_expr(parse, EXPR_RANGE, @$, $1, $3); }
  ;

sizes
  : sum X sum                           { $$ = parse_append(parse, $1, EXPR_SIZE, $3); }
  | sizes X sum                         { $$ = parse_append(parse, $1, EXPR_SIZE, $3); }
  ;

chain
  : sum
  | chain ARROW sum                     { $$ = parse_append(parse, $1, EXPR_CHAIN, $3); }
  ;

sum
  : product
  | sum '+' product                     { $$ = parse_expr(parse, EXPR_BINARY, @$, $1, $3); $$->operator = '+'; }
  | sum '-' product                     { $$ = parse_expr(parse, EXPR_BINARY, @$, $1, $3); $$->operator = '-'; }
  ;

product
  : unary
  | product '*' unary                   { $$ = parse_expr(parse, EXPR_BINARY, @$, $1, $3); $$->operator = '*'; }
  | product '/' unary                   { $$ = parse_expr(parse, EXPR_BINARY, @$, $1, $3); $$->operator = '/'; }
  ;

unary
  : postfix
  | '-' unary                           { $$ = parse_expr(parse, EXPR_NEGATE, @$, $2, NULL); }
  ;

postfix
  : primary
  | postfix '%'                         { $$ = parse_expr(parse, EXPR_PERCENT, @$, $1, NULL); }
  ;

primary
  : NUMBER
  | name                                { $$ = make_call(parse, @$, $1, (Chained){0}); $$->kind = EXPR_NAME; }
  | name '(' arguments ')'              { $$ = make_call(parse, @$, $1, $3); }
  | name '(' damaged ')'                { $$ = make_call(parse, @$, $1, (Chained){.damaged = true}); }
  | '[' values ']'                      { $$ = make_list(parse, @$, $2); }
  | '[' damaged ']'                     { $$ = parse_expr(parse, EXPR_DAMAGED, @$, NULL, NULL); }
  | '(' chain ')'                       { $$ = $2; }
  | '(' damaged ')'                     { $$ = parse_expr(parse, EXPR_DAMAGED, @$, NULL, NULL); }
  ;

damaged
  : error                               { RECOVER(parse_skip_bracket); }
  ;

values
  : %empty                              { $$ = (Chained){0}; }
  | value                               { $$ = chained((Chained){0}, $1); }
  | values ',' value                    { $$ = chained($1, $3); }
  ;

arguments
  : %empty                              { $$ = (Chained){0}; }
  | some_arguments
  ;

some_arguments
  : argument                            { $$ = chained((Chained){0}, $1); }
  | some_arguments ',' argument         { $$ = chained($1, $3); }
  ;

argument
  : value                               { $$ = make_argument(parse, (Name){0}, $1, (Name){0}); }
  | name ':' value                      { $$ = make_argument(parse, $1, $3, (Name){0}); }
  | value NAME                          { $$ = make_argument(parse, (Name){0}, $1, $2.name); }
  | name ':' value NAME                 { $$ = make_argument(parse, $1, $3, $4.name); }
  ;

/* Every word but a declaration's is a name where a name stands. */
any_name
  : name
  ;

name
  : word                                { $$ = $1.name; }
  ;

word
  : NAME | setting_word | OF | ON | AT | AND | BY | X | TOP | NODE | EPOCHS | IMAGES | VALID
  ;

setting_word
  : SETTING | FORMAT | SPLIT | TRAIN | CELLS | CHANNELS | REDUCTION | AFTER | PREDICT | WEIGHTS | KEEP
  ;

%%

static bool symbols_have(const yysymbol_kind_t *symbols, int count, yysymbol_kind_t wanted) {
  for (int i = 0; i < count; i++)
    if (symbols[i] == wanted) return true;
  return false;
}

static bool is_operator(yysymbol_kind_t kind) {
  const char *name = yysymbol_name(kind);
  return (name[0] == '\'' && strchr("+-*/%", name[1])) || kind == YYSYMBOL_ARROW || kind == YYSYMBOL_DOTS || kind == YYSYMBOL_X;
}

/* Says what was found and what could have stood there; what may go on after a whole value (operators) is not worth a word. */
static int yyreport_syntax_error(const yypcontext_t *context, Parse *parse) {
  enum { ROOM = 100 };
  yysymbol_kind_t expected[ROOM];
  int count = yypcontext_expected_tokens(context, expected, ROOM);
  bool any_word = symbols_have(expected, count, YYSYMBOL_ON) && symbols_have(expected, count, YYSYMBOL_NAME);
  bool value = any_word && symbols_have(expected, count, YYSYMBOL_NUMBER);
  bool setting = !any_word && symbols_have(expected, count, YYSYMBOL_SETTING);
  bool declaration = symbols_have(expected, count, YYSYMBOL_IMPORT), end = symbols_have(expected, count, YYSYMBOL_YYEOF);
  const char *words[ROOM + 4];
  int used = 0;
  if (value) words[used++] = "a value";
  else if (any_word) words[used++] = "a name";
  if (setting) words[used++] = "a setting";
  if (declaration) words[used++] = "a declaration";
  for (int i = 0; i < count; i++) {
    yysymbol_kind_t kind = expected[i];
    const char *name = yysymbol_name(kind);
    if (is_operator(kind) || kind == YYSYMBOL_YYEOF) continue;
    if ((any_word || setting) && kind >= YYSYMBOL_NAME && kind <= YYSYMBOL_VALID) continue;
    if (value && (kind == YYSYMBOL_NUMBER || strchr("[(", name[1]))) continue;
    if (end && (kind == YYSYMBOL_EPOCHS || kind == YYSYMBOL_IMAGES)) continue;
    if (declaration && kind >= YYSYMBOL_IMPORT && kind <= YYSYMBOL_SEARCH) continue;
    words[used++] = name;
  }
  report_unexpected(parse, *yypcontext_location(context), words, used);
  return 0;
}
