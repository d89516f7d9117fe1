/* A launch: its blocks one after another, each a fiber a thread. A thread runs until it meets a barrier or ends, then the next
 * one runs, in the order that is asked for; when all have met the same barrier, all go on. A thread that never waits gives its
 * fiber to the next. What one thread may see of another's work between two barriers is an accident here as on a GPU: the shadow
 * (words.c) finds it whatever the order.
 *
 * A fault leaves the block where it is: its fibers are abandoned. */
#include "tests/emulator/emulator_private.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

Run emulator_run;
static Run *const run = &emulator_run;

static struct {
  EmulatorOrder order;
  uint64_t seed;
  bool check, settled;
  EmulatorHook *hook;
  void *context;
} control;

/* The environment is read once, unless a test has asked first. */
static void settle(void) {
  if (control.settled) return;
  control.settled = true;
  const char *order = getenv("ADWP_EMULATOR_ORDER"), *check = getenv("ADWP_EMULATOR_CHECK");
  control.check = !check || strcmp(check, "0") != 0;
  if (!order || !strcmp(order, "forward")) return;
  control.order = strcmp(order, "backward") ? EMULATOR_RANDOM : EMULATOR_BACKWARD;
  control.seed = strtoull(order, NULL, 10);
}

EMULATOR_EXPORT void adwp_emulator_set_order(EmulatorOrder order, uint64_t seed) {
  settle();
  control.order = order;
  control.seed = seed;
}
EMULATOR_EXPORT void adwp_emulator_set_check(bool races) {
  settle();
  control.check = races;
}
EMULATOR_EXPORT void adwp_emulator_set_hook(EmulatorHook *hook, void *context) {
  control.hook = hook;
  control.context = context;
}

void emulator_report(const char *message) {
  emulator_remember(message);
  if (control.hook) {
    control.hook(control.context, message);
    return;
  }
  fprintf(stderr, "CUDA emulator: %s\n", message);
  abort();
}

/* ---- faults ---- */

uint32_t launch_block_of(uint32_t epoch) {
  size_t at = run->block_epochs.count;
  while (at && run->block_epochs.data[at - 1] > epoch) at--;
  return at ? run->block_numbers.data[at - 1] : 0;
}

/* The phase whose end is the barrier of that line: a text begins each with its name in a comment. */
static const char *phase_before(int line, char name[64]) {
  static const char opens[] = "{ /* ";
  const char *text = run->kernel->text, *found = NULL;
  name[0] = 0;
  for (const char *next; line-- > 0 && text; text = next) {
    next = strchr(text, '\n');
    const char *phase = strstr(text, opens);
    if (phase && next && phase < next) found = phase + strlen(opens);
    next = next ? next + 1 : NULL;
  }
  if (found) snprintf(name, 64, ", phase %.*s", (int)strcspn(found, " \n"), found);
  return name;
}

static void fault(int thread, const char *format, va_list arguments) {
  char what[700], where[200], phase[64];
  vsnprintf(what, sizeof what, format, arguments);
  if (run->barriers)
    snprintf(where, sizeof where, "after barrier %d (line %d%s)", run->barriers, run->last_line,
             phase_before(run->last_line, phase));
  else
    snprintf(where, sizeof where, "before the first barrier");
  run->faulted = true;
  err_set(run->err, "kernel %s, block %u, thread %d, %s: %s", run->kernel->symbol, run->block, thread, where, what);
  emulator_report(run->err->text);
}

_Noreturn void launch_fault(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fault(run->current, format, arguments);
  va_end(arguments);
  for (;;) fiber_leave(run->thread[run->current].fiber); /* and is never entered again */
}

