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

    /// What can be limited for a process.
    package enum Resource {
        case addressSpace
        case cpuSeconds
        case openFiles

        var number: __rlimit_resource_t {
            switch self {
            case .addressSpace: __rlimit_resource_t(RLIMIT_AS.rawValue)
            case .cpuSeconds: __rlimit_resource_t(RLIMIT_CPU.rawValue)
            case .openFiles: __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
            }
        }
    }

    /// Sets a limit for this process and what it becomes or starts; the hard limit stays above.
    ///
    /// - Parameters:
    ///   - resource: What is limited.
    ///   - value: What is over the hard limit becomes the hard limit.
    ///   - slack: How far the new hard limit lies above; `nil`: it stays as it is.
    package static func set(
        _ resource: Resource,
        to value: UInt64,
        slack: UInt64? = nil
    ) {
        let resource = resource.number
        var limit = rlimit()
        getrlimit(resource, &limit)
        limit.rlim_cur = min(limit.rlim_max, rlim_t(value))
        if let slack { limit.rlim_max = min(limit.rlim_max, rlim_t(value + slack)) }
        // Can't fail: neither goes above the hard limit.
        setrlimit(resource, &limit)
    }

    /// Lets others go first, this thread and those it starts: see `setpriority(2)`.
    ///
    /// What is nicer already stays so.
    package static func beNice(_ niceness: Int32) {
        let which = __priority_which_t(PRIO_PROCESS.rawValue)
        if getpriority(which, 0) < niceness { setpriority(which, 0, niceness) }
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
