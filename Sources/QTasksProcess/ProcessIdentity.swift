// Part of QTasks. License: see LICENSE.

import Glibc

/// One process of this boot: a pid alone may be given to another process once it is free.
package struct ProcessIdentity: Hashable, Sendable {
    package let pid: Int32

    /// Clock ticks from boot to its start: field 22 of `/proc/PID/stat`, see `proc_pid_stat(5)`.
    package let startTime: UInt64

    package init(pid: Int32, startTime: UInt64) {
        self.pid = pid
        self.startTime = startTime
    }

    /// This process.
    ///
    /// Ends it where /proc isn't mounted: nothing here could work without.
    package static var current: ProcessIdentity {
        guard let identity = of(pid: getpid()) else {
            preconditionFailure("/proc/self/stat can't be read: QTasks needs /proc mounted")
        }
        return identity
    }

    /// The process that has `pid` now, one that ended but isn't waited for included.
    ///
    /// - Returns: `nil` where there is none, or where /proc doesn't show it.
    package static func of(pid: Int32) -> ProcessIdentity? {
        guard pid > 0, let stat = SmallFile.text(at: "/proc/\(pid)/stat") else { return nil }
        return startTime(inStat: stat).map { ProcessIdentity(pid: pid, startTime: $0) }
    }

    /// Whether it still runs; one that ended but isn't waited for doesn't.
    package var isAlive: Bool {
        do {
            guard let descriptor = try PidDescriptor.open(self) else { return false }
            return !descriptor.hasEnded
        } catch {
            // No descriptor to be had: /proc alone must do, which shows unreaped processes too.
            return ProcessIdentity.of(pid: pid) == self
        }
    }

    /// Field 2 is the program's name in parentheses, spaces and parentheses of its own included:
    /// only what follows the last `)` can be split.
    ///
    /// Field 3 is the first there.
    static func startTime(inStat stat: String) -> UInt64? {
        guard let nameEnd = stat.lastIndex(of: ")") else { return nil }
        let fields = stat[nameEnd...].dropFirst().split(separator: " ")
        return fields.count > 19 ? UInt64(fields[19]) : nil
    }
}

extension ProcessIdentity: CustomStringConvertible {
    package var description: String { "process \(pid)" }
}
