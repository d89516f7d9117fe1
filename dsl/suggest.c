#include "dsl/suggest.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST = 64 };

Suggestion suggest_start(const char *wanted) {
  return (Suggestion){.wanted = wanted, .distance = INT_MAX};
}

static int least(int a, int b) {
  return a < b ? a : b;
}

/* Edits that make one word the other: a letter more, less, other, or two neighbours swapped. */
static int edit_distance(const char *a, const char *b) {
  int rows[3][LONGEST + 1], length_a = (int)strlen(a), length_b = (int)strlen(b);
  if (length_a > LONGEST || length_b > LONGEST) return INT_MAX;
  for (int j = 0; j <= length_b; j++) rows[0][j] = j;
  for (int i = 1; i <= length_a; i++) {
    int *row = rows[i % 3], *above = rows[(i + 2) % 3], *above_that = rows[(i + 1) % 3];
    row[0] = i;
    for (int j = 1; j <= length_b; j++) {
      row[j] = least(above[j - 1] + (a[i - 1] != b[j - 1]), least(above[j], row[j - 1]) + 1);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = least(row[j], above_that[j - 2] + 1);
    }
  }
  return rows[length_a % 3][length_b];
}

/* A short word must be nearer than a long one. */
static int allowed_distance(const char *wanted) {
  int length = (int)strlen(wanted);
  int allowed = length < 3 ? 1 : length < 6 ? 2 : length / 3 + 1;
  return least(allowed, length - 1);
}

void suggest_offer(Suggestion *suggestion, const char *known) {
  int allowed = least(allowed_distance(suggestion->wanted), suggestion->distance - 1);
  if (abs((int)strlen(known) - (int)strlen(suggestion->wanted)) > allowed) return;
  int distance = edit_distance(suggestion->wanted, known);
  if (distance > allowed) return;
  suggestion->best = known;
  suggestion->distance = distance;
}

const char *suggest_text(const Suggestion *suggestion, Arena *arena) {
  if (!suggestion->best) return "";
  return arena_printf(arena, "; did you mean `%s`?", suggestion->best);
}
