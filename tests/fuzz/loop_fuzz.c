/* Fuzzes the Loop IR: any text is refused with a message or becomes a kernel; what the verifier accepts prints to text that
 * reads back to the same text, and runs on small buffers without touching anything else.
 *
 *   clang-19 -std=c11 -D_GNU_SOURCE -I. -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz/loop_fuzz.c kernels/loop_*.c \
 *     runtime/base/arena.c runtime/base/err.c runtime/base/text.c runtime/base/words.c -lm -o loop_fuzz && ./loop_fuzz
 * -max_total_time=60 CORPUS */
#include "kernels/loop_private.h"

#include <string.h>

enum { ELEMENTS = 40, TASKS = 3, STEPS = 20000 /* fewer where lanes are many */ };

static void check_text(const LoopKernel *k) {
  Arena *arena = arena_new();
  Text first = {0}, second = {0};
  Err err;
  loop_print(k, &first);
  LoopKernel *again = loop_parse(first.data, first.length, arena, &err);
  if (!again) die("the print does not parse: %s\n%s", err.text, first.data);
  if (!loop_verify(again, &err)) die("the print does not verify: %s\n%s", err.text, first.data);
  loop_print(again, &second);
  if (strcmp(first.data, second.data) != 0) die("two prints differ:\n%s\n%s", first.data, second.data);
  text_free(&first);
  text_free(&second);
  loop_free_tables(again);
  arena_free(arena);
}

static void interpret(const LoopKernel *k, Arena *arena) {
  LoopBuffer *buffers = ARENA_ARRAY(arena, LoopBuffer, k->buffer_count + 1);
  for (int32_t i = 0; i < k->buffer_count; i++) {
    LoopElement element = k->arrays.data[i].element;
    size_t size = ELEMENTS * (size_t)loop_element_bytes(element);
    buffers[i] = (LoopBuffer){memory_alloc(size), ELEMENTS}; /* of its own, so that the sanitizer sees its ends */
    for (int32_t j = 0; element == LOOP_ELEMENT_I32 && j < ELEMENTS; j++) ((int32_t *)buffers[i].data)[j] = j - 2;
  }
  Err err;
  loop_interpret_steps(k, buffers, TASKS, 0, TASKS, STEPS / (1 + k->lanes / 32), &err);
  for (int32_t i = 0; i < k->buffer_count; i++) free(buffers[i].data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Arena *arena = arena_new();
  Err err = {{0}};
  LoopKernel *k = loop_parse((const char *)data, size, arena, &err);
  if (!k && !err.text[0]) die("refused without a message");
  if (k && loop_verify(k, &err)) {
    check_text(k);
    interpret(k, arena);
  }
  if (k) loop_free_tables(k);
  arena_free(arena);
  return 0;
}
