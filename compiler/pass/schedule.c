/* Graph to launches: walks the values in order; each that is kept in memory becomes one or more launches of kernel families.
 *
 * A launch's segment is one past the last segment that writes something it reads, so independent launches (the operations of a
 * node, all GeneratingBlocks) share a segment and its one barrier. On a CPU a launch that works image by image needs no barrier
 * before another that does: it joins the segment, and all of a segment's launches with equally many images a task make a run: a
 * worker takes a task and runs them on it one after another. What only one run touches is kept in the worker's scratch.
 * Nodes' outputs are written into their concatenation straight away. Parameters are updated in place, in segments after all that
 * read them. */
#include "compiler/pass/group.h"
#include "compiler/pass/schedule_private.h"

#include "runtime/base/hash.h"

static int32_t kernel_for(KernelSet *set, Family family, const void *spec) {
  size_t bytes = family_spec_bytes(family);
  uint64_t hash = hash_u64(spec, bytes);
  for (size_t i = 0; i < set->kernels.count; i++) {
    const struct KernelKey *key = &set->keys[i];
    if (key->hash == hash && key->family == family && !memcmp(key->spec, spec, bytes)) return (int32_t)i;
  }
  LoopKernel *kernel = family_build(family, spec, set->arena);
  Err err;
  if (!loop_verify(kernel, &err)) die("kernel %s: %s", kernel->name, err.text);
  vector_push(&set->kernels, kernel);
  set->keys = memory_resize(set->keys, set->kernels.count * sizeof *set->keys);
  void *copy = arena_alloc(set->arena, bytes);
  memcpy(copy, spec, bytes);
  set->keys[set->kernels.count - 1] = (struct KernelKey){family, copy, hash};
  return (int32_t)set->kernels.count - 1;
}

Ready ready_both(Ready a, Ready b) {
  if (a.all < b.all) return ready_both(b, a);
  /* `a` is the later one: an aligned reader of a may be early where it may read b, too */
  int32_t other = b.images == a.images ? b.aligned : b.all;
  if (other > a.aligned) a.aligned = other;
  if (a.aligned > a.all) a.aligned = a.all;
  return a;
}

void call_place(Call *call, Place place, Ready ready) {
  if (call->count == CALL_MOST_BUFFERS) die("a launch with more than %d buffers", CALL_MOST_BUFFERS);
  call->ready[call->count] = ready;
  call->buffers[call->count++] = place;
}

void call_read(Scheduler *s, Call *call, ValueId v) {
  Place place = s->place[v];
  if (place.storage < 0) die("%s: value %d is read before it is written", s->graph->name, v);
  call_place(call, place, s->ready[v]);
  int32_t parameter = s->out->storages.data[place.storage].parameter;
  if (parameter >= 0) call->reads[call->read_count++] = parameter;
}

/* A vector move of a GPU takes up to 16 bytes: it is possible where an activation begins at a multiple of what its channels and
 * stride allow. */
bool schedule_unaligned(const Scheduler *s, Place place, int32_t channels) {
  int64_t widest = 16 / loop_element_bytes(schedule_element(s, place)), width = 1;
  while (width < widest && place.stride % (2 * width) == 0 && channels % (2 * width) == 0) width *= 2;
  return s->kernels->target.gpu && place.offset % width != 0;
}

static bool writes_parameter(const Scheduler *s, const Call *call, const PlannedLaunch *launch) {
  const LoopKernel *kernel = s->kernels->kernels.data[launch->kernel];
  for (int32_t i = 0; i < call->count; i++)
    if (kernel->arrays.data[i].space != LOOP_IN && s->out->storages.data[call->buffers[i].storage].parameter >= 0) return true;
  return false;
}

/* Whether it may share a task with others of as many images a task: without bands; on a GPU, where a block does them one after
 * another, also a launch of one task, unless it has to wait for all that read a parameter. */
static bool is_aligned(const Scheduler *s, const Call *call, const PlannedLaunch *launch) {
  if (!fuse_wants(&s->kernels->fuse, FUSE_RUN) || launch->kernel < 0 || launch->tasks != 1) return false;
  return s->kernels->target.gpu ? !writes_parameter(s, call, launch) : launch->images > 0;
}

