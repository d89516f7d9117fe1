/* The builder of the Loop IR: kernels are written by calling it, one call an instruction, in the order of the text. It checks
 * types as it goes (loop_rules.c) and dies on a breach, since only our own schedules call it; scopes and tile indices, which
 * need the whole kernel, are left to `loop_verify`. Integer operations on constants fold here and nowhere else. */
#include "kernels/loop_private.h"

#include <string.h>

LoopKernel *loop_new(Arena *arena, const char *name, int32_t lanes) {
  if (!loop_name_ok(name)) die("`%s` is no name for a kernel", name ? name : "");
  if (lanes < 1 || lanes > LOOP_MAX_LANES || (lanes & (lanes - 1))) die("kernel %s with %d lanes", name, lanes);
  LoopKernel *k = ARENA_NEW(arena, LoopKernel);
  k->arena = arena;
  k->name = arena_copy_string(arena, name, strlen(name));
  k->lanes = lanes;
  return k;
}

void loop_free_tables(LoopKernel *k) {
  vector_free(&k->arrays);
  vector_free(&k->code);
}

/* ---- arrays ---- */

static int32_t add_array(LoopKernel *k, LoopArray array) {
  Err err;
  if (!loop_array_ok(k, k->arrays.count, &array, &err)) die("kernel %s: %s", k->name, err.text);
  array.name = arena_copy_string(k->arena, array.name, strlen(array.name));
  vector_push(&k->arrays, array);
  return (int32_t)k->arrays.count - 1;
}

int32_t loop_buffer(LoopKernel *k, const char *name, LoopSpace space, LoopElement element) {
  if (space != LOOP_IN && space != LOOP_OUT && space != LOOP_INOUT) die("kernel %s: %s is no buffer", k->name, name);
  int32_t array = add_array(k, (LoopArray){.name = name, .space = space, .element = element});
  k->buffer_count++;
  return array;
}

int32_t loop_shared_of(LoopKernel *k, const char *name, LoopElement element, int64_t count) {
  return add_array(k, (LoopArray){.name = name, .space = LOOP_SHARED, .element = element, .count = count});
}

int32_t loop_shared(LoopKernel *k, const char *name, int64_t count) {
  return loop_shared_of(k, name, LOOP_ELEMENT_F32, count);
}

int32_t loop_tile(LoopKernel *k, const char *name, LoopType type, bool varying, int64_t count) {
  if (type != LOOP_F32 && type != LOOP_F64) die("kernel %s: tile %s of %s", k->name, name, loop_type_name(type));
  LoopElement element = type == LOOP_F32 ? LOOP_ELEMENT_F32 : LOOP_ELEMENT_F64;
  return add_array(k, (LoopArray){.name = name, .space = LOOP_TILE, .element = element, .varying = varying, .count = count});
}

int64_t loop_scratch(const LoopKernel *k, int64_t *offset) {
  int64_t bytes = 0;
  for (size_t i = 0; i < k->arrays.count; i++) {
    const LoopArray *array = &k->arrays.data[i];
    if (array->space != LOOP_SHARED) continue;
    if (offset) *offset++ = bytes;
    bytes += (array->count * loop_element_bytes(array->element) + 63) / 64 * 64;
  }
  return bytes;
}

/* ---- instructions ---- */

static LoopValue add(LoopKernel *k, LoopInstr instr) {
  Err err;
  if (k->code.count >= LOOP_MAX_CODE) die("kernel %s: more than %d instructions", k->name, LOOP_MAX_CODE);
  if (!loop_infer(k, k->code.count, &instr, &err)) die("kernel %s: %s", k->name, err.text);
  vector_push(&k->code, instr);
  return instr.type == LOOP_VOID ? LOOP_NONE : (LoopValue)k->code.count - 1;
}

static LoopValue add_operation(LoopKernel *k, LoopOp op, int operands, LoopValue a, LoopValue b, LoopValue c) {
  if ((unsigned)op >= LOOP_OP_COUNT || loop_op_info(op)->operands != operands || loop_op_has_array(op) || loop_op_opens(op))
    die("kernel %s: operation %d cannot be built with %d operands and nothing else", k->name, (int)op, operands);
  LoopInstr instr = loop_instr(op);
  instr.operand[0] = a, instr.operand[1] = b, instr.operand[2] = c;
  return add(k, instr);
}

LoopValue loop_int(LoopKernel *k, int64_t value) {
  LoopInstr instr = loop_instr(LOOP_INTEGER);
  instr.integer = value;
  return add(k, instr);
}

static LoopValue add_number(LoopKernel *k, LoopType type, double value) {
  LoopInstr instr = loop_instr(LOOP_FLOAT);
  instr.type = type;
  instr.number = value;
  return add(k, instr);
}

