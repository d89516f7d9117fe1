/* The model of a search as JSON: cells, channels, classes and the pairs of the intensive-space, where nodes count from 0 and
 * what has its usual value is left out. Names are words of the language, so nothing needs escaping. */
#include "dsl/check.h"
#include "dsl/dsl.h"

static void print_cell(Text *out, const CellSpace *cell) {
  text_add(out, "[");
  for (int j = 0; j < cell->count; j++) {
    text_add(out, j ? ",\n   [" : "\n   [");
    for (int k = 0; k < cell->nodes[j].count; k++)
      text_printf(out, "%s[\"%s\", %d]", k ? ", " : "", cell->nodes[j].pairs[k].entry->name.text, cell->nodes[j].pairs[k].source);
    text_add(out, "]");
  }
  text_add(out, "]");
}

static void print_reductions(const Model *model, Text *out) {
  int count = model->cell_count;
  bool usual = true;
  for (int l = 0; l < count; l++) usual &= model->cells[l].reduction == (l == count / 3 || l == 2 * count / 3);
  if (usual) return;
  text_add(out, " \"reduce\": [");
  const char *comma = "";
  for (int l = 0; l < count; l++) {
    if (!model->cells[l].reduction) continue;
    text_printf(out, "%s%d", comma, l);
    comma = ", ";
  }
  text_add(out, "],\n");
}

void dsl_print_spec(const Model *model, Text *out) {
  const IntensiveSpace *pairs = model->syntax->pairs;
  text_printf(out, "{\n \"cells\": %d,\n \"channels\": %d,\n \"classes\": %d,\n", model->cell_count, model->channels,
              model->data.classes);
  if (model->data.image.channels != 3) text_printf(out, " \"in_channels\": %d,\n", model->data.image.channels);
  if (model->stem_multiplier != 3) text_printf(out, " \"stem_multiplier\": %d,\n", model->stem_multiplier);
  if (model->generator.hidden != 64) text_printf(out, " \"hidden\": %d,\n", model->generator.hidden);
  if (model->generator.activation == ACTIVATION_RELU) text_add(out, " \"relu\": true,\n");
  print_reductions(model, out);
  text_add(out, " \"intensive\": {\n  \"normal\": ");
  print_cell(out, &pairs->kinds[0]);
  text_add(out, ",\n  \"reduce\": ");
  print_cell(out, &pairs->kinds[1]);
  text_add(out, "\n }\n}\n");
}
