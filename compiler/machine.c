/* The machine's figures in the cache's folder: a small text file a processor, level and number of threads, named by their hash.
 * It ends in a checksum of all that stands before, and is used only if its head, its numbers and that are right; anything else
 * counts as damaged, and `adwp doctor --measure` writes it again. It appears whole, by a rename. */
#include "compiler/machine.h"

#include "compiler/emit/emit.h"
#include "compiler/machine_private.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_FILE = 1 << 14 };

static const struct {
  const char *name, *what;
  double unit, least, most; /* what is outside is no measurement */
} figure_table[MACHINE_FIGURES] = {
    /* in the order of machine_place */
    {"fma_one", "GFLOP/s of one thread", 1e9, 1e7, 1e15},
    {"fma_all", "GFLOP/s of all threads", 1e9, 1e7, 1e17},
    {"memory_read", "GB/s read from memory", 1e9, 1e7, 1e15},
    {"memory_write", "GB/s written to memory", 1e9, 1e7, 1e15},
    {"memory_scale", "GB/s read and written", 1e9, 1e7, 1e15},
    {"cache2_read", "GB/s read from the second-level caches", 1e9, 1e7, 1e17},
    {"cache3_read", "GB/s read from the third-level cache", 1e9, 1e7, 1e17},
    {"launch", "us for a segment beside its tasks", 1e-6, 1e-9, 1},
};

double *machine_place(MachineFigures *figures, int index) {
  double *const places[MACHINE_FIGURES] = {&figures->fma_one,      &figures->fma_all,      &figures->memory_read,
                                           &figures->memory_write, &figures->memory_scale, &figures->cache2_read,
                                           &figures->cache3_read,  &figures->launch};
  return places[index];
}

void machine_list(const MachineFigures *figures, MachineFigure list[MACHINE_FIGURES]) {
  MachineFigures copy = *figures;
  for (int i = 0; i < MACHINE_FIGURES; i++)
    list[i] = (MachineFigure){figure_table[i].name, figure_table[i].what, figure_table[i].unit,
                              *machine_place(&copy, i) / figure_table[i].unit};
}

bool machine_plausible(const MachineFigures *figures) {
  MachineFigures copy = *figures;
  for (int i = 0; i < MACHINE_FIGURES; i++) {
    double value = *machine_place(&copy, i);
    if (!isfinite(value) || value < figure_table[i].least || value > figure_table[i].most) return false;
  }
  return true;
}

/* "AMD EPYC", as the system names the processor; "unknown" where it does not. */
static void add_processor(Text *text) {
  char line[512];
  FILE *file = fopen("/proc/cpuinfo", "r");
  const char *name = NULL;
  while (file && !name && fgets(line, sizeof line, file)) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, "model name", strlen("model name")) == 0 && colon) name = colon + 1;
  }
  if (name) line[strcspn(line, "\n")] = 0;
  text_add(text, name ? name + strspn(name, " ") : "unknown");
  if (file) fclose(file);
}

/* What the figures are of, which is also how the file begins. */
static void add_head(const EmitTarget *target, int32_t threads, Text *text) {
  text_add(text, "adwp machine 1\nprocessor ");
  add_processor(text);
  text_printf(text, "\ntarget %s\nthreads %d\n", emit_target_name(target), threads);
}

static char *path_of(const char *folder, const Text *head) {
  HashName name = hash_name(head->data, head->length);
  size_t size = strlen(folder) + sizeof name.hex + 16;
  char *path = memory_alloc(size);
  snprintf(path, size, "%s/%s.machine", folder, name.hex);
  return path;
}

static void add_check(Text *text) {
  HashName check = hash_name(text->data, text->length);
  text_printf(text, "check %s\n", check.hex);
}

/* The numbers of a file whose head is right; false: it is damaged. */
static bool parse_numbers(const char *data, size_t size, const char *at, MachineFigures *figures) {
  for (int i = 0; i < MACHINE_FIGURES; i++) {
    size_t length = strlen(figure_table[i].name);
    if (strncmp(at, figure_table[i].name, length) != 0 || at[length] != ' ') return false;
    char *end;
    *machine_place(figures, i) = strtod(at + length + 1, &end);
    if (*end != '\n') return false;
    at = end + 1;
  }
  Text whole = {0};
  text_add_bytes(&whole, data, (size_t)(at - data));
  add_check(&whole);
  bool same = whole.length == size && memcmp(whole.data, data, size) == 0;
  text_free(&whole);
  return same && machine_plausible(figures);
}

/* 1: there they are, 0: there is no file, -1: it is damaged. */
static int load(const char *folder, const Text *head, MachineFigures *figures) {
  char *path = path_of(folder, head), *data = NULL;
  size_t size;
  int found = access(path, F_OK) ? 0 : -1;
  MachineFigures read = {.measured = true, .threads = figures->threads};
  if (found && file_read(path, MAX_FILE, &data, &size, NULL) && size > head->length &&
      memcmp(data, head->data, head->length) == 0 && parse_numbers(data, size, data + head->length, &read)) {
    *figures = read;
    found = 1;
  }
  free(data);
  free(path);
  return found;
}

void machine_figures(const EmitTarget *target, int32_t threads, const char *cache, MachineFigures *figures, const char **fault) {
  *figures = machine_estimate(threads);
  const char *why = cache ? emit_cache_open(cache) : NULL;
  if (cache && !why) {
    Text head = {0};
    add_head(target, threads, &head);
    if (load(cache, &head, figures) < 0) why = "the file of what was measured is damaged";
    text_free(&head);
  }
  if (fault) *fault = why;
}

bool machine_store(const EmitTarget *target, const char *cache, const MachineFigures *figures, Err *err) {
  const char *why = emit_cache_open(cache);
  if (why) return err_set(err, "the machine's figures cannot be kept in %s: %s", cache, why);
  Text text = {0};
  add_head(target, figures->threads, &text);
  char *path = path_of(cache, &text);
  MachineFigures copy = *figures;
  for (int i = 0; i < MACHINE_FIGURES; i++) text_printf(&text, "%s %.6g\n", figure_table[i].name, *machine_place(&copy, i));
  add_check(&text);
  bool done = file_replace(path, text.data, text.length, err);
  text_free(&text);
  free(path);
  return done;
}
