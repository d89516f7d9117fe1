/* Groups on the emulator: several kernels' tasks in one launch, some of them one after another in a block, against the Loop IR's
 * interpreter, which runs the kernels one by one: the same bits in every order of blocks and threads. And what is not allowed is
 * found: a block that reads what another one writes, tables that lead outside, shared memory that was not given. */
#include "tests/numeric/emulator_device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A task t: y[t * 64 .. ) = 2 x[t * 64 .. ), through shared memory, backwards. */
static const char twice_text[] = "kernel twice lanes 64 {\n"
                                 "  buffer x f32 in\n  buffer y f32 out\n  shared s f32[64]\n"
                                 "  %0 = task\n  %1 = imul %0, 64\n  %2 = lane\n  %3 = isub 63, %2\n  %4 = ieq 0, 0\n"
                                 "  %5 = load_lanes x[%1] count 64 else 0.0f\n  %6 = add %5, %5\n"
                                 "  phase stage {\n    store_lanes s[0] = %6 count 64\n  }\n"
                                 "  %7 = gather s[%3] where %4 else 0.0f\n  store_lanes y[%1] = %7 count 64\n}\n";
/* With fewer threads and a sum of them: z[t] = sum of y[t * 64 ..) * B. */
static const char sum_text[] = "kernel sum lanes 32 {\n"
                               "  buffer y f32 in\n  buffer z f32 out\n"
                               "  %0 = task\n  %1 = imul %0, 64\n  %2 = iadd %1, 32\n  %3 = batch\n  %4 = to_f32 %3\n"
                               "  %5 = load_lanes y[%1] count 32 else 0.0f\n  %6 = load_lanes y[%2] count 32 else 0.0f\n"
                               "  %7 = add %5, %6\n  %8 = lane_sum %7\n  %9 = mul %8, %4\n  store z[%0] = %9\n}\n";
/* w[t * 128 ..) += 1, as many threads as a block has. */
static const char raise_text[] = "kernel raise lanes 128 {\n"
                                 "  buffer w f32 inout\n  %0 = task\n  %1 = imul %0, 128\n"
                                 "  %2 = load_lanes w[%1] count 128 else 0.0f\n  %3 = add %2, 1.0f\n"
                                 "  store_lanes w[%1] = %3 count 128\n}\n";

enum { TASKS = 5, SIDE = 64, RAISED = 3, WIDE = 128, BATCH = 7, THREADS = 128 };

typedef struct Block { /* kernels/prelude.cu: GroupBlock, GroupStep */
  uint32_t step, count;
  int32_t task, unused;
} Block;
typedef struct Step {
  uint32_t body, argument;
} Step;

typedef struct Data {
  float x[TASKS * SIDE], y[TASKS * SIDE], z[TASKS], w[RAISED * WIDE];
} Data;

typedef struct Tables {
  Block blocks[TASKS + RAISED];
  Step steps[3];
  uint64_t arguments[8];
} Tables;

typedef struct Fixture {
  Arena *arena;
  LoopKernel *kernels[3];
  CudaFunction group;
  int32_t shared;
} Fixture;

static LoopKernel *parsed(Arena *arena, const char *text) {
  Err err;
  LoopKernel *kernel = loop_parse(text, strlen(text), arena, &err);
  if (!kernel || !loop_verify(kernel, &err)) fail_msg("%s", err.text);
  return kernel;
}

static int set_up(void **state) {
  static Fixture fixture;
  static const uint32_t bodies[] = {2, 0, 1};
  static const char *const texts[] = {twice_text, sum_text, raise_text};
  Err err;
  fixture.arena = arena_new();
  for (int i = 0; i < 3; i++) fixture.kernels[i] = parsed(fixture.arena, texts[i]);
  if (!device_open(&err)) fail_msg("%s", err.text);
  EmitTarget *target = emit_target_cuda(device.arch, &err);
  EmitGroup group = {bodies, 3};
  EmitGroups *groups =
      target ? emit_groups(target, (const LoopKernel *const *)fixture.kernels, 3, &group, 1, 1, NULL, NULL, &err) : NULL;
  if (!groups) fail_msg("%s", err.text);
  const EmitImage *image = emit_group_image(groups, 0);
  CudaModule module;
  fixture.shared = image->resources.shared_bytes;
  assert_int_equal(device.driver.module_load(&module, image->data), 0);
  assert_int_equal(device.driver.module_function(&fixture.group, module, image->symbol), 0);
  emit_groups_free(groups);
  emit_target_free(target);
  *state = &fixture;
  return 0;
}

static int tear_down(void **state) {
  Fixture *fixture = *state;
  for (int i = 0; i < 3; i++) loop_free_tables(fixture->kernels[i]);
  arena_free(fixture->arena);
  return 0;
}

static void fill(Data *data) {
  memset(data, 0, sizeof *data);
  for (int i = 0; i < TASKS * SIDE; i++) data->x[i] = (float)((i * 29) % 101) / 7.0f;
  for (int i = 0; i < RAISED * WIDE; i++) data->w[i] = (float)i / 3.0f;
}

static void interpret(const Fixture *fixture, Data *data) {
  LoopBuffer x = {data->x, TASKS * SIDE}, y = {data->y, TASKS * SIDE}, z = {data->z, TASKS}, w = {data->w, RAISED * WIDE};
  Err err;
  if (!loop_interpret(fixture->kernels[0], (LoopBuffer[]){x, y}, BATCH, 0, TASKS, &err) ||
      !loop_interpret(fixture->kernels[1], (LoopBuffer[]){y, z}, BATCH, 0, TASKS, &err) ||
      !loop_interpret(fixture->kernels[2], &w, BATCH, 0, RAISED, &err))
    fail_msg("%s", err.text);
}

