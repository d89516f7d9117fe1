/* The CUDA device on the emulator (skipped where it has not been built): the toy's search, whose files must not depend on how
 * many runs are under way or where it was interrupted; pixels, products, inputs and results against their plain definitions. */
#include "runtime/cuda.h"

#include "runtime/base/arena.h"
#include "runtime/base/file.h"
#include "runtime/executor.h"
#include "runtime/random.h"
#include "runtime/search.h"
#include "tests/unit/runtime_toy_cuda.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64], emulator[4096];

static void need_emulator(void) {
  if (!*emulator) skip();
}

static Executor *begin(const Program *program, int32_t depth) {
  Err err;
  Executor *executor = executor_new(program, &(ExecutorOptions){.threads = 1, .emulator = emulator, .depth = depth}, &err);
  if (!executor) fail_msg("%s", err.text);
  return executor;
}

static void assert_has(const Err *err, const char *words) {
  if (!strstr(err->text, words)) fail_msg("\"%s\" is not in \"%s\"", words, err->text);
}

static int64_t must_run(Executor *executor, const ProgramStep *step, int64_t batch) {
  Err err;
  int64_t run = executor_run(executor, step, batch, &err);
  if (run < 0) fail_msg("%s", err.text);
  return run;
}

/* ---- the search ---- */

static void set_stop(int signal_number) {
  (void)signal_number;
  toy_stop = 1;
}

typedef enum How { BEGIN = 0, RESUME = 1, MOVE = 2 } How;

/* Until `toy_stop` is set. */
static bool search(const Program *program, const char *run, int32_t depth, How how, SearchSummary *summary, Err *err) {
  char folder[128];
  snprintf(folder, sizeof folder, "%s/%s", root, run);
  SearchOptions options = {.run_folder = folder,
                           .threads = 1,
                           .emulator = program->device == PROGRAM_CUDA ? emulator : NULL,
                           .depth = depth,
                           .metric_steps = 4,
                           .checkpoint_steps = 5,
                           .resume = how & RESUME,
                           .move = how & MOVE,
                           .stop = &toy_stop};
  toy_stop = 0;
  return search_run(program, &options, summary, err);
}

static void must_search(const Program *program, const char *run, int32_t depth) {
  SearchSummary summary;
  Err err;
  if (!search(program, run, depth, BEGIN, &summary, &err)) fail_msg("%s", err.text);
  assert_true(summary.finished);
}

static void assert_same_file(const char *run, const char *other, const char *name) {
  char path[2][160], *data[2];
  size_t size[2];
  Err err;
  snprintf(path[0], sizeof path[0], "%s/%s/%s", root, run, name);
  snprintf(path[1], sizeof path[1], "%s/%s/%s", root, other, name);
  for (int i = 0; i < 2; i++)
    if (!file_read(path[i], 1 << 24, &data[i], &size[i], &err)) fail_msg("%s", err.text);
  if (size[0] != size[1] || memcmp(data[0], data[1], size[0]) != 0) fail_msg("%s and %s differ", path[0], path[1]);
  free(data[0]);
  free(data[1]);
}

static void assert_same_run(const char *run, const char *other) {
  static const char *const names[] = {"metrics.jsonl", "arch.adwp", "arch.json", "weights.safetensors", "checkpoint.safetensors"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) assert_same_file(run, other, names[i]);
}

static void test_depth_changes_nothing(void **state) {
  (void)state;
  need_emulator();
  Program program = toy_cuda_program();
  must_search(&program, "depth-1", 1);
  must_search(&program, "depth-3", 3);
  must_search(&program, "depth-8", 8);
  assert_same_run("depth-3", "depth-1");
  assert_same_run("depth-8", "depth-1");
}

/* The kernels round as the CPU's do but for exp and log, so the two find the same. */
static void test_search_agrees_with_the_cpu(void **state) {
  (void)state;
  need_emulator();
  Program program = toy_cuda_program();
  SearchSummary here, there;
  Err err;
  assert_true(search(&program, "on-cuda", 0, BEGIN, &here, &err));
  assert_true(search(&toy_program, "on-cpu", 0, BEGIN, &there, &err));
  assert_int_equal(here.best_epoch, there.best_epoch);
  assert_true(fabs(here.best_loss - there.best_loss) < 1e-4);
  assert_same_file("on-cuda", "on-cpu", "arch.json");
}

