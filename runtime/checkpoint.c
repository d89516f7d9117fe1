#include "runtime/checkpoint.h"

#include "runtime/base/arena.h"
#include "runtime/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT "adwp-checkpoint 1"
#define BEST "best."
#define LARGEST_FILE ((size_t)1 << 40)

enum { MOST_ENTRIES = 24 };

typedef struct Fetch {
  const Program *program;
  Executor *executor;
  const uint32_t *kept;      /* the parameters in the file */
  float *stored, *canonical; /* of the parameter that is being written */
} Fetch;

int64_t checkpoint_alpha_elements(const Program *program) {
  int64_t elements = 0;
  for (uint32_t i = 0; i < program->parameter_count; i++)
    if (program->parameters[i].kind == PROGRAM_ALPHA) elements += program->parameters[i].elements;
  return elements;
}

bool checkpoint_copy_alpha(const Program *program, Executor *executor, float *alpha, Err *err) {
  bool done = true;
  for (uint32_t i = 0; i < program->parameter_count && done; i++) {
    const ProgramParameter *parameter = &program->parameters[i];
    if (parameter->kind != PROGRAM_ALPHA) continue;
    float *stored = memory_alloc((size_t)parameter->elements * sizeof *stored);
    done = executor_read(executor, i, stored, err);
    if (done) program_to_canonical(parameter, stored, alpha);
    alpha += parameter->elements;
    free(stored);
  }
  return done;
}

static bool all_finite(const ProgramParameter *parameter, const float *values, Err *err) {
  int32_t bad = 0;
  for (int64_t n = 0; n < parameter->elements; n++) bad |= !isfinite(values[n]);
  return !bad || err_set(err,
                         "%s has values that are not finite: the run has diverged, and what lies there is its last good "
                         "checkpoint",
                         parameter->name);
}

static const void *fetch_canonical(void *context, size_t tensor, Err *err) {
  Fetch *fetch = context;
  uint32_t i = fetch->kept[tensor];
  const ProgramParameter *parameter = &fetch->program->parameters[i];
  if (!executor_read(fetch->executor, i, fetch->stored, err) || !all_finite(parameter, fetch->stored, err)) return NULL;
  program_to_canonical(parameter, fetch->stored, fetch->canonical);
  return fetch->canonical;
}

/* What search_enter computes is computed again, and not kept. */
static size_t list_kept(const Program *program, Arena *memory, uint32_t **kept) {
  *kept = ARENA_ARRAY(memory, uint32_t, program->parameter_count);
  size_t count = 0;
  for (uint32_t i = 0; i < program->parameter_count; i++)
    if (program->parameters[i].kind != PROGRAM_HOISTED) (*kept)[count++] = i;
  return count;
}

/* The kept parameters, then the best logits under names of their own. */
static size_t list_tensors(const Program *program, const SearchState *state, const uint32_t *kept, size_t kept_count,
                           Arena *memory, SafetensorsTensor **tensors) {
  *tensors = ARENA_ARRAY(memory, SafetensorsTensor, 2 * kept_count);
  size_t count = kept_count;
  const float *best = state->best_alpha;
  for (size_t i = 0; i < kept_count; i++) {
    const ProgramParameter *parameter = &program->parameters[kept[i]];
    SafetensorsTensor *tensor = &(*tensors)[i];
    tensor->name = parameter->name;
    tensor->type = SAFETENSORS_F32;
    tensor->rank = parameter->rank;
    for (int32_t d = 0; d < parameter->rank; d++) tensor->dims[d] = parameter->dims[d];
    if (parameter->kind != PROGRAM_ALPHA || state->best_epoch < 0) continue;
    (*tensors)[count] = *tensor;
    (*tensors)[count].name = arena_printf(memory, BEST "%s", parameter->name);
    (*tensors)[count++].data = best;
    best += parameter->elements;
  }
  return count;
}

typedef struct EntryList {
  Arena *memory;
  SafetensorsEntry entries[MOST_ENTRIES];
  size_t count;
} EntryList;

static void add_text(EntryList *list, const char *key, const char *value) {
  if (list->count == MOST_ENTRIES) die("more than %d entries in a checkpoint", MOST_ENTRIES);
  list->entries[list->count++] = (SafetensorsEntry){key, value};
}

