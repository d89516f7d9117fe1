/* From the oracle's description of a model to ours: its spec (JSON) as an `.adwp` text, and its parameters' names. */
#ifndef ADWP_TESTS_ORACLE_FIXTURE_MODEL_H
#define ADWP_TESTS_ORACLE_FIXTURE_MODEL_H

#include "dsl/model.h"
#include "runtime/base/err.h"

#include <stdint.h>

/* The checked model of the spec for square images of side `side` and steps of `batch` images, with the optimizers' settings that
 * every fixture has. Null: `err` says why, the front end's own messages among it. */
const Model *fixture_model(const char *spec, int64_t batch, int64_t side, Arena *arena, Err *err);

/* Our name of the oracle's parameter: "stem_bn.weight" is "stem.bn1.scale". */
const char *fixture_our_name(const char *oracle, Arena *arena);

#endif
