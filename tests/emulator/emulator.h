/* The words of emitted kernel text (kernels/prelude.cu says what each means) as C11, for a CPU: every access to memory, every
 * barrier and every product is a call into the emulator's library, which checks it. A text is compiled behind this header; the
 * library itself defines EMULATOR_LIBRARY, and sees the functions only. No header is included here: it is compiled often.
 *
 * Names are the array's text as the kernel has it, "array:tile" where a tile takes part; `line` is the text's. */
#ifndef ADWP_TESTS_EMULATOR_EMULATOR_H
#define ADWP_TESTS_EMULATOR_EMULATOR_H

typedef unsigned short bf16;
typedef unsigned char u8;

/* What a text gives to the library: its function, called with this thread, this block, and pointers to the parameters. */
typedef struct EmulatorEntry {
  void (*run)(int thread, int block, void **parameters);
  int threads;
} EmulatorEntry;

float emulator_load_f32(const float *array, int index, const char *name);
double emulator_load_f64(const double *array, int index, const char *name);
int emulator_load_i32(const int *array, int index, const char *name);
int emulator_load_u8(const u8 *array, int index, const char *name);
float emulator_load_bf16(const bf16 *array, int index, const char *name);
void emulator_store_f32(float *array, int index, float value, const char *name);
void emulator_store_f64(double *array, int index, double value, const char *name);
void emulator_store_bf16(bf16 *array, int index, float value, const char *name);

/* Vectors of `width` elements; the tile has `size` bytes. */
void emulator_load_f32s(float *tile, int size, int at, const float *array, int index, int width, const char *name);
void emulator_load_f64s(double *tile, int size, int at, const double *array, int index, int width, const char *name);
void emulator_load_bf16s(float *tile, int size, int at, const bf16 *array, int index, int width, const char *name);
void emulator_store_f32s(float *array, int index, const float *tile, int size, int at, int width, const char *name);
void emulator_store_f64s(double *array, int index, const double *tile, int size, int at, int width, const char *name);
void emulator_store_bf16s(bf16 *array, int index, const float *tile, int size, int at, int width, const char *name);

void emulator_async_copy(void *shared, int to, const void *array, int from, int where, int bytes, const char *name);
void emulator_wait(void);

void emulator_mma_tf32(float *tile, int size, int at, const float *a, int a_index, int a_stride, const float *b, int b_index,
                       int b_stride, const char *name);
void emulator_mma_bf16(float *tile, int size, int at, const bf16 *a, int a_index, int a_stride, const bf16 *b, int b_index,
                       int b_stride, const char *name);

void emulator_shared(void *array, int size, const char *name); /* an array of the block; a null one only takes space */
void emulator_barrier(int line);
float emulator_block_sum_f32(float value, int threads, int line);
double emulator_block_sum_f64(double value, int threads, int line);
double emulator_exp(double x);
double emulator_log(double x);

#ifndef EMULATOR_LIBRARY

#define KERNEL(name, threads, ...)                                                                                               \
  enum { name##_threads = (threads) };                                                                                           \
  static void name(const int THREAD, const int BLOCK, __VA_ARGS__)
#define IN(type, name) const type *name
#define OUT(type, name) type *name
#define ENTRY(name, ...)                                                                                                         \
  static void name##_run(int thread, int block, void **parameters) {                                                             \
    name(thread, block, __VA_ARGS__);                                                                                            \
  }                                                                                                                              \
  const EmulatorEntry name##_entry = {name##_run, name##_threads};
#define BODY(name) /* groups are run by the library */
#define ARG(number, type) (*(type *)parameters[number])
#define BATCH(number) (*(int *)parameters[number])

