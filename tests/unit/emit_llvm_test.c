/* Machine code against the Loop IR's interpreter, bit for bit, on both levels of x86-64 (one that this machine cannot run is
 * left out with a notice): every operation on every type, uniform and varying, with numbers that are not ordinary, masks,
 * control, tiles, shared arrays, and exp and log to 1e-14. A kernel that walks the table of operations fails when one is new and
 * is not tested here. */
#include "compiler/emit/emit.h"
#include "kernels/loop.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const levels[] = {"x86-64-v3", "x86-64-v4"};
enum { LEVELS = 2, MAX_BUFFERS = 4 };

/* Null, with a notice, where this machine cannot run the level. */
static EmitTarget *target_of(int level) {
  Err err;
  EmitTarget *target = emit_target_new(levels[level], false, &err);
  if (!target) print_message("not run: %s\n", err.text);
  return target;
}

static size_t element_bytes(const LoopKernel *k, int buffer) {
  return k->arrays.data[buffer].element == LOOP_ELEMENT_F64 ? sizeof(double) : 4;
}

/* Equal bits, where every not-a-number equals every other. */
static bool same(LoopElement element, const void *a, const void *b) {
  if (element == LOOP_ELEMENT_F64) {
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (isnan(x) && isnan(y)) || memcmp(a, b, sizeof x) == 0;
  }
  float x, y;
  memcpy(&x, a, sizeof x);
  memcpy(&y, b, sizeof y);
  return (isnan(x) && isnan(y)) || memcmp(a, b, sizeof x) == 0;
}

static double value_at(LoopElement element, const void *data, int64_t i) {
  return element == LOOP_ELEMENT_F64   ? ((const double *)data)[i]
         : element == LOOP_ELEMENT_F32 ? (double)((const float *)data)[i]
                                       : ((const int32_t *)data)[i];
}

/* Runs machine code on copies of the buffers; scratch begins as not-a-number, and what lies behind it stays as it is. */
static void run_code(const LoopKernel *k, KernelFunction *run, void **data, int64_t batch, int64_t task0, int64_t task1) {
  size_t bytes = (size_t)loop_scratch(k, NULL);
  char *scratch = aligned_alloc(64, bytes + 64);
  memset(scratch, 0xff, bytes + 64);
  run(&(KernelArgs){data, scratch, batch}, task0, task1);
  for (size_t i = bytes; i < bytes + 64; i++) assert_int_equal((unsigned char)scratch[i], 0xff);
  free(scratch);
}

static void compare_on(int level, const LoopKernel *k, const LoopBuffer *buffers, int64_t batch, int64_t task0, int64_t task1) {
  EmitTarget *target = target_of(level);
  if (!target) return;
  Err err;
  EmitCode *code = emit_compile(target, &k, 1, 1, NULL, NULL, &err);
  if (!code) fail_msg("%s", err.text);
  LoopBuffer expected[MAX_BUFFERS];
  void *actual[MAX_BUFFERS];
  for (int i = 0; i < k->buffer_count; i++) {
    size_t bytes = (size_t)buffers[i].count * element_bytes(k, i);
    expected[i] = (LoopBuffer){malloc(bytes + 1), buffers[i].count};
    actual[i] = malloc(bytes + 1);
    memcpy(expected[i].data, buffers[i].data, bytes);
    memcpy(actual[i], buffers[i].data, bytes);
  }
  if (!loop_interpret(k, expected, batch, task0, task1, &err)) fail_msg("%s", err.text);
  run_code(k, emit_code_function(code, 0), actual, batch, task0, task1);
  for (int i = 0; i < k->buffer_count; i++) {
    LoopElement element = k->arrays.data[i].element;
    for (int64_t j = 0; j < buffers[i].count; j++) {
      size_t at = (size_t)j * element_bytes(k, i);
      if (!same(element, (char *)expected[i].data + at, (char *)actual[i] + at))
        fail_msg("%s, kernel %s, %s[%lld]: the interpreter has %a, machine code %a", levels[level], k->name,
                 k->arrays.data[i].name, (long long)j, value_at(element, expected[i].data, j), value_at(element, actual[i], j));
    }
    free(expected[i].data);
    free(actual[i]);
  }
  emit_code_free(code);
  emit_target_free(target);
}

