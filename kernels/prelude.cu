/* The words of emitted kernel text, in CUDA C. The text itself is plain C: it never touches memory, threads or special
 * instructions but through these words, so that it also compiles as C11 where another header gives them (an emulator that checks
 * every access). Every word is listed here; whatever else stands below is theirs and not the text's. The instructions are those of
 * sm_80 and newer. Compile without contraction (--fmad=false): what is computed must have the interpreter's bits.
 *
 * The shape of a text
 *   KERNEL(name, threads, parameters ...) { ... }   parameters: IN(type, x) a buffer that is only read, OUT(type, y) one that is
 *                                                   written and perhaps read, and at the end `int batch`
 *   ENTRY(name, ARG(0, const type *), ..., BATCH(n))      after the kernel: its parameters' types, for who calls it by pointers
 *   types: float, double, int, bf16 (its bits), u8; bits are ints, 0 or 1
 *   SHARED(type, name, count, at);                  an array of the block, aligned to 16; before all other statements. `at`: the
 *                                                   byte from which on it lies, where the block's shared memory is one piece
 *   SUM_SPACE_F32(threads, at); SUM_SPACE_F64       where the kernel sums: what BLOCK_SUM_* need, likewise
 *   tiles are local arrays (float acc[8];), indexed by numbers that are constant once loops are unrolled
 *   UNROLL, LOOP                                    before a `for` that is to be unrolled, and before one that is not: a schedule
 *                                                   decides that
 *
 * Groups: several kernels' tasks in one launch. Each of its blocks runs kernels one after another, each on a task of its own, with
 * a barrier between; how many, which and on what buffers stands in tables: GroupBlock, GroupStep, and arguments of 8 bytes each.
 *   BODIES is defined: KERNEL and ENTRY make a function that a group's block calls instead of a kernel
 *   BODY(name)                                      before a group: a kernel of another text, which such a function stands for
 *   GROUP(name, threads, RUNS(0, body, threads) RUNS(1, ...) ...)    a group's kernel; a kernel of fewer threads runs in the first
 *                                                   of the group's. Its shared memory is given at launch
 *
 * Threads
 *   THREAD, BLOCK                                   numbers of this thread in its block, and of the block
 *   BARRIER();                                      all threads of the block
 *   BLOCK_SUM_F32(value, threads), BLOCK_SUM_F64    every thread gets the block's sum: x[t] += x[t + half], half = threads / 2
 *                                                   .. 1; a barrier, before and after
 *
 * Memory; `array` is a parameter or a shared array, indices count its elements
 *   LOAD(array, index)                              float, double; of i32 and u8: int
 *   STORE(array, index, value);                     float, double
 *   LOAD_BF16(array, index)                         gives float
 *   STORE_BF16(array, index, value);                of a float, to nearest, ties to even
 *   LOAD_F32X2(tile, at, array, index);             tile[at ..] = array[index ..]; index is a multiple of the width. Also F32X4,
 *   STORE_F32X2(array, index, tile, at);            F64X2, BF16X2, BF16X4, BF16X8 (from and to tiles of floats)
 *   FILL(tile, at, width, value);                   no access to memory: tile[at .. at + width) = value
 *   ASYNC_COPY(shared, to, array, from, where);     16 bytes, of equal element types, both indices aligned; zeros where `where`
 *                                                   is 0, and then nothing is read
 *   WAIT();                                         this thread's copies are done
 *
 * Products, by the 32 threads of a warp: tile[at + r] (D, 16 x 8) += A (16 x K) * B (8 x K)^T, see kernels/loop.h
 *   MMA_TF32(tile, at, a, a_index, a_stride, b, b_index, b_stride);    K = 8, of shared floats; index and stride are even
 *   MMA_BF16(...);                                                     K = 16, of shared bf16
 *
 * Numbers: + - * / % < > == ? : of C, casts between int, float and double, and
 *   FMA_F32(a, b, c), FMA_F64, SQRT_F32(x), SQRT_F64, EXP(x), LOG(x) (double), F32_INFINITY, F32_NAN, F64_INFINITY, F64_NAN */

typedef unsigned short bf16;
typedef unsigned char u8;

