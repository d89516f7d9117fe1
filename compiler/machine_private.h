/* Between machine.c, which keeps the machine's figures, and machine_measure.c, which measures them. */
#ifndef ADWP_COMPILER_MACHINE_PRIVATE_H
#define ADWP_COMPILER_MACHINE_PRIVATE_H

#include "compiler/machine.h"

/* Whether every figure is a number that a machine may have. */
bool machine_plausible(const MachineFigures *figures);

bool machine_store(const EmitTarget *target, const char *cache, const MachineFigures *figures, Err *err);

#endif
