/* The loop of Algorithm 1. A run's position is (epoch, steps of it that are done); everything that a step does is a function of
 * the position, the seed and the state that a checkpoint holds, so stopping anywhere between two steps changes nothing.
 *
 * As many steps as the executor's depth are started before the first one's results are read; the position is that of the steps
 * whose results have been. Nothing is under way while the logits are set, validated or written, or a checkpoint is. */
#include "runtime/search.h"

#include "runtime/base/arena.h"
#include "runtime/base/text.h"
#include "runtime/checkpoint.h"
#include "runtime/dataset.h"
#include "runtime/draw.h"
#include "runtime/evaluate.h"
#include "runtime/executor.h"
#include "runtime/loader.h"
#include "runtime/metrics.h"
#include "runtime/results.h"
#include "runtime/run_folder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef enum Stage { STAGE_TRAIN, STAGE_SEARCH, STAGE_CROSS } Stage;
static const char *const stage_names[] = {"train", "search", "cross"};

typedef struct Search {
  const Program *program;
  const SearchOptions *options;
  Arena *memory;
  RunFolder *folder;
  Executor *executor;
  Dataset *dataset;
  Feed *feed;
  Metrics *metrics;
  const ProgramStep *steps[3];     /* one a Stage; null where no epoch uses it */
  const ProgramStep *eval, *enter; /* enter: search_enter, null where nothing is hoisted */
  bool entered;                    /* search_enter has run since the weights last changed */
  int64_t epoch_steps;             /* steps of an epoch */
  const char *checkpoint;
  SearchState state;                                 /* after the steps whose results have been read */
  int64_t queued, oldest;                            /* steps under way, which follow `state`, and the run of the first of them */
  double started, epoch_started, checkpoint_written; /* seconds of the monotonic clock */
  int64_t checkpoint_step; /* of the run, that the last checkpoint was written after; -1: none in this process */
} Search;

static double now_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool must_stop(const Search *search) {
  return search->options->stop && *search->options->stop;
}

static Stage stage_of(const ProgramSearch *plan, int32_t epoch) {
  if (epoch < plan->train) return STAGE_TRAIN;
  return epoch >= plan->cross_start && epoch < plan->cross_end ? STAGE_CROSS : STAGE_SEARCH;
}

static double rate_of(const ProgramSearch *plan, int32_t epoch) {
  return plan->lr_end + (plan->lr_start - plan->lr_end) * (1 + cos(M_PI * epoch / plan->total)) / 2;
}

/* How many steps of the run are done. */
static int64_t run_step(const Search *search) {
  return search->state.epoch * search->epoch_steps + search->state.epoch_step;
}

/* `after` is what the message ends with; err holds what went wrong. */
static bool stop_at_bad_value(Search *search, const char *what, double value, Err *err) {
  const SearchState *state = &search->state;
  err_set(err, "%s is %s at step %lld of epoch %d/%d (step %lld of the run)", what, isnan(value) ? "not a number" : "infinite",
          (long long)state->epoch_step, state->epoch + 1, search->program->search.total, (long long)run_step(search));
  size_t length = strlen(err->text);
  bool has = run_folder_has(search->folder, "checkpoint.safetensors");
  snprintf(err->text + length, sizeof err->text - length,
           has ? "; the last good checkpoint is %s; a lower learning rate may help"
               : "; there is no checkpoint yet (%s); a lower learning rate may help",
           search->checkpoint);
  return false;
}

static bool write_checkpoint(Search *search, Err *err) {
  if (!metrics_position(search->metrics, &search->state.metrics, err) ||
      !checkpoint_write(search->checkpoint, search->program, search->executor, &search->state, err))
    return err_wrap(err, "after step %lld of the run", (long long)run_step(search));
  search->checkpoint_written = now_seconds();
  search->checkpoint_step = run_step(search);
  return true;
}

/* Of the position after the steps that are under way. */
static bool checkpoint_is_due(const Search *search) {
  const SearchOptions *options = search->options;
  int64_t step = run_step(search) + search->queued;
  if (options->checkpoint_steps > 0 && step % options->checkpoint_steps == 0) return true;
  return options->checkpoint_minutes > 0 && now_seconds() - search->checkpoint_written > 60 * options->checkpoint_minutes;
}