/* ROOMY is defined where a kernel would otherwise spill: registers matter more to it than blocks side by side. */
#ifdef ROOMY
#define BOUNDS(threads) __launch_bounds__(threads, 1)
#else
#define BOUNDS(threads) __launch_bounds__(threads)
#endif
#define IN(type, name) const type *__restrict__ name
#define OUT(type, name) type *__restrict__ name
#define THREAD ((int)threadIdx.x)
#define UNROLL _Pragma("unroll")
#define LOOP _Pragma("unroll 1")
#define PRELUDE static __device__ __forceinline__

#ifdef BODIES
/* Barrier 0 is the group's; this one is of the first `threads` threads. */
#define BARRIER_OF(threads) asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory")
#define BARRIER() BARRIER_OF(THREADS)
#define KERNEL(name, threads, ...)                                                                                               \
  enum { name##_threads = (threads) };                                                                                           \
  PRELUDE void name(const int BLOCK, const int THREADS, __VA_ARGS__)
#define ENTRY(name, ...)                                                                                                         \
  extern "C" __device__ __noinline__ void name##_body(const unsigned long long *arguments, const int task) {                     \
    name(task, name##_threads, __VA_ARGS__);                                                                                     \
  }
/* A pointer out of a table is not known to be global unless it is said. */
#define ARG(number, type) ((type)__cvta_global_to_generic(arguments[number]))
#define BATCH(number) ((int)arguments[number])

extern __shared__ __align__(16) unsigned char group_memory[];
#define SHARED(type, name, count, at) type *const name = (type *)(group_memory + (at))
#define SHARED_SUM(type, name, count, at) SHARED(type, name, count, at)
#else
#define BARRIER_OF(threads) __syncthreads()
#define BARRIER() __syncthreads()
#define BLOCK ((int)blockIdx.x)
#define KERNEL(name, threads, ...) extern "C" __global__ void BOUNDS(threads) name(__VA_ARGS__)
#define ENTRY(name, ...)
#define SHARED(type, name, count, at) __shared__ __align__(16) type name[count]
#define SHARED_SUM(type, name, count, at) __shared__ type name[count]
#endif

/* ---- groups ---- */

typedef struct GroupBlock {
  unsigned step, count; /* its steps: from the first on, so many */
  int task, unused;
} GroupBlock;
typedef struct GroupStep {
  unsigned body, argument; /* which of the group's kernels; the first of its arguments */
} GroupStep;

#define BODY(name) extern "C" __device__ void name##_body(const unsigned long long *arguments, const int task);
#define RUNS(number, name, threads)                                                                                              \
  case number:                                                                                                                   \
    if (THREAD < (threads)) name##_body(own, block.task);                                                                        \
    break;
#define GROUP(name, threads, runs)                                                                                               \
  extern "C" __global__ void BOUNDS(threads)                                                                                     \
      name(const GroupBlock *blocks, const GroupStep *steps, const unsigned long long *arguments) {                              \
    const GroupBlock block = blocks[blockIdx.x];                                                                                 \
    LOOP for (unsigned i = 0; i < block.count; i++) {                                                                            \
      const GroupStep step = steps[block.step + i];                                                                              \
      const unsigned long long *own = arguments + step.argument;                                                                 \
      if (i) __syncthreads();                                                                                                    \
      switch (step.body) { runs }                                                                                                \
    }                                                                                                                            \
  }

#define LOAD(array, index) ((array)[index])
#define STORE(array, index, value) ((array)[index] = (value))

#define FMA_F32(a, b, c) __fmaf_rn(a, b, c)
#define FMA_F64(a, b, c) __fma_rn(a, b, c)
#define SQRT_F32(x) __fsqrt_rn(x)
#define SQRT_F64(x) __dsqrt_rn(x)
#define EXP(x) exp(x)
#define LOG(x) log(x)
#define F32_INFINITY __int_as_float(0x7f800000)
#define F32_NAN __int_as_float(0x7fc00000)
#define F64_INFINITY __longlong_as_double(0x7ff0000000000000)
#define F64_NAN __longlong_as_double(0x7ff8000000000000)

/* ---- bf16 ---- */

PRELUDE float bf16_low(unsigned pair) {
  return __uint_as_float(pair << 16);
}
PRELUDE float bf16_high(unsigned pair) {
  return __uint_as_float(pair & 0xffff0000u);
}
PRELUDE bf16 bf16_of(float value) {
  bf16 bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
PRELUDE unsigned bf16_pair(float low, float high) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
#define LOAD_BF16(array, index) bf16_low((array)[index])
#define STORE_BF16(array, index, value) ((array)[index] = bf16_of(value))

/* ---- vectors ---- */

#define FILL(tile, at, width, value)                                                                                             \
  {                                                                                                                              \
    UNROLL for (int fill = 0; fill < (width); fill++)(tile)[(at) + fill] = (value);                                              \
  }

PRELUDE void load_f32x2(float *tile, const float *from) {
  float2 v = *(const float2 *)from;
  tile[0] = v.x, tile[1] = v.y;
}
PRELUDE void load_f32x4(float *tile, const float *from) {
  float4 v = *(const float4 *)from;
  tile[0] = v.x, tile[1] = v.y, tile[2] = v.z, tile[3] = v.w;
}
PRELUDE void load_f64x2(double *tile, const double *from) {
  double2 v = *(const double2 *)from;
  tile[0] = v.x, tile[1] = v.y;
}
PRELUDE void unpack(float *tile, unsigned pair) {
  tile[0] = bf16_low(pair), tile[1] = bf16_high(pair);
}
PRELUDE void load_bf16x2(float *tile, const bf16 *from) {
  unpack(tile, *(const unsigned *)from);
}
PRELUDE void load_bf16x4(float *tile, const bf16 *from) {
  uint2 v = *(const uint2 *)from;
  unpack(tile, v.x), unpack(tile + 2, v.y);
}
PRELUDE void load_bf16x8(float *tile, const bf16 *from) {
  uint4 v = *(const uint4 *)from;
  unpack(tile, v.x), unpack(tile + 2, v.y), unpack(tile + 4, v.z), unpack(tile + 6, v.w);
}
#define LOAD_F32X2(tile, at, array, index) load_f32x2(&(tile)[at], &(array)[index])
#define LOAD_F32X4(tile, at, array, index) load_f32x4(&(tile)[at], &(array)[index])
#define LOAD_F64X2(tile, at, array, index) load_f64x2(&(tile)[at], &(array)[index])
#define LOAD_BF16X2(tile, at, array, index) load_bf16x2(&(tile)[at], &(array)[index])
#define LOAD_BF16X4(tile, at, array, index) load_bf16x4(&(tile)[at], &(array)[index])
#define LOAD_BF16X8(tile, at, array, index) load_bf16x8(&(tile)[at], &(array)[index])

PRELUDE void store_f32x2(float *to, const float *tile) {
  *(float2 *)to = make_float2(tile[0], tile[1]);
}
PRELUDE void store_f32x4(float *to, const float *tile) {
  *(float4 *)to = make_float4(tile[0], tile[1], tile[2], tile[3]);
}
PRELUDE void store_f64x2(double *to, const double *tile) {
  *(double2 *)to = make_double2(tile[0], tile[1]);
}
PRELUDE unsigned pack(const float *tile) {
  return bf16_pair(tile[0], tile[1]);
}
PRELUDE void store_bf16x2(bf16 *to, const float *tile) {
  *(unsigned *)to = pack(tile);
}
PRELUDE void store_bf16x4(bf16 *to, const float *tile) {
  *(uint2 *)to = make_uint2(pack(tile), pack(tile + 2));
}
PRELUDE void store_bf16x8(bf16 *to, const float *tile) {
  *(uint4 *)to = make_uint4(pack(tile), pack(tile + 2), pack(tile + 4), pack(tile + 6));
}
#define STORE_F32X2(array, index, tile, at) store_f32x2(&(array)[index], &(tile)[at])
#define STORE_F32X4(array, index, tile, at) store_f32x4(&(array)[index], &(tile)[at])
#define STORE_F64X2(array, index, tile, at) store_f64x2(&(array)[index], &(tile)[at])
#define STORE_BF16X2(array, index, tile, at) store_bf16x2(&(array)[index], &(tile)[at])
#define STORE_BF16X4(array, index, tile, at) store_bf16x4(&(array)[index], &(tile)[at])
#define STORE_BF16X8(array, index, tile, at) store_bf16x8(&(array)[index], &(tile)[at])

/* ---- copies from global to shared memory that a thread does not wait for ---- */

PRELUDE void async_copy(void *to, const void *from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((unsigned)__cvta_generic_to_shared(to)),
               "l"(__cvta_generic_to_global(from)), "r"(bytes)
               : "memory");
}
#define ASYNC_COPY(shared, to, array, from, where) async_copy(&(shared)[to], &(array)[from], (where) ? 16 : 0)
#define WAIT() asm volatile("cp.async.wait_all;" ::: "memory")

/* ---- products ---- */

/* Rounds to tf32: to nearest, ties away from zero. */
PRELUDE unsigned tf32_of(float value) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

/* Thread 4 * g + t of a warp holds rows g and g + 8 of A and row g of B, and of their 8 columns those that the instruction calls t
 * and t + 4. Which they are is free as long as A and B agree: 2 * t and 2 * t + 1 are one access of 8 bytes. */
PRELUDE void mma_tf32(float *d, const float *a, int a_stride, const float *b, int b_stride) {
  int row = (THREAD & 31) >> 2, column = (THREAD & 3) * 2;
  float2 a0 = *(const float2 *)(a + row * a_stride + column), a1 = *(const float2 *)(a + (row + 8) * a_stride + column);
  float2 b0 = *(const float2 *)(b + row * b_stride + column);
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(tf32_of(a0.x)), "r"(tf32_of(a1.x)), "r"(tf32_of(a0.y)), "r"(tf32_of(a1.y)), "r"(tf32_of(b0.x)), "r"(tf32_of(b0.y)));
}