/* A clock stops the run wherever it is, again and again. */
static void test_stopped_anywhere(void **state) {
  (void)state;
  need_emulator();
  Program program = toy_cuda_program();
  SearchSummary summary = {0};
  Err err;
  int stops = 0;
  signal(SIGALRM, set_stop);
  for (int64_t turn = 0; !summary.finished; turn++) {
    const struct itimerval clock = {.it_value.tv_usec = 20000 + 10000 * (turn % 7)};
    setitimer(ITIMER_REAL, &clock, NULL);
    if (!search(&program, "stopped", 3, turn ? RESUME : BEGIN, &summary, &err)) fail_msg("%s", err.text);
    stops += !summary.finished;
    if (turn == 20) signal(SIGALRM, SIG_IGN); /* slow machines get to the end, too */
  }
  setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
  print_message("stopped %d times\n", stops);
  assert_same_run("stopped", "depth-1");
}

/* Begun on one device and continued on the other, which is an error unless it is asked for. */
static void test_moved_between_devices(void **state) {
  (void)state;
  need_emulator();
  const Program cuda = toy_cuda_program();
  SearchSummary whole, summary;
  Err err;
  assert_true(search(&toy_program, "whole", 0, BEGIN, &whole, &err));
  atomic_store(&toy_steps_left, 15);
  assert_true(search(&toy_program, "moved", 0, BEGIN, &summary, &err));
  assert_int_equal(summary.step, 15);
  assert_false(search(&cuda, "moved", 0, RESUME, &summary, &err));
  assert_has(&err, "its target is x86-64-v4, and this run's is cuda-emulator; resume with its --device");
  if (!search(&cuda, "moved", 0, RESUME | MOVE, &summary, &err)) fail_msg("%s", err.text);
  assert_true(summary.finished && fabs(summary.best_loss - whole.best_loss) < 1e-4);
  assert_same_file("moved", "whole", "arch.json");
  assert_false(search(&toy_program, "moved", 0, RESUME, &summary, &err)); /* it is the GPU's now */
  assert_true(search(&toy_program, "moved", 0, RESUME | MOVE, &summary, &err));
}

/* The message is of the first bad step, though others were under way, and what lies there is older. */
static void test_bad_loss_names_its_step(void **state) {
  (void)state;
  need_emulator();
  Program program = toy_cuda_program();
  program.search.lr_start = 3e38;
  Err err[2];
  for (int i = 0; i < 2; i++) {
    SearchSummary summary;
    assert_false(search(&program, i ? "bad-3" : "bad-1", i ? 3 : 1, BEGIN, &summary, &err[i]));
    assert_has(&err[i], "of the run");
    assert_has(&err[i], "no checkpoint yet");
    *strstr(err[i].text, " of the run") = 0; /* the rest names the folder */
  }
  assert_string_equal(err[0].text, err[1].text);
  char path[128];
  snprintf(path, sizeof path, "%s/bad-3/checkpoint.safetensors", root);
  assert_int_not_equal(access(path, F_OK), 0);
}

/* ---- feeds ---- */

static void set_inputs(Executor *executor, const ProgramStep *step, float rate) {
  Err err;
  float *x = malloc(TOY_BATCH * TOY_PIXELS * sizeof *x);
  int32_t y[TOY_BATCH];
  const float corrections[3] = {rate, 0.5F, 1e-3F};
  for (int i = 0; i < TOY_BATCH * TOY_PIXELS; i++) x[i] = random_normal(3, RANDOM_TEST, 0, (uint64_t)i);
  for (int i = 0; i < TOY_BATCH; i++) y[i] = i * 7 % 10;
  assert_true(executor_input(executor, step, "x", x, TOY_BATCH * TOY_PIXELS, &err));
  assert_true(executor_input(executor, step, "y", y, TOY_BATCH, &err));
  if (program_find_input(step, "rate")) assert_true(executor_input(executor, step, "rate", &rate, 1, &err));
  if (program_find_input(step, "alpha.corrections"))
    assert_true(executor_input(executor, step, "alpha.corrections", corrections, 3, &err));
  free(x);
}

