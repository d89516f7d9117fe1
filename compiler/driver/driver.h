/* The command `adwp`: what its subcommands share.
 *
 * A subcommand is `int command_NAME(count, arguments, err)`; it returns the exit status. Status 1 with a message in `err` lets
 * `main` print it; with an empty one, the diagnostics of a model were printed already. Wrong usage ends in argp with status 2.
 * Results go to standard output; progress and messages go to standard error. */
#ifndef ADWP_COMPILER_DRIVER_DRIVER_H
#define ADWP_COMPILER_DRIVER_DRIVER_H

#include "compiler/lower.h"
#include "compiler/pass/pass.h"
#include "compiler/pipeline.h"
#include "dsl/dsl.h"
#include "runtime/architecture.h"
#include "runtime/base/arena.h"
#include "runtime/base/err.h"
#include "runtime/base/text.h"
#include "runtime/base/vector.h"

#include <argp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

enum { STATUS_GOOD = 0, STATUS_FAILED = 1, STATUS_USAGE = 2, STATUS_SIGNAL = 128 /* + the signal's number */ };

int command_check(int count, char **arguments, Err *err);
int command_emit(int count, char **arguments, Err *err);
int command_opt(int count, char **arguments, Err *err);
int command_run_ir(int count, char **arguments, Err *err);
int command_search(int count, char **arguments, Err *err);
int command_eval(int count, char **arguments, Err *err);
int command_profile(int count, char **arguments, Err *err);
int command_doctor(int count, char **arguments, Err *err);

/* ---- options that several subcommands have ---- */

typedef struct SharedOptions {
  VECTOR(const char *) settings; /* --set KEY=VALUE */
  const char *cpu;               /* --cpu; null: this machine's */
  const char *device;            /* --device: "cpu", "cuda" or "cuda-emulator" */
  Products precision;            /* --precision */
  int32_t threads;               /* --threads; 0 until options_finish */
  bool no_cache;                 /* --no-cache */
  FuseOptions fuse;              /* --no-fuse, --fuse-generate */
} SharedOptions;

/* Argp children; the input of each is a SharedOptions. */
extern const struct argp options_settings; /* --set */
extern const struct argp options_machine;  /* --device, --precision, --cpu, --threads, --no-cache */
extern const struct argp options_fusion;   /* --no-fuse, --fuse-generate */

/* The number that `text` is, between `low` and `high`; anything else is an error of usage. `name`: "--threads". */
int32_t options_number(const struct argp_state *state, const char *name, const char *text, int32_t low, int32_t high);

/* Fills in the number of threads: one a CPU that this process may use. */
void options_finish(SharedOptions *options);
void options_free(SharedOptions *options);

/* The bit STEP_... of a step's name; 0: no such step. */
unsigned options_step(const char *name);

/* ---- graph passes ---- */

typedef VECTOR(int) PassList;

/* --time-passes and --dump=PASS, for the commands that run passes. */
typedef struct WatchOptions {
  bool time;
  PassList dumps; /* passes; the graphs before and after each go to standard error */
} WatchOptions;
extern const struct argp options_watch; /* its input is a WatchOptions */
PassWatch driver_watch;                 /* its context is a WatchOptions */

/* The passes that `list`, "autodiff,simplify", names; anything else is an error of usage of `option`. */
void options_passes(const struct argp_state *state, const char *option, const char *list, PassList *passes);

/* The module in the file at `path`, or on standard input where that is "-". Null: `err`. */
Module *driver_load_module(const char *path, Arena *arena, Err *err);

/* ---- models, programs, output ---- */

/* Loads and checks; prints the diagnostics of a wrong model and returns null. */
const Model *driver_load_model(const char *path, const SharedOptions *options, Arena *arena);

/* The model that a run folder holds. Null: `err`, or printed diagnostics. */
const Model *driver_load_run(const char *folder, Arena *arena, Err *err);

/* Compiles; says on standard error what it compiled where `verbose`. */
Compiled *driver_compile(const Model *model, const SharedOptions *options, unsigned steps, const KeptOperations *kept,
                         bool verbose, Err *err);

/* What the options say about the target, for pipeline_compile; in `arena`. With --device=cuda the machine's GPU is asked for its
 * architecture. False: `err`, such as that there is no GPU. */
bool driver_target(const SharedOptions *options, PipelineOptions *pipeline, Arena *arena, Err *err);
/* The emulator's library where --device=cuda-emulator wants it, else null; false: it is not there. In `arena`. */
bool driver_emulator(const SharedOptions *options, const char **path, Arena *arena, Err *err);

/* Says on standard error why the kernel cache was not used, where it should have been. */
void driver_warn_of_cache(const Compiled *compiled);

/* Says on standard error that `data`, the argument of --data (null: none), is for nothing where the model's data are synthetic.
 */
void driver_warn_of_data(const Model *model, const char *data);

/* Writes the file at `path` (null: standard output); a regular file is replaced as a whole. */
bool driver_write(const char *path, const Text *text, Err *err);

double driver_seconds(void); /* of the monotonic clock */

/* ---- Ctrl-C, SIGTERM, SIGHUP ---- */

/* From here on the first SIGINT or SIGTERM only sets what stop_flag points to; the second one kills. SIGHUP does the same, but
 * for a process that was told to ignore it, and never kills. */
void stop_install(void);
const volatile sig_atomic_t *stop_flag(void); /* the signal's number; 0: none came */

#endif
