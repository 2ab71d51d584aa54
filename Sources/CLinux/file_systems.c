// Part of QTasks. License: see LICENSE.

#include "clinux.h"

#include <sys/vfs.h>

long clinux_file_system_type(const char *path) {
    struct statfs about;
    if (statfs(path, &about) != 0) return -1;
    return (long)about.f_type;
}
