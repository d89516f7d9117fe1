/* The run folder: made, locked against a second process, and its model.adwp. The lock is the system's and goes with the process,
 * however that ends; the file `lock` itself stays and means nothing. */
#ifndef ADWP_RUNTIME_RUN_FOLDER_H
#define ADWP_RUNTIME_RUN_FOLDER_H

#include "runtime/base/err.h"

#include <stdbool.h>

typedef struct RunFolder RunFolder;

/* A fresh run: makes the folder where it is missing; one that holds a run already is an error. */
RunFolder *run_folder_begin(const char *path, Err *err);
/* A run to continue: one must be there. Removes what a killed process left half-written. */
RunFolder *run_folder_resume(const char *path, Err *err);
void run_folder_free(RunFolder *folder); /* null is allowed; unlocks */

const char *run_folder_path(const RunFolder *folder);
/* The path of a file in it; lives as long as `folder`. */
const char *run_folder_file(RunFolder *folder, const char *name);
bool run_folder_has(RunFolder *folder, const char *name);

/* Writes model.adwp, or where the run was begun but has no checkpoint yet, checks that it is this model's. */
bool run_folder_keep_model(RunFolder *folder, const char *model_text, bool may_replace, Err *err);

#endif
