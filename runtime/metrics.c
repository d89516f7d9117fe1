#include "runtime/metrics.h"

#include "runtime/base/arena.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LARGEST_FILE = 1 << 30, LONGEST_LINE = 2048 };

typedef struct LineFile {
  char *path;
  int fd;
} LineFile;

struct Metrics {
  LineFile values, times;
  MetricsPosition position;
};

static uint64_t chain_line(uint64_t chain, const char *line, size_t length) {
  uint64_t both[2] = {chain, hash_u64(line, length)};
  return hash_u64(both, sizeof both);
}

static bool line_file_open(LineFile *file, const char *folder, const char *name, Err *err) {
  size_t length = strlen(folder) + strlen(name) + 2;
  file->path = memory_alloc(length);
  snprintf(file->path, length, "%s/%s", folder, name);
  file->fd = open(file->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
  return file->fd >= 0 || err_set(err, "cannot write %s: %s", file->path, strerror(errno));
}

static bool line_file_add(const LineFile *file, const char *line, size_t length, Err *err) {
  for (size_t at = 0; at < length;) {
    ssize_t put = write(file->fd, line + at, length - at);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return err_set(err, "cannot write %s: %s", file->path, put < 0 ? strerror(errno) : "nothing was written");
    at += (size_t)put;
  }
  return true;
}

/* Whether the first `position.bytes` of `data` are the lines that the position was taken after. */
static bool is_prefix(const char *data, size_t size, MetricsPosition position) {
  if (position.bytes < 0 || (uint64_t)position.bytes > size) return false;
  uint64_t chain = 0;
  const char *line = data, *end = data + position.bytes;
  while (line < end) {
    const char *feed = memchr(line, '\n', (size_t)(end - line));
    if (!feed) return false;
    chain = chain_line(chain, line, (size_t)(feed + 1 - line));
    line = feed + 1;
  }
  return chain == position.chain;
}

static bool cut_back(const char *path, MetricsPosition position, Err *err) {
  if (!position.bytes) return file_replace(path, "", 0, err);
  char *data;
  size_t size;
  Err why;
  if (!file_read(path, LARGEST_FILE, &data, &size, &why))
    return err_set(err, "%s; the checkpoint was written with %lld bytes of it: put it back, or begin again in another folder",
                   why.text, (long long)position.bytes);
  bool done =
      is_prefix(data, size, position) || err_set(err,
                                                 "%s is not the file that the checkpoint was written with: its first %lld bytes "
                                                 "are missing or changed; put it back, or begin again in another folder",
                                                 path, (long long)position.bytes);
  if (done && size > (size_t)position.bytes) done = file_replace(path, data, (size_t)position.bytes, err);
  free(data);
  return done;
}

Metrics *metrics_open(const char *folder, MetricsPosition position, Err *err) {
  Metrics *metrics = memory_alloc(sizeof *metrics);
  metrics->values.fd = metrics->times.fd = -1;
  metrics->position = position;
  Text path = {0};
  text_printf(&path, "%s/metrics.jsonl", folder);
  bool done = cut_back(path.data, position, err) && line_file_open(&metrics->values, folder, "metrics.jsonl", err) &&
              line_file_open(&metrics->times, folder, "time.jsonl", err);
  text_free(&path);
  if (done) return metrics;
  metrics_free(metrics);
  return NULL;
}

void metrics_free(Metrics *metrics) {
  if (!metrics) return;
  if (metrics->values.fd >= 0) close(metrics->values.fd);
  if (metrics->times.fd >= 0) close(metrics->times.fd);
  free(metrics->values.path);
  free(metrics->times.path);
  free(metrics);
}

/* The line with its line feed; its length. */
static size_t print_line(char *line, const char *format, va_list args) {
  int length = vsnprintf(line, LONGEST_LINE - 1, format, args);
  if (length < 0 || length >= LONGEST_LINE - 1) die("a line of metrics has %d bytes", length);
  line[length] = '\n';
  return (size_t)length + 1;
}

bool metrics_add(Metrics *metrics, Err *err, const char *format, ...) {
  char line[LONGEST_LINE];
  va_list args;
  va_start(args, format);
  size_t length = print_line(line, format, args);
  va_end(args);
  if (!line_file_add(&metrics->values, line, length, err)) return false;
  metrics->position.bytes += (int64_t)length;
  metrics->position.chain = chain_line(metrics->position.chain, line, length);
  return true;
}

bool metrics_add_time(Metrics *metrics, Err *err, const char *format, ...) {
  char line[LONGEST_LINE];
  va_list args;
  va_start(args, format);
  size_t length = print_line(line, format, args);
  va_end(args);
  return line_file_add(&metrics->times, line, length, err);
}

bool metrics_position(Metrics *metrics, MetricsPosition *position, Err *err) {
  *position = metrics->position;
  return fsync(metrics->values.fd) == 0 || err_set(err, "cannot write %s: %s", metrics->values.path, strerror(errno));
}
