/* The parser of the Loop IR's text (loop.h shows the form). Text is untrusted: every size has a limit, no function calls
 * itself, and the first thing that is wrong ends it with a message that names line and column. What one instruction can show
 * is checked here by the rules of loop_rules.c; the whole is `loop_verify`'s. Words are separated by any white space, `#`
 * begins a comment, and values may have any numbers as long as each is defined once. */
#include "kernels/loop_private.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct Word {
  const char *text;
  size_t length;
} Word;

typedef struct Parser {
  const char *text;
  size_t size, at;
  LoopKernel *k;
  Err *err;
  VECTOR(LoopValue) value; /* of each number in the text */
  int depth;               /* regions open */
  size_t start;            /* of the word or instruction that a message is about */
} Parser;

/* ---- words ---- */

static bool fail(const Parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fail(const Parser *p, const char *format, ...) {
  char message[800];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  size_t line = 1, column = 1;
  for (size_t i = 0; i < p->start; i++) {
    column = p->text[i] == '\n' ? 1 : column + 1;
    line += p->text[i] == '\n';
  }
  return err_set(p->err, "kernel text, line %zu, column %zu: %s", line, column, message);
}

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}
static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
static bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' || c == '.';
}

/* The next word without taking it: a name or number (with its signs), `%7`, or one character; empty at the end. */
static Word peek(Parser *p) {
  while (p->at < p->size && (is_space(p->text[p->at]) || p->text[p->at] == '#')) {
    if (p->text[p->at] == '#')
      while (p->at < p->size && p->text[p->at] != '\n') p->at++;
    else
      p->at++;
  }
  p->start = p->at;
  Word word = {p->text + p->at, 0};
  size_t left = p->size - p->at;
  if (left == 0) return word;
  word.length = 1;
  bool number = is_digit(word.text[0]) || word.text[0] == '-';
  if (!number && !is_word(word.text[0]) && word.text[0] != '%') return word;
  bool hexadecimal = false;
  for (; word.length < left; word.length++) {
    char c = word.text[word.length], before = word.text[word.length - 1];
    hexadecimal |= number && (c == 'x' || c == 'X');
    bool exponent = hexadecimal ? before == 'p' || before == 'P' : before == 'e' || before == 'E';
    if (!is_word(c) && !(number && exponent && (c == '-' || c == '+'))) break;
  }
  return word;
}

static Word take(Parser *p) {
  Word word = peek(p);
  p->at += word.length;
  return word;
}

static bool is(Word word, const char *text) {
  return word.length == strlen(text) && memcmp(word.text, text, word.length) == 0;
}

static int shown(Word word) {
  return word.length > 40 ? 40 : (int)word.length;
}

static bool wanted(const Parser *p, const char *what, Word seen) {
  if (seen.length == 0) return fail(p, "%s is wanted where the text ends", what);
  return fail(p, "%s is wanted, not `%.*s`", what, shown(seen), seen.text);
}

static bool expect(Parser *p, const char *text) {
  Word word = take(p);
  if (is(word, text)) return true;
  char what[32];
  snprintf(what, sizeof what, "`%s`", text);
  return wanted(p, what, word);
}

static bool accept(Parser *p, const char *text) {
  if (!is(peek(p), text)) return false;
  take(p);
  return true;
}

static bool take_name(Parser *p, const char **name) {
  Word word = take(p);
  char text[LOOP_MAX_NAME + 2];
  snprintf(text, sizeof text, "%.*s", word.length > LOOP_MAX_NAME ? LOOP_MAX_NAME + 1 : (int)word.length, word.text);
  if (!loop_name_ok(text)) return wanted(p, "a name", word);
  *name = arena_copy_string(p->k->arena, text, word.length);
  return true;
}

/* ---- numbers ---- */

enum { NUMBER_TEXT = 64 };

static bool copy_number(const Parser *p, Word word, const char *what, char text[NUMBER_TEXT]) {
  if (word.length == 0 || word.length >= NUMBER_TEXT) return wanted(p, what, word);
  memcpy(text, word.text, word.length);
  text[word.length] = 0;
  return true;
}

