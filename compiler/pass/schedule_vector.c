/* Vectors, scalars and the remaining reductions become launches of one task each. */
#include "compiler/pass/schedule_private.h"

typedef LoopKernel *VectorFamily(const VectorSpec *spec, Arena *arena);

static const struct {
  OpCode op;
  VectorFamily *family;
} families[] = {
    {OP_SOFTMAX, family_softmax},
    {OP_SOFTMAX_GRAD, family_softmax_grad},
    {OP_ELEMENT, family_element},
    {OP_STACK, family_stack},
    {OP_LINEAR, family_linear},
    {OP_LINEAR_GRAD_INPUT, family_linear_grad_input},
    {OP_LINEAR_GRAD_WEIGHT, family_linear_grad_weight},
    {OP_BATCH_SUM, family_batch_sum},
    {OP_CROSS_ENTROPY, family_cross_entropy},
    {OP_CROSS_ENTROPY_GRAD, family_cross_entropy_grad},
    {OP_CORRECT, family_correct},
    {OP_BATCH_MEAN, family_batch_mean},
    {OP_BATCH_MEAN_GRAD, family_batch_mean_grad},
    {OP_SUM_SQUARES, family_sum_squares},
    {OP_DOT, family_dot},
    {OP_SQRT, family_sqrt},
    {OP_CLIP, family_clip},
    {OP_ADAM_STEP, family_adam_step},
    {OP_CONST, family_fill},
};

/* A linear layer's sides, from whichever of its tensors the operation has: x or dx (.., inner), y or dy (.., rows). */
static void linear_sides(const Scheduler *s, const GraphNode *node, VectorSpec *spec) {
  Type weight = node->op == OP_LINEAR_GRAD_WEIGHT ? node->type : graph_type(s->graph, node->operands[1]);
  spec->rows = weight.dims[0];
  spec->inner = weight.dims[1];
  spec->batched = graph_type(s->graph, node->operands[0]).batched;
}

static VectorSpec vector_spec(const Scheduler *s, const GraphNode *node) {
  VectorSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.lanes = s->kernels->lanes;
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

static void schedule_pixels(Scheduler *s, ValueId v, bool moments) {
  const GraphNode *node = graph_node(s->graph, v);
  ValueId x = node->operands[0];
  MomentsSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.lanes = s->kernels->lanes;
  spec.in = schedule_plane(s, x, s->place[x]);
  spec.images = schedule_images((int64_t)spec.in.channels * spec.in.height * spec.in.width);
  Call call = {0};
  call_read(s, &call, x);
  if (!moments) {
    call_place(&call, schedule_place(s, v), 0);
    schedule_written(s, v, CALL_LAUNCH(s, &call, family_global_mean, &spec, spec.images, 0, 0));
    return;
  }
  Place partial = schedule_storage(s, 3 * (int64_t)spec.in.channels * schedule_tasks(s, spec.images));
  call_place(&call, partial, 0);
  int32_t ready = CALL_LAUNCH(s, &call, family_moments, &spec, spec.images, 0, 0);
  Call last = {0};
  call_place(&last, partial, ready);
  call_place(&last, schedule_place(s, v), 0);
  spec.in.stride = spec.in.channels; /* the finish does not read the tensor */
  schedule_written(s, v, CALL_LAUNCH(s, &last, family_moments_finish, &spec, 0, 1, 0));
}

void schedule_vector(Scheduler *s, ValueId v) {
  const GraphNode *node = graph_node(s->graph, v);
  if (node->op == OP_BN_MOMENTS || node->op == OP_GLOBAL_AVG_POOL) {
    schedule_pixels(s, v, node->op == OP_BN_MOMENTS);
    return;
  }
  for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
    if (families[i].op != node->op) continue;
    VectorSpec spec = vector_spec(s, node);
    Call call = {0};
    for (int32_t o = 0; o < node->operand_count; o++) call_read(s, &call, node->operands[o]);
    call_place(&call, schedule_place(s, v), 0);
    double flops = node->op == OP_LINEAR || node->op == OP_LINEAR_GRAD_INPUT || node->op == OP_LINEAR_GRAD_WEIGHT
                       ? 2.0 * spec.rows * spec.inner * (spec.batched ? (double)s->batch : 1)
                       : 0;
    schedule_written(s, v, CALL_LAUNCH(s, &call, families[i].family, &spec, 0, 1, flops));
    return;
  }
  die("no kernel family for %s", op_table[node->op].text);
}
