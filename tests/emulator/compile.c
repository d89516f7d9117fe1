/* Kernel texts to objects. Texts are kept until the first launch; then all that are new are shared out among a few translation
 * units, each behind the header of the words (which is built into this library), and the compiler makes a shared object of each,
 * several at once. They are linked with this library, whose functions the words are. Everything lies in a private folder that is
 * gone when they are loaded, or in the folder that $ADWP_EMULATOR_CACHE names, under the hash of all that a unit depends on.
 *
 * Objects stay loaded as long as the process: the same text again is the same kernel. */
#include "tests/emulator/emulator_private.h"

#include "runtime/base/file.h"
#include "runtime/base/text.h"

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* The words' header, as this library was built with it. */
__asm__(".pushsection .rodata\n"
        "emulator_words: .incbin \"" EMULATOR_WORDS "\"\n"
        "  .byte 0\n"
        ".popsection\n");
extern const char emulator_words[] __attribute__((visibility("hidden")));

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

/* Most of a test's time is the compiler's. So of undefined behaviour only what a text can have is looked for: indices of tiles,
 * and integers that leave 32 bits; the words look after everything else. Optimising would cost more than it saves where all is
 * watched. */
static const char *const flags[] = {
    "-std=c11",
    "-g0",
    "-fPIC",
    "-shared",
    "-w",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-ftrivial-auto-var-init=pattern",
#ifdef SANITIZED
    "-O0",
    "-fsanitize=address,bounds,signed-integer-overflow,integer-divide-by-zero",
    "-fno-sanitize-recover=all",
#else
    "-O1",
#endif
};

enum { UNIT_BYTES = 48 * 1024, MOST_JOBS = 16, MOST_ARGUMENTS = 48, FLAGS = sizeof flags / sizeof *flags };

static VECTOR(Kernel *) kernels; /* all that were ever added */
static VECTOR(Module *) modules; /* those that are loaded */

/* ---- texts ---- */

/* Copies the name at `at`, if it is one that fits. */
static bool read_name(const char *at, char *name, size_t size) {
  size_t length = 0;
  while (isalnum((unsigned char)at[length]) || at[length] == '_') length++;
  if (!length || length >= size) return false;
  memcpy(name, at, length);
  name[length] = 0;
  return true;
}

/* Reads the name behind KERNEL( and the types of the parameters in ENTRY(name, ARG(0, type), ..., BATCH(n)). */
static bool read_kernel(Kernel *kernel) {
  const char *name = strstr(kernel->text, "KERNEL("), *entry = strstr(kernel->text, "ENTRY(");
  if (!name || !entry || !read_name(name + strlen("KERNEL("), kernel->symbol, sizeof kernel->symbol)) return false;
  for (const char *at = entry; (at = strstr(at, "ARG(")); at += 4) {
    if (kernel->parameters == KERNEL_MOST_PARAMETERS) return false;
    const char *close = strchr(at, ')'), *star = strchr(at, '*');
    if (!close) return false;
    kernel->parameter_bytes[kernel->parameters++] = star && star < close ? 8 : 4;
  }
  if (!strstr(entry, "BATCH(")) return true;
  if (kernel->parameters == KERNEL_MOST_PARAMETERS) return false;
  kernel->parameter_bytes[kernel->parameters++] = 4;
  return true;
}

/* GROUP(name, threads, RUNS(0, kernel, threads) ...): bodies are kernels of the same module, which stand before it. */
static bool read_group(Kernel *group, const Module *module) {
  const char *threads = strchr(group->text, ',');
  if (!threads || !read_name(group->text + strlen("GROUP("), group->symbol, sizeof group->symbol)) return false;
  group->threads = atoi(threads + 1);
  group->parameters = GROUP_PARAMETERS;
  for (int i = 0; i < GROUP_PARAMETERS; i++) group->parameter_bytes[i] = 8;
  for (const char *at = threads; (at = strstr(at, "RUNS(")); at += 5) {
    char symbol[sizeof group->symbol];
    const char *name = strchr(at, ',');
    if (!name || (size_t)atoi(at + strlen("RUNS(")) != group->bodies.count || !read_name(name + 2, symbol, sizeof symbol))
      return false;
    Kernel *body = NULL;
    for (size_t i = 0; i < module->kernels.count && !body; i++)
      if (!strcmp(module->kernels.data[i]->symbol, symbol)) body = module->kernels.data[i];
    if (!body) return false;
    vector_push(&group->bodies, body);
  }
  return group->bodies.count > 0;
}

