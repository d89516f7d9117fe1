#include "dsl/parse.h"

#include "dsl/grammar.h"
#include "dsl/scan.h"
#include "dsl/suggest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- words and numbers ---- */

typedef struct Keyword {
  const char *word;
  int token;
} Keyword;

static const Keyword keywords[] = {
    {"import", IMPORT}, {"data", DATA}, {"op", OP}, {"own", OWN}, {"space", SPACE}, {"intensive", INTENSIVE},
    {"generator", GENERATOR}, {"hypernetwork", HYPERNETWORK}, {"search", SEARCH}, {"when", WHEN}, {"else", ELSE},
    {"of", OF}, {"on", ON}, {"at", AT}, {"and", AND}, {"by", BY}, {"x", X}, {"top", TOP}, {"node", NODE},
    {"epochs", EPOCHS}, {"epoch", EPOCHS}, {"images", IMAGES}, {"valid", VALID},
};

/* Settings whose grammar is more than `word value`. */
static int setting_token(SettingKind kind) {
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

_Static_assert(SEARCH - IMPORT == 8 && KEEP - SETTING == 10, "the grammar declares these tokens together");
static bool is_declaration(int kind) { return kind >= IMPORT && kind <= SEARCH; }
static bool is_setting(int kind) { return kind >= SETTING && kind <= KEEP; }

void scan_advance(Parse *parse, Token *token, uint32_t length) {
  token->where = (Span){parse->source, parse->at, parse->at + length};
  parse->at += length;
}

static int finish(Parse *parse, Token *token, int kind) {
  token->first = parse->newline;
  parse->newline = false;
  return token->kind = kind;
}

static const char *token_text(const Parse *parse, const Token *token) { return parse->source->text + token->where.begin; }

int scan_symbol(Parse *parse, Token *token, int kind) { return finish(parse, token, kind); }
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
    if (!strcmp(keywords[i].word, token->word.name.text)) return finish(parse, token, keywords[i].token);
  if (setting_find(token->word.name.text, ~0u, &token->word.setting)) return finish(parse, token, setting_token(token->word.setting));
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
  else diag_error(parse->diagnostics, token->where, "unexpected byte 0x%02x", byte);
  parse->newline = false;
  parse->stray = true;
}

/* ---- the filter ---- */

static Token read_token(Parse *parse) {
  if (parse->pending_count) return parse->pending[--parse->pending_count];
  Token token = {0};
  if (parse->stopped || parse->ended) scan_end(parse, &token);
  else dsl_scan(parse->scanner, parse, &token);
  parse->ended = token.kind == END;
  return token;
}

static void give_back(Parse *parse, Token token) { parse->pending[parse->pending_count++] = token; }

static int closer_of(int opener) { return opener == '(' ? ')' : opener == '[' ? ']' : '}'; }

/* Closes the innermost bracket before `next`, which the file left open. */
static Token close_bracket(Parse *parse, Token next) {
  Bracket open = parse->brackets[--parse->bracket_count];
  if (!parse->stopped) diag_error(parse->diagnostics, open.where, "this `%c` is never closed", open.kind);
  give_back(parse, next);
  return (Token){.kind = closer_of(open.kind), .where = {parse->source, next.where.begin, next.where.begin}, .synthetic = true};
}

static bool closes_some(const Parse *parse, int closer) {
  for (int i = parse->bracket_count; i > 0; i--)
    if (closer_of(parse->brackets[i - 1].kind) == closer) return true;
  return false;
}

/* `word value` at the start of a line cannot stand in parentheses: the setting before it was left open. */
static bool starts_setting(Parse *parse, Token token) {
  if (!token.first || token.kind == NAME || !is_setting(token.kind)) return false;
  Token next = read_token(parse);
  give_back(parse, next);
  return next.kind == NUMBER || next.kind == '[' || next.kind == NAME || next.kind == AT || next.kind == TOP || is_setting(next.kind);
}

static bool in_block(const Parse *parse) {
  for (int i = 0; i < parse->bracket_count; i++)
    if (parse->brackets[i].kind == '{') return true;
  return false;
}

