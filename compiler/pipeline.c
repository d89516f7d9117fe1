/* Model to Program, a pass a line. Everything of one compilation lives in one arena, which `pipeline_free` frees with the code.
 */
#include "compiler/pipeline_private.h"

#include "compiler/explain.h"

#include <string.h>

static const char *const precision_names[] = {"fp32", "tf32", "bf16"};

bool pipeline_precision(const char *name, Products *precision) {
  for (int i = 0; i < 3; i++)
    if (!strcmp(name, precision_names[i])) return *precision = (Products)i, true;
  return false;
}

const char *pipeline_precision_name(Products precision) {
  return precision_names[precision];
}

/* ---- front half: model, graphs, schedules ---- */

enum { GPU_BLOCK = 256 }; /* threads */

static bool pipeline_target(Pipeline *p, const PipelineOptions *options, Err *err) {
  const char *device = options->device ? options->device : "cpu";
  bool gpu = strcmp(device, "cpu") != 0;
  p->target = gpu ? emit_target_cuda(strcmp(device, "cuda") != 0 ? device : options->arch, err)
                  : emit_target_new(options->cpu, false, err);
  if (!p->target) return false;
  p->kernels.arena = p->arena;
  p->kernels.fuse = options->fuse;
  p->kernels.target = gpu ? (KernelTarget){true, GPU_BLOCK, options->precision}
                          : (KernelTarget){false, emit_target_lanes(p->target), PRODUCTS_FP32};
  bool narrow = gpu && options->precision == PRODUCTS_BF16;
  p->kernels.activation = narrow ? LOOP_ELEMENT_BF16 : LOOP_ELEMENT_F32;
  return true;
}

/* A GPU counts elements in 32 bits. */
static bool check_sizes(const Schedule *schedule, Err *err) {
  for (size_t i = 0; i < schedule->storages.count; i++) {
    const Storage *storage = &schedule->storages.data[i];
    if (storage->bytes / loop_element_bytes(storage->element) > INT32_MAX)
      return err_set(err, "%s: a tensor of more than 2^31 elements, which --device=cuda cannot hold; make the batch smaller",
                     schedule->graph->name);
  }
  return true;
}

static void add_images_kernel(Pipeline *p, const DataSet *data) {
  ImagesSpec spec;
  memset(&spec, 0, sizeof spec);
  spec.target = p->kernels.target;
  spec.channels = data->image.channels;
  spec.height = data->image.height;
  spec.width = data->image.width;
  vector_push(&p->kernels.kernels, gpu_images(&spec, p->arena));
}

/* What every step goes through before it is scheduled. */
static const int graph_passes[] = {PASS_autodiff, PASS_simplify, PASS_hoist, PASS_sums, PASS_layout};
enum { GRAPH_PASSES = sizeof graph_passes / sizeof *graph_passes };

/* The graphs after the first `passes` of them; hoist is left out where another way of generating weights is forced. */
static bool pipeline_graphs(Pipeline *p, const Model *model, const PipelineOptions *options, size_t passes, Err *err) {
  Model resized = *model;
  if (options->batch) resized.search.batch = options->batch;
  p->module = lower_steps(&resized, options->steps, options->architecture, p->arena);
  int wanted[GRAPH_PASSES];
  size_t count = 0;
  for (size_t i = 0; i < passes; i++)
    if (graph_passes[i] != PASS_hoist || !options->fuse.forced || options->fuse.generate == GENERATE_HOISTED)
      wanted[count++] = graph_passes[i];
  return passes_run(p->module, wanted, count, options->watch, options->watch_context, err);
}

static bool pipeline_schedule(Pipeline *p, const Model *model, const PipelineOptions *options, Err *err) {
  if (!pipeline_target(p, options, err) || !pipeline_graphs(p, model, options, GRAPH_PASSES, err)) return false;
  for (size_t i = 0; i < p->module->steps.count; i++) {
    Graph *graph = p->module->steps.data[i];
    Schedule *schedule = schedule_graph(graph, &p->kernels, p->arena);
    fuse_mark(graph, schedule->fusion); /* so that what `emit` prints is what is compiled */
    pass_plan(schedule);
    Err overlap;
    if (!plan_check(schedule, &overlap)) die("%s: %s", graph->name, overlap.text);
    vector_push(&p->schedules, schedule);
    if (p->kernels.target.gpu && !check_sizes(schedule, err)) return false;
  }
  if (p->kernels.target.gpu) add_images_kernel(p, &model->data);
  return true;
}