static void compare(const LoopKernel *k, const LoopBuffer *buffers, int64_t batch, int64_t task0, int64_t task1) {
  for (int level = 0; level < LEVELS; level++) compare_on(level, k, buffers, batch, task0, task1);
}

static void compare_text(const char *text, const LoopBuffer *buffers, int64_t batch, int64_t task0, int64_t task1) {
  Arena *arena = arena_new();
  Err err;
  LoopKernel *k = loop_parse(text, strlen(text), arena, &err);
  if (!k) fail_msg("%s", err.text);
  compare(k, buffers, batch, task0, task1);
  loop_free_tables(k);
  arena_free(arena);
}

/* ---- every operation ---- */

enum { INPUTS = 96, OUTPUTS = 8192, MOST_LANES = 32 };

typedef struct Data {
  float f[INPUTS];
  double d[INPUTS];
  int32_t n[INPUTS];
} Data;

static uint32_t next_random(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 8;
}

static void fill(Data *data) {
  static const double special[] = {0.0,       -0.0, 1.0,      -1.0,    (double)INFINITY, -(double)INFINITY, (double)NAN, 0x1p-140,
                                   -0x1p-149, 3e38, 0x1p-126, -0x1p24, 16777217,         0x1.000001p0,      1.0 / 3};
  uint32_t state = 7;
  for (int i = 0; i < INPUTS; i++) {
    double x = ((double)next_random(&state) / 0x1p23 - 1) * (i % 3 ? 4 : 1e6);
    if (i % 4 == 1) x = special[next_random(&state) % (sizeof special / sizeof *special)];
    data->f[i] = (float)x;
    data->d[i] = i % 8 == 1 ? (double)(float)x : x;
    data->n[i] = (int32_t)(next_random(&state) % 2001) - 1000;
  }
}

/* A kernel that is being written; each result goes to the next `lanes` elements of the output, at `at`. */
typedef struct Build {
  LoopKernel *k;
  int32_t in, out; /* of `type` */
  LoopType type;
  int32_t ints;
  int64_t at, read;
  bool seen[LOOP_OP_COUNT];
} Build;

/* A number from the inputs, each time from another place. */
static LoopValue operand(Build *b, bool varying) {
  b->read = (b->read + 7) % (INPUTS - MOST_LANES);
  LoopValue index = loop_int(b->k, b->read);
  return varying ? loop_load_lanes(b->k, b->in, index, loop_int(b->k, b->k->lanes), 0) : loop_load(b->k, b->in, index);
}

static void result(Build *b, LoopValue v) {
  LoopKernel *k = b->k;
  const LoopInstr *instr = &k->code.data[v];
  b->seen[instr->op] = true;
  LoopType type = instr->type;
  if (type == LOOP_BIT) {
    LoopValue one = b->type == LOOP_F32 ? loop_f32(k, 1) : loop_f64(k, 1);
    LoopValue two = b->type == LOOP_F32 ? loop_f32(k, 2) : loop_f64(k, 2);
    v = loop_op3(k, LOOP_SELECT, v, one, two);
  } else if (type != b->type) {
    v = loop_op1(k, b->type == LOOP_F32 ? LOOP_TO_F32 : LOOP_TO_F64, v);
    b->seen[k->code.data[v].op] = true;
  }
  LoopValue index = loop_int(k, b->at);
  if (k->code.data[v].varying)
    loop_store_lanes(k, b->out, index, v, loop_int(k, k->lanes));
  else
    loop_store(k, b->out, index, v);
  b->at += k->lanes;
  assert_true(b->at + k->lanes <= OUTPUTS);
}

