/* The names of the patterns and of the ways to generate weights. */
#include "compiler/pass/fuse.h"

#include <string.h>

const char *fuse_name(FusePattern pattern) {
  static const char *const names[] = {
#define FUSE_PATTERN(NAME, name, what) name,
      FUSE_PATTERNS(FUSE_PATTERN)
#undef FUSE_PATTERN
  };
  return names[pattern];
}

const char *fuse_generate_name(FuseGenerate form) {
  static const char *const names[] = {
#define FUSE_GENERATE(NAME, name) name,
      FUSE_GENERATES(FUSE_GENERATE)
#undef FUSE_GENERATE
  };
  return names[form];
}

static bool add_pattern(const char *name, size_t length, uint32_t *patterns) {
  for (int p = 0; p < FUSE_PATTERN_COUNT; p++) {
    const char *known = fuse_name((FusePattern)p);
    if (strlen(known) == length && strncmp(known, name, length) == 0) return *patterns |= 1U << p, true;
  }
  return false;
}

bool fuse_leave_out(FuseOptions *options, const char *list, Err *err) {
  uint32_t patterns = strcmp(list, "all") == 0 ? (1U << FUSE_PATTERN_COUNT) - 1 : 0;
  for (const char *at = list; !patterns || at != list; at++) {
    size_t length = strcspn(at, ",");
    if (!add_pattern(at, length, &patterns))
      return err_set(err, "no way of fusing is called `%.*s`; there are " FUSE_NAMES, (int)length, at);
    at += length;
    if (!*at) break;
  }
  options->without |= patterns;
  return true;
}

bool fuse_force_generate(FuseOptions *options, const char *name, Err *err) {
  for (int i = 0; i < GENERATE_COUNT; i++) {
    if (strcmp(fuse_generate_name((FuseGenerate)i), name) != 0) continue;
    options->generate = (FuseGenerate)i;
    options->forced = true;
    return true;
  }
  return err_set(err, "weights are generated horizontal, vertical, hoisted or none, and not `%s`", name);
}
