/* The parser of the Loop IR's text (loop.h shows the form). Text is untrusted: every size has a limit, no function calls
 * itself, and the first thing that is wrong ends it with a message that names line and column. What one instruction can show
 * is checked here by the rules of loop_rules.c; the whole is `loop_verify`'s. Words are separated by any white space, `#`
 * begins a comment, and values may have any numbers as long as each is defined once. */
#include "kernels/loop_private.h"
#include "runtime/base/words.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct Parser {
  Words words;
  LoopKernel *k;
  VECTOR(LoopValue) value; /* of each number in the text */
  int depth;               /* regions open */
} Parser;

static bool take_name(Parser *p, const char **name) {
  Word word = words_take(&p->words);
  char text[LOOP_MAX_NAME + 2];
  snprintf(text, sizeof text, "%.*s", word.length > LOOP_MAX_NAME ? LOOP_MAX_NAME + 1 : (int)word.length, word.text);
  if (!loop_name_ok(text)) return words_wanted(&p->words, "a name", word);
  *name = arena_copy_string(p->k->arena, text, word.length);
  return true;
}

/* ---- numbers ---- */

enum { NUMBER_TEXT = 64 };

static bool copy_number(const Parser *p, Word word, const char *what, char text[NUMBER_TEXT]) {
  if (word.length == 0 || word.length >= NUMBER_TEXT) return words_wanted(&p->words, what, word);
  memcpy(text, word.text, word.length);
  text[word.length] = 0;
  return true;
}

static bool integer_of(const Parser *p, Word word, int64_t *value) {
  char text[NUMBER_TEXT] = "", *end;
  if (!copy_number(p, word, "an integer", text)) return false;
  errno = 0;
  long long number = strtoll(text, &end, 10);
  if (end == text || *end || !(word_digit(text[0]) || text[0] == '-')) return words_wanted(&p->words, "an integer", word);
  if (errno == ERANGE) return words_fail(&p->words, "the integer %s does not fit into 64 bits", text);
  *value = number;
  return true;
}

static bool take_integer(Parser *p, int64_t *value) {
  return integer_of(p, words_take(&p->words), value);
}

/* `0.5`, `0x1p-3f`, `-inf`, `nanf`: the suffix f makes it f32. False, with no message, where it is none. */
static bool number_of(const char *text, LoopType *type, double *value) {
  char body[NUMBER_TEXT], *end;
  size_t length = strlen(text);
  bool single = length > 1 && text[length - 1] == 'f' && strcmp(text, "inf") != 0 && strcmp(text, "-inf") != 0;
  snprintf(body, sizeof body, "%.*s", (int)(length - single), text);
  const char *digits = body + (body[0] == '-');
  bool word = strcmp(digits, "inf") == 0 || strcmp(digits, "nan") == 0;
  bool form = word_digit(*digits) && (strchr(digits, 'x') ? strchr(digits, 'p') != NULL : strpbrk(digits, ".e") != NULL);
  if (!word && !form) return false;
  *type = single ? LOOP_F32 : LOOP_F64;
  *value = single ? (double)strtof(body, &end) : strtod(body, &end);
  if (isnan(*value)) *value = (double)NAN; /* one not-a-number, without a sign */
  return !*end && (word || isfinite(*value));
}

static bool take_fill(Parser *p, int32_t array, double *value) {
  char text[NUMBER_TEXT];
  LoopType type;
  Word word = words_take(&p->words);
  if (!copy_number(p, word, "a number", text)) return false;
  if (loop_element_type(p->k->arrays.data[array].element) == LOOP_INT) {
    int64_t integer = 0;
    if (!integer_of(p, word, &integer)) return false;
    if (integer != (int32_t)integer) return words_fail(&p->words, "the fill %s is no i32", text);
    return *value = (double)integer, true;
  }
  if (!number_of(text, &type, value)) return words_wanted(&p->words, "a number like 0.0f", word);
  if (type == loop_element_type(p->k->arrays.data[array].element)) return true;
  return words_fail(&p->words, "the fill %s is %s where %s is %s", text, loop_type_name(type), p->k->arrays.data[array].name,
                    loop_element_name(p->k->arrays.data[array].element));
}

