#include "runtime/base/text.h"

#include "runtime/base/arena.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void text_reserve(Text *text, size_t more) {
  size_t need = text->length + more + 1;
  if (need <= text->capacity) return;
  size_t capacity = text->capacity ? text->capacity : 64;
  while (capacity < need) capacity *= 2;
  text->data = memory_resize(text->data, capacity);
  text->capacity = capacity;
}

void text_add_bytes(Text *text, const void *bytes, size_t count) {
  text_reserve(text, count);
  if (count) memcpy(text->data + text->length, bytes, count);
  text->length += count;
  text->data[text->length] = 0;
}

void text_add(Text *text, const char *string) {
  text_add_bytes(text, string, strlen(string));
}

/* ASCII's controls, and those of ISO 6429 that UTF-8 writes as C2 80..C2 9F. */
void text_add_printable(Text *text, const char *string) {
  for (const unsigned char *byte = (const unsigned char *)string; *byte; byte++) {
    bool pair = byte[0] == 0xC2 && byte[1] >= 0x80 && byte[1] < 0xA0;
    if (pair)
      text_printf(text, "\\x%02x\\x%02x", byte[0], byte[1]);
    else if (*byte < ' ' || *byte == 0x7F)
      text_printf(text, "\\x%02x", *byte);
    else
      text_add_bytes(text, byte, 1);
    byte += pair;
  }
}

void text_printf(Text *text, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int length = vsnprintf(NULL, 0, format, args);
  va_end(args);
  if (length > 0) {
    text_reserve(text, (size_t)length);
    vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
    text->length += (size_t)length;
  }
  va_end(again);
}

void text_free(Text *text) {
  free(text->data);
  *text = (Text){0};
}