#define UNROLL
#define LOOP
#define SHARED(type, name, count, at)                                                                                            \
  static _Alignas(16) type name[count];                                                                                          \
  emulator_shared(name, sizeof name, #name)
#define SUM_SPACE_F32(threads, at) emulator_shared(0, 4 * ((threads) + 1), "sum_space_f32")
#define SUM_SPACE_F64(threads, at) emulator_shared(0, 8 * ((threads) + 1), "sum_space_f64")
#define BARRIER() emulator_barrier(__LINE__)
#define BLOCK_SUM_F32(value, threads) emulator_block_sum_f32(value, threads, __LINE__)
#define BLOCK_SUM_F64(value, threads) emulator_block_sum_f64(value, threads, __LINE__)

#define LOAD(array, index)                                                                                                       \
  _Generic(*(array), float                                                                                                       \
           : emulator_load_f32, double                                                                                           \
           : emulator_load_f64, int                                                                                              \
           : emulator_load_i32, u8                                                                                               \
           : emulator_load_u8)(array, index, #array)
#define STORE(array, index, value)                                                                                               \
  _Generic(*(array), float : emulator_store_f32, double : emulator_store_f64)(array, index, value, #array)
#define LOAD_BF16(array, index) emulator_load_bf16(array, index, #array)
#define STORE_BF16(array, index, value) emulator_store_bf16(array, index, value, #array)

#define FILL(tile, at, width, value)                                                                                             \
  {                                                                                                                              \
    for (int fill = 0; fill < (width); fill++) (tile)[(at) + fill] = (value);                                                    \
  }
#define LOAD_F32X2(tile, at, array, index) emulator_load_f32s(tile, sizeof(tile), at, array, index, 2, #array ":" #tile)
#define LOAD_F32X4(tile, at, array, index) emulator_load_f32s(tile, sizeof(tile), at, array, index, 4, #array ":" #tile)
#define LOAD_F64X2(tile, at, array, index) emulator_load_f64s(tile, sizeof(tile), at, array, index, 2, #array ":" #tile)
#define LOAD_BF16X2(tile, at, array, index) emulator_load_bf16s(tile, sizeof(tile), at, array, index, 2, #array ":" #tile)
#define LOAD_BF16X4(tile, at, array, index) emulator_load_bf16s(tile, sizeof(tile), at, array, index, 4, #array ":" #tile)
#define LOAD_BF16X8(tile, at, array, index) emulator_load_bf16s(tile, sizeof(tile), at, array, index, 8, #array ":" #tile)
#define STORE_F32X2(array, index, tile, at) emulator_store_f32s(array, index, tile, sizeof(tile), at, 2, #array ":" #tile)
#define STORE_F32X4(array, index, tile, at) emulator_store_f32s(array, index, tile, sizeof(tile), at, 4, #array ":" #tile)
#define STORE_F64X2(array, index, tile, at) emulator_store_f64s(array, index, tile, sizeof(tile), at, 2, #array ":" #tile)
#define STORE_BF16X2(array, index, tile, at) emulator_store_bf16s(array, index, tile, sizeof(tile), at, 2, #array ":" #tile)
#define STORE_BF16X4(array, index, tile, at) emulator_store_bf16s(array, index, tile, sizeof(tile), at, 4, #array ":" #tile)
#define STORE_BF16X8(array, index, tile, at) emulator_store_bf16s(array, index, tile, sizeof(tile), at, 8, #array ":" #tile)

#define ASYNC_COPY(shared, to, array, from, where)                                                                               \
  emulator_async_copy(shared, to, array, from, where, sizeof *(array), #shared ":" #array)
#define WAIT() emulator_wait()
#define MMA_TF32(tile, at, a, a_index, a_stride, b, b_index, b_stride)                                                           \
  emulator_mma_tf32(tile, sizeof(tile), at, a, a_index, a_stride, b, b_index, b_stride, #a ":" #b)
#define MMA_BF16(tile, at, a, a_index, a_stride, b, b_index, b_stride)                                                           \
  emulator_mma_bf16(tile, sizeof(tile), at, a, a_index, a_stride, b, b_index, b_stride, #a ":" #b)

#define FMA_F32(a, b, c) __builtin_fmaf(a, b, c)
#define FMA_F64(a, b, c) __builtin_fma(a, b, c)
#define SQRT_F32(x) __builtin_sqrtf(x)
#define SQRT_F64(x) __builtin_sqrt(x)
#define EXP(x) emulator_exp(x)
#define LOG(x) emulator_log(x)
#define F32_INFINITY __builtin_inff()
#define F32_NAN __builtin_nanf("")
#define F64_INFINITY __builtin_inf()
#define F64_NAN __builtin_nan("")

#endif
#endif