/* ---- code ---- */

static bool compile_groups(Pipeline *p, const PipelineOptions *options, Err *err) {
  const LoopKernel *const *kernels = (const LoopKernel *const *)p->kernels.kernels.data;
  size_t count = p->kernels.kernels.count;
  p->groups.arena = p->arena;
  p->of_segment = ARENA_ARRAY(p->arena, int32_t *, p->schedules.count + 1);
  pass_group((const Schedule *const *)p->schedules.data, p->schedules.count, &p->groups, p->of_segment);
  EmitGroup *groups = ARENA_ARRAY(p->arena, EmitGroup, p->groups.groups.count + 1);
  for (size_t i = 0; i < p->groups.groups.count; i++)
    groups[i] = (EmitGroup){p->groups.groups.data[i].kernels, p->groups.groups.data[i].count};
  EmitStatistics alone;
  p->code = emit_compile(p->target, &kernels[count - 1], 1, 1, options->cache, &alone, err);
  if (!p->code) return false;
  p->grouped = emit_groups(p->target, kernels, count - 1, groups, p->groups.groups.count, options->threads, options->cache,
                           &p->compiled.kernels, err);
  p->compiled.kernels.compiled += alone.compiled;
  p->compiled.kernels.cached += alone.cached;
  return p->grouped != NULL;
}

static bool compile_kernels(Pipeline *p, const PipelineOptions *options, Err *err) {
  if (p->kernels.target.gpu) return compile_groups(p, options, err);
  p->code = emit_compile(p->target, (const LoopKernel *const *)p->kernels.kernels.data, p->kernels.kernels.count,
                         options->threads, options->cache, &p->compiled.kernels, err);
  return p->code != NULL;
}

const EmitImage *pipeline_image(const Pipeline *p, size_t kernel) {
  size_t count = p->kernels.kernels.count;
  if (kernel < count) return kernel + 1 < count ? NULL : emit_code_image(p->code, 0);
  return emit_group_image(p->grouped, kernel - count);
}

const EmitResources *pipeline_resources(const Compiled *compiled, uint32_t kernel) {
  const Pipeline *p = (const Pipeline *)compiled;
  const EmitImage *image = pipeline_image(p, kernel);
  return image ? &image->resources : emit_group_kernel(p->grouped, kernel);
}

Compiled *pipeline_compile(const Model *model, const PipelineOptions *options, Err *err) {
  Pipeline *p = memory_alloc(sizeof *p);
  p->arena = arena_new();
  Program *program = ARENA_NEW(p->arena, Program);
  p->compiled.program = program;
  bool done = pipeline_schedule(p, model, options, err) && compile_kernels(p, options, err);
  if (!done) {
    pipeline_free(&p->compiled);
    return NULL;
  }
  pipeline_fill_program(p, model, program);
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
  vector_free(&p->groups.groups);
  emit_groups_free(p->grouped);
  emit_code_free(p->code);
  emit_target_free(p->target);
  if (p->module) module_free_tables(p->module);
  arena_free(p->arena);
  free(p);
}

/* ---- text ---- */

static bool is_kernel_stage(const char *stage, EmitText *text) {
  static const struct {
    const char *name;
    EmitText text;
  } stages[] = {
      {"llvm", EMIT_LLVM}, {"asm", EMIT_ASM}, {"cuda", EMIT_CUDA}, {"ptx", EMIT_PTX}, {"cubin", EMIT_CUBIN},
  };
  for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
    if (!strcmp(stage, stages[i].name)) return *text = stages[i].text, true;
  return false;
}

