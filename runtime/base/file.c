#include "runtime/base/file.h"

#include "runtime/base/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool file_read(const char *path, size_t limit, char **data, size_t *size, Err *err) {
  *data = NULL;
  *size = 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe in the file's place must not hold us */
  if (fd < 0) return err_set(err, "cannot open %s: %s", path, strerror(errno));
  struct stat info;
  if (fstat(fd, &info) || !S_ISREG(info.st_mode)) {
    close(fd);
    return err_set(err, "cannot read %s: it is not a regular file", path);
  }
  if (info.st_size < 0 || (size_t)info.st_size > limit) {
    close(fd);
    return err_set(err, "cannot read %s: it has %lld bytes, and at most %zu are allowed", path, (long long)info.st_size, limit);
  }
  size_t want = (size_t)info.st_size, at = 0;
  char *bytes = malloc(want + 1);
  if (!bytes) {
    close(fd);
    return err_set(err, "cannot read %s: no memory for its %zu bytes", path, want);
  }
  while (at < want) {
    ssize_t got = read(fd, bytes + at, want - at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      int why = errno;
      close(fd);
      free(bytes);
      return err_set(err, "cannot read %s: %s", path, got < 0 ? strerror(why) : "it became shorter while it was read");
    }
    at += (size_t)got;
  }
  close(fd);
  bytes[want] = 0;
  *data = bytes;
  *size = want;
  return true;
}

static bool write_all(int fd, const char *data, size_t size) {
  for (size_t at = 0; at < size;) {
    ssize_t put = write(fd, data + at, size - at);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    at += (size_t)put;
  }
  return true;
}

void file_sync_folder_of(const char *path) {
  const char *slash = strrchr(path, '/');
  size_t length = slash ? (size_t)(slash - path) : 0;
  char *folder = memory_alloc(length + 2);
  memcpy(folder, slash ? path : ".", slash ? length : 1);
  if (slash && !length) folder[0] = '/';
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    fsync(fd);
    close(fd);
  }
  free(folder);
}

bool file_replace(const char *path, const void *data, size_t size, Err *err) {
  size_t length = strlen(path);
  char *temporary = memory_alloc(length + 32);
  snprintf(temporary, length + 32, "%s.tmp-%ld", path, (long)getpid());
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  bool done = fd >= 0;
  if (done) {
    done = write_all(fd, data, size) && fsync(fd) == 0;
    int why = errno;
    if (close(fd) && done) {
      done = false;
      why = errno;
    }
    if (done && rename(temporary, path)) {
      done = false;
      why = errno;
    }
    if (!done) unlink(temporary);
    errno = why;
  }
  if (!done) err_set(err, "cannot write %s: %s", path, strerror(errno));
  free(temporary);
  if (done) file_sync_folder_of(path);
  return done;
}

bool folder_make(const char *path, Err *err) {
  size_t length = strlen(path);
  char *partial = memory_alloc(length + 1);
  bool done = true;
  for (size_t i = 1; i <= length && done; i++) {
    if (path[i] != '/' && path[i] != 0) continue;
    memcpy(partial, path, i);
    partial[i] = 0;
    struct stat info;
    if (mkdir(partial, 0755) && errno != EEXIST)
      done = err_set(err, "cannot make folder %s: %s", partial, strerror(errno));
    else if (stat(partial, &info) || !S_ISDIR(info.st_mode))
      done = err_set(err, "cannot make folder %s: there is a file of this name", partial);
  }
  free(partial);
  return done;
}