static bool integer_of(const Parser *p, Word word, int64_t *value) {
  char text[NUMBER_TEXT] = "", *end;
  if (!copy_number(p, word, "an integer", text)) return false;
  errno = 0;
  long long number = strtoll(text, &end, 10);
  if (end == text || *end || !(is_digit(text[0]) || text[0] == '-')) return wanted(p, "an integer", word);
  if (errno == ERANGE) return fail(p, "the integer %s does not fit into 64 bits", text);
  *value = number;
  return true;
}

static bool take_integer(Parser *p, int64_t *value) {
  return integer_of(p, take(p), value);
}

/* `0.5`, `0x1p-3f`, `-inf`, `nanf`: the suffix f makes it f32. False, with no message, where it is none. */
static bool number_of(const char *text, LoopType *type, double *value) {
  char body[NUMBER_TEXT], *end;
  size_t length = strlen(text);
  bool single = length > 1 && text[length - 1] == 'f' && strcmp(text, "inf") != 0 && strcmp(text, "-inf") != 0;
  snprintf(body, sizeof body, "%.*s", (int)(length - single), text);
  const char *digits = body + (body[0] == '-');
  bool word = strcmp(digits, "inf") == 0 || strcmp(digits, "nan") == 0;
  bool form = is_digit(*digits) && (strchr(digits, 'x') ? strchr(digits, 'p') != NULL : strpbrk(digits, ".e") != NULL);
  if (!word && !form) return false;
  *type = single ? LOOP_F32 : LOOP_F64;
  *value = single ? (double)strtof(body, &end) : strtod(body, &end);
  if (isnan(*value)) *value = (double)NAN; /* one not-a-number, without a sign */
  return !*end && (word || isfinite(*value));
}

static bool take_fill(Parser *p, int32_t array, double *value) {
  char text[NUMBER_TEXT];
  LoopType type;
  Word word = take(p);
  if (!copy_number(p, word, "a number", text)) return false;
  if (!number_of(text, &type, value)) return wanted(p, "a number like 0.0f", word);
  if (type == loop_element_type(p->k->arrays.data[array].element)) return true;
  return fail(p, "the fill %s is %s where %s is %s", text, loop_type_name(type), p->k->arrays.data[array].name,
              loop_element_name(p->k->arrays.data[array].element));
}

/* ---- values ---- */

static bool add_instr(Parser *p, LoopInstr instr, LoopValue *value) {
  Err err;
  if (p->k->code.count >= LOOP_MAX_CODE) return fail(p, "more than %d instructions", LOOP_MAX_CODE);
  if (!loop_infer(p->k, p->k->code.count, &instr, &err)) return fail(p, "%s", err.text);
  vector_push(&p->k->code, instr);
  if (value) *value = (LoopValue)p->k->code.count - 1;
  return true;
}

static bool number_after_percent(const Parser *p, Word word, size_t *number) {
  *number = 0;
  for (size_t i = 1; i < word.length; i++) {
    if (!is_digit(word.text[i])) return wanted(p, "a value like %7", word);
    *number = *number * 10 + (size_t)(word.text[i] - '0');
    if (*number >= LOOP_MAX_CODE) return fail(p, "the value %.*s has a number above %d", shown(word), word.text, LOOP_MAX_CODE);
  }
  if (word.length < 2 || word.text[0] != '%') return wanted(p, "a value like %7", word);
  return true;
}

static bool take_definition(Parser *p, size_t *number) {
  Word word = take(p);
  if (!number_after_percent(p, word, number)) return false;
  while (p->value.count <= *number) vector_push(&p->value, LOOP_NONE);
  if (p->value.data[*number] == LOOP_NONE) return true;
  return fail(p, "%.*s is defined twice", shown(word), word.text);
}