/* All ways in which operands can be uniform or varying. */
static void float_operations(Build *b) {
  static const LoopOp binary[] = {LOOP_ADD, LOOP_SUB, LOOP_MUL, LOOP_DIV, LOOP_MAX, LOOP_MIN, LOOP_GT, LOOP_EQ};
  for (int way = 0; way < 8; way++) {
    LoopValue x = operand(b, way & 1), y = operand(b, way & 2), z = operand(b, way & 4);
    for (size_t i = 0; way < 4 && i < sizeof binary / sizeof *binary; i++) {
      result(b, loop_op2(b->k, binary[i], x, y));
      result(b, loop_op2(b->k, binary[i], y, x));
      result(b, loop_op2(b->k, binary[i], x, x));
    }
    result(b, loop_op3(b->k, LOOP_FMA, x, y, z));
    if (way < 2) result(b, loop_op1(b->k, LOOP_SQRT, x));
    if (way & 1) result(b, loop_op1(b->k, LOOP_LANE_SUM, x));
  }
}

static void bit_operations(Build *b) {
  for (int way = 0; way < 4; way++) {
    LoopValue x = operand(b, way & 1), y = operand(b, way & 2), u = operand(b, false), v = operand(b, false);
    LoopValue p = loop_op2(b->k, LOOP_GT, x, y), q = loop_op2(b->k, LOOP_EQ, u, u), r = loop_op2(b->k, LOOP_GT, v, u);
    result(b, loop_op2(b->k, LOOP_AND, p, q));
    result(b, loop_op2(b->k, LOOP_AND, r, p));
    result(b, loop_op2(b->k, LOOP_OR, p, r));
    result(b, loop_op2(b->k, LOOP_OR, q, r));
    result(b, loop_op1(b->k, LOOP_NOT, p));
    result(b, loop_op3(b->k, LOOP_SELECT, p, u, v));
    result(b, loop_op3(b->k, LOOP_SELECT, p, x, v));
    result(b, loop_op3(b->k, LOOP_SELECT, r, x, y));
    result(b, loop_op3(b->k, LOOP_SELECT, r, u, y));
  }
}

static void integer_operations(Build *b) {
  static const LoopOp any[] = {LOOP_IADD, LOOP_ISUB, LOOP_IMUL, LOOP_IMIN, LOOP_IMAX, LOOP_ILT, LOOP_IEQ};
  LoopKernel *k = b->k;
  LoopValue n[5];
  for (int i = 0; i < 4; i++) n[i] = loop_load_int(k, b->ints, loop_int(k, 11 * i));
  n[4] = loop_op2(k, LOOP_IADD, n[0], loop_int(k, 17)); /* an offset on a value */
  for (int i = 0; i < 5; i++)
    for (size_t op = 0; op < sizeof any / sizeof *any; op++) {
      LoopValue constant = loop_int(k, i - 2), other = n[(i + 1) % 5];
      result(b, loop_op2(k, any[op], n[i], other));
      result(b, loop_op2(k, any[op], n[i], constant));
      result(b, loop_op2(k, any[op], constant, n[i]));
      result(b, loop_op2(k, any[op], n[4], n[0]));
    }
  LoopValue zero = loop_int(k, 0), three = loop_int(k, 3), sixteen = loop_int(k, 16), less = loop_op2(k, LOOP_ILT, n[0], n[1]);
  LoopValue positive = loop_op2(k, LOOP_IMAX, n[2], zero), divisor = loop_op2(k, LOOP_IMAX, n[3], three);
  for (int op = LOOP_IDIV; op <= LOOP_IMOD; op++) {
    result(b, loop_op2(k, op, positive, divisor));
    result(b, loop_op2(k, op, positive, three));
    result(b, loop_op2(k, op, positive, sixteen));
    result(b, loop_op2(k, op, sixteen, divisor));
  }
  result(b, loop_op3(k, LOOP_SELECT, less, n[2], n[3]));
  result(b, loop_op3(k, LOOP_SELECT, loop_op2(k, LOOP_ILT, zero, three), n[4], n[3]));
  result(b, loop_op3(k, LOOP_SELECT, loop_op2(k, LOOP_IEQ, zero, three), n[4], n[3]));
  result(b, loop_int(k, -5));
  result(b, loop_task(k));
  result(b, loop_batch(k));
}

