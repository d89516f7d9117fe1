/* Model to Program, a pass a line. Everything of one compilation lives in one arena, which `pipeline_free` frees with the code.
 */
#include "compiler/pipeline.h"

#include "compiler/pass/pass.h"
#include "compiler/pass/schedule.h"
#include "dsl/dsl.h"
#include "runtime/base/hash.h"

#include <string.h>

typedef struct Pipeline {
  Compiled compiled; /* first, so that the one can be told from the other */
  Arena *arena;
  Module *module;
  KernelSet kernels;
  VECTOR(Schedule *) schedules; /* one a step, in the module's order */
  EmitTarget *target;
  EmitCode *code;
} Pipeline;

/* ---- front half: model, graphs, schedules ---- */

static bool pipeline_schedule(Pipeline *p, const Model *model, const PipelineOptions *options, Err *err) {
  Model resized = *model;
  if (options->batch) resized.search.batch = options->batch;
  p->target = emit_target_new(options->cpu, false, err);
  if (!p->target) return false;
  p->module = lower_model(&resized, options->steps, options->architecture, p->arena);
  p->kernels = (KernelSet){.arena = p->arena, .lanes = emit_target_lanes(p->target)};
  for (size_t i = 0; i < p->module->steps.count; i++) {
    Graph *graph = pass_simplify(p->module->steps.data[i]);
    p->module->steps.data[i] = graph; /* so that what `emit` prints is what is compiled */
    if (!graph_verify(graph, err)) die("%s: %s", graph->name, err ? err->text : "does not verify");
    Schedule *schedule = pass_schedule(graph, &p->kernels, p->arena);
    pass_plan(schedule);
    Err overlap;
    if (!plan_check(schedule, &overlap)) die("%s: %s", graph->name, overlap.text);
    vector_push(&p->schedules, schedule);
  }
  return true;
}

/* ---- parameters ---- */

/* "momentum.NAME" and the like are stored in the order of NAME. */
static const Parameter *stored_like(const Module *module, const Parameter *parameter) {
  static const char *const prefixes[] = {"momentum.", "adam_mean.", "adam_square."};
  for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
    size_t length = strlen(prefixes[i]);
    if (strncmp(parameter->name, prefixes[i], length) != 0 || parameter->kind == PARAMETER_WEIGHT) continue;
    int32_t base = module_find_parameter(module, parameter->name + length);
    if (base >= 0) return &module->parameters.data[base];
  }
  return parameter;
}

/* Kernels read a convolution's weight as (ky, kx, in, out) and a linear layer's as (in, out); the outputs of a layer that
 * generates a weight lie in that weight's order. */
static void pack(ProgramParameter *to, const Parameter *like) {
  static const int32_t reversed[4] = {2, 3, 1, 0};
  const Type *conv = like->generates.rank == 4 ? &like->generates : like->type.rank == 4 ? &like->type : NULL;
  if (conv) {
    bool matrix = like->type.rank == 2;
    for (int i = 0; i < 4; i++) {
      to->view[i] = conv->dims[i];
      to->order[i + matrix] = reversed[i];
    }
    to->view_rank = 4 + matrix;
    if (matrix) {
      to->view[4] = like->type.dims[1];
      to->order[0] = 4;
    }
  } else if (like->type.rank == 2) {
    to->view_rank = 2;
    to->view[0] = like->type.dims[0];
    to->view[1] = like->type.dims[1];
    to->order[0] = 1;
    to->order[1] = 0;
  }
}

static void build_parameters(const Pipeline *p, Program *program) {
  size_t count = p->module->parameters.count;
  ProgramParameter *all = ARENA_ARRAY(p->arena, ProgramParameter, count);
  int64_t at = 0;
  for (size_t i = 0; i < count; i++) {
    const Parameter *from = &p->module->parameters.data[i];
    ProgramParameter *to = &all[i];
    to->name = from->name;
    to->kind = (ProgramParameterKind)from->kind;
    to->rank = from->type.rank;
    for (int d = 0; d < from->type.rank; d++) to->dims[d] = from->type.dims[d];
    to->elements = type_elements(from->type, 1);
    to->offset = at;
    at += (to->elements * 4 + 63) / 64 * 64;
    if (from->init == INIT_UNIFORM)
      to->uniform = from->init_value;
    else
      to->constant = from->init_value;
    pack(to, stored_like(p->module, from));
  }
  program->parameters = all;
  program->parameter_count = (uint32_t)count;
  program->parameter_bytes = at;
}

/* ---- steps ---- */

static BufferRef buffer_ref(const Schedule *schedule, const Program *program, Place place) {
  const Storage *storage = &schedule->storages.data[place.storage];
  if (storage->parameter >= 0)
    return (BufferRef){BUFFER_PARAMETER, program->parameters[storage->parameter].offset + 4 * place.offset};
  return (BufferRef){BUFFER_ARENA, storage->offset + 4 * place.offset};
}

