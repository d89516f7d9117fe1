/* The trace of `adwp profile --trace`: Chrome's trace-event JSON, which ui.perfetto.dev and chrome://tracing read. A process, a
 * track a worker, a slice for each launch and the tasks of it that a worker did in one go; between slices a worker waits at a
 * segment's end or looks for work. A GPU has one track, on which the launches' own times are laid end to end. */
#include "compiler/driver/profile.h"

enum { TRACE_STEPS = 2 };

typedef struct Place { /* of a launch in its step */
  uint32_t segment;
  const Launch *launch;
} Place;

typedef struct Trace {
  const Profile *profile;
  const Place *places; /* of each launch, over all segments */
  double start;        /* seconds: of the step under way, since the first */
  double end;          /* of all that was seen */
  int32_t workers;     /* seen */
  Text text;
} Trace;

/* Names of kernels are words of ours, without anything that JSON would want escaped. */
static void add_slice(void *context, const ExecutorSlice *slice) {
  Trace *trace = context;
  const Program *program = trace->profile->program;
  const Place *place = &trace->places[slice->launch];
  const ProgramKernel *kernel = place->launch->product ? NULL : &program->kernels[place->launch->kernel];
  const char *description = kernel && kernel->description ? kernel->description : "";
  text_printf(&trace->text, ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"name\":\"%s\",\"args\":{",
              slice->worker, 1e6 * (trace->start + slice->start), 1e6 * (slice->end - slice->start),
              kernel ? kernel->name : "cublas");
  text_printf(&trace->text, "\"shape\":\"%s\",\"segment\":%u,\"launch\":%u,\"first_task\":%lld,\"tasks\":%lld}}", description,
              place->segment, slice->launch, (long long)slice->first, (long long)(slice->last - slice->first));
  if (trace->start + slice->end > trace->end) trace->end = trace->start + slice->end;
  if (slice->worker >= trace->workers) trace->workers = slice->worker + 1;
}

static void add_name(Trace *trace, const char *what, int32_t thread, const char *name) {
  text_printf(&trace->text, ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"name\":\"%s\",\"args\":{\"name\":\"%s\"}}", thread, what,
              name);
}

static void add_names(Trace *trace) {
  bool cpu = trace->profile->program->device == PROGRAM_CPU;
  for (int32_t i = 0; i < trace->workers; i++) {
    char name[32];
    snprintf(name, sizeof name, cpu ? "worker %d" : "GPU", i);
    add_name(trace, "thread_name", i, name);
  }
}

static const Place *find_places(const ProgramStep *step, Arena *arena) {
  size_t count = 0;
  for (uint32_t s = 0; s < step->segment_count; s++) count += step->segments[s].count;
  Place *places = ARENA_ARRAY(arena, Place, count + 1), *place = places;
  for (uint32_t s = 0; s < step->segment_count; s++)
    for (uint32_t l = 0; l < step->segments[s].count; l++) *place++ = (Place){s, &step->segments[s].launches[l]};
  return places;
}

bool profile_trace(const Profile *profile, const char *path, Err *err) {
  Arena *arena = arena_new();
  Trace trace = {.profile = profile, .places = find_places(profile->step, arena)};
  text_printf(&trace.text,
              "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n"
              "{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{\"name\":\"adwp %s\"}}",
              profile->step->name);
  bool done = true;
  for (int i = 0; i < TRACE_STEPS && done; i++) {
    done = executor_trace(profile->executor, profile->step, profile->program->batch, add_slice, &trace, err);
    trace.start = trace.end;
  }
  add_names(&trace);
  text_add(&trace.text, "\n]}\n");
  done = done && driver_write(path, &trace.text, err);
  text_free(&trace.text);
  arena_free(arena);
  return done;
}
