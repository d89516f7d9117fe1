/* Every value that a step keeps in memory, as machine code computes it, against the reference interpreter: a small model, a
 * batch that is not full, no memory shared, so that the first value that differs names the operation that is wrong. */
#include "compiler/emit/emit.h"
#include "compiler/lower.h"
#include "compiler/pass/pass.h"
#include "compiler/pass/schedule.h"
#include "dsl/dsl.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char model_text[] = "import \"darts.adwp\"\n"
                                 "data shapes { format synthetic image 3 x 8 x 8 classes 5 split 50% train, 50% valid }\n"
                                 "generator predict = softmax -> fc(6) -> fc(weights)\n"
                                 "intensive small of darts keep 4 {\n"
                                 "  normal { node 2: sep_conv_3x3(0), avg_pool_3x3(1), identity(0), dil_conv_5x5(1)\n"
                                 "           node 3: max_pool_3x3(0), sep_conv_5x5(2), identity(2), dil_conv_3x3(1) }\n"
                                 "  reduction { node 2: sep_conv_5x5(0), max_pool_3x3(1), identity(0), dil_conv_3x3(1)\n"
                                 "              node 3: avg_pool_3x3(0), identity(1), sep_conv_3x3(2), dil_conv_5x5(0) }\n"
                                 "}\n"
                                 "hypernetwork net {\n"
                                 "  stem conv(3, 3*C) -> bn(affine)\n"
                                 "  cells 3 of small, channels C = 4, reduction at 1/3 and 2/3\n"
                                 "  predict conv weights by predict\n"
                                 "  head global_avg_pool -> linear(classes) -> cross_entropy\n"
                                 "}\n"
                                 "search net on shapes { train 2 epochs cross 3..4 total 5 epochs batch 5 }\n";

enum { BATCH = 4 };

static uint64_t state = 1;

static double draw(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(state >> 40) / (double)(1 << 24) * 2 - 1;
}

/* Row-major (O, I, ky, kx) or (M, N) in the order that kernels read; `back` the other way. Other shapes are as they are. */
static int64_t stored_index(const Type *conv, const Type *type, int64_t i) {
  if (conv) {
    int64_t inner = type->rank == 2 ? type->dims[1] : 1, n = i % inner, o[4];
    int64_t rest = i / inner;
    for (int d = 4; d-- > 0;) {
      o[d] = rest % conv->dims[d];
      rest /= conv->dims[d];
    }
    int64_t at = ((o[2] * conv->dims[3] + o[3]) * conv->dims[1] + o[1]) * conv->dims[0] + o[0];
    return n * (type_elements(*conv, 1)) + at;
  }
  if (type->rank == 2) return (i % type->dims[1]) * type->dims[0] + i / type->dims[1];
  return i;
}

static const Type *conv_of(const Type *type, const Type *generates) {
  return generates && generates->rank == 4 ? generates : type->rank == 4 ? type : NULL;
}

typedef struct Memory {
  float **storages;
  double **parameters;
} Memory;

static Memory memory_new(const Schedule *schedule, const Module *module) {
  Memory m = {memory_alloc(schedule->storages.count * sizeof(float *)),
              memory_alloc(module->parameters.count * sizeof(double *))};
  for (size_t i = 0; i < schedule->storages.count; i++)
    m.storages[i] = memory_alloc((size_t)schedule->storages.data[i].bytes + 64);
  for (size_t i = 0; i < module->parameters.count; i++) {
    const Parameter *p = &module->parameters.data[i];
    int64_t count = type_elements(p->type, 1);
    const Type *conv = conv_of(&p->type, &p->generates);
    m.parameters[i] = memory_alloc((size_t)count * sizeof(double));
    for (int64_t e = 0; e < count; e++) {
      float value = (float)(p->kind == PARAMETER_ADAM_SQUARE ? 0 : draw() * 0.5);
      m.parameters[i][e] = (double)value;
      m.storages[i][stored_index(conv, &p->type, e)] = value;
    }
  }
  return m;
}

static void memory_free(Memory m, const Schedule *schedule, const Module *module) {
  for (size_t i = 0; i < schedule->storages.count; i++) free(m.storages[i]);
  for (size_t i = 0; i < module->parameters.count; i++) free(m.parameters[i]);
  free(m.storages);
  free(m.parameters);
}

/* The relative error of a value in norm (values that cancel out to less than 1e-4 count as 1e-4, and a sum as the norm of its
 * `terms`); activations lie as (B, H, W, stride). */
static double difference(const Type *type, bool plain, const Place *place, const float *data, const double *expected,
                         double terms) {
  double error = 0, norm = terms * terms;
  int64_t count = type_elements(*type, BATCH), channels = type->dims[0],
          pixels = type->rank == 3 ? (int64_t)type->dims[1] * type->dims[2] : 1;
  for (int64_t i = 0; i < count; i++) {
    int64_t at = i;
    if (type->batched && type->rank > 0) {
      int64_t p = i % pixels, c = i / pixels % channels, b = i / pixels / channels;
      at = (b * pixels + p) * place->stride + c;
    } else if (!type->batched && !plain) {
      at = stored_index(conv_of(type, NULL), type, i);
    }
    double d = (double)data[place->offset + at] - expected[i];
    error += d * d;
    norm += expected[i] * expected[i];
  }
  return sqrt(error) / (sqrt(norm) + 1e-4 * sqrt((double)count));
}

