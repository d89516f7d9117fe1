/* Words of an untrusted text, for the hand-written parsers of the two IRs. A word is a name, a number with its signs, `%7`,
 * `@stem.weight`, or one other character; white space separates words and `#` begins a comment. Messages name line and column. */
#ifndef ADWP_RUNTIME_BASE_WORDS_H
#define ADWP_RUNTIME_BASE_WORDS_H

#include "runtime/base/err.h"

#include <stddef.h>

typedef struct Word {
  const char *text;
  size_t length; /* 0: the text has ended */
} Word;

typedef struct Words {
  const char *text;
  size_t size, at;
  size_t start;     /* of the word, or of whatever else a message is about */
  const char *what; /* "graph text": how messages begin */
  Err *err;
} Words;

Word words_peek(Words *words); /* the next word, which stays the next; moves `start` to it */
Word words_take(Words *words);
bool words_accept(Words *words, const char *text); /* takes the word if it is this one */
bool words_expect(Words *words, const char *text); /* false: the message says that it was wanted */

/* Both write a message and return false. */
bool words_fail(const Words *words, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool words_wanted(const Words *words, const char *what, Word seen);

bool word_is(Word word, const char *text);
bool word_digit(char c);
int word_shown(Word word); /* how many characters of it a message shows */

#endif