static Ready plan_launch(Scheduler *s, Call *call, PlannedLaunch launch) {
  bool aligned = is_aligned(s, call, &launch);
  launch.each_task = call->each_task;
  for (int32_t i = -2; i < call->count; i++) {
    const Ready *ready = i == -2 ? &s->wait : i == -1 ? &call->after : &call->ready[i];
    int32_t from = aligned && ready->images == launch.images ? ready->aligned : ready->all;
    if (from > launch.segment) launch.segment = from;
  }
  if (call->generated_count) {
    call_make_weights(s, call, launch.images, launch.segment);
    return plan_launch(s, call, launch);
  }
  launch.buffer_count = call->count;
  launch.order = (int32_t)s->out->launches.count;
  Place *buffers = ARENA_ARRAY(s->arena, Place, call->count);
  memcpy(buffers, call->buffers, (size_t)call->count * sizeof *buffers);
  launch.buffers = buffers;
  vector_push(&s->out->launches, launch);
  for (int32_t i = 0; i < call->count; i++) {
    Storage *storage = &s->out->storages.data[call->buffers[i].storage];
    if (launch.segment < storage->first) storage->first = launch.segment;
    if (launch.segment > storage->last) storage->last = launch.segment;
  }
  for (int32_t i = 0; i < call->read_count; i++)
    if (s->parameter_read[call->reads[i]] < launch.segment) s->parameter_read[call->reads[i]] = launch.segment;
  if (launch.segment + 1 > s->out->segment_count) s->out->segment_count = launch.segment + 1;
  return (Ready){launch.segment + 1, aligned ? launch.segment : launch.segment + 1, launch.images};
}

Ready call_launch(Scheduler *s, Call *call, Family family, void *spec, int32_t images, int32_t tasks, double flops) {
  memcpy(spec, &s->kernels->target, sizeof s->kernels->target);
  int32_t kernel = kernel_for(s->kernels, family, spec);
  const LoopKernel *built = s->kernels->kernels.data[kernel];
  if (built->buffer_count != call->count) die("kernel %s: %d buffers given", built->name, call->count);
  return plan_launch(s, call, (PlannedLaunch){.kernel = kernel, .images = images, .tasks = tasks, .flops = flops});
}

Ready call_product(Scheduler *s, Call *call, const ProgramProduct *product, double flops) {
  ProgramProduct *copy = ARENA_NEW(s->arena, ProgramProduct);
  *copy = *product;
  return plan_launch(s, call, (PlannedLaunch){.kernel = -1, .product = copy, .tasks = 1, .flops = flops});
}

Place schedule_images(Scheduler *s, LoopElement element, int64_t elements) {
  Place place = schedule_storage(s, element, elements * s->batch);
  s->out->storages.data[place.storage].image_bytes = elements * loop_element_bytes(element);
  return place;
}

Place schedule_storage(Scheduler *s, LoopElement element, int64_t elements) {
  Storage storage = {.parameter = -1, .element = element, .first = INT32_MAX, .last = -1};
  storage.bytes = elements * loop_element_bytes(element);
  vector_push(&s->out->storages, storage);
  return (Place){.storage = (int32_t)s->out->storages.count - 1};
}

/* Of a value that is given memory of its own. */
static LoopElement element_of_value(const Scheduler *s, ValueId v) {
  const GraphNode *node = graph_node(s->graph, v);
  if (node->type.element == ELEMENT_I32) return LOOP_ELEMENT_I32;
  bool activation = node->type.batched && node->type.rank == 3 && node->op != OP_INPUT;
  return activation ? s->kernels->activation : LOOP_ELEMENT_F32;
}

Place schedule_place(Scheduler *s, ValueId v) {
  if (s->place[v].storage < 0) {
    Type type = graph_type(s->graph, v);
    LoopElement element = element_of_value(s, v);
    s->place[v] =
        type.batched ? schedule_images(s, element, type_elements(type, 1)) : schedule_storage(s, element, type_elements(type, 1));
    s->place[v].stride = type.batched ? type.dims[0] : 0;
  }
  return s->place[v];
}

