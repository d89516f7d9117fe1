#include "runtime/run_folder.h"

#include "runtime/base/arena.h"
#include "runtime/base/file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LARGEST_MODEL = 16 << 20 };

struct RunFolder {
  Arena *memory;
  const char *path;
  int lock;
};

const char *run_folder_path(const RunFolder *folder) {
  return folder->path;
}

const char *run_folder_file(RunFolder *folder, const char *name) {
  return arena_printf(folder->memory, "%s/%s", folder->path, name);
}

bool run_folder_has(RunFolder *folder, const char *name) {
  return access(run_folder_file(folder, name), F_OK) == 0;
}

static bool take_lock(RunFolder *folder, Err *err) {
  const char *path = run_folder_file(folder, "lock");
  folder->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (folder->lock < 0) return err_set(err, "cannot write to the run folder %s: %s", folder->path, strerror(errno));
  if (flock(folder->lock, LOCK_EX | LOCK_NB) == 0) return true;
  if (errno != EWOULDBLOCK) return err_set(err, "cannot lock %s: %s", path, strerror(errno));
  return err_set(err, "the run folder %s is in use by another adwp: wait until it ends, or choose another folder with -o",
                 folder->path);
}

static RunFolder *open_folder(const char *path, Err *err) {
  RunFolder *folder = memory_alloc(sizeof *folder);
  folder->memory = arena_new();
  folder->lock = -1;
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/') length--;
  folder->path = arena_copy_string(folder->memory, path, length);
  if (take_lock(folder, err)) return folder;
  run_folder_free(folder);
  return NULL;
}

void run_folder_free(RunFolder *folder) {
  if (!folder) return;
  if (folder->lock >= 0) close(folder->lock);
  arena_free(folder->memory);
  free(folder);
}

RunFolder *run_folder_begin(const char *path, Err *err) {
  if (!folder_make(path, err)) return NULL;
  RunFolder *folder = open_folder(path, err);
  if (!folder) return NULL;
  if (!run_folder_has(folder, "model.adwp") && !run_folder_has(folder, "checkpoint.safetensors")) return folder;
  err_set(err, "%s already holds a run: continue it with --resume %s, or choose another folder with -o", folder->path,
          folder->path);
  run_folder_free(folder);
  return NULL;
}

/* NAME.tmp-NUMBER, as file_replace calls a file that is not yet whole. */
static bool is_half_written(const char *name) {
  const char *tail = strstr(name, ".tmp-");
  if (!tail || !isdigit((unsigned char)tail[5])) return false;
  for (const char *digit = tail + 5; *digit; digit++)
    if (!isdigit((unsigned char)*digit)) return false;
  return true;
}

static void remove_half_written(RunFolder *folder) {
  DIR *entries = opendir(folder->path);
  if (!entries) return;
  for (struct dirent *entry; (entry = readdir(entries));)
    if (is_half_written(entry->d_name)) unlink(run_folder_file(folder, entry->d_name));
  closedir(entries);
}

RunFolder *run_folder_resume(const char *path, Err *err) {
  struct stat info;
  if (stat(path, &info) || !S_ISDIR(info.st_mode)) {
    err_set(err, "cannot resume %s: there is no such folder", path);
    return NULL;
  }
  RunFolder *folder = open_folder(path, err);
  if (!folder) return NULL;
  if (!run_folder_has(folder, "model.adwp") && !run_folder_has(folder, "checkpoint.safetensors")) {
    err_set(err, "cannot resume %s: it holds no run (neither model.adwp nor checkpoint.safetensors)", folder->path);
    run_folder_free(folder);
    return NULL;
  }
  remove_half_written(folder);
  return folder;
}

bool run_folder_keep_model(RunFolder *folder, const char *model_text, bool may_replace, Err *err) {
  const char *path = run_folder_file(folder, "model.adwp");
  if (run_folder_has(folder, "model.adwp")) {
    char *there;
    size_t size;
    if (!file_read(path, LARGEST_MODEL, &there, &size, err)) return false;
    bool same = size == strlen(model_text) && memcmp(there, model_text, size) == 0;
    free(there);
    if (same) return true;
    if (!may_replace)
      return err_set(err, "%s is of another model, and there is no checkpoint beside it: choose another folder with -o", path);
  }
  return file_replace(path, model_text, strlen(model_text), err);
}
