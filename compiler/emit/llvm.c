/* Loop IR to an LLVM module, instruction by instruction: the schedule has decided everything, nothing is decided here.
 *
 * The module exports one function, `void SYMBOL(const KernelArgs *, i64 task0, i64 task1)`, which unpacks its arguments and calls
 * an inner one that has every buffer and every shared array as a parameter of its own, `noalias`: that is how LLVM learns that
 * they lie apart. `unroll` regions are written once a trip, with the loop's variable a constant; tiles are one alloca an element,
 * which LLVM makes registers. */
#include "compiler/emit/llvm_private.h"

#include <stdio.h>
#include <string.h>

/* ---- types and functions ---- */

static void string_attribute(const Emitter *e, LLVMValueRef function, const char *name, const char *value) {
  LLVMAttributeRef attribute =
      LLVMCreateStringAttribute(e->context, name, (unsigned)strlen(name), value, (unsigned)strlen(value));
  LLVMAddAttributeAtIndex(function, (unsigned)LLVMAttributeFunctionIndex, attribute);
}

static void function_attributes(const Emitter *e, LLVMValueRef function) {
  emit_attribute(e, function, (unsigned)LLVMAttributeFunctionIndex, "nounwind", 0);
  string_attribute(e, function, "target-cpu", e->target->name);
  string_attribute(e, function, "target-features", e->target->features);
  string_attribute(e, function, "prefer-vector-width", e->target->width);
}

static LLVMTypeRef element_type(const Emitter *e, const LoopArray *array) {
  LLVMTypeRef type = array->element == LOOP_ELEMENT_F32 ? e->f32 : array->element == LOOP_ELEMENT_F64 ? e->f64 : e->i32;
  return array->space == LOOP_TILE && array->varying ? emit_lanes_of(e, type) : type;
}

/* Attributes of the parameters of `body`; `index` counts from 1. */
static void array_attributes(const Emitter *e, const LoopArray *array, unsigned index) {
  static const char *const names[] = {"noalias", "nocapture", "noundef"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) emit_attribute(e, e->body, index, names[i], 0);
  emit_attribute(e, e->body, index, "align", array->space == LOOP_SHARED ? 64 : array->element == LOOP_ELEMENT_F64 ? 8 : 4);
  if (array->space == LOOP_IN) emit_attribute(e, e->body, index, "readonly", 0);
}

static unsigned parameter_count(const Emitter *e) {
  unsigned count = 0;
  for (size_t i = 0; i < e->k->arrays.count; i++) count += e->k->arrays.data[i].space != LOOP_TILE;
  return count;
}

/* void body(ptr buffers ..., ptr shared arrays ..., i64 batch, i64 task0, i64 task1) */
static void declare_body(Emitter *e) {
  unsigned arrays = parameter_count(e), at = 0;
  LLVMTypeRef *types = ARENA_ARRAY(e->arena, LLVMTypeRef, arrays + 3);
  for (unsigned i = 0; i < arrays + 3; i++) types[i] = i < arrays ? e->pointer : e->i64;
  LLVMTypeRef type = LLVMFunctionType(LLVMVoidTypeInContext(e->context), types, arrays + 3, false);
  e->body = LLVMAddFunction(e->module, "body", type);
  LLVMSetLinkage(e->body, LLVMInternalLinkage);
  emit_attribute(e, e->body, (unsigned)LLVMAttributeFunctionIndex, "noinline", 0);
  function_attributes(e, e->body);
  for (size_t i = 0; i < e->k->arrays.count; i++) {
    const LoopArray *array = &e->k->arrays.data[i];
    e->array[i].element = element_type(e, array);
    if (array->space == LOOP_TILE) continue;
    e->array[i].pointer = LLVMGetParam(e->body, at++);
    LLVMSetValueName2(e->array[i].pointer, array->name, strlen(array->name));
    array_attributes(e, array, at);
  }
  e->batch = LLVMGetParam(e->body, at);
}

static void make_tiles(Emitter *e) {
  for (size_t i = 0; i < e->k->arrays.count; i++) {
    const LoopArray *tile = &e->k->arrays.data[i];
    if (tile->space != LOOP_TILE) continue;
    e->array[i].elements = ARENA_ARRAY(e->arena, LLVMValueRef, tile->count);
    for (int64_t j = 0; j < tile->count; j++)
      e->array[i].elements[j] = LLVMBuildAlloca(e->builder, e->array[i].element, tile->name);
  }
}

static LLVMBasicBlockRef new_block(const Emitter *e, const char *name) {
  return LLVMAppendBasicBlockInContext(e->context, e->body, name);
}

/* ---- regions ---- */

static void emit_range(Emitter *e, size_t first, size_t end);

typedef struct Loop {
  LLVMValueRef variable, below, step;
  LLVMBasicBlockRef entered, start, exit;
} Loop;

