/* Kernels that share launches. Each becomes a function, some of them to an NVRTC program and the programs on several threads; the
 * groups, whose kernels call those functions, are a program of their own; cuda_link.c joins all into one image. A function is
 * compiled once, in however many groups it is. Parts and the whole are cached under what they are made of.
 *
 * PTX, which nothing here can link, is one program; the emulator's text is all texts in one. */
#include "compiler/emit/cuda_private.h"
#include "compiler/emit/emit_private.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PART_KERNELS = 16 }; /* a program costs as much as half a kernel before it has any */

typedef struct Part {
  Text text;
  HashName key;
  size_t kernels; /* how many */
  const char *name;
  bool cached, failed, unstored;
  Err err;
} Part;

struct EmitGroups {
  Arena *arena;
  EmitObject whole;
  EmitImage *images; /* of each group */
  size_t count;
  EmitResources *kernels; /* of each kernel */
  size_t kernel_count;
};

typedef struct Work {
  const EmitTarget *target;
  const char *cache; /* null: none */
  Part *parts;
  EmitObject *objects; /* of each part */
  size_t count;
  atomic_size_t next;
  /* distinct kernels, and which one each kernel is */
  const LoopKernel **kernels;
  const char **symbols;
  size_t distinct, *distinct_of;
  /* groups */
  const char **group_symbols;
  size_t group_count;
  EmitResources *resources; /* of the groups, then of the distinct kernels */
} Work;

static HashName key_of_text(const EmitTarget *target, const char *what, const char *text) {
  Text whole = {0};
  text_printf(&whole, "adwp %s\n", what);
  emit_target_describe(target, &whole);
  text_add(&whole, text);
  HashName key = hash_name(whole.data, whole.length);
  text_free(&whole);
  return key;
}

/* ---- what is to be compiled ---- */

static bool find_kernels(Work *work, const LoopKernel *const *kernels, size_t count, Arena *arena, Err *err) {
  work->kernels = ARENA_ARRAY(arena, const LoopKernel *, count + 1);
  work->symbols = ARENA_ARRAY(arena, const char *, count + 1);
  work->distinct_of = ARENA_ARRAY(arena, size_t, count + 1);
  for (size_t i = 0; i < count; i++) {
    if (!loop_verify(kernels[i], err) || !cuda_fits(kernels[i], err)) return false;
    HashName key = emit_key(work->target, kernels[i]);
    const char *symbol = arena_printf(arena, "k_%s", key.hex);
    size_t at = 0;
    while (at < work->distinct && strcmp(work->symbols[at], symbol) != 0) at++;
    work->distinct_of[i] = at;
    if (at < work->distinct) continue;
    work->kernels[work->distinct] = kernels[i];
    work->symbols[work->distinct++] = symbol;
  }
  return true;
}

/* A group by its kernels' symbols; its own symbol is made of them. */
static void write_group(Work *work, size_t group, const EmitGroup *from, Arena *arena, Text *out) {
  const LoopKernel **kernels = ARENA_ARRAY(arena, const LoopKernel *, from->count + 1);
  const char **symbols = ARENA_ARRAY(arena, const char *, from->count + 1);
  Text names = {0};
  text_add(&names, "group");
  for (uint32_t i = 0; i < from->count; i++) {
    size_t at = work->distinct_of[from->kernels[i]];
    kernels[i] = work->kernels[at];
    symbols[i] = work->symbols[at];
    text_printf(&names, " %s", symbols[i]);
    int32_t bytes = work->resources[work->group_count + at].shared_bytes = (int32_t)cuda_shared_bytes(kernels[i]);
    if (bytes > work->resources[group].shared_bytes) work->resources[group].shared_bytes = bytes;
  }
  work->group_symbols[group] = arena_printf(arena, "g_%s", hash_name(names.data, names.length).hex);
  for (size_t i = 0; i < group; i++)
    if (!strcmp(work->group_symbols[i], work->group_symbols[group])) die("group %zu is group %zu again", group, i);
  cuda_group_text(kernels, symbols, from->count, work->group_symbols[group], out);
  text_free(&names);
}

