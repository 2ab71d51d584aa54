// Part of QTasks. License: see LICENSE.

import Glibc

/// What the kernel lets this process, and what it starts, have.
///
/// See `getrlimit(2)`.
package enum Limits {
    /// Raises the soft limit of open descriptors to the hard one: libzmq aborts the process where
    /// an ipc listener can't accept for lack of one (`ipc_listener.cpp`).
    ///
    /// - Returns: The limit that now holds.
    @discardableResult
    package static func raiseOpenFiles() -> UInt64 {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = limit.rlim_max
        // Can't fail: anyone may move the soft limit up to the hard one.
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        return UInt64(limit.rlim_cur)
    }

    /// No core dumps, also of what this process starts: the kernel tells of a death only after the
    /// dump, which takes seconds for a large heap.
    package static func disableCoreDumps() {
        // The hard limit stays, so that a task may ask for a dump of its own.
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &limit)
        limit.rlim_cur = 0
        setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &limit)
    }
}
