/* The text of a kernel: one array or instruction a line, values numbered in the order of the text. Constants stand where they
 * are used (`3` int, `0.5f` f32, `0.5` f64), so that index arithmetic reads as arithmetic. A number is printed in decimals
 * where few of them give back exactly its bits, else in hexadecimal. loop.h shows the form; loop_parse.c reads it. */
#include "kernels/loop_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct Printer {
  const LoopKernel *k;
  Text *out;
  const int32_t *number; /* of each instruction with a result that is no constant */
} Printer;

static void print_number(Text *out, LoopType type, double number) {
  char text[64];
  const char *suffix = type == LOOP_F32 ? "f" : "";
  if (isnan(number) || isinf(number)) {
    text_printf(out, "%s%s", isnan(number) ? "nan" : number < 0 ? "-inf" : "inf", suffix);
    return;
  }
  bool exact = false;
  for (int digits = 1; !exact && digits <= (type == LOOP_F32 ? 6 : 12); digits++) {
    snprintf(text, sizeof text, "%.*g", digits, number);
    exact = type == LOOP_F32 ? strtof(text, NULL) == (float)number : strtod(text, NULL) == number;
  }
  if (!exact) snprintf(text, sizeof text, "%a", number);
  text_printf(out, "%s%s%s", text, strpbrk(text, ".exp") ? "" : ".0", suffix);
}

static void print_value(const Printer *p, LoopValue v) {
  if (v < 0 || (size_t)v >= p->k->code.count) {
    text_add(p->out, "%?");
    return;
  }
  const LoopInstr *instr = &p->k->code.data[v];
  if (instr->op == LOOP_INTEGER)
    text_printf(p->out, "%lld", (long long)instr->integer);
  else if (instr->op == LOOP_FLOAT)
    print_number(p->out, instr->type, instr->number);
  else
    text_printf(p->out, "%%%d", p->number[v]);
}

static void print_array(const LoopArray *array, Text *out) {
  static const char *const space[] = {"in", "out", "inout"};
  const char *element = loop_element_name(array->element);
  if (array->space < LOOP_SHARED)
    text_printf(out, "  buffer %s %s %s\n", array->name, element, space[array->space]);
  else
    text_printf(out, "  %s %s %s[%lld]%s\n", array->space == LOOP_TILE ? "tile" : "shared", array->name, element,
                (long long)array->count, array->varying ? " lanes" : "");
}

static const LoopArray *array_of(const Printer *p, int32_t array) {
  return array >= 0 && (size_t)array < p->k->arrays.count ? &p->k->arrays.data[array] : NULL;
}

static void print_element(const Printer *p, int32_t array, LoopValue index) {
  text_printf(p->out, "%s[", array_of(p, array) ? array_of(p, array)->name : "?");
  print_value(p, index);
  text_add(p->out, "]");
}

static void print_fill(const Printer *p, const LoopInstr *instr) {
  const LoopArray *array = array_of(p, instr->array);
  LoopType type = array ? loop_element_type(array->element) : LOOP_F64;
  if (type == LOOP_INT)
    text_printf(p->out, "%.0f", instr->number + 0.0); /* no -0 */
  else
    print_number(p->out, type, instr->number);
}

/* One word of an operation's form. */
static void print_word(const Printer *p, const LoopInstr *instr, const char *word, size_t length) {
  switch (*word) {
  case 'A': print_element(p, instr->array, instr->operand[word[1] - '0']); break;
  case 'T': print_element(p, instr->tile, instr->operand[word[1] - '0']); break;
  case 'O': print_element(p, instr->other, instr->operand[word[1] - '0']); break;
  case 'F': print_fill(p, instr); break;
  case 'W': text_printf(p->out, "%lld", (long long)instr->integer); break;
  case 'S': text_printf(p->out, "%lld", (long long)instr->stride); break;
  case 'R': text_printf(p->out, "%lld", (long long)instr->other_stride); break;
  case 'P': text_add(p->out, "write"); break;
  default:
    if (*word >= '0' && *word < '0' + LOOP_MAX_OPERANDS)
      print_value(p, instr->operand[*word - '0']);
    else
      text_add_bytes(p->out, word, length);
  }
}

static void print_access(const Printer *p, const LoopInstr *instr) {
  for (const char *word = loop_op_form(instr->op); *word; word += *word == ' ') {
    size_t length = strcspn(word, " ");
    if (*word != 'P' || instr->integer) {
      text_add(p->out, " ");
      print_word(p, instr, word, length);
    }
    word += length;
  }
}

static void print_loop(const Printer *p, size_t at) {
  const LoopInstr *instr = &p->k->code.data[at];
  text_printf(p->out, "%s ", loop_op_info(instr->op)->text);
  print_value(p, (LoopValue)at);
  static const char *const word[] = {" = ", " to ", " step "};
  for (int i = 0; i < 3; i++) {
    text_add(p->out, word[i]);
    print_value(p, instr->operand[i]);
  }
}

static void print_instr(const Printer *p, size_t at) {
  const LoopInstr *instr = &p->k->code.data[at];
  const LoopOpInfo *info = loop_op_info(instr->op);
  if (instr->op == LOOP_END) {
    text_add(p->out, "}\n");
    return;
  }
  if (instr->op == LOOP_FOR || instr->op == LOOP_UNROLL) {
    print_loop(p, at);
  } else {
    if (instr->type != LOOP_VOID) text_printf(p->out, "%%%d = ", p->number[at]);
    text_add(p->out, info->text);
    if (instr->op == LOOP_PHASE)
      text_printf(p->out, " %s", instr->name);
    else if (loop_op_has_array(instr->op))
      print_access(p, instr);
    else
      for (int i = 0; i < info->operands; i++) {
        text_add(p->out, i ? ", " : " ");
        print_value(p, instr->operand[i]);
      }
  }
  text_add(p->out, loop_op_opens(instr->op) ? " {\n" : "\n");
}

void loop_print(const LoopKernel *k, Text *out) {
  int32_t *number = memory_alloc((k->code.count + 1) * sizeof *number), next = 0, depth = 1;
  Printer p = {k, out, number};
  text_printf(out, "kernel %s lanes %d {\n", k->name, k->lanes);
  for (size_t i = 0; i < k->arrays.count; i++) print_array(&k->arrays.data[i], out);
  for (size_t i = 0; i < k->code.count; i++) {
    const LoopInstr *instr = &k->code.data[i];
    if (instr->op == LOOP_INTEGER || instr->op == LOOP_FLOAT) continue;
    if (instr->type != LOOP_VOID) number[i] = next++;
    if (instr->op == LOOP_END) depth--;
    text_printf(out, "%*s", depth > 0 ? 2 * depth : 0, "");
    print_instr(&p, i);
    if (loop_op_opens(instr->op)) depth++;
  }
  text_add(out, "}\n");
  free(number);
}
