/* What `adwp profile` prints: the step, then a line a kernel. */
#include "compiler/driver/figures.h"
#include "compiler/driver/profile.h"

#include <jansson.h>
#include <stdio.h>

enum { SHOWN_KERNELS = 40 };

/* 0 where nothing was measured. */
static double ratio(double a, double b) {
  return b > 0 ? a / b : 0;
}

static double gflops(double flops, double seconds) {
  return ratio(flops, seconds) / 1e9;
}

/* Of the speed at which this machine multiplies. */
static double fma_share(const Profile *profile, double flops, double seconds) {
  return profile->has_machine ? ratio(ratio(flops, seconds), profile->machine.fma_all) : 0;
}

/* How long memory alone would take for the bytes, of the time. */
static double memory_share(const Profile *profile, const KernelTime *time, double seconds) {
  const MachineFigures *machine = &profile->machine;
  if (!profile->has_machine) return 0;
  return ratio(ratio(time->read, machine->memory_read) + ratio(time->written, machine->memory_write), seconds);
}

static double moved(const KernelTime *time) {
  return time->read + time->written;
}

/* ---- text ---- */

static void print_machine(const Profile *profile) {
  const MachineFigures *machine = &profile->machine;
  if (!profile->has_machine) return;
  printf("machine %.0f GFLOP/s, %.1f GB/s read, %.1f GB/s written%s\n", machine->fma_all / 1e9, machine->memory_read / 1e9,
         machine->memory_write / 1e9,
         machine->measured ? "" : ": an estimate, since nothing was measured for it; `adwp doctor --measure` does");
}

static void print_step(const Profile *profile, const ProfileOptions *options) {
  const Program *program = profile->program;
  const KernelTime *whole = &profile->whole;
  printf("%s of %s, batch %d, %s", profile->step->name, program->name, program->batch, program->target);
  if (program->device == PROGRAM_CPU) printf(", %d threads", options->shared.threads);
  printf("\nmedian %.2f ms, least %.2f ms, of %d steps\n", 1e3 * profile->median_seconds, 1e3 * profile->least_seconds,
         options->steps);
  printf("%.3f useful GFLOP a step, %.1f GFLOP/s", whole->flops / 1e9, gflops(whole->flops, profile->median_seconds));
  if (profile->has_machine) printf(", %.1f%% of FMA", 100 * fma_share(profile, whole->flops, profile->median_seconds));
  printf("\n%.1f MB moved a step, %.1f GB/s", moved(whole) / 1e6, ratio(moved(whole), profile->median_seconds) / 1e9);
  if (profile->has_machine) printf(", %.1f%% of memory", 100 * memory_share(profile, whole, profile->median_seconds));
  printf("; %.2f times the least possible\n", ratio(moved(whole), whole->least));
  printf("peak memory %.0f MiB, of the whole process; parameters %.1f MiB, the step's arena %.1f MiB\n",
         (double)profile->peak_bytes / 0x1p20, (double)program->parameter_bytes / 0x1p20,
         (double)profile->step->arena_bytes / 0x1p20);
  printf("start-up %.2f s; kernels take %.2f ms, the rest of a step is waiting\n", profile->compile_seconds,
         1e3 * whole->seconds);
  print_machine(profile);
}

static void print_share(const Profile *profile, double share) {
  if (profile->has_machine)
    printf(" %8.1f%%", 100 * share);
  else
    printf(" %9s", "-");
}

static void print_kernel(const Profile *profile, const KernelTime *kernel) {
  double seconds = kernel->seconds;
  printf("%8d %9.3f %5.1f%% %8.1f", kernel->launches, 1e3 * seconds, 100 * ratio(seconds, profile->whole.seconds),
         gflops(kernel->flops, seconds));
  print_share(profile, fma_share(profile, kernel->flops, seconds));
  printf(" %7.1f", ratio(moved(kernel), seconds) / 1e9);
  print_share(profile, memory_share(profile, kernel, seconds));
  printf(" %9.2f %7.2f  %s%s%s\n", moved(kernel) / 1e6, ratio(moved(kernel), kernel->least), kernel->name,
         kernel->description[0] ? " " : "", kernel->description);
}

void profile_print_text(const Profile *profile, const ProfileOptions *options) {
  print_step(profile, options);
  printf("\n%8s %9s %6s %8s %9s %7s %9s %9s %7s  %s\n", "launches", "ms", "share", "GFLOP/s", "of FMA", "GB/s", "of memory",
         "MB moved", "/ least", "kernel");
  for (size_t k = 0; k < profile->kernel_count && k < SHOWN_KERNELS; k++) print_kernel(profile, &profile->kernels[k]);
  if (profile->kernel_count > SHOWN_KERNELS)
    printf("... and %zu kernels more; --json has all\n", profile->kernel_count - SHOWN_KERNELS);
}

/* ---- JSON ---- */

/* Adds what text shows of bytes and shares; a share of an unknown machine is null. */
static void add_traffic(const Profile *profile, const KernelTime *time, double seconds, json_t *to) {
  json_t *fma = profile->has_machine ? json_real(fma_share(profile, time->flops, seconds)) : json_null();
  json_t *memory = profile->has_machine ? json_real(memory_share(profile, time, seconds)) : json_null();
  json_object_set_new(to, "fma_share", fma);
  json_object_set_new(to, "read_bytes", json_integer((json_int_t)time->read));
  json_object_set_new(to, "written_bytes", json_integer((json_int_t)time->written));
  json_object_set_new(to, "least_bytes", json_integer((json_int_t)time->least));
  json_object_set_new(to, "gb_per_second", json_real(ratio(moved(time), seconds) / 1e9));
  json_object_set_new(to, "memory_share", memory);
}

static json_t *kernels_json(const Profile *profile) {
  json_t *kernels = json_array();
  for (size_t k = 0; k < profile->kernel_count; k++) {
    const KernelTime *kernel = &profile->kernels[k];
    json_t *one = json_pack("{s:s, s:i, s:f, s:f, s:f, s:s}", "name", kernel->name, "launches", (int)kernel->launches, "ms",
                            1e3 * kernel->seconds, "share", ratio(kernel->seconds, profile->whole.seconds), "gflops",
                            gflops(kernel->flops, kernel->seconds), "description", kernel->description);
    add_traffic(profile, kernel, kernel->seconds, one);
    json_array_append_new(kernels, one);
  }
  return kernels;
}

void profile_print_json(const Profile *profile, const ProfileOptions *options) {
  const Program *program = profile->program;
  const KernelTime *whole = &profile->whole;
  json_t *root = json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I}", "model", program->name,
                           "step", profile->step->name, "target", program->target, "batch", (int)program->batch, "threads",
                           (int)options->shared.threads, "steps", (int)options->steps, "median_ms", 1e3 * profile->median_seconds,
                           "least_ms", 1e3 * profile->least_seconds, "gflop", whole->flops / 1e9, "gflops",
                           gflops(whole->flops, profile->median_seconds), "startup_seconds", profile->compile_seconds,
                           "peak_bytes", (json_int_t)profile->peak_bytes, "parameter_bytes", (json_int_t)program->parameter_bytes,
                           "arena_bytes", (json_int_t)profile->step->arena_bytes);
  add_traffic(profile, whole, profile->median_seconds, root);
  json_object_set_new(root, "machine", profile->has_machine ? figures_json(&profile->machine) : json_null());
  json_object_set_new(root, "kernels", kernels_json(profile)); /* last, so that simple tools can cut it off */
  json_dumpf(root, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(root);
}