/* A step of no launch: x and y are inputs and results. */
static const NamedBuffer pixel_results[] = {{"x", TOY_X, TOY_BATCH *TOY_PIXELS, false}, {"y", TOY_Y, TOY_BATCH, true}};
static const ProgramStep pixel_steps[] = {
    {"look", NULL, 0, TOY_ARENA, 0, toy_inputs, 2, pixel_results, 2},
    {"labels", NULL, 0, TOY_ARENA, 0, toy_inputs + 1, 1, pixel_results + 1, 1},
};

static Program looking(Program program) {
  program.steps = pixel_steps;
  program.step_count = 2;
  return program;
}

static void compare_feeds(Executor *cpu, Executor *cuda, const Dataset *dataset, const LoaderSettings *settings) {
  Err err;
  Feed *wanted = feed_new(cpu, dataset, settings, &err), *got = feed_new(cuda, dataset, settings, &err);
  assert_true(wanted && got);
  for (int n = 0; n < 9; n++) {
    const ProgramStep *step = &pixel_steps[n % 4 == 3];
    int64_t count = feed_next(wanted, step, &err), run, other;
    assert_int_equal(feed_next(got, step, &err), count);
    if (!count) break;
    run = must_run(cpu, step, TOY_BATCH), other = must_run(cuda, step, TOY_BATCH);
    for (uint32_t i = 0; i < step->result_count; i++) {
      const NamedBuffer *result = &step->results[i];
      assert_memory_equal(executor_result(cuda, step, other, result->name, &err),
                          executor_result(cpu, step, run, result->name, &err), 4 * (size_t)result->elements);
    }
  }
  feed_free(wanted);
  feed_free(got);
}

static void test_pixels_are_those_of_the_cpu(void **state) {
  (void)state;
  need_emulator();
  Program here = looking(toy_program), there = looking(toy_cuda_program());
  Err err;
  Executor *cpu = begin(&here, 0), *cuda = begin(&there, 0);
  Dataset *dataset = dataset_load(&toy_program.data, NULL, &err);
  LoaderSettings settings = loader_training(&toy_program.data, TOY_BATCH);
  settings.seed = 5;
  settings.cutout = 9;
  settings.first_step = 3;
  compare_feeds(cpu, cuda, dataset, &settings);
  settings = loader_validation(DATASET_TEST, TOY_BATCH);
  compare_feeds(cpu, cuda, dataset, &settings);
  assert_int_equal(executor_launches(cuda, &pixel_steps[0], TOY_BATCH, &err), 1); /* what makes x */
  set_inputs(cuda, &pixel_steps[0], 0);                                           /* from here on x is what the caller gives */
  set_inputs(cpu, &pixel_steps[0], 0);
  int64_t wanted = must_run(cpu, &pixel_steps[0], TOY_BATCH), got = must_run(cuda, &pixel_steps[0], TOY_BATCH);
  assert_memory_equal(executor_result(cuda, &pixel_steps[0], got, "x", &err),
                      executor_result(cpu, &pixel_steps[0], wanted, "x", &err), TOY_BATCH * TOY_PIXELS * sizeof(float));
  assert_int_equal(executor_launches(cuda, &pixel_steps[0], TOY_BATCH, &err), 0);
  assert_int_equal(executor_launches(cuda, &pixel_steps[1], TOY_BATCH, &err), 0);
  executor_free(cpu);
  executor_free(cuda);
  dataset_free(dataset);
}

/* ---- inputs, results, parameters ---- */

static void set_weights(Executor *executor) {
  Err err;
  float weights[TOY_WEIGHTS], zeros[TOY_WEIGHTS] = {0};
  for (int i = 0; i < TOY_WEIGHTS; i++) weights[i] = 0.1F * random_normal(4, RANDOM_TEST, 0, (uint64_t)i);
  assert_true(executor_write(executor, 0, weights, &err));
  for (uint32_t i = 1; i < 8; i++) assert_true(executor_write(executor, i, zeros, &err));
}

static float loss_of(Executor *executor, const ProgramStep *step, int64_t run) {
  Err err;
  const float *loss = executor_result(executor, step, run, "loss", &err);
  if (!loss) fail_msg("%s", err.text);
  return *loss;
}