/* What a GPU's library does with a launch's three matrices. */
static void multiply(const ProgramProduct *p, float *const *buffers) {
  int64_t m = p->m * (p->batch_m ? BATCH : 1), k = p->k * (p->batch_k ? BATCH : 1);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < p->n; j++) {
      double sum = (double)(p->beta * buffers[2][i * p->c.stride + j]);
      for (int64_t l = 0; l < k; l++)
        sum += (double)buffers[0][p->a.transposed ? l * p->a.stride + i : i * p->a.stride + l] *
               (double)buffers[1][p->b.transposed ? j * p->b.stride + l : l * p->b.stride + j];
      buffers[2][i * p->c.stride + j] = (float)sum;
    }
}

/* The norm of what a row_sum adds up; 0 for any other value. */
static double norm_of_terms(const Graph *graph, const GraphNode *node, const Interpretation *reference) {
  if (node->op != OP_ROW_SUM) return 0;
  int32_t columns = graph_type(graph, node->operands[0]).dims[1];
  const double *row = interpretation_value(reference, node->operands[0]) + (ptrdiff_t)node->attributes->index * columns;
  double squares = 0;
  for (int32_t i = 0; i < columns; i++) squares += row[i] * row[i];
  return sqrt(squares);
}

static void run_machine_code(const LoopKernel *kernel, KernelFunction *function, float *const *buffers, int64_t tasks) {
  size_t bytes = (size_t)loop_scratch(kernel, NULL) + 64;
  void *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
  KernelArgs args = {(void *const *)buffers, scratch, BATCH};
  function(&args, 0, tasks);
  free(scratch);
}

/* `code` null: with the Loop IR's interpreter, for a GPU. */
static void run(const Schedule *schedule, const EmitCode *code, const KernelSet *kernels, Memory m) {
  for (size_t i = 0; i < schedule->launches.count; i++) {
    const PlannedLaunch *launch = &schedule->launches.data[i];
    float *buffers[128];
    LoopBuffer checked[128];
    for (int32_t b = 0; b < launch->buffer_count; b++) {
      const Storage *storage = &schedule->storages.data[launch->buffers[b].storage];
      buffers[b] = m.storages[launch->buffers[b].storage] + launch->buffers[b].offset;
      checked[b] = (LoopBuffer){buffers[b], storage->bytes / 4 - launch->buffers[b].offset};
    }
    int64_t tasks = launch->each_task ? 1 : program_tasks(launch->images, launch->tasks, BATCH);
    Err err;
    if (launch->product)
      multiply(launch->product, buffers);
    else if (code)
      run_machine_code(kernels->kernels.data[launch->kernel], emit_code_function(code, (size_t)launch->kernel), buffers, tasks);
    else if (!loop_interpret(kernels->kernels.data[launch->kernel], checked, BATCH, 0, tasks, &err))
      fail_msg("%s", err.text);
  }
}

/* The machine code of a CPU's level, or null for the schedule of a GPU. False: this machine cannot run it. */
static bool start(const char *cpu, KernelSet *kernels, EmitTarget **target) {
  Err err;
  *target = NULL;
  kernels->target = (KernelTarget){true, 128, PRODUCTS_FP32};
  if (!cpu) return true;
  *target = emit_target_new(cpu, false, &err);
  if (*target) kernels->target = (KernelTarget){false, emit_target_lanes(*target), PRODUCTS_FP32};
  if (!*target) print_message("%s: skipped: %s\n", cpu, err.text);
  return *target != NULL;
}

