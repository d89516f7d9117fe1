/* The state of the Loop IR's interpreter, for its three files: loop_interpret.c (control), loop_interpret_arithmetic.c and
 * loop_interpret_memory.c. The kernel is verified, so types, scopes, tables and tile indices are relied on.
 *
 * Lanes run in step. `mask` says which of them run: null means all. Arithmetic computes every lane, whatever it then holds;
 * what can fail or be seen outside is done and checked in lanes that run only. */
#ifndef ADWP_KERNELS_LOOP_MACHINE_H
#define ADWP_KERNELS_LOOP_MACHINE_H

#include "kernels/loop_private.h"

typedef union Cell {
  int64_t *integers;
  float *singles;
  double *doubles;
  uint16_t *halves; /* bf16 */
  int32_t *words;   /* i32 */
  bool *bits;
  char *bytes;
} Cell;

/* An async_copy that no `wait` has finished. */
typedef struct LoopCopy {
  int32_t array;
  int64_t index;
  unsigned char data[LOOP_ASYNC_BYTES];
} LoopCopy;

typedef struct LoopMachine {
  const LoopKernel *k;
  Err *err;
  Cell *value;     /* of each instruction: one or `lanes` elements of its type */
  size_t *partner; /* of each opener its END, and of each END its opener */
  Cell *array;     /* elements of each array */
  int64_t *count;  /* of those, lanes of varying tiles included */
  int64_t batch, task, steps;
  size_t at; /* the instruction that is run */

  const bool *mask; /* null: all lanes */
  const bool *outer[LOOP_MAX_DEPTH];
  bool *inner[LOOP_MAX_DEPTH]; /* room for the mask of each depth */
  size_t depth;                /* of varying `if`s */

  VECTOR(LoopCopy) copies;
  int64_t *targets; /* of one instruction's lanes */
  int64_t *slots;   /* a hash table of them, twice as many */
} LoopMachine;

/* A message that names kernel, line, task and operation; returns false. */
bool loop_machine_fail(const LoopMachine *m, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline const LoopInstr *loop_machine_operand(const LoopMachine *m, const LoopInstr *instr, int i) {
  return &m->k->code.data[instr->operand[i]];
}

static inline Cell loop_machine_cell(const LoopMachine *m, const LoopInstr *instr, int i) {
  return m->value[instr->operand[i]];
}

/* What an operand's index is multiplied by to find a lane's element: 0 where it is uniform. */
static inline int loop_machine_stride(const LoopMachine *m, const LoopInstr *instr, int i) {
  return loop_machine_operand(m, instr, i)->varying;
}

static inline int64_t loop_machine_integer(const LoopMachine *m, const LoopInstr *instr, int i) {
  return loop_machine_cell(m, instr, i).integers[0];
}

static inline int loop_machine_lanes(const LoopMachine *m, const LoopInstr *instr) {
  return instr->varying ? m->k->lanes : 1;
}

static inline bool loop_machine_runs(const LoopMachine *m, int lane) {
  return !m->mask || m->mask[lane];
}

/* Each runs the instruction at `m->at`. */
bool loop_machine_arithmetic(LoopMachine *m, const LoopInstr *instr); /* whatever has neither array nor region */
bool loop_machine_memory(LoopMachine *m, const LoopInstr *instr);     /* whatever has an array */
void loop_machine_wait(LoopMachine *m);

#endif
