/* The families' random specs for a CPU as machine code: on both levels, the bits that the Loop IR's interpreter leaves. Arguments
 * choose cases as in kernels_families_test. */
#include "tests/numeric/families/families.h"

#include "compiler/emit/emit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Level {
  EmitTarget *target; /* null: this machine cannot run it */
} Level;

static bool run_machine_code(void *context, Case *c, bool *take, Err *err) {
  (void)take;
  Level *level = (Level *)context + (c->target.lanes == 16);
  if (!level->target) return true;
  const LoopKernel *k = c->kernel;
  EmitCode *code = emit_compile(level->target, &k, 1, 1, NULL, NULL, err);
  if (!code) return err_wrap(err, "%s", c->text);
  size_t bytes = ((size_t)loop_scratch(k, NULL) + 127) / 64 * 64;
  void *scratch = aligned_alloc(64, bytes), **buffers = case_copies(c);
  memset(scratch, 0x7f, bytes);
  KernelArgs args = {buffers, scratch, c->batch};
  emit_code_function(code, 0)(&args, 0, c->tasks);
  bool same = case_same(c, buffers, err);
  case_copies_free(c, buffers);
  free(scratch);
  emit_code_free(code);
  return same;
}

int main(int argc, char **argv) {
  Err err;
  Level levels[2] = {{emit_target_new("x86-64-v3", false, &err)}, {emit_target_new("x86-64-v4", false, &err)}};
  FamilyOptions options = {.gpu = false, .every = 2, .hook = run_machine_code, .context = levels};
  bool ok = families_options(argc, argv, &options, &err) && families_run(&options, &err);
  if (!ok) fprintf(stderr, "%s\n", err.text);
  for (int i = 0; i < 2; i++) emit_target_free(levels[i].target);
  return !ok;
}
