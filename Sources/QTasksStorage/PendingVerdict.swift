// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire

/// An answer that is decided and not yet told: what it says must first be written, or durable.
enum PendingVerdict {
    case added(number: UInt64, place: QueuedPlace, leased: Bool, due: DueTime, addedAt: Timestamp)
    case exists(number: UInt64, TaskIndex.Number)
    case same(number: UInt64, id: TaskID, sequence: UInt64, isSynced: Bool)
    case leased(number: UInt64, TaskIndex.Number, Lease)
    case notLeased(number: UInt64, TaskStatus)
    case released(number: UInt64, Holding, status: TaskStatus?, isSuspect: Bool)
    /// `due`: when its next attempt is, where the result asked for one; else 0. Told also where the task was
    /// cancelled before it is told: that has a word of its own, which takes it back.
    case finished(TaskIndex.Number, Lease, WorkerID, due: DueTime)
    case record(number: UInt64, TaskIndex.Number, isWhole: Bool)
    /// It ended in this epoch.
    case final(TaskIndex.Number, epoch: UInt16)
    case changed(number: UInt64, ChangeVerdict)
    case queue(number: UInt64, String, QueueRules)
    case evidence(number: UInt64)
    /// Decided once the task's end is durable.
    case forget(number: UInt64, TaskID)
}

/// Answers that wait for one watermark, in the order in which they were decided.
struct PendingVerdicts {
    private var waiting = Fifo<(sequence: UInt64, verdict: PendingVerdict)>()

    /// Keeps an answer until the watermark reaches `sequence`, which is never less than the last one's.
    mutating func append(_ verdict: PendingVerdict, from sequence: UInt64) {
        waiting.append((sequence, verdict))
    }

    /// The next one whose watermark is reached.
    mutating func next(upTo mark: UInt64) -> PendingVerdict? {
        guard let first = waiting.first, first.sequence <= mark else { return nil }
        waiting.removeFirst()
        return first.verdict
    }

    mutating func removeAll() {
        waiting.removeAll()
    }
}