/* ---- values ---- */

static bool add_instr(Parser *p, LoopInstr instr, LoopValue *value) {
  Err err;
  if (p->k->code.count >= LOOP_MAX_CODE) return words_fail(&p->words, "more than %d instructions", LOOP_MAX_CODE);
  if (!loop_infer(p->k, p->k->code.count, &instr, &err)) return words_fail(&p->words, "%s", err.text);
  vector_push(&p->k->code, instr);
  if (value) *value = (LoopValue)p->k->code.count - 1;
  return true;
}

static bool number_after_percent(const Parser *p, Word word, size_t *number) {
  *number = 0;
  for (size_t i = 1; i < word.length; i++) {
    if (!word_digit(word.text[i])) return words_wanted(&p->words, "a value like %7", word);
    *number = *number * 10 + (size_t)(word.text[i] - '0');
    if (*number >= LOOP_MAX_CODE)
      return words_fail(&p->words, "the value %.*s has a number above %d", word_shown(word), word.text, LOOP_MAX_CODE);
  }
  if (word.length < 2 || word.text[0] != '%') return words_wanted(&p->words, "a value like %7", word);
  return true;
}

static bool take_definition(Parser *p, size_t *number) {
  Word word = words_take(&p->words);
  if (!number_after_percent(p, word, number)) return false;
  while (p->value.count <= *number) vector_push(&p->value, LOOP_NONE);
  if (p->value.data[*number] == LOOP_NONE) return true;
  return words_fail(&p->words, "%.*s is defined twice", word_shown(word), word.text);
}

/* A value, or a constant, which becomes an instruction of its own. */
static bool take_operand(Parser *p, LoopValue *value) {
  Word word = words_take(&p->words);
  size_t number;
  char text[NUMBER_TEXT];
  if (word.length && word.text[0] == '%') {
    if (!number_after_percent(p, word, &number)) return false;
    if (number < p->value.count && p->value.data[number] != LOOP_NONE) return *value = p->value.data[number], true;
    return words_fail(&p->words, "%.*s is used before it is defined", word_shown(word), word.text);
  }
  if (!copy_number(p, word, "a value", text)) return false;
  LoopInstr constant = loop_instr(LOOP_FLOAT);
  if (!number_of(text, &constant.type, &constant.number)) {
    if (!word_digit(text[0]) && text[0] != '-') return words_wanted(&p->words, "a value", word);
    constant = loop_instr(LOOP_INTEGER);
    if (!integer_of(p, word, &constant.integer)) return false;
  }
  return add_instr(p, constant, value);
}

/* ---- arrays ---- */

static bool take_element(Parser *p, LoopElement *element) {
  Word word = words_take(&p->words);
  for (LoopElement e = LOOP_ELEMENT_F32; e <= LOOP_ELEMENT_U8; e++)
    if (word_is(word, loop_element_name(e))) return *element = e, true;
  return words_wanted(&p->words, "f32, f64, bf16, i32 or u8", word);
}

static bool take_space(Parser *p, LoopSpace *space) {
  Word word = words_take(&p->words);
  *space = word_is(word, "in") ? LOOP_IN : word_is(word, "out") ? LOOP_OUT : LOOP_INOUT;
  return *space != LOOP_INOUT || word_is(word, "inout") || words_wanted(&p->words, "in, out or inout", word);
}

