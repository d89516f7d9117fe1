/* Values as C: a variable a value, constants where they are used. Operands are variables or constants and never expressions, so
 * that nothing depends on how operators bind. Arithmetic is C's own, which gives the interpreter's bits as long as the compiler
 * does not join products and sums. */
#include "compiler/emit/cuda_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *cuda_type(LoopType type) {
  return type == LOOP_F32 ? "float" : type == LOOP_F64 ? "double" : "int";
}

const char *cuda_element(LoopElement element) {
  switch (element) {
  case LOOP_ELEMENT_F32: return "float";
  case LOOP_ELEMENT_F64: return "double";
  case LOOP_ELEMENT_BF16: return "bf16";
  case LOOP_ELEMENT_I32: return "int";
  case LOOP_ELEMENT_U8: return "u8";
  }
  die("element %d", (int)element);
}

void cuda_line(const CudaWriter *w) {
  text_printf(w->out, "%*s", 2 * w->depth, "");
}

void cuda_declare(const CudaWriter *w, size_t at) {
  cuda_line(w);
  text_printf(w->out, "const %s v%d = ", cuda_type(w->k->code.data[at].type), w->number[at]);
}

/* In decimals where few of them give back exactly its bits, else in hexadecimal. */
void cuda_number(const CudaWriter *w, LoopType type, double number) {
  bool single = type == LOOP_F32, exact = false;
  if (type == LOOP_INT) {
    text_printf(w->out, number < 0 ? "(%.0f)" : "%.0f", number + 0.0);
    return;
  }
  if (isnan(number) || isinf(number)) {
    const char *what = isnan(number) ? "NAN" : "INFINITY";
    text_printf(w->out, number < 0 ? "(-F%d_%s)" : "F%d_%s", single ? 32 : 64, what);
    return;
  }
  char text[64];
  for (int digits = 1; !exact && digits <= (single ? 6 : 12); digits++) {
    snprintf(text, sizeof text, "%.*g", digits, number);
    exact = single ? strtof(text, NULL) == (float)number : strtod(text, NULL) == number;
  }
  if (!exact) snprintf(text, sizeof text, "%a", number);
  bool negative = text[0] == '-';
  text_printf(w->out, "%s%s%s%s%s", negative ? "(" : "", text, strpbrk(text, ".exp") ? "" : ".0", single ? "f" : "",
              negative ? ")" : "");
}

static void integer(const CudaWriter *w, int64_t value) {
  if (value == INT32_MIN)
    text_add(w->out, "(-2147483647 - 1)"); /* 2147483648 is no int, so -2147483648 is none either */
  else
    text_printf(w->out, value < 0 ? "(%lld)" : "%lld", (long long)value);
}

void cuda_value(const CudaWriter *w, LoopValue v) {
  const LoopInstr *instr = &w->k->code.data[v];
  if (instr->op == LOOP_INTEGER)
    integer(w, instr->integer);
  else if (instr->op == LOOP_FLOAT)
    cuda_number(w, instr->type, instr->number);
  else
    text_printf(w->out, "v%d", w->number[v]);
}

bool cuda_bit_known(const CudaWriter *w, LoopValue v, bool *bit) {
  const LoopInstr *instr = &w->k->code.data[v];
  if (instr->op != LOOP_ILT && instr->op != LOOP_IEQ) return false;
  const LoopInstr *a = &w->k->code.data[instr->operand[0]], *b = &w->k->code.data[instr->operand[1]];
  if (a->op != LOOP_INTEGER || b->op != LOOP_INTEGER) return false;
  *bit = instr->op == LOOP_ILT ? a->integer < b->integer : a->integer == b->integer;
  return true;
}

/* ---- operations ---- */

/* Writes the form, in which $0, $1, $2 are the operands and $T is 32 or 64 by the result's type. */
static void write_form(const CudaWriter *w, const LoopInstr *instr, const char *form) {
  if (!form) return;
  for (; *form; form++) {
    if (*form != '$') {
      text_add_bytes(w->out, form, 1);
    } else if (*++form == 'T') {
      text_add(w->out, instr->type == LOOP_F32 ? "32" : "64");
    } else {
      cuda_value(w, instr->operand[*form - '0']);
    }
  }
}

static const char *form_of(LoopOp op) {
  switch (op) {
  case LOOP_TASK: return "BLOCK";
  case LOOP_BATCH: return "batch";
  case LOOP_LANE: return "THREAD";
  case LOOP_IADD:
  case LOOP_ADD: return "$0 + $1";
  case LOOP_ISUB:
  case LOOP_SUB: return "$0 - $1";
  case LOOP_IMUL:
  case LOOP_MUL: return "$0 * $1";
  case LOOP_IDIV:
  case LOOP_DIV: return "$0 / $1";
  case LOOP_IMOD: return "$0 % $1";
  case LOOP_ILT:
  case LOOP_IMIN:
  case LOOP_MIN: return op == LOOP_ILT ? "$0 < $1" : "$0 < $1 ? $0 : $1";
  case LOOP_GT:
  case LOOP_IMAX:
  case LOOP_MAX: return op == LOOP_GT ? "$0 > $1" : "$0 > $1 ? $0 : $1";
  case LOOP_IEQ:
  case LOOP_EQ: return "$0 == $1";
  case LOOP_AND: return "$0 & $1";
  case LOOP_OR: return "$0 | $1";
  case LOOP_NOT: return "!$0";
  case LOOP_SELECT: return "$0 ? $1 : $2";
  case LOOP_TO_F32: return "(float)$0";
  case LOOP_TO_F64: return "(double)$0";
  case LOOP_FMA: return "FMA_F$T($0, $1, $2)";
  case LOOP_SQRT: return "SQRT_F$T($0)";
  case LOOP_EXP: return "EXP($0)";
  case LOOP_LOG: return "LOG($0)";
  default: return NULL;
  }
}

void cuda_arithmetic(const CudaWriter *w, const LoopInstr *instr) {
  const char *form = form_of(instr->op);
  if (!form) die("kernel %s: no CUDA for operation %d", w->k->name, (int)instr->op);
  write_form(w, instr, form);
}
