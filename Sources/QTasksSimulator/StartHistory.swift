// Part of QTasks. License: see LICENSE.

import QTasksModel

/// When tasks started while one rate held, and whether another start kept to it.
///
/// Counts starts in every stretch of time, as `StartRate` promises it, and not as the Broker does: in any
/// stretch t at most `burst + t * count / period`.
struct StartHistory {
    private struct Start {
        var time: UInt64
        /// The rate held already.
        var isCertain: Bool
    }

    private var starts: [Start] = []

    mutating func start(at time: UInt64, isCertain: Bool) {
        starts.append(Start(time: time, isCertain: isCertain))
    }

    /// Whether one more may start.
    func keeps(_ rate: StartRate, at time: UInt64) -> Bool {
        Self.keeps(rate, starts.filter(\.isCertain), at: time)
    }

    /// Whether the Broker may take it that none may start yet.
    ///
    /// - Parameters:
    ///   - rate: How many may.
    ///   - time: When that would be.
    ///   - debt: From when on starts would be spaced evenly, whatever came before this rate; 0: at once.
    /// - Returns: Whether the next would come too early, as far as it may think.
    func mayBeClosed(_ rate: StartRate, at time: UInt64, after debt: UInt64) -> Bool {
        if !Self.keeps(rate, starts, at: time) { return true }
        let spaced = debt + UInt64(starts.count) * rate.spacing
        return debt > 0 && spaced > time + UInt64(rate.burst - 1) * rate.spacing
    }

    private static func keeps(_ rate: StartRate, _ starts: [Start], at time: UInt64) -> Bool {
        var count = 1
        for start in starts.reversed() {
            count += 1
            let beyond = UInt64(max(0, count - Int(rate.burst)))
            let stretch = time - min(time, start.time)
            if beyond * rate.periodNanoseconds > stretch * UInt64(rate.count) { return false }
        }
        return true
    }
}

extension StartRate {
    fileprivate var periodNanoseconds: UInt64 { UInt64(periodMilliseconds) * .millisecond }

    /// The time from one start to the next, in nanoseconds, rounded up.
    fileprivate var spacing: UInt64 { (periodNanoseconds + UInt64(count) - 1) / UInt64(count) }

    /// What a whole burst is spaced over.
    var burstTime: UInt64 { spacing * UInt64(burst) }
}
