/* What the tests of the Graph IR's text, table and builder share: modules of one step written as text, and prints of them. */
#ifndef ADWP_TESTS_UNIT_GRAPH_TEXT_H
#define ADWP_TESTS_UNIT_GRAPH_TEXT_H

#include "compiler/graph/graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 2 };

/* A module of one step with the given inputs and lines. */
static inline char *step_text(const char *inputs, const char *lines) {
  Text text = {0};
  text_printf(&text, "module m {batch %d}\n\nstep s(%s) {\n%s\n}\n", BATCH, inputs, lines);
  return text.data;
}

static inline Module *parse(const char *text, Arena *arena) {
  Err err;
  Module *module = module_parse(text, strlen(text), arena, &err);
  if (!module) fail_msg("%s\n%s", err.text, text);
  return module;
}

static inline char *print(const Module *module) {
  Text text = {0};
  module_print(module, &text);
  return text.data;
}

/* With runs of spaces as one: the print aligns its columns. */
static inline void squeeze(char *text) {
  char *to = text;
  for (const char *from = text; *from; from++)
    if (*from != ' ' || to == text || to[-1] != ' ') *to++ = *from;
  *to = 0;
}

/* The print of the only step's lines, between braces, squeezed; free() it. */
static inline char *print_lines(const Graph *graph) {
  Text text = {0};
  graph_print(graph, &text);
  squeeze(text.data);
  char *begin = strchr(text.data, '\n') + 1;
  memmove(text.data, begin, strlen(begin) + 1);
  *strrchr(text.data, '}') = 0;
  return text.data;
}

/* The text must be refused with a message that contains `message`. */
static inline void refuses(const char *text, const char *message) {
  Arena *arena = arena_new();
  Err err = {{0}};
  Module *module = module_parse(text, strlen(text), arena, &err);
  if (module) fail_msg("accepted:\n%s", text);
  if (!strstr(err.text, message)) fail_msg("the message `%s` does not contain `%s`\n%s", err.text, message, text);
  arena_free(arena);
}

#endif