static bool print_kernel(Pipeline *p, const LoopKernel *k, const char *stage, PipelineSink *sink, void *context, Err *err) {
  Text text = {0};
  EmitText form;
  bool done = true;
  if (is_kernel_stage(stage, &form))
    done = emit_text(p->target, k, form, &text, err);
  else
    loop_print(k, &text);
  done = done && sink(context, k->name, &text, err);
  text_free(&text);
  return done;
}

/* The kernels that a step launches, each once, in the order of their first launch. */
static bool print_kernels(Pipeline *p, const Schedule *schedule, bool *printed, const char *stage, PipelineSink *sink,
                          void *context, Err *err) {
  bool done = true;
  for (size_t i = 0; i < schedule->launches.count && done; i++) {
    int32_t kernel = schedule->launches.data[i].kernel;
    if (kernel < 0 || printed[kernel]) continue;
    printed[kernel] = true;
    done = print_kernel(p, p->kernels.kernels.data[kernel], stage, sink, context, err);
  }
  return done;
}

/* How many graph passes have run at that stage; -1: it is none of theirs. */
static int passes_before(const char *stage) {
  if (!strcmp(stage, "lower")) return 0;
  for (int i = 0; i < GRAPH_PASSES; i++)
    if (!strcmp(stage, pass_table[graph_passes[i]].name)) return i + 1;
  return strcmp(stage, "graph") != 0 ? -1 : GRAPH_PASSES;
}

static bool has_step(const Pipeline *p, const char *step, Err *err) {
  if (step ? module_find_step(p->module, step) != NULL : p->module->steps.count > 0) return true;
  return err_set(err, "there is no step %s", step ? step : "at all");
}

static bool print_graphs(Pipeline *p, const char *step, PipelineSink *sink, void *context, Err *err) {
  Text text = {0};
  if (!has_step(p, step, err)) return false;
  if (step)
    graph_print(module_find_step(p->module, step), &text);
  else
    module_print(p->module, &text);
  bool done = sink(context, NULL, &text, err);
  text_free(&text);
  return done;
}

static bool print_schedules(Pipeline *p, const char *stage, const char *step, PipelineSink *sink, void *context, Err *err) {
  bool done = true, *printed = ARENA_ARRAY(p->arena, bool, p->kernels.kernels.count + 1);
  for (size_t i = 0; done && i < p->schedules.count; i++)
    if (!step || !strcmp(step, p->schedules.data[i]->graph->name))
      done = print_kernels(p, p->schedules.data[i], printed, stage, sink, context, err);
  bool images = done && !step && p->kernels.target.gpu;
  if (images) done = print_kernel(p, p->kernels.kernels.data[p->kernels.kernels.count - 1], stage, sink, context, err);
  return done;
}

bool pipeline_explain(const Model *model, const PipelineOptions *options, const char *step, const MachineFigures *machine,
                      Text *out, FuseSavings *savings, Err *err) {
  Pipeline *p = memory_alloc(sizeof *p);
  p->arena = arena_new();
  bool done = pipeline_schedule(p, model, options, err) && has_step(p, step, err);
  for (size_t i = 0; done && i < p->schedules.count; i++)
    if (!step || strcmp(step, p->schedules.data[i]->graph->name) == 0)
      explain_fusion(p->schedules.data[i], machine, out, savings);
  pipeline_free(&p->compiled);
  return done;
}

bool pipeline_print(const Model *model, const PipelineOptions *options, const char *stage, const char *step, PipelineSink *sink,
                    void *context, Err *err) {
  Pipeline *p = memory_alloc(sizeof *p);
  p->arena = arena_new();
  int passes = passes_before(stage);
  bool fused = strcmp(stage, "fuse") == 0; /* by the options, and so for the target */
  bool done = fused         ? pipeline_schedule(p, model, options, err) && print_graphs(p, step, sink, context, err)
              : passes >= 0 ? pipeline_graphs(p, model, options, (size_t)passes, err) && print_graphs(p, step, sink, context, err)
                            : pipeline_schedule(p, model, options, err) && has_step(p, step, err) &&
                                  print_schedules(p, stage, step, sink, context, err);
  pipeline_free(&p->compiled);
  return done;
}