void schedule_overwrite(Scheduler *s, ValueId v, ValueId over) {
  s->place[v] = s->place[over];
  s->overwritten[over] = true;
  const GraphNode *node = graph_node(s->graph, over);
  if (node->op == OP_SLICE) s->overwritten[node->operands[0]] = true;
}

void schedule_written(Scheduler *s, ValueId v, Ready ready) {
  s->ready[v] = ready;
}

LoopElement schedule_element(const Scheduler *s, Place place) {
  return s->out->storages.data[place.storage].element;
}

Plane schedule_plane(const Scheduler *s, ValueId v, Place place) {
  Type type = graph_type(s->graph, v);
  bool image = type.rank == 3;
  Plane plane;
  memset(&plane, 0, sizeof plane); /* specs are compared byte by byte */
  plane.channels = type.dims[0];
  plane.height = image ? type.dims[1] : 1;
  plane.width = image ? type.dims[2] : 1;
  plane.stride = place.stride;
  plane.element = schedule_element(s, place);
  plane.unaligned = schedule_unaligned(s, place, type.dims[0]);
  return plane;
}

enum {
  CPU_TASK_PIXELS = 512, /* a task's tensors stay in the second-level cache */
  CPU_LEAST_TASKS = 8,   /* of a whole batch: to share out, and so that sums in f32 stay short */
};

/* About CPU_TASK_PIXELS; a number that divides the batch is liked, for it gives tasks of one size. */
static int32_t images_of(int64_t batch, int64_t pixels) {
  int64_t most = CPU_TASK_PIXELS / (pixels > 0 ? pixels : 1);
  if (most > batch / CPU_LEAST_TASKS) most = batch / CPU_LEAST_TASKS;
  if (most < 1) return 1;
  for (int64_t images = most; 2 * images > most; images--)
    if (batch % images == 0) return (int32_t)images;
  return (int32_t)most;
}

Split schedule_split(const Scheduler *s, int64_t pixels) {
  if (s->kernels->target.gpu) return (Split){1, 1}; /* a block goes on with the image that it has made */
  return (Split){images_of(s->batch, pixels), 1};
}

Ready schedule_sum(Scheduler *s, Place partial, Ready ready, Split split, int64_t elements, bool total, Place to) {
  SlotsSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.images = split.images;
  spec.bands = split.bands;
  spec.elements = elements;
  spec.chunk = !s->kernels->target.gpu ? 1024 : elements > 8192 ? 128 : 32; /* a GPU wants many blocks */
  spec.total = total;
  Call call = {0};
  call_place(&call, partial, ready);
  call_place(&call, to, READY_AT_ONCE);
  return call_launch(s, &call, FAMILY_SUM_SLOTS, &spec, 0, total ? 1 : (int32_t)((elements + spec.chunk - 1) / spec.chunk), 0);
}

/* Values that are the same memory seen otherwise. */
static void schedule_data(Scheduler *s, ValueId v) {
  const GraphNode *node = graph_node(s->graph, v);
  ValueId from = node->operands[0];
  switch (node->op) {
  case OP_RESHAPE:
    s->place[v] = s->place[from];
    s->ready[v] = s->ready[from];
    return;
  case OP_SLICE:
    s->place[v] = s->place[from];
    s->place[v].offset += node->attributes->begin;
    s->ready[v] = s->ready[from];
    return;
  case OP_CONCAT: {
    Place whole = schedule_place(s, v);
    int32_t at = 0;
    Ready ready = READY_AT_ONCE;
    for (int32_t i = 0; i < node->operand_count; i++) {
      ValueId part = node->operands[i];
      Place to = {whole.storage, whole.offset + at, whole.stride};
      bool there = s->place[part].storage == to.storage && s->place[part].offset == to.offset;
      ready = ready_both(ready, there ? s->ready[part] : schedule_copy(s, part, to));
      at += graph_type(s->graph, part).dims[0];
    }
    s->ready[v] = ready;
    return;
  }
  case OP_SHIFT:
  case OP_UNSHIFT: schedule_shift(s, v); return;
  default: die("%s is not a change of view", op_table[node->op].text);
  }
}

