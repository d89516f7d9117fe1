/* Err: one clear message about something in the world that went wrong (a file, a device, memory).
 *
 * A function that can fail in this way is `bool f(..., Err *err)`: false means that `err` holds the message. The message
 * says what was tried, on what, and why it failed. Only `main` prints it. `die` is for bugs of ours, never for input. */
#ifndef ADWP_RUNTIME_BASE_ERR_H
#define ADWP_RUNTIME_BASE_ERR_H

#include <stdbool.h>

typedef struct Err {
  char text[1024];
} Err;

/* Writes the message and returns false, so that a caller can `return err_set(err, ...)`. A null `err` is allowed. */
bool err_set(Err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "PREFIX: " before the message that is there; returns false. */
bool err_wrap(Err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A bug: prints the place and the message, then aborts. */
#define die(...) die_at(__FILE__, __LINE__, __VA_ARGS__)
_Noreturn void die_at(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
