/* The filter between scanner and grammar, recovery after errors, and the ways in; parse.h says how they belong together. */
#include "dsl/parse.h"

#include "dsl/grammar.h"
#include "dsl/scan.h"
#include "dsl/suggest.h"

#include <string.h>

_Static_assert(SEARCH - IMPORT == 8 && KEEP - SETTING == 10, "the grammar declares these tokens together");
static bool is_declaration(int kind) {
  return kind >= IMPORT && kind <= SEARCH;
}
static bool is_setting(int kind) {
  return kind >= SETTING && kind <= KEEP;
}

/* ---- the filter ---- */

static Token read_token(Parse *parse) {
  if (parse->pending_count) return parse->pending[--parse->pending_count];
  Token token = {0};
  if (parse->stopped || parse->ended)
    scan_end(parse, &token);
  else
    dsl_scan(parse->scanner, parse, &token);
  parse->ended = token.kind == END;
  return token;
}

static void give_back(Parse *parse, Token token) {
  parse->pending[parse->pending_count++] = token;
}

static int closer_of(int opener) {
  return opener == '(' ? ')' : opener == '[' ? ']' : '}';
}

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
  return next.kind == NUMBER || next.kind == '[' || next.kind == NAME || next.kind == AT || next.kind == TOP ||
         is_setting(next.kind);
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
  } else if (token.kind == STRING)
    value->name = token.word.name;
  else
    value->word = token.word;
  return token.kind;
}

/* ---- recovery ---- */

/* May a token of this kind start the next setting, entry or node, standing first on its line or behind a comma? */
typedef bool (*Starts)(int kind, bool first);

static bool starts_any_setting(int kind, bool first) {
  return is_setting(kind) || (first && kind == NAME);
}
static bool starts_entry(int kind, bool first) {
  (void)first;
  return kind == NAME || is_setting(kind);
}
static bool starts_node(int kind, bool first) {
  return kind == NODE && first;
}

static bool opens(int kind) {
  return kind == '(' || kind == '[' || kind == '{';
}
static bool closes(int kind) {
  return kind == ')' || kind == ']' || kind == '}';
}

/* Gives a closing bracket that was read already once more. */
static void give_back_closer(Parse *parse, Token token) {
  int opener = token.kind == ')' ? '(' : token.kind == ']' ? '[' : '{';
  parse->brackets[parse->bracket_count++] = (Bracket){opener, token.where};
  give_back(parse, token);
}

/* Reads on behind `lookahead` to the bracket that closes what surrounds it, or to a token that `starts` the next one, if given;
 * that is the next token then. */
static void skip(Parse *parse, int lookahead, Starts starts) {
  int depth = opens(lookahead) ? 1 : 0;
  bool behind_comma = lookahead == ',';
  for (;;) {
    Token token = parse_next(parse);
    bool at_start = starts && depth == 0 && (token.first || behind_comma) && starts(token.kind, token.first);
    if (at_start || token.kind == END || is_declaration(token.kind)) {
      give_back(parse, token);
      return;
    }
    if (depth == 0 && closes(token.kind)) {
      give_back_closer(parse, token);
      return;
    }
    depth += opens(token.kind) ? 1 : closes(token.kind) ? -1 : 0;
    behind_comma = depth == 0 && token.kind == ',';
  }
}

static void skip_in_block(Parse *parse, int lookahead, bool has_lookahead, Starts starts, bool *keep) {
  *keep = has_lookahead && (lookahead == '}' || (parse->last.first && starts(lookahead, true)));
  if (!*keep) skip(parse, has_lookahead ? lookahead : 0, starts);
}

void parse_skip_bracket(Parse *parse, int lookahead, bool has_lookahead, bool *keep) {
  *keep = has_lookahead && closes(lookahead);
  if (!*keep) skip(parse, has_lookahead ? lookahead : 0, NULL);
}

void parse_skip_setting(Parse *parse, int lookahead, bool has_lookahead, bool *keep) {
  skip_in_block(parse, lookahead, has_lookahead, starts_any_setting, keep);
}

void parse_skip_entry(Parse *parse, int lookahead, bool has_lookahead, bool *keep) {
  skip_in_block(parse, lookahead, has_lookahead, starts_entry, keep);
}

void parse_skip_node(Parse *parse, int lookahead, bool has_lookahead, bool *keep) {
  skip_in_block(parse, lookahead, has_lookahead, starts_node, keep);
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
  diag_error(parse->diagnostics, setting->where, "`%s` is no setting of `%s`", setting_word(setting->kind),
             block_word(parse->block));
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
  if (word[0] == '\'')
    text_printf(text, "`%c`", word[1]);
  else if (strncmp(word, "a ", 2) == 0 || strncmp(word, "the ", 4) == 0)
    text_add(text, word);
  else
    text_printf(text, "`%s`", word);
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
  } else
    text_add(&text, "unexpected ");
  if (parse->last.kind == END)
    text_add(&text, parse->block == BLOCK_ANY ? "the end" : "the end of the file");
  else
    text_printf(&text, "`%.*s`", (int)(where.end - where.begin), where.source->text + where.begin);
  if (is_declaration(parse->last.kind) && count > 0 && same_text(expected[0], "a name"))
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
Setting *parse_setting(const Source *source, uint32_t value_at, SettingKind kind, Span word, Arena *arena,
                       Diagnostics *diagnostics) {
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
