/* nvJitLink, the part of the CUDA toolkit that joins relocatable cubins into one: kernels are compiled many to a program, on
 * several threads, and the groups' kernels that call them in a program of their own. It is opened at the first link, beside
 * NVRTC, and needs neither a GPU nor its driver. What it cannot link is a bug of ours; that it is missing is not. */
#include "compiler/emit/cuda_private.h"
#include "compiler/emit/emit_private.h"

#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct LinkBody *Link; /* nvJitLink's own */

enum { LINK_SUCCESS = 0, LINK_CUBIN = 1 };

typedef struct Linker {
  int (*create)(Link *link, uint32_t count, const char **options);
  int (*destroy)(Link *link);
  int (*add)(Link link, int type, const void *data, size_t size, const char *name);
  int (*complete)(Link link);
  int (*size)(Link link, size_t *size);
  int (*cubin)(Link link, void *cubin);
  int (*error_size)(Link link, size_t *size);
  int (*error)(Link link, char *log);
} Linker;

/* LINKER_FUNCTION(field, name in the library) */
#define LINKER_FUNCTIONS(LINKER_FUNCTION)                                                                                        \
  LINKER_FUNCTION(create, "nvJitLinkCreate")                                                                                     \
  LINKER_FUNCTION(destroy, "nvJitLinkDestroy")                                                                                   \
  LINKER_FUNCTION(add, "nvJitLinkAddData")                                                                                       \
  LINKER_FUNCTION(complete, "nvJitLinkComplete")                                                                                 \
  LINKER_FUNCTION(size, "nvJitLinkGetLinkedCubinSize")                                                                           \
  LINKER_FUNCTION(cubin, "nvJitLinkGetLinkedCubin")                                                                              \
  LINKER_FUNCTION(error_size, "nvJitLinkGetErrorLogSize")                                                                        \
  LINKER_FUNCTION(error, "nvJitLinkGetErrorLog")

static void *find_function(void *library, const char *name, Err *err) {
  void *function = dlsym(library, name);
  if (!function) err_set(err, "the nvJitLink found has no %s: CUDA 12 or newer is needed", name);
  return function;
}

/* The library stays open: the dynamic linker keeps one of it, however often it is opened. */
static bool open_linker(Linker *linker, Err *err) {
  static const char *const names[] = {"libnvJitLink.so.13", "libnvJitLink.so.12", "libnvJitLink.so"};
  const char *named = getenv("ADWP_NVJITLINK");
  void *library = named ? dlopen(named, RTLD_NOW | RTLD_LOCAL) : cuda_open_toolkit(names, sizeof names / sizeof *names);
  if (!library && named) {
    err_set(err, "cannot open nvJitLink, which $ADWP_NVJITLINK says is `%s`: %s", named, dlerror());
    return false;
  }
  if (!library) {
    err_set(err, "there is no nvJitLink (libnvJitLink.so.13 or .12), which links kernels for a GPU: install the CUDA "
                 "toolkit, or its part libnvjitlink, and set CUDA_HOME where it is not in /usr/local/cuda");
    return false;
  }
  void *function;
#define LINKER_FUNCTION(field, name)                                                                                             \
  if (!(function = find_function(library, name, err))) return false;                                                             \
  memcpy(&linker->field, &function, sizeof function);
  LINKER_FUNCTIONS(LINKER_FUNCTION)
#undef LINKER_FUNCTION
  return true;
}

bool cuda_find_linker(Err *err) {
  Linker linker = {0};
  return open_linker(&linker, err);
}

static char *error_of(const Linker *linker, Link link) {
  size_t size = 0;
  linker->error_size(link, &size);
  char *log = memory_alloc(size + 1);
  if (size) linker->error(link, log);
  return log;
}

/* ---- what the functions of a cubin take: records of its section .nv.info ---- */

enum { WITH_SIZE = 4, FRAME_SIZE = 0x11, STACK_SIZE = 0x12, REGISTERS = 0x2f }; /* kinds of records */

typedef struct Cubin {
  const char *data;
  size_t size;
  const Elf64_Shdr *sections;
  uint16_t section_count;
} Cubin;

static const void *bytes_at(const Cubin *cubin, uint64_t offset, uint64_t size) {
  return offset <= cubin->size && size <= cubin->size - offset ? cubin->data + offset : NULL;
}

static bool open_cubin(Cubin *cubin, const EmitObject *object) {
  *cubin = (Cubin){.data = object->data, .size = object->size};
  const Elf64_Ehdr *head = bytes_at(cubin, 0, sizeof *head);
  if (!head || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0) return false;
  cubin->sections = bytes_at(cubin, head->e_shoff, (uint64_t)head->e_shnum * sizeof *cubin->sections);
  cubin->section_count = head->e_shnum;
  return cubin->sections && head->e_shstrndx < head->e_shnum;
}

