/* Memory of the interpreter: loads, stores, tiles, copies and mma. Every access of a lane that runs is checked against its
 * array: bounds, alignment where it is wide, and that no two lanes of one instruction write the same element. */
#include "kernels/loop_machine.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- elements ---- */

static inline void load_element(LoopElement element, Cell from, int64_t index, Cell to, int64_t lane) {
  switch (element) {
  case LOOP_ELEMENT_F32: to.singles[lane] = from.singles[index]; break;
  case LOOP_ELEMENT_F64: to.doubles[lane] = from.doubles[index]; break;
  case LOOP_ELEMENT_BF16: to.singles[lane] = loop_from_bf16(from.halves[index]); break;
  case LOOP_ELEMENT_I32: to.integers[lane] = from.words[index]; break;
  case LOOP_ELEMENT_U8: to.integers[lane] = (unsigned char)from.bytes[index]; break;
  }
}

static inline void store_element(LoopElement element, Cell to, int64_t index, Cell from, int64_t lane) {
  switch (element) {
  case LOOP_ELEMENT_F32: to.singles[index] = from.singles[lane]; break;
  case LOOP_ELEMENT_F64: to.doubles[index] = from.doubles[lane]; break;
  case LOOP_ELEMENT_BF16: to.halves[index] = loop_to_bf16(from.singles[lane]); break;
  case LOOP_ELEMENT_I32: /* only read */
  case LOOP_ELEMENT_U8: break;
  }
}

static inline void fill_element(LoopType type, Cell to, int64_t lane, double fill) {
  if (type == LOOP_F32)
    to.singles[lane] = (float)fill;
  else if (type == LOOP_F64)
    to.doubles[lane] = fill;
  else
    to.integers[lane] = (int64_t)fill;
}

static LoopElement element_of(const LoopMachine *m, int32_t array) {
  return m->k->arrays.data[array].element;
}

/* ---- checks ---- */

static bool fits(const LoopMachine *m, int32_t array, int64_t index, int64_t count) {
  int64_t size = m->count[array];
  return index >= 0 && index < size && count <= size - index;
}

/* Elements [index, index + count) of the array lie in it; none are asked for where count is 0. */
static bool inside(const LoopMachine *m, int32_t array, int64_t index, int64_t count) {
  if (count == 0 || fits(m, array, index, count)) return true;
  const char *name = m->k->arrays.data[array].name;
  int64_t size = m->count[array];
  if (count == 1) return loop_machine_fail(m, "%s[%" PRId64 "], which has %" PRId64 " elements", name, index, size);
  return loop_machine_fail(m, "%s[%" PRId64 "] and %" PRId64 " more, which has %" PRId64 " elements", name, index, count - 1,
                           size);
}

/* The same of one lane's access, which is one of `count` elements at a multiple of `count`. */
static bool lane_inside(const LoopMachine *m, int32_t array, int64_t index, int64_t count, int lane) {
  const char *name = m->k->arrays.data[array].name;
  if (!fits(m, array, index, count)) {
    char more[40] = "";
    if (count > 1) snprintf(more, sizeof more, " and %" PRId64 " more", count - 1);
    return loop_machine_fail(m, "%s[%" PRId64 "]%s of lane %d, which has %" PRId64 " elements", name, index, more, lane,
                             m->count[array]);
  }
  return index % count == 0 ||
         loop_machine_fail(m, "%s[%" PRId64 "] of lane %d, no multiple of %" PRId64, name, index, lane, count);
}

static bool lane_count(const LoopMachine *m, const LoopInstr *instr, int operand, int64_t *count) {
  *count = loop_machine_integer(m, instr, operand);
  return (*count >= 0 && *count <= m->k->lanes) ||
         loop_machine_fail(m, "a count of %" PRId64 " where there are %d lanes", *count, m->k->lanes);
}

/* What lanes of one instruction write: `count` indices in `m->targets`, most often ascending. */
typedef struct Targets {
  int count;
  bool ascending;
} Targets;

static void add_target(const LoopMachine *m, Targets *targets, int64_t index) {
  if (targets->count > 0 && index <= m->targets[targets->count - 1]) targets->ascending = false;
  m->targets[targets->count++] = index;
}

