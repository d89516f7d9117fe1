/* What the grammar's actions call: constructors of the tree (ast.c), recovery and messages (parse.c). */
#ifndef ADWP_DSL_GRAMMAR_H
#define ADWP_DSL_GRAMMAR_H

#include "dsl/parse.h"

/* Appends to a list whose elements' first member is `next`. */
Chained chained(Chained list, void *item);

Declaration *declare(Parse *parse, DeclarationKind kind, Span where, Name name);
Expr *parse_expr(Parse *parse, ExprKind kind, Span where, Expr *left, Expr *right);
Expr *parse_append(Parse *parse, Expr *left, ExprKind kind, Expr *item); /* left: an element, or the list so far */
Expr *make_call(Parse *parse, Span where, Name name, Chained arguments);
Expr *make_list(Parse *parse, Span where, Chained items);
Argument *make_argument(Parse *parse, Name name, Expr *value, Name schedule);
Setting *make_setting(Parse *parse, Word word, Expr *value);
Parameter *make_parameter(Parse *parse, Name name);
Case *make_case(Parse *parse, Comparison *when, Expr *chain);
Comparison *make_comparison(Parse *parse, Expr *left, char operator, Expr * right);
Entry *make_entry(Parse *parse, Name name, Expr *chain);
CellSyntax *make_cell(Parse *parse, Name name, Chained nodes);
NodeSyntax *make_node(Parse *parse, Span where, Expr *number, Expr *items);
Name span_name(Parse *parse, Span where); /* the source's own text */

/* A setting that does not belong to the block that is read is an error. */
bool check_block(Parse *parse, const Setting *setting);
void unknown_setting(Parse *parse, Name name); /* says so, and skips its value */

/* Skip to the next of a kind after an error; `lookahead` is the token that did not fit, if one was read. `keep`: it starts the
 * next one itself. */
void parse_skip_setting(Parse *parse, int lookahead, bool has_lookahead, bool *keep);
void parse_skip_entry(Parse *parse, int lookahead, bool has_lookahead, bool *keep);
void parse_skip_node(Parse *parse, int lookahead, bool has_lookahead, bool *keep);
void parse_skip_bracket(Parse *parse, int lookahead, bool has_lookahead, bool *keep); /* to the closing one */
void parse_skip_declaration(Parse *parse, int lookahead, bool has_lookahead, bool *keep);

void dsl_parse_error(const Span *where, Parse *parse, const char *message);
void report_unexpected(Parse *parse, Span where, const char *const *expected, int count);

#endif