static Part *add_part(Work *work, const char *name, size_t kernels) {
  Part *part = &work->parts[work->count++];
  part->name = name;
  part->kernels = kernels;
  return part;
}

static void write_kernel(const Work *work, size_t i, Text *out) {
  text_printf(out, "/* %s */\n", work->kernels[i]->name);
  cuda_text(work->kernels[i], work->symbols[i], out);
}

/* The groups' part is the first: it takes longest. */
static void make_parts(Work *work, const EmitGroup *groups, Arena *arena) {
  bool one = work->target->form != FORM_CUBIN;
  work->parts = ARENA_ARRAY(arena, Part, work->distinct / PART_KERNELS + 2);
  Part *first = add_part(work, "group", one ? work->distinct : 0);
  text_add(&first->text, "");
  for (size_t i = 0; i < work->distinct; i++) {
    size_t left = work->distinct - i;
    if (!one && i % PART_KERNELS == 0) add_part(work, work->kernels[i]->name, left < PART_KERNELS ? left : PART_KERNELS);
    write_kernel(work, i, &work->parts[work->count - 1].text);
  }
  for (size_t i = 0; i < work->group_count; i++) write_group(work, i, &groups[i], arena, &first->text);
  for (size_t i = 0; i < work->count; i++) work->parts[i].key = key_of_text(work->target, "part", work->parts[i].text.data);
}

/* ---- compiling ---- */

static void get_part(Work *work, size_t i) {
  Part *part = &work->parts[i];
  part->cached = work->cache && emit_cache_load(work->cache, &part->key, &work->objects[i]);
  if (part->cached) return;
  part->failed = !nvrtc_part(work->target, part->name, &part->text, &work->objects[i], &part->err);
  part->unstored = work->cache && !part->failed && !emit_cache_store(work->cache, &part->key, &work->objects[i]);
}

static void *worker(void *argument) {
  Work *work = argument;
  for (size_t i; (i = atomic_fetch_add(&work->next, 1)) < work->count;) get_part(work, i);
  return NULL;
}

static bool compile_parts(Work *work, int threads, EmitStatistics *statistics, Err *err) {
  emit_on_threads(worker, work, work->count, threads);
  for (size_t i = 0; i < work->count; i++) {
    const Part *part = &work->parts[i];
    if (part->failed) return err_set(err, "%s", part->err.text);
    statistics->cached += part->cached ? part->kernels : 0;
    statistics->compiled += part->cached ? 0 : part->kernels;
    if (part->unstored) statistics->cache_fault = "it cannot be written";
  }
  return true;
}

static size_t resource_count(const Work *work) {
  return work->group_count + work->distinct;
}

static bool link_parts(const Work *work, EmitObject *whole, Err *err) {
  CudaSymbol *symbols = memory_alloc(resource_count(work) * sizeof *symbols);
  for (size_t i = 0; i < resource_count(work); i++) {
    bool body = i >= work->group_count;
    symbols[i] = (CudaSymbol){body ? work->symbols[i - work->group_count] : work->group_symbols[i], body};
  }
  bool done =
      cuda_link(work->target->arch, work->objects, work->count, symbols, resource_count(work), work->resources, whole, err);
  free(symbols);
  return done;
}

static bool join(Work *work, EmitObject *whole, Err *err) {
  if (work->target->form == FORM_CUBIN) return link_parts(work, whole, err);
  *whole = work->objects[0];
  work->objects[0] = (EmitObject){0};
  return true;
}

/* ---- the whole in the cache: all resources stand before the image ---- */

static HashName key_of_whole(const Work *work) {
  Text keys = {0};
  text_add(&keys, "");
  for (size_t i = 0; i < work->count; i++) text_printf(&keys, "%s\n", work->parts[i].key.hex);
  HashName key = key_of_text(work->target, "groups", keys.data);
  text_free(&keys);
  return key;
}

