/* Arithmetic of the interpreter: each operation over the lanes of its result, f32 ones rounded to f32. Only integers can fail
 * (overflow, a divisor) and `log`, and those are checked in the lanes that run. */
#include "kernels/loop_machine.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Computes each lane of `out`; an operand's stride of 0 broadcasts it. Where nothing is broadcast the strides are constants,
 * which lets the compiler use vectors. */
#define EACH(expression)                                                                                                         \
  if (stride[0] && stride[1] && stride[2]) {                                                                                     \
    EACH_LANE(1, 1, 1, expression)                                                                                               \
  } else {                                                                                                                       \
    EACH_LANE(stride[0], stride[1], stride[2], expression)                                                                       \
  }                                                                                                                              \
  break

#define EACH_LANE(first, second, third, expression)                                                                              \
  const int s = first, t = second, u = third;                                                                                    \
  (void)s, (void)t, (void)u;                                                                                                     \
  for (int i = 0; i < lanes; i++) out[i] = (expression);

#define DEFINE_ARITHMETIC(name, Real, fused, root)                                                                               \
  static void name(LoopOp op, int lanes, Real *out, const Real *const in[3], const int stride[3]) {                              \
    const Real *a = in[0], *b = in[1], *c = in[2];                                                                               \
    switch (op) {                                                                                                                \
    case LOOP_ADD: EACH(a[i * s] + b[i * t]);                                                                                    \
    case LOOP_SUB: EACH(a[i * s] - b[i * t]);                                                                                    \
    case LOOP_MUL: EACH(a[i * s] * b[i * t]);                                                                                    \
    case LOOP_DIV: EACH(a[i * s] / b[i * t]);                                                                                    \
    case LOOP_FMA: EACH(fused(a[i * s], b[i * t], c[i * u]));                                                                    \
    case LOOP_MAX: EACH(a[i * s] > b[i * t] ? a[i * s] : b[i * t]);                                                              \
    case LOOP_MIN: EACH(a[i * s] < b[i * t] ? a[i * s] : b[i * t]);                                                              \
    case LOOP_SQRT: EACH(root(a[i * s]));                                                                                        \
    default: break;                                                                                                              \
    }                                                                                                                            \
  }                                                                                                                              \
  static void name##_compare(LoopOp op, int lanes, bool *out, const Real *a, const Real *b, const int stride[3]) {               \
    switch (op) {                                                                                                                \
    case LOOP_GT: EACH(a[i * s] > b[i * t]);                                                                                     \
    default: EACH(a[i * s] == b[i * t]);                                                                                         \
    }                                                                                                                            \
  }                                                                                                                              \
  static Real name##_lane_sum(int lanes, const Real *in) {                                                                       \
    Real sum[LOOP_MAX_LANES];                                                                                                    \
    memcpy(sum, in, (size_t)lanes * sizeof *sum);                                                                                \
    for (int half = lanes / 2; half >= 1; half /= 2)                                                                             \
      for (int i = 0; i < half; i++) sum[i] += sum[i + half];                                                                    \
    return sum[0];                                                                                                               \
  }

DEFINE_ARITHMETIC(single, float, fmaf, sqrtf)
DEFINE_ARITHMETIC(wide, double, fma, sqrt)

/* Operands that are not there count as dense. */
static void strides(const LoopMachine *m, const LoopInstr *instr, int stride[3]) {
  int operands = loop_op_info(instr->op)->operands;
  for (int i = 0; i < 3; i++) stride[i] = i < operands ? loop_machine_stride(m, instr, i) : 1;
}

static void run_float(const LoopMachine *m, const LoopInstr *instr) {
  int stride[3], operands = loop_op_info(instr->op)->operands, lanes = loop_machine_lanes(m, instr);
  const float *singles[3] = {0};
  const double *doubles[3] = {0};
  strides(m, instr, stride);
  for (int i = 0; i < operands; i++) {
    singles[i] = loop_machine_cell(m, instr, i).singles;
    doubles[i] = loop_machine_cell(m, instr, i).doubles;
  }
  if (instr->type == LOOP_F32)
    single(instr->op, lanes, m->value[m->at].singles, singles, stride);
  else
    wide(instr->op, lanes, m->value[m->at].doubles, doubles, stride);
}

static void run_compare(const LoopMachine *m, const LoopInstr *instr) {
  Cell x = loop_machine_cell(m, instr, 0), y = loop_machine_cell(m, instr, 1);
  int stride[3], lanes = loop_machine_lanes(m, instr);
  bool *out = m->value[m->at].bits;
  strides(m, instr, stride);
  if (loop_machine_operand(m, instr, 0)->type == LOOP_F32)
    single_compare(instr->op, lanes, out, x.singles, y.singles, stride);
  else
    wide_compare(instr->op, lanes, out, x.doubles, y.doubles, stride);
}

static void run_integer_compare(const LoopMachine *m, const LoopInstr *instr) {
  const int64_t *a = loop_machine_cell(m, instr, 0).integers, *b = loop_machine_cell(m, instr, 1).integers;
  int stride[3], lanes = loop_machine_lanes(m, instr);
  bool *out = m->value[m->at].bits;
  strides(m, instr, stride);
  switch (instr->op) {
  case LOOP_ILT: EACH(a[i * s] < b[i * t]);
  default: EACH(a[i * s] == b[i * t]);
  }
}