/* Blocks of raise, then blocks that do twice and sum on one task. Bodies: 0 raise, 1 twice, 2 sum. */
static Tables good_tables(CudaPointer data) {
  Tables tables = {.steps = {{0, 0}, {1, 2}, {2, 5}}};
  for (int i = 0; i < RAISED; i++) tables.blocks[i] = (Block){0, 1, i, 0};
  for (int i = 0; i < TASKS; i++) tables.blocks[RAISED + i] = (Block){1, 2, i, 0};
  const uint64_t arguments[] = {data + offsetof(Data, w), BATCH, data + offsetof(Data, x),
                                data + offsetof(Data, y), BATCH, data + offsetof(Data, y),
                                data + offsetof(Data, z), BATCH};
  memcpy(tables.arguments, arguments, sizeof arguments);
  return tables;
}

/* Launches the group with tables that `change` has had, and copies the data back. */
static CudaResult run(const Fixture *fixture, Data *data, int order, int32_t shared, void change(Tables *)) {
  CudaPointer memory = 0, tables_at = 0;
  const CudaDriver *driver = &device.driver;
  assert_int_equal(driver->memory_alloc(&memory, sizeof *data), 0);
  assert_int_equal(driver->memory_alloc(&tables_at, sizeof(Tables)), 0);
  Tables tables = good_tables(memory);
  if (change) change(&tables);
  assert_int_equal(driver->copy_in(memory, data, sizeof *data, NULL), 0);
  assert_int_equal(driver->copy_in(tables_at, &tables, sizeof tables, NULL), 0);
  CudaPointer pointers[3] = {tables_at, tables_at + offsetof(Tables, steps), tables_at + offsetof(Tables, arguments)};
  void *parameters[3] = {&pointers[0], &pointers[1], &pointers[2]};
  if (device.set_order)
    device.set_order(order == 0 ? EMULATOR_FORWARD : order == 1 ? EMULATOR_BACKWARD : EMULATOR_RANDOM, (uint64_t)order);
  snprintf(device_fault, sizeof device_fault, "no fault");
  CudaResult result =
      driver->launch(fixture->group, TASKS + RAISED, 1, 1, THREADS, 1, 1, (unsigned)shared, NULL, parameters, NULL);
  if (!result) result = driver->stream_wait(NULL);
  driver->copy_out(data, memory, sizeof *data, NULL);
  driver->stream_wait(NULL);
  driver->memory_free(memory);
  driver->memory_free(tables_at);
  return result;
}

static void test_bits(void **state) {
  const Fixture *fixture = *state;
  Data want;
  fill(&want);
  interpret(fixture, &want);
  assert_true(want.z[1] != 0);
  for (int order = 0; order < device_orders(); order++) {
    Data got;
    fill(&got);
    if (run(fixture, &got, order, fixture->shared, NULL)) fail_msg("order %d: %s", order, device_fault);
    assert_memory_equal(&got, &want, sizeof got);
  }
}

static void sum_of_the_next_task(Tables *tables) { /* its y is another block's */
  for (int i = 0; i < TASKS; i++) tables->blocks[RAISED + i] = (Block){1, 1, i, 0};
  tables->blocks[0] = (Block){2, 1, 3, 0};
}
static void no_such_body(Tables *tables) {
  tables->steps[2].body = 3;
}
static void no_such_step(Tables *tables) {
  tables->blocks[4].step = 1000;
}
static void no_such_argument(Tables *tables) {
  tables->steps[1].argument = 6;
}

static void test_faults(void **state) {
  const Fixture *fixture = *state;
  static const struct {
    void (*change)(Tables *);
    int32_t shared;
    const char *says;
  } faults[] = {
      {sum_of_the_next_task, -1, "race: "},    {no_such_body, -1, "the kernel of block"},
      {no_such_step, -1, "a step of block"},   {no_such_argument, -1, "an argument of block"},
      {NULL, 128, "this launch gives it 128"},
  };
  if (!device.set_order) skip();
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
    for (int order = 0; order < device_orders(); order++) {
      Data data;
      fill(&data);
      assert_int_not_equal(
          run(fixture, &data, order, faults[i].shared < 0 ? fixture->shared : faults[i].shared, faults[i].change), 0);
      if (!strstr(device_fault, faults[i].says)) fail_msg("order %d: %s, and not %s", order, device_fault, faults[i].says);
    }
}

/* The text of a group: each kernel once, then the group; and its own figures. */
static void test_text(void **state) {
  const Fixture *fixture = *state;
  assert_int_equal(fixture->shared, 256);
  Err err;
  EmitTarget *target = emit_target_cuda("cuda-emulator", &err);
  const LoopKernel *kernels[4] = {fixture->kernels[0], fixture->kernels[1], fixture->kernels[0], fixture->kernels[2]};
  const EmitGroup groups[] = {{(uint32_t[]){0, 1}, 2}, {(uint32_t[]){2, 3}, 2}};
  EmitStatistics statistics;
  EmitGroups *made = emit_groups(target, kernels, 4, groups, 2, 1, NULL, &statistics, &err);
  if (!made) fail_msg("%s", err.text);
  const char *text = emit_group_image(made, 0)->data;
  assert_ptr_equal(text, emit_group_image(made, 1)->data);
  assert_int_equal(statistics.compiled, 3);
  int found = 0;
  for (const char *at = text; (at = strstr(at, "KERNEL(")); at++) found++;
  assert_int_equal(found, 3);
  assert_string_not_equal(emit_group_image(made, 0)->symbol, emit_group_image(made, 1)->symbol);
  assert_int_equal(emit_group_image(made, 0)->resources.shared_bytes, 256);
  emit_groups_free(made);
  emit_target_free(target);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bits),
      cmocka_unit_test(test_faults),
      cmocka_unit_test(test_text),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
