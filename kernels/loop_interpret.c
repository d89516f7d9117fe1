/* The interpreter of the Loop IR: the truth that emitted code is compared with. It runs the instructions one by one, lanes as
 * arrays, each f32 operation rounded to f32, and checks what depends on the launch: indices, lane counts, divisors, overflow
 * of integers, steps of loops. Tiles and shared arrays begin each task as not-a-number, so that data read before they are
 * written are seen in the results. A limit on the instructions run makes endless loops an error.
 *
 * A verified kernel is required and checked first, so that types, scopes and tables can be relied on below. */
#include "kernels/loop_private.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const int64_t step_limit = INT64_C(1) << 34; /* minutes */

typedef union Cell {
  int64_t *integers;
  float *singles;
  double *doubles;
  bool *bits;
  void *any;
} Cell;

typedef struct Machine {
  const LoopKernel *k;
  Err *err;
  Cell *value;     /* of each instruction: one or `lanes` elements of its type */
  size_t *partner; /* of each opener its END, and of each END its opener */
  Cell *array;     /* elements of each array */
  int64_t *count;  /* of those, lanes of varying tiles included */
  int64_t batch, task, steps;
  size_t at; /* the instruction that is run */
} Machine;

static bool fail(const Machine *m, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fail(const Machine *m, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char message[600];
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  const LoopInstr *instr = &m->k->code.data[m->at];
  return err_set(m->err, "kernel %s, line %" PRId64 ", task %" PRId64 ": %s: %s", m->k->name, loop_line(m->k, m->at), m->task,
                 loop_op_info(instr->op)->text, message);
}

static const LoopInstr *instr_of(const Machine *m, LoopValue v) {
  return &m->k->code.data[v];
}
static int64_t integer_at(const Machine *m, LoopValue v) {
  return m->value[v].integers[0];
}
static int lanes_of(const Machine *m, const LoopInstr *instr) {
  return instr->varying ? m->k->lanes : 1;
}

/* ---- arithmetic, over the lanes of the result ---- */

/* Computes each lane of `out`; an operand's stride of 0 broadcasts it. */
#define EACH(expression)                                                                                                         \
  for (int i = 0; i < lanes; i++) {                                                                                              \
    out[i] = (expression);                                                                                                       \
  }                                                                                                                              \
  break

#define DEFINE_ARITHMETIC(name, Real, fused, root)                                                                               \
  static void name(LoopOp op, int lanes, Real *out, const Real *const in[3], const int stride[3]) {                              \
    const Real *a = in[0], *b = in[1], *c = in[2];                                                                               \
    const int s = stride[0], t = stride[1], u = stride[2];                                                                       \
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
  static void name##_compare(LoopOp op, int lanes, bool *out, const Real *a, int s, const Real *b, int t) {                      \
    switch (op) {                                                                                                                \
    case LOOP_GT: EACH(a[i * s] > b[i * t]);                                                                                     \
    default: EACH(a[i * s] == b[i * t]);                                                                                         \
    }                                                                                                                            \
  }                                                                                                                              \
  static void name##_select(int lanes, Real *out, const bool *a, int s, const Real *b, int t, const Real *c, int u) {            \
    for (int i = 0; i < lanes; i++) out[i] = a[i * s] ? b[i * t] : c[i * u];                                                     \
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

static void run_float(const Machine *m, const LoopInstr *instr) {
  int stride[3] = {0}, operands = loop_op_info(instr->op)->operands;
  const float *singles[3] = {0};
  const double *doubles[3] = {0};
  for (int i = 0; i < operands; i++) {
    stride[i] = instr_of(m, instr->operand[i])->varying;
    singles[i] = m->value[instr->operand[i]].singles;
    doubles[i] = m->value[instr->operand[i]].doubles;
  }
  if (instr->type == LOOP_F32)
    single(instr->op, lanes_of(m, instr), m->value[m->at].singles, singles, stride);
  else
    wide(instr->op, lanes_of(m, instr), m->value[m->at].doubles, doubles, stride);
}

static void run_compare(const Machine *m, const LoopInstr *instr) {
  const LoopInstr *a = instr_of(m, instr->operand[0]), *b = instr_of(m, instr->operand[1]);
  Cell x = m->value[instr->operand[0]], y = m->value[instr->operand[1]];
  bool *out = m->value[m->at].bits;
  if (a->type == LOOP_F32)
    single_compare(instr->op, lanes_of(m, instr), out, x.singles, a->varying, y.singles, b->varying);
  else
    wide_compare(instr->op, lanes_of(m, instr), out, x.doubles, a->varying, y.doubles, b->varying);
}

static void run_select(const Machine *m, const LoopInstr *instr) {
  const bool *bit = m->value[instr->operand[0]].bits;
  Cell b = m->value[instr->operand[1]], c = m->value[instr->operand[2]], out = m->value[m->at];
  int s = instr_of(m, instr->operand[0])->varying, t = instr_of(m, instr->operand[1])->varying;
  int u = instr_of(m, instr->operand[2])->varying, lanes = lanes_of(m, instr);
  if (instr->type == LOOP_INT)
    out.integers[0] = *bit ? b.integers[0] : c.integers[0];
  else if (instr->type == LOOP_F32)
    single_select(lanes, out.singles, bit, s, b.singles, t, c.singles, u);
  else
    wide_select(lanes, out.doubles, bit, s, b.doubles, t, c.doubles, u);
}

static void run_bits(const Machine *m, const LoopInstr *instr) {
  const bool *a = m->value[instr->operand[0]].bits, *b = a;
  int s = instr_of(m, instr->operand[0])->varying, t = s;
  if (instr->op != LOOP_NOT) {
    b = m->value[instr->operand[1]].bits;
    t = instr_of(m, instr->operand[1])->varying;
  }
  bool *out = m->value[m->at].bits;
  for (int i = 0; i < lanes_of(m, instr); i++)
    out[i] = instr->op == LOOP_NOT ? !a[i * s] : instr->op == LOOP_AND ? a[i * s] && b[i * t] : a[i * s] || b[i * t];
}

static void run_convert(const Machine *m, const LoopInstr *instr) {
  const LoopInstr *from = instr_of(m, instr->operand[0]);
  Cell in = m->value[instr->operand[0]], out = m->value[m->at];
  for (int i = 0; i < lanes_of(m, instr); i++) {
    if (instr->type == LOOP_F32)
      out.singles[i] = from->type == LOOP_INT ? (float)in.integers[i] : (float)in.doubles[i];
    else
      out.doubles[i] = from->type == LOOP_INT ? (double)in.integers[i] : (double)in.singles[i];
  }
}

static bool run_integer(const Machine *m, const LoopInstr *instr) {
  int64_t a = integer_at(m, instr->operand[0]), b = integer_at(m, instr->operand[1]), *out = m->value[m->at].integers;
  bool overflow = false;
  switch (instr->op) {
  case LOOP_IADD: overflow = __builtin_add_overflow(a, b, out); break;
  case LOOP_ISUB: overflow = __builtin_sub_overflow(a, b, out); break;
  case LOOP_IMUL: overflow = __builtin_mul_overflow(a, b, out); break;
  case LOOP_IDIV:
  case LOOP_IMOD:
    if (a < 0 || b <= 0) return fail(m, "%" PRId64 " by %" PRId64 ", where no negative by a positive is wanted", a, b);
    *out = instr->op == LOOP_IDIV ? a / b : a % b;
    break;
  case LOOP_IMIN: *out = a < b ? a : b; break;
  default: *out = a > b ? a : b; break;
  }
  return !overflow || fail(m, "%" PRId64 " and %" PRId64 " leave 64 bits", a, b);
}

static bool run_function(const Machine *m, const LoopInstr *instr) {
  double x = m->value[instr->operand[0]].doubles[0];
  if (instr->op == LOOP_LOG && x < DBL_MIN) return fail(m, "of %g, where a positive normal number is wanted", x);
  m->value[m->at].doubles[0] = instr->op == LOOP_LOG ? log(x) : exp(x);
  return true;
}

static void run_lane_sum(const Machine *m, const LoopInstr *instr) {
  Cell in = m->value[instr->operand[0]];
  if (instr->type == LOOP_F32)
    m->value[m->at].singles[0] = single_lane_sum(m->k->lanes, in.singles);
  else
    m->value[m->at].doubles[0] = wide_lane_sum(m->k->lanes, in.doubles);
}

/* ---- memory ---- */

/* Elements [index, index + count) of the array lie in it; none are asked for where count is 0. */
static bool inside(const Machine *m, const LoopInstr *instr, int64_t index, int64_t count) {
  int64_t size = m->count[instr->array];
  if (count == 0 || (index >= 0 && index < size && count <= size - index)) return true;
  const char *name = m->k->arrays.data[instr->array].name;
  if (count == 1) return fail(m, "%s[%" PRId64 "], which has %" PRId64 " elements", name, index, size);
  return fail(m, "%s[%" PRId64 "] and %" PRId64 " more, which has %" PRId64 " elements", name, index, count - 1, size);
}

static bool lane_count(const Machine *m, LoopValue v, int64_t *count) {
  *count = integer_at(m, v);
  return (*count >= 0 && *count <= m->k->lanes) ||
         fail(m, "a count of %" PRId64 " where there are %d lanes", *count, m->k->lanes);
}

/* Copies elements of equal type; a uniform source is repeated. */
static void copy(LoopType type, void *to, const void *from, int64_t count, bool broadcast) {
  size_t size = type == LOOP_F32 ? sizeof(float) : sizeof(double);
  if (!broadcast && count > 0) memcpy(to, from, (size_t)count * size);
  for (int64_t i = 0; broadcast && i < count; i++) memcpy((char *)to + (size_t)i * size, from, size);
}

static void *element(const Machine *m, const LoopInstr *instr, int64_t index) {
  if (m->k->arrays.data[instr->array].element == LOOP_ELEMENT_F32) return m->array[instr->array].singles + index;
  return m->array[instr->array].doubles + index;
}

static bool run_load(const Machine *m, const LoopInstr *instr) {
  int64_t index = integer_at(m, instr->operand[0]), count = 1;
  Cell out = m->value[m->at];
  if (instr->op == LOOP_LOAD_LANES && !lane_count(m, instr->operand[1], &count)) return false;
  if (!inside(m, instr, index, count)) return false;
  if (instr->op == LOOP_LOAD_INT) {
    out.integers[0] = ((const int32_t *)m->array[instr->array].any)[index];
    return true;
  }
  if (count > 0) copy(instr->type, out.any, element(m, instr, index), count, false);
  for (int64_t i = count; i < lanes_of(m, instr); i++) {
    if (instr->type == LOOP_F32)
      out.singles[i] = (float)instr->number;
    else
      out.doubles[i] = instr->number;
  }
  return true;
}

static bool run_store(const Machine *m, const LoopInstr *instr) {
  int64_t index = integer_at(m, instr->operand[0]), count = 1;
  const LoopInstr *value = instr_of(m, instr->operand[1]);
  if (instr->op == LOOP_STORE_LANES && !lane_count(m, instr->operand[2], &count)) return false;
  if (!inside(m, instr, index, count)) return false;
  if (count > 0) copy(value->type, element(m, instr, index), m->value[instr->operand[1]].any, count, !value->varying);
  return true;
}

static bool run_tile(const Machine *m, const LoopInstr *instr) {
  int64_t width = m->k->arrays.data[instr->array].varying ? m->k->lanes : 1;
  int64_t index = integer_at(m, instr->operand[0]) * width; /* the verifier bounds it */
  if (!inside(m, instr, index, width)) return false;
  if (instr->op == LOOP_GET) {
    copy(instr->type, m->value[m->at].any, element(m, instr, index), width, false);
  } else {
    const LoopInstr *value = instr_of(m, instr->operand[1]);
    copy(value->type, element(m, instr, index), m->value[instr->operand[1]].any, width, !value->varying);
  }
  return true;
}

/* ---- control ---- */

/* Enters a loop or goes past its end. */
static bool run_loop(Machine *m, const LoopInstr *instr) {
  int64_t from = integer_at(m, instr->operand[0]), below = integer_at(m, instr->operand[1]);
  if (integer_at(m, instr->operand[2]) <= 0) return fail(m, "a step of %" PRId64, integer_at(m, instr->operand[2]));
  m->value[m->at].integers[0] = from;
  if (from >= below) m->at = m->partner[m->at];
  return true;
}

/* At a loop's END: its next iteration, if there is one. */
static void run_end(Machine *m) {
  size_t opener = m->partner[m->at];
  const LoopInstr *instr = &m->k->code.data[opener];
  if (instr->op != LOOP_FOR && instr->op != LOOP_UNROLL) return;
  int64_t *variable = m->value[opener].integers, next;
  if (__builtin_add_overflow(*variable, integer_at(m, instr->operand[2]), &next)) return;
  if (next >= integer_at(m, instr->operand[1])) return;
  *variable = next;
  m->at = opener;
}

static bool run_instr(Machine *m) {
  const LoopInstr *instr = &m->k->code.data[m->at];
  if (loop_op_is_integer_arithmetic(instr->op)) return run_integer(m, instr);
  switch (instr->op) {
  case LOOP_ILT: m->value[m->at].bits[0] = integer_at(m, instr->operand[0]) < integer_at(m, instr->operand[1]); return true;
  case LOOP_IEQ: m->value[m->at].bits[0] = integer_at(m, instr->operand[0]) == integer_at(m, instr->operand[1]); return true;
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
  case LOOP_LOAD:
  case LOOP_LOAD_INT:
  case LOOP_LOAD_LANES: return run_load(m, instr);
  case LOOP_STORE:
  case LOOP_STORE_LANES: return run_store(m, instr);
  case LOOP_GET:
  case LOOP_SET: return run_tile(m, instr);
  case LOOP_LANE_SUM: return run_lane_sum(m, instr), true;
  case LOOP_FOR:
  case LOOP_UNROLL: return run_loop(m, instr);
  case LOOP_IF:
    if (!m->value[instr->operand[0]].bits[0]) m->at = m->partner[m->at];
    return true;
  case LOOP_END: return run_end(m), true;
  case LOOP_INTEGER: /* set before the first task */
  case LOOP_FLOAT:
  case LOOP_BATCH:
  case LOOP_TASK: /* set before each */
  case LOOP_PREFETCH:
  case LOOP_PHASE: return true;
  default: return run_float(m, instr), true;
  }
}

/* ---- the whole ---- */

static void set_constants(const Machine *m) {
  for (size_t i = 0; i < m->k->code.count; i++) {
    const LoopInstr *instr = &m->k->code.data[i];
    if (instr->op == LOOP_INTEGER) m->value[i].integers[0] = instr->integer;
    if (instr->op == LOOP_BATCH) m->value[i].integers[0] = m->batch;
    if (instr->op == LOOP_FLOAT && instr->type == LOOP_F32) m->value[i].singles[0] = (float)instr->number;
    if (instr->op == LOOP_FLOAT && instr->type == LOOP_F64) m->value[i].doubles[0] = instr->number;
  }
}

static void begin_task(Machine *m) {
  for (size_t i = (size_t)m->k->buffer_count; i < m->k->arrays.count; i++) {
    m->steps -= m->count[i] / 16;
    for (int64_t j = 0; j < m->count[i]; j++) {
      if (m->k->arrays.data[i].element == LOOP_ELEMENT_F32)
        m->array[i].singles[j] = NAN;
      else
        m->array[i].doubles[j] = (double)NAN;
    }
  }
  for (size_t i = 0; i < m->k->code.count; i++)
    if (m->k->code.data[i].op == LOOP_TASK) m->value[i].integers[0] = m->task;
}

static bool run_tasks(Machine *m, int64_t task0, int64_t task1) {
  set_constants(m);
  for (m->task = task0; m->task < task1; m->task++) {
    begin_task(m);
    m->steps--;
    for (m->at = 0; m->at < m->k->code.count; m->at++) {
      if (--m->steps < 0) return fail(m, "too many instructions were run; is a loop endless?");
      if (!run_instr(m)) return false;
    }
    if (m->steps < 0) return err_set(m->err, "kernel %s: too many tasks were run", m->k->name);
  }
  return true;
}

static void set_up(Machine *m, const LoopBuffer *buffers, Arena *arena) {
  size_t stack[LOOP_MAX_DEPTH] = {0}, depth = 0, code = m->k->code.count, arrays = m->k->arrays.count;
  m->value = ARENA_ARRAY(arena, Cell, code + 1);
  m->partner = ARENA_ARRAY(arena, size_t, code + 1);
  m->array = ARENA_ARRAY(arena, Cell, arrays + 1);
  m->count = ARENA_ARRAY(arena, int64_t, arrays + 1);
  for (size_t i = 0; i < code; i++) {
    const LoopInstr *instr = &m->k->code.data[i];
    if (instr->type != LOOP_VOID) m->value[i].any = ARENA_ARRAY(arena, double, lanes_of(m, instr));
    if (loop_op_opens(instr->op)) stack[depth++] = i;
    if (instr->op != LOOP_END) continue;
    m->partner[i] = stack[--depth];
    m->partner[stack[depth]] = i;
  }
  for (size_t i = 0; i < arrays; i++) {
    const LoopArray *array = &m->k->arrays.data[i];
    bool buffer = array->space < LOOP_SHARED;
    m->count[i] = buffer ? buffers[i].count : array->count * (array->varying ? m->k->lanes : 1);
    m->array[i].any = buffer ? buffers[i].data : ARENA_ARRAY(arena, double, m->count[i]);
  }
}

bool loop_interpret_steps(const LoopKernel *k, const LoopBuffer *buffers, int64_t batch, int64_t task0, int64_t task1,
                          int64_t steps, Err *err) {
  if (!loop_verify(k, err)) return false;
  Arena *arena = arena_new();
  Machine m = {.k = k, .err = err, .batch = batch, .steps = steps};
  set_up(&m, buffers, arena);
  bool ok = run_tasks(&m, task0, task1);
  arena_free(arena);
  return ok;
}

bool loop_interpret(const LoopKernel *k, const LoopBuffer *buffers, int64_t batch, int64_t task0, int64_t task1, Err *err) {
  return loop_interpret_steps(k, buffers, batch, task0, task1, step_limit, err);
}
