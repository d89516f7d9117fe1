/* Values: integers as a value plus a constant, floats as scalars or vectors of lanes, and all arithmetic on them. Floats are
 * computed as written: no fast-math flag is ever set, so that every operation gives the interpreter's bits. Operands are always
 * put into variables before they are used: C leaves the order of a call's arguments open, and the order of instructions is part
 * of what must be the same everywhere. */
#include "compiler/emit/llvm_private.h"

#include <string.h>

EmitValue emit_constant(int64_t value) {
  return (EmitValue){NULL, value};
}

static EmitValue plain(LLVMValueRef value) {
  return (EmitValue){value, 0};
}

static LLVMValueRef int64_constant(const Emitter *e, int64_t value) {
  return LLVMConstInt(e->i64, (unsigned long long)value, true);
}

LLVMValueRef emit_materialise(const Emitter *e, EmitValue integer) {
  LLVMValueRef offset = int64_constant(e, integer.offset);
  if (!integer.value) return offset;
  return integer.offset ? LLVMBuildAdd(e->builder, integer.value, offset, "") : integer.value;
}

LLVMTypeRef emit_lanes_of(const Emitter *e, LLVMTypeRef element) {
  return LLVMVectorType(element, (unsigned)e->k->lanes);
}

LLVMTypeRef emit_type(const Emitter *e, LoopType type, bool varying) {
  LLVMTypeRef element = type == LOOP_F32 ? e->f32 : type == LOOP_F64 ? e->f64 : type == LOOP_BIT ? e->i1 : e->i64;
  return varying ? emit_lanes_of(e, element) : element;
}

LLVMValueRef emit_splat(const Emitter *e, LLVMValueRef scalar) {
  LLVMTypeRef type = emit_lanes_of(e, LLVMTypeOf(scalar));
  LLVMValueRef nothing = LLVMGetPoison(type);
  LLVMValueRef one = LLVMBuildInsertElement(e->builder, nothing, scalar, LLVMConstInt(e->i32, 0, false), "");
  return LLVMBuildShuffleVector(e->builder, one, nothing, LLVMConstNull(emit_lanes_of(e, e->i32)), "");
}

LLVMValueRef emit_operand(const Emitter *e, LoopValue v, bool varying) {
  const LoopInstr *instr = &e->k->code.data[v];
  LLVMValueRef value = instr->type == LOOP_INT ? emit_materialise(e, e->value[v]) : e->value[v].value;
  return varying && !instr->varying ? emit_splat(e, value) : value;
}

LLVMValueRef emit_intrinsic(const Emitter *e, const char *name, const LLVMTypeRef *types, size_t type_count,
                            LLVMValueRef *arguments, unsigned count) {
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  LLVMTypeRef *overloads = (LLVMTypeRef *)types; /* LLVM only reads them */
  LLVMValueRef function = LLVMGetIntrinsicDeclaration(e->module, id, overloads, type_count);
  LLVMTypeRef type = LLVMIntrinsicGetType(e->context, id, overloads, type_count);
  return LLVMBuildCall2(e->builder, type, function, arguments, count, "");
}

void emit_attribute(const Emitter *e, LLVMValueRef function, unsigned index, const char *name, uint64_t value) {
  unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
  LLVMAddAttributeAtIndex(function, index, LLVMCreateEnumAttribute(e->context, kind, value));
}

/* ---- integers ---- */

static int64_t wrap_add(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a + (uint64_t)b);
}
static int64_t wrap_sub(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a - (uint64_t)b);
}
static int64_t wrap_mul(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a * (uint64_t)b);
}

static EmitValue integer_add(const Emitter *e, EmitValue a, EmitValue b) {
  LLVMValueRef value = !a.value ? b.value : !b.value ? a.value : LLVMBuildAdd(e->builder, a.value, b.value, "");
  return (EmitValue){value, wrap_add(a.offset, b.offset)};
}

static EmitValue integer_sub(const Emitter *e, EmitValue a, EmitValue b) {
  LLVMValueRef value = a.value;
  if (b.value) value = a.value ? LLVMBuildSub(e->builder, a.value, b.value, "") : LLVMBuildNeg(e->builder, b.value, "");
  return (EmitValue){value, wrap_sub(a.offset, b.offset)};
}