static bool set_input(Search *search, const ProgramStep *step, const char *name, const float *values, int64_t count, Err *err) {
  return !program_find_input(step, name) || executor_input(search->executor, step, name, values, count, err);
}

/* The inputs of step `step_number` of the run. */
static bool set_scalars(Search *search, const ProgramStep *step, Stage stage, int64_t step_number, Err *err) {
  const ProgramSearch *plan = &search->program->search;
  float rate = (float)rate_of(plan, search->state.epoch);
  if (!set_input(search, step, "rate", &rate, 1, err)) return false;
  if (stage == STAGE_TRAIN) return true;
  double t = (double)(step_number - plan->train * search->epoch_steps + 1); /* this update of the logits, counted from 1 */
  const float corrections[3] = {(float)plan->alpha_lr, (float)(1 - pow(plan->alpha_beta1, t)),
                                (float)(1 - pow(plan->alpha_beta2, t))};
  return set_input(search, step, "alpha.corrections", corrections, 3, err);
}

/* Starts the step that follows those under way. */
static bool start_step(Search *search, Stage stage, Err *err) {
  const Program *program = search->program;
  const ProgramStep *step = search->steps[stage];
  int64_t number = run_step(search) + search->queued;
  if (feed_next(search->feed, step, err) < 0) return false;
  if (stage == STAGE_TRAIN &&
      !draw_random_alpha(program, search->executor, program->search.seed, number, program->search.alpha_scale, err))
    return false;
  if (!set_scalars(search, step, stage, number, err)) return false;
  int64_t run = executor_run(search->executor, step, program->search.batch, err);
  if (run < 0) return false;
  if (!search->queued++) search->oldest = run;
  return true;
}

/* A result of the oldest step under way. Null: `err`, or where the step has no such result `*missing`. */
static const float *oldest_result(Search *search, Stage stage, const char *name, bool *missing, Err *err) {
  const ProgramStep *step = search->steps[stage];
  *missing = !program_find_result(step, name);
  return *missing ? NULL : executor_result(search->executor, step, search->oldest, name, err);
}

static bool scalar_result(Search *search, Stage stage, const char *name, double *value, Err *err) {
  bool missing;
  const float *found = oldest_result(search, stage, name, &missing, err);
  *value = found ? (double)*found : 0;
  return found || missing;
}

static bool count_correct(Search *search, Stage stage, int64_t *correct, Err *err) {
  bool missing;
  const float *right = oldest_result(search, stage, "correct", &missing, err);
  *correct = 0;
  for (int32_t i = 0; right && i < search->program->search.batch; i++) *correct += right[i] > 0;
  return right || missing;
}

/* One line, of the steps in `sums`; `more` is appended inside it. */
static bool add_line(Search *search, const char *kind, Stage stage, const StepSums *sums, const char *more, Err *err) {
  double images = (double)sums->steps * search->program->search.batch;
  if (!metrics_add(
          search->metrics, err,
          "{\"kind\":\"%s\",\"stage\":\"%s\",\"epoch\":%d,\"step\":%lld,\"loss\":%.9g,\"accuracy\":%.9g,\"rate\":%.9g%s}", kind,
          stage_names[stage], search->state.epoch, (long long)run_step(search), sums->loss / (double)sums->steps,
          (double)sums->correct / images, rate_of(&search->program->search, search->state.epoch), more))
    return false;
  return metrics_add_time(search->metrics, err,
                          "{\"kind\":\"%s\",\"epoch\":%d,\"step\":%lld,\"seconds\":%.3f,\"images_per_second\":%.1f}", kind,
                          search->state.epoch, (long long)run_step(search), now_seconds() - search->started,
                          progress_images_per_second(search->options->progress));
}

static void show_progress(Search *search, const char *stage) {
  const SearchState *state = &search->state;
  const ProgramSearch *plan = &search->program->search;
  double steps = state->epoch_sums.steps ? (double)state->epoch_sums.steps : 1;
  ProgressState shown = {.stage = stage,
                         .epoch = state->epoch,
                         .epochs = plan->total,
                         .step = state->epoch_step,
                         .steps = search->epoch_steps,
                         .run_step = run_step(search),
                         .run_steps = plan->total * search->epoch_steps,
                         .batch = plan->batch,
                         .loss = state->epoch_sums.loss / steps,
                         .accuracy = (double)state->epoch_sums.correct / (steps * plan->batch)};
  progress_step(search->options->progress, &shown);
}

