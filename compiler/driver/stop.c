/* Ctrl-C. A signal handler can only reach a variable of the whole process, so the one such variable of adwp is here. */
#include "compiler/driver/driver.h"

#include <string.h>

static volatile sig_atomic_t stop_signal;

static void stop_handle(int number) {
  stop_signal = number;
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
}

void stop_install(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = stop_handle;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

const volatile sig_atomic_t *stop_flag(void) {
  return &stop_signal;
}
