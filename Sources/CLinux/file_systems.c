// Part of QTasks. License: see LICENSE.

#define _GNU_SOURCE
#include "clinux.h"

#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <sys/vfs.h>

long clinux_file_system_type(const char *path) {
    struct statfs about;
    if (statfs(path, &about) != 0) return -1;
    return (long)about.f_type;
}

int clinux_write_out(int fd, int64_t offset, int64_t count) {
    return sync_file_range(fd, offset, count,
                           SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                               SYNC_FILE_RANGE_WAIT_AFTER);
}

int clinux_wait_readable(int fd, int64_t nanoseconds) {
    struct pollfd item = {.fd = fd, .events = POLLIN};
    struct timespec time = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    return ppoll(&item, 1, &time, NULL);
}
