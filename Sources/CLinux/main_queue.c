// Part of QTasks. License: see LICENSE.
//
// Serving the main queue without dispatch_main(3): that one hands it to a pool whose manager wakes up
// once a second for as long as the process lives, and an idle worker must not.

#include "clinux.h"

#include <unistd.h>

// What libdispatch offers to run loops; weak, so that a libdispatch without them still links.
extern int _dispatch_get_main_queue_port_4CF(void) __attribute__((weak));
extern void _dispatch_main_queue_callback_4CF(void *message) __attribute__((weak));

int clinux_main_queue_descriptor(void) {
    if (!_dispatch_get_main_queue_port_4CF || !_dispatch_main_queue_callback_4CF) return -1;
    return _dispatch_get_main_queue_port_4CF();
}

void clinux_drain_main_queue(void) {
    uint64_t count;
    if (read(clinux_main_queue_descriptor(), &count, sizeof count) < 0) { /* drained already */ }
    _dispatch_main_queue_callback_4CF(NULL);
}
