/* "Did you mean": the known word nearest to an unknown one. */
#ifndef ADWP_DSL_SUGGEST_H
#define ADWP_DSL_SUGGEST_H

#include "runtime/base/arena.h"

typedef struct Suggestion {
  const char *wanted, *best;
  int distance; /* of `best` */
} Suggestion;

Suggestion suggest_start(const char *wanted);
void suggest_offer(Suggestion *suggestion, const char *known);

/* "; did you mean `x`?", or "" where nothing offered is near. */
const char *suggest_text(const Suggestion *suggestion, Arena *arena);

#endif
