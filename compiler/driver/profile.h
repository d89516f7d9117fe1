/* What the files of `adwp profile` share: profile.c measures, profile_print.c prints, trace.c writes what each worker did. */
#ifndef ADWP_COMPILER_DRIVER_PROFILE_H
#define ADWP_COMPILER_DRIVER_PROFILE_H

#include "compiler/driver/driver.h"
#include "compiler/machine.h"
#include "runtime/executor.h"

typedef struct ProfileOptions {
  SharedOptions shared;
  const char *file, *step;
  const char *trace; /* null: none */
  int32_t steps;
  bool json;
} ProfileOptions;

typedef struct KernelTime { /* of one step */
  const char *name, *description;
  int32_t launches;
  double seconds, flops;
  double read, written, least; /* bytes: Launch's */
} KernelTime;

typedef struct Profile {
  const Program *program;
  const ProgramStep *step;
  Executor *executor;
  double compile_seconds, median_seconds, least_seconds;
  int64_t peak_bytes;  /* of the process, with compiling */
  KernelTime *kernels; /* the slowest first */
  size_t kernel_count;
  KernelTime whole; /* all kernels */
  bool has_machine;
  MachineFigures machine;
} Profile;

void profile_print_text(const Profile *profile, const ProfileOptions *options);
void profile_print_json(const Profile *profile, const ProfileOptions *options);

/* Runs some steps and writes the file at `path`: trace-event JSON, a track a worker, a slice for each launch and the tasks of it
 * that were done in one go. */
bool profile_trace(const Profile *profile, const char *path, Err *err);

#endif