/* Waits for the oldest step under way, with which the position moves on: sums, lines and progress are of steps in their order,
 * however many are under way. */
static bool settle_step(Search *search, Stage stage, Err *err) {
  SearchState *state = &search->state;
  int64_t metric_steps = search->options->metric_steps, correct;
  double loss, norm;
  if (!scalar_result(search, stage, "loss", &loss, err) || !scalar_result(search, stage, "norm", &norm, err) ||
      !count_correct(search, stage, &correct, err))
    return false;
  search->queued--;
  search->oldest++;
  state->epoch_step++;
  if (!isfinite(loss)) return stop_at_bad_value(search, "the loss", loss, err);
  if (!isfinite(norm)) return stop_at_bad_value(search, "the gradient's norm", norm, err);
  StepSums *sums[] = {&state->epoch_sums, &state->line_sums};
  for (int i = 0; i < 2; i++) {
    sums[i]->loss += loss;
    sums[i]->correct += correct;
    sums[i]->steps++;
  }
  if (metric_steps > 0 && state->epoch_step % metric_steps == 0) {
    if (!add_line(search, "steps", stage, &state->line_sums, "", err)) return false;
    state->line_sums = (StepSums){0};
  }
  show_progress(search, stage_names[stage]);
  return true;
}

/* Until at most `left` steps are under way. */
static bool settle_steps(Search *search, Stage stage, int64_t left, Err *err) {
  while (search->queued > left)
    if (!settle_step(search, stage, err)) return false;
  return true;
}

/* Whether an epoch's logits may become the result (semantics: those that begin at or after cross.end, where there are any). */
static bool may_be_best(const ProgramSearch *plan, int32_t epoch) {
  bool after_cross = plan->cross_start < plan->cross_end && plan->cross_end < plan->total;
  return epoch >= (after_cross ? plan->cross_end : plan->train);
}

/* Validates the epoch's logits and keeps them if they are the best so far; appends what was found to the epoch's line. */
static bool validate(Search *search, EvaluateOutcome *outcome, Text *more, Err *err) {
  SearchState *state = &search->state;
  const ProgramSearch *plan = &search->program->search;
  if (!evaluate_images(search->executor, search->eval, plan->batch, search->dataset, DATASET_VALID, search->options->stop,
                       outcome, err))
    return false;
  if (outcome->stopped) return true;
  if (!isfinite(outcome->loss)) return stop_at_bad_value(search, "the loss on the validation images", outcome->loss, err);
  bool best = may_be_best(plan, state->epoch) && (plan->last || outcome->correct >= state->best_correct);
  if (best) {
    state->best_epoch = state->epoch;
    state->best_correct = outcome->correct;
    state->best_loss = outcome->loss;
    if (!checkpoint_copy_alpha(search->program, search->executor, state->best_alpha, err)) return false;
  }
  text_printf(more, ",\"valid_loss\":%.9g,\"valid_accuracy\":%.9g,\"best\":%s", outcome->loss, outcome->accuracy,
              best ? "true" : "false");
  return true;
}

static void print_epoch(const Search *search, Stage stage, const EvaluateOutcome *outcome, double seconds) {
  const SearchState *state = &search->state;
  const StepSums *sums = &state->epoch_sums;
  Text text = {0};
  text_printf(&text, "epoch %d/%d  %-6s  loss %.4f  accuracy %.2f %%", state->epoch + 1, search->program->search.total,
              stage_names[stage], sums->loss / (double)sums->steps,
              100 * (double)sums->correct / (double)(sums->steps * search->program->search.batch));
  if (outcome->images)
    text_printf(&text, "  validation loss %.4f  accuracy %.2f %%%s", outcome->loss, 100 * outcome->accuracy,
                state->best_epoch == state->epoch ? "  (best)" : "");
  progress_line(search->options->progress, "%s  %.0f s", text.data, seconds);
  text_free(&text);
}

/* What follows an epoch's last step: validation in the search stage, the epoch's line, a checkpoint at the head of the next
 * epoch. */