static Launch build_launch(const Pipeline *p, const Schedule *schedule, const Program *program, const PlannedLaunch *from) {
  BufferRef *buffers = ARENA_ARRAY(p->arena, BufferRef, from->buffer_count);
  for (int32_t i = 0; i < from->buffer_count; i++) buffers[i] = buffer_ref(schedule, program, from->buffers[i]);
  return (Launch){.kernel = (uint32_t)from->kernel,
                  .buffer_count = (uint32_t)from->buffer_count,
                  .buffers = buffers,
                  .images_per_task = from->images_per_task,
                  .tasks = from->tasks,
                  .flops = from->flops};
}

static NamedBuffer *build_named(const Pipeline *p, const Schedule *schedule, const NamedPlace *from, size_t count) {
  NamedBuffer *named = ARENA_ARRAY(p->arena, NamedBuffer, count);
  for (size_t i = 0; i < count; i++) {
    const Storage *storage = &schedule->storages.data[from[i].place.storage];
    named[i] = (NamedBuffer){from[i].name, storage->offset + 4 * from[i].place.offset, from[i].elements, from[i].integer};
  }
  return named;
}

static ProgramStep build_step(const Pipeline *p, const Schedule *schedule, const Program *program) {
  size_t count = schedule->launches.count;
  Launch *launches = ARENA_ARRAY(p->arena, Launch, count);
  Segment *segments = ARENA_ARRAY(p->arena, Segment, schedule->segment_count);
  for (size_t i = 0; i < count; i++) {
    const PlannedLaunch *from = &schedule->launches.data[i];
    launches[i] = build_launch(p, schedule, program, from);
    Segment *segment = &segments[from->segment];
    if (!segment->count++) segment->launches = &launches[i];
  }
  return (ProgramStep){.name = schedule->graph->name,
                       .segments = segments,
                       .segment_count = (uint32_t)schedule->segment_count,
                       .arena_bytes = schedule->arena_bytes,
                       .inputs = build_named(p, schedule, schedule->inputs.data, schedule->inputs.count),
                       .input_count = (uint32_t)schedule->inputs.count,
                       .results = build_named(p, schedule, schedule->results.data, schedule->results.count),
                       .result_count = (uint32_t)schedule->results.count};
}

/* ---- what the runtime needs of the model ---- */

static const ProgramCell *build_cells(const Pipeline *p, const Model *model) {
  ProgramCell *cells = ARENA_ARRAY(p->arena, ProgramCell, model->cell_count);
  for (int l = 0; l < model->cell_count; l++) {
    const Cell *cell = &model->cells[l];
    ProgramNode *nodes = ARENA_ARRAY(p->arena, ProgramNode, cell->node_count);
    for (int j = 0; j < cell->node_count; j++) {
      ProgramCandidate *candidates = ARENA_ARRAY(p->arena, ProgramCandidate, cell->nodes[j].count);
      for (int k = 0; k < cell->nodes[j].count; k++) {
        const Candidate *from = &cell->nodes[j].candidates[k];
        candidates[k] = (ProgramCandidate){from->operation, from->operation_index, from->source};
      }
      nodes[j] = (ProgramNode){candidates, cell->nodes[j].count};
    }
    cells[l] = (ProgramCell){cell->reduction, nodes, cell->node_count};
  }
  return cells;
}

static ProgramData build_data(const DataSet *from) {
  ProgramData data = {.name = from->name,
                      .format = from->format,
                      .channels = from->image.channels,
                      .height = from->image.height,
                      .width = from->image.width,
                      .classes = from->classes,
                      .train_fraction = from->train_fraction,
                      .crop_pad = from->crop_pad,
                      .cutout = from->cutout,
                      .flip = from->flip,
                      .train_images = from->train_images,
                      .test_images = from->test_images};
  for (int c = 0; c < from->image.channels && c < 8; c++) {
    data.mean[c] = from->mean[c];
    data.deviation[c] = from->std[c];
  }
  return data;
}

static ProgramSearch build_search(const Search *from, int32_t batch) {
  return (ProgramSearch){.train = from->train,
                         .cross_start = from->cross_start,
                         .cross_end = from->cross_end,
                         .total = from->total,
                         .batch = batch,
                         .keep = from->keep,
                         .lr_start = from->lr_start,
                         .lr_end = from->lr_end,
                         .alpha_lr = from->alpha_lr,
                         .alpha_beta1 = from->alpha_beta1,
                         .alpha_beta2 = from->alpha_beta2,
                         .alpha_scale = from->alpha_scale,
                         .alpha_initial = from->alpha_initial,
                         .last = from->last,
                         .seed = from->seed};
}

