/* Loop IR to CUDA C, instruction by instruction: the schedule has decided everything, nothing is decided here. A task is a block
 * and a lane a thread, so that a uniform value is one that all threads compute alike; a uniform store is the first thread's. The
 * text is made of the words of kernels/prelude.cu and plain C: it compiles as C11, too, where another header gives the words.
 *
 * The end of a phase is a barrier, but not where another has just been, nor at the kernel's end. `unroll` becomes a loop that
 * the compiler is told to unroll: tiles are local arrays, which are registers once all their indices are constant. Names are
 * the kernel's own, unless C or the prelude has them already. Equal Loop IR gives equal text. */
#include "compiler/emit/cuda_private.h"

#include <inttypes.h>
#include <string.h>

/* ---- what a block can be ---- */

/* Bytes of parameters, and of tiles in a thread, that every GPU takes. */
enum { MAX_PARAMETER_BYTES = 4096, MAX_TILE_BYTES = 64 << 10, ALIGNMENT = 16 };

static bool sums_of(const LoopKernel *k, LoopType type) {
  for (size_t i = 0; i < k->code.count; i++)
    if (k->code.data[i].op == LOOP_LANE_SUM && k->code.data[i].type == type) return true;
  return false;
}

static int64_t aligned(int64_t bytes) {
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

int64_t cuda_shared_bytes(const LoopKernel *k) {
  int64_t bytes = 0;
  for (size_t i = 0; i < k->arrays.count; i++) {
    const LoopArray *array = &k->arrays.data[i];
    if (array->space == LOOP_SHARED) bytes += aligned(array->count * loop_element_bytes(array->element));
  }
  if (sums_of(k, LOOP_F32)) bytes += aligned((k->lanes + 1) * (int64_t)sizeof(float));
  if (sums_of(k, LOOP_F64)) bytes += aligned((k->lanes + 1) * (int64_t)sizeof(double));
  return bytes;
}

static int64_t tile_bytes(const LoopKernel *k) {
  int64_t bytes = 0;
  for (size_t i = 0; i < k->arrays.count; i++)
    if (k->arrays.data[i].space == LOOP_TILE) bytes += k->arrays.data[i].count * loop_element_bytes(k->arrays.data[i].element);
  return bytes;
}

bool cuda_fits(const LoopKernel *k, Err *err) {
  if (k->lanes % CUDA_WARP || k->lanes > CUDA_MAX_THREADS)
    return err_set(err, "kernel %s does not fit a GPU: it has %d lanes, where whole warps of %d and at most %d are wanted",
                   k->name, k->lanes, CUDA_WARP, CUDA_MAX_THREADS);
  int64_t bytes = cuda_shared_bytes(k);
  if (bytes > CUDA_MAX_SHARED)
    return err_set(err, "kernel %s does not fit a GPU: its shared arrays and sums take %" PRId64 " bytes, more than %d", k->name,
                   bytes, CUDA_MAX_SHARED);
  bytes = k->buffer_count * (int64_t)sizeof(void *) + (int64_t)sizeof(int32_t);
  if (bytes > MAX_PARAMETER_BYTES)
    return err_set(err, "kernel %s does not fit a GPU: it has %d buffers", k->name, k->buffer_count);
  bytes = tile_bytes(k);
  if (bytes > MAX_TILE_BYTES)
    return err_set(err, "kernel %s does not fit a GPU: its tiles take %" PRId64 " bytes of a thread, more than %d", k->name,
                   bytes, MAX_TILE_BYTES);
  for (size_t i = 0; i < k->code.count; i++) {
    int64_t value = k->code.data[i].integer;
    if (k->code.data[i].op == LOOP_INTEGER && (value < INT32_MIN || value > INT32_MAX))
      return err_set(err, "kernel %s does not fit a GPU: %" PRId64 " does not fit 32 bits", k->name, value);
  }
  return true;
}

/* ---- names ---- */

/* What an array must not be called: words of C and C++, types of the prelude, variables that words use where they stand. Names
 * in capitals could be words, those that begin with `v` and a digit are values. */
static const char *const taken[] = {"alignas",
                                    "alignof",
                                    "and",
                                    "and_eq",
                                    "arguments",
                                    "asm",
                                    "auto",
                                    "batch",
                                    "bf16",
                                    "bitand",
                                    "bitor",
                                    "blockIdx",
                                    "bool",
                                    "break",
                                    "case",
                                    "catch",
                                    "char",
                                    "class",
                                    "compl",
                                    "concept",
                                    "const",
                                    "const_cast",
                                    "consteval",
                                    "constexpr",
                                    "constinit",
                                    "continue",
                                    "decltype",
                                    "default",
                                    "delete",
                                    "do",
                                    "double",
                                    "dynamic_cast",
                                    "else",
                                    "enum",
                                    "errno",
                                    "explicit",
                                    "export",
                                    "extern",
                                    "false",
                                    "fill",
                                    "float",
                                    "for",
                                    "friend",
                                    "goto",
                                    "if",
                                    "inline",
                                    "int",
                                    "linux",
                                    "log",
                                    "long",
                                    "mutable",
                                    "namespace",
                                    "new",
                                    "noexcept",
                                    "not",
                                    "not_eq",
                                    "nullptr",
                                    "operator",
                                    "or",
                                    "or_eq",
                                    "parameters",
                                    "private",
                                    "protected",
                                    "public",
                                    "register",
                                    "reinterpret_cast",
                                    "requires",
                                    "restrict",
                                    "return",
                                    "short",
                                    "signed",
                                    "sizeof",
                                    "static",
                                    "static_assert",
                                    "static_cast",
                                    "struct",
                                    "sum_space_f32",
                                    "sum_space_f64",
                                    "switch",
                                    "task",
                                    "template",
                                    "this",
                                    "threadIdx",
                                    "thread_local",
                                    "throw",
                                    "true",
                                    "try",
                                    "typedef",
                                    "typeid",
                                    "typename",
                                    "typeof",
                                    "u8",
                                    "union",
                                    "unix",
                                    "unsigned",
                                    "using",
                                    "virtual",
                                    "void",
                                    "volatile",
                                    "wchar_t",
                                    "while",
                                    "xor",
                                    "xor_eq"};

static bool name_is_free(const CudaWriter *w, size_t count, const char *name) {
  bool capitals = true;
  for (const char *at = name; *at; at++) capitals &= *at < 'a' || *at > 'z';
  if (capitals || *name == '_' || (*name == 'v' && name[1] >= '0' && name[1] <= '9')) return false;
  for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
    if (strcmp(taken[i], name) == 0) return false;
  static const char *const prefixes[] = {"emulator_", "group_", "load_", "store_", "mma_", "bf16_", "tf32_", "block_sum_"};
  for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
    if (strncmp(prefixes[i], name, strlen(prefixes[i])) == 0) return false;
  for (size_t i = 0; i < count; i++)
    if (strcmp(w->name[i], name) == 0) return false;
  return true;
}

static const char *name_of(const CudaWriter *w, size_t array) {
  const char *original = w->k->arrays.data[array].name;
  char *name = arena_copy_string(w->arena, original, strlen(original));
  for (char *at = name; *at; at++)
    if (*at == '.') *at = '_';
  const char *free_name = name;
  for (int i = 2; !name_is_free(w, array, free_name); i++) free_name = arena_printf(w->arena, "array%d_%s", i, name);
  return free_name;
}

static void set_tables(CudaWriter *w) {
  size_t count = w->k->code.count + 1, *stack = ARENA_ARRAY(w->arena, size_t, count), depth = 0;
  w->name = ARENA_ARRAY(w->arena, const char *, w->k->arrays.count + 1);
  w->number = ARENA_ARRAY(w->arena, int32_t, count);
  w->opener = ARENA_ARRAY(w->arena, size_t, count);
  for (size_t i = 0; i < w->k->arrays.count; i++) w->name[i] = name_of(w, i);
  int32_t next = 0;
  for (size_t i = 0; i < w->k->code.count; i++) {
    const LoopInstr *instr = &w->k->code.data[i];
    bool constant = instr->op == LOOP_INTEGER || instr->op == LOOP_FLOAT;
    if (instr->type != LOOP_VOID && !constant) w->number[i] = next++;
    if (instr->op == LOOP_FOR || instr->op == LOOP_UNROLL || instr->op == LOOP_IF || instr->op == LOOP_PHASE) stack[depth++] = i;
    if (instr->op == LOOP_END) w->opener[i] = stack[--depth];
  }
}

/* ---- head and foot ---- */

static void write_head(const CudaWriter *w, const char *symbol) {
  text_printf(w->out, "KERNEL(%s, %d, ", symbol, w->k->lanes);
  for (int32_t i = 0; i < w->k->buffer_count; i++) {
    const LoopArray *array = &w->k->arrays.data[i];
    text_printf(w->out, "%s(%s, %s), ", array->space == LOOP_IN ? "IN" : "OUT", cuda_element(array->element), w->name[i]);
  }
  text_add(w->out, "int batch) {\n");
}

static void write_arrays(const CudaWriter *w) {
  int64_t at = 0; /* bytes of shared memory */
  for (size_t i = (size_t)w->k->buffer_count; i < w->k->arrays.count; i++) {
    const LoopArray *array = &w->k->arrays.data[i];
    const char *element = cuda_element(array->element);
    if (array->space == LOOP_SHARED) {
      text_printf(w->out, "  SHARED(%s, %s, %lld, %lld);\n", element, w->name[i], (long long)array->count, (long long)at);
      at += aligned(array->count * loop_element_bytes(array->element));
    } else {
      text_printf(w->out, "  %s %s[%lld];\n", element, w->name[i], (long long)array->count);
    }
  }
  if (sums_of(w->k, LOOP_F32)) {
    text_printf(w->out, "  SUM_SPACE_F32(%d, %lld);\n", w->k->lanes, (long long)at);
    at += aligned((w->k->lanes + 1) * (int64_t)sizeof(float));
  }
  if (sums_of(w->k, LOOP_F64)) text_printf(w->out, "  SUM_SPACE_F64(%d, %lld);\n", w->k->lanes, (long long)at);
}

static void write_entry(const CudaWriter *w, const char *symbol) {
  text_printf(w->out, "ENTRY(%s, ", symbol);
  for (int32_t i = 0; i < w->k->buffer_count; i++) {
    const LoopArray *array = &w->k->arrays.data[i];
    text_printf(w->out, "ARG(%d, %s%s *), ", i, array->space == LOOP_IN ? "const " : "", cuda_element(array->element));
  }
  text_printf(w->out, "BATCH(%d))\n", w->k->buffer_count);
}

/* ---- regions ---- */

static bool is_constant(const LoopInstr *instr) {
  return instr->op == LOOP_INTEGER || instr->op == LOOP_FLOAT;
}

/* A phase's end needs no barrier at the end of the kernel, nor where the last thing inside it was another phase. */
static bool needs_barrier(const CudaWriter *w, size_t end) {
  const LoopInstr *code = w->k->code.data;
  size_t before = end - 1, after = end + 1; /* the phase itself stands before */
  while (is_constant(&code[before])) before--;
  while (after < w->k->code.count && is_constant(&code[after])) after++;
  bool inner = code[before].op == LOOP_END && code[w->opener[before]].op == LOOP_PHASE;
  return !inner && after < w->k->code.count;
}

static void begin_loop(const CudaWriter *w, size_t at) {
  const LoopInstr *instr = &w->k->code.data[at];
  int32_t v = w->number[at];
  cuda_line(w);
  text_printf(w->out, "%sfor (int v%d = ", instr->op == LOOP_UNROLL ? "UNROLL " : "LOOP ", v);
  cuda_value(w, instr->operand[0]);
  text_printf(w->out, "; v%d < ", v);
  cuda_value(w, instr->operand[1]);
  text_printf(w->out, "; v%d += ", v);
  cuda_value(w, instr->operand[2]);
  text_add(w->out, ") {\n");
}

static void begin_region(CudaWriter *w, size_t at) {
  const LoopInstr *instr = &w->k->code.data[at];
  if (instr->op == LOOP_PHASE) {
    cuda_line(w);
    text_printf(w->out, "{ /* %s */\n", instr->name);
  } else if (instr->op == LOOP_IF) {
    cuda_line(w);
    text_add(w->out, "if (");
    cuda_value(w, instr->operand[0]);
    text_add(w->out, ") {\n");
  } else {
    begin_loop(w, at);
  }
  w->depth++;
}

static void end_region(CudaWriter *w, size_t end) {
  w->depth--;
  cuda_line(w);
  text_add(w->out, "}\n");
  if (w->k->code.data[w->opener[end]].op != LOOP_PHASE || !needs_barrier(w, end)) return;
  cuda_line(w);
  text_add(w->out, "BARRIER();\n");
}

static void write_sum(const CudaWriter *w, size_t at) {
  const LoopInstr *instr = &w->k->code.data[at];
  cuda_declare(w, at);
  text_printf(w->out, "BLOCK_SUM_F%d(", instr->type == LOOP_F32 ? 32 : 64);
  cuda_value(w, instr->operand[0]);
  text_printf(w->out, ", %d);\n", w->k->lanes);
}

static void write_instr(CudaWriter *w, size_t at) {
  const LoopInstr *instr = &w->k->code.data[at];
  if (is_constant(instr)) return;
  if (instr->array >= 0) {
    cuda_access(w, at);
    return;
  }
  switch (instr->op) {
  case LOOP_FOR:
  case LOOP_UNROLL:
  case LOOP_IF:
  case LOOP_PHASE: begin_region(w, at); break;
  case LOOP_END: end_region(w, at); break;
  case LOOP_LANE_SUM: write_sum(w, at); break;
  case LOOP_WAIT:
    cuda_line(w);
    text_add(w->out, "WAIT();\n");
    break;
  default:
    cuda_declare(w, at);
    cuda_arithmetic(w, instr);
    text_add(w->out, ";\n");
  }
}

void cuda_text(const LoopKernel *k, const char *symbol, Text *out) {
  CudaWriter w = {.k = k, .out = out, .arena = arena_new(), .depth = 1};
  set_tables(&w);
  write_head(&w, symbol);
  write_arrays(&w);
  for (size_t i = 0; i < k->code.count; i++) write_instr(&w, i);
  text_add(out, "}\n");
  write_entry(&w, symbol);
  arena_free(w.arena);
}

void cuda_group_text(const LoopKernel *const *kernels, const char *const *symbols, size_t count, const char *symbol, Text *out) {
  for (size_t i = 0; i < count; i++) text_printf(out, "BODY(%s)\n", symbols[i]);
  text_printf(out, "GROUP(%s, %d,", symbol, cuda_group_threads(kernels, count));
  for (size_t i = 0; i < count; i++) text_printf(out, " RUNS(%zu, %s, %d)", i, symbols[i], kernels[i]->lanes);
  text_add(out, ")\n");
}

int32_t cuda_group_threads(const LoopKernel *const *kernels, size_t count) {
  int32_t threads = CUDA_WARP;
  for (size_t i = 0; i < count; i++)
    if (kernels[i]->lanes > threads) threads = kernels[i]->lanes;
  return threads;
}
