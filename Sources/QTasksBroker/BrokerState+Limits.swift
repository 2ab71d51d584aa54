// Part of QTasks. License: see LICENSE.
//
// Time limits that bite: what a worker doesn't end by itself is ended with the worker. What else ran there
// is handed on, and nothing is counted against it.

import QTasksModel
import QTasksWire
import ZeroMQ

extension BrokerState {
    /// A worker tells of attempts that are limited.
    mutating func running(_ attempts: [RunningAttempt], from session: Session) {
        guard let worker = roster.number(of: session) else { return }
        let id = roster[worker].id
        for attempt in attempts {
            // a worker speaks of its own leases only
            if let known = limits[attempt.lease], known.worker != id { continue }
            if let entry = leases[attempt.lease], entry.worker != id { continue }
            if attempt.hasReturned {
                limits.remove(attempt.lease)
                roster[worker].lingering.remove(attempt.lease)
            } else if limits[attempt.lease]?.isOver != true {
                let (at, overflow) = attempt.deadline.addingReportingOverflow(
                    settings.killAfterNanoseconds
                )
                guard !overflow else { continue }
                limits.set(
                    attempt.lease,
                    HardLimits.Limit(worker: id, attempt: attempt, at: at)
                )
                if leases[attempt.lease] == nil { roster[worker].lingering.insert(attempt.lease) }
            }
        }
        if roster[worker].isEmpty { roster[worker].isExclusive = false }
        dispatchWaiting()
    }

    /// The worker was ended over this attempt, and hadn't told its end.
    mutating func endOverdue(_ lease: Lease, _ overdue: OverdueAttempt) {
        leases[lease]?.release = ReleaseState(
            cause: .neighbour,
            isShared: false,
            counts: false,
            overdue: overdue
        )
        proposeRelease(of: lease)
    }

    /// A cancelled task's handler is to return soon, or its worker is ended.
    mutating func limit(revoked lease: Lease, of worker: Roster.Number) {
        guard roster[worker].reportsRunning else { return }
        let at = now.monotonic + settings.killAfterNanoseconds
        let known = limits[lease]
        roster[worker].lingering.insert(lease)
        guard known?.isOver != true else { return }
        limits.set(
            lease,
            HardLimits.Limit(
                worker: roster[worker].id,
                attempt: known?.attempt,
                at: min(at, known?.at ?? .max)
            )
        )
    }

    /// Takes the next step with each attempt whose moment has come.
    mutating func endOverdue() {
        for lease in limits.takeDue(now: now.monotonic) {
            guard var limit = limits[lease], let worker = roster.number(of: limit.worker) else {
                continue
            }
            guard !roster[worker].isRemote else {
                passOver(lease, of: worker)
                continue
            }
            // its end is our doing from here on
            roster[worker].wasEndedForLimit = true
            roster[worker].isLeaving = true
            guard !limit.isOver else {
                outbox.deeds.append(.kill(limit.worker))
                continue
            }
            // so that its successor comes without a pause
            tellStarter(.killed, of: worker)
            limit.isOver = true
            limit.at = now.monotonic + settings.killAfterNanoseconds
            limits.set(lease, limit)
            outbox.deeds.append(.terminate(limit.worker))
            notice(
                "worker ended",
                leases[lease] == nil
                    ? "a handler goes on although its task is over"
                    : "an attempt goes on although its time is over",
                [
                    ("worker", "\(limit.worker)"), ("lease", "\(lease)"),
                    ("task", leases[lease]?.id.map { "\($0)" } ?? "-"),
                ],
                isWarning: true
            )
        }
    }
}
