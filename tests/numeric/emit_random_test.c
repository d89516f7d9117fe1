/* Random kernels: machine code of both levels gives the interpreter's bits. Each kernel nests loops, unrolled loops and branches
 * over arithmetic, masked accesses, tiles and shared arrays, with indices that are computed from whatever values are at hand and
 * brought into bounds. EMIT_SEED=N starts elsewhere, EMIT_KERNELS=N makes more; a failure prints its kernel. */
#include "compiler/emit/emit.h"
#include "kernels/loop.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
  PART = 192, /* elements of each buffer that a task may touch */
  TASKS = 3,
  SHARED = 80,
  TILE = 5,
  BATCH = 3,
  KEEP = 256,
  POOLS = 6 /* ints, bits, f32 and f64, uniform and varying */
};

enum { INTS, BITS, F32, F32_LANES, F64, F64_LANES };

typedef struct Generator {
  LoopKernel *k;
  uint64_t random;
  LoopValue pool[POOLS][KEEP]; /* the values that are visible, by kind */
  int count[POOLS];
  int32_t buffer[2], shared, tile[4], ints; /* buffers and tiles by kind - F32 */
  int depth, budget;
} Generator;

static uint32_t pick(Generator *g, uint32_t below) {
  g->random = g->random * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(g->random >> 33) % below;
}

static void keep(Generator *g, LoopValue v) {
  const LoopInstr *instr = &g->k->code.data[v];
  int kind = instr->type == LOOP_INT ? INTS : instr->type == LOOP_BIT ? BITS : instr->type == LOOP_F32 ? F32 : F64;
  if (kind == BITS && instr->varying) return; /* used at once, below */
  kind += instr->varying;
  if (g->count[kind] < KEEP) g->pool[kind][g->count[kind]++] = v;
}

/* A recent value more often than an old one. */
static LoopValue any(Generator *g, int kind) {
  int count = g->count[kind];
  int back = (int)pick(g, (uint32_t)(pick(g, 2) ? count : count < 6 ? count : 6));
  return g->pool[kind][count - 1 - back];
}

static LoopValue integer(Generator *g, int64_t value) {
  return loop_int(g->k, value);
}

/* Some int, or (int + c) * c - int as in index arithmetic, brought into 0 .. below - 1. */
static LoopValue bounded(Generator *g, int64_t below) {
  LoopValue v = any(g, INTS);
  if (pick(g, 2)) {
    v = loop_op2(g->k, LOOP_IADD, v, integer(g, (int64_t)pick(g, 9)));
    LoopValue factor = pick(g, 2) ? v : integer(g, (int64_t)pick(g, 9) - 2);
    v = loop_op2(g->k, LOOP_IMUL, v, factor);
    v = loop_op2(g->k, LOOP_ISUB, v, any(g, INTS));
  }
  v = loop_op2(g->k, LOOP_IMAX, v, integer(g, 0));
  return loop_op2(g->k, LOOP_IMOD, v, integer(g, below));
}

/* An index into this task's part of a buffer, or into the shared array, with room for all lanes behind it. */
static LoopValue place(Generator *g, bool shared) {
  LoopValue index = bounded(g, (shared ? SHARED : PART) - g->k->lanes + 1);
  if (shared) return index;
  LoopValue start = loop_op2(g->k, LOOP_IMUL, g->pool[INTS][0], integer(g, PART));
  return pick(g, 2) ? loop_op2(g->k, LOOP_IADD, start, index) : loop_op2(g->k, LOOP_IADD, index, start);
}

static LoopValue lane_count(Generator *g) {
  uint32_t way = pick(g, 4);
  if (way == 0) return bounded(g, g->k->lanes + 1);
  return integer(g, way == 1 ? (int64_t)pick(g, (uint32_t)g->k->lanes + 1) : g->k->lanes);
}

static int32_t array_of(Generator *g, int kind, bool *shared) {
  *shared = kind <= F32_LANES && pick(g, 3) == 0;
  return *shared ? g->shared : g->buffer[kind >= F64];
}

/* ---- statements ---- */

