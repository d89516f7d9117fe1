/* The rules of the Loop IR that concern one instruction or one array: names, kinds, types, uniform and varying. Builder, parser
 * and verifier all ask here. A rule returns false with a message that names the operation, what was wanted and what was seen. */
#include "kernels/loop_private.h"

#include <math.h>
#include <string.h>

static const LoopOpInfo op_table[] = {
#define LOOP_OP(NAME, text, operands) {text, operands},
    LOOP_OPS(LOOP_OP)
#undef LOOP_OP
};

const LoopOpInfo *loop_op_info(LoopOp op) {
  return &op_table[op];
}

const char *loop_type_name(LoopType type) {
  switch (type) {
  case LOOP_VOID: return "nothing";
  case LOOP_INT: return "int";
  case LOOP_F32: return "f32";
  case LOOP_F64: return "f64";
  case LOOP_BIT: return "bit";
  }
  return "?";
}

const char *loop_element_name(LoopElement element) {
  static const char *const name[] = {"f32", "f64", "bf16", "i32", "u8"};
  return (unsigned)element <= LOOP_ELEMENT_U8 ? name[element] : "?";
}

LoopType loop_element_type(LoopElement element) {
  if (element == LOOP_ELEMENT_I32 || element == LOOP_ELEMENT_U8) return LOOP_INT;
  return element == LOOP_ELEMENT_F64 ? LOOP_F64 : LOOP_F32;
}

int64_t loop_element_bytes(LoopElement element) {
  static const int64_t bytes[] = {4, 8, 2, 4, 1};
  return bytes[element];
}

