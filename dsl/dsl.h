/* The front end's one entry: a file (with its imports and `--set` overrides) becomes a checked Model. */
#ifndef ADWP_DSL_DSL_H
#define ADWP_DSL_DSL_H

#include "dsl/model.h"
#include "runtime/base/err.h"

#include <stddef.h>

typedef struct DslOptions {
  const char *const
      *settings; /* "search.train=3": a declaration's kind or name, then the setting; values as the file writes them */
  size_t setting_count;
} DslOptions;

/* Reads, parses and checks the file at `path`. Imports come from the file's own folder and from the standard library that is
 * built in, and from nowhere else. Null: `diagnostics` holds at least one error. */
const Model *dsl_load(const char *path, const DslOptions *options, Arena *arena, Diagnostics *diagnostics);

/* The same from text in memory, for tests, fuzzing and a run folder's own model; imports: the standard library only. */
const Model *dsl_load_text(const char *name, const char *text, size_t size, const DslOptions *options, Arena *arena,
                           Diagnostics *diagnostics);

/* The model as one self-contained `.adwp` text with every default filled in; loading it gives the same model again. */
void dsl_print_model(const Model *model, Text *out);

/* The search's model as the JSON of `adwp_torch.py spec`. */
void dsl_print_spec(const Model *model, Text *out);

#endif