/* The same outside of a thread. */
static void block_fault(int thread, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void block_fault(int thread, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fault(thread, format, arguments);
  va_end(arguments);
}

/* ---- a thread ---- */

static void thread_main(void) {
  fiber_begin();
  for (;;) {
    Thread *thread = &run->thread[run->current];
    Fiber *fiber = thread->fiber;
    run->kernel->entry->run(run->current, run->task, run->parameters);
    thread->state = THREAD_DONE;
    fiber_leave(fiber);
  }
}

static void wait_at(ThreadState state, int line) {
  Thread *thread = &run->thread[run->current];
  thread->state = state;
  thread->line = line;
  fiber_leave(thread->fiber);
}

EMULATOR_EXPORT void emulator_barrier(int line) {
  wait_at(THREAD_BARRIER, line);
}

static void check_sum(int threads) {
  if (threads != run->threads) launch_fault("a sum over %d threads in a block of %d", threads, run->threads);
}

EMULATOR_EXPORT float emulator_block_sum_f32(float value, int threads, int line) {
  check_sum(threads);
  run->thread[run->current].value.single = value;
  wait_at(THREAD_SUM_F32, line);
  return run->sum.single;
}

EMULATOR_EXPORT double emulator_block_sum_f64(double value, int threads, int line) {
  check_sum(threads);
  run->thread[run->current].value.wide = value;
  wait_at(THREAD_SUM_F64, line);
  return run->sum.wide;
}

EMULATOR_EXPORT void emulator_shared(void *array, int size, const char *name) {
  if (run->current == run->order[0] && run->barriers == 0) run->shared_bytes += (size_t)(size + 15) / 16 * 16;
  size_t most = run->launch->kernel->bodies.count ? run->launch->shared_bytes : EMULATOR_SHARED_BYTES;
  if (run->shared_bytes > most)
    launch_fault("with %s the block has %zu bytes of shared memory; %s %zu", name, run->shared_bytes,
                 run->launch->kernel->bodies.count ? "this launch gives it" : "a GPU's kernel may have", most);
  if (array && !memory_shared(array, (size_t)size)) launch_fault("too many shared arrays: %s", name);
}

/* ---- a block ---- */

static uint64_t draw(uint64_t *state) { /* splitmix64 */
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static void set_order(void) {
  int n = run->threads;
  for (int i = 0; i < n; i++) run->order[i] = control.order == EMULATOR_BACKWARD ? n - 1 - i : i;
  if (control.order != EMULATOR_RANDOM) return;
  for (int i = n - 1; i > 0; i--) {
    int j = (int)(draw(&run->random) % (uint64_t)(i + 1)), swapped = run->order[i];
    run->order[i] = run->order[j];
    run->order[j] = swapped;
  }
}

/* Runs every thread up to where it waits or ends. */
static void run_threads(void) {
  for (int i = 0; i < run->threads && !run->faulted; i++) {
    run->current = run->order[i];
    Thread *thread = &run->thread[run->current];
    if (thread->state == THREAD_DONE) continue;
    thread->state = THREAD_READY;
    if (!thread->fiber) thread->fiber = fiber_get(thread_main);
    fiber_enter(thread->fiber);
    if (thread->state == THREAD_DONE) {
      fiber_put(thread->fiber);
      thread->fiber = NULL;
    }
  }
}

static const char *shown(ThreadState state) {
  return state == THREAD_DONE ? "has ended" : state == THREAD_BARRIER ? "waits at the barrier" : "waits at the sum";
}

/* All threads wait at one barrier, or all have ended. */
static bool agree(void) {
  const Thread *first = &run->thread[0];
  for (int i = 1; i < run->threads; i++) {
    const Thread *thread = &run->thread[i];
    if (thread->state == first->state && (first->state == THREAD_DONE || thread->line == first->line)) continue;
    char lines[2][32] = {"", ""};
    if (first->state != THREAD_DONE) snprintf(lines[0], sizeof lines[0], " of line %d", first->line);
    if (thread->state != THREAD_DONE) snprintf(lines[1], sizeof lines[1], " of line %d", thread->line);
    block_fault(i, "divergent barrier: this thread %s%s, thread 0 %s%s", shown(thread->state), lines[1], shown(first->state),
                lines[0]);
    return false;
  }
  return true;
}

/* The threads of a warp took part in the same products. */
static bool products_agree(void) {
  for (int i = 0; i < run->threads; i++) {
    const Thread *thread = &run->thread[i], *first = &run->thread[i - i % EMULATOR_WARP];
    if (thread->product_count == first->product_count && thread->products == first->products) continue;
    block_fault(i, "the threads of a warp did not take part in the same products: %u by this thread, %u by thread %d%s",
                thread->product_count, first->product_count, i - i % EMULATOR_WARP,
                thread->product_count == first->product_count ? ", at other places" : "");
    return false;
  }
  for (int i = 0; i < run->threads; i++) run->thread[i].product_count = 0, run->thread[i].products = 0;
  return true;
}

static void sum_single(void) {
  float sum[EMULATOR_MOST_THREADS];
  for (int i = 0; i < run->threads; i++) sum[i] = run->thread[i].value.single;
  for (int half = run->threads / 2; half >= 1; half /= 2)
    for (int i = 0; i < half; i++) sum[i] += sum[i + half];
  run->sum.single = sum[0];
}

static void sum_wide(void) {
  double sum[EMULATOR_MOST_THREADS];
  for (int i = 0; i < run->threads; i++) sum[i] = run->thread[i].value.wide;
  for (int half = run->threads / 2; half >= 1; half /= 2)
    for (int i = 0; i < half; i++) sum[i] += sum[i + half];
  run->sum.wide = sum[0];
}

static void begin_block(uint32_t block) {
  run->block = block;
  run->block_epoch = ++run->epoch;
  vector_push(&run->block_epochs, run->block_epoch);
  vector_push(&run->block_numbers, block);
}

/* A kernel on one task: shared memory holds nothing that it may rely on. */
static void begin_kernel(const Kernel *kernel, int task, void **parameters) {
  run->kernel = kernel;
  run->task = task;
  run->parameters = parameters;
  run->threads = kernel->entry->threads;
  run->barriers = run->last_line = 0;
  run->shared_bytes = 0;
  memory_next_block();
  for (int i = 0; i < run->threads; i++) {
    Thread *thread = &run->thread[i];
    thread->state = THREAD_READY;
    thread->copies.count = 0;
    thread->products = thread->product_count = 0;
  }
}

static bool run_kernel(const Kernel *kernel, int task, void **parameters) {
  begin_kernel(kernel, task, parameters);
  for (;;) {
    set_order();
    run_threads();
    if (run->faulted || !agree() || !products_agree()) break;
    ThreadState state = run->thread[0].state;
    if (state == THREAD_DONE) return true;
    if (state == THREAD_SUM_F32) sum_single();
    if (state == THREAD_SUM_F64) sum_wide();
    run->barriers++;
    run->last_line = run->thread[0].line;
    run->epoch++;
  }
  for (int i = 0; i < run->threads; i++) {
    if (run->thread[i].fiber) fiber_abandon(run->thread[i].fiber);
    run->thread[i].fiber = NULL;
  }
  return false;
}

/* ---- a block of a group: kernels of its own one after another, a barrier between them ---- */

static bool table_fault(const char *what, uint32_t block) {
  run->kernel = run->launch->kernel;
  block_fault(0, "%s of block %u does not lie in an allocation of the device", what, block);
  return false;
}

static bool run_step(const GroupStep *step, int task, const uint64_t *arguments) {
  const Kernel *group = run->launch->kernel;
  if (step->body >= group->bodies.count) return table_fault("the kernel", run->block);
  const Kernel *body = group->bodies.data[step->body];
  uint64_t values[KERNEL_MOST_PARAMETERS];
  void *parameters[KERNEL_MOST_PARAMETERS];
  if (!memory_holds(arguments + step->argument, (size_t)body->parameters * sizeof *arguments))
    return table_fault("an argument", run->block);
  memcpy(values, arguments + step->argument, (size_t)body->parameters * sizeof *values);
  for (int i = 0; i < body->parameters; i++) parameters[i] = &values[i];
  return run_kernel(body, task, parameters);
}

static bool run_group(uint32_t number) {
  const GroupBlock *blocks;
  const GroupStep *steps;
  const uint64_t *arguments;
  memcpy(&blocks, run->launch->parameters[0], sizeof blocks);
  memcpy(&steps, run->launch->parameters[1], sizeof steps);
  memcpy(&arguments, run->launch->parameters[2], sizeof arguments);
  if (!memory_holds(blocks + number, sizeof *blocks)) return table_fault("the entry", number);
  GroupBlock block = blocks[number];
  if (!block.count || !memory_holds(steps + block.step, block.count * sizeof *steps)) return table_fault("a step", number);
  for (uint32_t i = 0; i < block.count; i++) {
    if (!run_step(&steps[block.step + i], block.task, arguments)) return false;
    run->epoch++;
  }
  return true;
}

static bool run_block(uint32_t block) {
  const Launch *launch = run->launch;
  begin_block(block);
  if (launch->kernel->bodies.count) return run_group(block);
  return run_kernel(launch->kernel, (int)block, launch->parameters);
}

/* ---- a launch ---- */

static uint32_t block_at(uint32_t place, uint32_t blocks, uint32_t factor, uint32_t shift) {
  if (control.order == EMULATOR_FORWARD) return place;
  if (control.order == EMULATOR_BACKWARD) return blocks - 1 - place;
  return (uint32_t)(((uint64_t)place * factor + shift) % blocks);
}

static uint32_t common_divisor(uint32_t a, uint32_t b) {
  return b ? common_divisor(b, a % b) : a;
}

static bool fits(const Launch *launch, Err *err) {
  const Kernel *kernel = launch->kernel;
  int threads = kernel->entry ? kernel->entry->threads : kernel->threads;
  for (size_t i = 0; i < kernel->bodies.count; i++)
    if (kernel->bodies.data[i]->entry->threads > threads)
      return err_set(err, "kernel %s of group %s has more threads than the group's %d", kernel->bodies.data[i]->symbol,
                     kernel->symbol, threads);
  if ((int)launch->threads != threads || threads < 1 || threads > EMULATOR_MOST_THREADS)
    return err_set(err, "kernel %s is written for %d threads a block (1 .. %d), and launched with %u", launch->kernel->symbol,
                   threads, EMULATOR_MOST_THREADS, launch->threads);
  return true;
}

bool launch_run(const Launch *launch, Err *err) {
  settle();
  if (!fits(launch, err)) {
    emulator_report(err->text);
    return false;
  }
  if (run->epoch > UINT32_MAX / 2) die("more barriers than the shadow memory can tell apart");
  run->launch = launch;
  run->kernel = launch->kernel;
  run->err = err;
  run->check = control.check;
  run->faulted = false;
  run->launch_epoch = run->epoch + 1;
  run->block_epochs.count = run->block_numbers.count = 0;
  run->random = control.seed;
  uint32_t factor = (uint32_t)(draw(&run->random) % launch->blocks) | 1, shift = (uint32_t)draw(&run->random);
  while (common_divisor(factor, launch->blocks) != 1) factor += 2;
  bool done = true;
  for (uint32_t i = 0; i < launch->blocks && done; i++) done = run_block(block_at(i, launch->blocks, factor, shift));
  memory_next_block();
  return done;
}
