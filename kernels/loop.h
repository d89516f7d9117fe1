/* The Loop IR: one function a kernel, an SPMD program of structured loops over flat instructions. The emitters only translate
 * it: every decision of a schedule (tiles, lanes, scratch, prefetches) is visible here.
 *
 * - A kernel runs a range of tasks: its body stands inside one implicit `grid` loop whose variable is `loop_task(k)` (tasks of a
 *   CPU's worker, a block of a GPU). `loop_batch(k)` is B, bound at launch.
 * - Values are SSA: small integer ids, defined before use, visible in the region where they are defined and in those inside it.
 *   A value is `uniform` or `varying` over the kernel's `lanes` (a SIMD vector on a CPU, the threads of a block on a GPU). Where
 *   one operand of an operation varies and another does not, the uniform one is broadcast. Loop bounds are uniform.
 * - What changes stands in tiles (registers: `get`, `set`; their index must be known once `unroll` loops are unrolled, and
 *   the interval of it that the verifier computes from the loops' bounds must lie inside the tile),
 *   `shared` arrays (a task's scratch, indexed freely; contents are undefined at the start of a task) or buffers (global).
 * - `load_lanes` and `store_lanes` take `lanes` consecutive elements from an index on. `count` says how many lanes are inside (a
 *   masked remainder): 0 .. lanes, may be computed; lanes outside load `fill` and store nothing. `gather` and `scatter` take an
 *   index a lane, where a bit holds; `_tile` ones move `width` consecutive elements a lane from or to a tile, at an index that
 *   is a multiple of `width`: on a GPU one access of up to 16 bytes.
 * - Within a task a kernel may read what it stored before to a buffer or shared array. Lanes of a GPU do not run in step: what
 *   one lane stored, another may read (or store to) only after the end of a `phase`, which is the barrier and the only one. A
 *   uniform `load` counts as a read by all lanes, a uniform `store` as one by lane 0. `lane_sum` is a barrier, too.
 * - An `if` whose bit varies runs its region for the lanes where it holds. In there stands no phase, lane_sum, mma, wait,
 *   store_lanes, uniform `store` and no `set` of a uniform tile.
 * - No two tasks may write the same element, and none may read what another writes.
 * - f32 arithmetic is rounded to f32 at each operation; `fma` once. f64 exists for statistics and losses. bf16 is a way to store:
 *   a load gives f32, a store rounds to nearest, ties to even.
 * - `mma` is done by 32 consecutive lanes together, a warp: D (16 x 8) += A (16 x K) * B (8 x K)^T, K = 8 for f32 arrays, whose
 *   elements are rounded to tf32 (10 bits of fraction, to nearest, ties away from zero), K = 16 for bf16 ones. A and B lie in
 *   shared arrays, k runs along their rows; index and `stride` (elements from row to row) are even. Lane l of the warp holds in
 *   tile[at + r], r = 0 .. 3, the element of D at row l / 4 + 8 * (r / 2), column 2 * (l % 4) + r % 2. The order in which it adds
 *   is not fixed. All lanes of a warp give the same indices.
 *
 * Text, parser, verifier and interpreter are below. Everything of a kernel lives in its arena. */
#ifndef ADWP_KERNELS_LOOP_H
#define ADWP_KERNELS_LOOP_H

#include "runtime/base/arena.h"
#include "runtime/base/err.h"
#include "runtime/base/text.h"
#include "runtime/base/vector.h"

#include <stdbool.h>
#include <stdint.h>

typedef int32_t LoopValue; /* id of an instruction that has a result */
enum { LOOP_NONE = -1, LOOP_MAX_LANES = 1024 };

typedef enum LoopType { LOOP_VOID, LOOP_INT /* i64; values stay below 2^31 on a GPU */, LOOP_F32, LOOP_F64, LOOP_BIT } LoopType;

