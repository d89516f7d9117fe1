/* architecture: which of its candidates each node keeps, and the two forms in which files say it.
 *
 * `kept` has the extents [cell_count][node_count][candidate_count], the largest of each over the whole model; entries past a
 * node's own candidates are false. It is the layout that the compiler's lowering takes. */
#ifndef ADWP_RUNTIME_ARCHITECTURE_H
#define ADWP_RUNTIME_ARCHITECTURE_H

#include "runtime/base/arena.h"
#include "runtime/base/err.h"
#include "runtime/base/text.h"
#include "runtime/program.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct KeptOperations {
  int32_t cell_count, node_count, candidate_count; /* extents of `kept` */
  bool *kept;
} KeptOperations;

/* Nothing kept yet. */
KeptOperations *kept_new(const ProgramCell *cells, int32_t cell_count, Arena *arena);
bool *kept_node(const KeptOperations *kept, int32_t cell, int32_t node); /* this node's row of candidates */

/* Sets the `keep` largest of `logits` in `row`; ties go to the lower source, then to the operation that its space names first. */
void kept_discretise(const ProgramNode *node, const float *logits, int32_t keep, bool *row);

/* Draws `keep` of each node's candidates uniformly: the random architecture number `sample` of this seed. */
KeptOperations *kept_sample(const ProgramCell *cells, int32_t cell_count, int32_t keep, uint64_t seed, uint64_t sample,
                            Arena *arena);

/* Reads an arch.json. Each (operation, source) must be a candidate of its node; a node may keep from one to all of them. */
KeptOperations *kept_read(const char *path, const ProgramCell *cells, int32_t cell_count, Arena *arena, Err *err);

/* arch.json and arch.adwp as text. `name` is the model's and `space` that of its operations. */
void kept_print_json(const KeptOperations *kept, const ProgramCell *cells, const char *name, const char *space, Text *text);
void kept_print_adwp(const KeptOperations *kept, const ProgramCell *cells, const char *name, const char *space, Text *text);

#endif
