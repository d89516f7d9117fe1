/* progress: what a person sees of a run, on stderr. On a terminal one line that is drawn again; elsewhere a plain line at each
 * end of an epoch, and within it at most one every few seconds. Nothing here influences a run, and nothing here goes to a result
 * file. */
#ifndef ADWP_RUNTIME_PROGRESS_H
#define ADWP_RUNTIME_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct Progress Progress;

typedef struct ProgressState {
  const char *stage;           /* "train", "search", "cross", "validate" */
  int32_t epoch, epochs;       /* this one, counted from 0, of how many */
  int64_t step, steps;         /* done in this epoch, of how many */
  int64_t run_step, run_steps; /* done in the whole run, of how many */
  int32_t batch;               /* images a step */
  double loss, accuracy;       /* means over the epoch up to here */
} ProgressState;

/* `terminal` says whether `stream` is one: progress_is_terminal(stream). */
Progress *progress_new(FILE *stream, bool terminal);
void progress_free(Progress *progress); /* ends the line that is being drawn */
bool progress_is_terminal(FILE *stream);

/* After each step; draws when it is time to. */
void progress_step(Progress *progress, const ProgressState *state);
/* A line that stays, such as an epoch's result. */
void progress_line(Progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));
double progress_images_per_second(const Progress *progress);

#endif
