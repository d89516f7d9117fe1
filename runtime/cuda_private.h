/* The CUDA device's parts: cuda_executor.c opens and closes it, cuda_memory.c moves parameters and inputs, cuda_group.c
 * writes the tables of grouped launches, cuda_step.c puts a step into a stream and captures it as a graph, cuda_run.c runs, times
 * and reads back, cuda_feed.c makes batches.
 *
 * Everything happens in one stream, in the order of the calls. What a run is given and what it returns passes through the pinned
 * memory of a slot; slots take turns, so that run n + depth may be prepared while run n is under way:
 *
 *   host's copy of a step's small inputs -> slot.mail -> mailbox | graph: mailbox -> arena, launches, arena -> outbox |
 *   outbox -> slot.results, event
 *
 * The mailbox and the outbox are in the device's memory, one for all runs: the stream's order keeps runs apart. A captured graph
 * therefore knows nothing of slots, and one serves them all. */
#ifndef ADWP_RUNTIME_CUDA_PRIVATE_H
#define ADWP_RUNTIME_CUDA_PRIVATE_H

#include "runtime/base/arena.h"
#include "runtime/base/vector.h"
#include "runtime/cuda_driver.h"
#include "runtime/executor_private.h"

enum { CUDA_MOST_DEPTH = 8, CUDA_DEFAULT_DEPTH = 3, CUDA_SMALL_BYTES = 64 << 10, CUDA_WRITES_BYTES = 256 << 10 };

/* An input: a small one travels in the mailbox, a large one has a copy on the device. */
typedef struct CudaInput {
  int64_t mail_at;  /* bytes into the mailbox; -1: large */
  CudaPointer copy; /* of a large one; 0: never set */
} CudaInput;

/* A captured step. */
typedef struct CudaGraphOf {
  int64_t batch;
  int32_t images; /* as CudaStep */
  int64_t launches;
  CudaGraphRun run;
} CudaGraphOf;

typedef struct CudaGroupBlock { /* as kernels/prelude.cu has them */
  uint32_t step, count;
  int32_t task, unused;
} CudaGroupBlock;
typedef struct CudaGroupStep {
  uint32_t body, argument;
} CudaGroupStep;

/* What the groups' launches of a step are told at one batch size: a table of blocks, of steps and of arguments, on the device. */
typedef struct CudaTables {
  int64_t batch;
  bool apart;         /* each launch of a group has blocks of its own, as executor_profile runs them */
  CudaPointer memory; /* blocks, steps, arguments */
  int64_t steps_at, arguments_at;
  int64_t *first_block; /* of each segment, or apart of each launch in order over all segments; and behind the last */
} CudaTables;

typedef struct CudaStep {
  const ProgramStep *step;
  CudaInput *inputs;
  char *mail; /* what the next run is given: small inputs, then the plan */
  int64_t plan_at, mail_bytes;
  int64_t *result_at, result_bytes; /* into the outbox and a slot's results */
  int32_t images;                   /* where the next run's x comes from: of executor.images; -1: from executor_input */
  VECTOR(CudaGraphOf) graphs;
  VECTOR(CudaTables) tables;
} CudaStep;

typedef struct CudaWrite { /* bytes [from, from + bytes) of slot.writes belong at `to` of the parameters */
  int64_t to, from, bytes;
} CudaWrite;

typedef struct CudaSlot {
  char *mail, *results, *writes; /* pinned */
  int64_t writes_used;           /* bytes, until the slot's turn comes again */
  const ProgramStep *step;       /* of the run whose results it has */
  CudaEvent done;
  bool busy; /* `done` has been recorded and not been waited for */
} CudaSlot;

typedef struct CudaImages { /* a data set on the device */
  const Dataset *dataset;
  CudaPointer pixels, normalised;
} CudaImages;

