/* What the files of the emulator share: a library that stands for libcuda.so.1 and libcublas, and runs kernels on this CPU.
 *
 * compile.c makes objects of kernel texts with a C compiler. launch.c runs their blocks one after another: a fiber (fiber.c) a
 * thread, which runs until it meets a barrier. words.c is what a text's words do: each access to memory is checked against the
 * regions of memory.c, and for races against shadow.h. stream.c records or runs what is put into streams; driver.c and blas.c are
 * the rest of the two interfaces.
 *
 * A driver has a state, so this library has: `emulator`. Its functions take a lock. */
#ifndef ADWP_TESTS_EMULATOR_EMULATOR_PRIVATE_H
#define ADWP_TESTS_EMULATOR_EMULATOR_PRIVATE_H

#include "runtime/base/err.h"
#include "runtime/base/hash.h"
#include "runtime/base/vector.h"
#include "tests/emulator/control.h"
#define EMULATOR_LIBRARY
#include "tests/emulator/emulator.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EMULATOR_EXPORT __attribute__((visibility("default")))
/* What each access goes through: the shadow's bookkeeping is not itself watched by the sanitizers, which would double its cost.
 */
#define EMULATOR_PLAIN __attribute__((no_sanitize("address", "undefined")))

enum { EMULATOR_MOST_THREADS = 1024, EMULATOR_WARP = 32, EMULATOR_SHARED_BYTES = 48 * 1024, EMULATOR_MOST_SHARED = 64 };

/* ---- fiber.c: stacks, and the way between them and the scheduler's ---- */

typedef struct Fiber {
  void *stack_pointer;
  char *stack; /* the lowest byte */
  void *fake;  /* ASan's */
  struct Fiber *next;
} Fiber;

Fiber *
fiber_get(void (*entry)(void));   /* a free one, or a new one; `entry` is called when it is first entered, and never returns */
void fiber_put(Fiber *fiber);     /* it waits in its entry's loop to be given out again */
void fiber_abandon(Fiber *fiber); /* what it did is forgotten */
void fiber_enter(Fiber *fiber);   /* from the scheduler; returns when the fiber leaves */
void fiber_leave(Fiber *fiber);   /* from the fiber to the scheduler; returns when it is entered again */
void fiber_begin(void);           /* the first thing that an entry does */

/* ---- memory.c: what a kernel may touch ---- */

/* The shadow of a word: when it was last written and read, in epochs (one between two barriers of a block, ascending over all
 * launches), and by which thread. `MANY`: several read it in that epoch. */
typedef struct Cell {
  uint32_t written, read;
  uint16_t writer, reader;
} Cell;
enum {
  CELL_THREAD = 0x7ff,
  CELL_MANY = 0x400,
  CELL_PENDING = 0x8000,     /* of a writer: a copy that was not waited for */
  CELL_OTHER_BLOCK = 0x8000, /* of a reader: so did a block before this one in the same launch */
};

/* An allocation of device memory or a block's shared array. Words of 4 bytes have a cell in the first plane, halves of two bytes
 * in the first or the second. */
typedef struct Region {
  char *base;
  size_t size;
  Cell *cells[2]; /* null until they are needed */
  size_t cell_bytes[2];
  bool shared;
} Region;

Region *memory_find(const void *address);             /* null: it is in no region */
bool memory_holds(const void *address, size_t bytes); /* all of it in one allocation */
bool memory_shadow(Region *region);                   /* makes the cells; false: no memory for them */
Region *memory_shared(void *array, size_t size);      /* makes it known for this block */
void memory_next_block(void);                         /* forgets the shared arrays */
bool memory_device_alloc(void **pointer, size_t bytes);
bool memory_device_free(void *pointer);
size_t memory_total(void), memory_used(void);
/* Host memory that the device copies from and to without the driver. */
void memory_pin(void *pointer, size_t bytes);
bool memory_unpin(const void *pointer);
bool memory_is_pinned(const void *address, size_t bytes);

/* ---- compile.c ---- */

enum { KERNEL_MOST_PARAMETERS = 128, GROUP_PARAMETERS = 3 };