/* f32 to f64 and back. */
static void conversions(Build *b) {
  for (int varying = 0; varying < 2; varying++) {
    LoopValue x = operand(b, varying);
    result(b, loop_op1(b->k, b->type == LOOP_F32 ? LOOP_TO_F64 : LOOP_TO_F32, x));
  }
}

static void test_every_operation(void **state) {
  (void)state;
  static const int lanes[] = {1, 4, 16, 32};
  Data *data = calloc(1, sizeof *data);
  fill(data);
  void *out = calloc(OUTPUTS, sizeof(double));
  bool seen[LOOP_OP_COUNT] = {0};
  static void (*const groups[])(Build *) = {float_operations, bit_operations, conversions, integer_operations};
  for (int i = 0; i < 32; i++) {
    Arena *arena = arena_new();
    bool wide = i % 2;
    LoopElement element = wide ? LOOP_ELEMENT_F64 : LOOP_ELEMENT_F32;
    Build b = {.k = loop_new(arena, "operations", lanes[i / 8]), .type = wide ? LOOP_F64 : LOOP_F32};
    b.in = loop_buffer(b.k, "x", LOOP_IN, element);
    b.ints = loop_buffer(b.k, "n", LOOP_IN, LOOP_ELEMENT_I32);
    b.out = loop_buffer(b.k, "y", LOOP_OUT, element);
    groups[i / 2 % 4](&b);
    compare(b.k, (LoopBuffer[]){{wide ? (void *)data->d : data->f, INPUTS}, {data->n, INPUTS}, {out, OUTPUTS}}, 77, 5, 6);
    for (int op = 0; op < LOOP_OP_COUNT; op++) seen[op] |= b.seen[op];
    loop_free_tables(b.k);
    arena_free(arena);
  }
  free(out);
  free(data);
  /* The others are tested by what follows here. */
  static const LoopOp others[] = {LOOP_FLOAT,  LOOP_EXP,         LOOP_LOG,   LOOP_LOAD, LOOP_LOAD_INT, LOOP_LOAD_LANES,
                                  LOOP_STORE,  LOOP_STORE_LANES, LOOP_GET,   LOOP_SET,  LOOP_PREFETCH, LOOP_FOR,
                                  LOOP_UNROLL, LOOP_IF,          LOOP_PHASE, LOOP_END};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) seen[others[i]] = true;
  /* These need the threads of a GPU (emit_cuda_test.c). */
  static const LoopOp threads[] = {LOOP_LANE,         LOOP_GATHER,     LOOP_SCATTER, LOOP_GATHER_TILE,
                                   LOOP_SCATTER_TILE, LOOP_ASYNC_COPY, LOOP_WAIT,    LOOP_MMA};
  for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) seen[threads[i]] = true;
  for (int op = 0; op < LOOP_OP_COUNT; op++)
    if (!seen[op]) fail_msg("operation %d of the Loop IR is not tested", op);
}

/* The smaller and the larger of all pairs of zeros, not-a-number and infinities, uniform and over lanes. */
static void test_extremes(void **state) {
  (void)state;
  static const float numbers[] = {0.0f, -0.0f, NAN, INFINITY, -INFINITY, 0x1p-149f, 1, -1};
  float x[64], y[64], out[256] = {0};
  for (int i = 0; i < 64; i++) x[i] = numbers[i / 8], y[i] = numbers[i % 8];
  compare_text(
      "kernel extremes lanes 8 { buffer x f32 in buffer y f32 in buffer out f32 out\n"
      "for %0 = 0 to 64 step 8 { %1 = load_lanes x[%0] count 8 else 0.0f %2 = load_lanes y[%0] count 8 else 0.0f\n"
      "%3 = max %1, %2 store_lanes out[%0] = %3 count 8 %4 = min %1, %2 %5 = iadd %0, 64 store_lanes out[%5] = %4 count 8 }\n"
      "for %6 = 0 to 64 step 1 { %7 = load x[%6] %8 = load y[%6] %9 = max %7, %8 %10 = iadd %6, 128 store out[%10] = %9\n"
      "%11 = min %7, %8 %12 = iadd %6, 192 store out[%12] = %11 } }",
      (LoopBuffer[]){{x, 64}, {y, 64}, {out, 256}}, 1, 0, 1);
}