/* LOOP_OP(NAME, text, operands) */
#define LOOP_OPS(LOOP_OP)                                                                                                        \
  LOOP_OP(INTEGER, "int", 0) /* constant `integer` */                                                                            \
  LOOP_OP(FLOAT, "float", 0) /* constant `number`, f32 or f64 by `type`, uniform */                                              \
  LOOP_OP(TASK, "task", 0)   /* this task's number */                                                                            \
  LOOP_OP(BATCH, "batch", 0) /* B */                                                                                             \
  LOOP_OP(LANE, "lane", 0)   /* this lane's number, varying */                                                                   \
  LOOP_OP(IADD, "iadd", 2)                                                                                                       \
  LOOP_OP(ISUB, "isub", 2)                                                                                                       \
  LOOP_OP(IMUL, "imul", 2)                                                                                                       \
  LOOP_OP(IDIV, "idiv", 2) /* operands >= 0, divisor > 0 */                                                                      \
  LOOP_OP(IMOD, "imod", 2)                                                                                                       \
  LOOP_OP(IMIN, "imin", 2)                                                                                                       \
  LOOP_OP(IMAX, "imax", 2)                                                                                                       \
  LOOP_OP(ILT, "ilt", 2) /* a < b: bit */                                                                                        \
  LOOP_OP(IEQ, "ieq", 2)                                                                                                         \
  LOOP_OP(AND, "and", 2) /* of bits */                                                                                           \
  LOOP_OP(OR, "or", 2)                                                                                                           \
  LOOP_OP(NOT, "not", 1)                                                                                                         \
  LOOP_OP(SELECT, "select", 3) /* bit ? b : c; of ints or floats */                                                              \
  LOOP_OP(TO_F32, "to_f32", 1) /* from int or f64 */                                                                             \
  LOOP_OP(TO_F64, "to_f64", 1) /* from int or f32 */                                                                             \
  LOOP_OP(ADD, "add", 2)                                                                                                         \
  LOOP_OP(SUB, "sub", 2)                                                                                                         \
  LOOP_OP(MUL, "mul", 2)                                                                                                         \
  LOOP_OP(DIV, "div", 2)                                                                                                         \
  LOOP_OP(FMA, "fma", 3) /* a * b + c */                                                                                         \
  LOOP_OP(MAX, "max", 2) /* a > b ? a : b */                                                                                     \
  LOOP_OP(MIN, "min", 2) /* a < b ? a : b */                                                                                     \
  LOOP_OP(SQRT, "sqrt", 1)                                                                                                       \
  LOOP_OP(EXP, "exp", 1) /* f64, on a CPU uniform; a polynomial of the emitter's, not libm's */                                  \
  LOOP_OP(LOG, "log", 1) /* f64, on a CPU uniform, of a positive normal number */                                                \
  LOOP_OP(GT, "gt", 2)   /* ordered a > b: bit, varying if an operand is */                                                      \
  LOOP_OP(EQ, "eq", 2)                                                                                                           \
  LOOP_OP(LOAD, "load", 1)                 /* `array`[a]: one element, uniform */                                                \
  LOOP_OP(LOAD_INT, "load_int", 1)         /* `array`[a] of an i32 or u8 buffer, only read */                                    \
  LOOP_OP(LOAD_LANES, "load_lanes", 2)     /* `array`[a .. a+lanes), `count` b lanes of it, others `number` */                   \
  LOOP_OP(STORE, "store", 2)               /* `array`[a] = b, uniform */                                                         \
  LOOP_OP(STORE_LANES, "store_lanes", 3)   /* `array`[a .. a+lanes) = b, the first `count` c lanes */                            \
  LOOP_OP(GATHER, "gather", 2)             /* `array`[a] where bit b, else `number`; an i32 or u8 buffer gives int */            \
  LOOP_OP(SCATTER, "scatter", 3)           /* `array`[a] = b where bit c; no two lanes the same element */                       \
  LOOP_OP(GATHER_TILE, "gather_tile", 3)   /* `tile`[c ..] = `array`[a .. a+`integer`) where bit b, else `number` */             \
  LOOP_OP(SCATTER_TILE, "scatter_tile", 3) /* `array`[a .. a+`integer`) = `tile`[c ..] where bit b */                            \
  LOOP_OP(ASYNC_COPY, "async_copy", 3) /* shared `array`[a .. a+`integer`) = `other`[b ..] where bit c, else zeros; 16 bytes */  \
  LOOP_OP(WAIT, "wait", 0)             /* this lane's copies are done; until then their targets are undefined */                 \
  LOOP_OP(MMA, "mma", 3)               /* `tile`[c .. c+4) += `array`[a ..] (`stride`) * `other`[b ..] (`other_stride`) */       \
  LOOP_OP(GET, "get", 1)               /* tile `array`[a] */                                                                     \
  LOOP_OP(SET, "set", 2)               /* tile `array`[a] = b */                                                                 \
  LOOP_OP(LANE_SUM, "lane_sum", 1)     /* varying -> uniform, as a fixed tree: halves added until one is left */                 \
  LOOP_OP(PREFETCH, "prefetch", 1)     /* `array`[a] will be read soon (`integer` 1: written); any index is allowed */           \
  LOOP_OP(FOR, "for", 3)               /* region: result (int) runs from a to below b by c > 0; ends at END */                   \
  LOOP_OP(UNROLL, "unroll", 3)         /* the same, unrolled by the emitter: constant bounds */                                  \
  LOOP_OP(IF, "if", 1)                 /* region: runs where the bit holds */                                                    \
  LOOP_OP(PHASE, "phase", 0)           /* region with a `name`: tasks of a block agree on shared arrays at its end */            \
  LOOP_OP(END, "end", 0)

