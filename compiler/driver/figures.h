/* The machine's figures as `adwp doctor` and `adwp profile` show them. */
#ifndef ADWP_COMPILER_DRIVER_FIGURES_H
#define ADWP_COMPILER_DRIVER_FIGURES_H

#include "compiler/machine.h"
#include "runtime/base/text.h"

#include <jansson.h>

/* {"measured": true, "threads": 2, "fma_one": 1.18e11, ...}: operations, bytes or seconds, none of them scaled. */
json_t *figures_json(const MachineFigures *figures);

/* "118.2 GFLOP/s of one thread, 236.3 GFLOP/s of all threads, ..." */
void figures_text(const MachineFigures *figures, Text *out);

#endif