/* ---- masks ---- */

static void test_masks(void **state) {
  (void)state;
  float x[64], y[512];
  double d[64], e[512];
  for (int i = 0; i < 64; i++) x[i] = (float)i + 1, d[i] = i + 0.25;
  for (int lanes = 1; lanes <= 32; lanes *= 2) {
    const int counts[] = {0, 1, lanes / 2 + 1, lanes - 1, lanes};
    for (size_t c = lanes < 4 ? 3 : 0; c < sizeof counts / sizeof *counts; c++) {
      int count = counts[c];
      for (int i = 0; i < 512; i++) y[i] = -1, e[i] = -1;
      char text[2000];
      snprintf(text, sizeof text,
               "kernel masks lanes %d { buffer x f32 in buffer d f64 in buffer y f32 out buffer e f64 out %%0 = task\n"
               "%%1 = load_lanes x[3] count %%0 else -2.5f store_lanes y[0] = %%1 count %d\n"
               "%%2 = load_lanes x[5] count %d else nanf store_lanes y[40] = %%2 count %%0\n"
               "%%3 = load_lanes d[3] count %%0 else -2.5 store_lanes e[0] = %%3 count %d\n"
               "%%4 = load_lanes d[5] count %d else 3.0 store_lanes e[40] = %%4 count %%0 store_lanes y[80] = 7.0f count %%0\n"
               "%%5 = load_lanes x[3] count %d else 1.0f store_lanes y[120] = %%5 count %d\n"
               "%%6 = load_lanes d[3] count %d else 1.0 store_lanes e[120] = %%6 count %d }",
               lanes, lanes, count, lanes, count, lanes, count, lanes, count);
      compare_text(text, (LoopBuffer[]){{x, 64}, {d, 64}, {y, 512}, {e, 512}}, 1, count, count + 1);
    }
  }
}

/* No lanes at all may stand at any index, and so may a prefetch. */
static void test_no_lanes_anywhere(void **state) {
  (void)state;
  float x[2] = {1, 2}, y[8] = {0};
  compare_text(
      "kernel nowhere lanes 8 { buffer x f32 in buffer y f32 out %0 = task %1 = load_lanes x[1000000000000] count %0 else 3.0f\n"
      "store_lanes y[-1000000000000] = %1 count %0 store_lanes y[0] = %1 count 8 prefetch x[4611686018427387904]\n"
      "prefetch y[-7777777777777] write prefetch x[%0] }",
      (LoopBuffer[]){{x, 2}, {y, 8}}, 1, 0, 1);
}

/* ---- control, tiles, shared arrays ---- */

static void test_control(void **state) {
  (void)state;
  double y[96] = {0};
  int32_t n[8] = {-7, 2, 0, 3, 5, 5, 1, -2};
  compare_text(
      "kernel control lanes 1 { buffer n i32 in buffer y f64 inout %0 = batch %1 = task %2 = imul %1, 16 %3 = load_int n[%1]\n"
      "%4 = to_f64 %3 %5 = ieq %0, 5 if %5 { store y[%2] = %4 } %6 = not %5 if %6 { store y[%2] = 99.0 for %7 = 0 to 3 step 1 { "
      "} }\n"
      "%8 = iadd %2, 1 for %9 = 3 to 3 step 1 { store y[%8] = 98.0 } for %10 = 0 to %3 step 2 { %11 = load y[%8] %12 = add %11, "
      "1.0\n"
      "store y[%8] = %12 %13 = ilt %10, 3 if %13 { for %14 = %10 to 4 step 1 { %15 = iadd %2, 2 %16 = load y[%15]\n"
      "%17 = to_f64 %14 %18 = add %16, %17 store y[%15] = %18 } } } unroll %19 = 7 to 2 step 1 { store y[%8] = 97.0 }\n"
      "phase p { %20 = select %5, 4, 5 %21 = iadd %2, %20 %22 = select %6, 1.0, 2.0 store y[%21] = %22 }\n"
      "for %23 = -3 to 4 step 2 { %24 = iadd %2, 6 %25 = load y[%24] %26 = to_f64 %23 %27 = fma %25, 3.0, %26 store y[%24] = %27 "
      "}\n"
      "unroll %28 = 0 to 9 step 4 { %29 = iadd %2, 7 %30 = iadd %29, %28 %31 = ilt %28, 5 if %31 { store y[%30] = -0.5 } } }",
      (LoopBuffer[]){{n, 8}, {y, 96}}, 5, 1, 6);
}