typedef enum LoopOp {
#define LOOP_OP(NAME, text, operands) LOOP_##NAME,
  LOOP_OPS(LOOP_OP)
#undef LOOP_OP
      LOOP_OP_COUNT
} LoopOp;

typedef struct LoopInstr {
  LoopOp op;
  LoopType type; /* of the result; LOOP_VOID: none */
  bool varying;
  LoopValue operand[3];
  int32_t array; /* index into `arrays` for what has one; else -1 */
  int32_t tile;  /* of gather_tile, scatter_tile, mma; else -1 */
  int32_t other; /* of async_copy: the source; of mma: B; else -1 */
  int64_t integer;
  int64_t stride, other_stride; /* of mma */
  double number;
  const char *name; /* phase */
} LoopInstr;

typedef enum LoopSpace { LOOP_IN, LOOP_OUT, LOOP_INOUT, LOOP_SHARED, LOOP_TILE } LoopSpace; /* the first three: buffers */
typedef enum LoopElement { LOOP_ELEMENT_F32, LOOP_ELEMENT_F64, LOOP_ELEMENT_BF16, LOOP_ELEMENT_I32, LOOP_ELEMENT_U8 } LoopElement;

typedef struct LoopArray {
  const char *name;
  LoopSpace space;
  LoopElement element;
  bool varying;  /* tiles: an element is a vector of `lanes` */
  int64_t count; /* shared arrays and tiles: elements; buffers: 0 */
} LoopArray;

typedef struct LoopKernel {
  Arena *arena;
  const char *name;
  int32_t lanes;
  VECTOR(LoopArray) arrays; /* buffers first, in parameter order */
  VECTOR(LoopInstr) code;
  int32_t buffer_count;
  int32_t depth; /* regions open while it is built; 0 when it is complete */
} LoopKernel;

/* ---- building; a breach of a rule is a bug of the caller (die). C does not say in which order arguments are evaluated: at
 * most one argument of a call may itself build an instruction other than a constant, or texts differ between compilers. ---- */
LoopKernel *loop_new(Arena *arena, const char *name, int32_t lanes);
void loop_free_tables(LoopKernel *k); /* the vectors; the rest goes with the arena */

int32_t loop_buffer(LoopKernel *k, const char *name, LoopSpace space, LoopElement element);  /* before any shared array or tile */
int32_t loop_shared(LoopKernel *k, const char *name, int64_t count);                         /* f32, aligned to a cache line */
int32_t loop_shared_of(LoopKernel *k, const char *name, LoopElement element, int64_t count); /* f32, f64 or bf16 */
int64_t loop_element_bytes(LoopElement element);
uint16_t loop_to_bf16(float value); /* to nearest, ties to even */
float loop_from_bf16(uint16_t bits);
int32_t loop_tile(LoopKernel *k, const char *name, LoopType type, bool varying, int64_t count); /* starts undefined */

LoopValue loop_int(LoopKernel *k, int64_t value);
LoopValue loop_f32(LoopKernel *k, double value);
LoopValue loop_f64(LoopKernel *k, double value);
LoopValue loop_task(LoopKernel *k);
LoopValue loop_batch(LoopKernel *k);
LoopValue loop_lane(LoopKernel *k);
/* Any operation without array or region. Integer operations on constants fold (also x+0, x*1, x*0), so that index arithmetic
 * can be written plainly; `loop_value_of` tells a constant. Float operations never fold. */
LoopValue loop_op1(LoopKernel *k, LoopOp op, LoopValue a);
LoopValue loop_op2(LoopKernel *k, LoopOp op, LoopValue a, LoopValue b);
LoopValue loop_op3(LoopKernel *k, LoopOp op, LoopValue a, LoopValue b, LoopValue c);
bool loop_value_of(const LoopKernel *k, LoopValue v, int64_t *value);

LoopValue loop_load(LoopKernel *k, int32_t array, LoopValue index);
LoopValue loop_load_int(LoopKernel *k, int32_t array, LoopValue index);
LoopValue loop_load_lanes(LoopKernel *k, int32_t array, LoopValue index, LoopValue count, double fill);
void loop_store(LoopKernel *k, int32_t array, LoopValue index, LoopValue value);
void loop_store_lanes(LoopKernel *k, int32_t array, LoopValue index, LoopValue value,
                      LoopValue count); /* a uniform value is broadcast */