/* A kernel, or a group's: then `bodies` are the kernels that its blocks run, and its parameters the group's tables. */
typedef struct Kernel {
  HashName key; /* of the text */
  char symbol[160];
  char *text;
  int parameters;
  uint8_t parameter_bytes[KERNEL_MOST_PARAMETERS];
  const EmulatorEntry *entry; /* null: not compiled yet, or a group's */
  VECTOR(struct Kernel *) bodies;
  int threads; /* of a group's */
} Kernel;

typedef struct Module { /* what an image holds */
  VECTOR(Kernel *) kernels;
} Module;

/* Each kernel's text begins with KERNEL( at the start of a line; a line GROUP(name, threads, RUNS(0, kernel, threads) ...) is a
 * group's. The same text: the same kernel. Null: it is no text of kernels. */
Module *compile_add(const char *text, Err *err);
void compile_forget(Module *module);           /* its kernels are kept for the next one that has them */
bool compile_all(bool *no_compiler, Err *err); /* every text that was added */

/* ---- launch.c: blocks and threads ---- */

typedef struct GroupBlock { /* as kernels/prelude.cu has them */
  uint32_t step, count;
  int32_t task, unused;
} GroupBlock;
typedef struct GroupStep {
  uint32_t body, argument;
} GroupStep;

typedef struct Launch {
  Kernel *kernel;
  uint32_t blocks, threads;
  void **parameters;     /* pointers to the values */
  uint32_t shared_bytes; /* of a group */
} Launch;

bool launch_run(const Launch *launch, Err *err); /* false: a fault, which `err` and the hook got */

typedef enum ThreadState { THREAD_READY, THREAD_BARRIER, THREAD_SUM_F32, THREAD_SUM_F64, THREAD_DONE } ThreadState;

typedef struct PendingCopy { /* an ASYNC_COPY */
  void *shared;
  const void *array;
  int to, from, bytes; /* of an element */
  bool where;
  const char *name;
} PendingCopy;

typedef struct Thread {
  Fiber *fiber; /* null: not started, or done */
  ThreadState state;
  int line; /* where it waits */
  union {
    float single;
    double wide;
  } value; /* what it adds to a sum */
  VECTOR(PendingCopy) copies;
  uint64_t products; /* a hash of the products that it took part in since the last barrier */
  uint32_t product_count;
} Thread;

typedef struct Run { /* a launch under way */
  const Launch *launch;
  const Kernel *kernel; /* of the launch, or the body that the group's block runs */
  void **parameters;
  int task; /* the block, or the body's task */
  uint32_t block;
  int threads, current; /* the thread that runs */
  Thread thread[EMULATOR_MOST_THREADS];
  int order[EMULATOR_MOST_THREADS];
  uint64_t random;
  uint32_t launch_epoch, block_epoch, epoch;    /* first of the launch, first of the block, now */
  VECTOR(uint32_t) block_epochs, block_numbers; /* first epoch of each block that has begun, and which it was */
  int barriers, last_line;                      /* of this block: how many were passed, and where the last one stands */
  size_t shared_bytes;
  union {
    float single;
    double wide;
  } sum;
  bool check, faulted;
  Err *err;
} Run;

extern Run emulator_run __attribute__((visibility("hidden")));

/* Ends the launch: the kernel's thread that runs did what it must not. */
_Noreturn void launch_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint32_t launch_block_of(uint32_t epoch); /* which block of this launch ran then */

/* ---- stream.c, driver.c, blas.c ---- */

typedef struct Matrix {
  const void *data;
  bool transposed, bf16;
  int64_t stride;
} Matrix;

typedef struct Product { /* column-major: C (m, n) = alpha * op(A) (m, k) * op(B) (k, n) + beta * C */
  int64_t m, n, k;
  Matrix a, b, c;
  bool tf32;
  float alpha, beta;
} Product;

void product_run(const Product *product);

/* The message of the last failure, for cuGetErrorString; and a fault outside a kernel. */
void emulator_remember(const char *message);
const char *emulator_remembered(void);
void emulator_report(const char *message); /* to the hook; without one the process ends */
void emulator_lock(void);
void emulator_unlock(void);

#endif
