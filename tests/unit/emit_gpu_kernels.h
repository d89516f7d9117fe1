/* Kernels that together have every operation of the Loop IR that a GPU can run, and what the tests of the way to a GPU share. */
#ifndef ADWP_TESTS_UNIT_EMIT_GPU_KERNELS_H
#define ADWP_TESTS_UNIT_EMIT_GPU_KERNELS_H

#include "compiler/emit/emit.h"
#include "kernels/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { KERNELS = 3 };
static const char *const texts[KERNELS] = {
    "kernel values lanes 64 {\n"
    "  buffer x f32 in  buffer d f64 inout  buffer n i32 in  buffer p u8 in  buffer h bf16 inout  buffer y f32 out\n"
    "  shared t f32[100]  shared w f64[64]  tile acc f32[4] lanes  tile sum f64[1]\n"
    "  %0 = task  %1 = batch  %2 = lane  %3 = iadd %0, 3  %4 = isub %1, %3  %5 = imul %4, %2  %6 = idiv %2, 4\n"
    "  %7 = imod %2, 5  %8 = imin %6, %7  %9 = imax %5, -7  %10 = ilt %8, %9  %11 = ieq %8, %7  %12 = and %10, %11\n"
    "  %13 = or %12, %10  %14 = not %13  %15 = select %14, %6, %7  %16 = to_f32 %15  %17 = to_f64 %16\n"
    "  %18 = load x[%0]  %19 = load_int n[%3]  %20 = load_lanes x[%3] count %19 else -0.5f  %21 = add %20, %18\n"
    "  %22 = sub %21, %16  %23 = mul %22, %20  %24 = div %23, %18  %25 = fma %24, %20, 0.1f  %26 = max %25, -inff\n"
    "  %27 = min %26, 6.0f  %28 = sqrt %27  %29 = exp %17  %30 = log %29  %31 = gt %28, %18  %32 = eq %30, 2.5\n"
    "  %33 = and %31, %32  %34 = gather h[%9] where %33 else 7.0f  %35 = gather p[%9] where %31 else 255\n"
    "  %36 = lane_sum %34  %37 = lane_sum %30  %38 = to_f32 %35  prefetch x[%19]  prefetch y[%0] write\n"
    "  phase outer { phase stage.one { store_lanes t[%0] = %38 count 64 scatter w[%2] = %30 where %31 } }\n"
    "  set acc[0] = %28  unroll %39 = 1 to 4 step 1 { %40 = iadd %39, -1  %41 = get acc[%40]  %42 = mul %41, 3.0f\n"
    "    set acc[%39] = %42 }\n"
    "  for %43 = 0 to %1 step 2 { %44 = iadd %43, %2  %45 = ilt %44, 100  %46 = gather t[%44] where %45 else nanf\n"
    "    %47 = iadd %44, %0  scatter h[%47] = %46 where %45 }\n"
    "  %48 = load w[%0]  %49 = ieq %1, 9  set sum[0] = 0.0  if %49 { set sum[0] = %48 }\n"
    "  if %31 { %50 = to_f64 %36  %51 = fma %50, %37, 0x1.921fb54442d18p+1  %52 = sqrt %51  scatter d[%2] = %52 where %33 }\n"
    "  %53 = get acc[3]  %54 = get sum[0]  store d[%1] = %54\n"
    "  phase last { store_lanes y[%3] = %53 count %19  store y[%0] = %36 }\n"
    "}\n",

    "kernel wide lanes 32 {\n"
    "  buffer x f32 in  buffer d f64 in  buffer h bf16 in  buffer y f32 out  buffer e f64 out  buffer g bf16 out\n"
    "  shared t f32[260]  shared k bf16[256]  tile acc f32[8] lanes  tile two f64[2] lanes\n"
    "  %0 = lane  %1 = imul %0, 8  %2 = imod %0, 3  %3 = ilt %2, 2\n"
    "  phase stage { async_copy t[%1] = x[%1] where %3  async_copy k[%1] = h[%1] where %3  wait }\n"
    "  gather_tile acc[0] = x[%1] width 4 where %3 else 0.0f  gather_tile acc[4] = x[%1] width 2 where %3 else 1.0f\n"
    "  gather_tile acc[6] = t[%1] width 2 where %3 else 1.0f  mma acc[4] += t[0] stride 12 * t[8] stride 8\n"
    "  scatter_tile y[%1] width 4 = acc[4] where %3  gather_tile acc[0] = h[%1] width 8 where %3 else 0.0f\n"
    "  mma acc[0] += k[0] stride 16 * k[128] stride 16  scatter_tile g[%1] width 8 = acc[0] where %3\n"
    "  gather_tile acc[0] = h[%1] width 4 where %3 else 0.0f  gather_tile acc[4] = h[%1] width 2 where %3 else 0.0f\n"
    "  %4 = iadd %1, 256  scatter_tile g[%4] width 4 = acc[0] where %3  %5 = iadd %1, 260\n"
    "  scatter_tile g[%5] width 2 = acc[4] where %3  scatter_tile y[%5] width 2 = acc[2] where %3\n"
    "  gather_tile two[0] = d[%1] width 2 where %3 else 0.25  scatter_tile e[%1] width 2 = two[0] where %3\n"
    "}\n",

    /* Names that C or the prelude has, masks that hold always or never, numbers that C writes in another way. */
    "kernel plain lanes 32 {\n"
    "  buffer float f32 in  buffer LOAD f32 inout  buffer v1 f32 inout  buffer a.b f32 inout  buffer a_b f32 inout\n"
    "  buffer batch f32 inout  shared load_x f32[1]\n"
    "  %0 = task  %1 = load_lanes float[0] count 32 else 1.0f  %2 = load_lanes float[%0] count 0 else 1e30f  %3 = ilt 1, 2\n"
    "  %4 = ieq 1, 2  %5 = gather LOAD[%0] where %3 else 1.0f  %6 = gather LOAD[%0] where %4 else inff\n"
    "  %7 = add %1, %2  %8 = add %5, %6  %9 = add %7, %8  store_lanes v1[0] = %9 count 7  store_lanes v1[%0] = %9 count 0\n"
    "  %10 = iadd %0, -2147483648  %11 = to_f32 %10  %12 = add %11, 16777217.0f  scatter a.b[%0] = %12 where %3\n"
    "  scatter a.b[%0] = %12 where %4  store a_b[%0] = 0.3333333f  store batch[%0] = -0.0f\n"
    "  phase a { store load_x[0] = nanf }  %13 = load load_x[0]  store a_b[%10] = %13\n"
    "}\n",
};