static void check_step(const Model *model, unsigned step, const char *cpu, FuseOptions fuse, const char *cache) {
  Arena *arena = arena_new();
  Err err;
  KernelSet kernels = {.arena = arena, .fuse = fuse};
  EmitTarget *target;
  if (!start(cpu, &kernels, &target)) {
    arena_free(arena);
    return;
  }
  Module *module = lower_model(model, step, NULL, arena);
  const Graph *graph = pass_sums(module->steps.data[0]);
  Schedule *schedule = schedule_graph(graph, &kernels, arena);
  EmitCode *code = NULL;
  if (target)
    code = emit_compile(target, (const LoopKernel *const *)kernels.kernels.data, kernels.kernels.count, 2, cache, NULL, &err);
  if (target && !code) fail_msg("%s", err.text);
  Memory m = memory_new(schedule, module);
  double x[5 * 3 * 8 * 8], y[5], rate = 0.025, corrections[3] = {3e-4, 0.5, 0.001};
  NamedTensor inputs[] = {{"x", x}, {"y", y}, {"rate", &rate}, {"alpha.corrections", corrections}};
  for (int i = 0; i < BATCH * 192; i++) x[i] = (double)(float)draw();
  for (int i = 0; i < BATCH; i++) y[i] = i;
  for (size_t i = 0; i < schedule->inputs.count; i++) {
    const NamedPlace *in = &schedule->inputs.data[i];
    float *to = m.storages[in->place.storage];
    if (!strcmp(in->name, "x"))
      for (int e = 0; e < BATCH * 192; e++) to[(e / 192 * 64 + e % 64) * 3 + e / 64 % 3] = (float)x[e];
    else if (!strcmp(in->name, "y"))
      for (int e = 0; e < BATCH; e++) ((int32_t *)(void *)to)[e] = e;
    else if (!strcmp(in->name, "rate"))
      to[0] = (float)rate;
    else
      for (int e = 0; e < 3; e++) to[e] = (float)corrections[e];
  }
  run(schedule, code, &kernels, m);
  Interpretation *reference = graph_interpret(graph, BATCH, inputs, 4, m.parameters, &err);
  if (!reference) fail_msg("%s", err.text);
  int compared = 0, wrong = 0;
  for (size_t v = 0; v < graph->nodes.count && wrong < 5; v++) {
    const GraphNode *node = &graph->nodes.data[v];
    const Place *place = &schedule->places[v];
    bool updated = place->storage >= 0 && schedule->storages.data[place->storage].parameter >= 0;
    bool plain = node->op == OP_BN_MOMENTS || node->op == OP_BN_GRAD_SUMS;
    bool matrix = (node->type.rank == 2 && !plain) || (node->op == OP_RESHAPE && node->type.rank != 4);
    if (place->storage < 0 || updated || node->op == OP_INPUT || node->op == OP_SHIFT) continue;
    if (!node->type.batched && matrix) continue;                                          /* in the order of what reads it */
    bool generated = node->op == OP_LINEAR || node->op == OP_SCALE || node->op == OP_ADD; /* vectors that become weights */
    if (generated && !node->type.batched && node->type.rank == 1 && node->type.dims[0] > 6) continue;
    double error = difference(&node->type, plain, place, m.storages[place->storage], interpretation_value(reference, (ValueId)v),
                              norm_of_terms(graph, node, reference));
    compared++;
    if (!(error < 1e-3)) {
      wrong++;
      const GraphNode *first = graph_node(graph, node->operands[0]);
      print_message("%s: value %zu, %s of %s (kept %d): error %g\n", graph->name, v, op_table[node->op].text,
                    op_table[first->op].text, schedule->places[node->operands[0]].storage, error);
      if (node->op == OP_CONV)
        print_message("  kernel %d, stride %d, dilation %d, pad %d, groups %d\n", node->attributes->window.kernel_y,
                      node->attributes->window.stride_y, node->attributes->window.dilation, node->attributes->window.pad_y,
                      node->attributes->window.groups);
    }
  }
  assert_int_equal(wrong, 0);
  assert_true(compared > 100);
  memory_free(m, schedule, module);
  interpretation_free(reference);
  emit_code_free(code);
  if (target) emit_target_free(target);
  schedule_free(schedule);
  for (size_t i = 0; i < kernels.kernels.count; i++) loop_free_tables(kernels.kernels.data[i]);
  vector_free(&kernels.kernels);
  free(kernels.keys);
  module_free_tables(module);
  arena_free(arena);
}

static void test_values(void **unused) {
  (void)unused;
  Arena *arena = arena_new();
  Diagnostics diagnostics = {0};
  const Model *model = dsl_load_text("values.adwp", model_text, strlen(model_text), NULL, arena, &diagnostics);
  if (!model) fail_msg("%s", diagnostics.out.data);
  const char *const cpus[] = {"x86-64-v3", "x86-64-v4", NULL};
  char cache[] = "/tmp/adwp-values-XXXXXX";
  assert_non_null(mkdtemp(cache));
  for (int i = 0; i < 3; i++) {
    check_step(model, STEP_EVAL, cpus[i], (FuseOptions){0}, cache);
    check_step(model, STEP_GRADIENT, cpus[i], (FuseOptions){0}, cache);
    check_step(model, STEP_CROSS, cpus[i], (FuseOptions){0}, cache);
  }
  for (int pattern = 0; pattern < FUSE_PATTERN_COUNT; pattern++)
    check_step(model, pattern % 2 ? STEP_GRADIENT : STEP_CROSS, cpus[0], (FuseOptions){.without = 1U << pattern}, cache);
  check_step(model, STEP_CROSS, cpus[0], (FuseOptions){.without = (1U << FUSE_PATTERN_COUNT) - 1}, cache);
  for (int form = 0; form < GENERATE_COUNT; form++)
    check_step(model, form % 2 ? STEP_SEARCH : STEP_CROSS, cpus[0], (FuseOptions){.generate = (FuseGenerate)form}, cache);
  check_step(model, STEP_SEARCH, cpus[0], (FuseOptions){.generate = GENERATE_VERTICAL}, cache);
  char *remove = NULL;
  assert_true(asprintf(&remove, "rm -rf %s", cache) > 0);
  assert_int_equal(system(remove), 0);
  free(remove);
  text_free(&diagnostics.out);
  arena_free(arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_values)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
