// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc

/// Children that this process never started: what a dead descendant left behind, which becomes the
/// child of PID 1 or of the nearest subreaper.
///
/// Unreaped they stay as zombies for ever.
package enum Strangers {
    /// What the first of all ended children turned out to be.
    package enum Reaping: Sendable, Equatable {
        /// No child has ended that isn't waited for.
        case none
        /// It was a stranger, and is waited for now.
        case stranger(ExitReport)
        /// It is one of the known, and still to be reaped by who knows it. It hides strangers that
        /// ended later: reap it, then ask again.
        case known(pid: Int32)
    }

    /// Makes orphans below this process its children.
    ///
    /// See `PR_SET_CHILD_SUBREAPER` in `prctl(2)`.
    package static func adopt() throws(ProcessError) {
        guard clinux_set_child_subreaper() == 0 else {
            throw .last("prctl", "PR_SET_CHILD_SUBREAPER")
        }
    }

    /// Reaps one stranger that has ended, if there is one.
    ///
    /// Never blocks, never takes a known child.
    ///
    /// Call at each SIGCHLD until it says `none`. The thread that spawns and reaps children.
    ///
    /// - Parameter known: The pids of children that are not reaped yet.
    /// - Returns: What it found, ``Reaping``.
    package static func reapNext(known: Set<Int32>) -> Reaping {
        let pid = clinux_peek_child(0)
        guard pid > 0 else { return .none }  // -1 with ECHILD: no children at all
        guard !known.contains(pid) else { return .known(pid: pid) }
        guard let report = ExitReport.collect(pid: pid) else { return .none }
        return .stranger(report)
    }
}
