/* The verifier of the Loop IR: everything that interpreter and emitters rely on and that one instruction alone does not show.
 *
 * - Each instruction obeys the rules of loop_rules.c and carries the type that they give it.
 * - Regions balance, are not too deep, and a value is used only where its region is still open.
 * - `unroll` loops make no more than LOOP_MAX_EXPANDED instructions.
 * - A tile's index is made of constants, `unroll` variables and integer arithmetic on those alone, and stays inside the tile:
 *   its range is computed as an interval, so that no combination of iterations can leave it, whether it is reached or not.
 * - Below an `if` whose bit varies stands nothing that all lanes do together, and nothing uniform is written.
 *
 * What depends on numbers known only at launch (indices into buffers, lane counts, divisors) is the interpreter's to check. */
#include "kernels/loop_private.h"

#include <string.h>

typedef struct Interval {
  bool known; /* made of constants and unroll variables, without overflow */
  int64_t low, high;
} Interval;

typedef struct Region {
  size_t opener;
  int64_t copies; /* times that an emitter writes an instruction inside it, at most LOOP_MAX_EXPANDED + 1 */
  bool masked;    /* below an `if` whose bit varies */
} Region;

typedef struct Verifier {
  const LoopKernel *k;
  Err *err;
  size_t *region;     /* of each instruction: 1 + its opener, 0 outside all */
  bool *closed;       /* of each opener */
  Interval *interval; /* of each instruction */
  Region stack[LOOP_MAX_DEPTH];
  size_t depth;
  int64_t expanded;
} Verifier;

int64_t loop_line(const LoopKernel *k, size_t instr) {
  int64_t line = 1 + (int64_t)k->arrays.count;
  for (size_t i = 0; i <= instr && i < k->code.count; i++)
    line += k->code.data[i].op != LOOP_INTEGER && k->code.data[i].op != LOOP_FLOAT;
  return line;
}

static int64_t copies(const Verifier *v) {
  return v->depth ? v->stack[v->depth - 1].copies : 1;
}

/* ---- intervals of tile indices ---- */

static Interval interval_of_corners(LoopOp op, Interval a, Interval b) {
  const int64_t x[2] = {a.low, a.high}, y[2] = {b.low, b.high};
  Interval result = {true, INT64_MAX, INT64_MIN};
  for (int i = 0; i < 4; i++) {
    int64_t value = 0, p = x[i & 1], q = y[i >> 1];
    bool overflow = false;
    switch (op) {
    case LOOP_IADD: overflow = __builtin_add_overflow(p, q, &value); break;
    case LOOP_ISUB: overflow = __builtin_sub_overflow(p, q, &value); break;
    case LOOP_IMUL: overflow = __builtin_mul_overflow(p, q, &value); break;
    case LOOP_IDIV: value = p / q; break;
    case LOOP_IMIN: value = p < q ? p : q; break;
    default: value = p > q ? p : q; break;
    }
    if (overflow) return (Interval){false, 0, 0};
    if (value < result.low) result.low = value;
    if (value > result.high) result.high = value;
  }
  return result;
}

static Interval interval_of(const Verifier *v, const LoopInstr *instr) {
  const Interval unknown = {false, 0, 0};
  if (instr->op == LOOP_INTEGER) return (Interval){true, instr->integer, instr->integer};
  if (instr->op == LOOP_UNROLL) {
    int64_t from = v->interval[instr->operand[0]].low, below = v->interval[instr->operand[1]].low;
    int64_t step = v->interval[instr->operand[2]].low;
    return (Interval){true, from, below > from ? from + (below - from - 1) / step * step : from};
  }
  if (!loop_op_is_integer_arithmetic(instr->op)) return unknown;
  Interval a = v->interval[instr->operand[0]], b = v->interval[instr->operand[1]];
  if (!a.known || !b.known) return unknown;
  if (instr->op == LOOP_IDIV || instr->op == LOOP_IMOD) {
    if (a.low < 0 || b.low <= 0) return unknown;
    if (instr->op == LOOP_IMOD && b.low == b.high && a.low / b.low == a.high / b.low)
      return (Interval){true, a.low % b.low, a.high % b.low};
    if (instr->op == LOOP_IMOD) return (Interval){true, 0, a.high < b.high - 1 ? a.high : b.high - 1};
  }
  return interval_of_corners(instr->op, a, b);
}