static bool parse_array(Parser *p, LoopSpace space) {
  size_t start = p->words.start;
  LoopArray array = {.space = space};
  if (!take_name(p, &array.name) || !take_element(p, &array.element)) return false;
  if (space == LOOP_IN) {
    if (!take_space(p, &array.space)) return false;
  } else {
    if (!words_expect(&p->words, "[") || !take_integer(p, &array.count) || !words_expect(&p->words, "]")) return false;
    array.varying = words_accept(&p->words, "lanes");
  }
  Err err;
  p->words.start = start;
  if (!loop_array_ok(p->k, p->k->arrays.count, &array, &err)) return words_fail(&p->words, "%s", err.text);
  vector_push(&p->k->arrays, array);
  p->k->buffer_count += space == LOOP_IN;
  return true;
}

static bool parse_arrays(Parser *p) {
  for (;;) {
    LoopSpace space = LOOP_IN;
    if (words_accept(&p->words, "shared"))
      space = LOOP_SHARED;
    else if (words_accept(&p->words, "tile"))
      space = LOOP_TILE;
    else if (!words_accept(&p->words, "buffer"))
      return true;
    if (!parse_array(p, space)) return false;
  }
}

/* ---- instructions ---- */

/* `x[%3]` */
static bool take_element_of(Parser *p, int32_t *array, LoopValue *index) {
  Word word = words_take(&p->words);
  for (size_t i = 0; i < p->k->arrays.count && *array < 0; i++)
    if (word_is(word, p->k->arrays.data[i].name)) *array = (int32_t)i;
  if (*array < 0) return words_wanted(&p->words, "the name of an array", word);
  return words_expect(&p->words, "[") && take_operand(p, index) && words_expect(&p->words, "]");
}

/* A word that stands for itself; the parser's words hold one sign each. */
static bool expect_word(Parser *p, const char *word, size_t length) {
  char text[16];
  bool signs = *word == '=' || *word == '+' || *word == '*';
  for (size_t at = 0; at < length; at += signs ? 1 : length) {
    snprintf(text, sizeof text, "%.*s", signs ? 1 : (int)length, word + at);
    if (!words_expect(&p->words, text)) return false;
  }
  return true;
}

/* One word of an operation's form (loop_private.h). */
static bool take_form_word(Parser *p, LoopInstr *instr, const char *word, size_t length) {
  switch (*word) {
  case 'A': return take_element_of(p, &instr->array, &instr->operand[word[1] - '0']);
  case 'T': return take_element_of(p, &instr->tile, &instr->operand[word[1] - '0']);
  case 'O': return take_element_of(p, &instr->other, &instr->operand[word[1] - '0']);
  case 'F': return take_fill(p, instr->array, &instr->number);
  case 'W': return take_integer(p, &instr->integer);
  case 'S': return take_integer(p, &instr->stride);
  case 'R': return take_integer(p, &instr->other_stride);
  case 'P': instr->integer = words_accept(&p->words, "write"); return true;
  default: break;
  }
  return word_digit(*word) ? take_operand(p, &instr->operand[*word - '0']) : expect_word(p, word, length);
}

static bool take_access(Parser *p, LoopInstr *instr) {
  for (const char *word = loop_op_form(instr->op); *word; word += *word == ' ') {
    size_t length = strcspn(word, " ");
    if (!take_form_word(p, instr, word, length)) return false;
    word += length;
  }
  return true;
}

static bool take_operation(Parser *p, LoopOp *op) {
  Word word = words_take(&p->words);
  for (*op = LOOP_TASK; *op < LOOP_END; (*op)++) /* constants stand inside other instructions */
    if (*op != LOOP_FLOAT && word_is(word, loop_op_info(*op)->text)) return true;
  return words_wanted(&p->words, "an operation", word);
}

static bool gives_result(LoopOp op) {
  switch (op) {
  case LOOP_STORE:
  case LOOP_STORE_LANES:
  case LOOP_SCATTER:
  case LOOP_GATHER_TILE:
  case LOOP_SCATTER_TILE:
  case LOOP_ASYNC_COPY:
  case LOOP_WAIT:
  case LOOP_MMA:
  case LOOP_SET:
  case LOOP_PREFETCH: return false;
  default: return !loop_op_opens(op);
  }
}