/* A value, or a constant, which becomes an instruction of its own. */
static bool take_operand(Parser *p, LoopValue *value) {
  Word word = take(p);
  size_t number;
  char text[NUMBER_TEXT];
  if (word.length && word.text[0] == '%') {
    if (!number_after_percent(p, word, &number)) return false;
    if (number < p->value.count && p->value.data[number] != LOOP_NONE) return *value = p->value.data[number], true;
    return fail(p, "%.*s is used before it is defined", shown(word), word.text);
  }
  if (!copy_number(p, word, "a value", text)) return false;
  LoopInstr constant = loop_instr(LOOP_FLOAT);
  if (!number_of(text, &constant.type, &constant.number)) {
    if (!is_digit(text[0]) && text[0] != '-') return wanted(p, "a value", word);
    constant = loop_instr(LOOP_INTEGER);
    if (!integer_of(p, word, &constant.integer)) return false;
  }
  return add_instr(p, constant, value);
}

/* ---- arrays ---- */

static bool take_element(Parser *p, LoopElement *element) {
  Word word = take(p);
  for (LoopElement e = LOOP_ELEMENT_F32; e <= LOOP_ELEMENT_I32; e++)
    if (is(word, loop_element_name(e))) return *element = e, true;
  return wanted(p, "f32, f64 or i32", word);
}

static bool take_space(Parser *p, LoopSpace *space) {
  Word word = take(p);
  *space = is(word, "in") ? LOOP_IN : is(word, "out") ? LOOP_OUT : LOOP_INOUT;
  return *space != LOOP_INOUT || is(word, "inout") || wanted(p, "in, out or inout", word);
}

static bool parse_array(Parser *p, LoopSpace space) {
  size_t start = p->start;
  LoopArray array = {.space = space};
  if (!take_name(p, &array.name) || !take_element(p, &array.element)) return false;
  if (space == LOOP_IN) {
    if (!take_space(p, &array.space)) return false;
  } else {
    if (!expect(p, "[") || !take_integer(p, &array.count) || !expect(p, "]")) return false;
    array.varying = accept(p, "lanes");
  }
  Err err;
  p->start = start;
  if (!loop_array_ok(p->k, p->k->arrays.count, &array, &err)) return fail(p, "%s", err.text);
  vector_push(&p->k->arrays, array);
  p->k->buffer_count += space == LOOP_IN;
  return true;
}

static bool parse_arrays(Parser *p) {
  for (;;) {
    LoopSpace space = LOOP_IN;
    if (accept(p, "shared"))
      space = LOOP_SHARED;
    else if (accept(p, "tile"))
      space = LOOP_TILE;
    else if (!accept(p, "buffer"))
      return true;
    if (!parse_array(p, space)) return false;
  }
}

/* ---- instructions ---- */

/* `x[%3]` */
static bool take_access(Parser *p, LoopInstr *instr) {
  Word word = take(p);
  for (size_t i = 0; i < p->k->arrays.count && instr->array < 0; i++)
    if (is(word, p->k->arrays.data[i].name)) instr->array = (int32_t)i;
  if (instr->array < 0) return wanted(p, "the name of an array", word);
  if (!expect(p, "[") || !take_operand(p, &instr->operand[0]) || !expect(p, "]")) return false;
  switch (instr->op) {
  case LOOP_STORE:
  case LOOP_SET: return expect(p, "=") && take_operand(p, &instr->operand[1]);
  case LOOP_STORE_LANES:
    return expect(p, "=") && take_operand(p, &instr->operand[1]) && expect(p, "count") && take_operand(p, &instr->operand[2]);
  case LOOP_LOAD_LANES:
    return expect(p, "count") && take_operand(p, &instr->operand[1]) && expect(p, "else") &&
           take_fill(p, instr->array, &instr->number);
  case LOOP_PREFETCH: return instr->integer = accept(p, "write"), true;
  default: return true;
  }
}

