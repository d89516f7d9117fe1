/* The scanner's actions, for the generated lexer alone. Each returns the token's kind after it filled in the token. */
#ifndef ADWP_DSL_SCAN_H
#define ADWP_DSL_SCAN_H

#include "dsl/parse.h"
#include "dsl/parser.h" /* generated; the token kinds */
#include "runtime/base/err.h"

void *scan_open(Parse *parse, const char *text, uint32_t size);
void scan_close(void *scanner);
int dsl_scan(void *scanner, Parse *parse, Token *token);

/* The token of a setting's word: one of its own where the grammar is more than `word value`. */
int setting_token(SettingKind kind);

/* Moves on by `length` bytes; the token spans them. */
void scan_advance(Parse *parse, Token *token, uint32_t length);

int scan_word(Parse *parse, Token *token);
int scan_number(Parse *parse, Token *token);
int scan_bad_number(Parse *parse, Token *token);
int scan_string(Parse *parse, Token *token, bool closed);
int scan_symbol(Parse *parse, Token *token, int kind);
int scan_end(Parse *parse, Token *token);
void scan_stray(Parse *parse, Token *token);

#endif