/* Steps of different kinds in turns: inputs that were set once hold, results are those of their own run. */
static void test_runs_under_way(void **state) {
  (void)state;
  need_emulator();
  Program program = toy_cuda_program();
  float losses[3][12];
  for (int32_t depth = 1; depth <= 3; depth++) {
    Err err;
    Executor *executor = begin(&program, depth);
    int64_t runs[12];
    assert_int_equal(executor_depth(executor), depth);
    set_weights(executor);
    for (int s = 0; s < 3; s++) set_inputs(executor, &toy_steps[s], 0.1F);
    for (int n = 0; n < 12 + depth - 1; n++) {
      int read = n - depth + 1;
      float rate = 0.01F * (float)n;
      if (n < 12) assert_true(executor_input(executor, &toy_steps[2], "rate", &rate, 1, &err));
      if (n < 12) runs[n] = must_run(executor, &toy_steps[n % 3], TOY_BATCH);
      if (n < 12) assert_int_equal(runs[n], n);
      if (read >= 0) losses[depth - 1][read] = loss_of(executor, &toy_steps[read % 3], runs[read]);
    }
    executor_free(executor);
  }
  assert_memory_equal(losses[0], losses[1], sizeof losses[0]);
  assert_memory_equal(losses[0], losses[2], sizeof losses[0]);
  assert_true(losses[0][11] < losses[0][0]);
}

/* A step that has run already runs otherwise with an input that was not set before, and on another batch. */
static void test_graphs_of_their_own(void **state) {
  (void)state;
  need_emulator();
  Program program = toy_cuda_program();
  Executor *cuda = begin(&program, 0), *cpu = begin(&toy_program, 0);
  const ProgramStep *step = &toy_steps[0];
  set_weights(cuda);
  set_weights(cpu);
  assert_true(fabsf(loss_of(cuda, step, must_run(cuda, step, TOY_BATCH)) - logf(10)) < 1e-5F); /* of zeros */
  set_inputs(cuda, step, 0);
  set_inputs(cpu, step, 0);
  static const int64_t batches[] = {TOY_BATCH, 3, 7, TOY_BATCH};
  for (int i = 0; i < 4; i++) {
    float want = loss_of(cpu, step, must_run(cpu, step, batches[i])), got = loss_of(cuda, step, must_run(cuda, step, batches[i]));
    assert_true(fabsf(got - want) < 1e-5F);
  }
  executor_free(cuda);
  executor_free(cpu);
}

/* Small parameters wait for the next run, which sees the last value; a read sees it at once. More of them than are kept. */
static void test_parameters_written_before_a_run(void **state) {
  (void)state;
  need_emulator();
  Program program = toy_cuda_program();
  Err err;
  Executor *executor = begin(&program, 2);
  float back[TOY_WEIGHTS];
  for (int round = 0; round < 300; round++) {
    const float logits[3] = {(float)round, 2, -1};
    set_weights(executor);
    assert_true(executor_write(executor, 2 + 3 * (uint32_t)(round % 2), logits, &err));
    if (round % 50 != 49) continue;
    assert_true(executor_read(executor, 5, back, &err));
    assert_memory_equal(back, logits, sizeof logits);
  }
  set_weights(executor);
  set_inputs(executor, &toy_steps[3], 0);
  int64_t run = must_run(executor, &toy_steps[3], TOY_BATCH);
  const float *found = executor_result(executor, &toy_steps[3], run, "losses", &err);
  float even = found[0];
  const float logits[3] = {3, 0, -3};
  assert_true(executor_write(executor, 2, logits, &err));
  run = must_run(executor, &toy_steps[3], TOY_BATCH);
  found = executor_result(executor, &toy_steps[3], run, "losses", &err);
  assert_true(found[0] != even);
  executor_free(executor);
}