/* Columns 2 * t, 2 * t + 1 and the same + 8. */
PRELUDE void mma_bf16(float *d, const bf16 *a, int a_stride, const bf16 *b, int b_stride) {
  int row = (THREAD & 31) >> 2, column = (THREAD & 3) * 2;
  const bf16 *upper = a + row * a_stride + column, *lower = upper + 8 * a_stride, *factor = b + row * b_stride + column;
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(*(const unsigned *)upper), "r"(*(const unsigned *)lower), "r"(*(const unsigned *)(upper + 8)),
        "r"(*(const unsigned *)(lower + 8)), "r"(*(const unsigned *)factor), "r"(*(const unsigned *)(factor + 8)));
}
#define MMA_TF32(tile, at, a, a_index, a_stride, b, b_index, b_stride)                                                           \
  mma_tf32(&(tile)[at], &(a)[a_index], a_stride, &(b)[b_index], b_stride)
#define MMA_BF16(tile, at, a, a_index, a_stride, b, b_index, b_stride)                                                           \
  mma_bf16(&(tile)[at], &(a)[a_index], a_stride, &(b)[b_index], b_stride)

/* ---- sums over a block ---- */

/* One level of the tree over the parts of a thread; written out, so that they stay in registers. */
#define HALVE(half)                                                                                                              \
  if (threads >= 64 * half) {                                                                                                    \
    UNROLL for (int i = 0; i < half; i++) part[i] += part[i + half];                                                             \
  }