static bool end_epoch(Search *search, Stage stage, bool *stopped, Err *err) {
  SearchState *state = &search->state;
  EvaluateOutcome outcome = {0};
  Text more = {0};
  bool done = true;
  text_add(&more, "");
  if (stage != STAGE_TRAIN) {
    show_progress(search, "validate");
    done = validate(search, &outcome, &more, err);
  }
  *stopped = outcome.stopped;
  if (done && !*stopped) {
    done = add_line(search, "epoch", stage, &state->epoch_sums, more.data, err);
    if (done) print_epoch(search, stage, &outcome, now_seconds() - search->epoch_started);
    state->epoch++;
    state->epoch_step = 0;
    state->epoch_sums = state->line_sums = (StepSums){0};
    done = done && write_checkpoint(search, err);
  }
  text_free(&more);
  return done;
}

/* What happens once, before an epoch's first step in this process. */
static bool begin_epoch(Search *search, Stage stage, Err *err) {
  const SearchState *state = &search->state;
  const ProgramSearch *plan = &search->program->search;
  search->epoch_started = now_seconds();
  if (state->epoch == plan->train && state->epoch_step == 0 &&
      !draw_initial_alpha(search->program, search->executor, plan->seed, plan->alpha_initial, err))
    return false;
  if (stage == STAGE_SEARCH && search->enter && !search->entered && /* the weights stand still from here on */
      executor_run(search->executor, search->enter, plan->batch, err) < 0)
    return false;
  search->entered = stage == STAGE_SEARCH;
  return true;
}

static bool run_epoch(Search *search, bool *stopped, Err *err) {
  SearchState *state = &search->state;
  Stage stage = stage_of(&search->program->search, state->epoch);
  int64_t depth = executor_depth(search->executor);
  if (!begin_epoch(search, stage, err)) return false;
  while (state->epoch_step + search->queued < search->epoch_steps) {
    if ((*stopped = must_stop(search))) return settle_steps(search, stage, 0, err);
    if (!start_step(search, stage, err) || !settle_steps(search, stage, depth - 1, err)) return false;
    if (state->epoch_step + search->queued < search->epoch_steps && checkpoint_is_due(search) &&
        (!settle_steps(search, stage, 0, err) || !write_checkpoint(search, err)))
      return false;
  }
  return settle_steps(search, stage, 0, err) && end_epoch(search, stage, stopped, err);
}

/* The architecture and the weights, and the line that says where they came from. */
static bool finish(Search *search, Err *err) {
  SearchState *state = &search->state;
  const ProgramSearch *plan = &search->program->search;
  if (state->best_epoch < 0 && /* no search stage: the logits with which it would have begun */
      (!draw_initial_alpha(search->program, search->executor, plan->seed, plan->alpha_initial, err) ||
       !checkpoint_copy_alpha(search->program, search->executor, state->best_alpha, err)))
    return false;
  if (!results_write(run_folder_path(search->folder), search->program, search->executor, state->best_alpha, err)) return false;
  double images = (double)search->dataset->parts[DATASET_VALID].count;
  return metrics_add(
      search->metrics, err, "{\"kind\":\"result\",\"epoch\":%d,\"step\":%lld,\"valid_loss\":%.9g,\"valid_accuracy\":%.9g}",
      state->best_epoch, (long long)run_step(search), state->best_loss, images > 0 ? (double)state->best_correct / images : 0);
}

static bool run_epochs(Search *search, SearchSummary *summary, Err *err) {
  bool stopped = false;
  SearchState *state = &search->state;
  while (state->epoch < search->program->search.total && !stopped)
    if (!run_epoch(search, &stopped, err)) return false;
  if (stopped ? run_step(search) != search->checkpoint_step && !write_checkpoint(search, err) : !finish(search, err))
    return false;
  double images = (double)search->dataset->parts[DATASET_VALID].count;
  *summary = (SearchSummary){.finished = !stopped,
                             .step = run_step(search),
                             .epoch = state->epoch,
                             .best_epoch = state->best_epoch,
                             .best_accuracy = images > 0 ? (double)state->best_correct / images : 0,
                             .best_loss = state->best_loss};
  return true;
}

static HashName hash_images(const Dataset *dataset) {
  HashName both[2] = {hash_name(dataset->pixels, (size_t)(dataset->count * dataset->image_bytes)),
                      hash_name(dataset->labels, (size_t)dataset->count)};
  return hash_name(both, sizeof both);
}