uint16_t loop_to_bf16(float value) {
  uint32_t bits;
  if (isnan(value)) return 0x7fff;
  memcpy(&bits, &value, sizeof bits);
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float loop_from_bf16(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

const char *loop_op_form(LoopOp op) {
  switch (op) {
  case LOOP_LOAD:
  case LOOP_LOAD_INT:
  case LOOP_GET: return "A0";
  case LOOP_LOAD_LANES: return "A0 count 1 else F";
  case LOOP_STORE:
  case LOOP_SET: return "A0 = 1";
  case LOOP_STORE_LANES: return "A0 = 1 count 2";
  case LOOP_GATHER: return "A0 where 1 else F";
  case LOOP_SCATTER: return "A0 = 1 where 2";
  case LOOP_GATHER_TILE: return "T2 = A0 width W where 1 else F";
  case LOOP_SCATTER_TILE: return "A0 width W = T2 where 1";
  case LOOP_ASYNC_COPY: return "A0 = O1 where 2";
  case LOOP_MMA: return "T2 += A0 stride S * O1 stride R";
  case LOOP_PREFETCH: return "A0 P";
  default: return NULL;
  }
}

bool loop_op_has_array(LoopOp op) {
  return loop_op_form(op) != NULL;
}

bool loop_op_has_tile(LoopOp op) {
  return op == LOOP_GATHER_TILE || op == LOOP_SCATTER_TILE || op == LOOP_MMA;
}

bool loop_op_has_other(LoopOp op) {
  return op == LOOP_ASYNC_COPY || op == LOOP_MMA;
}

bool loop_op_opens(LoopOp op) {
  return op == LOOP_FOR || op == LOOP_UNROLL || op == LOOP_IF || op == LOOP_PHASE;
}

bool loop_op_is_integer_arithmetic(LoopOp op) {
  return op >= LOOP_IADD && op <= LOOP_IMAX;
}

static bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool loop_name_ok(const char *name) {
  if (!name || !is_letter(*name)) return false;
  size_t length = 1;
  for (; name[length]; length++) {
    char c = name[length];
    if (length >= LOOP_MAX_NAME || !(is_letter(c) || (c >= '0' && c <= '9') || c == '.')) return false;
  }
  return true;
}

bool loop_number_ok(LoopType type, double number) {
  if (type == LOOP_INT) return number >= INT32_MIN && number <= INT32_MAX && (double)(int32_t)number == number;
  return type == LOOP_F64 || (type == LOOP_F32 && (isnan(number) || (double)(float)number == number));
}

LoopInstr loop_instr(LoopOp op) {
  return (LoopInstr){.op = op, .operand = {LOOP_NONE, LOOP_NONE, LOOP_NONE}, .array = -1, .tile = -1, .other = -1};
}

/* ---- arrays ---- */

static bool sizes_ok(const LoopKernel *k, size_t count, const LoopArray *array, Err *err) {
  if (array->count <= 0 || array->count > LOOP_MAX_SHARED)
    return err_set(err, "array %s has %lld elements", array->name, (long long)array->count);
  int64_t tiles = 0, tile_lanes = 0, shared = 0;
  for (size_t i = 0; i <= count; i++) {
    const LoopArray *other = i < count ? &k->arrays.data[i] : array;
    if (other->space == LOOP_TILE) tiles += other->count;
    if (other->space == LOOP_TILE) tile_lanes += other->count * (other->varying ? k->lanes : 1);
    if (other->space == LOOP_SHARED) shared += (other->count * loop_element_bytes(other->element) + 63) / 64 * 64;
  }
  if (tiles > LOOP_MAX_TILES)
    return err_set(err, "tile %s: all tiles together have %lld elements, more than %d", array->name, (long long)tiles,
                   LOOP_MAX_TILES);
  if (tile_lanes > LOOP_MAX_TILE_LANES)
    return err_set(err, "tile %s: all tiles together have %lld elements in %d lanes, more than %d", array->name,
                   (long long)tile_lanes, k->lanes, LOOP_MAX_TILE_LANES);
  if (shared > LOOP_MAX_SHARED)
    return err_set(err, "shared %s: all shared arrays together have %lld bytes, more than %d", array->name, (long long)shared,
                   LOOP_MAX_SHARED);
  return true;
}

bool loop_array_ok(const LoopKernel *k, size_t count, const LoopArray *array, Err *err) {
  if (!loop_name_ok(array->name)) return err_set(err, "`%.200s` is no name for an array", array->name ? array->name : "");
  if ((unsigned)array->element > LOOP_ELEMENT_U8) return err_set(err, "array %s holds nothing that is known", array->name);
  if (count >= LOOP_MAX_ARRAYS) return err_set(err, "more than %d arrays", LOOP_MAX_ARRAYS);
  for (size_t i = 0; i < count; i++)
    if (strcmp(k->arrays.data[i].name, array->name) == 0) return err_set(err, "two arrays are named %s", array->name);
  if (array->space == LOOP_IN || array->space == LOOP_OUT || array->space == LOOP_INOUT) {
    if (count > 0 && k->arrays.data[count - 1].space >= LOOP_SHARED)
      return err_set(err, "buffer %s stands after a shared array or tile", array->name);
    if (array->varying || array->count) return err_set(err, "buffer %s has a size or lanes", array->name);
    return true;
  }
  if (array->space == LOOP_SHARED && (loop_element_type(array->element) == LOOP_INT || array->varying))
    return err_set(err, "shared %s: a shared array holds f32, f64 or bf16, and no lanes", array->name);
  if (array->space == LOOP_TILE && array->element != LOOP_ELEMENT_F32 && array->element != LOOP_ELEMENT_F64)
    return err_set(err, "tile %s: a tile holds f32 or f64", array->name);
  return sizes_ok(k, count, array, err);
}

/* ---- instructions ---- */

typedef struct Rule {
  const LoopKernel *k;
  LoopInstr *instr;
  const char *text; /* of the operation */
  Err *err;
} Rule;

static const LoopInstr *operand_of(const Rule *r, int i) {
  return &r->k->code.data[r->instr->operand[i]];
}

static bool want(const Rule *r, int i, LoopType type) {
  const LoopInstr *operand = operand_of(r, i);
  if (operand->type == type) return true;
  return err_set(r->err, "%s: operand %d is %s where %s is wanted", r->text, i + 1, loop_type_name(operand->type),
                 loop_type_name(type));
}

static bool want_all(const Rule *r, LoopType type) {
  for (int i = 0; i < loop_op_info(r->instr->op)->operands; i++)
    if (!want(r, i, type)) return false;
  return true;
}

static bool want_uniform(const Rule *r, int i) {
  if (!operand_of(r, i)->varying) return true;
  return err_set(r->err, "%s: operand %d varies over the lanes where a uniform one is wanted", r->text, i + 1);
}

static bool is_float(LoopType type) {
  return type == LOOP_F32 || type == LOOP_F64;
}

/* Operands `from` .. last are floats of one type, which becomes `*type`. */
static bool want_floats(const Rule *r, int from, LoopType *type) {
  *type = operand_of(r, from)->type;
  if (!is_float(*type))
    return err_set(r->err, "%s: operand %d is %s where f32 or f64 is wanted", r->text, from + 1, loop_type_name(*type));
  for (int i = from + 1; i < loop_op_info(r->instr->op)->operands; i++)
    if (!want(r, i, *type)) return false;
  return true;
}

/* Sets the result, if there is one: varying where an operand varies. */
static bool gives(const Rule *r, LoopType type) {
  r->instr->type = type;
  r->instr->varying = false;
  for (int i = 0; i < loop_op_info(r->instr->op)->operands; i++)
    r->instr->varying |= type != LOOP_VOID && operand_of(r, i)->varying;
  return true;
}

static bool infer_select(const Rule *r) {
  LoopType type = operand_of(r, 1)->type;
  if (!want(r, 0, LOOP_BIT)) return false;
  if (type == LOOP_INT) return want(r, 2, LOOP_INT) && gives(r, LOOP_INT);
  return want_floats(r, 1, &type) && gives(r, type);
}

static bool infer_convert(const Rule *r, LoopType to) {
  LoopType from = operand_of(r, 0)->type;
  if (from != LOOP_INT && (!is_float(from) || from == to))
    return err_set(r->err, "%s: operand 1 is %s where int or %s is wanted", r->text, loop_type_name(from),
                   to == LOOP_F32 ? "f64" : "f32");
  return gives(r, to);
}

static bool infer_lane_sum(const Rule *r) {
  LoopType type;
  if (!want_floats(r, 0, &type)) return false;
  if (!operand_of(r, 0)->varying) return err_set(r->err, "%s: operand 1 is uniform where a varying one is wanted", r->text);
  gives(r, type);
  r->instr->varying = false;
  return true;
}

static bool lane_count_ok(const Rule *r, int i) {
  const LoopInstr *count = operand_of(r, i);
  if (!want(r, i, LOOP_INT) || !want_uniform(r, i)) return false;
  if (count->op == LOOP_INTEGER && (count->integer < 0 || count->integer > r->k->lanes))
    return err_set(r->err, "%s: a count of %lld where there are %d lanes", r->text, (long long)count->integer, r->k->lanes);
  return true;
}

static bool written_ok(const Rule *r, const LoopArray *array) {
  if (array->space == LOOP_IN) return err_set(r->err, "%s: buffer %s is only read", r->text, array->name);
  if (loop_element_type(array->element) != LOOP_INT) return true;
  return err_set(r->err, "%s: %s is %s, which is only read", r->text, array->name, loop_element_name(array->element));
}

/* What is written: a value of the array's type that does not vary where one element is written. */
static bool stored_value_ok(const Rule *r, const LoopArray *array, bool wide) {
  if (!written_ok(r, array)) return false;
  return want(r, 1, loop_element_type(array->element)) && (wide || want_uniform(r, 1)) && gives(r, LOOP_VOID);
}

static bool fill_ok(const Rule *r, LoopType type) {
  if (loop_number_ok(type, r->instr->number)) return true;
  return err_set(r->err, "%s: the fill is no %s", r->text, type == LOOP_INT ? "i32" : loop_type_name(type));
}

static bool infer_load(const Rule *r, const LoopArray *array) {
  LoopType type = loop_element_type(array->element);
  LoopOp op = r->instr->op;
  bool ints = op == LOOP_LOAD_INT || (op == LOOP_GATHER && type == LOOP_INT);
  if (ints != (type == LOOP_INT)) return err_set(r->err, "%s: %s is %s", r->text, array->name, loop_element_name(array->element));
  if (op == LOOP_LOAD_LANES && !lane_count_ok(r, 1)) return false;
  if (op == LOOP_GATHER && !want(r, 1, LOOP_BIT)) return false;
  if ((op == LOOP_LOAD_LANES || op == LOOP_GATHER) && !fill_ok(r, type)) return false;
  gives(r, type);
  r->instr->varying = op == LOOP_LOAD_LANES || op == LOOP_GATHER;
  return true;
}

/* gather_tile and scatter_tile: one access of a lane, of up to 16 bytes. */
static bool infer_wide(const Rule *r, const LoopArray *array, const LoopArray *tile) {
  int64_t width = r->instr->integer, bytes = loop_element_bytes(array->element);
  bool gather = r->instr->op == LOOP_GATHER_TILE;
  if (!gather && !written_ok(r, array)) return false;
  if (loop_element_type(array->element) != loop_element_type(tile->element))
    return err_set(r->err, "%s: %s is %s where tile %s is %s", r->text, array->name, loop_element_name(array->element),
                   tile->name, loop_element_name(tile->element));
  if ((width != 2 && width != 4 && width != 8) || width * bytes > LOOP_ASYNC_BYTES)
    return err_set(r->err, "%s: a width of %lld %s, where 2, 4 or 8 of at most 16 bytes are wanted", r->text, (long long)width,
                   loop_element_name(array->element));
  if (gather && !fill_ok(r, loop_element_type(tile->element))) return false;
  return want(r, 1, LOOP_BIT) && gives(r, LOOP_VOID);
}

/* Two arrays of f32 or of bf16. */
static bool pair_ok(const Rule *r, const LoopArray *array, const LoopArray *other) {
  if (array->space != LOOP_SHARED) return err_set(r->err, "%s: %s is not shared", r->text, array->name);
  if (array->element == other->element && (array->element == LOOP_ELEMENT_F32 || array->element == LOOP_ELEMENT_BF16))
    return true;
  return err_set(r->err, "%s: %s is %s and %s is %s, where both are f32 or both bf16", r->text, array->name,
                 loop_element_name(array->element), other->name, loop_element_name(other->element));
}

static bool infer_async_copy(const Rule *r, const LoopArray *array, const LoopArray *other) {
  if (other->space != LOOP_IN && other->space != LOOP_INOUT)
    return err_set(r->err, "%s: %s is no buffer that may be read", r->text, other->name);
  if (!pair_ok(r, array, other) || !want(r, 1, LOOP_INT) || !want(r, 2, LOOP_BIT)) return false;
  r->instr->integer = LOOP_ASYNC_BYTES / loop_element_bytes(array->element);
  return gives(r, LOOP_VOID);
}

static bool infer_mma(const Rule *r, const LoopArray *array, const LoopArray *other, const LoopArray *tile) {
  const int64_t stride[] = {r->instr->stride, r->instr->other_stride};
  if (!pair_ok(r, array, other) || !want(r, 1, LOOP_INT)) return false;
  if (other->space != LOOP_SHARED) return err_set(r->err, "%s: %s is not shared", r->text, other->name);
  if (tile->element != LOOP_ELEMENT_F32) return err_set(r->err, "%s: tile %s is not f32", r->text, tile->name);
  for (int i = 0; i < 2; i++)
    if (stride[i] <= 0 || stride[i] % 2 || stride[i] > LOOP_MAX_SHARED)
      return err_set(r->err, "%s: a stride of %lld, where a positive even one is wanted", r->text, (long long)stride[i]);
  if (r->k->lanes % LOOP_WARP) return err_set(r->err, "%s: %d lanes are no warps of 32", r->text, r->k->lanes);
  return gives(r, LOOP_VOID);
}

static bool array_exists(const Rule *r, int32_t array) {
  return (array >= 0 && (size_t)array < r->k->arrays.count) || err_set(r->err, "%s: no such array", r->text);
}

/* Instructions with more than one array. */
static bool infer_arrays(const Rule *r, const LoopArray *array) {
  LoopOp op = r->instr->op;
  const LoopArray *tile = NULL, *other = NULL;
  if (loop_op_has_other(op)) {
    if (!array_exists(r, r->instr->other)) return false;
    other = &r->k->arrays.data[r->instr->other];
    if (other->space == LOOP_TILE) return err_set(r->err, "%s: %s is a tile", r->text, other->name);
  }
  if (loop_op_has_tile(op)) {
    if (!array_exists(r, r->instr->tile)) return false;
    tile = &r->k->arrays.data[r->instr->tile];
    if (tile->space != LOOP_TILE) return err_set(r->err, "%s: %s is no tile", r->text, tile->name);
    if (!tile->varying) return err_set(r->err, "%s: the elements of tile %s are uniform", r->text, tile->name);
    if (!want(r, 2, LOOP_INT) || !want_uniform(r, 2)) return false;
  }
  if (op == LOOP_MMA) return infer_mma(r, array, other, tile);
  return op == LOOP_ASYNC_COPY ? infer_async_copy(r, array, other) : infer_wide(r, array, tile);
}

static bool infer_array(const Rule *r) {
  LoopInstr *instr = r->instr;
  if (!array_exists(r, instr->array)) return false;
  const LoopArray *array = &r->k->arrays.data[instr->array];
  bool tile = instr->op == LOOP_GET || instr->op == LOOP_SET;
  if (tile != (array->space == LOOP_TILE))
    return err_set(r->err, "%s: %s is %s", r->text, array->name, tile ? "no tile" : "a tile");
  if (!want(r, 0, LOOP_INT)) return false;
  if (loop_op_has_tile(instr->op) || loop_op_has_other(instr->op)) return infer_arrays(r, array);
  if (instr->op == LOOP_SCATTER) return want(r, 2, LOOP_BIT) && stored_value_ok(r, array, true);
  if (instr->op == LOOP_GATHER) return infer_load(r, array);
  if (!want_uniform(r, 0)) return false;
  switch (instr->op) {
  case LOOP_STORE: return stored_value_ok(r, array, false);
  case LOOP_STORE_LANES: return lane_count_ok(r, 2) && stored_value_ok(r, array, true);
  case LOOP_SET: return stored_value_ok(r, array, array->varying);
  case LOOP_GET:
    gives(r, loop_element_type(array->element));
    instr->varying = array->varying;
    return true;
  case LOOP_PREFETCH:
    if (instr->integer != 0 && instr->integer != 1) return err_set(r->err, "%s: neither of a read nor of a write", r->text);
    return gives(r, LOOP_VOID);
  default: return infer_load(r, array);
  }
}

static bool infer_unroll(const Rule *r) {
  int64_t bound[3];
  for (int i = 0; i < 3; i++) {
    if (operand_of(r, i)->op != LOOP_INTEGER) return err_set(r->err, "%s: operand %d is not a constant", r->text, i + 1);
    bound[i] = operand_of(r, i)->integer;
  }
  int64_t span;
  if (bound[2] <= 0) return err_set(r->err, "%s: a step of %lld", r->text, (long long)bound[2]);
  if (__builtin_sub_overflow(bound[1], bound[0], &span) || (span > 0 && (span - 1) / bound[2] >= LOOP_MAX_TRIPS))
    return err_set(r->err, "%s: more than %d iterations", r->text, LOOP_MAX_TRIPS);
  return gives(r, LOOP_INT);
}

static bool infer_for(const Rule *r) {
  const LoopInstr *step = operand_of(r, 2);
  if (!want_all(r, LOOP_INT) || !want_uniform(r, 0) || !want_uniform(r, 1) || !want_uniform(r, 2)) return false;
  if (step->op == LOOP_INTEGER && step->integer <= 0)
    return err_set(r->err, "%s: a step of %lld", r->text, (long long)step->integer);
  return gives(r, LOOP_INT);
}

static bool infer_float(const Rule *r, bool bits) {
  LoopType type;
  return want_floats(r, 0, &type) && gives(r, bits ? LOOP_BIT : type);
}

static bool infer_constant(const Rule *r) {
  if (!is_float(r->instr->type)) return err_set(r->err, "%s: a constant of type %s", r->text, loop_type_name(r->instr->type));
  if (!loop_number_ok(r->instr->type, r->instr->number)) return err_set(r->err, "%s: the number is no f32", r->text);
  return gives(r, r->instr->type);
}

static bool infer(const Rule *r) {
  LoopOp op = r->instr->op;
  if (loop_op_has_array(op)) return infer_array(r);
  if (loop_op_is_integer_arithmetic(op)) return want_all(r, LOOP_INT) && gives(r, LOOP_INT);
  switch (op) {
  case LOOP_INTEGER:
  case LOOP_TASK:
  case LOOP_BATCH: return gives(r, LOOP_INT);
  case LOOP_LANE: gives(r, LOOP_INT); return r->instr->varying = true;
  case LOOP_FLOAT: return infer_constant(r);
  case LOOP_ILT:
  case LOOP_IEQ: return want_all(r, LOOP_INT) && gives(r, LOOP_BIT);
  case LOOP_AND:
  case LOOP_OR:
  case LOOP_NOT: return want_all(r, LOOP_BIT) && gives(r, LOOP_BIT);
  case LOOP_SELECT: return infer_select(r);
  case LOOP_TO_F32: return infer_convert(r, LOOP_F32);
  case LOOP_TO_F64: return infer_convert(r, LOOP_F64);
  case LOOP_EXP:
  case LOOP_LOG: return want(r, 0, LOOP_F64) && gives(r, LOOP_F64);
  case LOOP_GT:
  case LOOP_EQ: return infer_float(r, true);
  case LOOP_LANE_SUM: return infer_lane_sum(r);
  case LOOP_FOR: return infer_for(r);
  case LOOP_UNROLL: return infer_unroll(r);
  case LOOP_IF: return want(r, 0, LOOP_BIT) && gives(r, LOOP_VOID);
  case LOOP_PHASE:
    if (!loop_name_ok(r->instr->name)) return err_set(r->err, "%s: no name", r->text);
    return gives(r, LOOP_VOID);
  case LOOP_WAIT:
  case LOOP_END: return gives(r, LOOP_VOID);
  default: return infer_float(r, false);
  }
}

bool loop_infer(const LoopKernel *k, size_t before, LoopInstr *instr, Err *err) {
  if ((unsigned)instr->op >= LOOP_OP_COUNT) return err_set(err, "operation %d does not exist", (int)instr->op);
  Rule rule = {k, instr, loop_op_info(instr->op)->text, err};
  int operands = loop_op_info(instr->op)->operands;
  for (int i = 0; i < LOOP_MAX_OPERANDS; i++) {
    LoopValue v = instr->operand[i];
    if (i >= operands && v != LOOP_NONE) return err_set(err, "%s: more than %d operands", rule.text, operands);
    if (i < operands && (v < 0 || (size_t)v >= before || k->code.data[v].type == LOOP_VOID))
      return err_set(err, "%s: operand %d is no value that was defined before", rule.text, i + 1);
  }
  if (!loop_op_has_array(instr->op) && instr->array != -1) return err_set(err, "%s: has an array", rule.text);
  if (!loop_op_has_tile(instr->op) && instr->tile != -1) return err_set(err, "%s: has a tile", rule.text);
  if (!loop_op_has_other(instr->op) && instr->other != -1) return err_set(err, "%s: has another array", rule.text);
  return infer(&rule);
}
