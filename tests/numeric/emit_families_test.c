/* The random specs of kernels_families_test.c as machine code: on both levels, the bits that the Loop IR's interpreter leaves.
 * (`exp` and `log` are the emitter's own polynomials: families that use them are compared to 1e-6.) */
#define FAMILIES_MACHINE_CODE
#include "tests/numeric/kernels_families_test.c"

#include "compiler/emit/emit.h"

static bool uses_polynomials(const LoopKernel *k) {
  for (size_t i = 0; i < k->code.count; i++)
    if (k->code.data[i].op == LOOP_EXP || k->code.data[i].op == LOOP_LOG) return true;
  return false;
}

static bool same(const float *a, const float *b, int64_t count, bool exactly) {
  if (exactly) return memcmp(a, b, (size_t)count * sizeof *a) == 0;
  for (int64_t i = 0; i < count; i++)
    if (!(fabsf(a[i] - b[i]) <= 1e-6f * (1 + fabsf(b[i])))) return false;
  return true;
}

static void run_machine_code(Case *c, const LoopKernel *k, int tasks, void **buffers) {
  Err err;
  EmitTarget *target = emit_target_new(c->lanes == 16 ? "x86-64-v4" : "x86-64-v3", false, &err);
  if (!target) return; /* this machine cannot run it */
  EmitCode *code = emit_compile(target, &k, 1, 1, NULL, NULL, &err);
  if (!code) fail_msg("%s, case %d: %s", c->family, c->number, err.text);
  size_t bytes = ((size_t)loop_scratch(k, NULL) + 127) / 64 * 64;
  void *scratch = aligned_alloc(64, bytes);
  memset(scratch, 0x7f, bytes);
  KernelArgs args = {buffers, scratch, c->batch};
  emit_code_function(code, 0)(&args, 0, tasks);
  for (int i = 0; i < c->count; i++)
    if (!same(buffers[i], c->buffers[i].data, c->buffers[i].count, !uses_polynomials(k)))
      fail_msg("%s, case %d: buffer %d differs from the interpreter's", c->family, c->number, i);
  free(scratch);
  emit_code_free(code);
  emit_target_free(target);
}
