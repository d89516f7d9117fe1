/* Ctrl-C, and a terminal that goes away. A signal handler can only reach a variable of the whole process, so the one such
 * variable of adwp is here. */
#include "compiler/driver/driver.h"

#include <string.h>

static volatile sig_atomic_t stop_signal;

static void stop_handle(int number) {
  stop_signal = number;
  signal(SIGHUP, SIG_IGN); /* a terminal that goes sends several, and perhaps SIGTERM too: that is still the first request */
  if (number == SIGHUP) return;
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
}

void stop_install(void) {
  struct sigaction action, hangup;
  memset(&action, 0, sizeof action);
  action.sa_handler = stop_handle;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) /* nohup stays in force */
    sigaction(SIGHUP, &action, NULL);
}

const volatile sig_atomic_t *stop_flag(void) {
  return &stop_signal;
}
