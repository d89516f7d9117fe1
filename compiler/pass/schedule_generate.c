/* GeneratingBlocks: where the weights that they make for convolutions are made. Horizontally (the usual way) they are launches
 * like any other, and as all of them can run at once, those of a whole step share two segments. `none` keeps each apart, behind a
 * barrier of its own, as a framework would. Vertically a weight is made by the run that reads it, on each of its tasks and into
 * the worker's scratch, and is never in memory. */
#include "compiler/pass/schedule_private.h"

static FuseGenerate form_of(const Scheduler *s) {
  FuseGenerate form = s->kernels->fuse.generate;
  return form == GENERATE_VERTICAL && (s->kernels->target.gpu || !fuse_wants(&s->kernels->fuse, FUSE_RUN)) ? GENERATE_HORIZONTAL
                                                                                                           : form;
}

/* What makes the weight `w`: a layer, or an expression of vectors; NO_VALUE: it is a parameter. */
static ValueId generator_of(const Scheduler *s, ValueId w) {
  const GraphNode *node = graph_node(s->graph, w);
  if (node->op != OP_RESHAPE) return NO_VALUE;
  ValueId v = node->operands[0];
  node = graph_node(s->graph, v);
  return node->op == OP_LINEAR || op_table[node->op].class == CLASS_MAP ? v : NO_VALUE;
}

/* When everything under `v` that is in memory is there. */
static Ready inputs_ready(const Scheduler *s, ValueId v) {
  Ready ready = READY_AT_ONCE;
  const GraphNode *node = graph_node(s->graph, v);
  for (int32_t i = 0; i < node->operand_count; i++) {
    ValueId o = node->operands[i];
    ready = ready_both(ready, s->kept[o] ? s->ready[o] : inputs_ready(s, o));
  }
  return ready;
}

/* `v` for a run, no earlier than `segment`. */
static Ready make_weight(Scheduler *s, ValueId v, int32_t images, int32_t segment, Place *to) {
  *to = schedule_storage(s, LOOP_ELEMENT_F32, type_elements(graph_type(s->graph, v), 1));
  s->out->storages.data[to->storage].each_task = true;
  Call call = {.after = {.all = segment, .aligned = segment, .images = images}, .each_task = true};
  if (graph_node(s->graph, v)->op == OP_LINEAR) return schedule_layer(s, &call, v, *to, images);
  return schedule_vector_map(s, &call, v, *to, images);
}

void call_weight(Scheduler *s, Call *call, ValueId w) {
  ValueId v = form_of(s) == GENERATE_VERTICAL ? generator_of(s, w) : NO_VALUE;
  if (v == NO_VALUE) {
    call_read(s, call, w);
    return;
  }
  call->generated[call->generated_count] = v;
  call->generated_buffer[call->generated_count++] = call->count;
  call->after = ready_both(call->after, inputs_ready(s, v));
  call_place(call, (Place){.storage = -1}, READY_AT_ONCE);
}

void call_make_weights(Scheduler *s, Call *call, int32_t images, int32_t segment) {
  int32_t count = call->generated_count;
  call->generated_count = 0;
  for (int32_t i = 0; i < count; i++) {
    int32_t buffer = call->generated_buffer[i];
    call->ready[buffer] = make_weight(s, call->generated[i], images, segment, &call->buffers[buffer]);
  }
}

void schedule_find_generators(Scheduler *s) {
  FuseGenerate form = form_of(s);
  for (size_t v = 0; v < s->graph->nodes.count; v++) {
    const GraphNode *node = &s->graph->nodes.data[v];
    bool window = node->op == OP_CONV || node->op == OP_CONV_GRAD_INPUT;
    ValueId made = window ? generator_of(s, node->operands[1]) : NO_VALUE;
    if (made == NO_VALUE) continue;
    if (form == GENERATE_VERTICAL && s->use_count[made] == 1) s->done[made] = s->done[node->operands[1]] = true;
    for (ValueId part = made; form == GENERATE_NONE && graph_node(s->graph, part)->op == OP_LINEAR;
         part = graph_node(s->graph, part)->operands[0])
      s->apart[part] = true;
    if (form == GENERATE_NONE) s->apart[made] = true;
  }
}