static void add_integer(EntryList *list, const char *key, int64_t value) {
  add_text(list, key, arena_printf(list->memory, "%" PRId64, value));
}

static void add_real(EntryList *list, const char *key, double value) {
  add_text(list, key, arena_printf(list->memory, "%a", value));
}

static void add_state(EntryList *list, const Program *program, const SearchState *state) {
  add_text(list, "format", FORMAT);
  add_text(list, "model", program->name);
  add_text(list, "model_hash", program->model_hash);
  add_text(list, "target", program->target);
  add_text(list, "data_hash", state->data_hash.hex);
  add_text(list, "seed", arena_printf(list->memory, "%" PRIu64, program->search.seed));
  add_integer(list, "epoch", state->epoch);
  add_integer(list, "epoch_step", state->epoch_step);
  add_real(list, "epoch_loss", state->epoch_sums.loss);
  add_integer(list, "epoch_correct", state->epoch_sums.correct);
  add_integer(list, "epoch_steps", state->epoch_sums.steps);
  add_real(list, "line_loss", state->line_sums.loss);
  add_integer(list, "line_correct", state->line_sums.correct);
  add_integer(list, "line_steps", state->line_sums.steps);
  add_integer(list, "best_epoch", state->best_epoch);
  add_integer(list, "best_correct", state->best_correct);
  add_real(list, "best_loss", state->best_loss);
  add_integer(list, "metrics_bytes", state->metrics.bytes);
  add_text(list, "metrics_chain", arena_printf(list->memory, "%" PRIu64, state->metrics.chain));
}

bool checkpoint_write(const char *path, const Program *program, Executor *executor, const SearchState *state, Err *err) {
  int64_t largest = 0;
  for (uint32_t i = 0; i < program->parameter_count; i++)
    if (program->parameters[i].elements > largest) largest = program->parameters[i].elements;
  Arena *memory = arena_new();
  SafetensorsTensor *tensors;
  uint32_t *kept;
  size_t kept_count = list_kept(program, memory, &kept);
  size_t count = list_tensors(program, state, kept, kept_count, memory, &tensors);
  EntryList list = {.memory = memory};
  add_state(&list, program, state);
  Fetch fetch = {program, executor, kept, memory_alloc(2 * (size_t)largest * sizeof(float) + 1), NULL};
  fetch.canonical = fetch.stored + largest;
  bool done = safetensors_write(path, tensors, count, list.entries, list.count, fetch_canonical, &fetch, err);
  free(fetch.stored);
  arena_free(memory);
  return done;
}

static const char *need_text(const Safetensors *file, const char *key, Err *err) {
  const char *value = safetensors_metadata(file, key);
  if (!value) err_set(err, "%s is no checkpoint of a search: it has no metadata \"%s\"", safetensors_path(file), key);
  return value;
}

static bool need_same(const Safetensors *file, const char *key, const char *want, const char *advice, Err *err) {
  const char *value = need_text(file, key, err);
  if (!value) return false;
  return strcmp(value, want) == 0 || err_set(err, "the checkpoint %s does not fit: its %s is %.80s, and this run's is %s; %s",
                                             safetensors_path(file), key, value, want, advice);
}

static bool need_integer(const Safetensors *file, const char *key, int64_t least, int64_t most, int64_t *value, Err *err) {
  const char *text = need_text(file, key, err);
  if (!text) return false;
  char *end;
  errno = 0;
  *value = strtoll(text, &end, 10);
  return (!errno && end != text && !*end && *value >= least && *value <= most) ||
         err_set(err, "the checkpoint %s is damaged: its %s is \"%.40s\"", safetensors_path(file), key, text);
}

static bool need_real(const Safetensors *file, const char *key, double *value, Err *err) {
  const char *text = need_text(file, key, err);
  if (!text) return false;
  char *end;
  *value = strtod(text, &end);
  return (end != text && !*end && isfinite(*value)) ||
         err_set(err, "the checkpoint %s is damaged: its %s is \"%.40s\"", safetensors_path(file), key, text);
}