Token parse_next(Parse *parse) {
  for (;;) {
    Token token = read_token(parse);
    const Bracket *top = parse->bracket_count ? &parse->brackets[parse->bracket_count - 1] : NULL;
    switch (token.kind) {
    case '(':
    case '[':
    case '{':
      if (parse->bracket_count == PARSE_MAX_BRACKETS) {
        diag_error(parse->diagnostics, token.where, "brackets are nested more than %d deep; the rest of the file is not read",
                   PARSE_MAX_BRACKETS);
        parse->stopped = true;
        parse->pending_count = 0;
        continue;
      }
      parse->brackets[parse->bracket_count++] = (Bracket){token.kind, token.where};
      return token;
    case ')':
    case ']':
    case '}':
      if (top && closer_of(top->kind) == token.kind) {
        parse->bracket_count--;
        return token;
      }
      if (closes_some(parse, token.kind)) return close_bracket(parse, token);
      diag_error(parse->diagnostics, token.where, "nothing is open that this `%c` could close", token.kind);
      continue;
    default:
      if (top && (token.kind == END || is_declaration(token.kind))) return close_bracket(parse, token);
      if (top && top->kind != '{' && in_block(parse) && starts_setting(parse, token)) return close_bracket(parse, token);
      return token;
    }
  }
}

int dsl_parse_lex(DSL_PARSE_STYPE *value, DSL_PARSE_LTYPE *where, Parse *parse) {
  Token token = parse_next(parse);
  parse->before_last = parse->last.kind;
  parse->last = token;
  parse->after_stray = parse->stray;
  parse->stray = false;
  *where = token.where;
  if (token.kind == NUMBER) {
    value->expr = parse_expr(parse, token.damaged ? EXPR_DAMAGED : EXPR_NUMBER, token.where, NULL, NULL);
    value->expr->number = token.number;
    value->expr->whole = token.whole;
    value->expr->exact = token.exact;
  } else if (token.kind == STRING) value->name = token.word.name;
  else value->word = token.word;
  return token.kind;
}

/* ---- recovery ---- */

/* May a token of this kind start the next setting, entry or node, standing first on its line or behind a comma? */
typedef bool (*Starts)(int kind, bool first);

static bool starts_any_setting(int kind, bool first) { return is_setting(kind) || (first && kind == NAME); }
static bool starts_entry(int kind, bool first) {
  (void)first;
  return kind == NAME || is_setting(kind);
}
static bool starts_node(int kind, bool first) { return kind == NODE && first; }

static int change_of_depth(int kind) {
  return kind == '(' || kind == '[' || kind == '{' ? 1 : kind == ')' || kind == ']' || kind == '}' ? -1 : 0;
}

static void skip(Parse *parse, int lookahead, bool has_lookahead, Starts starts, bool *keep) {
  int depth = 0;
  if (has_lookahead) {
    *keep = lookahead == '}' || lookahead == END || (parse->last.first && starts(lookahead, true));
    if (*keep) return;
    depth = change_of_depth(lookahead);
  }
  bool behind_comma = lookahead == ',';
  for (;;) {
    Token token = parse_next(parse);
    bool at_end = token.kind == END || (depth == 0 && token.kind == '}');
    bool at_start = depth == 0 && (token.first || behind_comma) && starts(token.kind, token.first);
    if (at_end || at_start) {
      if (token.kind == '}') parse->brackets[parse->bracket_count++] = (Bracket){'{', token.where}; /* it is read again */
      give_back(parse, token);
      return;
    }
    depth += change_of_depth(token.kind);
    behind_comma = depth == 0 && token.kind == ',';
  }
}

void parse_skip_setting(Parse *parse, int lookahead, bool has_lookahead, bool *keep) {
  skip(parse, lookahead, has_lookahead, starts_any_setting, keep);
}

void parse_skip_entry(Parse *parse, int lookahead, bool has_lookahead, bool *keep) {
  skip(parse, lookahead, has_lookahead, starts_entry, keep);
}

void parse_skip_node(Parse *parse, int lookahead, bool has_lookahead, bool *keep) {
  skip(parse, lookahead, has_lookahead, starts_node, keep);
}

void parse_skip_declaration(Parse *parse, int lookahead, bool has_lookahead, bool *keep) {
  parse->lost = true;
  bool misplaced = !parse->last.first && is_declaration(parse->before_last); /* `op data = ...`: a name was wanted */
  *keep = has_lookahead && (lookahead == END || (is_declaration(lookahead) && !misplaced));
  if (*keep) return;
  for (;;) {
    Token token = parse_next(parse);
    if (token.kind != END && !is_declaration(token.kind)) continue;
    give_back(parse, token);
    return;
  }
}

