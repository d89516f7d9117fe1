/* Memory as words of the prelude. A bit that masks an access becomes an `if` or `? :` around the word, so that nothing outside an
 * array is ever touched; an access of all lanes has none. Prefetches are left out: a GPU hides latency by other warps. */
#include "compiler/emit/cuda_private.h"

static const LoopArray *array_of(const CudaWriter *w, int32_t array) {
  return &w->k->arrays.data[array];
}

/* "_BF16", or nothing where the access is C's own type. */
static const char *scalar_suffix(const LoopArray *array) {
  return array->element == LOOP_ELEMENT_BF16 ? "_BF16" : "";
}

static void comma_value(const CudaWriter *w, LoopValue v) {
  text_add(w->out, ", ");
  cuda_value(w, v);
}

/* `array, index` of an access: of this lane where `lanes`. */
static void element(const CudaWriter *w, int32_t array, LoopValue index, bool lanes) {
  int64_t constant;
  text_add(w->out, w->name[array]);
  if (lanes && loop_value_of(w->k, index, &constant) && constant == 0) {
    text_add(w->out, ", THREAD");
    return;
  }
  comma_value(w, index);
  if (lanes) text_add(w->out, " + THREAD");
}

static void load(const CudaWriter *w, const LoopInstr *instr, bool lanes) {
  text_printf(w->out, "LOAD%s(", scalar_suffix(array_of(w, instr->array)));
  element(w, instr->array, instr->operand[0], lanes);
  text_add(w->out, ")");
}

static void fill(const CudaWriter *w, const LoopInstr *instr, LoopType type) {
  cuda_number(w, type, instr->number);
}

/* ---- masks ---- */

typedef enum Mask { MASK_SOME, MASK_ALL, MASK_NONE } Mask;

static Mask mask_of_bit(const CudaWriter *w, LoopValue where) {
  bool bit;
  if (!cuda_bit_known(w, where, &bit)) return MASK_SOME;
  return bit ? MASK_ALL : MASK_NONE;
}

static Mask mask_of_count(const CudaWriter *w, LoopValue count) {
  int64_t constant;
  if (!loop_value_of(w->k, count, &constant) || (constant > 0 && constant < w->k->lanes)) return MASK_SOME;
  return constant ? MASK_ALL : MASK_NONE;
}

/* The mask of an access as C: of a count, of a bit. */
static void condition(const CudaWriter *w, const LoopInstr *instr, LoopValue mask) {
  bool count = instr->op == LOOP_LOAD_LANES || instr->op == LOOP_STORE_LANES;
  if (count) text_add(w->out, "THREAD < ");
  cuda_value(w, mask);
}

/* ---- one element a lane ---- */

static void masked_load(const CudaWriter *w, const LoopInstr *instr, Mask mask) {
  if (mask == MASK_SOME) {
    condition(w, instr, instr->operand[1]);
    text_add(w->out, " ? ");
  }
  if (mask != MASK_NONE) load(w, instr, instr->op == LOOP_LOAD_LANES);
  if (mask == MASK_SOME) text_add(w->out, " : ");
  if (mask != MASK_ALL) fill(w, instr, instr->type);
  text_add(w->out, ";\n");
}

static void store(const CudaWriter *w, const LoopInstr *instr, Mask mask) {
  if (mask == MASK_NONE) return;
  cuda_line(w);
  if (instr->op == LOOP_STORE) {
    text_add(w->out, "if (THREAD == 0) ");
  } else if (mask == MASK_SOME) {
    text_add(w->out, "if (");
    condition(w, instr, instr->operand[2]);
    text_add(w->out, ") ");
  }
  text_printf(w->out, "STORE%s(", scalar_suffix(array_of(w, instr->array)));
  element(w, instr->array, instr->operand[0], instr->op == LOOP_STORE_LANES);
  comma_value(w, instr->operand[1]);
  text_add(w->out, ");\n");
}

/* ---- vectors, copies, products ---- */

static const char *vector_word(LoopElement element) {
  return element == LOOP_ELEMENT_BF16 ? "BF16" : element == LOOP_ELEMENT_F64 ? "F64" : "F32";
}

