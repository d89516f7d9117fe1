/* The Program of a compilation: plain structs in its arena, which point to the code and to nothing else of the compiler. */
#include "compiler/pipeline_private.h"

#include "compiler/traffic.h"
#include "dsl/dsl.h"
#include "kernels/describe.h"
#include "runtime/base/hash.h"

#include <string.h>

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
  int64_t bytes = place.offset * loop_element_bytes(storage->element);
  if (storage->parameter >= 0) return (BufferRef){BUFFER_PARAMETER, program->parameters[storage->parameter].offset + bytes, 0};
  if (storage->in_scratch)
    return (BufferRef){BUFFER_SCRATCH, storage->offset + bytes, storage->each_task ? 0 : storage->image_bytes};
  return (BufferRef){BUFFER_ARENA, storage->offset + bytes, 0};
}

static Launch build_launch(const Pipeline *p, const Schedule *schedule, const Program *program, const PlannedLaunch *from) {
  BufferRef *buffers = ARENA_ARRAY(p->arena, BufferRef, from->buffer_count);
  for (int32_t i = 0; i < from->buffer_count; i++) buffers[i] = buffer_ref(schedule, program, from->buffers[i]);
  return (Launch){.kernel = from->product ? 0 : (uint32_t)from->kernel,
                  .product = from->product,
                  .buffer_count = (uint32_t)from->buffer_count,
                  .buffers = buffers,
                  .images = from->images,
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

/* The segments' grouped launches, whose kernels stand behind the others. */
static void build_groups(const Pipeline *p, const int32_t *of_segment, Segment *segments, uint32_t count, Launch *launches) {
  Launch *own = launches;
  for (uint32_t s = 0; s < count; own += segments[s++].count) {
    if (of_segment[s] < 0) continue;
    const KernelGroup *group = &p->groups.groups.data[of_segment[s]];
    segments[s].group = 1 + (uint32_t)p->kernels.kernels.count + (uint32_t)of_segment[s];
    for (uint32_t l = 0; l < segments[s].count; l++)
      if (!own[l].product) own[l].body = group_body(group, (int32_t)own[l].kernel);
  }
}

static ProgramStep build_step(const Pipeline *p, size_t step, const Program *program) {
  const Schedule *schedule = p->schedules.data[step];
  size_t count = schedule->launches.count;
  Launch *launches = ARENA_ARRAY(p->arena, Launch, count);
  Segment *segments = ARENA_ARRAY(p->arena, Segment, schedule->segment_count);
  const Traffic *traffic = traffic_of(schedule, &p->kernels, program->batch, p->arena);
  for (size_t i = 0; i < count; i++) {
    const PlannedLaunch *from = &schedule->launches.data[i];
    launches[i] = build_launch(p, schedule, program, from);
    launches[i].each_task = from->each_task;
    launches[i].joins = i > 0 && from->run == schedule->launches.data[i - 1].run;
    launches[i].read_bytes = traffic[i].read;
    launches[i].written_bytes = traffic[i].written;
    launches[i].least_bytes = traffic[i].least;
    Segment *segment = &segments[from->segment];
    if (!segment->count++) segment->launches = &launches[i];
  }
  if (p->grouped) build_groups(p, p->of_segment[step], segments, (uint32_t)schedule->segment_count, launches);
  return (ProgramStep){.name = schedule->graph->name,
                       .segments = segments,
                       .segment_count = (uint32_t)schedule->segment_count,
                       .arena_bytes = schedule->arena_bytes,
                       .scratch_bytes = schedule->scratch_bytes,
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

static const char *target_name(const Pipeline *p) {
  const char *name = emit_target_name(p->target);
  Products products = p->kernels.target.products;
  return products == PRODUCTS_FP32 ? name : arena_printf(p->arena, "%s %s", name, pipeline_precision_name(products));
}

static void build_model(const Pipeline *p, const Model *model, Program *program) {
  Text text = {0};
  dsl_print_model(model, &text);
  HashName hash = hash_name(text.data, text.length);
  program->name = model->name;
  program->space = model->space;
  program->device = emit_target_device(p->target);
  program->target = target_name(p);
  program->model_text = arena_copy_string(p->arena, text.data, text.length);
  program->model_hash = arena_copy_string(p->arena, hash.hex, strlen(hash.hex));
  program->batch = p->module->batch;
  program->cells = build_cells(p, model);
  program->cell_count = model->cell_count;
  program->data = build_data(&model->data);
  program->search = build_search(&model->search, p->module->batch);
  text_free(&text);
}

static const char *description(const Pipeline *p, size_t kernel) {
  bool images = p->kernels.target.gpu && kernel + 1 == p->kernels.kernels.count; /* it was made of no family's spec */
  Text text = {0};
  if (!images) family_describe(p->kernels.keys[kernel].family, p->kernels.keys[kernel].spec, &text);
  const char *copy = text.data ? arena_copy_string(p->arena, text.data, text.length) : NULL;
  text_free(&text);
  return copy;
}

static void fill_image(const Pipeline *p, size_t number, ProgramKernel *kernel) {
  const EmitImage *image = pipeline_image(p, number);
  if (!image) return;
  kernel->symbol = image->symbol;
  kernel->image = image->data;
  kernel->image_bytes = image->size;
  kernel->shared_bytes = number < p->kernels.kernels.count ? 0 : image->resources.shared_bytes;
}

static int32_t most_lanes(const Pipeline *p, const KernelGroup *group) {
  int32_t lanes = 0;
  for (uint32_t i = 0; i < group->count; i++) {
    int32_t own = p->kernels.kernels.data[group->kernels[i]]->lanes;
    if (own > lanes) lanes = own;
  }
  return lanes;
}

static void build_kernels(const Pipeline *p, Program *program) {
  size_t count = p->kernels.kernels.count, groups = p->groups.groups.count;
  ProgramKernel *kernels = ARENA_ARRAY(p->arena, ProgramKernel, count + groups);
  for (size_t i = 0; i < count; i++) {
    const LoopKernel *kernel = p->kernels.kernels.data[i];
    kernels[i].name = kernel->name;
    kernels[i].description = description(p, i);
    if (p->kernels.target.gpu) {
      kernels[i].threads = kernel->lanes;
      fill_image(p, i, &kernels[i]);
    } else {
      kernels[i].run = emit_code_function(p->code, i);
      kernels[i].scratch_bytes = loop_scratch(kernel, NULL);
    }
  }
  for (size_t i = 0; i < groups; i++) {
    kernels[count + i].name = arena_printf(p->arena, "group.%zu", i);
    kernels[count + i].threads = most_lanes(p, &p->groups.groups.data[i]);
    fill_image(p, count + i, &kernels[count + i]);
  }
  program->kernels = kernels;
  program->kernel_count = (uint32_t)(count + groups);
  if (p->kernels.target.gpu) program->images_kernel = (uint32_t)count - 1;
}

void pipeline_fill_program(const Pipeline *p, const Model *model, Program *program) {
  build_model(p, model, program);
  build_parameters(p, program);
  build_kernels(p, program);
  ProgramStep *steps = ARENA_ARRAY(p->arena, ProgramStep, p->schedules.count);
  for (size_t i = 0; i < p->schedules.count; i++) steps[i] = build_step(p, i, program);
  program->steps = steps;
  program->step_count = (uint32_t)p->schedules.count;
}