/* The first warp adds what lies a multiple of 32 apart, then its own 32, and leaves the sum behind the threads' numbers, where a
 * second sum can write only after its own first barrier: when all have read this one. */
#define DEFINE_BLOCK_SUM(name, type)                                                                                             \
  PRELUDE type name(type *space, type value, const int threads) {                                                                \
    space[THREAD] = value;                                                                                                       \
    BARRIER_OF(threads);                                                                                                                   \
    if (THREAD < 32) {                                                                                                           \
      type part[32];                                                                                                             \
      UNROLL for (int i = 0; i < threads / 32; i++) part[i] = space[THREAD + 32 * i];                                            \
      HALVE(16);                                                                                                                 \
      HALVE(8);                                                                                                                  \
      HALVE(4);                                                                                                                  \
      HALVE(2);                                                                                                                  \
      HALVE(1);                                                                                                                  \
      UNROLL for (int half = 16; half >= 1; half /= 2) part[0] += __shfl_down_sync(0xffffffffu, part[0], half);                  \
      if (THREAD == 0) space[threads] = part[0];                                                                                 \
    }                                                                                                                            \
    BARRIER_OF(threads);                                                                                                         \
    return space[threads];                                                                                                       \
  }
DEFINE_BLOCK_SUM(block_sum_f32, float)
DEFINE_BLOCK_SUM(block_sum_f64, double)
#define SUM_SPACE_F32(threads, at) SHARED_SUM(float, sum_space_f32, (threads) + 1, at)
#define SUM_SPACE_F64(threads, at) SHARED_SUM(double, sum_space_f64, (threads) + 1, at)
#define BLOCK_SUM_F32(value, threads) block_sum_f32(sum_space_f32, value, threads)
#define BLOCK_SUM_F64(value, threads) block_sum_f64(sum_space_f64, value, threads)