static Kernel *find_kernel(const HashName *key) {
  for (size_t i = 0; i < kernels.count; i++)
    if (!strcmp(kernels.data[i]->key.hex, key->hex)) return kernels.data[i];
  return NULL;
}

static bool add_kernel(Module *module, const char *text, size_t length, bool group) {
  const HashName key = hash_name(text, length);
  Kernel *kernel = find_kernel(&key);
  if (!kernel) {
    kernel = memory_alloc(sizeof *kernel);
    kernel->key = key;
    kernel->text = memory_alloc(length + 1);
    memcpy(kernel->text, text, length);
    if (!(group ? read_group(kernel, module) : read_kernel(kernel))) {
      vector_free(&kernel->bodies);
      free(kernel->text);
      free(kernel);
      return false;
    }
    vector_push(&kernels, kernel);
  }
  vector_push(&module->kernels, kernel);
  return true;
}

/* The next line that begins with one of the words; null: none. */
static const char *next_kernel(const char *text, bool *group) {
  for (const char *line = text; line; line = strchr(line, '\n')) {
    if (*line == '\n') line++;
    *group = !strncmp(line, "GROUP(", strlen("GROUP("));
    if (*group || !strncmp(line, "KERNEL(", strlen("KERNEL("))) return line;
  }
  return NULL;
}

/* What stands before the first kernel belongs to it. */
Module *compile_add(const char *text, Err *err) {
  Module *module = memory_alloc(sizeof *module);
  bool group = false, next_group = false, good = true;
  const char *first = next_kernel(text, &group);
  for (const char *at = text, *line = first ? first : text; at && good; group = next_group) {
    const char *end = strchr(line, '\n');
    const char *next = end ? next_kernel(end, &next_group) : NULL;
    size_t length = group && end ? (size_t)(end - at) : next ? (size_t)(next - at) : strlen(at);
    good = add_kernel(module, at, length, group);
    at = line = next;
  }
  vector_push(&modules, module);
  if (good && module->kernels.count) return module;
  compile_forget(module);
  err_set(err, "the image is no kernel's text: it has no KERNEL(name, ...) and ENTRY(name, ...)");
  return NULL;
}

void compile_forget(Module *module) {
  size_t at = 0;
  while (at < modules.count && modules.data[at] != module) at++;
  if (at == modules.count) return;
  modules.data[at] = modules.data[--modules.count];
  vector_free(&module->kernels);
  free(module);
}

/* ---- units ---- */

typedef struct Unit {
  size_t first, count; /* of `fresh` */
  Text text;
  HashName key;
  char object[600], source[600], log[600];
  bool cached;
  pid_t process;
} Unit;

typedef struct Work {
  VECTOR(Kernel *) fresh;
  VECTOR(Unit) units;
  char folder[256];  /* private */
  const char *cache; /* null: none */
  char library[512]; /* this one's file */
  char compiler[512];
  char *words[MOST_ARGUMENTS]; /* of `compiler` */
  size_t word_count;
  bool *no_compiler;
  Err *err;
} Work;

