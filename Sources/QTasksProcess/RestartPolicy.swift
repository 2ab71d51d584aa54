// Part of QTasks. License: see LICENSE.

/// When a dead child is started again: at once, then after 100 ms doubling to 5 s; a child that
/// lived for 10 s begins anew.
///
/// One value for each child's place.
///
/// Times are nanoseconds of any clock that never steps.
package struct RestartPolicy: Sendable, Equatable {
    package enum Decision: Sendable, Equatable {
        /// Start it again at that time, which may be now.
        case restart(at: UInt64)
        /// Never: it said that it would fail the same way again.
        case giveUp(reason: String)
    }

    package static let delayMin: UInt64 = 100_000_000
    package static let delayMax: UInt64 = 5_000_000_000
    package static let lifeThatForgets: UInt64 = 10_000_000_000

    /// What the next short life costs.
    private var delay: UInt64 = 0

    package init() {}

    /// Decides what follows the end of the child.
    ///
    /// - Parameters:
    ///   - now: When its end was noticed.
    ///   - startedAt: When it was spawned, by the same clock.
    ///   - report: How it ended.
    /// - Returns: When to start it again, if at all.
    package mutating func childEnded(
        at now: UInt64,
        startedAt: UInt64,
        report: ExitReport
    ) -> Decision {
        guard report.cause != .exited(code: ExitReport.codeOfPermanentFailure) else {
            return .giveUp(reason: "\(report.cause): it would fail the same way again")
        }
        precondition(now >= startedAt, "a child doesn't end before it starts")
        if now - startedAt >= Self.lifeThatForgets { delay = 0 }
        let restart = now + delay
        delay = delay == 0 ? Self.delayMin : min(delay * 2, Self.delayMax)
        return .restart(at: restart)
    }
}
