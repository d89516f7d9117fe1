/* Files: read whole, replaced atomically (a temporary file beside it, fsync, rename). */
#ifndef ADWP_RUNTIME_BASE_FILE_H
#define ADWP_RUNTIME_BASE_FILE_H

#include "runtime/base/err.h"

#include <stddef.h>

/* Reads at most `limit` bytes; a larger file is an error. `*data` (zero-terminated behind its `*size` bytes) is the
 * caller's to free(). */
bool file_read(const char *path, size_t limit, char **data, size_t *size, Err *err);

/* Replaces the file at `path` so that a reader, or a crash, sees the old bytes or the new ones and nothing between. */
bool file_replace(const char *path, const void *data, size_t size, Err *err);

/* A rename is durable once the folder that holds the name is on disk. */
void file_sync_folder_of(const char *path);

/* Makes the folder and its parents; it is fine if they are there. */
bool folder_make(const char *path, Err *err);

#endif
