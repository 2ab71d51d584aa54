// Part of QTasks. License: see LICENSE.

#define _GNU_SOURCE
#include "clinux.h"

#include <sys/wait.h>
#include <unistd.h>

char **clinux_environment(void) { return environ; }

pid_t clinux_peek_child(pid_t pid) {
    siginfo_t info;
    info.si_pid = 0;  // waitid(2): left as it is where no child has ended
    if (waitid(pid ? P_PID : P_ALL, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0) return -1;
    return info.si_pid;
}