static EmitValue integer_mul(const Emitter *e, EmitValue a, EmitValue b) {
  if (!a.value) {
    EmitValue swap = a;
    a = b;
    b = swap;
  }
  if (b.value) {
    LLVMValueRef x = emit_materialise(e, a), y = emit_materialise(e, b);
    return plain(LLVMBuildMul(e->builder, x, y, ""));
  }
  if (b.offset == 0) return emit_constant(0);
  LLVMValueRef value = a.value;
  if (value && b.offset != 1) value = LLVMBuildMul(e->builder, value, int64_constant(e, b.offset), "");
  return (EmitValue){value, wrap_mul(a.offset, b.offset)};
}

/* Of operands >= 0 and a divisor > 0; others are undefined. */
static EmitValue integer_divide(const Emitter *e, LoopOp op, EmitValue a, EmitValue b) {
  if (!a.value && !b.value && a.offset >= 0 && b.offset > 0)
    return emit_constant(op == LOOP_IDIV ? a.offset / b.offset : a.offset % b.offset);
  LLVMValueRef x = emit_materialise(e, a), y = emit_materialise(e, b);
  return plain(op == LOOP_IDIV ? LLVMBuildUDiv(e->builder, x, y, "") : LLVMBuildURem(e->builder, x, y, ""));
}

static EmitValue integer_extreme(const Emitter *e, LoopOp op, EmitValue a, EmitValue b) {
  if (a.value == b.value) return (op == LOOP_IMIN) == (a.offset < b.offset) ? a : b;
  LLVMValueRef operands[2];
  operands[0] = emit_materialise(e, a);
  operands[1] = emit_materialise(e, b);
  return plain(emit_intrinsic(e, op == LOOP_IMIN ? "llvm.smin" : "llvm.smax", &e->i64, 1, operands, 2));
}

static EmitValue emit_integer(const Emitter *e, LoopOp op, EmitValue a, EmitValue b) {
  switch (op) {
  case LOOP_IADD: return integer_add(e, a, b);
  case LOOP_ISUB: return integer_sub(e, a, b);
  case LOOP_IMUL: return integer_mul(e, a, b);
  case LOOP_IDIV:
  case LOOP_IMOD: return integer_divide(e, op, a, b);
  default: return integer_extreme(e, op, a, b);
  }
}

static EmitValue compare_integers(const Emitter *e, LoopOp op, EmitValue a, EmitValue b) {
  if (!a.value && !b.value) {
    bool holds = op == LOOP_ILT ? a.offset < b.offset : a.offset == b.offset;
    return plain(LLVMConstInt(e->i1, holds, false));
  }
  LLVMValueRef x = emit_materialise(e, a), y = emit_materialise(e, b);
  return plain(LLVMBuildICmp(e->builder, op == LOOP_ILT ? LLVMIntSLT : LLVMIntEQ, x, y, ""));
}

/* ---- floats and bits ---- */

static EmitValue emit_select(const Emitter *e, const LoopInstr *instr) {
  LLVMValueRef bit = e->value[instr->operand[0]].value;
  if (instr->type == LOOP_INT && LLVMIsConstant(bit)) return e->value[instr->operand[LLVMConstIntGetZExtValue(bit) ? 1 : 2]];
  LLVMValueRef a = emit_operand(e, instr->operand[1], instr->varying);
  LLVMValueRef b = emit_operand(e, instr->operand[2], instr->varying);
  return plain(LLVMBuildSelect(e->builder, bit, a, b, ""));
}

static LLVMValueRef emit_convert(const Emitter *e, const LoopInstr *instr) {
  LoopType from = e->k->code.data[instr->operand[0]].type;
  LLVMTypeRef type = emit_type(e, instr->type, instr->varying);
  LLVMValueRef value = emit_operand(e, instr->operand[0], false);
  if (from == LOOP_INT) return LLVMBuildSIToFP(e->builder, value, type, "");
  return instr->type == LOOP_F32 ? LLVMBuildFPTrunc(e->builder, value, type, "") : LLVMBuildFPExt(e->builder, value, type, "");
}