static void test_profile_and_launches(void **state) {
  (void)state;
  need_emulator();
  Program program = toy_cuda_program();
  Err err;
  Executor *executor = begin(&program, 0);
  set_weights(executor);
  set_inputs(executor, &toy_steps[0], 0);
  double seconds[2] = {0};
  for (int i = 0; i < 2; i++)
    if (!executor_profile(executor, &toy_steps[0], TOY_BATCH, seconds, &err)) fail_msg("%s", err.text);
  assert_true(seconds[0] > 0 && seconds[1] > 0);
  assert_int_equal(executor_launches(executor, &toy_steps[0], TOY_BATCH, &err), 2);
  assert_int_equal(executor_launches(executor, &toy_steps[0], 3, &err), 2); /* another graph */
  executor_free(executor);
}

/* ---- products ---- */

enum { M = 5, N = 6, K = 7, STRIDE = 12, AT_A = 0, AT_B = 4096, AT_C = 8192, PRODUCT_ARENA = 12288, PRODUCT_BATCH = 2 };

static const BufferRef product_buffers[] = {{BUFFER_ARENA, AT_A, 0}, {BUFFER_ARENA, AT_B, 0}, {BUFFER_ARENA, AT_C, 0}};
static const NamedBuffer product_inputs[] = {{"a", AT_A, 1024, false}, {"b", AT_B, 1024, false}, {"c", AT_C, 1024, false}};
static const NamedBuffer product_results[] = {{"c", AT_C, 1024, false}};

/* An element of a row-major matrix, which may be stored transposed and in half the bits. */
static float element(const float *data, const ProgramMatrix *matrix, int row, int column) {
  int64_t at = matrix->transposed ? column * matrix->stride + row : row * matrix->stride + column;
  if (!matrix->bf16) return data[at];
  uint16_t half;
  memcpy(&half, (const char *)data + 2 * at, 2);
  uint32_t bits = (uint32_t)half << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static void check_product(const ProgramProduct *product) {
  const Launch launch = {.buffer_count = 3, .buffers = product_buffers, .product = product};
  const Segment segment = {.launches = &launch, .count = 1};
  const ProgramStep step = {"multiply", &segment, 1, PRODUCT_ARENA, 0, product_inputs, 3, product_results, 1};
  Program program = toy_cuda_program();
  program.steps = &step;
  program.step_count = 1;
  program.batch = PRODUCT_BATCH;
  Err err;
  Executor *executor = begin(&program, 1);
  float a[1024], b[1024], c[1024];
  for (int i = 0; i < 1024; i++) a[i] = (float)(i % 13) - 6, b[i] = (float)(i % 11) - 5, c[i] = (float)i;
  for (int i = 0; i < 512 && product->a.bf16; i++) /* small whole numbers, whose lower half is zeros: two a float */
    for (int half = 0; half < 2; half++) {
      float first = (float)((2 * i + half) % 13) - 6, second = (float)((2 * i + half) % 11) - 5;
      memcpy((char *)a + 4 * i + 2 * half, (char *)&first + 2, 2);
      memcpy((char *)b + 4 * i + 2 * half, (char *)&second + 2, 2);
    }
  assert_true(executor_input(executor, &step, "a", a, 1024, &err) && executor_input(executor, &step, "b", b, 1024, &err) &&
              executor_input(executor, &step, "c", c, 1024, &err));
  int64_t run = must_run(executor, &step, PRODUCT_BATCH);
  const float *got = executor_result(executor, &step, run, "c", &err);
  int rows = product->batch_m ? PRODUCT_BATCH * M : M, depth = product->batch_k ? PRODUCT_BATCH * K : K;
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < STRIDE; j++) {
      float want = j < N ? product->beta * c[i * STRIDE + j] : c[i * STRIDE + j];
      for (int p = 0; p < depth && j < N; p++) want += element(a, &product->a, i, p) * element(b, &product->b, p, j);
      assert_true(got[i * STRIDE + j] == want);
    }
  assert_int_equal(executor_launches(executor, &step, PRODUCT_BATCH, &err), 1);
  executor_free(executor);
}

static void test_products(void **state) {
  (void)state;
  need_emulator();
  for (int variant = 0; variant < 32; variant++) {
    ProgramProduct product = {.a = {variant & 1, variant & 16, 20},
                              .b = {variant & 2, variant & 16, 22},
                              .c = {false, false, STRIDE},
                              .m = M,
                              .n = N,
                              .k = K,
                              .batch_m = variant & 4,
                              .batch_k = !(variant & 4),
                              .tf32 = variant & 8,
                              .beta = variant & 8 ? 1.0F : 0.0F};
    check_product(&product);
  }
}