/* A loop is tested once before its first iteration, unless its bounds are constants, and then at the end of each. */
static Loop begin_loop(const Emitter *e, EmitValue from, EmitValue below, EmitValue step) {
  Loop loop = {.start = new_block(e, "loop"), .exit = new_block(e, "done")};
  LLVMValueRef first = emit_materialise(e, from);
  loop.below = emit_materialise(e, below);
  loop.step = emit_materialise(e, step);
  if (from.value || below.value) {
    loop.entered = new_block(e, "enter");
    LLVMValueRef runs = LLVMBuildICmp(e->builder, LLVMIntSLT, first, loop.below, "");
    LLVMBuildCondBr(e->builder, runs, loop.entered, loop.exit);
    LLVMPositionBuilderAtEnd(e->builder, loop.entered);
  } else {
    loop.entered = LLVMGetInsertBlock(e->builder);
  }
  LLVMBuildBr(e->builder, loop.start);
  LLVMPositionBuilderAtEnd(e->builder, loop.start);
  loop.variable = LLVMBuildPhi(e->builder, e->i64, "");
  LLVMAddIncoming(loop.variable, &first, &loop.entered, 1);
  return loop;
}

/* Bounds are sizes of things, so that `variable + step` cannot leave 64 bits. */
static void end_loop(const Emitter *e, const Loop *loop) {
  LLVMValueRef next = LLVMBuildNSWAdd(e->builder, loop->variable, loop->step, "");
  LLVMBasicBlockRef last = LLVMGetInsertBlock(e->builder);
  LLVMAddIncoming(loop->variable, &next, &last, 1);
  LLVMValueRef again = LLVMBuildICmp(e->builder, LLVMIntSLT, next, loop->below, "");
  LLVMBuildCondBr(e->builder, again, loop->start, loop->exit);
  LLVMPositionBuilderAtEnd(e->builder, loop->exit);
}

static void emit_for(Emitter *e, const LoopInstr *instr, size_t at) {
  EmitValue from = e->value[instr->operand[0]], below = e->value[instr->operand[1]];
  if (!from.value && !below.value && from.offset >= below.offset) return;
  Loop loop = begin_loop(e, from, below, e->value[instr->operand[2]]);
  e->value[at] = (EmitValue){loop.variable, 0};
  emit_range(e, at + 1, e->partner[at]);
  end_loop(e, &loop);
}

static void emit_unroll(Emitter *e, const LoopInstr *instr, size_t at) {
  int64_t bound[3]; /* constants, as the verifier has seen, and at most 4096 trips */
  for (int i = 0; i < 3; i++) bound[i] = e->value[instr->operand[i]].offset;
  for (int64_t i = bound[0]; i < bound[1];) {
    e->value[at] = emit_constant(i);
    emit_range(e, at + 1, e->partner[at]);
    if (__builtin_add_overflow(i, bound[2], &i)) break;
  }
}

static void emit_if(Emitter *e, const LoopInstr *instr, size_t at) {
  LLVMValueRef bit = e->value[instr->operand[0]].value;
  if (LLVMIsConstant(bit)) {
    if (LLVMConstIntGetZExtValue(bit)) emit_range(e, at + 1, e->partner[at]);
    return;
  }
  LLVMBasicBlockRef then = new_block(e, "then"), after = new_block(e, "after");
  LLVMBuildCondBr(e->builder, bit, then, after);
  LLVMPositionBuilderAtEnd(e->builder, then);
  emit_range(e, at + 1, e->partner[at]);
  LLVMBuildBr(e->builder, after);
  LLVMPositionBuilderAtEnd(e->builder, after);
}

static void emit_range(Emitter *e, size_t first, size_t end) {
  for (size_t i = first; i < end; i++) {
    const LoopInstr *instr = &e->k->code.data[i];
    switch (instr->op) {
    case LOOP_FOR: emit_for(e, instr, i); break;
    case LOOP_UNROLL: emit_unroll(e, instr, i); break;
    case LOOP_IF: emit_if(e, instr, i); break;
    case LOOP_PHASE: emit_range(e, i + 1, e->partner[i]); break;
    case LOOP_LOAD:
    case LOOP_LOAD_INT:
    case LOOP_LOAD_LANES:
    case LOOP_STORE:
    case LOOP_STORE_LANES:
    case LOOP_GET:
    case LOOP_SET:
    case LOOP_PREFETCH: e->value[i] = emit_access(e, instr); break;
    default: e->value[i] = emit_arithmetic(e, instr); break;
    }
    if (e->partner[i]) i = e->partner[i];
  }
}