static void run_select(const LoopMachine *m, const LoopInstr *instr) {
  const bool *bit = loop_machine_cell(m, instr, 0).bits;
  Cell b = loop_machine_cell(m, instr, 1), c = loop_machine_cell(m, instr, 2), to = m->value[m->at];
  int stride[3], lanes = loop_machine_lanes(m, instr);
  strides(m, instr, stride);
  const int s = stride[0], t = stride[1], u = stride[2];
  if (instr->type == LOOP_F32)
    for (int i = 0; i < lanes; i++) to.singles[i] = bit[i * s] ? b.singles[i * t] : c.singles[i * u];
  else if (instr->type == LOOP_INT)
    for (int i = 0; i < lanes; i++) to.integers[i] = bit[i * s] ? b.integers[i * t] : c.integers[i * u];
  else
    for (int i = 0; i < lanes; i++) to.doubles[i] = bit[i * s] ? b.doubles[i * t] : c.doubles[i * u];
}

static void run_bits(const LoopMachine *m, const LoopInstr *instr) {
  const bool *a = loop_machine_cell(m, instr, 0).bits, *b = instr->op == LOOP_NOT ? a : loop_machine_cell(m, instr, 1).bits;
  int stride[3], lanes = loop_machine_lanes(m, instr);
  bool *out = m->value[m->at].bits;
  strides(m, instr, stride);
  switch (instr->op) {
  case LOOP_NOT: EACH(!a[i * s]);
  case LOOP_AND: EACH(a[i * s] && b[i * t]);
  default: EACH(a[i * s] || b[i * t]);
  }
}

static void run_convert(const LoopMachine *m, const LoopInstr *instr) {
  bool integer = loop_machine_operand(m, instr, 0)->type == LOOP_INT;
  Cell in = loop_machine_cell(m, instr, 0), out = m->value[m->at];
  for (int i = 0; i < loop_machine_lanes(m, instr); i++) {
    if (instr->type == LOOP_F32)
      out.singles[i] = integer ? (float)in.integers[i] : (float)in.doubles[i];
    else
      out.doubles[i] = integer ? (double)in.integers[i] : (double)in.singles[i];
  }
}

/* Each lane that runs: `statement` computes *to from x and y, or sets `bad`, where it stops. */
#define EACH_INTEGER(statement)                                                                                                  \
  for (int i = 0; i < lanes && !bad; i++) {                                                                                      \
    if (masked && !m->mask[i]) continue;                                                                                         \
    x = a[i * s], y = b[i * t];                                                                                                  \
    int64_t *to = &out[i];                                                                                                       \
    statement;                                                                                                                   \
  }                                                                                                                              \
  break

static bool run_integer(const LoopMachine *m, const LoopInstr *instr) {
  const int64_t *a = loop_machine_cell(m, instr, 0).integers, *b = loop_machine_cell(m, instr, 1).integers;
  int s = loop_machine_stride(m, instr, 0), t = loop_machine_stride(m, instr, 1);
  int lanes = loop_machine_lanes(m, instr);
  int64_t *out = m->value[m->at].integers, x = 0, y = 0;
  bool bad = false, masked = m->mask && instr->varying;
  switch (instr->op) {
  case LOOP_IADD: EACH_INTEGER(bad = __builtin_add_overflow(x, y, to));
  case LOOP_ISUB: EACH_INTEGER(bad = __builtin_sub_overflow(x, y, to));
  case LOOP_IMUL: EACH_INTEGER(bad = __builtin_mul_overflow(x, y, to));
  case LOOP_IDIV: EACH_INTEGER(bad = x < 0 || y <= 0; if (!bad) *to = x / y);
  case LOOP_IMOD: EACH_INTEGER(bad = x < 0 || y <= 0; if (!bad) *to = x % y);
  case LOOP_IMIN: EACH_INTEGER(*to = x < y ? x : y);
  default: EACH_INTEGER(*to = x > y ? x : y);
  }
  if (!bad) return true;
  if (instr->op == LOOP_IDIV || instr->op == LOOP_IMOD)
    return loop_machine_fail(m, "%" PRId64 " by %" PRId64 ", where no negative by a positive is wanted", x, y);
  return loop_machine_fail(m, "%" PRId64 " and %" PRId64 " leave 64 bits", x, y);
}

static bool run_function(const LoopMachine *m, const LoopInstr *instr) {
  const double *x = loop_machine_cell(m, instr, 0).doubles;
  for (int i = 0; i < loop_machine_lanes(m, instr); i++) {
    if (instr->varying && !loop_machine_runs(m, i)) continue;
    if (instr->op == LOOP_LOG && x[i] < DBL_MIN)
      return loop_machine_fail(m, "of %g, where a positive normal number is wanted", x[i]);
    m->value[m->at].doubles[i] = instr->op == LOOP_LOG ? log(x[i]) : exp(x[i]);
  }
  return true;
}

static void run_lane_sum(const LoopMachine *m, const LoopInstr *instr) {
  Cell in = loop_machine_cell(m, instr, 0);
  if (instr->type == LOOP_F32)
    m->value[m->at].singles[0] = single_lane_sum(m->k->lanes, in.singles);
  else
    m->value[m->at].doubles[0] = wide_lane_sum(m->k->lanes, in.doubles);
}

bool loop_machine_arithmetic(LoopMachine *m, const LoopInstr *instr) {
  if (loop_op_is_integer_arithmetic(instr->op)) return run_integer(m, instr);
  switch (instr->op) {
  case LOOP_ILT:
  case LOOP_IEQ: return run_integer_compare(m, instr), true;
  case LOOP_AND:
  case LOOP_OR:
  case LOOP_NOT: return run_bits(m, instr), true;
  case LOOP_SELECT: return run_select(m, instr), true;
  case LOOP_TO_F32:
  case LOOP_TO_F64: return run_convert(m, instr), true;
  case LOOP_EXP:
  case LOOP_LOG: return run_function(m, instr);
  case LOOP_GT:
  case LOOP_EQ: return run_compare(m, instr), true;
  case LOOP_LANE_SUM: return run_lane_sum(m, instr), true;
  default: return run_float(m, instr), true;
  }
}