LoopValue loop_f32(LoopKernel *k, double value) {
  return add_number(k, LOOP_F32, (double)(float)value);
}
LoopValue loop_f64(LoopKernel *k, double value) {
  return add_number(k, LOOP_F64, value);
}
LoopValue loop_task(LoopKernel *k) {
  return add(k, loop_instr(LOOP_TASK));
}
LoopValue loop_batch(LoopKernel *k) {
  return add(k, loop_instr(LOOP_BATCH));
}
LoopValue loop_lane(LoopKernel *k) {
  return add(k, loop_instr(LOOP_LANE));
}

bool loop_value_of(const LoopKernel *k, LoopValue v, int64_t *value) {
  if (v < 0 || (size_t)v >= k->code.count || k->code.data[v].op != LOOP_INTEGER) return false;
  *value = k->code.data[v].integer;
  return true;
}

/* ---- folding ---- */

static int64_t fold_constants(const LoopKernel *k, LoopOp op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if ((op == LOOP_IDIV || op == LOOP_IMOD) && (a < 0 || b <= 0))
    die("kernel %s: %s of %lld and %lld", k->name, loop_op_info(op)->text, (long long)a, (long long)b);
  switch (op) {
  case LOOP_IADD: overflow = __builtin_add_overflow(a, b, &result); break;
  case LOOP_ISUB: overflow = __builtin_sub_overflow(a, b, &result); break;
  case LOOP_IMUL: overflow = __builtin_mul_overflow(a, b, &result); break;
  case LOOP_IDIV: result = a / b; break;
  case LOOP_IMOD: result = a % b; break;
  case LOOP_IMIN: result = a < b ? a : b; break;
  default: result = a > b ? a : b; break;
  }
  if (overflow) die("kernel %s: %s of %lld and %lld overflows", k->name, loop_op_info(op)->text, (long long)a, (long long)b);
  return result;
}

/* The value that `a op b` is without computing anything, or LOOP_NONE. */
static LoopValue fold(LoopKernel *k, LoopOp op, LoopValue a, LoopValue b) {
  int64_t x, y;
  bool left = loop_value_of(k, a, &x), right = loop_value_of(k, b, &y);
  if (left && right) return loop_int(k, fold_constants(k, op, x, y));
  switch (op) {
  case LOOP_IADD: return right && y == 0 ? a : left && x == 0 ? b : LOOP_NONE;
  case LOOP_ISUB: return right && y == 0 ? a : LOOP_NONE;
  case LOOP_IMUL:
    if (right && y == 0) return b;
    if (left && x == 0) return a;
    return right && y == 1 ? a : left && x == 1 ? b : LOOP_NONE;
  case LOOP_IDIV: return right && y == 1 ? a : LOOP_NONE;
  case LOOP_IMOD: return right && y == 1 ? loop_int(k, 0) : LOOP_NONE;
  default: return a == b ? a : LOOP_NONE;
  }
}

LoopValue loop_op1(LoopKernel *k, LoopOp op, LoopValue a) {
  return add_operation(k, op, 1, a, LOOP_NONE, LOOP_NONE);
}

static bool is_int(const LoopKernel *k, LoopValue v) {
  return v >= 0 && (size_t)v < k->code.count && k->code.data[v].type == LOOP_INT;
}

LoopValue loop_op2(LoopKernel *k, LoopOp op, LoopValue a, LoopValue b) {
  if (loop_op_is_integer_arithmetic(op) && is_int(k, a) && is_int(k, b)) {
    LoopValue folded = fold(k, op, a, b);
    if (folded != LOOP_NONE) return folded;
  }
  return add_operation(k, op, 2, a, b, LOOP_NONE);
}

LoopValue loop_op3(LoopKernel *k, LoopOp op, LoopValue a, LoopValue b, LoopValue c) {
  return add_operation(k, op, 3, a, b, c);
}

/* ---- memory ---- */

static LoopValue add_access(LoopKernel *k, LoopOp op, int32_t array, LoopValue a, LoopValue b, LoopValue c, double fill) {
  LoopInstr instr = loop_instr(op);
  instr.array = array;
  instr.operand[0] = a, instr.operand[1] = b, instr.operand[2] = c;
  instr.number = fill;
  return add(k, instr);
}

LoopValue loop_load(LoopKernel *k, int32_t array, LoopValue index) {
  return add_access(k, LOOP_LOAD, array, index, LOOP_NONE, LOOP_NONE, 0);
}

LoopValue loop_load_int(LoopKernel *k, int32_t array, LoopValue index) {
  return add_access(k, LOOP_LOAD_INT, array, index, LOOP_NONE, LOOP_NONE, 0);
}

LoopValue loop_load_lanes(LoopKernel *k, int32_t array, LoopValue index, LoopValue count, double fill) {
  return add_access(k, LOOP_LOAD_LANES, array, index, count, LOOP_NONE, fill);
}

void loop_store(LoopKernel *k, int32_t array, LoopValue index, LoopValue value) {
  add_access(k, LOOP_STORE, array, index, value, LOOP_NONE, 0);
}