static void build_model(const Pipeline *p, const Model *model, Program *program) {
  Text text = {0};
  dsl_print_model(model, &text);
  HashName hash = hash_name(text.data, text.length);
  program->name = model->name;
  program->space = model->space;
  program->target = emit_target_name(p->target);
  program->model_text = arena_copy_string(p->arena, text.data, text.length);
  program->model_hash = arena_copy_string(p->arena, hash.hex, strlen(hash.hex));
  program->batch = p->module->batch;
  program->cells = build_cells(p, model);
  program->cell_count = model->cell_count;
  program->data = build_data(&model->data);
  program->search = build_search(&model->search, p->module->batch);
  text_free(&text);
}

static void build_kernels(const Pipeline *p, Program *program) {
  size_t count = p->kernels.kernels.count;
  ProgramKernel *kernels = ARENA_ARRAY(p->arena, ProgramKernel, count);
  for (size_t i = 0; i < count; i++) {
    const LoopKernel *kernel = p->kernels.kernels.data[i];
    kernels[i] = (ProgramKernel){kernel->name, emit_code_function(p->code, i), loop_scratch(kernel, NULL)};
  }
  program->kernels = kernels;
  program->kernel_count = (uint32_t)count;
}

Compiled *pipeline_compile(const Model *model, const PipelineOptions *options, Err *err) {
  Pipeline *p = memory_alloc(sizeof *p);
  p->arena = arena_new();
  Program *program = ARENA_NEW(p->arena, Program);
  p->compiled.program = program;
  bool done = pipeline_schedule(p, model, options, err);
  if (done) {
    p->code = emit_compile(p->target, (const LoopKernel *const *)p->kernels.kernels.data, p->kernels.kernels.count,
                           options->threads, options->cache, &p->compiled.kernels, err);
    done = p->code != NULL;
  }
  if (!done) {
    pipeline_free(&p->compiled);
    return NULL;
  }
  build_model(p, model, program);
  build_parameters(p, program);
  build_kernels(p, program);
  ProgramStep *steps = ARENA_ARRAY(p->arena, ProgramStep, p->schedules.count);
  for (size_t i = 0; i < p->schedules.count; i++) steps[i] = build_step(p, p->schedules.data[i], program);
  program->steps = steps;
  program->step_count = (uint32_t)p->schedules.count;
  return &p->compiled;
}

void pipeline_free(Compiled *compiled) {
  if (!compiled) return;
  Pipeline *p = (Pipeline *)compiled;
  for (size_t i = 0; i < p->schedules.count; i++) schedule_free(p->schedules.data[i]);
  for (size_t i = 0; i < p->kernels.kernels.count; i++) loop_free_tables(p->kernels.kernels.data[i]);
  vector_free(&p->schedules);
  vector_free(&p->kernels.kernels);
  free(p->kernels.keys);
  emit_code_free(p->code);
  emit_target_free(p->target);
  if (p->module) module_free_tables(p->module);
  arena_free(p->arena);
  free(p);
}

/* ---- text ---- */

/* The kernels that a step launches, each once, in the order of their first launch. */
static bool print_kernels(Pipeline *p, const Schedule *schedule, const char *stage, Text *out, Err *err) {
  bool *printed = memory_alloc(p->kernels.kernels.count * sizeof *printed);
  bool done = true;
  for (size_t i = 0; i < schedule->launches.count && done; i++) {
    int32_t kernel = schedule->launches.data[i].kernel;
    if (printed[kernel]) continue;
    printed[kernel] = true;
    const LoopKernel *k = p->kernels.kernels.data[kernel];
    if (strcmp(stage, "loop") == 0)
      loop_print(k, out);
    else
      done = emit_text(p->target, k, strcmp(stage, "asm") == 0 ? EMIT_ASM : EMIT_LLVM, out, err);
    text_add(out, "\n");
  }
  free(printed);
  return done;
}

bool pipeline_print(const Model *model, const PipelineOptions *options, const char *stage, const char *step, Text *out,
                    Err *err) {
  Pipeline *p = memory_alloc(sizeof *p);
  p->arena = arena_new();
  bool done = pipeline_schedule(p, model, options, err);
  bool found = false;
  if (done && strcmp(stage, "graph") == 0 && !step) {
    module_print(p->module, out);
    found = true;
  } else {
    for (size_t i = 0; done && i < p->schedules.count; i++) {
      const Schedule *schedule = p->schedules.data[i];
      if (step && strcmp(step, schedule->graph->name) != 0) continue;
      found = true;
      if (strcmp(stage, "graph") == 0)
        graph_print(schedule->graph, out);
      else
        done = print_kernels(p, schedule, stage, out, err);
    }
  }
  if (done && !found) done = err_set(err, "there is no step %s", step ? step : "at all");
  pipeline_free(&p->compiled);
  return done;
}