/* Tiles set in one region and read in another, uniform ones too, through loops that run no time at all. */
static void test_tiles(void **state) {
  (void)state;
  float x[64], y[96] = {0};
  for (int i = 0; i < 64; i++) x[i] = (float)(i * i % 23) / 7;
  compare_text(
      "kernel tiles lanes 8 { buffer x f32 in buffer y f32 out tile a f32[4] lanes tile s f32[2] tile d f64[3] lanes %0 = task\n"
      "unroll %1 = 0 to 4 step 1 { set a[%1] = 0.5f } set s[0] = 1.0f set s[1] = 2.0f set d[1] = 4.0\n"
      "for %2 = 0 to %0 step 1 { %3 = imul %2, 8 %4 = load_lanes x[%3] count 8 else 0.0f unroll %5 = 0 to 4 step 1 {\n"
      "%6 = isub 3, %5 %7 = get a[%6] %8 = fma %7, %4, %4 set a[%5] = %8 }\n"
      "%9 = get s[0] %10 = get s[1] set s[1] = %9 set s[0] = %10 %11 = to_f64 %4 %12 = get d[1] %13 = mul %11, %12 set d[1] = "
      "%13 }\n"
      "%14 = imul %0, 24 unroll %15 = 0 to 2 step 1 { %16 = get a[%15] %17 = imul %15, 2 %18 = iadd %17, 1 %19 = imul %18, 0\n"
      "%20 = get s[%15] %21 = mul %16, %20 %22 = imul %15, 8 %23 = iadd %14, %22 store_lanes y[%23] = %21 count 8 }\n"
      "%24 = get d[1] %25 = to_f32 %24 %26 = iadd %14, 16 store_lanes y[%26] = %25 count 8 }",
      (LoopBuffer[]){{x, 64}, {y, 96}}, 1, 0, 4);
}

/* Two shared arrays, written and read again at other places, with a task's own data. */
static void test_shared_arrays(void **state) {
  (void)state;
  float x[256], y[256] = {0};
  for (int i = 0; i < 256; i++) x[i] = sinf((float)i);
  compare_text(
      "kernel shared lanes 4 { buffer x f32 in buffer y f32 out shared p f32[67] shared q f32[33] %0 = task %1 = imul %0, 64\n"
      "phase in { for %2 = 0 to 64 step 4 { %3 = iadd %1, %2 %4 = load_lanes x[%3] count 4 else 0.0f %5 = iadd %2, 3\n"
      "store_lanes p[%5] = %4 count 4 } store p[0] = 0.0f store p[1] = 0.5f store p[2] = -1.0f }\n"
      "phase mix { for %6 = 0 to 32 step 1 { %7 = load p[%6] %8 = imul %6, 2 %9 = load p[%8] %10 = add %7, %9\n"
      "%11 = isub 32, %6 store q[%11] = %10 %12 = load q[%11] %13 = mul %12, %10 store p[%6] = %13 } }\n"
      "phase out { for %14 = 0 to 32 step 4 { %15 = iadd %14, 1 %16 = load_lanes q[%15] count 4 else 0.0f %17 = load_lanes "
      "p[%14] count 4 else 0.0f\n"
      "%18 = sub %16, %17 %19 = iadd %1, %14 store_lanes y[%19] = %18 count 4 } } }",
      (LoopBuffer[]){{x, 256}, {y, 256}}, 1, 0, 4);
}

/* A buffer that is written and read again in one task. */
static void test_buffer_read_again(void **state) {
  (void)state;
  float y[40] = {0};
  compare_text("kernel again lanes 4 { buffer y f32 inout for %0 = 0 to 9 step 1 { %1 = load_lanes y[%0] count 4 else 0.0f %2 = "
               "add %1, 1.0f\n"
               "store_lanes y[%0] = %2 count 4 %3 = load y[%0] %4 = iadd %0, 20 store y[%4] = %3 } }",
               (LoopBuffer[]){{y, 40}}, 1, 0, 1);
}