static void find_partners(Emitter *e) {
  size_t *stack = ARENA_ARRAY(e->arena, size_t, e->k->code.count + 1), depth = 0;
  for (size_t i = 0; i < e->k->code.count; i++) {
    LoopOp op = e->k->code.data[i].op;
    if (op == LOOP_FOR || op == LOOP_UNROLL || op == LOOP_IF || op == LOOP_PHASE) stack[depth++] = i;
    if (op == LOOP_END) e->partner[stack[--depth]] = i;
  }
}

/* ---- the two functions ---- */

static void emit_body(Emitter *e) {
  declare_body(e);
  unsigned arrays = parameter_count(e);
  LLVMPositionBuilderAtEnd(e->builder, new_block(e, "entry"));
  make_tiles(e);
  EmitValue task0 = {LLVMGetParam(e->body, arrays + 1), 0}, task1 = {LLVMGetParam(e->body, arrays + 2), 0};
  Loop tasks = begin_loop(e, task0, task1, emit_constant(1));
  e->task = tasks.variable;
  emit_range(e, 0, e->k->code.count);
  end_loop(e, &tasks);
  LLVMBuildRetVoid(e->builder);
}

static LLVMValueRef load_field(const Emitter *e, LLVMTypeRef type, LLVMValueRef pointer, size_t offset) {
  LLVMValueRef bytes = LLVMConstInt(e->i64, offset, false);
  LLVMTypeRef byte = LLVMInt8TypeInContext(e->context);
  return LLVMBuildLoad2(e->builder, type, LLVMBuildInBoundsGEP2(e->builder, byte, pointer, &bytes, 1, ""), "");
}

static void emit_entry(Emitter *e, const char *symbol) {
  LLVMTypeRef types[3] = {e->pointer, e->i64, e->i64};
  LLVMTypeRef type = LLVMFunctionType(LLVMVoidTypeInContext(e->context), types, 3, false);
  LLVMValueRef entry = LLVMAddFunction(e->module, symbol, type), args = LLVMGetParam(entry, 0);
  function_attributes(e, entry);
  LLVMPositionBuilderAtEnd(e->builder, LLVMAppendBasicBlockInContext(e->context, entry, "entry"));
  LLVMValueRef buffers = load_field(e, e->pointer, args, offsetof(KernelArgs, buffers));
  LLVMValueRef scratch = load_field(e, e->pointer, args, offsetof(KernelArgs, scratch));
  LLVMValueRef batch = load_field(e, e->i64, args, offsetof(KernelArgs, batch));
  unsigned arrays = parameter_count(e), at = 0, shared = 0;
  LLVMValueRef *values = ARENA_ARRAY(e->arena, LLVMValueRef, arrays + 3);
  int64_t *offsets = ARENA_ARRAY(e->arena, int64_t, arrays + 1);
  loop_scratch(e->k, offsets);
  for (size_t i = 0; i < e->k->arrays.count; i++) {
    if (e->k->arrays.data[i].space == LOOP_TILE) continue;
    if (e->k->arrays.data[i].space == LOOP_SHARED) {
      LLVMValueRef offset = LLVMConstInt(e->i64, (unsigned long long)offsets[shared++], false);
      values[at++] = LLVMBuildInBoundsGEP2(e->builder, LLVMInt8TypeInContext(e->context), scratch, &offset, 1, "");
    } else {
      values[at] = load_field(e, e->pointer, buffers, at * sizeof(void *));
      at++;
    }
  }
  values[at] = batch;
  values[at + 1] = LLVMGetParam(entry, 1);
  values[at + 2] = LLVMGetParam(entry, 2);
  LLVMBuildCall2(e->builder, LLVMGlobalGetValueType(e->body), e->body, values, at + 3, "");
  LLVMBuildRetVoid(e->builder);
}

LLVMModuleRef emit_module(const EmitTarget *target, LLVMContextRef context, const LoopKernel *k, const char *symbol) {
  Emitter e = {.k = k, .target = target, .arena = arena_new(), .context = context};
  e.module = LLVMModuleCreateWithNameInContext(symbol, context);
  e.builder = LLVMCreateBuilderInContext(context);
  e.i1 = LLVMInt1TypeInContext(context);
  e.i32 = LLVMInt32TypeInContext(context);
  e.i64 = LLVMInt64TypeInContext(context);
  e.f32 = LLVMFloatTypeInContext(context);
  e.f64 = LLVMDoubleTypeInContext(context);
  e.pointer = LLVMPointerTypeInContext(context, 0);
  e.value = ARENA_ARRAY(e.arena, EmitValue, k->code.count + 1);
  e.array = ARENA_ARRAY(e.arena, EmitArray, k->arrays.count + 1);
  e.partner = ARENA_ARRAY(e.arena, size_t, k->code.count + 1);
  find_partners(&e);
  emit_body(&e);
  emit_entry(&e, symbol);
  LLVMDisposeBuilder(e.builder);
  arena_free(e.arena);
  return e.module;
}