/* The folder, locked, and the state that it holds, or that a run begins with. */
static bool open_run(Search *search, Err *err) {
  const SearchOptions *options = search->options;
  const Program *program = search->program;
  SearchState *state = &search->state;
  search->folder = options->resume ? run_folder_resume(options->run_folder, err) : run_folder_begin(options->run_folder, err);
  if (!search->folder) return false;
  search->checkpoint = run_folder_file(search->folder, "checkpoint.safetensors");
  bool has_checkpoint = run_folder_has(search->folder, "checkpoint.safetensors");
  state->best_epoch = -1;
  state->data_hash = hash_images(search->dataset);
  state->best_alpha = ARENA_ARRAY(search->memory, float, checkpoint_alpha_elements(program));
  if (has_checkpoint) {
    if (!checkpoint_read(search->checkpoint, program, search->executor, options->move, state, err)) return false;
    if (state->epoch_step > search->epoch_steps)
      return err_set(err, "the checkpoint %s is damaged: step %lld of %lld", search->checkpoint, (long long)state->epoch_step,
                     (long long)search->epoch_steps);
    search->checkpoint_step = run_step(search);
    int64_t run_steps = program->search.total * search->epoch_steps;
    progress_line(options->progress, "resumed after step %lld of %lld", (long long)run_step(search), (long long)run_steps);
  } else {
    if (options->resume) progress_line(options->progress, "there is no checkpoint yet: the run starts from its beginning");
    if (!draw_weights(program, search->executor, program->search.seed, err)) return false;
  }
  if (!run_folder_keep_model(search->folder, program->model_text, has_checkpoint, err)) return false;
  search->metrics = metrics_open(run_folder_path(search->folder), state->metrics, err);
  return search->metrics;
}

static bool find_steps(Search *search, Err *err) {
  static const char *const names[] = {"train_step", "search_step", "cross_step"};
  const ProgramSearch *plan = &search->program->search;
  if (plan->batch < 1 || plan->batch > search->program->batch || plan->total < 1)
    die("a search of %d epochs at batch %d", plan->total, plan->batch);
  for (int32_t epoch = 0; epoch < plan->total; epoch++) {
    Stage stage = stage_of(plan, epoch);
    search->steps[stage] = program_find_step(search->program, names[stage]);
    if (!search->steps[stage]) die("the program of %s has no step %s", search->program->name, names[stage]);
  }
  search->enter = program_find_step(search->program, "search_enter");
  search->eval = program_find_step(search->program, "eval");
  if (!search->eval && plan->train < plan->total) die("the program of %s has no step eval", search->program->name);
  LoaderSettings settings = loader_training(&search->program->data, plan->batch);
  search->epoch_steps = loader_steps(search->dataset, &settings);
  return search->epoch_steps > 0 ||
         err_set(err, "the data set %s has %lld training images, fewer than a batch of %d", search->program->data.name,
                 (long long)search->dataset->parts[DATASET_TRAIN].count, plan->batch);
}

static bool open_feed(Search *search, Err *err) {
  const ProgramSearch *plan = &search->program->search;
  LoaderSettings settings = loader_training(&search->program->data, plan->batch);
  settings.seed = plan->seed;
  settings.epoch = search->state.epoch;
  settings.first_step = search->state.epoch_step;
  settings.threads = 1;
  search->feed = feed_new(search->executor, search->dataset, &settings, err);
  return search->feed;
}

bool search_run(const Program *program, const SearchOptions *options, SearchSummary *summary, Err *err) {
  Search search = {
      .program = program, .options = options, .memory = arena_new(), .started = now_seconds(), .checkpoint_step = -1};
  search.checkpoint_written = search.started;
  ExecutorOptions how = {.threads = options->threads, .emulator = options->emulator, .depth = options->depth};
  bool done = (search.dataset = dataset_load(&program->data, options->data_folder, err)) && find_steps(&search, err) &&
              (search.executor = executor_new(program, &how, err)) && open_run(&search, err) && open_feed(&search, err) &&
              run_epochs(&search, summary, err);
  feed_free(search.feed);
  metrics_free(search.metrics);
  executor_free(search.executor);
  dataset_free(search.dataset);
  run_folder_free(search.folder);
  arena_free(search.memory);
  return done;
}
