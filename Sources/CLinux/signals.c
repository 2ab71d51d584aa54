// Part of QTasks. License: see LICENSE.

#define _GNU_SOURCE
#include "clinux.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

// Where each signal's byte goes. Written before its handler is installed.
static volatile sig_atomic_t targets[NSIG];

static void tell(int number) {
    int error = errno;  // the interrupted code may be about to read it
    unsigned char byte = (unsigned char)number;
    if (write(targets[number], &byte, 1) < 0) { /* full: whoever reads it has enough to do */ }
    errno = error;
}

int clinux_catch_signal(int signal, int fd) {
    if (signal <= 0 || signal >= NSIG) {
        errno = EINVAL;
        return -1;
    }
    targets[signal] = fd;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = tell;
    action.sa_flags = SA_RESTART;
    sigfillset(&action.sa_mask);
    return sigaction(signal, &action, NULL);
}

int clinux_release_signal(int number) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    return sigaction(number, &action, NULL);
}

int clinux_pipe(int ends[2]) { return pipe2(ends, O_NONBLOCK | O_CLOEXEC); }