static bool targets_differ(const LoopMachine *m, const LoopInstr *instr, const Targets *targets) {
  if (targets->ascending) return true;
  size_t slots = 2 * (size_t)m->k->lanes; /* a power of two */
  memset(m->slots, 0xff, slots * sizeof *m->slots);
  for (int i = 0; i < targets->count; i++) {
    uint64_t hash = (uint64_t)m->targets[i] * UINT64_C(0x9e3779b97f4a7c15) >> 32;
    size_t slot = hash & (slots - 1);
    for (; m->slots[slot] >= 0; slot = (slot + 1) & (slots - 1))
      if (m->slots[slot] == m->targets[i])
        return loop_machine_fail(m, "two lanes write %s[%" PRId64 "]", m->k->arrays.data[instr->array].name, m->targets[i]);
    m->slots[slot] = m->targets[i];
  }
  return true;
}

/* ---- consecutive elements ---- */

static bool run_load(const LoopMachine *m, const LoopInstr *instr) {
  int64_t index = loop_machine_integer(m, instr, 0), count = 1;
  LoopElement element = element_of(m, instr->array);
  Cell to = m->value[m->at], from = m->array[instr->array];
  if (instr->op != LOOP_LOAD_LANES) {
    if (!inside(m, instr->array, index, 1)) return false;
    load_element(element, from, index, to, 0);
    return true;
  }
  if (!lane_count(m, instr, 1, &count)) return false;
  if (!m->mask && !inside(m, instr->array, index, count)) return false;
  for (int i = 0; i < m->k->lanes; i++) {
    if (!loop_machine_runs(m, i)) continue;
    if (i >= count) {
      fill_element(instr->type, to, i, instr->number);
      continue;
    }
    int64_t at;
    if (m->mask && __builtin_add_overflow(index, i, &at)) at = -1;
    if (m->mask && !inside(m, instr->array, at, 1)) return false;
    load_element(element, from, index + i, to, i);
  }
  return true;
}

static bool run_store(const LoopMachine *m, const LoopInstr *instr) {
  int64_t index = loop_machine_integer(m, instr, 0), count = 1;
  LoopElement element = element_of(m, instr->array);
  Cell from = loop_machine_cell(m, instr, 1), to = m->array[instr->array];
  int stride = loop_machine_stride(m, instr, 1);
  if (instr->op == LOOP_STORE_LANES && !lane_count(m, instr, 2, &count)) return false;
  if (!inside(m, instr->array, index, count)) return false;
  for (int i = 0; i < count; i++) store_element(element, to, index + i, from, i * stride);
  return true;
}

/* ---- an index a lane ---- */

static bool run_gather(const LoopMachine *m, const LoopInstr *instr) {
  const int64_t *index = loop_machine_cell(m, instr, 0).integers;
  const bool *where = loop_machine_cell(m, instr, 1).bits;
  int s = loop_machine_stride(m, instr, 0), t = loop_machine_stride(m, instr, 1);
  LoopElement element = element_of(m, instr->array);
  Cell to = m->value[m->at], from = m->array[instr->array];
  for (int i = 0; i < m->k->lanes; i++) {
    if (!loop_machine_runs(m, i)) continue;
    if (!where[i * t]) {
      fill_element(instr->type, to, i, instr->number);
      continue;
    }
    if (!lane_inside(m, instr->array, index[i * s], 1, i)) return false;
    load_element(element, from, index[i * s], to, i);
  }
  return true;
}

static bool run_scatter(const LoopMachine *m, const LoopInstr *instr) {
  const int64_t *index = loop_machine_cell(m, instr, 0).integers;
  const bool *where = loop_machine_cell(m, instr, 2).bits;
  Cell from = loop_machine_cell(m, instr, 1), to = m->array[instr->array];
  int s = loop_machine_stride(m, instr, 0), t = loop_machine_stride(m, instr, 1), u = loop_machine_stride(m, instr, 2);
  LoopElement element = element_of(m, instr->array);
  Targets targets = {0, true};
  for (int i = 0; i < m->k->lanes; i++) {
    if (!loop_machine_runs(m, i) || !where[i * u]) continue;
    if (!lane_inside(m, instr->array, index[i * s], 1, i)) return false;
    store_element(element, to, index[i * s], from, i * t);
    add_target(m, &targets, index[i * s]);
  }
  return targets_differ(m, instr, &targets);
}

