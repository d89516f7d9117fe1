/* The kernel cache: one file a kernel, a CPU's object or a GPU's image, named by the hash of everything on which it depends.
 * Several processes may use a folder at once: a file appears whole by a rename, and two that write the same one write the same
 * bytes.
 *
 * What a file holds will be run, so a folder into which another user can write is never used, and a file is used only if its
 * size, its key and its checksum are right; anything else counts as not there and is written again. Files are not synced: one
 * that a crash tears is found by its checksum. */
#include "compiler/emit/emit_private.h"
#include "runtime/base/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[8] = {'A', 'D', 'W', 'P', 'O', 'B', 'J', '2'};

enum { MAX_OBJECT = 256 << 20 };

typedef struct EntryHead {
  char magic[8];
  char key[32];
  EmitResources resources;
  uint32_t padding;  /* 0 */
  uint64_t size;     /* of the object, which follows */
  uint64_t checksum; /* of the object, begun with that of what stands above */
} EntryHead;

static_assert(offsetof(EntryHead, size) == 64, "no byte of the head is left to chance");

const char *emit_cache_folder(Arena *arena) {
  const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (base && base[0] == '/') return arena_printf(arena, "%s/adwp", base); /* the standard says that others do not count */
  return home && home[0] == '/' ? arena_printf(arena, "%s/.cache/adwp", home) : NULL;
}

const char *emit_cache_open(const char *folder) {
  struct stat info;
  if (stat(folder, &info) && errno == ENOENT) {
    Arena *arena = arena_new();
    const char *slash = strrchr(folder, '/');
    if (slash && slash != folder) folder_make(arena_copy_string(arena, folder, (size_t)(slash - folder)), NULL);
    arena_free(arena);
    mkdir(folder, 0700); /* another process may have been faster */
  }
  if (stat(folder, &info)) return "it cannot be made";
  if (!S_ISDIR(info.st_mode)) return "it is not a folder";
  if (info.st_uid != geteuid()) return "it belongs to another user";
  return info.st_mode & (S_IWGRP | S_IWOTH) ? "other users can write into it" : NULL;
}

static char *path_of(const char *folder, const HashName *key, const char *suffix) {
  size_t size = strlen(folder) + sizeof key->hex + strlen(suffix) + 8;
  char *path = memory_alloc(size);
  snprintf(path, size, "%s/%s.o%s", folder, key->hex, suffix);
  return path;
}

static uint64_t checksum(const EntryHead *head, const char *object) {
  uint64_t parts[2] = {hash_u64(head, offsetof(EntryHead, checksum)), hash_u64(object, head->size)};
  return hash_u64(parts, sizeof parts);
}

static bool entry_ok(const char *data, size_t size, const HashName *key, EntryHead *head) {
  if (size < sizeof *head) return false;
  memcpy(head, data, sizeof *head);
  return memcmp(head->magic, magic, sizeof magic) == 0 && memcmp(head->key, key->hex, sizeof head->key) == 0 &&
         head->size == size - sizeof *head && head->checksum == checksum(head, data + sizeof *head);
}

bool emit_cache_load(const char *folder, const HashName *key, EmitObject *object) {
  char *path = path_of(folder, key, ""), *data;
  size_t length;
  bool ok = file_read(path, MAX_OBJECT, &data, &length, NULL);
  free(path);
  if (!ok) return false;
  EntryHead head;
  if (!entry_ok(data, length, key, &head)) {
    free(data);
    return false;
  }
  memmove(data, data + sizeof head, head.size);
  data[head.size] = 0;
  *object = (EmitObject){data, head.size, head.resources};
  return true;
}

static bool write_all(int file, const void *data, size_t size) {
  for (const char *at = data; size > 0;) {
    ssize_t put = write(file, at, size);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    at += put;
    size -= (size_t)put;
  }
  return true;
}

bool emit_cache_store(const char *folder, const HashName *key, const EmitObject *object) {
  EntryHead head = {.size = object->size, .resources = object->resources};
  memcpy(head.magic, magic, sizeof magic);
  memcpy(head.key, key->hex, sizeof head.key);
  head.checksum = checksum(&head, object->data);
  char *path = path_of(folder, key, ""), *temporary = path_of(folder, key, ".XXXXXX");
  int file = mkstemp(temporary);
  bool stored = file >= 0;
  if (stored) {
    stored = write_all(file, &head, sizeof head) && write_all(file, object->data, object->size);
    if (close(file)) stored = false;
    stored = stored && rename(temporary, path) == 0;
    if (!stored) unlink(temporary);
  }
  free(temporary);
  free(path);
  return stored;
}
