/* What is said where CUDA is not as it should be: drivers made of empty functions stand in for the real one. The process starts
 * itself again with the path of libraries set, since that is read at its start; --find and --run are what it then does. */
#include "runtime/cuda.h"
#include "runtime/cuda_driver.h"

#include "runtime/base/text.h"
#include "runtime/executor.h"
#include "tests/unit/runtime_toy_cuda.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64], self[4096];

static const char *const symbols[] = {
#define X(field, symbol, parameters) symbol,
    CUDA_DRIVER_FUNCTIONS(X)
#undef X
};

/* A GPU of architecture sm_80 with 16 MB free, on a driver of CUDA 12.4. */
#define VERSION(number) "int cuDriverGetVersion(int *v) { *v = " #number "; return 0; }\n"
#define COUNT(number) "int cuDeviceGetCount(int *n) { *n = " #number "; return 0; }\n"
#define INIT(result) "int cuInit(unsigned f) { return " #result "; }\n"
#define DEVICE                                                                                                                   \
  "int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : 0; return 0; }\n"                                         \
  "int cuDeviceGetName(char *n, int s, int d) { n[0] = 'G'; n[1] = 0; return 0; }\n"                                             \
  "int cuMemGetInfo_v2(unsigned long *f, unsigned long *t) { *f = 16 << 20; *t = 32 << 20; return 0; }\n"                        \
  "int cuGetErrorName(int r, const char **n) { *n = \"CUDA_ERROR_FAKE\"; return 0; }\n"

/* Makes ROOT/NAME/libcuda.so.1 from C text; functions that it does not define succeed and do nothing, but for `missing`. */
static bool make_driver(const char *name, const char *text, const char *missing) {
  Text source = {0}, command = {0};
  text_add(&source, text);
  for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
    char call[64];
    snprintf(call, sizeof call, "%s(", symbols[i]);
    if (!strstr(text, call) && !(missing && strcmp(missing, symbols[i]) == 0))
      text_printf(&source, "int %s(void) { return 0; }\n", symbols[i]);
  }
  text_printf(&command, "mkdir -p %s/%s && cc -w -shared -fPIC -x c -o %s/%s/libcuda.so.1 -", root, name, root, name);
  FILE *compiler = popen(command.data, "w");
  bool done = compiler && fputs(source.data, compiler) >= 0;
  done = compiler && pclose(compiler) == 0 && done;
  text_free(&source);
  text_free(&command);
  return done;
}

/* What this program says with the driver in ROOT/NAME. */
static void say(const char *name, const char *action, char answer[2048]) {
  Text command = {0};
  text_printf(&command, "LD_LIBRARY_PATH=%s/%s %s %s", root, name, self, action);
  FILE *run = popen(command.data, "r");
  assert_non_null(run);
  answer[fread(answer, 1, 2047, run)] = 0;
  pclose(run);
  text_free(&command);
}

static void expect(const char *name, const char *driver, const char *missing, const char *action, const char *words) {
  char answer[2048];
  if (driver && !make_driver(name, driver, missing)) skip(); /* there is no C compiler */
  say(name, action, answer);
  if (!strstr(answer, words)) fail_msg("\"%s\" is not in \"%s\"", words, answer);
}

static void test_no_driver(void **state) {
  (void)state;
  char answer[2048];
  say("none", "--find", answer);
  if (!strstr(answer, "no CUDA driver")) skip(); /* this machine has one */
  assert_non_null(strstr(answer, "libcuda.so.1: cannot open"));
  assert_non_null(strstr(answer, "--device=cpu"));
}