/* gather_tile and scatter_tile: element e of a lane's access is its tile's element at + e. */
static bool run_wide(const LoopMachine *m, const LoopInstr *instr) {
  const int64_t *index = loop_machine_cell(m, instr, 0).integers;
  const bool *where = loop_machine_cell(m, instr, 1).bits;
  int s = loop_machine_stride(m, instr, 0), t = loop_machine_stride(m, instr, 1);
  int64_t at = loop_machine_integer(m, instr, 2), width = instr->integer, lanes = m->k->lanes;
  bool gather = instr->op == LOOP_GATHER_TILE;
  LoopElement element = element_of(m, instr->array);
  LoopType type = loop_element_type(element);
  Cell tile = m->array[instr->tile], memory = m->array[instr->array];
  Targets targets = {0, true};
  for (int i = 0; i < lanes; i++) {
    if (!loop_machine_runs(m, i)) continue;
    if (!where[i * t]) {
      for (int64_t e = 0; gather && e < width; e++) fill_element(type, tile, (at + e) * lanes + i, instr->number);
      continue;
    }
    if (!lane_inside(m, instr->array, index[i * s], width, i)) return false;
    for (int64_t e = 0; e < width; e++) {
      if (gather)
        load_element(element, memory, index[i * s] + e, tile, (at + e) * lanes + i);
      else
        store_element(element, memory, index[i * s] + e, tile, (at + e) * lanes + i);
    }
    if (!gather) add_target(m, &targets, index[i * s]);
  }
  return targets_differ(m, instr, &targets);
}

/* ---- copies: the target is not-a-number until a wait ---- */

enum { MAX_COPIES = 1 << 20 }; /* far more than a shared array of a GPU holds */

static bool run_async_copy(LoopMachine *m, const LoopInstr *instr) {
  const int64_t *to = loop_machine_cell(m, instr, 0).integers, *from = loop_machine_cell(m, instr, 1).integers;
  const bool *where = loop_machine_cell(m, instr, 2).bits;
  int s = loop_machine_stride(m, instr, 0), t = loop_machine_stride(m, instr, 1), u = loop_machine_stride(m, instr, 2);
  int64_t count = instr->integer, bytes = LOOP_ASYNC_BYTES / count;
  Targets targets = {0, true};
  for (int i = 0; i < m->k->lanes; i++) {
    if (!loop_machine_runs(m, i)) continue;
    LoopCopy copy = {.array = instr->array, .index = to[i * s]};
    if (!lane_inside(m, instr->array, copy.index, count, i)) return false;
    if (where[i * u]) {
      if (!lane_inside(m, instr->other, from[i * t], count, i)) return false;
      memcpy(copy.data, m->array[instr->other].bytes + from[i * t] * bytes, sizeof copy.data);
    }
    if (m->copies.count == MAX_COPIES) return loop_machine_fail(m, "more than %d copies with no wait", MAX_COPIES);
    memset(m->array[instr->array].bytes + copy.index * bytes, 0xff, sizeof copy.data);
    vector_push(&m->copies, copy);
    add_target(m, &targets, copy.index);
  }
  return targets_differ(m, instr, &targets);
}

void loop_machine_wait(LoopMachine *m) {
  for (size_t i = 0; i < m->copies.count; i++) {
    const LoopCopy *copy = &m->copies.data[i];
    int64_t bytes = loop_element_bytes(element_of(m, copy->array));
    memcpy(m->array[copy->array].bytes + copy->index * bytes, copy->data, sizeof copy->data);
  }
  m->copies.count = 0;
}

/* ---- tiles ---- */

static bool run_tile(const LoopMachine *m, const LoopInstr *instr) {
  const LoopArray *tile = &m->k->arrays.data[instr->array];
  int64_t lanes = tile->varying ? m->k->lanes : 1, at = loop_machine_integer(m, instr, 0) * lanes;
  size_t bytes = (size_t)loop_element_bytes(tile->element);
  if (!inside(m, instr->array, at, lanes)) return false; /* the verifier saw to it, where the instruction is reached */
  char *element = m->array[instr->array].bytes + at * (int64_t)bytes;
  if (instr->op == LOOP_GET) {
    memcpy(m->value[m->at].bytes, element, (size_t)lanes * bytes);
    return true;
  }
  const char *value = loop_machine_cell(m, instr, 1).bytes;
  int stride = loop_machine_stride(m, instr, 1);
  bool masked = m->mask && tile->varying;
  if (!masked && (stride || lanes == 1)) return memcpy(element, value, (size_t)lanes * bytes), true;
  for (int i = 0; i < lanes; i++)
    if (!masked || m->mask[i])
      store_element(tile->element, m->array[instr->array], at + i, loop_machine_cell(m, instr, 1), i * stride);
  return true;
}

