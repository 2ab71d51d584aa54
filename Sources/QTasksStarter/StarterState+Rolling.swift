// Part of QTasks. License: see LICENSE.
//
// The rolling restart: a new worker is at work before the one that it replaces stops taking tasks.

import QTasksProcess

/// A rolling restart that is under way.
///
/// ```
///   next ---> joining: the new one was started ---it has joined---> leaving: the old one drains --.
///    ^                                                                                            |
///    '-------------------------------- the old one ended -----------------------------------------'
/// ```
struct Roll: Equatable {
    enum Step: Equatable {
        case joining(new: StarterState.Child, old: StarterState.Child, deadline: UInt64)
        case leaving(StarterState.Child)
    }

    /// How long a new worker may take to join, in nanoseconds.
    static let patience: UInt64 = 30_000_000_000

    /// Those of the old ones whose turn hasn't come.
    var left: [StarterState.Child]
    var step: Step?

    var deadline: UInt64? {
        if case .joining(_, _, let deadline) = step { deadline } else { nil }
    }
}

extension StarterState {
    package var isRolling: Bool { roll != nil }

    /// SIGHUP, or `restart --rolling`.
    ///
    /// Asked for once more while it is under way, it is the same one.
    package mutating func rollRequested(now: UInt64) {
        guard phase == .serving else {
            deeds.append(.tellRolled(failure: "the system is being stopped"))
            return
        }
        guard roll == nil else { return }
        let workers = (Array(alive.keys) + Array(restarts.keys)).filter { $0 != .broker }
        roll = Roll(left: workers.sorted { $0.number < $1.number })
        deeds.append(.log("replacing \(workers.count) workers, one by one", isWarning: false))
        rollOn(now)
    }

    /// A worker has said HELLO to the Broker.
    package mutating func joined(_ child: Child, now: UInt64) {
        guard case .joining(child, let old, _) = roll?.step else { return }
        guard alive[old] != nil else {
            // it ended meanwhile, and would have been started again
            dropRestart(of: old)
            return rollOn(now)
        }
        roll?.step = .leaving(old)
        deeds.append(.retire(old))
    }

    /// - Returns: Whether the end was part of the rolling restart: then nobody is to come back for it.
    mutating func endedInRoll(_ child: Child, _ report: ExitReport, _ now: UInt64) -> Bool {
        switch roll?.step {
        case .joining(child, let old, _):
            endRoll(failure: "a new worker ended before it had joined: \(report)")
            // its place is the old one's still
            if alive[old] == nil, restarts[old] == nil { start(old, now) }
            return true
        case .joining(_, child, _): return true
        case .leaving(child):
            dropRestart(of: child)
            rollOn(now)
            return true
        case .joining, .leaving, nil: return abandoned.remove(child) != nil
        }
    }

    mutating func rollTimer(now: UInt64) {
        guard case .joining(let new, let old, let deadline) = roll?.step, deadline <= now else {
            return
        }
        abandoned.insert(new)
        deeds.append(.kill(new))
        endRoll(failure: "a new worker hasn't joined within \(Roll.patience / 1_000_000_000) s")
        if alive[old] == nil, restarts[old] == nil { start(old, now) }
    }

    mutating func endRoll(failure: String) {
        roll = nil
        let text =
            failure.isEmpty
            ? "the workers have been replaced" : "the workers were not all replaced: \(failure)"
        deeds.append(.log(text, isWarning: !failure.isEmpty))
        deeds.append(.tellRolled(failure: failure))
    }

    private mutating func rollOn(_ now: UInt64) {
        guard let old = roll?.left.first else { return endRoll(failure: "") }
        roll?.left.removeFirst()
        let new = Child.worker(nextWorker)
        nextWorker += 1
        roll?.step = .joining(new: new, old: old, deadline: now + Roll.patience)
        start(new, now)
    }
}

extension StarterState.Child {
    fileprivate var number: Int {
        if case .worker(let number) = self { number } else { -1 }
    }
}
