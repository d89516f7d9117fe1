/* From a file's name to a checked Model: the file, what it imports, the defaults, the settings of the command line.
 *
 * An import is a plain file name; it is looked for in the folder of the file itself and then in the standard library that is
 * built in, and nowhere else. A file is read once, however often it is imported. */
#include "dsl/check.h"
#include "dsl/dsl.h"
#include "dsl/grammar.h"
#include "dsl/parse.h"
#include "dsl/standard.h"
#include "runtime/base/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_FILES = 64, LONGEST_IMPORT = 100 };

typedef struct Loaded {
  const char *name; /* as imports write it; the first file's is the last part of its path */
  bool standard, open;
} Loaded;

typedef struct Loader {
  Arena *arena;
  Diagnostics *diagnostics;
  const char *folder; /* with its `/`; null: no folder, the standard library only */
  Loaded loaded[MOST_FILES];
  int count;
  Chained declarations;
  bool lost;
} Loader;

static const StandardFile *find_standard(const char *name) {
  for (size_t i = 0; i < standard_file_count; i++)
    if (same_text(standard_files[i].name, name)) return &standard_files[i];
  return NULL;
}

static const Source *new_source(Loader *loader, const char *name, const char *text, size_t size) {
  Source *source = ARENA_NEW(loader->arena, Source);
  *source = (Source){name, text, (uint32_t)size};
  return source;
}

static void load_source(Loader *loader, const Source *source, int self);

static bool plain_name(const char *name, size_t length) {
  if (length < 6 || length > LONGEST_IMPORT || name[0] == '.' || !same_text(name + length - 5, ".adwp")) return false;
  for (size_t i = 0; i < length; i++) {
    char c = name[i];
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' ||
                 c == '+';
    if (!plain) return false;
  }
  return true;
}

/* The text of an import: from the folder, else built in. Null: reported. */
static const Source *open_import(Loader *loader, Name name, bool from_standard, bool *standard) {
  *standard = true;
  if (loader->folder && !from_standard) {
    const char *path = arena_printf(loader->arena, "%s%s", loader->folder, name.text);
    if (access(path, F_OK) == 0) {
      char *text;
      size_t size;
      Err err;
      *standard = false;
      if (!file_read(path, PARSE_MAX_BYTES, &text, &size, &err)) {
        diag_error(loader->diagnostics, name.where, "%s", err.text);
        return NULL;
      }
      const char *copy = arena_copy_string(loader->arena, text, size);
      free(text);
      return new_source(loader, path, copy, size);
    }
  }
  const StandardFile *file = find_standard(name.text);
  if (file) return new_source(loader, arena_printf(loader->arena, "standard library/%s", file->name), file->text, file->size);
  Suggestion suggestion = suggest_start(name.text);
  for (size_t i = 0; i < standard_file_count; i++) suggest_offer(&suggestion, standard_files[i].name);
  diag_error(loader->diagnostics, name.where, "cannot find `%s` in %s%s%s", name.text,
             loader->folder && !from_standard ? "the folder of this file or in " : "", "the standard library",
             suggest_text(&suggestion, loader->arena));
  return NULL;
}

static void load_import(Loader *loader, Name name, bool from_standard) {
  size_t length = name.where.end - name.where.begin;
  if (length < 2 || memchr(name.where.source->text + name.where.begin, 0, length) || !plain_name(name.text, strlen(name.text))) {
    diag_error(
        loader->diagnostics, name.where,
        "an import is the plain name of an .adwp file in this file's folder or in the standard library, as in \"darts.adwp\"");
    return;
  }
  for (int i = 0; i < loader->count; i++) {
    if (!same_text(loader->loaded[i].name, name.text) || (from_standard && !loader->loaded[i].standard)) continue;
    if (loader->loaded[i].open)
      diag_error(loader->diagnostics, name.where, "these imports run in a circle: `%s` is being read already", name.text);
    return;
  }
  if (loader->count == MOST_FILES) {
    diag_error(loader->diagnostics, name.where, "a file imports at most %d others", MOST_FILES - 1);
    loader->lost = true;
    return;
  }
  bool standard;
  const Source *source = open_import(loader, name, from_standard, &standard);
  if (!source) {
    loader->lost = true;
    return;
  }
  loader->loaded[loader->count] = (Loaded){name.text, standard, true};
  load_source(loader, source, loader->count++);
}

/* Imports come before what imports them. */
static void load_source(Loader *loader, const Source *source, int self) {
  Declaration *declarations = parse_file(source, loader->arena, loader->diagnostics, &loader->lost), *next;
  for (Declaration *declaration = declarations; declaration; declaration = declaration->next)
    if (declaration->kind == DECLARE_IMPORT) load_import(loader, declaration->name, loader->loaded[self].standard);
  for (Declaration *declaration = declarations; declaration; declaration = next) {
    next = declaration->next;
    declaration->next = NULL;
    loader->declarations = chained(loader->declarations, declaration);
  }
  loader->loaded[self].open = false;
}

static const Model *load(Loader *loader, const Source *source, const char *name, const DslOptions *options) {
  loader->loaded[loader->count++] = (Loaded){name, false, true};
  load_source(loader, source, 0);
  const StandardFile *defaults = find_standard("defaults.adwp");
  const Source *standard = new_source(loader, "standard library/defaults.adwp", defaults->text, defaults->size);
  Files files = {
      .main = source,
      .declarations = loader->declarations.head,
      .defaults = parse_file(standard, loader->arena, loader->diagnostics, &loader->lost),
      .overrides = read_overrides(options ? options->settings : NULL, options ? options->setting_count : 0, loader->arena,
                                  loader->diagnostics),
      .lost = loader->lost,
  };
  return check_files(&files, loader->arena, loader->diagnostics);
}

const Model *dsl_load(const char *path, const DslOptions *options, Arena *arena, Diagnostics *diagnostics) {
  char *text;
  size_t size;
  Err err;
  if (!file_read(path, PARSE_MAX_BYTES, &text, &size, &err)) {
    diag_error(diagnostics, (Span){0}, "%s", err.text);
    return NULL;
  }
  Loader loader = {.arena = arena, .diagnostics = diagnostics};
  const char *slash = strrchr(path, '/'), *copy = arena_copy_string(arena, text, size);
  free(text);
  loader.folder = slash ? arena_copy_string(arena, path, (size_t)(slash - path) + 1) : "";
  const Source *source = new_source(&loader, arena_copy_string(arena, path, strlen(path)), copy, size);
  return load(&loader, source, slash ? source->name + (slash - path) + 1 : source->name, options);
}

const Model *dsl_load_text(const char *name, const char *text, size_t size, const DslOptions *options, Arena *arena,
                           Diagnostics *diagnostics) {
  Loader loader = {.arena = arena, .diagnostics = diagnostics};
  if (size > PARSE_MAX_BYTES) {
    diag_error(diagnostics, (Span){0}, "%s has %zu bytes, and at most %d are allowed", name, size, PARSE_MAX_BYTES);
    return NULL;
  }
  const Source *source =
      new_source(&loader, arena_copy_string(arena, name, strlen(name)), arena_copy_string(arena, text, size), size);
  return load(&loader, source, "", options); /* nothing can import a text */
}