/* Halves are added until one lane is left. */
static LLVMValueRef emit_lane_sum(const Emitter *e, LLVMValueRef lanes) {
  LLVMValueRef index[LOOP_MAX_LANES];
  for (unsigned i = 0; i < LOOP_MAX_LANES; i++) index[i] = LLVMConstInt(e->i32, i, false);
  for (int half = e->k->lanes / 2; half >= 1; half /= 2) {
    LLVMValueRef nothing = LLVMGetPoison(LLVMTypeOf(lanes));
    LLVMValueRef low = LLVMConstVector(index, (unsigned)half), high = LLVMConstVector(index + half, (unsigned)half);
    LLVMValueRef a = LLVMBuildShuffleVector(e->builder, lanes, nothing, low, "");
    LLVMValueRef b = LLVMBuildShuffleVector(e->builder, lanes, nothing, high, "");
    lanes = LLVMBuildFAdd(e->builder, a, b, "");
  }
  return LLVMBuildExtractElement(e->builder, lanes, index[0], "");
}

/* `a > b ? a : b` is what the processor's own maximum computes, not-a-number and zeros included. */
static LLVMValueRef emit_extreme(const Emitter *e, LoopOp op, LLVMValueRef a, LLVMValueRef b) {
  LLVMValueRef first = LLVMBuildFCmp(e->builder, op == LOOP_MAX ? LLVMRealOGT : LLVMRealOLT, a, b, "");
  return LLVMBuildSelect(e->builder, first, a, b, "");
}

static LLVMValueRef emit_float(const Emitter *e, const LoopInstr *instr) {
  LLVMBuilderRef b = e->builder;
  LLVMValueRef x[3] = {0};
  for (int i = 0; i < 3 && instr->operand[i] != LOOP_NONE; i++) x[i] = emit_operand(e, instr->operand[i], instr->varying);
  LLVMTypeRef type = emit_type(e, instr->type, instr->varying);
  switch (instr->op) {
  case LOOP_ADD: return LLVMBuildFAdd(b, x[0], x[1], "");
  case LOOP_SUB: return LLVMBuildFSub(b, x[0], x[1], "");
  case LOOP_MUL: return LLVMBuildFMul(b, x[0], x[1], "");
  case LOOP_DIV: return LLVMBuildFDiv(b, x[0], x[1], "");
  case LOOP_FMA: return emit_intrinsic(e, "llvm.fma", &type, 1, x, 3);
  case LOOP_SQRT: return emit_intrinsic(e, "llvm.sqrt", &type, 1, x, 1);
  case LOOP_MAX:
  case LOOP_MIN: return emit_extreme(e, instr->op, x[0], x[1]);
  case LOOP_GT: return LLVMBuildFCmp(b, LLVMRealOGT, x[0], x[1], "");
  case LOOP_EQ: return LLVMBuildFCmp(b, LLVMRealOEQ, x[0], x[1], "");
  case LOOP_AND: return LLVMBuildAnd(b, x[0], x[1], "");
  case LOOP_OR: return LLVMBuildOr(b, x[0], x[1], "");
  case LOOP_NOT: return LLVMBuildNot(b, x[0], "");
  default: die("kernel %s: operation %d is no arithmetic", e->k->name, (int)instr->op);
  }
}

EmitValue emit_arithmetic(Emitter *e, const LoopInstr *instr) {
  switch (instr->op) {
  case LOOP_INTEGER: return emit_constant(instr->integer);
  case LOOP_FLOAT: return plain(LLVMConstReal(emit_type(e, instr->type, false), instr->number));
  case LOOP_TASK: return plain(e->task);
  case LOOP_BATCH: return plain(e->batch);
  case LOOP_IADD:
  case LOOP_ISUB:
  case LOOP_IMUL:
  case LOOP_IDIV:
  case LOOP_IMOD:
  case LOOP_IMIN:
  case LOOP_IMAX: return emit_integer(e, instr->op, e->value[instr->operand[0]], e->value[instr->operand[1]]);
  case LOOP_ILT:
  case LOOP_IEQ: return compare_integers(e, instr->op, e->value[instr->operand[0]], e->value[instr->operand[1]]);
  case LOOP_SELECT: return emit_select(e, instr);
  case LOOP_TO_F32:
  case LOOP_TO_F64: return plain(emit_convert(e, instr));
  case LOOP_LANE_SUM: return plain(emit_lane_sum(e, e->value[instr->operand[0]].value));
  case LOOP_EXP: return plain(emit_exp(e, e->value[instr->operand[0]].value));
  case LOOP_LOG: return plain(emit_log(e, e->value[instr->operand[0]].value));
  default: return plain(emit_float(e, instr));
  }
}