/* The section of this type, or where that is 0 of the name; null: there is none. */
static const Elf64_Shdr *find_section(const Cubin *cubin, uint32_t type, const char *name) {
  const Elf64_Ehdr *head = bytes_at(cubin, 0, sizeof *head);
  const Elf64_Shdr *names = &cubin->sections[head->e_shstrndx];
  for (uint16_t i = 0; i < cubin->section_count; i++) {
    const Elf64_Shdr *section = &cubin->sections[i];
    const char *own = bytes_at(cubin, names->sh_offset + section->sh_name, strlen(name) + 1);
    if (type ? section->sh_type == type : own && !strcmp(own, name)) return section;
  }
  return NULL;
}

/* The name of a symbol; null: there is no such. */
static const char *symbol_name(const Cubin *cubin, uint32_t number) {
  const Elf64_Shdr *table = find_section(cubin, SHT_SYMTAB, "");
  if (!table || table->sh_link >= cubin->section_count || number >= table->sh_size / sizeof(Elf64_Sym)) return NULL;
  const Elf64_Sym *symbol = bytes_at(cubin, table->sh_offset + number * sizeof *symbol, sizeof *symbol);
  const Elf64_Shdr *names = &cubin->sections[table->sh_link];
  return symbol ? bytes_at(cubin, names->sh_offset + symbol->st_name, 1) : NULL;
}

static void take_record(const Cubin *cubin, int kind, const uint32_t *value, const CudaSymbol *symbols, size_t count,
                        EmitResources *resources) {
  const char *name = symbol_name(cubin, value[0]);
  for (size_t i = 0; name && i < count; i++) {
    size_t length = strlen(symbols[i].name);
    if (strncmp(name, symbols[i].name, length) != 0 || strcmp(name + length, symbols[i].body ? "_body" : "") != 0) continue;
    if (kind == REGISTERS) resources[i].registers = (int32_t)value[1];
    if (kind == (symbols[i].body ? FRAME_SIZE : STACK_SIZE)) resources[i].stack_bytes = (int32_t)value[1];
  }
}

static void read_resources(const EmitObject *object, const CudaSymbol *symbols, size_t count, EmitResources *resources) {
  Cubin cubin;
  const Elf64_Shdr *info = open_cubin(&cubin, object) ? find_section(&cubin, 0, ".nv.info") : NULL;
  if (!info) return;
  for (uint64_t at = 0; at + 4 <= info->sh_size;) {
    const uint8_t *head = bytes_at(&cubin, info->sh_offset + at, 4);
    if (!head) return;
    uint64_t size = head[0] == WITH_SIZE ? (uint64_t)head[2] + 256 * (uint64_t)head[3] : 0;
    const char *data = bytes_at(&cubin, info->sh_offset + at + 4, size);
    uint32_t value[2];
    if (data && size >= sizeof value) {
      memcpy(value, data, sizeof value);
      take_record(&cubin, head[1], value, symbols, count, resources);
    }
    at += 4 + size;
  }
}

/* ---- linking ---- */

static bool take_cubin(const Linker *linker, Link link, EmitObject *linked) {
  size_t size = 0;
  if (linker->size(link, &size) != LINK_SUCCESS) return false;
  *linked = (EmitObject){.data = memory_alloc(size + 1), .size = size};
  return linker->cubin(link, linked->data) == LINK_SUCCESS;
}

bool cuda_link(const char *arch, const EmitObject *objects, size_t count, const CudaSymbol *symbols, size_t symbol_count,
               EmitResources *resources, EmitObject *linked, Err *err) {
  Linker linker;
  if (!open_linker(&linker, err)) return false;
  char option[48];
  snprintf(option, sizeof option, "-arch=%s", arch);
  const char *options[] = {option};
  Link link = NULL;
  int result = linker.create(&link, 1, options);
  for (size_t i = 0; i < count && result == LINK_SUCCESS; i++)
    result = linker.add(link, LINK_CUBIN, objects[i].data, objects[i].size, "kernels");
  if (result == LINK_SUCCESS) result = linker.complete(link);
  if (result != LINK_SUCCESS || !take_cubin(&linker, link, linked))
    die("nvJitLink: error %d\n%s", result, link ? error_of(&linker, link) : "");
  read_resources(linked, symbols, symbol_count, resources);
  linker.destroy(&link);
  return true;
}
