/* layout: writes into every type in which order kernels keep its elements: images (height, width, channel), weights of
 * convolutions (ky, kx, in, out), matrices transposed, and the rows of a generator's last layer in the order of the weights that
 * they become, so that a generated weight lies where its kernel reads it without being moved. compiler/graph/layout.c has the
 * rules; files hold the canonical order, and the interpreter computes in it.
 *
 * Needs: orders that meet (pass_layout_ready). Breaks: nothing; behind a pass that runs later the manager sets them again. */
#include "compiler/pass/pass.h"

bool pass_layout_ready(const Module *module, Err *err) {
  for (size_t i = 0; i < module->steps.count; i++) {
    Graph *trial = graph_copy(module->steps.data[i], NULL, NULL);
    if (!graph_set_layouts(trial, err)) return false;
  }
  return true;
}

void pass_layout(Module *module) {
  for (size_t i = 0; i < module->parameters.count; i++) {
    Parameter *p = &module->parameters.data[i];
    p->type.layout = (uint8_t)parameter_layout(p);
  }
  for (size_t i = 0; i < module->steps.count; i++) {
    Graph *graph = graph_copy(module->steps.data[i], NULL, NULL);
    Err err = {{0}};
    if (!graph_set_layouts(graph, &err)) die("%s", err.text);
    module->steps.data[i] = graph;
  }
}
