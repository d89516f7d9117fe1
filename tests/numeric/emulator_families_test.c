/* The families' random specs for a GPU as CUDA text on the emulator: in three orders of blocks and threads the very bits that the
 * Loop IR's interpreter leaves, without a race or an access outside. Cases are emitted and compiled some hundred at once.
 * Arguments choose cases as in kernels_gpu_families_test. As kernels_on_device it runs them on a GPU too (emulator_device.h). */
#include "tests/numeric/emulator_device.h"
#include "tests/numeric/families/families.h"

#include <stdlib.h>

typedef struct Waiting {
  VECTOR(Case *) cases;
  int ran, failed;
  Text messages;
} Waiting;

static bool run_case(const Case *c, CudaFunction function, int order, Err *err) {
  void **copies = case_copies(c);
  LoopBuffer buffers[CASE_MOST_BUFFERS];
  for (int i = 0; i < c->count; i++) buffers[i] = (LoopBuffer){copies[i], c->buffers[i].count};
  bool ok = device_run(function, c->kernel, buffers, c->batch, c->tasks, order, err) || err_wrap(err, "%s", c->text);
  for (int i = 0; ok && i < c->count; i++) {
    const CaseBuffer *b = &c->buffers[i];
    int64_t at = device_differs(b->element, copies[i], b->after, b->count, device_tolerance(c->kernel));
    if (at >= 0)
      ok = err_set(err, "%s, order %d: %s[%lld] differs from the interpreter's", c->text, order, c->kernel->arrays.data[i].name,
                   (long long)at);
  }
  case_copies_free(c, copies);
  return ok;
}

static void run_waiting(Waiting *w) {
  size_t count = w->cases.count;
  const LoopKernel **kernels = memory_alloc((count + 1) * sizeof(const LoopKernel *));
  CudaFunction *functions = memory_alloc((count + 1) * sizeof *functions);
  Err err;
  for (size_t i = 0; i < count; i++) kernels[i] = w->cases.data[i]->kernel;
  bool loaded = device_load(kernels, count, functions, &err);
  if (!loaded && w->failed++ < 8) text_printf(&w->messages, "%s\n", err.text);
  for (size_t i = 0; i < count; i++) {
    bool ok = true;
    for (int order = 0; loaded && ok && order < device_orders(); order++)
      ok = run_case(w->cases.data[i], functions[i], order, &err);
    w->ran++;
    if (!ok && w->failed++ < 8) text_printf(&w->messages, "%s\n", err.text);
    case_free(w->cases.data[i]);
  }
  w->cases.count = 0;
  free(kernels);
  free(functions);
}

static bool wait_for_others(void *context, Case *c, bool *take, Err *err) {
  (void)err;
  Waiting *w = context;
  *take = true;
  vector_push(&w->cases, c);
  if (w->cases.count == 256) run_waiting(w);
  return true;
}

int main(int argc, char **argv) {
  Waiting waiting = {0};
  FamilyOptions options = {.gpu = true, .hook = wait_for_others, .context = &waiting};
  Err err;
  bool ok = families_options(argc, argv, &options, &err) && families_run(&options, &err);
  if (!ok) fprintf(stderr, "%s\n", err.text);
  run_waiting(&waiting);
  if (waiting.failed) fprintf(stderr, "%d cases failed:\n%s", waiting.failed, waiting.messages.data);
  printf("%d cases on %s, %d failed\n", waiting.ran, device.arch, waiting.failed);
  ok = ok && !waiting.failed;
  vector_free(&waiting.cases);
  text_free(&waiting.messages);
  return !ok;
}
