/* VECTOR(Type): an array that grows. Zero-initialised is empty; elements move when it grows, so keep indices, not pointers. */
#ifndef ADWP_RUNTIME_BASE_VECTOR_H
#define ADWP_RUNTIME_BASE_VECTOR_H

#include "runtime/base/arena.h"

#include <stddef.h>
#include <stdlib.h>

#define VECTOR(Type)                                                                                                             \
  struct {                                                                                                                       \
    Type *data;                                                                                                                  \
    size_t count, capacity;                                                                                                      \
  }

#define vector_push(vector, element)                                                                                             \
  do {                                                                                                                           \
    if ((vector)->count == (vector)->capacity) {                                                                                 \
      (vector)->capacity = (vector)->capacity ? 2 * (vector)->capacity : 16;                                                     \
      (vector)->data = memory_resize((vector)->data, (vector)->capacity * sizeof *(vector)->data);                               \
    }                                                                                                                            \
    (vector)->data[(vector)->count++] = (element);                                                                               \
  } while (0)

#define vector_free(vector)                                                                                                      \
  do {                                                                                                                           \
    free((vector)->data);                                                                                                        \
    (vector)->data = NULL;                                                                                                       \
    (vector)->count = (vector)->capacity = 0;                                                                                    \
  } while (0)

#endif
