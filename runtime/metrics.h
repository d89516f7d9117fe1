/* Metrics: a run's metrics.jsonl, which holds only what is the same in every run, and time.jsonl, which holds what is not.
 *
 * A line is appended at once. The checkpoint records how far metrics.jsonl reached (`MetricsPosition`); a run that is continued
 * cuts the file back there and writes the later lines again, to the same bytes. time.jsonl only grows. */
#ifndef ADWP_RUNTIME_METRICS_H
#define ADWP_RUNTIME_METRICS_H

#include "runtime/base/err.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct MetricsPosition {
  int64_t bytes;
  uint64_t chain; /* of hashes of the lines, each with that of the lines before it */
} MetricsPosition;

typedef struct Metrics Metrics;

/* Cuts metrics.jsonl back to `position`, which must be an end of a line that this file had; zero: begins an empty file. */
Metrics *metrics_open(const char *folder, MetricsPosition position, Err *err);
void metrics_free(Metrics *metrics); /* null is allowed */

/* Append one line, without its line feed. */
bool metrics_add(Metrics *metrics, Err *err, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool metrics_add_time(Metrics *metrics, Err *err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Where metrics.jsonl ends now, and everything up to there is on the disk. */
bool metrics_position(Metrics *metrics, MetricsPosition *position, Err *err);

#endif
