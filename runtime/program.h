/* The Program: what the compiler hands to the runtime. Plain structs; it never points back into the compiler.
 *
 * A step is a list of segments, run one after another. A segment is a list of runs that do not depend on each other: their
 * tasks are shared out among the workers together. A run is one launch, or several that work image by image on equal
 * tasks: a worker, or a block of a GPU, does all of them, in order, on a task before it takes another, so that what one leaves
 * the next finds in its cache. A launch runs one kernel on `tasks` tasks; the number of tasks comes from shapes and B, never from
 * the number of threads, and no two tasks write the same element, so the bits are the same on any number of threads. */
#ifndef ADWP_RUNTIME_PROGRAM_H
#define ADWP_RUNTIME_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct KernelArgs {
  void *const *buffers; /* in the kernel's parameter order */
  void *scratch;        /* this worker's, aligned to 64 */
  int64_t batch;        /* B */
} KernelArgs;

/* Runs the tasks task0 <= t < task1. */
typedef void KernelFunction(const KernelArgs *args, int64_t task0, int64_t task1);

typedef enum ProgramDevice { PROGRAM_CPU, PROGRAM_CUDA } ProgramDevice;

/* On a GPU a kernel is `extern "C" __global__ void symbol(buffers in parameter order, int batch)`, a block of `threads` a task.
 */
typedef struct ProgramKernel {
  const char *name;
  KernelFunction *run;   /* PROGRAM_CPU */
  int64_t scratch_bytes; /* of a CPU's worker */
  const char *symbol;    /* PROGRAM_CUDA, as all below */
  const void *image; /* what cuModuleLoadData takes: a cubin, PTX, or for the emulator the CUDA text; ends in a zero byte. Null:
                      * the kernel is launched in groups only */
  size_t image_bytes;
  int32_t threads;
  int32_t shared_bytes;    /* of a group's kernel, given at launch */
  const char *description; /* for people: "16x32x32 k3 s2"; null or empty: none */
} ProgramKernel;

typedef enum BufferSpace {
  BUFFER_ARENA,     /* offset into the step's arena */
  BUFFER_PARAMETER, /* offset into the parameters' memory, which outlives steps */
  BUFFER_SCRATCH    /* offset into the worker's scratch, where the first image of the task under way lies. PROGRAM_CPU only */
} BufferSpace;

typedef struct BufferRef {
  BufferSpace space;
  int64_t offset;      /* bytes, multiple of 64 but for views of channels inside a concatenation */
  int64_t image_bytes; /* BUFFER_SCRATCH: from image to image */
} BufferRef;

/* How many tasks a launch has at B, where a task, or `tasks` of them together, do `images` images. */
static inline int64_t program_tasks(int32_t images, int32_t tasks, int64_t batch) {
  return images ? (batch + images - 1) / images * tasks : tasks;
}

/* A product of row-major matrices by the device's library: C (m, n) = op(A) (m, k) * op(B) (k, n) + beta * C. Buffers: A, B, C. A
 * matrix has `stride` elements from row to row and f32 or bf16 elements; sums are f32. */
typedef struct ProgramMatrix {
  bool transposed; /* op */
  bool bf16;
  int64_t stride;
} ProgramMatrix;

typedef struct ProgramProduct {
  ProgramMatrix a, b, c;
  int64_t m, n, k;
  bool batch_m, batch_k; /* that side is times B */
  bool tf32;             /* f32 factors may be rounded to tf32 */
  float beta;            /* 0 or 1 */
} ProgramProduct;

typedef struct Launch {
  uint32_t kernel;
  uint32_t buffer_count;
  const BufferRef *buffers;
  const ProgramProduct *product; /* not null: this, by the device's library, and no kernel. PROGRAM_CUDA only */
  bool each_task;                /* its one task, number 0, is done on each task of its run */
  uint32_t body;                 /* which of the kernels of its segment's group `kernel` is */
  bool joins;                    /* belongs to the run of the launch before it, which has as many tasks */
  int32_t images, tasks;         /* program_tasks: ceil(B / images) * tasks tasks; images 0: `tasks` */
  double flops;                  /* useful operations at B = batch: multiply-adds of convolutions and products counted as 2 */
  /* At B = batch, 0: not known. Bytes of memory that it moves, and the least of both that it could: compiler/traffic.h. */
  int64_t read_bytes, written_bytes, least_bytes;
} Launch;

typedef struct Segment {
  const Launch *launches;
  uint32_t count;
  /* PROGRAM_CUDA: 1 + the group's kernel that does all launches but products in one; 0: each is launched alone. Its blocks are
   * divided among the runs; a block does a run's launches on one task, one after another (GroupBlock in kernels/prelude.cu). */
  uint32_t group;
} Segment;

