/* adwp: the command. Finds the subcommand, and is the only place that prints an error of the world and turns it into a status. */
#include "compiler/driver/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct Command {
  const char *name;
  int (*run)(int count, char **arguments, Err *err);
  const char *purpose;
} Command;

static int command_version(int count, char **arguments, Err *err);
static int command_help(int count, char **arguments, Err *err);

static const Command commands[] = {
    {"check", command_check, "check a model, and show it with all defaults"},
    {"search", command_search, "search an architecture, or continue a search"},
    {"eval", command_eval, "measure architectures with predicted weights, without training"},
    {"emit", command_emit, "print what the compiler makes of a model, stage by stage"},
    {"opt", command_opt, "run passes over the graphs of a text"},
    {"run-ir", command_run_ir, "run a graph of a text with the reference interpreter"},
    {"profile", command_profile, "time a step and its kernels"},
    {"doctor", command_doctor, "tell what this machine can do and what is missing"},
    {"version", command_version, "print the version"},
    {"help", command_help, "print this, or a command's options"},
};
enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static const Command *find_command(const char *name) {
  for (int i = 0; i < COMMAND_COUNT; i++)
    if (!strcmp(commands[i].name, name)) return &commands[i];
  return NULL;
}

static void print_help(FILE *stream) {
  fputs("Usage: adwp COMMAND [ARGUMENT...]\n"
        "Neural architecture search by weight prediction: compiles an .adwp model to machine code and runs the search.\n\n",
        stream);
  for (int i = 0; i < COMMAND_COUNT; i++) fprintf(stream, "  %-8s  %s\n", commands[i].name, commands[i].purpose);
  fputs(
      "\n`adwp COMMAND --help` lists a command's options. Exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.\n",
      stream);
}

static int command_version(int count, char **arguments, Err *err) {
  (void)count, (void)arguments, (void)err;
  puts("adwp " ADWP_VERSION);
  return STATUS_GOOD;
}

/* Argp takes the name in its messages from arguments[0]. */
static int run_command(const Command *command, int count, char **arguments, Err *err) {
  char name[32];
  snprintf(name, sizeof name, "adwp %s", command->name);
  arguments[0] = name;
  return command->run(count, arguments, err);
}

static int unknown_command(const char *name) {
  fprintf(stderr, "adwp: there is no command `%s`; `adwp help` lists them\n", name);
  return STATUS_USAGE;
}

static int command_help(int count, char **arguments, Err *err) {
  const Command *command = count > 1 ? find_command(arguments[1]) : NULL;
  if (count > 1 && !command) return unknown_command(arguments[1]);
  if (!command || command->run == command_help || command->run == command_version) {
    print_help(stdout);
    return STATUS_GOOD;
  }
  char option[] = "--help", *list[] = {arguments[1], option, NULL};
  return run_command(command, 2, list, err);
}

/* A message that did not reach the disk or the pipe is a failure too. */
static int close_output(int status) {
  if (fflush(stdout) == 0 && !ferror(stdout)) return status;
  if (status != STATUS_GOOD) return status;
  fprintf(stderr, "adwp: cannot write to standard output: %s\n", strerror(errno));
  return STATUS_FAILED;
}

/* A message may quote a file that comes from anywhere, and it must not steer the terminal. */
static void print_error(const Err *err) {
  Text text = {0};
  text_add_printable(&text, err->text);
  fprintf(stderr, "adwp: %s\n", text.data ? text.data : "");
  text_free(&text);
}

/* Where standard input, output or error is closed, a file that is opened later would take its number and its text. Reading alone,
 * so that what is written there fails as before, and is an error at the end. */
static void fill_closed(void) {
  int file;
  do file = open("/dev/null", O_RDONLY);
  while (file >= 0 && file <= STDERR_FILENO);
  if (file >= 0) close(file);
}

/* A reader that left, or a file that may not grow, is then an error of the write like a full disk. */
static void ignore_signals(void) {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

int main(int count, char **arguments) {
  fill_closed();
  ignore_signals();
  argp_err_exit_status = STATUS_USAGE;
  const char *name = count > 1 ? arguments[1] : NULL;
  if (!name) {
    print_help(stderr);
    return STATUS_USAGE;
  }
  if (!strcmp(name, "--help") || !strcmp(name, "-h")) name = "help";
  if (!strcmp(name, "--version") || !strcmp(name, "-V")) name = "version";
  const Command *command = find_command(name);
  if (!command) return unknown_command(name);
  Err err = {{0}};
  int status = run_command(command, count - 1, arguments + 1, &err);
  if (status != STATUS_GOOD && err.text[0]) print_error(&err);
  return close_output(status);
}
