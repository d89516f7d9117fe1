/* exp and log of f64, written as arithmetic, so that results do not depend on the C library of the machine and machine code needs
 * no other code. Both are within 2 units in the last place. Each becomes one function of the module, called where it is used. */
#include "compiler/emit/llvm_private.h"

#include <math.h>

typedef LLVMValueRef Value;

static Value number(const Emitter *e, double value) {
  return LLVMConstReal(e->f64, value);
}
static Value integer(const Emitter *e, int64_t value) {
  return LLVMConstInt(e->i64, (unsigned long long)value, true);
}
static Value add(const Emitter *e, Value a, Value b) {
  return LLVMBuildFAdd(e->builder, a, b, "");
}
static Value sub(const Emitter *e, Value a, Value b) {
  return LLVMBuildFSub(e->builder, a, b, "");
}
static Value mul(const Emitter *e, Value a, Value b) {
  return LLVMBuildFMul(e->builder, a, b, "");
}
static Value fused(const Emitter *e, Value a, Value b, Value c) {
  Value arguments[3] = {a, b, c};
  return emit_intrinsic(e, "llvm.fma", &e->f64, 1, arguments, 3);
}
static Value choose(const Emitter *e, LLVMRealPredicate predicate, Value a, Value b, Value yes, Value no) {
  Value bit = LLVMBuildFCmp(e->builder, predicate, a, b, "");
  return LLVMBuildSelect(e->builder, bit, yes, no, "");
}
static Value bits_of(const Emitter *e, Value x) {
  return LLVMBuildBitCast(e->builder, x, e->i64, "");
}
static Value number_of(const Emitter *e, Value bits) {
  return LLVMBuildBitCast(e->builder, bits, e->f64, "");
}

/* ln 2 = high + low; the high part has 16 zero bits at its end, so that its product with an exponent is exact. */
static const double ln2_high = 0x1.62e42fefap-1, ln2_low = 0x1.cf79abc9e3b3ap-40;

/* 2^n for -1022 <= n <= 1023. */
static Value power_of_two(const Emitter *e, Value n) {
  Value biased = LLVMBuildAdd(e->builder, n, integer(e, 1023), "");
  return number_of(e, LLVMBuildShl(e->builder, biased, integer(e, 52), ""));
}

/* exp x = 2^n exp r with n = round(x / ln 2), |r| <= 0.35: thirteen terms of the series. x is first brought to where the result
 * is a number: below it is 0, above infinite, and not-a-number goes through. 2^n is multiplied in two halves, as it may be no
 * normal number itself. */
static Value exp_body(const Emitter *e, Value x) {
  const double shift = 0x1.8p52; /* adding it rounds to an integer, which then stands in the low bits */
  x = choose(e, LLVMRealOLT, x, number(e, -746), number(e, -746), x);
  x = choose(e, LLVMRealOGT, x, number(e, 710), number(e, 710), x);
  Value shifted = fused(e, x, number(e, 0x1.71547652b82fep+0), number(e, shift));
  Value rounded = sub(e, shifted, number(e, shift));
  Value r = fused(e, rounded, number(e, -ln2_high), x);
  r = fused(e, rounded, number(e, -ln2_low), r);

  double inverse[14] = {1}; /* of i! */
  for (int i = 1; i < 14; i++) inverse[i] = inverse[i - 1] * i;
  Value sum = number(e, 1 / inverse[13]);
  for (int i = 12; i >= 0; i--) sum = fused(e, sum, r, number(e, 1 / inverse[i]));

  Value low = LLVMBuildTrunc(e->builder, bits_of(e, shifted), e->i32, "");
  Value n = LLVMBuildSExt(e->builder, low, e->i64, "");
  Value half = LLVMBuildAShr(e->builder, n, integer(e, 1), "");
  Value rest = LLVMBuildSub(e->builder, n, half, "");
  Value first = power_of_two(e, half), second = power_of_two(e, rest);
  return mul(e, mul(e, sum, first), second);
}

/* log x = n ln 2 + log(1 + f) with x = 2^n (1 + f), 1 + f between sqrt(1/2) and sqrt(2). With s = f / (2 + f),
 * log(1 + f) = 2 atanh s = f - (f^2/2 - s (f^2/2 + R)), R = 2 (s^2/3 + s^4/5 + ...), of which ten terms are taken; this form
 * keeps the large part f exact. Infinity and not-a-number go through; numbers that are not positive and normal are not asked for.
 */
static Value log_body(const Emitter *e, Value x) {
  const int64_t sqrt_half = 0x3fe6a09e667f3bcd;
  LLVMBuilderRef b = e->builder;
  Value bits = bits_of(e, x);
  Value n = LLVMBuildAShr(b, LLVMBuildSub(b, bits, integer(e, sqrt_half), ""), integer(e, 52), "");
  Value mantissa = number_of(e, LLVMBuildSub(b, bits, LLVMBuildShl(b, n, integer(e, 52), ""), ""));
  Value exponent = LLVMBuildSIToFP(b, n, e->f64, "");
  Value f = sub(e, mantissa, number(e, 1));
  Value s = LLVMBuildFDiv(b, f, add(e, f, number(e, 2)), "");
  Value z = mul(e, s, s);
  Value sum = number(e, 2.0 / 21);
  for (int i = 19; i >= 3; i -= 2) sum = fused(e, sum, z, number(e, 2.0 / i));
  Value remainder = mul(e, sum, z);
  Value square = mul(e, mul(e, f, f), number(e, 0.5));
  Value correction = mul(e, s, add(e, square, remainder));
  correction = fused(e, exponent, number(e, ln2_low), correction);
  Value result = sub(e, f, sub(e, square, correction));
  result = fused(e, exponent, number(e, ln2_high), result);
  return choose(e, LLVMRealOLT, x, number(e, INFINITY), result, x);
}

static Value define(Emitter *e, const char *name, Value (*body)(const Emitter *e, Value x)) {
  LLVMBasicBlockRef before = LLVMGetInsertBlock(e->builder);
  Value function = LLVMAddFunction(e->module, name, LLVMFunctionType(e->f64, &e->f64, 1, false));
  LLVMSetLinkage(function, LLVMInternalLinkage);
  static const char *const attributes[] = {"nounwind", "willreturn", "noinline"};
  for (int i = 0; i < 3; i++) emit_attribute(e, function, (unsigned)LLVMAttributeFunctionIndex, attributes[i], 0);
  emit_attribute(e, function, (unsigned)LLVMAttributeFunctionIndex, "memory", 0); /* touches none */
  LLVMPositionBuilderAtEnd(e->builder, LLVMAppendBasicBlockInContext(e->context, function, ""));
  Value result = body(e, LLVMGetParam(function, 0));
  LLVMBuildRet(e->builder, result);
  LLVMPositionBuilderAtEnd(e->builder, before);
  return function;
}

static Value call(const Emitter *e, Value function, Value x) {
  return LLVMBuildCall2(e->builder, LLVMGlobalGetValueType(function), function, &x, 1, "");
}

LLVMValueRef emit_exp(Emitter *e, LLVMValueRef x) {
  if (!e->exp) e->exp = define(e, "exp_f64", exp_body);
  return call(e, e->exp, x);
}

LLVMValueRef emit_log(Emitter *e, LLVMValueRef x) {
  if (!e->log) e->log = define(e, "log_f64", log_body);
  return call(e, e->log, x);
}
