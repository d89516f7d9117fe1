/* adwp doctor: what this machine can do, what is missing, and what to do about it. A line a finding; nothing that is missing is
 * an error, unless there is no device at all that kernels run on, or what `--measure` was to measure cannot be kept. */
#include "compiler/driver/driver.h"

#include "compiler/driver/figures.h"
#include "runtime/cuda.h"
#include "runtime/dataset.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { KEY_DATA = 0x200, KEY_JSON, KEY_MEASURE, KEY_THREADS, MOST_THREADS = 256 };

typedef struct DoctorOptions {
  const char *data; /* null: not asked for */
  bool json, measure;
  SharedOptions shared; /* of which only `threads` is asked for */
} DoctorOptions;

static error_t parse(int key, char *argument, struct argp_state *state) {
  DoctorOptions *options = state->input;
  switch (key) {
  case KEY_DATA: options->data = argument; return 0;
  case KEY_JSON: options->json = true; return 0;
  case KEY_MEASURE: options->measure = true; return 0;
  case KEY_THREADS: options->shared.threads = options_number(state, "--threads", argument, 1, MOST_THREADS); return 0;
  case ARGP_KEY_ARG: argp_error(state, "there is nothing to do with `%s`; a data set's folder is --data DIR", argument); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option option_list[] = {
    {"data", KEY_DATA, "DIR", 0, "Also look at the CIFAR-10 in this folder", 0},
    {"json", KEY_JSON, 0, 0, "Print the findings as JSON", 0},
    {"measure", KEY_MEASURE, 0, 0,
     "Measure how fast this CPU multiplies and moves bytes, in a second or two, and keep it in the cache's folder for `adwp "
     "profile` "
     "and the compiler's estimates",
     0},
    {"threads", KEY_THREADS, "N", 0, "The speed of N threads; one a CPU if not given", 0},
    {0},
};
static const struct argp argp = {
    .options = option_list, .parser = parse, .doc = "Tell what this machine can do, what is missing, and what to do about it."};

typedef enum Verdict { VERDICT_GOOD, VERDICT_MISSING, VERDICT_NOTE } Verdict;
static const char *const verdict_names[] = {"ok", "missing", "note"};

typedef struct Doctor {
  const DoctorOptions *options;
  Arena *arena;
  json_t *findings; /* null: printed as they come */
  bool runs;        /* on some device */
  bool failed;      /* to measure, or to keep that */
} Doctor;

/* `figures`: null, or more of it for JSON. */
static void tell_figures(Doctor *doctor, Verdict verdict, const char *area, const char *text, json_t *figures) {
  if (doctor->findings)
    json_array_append_new(doctor->findings, json_pack("{s:s, s:s, s:s, s:o*}", "area", area, "verdict", verdict_names[verdict],
                                                      "text", text, "figures", figures));
  else
    printf("%-8s %-13s %s\n", verdict_names[verdict], area, text);
}

static void tell(Doctor *doctor, Verdict verdict, const char *area, const char *text) {
  tell_figures(doctor, verdict, area, text, NULL);
}

static void tell_machine(Doctor *doctor, const MachineFigures *figures, const char *fault) {
  Text text = {0};
  if (fault) text_printf(&text, "%s; ", fault);
  if (!figures->measured) text_add(&text, "not measured, which `adwp doctor --measure` does; an estimate: ");
  figures_text(figures, &text);
  tell_figures(doctor, figures->measured ? VERDICT_GOOD : VERDICT_NOTE, "machine", text.data,
               doctor->findings ? figures_json(figures) : NULL);
  text_free(&text);
}

static void look_at_machine(Doctor *doctor, EmitTarget *target) {
  const char *folder = emit_cache_folder(doctor->arena), *fault = NULL;
  int32_t threads = doctor->options->shared.threads;
  MachineFigures figures;
  Err err = {{0}};
  if (doctor->options->measure && !machine_measure(target, threads, folder, &figures, &err)) {
    doctor->failed = true;
    tell(doctor, VERDICT_MISSING, "machine", err.text);
    return;
  }
  if (!doctor->options->measure) machine_figures(target, threads, folder, &figures, &fault);
  if (doctor->options->measure && !folder) fault = "there is no folder to keep this in: set HOME or XDG_CACHE_HOME";
  tell_machine(doctor, &figures, fault);
}

static void look_at_cpu(Doctor *doctor) {
  Err err = {{0}};
  EmitTarget *target = emit_target_new(NULL, false, &err);
  if (!target) {
    tell(doctor, VERDICT_MISSING, "cpu", err.text);
    doctor->failed = doctor->options->measure;
    return;
  }
  doctor->runs = true;
  double pages = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGE_SIZE);
  tell(doctor, VERDICT_GOOD, "cpu",
       arena_printf(doctor->arena, "%s, %d threads, %.1f GiB of memory", emit_target_name(target),
                    doctor->options->shared.threads, pages / 0x1p30));
  look_at_machine(doctor, target);
  emit_target_free(target);
}

static void look_at_nvrtc(Doctor *doctor) {
  Text version = {0}, archs = {0};
  Err err = {{0}};
  if (emit_find_nvrtc(&version, &archs, &err))
    tell(doctor, VERDICT_GOOD, "cuda compile", arena_printf(doctor->arena, "NVRTC %s, for %s", version.data, archs.data));
  else
    tell(doctor, VERDICT_MISSING, "cuda compile", err.text);
  text_free(&version);
  text_free(&archs);
}

static void look_at_cuda(Doctor *doctor) {
  CudaDevice device;
  Err err = {{0}};
  if (!cuda_find(NULL, &device, &err)) {
    tell(doctor, VERDICT_MISSING, "cuda run", err.text);
    return;
  }
  doctor->runs = true;
  tell(doctor, VERDICT_GOOD, "cuda run",
       arena_printf(doctor->arena, "%s (%s), %d processors, %.1f of %.1f GiB free, driver for CUDA %s", device.name, device.arch,
                    device.processors, (double)device.free_bytes / 0x1p30, (double)device.memory_bytes / 0x1p30, device.driver));
  tell(doctor, device.has_blas ? VERDICT_GOOD : VERDICT_MISSING, "cublas", device.blas);
}

/* "12.3 GiB free" on the disk of `folder` */
static const char *free_space(Doctor *doctor, const char *folder) {
  struct statvfs info;
  if (statvfs(folder, &info)) return "of unknown space";
  return arena_printf(doctor->arena, "%.1f GiB free", (double)info.f_bavail * (double)info.f_frsize / 0x1p30);
}

static void look_at_cache(Doctor *doctor) {
  const char *folder = emit_cache_folder(doctor->arena);
  if (!folder) {
    tell(doctor, VERDICT_MISSING, "cache", "there is no folder for compiled kernels: set HOME or XDG_CACHE_HOME");
    return;
  }
  const char *fault = emit_cache_open(folder);
  if (fault)
    tell(doctor, VERDICT_MISSING, "cache",
         arena_printf(doctor->arena,
                      "compiled kernels are not kept: %s: %s; mend that or set XDG_CACHE_HOME to a folder of your own", folder,
                      fault));
  else
    tell(doctor, VERDICT_GOOD, "cache", arena_printf(doctor->arena, "%s, %s", folder, free_space(doctor, folder)));
}

static void look_at_data(Doctor *doctor) {
  if (!doctor->options->data) {
    tell(doctor, VERDICT_NOTE, "data", "not looked at; `adwp doctor --data DIR` checks a CIFAR-10; synthetic data need none");
    return;
  }
  ProgramData data = {.name = "cifar10",
                      .format = "cifar10-binary",
                      .channels = 3,
                      .height = 32,
                      .width = 32,
                      .classes = 10,
                      .deviation = {1, 1, 1, 1, 1, 1, 1, 1},
                      .train_fraction = 0.5};
  Err err = {{0}};
  Dataset *dataset = dataset_load(&data, doctor->options->data, &err);
  if (dataset) {
    long long train = dataset->parts[DATASET_TRAIN].count, valid = dataset->parts[DATASET_VALID].count;
    tell(doctor, VERDICT_GOOD, "data",
         arena_printf(doctor->arena, "%s: CIFAR-10, %lld training and %lld test images", doctor->options->data, train + valid,
                      (long long)dataset->parts[DATASET_TEST].count));
  } else {
    tell(doctor, VERDICT_MISSING, "data", err.text);
  }
  dataset_free(dataset);
}

int command_doctor(int count, char **arguments, Err *err) {
  (void)err;
  DoctorOptions options = {0};
  argp_parse(&argp, count, arguments, 0, NULL, &options);
  options_finish(&options.shared);
  Doctor doctor = {.options = &options, .arena = arena_new(), .findings = options.json ? json_array() : NULL};
  look_at_cpu(&doctor);
  look_at_nvrtc(&doctor);
  look_at_cuda(&doctor);
  look_at_cache(&doctor);
  look_at_data(&doctor);
  if (doctor.findings) {
    json_dumpf(doctor.findings, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(doctor.findings);
  }
  arena_free(doctor.arena);
  return doctor.runs && !doctor.failed ? STATUS_GOOD : STATUS_FAILED;
}