static void schedule_value(Scheduler *s, ValueId v) {
  const GraphNode *node = graph_node(s->graph, v);
  switch (node->op) {
  case OP_CONV: schedule_conv(s, v, NO_VALUE); return;
  case OP_CONV_GRAD_INPUT: schedule_conv_grad_input(s, v, NO_VALUE); return;
  case OP_CONV_GRAD_WEIGHT: schedule_conv_grad_weight(s, v); return;
  case OP_MAX_POOL:
  case OP_AVG_POOL:
  case OP_MAX_POOL_GRAD:
  case OP_AVG_POOL_GRAD: schedule_pool(s, v, NO_VALUE); return;
  case OP_BN_GRAD_SUMS:
  case OP_CHANNEL_SUM:
  case OP_CHANNEL_DOT: schedule_reduce(s, v); return;
  case OP_DOT:
    if (graph_type(s->graph, node->operands[0]).batched)
      schedule_reduce(s, v);
    else
      schedule_vector(s, v);
    return;
  default: break;
  }
  OpClass class = op_table[node->op].class;
  if (class == CLASS_DATA)
    schedule_data(s, v);
  else if (class == CLASS_MAP && node->op != OP_ADAM_STEP)
    schedule_map(s, v);
  else
    schedule_vector(s, v);
}

static void schedule_leaf(Scheduler *s, ValueId v) {
  const GraphNode *node = graph_node(s->graph, v);
  if (node->op == OP_PARAM) {
    s->place[v] = (Place){.storage = module_find_parameter(s->graph->module, node->attributes->name)};
  } else if (node->op == OP_INPUT) {
    Place place = schedule_place(s, v);
    s->out->storages.data[place.storage].whole_step = true;
    NamedPlace named = {node->attributes->name, place, type_elements(node->type, s->batch), node->type.element == ELEMENT_I32};
    vector_push(&s->out->inputs, named);
  }
}

/* Gives the operands of each concatenation their places in it. */
static void place_concatenations(Scheduler *s) {
  if (!fuse_wants(&s->kernels->fuse, FUSE_PLACE)) return;
  for (size_t v = s->graph->nodes.count; v-- > 0;) {
    const GraphNode *node = &s->graph->nodes.data[v];
    if (node->op != OP_CONCAT || !node->type.batched) continue;
    Place whole = schedule_place(s, (ValueId)v);
    int32_t at = 0;
    for (int32_t i = 0; i < node->operand_count; i++) {
      ValueId part = node->operands[i];
      const GraphNode *operand = graph_node(s->graph, part);
      bool launched =
          op_table[operand->op].class != CLASS_LEAF && (op_table[operand->op].class != CLASS_DATA || operand->op == OP_CONCAT);
      if (launched && s->kept[part] && s->place[part].storage < 0)
        s->place[part] = (Place){whole.storage, whole.offset + at, whole.stride};
      at += operand->type.dims[0];
    }
  }
}

/* A weight's DESCEND over its MOMENTUM is one launch for both parameters. */
static const Update *momentum_of(Scheduler *s, const Update *weight) {
  const GraphNode *descend = graph_node(s->graph, weight->value);
  if (descend->op != OP_DESCEND || graph_node(s->graph, descend->operands[1])->op != OP_MOMENTUM) return NULL;
  const GraphNode *w = graph_node(s->graph, descend->operands[0]);
  if (w->op != OP_PARAM || s->place[descend->operands[0]].storage != weight->parameter) return NULL;
  for (size_t i = 0; i < s->graph->updates.count; i++)
    if (s->graph->updates.data[i].value == descend->operands[1]) return &s->graph->updates.data[i];
  return NULL;
}