static void make_integer(Generator *g) {
  static const LoopOp ops[] = {LOOP_IADD, LOOP_ISUB, LOOP_IMUL, LOOP_IMIN, LOOP_IMAX};
  LoopValue a = any(g, INTS), b = pick(g, 2) ? any(g, INTS) : integer(g, (int64_t)pick(g, 40) - 12);
  LoopValue v;
  if (pick(g, 6) == 0) {
    v = loop_load_int(g->k, g->ints, bounded(g, PART));
  } else if (pick(g, 5) == 0) {
    a = loop_op2(g->k, LOOP_IMAX, a, integer(g, 0));
    v = loop_op2(g->k, pick(g, 2) ? LOOP_IDIV : LOOP_IMOD, a, integer(g, 1 + (int64_t)pick(g, 9)));
  } else if (pick(g, 8) == 0) {
    v = loop_op3(g->k, LOOP_SELECT, any(g, BITS), a, b);
  } else {
    v = loop_op2(g->k, ops[pick(g, 5)], a, b);
  }
  v = loop_op2(g->k, LOOP_IMIN, v, integer(g, 5000));
  keep(g, loop_op2(g->k, LOOP_IMAX, v, integer(g, -5000)));
}

static void make_bit(Generator *g) {
  LoopValue a = any(g, BITS), b = any(g, BITS), i = any(g, INTS), j = any(g, INTS), x = any(g, F32), y = any(g, F32);
  switch (pick(g, 6)) {
  case 0: keep(g, loop_op2(g->k, LOOP_ILT, i, j)); break;
  case 1: keep(g, loop_op2(g->k, LOOP_IEQ, i, j)); break;
  case 2: keep(g, loop_op2(g->k, LOOP_GT, x, y)); break;
  case 3: keep(g, loop_op2(g->k, LOOP_AND, a, b)); break;
  case 4: keep(g, loop_op2(g->k, LOOP_OR, a, b)); break;
  default: keep(g, loop_op1(g->k, LOOP_NOT, a)); break;
  }
}

static LoopValue compared(Generator *g, LoopValue a, LoopValue b, LoopValue x, LoopValue y) {
  LoopValue bit = loop_op2(g->k, pick(g, 2) ? LOOP_GT : LOOP_EQ, a, b);
  if (pick(g, 2)) bit = loop_op2(g->k, pick(g, 2) ? LOOP_AND : LOOP_OR, bit, any(g, BITS));
  return loop_op3(g->k, LOOP_SELECT, bit, x, y);
}

static void make_float(Generator *g, int kind) {
  static const LoopOp ops[] = {LOOP_ADD, LOOP_SUB, LOOP_MUL, LOOP_DIV, LOOP_MAX, LOOP_MIN};
  int wide = kind >= F64 ? F64 : F32;
  LoopValue x = any(g, kind), y = any(g, wide + (int)pick(g, 2)), z = any(g, wide + (int)pick(g, 2)), other;
  switch (pick(g, 8)) {
  case 0: keep(g, loop_op3(g->k, LOOP_FMA, x, y, z)); break;
  case 1: keep(g, compared(g, x, y, z, x)); break;
  case 2: keep(g, loop_op1(g->k, LOOP_SQRT, x)); break;
  case 3:
    other = any(g, wide == F32 ? F64 + (kind & 1) : F32 + (kind & 1));
    keep(g, loop_op1(g->k, wide == F32 ? LOOP_TO_F32 : LOOP_TO_F64, pick(g, 2) ? other : any(g, INTS)));
    break;
  case 4:
    if (kind != wide) keep(g, loop_op1(g->k, LOOP_LANE_SUM, x));
    break;
  default: keep(g, loop_op2(g->k, ops[pick(g, 6)], x, y)); break;
  }
}

static void make_load(Generator *g, int kind) {
  bool shared, lanes = kind == F32_LANES || kind == F64_LANES;
  int32_t array = array_of(g, kind, &shared);
  LoopValue index = place(g, shared);
  if (!lanes)
    keep(g, loop_load(g->k, array, index));
  else
    keep(g, loop_load_lanes(g->k, array, index, lane_count(g), pick(g, 2) ? 0 : -1.5));
}

static void make_store(Generator *g, int kind) {
  bool shared;
  int32_t array = array_of(g, kind, &shared);
  LoopValue index = place(g, shared), value = any(g, kind);
  if (kind == F32 || kind == F64)
    loop_store(g->k, array, index, value);
  else
    loop_store_lanes(g->k, array, index, pick(g, 4) ? value : any(g, kind - 1), lane_count(g));
}

/* An index that is known once loops are unrolled: constants here, variables in `unrolled`. */
static void use_tile(Generator *g, int kind, LoopValue index) {
  int32_t tile = g->tile[kind - F32];
  if (pick(g, 2))
    keep(g, loop_get(g->k, tile, index));
  else
    loop_set(g->k, tile, index, pick(g, 4) ? any(g, kind) : any(g, kind & ~1));
}

