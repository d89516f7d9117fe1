/* Vectors, scalars and the remaining reductions become launches of one task each. */
#include "compiler/pass/schedule_private.h"

#include <string.h>

static const struct {
  OpCode op;
  Family family;
} families[] = {
    {OP_SOFTMAX, FAMILY_SOFTMAX},
    {OP_SOFTMAX_GRAD, FAMILY_SOFTMAX_GRAD},
    {OP_ELEMENT, FAMILY_ELEMENT},
    {OP_STACK, FAMILY_STACK},
    {OP_LINEAR, FAMILY_LINEAR},
    {OP_LINEAR_GRAD_INPUT, FAMILY_LINEAR_GRAD_INPUT},
    {OP_LINEAR_GRAD_WEIGHT, FAMILY_LINEAR_GRAD_WEIGHT},
    {OP_BATCH_SUM, FAMILY_BATCH_SUM},
    {OP_CROSS_ENTROPY, FAMILY_CROSS_ENTROPY},
    {OP_CROSS_ENTROPY_GRAD, FAMILY_CROSS_ENTROPY_GRAD},
    {OP_CORRECT, FAMILY_CORRECT},
    {OP_BATCH_MEAN, FAMILY_BATCH_MEAN},
    {OP_BATCH_MEAN_GRAD, FAMILY_BATCH_MEAN_GRAD},
    {OP_SUM_SQUARES, FAMILY_SUM_SQUARES},
    {OP_DOT, FAMILY_DOT},
    {OP_SQRT, FAMILY_SQRT},
    {OP_CLIP, FAMILY_CLIP},
    {OP_ADAM_STEP, FAMILY_ADAM_STEP},
    {OP_CONST, FAMILY_FILL},
};

/* A linear layer's sides, from whichever of its tensors the operation has: x or dx (.., inner), y or dy (.., rows). */
static void linear_sides(const Scheduler *s, const GraphNode *node, VectorSpec *spec) {
  Type weight = node->op == OP_LINEAR_GRAD_WEIGHT ? node->type : graph_type(s->graph, node->operands[1]);
  spec->rows = weight.dims[0];
  spec->inner = weight.dims[1];
  spec->batched = graph_type(s->graph, node->operands[0]).batched;
}

/* A block's share of a layer, and of a convolution's statistics. */
enum { GPU_CHUNK_ROWS = 512, GPU_CHUNK_WEIGHTS = 8192, GPU_CHUNK_CHANNELS = 32 };

int32_t schedule_chunk(const Scheduler *s, Family family, const VectorSpec *spec) {
  if (!s->kernels->target.gpu) return 0;
  switch (family) {
  case FAMILY_LINEAR: return spec->rows > GPU_CHUNK_ROWS ? GPU_CHUNK_ROWS : 0;
  case FAMILY_LINEAR_GRAD_INPUT:
  case FAMILY_LINEAR_GRAD_WEIGHT:
  case FAMILY_OUTER_DESCEND: {
    int32_t rows = spec->rows < 1 ? 1 : spec->rows;
    int32_t chunk = rows < GPU_CHUNK_WEIGHTS ? GPU_CHUNK_WEIGHTS / rows : 1;
    return chunk < spec->inner ? chunk : 0;
  }
  default: return 0;
  }
}

static VectorSpec vector_spec(const Scheduler *s, const GraphNode *node) {
  VectorSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.value = node->attributes->value;
  switch (node->op) {
  case OP_LINEAR:
  case OP_LINEAR_GRAD_INPUT:
  case OP_LINEAR_GRAD_WEIGHT: linear_sides(s, node, &spec); break;
  case OP_CONST:
    spec.rows = (int32_t)type_elements(node->type, 1);
    spec.batched = node->type.batched;
    break;
  case OP_CROSS_ENTROPY_GRAD: spec.rows = node->type.dims[0]; break;
  case OP_BATCH_MEAN:
  case OP_BATCH_MEAN_GRAD:
  case OP_SQRT:
  case OP_CLIP: break;
  default: spec.rows = (int32_t)type_elements(graph_type(s->graph, node->operands[0]), 1);
  }
  if (node->op == OP_ELEMENT) {
    spec.index = node->attributes->index;
    spec.rows = 0;
  }
  if (node->op == OP_STACK) {
    spec.count = node->operand_count;
    spec.rows = 0;
  }
  if (node->op != OP_CONST && node->op != OP_CLIP && node->op != OP_ADAM_STEP) spec.value = 0;
  return spec;
}

