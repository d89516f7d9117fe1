/* What builder, parser, verifier, printer and interpreter of the Loop IR share: the limits, the operation table and the one
 * place where the rules of types are written (`loop_infer`), so that what the builder makes, what the parser accepts and what
 * the verifier demands cannot drift apart. */
#ifndef ADWP_KERNELS_LOOP_PRIVATE_H
#define ADWP_KERNELS_LOOP_PRIVATE_H

#include "kernels/loop.h"

/* Far above every schedule that makes sense, and low enough that no text can exhaust memory. */
enum {
  LOOP_MAX_TEXT = 64 << 20,      /* bytes */
  LOOP_MAX_CODE = 1 << 18,       /* instructions, constants among them */
  LOOP_MAX_EXPANDED = 1 << 20,   /* instructions once `unroll` is unrolled */
  LOOP_MAX_DEPTH = 64,           /* regions inside regions */
  LOOP_MAX_ARRAYS = 4096,        /* buffers, shared arrays and tiles */
  LOOP_MAX_TRIPS = 4096,         /* of one `unroll` */
  LOOP_MAX_TILES = 1 << 16,      /* elements of all tiles together */
  LOOP_MAX_TILE_LANES = 1 << 21, /* the same, those of varying tiles counted in each lane */
  LOOP_MAX_SHARED = 64 << 20,    /* bytes of all shared arrays together */
  LOOP_MAX_NAME = 128,           /* characters */
  LOOP_MAX_OPERANDS = 3,
  LOOP_WARP = 32,    /* lanes that do an mma together */
  LOOP_MMA_TILE = 4, /* elements of D that a lane holds */
  LOOP_ASYNC_BYTES = 16,
};

typedef struct LoopOpInfo {
  const char *text;
  int operands;
} LoopOpInfo;

const LoopOpInfo *loop_op_info(LoopOp op);
const char *loop_type_name(LoopType type);
const char *loop_element_name(LoopElement element);
LoopType loop_element_type(LoopElement element); /* i32, u8: LOOP_INT */

/* How the text of an operation with an array goes on after its name, or null. Words between spaces: `A0`, `T2`, `O1` are the
 * array, tile and other array, each with that operand as its index; `1` an operand; `F` the fill, `W` the width (`integer`), `S`
 * and `R` the strides, `P` an optional `write`; any other word is itself. Printer and parser both follow it. */
const char *loop_op_form(LoopOp op);
bool loop_op_has_array(LoopOp op);
bool loop_op_has_tile(LoopOp op);              /* in `tile` */
bool loop_op_has_other(LoopOp op);             /* in `other` */
bool loop_op_opens(LoopOp op);                 /* a region */
bool loop_op_is_integer_arithmetic(LoopOp op); /* iadd .. imax: int from two ints */

/* A letter or `_`, then letters, digits, `_`, `.`. */
bool loop_name_ok(const char *name);

/* Whether a number is exact in f32, where not-a-number and infinities are allowed, or in 32 bits where the type is int. */
bool loop_number_ok(LoopType type, double number);

/* Whether an array may stand at the end of the table as it is: name, element, space, limits. */
bool loop_array_ok(const LoopKernel *k, size_t count, const LoopArray *array, Err *err);

/* Checks the operands' types, the array and the constants of an instruction that would follow `before` others, and sets `type`
 * and `varying` (a FLOAT's type is given). Scopes and regions are the verifier's. */
bool loop_infer(const LoopKernel *k, size_t before, LoopInstr *instr, Err *err);

/* The line on which `loop_print` prints an instruction (constants stand inside others and have none). Messages name it. */
int64_t loop_line(const LoopKernel *k, size_t instr);

/* `loop_interpret` with another limit on the instructions that are run. */
bool loop_interpret_steps(const LoopKernel *k, const LoopBuffer *buffers, int64_t batch, int64_t task0, int64_t task1,
                          int64_t steps, Err *err);

/* An instruction with no operands, array or constants. */
LoopInstr loop_instr(LoopOp op);

#endif