static bool read_identity(const Safetensors *file, const Program *program, const SearchState *state, bool move, Err *err) {
  char seed[32];
  snprintf(seed, sizeof seed, "%" PRIu64, program->search.seed);
  return need_same(file, "format", FORMAT, "another version of adwp wrote it", err) &&
         need_same(file, "model_hash", program->model_hash,
                   "it is of another model, or of other settings: resume with the model of its own run", err) &&
         (move ||
          need_same(file, "target", program->target, "resume with its --device or --cpu, on a machine that has it", err)) &&
         need_same(file, "seed", seed, "resume with the model of its own run", err) &&
         need_same(file, "data_hash", state->data_hash.hex, "resume with the images that the run began with: see --data", err);
}

static bool read_state(const Safetensors *file, const Program *program, SearchState *state, Err *err) {
  int64_t epoch, best_epoch, total = program->search.total;
  bool done = need_integer(file, "epoch", 0, total, &epoch, err) &&
              need_integer(file, "epoch_step", 0, INT32_MAX, &state->epoch_step, err) &&
              need_real(file, "epoch_loss", &state->epoch_sums.loss, err) &&
              need_integer(file, "epoch_correct", 0, INT64_MAX, &state->epoch_sums.correct, err) &&
              need_integer(file, "epoch_steps", 0, INT64_MAX, &state->epoch_sums.steps, err) &&
              need_real(file, "line_loss", &state->line_sums.loss, err) &&
              need_integer(file, "line_correct", 0, INT64_MAX, &state->line_sums.correct, err) &&
              need_integer(file, "line_steps", 0, INT64_MAX, &state->line_sums.steps, err) &&
              need_integer(file, "best_epoch", -1, total - 1, &best_epoch, err) &&
              need_integer(file, "best_correct", 0, INT64_MAX, &state->best_correct, err) &&
              need_real(file, "best_loss", &state->best_loss, err) &&
              need_integer(file, "metrics_bytes", 0, INT64_MAX, &state->metrics.bytes, err);
  if (!done) return false;
  const char *chain = need_text(file, "metrics_chain", err);
  if (!chain) return false;
  state->metrics.chain = strtoull(chain, NULL, 10);
  state->epoch = (int32_t)epoch;
  state->best_epoch = (int32_t)best_epoch;
  return true;
}

static bool write_canonical(const Program *program, Executor *executor, uint32_t i, const float *canonical, Err *err) {
  const ProgramParameter *parameter = &program->parameters[i];
  float *stored = memory_alloc((size_t)parameter->elements * sizeof *stored);
  program_to_stored(parameter, canonical, stored);
  bool done = executor_write(executor, i, stored, err);
  free(stored);
  return done;
}

static bool read_parameters(const Safetensors *file, const Program *program, Executor *executor, const SearchState *state,
                            Err *err) {
  float *best = state->best_alpha;
  for (uint32_t i = 0; i < program->parameter_count; i++) {
    const ProgramParameter *parameter = &program->parameters[i];
    if (parameter->kind == PROGRAM_HOISTED) continue;
    const SafetensorsTensor *tensor =
        safetensors_need(file, parameter->name, SAFETENSORS_F32, parameter->rank, parameter->dims, err);
    if (!tensor || !write_canonical(program, executor, i, tensor->data, err)) return false;
    if (parameter->kind != PROGRAM_ALPHA || state->best_epoch < 0) continue;
    char name[256];
    snprintf(name, sizeof name, BEST "%s", parameter->name);
    tensor = safetensors_need(file, name, SAFETENSORS_F32, parameter->rank, parameter->dims, err);
    if (!tensor) return false;
    memcpy(best, tensor->data, (size_t)parameter->elements * sizeof *best);
    best += parameter->elements;
  }
  return true;
}

bool checkpoint_read(const char *path, const Program *program, Executor *executor, bool move, SearchState *state, Err *err) {
  Safetensors *file = safetensors_read(path, LARGEST_FILE, true, err);
  if (!file) return err_wrap(err, "cannot resume");
  bool done = read_identity(file, program, state, move, err) && read_state(file, program, state, err) &&
              read_parameters(file, program, executor, state, err);
  safetensors_free(file);
  return done || err_wrap(err, "cannot resume");
}
