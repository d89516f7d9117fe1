/* The standard library: the .adwp files of dsl/std, built into the program by dsl/embed.cmake. */
#ifndef ADWP_DSL_STANDARD_H
#define ADWP_DSL_STANDARD_H

#include <stddef.h>
#include <stdint.h>

typedef struct StandardFile {
  const char *name; /* as `import` names it */
  const char *text;
  uint32_t size;
} StandardFile;

extern const StandardFile standard_files[];
extern const size_t standard_file_count;

#endif