static void statements(Generator *g, int count);

static void region(Generator *g) {
  int counts[POOLS];
  memcpy(counts, g->count, sizeof counts);
  g->depth++;
  uint32_t way = pick(g, 4);
  if (way == 0) {
    LoopValue from = integer(g, (int64_t)pick(g, 3)), below = pick(g, 2) ? integer(g, (int64_t)pick(g, 6)) : bounded(g, 5);
    keep(g, loop_for(g->k, from, below, integer(g, 1 + (int64_t)pick(g, 3))));
  } else if (way == 1) {
    LoopValue variable = loop_unroll(g->k, 0, TILE - 1, 1 + (int64_t)pick(g, 2));
    keep(g, variable);
    LoopValue last = loop_op2(g->k, LOOP_ISUB, integer(g, TILE - 1), variable);
    for (int i = 0; i < 3; i++) use_tile(g, F32 + (int)pick(g, 4), pick(g, 2) ? variable : last);
  } else if (way == 2) {
    loop_if(g->k, any(g, BITS));
  } else {
    loop_phase(g->k, "phase");
  }
  statements(g, 2 + (int)pick(g, 7));
  loop_end(g->k);
  g->depth--;
  memcpy(g->count, counts, sizeof counts);
}

static void statements(Generator *g, int count) {
  for (int i = 0; i < count && g->budget > 0; i++, g->budget--) {
    int kind = F32 + (int)pick(g, 4);
    switch (pick(g, 9)) {
    case 0: make_integer(g); break;
    case 1: make_bit(g); break;
    case 2: make_load(g, kind); break;
    case 3: make_store(g, kind); break;
    case 4: use_tile(g, kind, integer(g, (int64_t)pick(g, TILE))); break;
    case 5:
    case 6:
      if (g->depth < 4) region(g);
      break;
    default: make_float(g, kind); break;
    }
  }
}

/* Tiles and the shared array get values first: what they hold before is undefined. */
static void beginning(Generator *g) {
  LoopValue task = loop_task(g->k), batch = loop_batch(g->k);
  keep(g, task);
  keep(g, batch);
  keep(g, loop_op2(g->k, LOOP_ILT, task, batch));
  LoopValue start = loop_op2(g->k, LOOP_IMUL, task, integer(g, PART));
  for (int i = 0; i < 3; i++) {
    LoopValue at = loop_op2(g->k, LOOP_IADD, start, integer(g, 5 * i)), all = integer(g, g->k->lanes);
    keep(g, loop_load(g->k, g->buffer[0], at));
    keep(g, loop_load(g->k, g->buffer[1], at));
    keep(g, loop_load_lanes(g->k, g->buffer[0], at, all, 0));
    keep(g, loop_load_lanes(g->k, g->buffer[1], at, all, 0));
  }
  LoopValue i = loop_for(g->k, integer(g, 0), integer(g, SHARED), integer(g, 1));
  LoopValue value = loop_op1(g->k, LOOP_TO_F32, i);
  loop_store(g->k, g->shared, i, value);
  loop_end(g->k);
  LoopValue u = loop_unroll(g->k, 0, TILE, 1);
  for (int kind = F32; kind <= F64_LANES; kind++) loop_set(g->k, g->tile[kind - F32], u, any(g, kind));
  loop_end(g->k);
}

/* What is alive at the end is stored where nothing else is written. */
static void ending(Generator *g, int32_t results) {
  LoopValue start = loop_op2(g->k, LOOP_IMUL, g->pool[INTS][0], integer(g, 2 * PART));
  int64_t at = 0;
  for (int kind = F32; kind <= F64_LANES; kind++)
    for (int i = 0; i < 2; i++) {
      LoopValue v = i ? any(g, kind) : loop_get(g->k, g->tile[kind - F32], integer(g, 2));
      if (kind <= F32_LANES) v = loop_op1(g->k, LOOP_TO_F64, v);
      LoopValue index = loop_op2(g->k, LOOP_IADD, start, integer(g, at));
      loop_store_lanes(g->k, results, index, v, integer(g, g->k->lanes));
      at += g->k->lanes;
    }
}