/* ---- the device ---- */

static void test_device_is_found(void **state) {
  (void)state;
  need_emulator();
  CudaDevice device;
  Err err;
  if (!cuda_find(emulator, &device, &err)) fail_msg("%s", err.text);
  assert_string_equal(device.arch, "cuda-emulator");
  assert_true(device.has_blas && strstr(device.blas, "cuBLAS") && *device.name && *device.driver);
  assert_true(device.free_bytes > 0 && device.free_bytes <= device.memory_bytes && device.processors > 0);
}

static void expect_failure(const Program *program, const char *words) {
  Err err = {""};
  assert_null(executor_new(program, &(ExecutorOptions){.emulator = emulator}, &err));
  assert_has(&err, words);
}

static void test_what_does_not_fit(void **state) {
  (void)state;
  need_emulator();
  Program program = toy_cuda_program();
  ProgramStep huge = toy_steps[0];
  huge.arena_bytes = INT64_C(1) << 50;
  program.steps = &huge;
  program.step_count = 1;
  expect_failure(&program, "too little memory: 1073741");
  expect_failure(&program, "for activations at a batch of 10");
  program = toy_cuda_program();
  program.target = "sm_90 bf16";
  expect_failure(&program, "compiled for sm_90 bf16, and the device is the CUDA emulator");
  ProgramKernel kernels[5];
  memcpy(kernels, toy_cuda_kernels, sizeof kernels);
  kernels[2].symbol = "missing";
  program = toy_cuda_program();
  program.kernels = kernels;
  expect_failure(&program, "the kernel search has no function missing");
}

static void test_no_room_for_images(void **state) {
  (void)state;
  need_emulator();
  Program program = toy_cuda_program();
  Err err;
  Dataset *dataset = dataset_load(&toy_program.data, NULL, &err);
  Executor *executor = begin(&program, 1);
  LoaderSettings settings = loader_validation(DATASET_TEST, TOY_BATCH);
  setenv("ADWP_EMULATOR_MEMORY", "500000", 1);
  assert_null(feed_new(executor, dataset, &settings, &err));
  assert_has(&err, "MB of the GPU's memory for the data set's images");
  unsetenv("ADWP_EMULATOR_MEMORY");
  Feed *feed = feed_new(executor, dataset, &settings, &err);
  assert_non_null(feed);
  feed_free(feed);
  executor_free(executor);
  dataset_free(dataset);
}

/* The emulator's library lies beside the built programs, and the tests one folder below. */
static void find_emulator(void) {
  Err err;
  char program[3000];
  if (cuda_emulator_path(emulator, &err)) return;
  ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  program[length > 0 ? length : 0] = 0;
  char *slash = strrchr(program, '/');
  if (slash) *slash = 0;
  snprintf(emulator, sizeof emulator, "%s/../libadwp_cuda_emulator.so", program);
  if (access(emulator, R_OK)) *emulator = 0;
}

static int make_root(void **state) {
  (void)state;
  snprintf(root, sizeof root, "%s/adwp-cuda-test-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
  find_emulator();
  if (!*emulator) print_message("the emulator is not built: what needs it is skipped\n");
  return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", root);
  return system(command);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_device_is_found),
      cmocka_unit_test(test_products),
      cmocka_unit_test(test_pixels_are_those_of_the_cpu),
      cmocka_unit_test(test_runs_under_way),
      cmocka_unit_test(test_graphs_of_their_own),
      cmocka_unit_test(test_parameters_written_before_a_run),
      cmocka_unit_test(test_profile_and_launches),
      cmocka_unit_test(test_depth_changes_nothing),
      cmocka_unit_test(test_search_agrees_with_the_cpu),
      cmocka_unit_test(test_stopped_anywhere),
      cmocka_unit_test(test_moved_between_devices),
      cmocka_unit_test(test_bad_loss_names_its_step),
      cmocka_unit_test(test_what_does_not_fit),
      cmocka_unit_test(test_no_room_for_images),
  };
  return cmocka_run_group_tests(tests, make_root, remove_root);
}
