/* What a test may ask of the emulator beside the driver's own functions. The environment gives the defaults:
 *   ADWP_EMULATOR_ORDER    forward, backward, or a number: a seed of a random order of blocks and threads
 *   ADWP_EMULATOR_CHECK    0: no races are looked for
 *   ADWP_EMULATOR_CACHE    a folder where compiled texts are kept
 *   ADWP_EMULATOR_LATE     1: what is put into a stream is done only when something waits for it
 *   ADWP_EMULATOR_MEMORY   bytes of device memory
 *   CC                     the compiler, with leading arguments */
#ifndef ADWP_TESTS_EMULATOR_CONTROL_H
#define ADWP_TESTS_EMULATOR_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

typedef enum EmulatorOrder { EMULATOR_FORWARD, EMULATOR_BACKWARD, EMULATOR_RANDOM } EmulatorOrder;

/* In which order the blocks of a launch run, and the threads of a block between two barriers. */
void adwp_emulator_set_order(EmulatorOrder order, uint64_t seed);
void adwp_emulator_set_check(bool races);
void adwp_emulator_set_late(bool late);

/* What is called when a kernel does what it must not; the launch then fails. Null: the message is printed, and the process
 * aborts. */
typedef void EmulatorHook(void *context, const char *message);
void adwp_emulator_set_hook(EmulatorHook *hook, void *context);

#endif
