/* Messages: place, line and caret. A line is shown as a terminal can show it, whatever bytes it holds. */
#include "dsl/source.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ERROR_LIMIT = 100, WIDEST = 120, BEFORE_CARET = 60 };

/* Columns count characters: a byte that continues a UTF-8 sequence has none of its own. */
static bool continues(char byte) {
  return ((unsigned char)byte & 0xc0) == 0x80;
}

typedef struct Line {
  uint32_t begin, end; /* bytes of the source, without the line end */
  int number, column;  /* of the place, from 1 */
} Line;

static Line line_of(const Source *source, uint32_t place) {
  if (place > source->size) place = source->size;
  Line line = {.number = 1, .column = 1};
  for (uint32_t i = 0; i < place; i++) {
    if (source->text[i] != '\n') continue;
    line.number++;
    line.begin = i + 1;
  }
  for (uint32_t i = line.begin; i < place; i++) line.column += !continues(source->text[i]);
  line.end = line.begin;
  while (line.end < source->size && source->text[line.end] != '\n') line.end++;
  if (line.end > line.begin && source->text[line.end - 1] == '\r') line.end--;
  return line;
}

/* A whole UTF-8 sequence at `at`, or 0 where the bytes are none. */
static uint32_t sequence(const Source *source, uint32_t at, uint32_t end) {
  unsigned char byte = (unsigned char)source->text[at];
  uint32_t length = byte < 0x80                   ? 1
                    : byte >= 0xc2 && byte < 0xe0 ? 2
                    : byte >= 0xe0 && byte < 0xf0 ? 3
                    : byte >= 0xf0 && byte < 0xf5 ? 4
                                                  : 0;
  if (!length || at + length > end) return 0;
  for (uint32_t i = 1; i < length; i++)
    if (!continues(source->text[at + i])) return 0;
  return byte < 0x20 || byte == 0x7f ? 0 : length;
}

/* The line, one column a character (tabs are a space, what cannot be shown a question mark), and carets under the span. A long
 * line is cut to the part around the caret. */
static void show_line(Text *out, Span where, Line line) {
  bool cut = line.column > WIDEST - 20;
  uint32_t at = line.begin;
  for (int skip = cut ? line.column - BEFORE_CARET : 0; skip > 0 && at < line.end; skip--)
    for (at++; at < line.end && continues(where.source->text[at]);) at++;
  Text carets = {0};
  text_add(out, cut ? "  ..." : "  ");
  text_add(&carets, cut ? "     " : "  ");
  bool marked = false;
  for (int column = 0; at < line.end && column < WIDEST; column++) {
    uint32_t length = sequence(where.source, at, line.end);
    bool inside = at >= where.begin && at < where.end;
    if (length)
      text_add_bytes(out, where.source->text + at, length);
    else
      text_add(out, where.source->text[at] == '\t' ? " " : "?");
    if (inside || at == where.begin)
      text_add(&carets, marked ? "~" : "^");
    else if (!marked)
      text_add(&carets, " ");
    marked |= inside || at == where.begin;
    if (length)
      at += length;
    else
      for (at++; at < line.end && continues(where.source->text[at]);) at++;
  }
  if (at < line.end) text_add(out, "...");
  if (!marked) text_add(&carets, "^");
  text_printf(out, "\n%s\n", carets.data);
  text_free(&carets);
}

static void report(Text *out, Span where, const char *severity, const char *format, va_list args) {
  char message[2048];
  vsnprintf(message, sizeof message, format, args);
  if (!where.source) {
    text_printf(out, "%s: %s\n", severity, message);
    return;
  }
  Line line = line_of(where.source, where.begin);
  text_printf(out, "%s:%d:%d: %s: %s\n", where.source->name, line.number, line.column, severity, message);
  if (line.begin < line.end) show_line(out, where, line);
}

bool diag_full(const Diagnostics *diagnostics) {
  return diagnostics->errors > ERROR_LIMIT;
}

void diag_error(Diagnostics *diagnostics, Span where, const char *format, ...) {
  diagnostics->errors++;
  if (diagnostics->errors == ERROR_LIMIT + 1)
    text_printf(&diagnostics->out, "error: more than %d errors; the rest is not shown\n", ERROR_LIMIT);
  if (diag_full(diagnostics)) return;
  va_list args;
  va_start(args, format);
  report(&diagnostics->out, where, "error", format, args);
  va_end(args);
}

void diag_note(Diagnostics *diagnostics, Span where, const char *format, ...) {
  if (diag_full(diagnostics)) return;
  va_list args;
  va_start(args, format);
  report(&diagnostics->out, where, "note", format, args);
  va_end(args);
}