/* Values that only an in-place update reads are computed by it. */
static void mark_updates(Scheduler *s) {
  for (size_t i = 0; i < s->graph->updates.count; i++) {
    const Update *weight = &s->graph->updates.data[i];
    const Update *momentum = momentum_of(s, weight);
    if (!momentum) continue;
    s->done[weight->value] = s->done[momentum->value] = true;
    const GraphNode *step = graph_node(s->graph, momentum->value);
    const GraphNode *gradient = graph_node(s->graph, step->operands[2]);
    if (gradient->op == OP_LINEAR_GRAD_WEIGHT && !graph_type(s->graph, gradient->operands[0]).batched &&
        s->use_count[step->operands[2]] == 1 && fuse_wants(&s->kernels->fuse, FUSE_DESCEND))
      s->done[step->operands[2]] = true;
  }
}

static void schedule_updates(Scheduler *s) {
  for (size_t i = 0; i < s->graph->updates.count; i++) {
    const Update *update = &s->graph->updates.data[i];
    const Update *momentum = momentum_of(s, update);
    if (momentum)
      schedule_descend(s, update, momentum);
    else if (!s->done[update->value])
      schedule_copy_update(s, update);
  }
}

static void schedule_results(Scheduler *s) {
  for (size_t i = 0; i < s->graph->results.count; i++) {
    const Result *result = &s->graph->results.data[i];
    Type type = graph_type(s->graph, result->value);
    Place place = s->place[result->value];
    if (place.storage < 0) die("result %s has no memory", result->name);
    s->out->storages.data[place.storage].whole_step = true;
    NamedPlace named = {result->name, place, type_elements(type, s->batch), false};
    vector_push(&s->out->results, named);
  }
}

/* Of a segment first the runs, which are the most work, then single launches. */
static int by_run(const void *a, const void *b) {
  const PlannedLaunch *x = a, *y = b;
  if (x->segment != y->segment) return x->segment < y->segment ? -1 : 1;
  if (x->run != y->run) return x->run > y->run ? -1 : 1; /* run: the images a task, still */
  return x->order - y->order;
}

/* Launches into runs; a storage that only one run touches is the run's own. */
static void make_runs(Scheduler *s) {
  Schedule *out = s->out;
  if (s->kernels->target.gpu) {
    pass_group_runs(out, s->kernels);
    return;
  }
  for (size_t i = 0; i < out->launches.count; i++) {
    PlannedLaunch *launch = &out->launches.data[i];
    bool aligned = fuse_wants(&s->kernels->fuse, FUSE_RUN) && launch->images > 0 && launch->tasks == 1;
    launch->run = aligned ? launch->images : -1;
  }
  qsort(out->launches.data, out->launches.count, sizeof *out->launches.data, by_run);
  int32_t *touched = ARENA_ARRAY(s->arena, int32_t, out->storages.count); /* 1 + run; -1: by several */
  PlannedLaunch before = {.segment = -1};
  for (size_t i = 0; i < out->launches.count; i++) {
    PlannedLaunch *launch = &out->launches.data[i], own = *launch;
    bool joins = own.segment == before.segment && own.run == before.run && own.run > 0;
    launch->run = joins ? out->run_count - 1 : out->run_count++;
    before = own;
    for (int32_t b = 0; b < launch->buffer_count; b++) {
      int32_t *by = &touched[launch->buffers[b].storage];
      int32_t run = own.run > 0 ? 1 + launch->run : -1;
      *by = *by == 0 || *by == run ? run : -1;
    }
  }
  for (size_t i = 0; i < out->storages.count; i++) {
    Storage *storage = &out->storages.data[i];
    bool own = touched[i] > 0 && storage->image_bytes > 0 && storage->parameter < 0 && !storage->whole_step;
    storage->in_scratch = own || storage->each_task;
  }
}

static void count_uses(Scheduler *s) {
  for (size_t v = 0; v < s->graph->nodes.count; v++) {
    const GraphNode *node = &s->graph->nodes.data[v];
    for (int32_t i = 0; i < node->operand_count; i++) s->use_count[node->operands[i]]++;
  }
  for (size_t i = 0; i < s->graph->results.count; i++) s->use_count[s->graph->results.data[i].value]++;
  for (size_t i = 0; i < s->graph->updates.count; i++) s->use_count[s->graph->updates.data[i].value]++;
}

