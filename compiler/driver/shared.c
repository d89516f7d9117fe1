/* Loading, compiling and writing, as all subcommands do it. */
#include "compiler/driver/driver.h"

#include "runtime/base/file.h"
#include "runtime/cuda.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { LARGEST_MODEL = 16 << 20 }; /* bytes of a run's model.adwp */

/* Prints what a stage had to say; true where the model is right. */
static bool report(Diagnostics *diagnostics, const Model *model) {
  if (diagnostics->out.length) fputs(diagnostics->out.data, stderr);
  text_free(&diagnostics->out);
  return model != NULL;
}

const Model *driver_load_model(const char *path, const SharedOptions *options, Arena *arena) {
  Diagnostics diagnostics = {0};
  DslOptions settings = {.settings = options->settings.data, .setting_count = options->settings.count};
  const Model *model = dsl_load(path, &settings, arena, &diagnostics);
  return report(&diagnostics, model) ? model : NULL;
}

const Model *driver_load_run(const char *folder, Arena *arena, Err *err) {
  const char *path = arena_printf(arena, "%s/model.adwp", folder);
  char *data;
  size_t size;
  if (!file_read(path, LARGEST_MODEL, &data, &size, err)) {
    err_wrap(err, "%s is not the folder of a run", folder);
    return NULL;
  }
  const char *text = arena_copy_string(arena, data, size);
  free(data);
  Diagnostics diagnostics = {0};
  DslOptions none = {0};
  const Model *model = dsl_load_text(path, text, size, &none, arena, &diagnostics);
  return report(&diagnostics, model) ? model : NULL;
}

bool driver_emulator(const SharedOptions *options, const char **path, Arena *arena, Err *err) {
  *path = NULL;
  if (strcmp(options->device, "cuda-emulator") != 0) return true;
  char *found = arena_alloc(arena, 4096);
  *path = found;
  return cuda_emulator_path(found, err);
}

bool driver_target(const SharedOptions *options, PipelineOptions *pipeline, Arena *arena, Err *err) {
  pipeline->device = options->device;
  pipeline->cpu = options->cpu;
  pipeline->precision = options->precision;
  pipeline->fuse = options->fuse;
  if (strcmp(options->device, "cuda") != 0) return true;
  CudaDevice device;
  if (!cuda_find(NULL, &device, err)) return err_wrap(err, "--device=cuda");
  pipeline->arch = arena_printf(arena, "%s", device.arch);
  return true;
}

Compiled *driver_compile(const Model *model, const SharedOptions *options, unsigned steps, const KeptOperations *kept,
                         bool verbose, Err *err) {
  double start = driver_seconds();
  Arena *arena = arena_new();
  Architecture architecture = {0};
  if (kept) architecture = (Architecture){kept->cell_count, kept->node_count, kept->candidate_count, kept->kept};
  PipelineOptions pipeline = {.steps = steps,
                              .architecture = kept ? &architecture : NULL,
                              .cache = options->no_cache ? NULL : emit_cache_folder(arena),
                              .threads = options->threads};
  bool found = driver_target(options, &pipeline, arena, err);
  Compiled *compiled = found ? pipeline_compile(model, &pipeline, err) : NULL;
  arena_free(arena);
  if (compiled && verbose)
    fprintf(stderr, "%s: %zu kernels compiled and %zu from the cache, for %s, in %.2f s\n", model->name,
            compiled->kernels.compiled, compiled->kernels.cached, compiled->program->target, driver_seconds() - start);
  return compiled;
}

void driver_warn_of_cache(const Compiled *compiled) {
  if (!compiled->kernels.cache_fault) return;
  Arena *arena = arena_new();
  fprintf(stderr, "adwp: warning: cannot use the kernel cache %s: %s\n", emit_cache_folder(arena), compiled->kernels.cache_fault);
  arena_free(arena);
}

void driver_warn_of_data(const Model *model, const char *data) {
  if (data && !strcmp(model->data.format, "synthetic"))
    fprintf(stderr, "adwp: warning: the data of this model are synthetic, so --data %s is not used\n", data);
}

/* A device or a pipe is written to; a file is replaced as a whole. */
static bool is_special(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

bool driver_write(const char *path, const Text *text, Err *err) {
  if (path && !is_special(path)) return file_replace(path, text->data ? text->data : "", text->length, err);
  FILE *file = path ? fopen(path, "w") : stdout;
  if (!file) return err_set(err, "cannot write %s: %s", path, strerror(errno));
  bool done = (!text->length || fwrite(text->data, 1, text->length, file) == text->length) && fflush(file) == 0;
  if (!done) err_set(err, "cannot write %s: %s", path ? path : "to standard output", strerror(errno));
  if (path) fclose(file);
  return done;
}

double driver_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
