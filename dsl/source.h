/* Sources and diagnostics: where a piece of text stands, and the messages about it.
 *
 * A Span is a byte range of one source; line and column are worked out when a message is printed. A message names file, line
 * and column, shows the line and a caret under the exact token, and may add a note ("did you mean ..."). */
#ifndef ADWP_DSL_SOURCE_H
#define ADWP_DSL_SOURCE_H

#include "runtime/base/arena.h"
#include "runtime/base/text.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct Source {
  const char *name; /* as messages show it */
  const char *text;
  uint32_t size;
} Source;

typedef struct Span {
  const Source *source; /* null: no place in a file (a default, a command-line setting) */
  uint32_t begin, end;
} Span;

/* A sink of messages; the stage goes on to the next independent error. The first hundred errors are shown, all are counted. */
typedef struct Diagnostics {
  Text out; /* the printed messages, in order */
  int errors;
} Diagnostics;

void diag_error(Diagnostics *diagnostics, Span where, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool diag_full(const Diagnostics *diagnostics); /* no further message is shown, so none needs to be thought about */
void diag_note(Diagnostics *diagnostics, Span where, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
