/* Fibers: a stack each, and a switch between them that saves the registers which a function must keep; no system calls. Stacks
 * have a page below them that cannot be touched. A fiber stays in its entry's loop, so that it can run one thread after another.
 * AddressSanitizer is told of each switch. */
#include "tests/emulator/emulator_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif

#ifdef FIBER_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define __sanitizer_start_switch_fiber(fake, bottom, size) ((void)(fake), (void)(bottom), (void)(size))
#define __sanitizer_finish_switch_fiber(fake, bottom, size) ((void)(fake), (void)(bottom), (void)(size))
#define __asan_unpoison_memory_region(start, size) ((void)(start), (void)(size))
#endif

enum { STACK_BYTES = 128 * 1024, GUARD_BYTES = 4096 };

static struct {
  void *stack_pointer; /* the scheduler's, while a fiber runs */
  const void *bottom;  /* of the scheduler's stack, as ASan knows it */
  size_t size;
  void *fake;
  Fiber *free;
} fibers;

void fiber_switch(void **save, void *to) __attribute__((visibility("hidden")));

__asm__(".text\n"
        ".p2align 4\n"
        ".globl fiber_switch\n"
        ".hidden fiber_switch\n"
        ".type fiber_switch, @function\n"
        "fiber_switch:\n"
        "  pushq %rbp\n"
        "  pushq %rbx\n"
        "  pushq %r12\n"
        "  pushq %r13\n"
        "  pushq %r14\n"
        "  pushq %r15\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  popq %r15\n"
        "  popq %r14\n"
        "  popq %r13\n"
        "  popq %r12\n"
        "  popq %rbx\n"
        "  popq %rbp\n"
        "  ret\n"
        ".size fiber_switch, .-fiber_switch\n");

/* The stack of a fiber that will call `entry`: six registers, its address, and where a return address would lie. */
static void prepare(Fiber *fiber, void (*entry)(void)) {
  __asan_unpoison_memory_region(fiber->stack, STACK_BYTES);
  void **top = (void **)(fiber->stack + STACK_BYTES) - 8;
  memset(top, 0, 8 * sizeof *top);
  memcpy(&top[6], &entry, sizeof entry);
  fiber->stack_pointer = top;
  fiber->fake = NULL;
}

Fiber *fiber_get(void (*entry)(void)) {
  Fiber *fiber = fibers.free;
  if (fiber) {
    fibers.free = fiber->next;
    if (!fiber->stack_pointer) prepare(fiber, entry);
    return fiber;
  }
  fiber = memory_alloc(sizeof *fiber);
  char *memory =
      mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, GUARD_BYTES, PROT_NONE)) {
    fprintf(stderr, "CUDA emulator: no memory for the stack of a thread\n");
    exit(1);
  }
  fiber->stack = memory + GUARD_BYTES;
  prepare(fiber, entry);
  return fiber;
}

void fiber_put(Fiber *fiber) {
  fiber->next = fibers.free;
  fibers.free = fiber;
}

void fiber_abandon(Fiber *fiber) {
  fiber->stack_pointer = NULL;
  fiber_put(fiber);
}

void fiber_enter(Fiber *fiber) {
  __sanitizer_start_switch_fiber(&fibers.fake, fiber->stack, STACK_BYTES);
  fiber_switch(&fibers.stack_pointer, fiber->stack_pointer);
  __sanitizer_finish_switch_fiber(fibers.fake, NULL, NULL);
}

void fiber_leave(Fiber *fiber) {
  __sanitizer_start_switch_fiber(&fiber->fake, fibers.bottom, fibers.size);
  fiber_switch(&fiber->stack_pointer, fibers.stack_pointer);
  __sanitizer_finish_switch_fiber(fiber->fake, &fibers.bottom, &fibers.size);
}

void fiber_begin(void) {
  __sanitizer_finish_switch_fiber(NULL, &fibers.bottom, &fibers.size);
}
