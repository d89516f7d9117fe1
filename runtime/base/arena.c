#include "runtime/base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 64 * 1024, ALIGNMENT = 16 };

typedef struct Block {
  struct Block *next;
  size_t used, size;
  _Alignas(ALIGNMENT) unsigned char data[];
} Block;

struct Arena {
  Block *blocks;
};

static _Noreturn void out_of_memory(size_t bytes) {
  fprintf(stderr, "adwp: out of memory (%zu bytes wanted); close other programs or make the model smaller\n", bytes);
  exit(1);
}

void *memory_alloc(size_t bytes) {
  void *memory = calloc(1, bytes ? bytes : 1);
  if (!memory) out_of_memory(bytes);
  return memory;
}

void *memory_resize(void *memory, size_t bytes) {
  void *moved = realloc(memory, bytes ? bytes : 1);
  if (!moved) out_of_memory(bytes);
  return moved;
}

Arena *arena_new(void) {
  return memory_alloc(sizeof(Arena));
}

void arena_free(Arena *arena) {
  if (!arena) return;
  for (Block *block = arena->blocks, *next; block; block = next) {
    next = block->next;
    free(block);
  }
  free(arena);
}

void *arena_alloc(Arena *arena, size_t bytes) {
  if (bytes > SIZE_MAX / 2) out_of_memory(bytes);
  size_t need = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  Block *block = arena->blocks;
  if (!block || block->size - block->used < need) {
    size_t size = need > BLOCK_BYTES ? need : BLOCK_BYTES;
    Block *fresh = memory_alloc(sizeof(Block) + size);
    fresh->size = size;
    if (block && need > BLOCK_BYTES) { /* a large one goes behind the block that still has room */
      fresh->next = block->next;
      block->next = fresh;
    } else {
      fresh->next = block;
      arena->blocks = fresh;
    }
    block = fresh;
  }
  void *memory = block->data + block->used;
  block->used += need;
  return memory;
}

void *arena_alloc_array(Arena *arena, size_t count, size_t bytes) {
  if (bytes && count > SIZE_MAX / 2 / bytes) out_of_memory(SIZE_MAX);
  return arena_alloc(arena, count * bytes);
}

char *arena_copy_string(Arena *arena, const char *text, size_t length) {
  char *copy = arena_alloc(arena, length + 1);
  memcpy(copy, text, length);
  return copy;
}

char *arena_printf(Arena *arena, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int length = vsnprintf(NULL, 0, format, args);
  va_end(args);
  char *text = arena_alloc(arena, (size_t)(length < 0 ? 0 : length) + 1);
  if (length >= 0) vsnprintf(text, (size_t)length + 1, format, again);
  va_end(again);
  return text;
}
