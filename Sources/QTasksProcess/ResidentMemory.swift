// Part of QTasks. License: see LICENSE.

import Glibc

/// How much of a process is in memory.
package enum ResidentMemory {
    /// In bytes: field 2 of `/proc/PID/statm`, see `proc_pid_statm(5)`.
    ///
    /// - Returns: `nil` where there is no such process, or where /proc doesn't show it.
    package static func bytes(of pid: Int32) -> UInt64? {
        guard pid > 0, let text = SmallFile.text(at: "/proc/\(pid)/statm") else { return nil }
        let fields = text.split(separator: " ")
        guard fields.count > 1, let pages = UInt64(fields[1]) else { return nil }
        return pages * UInt64(sysconf(Int32(_SC_PAGESIZE)))
    }
}