typedef struct CudaExecutor {
  Executor base;
  Arena *memory;
  CudaDriver driver;
  CudaContext context;
  CudaStream stream;
  Cublas blas;
  CublasHandle products;
  int64_t workspace_bytes; /* 0: the program has no products */
  CudaModule *modules;     /* one a kernel, null where its image is that of an earlier one; `functions` has them all */
  CudaFunction *functions;
  CudaPointer parameters, arena, workspace, mailbox, outbox;
  CudaPointer *pointers; /* as many as a launch has buffers, for its arguments*/
  void **arguments;
  CudaStep *steps;
  CudaSlot slots[CUDA_MOST_DEPTH];
  VECTOR(CudaWrite) writes; /* of small parameters, in the slot of the next run, not in the stream yet */
  VECTOR(CudaImages) images;
  CudaEvent clock[2]; /* of executor_profile */
} CudaExecutor;

/* ---- cuda_executor.c ---- */

/* Makes the context the thread's own: every call from outside begins with it. */
bool cuda_enter(CudaExecutor *executor, Err *err);
/* Device memory; an error names `what` it is for. */
bool cuda_allocate(CudaExecutor *executor, CudaPointer *pointer, int64_t bytes, const char *what, Err *err);
bool cuda_wait(CudaExecutor *executor, Err *err); /* for the stream */

/* ---- cuda_memory.c ---- */

bool cuda_read(Executor *base, const ProgramParameter *parameter, float *stored, Err *err);
bool cuda_write(Executor *base, const ProgramParameter *parameter, const float *stored, Err *err);
bool cuda_input(Executor *base, const ProgramStep *step, uint32_t input, const void *data, int64_t elements, Err *err);
/* The slot of the next run, free of the run that had it. */
CudaSlot *cuda_next_slot(CudaExecutor *executor, Err *err);
/* Puts the written parameters into the stream. */
bool cuda_flush(CudaExecutor *executor, Err *err);

/* ---- cuda_group.c ---- */

/* The step's tables at this batch; made, and sent to the device, when first asked for. Null where `err`. */
const CudaTables *cuda_tables(CudaExecutor *executor, CudaStep *step, int64_t batch, bool apart, Err *err);
/* Puts into the stream the blocks of a segment, or apart of a launch, by its number. */
bool cuda_put_group(CudaExecutor *executor, const CudaTables *tables, uint32_t kernel, int64_t number, Err *err);
void cuda_free_tables(CudaExecutor *executor, CudaStep *step);

/* ---- cuda_step.c ---- */

/* Put into the stream: what a run does before its launches, with the inputs that the mailbox has; one launch that is in no group;
 * what it does after them. `nodes` counts how many nodes of a graph they are, launches aside. */
bool cuda_put_inputs(CudaExecutor *executor, CudaStep *step, int64_t batch, int64_t *nodes, Err *err);
bool cuda_put_launch(CudaExecutor *executor, const ProgramStep *step, const Launch *launch, int64_t batch, Err *err);
/* Where a buffer lies on the device. */
CudaPointer cuda_buffer(const CudaExecutor *executor, const ProgramStep *step, BufferRef buffer);
bool cuda_put_results(CudaExecutor *executor, CudaStep *step, int64_t *nodes, Err *err);
/* The step's graph at this batch, for where its inputs come from now; captured when first asked for. */
const CudaGraphOf *cuda_graph(CudaExecutor *executor, CudaStep *step, int64_t batch, Err *err);
void cuda_free_graphs(CudaExecutor *executor, CudaStep *step);

/* ---- cuda_run.c ---- */

bool cuda_run(Executor *base, const ProgramStep *step, int64_t batch, int64_t run, Err *err);
const float *cuda_result(Executor *base, const ProgramStep *step, int64_t run, uint32_t result, Err *err);
bool cuda_finish(Executor *base, Err *err);
bool cuda_profile(Executor *base, const ProgramStep *step, int64_t batch, double *seconds, Err *err);
int64_t cuda_launches(Executor *base, const ProgramStep *step, int64_t batch, Err *err);

/* ---- cuda_feed.c ---- */

Feed *cuda_feed(Executor *base, const Dataset *dataset, const LoaderSettings *settings, Err *err);
void cuda_feed_free(Feed *feed);
int64_t cuda_feed_next(Feed *feed, const ProgramStep *step, Err *err);

#endif