void schedule_finish_moments(Scheduler *s, ValueId moments, Place partial, Ready ready, Split split) {
  MomentsSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.images = split.images;
  spec.bands = split.bands;
  ValueId x = graph_node(s->graph, moments)->operands[0];
  Type type = graph_type(s->graph, x);
  spec.in.channels = spec.in.stride = type.dims[0];
  spec.in.height = type.dims[1];
  spec.in.width = type.dims[2];
  spec.chunk = s->kernels->target.gpu && spec.in.channels > GPU_CHUNK_CHANNELS ? GPU_CHUNK_CHANNELS : 0;
  Call call = {0};
  call_place(&call, partial, ready);
  call_place(&call, schedule_place(s, moments), READY_AT_ONCE);
  int32_t tasks = schedule_chunks(spec.in.channels, spec.chunk);
  schedule_written(s, moments, call_launch(s, &call, FAMILY_MOMENTS_FINISH, &spec, 0, tasks, 0));
}

static void schedule_pixels(Scheduler *s, ValueId v, bool moments) {
  const GraphNode *node = graph_node(s->graph, v);
  ValueId x = node->operands[0];
  MomentsSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.in = schedule_plane(s, x, s->place[x]);
  Split split = schedule_split(s, (int64_t)spec.in.height * spec.in.width);
  spec.images = split.images;
  spec.bands = split.bands;
  Call call = {0};
  call_read(s, &call, x);
  if (!moments) {
    call_place(&call, schedule_place(s, v), READY_AT_ONCE);
    schedule_written(s, v, call_launch(s, &call, FAMILY_GLOBAL_MEAN, &spec, split.images, split.bands, 0));
    return;
  }
  Place partial = schedule_storage(s, LOOP_ELEMENT_F32, 3 * (int64_t)spec.in.channels * schedule_tasks(s, split));
  call_place(&call, partial, READY_AT_ONCE);
  Ready ready = call_launch(s, &call, FAMILY_MOMENTS, &spec, split.images, split.bands, 0);
  schedule_finish_moments(s, v, partial, ready, split);
}

/* A row of a matrix is one slot, whose elements are added up. */
static void schedule_row_sum(Scheduler *s, ValueId v) {
  const GraphNode *node = graph_node(s->graph, v);
  ValueId x = node->operands[0];
  SlotsSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.slots = 1;
  spec.elements = spec.chunk = graph_type(s->graph, x).dims[1];
  spec.total = true;
  Place row = s->place[x];
  row.offset += node->attributes->index * spec.elements;
  Call call = {0};
  call_place(&call, row, s->ready[x]);
  call_place(&call, schedule_place(s, v), READY_AT_ONCE);
  schedule_written(s, v, call_launch(s, &call, FAMILY_SUM_SLOTS, &spec, 0, 1, 0));
}

Ready schedule_layer(Scheduler *s, Call *call, ValueId v, Place to, int32_t images) {
  const GraphNode *node = graph_node(s->graph, v);
  VectorSpec spec = vector_spec(s, node);
  for (int32_t o = 0; o < node->operand_count; o++) call_read(s, call, node->operands[o]);
  call_place(call, to, READY_AT_ONCE);
  return call_launch(s, call, FAMILY_LINEAR, &spec, images, 1, 0);
}

void schedule_vector(Scheduler *s, ValueId v) {
  const GraphNode *node = graph_node(s->graph, v);
  if (node->op == OP_ROW_SUM) {
    schedule_row_sum(s, v);
    return;
  }
  if (node->op == OP_BN_MOMENTS || node->op == OP_GLOBAL_AVG_POOL) {
    schedule_pixels(s, v, node->op == OP_BN_MOMENTS);
    return;
  }
  for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
    if (families[i].op != node->op) continue;
    VectorSpec spec = vector_spec(s, node);
    bool linear = node->op == OP_LINEAR || node->op == OP_LINEAR_GRAD_INPUT || node->op == OP_LINEAR_GRAD_WEIGHT;
    double flops = linear ? 2.0 * spec.rows * spec.inner * (spec.batched ? (double)s->batch : 1) : 0;
    if (linear && schedule_linear_product(s, v, flops)) return;
    Call call = {0};
    for (int32_t o = 0; o < node->operand_count; o++) call_read(s, &call, node->operands[o]);
    call_place(&call, schedule_place(s, v), READY_AT_ONCE);
    spec.chunk = schedule_chunk(s, families[i].family, &spec);
    int32_t tasks = schedule_chunks(node->op == OP_LINEAR ? spec.rows : spec.inner, spec.chunk);
    schedule_written(s, v, call_launch(s, &call, families[i].family, &spec, 0, tasks, flops));
    return;
  }
  die("no kernel family for %s", op_table[node->op].text);
}
