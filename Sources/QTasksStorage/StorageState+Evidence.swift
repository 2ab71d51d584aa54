// Part of QTasks. License: see LICENSE.
//
// EVIDENCE: what the Starter saw of a worker's end is recorded with each task that ended with it (P4). No
// requeue waits for it.

import QTasksModel
import QTasksWire

extension StorageState {
    /// Evidence that waits for room in the log; what comes beyond that is dropped, for good.
    static let evidenceDeferredMax = 256

    /// Records how a process ended with every lease whose death by it is in the log.
    ///
    /// Without such a lease there is nothing to explain: its tasks had ended, it was no worker, or all this
    /// is recorded already.
    mutating func decide(_ evidence: Evidence, now: Now, log: some TaskLog) {
        guard failure == nil else { return }
        for death in tasks.unexplained.ended(with: evidence.exit) {
            guard known(death.holding.id) != nil else {
                tasks.unexplained.remove(death.holding)
                continue
            }
            let stored = StoredEvidence(
                at: tasks.stamp(now),
                holding: death.holding,
                worker: death.worker,
                exit: evidence.exit
            )
            head.removeAll()
            stored.writeHead(to: &head)
            switch append(.evidence, log: log) {
            case .appended(let place):
                counters.evidence += 1
                tasks.apply(stored, at: place)
                trace("evidence", death.holding.id, "broker")
            case .noSpace: return deferEvidence(evidence, log: log)
            case .tooLong: preconditionFailure("evidence is shorter than any limit")
            case .failed: return
            }
        }
        tellOnceWritten(.evidence(number: evidence.number), last, log: log)
    }

    /// Keeps it until there is room: no task waits for it, so there is an end to how much is kept.
    private mutating func deferEvidence(_ evidence: Evidence, log: some TaskLog) {
        let waiting = deferred.count { if case .evidence = $0 { true } else { false } }
        guard waiting >= Self.evidenceDeferredMax else {
            return deferred.append(.evidence(evidence))
        }
        notice(
            "evidence dropped",
            "the disk under '\(settings.directory)' is full: how worker \(evidence.exit.pid) ended is not "
                + "recorded",
            isWarning: true
        )
        for death in tasks.unexplained.ended(with: evidence.exit) {
            tasks.unexplained.remove(death.holding)
        }
        tellOnceWritten(.evidence(number: evidence.number), last, log: log)
    }
}
