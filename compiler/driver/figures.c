#include "compiler/driver/figures.h"

json_t *figures_json(const MachineFigures *figures) {
  MachineFigure list[MACHINE_FIGURES];
  machine_list(figures, list);
  json_t *object = json_pack("{s:b, s:i}", "measured", (int)figures->measured, "threads", (int)figures->threads);
  for (int i = 0; i < MACHINE_FIGURES; i++) json_object_set_new(object, list[i].name, json_real(list[i].value * list[i].unit));
  return object;
}

void figures_text(const MachineFigures *figures, Text *out) {
  MachineFigure list[MACHINE_FIGURES];
  machine_list(figures, list);
  for (int i = 0; i < MACHINE_FIGURES; i++) text_printf(out, "%s%.1f %s", i ? ", " : "", list[i].value, list[i].what);
}
