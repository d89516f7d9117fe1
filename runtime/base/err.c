#include "runtime/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool err_set(Err *err, const char *format, ...) {
  if (!err) return false;
  va_list args;
  va_start(args, format);
  vsnprintf(err->text, sizeof err->text, format, args);
  va_end(args);
  return false;
}

bool err_wrap(Err *err, const char *format, ...) {
  if (!err) return false;
  Err inner = *err;
  va_list args;
  va_start(args, format);
  int length = vsnprintf(err->text, sizeof err->text, format, args);
  va_end(args);
  if (length < 0 || (size_t)length + 3 >= sizeof err->text) return false;
  size_t at = (size_t)length;
  snprintf(err->text + at, sizeof err->text - at, ": %.*s", (int)(sizeof err->text - at - 3), inner.text);
  return false;
}

_Noreturn void die_at(const char *file, int line, const char *format, ...) {
  fprintf(stderr, "adwp: internal error at %s:%d: ", file, line);
  va_list args;
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fputc('\n', stderr);
  abort();
}
