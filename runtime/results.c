#include "runtime/results.h"

#include "runtime/architecture.h"
#include "runtime/base/arena.h"
#include "runtime/base/file.h"
#include "runtime/base/text.h"
#include "runtime/checkpoint.h"
#include "runtime/parameter_file.h"

#include <stdlib.h>
#include <string.h>

/* The logits of one node inside `alpha`; null: the program has none of this name. */
static const float *node_logits(const Program *program, const float *alpha, int32_t cell, int32_t node) {
  char name[64];
  snprintf(name, sizeof name, "alpha.%d.%d", cell, node);
  for (uint32_t i = 0; i < program->parameter_count; i++) {
    const ProgramParameter *parameter = &program->parameters[i];
    if (parameter->kind != PROGRAM_ALPHA) continue;
    if (strcmp(parameter->name, name) == 0) return alpha;
    alpha += parameter->elements;
  }
  return NULL;
}