typedef struct NamedBuffer { /* an input that the runtime fills, or a result that it reads, both in the step's arena */
  const char *name;
  int64_t offset, elements; /* elements at B = batch; float, or int32_t for labels; 4 bytes each */
  bool integer;
} NamedBuffer;

typedef struct ProgramStep {
  const char *name;
  const Segment *segments;
  uint32_t segment_count;
  int64_t arena_bytes, scratch_bytes; /* scratch: of BUFFER_SCRATCH, of each worker */
  const NamedBuffer *inputs;          /* x: (B, H, W, C) normalised; y: (B,) */
  uint32_t input_count;
  const NamedBuffer *results;
  uint32_t result_count;
} ProgramStep;

typedef enum ProgramParameterKind {
  PROGRAM_WEIGHT,
  PROGRAM_ALPHA,
  PROGRAM_MOMENTUM,
  PROGRAM_ADAM_MEAN,
  PROGRAM_ADAM_SQUARE,
  PROGRAM_HOISTED /* computed by search_enter; in no file */
} ProgramParameterKind;

/* A parameter lies in memory in the order in which kernels read it; files have the canonical, row-major order.
 * `program_to_stored` and `program_to_canonical` convert. */
typedef struct ProgramParameter {
  const char *name;
  ProgramParameterKind kind;
  int32_t rank;
  int64_t dims[4]; /* canonical */
  int64_t offset;  /* bytes into the parameters' memory */
  int64_t elements;
  /* How stored order comes from canonical order: the canonical tensor seen as `view_rank` dims `view`, transposed by `order`. */
  int32_t view_rank; /* 0: stored as it is */
  int64_t view[6];
  int32_t order[6]; /* stored dimension d is canonical view dimension order[d] */
  double uniform;   /* initial value: uniform +-uniform, or where it is 0, `constant` */
  double constant;
} ProgramParameter;

typedef struct ProgramCandidate {
  const char *operation;
  int32_t operation_index, source;
} ProgramCandidate;

typedef struct ProgramNode {
  const ProgramCandidate *candidates;
  int32_t count;
} ProgramNode;

typedef struct ProgramCell {
  bool reduction;
  const ProgramNode *nodes;
  int32_t node_count;
} ProgramCell;

typedef struct ProgramData {
  const char *name, *format;
  int32_t channels, height, width, classes;
  double mean[8], deviation[8]; /* of x/255, a channel */
  double train_fraction;
  int32_t crop_pad, cutout;
  bool flip;
  int32_t train_images, test_images; /* synthetic data */
} ProgramData;

typedef struct ProgramSearch { /* see dsl/model.h's Search */
  int32_t train, cross_start, cross_end, total, batch, keep;
  double lr_start, lr_end, alpha_lr, alpha_beta1, alpha_beta2, alpha_scale, alpha_initial;
  bool last;
  uint64_t seed;
} ProgramSearch;

typedef struct Program {
  const char *name;  /* the hypernetwork's */
  const char *space; /* the space's name: what arch.adwp imports its operations from */
  ProgramDevice device;
  const char *target;     /* "x86-64-v4", "sm_90", "cuda-emulator"; with the precision where that is not fp32: "sm_90 bf16" */
  const char *model_text; /* the filled-in model, a whole .adwp file */
  const char *model_hash; /* of what decides whether a checkpoint fits: hexadecimal */
  int32_t batch;
  int64_t parameter_bytes;
  const ProgramParameter *parameters;
  uint32_t parameter_count;
  const ProgramKernel *kernels;
  uint32_t kernel_count;
  /* PROGRAM_CUDA: the kernel that makes a batch from the data set's bytes: pixels u8, plan i32 (B, 8: LoaderImage), normalised
   * f32 (C, 256), x (B, H, W, C) f32; B tasks. */
  uint32_t images_kernel;
  const ProgramStep *steps; /* train_step, search_step, cross_step, eval, as far as asked for */
  uint32_t step_count;
  const ProgramCell *cells;
  int32_t cell_count;
  ProgramData data;
  ProgramSearch search;
} Program;

/* Convert one parameter between its stored and its canonical order. */
void program_to_stored(const ProgramParameter *parameter, const float *canonical, float *stored);
void program_to_canonical(const ProgramParameter *parameter, const float *stored, float *canonical);

const NamedBuffer *program_find_input(const ProgramStep *step, const char *name);  /* null: none */
const NamedBuffer *program_find_result(const ProgramStep *step, const char *name); /* null: none */
const ProgramStep *program_find_step(const Program *program, const char *name);    /* null: none */
int32_t program_find_parameter(const Program *program, const char *name);          /* -1: none */

#endif
