/* The pass manager: passes by name, and a list of them run over a module. It asks what a pass needs before it runs, verifies
 * every graph afterwards, times it, and tells a watcher, which prints (`--dump`, `--time-passes`). Passes know nothing of it. */
#include "compiler/pass/pass.h"

#include <string.h>
#include <time.h>

typedef Graph *GraphPass(const Graph *graph);
typedef void ModulePass(Module *module);

const PassInfo pass_table[PASS_COUNT] = {
#define PASS(NAME, scope, purpose) {#NAME, purpose},
#include "compiler/pass/passes.def"
#undef PASS
};

/* One of both is null. */
typedef struct PassCode {
  GraphPass *graph;
  ModulePass *module;
} PassCode;

static const PassCode code[PASS_COUNT] = {
#define CODE_GRAPH(NAME)                                                                                                         \
  { .graph = pass_##NAME }
#define CODE_MODULE(NAME)                                                                                                        \
  { .module = pass_##NAME }
#define PASS(NAME, scope, purpose) CODE_##scope(NAME),
#include "compiler/pass/passes.def"
#undef PASS
};

int pass_find(const char *name, size_t length) {
  for (int i = 0; i < PASS_COUNT; i++)
    if (strlen(pass_table[i].name) == length && !strncmp(pass_table[i].name, name, length)) return i;
  return -1;
}

/* Rewrites may make several values of one; what comes out must be below what a graph may have. */
static bool has_room(const Module *module, Err *err) {
  enum { MOST_VALUES = 1 << 17 };
  for (size_t i = 0; i < module->steps.count; i++)
    if (module->steps.data[i]->nodes.count > MOST_VALUES)
      return err_set(err, "step %s has more than %d values", module->steps.data[i]->name, MOST_VALUES);
  return true;
}

static bool is_ready(int pass, const Module *module, Err *err) {
  bool ready = has_room(module, err);
  if (!ready) return false;
  switch (pass) {
  case PASS_autodiff:
    for (size_t i = 0; i < module->steps.count && ready; i++) ready = pass_autodiff_ready(module->steps.data[i], err);
    return ready;
  case PASS_hoist: return pass_hoist_ready(module, err);
  case PASS_layout: return pass_layout_ready(module, err);
  default: return true;
  }
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void demand_verified(int pass, const Module *module) {
  for (size_t i = 0; i < module->steps.count; i++) {
    const Graph *graph = module->steps.data[i];
    Err err = {{0}};
    if (graph_verify(graph, &err)) continue;
    Text text = {0};
    graph_print(graph, &text);
    die("after the pass %s the step %s does not verify: %s\n%s", pass_table[pass].name, graph->name, err.text, text.data);
  }
}

/* A module that had layouts before a pass has them behind it. */
static void run_pass(int pass, Module *module) {
  bool layouts = false;
  for (size_t i = 0; i < module->steps.count; i++) layouts |= graph_has_layouts(module->steps.data[i]);
  if (code[pass].module) code[pass].module(module);
  for (size_t i = 0; i < module->steps.count; i++) {
    Graph **step = &module->steps.data[i];
    Err err = {{0}};
    if (code[pass].graph) *step = code[pass].graph(*step);
    if (layouts && !graph_set_layouts(*step, &err)) die("after the pass %s: %s", pass_table[pass].name, err.text);
  }
}

bool passes_run(Module *module, const int *passes, size_t count, PassWatch *watch, void *context, Err *err) {
  for (size_t i = 0; i < count; i++) {
    if (!is_ready(passes[i], module, err)) return err_wrap(err, "the pass %s cannot run", pass_table[passes[i]].name);
    if (watch) watch(context, passes[i], module, -1);
    double start = seconds_now();
    run_pass(passes[i], module);
    double seconds = seconds_now() - start;
    demand_verified(passes[i], module);
    if (watch) watch(context, passes[i], module, seconds);
  }
  return true;
}