static LoopKernel *random_kernel(Arena *arena, uint64_t seed) {
  Generator *g = calloc(1, sizeof *g);
  g->random = seed * 7919 + 1;
  char name[32];
  snprintf(name, sizeof name, "random%llu", (unsigned long long)seed);
  for (int i = 0; i < 8; i++) pick(g, 2);
  g->k = loop_new(arena, name, 1 << pick(g, 6));
  g->buffer[0] = loop_buffer(g->k, "x", LOOP_INOUT, LOOP_ELEMENT_F32);
  g->buffer[1] = loop_buffer(g->k, "d", LOOP_INOUT, LOOP_ELEMENT_F64);
  g->ints = loop_buffer(g->k, "n", LOOP_IN, LOOP_ELEMENT_I32);
  int32_t results = loop_buffer(g->k, "results", LOOP_OUT, LOOP_ELEMENT_F64);
  g->shared = loop_shared(g->k, "s", SHARED);
  static const char *const names[] = {"a", "b", "c", "e"};
  for (int i = 0; i < 4; i++) g->tile[i] = loop_tile(g->k, names[i], i < 2 ? LOOP_F32 : LOOP_F64, i & 1, TILE);
  g->budget = 90;
  beginning(g);
  statements(g, 60);
  ending(g, results);
  LoopKernel *k = g->k;
  free(g);
  return k;
}

/* ---- comparison ---- */

typedef struct Memory {
  float x[TASKS * PART];
  double d[TASKS * PART];
  int32_t n[PART];
  double results[TASKS * 2 * PART];
} Memory;

static Memory *new_memory(void) {
  Memory *m = calloc(1, sizeof *m);
  uint32_t state = 99;
  for (int i = 0; i < TASKS * PART; i++) {
    state = state * 1664525u + 1013904223u;
    m->x[i] = (float)(state >> 8) / 0x1p22f - 2;
    m->d[i] = i % 17 ? (double)(state >> 4) / 0x1p26 - 2 : i % 2 ? INFINITY : -0.0;
    if (i < PART) m->n[i] = (int32_t)(state >> 20) % 97 - 30;
  }
  return m;
}

static bool same(double a, double b) {
  return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

/* The first difference, or null. */
static const char *difference(const Memory *a, const Memory *b) {
  for (int i = 0; i < TASKS * PART; i++) {
    if (!same((double)a->x[i], (double)b->x[i])) return "x";
    if (!same(a->d[i], b->d[i])) return "d";
  }
  for (int i = 0; i < TASKS * 2 * PART; i++)
    if (!same(a->results[i], b->results[i])) return "results";
  return NULL;
}

static void check(const LoopKernel *k, KernelFunction *run, const char *level) {
  Memory *expected = new_memory(), *actual = new_memory();
  Err err;
  const LoopBuffer buffers[] = {
      {expected->x, TASKS * PART}, {expected->d, TASKS * PART}, {expected->n, PART}, {expected->results, TASKS * 2 * PART}};
  if (!loop_interpret(k, buffers, BATCH, 0, TASKS, &err)) fail_msg("%s", err.text);
  void *scratch = aligned_alloc(64, (size_t)loop_scratch(k, NULL));
  run(&(KernelArgs){(void *[]){actual->x, actual->d, actual->n, actual->results}, scratch, BATCH}, 0, TASKS);
  free(scratch);
  const char *where = difference(expected, actual);
  if (where) {
    Text text = {0};
    loop_print(k, &text);
    fputs(text.data, stderr);
    text_free(&text);
    fail_msg("%s: kernel %s differs from the interpreter in %s", level, k->name, where);
  }
  free(expected);
  free(actual);
}

static long from_environment(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text ? strtol(text, NULL, 10) : otherwise;
}

static void test_random_kernels(void **state) {
  (void)state;
  static const char *const levels[] = {"x86-64-v3", "x86-64-v4"};
  size_t count = (size_t)from_environment("EMIT_KERNELS", 60);
  uint64_t seed = (uint64_t)from_environment("EMIT_SEED", 1);
  Arena *arena = arena_new();
  LoopKernel **kernels = calloc(count + 1, sizeof *kernels);
  for (size_t i = 0; i < count; i++) kernels[i] = random_kernel(arena, seed + i);
  for (int level = 0; level < 2; level++) {
    Err err;
    EmitTarget *target = emit_target_new(levels[level], false, &err);
    if (!target) {
      print_message("not run: %s\n", err.text);
      continue;
    }
    EmitCode *code = emit_compile(target, (const LoopKernel *const *)kernels, count, 2, NULL, NULL, &err);
    if (!code) fail_msg("%s", err.text);
    for (size_t i = 0; i < count; i++) check(kernels[i], emit_code_function(code, i), levels[level]);
    emit_code_free(code);
    emit_target_free(target);
  }
  for (size_t i = 0; i < count; i++) loop_free_tables(kernels[i]);
  free(kernels);
  arena_free(arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_kernels)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
