/* The interpreter of the Loop IR: the truth that emitted code is compared with. It runs the instructions one by one, lanes in
 * step and as arrays, each f32 operation rounded to f32, and checks what depends on the launch: indices, lane counts, divisors,
 * overflow of integers, steps of loops. Tiles and shared arrays begin each task as not-a-number, so that data read before they
 * are written are seen in the results. A limit on the instructions run makes endless loops an error.
 *
 * A verified kernel is required and checked first. Here stand control and set-up; loop_machine.h says where the rest is. */
#include "kernels/loop_machine.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const int64_t step_limit = INT64_C(1) << 34;   /* minutes */
static const int64_t memory_limit = INT64_C(1) << 30; /* bytes */

bool loop_machine_fail(const LoopMachine *m, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char message[600];
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  const LoopInstr *instr = &m->k->code.data[m->at];
  return err_set(m->err, "kernel %s, line %" PRId64 ", task %" PRId64 ": %s: %s", m->k->name, loop_line(m->k, m->at), m->task,
                 loop_op_info(instr->op)->text, message);
}

/* ---- control ---- */

/* Enters a loop or goes past its end. */
static bool run_loop(LoopMachine *m, const LoopInstr *instr) {
  int64_t from = loop_machine_integer(m, instr, 0), below = loop_machine_integer(m, instr, 1);
  int64_t step = loop_machine_integer(m, instr, 2);
  if (step <= 0) return loop_machine_fail(m, "a step of %" PRId64, step);
  m->value[m->at].integers[0] = from;
  if (from >= below) m->at = m->partner[m->at];
  return true;
}

/* A region for the lanes where the bit holds, among those that run; none: it is skipped. */
static void enter_if(LoopMachine *m, const LoopInstr *instr) {
  const bool *bit = loop_machine_cell(m, instr, 0).bits;
  if (!loop_machine_operand(m, instr, 0)->varying) {
    if (!bit[0]) m->at = m->partner[m->at];
    return;
  }
  bool *mask = m->inner[m->depth];
  int lanes = m->k->lanes, running = 0;
  for (int i = 0; i < lanes; i++) running += mask[i] = bit[i] && loop_machine_runs(m, i);
  if (running == 0) {
    m->at = m->partner[m->at];
    return;
  }
  m->outer[m->depth++] = m->mask;
  m->mask = running == lanes ? NULL : mask;
}

/* At a region's END: a loop's next iteration, if there is one; behind a varying `if` the lanes from before run. */
static void run_end(LoopMachine *m) {
  size_t opener = m->partner[m->at];
  const LoopInstr *instr = &m->k->code.data[opener];
  if (instr->op == LOOP_IF && loop_machine_operand(m, instr, 0)->varying) m->mask = m->outer[--m->depth];
  if (instr->op != LOOP_FOR && instr->op != LOOP_UNROLL) return;
  int64_t *variable = m->value[opener].integers, next;
  if (__builtin_add_overflow(*variable, loop_machine_integer(m, instr, 2), &next)) return;
  if (next >= loop_machine_integer(m, instr, 1)) return;
  *variable = next;
  m->at = opener;
}

static bool run_instr(LoopMachine *m) {
  const LoopInstr *instr = &m->k->code.data[m->at];
  if (loop_op_has_array(instr->op)) return loop_machine_memory(m, instr);
  switch (instr->op) {
  case LOOP_FOR:
  case LOOP_UNROLL: return run_loop(m, instr);
  case LOOP_IF: return enter_if(m, instr), true;
  case LOOP_END: return run_end(m), true;
  case LOOP_WAIT: return loop_machine_wait(m), true;
  case LOOP_INTEGER: /* set before the first task */
  case LOOP_FLOAT:
  case LOOP_BATCH:
  case LOOP_LANE:
  case LOOP_TASK: /* set before each */
  case LOOP_PHASE: return true;
  default: return loop_machine_arithmetic(m, instr);
  }
}

/* ---- the whole ---- */

static void set_constants(const LoopMachine *m) {
  for (size_t i = 0; i < m->k->code.count; i++) {
    const LoopInstr *instr = &m->k->code.data[i];
    if (instr->op == LOOP_INTEGER) m->value[i].integers[0] = instr->integer;
    if (instr->op == LOOP_BATCH) m->value[i].integers[0] = m->batch;
    for (int lane = 0; instr->op == LOOP_LANE && lane < m->k->lanes; lane++) m->value[i].integers[lane] = lane;
    if (instr->op == LOOP_FLOAT && instr->type == LOOP_F32) m->value[i].singles[0] = (float)instr->number;
    if (instr->op == LOOP_FLOAT && instr->type == LOOP_F64) m->value[i].doubles[0] = instr->number;
  }
}

static size_t array_bytes(const LoopMachine *m, size_t array) {
  return (size_t)(m->count[array] * loop_element_bytes(m->k->arrays.data[array].element));
}

