// Part of QTasks. License: see LICENSE.

import Glibc

/// What a worker and the programs that its tasks started have in common.
///
/// See `setpgid(2)`.
///
/// What calls `setsid(2)` leaves the group, and outlives it.
package enum ProcessGroup {
    /// Whether `pid` leads a group of its own.
    ///
    /// Asked while it lives: the answer for a process that has been waited for is `false`, whatever
    /// it left behind.
    package static func isLeader(_ pid: Int32) -> Bool {
        pid > 0 && getpgid(pid) == pid
    }

    /// Sends `signal` to all of the group that `leader` leads or led.
    ///
    /// A group's number stays taken while it has a member. Once the leader has been waited for and
    /// nobody is left, it may go to another process, so call this as soon as the leader's end is
    /// known. Never signals the caller's own group.
    ///
    /// - Returns: `false` where nobody was left in it.
    @discardableResult
    package static func kill(_ leader: Int32, _ signal: Int32 = SIGKILL) -> Bool {
        // kill(2): -1 would mean every process, and 0 the caller's own group.
        guard leader > 1, leader != getpgrp() else { return false }
        return Glibc.kill(-leader, signal) == 0
    }
}
