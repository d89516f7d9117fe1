#include "runtime/results.h"

#include "runtime/architecture.h"
#include "runtime/base/arena.h"
#include "runtime/base/file.h"
#include "runtime/base/text.h"
#include "runtime/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The parameters that weights.safetensors holds: the weights, and logits that lie in `alpha`. */
typedef struct Chosen {
  const Program *program;
  Executor *executor;
  uint32_t *parameters;      /* one a tensor */
  float *stored, *canonical; /* of the weight that is being written */
} Chosen;

/* The logits of one node inside `alpha`. */
static const float *node_logits(const Program *program, const float *alpha, int32_t cell, int32_t node, int32_t candidates) {
  char name[64];
  snprintf(name, sizeof name, "alpha.%d.%d", cell, node);
  for (uint32_t i = 0; i < program->parameter_count; i++) {
    const ProgramParameter *parameter = &program->parameters[i];
    if (parameter->kind != PROGRAM_ALPHA) continue;
    if (strcmp(parameter->name, name) == 0 && parameter->elements == candidates) return alpha;
    alpha += parameter->elements;
  }
  die("the program has no logits %s of %d candidates", name, candidates);
}

static const void *fetch_weight(void *context, size_t tensor, Err *err) {
  Chosen *chosen = context;
  uint32_t parameter = chosen->parameters[tensor];
  if (!executor_read(chosen->executor, parameter, chosen->stored, err)) return NULL;
  program_to_canonical(&chosen->program->parameters[parameter], chosen->stored, chosen->canonical);
  return chosen->canonical;
}

static bool write_weights(const char *path, const Program *program, Executor *executor, const float *alpha, Arena *memory,
                          Err *err) {
  SafetensorsTensor *tensors = ARENA_ARRAY(memory, SafetensorsTensor, program->parameter_count);
  Chosen chosen = {program, executor, ARENA_ARRAY(memory, uint32_t, program->parameter_count), NULL, NULL};
  size_t count = 0;
  int64_t largest = 0;
  for (uint32_t i = 0; i < program->parameter_count; i++) {
    const ProgramParameter *parameter = &program->parameters[i];
    if (parameter->kind != PROGRAM_WEIGHT && parameter->kind != PROGRAM_ALPHA) continue;
    SafetensorsTensor *tensor = &tensors[count];
    chosen.parameters[count++] = i;
    *tensor = (SafetensorsTensor){.name = parameter->name, .type = SAFETENSORS_F32, .rank = parameter->rank};
    for (int32_t d = 0; d < parameter->rank; d++) tensor->dims[d] = parameter->dims[d];
    if (parameter->elements > largest) largest = parameter->elements;
    if (parameter->kind == PROGRAM_WEIGHT) continue;
    tensor->data = alpha;
    alpha += parameter->elements;
  }
  const SafetensorsEntry metadata[] = {
      {"format", WEIGHTS_FORMAT},
      {"model", program->name},
      {"model_hash", program->model_hash},
      {"target", program->target},
      {"seed", arena_printf(memory, "%" PRIu64, program->search.seed)},
  };
  chosen.stored = memory_alloc(2 * (size_t)largest * sizeof(float) + 1);
  chosen.canonical = chosen.stored + largest;
  bool done = safetensors_write(path, tensors, count, metadata, sizeof metadata / sizeof *metadata, fetch_weight, &chosen, err);
  free(chosen.stored);
  return done;
}

static bool write_text(const char *path, const Text *text, Err *err) {
  return file_replace(path, text->data, text->length, err);
}

bool results_write(const char *folder, const Program *program, Executor *executor, const float *alpha, Err *err) {
  Arena *memory = arena_new();
  KeptOperations *kept = kept_new(program->cells, program->cell_count, memory);
  for (int32_t c = 0; c < program->cell_count; c++)
    for (int32_t n = 0; n < program->cells[c].node_count; n++) {
      const ProgramNode *node = &program->cells[c].nodes[n];
      kept_discretise(node, node_logits(program, alpha, c, n, node->count), program->search.keep, kept_node(kept, c, n));
    }
  Text json = {0}, adwp = {0};
  kept_print_json(kept, program->cells, program->name, program->space, &json);
  kept_print_adwp(kept, program->cells, program->name, program->space, &adwp);
  bool done = write_weights(arena_printf(memory, "%s/weights.safetensors", folder), program, executor, alpha, memory, err) &&
              write_text(arena_printf(memory, "%s/arch.adwp", folder), &adwp, err) &&
              write_text(arena_printf(memory, "%s/arch.json", folder), &json, err);
  text_free(&json);
  text_free(&adwp);
  arena_free(memory);
  return done;
}
