/* kernel_bench: kernels of one thread, fused against their unfused parts.
 *
 *   kernel_bench [batch=98] [rounds=20] [cpu=x86-64-v3] [asm] [json] [NAME ...]
 *
 * A group is named by its shape: `k3d1s1c16` is a ConvBlock of kernel 3, dilation 1, stride 1 and 16 channels, `.grad` its
 * gradient, `k3d1s1c16bn` has a BN before its ReLU, `conv1s1i64o16` a convolution of kernel 1 from 64 channels to 16, `.dx` and
 * `.dw` its gradients; names choose groups, a trailing `*` stands for any end. A line is one way to do a group; its figures are
 * GFLOP/s of the arithmetic that the result needs, whatever a way executes. `task`: one task's images again and again, in the
 * second-level cache. `batch`: a whole batch over one set of tensors, a launch after the other. `cold`: the same over several
 * sets in turn. Times are CPU time of the thread, the least of all rounds, the ways of a group in turn, so that a neighbour of
 * this machine disturbs them alike. `asm` prints the assembly of the groups' kernels instead. */
#include "tests/bench/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char usage[] = "usage: kernel_bench [batch=98] [rounds=20] [cpu=x86-64-v3] [asm] [json] [NAME ...]\n";

/* ---- running ---- */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *tensor_new(int64_t count) {
  size_t bytes = ((size_t)count * sizeof(float) + 4095) / 4096 * 4096;
  float *data = aligned_alloc(4096, bytes);
  if (!data) die("no memory for %lld floats", (long long)count);
  uint32_t random = 1;
  for (int64_t i = 0; i < count; i++) {
    random = random * 1664525u + 1013904223u;
    data[i] = (float)(random >> 8) / (float)(1 << 23) - 1;
  }
  return data;
}

/* Tasks below `most` of every part, one part after the other. */
static void run_way(const Group *g, const Way *way, int set, void *scratch, int64_t most) {
  for (int i = 0; i < way->count; i++) {
    const Part *part = &way->parts[i];
    void *buffers[MOST_BUFFERS];
    for (int j = 0; j < part->buffers; j++) buffers[j] = g->sets[set][part->tensor[j]];
    KernelArgs args = {buffers, scratch, g->batch};
    part->run(&args, 0, part->tasks < most ? part->tasks : most);
  }
}

/* Seconds of one of `repeats` runs; reading this clock takes as long as a small kernel. */
static double time_way(const Group *g, const Way *way, int set, void *scratch, int64_t most, int repeats) {
  double start = now();
  for (int i = 0; i < repeats; i++) run_way(g, way, set, scratch, most);
  return (now() - start) / repeats;
}

static void least(double *best, double seconds) {
  if (seconds < *best) *best = seconds;
}

static void run_group(const Bench *b, Group *g) {
  int64_t bytes = 64;
  for (int w = 0; w < g->count; w++)
    for (int i = 0; i < g->ways[w].count; i++) {
      int64_t own = loop_scratch(g->ways[w].parts[i].ir, NULL);
      if (own > bytes) bytes = own;
    }
  float *scratch = tensor_new(bytes / 4 + 16);
  for (int set = 0; set < SETS; set++)
    for (int i = 0; i < TENSORS; i++)
      if (g->size[i]) g->sets[set][i] = tensor_new(g->size[i]);
  for (int round = 0; round < b->rounds; round++)
    for (int w = 0; w < g->count; w++) {
      Way *way = &g->ways[w];
      least(&way->task, time_way(g, way, 0, scratch, 1, 40));
      for (int again = 0; again < 3; again++) least(&way->batch, time_way(g, way, 0, scratch, INT64_MAX, 1));
    }
  for (int round = 0; round < b->rounds; round++)
    for (int w = 0; w < g->count; w++) least(&g->ways[w].cold, time_way(g, &g->ways[w], round % SETS, scratch, INT64_MAX, 1));
  for (int set = 0; set < SETS; set++)
    for (int i = 0; i < TENSORS; i++) free(g->sets[set][i]);
  free(scratch);
}

