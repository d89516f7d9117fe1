/* Kernels as text, for the tests of the Loop IR. */
#ifndef ADWP_TESTS_UNIT_LOOP_TEXT_H
#define ADWP_TESTS_UNIT_LOOP_TEXT_H

#include "kernels/loop.h"
#include "kernels/loop_private.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static inline LoopKernel *parse(const char *text, Arena *arena) {
  Err err;
  LoopKernel *k = loop_parse(text, strlen(text), arena, &err);
  if (!k) fail_msg("%s", err.text);
  if (!loop_verify(k, &err)) fail_msg("%s", err.text);
  return k;
}

static inline char *print(const LoopKernel *k) {
  Text text = {0};
  loop_print(k, &text);
  return text.data;
}

static inline void assert_identity(const LoopKernel *k) {
  Err err;
  if (!loop_verify(k, &err)) fail_msg("%s", err.text);
  Arena *arena = arena_new();
  char *first = print(k);
  LoopKernel *again = parse(first, arena);
  char *second = print(again);
  assert_string_equal(first, second);
  assert_int_equal(k->buffer_count, again->buffer_count);
  free(first);
  free(second);
  loop_free_tables(again);
  arena_free(arena);
}

/* Runs tasks [0, tasks) of a kernel given as text, at B = 5. */
static inline bool run(const char *text, const LoopBuffer *buffers, int64_t tasks, Err *err) {
  Arena *arena = arena_new();
  LoopKernel *k = loop_parse(text, strlen(text), arena, err);
  if (!k) fail_msg("%s", err->text);
  bool ok = loop_interpret_steps(k, buffers, 5, 0, tasks, 1000000, err);
  loop_free_tables(k);
  arena_free(arena);
  return ok;
}

static inline void run_ok(const char *text, const LoopBuffer *buffers, int64_t tasks) {
  Err err;
  if (!run(text, buffers, tasks, &err)) fail_msg("%s", err.text);
}

#endif