static void begin_task(LoopMachine *m) {
  m->copies.count = 0;
  for (size_t i = (size_t)m->k->buffer_count; i < m->k->arrays.count; i++) {
    m->steps -= m->count[i] / 16;
    memset(m->array[i].bytes, 0xff, array_bytes(m, i)); /* not-a-number in f32, f64 and bf16 */
  }
  for (size_t i = 0; i < m->k->code.count; i++)
    if (m->k->code.data[i].op == LOOP_TASK) m->value[i].integers[0] = m->task;
}

static bool run_tasks(LoopMachine *m, int64_t task0, int64_t task1) {
  set_constants(m);
  for (m->task = task0; m->task < task1; m->task++) {
    begin_task(m);
    m->steps--;
    for (m->at = 0; m->at < m->k->code.count; m->at++) {
      if (--m->steps < 0) return loop_machine_fail(m, "too many instructions were run; is a loop endless?");
      if (!run_instr(m)) return false;
    }
    if (m->steps < 0) return err_set(m->err, "kernel %s: too many tasks were run", m->k->name);
  }
  return true;
}

static size_t value_bytes(LoopType type) {
  return type == LOOP_BIT ? sizeof(bool) : type == LOOP_F32 ? sizeof(float) : sizeof(double);
}

static bool opens_mask(const LoopMachine *m, size_t at) {
  const LoopInstr *instr = &m->k->code.data[at];
  return instr->op == LOOP_IF && loop_machine_stride(m, instr, 0);
}

static void set_up_regions(LoopMachine *m, Arena *arena) {
  size_t stack[LOOP_MAX_DEPTH] = {0}, depth = 0, masks = 0;
  m->partner = ARENA_ARRAY(arena, size_t, m->k->code.count + 1);
  for (size_t i = 0; i < m->k->code.count; i++) {
    const LoopInstr *instr = &m->k->code.data[i];
    if (loop_op_opens(instr->op)) stack[depth++] = i;
    if (opens_mask(m, i) && !m->inner[masks++]) m->inner[masks - 1] = ARENA_ARRAY(arena, bool, m->k->lanes);
    if (instr->op != LOOP_END) continue;
    m->partner[i] = stack[--depth];
    m->partner[stack[depth]] = i;
    masks -= opens_mask(m, stack[depth]);
  }
}

static void set_up_values(LoopMachine *m, Arena *arena) {
  m->value = ARENA_ARRAY(arena, Cell, m->k->code.count + 1);
  for (size_t i = 0; i < m->k->code.count; i++) {
    const LoopInstr *instr = &m->k->code.data[i];
    if (instr->type == LOOP_VOID) continue;
    m->value[i].bytes = arena_alloc_array(arena, (size_t)loop_machine_lanes(m, instr), value_bytes(instr->type));
  }
  m->targets = ARENA_ARRAY(arena, int64_t, m->k->lanes);
  m->slots = ARENA_ARRAY(arena, int64_t, 2 * m->k->lanes);
}

static void set_up_arrays(LoopMachine *m, const LoopBuffer *buffers, Arena *arena) {
  size_t arrays = m->k->arrays.count;
  m->array = ARENA_ARRAY(arena, Cell, arrays + 1);
  m->count = ARENA_ARRAY(arena, int64_t, arrays + 1);
  for (size_t i = 0; i < arrays; i++) {
    const LoopArray *array = &m->k->arrays.data[i];
    bool buffer = array->space < LOOP_SHARED;
    m->count[i] = buffer ? buffers[i].count : array->count * (array->varying ? m->k->lanes : 1);
    m->array[i].bytes = buffer ? buffers[i].data : arena_alloc(arena, array_bytes(m, i));
  }
}

/* Bytes of all values; the limits on arrays bound the rest. */
static int64_t memory_of(const LoopMachine *m) {
  int64_t bytes = 0;
  for (size_t i = 0; i < m->k->code.count; i++)
    bytes += loop_machine_lanes(m, &m->k->code.data[i]) * (int64_t)value_bytes(m->k->code.data[i].type);
  return bytes;
}

bool loop_interpret_steps(const LoopKernel *k, const LoopBuffer *buffers, int64_t batch, int64_t task0, int64_t task1,
                          int64_t steps, Err *err) {
  if (!loop_verify(k, err)) return false;
  LoopMachine m = {.k = k, .err = err, .batch = batch, .steps = steps};
  if (memory_of(&m) > memory_limit)
    return err_set(err, "kernel %s: its values take %" PRId64 " bytes, more than the interpreter's %" PRId64, k->name,
                   memory_of(&m), memory_limit);
  Arena *arena = arena_new();
  set_up_regions(&m, arena);
  set_up_values(&m, arena);
  set_up_arrays(&m, buffers, arena);
  bool ok = run_tasks(&m, task0, task1);
  vector_free(&m.copies);
  arena_free(arena);
  return ok;
}

bool loop_interpret(const LoopKernel *k, const LoopBuffer *buffers, int64_t batch, int64_t task0, int64_t task1, Err *err) {
  return loop_interpret_steps(k, buffers, batch, task0, task1, step_limit, err);
}