static Scheduler scheduler_new(const Graph *graph, Fusion *fusion, KernelSet *kernels, Arena *arena) {
  size_t count = graph->nodes.count;
  Scheduler s = {
      .graph = graph, .kernels = kernels, .arena = arena, .out = ARENA_NEW(arena, Schedule), .batch = graph->module->batch};
  s.out->graph = graph;
  s.out->fusion = fusion;
  s.fusion = fusion;
  s.kept = fusion->kept;
  s.use_count = ARENA_ARRAY(arena, int32_t, count);
  s.place = ARENA_ARRAY(arena, Place, count);
  s.coefficients = ARENA_ARRAY(arena, Place, count);
  s.coefficients_ready = ARENA_ARRAY(arena, Ready, count);
  s.ready = ARENA_ARRAY(arena, Ready, count);
  s.done = ARENA_ARRAY(arena, bool, count);
  s.apart = ARENA_ARRAY(arena, bool, count);
  s.overwritten = ARENA_ARRAY(arena, bool, count);
  s.parameter_read = ARENA_ARRAY(arena, int32_t, graph->module->parameters.count);
  for (size_t v = 0; v < count; v++) s.place[v].storage = s.coefficients[v].storage = -1;
  for (size_t p = 0; p < graph->module->parameters.count; p++) {
    s.parameter_read[p] = -1;
    int64_t bytes = 4 * type_elements(graph->module->parameters.data[p].type, 1);
    vector_push(&s.out->storages, ((Storage){.parameter = (int32_t)p, .bytes = bytes, .first = INT32_MAX, .last = -1}));
  }
  count_uses(&s);
  return s;
}

/* A value that no group makes. */
static void schedule_alone(Scheduler *s, ValueId v) {
  const GraphNode *node = graph_node(s->graph, v);
  bool leaf = op_table[node->op].class == CLASS_LEAF && node->op != OP_CONST;
  if (leaf || s->done[v] || !s->kept[v] || (node->op == OP_CONST && s->use_count[v] == 0)) return;
  bool unshifted = node->op == OP_CONV_GRAD_INPUT && s->use_count[v] == 1;
  if (unshifted) { /* is the one reader an unshift? then that writes it */
    unshifted = false;
    for (size_t u = (size_t)v + 1; u < s->graph->nodes.count && !unshifted; u++)
      unshifted = s->graph->nodes.data[u].op == OP_UNSHIFT && s->graph->nodes.data[u].operands[0] == v;
  }
  if (unshifted) return;
  if (s->apart[v]) s->wait = s->last_apart;
  schedule_value(s, v);
  s->wait = READY_AT_ONCE;
  if (s->apart[v]) s->last_apart = s->ready[v];
}

Schedule *pass_schedule(const Graph *graph, Fusion *fusion, KernelSet *kernels, Arena *arena) {
  Scheduler s = scheduler_new(graph, fusion, kernels, arena);
  for (size_t v = 0; v < graph->nodes.count; v++) schedule_leaf(&s, (ValueId)v);
  place_concatenations(&s);
  mark_updates(&s);
  schedule_find_generators(&s);
  for (size_t i = 0; i < graph->nodes.count; i++) {
    ValueId v = fusion->order[i];
    int32_t group = fusion->group[v];
    if (group < 0)
      schedule_alone(&s, v);
    else if (fusion->groups.data[group].values[0] == v)
      schedule_group(&s, &fusion->groups.data[group]);
  }
  schedule_updates(&s);
  schedule_results(&s);
  for (size_t v = 0; v < graph->nodes.count; v++)
    if (s.overwritten[v]) s.place[v].storage = -1;
  s.out->places = s.place;
  make_runs(&s);
  return s.out;
}

Schedule *schedule_graph(const Graph *graph, KernelSet *kernels, Arena *arena) {
  kernels->fuse.gpu = kernels->target.gpu;
  Fusion *fusion = fuse_graph(graph, &kernels->fuse, arena);
  return pass_schedule(graph, fusion, kernels, arena);
}

void schedule_free(Schedule *schedule) {
  if (schedule->fusion) fusion_free(schedule->fusion);
  vector_free(&schedule->storages);
  vector_free(&schedule->launches);
  vector_free(&schedule->inputs);
  vector_free(&schedule->results);
}