bool check_block(Parse *parse, const Setting *setting) {
  if (setting_blocks(setting->kind) & parse->block) return true;
  diag_error(parse->diagnostics, setting->where, "`%s` is no setting of `%s`", setting_word(setting->kind), block_word(parse->block));
  return false;
}

void unknown_setting(Parse *parse, Name name) {
  Suggestion suggestion = suggest_start(name.text);
  for (int i = 0; i < SETTING_COUNT; i++)
    if (setting_blocks((SettingKind)i) & parse->block) suggest_offer(&suggestion, setting_word((SettingKind)i));
  diag_error(parse->diagnostics, name.where, "`%s` has no setting `%s`%s", block_word(parse->block), name.text,
             suggest_text(&suggestion, parse->arena));
  bool keep;
  parse_skip_setting(parse, 0, false, &keep);
}

/* ---- messages and entries ---- */

static void add_word(Text *text, const char *word) {
  if (word[0] == '\'') text_printf(text, "`%c`", word[1]);
  else if (strncmp(word, "a ", 2) == 0 || strncmp(word, "the ", 4) == 0) text_add(text, word);
  else text_printf(text, "`%s`", word);
}

void report_unexpected(Parse *parse, Span where, const char *const *expected, int count) {
  enum { MOST = 5 };
  if (parse->last.synthetic || parse->stopped || parse->after_stray) return; /* reported already */
  Text text = {0};
  if (count > 0 && count <= MOST) {
    text_add(&text, "expected ");
    for (int i = 0; i < count; i++) {
      add_word(&text, expected[i]);
      text_add(&text, i + 2 < count ? ", " : i + 2 == count ? " or " : ", not ");
    }
  } else text_add(&text, "unexpected ");
  if (parse->last.kind == END) text_add(&text, parse->block == BLOCK_ANY ? "the end" : "the end of the file");
  else text_printf(&text, "`%.*s`", (int)(where.end - where.begin), where.source->text + where.begin);
  if (is_declaration(parse->last.kind) && count > 0 && !strcmp(expected[0], "a name"))
    text_add(&text, ", which is a word of the language");
  diag_error(parse->diagnostics, where, "%s", text.data);
  text_free(&text);
}

/* Bison's own messages: only the depth of its stack is left to it. */
void dsl_parse_error(const Span *where, Parse *parse, const char *message) {
  (void)message;
  diag_error(parse->diagnostics, *where, "this is nested too deeply; the rest of the file is not read");
  parse->lost = true;
}

/* ---- entries ---- */

static void run(Parse *parse, int start, uint32_t at) {
  const Source *source = parse->source;
  parse->at = at;
  parse->newline = true;
  give_back(parse, (Token){.kind = start, .where = {source, at, at}});
  parse->scanner = scan_open(parse, source->text + at, source->size - at);
  dsl_parse_parse(parse);
  scan_close(parse->scanner);
}

Declaration *parse_file(const Source *source, Arena *arena, Diagnostics *diagnostics, bool *lost) {
  Parse parse = {.source = source, .arena = arena, .diagnostics = diagnostics};
  run(&parse, START_FILE, 0);
  if (parse.lost || parse.stopped) *lost = true;
  return parse.declarations.head;
}

/* The word before `=` is given first, as if the file had written it in front of the value. */
Setting *parse_setting(const Source *source, uint32_t value_at, SettingKind kind, Span word, Arena *arena, Diagnostics *diagnostics) {
  Parse parse = {.source = source, .arena = arena, .diagnostics = diagnostics, .block = BLOCK_ANY};
  Name name = {setting_word(kind), word};
  if (kind == SETTING_AFTER) give_back(&parse, (Token){.kind = REDUCTION, .where = word, .word = {name, SETTING_REDUCTION}});
  give_back(&parse, (Token){.kind = setting_token(kind), .where = word, .word = {name, kind}});
  run(&parse, START_SETTING, value_at);
  return parse.setting;
}

Argument *parse_argument(const Source *source, uint32_t value_at, Name name, Arena *arena, Diagnostics *diagnostics) {
  Parse parse = {.source = source, .arena = arena, .diagnostics = diagnostics, .block = BLOCK_ANY};
  run(&parse, START_ARGUMENT, value_at);
  if (parse.argument) parse.argument->name = name;
  return parse.argument;
}