typedef struct Fixture {
  Arena *arena;
  EmitTarget *emulator; /* gives the text itself */
  LoopKernel *kernels[KERNELS];
} Fixture;

static inline LoopKernel *parse(Arena *arena, const char *text) {
  Err err;
  LoopKernel *k = loop_parse(text, strlen(text), arena, &err);
  if (!k) fail_msg("%s", err.text);
  return k;
}

static inline int set_up(void **state) {
  Fixture *f = calloc(1, sizeof *f);
  Err err;
  f->arena = arena_new();
  f->emulator = emit_target_cuda("cuda-emulator", &err);
  if (!f->emulator) fail_msg("%s", err.text);
  for (int i = 0; i < KERNELS; i++) f->kernels[i] = parse(f->arena, texts[i]);
  *state = f;
  return 0;
}

static inline int tear_down(void **state) {
  Fixture *f = *state;
  for (int i = 0; i < KERNELS; i++) loop_free_tables(f->kernels[i]);
  emit_target_free(f->emulator);
  arena_free(f->arena);
  free(f);
  return 0;
}

static inline EmitCode *compile(EmitTarget *target, LoopKernel *const *kernels, size_t count) {
  Err err;
  EmitCode *code = emit_compile(target, (const LoopKernel *const *)kernels, count, 2, NULL, NULL, &err);
  if (!code) fail_msg("%s", err.text);
  return code;
}

/* Runs `child` in a process of its own and returns how that ended; what it writes to stderr goes to `said`. */
static inline int run_child(void (*child)(void *), void *argument, char *said, size_t size) {
  int pipes[2], status;
  assert_int_equal(pipe(pipes), 0);
  pid_t process = fork();
  assert_true(process >= 0);
  if (process == 0) {
    dup2(pipes[1], STDERR_FILENO);
    child(argument);
    _exit(127);
  }
  close(pipes[1]);
  size_t length = 0;
  for (ssize_t got; length + 1 < size && (got = read(pipes[0], said + length, size - 1 - length)) > 0;) length += (size_t)got;
  said[length] = 0;
  close(pipes[0]);
  assert_int_equal(waitpid(process, &status, 0), process);
  return status;
}

#endif