/* ---- mma ---- */

static double factor(const LoopMachine *m, int32_t array, int64_t index) {
  if (element_of(m, array) == LOOP_ELEMENT_BF16) return (double)loop_from_bf16(m->array[array].halves[index]);
  float value = m->array[array].singles[index];
  uint32_t bits;
  if (!isfinite(value)) return (double)value;
  memcpy(&bits, &value, sizeof bits);
  bits = (bits + 0x1000) & ~UINT32_C(0x1fff); /* 13 bits of fraction less */
  memcpy(&value, &bits, sizeof value);
  return (double)value;
}

/* The index that all lanes of the warp give for a factor of so many rows, in `*index`. */
static bool warp_index(const LoopMachine *m, const LoopInstr *instr, int operand, int warp, int64_t *index) {
  const int64_t *lane = loop_machine_cell(m, instr, operand).integers;
  int stride = loop_machine_stride(m, instr, operand);
  *index = lane[warp * stride];
  for (int i = 1; i < LOOP_WARP; i++)
    if (lane[(warp + i) * stride] != *index)
      return loop_machine_fail(m, "lanes %d and %d of a warp give the indices %" PRId64 " and %" PRId64, warp, warp + i, *index,
                               lane[(warp + i) * stride]);
  return *index % 2 == 0 || loop_machine_fail(m, "an odd index, %" PRId64, *index);
}

/* Copies a factor of rows x depth out of its array, rounded. */
static bool take_factor(const LoopMachine *m, int32_t array, int64_t index, int64_t stride, int rows, int depth, double *to) {
  if (!inside(m, array, index, (rows - 1) * stride + depth)) return false;
  for (int row = 0; row < rows; row++)
    for (int i = 0; i < depth; i++) *to++ = factor(m, array, index + row * stride + i);
  return true;
}

static bool run_mma(const LoopMachine *m, const LoopInstr *instr) {
  int depth = element_of(m, instr->array) == LOOP_ELEMENT_BF16 ? 16 : 8, lanes = m->k->lanes;
  int64_t at = loop_machine_integer(m, instr, 2);
  double a[16 * 16], b[8 * 16];
  for (int warp = 0; warp < lanes; warp += LOOP_WARP) {
    int64_t first = 0, second = 0;
    if (!warp_index(m, instr, 0, warp, &first) || !warp_index(m, instr, 1, warp, &second)) return false;
    if (!take_factor(m, instr->array, first, instr->stride, 16, depth, a)) return false;
    if (!take_factor(m, instr->other, second, instr->other_stride, 8, depth, b)) return false;
    for (int r = 0; r < LOOP_MMA_TILE; r++)
      for (int lane = 0; lane < LOOP_WARP; lane++) {
        const double *row = a + (lane / 4 + 8 * (r / 2)) * depth, *column = b + (2 * (lane % 4) + r % 2) * depth;
        float *to = m->array[instr->tile].singles + (at + r) * lanes + warp + lane;
        double sum = (double)*to;
        for (int i = 0; i < depth; i++) sum += row[i] * column[i];
        *to = (float)sum;
      }
  }
  return true;
}

bool loop_machine_memory(LoopMachine *m, const LoopInstr *instr) {
  switch (instr->op) {
  case LOOP_LOAD:
  case LOOP_LOAD_INT:
  case LOOP_LOAD_LANES: return run_load(m, instr);
  case LOOP_STORE:
  case LOOP_STORE_LANES: return run_store(m, instr);
  case LOOP_GATHER: return run_gather(m, instr);
  case LOOP_SCATTER: return run_scatter(m, instr);
  case LOOP_GATHER_TILE:
  case LOOP_SCATTER_TILE: return run_wide(m, instr);
  case LOOP_ASYNC_COPY: return run_async_copy(m, instr);
  case LOOP_MMA: return run_mma(m, instr);
  case LOOP_GET:
  case LOOP_SET: return run_tile(m, instr);
  default: return true; /* prefetch */
  }
}
