#include "runtime/architecture.h"

#include "runtime/base/file.h"
#include "runtime/random.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_NODE = 2, LARGEST_FILE = 16 << 20 };

KeptOperations *kept_new(const ProgramCell *cells, int32_t cell_count, Arena *arena) {
  KeptOperations *kept = ARENA_NEW(arena, KeptOperations);
  kept->cell_count = cell_count;
  for (int32_t c = 0; c < cell_count; c++) {
    if (cells[c].node_count > kept->node_count) kept->node_count = cells[c].node_count;
    for (int32_t n = 0; n < cells[c].node_count; n++)
      if (cells[c].nodes[n].count > kept->candidate_count) kept->candidate_count = cells[c].nodes[n].count;
  }
  kept->kept = ARENA_ARRAY(arena, bool, (size_t)cell_count *(size_t)kept->node_count *(size_t)kept->candidate_count);
  return kept;
}

bool *kept_node(const KeptOperations *kept, int32_t cell, int32_t node) {
  return kept->kept + ((int64_t)cell * kept->node_count + node) * kept->candidate_count;
}

/* Whether candidate `a` stands before `b` where their logits are equal. */
static bool stands_before(const ProgramCandidate *a, const ProgramCandidate *b) {
  return a->source != b->source ? a->source < b->source : a->operation_index < b->operation_index;
}

void kept_discretise(const ProgramNode *node, const float *logits, int32_t keep, bool *row) {
  for (int32_t k = 0; k < node->count; k++) {
    int32_t better = 0;
    for (int32_t other = 0; other < node->count; other++)
      if (logits[other] > logits[k] ||
          (logits[other] == logits[k] && stands_before(&node->candidates[other], &node->candidates[k])))
        better++;
    row[k] = better < keep;
  }
}

KeptOperations *kept_sample(const ProgramCell *cells, int32_t cell_count, int32_t keep, uint64_t seed, uint64_t sample,
                            Arena *arena) {
  KeptOperations *kept = kept_new(cells, cell_count, arena);
  uint64_t draw = 0;
  for (int32_t c = 0; c < cell_count; c++)
    for (int32_t n = 0; n < cells[c].node_count; n++) {
      bool *row = kept_node(kept, c, n);
      int32_t count = cells[c].nodes[n].count;
      for (int32_t k = 0, wanted = keep < count ? keep : count; k < count; k++, draw++) {
        /* of the count - k candidates that are left, `wanted` are to be kept: this one with their ratio */
        bool take = random_below(seed, RANDOM_SAMPLE, sample, draw, (uint32_t)(count - k)) < (uint32_t)wanted;
        row[k] = take;
        wanted -= take;
      }
    }
  return kept;
}

static bool read_pair(const json_t *pair, const ProgramNode *node, bool *row, Err *err) {
  const char *operation = json_string_value(json_array_get(pair, 0));
  const json_t *source = json_array_get(pair, 1);
  if (json_array_size(pair) != 2 || !operation || !json_is_integer(source))
    return err_set(err, "an entry must be [\"OPERATION\", SOURCE]");
  for (int32_t k = 0; k < node->count; k++) {
    const ProgramCandidate *candidate = &node->candidates[k];
    if (strcmp(candidate->operation, operation) != 0 || candidate->source != json_integer_value(source)) continue;
    if (row[k]) return err_set(err, "%s(%d) stands there twice", operation, candidate->source);
    row[k] = true;
    return true;
  }
  Text known = {0};
  for (int32_t k = 0; k < node->count; k++)
    text_printf(&known, "%s%s(%d)", k ? ", " : "", node->candidates[k].operation, node->candidates[k].source);
  err_set(err, "the model has no %.64s(%lld) there, only %.600s", operation, (long long)json_integer_value(source), known.data);
  text_free(&known);
  return false;
}

static bool read_cell(const json_t *json, const ProgramCell *cell, const KeptOperations *kept, int32_t index, Err *err) {
  const char *kind = json_string_value(json_object_get(json, "kind")), *want = cell->reduction ? "reduction" : "normal";
  if (kind && strcmp(kind, want) != 0)
    return err_set(err, "it is a %s cell in the model and a %.32s cell in the file", want, kind);
  const json_t *nodes = json_object_get(json, "nodes");
  if (json_array_size(nodes) != (size_t)cell->node_count)
    return err_set(err, "it must have \"nodes\", an array of %d nodes", cell->node_count);
  for (int32_t n = 0; n < cell->node_count; n++) {
    const json_t *pairs = json_array_get(nodes, (size_t)n);
    if (!json_array_size(pairs))
      return err_set(err, "node %d: it must keep at least one operation, as an array of [\"OPERATION\", SOURCE]", n + FIRST_NODE);
    for (size_t i = 0; i < json_array_size(pairs); i++)
      if (!read_pair(json_array_get(pairs, i), &cell->nodes[n], kept_node(kept, index, n), err))
        return err_wrap(err, "node %d", n + FIRST_NODE);
  }
  return true;
}

