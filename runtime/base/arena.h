/* Arena: memory that is freed as a whole. Everything allocated from one lives exactly as long as it does.
 * Allocations are zeroed and aligned to 16 bytes. Out of memory ends the process with a message and exit status 1. */
#ifndef ADWP_RUNTIME_BASE_ARENA_H
#define ADWP_RUNTIME_BASE_ARENA_H

#include <stddef.h>

typedef struct Arena Arena;

Arena *arena_new(void);
void arena_free(Arena *arena); /* null is allowed */

void *arena_alloc(Arena *arena, size_t bytes);
void *arena_alloc_array(Arena *arena, size_t count, size_t bytes); /* checks the product */
char *arena_copy_string(Arena *arena, const char *text, size_t length);
char *arena_printf(Arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define ARENA_NEW(arena, Type) ((Type *)arena_alloc((arena), sizeof(Type)))
#define ARENA_ARRAY(arena, Type, count) ((Type *)arena_alloc_array((arena), (size_t)(count), sizeof(Type)))

/* malloc, calloc and realloc that end the process with a message where there is no memory. */
void *memory_alloc(size_t bytes); /* zeroed */
void *memory_resize(void *memory, size_t bytes);

#endif