static bool load_whole(Work *work, EmitObject *whole) {
  HashName key = key_of_whole(work);
  size_t head = resource_count(work) * sizeof *work->resources;
  if (!work->cache || !emit_cache_load(work->cache, &key, whole)) return false;
  if (whole->size <= head) { /* of another version of this file */
    free(whole->data);
    return false;
  }
  memcpy(work->resources, whole->data, head);
  memmove(whole->data, whole->data + head, whole->size - head + 1);
  whole->size -= head;
  return true;
}

static bool store_whole(const Work *work, const EmitObject *whole) {
  HashName key = key_of_whole(work);
  size_t head = resource_count(work) * sizeof *work->resources;
  EmitObject both = {.data = memory_alloc(head + whole->size), .size = head + whole->size};
  memcpy(both.data, work->resources, head);
  memcpy(both.data + head, whole->data, whole->size);
  bool stored = emit_cache_store(work->cache, &key, &both);
  free(both.data);
  return stored;
}

static bool get_whole(Work *work, EmitObject *whole, int threads, EmitStatistics *statistics, Err *err) {
  if (load_whole(work, whole)) {
    statistics->cached += work->distinct;
    return true;
  }
  if (!compile_parts(work, threads, statistics, err) || !join(work, whole, err)) return false;
  if (work->cache && !store_whole(work, whole)) statistics->cache_fault = "it cannot be written";
  return true;
}

/* ---- the set ---- */

static void fill_images(EmitGroups *made, const Work *work, size_t count) {
  made->kernels = ARENA_ARRAY(made->arena, EmitResources, count + 1);
  made->kernel_count = count;
  for (size_t i = 0; i < count; i++) made->kernels[i] = work->resources[work->group_count + work->distinct_of[i]];
  made->images = ARENA_ARRAY(made->arena, EmitImage, work->group_count + 1);
  for (size_t i = 0; i < work->group_count; i++)
    made->images[i] = (EmitImage){work->group_symbols[i], made->whole.data, made->whole.size, work->resources[i]};
}

EmitGroups *emit_groups(EmitTarget *target, const LoopKernel *const *kernels, size_t count, const EmitGroup *groups,
                        size_t group_count, int threads, const char *cache, EmitStatistics *statistics, Err *err) {
  if (target->form == FORM_OBJECT) die("groups of kernels for a CPU");
  if (target->form == FORM_CUDA) cache = NULL;
  const char *fault = cache ? emit_cache_open(cache) : NULL;
  EmitStatistics own = {.cache_fault = fault};
  EmitGroups *made = memory_alloc(sizeof *made);
  made->arena = arena_new();
  made->count = group_count;
  Work work = {.target = target, .cache = fault ? NULL : cache, .group_count = group_count};
  work.group_symbols = ARENA_ARRAY(made->arena, const char *, group_count + 1);
  work.resources = ARENA_ARRAY(made->arena, EmitResources, group_count + count + 1);
  bool done = find_kernels(&work, kernels, count, made->arena, err);
  if (done) {
    make_parts(&work, groups, made->arena);
    work.objects = ARENA_ARRAY(made->arena, EmitObject, work.count);
    done = get_whole(&work, &made->whole, threads, &own, err);
  }
  for (size_t i = 0; i < work.count; i++) {
    text_free(&work.parts[i].text);
    free(work.objects[i].data);
  }
  if (statistics) *statistics = own;
  if (done) {
    fill_images(made, &work, count);
    return made;
  }
  emit_groups_free(made);
  return NULL;
}

const EmitImage *emit_group_image(const EmitGroups *groups, size_t group) {
  if (group >= groups->count) die("group %zu of %zu", group, groups->count);
  return &groups->images[group];
}

const EmitResources *emit_group_kernel(const EmitGroups *groups, size_t kernel) {
  if (kernel >= groups->kernel_count) die("kernel %zu of %zu", kernel, groups->kernel_count);
  return &groups->kernels[kernel];
}

void emit_groups_free(EmitGroups *groups) {
  if (!groups) return;
  free(groups->whole.data);
  arena_free(groups->arena);
  free(groups);
}
