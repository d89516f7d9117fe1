/* Memory: loads and stores of buffers and shared arrays, masked where a remainder of lanes is wanted, prefetches, and tiles. An
 * address is array + value + constant; the constant comes last, so that unrolled accesses share one computed pointer and differ
 * in the displacement of their instruction only. Pointers are computed without `inbounds`: the part without the constant, a
 * load of no lanes, and a prefetch may point anywhere. */
#include "compiler/emit/llvm_private.h"

static LLVMValueRef address(const Emitter *e, const LoopInstr *instr) {
  const EmitArray *array = &e->array[instr->array];
  EmitValue index = e->value[instr->operand[0]];
  LLVMValueRef pointer = array->pointer, offset = LLVMConstInt(e->i64, (unsigned long long)index.offset, true);
  if (index.value) pointer = LLVMBuildGEP2(e->builder, array->element, pointer, &index.value, 1, "");
  return index.offset ? LLVMBuildGEP2(e->builder, array->element, pointer, &offset, 1, "") : pointer;
}

static unsigned alignment(const Emitter *e, const LoopInstr *instr) {
  return e->k->arrays.data[instr->array].element == LOOP_ELEMENT_F64 ? 8 : 4;
}

/* ---- masks ---- */

/* The first `count` lanes; null where they are all. */
static LLVMValueRef mask_of(const Emitter *e, EmitValue count) {
  unsigned lanes = (unsigned)e->k->lanes;
  if (!count.value && count.offset >= lanes) return NULL;
  LLVMValueRef lane[LOOP_MAX_LANES];
  for (unsigned i = 0; i < lanes; i++) lane[i] = LLVMConstInt(e->i32, i, false);
  LLVMValueRef all = LLVMConstVector(lane, lanes);
  LLVMValueRef limit = LLVMBuildTrunc(e->builder, emit_materialise(e, count), e->i32, "");
  return LLVMBuildICmp(e->builder, LLVMIntULT, all, emit_splat(e, limit), "");
}

static LLVMValueRef masked_load(const Emitter *e, const LoopInstr *instr, LLVMValueRef mask) {
  LLVMTypeRef types[2] = {emit_type(e, instr->type, true), e->pointer};
  LLVMValueRef fill = LLVMConstReal(emit_type(e, instr->type, false), instr->number);
  LLVMValueRef arguments[4];
  arguments[0] = address(e, instr);
  arguments[1] = LLVMConstInt(e->i32, alignment(e, instr), false);
  arguments[2] = mask;
  arguments[3] = emit_splat(e, fill);
  return emit_intrinsic(e, "llvm.masked.load", types, 2, arguments, 4);
}

static LLVMValueRef plain_load(const Emitter *e, const LoopInstr *instr, LLVMTypeRef type) {
  LLVMValueRef load = LLVMBuildLoad2(e->builder, type, address(e, instr), "");
  LLVMSetAlignment(load, alignment(e, instr));
  return load;
}

static LLVMValueRef load_lanes(const Emitter *e, const LoopInstr *instr) {
  LLVMValueRef mask = mask_of(e, e->value[instr->operand[1]]);
  return mask ? masked_load(e, instr, mask) : plain_load(e, instr, emit_type(e, instr->type, true));
}

static void plain_store(const Emitter *e, const LoopInstr *instr, LLVMValueRef value) {
  LLVMValueRef store = LLVMBuildStore(e->builder, value, address(e, instr));
  LLVMSetAlignment(store, alignment(e, instr));
}

static void store_lanes(const Emitter *e, const LoopInstr *instr) {
  LLVMValueRef value = emit_operand(e, instr->operand[1], true), mask = mask_of(e, e->value[instr->operand[2]]);
  if (!mask) {
    plain_store(e, instr, value);
    return;
  }
  LLVMTypeRef types[2] = {LLVMTypeOf(value), e->pointer};
  LLVMValueRef arguments[4] = {value, address(e, instr), LLVMConstInt(e->i32, alignment(e, instr), false), mask};
  emit_intrinsic(e, "llvm.masked.store", types, 2, arguments, 4);
}

/* ---- tiles and prefetches ---- */

static LLVMValueRef tile_element(const Emitter *e, const LoopInstr *instr) {
  EmitValue index = e->value[instr->operand[0]];
  const LoopArray *tile = &e->k->arrays.data[instr->array];
  if (index.value || index.offset < 0 || index.offset >= tile->count)
    die("kernel %s: an index of tile %s is not known or outside it", e->k->name, tile->name);
  return e->array[instr->array].elements[index.offset];
}

/* Into the second-level cache, from where the processor's own prefetcher takes over. */
static void prefetch(const Emitter *e, const LoopInstr *instr) {
  enum { LOCALITY = 2, DATA = 1 };
  LLVMValueRef arguments[4];
  arguments[0] = address(e, instr);
  arguments[1] = LLVMConstInt(e->i32, (unsigned long long)instr->integer, false);
  arguments[2] = LLVMConstInt(e->i32, LOCALITY, false);
  arguments[3] = LLVMConstInt(e->i32, DATA, false);
  emit_intrinsic(e, "llvm.prefetch", &e->pointer, 1, arguments, 4);
}

EmitValue emit_access(Emitter *e, const LoopInstr *instr) {
  LLVMBuilderRef b = e->builder;
  LLVMValueRef result = NULL;
  switch (instr->op) {
  case LOOP_LOAD: result = plain_load(e, instr, emit_type(e, instr->type, false)); break;
  case LOOP_LOAD_INT: result = LLVMBuildSExt(b, plain_load(e, instr, e->i32), e->i64, ""); break;
  case LOOP_LOAD_LANES: result = load_lanes(e, instr); break;
  case LOOP_STORE: plain_store(e, instr, emit_operand(e, instr->operand[1], false)); break;
  case LOOP_STORE_LANES: store_lanes(e, instr); break;
  case LOOP_GET: result = LLVMBuildLoad2(b, e->array[instr->array].element, tile_element(e, instr), ""); break;
  case LOOP_SET:
    LLVMBuildStore(b, emit_operand(e, instr->operand[1], e->k->arrays.data[instr->array].varying), tile_element(e, instr));
    break;
  default: prefetch(e, instr); break;
  }
  return (EmitValue){result, 0};
}