static void gather_tile(const CudaWriter *w, const LoopInstr *instr) {
  Mask mask = mask_of_bit(w, instr->operand[1]);
  const LoopArray *array = array_of(w, instr->array);
  cuda_line(w);
  if (mask == MASK_SOME) {
    text_add(w->out, "if (");
    cuda_value(w, instr->operand[1]);
    text_add(w->out, ") ");
  }
  if (mask != MASK_NONE) {
    text_printf(w->out, "LOAD_%sX%lld(", vector_word(array->element), (long long)instr->integer);
    element(w, instr->tile, instr->operand[2], false);
    text_add(w->out, ", ");
    element(w, instr->array, instr->operand[0], false);
    text_add(w->out, ");");
  }
  if (mask == MASK_SOME) text_add(w->out, " else ");
  if (mask != MASK_ALL) {
    text_add(w->out, "FILL(");
    element(w, instr->tile, instr->operand[2], false);
    text_printf(w->out, ", %lld, ", (long long)instr->integer);
    fill(w, instr, array_of(w, instr->tile)->element == LOOP_ELEMENT_F64 ? LOOP_F64 : LOOP_F32);
    text_add(w->out, ");");
  }
  text_add(w->out, "\n");
}

static void scatter_tile(const CudaWriter *w, const LoopInstr *instr) {
  Mask mask = mask_of_bit(w, instr->operand[1]);
  if (mask == MASK_NONE) return;
  cuda_line(w);
  if (mask == MASK_SOME) {
    text_add(w->out, "if (");
    cuda_value(w, instr->operand[1]);
    text_add(w->out, ") ");
  }
  text_printf(w->out, "STORE_%sX%lld(", vector_word(array_of(w, instr->array)->element), (long long)instr->integer);
  element(w, instr->array, instr->operand[0], false);
  text_add(w->out, ", ");
  element(w, instr->tile, instr->operand[2], false);
  text_add(w->out, ");\n");
}

static void async_copy(const CudaWriter *w, const LoopInstr *instr) {
  bool bit;
  cuda_line(w);
  text_add(w->out, "ASYNC_COPY(");
  element(w, instr->array, instr->operand[0], false);
  text_add(w->out, ", ");
  element(w, instr->other, instr->operand[1], false);
  if (cuda_bit_known(w, instr->operand[2], &bit))
    text_add(w->out, bit ? ", 1" : ", 0");
  else
    comma_value(w, instr->operand[2]);
  text_add(w->out, ");\n");
}

static void mma(const CudaWriter *w, const LoopInstr *instr) {
  cuda_line(w);
  text_printf(w->out, "MMA_%s(", array_of(w, instr->array)->element == LOOP_ELEMENT_BF16 ? "BF16" : "TF32");
  element(w, instr->tile, instr->operand[2], false);
  text_add(w->out, ", ");
  element(w, instr->array, instr->operand[0], false);
  text_printf(w->out, ", %lld, ", (long long)instr->stride);
  element(w, instr->other, instr->operand[1], false);
  text_printf(w->out, ", %lld);\n", (long long)instr->other_stride);
}

/* ---- tiles ---- */

static void tile_element(const CudaWriter *w, const LoopInstr *instr) {
  text_printf(w->out, "%s[", w->name[instr->array]);
  cuda_value(w, instr->operand[0]);
  text_add(w->out, "]");
}

static void set(const CudaWriter *w, const LoopInstr *instr) {
  cuda_line(w);
  tile_element(w, instr);
  text_add(w->out, " = ");
  cuda_value(w, instr->operand[1]);
  text_add(w->out, ";\n");
}

void cuda_access(const CudaWriter *w, size_t at) {
  const LoopInstr *instr = &w->k->code.data[at];
  if (instr->type != LOOP_VOID) cuda_declare(w, at);
  switch (instr->op) {
  case LOOP_LOAD:
  case LOOP_LOAD_INT: masked_load(w, instr, MASK_ALL); break;
  case LOOP_LOAD_LANES: masked_load(w, instr, mask_of_count(w, instr->operand[1])); break;
  case LOOP_GATHER: masked_load(w, instr, mask_of_bit(w, instr->operand[1])); break;
  case LOOP_STORE: store(w, instr, MASK_ALL); break;
  case LOOP_STORE_LANES: store(w, instr, mask_of_count(w, instr->operand[2])); break;
  case LOOP_SCATTER: store(w, instr, mask_of_bit(w, instr->operand[2])); break;
  case LOOP_GATHER_TILE: gather_tile(w, instr); break;
  case LOOP_SCATTER_TILE: scatter_tile(w, instr); break;
  case LOOP_ASYNC_COPY: async_copy(w, instr); break;
  case LOOP_MMA: mma(w, instr); break;
  case LOOP_GET:
    tile_element(w, instr);
    text_add(w->out, ";\n");
    break;
  case LOOP_SET: set(w, instr); break;
  case LOOP_PREFETCH: break;
  default: die("kernel %s: operation %d has no array", w->k->name, (int)instr->op);
  }
}