static bool fail(Work *work, bool no_compiler, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool fail(Work *work, bool no_compiler, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char message[900];
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  *work->no_compiler = no_compiler;
  return err_set(work->err, "%s", message);
}

static bool set_up(Work *work) {
  const char *compiler = getenv("CC"), *temporary = getenv("TMPDIR");
  work->cache = getenv("ADWP_EMULATOR_CACHE");
  if (work->cache && !*work->cache) work->cache = NULL;
  snprintf(work->compiler, sizeof work->compiler, "%s", compiler && *compiler ? compiler : EMULATOR_CC);
  for (char *rest = work->compiler, *word; (word = strtok_r(rest, " ", &rest)) && work->word_count < MOST_ARGUMENTS / 2;)
    work->words[work->word_count++] = word;
  if (!work->word_count) return fail(work, true, "CC names no C compiler");
  Dl_info self;
  if (!dladdr(emulator_words, &self) || !self.dli_fname || strlen(self.dli_fname) >= sizeof work->library)
    return fail(work, false, "the emulator does not find its own library");
  snprintf(work->library, sizeof work->library, "%s", self.dli_fname);
  if (!temporary || !*temporary || strlen(temporary) > 200) temporary = "/tmp";
  snprintf(work->folder, sizeof work->folder, "%s/adwp-emulator-XXXXXX", temporary);
  if (!mkdtemp(work->folder)) {
    work->folder[0] = 0;
    return fail(work, false, "cannot make a folder in %s to compile kernels in: %s", temporary, strerror(errno));
  }
  Err err;
  if (work->cache && !folder_make(work->cache, &err)) work->cache = NULL;
  return true;
}

/* The texts, behind the words. */
static void write_unit(Work *work, Unit *unit, size_t number) {
  text_add(&unit->text, emulator_words);
  for (size_t i = unit->first; i < unit->first + unit->count; i++) {
    const Kernel *kernel = work->fresh.data[i];
    text_printf(&unit->text, "\n#line 1 \"%s\"\n", kernel->symbol);
    text_add(&unit->text, kernel->text);
  }
  Text whole = {0}; /* all that the object depends on */
  text_add(&whole, unit->text.data);
  for (size_t i = 0; i < FLAGS; i++) text_printf(&whole, " %s", flags[i]);
  for (size_t i = 0; i < work->word_count; i++) text_printf(&whole, " %s", work->words[i]);
  unit->key = hash_name(whole.data, whole.length);
  text_free(&whole);
  snprintf(unit->source, sizeof unit->source, "%s/%zu.c", work->folder, number);
  snprintf(unit->log, sizeof unit->log, "%s/%zu.log", work->folder, number);
  if (work->cache) {
    snprintf(unit->object, sizeof unit->object, "%s/%s.so", work->cache, unit->key.hex);
    unit->cached = access(unit->object, R_OK) == 0;
  }
  if (!unit->cached) snprintf(unit->object, sizeof unit->object, "%s/%zu.so", work->folder, number);
}

static bool is_fresh(const Kernel *kernel) {
  return !kernel->entry && !kernel->bodies.count;
}

static void share_out(Work *work) {
  for (size_t i = 0; i < kernels.count; i++)
    if (is_fresh(kernels.data[i])) vector_push(&work->fresh, kernels.data[i]);
  size_t bytes = UNIT_BYTES;
  for (size_t i = 0; i < work->fresh.count; i++) {
    if (bytes >= UNIT_BYTES) {
      vector_push(&work->units, ((Unit){.first = i}));
      bytes = 0;
    }
    bytes += strlen(work->fresh.data[i]->text);
    work->units.data[work->units.count - 1].count++;
  }
  for (size_t i = 0; i < work->units.count; i++) write_unit(work, &work->units.data[i], i);
}

/* ---- the compiler ---- */

static bool start(Work *work, Unit *unit) {
  Err err;
  if (!file_replace(unit->source, unit->text.data, unit->text.length, &err)) return fail(work, false, "%s", err.text);
  char *arguments[MOST_ARGUMENTS + FLAGS] = {0};
  size_t count = 0;
  for (size_t i = 0; i < work->word_count; i++) arguments[count++] = work->words[i];
  for (size_t i = 0; i < FLAGS; i++) arguments[count++] = (char *)(uintptr_t)flags[i];
  arguments[count++] = "-o";
  arguments[count++] = unit->object;
  arguments[count++] = unit->source;
  arguments[count++] = work->library;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, unit->log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  int failed = posix_spawnp(&unit->process, arguments[0], &actions, NULL, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (!failed) return true;
  unit->process = 0;
  return fail(work, true, "the CUDA emulator compiles kernels with a C compiler, and cannot run %s: %s; set CC to one",
              arguments[0], strerror(failed));
}

static bool finish(Work *work, Unit *unit) {
  int status = 0;
  pid_t process = unit->process;
  unit->process = 0;
  while (waitpid(process, &status, 0) < 0)
    if (errno != EINTR) return fail(work, false, "the C compiler was lost: %s", strerror(errno));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return fail(work, true, "there is no C compiler %s; set CC to one", work->words[0]);
  char *log = NULL;
  size_t size;
  Err err;
  if (!file_read(unit->log, 1 << 20, &log, &size, &err)) log = NULL;
  fail(work, false, "%s does not compile kernel %s: %.600s", work->words[0], work->fresh.data[unit->first]->symbol,
       log ? log : "");
  free(log);
  return false;
}

/* Puts an object into the cache, so that another process sees all of it or nothing. What fails here is no matter. */
static void keep(const Work *work, const Unit *unit) {
  if (!work->cache) return;
  char *object = NULL, path[700];
  size_t size;
  Err err;
  snprintf(path, sizeof path, "%s/%s.so", work->cache, unit->key.hex);
  if (file_read(unit->object, (size_t)1 << 28, &object, &size, &err)) file_replace(path, object, size, &err);
  free(object);
}

static bool load(Work *work, Unit *unit) {
  void *object = dlopen(unit->object, RTLD_NOW | RTLD_LOCAL);
  if (!object) return fail(work, false, "cannot load compiled kernels: %s", dlerror());
  for (size_t i = unit->first; i < unit->first + unit->count; i++) {
    char symbol[200];
    snprintf(symbol, sizeof symbol, "%s_entry", work->fresh.data[i]->symbol);
    const EmulatorEntry *entry = dlsym(object, symbol);
    if (!entry) return fail(work, false, "compiled kernels lack %s", symbol);
    work->fresh.data[i]->entry = entry;
  }
  return true;
}

/* Compiles the units, as many at once as there are cores. */
static bool compile(Work *work) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  size_t jobs = cores < 1 ? 1 : cores > MOST_JOBS ? MOST_JOBS : (size_t)cores, started = 0, finished = 0;
  bool ok = true;
  while (finished < work->units.count) {
    for (; ok && started < work->units.count && started < finished + jobs; started++)
      if (!work->units.data[started].cached && !start(work, &work->units.data[started])) ok = false;
    if (finished == started) break;
    Unit *unit = &work->units.data[finished++];
    if (unit->process && !finish(work, unit)) ok = false;
    if (ok && !load(work, unit)) ok = false;
    if (ok && !unit->cached) keep(work, unit);
  }
  return ok;
}

static void clean_up(Work *work) {
  for (size_t i = 0; i < work->units.count; i++) {
    Unit *unit = &work->units.data[i];
    if (unit->process) waitpid(unit->process, NULL, 0);
    if (!unit->cached) unlink(unit->object);
    unlink(unit->source);
    unlink(unit->log);
    text_free(&unit->text);
  }
  if (work->folder[0]) rmdir(work->folder);
  vector_free(&work->units);
  vector_free(&work->fresh);
}

bool compile_all(bool *no_compiler, Err *err) {
  size_t fresh = 0;
  for (size_t i = 0; i < kernels.count; i++) fresh += is_fresh(kernels.data[i]);
  if (!fresh) return true;
  Work work = {.err = err, .no_compiler = no_compiler};
  bool ok = set_up(&work);
  if (ok) {
    share_out(&work);
    ok = compile(&work);
  }
  clean_up(&work);
  return ok;
}
