/* Speed is the median-free kind: images since the last drawn line over the time since then, smoothed. Only this file and
 * time.jsonl look at the clock. */
#include "runtime/progress.h"

#include "runtime/base/arena.h"

#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define TERMINAL_SECONDS 0.2 /* between two drawings of the line */
#define PLAIN_SECONDS 10.0   /* between two plain lines */
#define SMOOTHING 0.3        /* weight of the newest measurement of speed */

struct Progress {
  FILE *stream;
  bool terminal, line_open;
  double drawn, measured; /* seconds of the monotonic clock; 0: never */
  int64_t measured_step;  /* run_step when speed was measured last */
  double steps_per_second, images_per_second;
};

static double now_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

bool progress_is_terminal(FILE *stream) {
  const char *kind = getenv("TERM");
  return isatty(fileno(stream)) && kind && *kind;
}

Progress *progress_new(FILE *stream, bool terminal) {
  Progress *progress = memory_alloc(sizeof *progress);
  progress->stream = stream;
  progress->terminal = terminal;
  return progress;
}

static void close_line(Progress *progress) {
  if (!progress->line_open) return;
  fputs("\r\033[K", progress->stream);
  progress->line_open = false;
}

void progress_free(Progress *progress) {
  if (!progress) return;
  close_line(progress);
  fflush(progress->stream);
  free(progress);
}

static void measure(Progress *progress, const ProgressState *state, double now) {
  int64_t steps = state->run_step - progress->measured_step;
  if (progress->measured > 0 && steps > 0 && now > progress->measured) {
    double speed = (double)steps / (now - progress->measured);
    bool first = progress->steps_per_second == 0;
    progress->steps_per_second = first ? speed : SMOOTHING * speed + (1 - SMOOTHING) * progress->steps_per_second;
    progress->images_per_second = progress->steps_per_second * state->batch;
  }
  progress->measured = now;
  progress->measured_step = state->run_step;
}

static void print_time_left(FILE *stream, double seconds) {
  long minutes = (long)(seconds / 60 + 0.5);
  if (seconds < 90)
    fprintf(stream, "%.0f s left", seconds);
  else if (minutes < 120)
    fprintf(stream, "%ld min left", minutes);
  else
    fprintf(stream, "%ld h %02ld min left", minutes / 60, minutes % 60);
}

void progress_step(Progress *progress, const ProgressState *state) {
  if (!progress) return;
  double now = now_seconds(), wait = progress->terminal ? TERMINAL_SECONDS : PLAIN_SECONDS;
  if (progress->drawn == 0) { /* the first step only starts the clock: it may have waited for data or pages */
    progress->drawn = now;
    measure(progress, state, now);
    return;
  }
  if (now - progress->drawn < wait) return;
  progress->drawn = now;
  measure(progress, state, now);
  FILE *stream = progress->stream;
  if (progress->terminal) fputs("\r\033[K", stream);
  fprintf(stream, "%-8s  epoch %d/%d  step %lld/%lld  loss %.4f  accuracy %.1f %%", state->stage, state->epoch + 1, state->epochs,
          (long long)state->step, (long long)state->steps, state->loss, 100 * state->accuracy);
  if (progress->steps_per_second > 0) {
    fprintf(stream, "  %.0f images/s  ", progress->images_per_second);
    print_time_left(stream, (double)(state->run_steps - state->run_step) / progress->steps_per_second);
  }
  if (!progress->terminal) fputc('\n', stream);
  progress->line_open = progress->terminal;
  fflush(stream);
}

void progress_line(Progress *progress, const char *format, ...) {
  if (!progress) return;
  close_line(progress);
  va_list args;
  va_start(args, format);
  vfprintf(progress->stream, format, args);
  va_end(args);
  fputc('\n', progress->stream);
  fflush(progress->stream);
}

double progress_images_per_second(const Progress *progress) {
  return progress ? progress->images_per_second : 0;
}