/* `= a to b step c` of a loop, `a, b` of an operation, after its name. */
static bool take_operands(Parser *p, LoopInstr *instr) {
  static const char *const loop_word[] = {"=", "to", "step"};
  bool loop = instr->op == LOOP_FOR || instr->op == LOOP_UNROLL;
  for (int i = 0; i < loop_op_info(instr->op)->operands && i < LOOP_MAX_OPERANDS; i++) {
    if (loop && !words_expect(&p->words, loop_word[i])) return false;
    if (!loop && i && !words_expect(&p->words, ",")) return false;
    if (!take_operand(p, &instr->operand[i])) return false;
  }
  return true;
}

static bool parse_instr(Parser *p) {
  size_t number = 0, start = (words_peek(&p->words), p->words.start);
  LoopInstr instr = loop_instr(LOOP_END);
  bool defines = p->words.at < p->words.size && p->words.text[p->words.at] == '%';
  if (defines && (!take_definition(p, &number) || !words_expect(&p->words, "="))) return false;
  if (!take_operation(p, &instr.op)) return false;
  if (defines != gives_result(instr.op))
    return words_fail(&p->words, "%s %s", loop_op_info(instr.op)->text,
                      defines ? "is no value" : "is a value, which is wanted as `%7 = ...`");
  bool loop = instr.op == LOOP_FOR || instr.op == LOOP_UNROLL;
  if (loop && !take_definition(p, &number)) return false;
  if (instr.op == LOOP_PHASE && !take_name(p, &instr.name)) return false;
  if (loop_op_has_array(instr.op) ? !take_access(p, &instr) : !take_operands(p, &instr)) return false;
  if (loop_op_opens(instr.op)) {
    if (!words_expect(&p->words, "{")) return false;
    if (++p->depth > LOOP_MAX_DEPTH) return words_fail(&p->words, "more than %d regions inside each other", LOOP_MAX_DEPTH);
  }
  LoopValue value;
  p->words.start = start;
  if (!add_instr(p, instr, &value)) return false;
  if (defines || loop) p->value.data[number] = value;
  return true;
}

static bool parse_head(Parser *p) {
  int64_t lanes = 0;
  if (!words_expect(&p->words, "kernel") || !take_name(p, &p->k->name) || !words_expect(&p->words, "lanes") ||
      !take_integer(p, &lanes))
    return false;
  if (lanes < 1 || lanes > LOOP_MAX_LANES || (lanes & (lanes - 1)))
    return words_fail(&p->words, "%lld lanes; a power of two up to %d is wanted", (long long)lanes, LOOP_MAX_LANES);
  p->k->lanes = (int32_t)lanes;
  return words_expect(&p->words, "{");
}

static bool parse_kernel(Parser *p) {
  if (p->words.size > LOOP_MAX_TEXT)
    return err_set(p->words.err, "kernel text of %zu bytes, more than %d", p->words.size, LOOP_MAX_TEXT);
  if (!parse_head(p) || !parse_arrays(p)) return false;
  for (;;) {
    if (!words_accept(&p->words, "}")) {
      if (!parse_instr(p)) return false;
    } else if (p->depth-- == 0) {
      break;
    } else if (!add_instr(p, loop_instr(LOOP_END), NULL)) {
      return false;
    }
  }
  Word word = words_peek(&p->words);
  return word.length == 0 || words_wanted(&p->words, "the end of the text", word);
}

LoopKernel *loop_parse(const char *text, size_t size, Arena *arena, Err *err) {
  Parser p = {.words = {.text = text, .size = size, .what = "kernel text", .err = err}, .k = ARENA_NEW(arena, LoopKernel)};
  p.k->arena = arena;
  bool ok = parse_kernel(&p);
  vector_free(&p.value);
  if (ok) return p.k;
  loop_free_tables(p.k);
  return NULL;
}