static bool read_cells(const json_t *root, const ProgramCell *cells, int32_t cell_count, const KeptOperations *kept, Err *err) {
  const json_t *array = json_object_get(root, "cells");
  if (!json_is_array(array)) return err_set(err, "it is not an architecture: it has no array \"cells\"");
  if (json_array_size(array) != (size_t)cell_count)
    return err_set(err, "it has %zu cells, and the model has %d", json_array_size(array), cell_count);
  for (int32_t c = 0; c < cell_count; c++)
    if (!read_cell(json_array_get(array, (size_t)c), &cells[c], kept, c, err)) return err_wrap(err, "cell %d", c);
  return true;
}

static bool has_suffix(const char *text, const char *suffix) {
  size_t length = strlen(text), tail = strlen(suffix);
  return length >= tail && strcmp(text + length - tail, suffix) == 0;
}

KeptOperations *kept_read(const char *path, const ProgramCell *cells, int32_t cell_count, Arena *arena, Err *err) {
  char *data;
  size_t size;
  if (!file_read(path, LARGEST_FILE, &data, &size, err)) return NULL;
  json_error_t why;
  json_t *root = json_loadb(data, size, JSON_REJECT_DUPLICATES, &why);
  free(data);
  if (!root) {
    if (has_suffix(path, ".adwp"))
      err_set(err, "cannot read the architecture %s: it is the text for people; give the arch.json that was written beside it",
              path);
    else
      err_set(err, "cannot read the architecture %s: line %d, column %d: %s", path, why.line, why.column, why.text);
    return NULL;
  }
  KeptOperations *kept = kept_new(cells, cell_count, arena);
  bool done = read_cells(root, cells, cell_count, kept, err);
  json_decref(root);
  if (done) return kept;
  err_wrap(err, "cannot use the architecture %s", path);
  return NULL;
}

void kept_print_json(const KeptOperations *kept, const ProgramCell *cells, const char *name, const char *space, Text *text) {
  text_printf(text, "{\n  \"format\": \"adwp-architecture 1\",\n  \"model\": \"%s\",\n  \"space\": \"%s\",\n  \"cells\": [\n",
              name, space);
  for (int32_t c = 0; c < kept->cell_count; c++) {
    text_printf(text, "    {\"kind\": \"%s\", \"nodes\": [\n", cells[c].reduction ? "reduction" : "normal");
    for (int32_t n = 0; n < cells[c].node_count; n++) {
      const bool *row = kept_node(kept, c, n);
      const char *between = "";
      text_add(text, "      [");
      for (int32_t k = 0; k < cells[c].nodes[n].count; k++) {
        if (!row[k]) continue;
        text_printf(text, "%s[\"%s\", %d]", between, cells[c].nodes[n].candidates[k].operation,
                    cells[c].nodes[n].candidates[k].source);
        between = ", ";
      }
      text_add(text, n + 1 < cells[c].node_count ? "],\n" : "]\n");
    }
    text_add(text, c + 1 < kept->cell_count ? "    ]},\n" : "    ]}\n");
  }
  text_add(text, "  ]\n}\n");
}

void kept_print_adwp(const KeptOperations *kept, const ProgramCell *cells, const char *name, const char *space, Text *text) {
  text_printf(text,
              "# Found by a search of %s: every cell has operations of its own. Sources 0 and 1 are the outputs of the two\n",
              name);
  text_printf(text, "# cells before (the stem's, where there is none), 2 and up the cell's own nodes.\n");
  text_printf(text, "import \"%s.adwp\"\n\nnetwork %s {\n", space, name);
  for (int32_t c = 0; c < kept->cell_count; c++) {
    text_printf(text, "    cell %d %s {\n", c, cells[c].reduction ? "reduction" : "normal");
    for (int32_t n = 0; n < cells[c].node_count; n++) {
      const bool *row = kept_node(kept, c, n);
      const char *between = "";
      text_printf(text, "        node %d: ", n + FIRST_NODE);
      for (int32_t k = 0; k < cells[c].nodes[n].count; k++) {
        if (!row[k]) continue;
        text_printf(text, "%s%s(%d)", between, cells[c].nodes[n].candidates[k].operation, cells[c].nodes[n].candidates[k].source);
        between = " + ";
      }
      text_add(text, "\n");
    }
    text_printf(text, "        output concat(%d..%d)\n    }\n", FIRST_NODE, FIRST_NODE + cells[c].node_count - 1);
  }
  text_add(text, "}\n");
}