void loop_store_lanes(LoopKernel *k, int32_t array, LoopValue index, LoopValue value, LoopValue count) {
  add_access(k, LOOP_STORE_LANES, array, index, value, count, 0);
}

LoopValue loop_gather(LoopKernel *k, int32_t array, LoopValue index, LoopValue where, double fill) {
  return add_access(k, LOOP_GATHER, array, index, where, LOOP_NONE, fill);
}

void loop_scatter(LoopKernel *k, int32_t array, LoopValue index, LoopValue value, LoopValue where) {
  add_access(k, LOOP_SCATTER, array, index, value, where, 0);
}

static void add_wide_access(LoopKernel *k, LoopInstr instr, int32_t array, LoopValue index, int32_t tile, LoopValue at) {
  instr.array = array;
  instr.tile = tile;
  instr.operand[0] = index, instr.operand[2] = at;
  add(k, instr);
}

void loop_gather_tile(LoopKernel *k, int32_t tile, LoopValue at, int32_t array, LoopValue index, int width, LoopValue where,
                      double fill) {
  LoopInstr instr = loop_instr(LOOP_GATHER_TILE);
  instr.operand[1] = where;
  instr.integer = width;
  instr.number = fill;
  add_wide_access(k, instr, array, index, tile, at);
}

void loop_scatter_tile(LoopKernel *k, int32_t array, LoopValue index, int width, int32_t tile, LoopValue at, LoopValue where) {
  LoopInstr instr = loop_instr(LOOP_SCATTER_TILE);
  instr.operand[1] = where;
  instr.integer = width;
  add_wide_access(k, instr, array, index, tile, at);
}

void loop_async_copy(LoopKernel *k, int32_t shared, LoopValue to, int32_t buffer, LoopValue from, LoopValue where) {
  LoopInstr instr = loop_instr(LOOP_ASYNC_COPY);
  instr.array = shared;
  instr.other = buffer;
  instr.operand[0] = to, instr.operand[1] = from, instr.operand[2] = where;
  add(k, instr);
}

void loop_wait(LoopKernel *k) {
  add(k, loop_instr(LOOP_WAIT));
}

void loop_mma(LoopKernel *k, int32_t tile, LoopValue at, LoopFactor a, LoopFactor b) {
  LoopInstr instr = loop_instr(LOOP_MMA);
  instr.other = b.array;
  instr.operand[1] = b.index;
  instr.stride = a.stride, instr.other_stride = b.stride;
  add_wide_access(k, instr, a.array, a.index, tile, at);
}

LoopValue loop_get(LoopKernel *k, int32_t tile, LoopValue index) {
  return add_access(k, LOOP_GET, tile, index, LOOP_NONE, LOOP_NONE, 0);
}

void loop_set(LoopKernel *k, int32_t tile, LoopValue index, LoopValue value) {
  add_access(k, LOOP_SET, tile, index, value, LOOP_NONE, 0);
}

void loop_prefetch(LoopKernel *k, int32_t array, LoopValue index, bool write) {
  LoopInstr instr = loop_instr(LOOP_PREFETCH);
  instr.array = array;
  instr.operand[0] = index;
  instr.integer = write;
  add(k, instr);
}

/* ---- regions ---- */

static LoopValue open_region(LoopKernel *k, LoopInstr instr) {
  if (++k->depth > LOOP_MAX_DEPTH) die("kernel %s: more than %d regions inside each other", k->name, LOOP_MAX_DEPTH);
  return add(k, instr);
}

LoopValue loop_for(LoopKernel *k, LoopValue from, LoopValue below, LoopValue step) {
  LoopInstr instr = loop_instr(LOOP_FOR);
  instr.operand[0] = from, instr.operand[1] = below, instr.operand[2] = step;
  return open_region(k, instr);
}

LoopValue loop_unroll(LoopKernel *k, int64_t from, int64_t below, int64_t step) {
  LoopInstr instr = loop_instr(LOOP_UNROLL);
  instr.operand[0] = loop_int(k, from);
  instr.operand[1] = loop_int(k, below);
  instr.operand[2] = loop_int(k, step);
  return open_region(k, instr);
}

void loop_if(LoopKernel *k, LoopValue bit) {
  LoopInstr instr = loop_instr(LOOP_IF);
  instr.operand[0] = bit;
  open_region(k, instr);
}

void loop_phase(LoopKernel *k, const char *name) {
  LoopInstr instr = loop_instr(LOOP_PHASE);
  if (!loop_name_ok(name)) die("kernel %s: `%s` is no name for a phase", k->name, name ? name : "");
  instr.name = arena_copy_string(k->arena, name, strlen(name));
  open_region(k, instr);
}

void loop_end(LoopKernel *k) {
  if (k->depth-- <= 0) die("kernel %s: no region is open", k->name);
  add(k, loop_instr(LOOP_END));
}