static void test_drivers_that_will_not_do(void **state) {
  (void)state;
  expect("old", VERSION(11080) COUNT(1) DEVICE, NULL, "--find", "speaks CUDA 11.8, and 12.0 or newer is needed: update");
  expect("partial", VERSION(12040) COUNT(1) DEVICE, "cuGraphLaunch", "--find", "libcuda.so.1 has no function cuGraphLaunch");
  expect("empty", VERSION(12040) COUNT(0) DEVICE, NULL, "--find", "finds no GPU; see whether nvidia-smi");
  expect("hidden", VERSION(12040) COUNT(0) INIT(100) DEVICE, NULL, "--find", "CUDA_VISIBLE_DEVICES");
  expect("stub", VERSION(12040) COUNT(0) INIT(34) DEVICE, NULL, "--find", "toolkit's stub and no driver");
  expect("mixed", VERSION(12040) COUNT(1) INIT(803) DEVICE, NULL, "--find",
         "of different versions): an error that the driver cannot name");
}

static void test_a_driver_that_will_do(void **state) {
  (void)state;
  expect("good", VERSION(12040) COUNT(1) DEVICE, NULL, "--find", "found G sm_80 12.4 33554432 16777216");
}

static void test_programs_that_do_not_fit(void **state) {
  (void)state;
  static const char driver[] = VERSION(12040) COUNT(1) DEVICE;
  expect("small", driver, NULL, "--run=sm_80", "too little memory: ");
  expect("small", NULL, NULL, "--run=sm_80", "and 16 of its 32 MB are free; a smaller batch needs less");
  expect("small", NULL, NULL, "--run=compute_75", "too little memory"); /* PTX of an older one, too, gets as far as that */
  expect("small", NULL, NULL, "--run=sm_90",
         "compiled for sm_90, which this GPU of architecture sm_80 cannot run; compile them for sm_80");
  expect("small", NULL, NULL, "--run=sm_86", "cannot run");
  expect("small", NULL, NULL, "--run=compute_90", "cannot run");
  expect("small", NULL, NULL, "--run=cuda-emulator", "compiled for cuda-emulator, and the device is a GPU");
}

static void test_emulator_that_is_not_there(void **state) {
  (void)state;
  char path[4096];
  CudaDevice device;
  Err err;
  setenv("ADWP_CUDA_EMULATOR", "/nowhere/libemulator.so", 1);
  assert_false(cuda_emulator_path(path, &err));
  assert_non_null(strstr(err.text, "a device for tests"));
  assert_non_null(strstr(err.text, "/nowhere/libemulator.so"));
  assert_false(cuda_find(path, &device, &err));
  assert_non_null(strstr(err.text, "cannot open the CUDA emulator"));
  setenv("ADWP_CUDA_EMULATOR", self, 1);
  assert_true(cuda_emulator_path(path, &err));
  assert_string_equal(path, self);
  unsetenv("ADWP_CUDA_EMULATOR");
}

/* ---- the second process ---- */

static int find(void) {
  CudaDevice device;
  Err err;
  if (!cuda_find(NULL, &device, &err)) return puts(err.text) < 0;
  printf("found %s %s %s %lld %lld\n", device.name, device.arch, device.driver, (long long)device.memory_bytes,
         (long long)device.free_bytes);
  return 0;
}

static int run(const char *target) {
  Program program = toy_cuda_program();
  Err err;
  program.target = target;
  Executor *executor = executor_new(&program, &(ExecutorOptions){0}, &err);
  puts(executor ? "ran" : err.text);
  executor_free(executor);
  return 0;
}

static int make_root(void **state) {
  (void)state;
  ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  self[length > 0 ? length : 0] = 0;
  snprintf(root, sizeof root, "/tmp/adwp-driver-test-XXXXXX");
  return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", root);
  return system(command);
}

int main(int count, char **arguments) {
  if (count == 2 && strcmp(arguments[1], "--find") == 0) return find();
  if (count == 2 && strncmp(arguments[1], "--run=", 6) == 0) return run(arguments[1] + 6);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_no_driver),
      cmocka_unit_test(test_drivers_that_will_not_do),
      cmocka_unit_test(test_a_driver_that_will_do),
      cmocka_unit_test(test_programs_that_do_not_fit),
      cmocka_unit_test(test_emulator_that_is_not_there),
  };
  return cmocka_run_group_tests(tests, make_root, remove_root);
}