static void print_group(const Bench *b, const Group *g) {
  for (int w = 0; w < g->count; w++) {
    const Way *way = &g->ways[w], *fused = &g->ways[0];
    double giga = g->flop / 1e9, task = giga * (double)g->images / way->task, batch = giga * (double)g->batch / way->batch;
    double cold = giga * (double)g->batch / way->cold;
    if (b->json) {
      printf("{\"group\": \"%s\", \"way\": \"%s\", \"task\": %.2f, \"batch\": %.2f, \"cold\": %.2f}\n", g->name, way->name, task,
             batch, cold);
      continue;
    }
    printf("%-18s %-7s task %6.1f  batch %6.1f  cold %6.1f GFLOP/s", g->name, way->name, task, batch, cold);
    if (w)
      printf("   fused is %.2f %.2f %.2f times as fast", way->task / fused->task, way->batch / fused->batch,
             way->cold / fused->cold);
    printf("\n");
  }
  fflush(stdout);
}

static bool compile(const Bench *b, Group *g, Err *err) {
  for (int w = 0; w < g->count; w++) {
    Way *way = &g->ways[w];
    const LoopKernel *kernels[MOST_PARTS];
    for (int i = 0; i < way->count; i++) kernels[i] = way->parts[i].ir;
    way->code = emit_compile(b->target, kernels, (size_t)way->count, 1, NULL, NULL, err);
    if (!way->code) return false;
    for (int i = 0; i < way->count; i++) way->parts[i].run = emit_code_function(way->code, (size_t)i);
  }
  return true;
}

static bool print_assembly(const Bench *b, const Group *g, Err *err) {
  Text text = {0};
  bool ok = true;
  for (int w = 0; ok && w < g->count; w++)
    for (int i = 0; ok && i < g->ways[w].count; i++) ok = emit_text(b->target, g->ways[w].parts[i].ir, EMIT_ASM, &text, err);
  if (ok) printf("%.*s", (int)text.length, text.data);
  text_free(&text);
  return ok;
}

static void group_free(Group *g) {
  for (int w = 0; w < g->count; w++) {
    for (int i = 0; i < g->ways[w].count; i++) loop_free_tables(g->ways[w].parts[i].ir);
    if (g->ways[w].code) emit_code_free(g->ways[w].code);
  }
}

/* ---- the program ---- */

/* Whether a name was given on the command line, or none was. */
static bool chosen(const char *name, const char *const *names, int count) {
  for (int i = 0; i < count; i++) {
    size_t length = strlen(names[i]);
    bool any_end = length > 0 && names[i][length - 1] == '*';
    if (any_end ? strncmp(name, names[i], length - 1) == 0 : strcmp(name, names[i]) == 0) return true;
  }
  return count == 0;
}

static bool run_all(const Bench *b, const char *const *names, int count, Err *err) {
  int ran = 0;
  bool ok = true;
  for (int number = 0; ok && number < group_count(); number++) {
    Group g = {.batch = b->batch};
    group_name(number, &g);
    if (!chosen(g.name, names, count)) continue;
    ran++;
    group_describe(b, number, &g);
    ok = b->print ? print_assembly(b, &g, err) : compile(b, &g, err);
    if (ok && !b->print) {
      run_group(b, &g);
      print_group(b, &g);
    }
    group_free(&g);
  }
  return ok && (ran || err_set(err, "no group has such a name"));
}

int main(int argc, char **argv) {
  Err err;
  Bench b = {.arena = arena_new(), .batch = 98, .rounds = 20};
  const char *cpu = NULL, **names = arena_alloc(b.arena, (size_t)argc * sizeof *names);
  int count = 0;
  for (int i = 1; i < argc; i++) {
    if (strncmp(argv[i], "batch=", 6) == 0)
      b.batch = atoi(argv[i] + 6);
    else if (strncmp(argv[i], "rounds=", 7) == 0)
      b.rounds = atoi(argv[i] + 7);
    else if (strncmp(argv[i], "cpu=", 4) == 0)
      cpu = argv[i] + 4;
    else if (strcmp(argv[i], "asm") == 0)
      b.print = true;
    else if (strcmp(argv[i], "json") == 0)
      b.json = true;
    else
      names[count++] = argv[i];
  }
  bool ok = b.batch > 0 && b.batch <= 4096 && b.rounds > 0;
  if (!ok) fputs(usage, stderr);
  if (ok) {
    b.target = emit_target_new(cpu, false, &err);
    if (b.target) b.kernel.lanes = emit_target_lanes(b.target);
    ok = b.target && run_all(&b, names, count, &err);
    if (!ok) fprintf(stderr, "kernel_bench: %s\n", err.text);
    emit_target_free(b.target);
  }
  arena_free(b.arena);
  return !ok;
}
