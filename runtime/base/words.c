#include "runtime/base/words.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool words_fail(const Words *words, const char *format, ...) {
  char message[800];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  size_t line = 1, column = 1;
  for (size_t i = 0; i < words->start; i++) {
    column = words->text[i] == '\n' ? 1 : column + 1;
    line += words->text[i] == '\n';
  }
  return err_set(words->err, "%s, line %zu, column %zu: %s", words->what, line, column, message);
}

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

bool word_digit(char c) {
  return c >= '0' && c <= '9';
}

static bool is_inside(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || word_digit(c) || c == '_' || c == '.';
}

static void skip_space(Words *words) {
  bool comment = false;
  for (; words->at < words->size; words->at++) {
    char c = words->text[words->at];
    if (!comment && !is_space(c) && c != '#') return;
    comment = c == '#' || (comment && c != '\n');
  }
}

Word words_peek(Words *words) {
  skip_space(words);
  words->start = words->at;
  Word word = {words->text + words->at, 0};
  size_t left = words->size - words->at;
  if (left == 0) return word;
  char first = word.text[0];
  bool number = word_digit(first) || first == '-', hexadecimal = false;
  word.length = 1;
  if (!number && !is_inside(first) && first != '%' && first != '@') return word;
  for (; word.length < left; word.length++) {
    char c = word.text[word.length], before = word.text[word.length - 1];
    hexadecimal |= number && (c == 'x' || c == 'X');
    bool exponent = hexadecimal ? before == 'p' || before == 'P' : before == 'e' || before == 'E';
    if (!is_inside(c) && !(number && exponent && (c == '-' || c == '+'))) break;
  }
  return word;
}

Word words_take(Words *words) {
  Word word = words_peek(words);
  words->at += word.length;
  return word;
}

bool word_is(Word word, const char *text) {
  return word.length == strlen(text) && memcmp(word.text, text, word.length) == 0;
}

int word_shown(Word word) {
  return word.length > 60 ? 60 : (int)word.length;
}

bool words_wanted(const Words *words, const char *what, Word seen) {
  if (seen.length == 0) return words_fail(words, "%s is wanted where the text ends", what);
  return words_fail(words, "%s is wanted, not `%.*s`", what, word_shown(seen), seen.text);
}

bool words_expect(Words *words, const char *text) {
  Word word = words_take(words);
  if (word_is(word, text)) return true;
  char what[32];
  snprintf(what, sizeof what, "`%s`", text);
  return words_wanted(words, what, word);
}

bool words_accept(Words *words, const char *text) {
  if (!word_is(words_peek(words), text)) return false;
  words_take(words);
  return true;
}
