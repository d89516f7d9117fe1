/* What the scanner makes of words, numbers and strays. Positions are bytes of the source. */
#include "dsl/scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct Keyword {
  const char *word;
  int token;
} Keyword;

static const Keyword keywords[] = {
    {"import", IMPORT},
    {"data", DATA},
    {"op", OP},
    {"own", OWN},
    {"space", SPACE},
    {"intensive", INTENSIVE},
    {"generator", GENERATOR},
    {"hypernetwork", HYPERNETWORK},
    {"search", SEARCH},
    {"when", WHEN},
    {"else", ELSE},
    {"of", OF},
    {"on", ON},
    {"at", AT},
    {"and", AND},
    {"by", BY},
    {"x", X},
    {"top", TOP},
    {"node", NODE},
    {"epochs", EPOCHS},
    {"epoch", EPOCHS},
    {"images", IMAGES},
    {"valid", VALID},
};

/* Settings whose grammar is more than `word value`. */
int setting_token(SettingKind kind) {
  switch (kind) {
  case SETTING_FORMAT: return FORMAT;
  case SETTING_SPLIT: return SPLIT;
  case SETTING_TRAIN: return TRAIN;
  case SETTING_CELLS: return CELLS;
  case SETTING_CHANNELS: return CHANNELS;
  case SETTING_REDUCTION: return REDUCTION;
  case SETTING_AFTER: return AFTER;
  case SETTING_PREDICT: return PREDICT;
  case SETTING_WEIGHTS: return WEIGHTS;
  case SETTING_KEEP: return KEEP;
  default: return SETTING;
  }
}

void scan_advance(Parse *parse, Token *token, uint32_t length) {
  token->where = (Span){parse->source, parse->at, parse->at + length};
  parse->at += length;
}

static int finish(Parse *parse, Token *token, int kind) {
  token->first = parse->newline;
  parse->newline = false;
  return token->kind = kind;
}

static const char *token_text(const Parse *parse, const Token *token) {
  return parse->source->text + token->where.begin;
}

int scan_symbol(Parse *parse, Token *token, int kind) {
  return finish(parse, token, kind);
}
int scan_end(Parse *parse, Token *token) {
  token->where = (Span){parse->source, parse->source->size, parse->source->size};
  return finish(parse, token, END);
}

int scan_word(Parse *parse, Token *token) {
  uint32_t length = token->where.end - token->where.begin;
  if (length > PARSE_MAX_NAME)
    diag_error(parse->diagnostics, token->where, "a name has at most %d characters, and this one has %u", PARSE_MAX_NAME, length);
  token->word.name = (Name){arena_copy_string(parse->arena, token_text(parse, token), length), token->where};
  for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
    if (same_text(keywords[i].word, token->word.name.text)) return finish(parse, token, keywords[i].token);
  if (setting_find(token->word.name.text, ~0u, &token->word.setting))
    return finish(parse, token, setting_token(token->word.setting));
  return finish(parse, token, NAME);
}

int scan_number(Parse *parse, Token *token) {
  uint32_t length = token->where.end - token->where.begin;
  const char *text = arena_copy_string(parse->arena, token_text(parse, token), length);
  token->number = strtod(text, NULL);
  if (token->number > 1e300) {
    diag_error(parse->diagnostics, token->where, "this number is too large");
    token->damaged = true;
  }
  if (strspn(text, "0123456789") == length) {
    errno = 0;
    token->exact = strtoull(text, NULL, 10);
    token->whole = errno == 0;
  }
  return finish(parse, token, NUMBER);
}

int scan_bad_number(Parse *parse, Token *token) {
  int digits = (int)strspn(token_text(parse, token), "0123456789.");
  diag_error(parse->diagnostics, token->where, "the number `%.*s` runs into a word; put a space between them", digits,
             token_text(parse, token));
  token->damaged = true;
  return finish(parse, token, NUMBER);
}

int scan_string(Parse *parse, Token *token, bool closed) {
  if (!closed) diag_error(parse->diagnostics, token->where, "this text has no closing `\"` on its line");
  uint32_t length = token->where.end - token->where.begin - (closed ? 2 : 1);
  token->word.name = (Name){arena_copy_string(parse->arena, token_text(parse, token) + 1, length), token->where};
  return finish(parse, token, STRING);
}

void scan_stray(Parse *parse, Token *token) {
  unsigned char byte = (unsigned char)*token_text(parse, token);
  int length = (int)(token->where.end - token->where.begin);
  if (length > 1 || (byte >= 0x20 && byte < 0x7f))
    diag_error(parse->diagnostics, token->where, "unexpected character `%.*s`", length, token_text(parse, token));
  else
    diag_error(parse->diagnostics, token->where, "unexpected byte 0x%02x", byte);
  parse->newline = false;
  parse->stray = true;
}