static int64_t saturated(int64_t a, int64_t b) {
  int64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static bool tile_index_ok(const Verifier *v, const LoopInstr *instr) {
  bool wide = loop_op_has_tile(instr->op);
  if (!wide && instr->op != LOOP_GET && instr->op != LOOP_SET) return true;
  const LoopArray *tile = &v->k->arrays.data[wide ? instr->tile : instr->array];
  int64_t width = !wide ? 1 : instr->op == LOOP_MMA ? LOOP_MMA_TILE : instr->integer;
  Interval index = v->interval[instr->operand[wide ? 2 : 0]];
  if (!index.known)
    return err_set(v->err, "%s: the index of tile %s is not made of constants and unroll variables alone",
                   loop_op_info(instr->op)->text, tile->name);
  if (copies(v) > 0 && (index.low < 0 || index.high > tile->count - width))
    return err_set(v->err, "%s: the index of tile %s may be %lld where it has %lld elements", loop_op_info(instr->op)->text,
                   tile->name, (long long)(index.low < 0 ? index.low : saturated(index.high, width - 1)), (long long)tile->count);
  return true;
}

/* ---- scopes and regions ---- */

static bool operands_visible(const Verifier *v, const LoopInstr *instr) {
  for (int i = 0; i < loop_op_info(instr->op)->operands; i++) {
    size_t region = v->region[instr->operand[i]];
    if (region && v->closed[region - 1])
      return err_set(v->err, "%s: operand %d was defined in a region that has ended", loop_op_info(instr->op)->text, i + 1);
  }
  return true;
}

static bool below_mask_ok(const Verifier *v, const LoopInstr *instr) {
  if (v->depth == 0 || !v->stack[v->depth - 1].masked) return true;
  const char *text = loop_op_info(instr->op)->text;
  switch (instr->op) {
  case LOOP_PHASE:
  case LOOP_LANE_SUM:
  case LOOP_MMA:
  case LOOP_WAIT: return err_set(v->err, "%s: stands below an if whose bit varies, where all lanes are wanted", text);
  case LOOP_STORE:
  case LOOP_STORE_LANES: return err_set(v->err, "%s: stands below an if whose bit varies; use scatter", text);
  case LOOP_SET:
    if (v->k->arrays.data[instr->array].varying) return true;
    return err_set(v->err, "%s: of uniform tile %s stands below an if whose bit varies", text,
                   v->k->arrays.data[instr->array].name);
  default: return true;
  }
}

static bool open_region(Verifier *v, size_t at, const LoopInstr *instr) {
  if (v->depth == LOOP_MAX_DEPTH) return err_set(v->err, "more than %d regions inside each other", LOOP_MAX_DEPTH);
  int64_t inside = copies(v);
  if (instr->op == LOOP_UNROLL) {
    int64_t step = v->interval[instr->operand[2]].low, from = v->interval[instr->operand[0]].low;
    int64_t below = v->interval[instr->operand[1]].low;
    inside *= below > from ? (below - from - 1) / step + 1 : 0; /* at most 2^20 * 2^12 */
    if (inside > LOOP_MAX_EXPANDED) inside = LOOP_MAX_EXPANDED + 1;
  }
  bool masked = v->depth && v->stack[v->depth - 1].masked;
  masked |= instr->op == LOOP_IF && v->k->code.data[instr->operand[0]].varying;
  v->stack[v->depth++] = (Region){at, inside, masked};
  return true;
}

static bool same_as_inferred(const Verifier *v, size_t at) {
  const LoopInstr *is = &v->k->code.data[at];
  LoopInstr should = *is;
  if (!loop_infer(v->k, at, &should, v->err)) return false;
  if (is->integer != should.integer)
    return err_set(v->err, "%s: of %lld elements where %lld are wanted", loop_op_info(is->op)->text, (long long)is->integer,
                   (long long)should.integer);
  if (is->type == should.type && is->varying == should.varying) return true;
  return err_set(v->err, "%s: is marked %s %s where it gives %s %s", loop_op_info(is->op)->text,
                 is->varying ? "varying" : "uniform", loop_type_name(is->type), should.varying ? "varying" : "uniform",
                 loop_type_name(should.type));
}

static bool verify_instr(Verifier *v, size_t at) {
  const LoopInstr *instr = &v->k->code.data[at];
  if (!same_as_inferred(v, at) || !operands_visible(v, instr) || !tile_index_ok(v, instr) || !below_mask_ok(v, instr))
    return false;
  v->interval[at] = interval_of(v, instr);
  v->expanded += copies(v);
  if (v->expanded > LOOP_MAX_EXPANDED) return err_set(v->err, "more than %d instructions once it is unrolled", LOOP_MAX_EXPANDED);
  if (instr->op == LOOP_END) {
    if (v->depth == 0) return err_set(v->err, "end: no region is open");
    v->closed[v->stack[--v->depth].opener] = true;
    return true;
  }
  if (loop_op_opens(instr->op) && !open_region(v, at, instr)) return false;
  v->region[at] = v->depth ? 1 + v->stack[v->depth - 1].opener : 0; /* a loop's variable belongs to its own region */
  return true;
}

/* ---- the whole ---- */

static bool verify_head(const LoopKernel *k, Err *err) {
  if (!loop_name_ok(k->name)) return err_set(err, "a kernel's name is a letter, then letters, digits, `_` and `.`");
  if (k->lanes < 1 || k->lanes > LOOP_MAX_LANES || (k->lanes & (k->lanes - 1)))
    return err_set(err, "kernel %s: %d lanes; a power of two up to %d is wanted", k->name, k->lanes, LOOP_MAX_LANES);
  if (k->code.count > LOOP_MAX_CODE) return err_set(err, "kernel %s: more than %d instructions", k->name, LOOP_MAX_CODE);
  int32_t buffers = 0;
  for (size_t i = 0; i < k->arrays.count; i++) {
    if (!loop_array_ok(k, i, &k->arrays.data[i], err)) return err_wrap(err, "kernel %s", k->name);
    buffers += k->arrays.data[i].space < LOOP_SHARED;
  }
  if (buffers != k->buffer_count) return err_set(err, "kernel %s: %d buffers, not %d", k->name, buffers, k->buffer_count);
  return true;
}

static bool verify_code(Verifier *v) {
  for (size_t i = 0; i < v->k->code.count; i++)
    if (!verify_instr(v, i)) return err_wrap(v->err, "kernel %s, line %lld", v->k->name, (long long)loop_line(v->k, i));
  if (v->depth == 0) return true;
  size_t opener = v->stack[v->depth - 1].opener;
  return err_set(v->err, "kernel %s, line %lld: the region of %s has no end", v->k->name, (long long)loop_line(v->k, opener),
                 loop_op_info(v->k->code.data[opener].op)->text);
}

bool loop_verify(const LoopKernel *k, Err *err) {
  if (!verify_head(k, err)) return false;
  Arena *arena = arena_new();
  size_t count = k->code.count + 1;
  Verifier v = {.k = k, .err = err};
  v.region = ARENA_ARRAY(arena, size_t, count);
  v.closed = ARENA_ARRAY(arena, bool, count);
  v.interval = ARENA_ARRAY(arena, Interval, count);
  bool ok = verify_code(&v);
  arena_free(arena);
  return ok;
}

bool loop_fits_cpu(const LoopKernel *k) {
  if (k->lanes > 32) return false;
  for (size_t i = 0; i < k->arrays.count; i++)
    if (k->arrays.data[i].element == LOOP_ELEMENT_BF16 || k->arrays.data[i].element == LOOP_ELEMENT_U8) return false;
  for (size_t i = 0; i < k->code.count; i++) {
    const LoopInstr *instr = &k->code.data[i];
    if (instr->varying && (instr->type == LOOP_INT || instr->op == LOOP_EXP || instr->op == LOOP_LOG)) return false;
    if (instr->op >= LOOP_GATHER && instr->op <= LOOP_MMA) return false;
    if (instr->op == LOOP_IF && k->code.data[instr->operand[0]].varying) return false;
  }
  return true;
}
