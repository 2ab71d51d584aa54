// Part of QTasks. License: see LICENSE.

/// How many tasks to have at hand beyond the slots, so that a slot which falls free finds the next
/// one without asking.
///
/// About 2 ms of work: enough to cover the way to the Broker and back, and little enough that a
/// task of higher priority waits no longer than that. Long tasks get none.
struct WorkAhead: Sendable {
    static let tasksMax = 1024
    static let nanoseconds: UInt64 = 2_000_000

    // A moving average over about 16 tasks, from start to end as the worker's loop sees it. With it
    // the slots' throughput is slots / average (Little's law), whatever the handlers wait for.
    // It begins long, so that one quick task alone proves nothing.
    private var average: UInt64 = 100_000_000

    /// Takes in how long a task took, in nanoseconds.
    mutating func add(_ duration: UInt64) {
        average = average - average / 16 + duration / 16
    }

    /// Takes in that no task ended for so long, in nanoseconds.
    mutating func stalled(for duration: UInt64) {
        average = max(average, duration)
    }

    func tasks(slots: Int) -> Int {
        let work = Self.nanoseconds * UInt64(slots) / max(average, 1)
        return Int(min(work, UInt64(Self.tasksMax)))
    }
}
