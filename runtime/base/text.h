/* Text: a string that grows. `data` is always zero-terminated once something was added; `text_free` gives it back. */
#ifndef ADWP_RUNTIME_BASE_TEXT_H
#define ADWP_RUNTIME_BASE_TEXT_H

#include <stddef.h>

typedef struct Text {
  char *data;
  size_t length, capacity;
} Text;

void text_add(Text *text, const char *string);
void text_add_bytes(Text *text, const void *bytes, size_t count);
/* Adds a string that may come from anywhere: control characters, which could steer a terminal, as \\xNN. */
void text_add_printable(Text *text, const char *string);
void text_printf(Text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_free(Text *text);

#endif