static bool take_operation(Parser *p, LoopOp *op) {
  Word word = take(p);
  for (*op = LOOP_TASK; *op < LOOP_END; (*op)++) /* constants stand inside other instructions */
    if (*op != LOOP_FLOAT && is(word, loop_op_info(*op)->text)) return true;
  return wanted(p, "an operation", word);
}

static bool gives_result(LoopOp op) {
  return op != LOOP_STORE && op != LOOP_STORE_LANES && op != LOOP_SET && op != LOOP_PREFETCH && !loop_op_opens(op);
}

/* `= a to b step c` of a loop, `a, b` of an operation, after its name. */
static bool take_operands(Parser *p, LoopInstr *instr) {
  static const char *const loop_word[] = {"=", "to", "step"};
  bool loop = instr->op == LOOP_FOR || instr->op == LOOP_UNROLL;
  for (int i = 0; i < loop_op_info(instr->op)->operands && i < LOOP_MAX_OPERANDS; i++) {
    if (loop && !expect(p, loop_word[i])) return false;
    if (!loop && i && !expect(p, ",")) return false;
    if (!take_operand(p, &instr->operand[i])) return false;
  }
  return true;
}

static bool parse_instr(Parser *p) {
  size_t number = 0, start = (peek(p), p->start);
  LoopInstr instr = loop_instr(LOOP_END);
  bool defines = p->at < p->size && p->text[p->at] == '%';
  if (defines && (!take_definition(p, &number) || !expect(p, "="))) return false;
  if (!take_operation(p, &instr.op)) return false;
  if (defines != gives_result(instr.op))
    return fail(p, "%s %s", loop_op_info(instr.op)->text, defines ? "is no value" : "is a value, which is wanted as `%7 = ...`");
  bool loop = instr.op == LOOP_FOR || instr.op == LOOP_UNROLL;
  if (loop && !take_definition(p, &number)) return false;
  if (instr.op == LOOP_PHASE && !take_name(p, &instr.name)) return false;
  if (loop_op_has_array(instr.op) ? !take_access(p, &instr) : !take_operands(p, &instr)) return false;
  if (loop_op_opens(instr.op)) {
    if (!expect(p, "{")) return false;
    if (++p->depth > LOOP_MAX_DEPTH) return fail(p, "more than %d regions inside each other", LOOP_MAX_DEPTH);
  }
  LoopValue value;
  p->start = start;
  if (!add_instr(p, instr, &value)) return false;
  if (defines || loop) p->value.data[number] = value;
  return true;
}

static bool parse_head(Parser *p) {
  int64_t lanes = 0;
  if (!expect(p, "kernel") || !take_name(p, &p->k->name) || !expect(p, "lanes") || !take_integer(p, &lanes)) return false;
  if (lanes < 1 || lanes > LOOP_MAX_LANES || (lanes & (lanes - 1)))
    return fail(p, "%lld lanes; a power of two up to %d is wanted", (long long)lanes, LOOP_MAX_LANES);
  p->k->lanes = (int32_t)lanes;
  return expect(p, "{");
}

static bool parse_kernel(Parser *p) {
  if (p->size > LOOP_MAX_TEXT) return err_set(p->err, "kernel text of %zu bytes, more than %d", p->size, LOOP_MAX_TEXT);
  if (!parse_head(p) || !parse_arrays(p)) return false;
  for (;;) {
    if (!accept(p, "}")) {
      if (!parse_instr(p)) return false;
    } else if (p->depth-- == 0) {
      break;
    } else if (!add_instr(p, loop_instr(LOOP_END), NULL)) {
      return false;
    }
  }
  Word word = peek(p);
  return word.length == 0 || wanted(p, "the end of the text", word);
}

LoopKernel *loop_parse(const char *text, size_t size, Arena *arena, Err *err) {
  Parser p = {.text = text, .size = size, .k = ARENA_NEW(arena, LoopKernel), .err = err};
  p.k->arena = arena;
  bool ok = parse_kernel(&p);
  vector_free(&p.value);
  if (ok) return p.k;
  loop_free_tables(p.k);
  return NULL;
}