LoopValue loop_gather(LoopKernel *k, int32_t array, LoopValue index, LoopValue where, double fill);
void loop_scatter(LoopKernel *k, int32_t array, LoopValue index, LoopValue value, LoopValue where);
/* width: 2, 4 or 8 elements, at most 16 bytes */
void loop_gather_tile(LoopKernel *k, int32_t tile, LoopValue at, int32_t array, LoopValue index, int width, LoopValue where,
                      double fill);
void loop_scatter_tile(LoopKernel *k, int32_t array, LoopValue index, int width, int32_t tile, LoopValue at, LoopValue where);
/* Copies 16 bytes a lane: 4 f32 or 8 bf16; arrays of one element type, both indices multiples of that. */
void loop_async_copy(LoopKernel *k, int32_t shared, LoopValue to, int32_t buffer, LoopValue from, LoopValue where);
void loop_wait(LoopKernel *k);
typedef struct LoopFactor { /* of an mma */
  int32_t array;
  LoopValue index;
  int64_t stride;
} LoopFactor;
void loop_mma(LoopKernel *k, int32_t tile, LoopValue at, LoopFactor a, LoopFactor b);
LoopValue loop_get(LoopKernel *k, int32_t tile, LoopValue index);
void loop_set(LoopKernel *k, int32_t tile, LoopValue index, LoopValue value);
void loop_prefetch(LoopKernel *k, int32_t array, LoopValue index, bool write);

LoopValue loop_for(LoopKernel *k, LoopValue from, LoopValue below, LoopValue step); /* begins a region */
LoopValue loop_unroll(LoopKernel *k, int64_t from, int64_t below, int64_t step);
void loop_if(LoopKernel *k, LoopValue bit); /* varying or not */
void loop_phase(LoopKernel *k, const char *name);
void loop_end(LoopKernel *k);

/* ---- text: deterministic; print -> parse -> print is the identity. Constants stand where they are used: 3 is an int, 0.5f or
 * 0x1.8p-3f f32, 0.5 f64, and inff, -inf, nanf are numbers too; # begins a comment. Arrays stand before instructions.
 *
 *   kernel NAME lanes 16 {
 *     buffer x f32 in                              # f32 f64 bf16 i32 u8, in out inout
 *     shared t f32[4096]
 *     tile acc f32[8] lanes                        # without `lanes`: uniform elements
 *     %0 = task
 *     %1 = imul %0, 4096                           # any operation without array or region
 *     phase depthwise {
 *       for %2 = 0 to %1 step 16 {                 # `unroll` reads alike; `if %9 {`
 *         %3 = load_lanes x[%2] count 7 else 0.0f  # load x[%2], load_int y[%2], get acc[3]; prefetch x[%2] write
 *         set acc[3] = %3                          # store t[%2] = %9
 *         store_lanes t[%2] = %3 count 7
 *         %4 = gather x[%9] where %5 else 0.0f       # scatter x[%9] = %4 where %5
 *         gather_tile acc[4] = x[%9] width 4 where %5 else 0.0f
 *         scatter_tile x[%9] width 4 = acc[4] where %5
 *         async_copy t[%6] = x[%9] where %5
 *         mma acc[4] += t[%6] stride 36 * t[%7] stride 36
 *       }
 *     }
 *   } ---- */
void loop_print(const LoopKernel *k, Text *out);
LoopKernel *loop_parse(const char *text, size_t size, Arena *arena, Err *err); /* untrusted text: an error, never a crash */

bool loop_verify(const LoopKernel *k, Err *err);

/* Whether a CPU's emitter can translate a verified kernel: at most 32 lanes, and nothing that needs threads (varying integers and
 * bits of them, gather, scatter, mma, async_copy, bf16). */
bool loop_fits_cpu(const LoopKernel *k);

/* Bytes of scratch that one worker needs: the shared arrays, each aligned to 64. `offset` may be null, else one a shared array
 * in their order. */
int64_t loop_scratch(const LoopKernel *k, int64_t *offset);

/* ---- the interpreter: f32 arithmetic as written, every access checked against the buffer's size ---- */
typedef struct LoopBuffer {
  void *data;    /* float, double, uint16_t (bf16), int32_t or uint8_t by the buffer's element */
  int64_t count; /* elements */
} LoopBuffer;

bool loop_interpret(const LoopKernel *k, const LoopBuffer *buffers, int64_t batch, int64_t task0, int64_t task1, Err *err);

#endif