/* ---- exp and log ---- */

static void check_function(const char *name, double (*reference)(double), const double *x, int count) {
  Arena *arena = arena_new();
  char text[200];
  snprintf(text, sizeof text,
           "kernel f lanes 1 { buffer x f64 in buffer y f64 out %%0 = task %%1 = load x[%%0] %%2 = %s %%1 store y[%%0] = %%2 }",
           name);
  Err err;
  LoopKernel *k = loop_parse(text, strlen(text), arena, &err);
  assert_non_null(k);
  double *y = calloc((size_t)count, sizeof *y), *first = NULL;
  for (int level = 0; level < LEVELS; level++) {
    EmitTarget *target = target_of(level);
    if (!target) continue;
    EmitCode *code = emit_compile(target, (const LoopKernel *const *)&k, 1, 1, NULL, NULL, &err);
    assert_non_null(code);
    run_code(k, emit_code_function(code, 0), (void *[]){(void *)x, y}, 1, 0, count);
    for (int i = 0; i < count; i++) {
      double want = reference(x[i]);
      bool normal = fabs(want) >= DBL_MIN && isfinite(want);
      bool good = isnan(want) ? isnan(y[i])
                  : !normal   ? fabs(y[i] - want) <= 0x1p-1073 || y[i] == want
                              : fabs(y[i] - want) <= 4.5e-16 * fabs(want);
      if (!good) fail_msg("%s: %s of %a is %a, not %a", levels[level], name, x[i], y[i], want);
      if (first && !(isnan(want) || memcmp(&y[i], &first[i], sizeof *y) == 0))
        fail_msg("%s of %a differs between levels", name, x[i]);
    }
    if (!first) {
      first = malloc((size_t)count * sizeof *y);
      memcpy(first, y, (size_t)count * sizeof *y);
    }
    emit_code_free(code);
    emit_target_free(target);
  }
  free(y);
  free(first);
  loop_free_tables(k);
  arena_free(arena);
}

static void test_exp(void **state) {
  (void)state;
  enum { COUNT = 40000 };
  static double x[COUNT] = {
      0.0,    -0.0, 1,      -1,     709.782712893384, 709.7827128933841,   710, 1e300, INFINITY, -INFINITY, NAN, -745.13,
      -745.2, -746, -1e308, 1e-300, -708.5,           0.34657359027997264, -720};
  uint32_t random = 3;
  for (int i = 20; i < COUNT; i++) x[i] = ((double)next_random(&random) / 0x1p23 - 1) * (i % 2 ? 3 : 750);
  check_function("exp", exp, x, COUNT);
}

static void test_log(void **state) {
  (void)state;
  enum { COUNT = 40000 };
  static double x[COUNT] = {1,
                            DBL_MIN,
                            DBL_MAX,
                            INFINITY,
                            NAN,
                            2,
                            0.5,
                            0x1.fffffffffffffp-1,
                            0x1.0000000000001p0,
                            0x1.6a09e667f3bcdp-1,
                            0x1.6a09e667f3bccp-1,
                            0x1.6a09e667f3bcdp0,
                            10};
  uint32_t random = 3;
  for (int i = 13; i < COUNT; i++) {
    double fraction = 1 + (double)next_random(&random) / 0x1p24;
    x[i] = i % 2 ? fraction - 0.5 : ldexp(fraction, (int)(next_random(&random) % 2040) - 1020);
  }
  check_function("log", log, x, COUNT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_operation),
      cmocka_unit_test(test_extremes),
      cmocka_unit_test(test_masks),
      cmocka_unit_test(test_no_lanes_anywhere),
      cmocka_unit_test(test_control),
      cmocka_unit_test(test_tiles),
      cmocka_unit_test(test_shared_arrays),
      cmocka_unit_test(test_buffer_read_again),
      cmocka_unit_test(test_exp),
      cmocka_unit_test(test_log),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
