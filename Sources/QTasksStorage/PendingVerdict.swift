// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire

/// An answer that is decided and not yet told: what it says must first be written, or durable.
enum PendingVerdict {
    case added(number: UInt64, place: QueuedPlace, leased: Bool, due: UInt64, addedAt: Timestamp)
    case exists(number: UInt64, TaskIndex.Number)
    case leased(number: UInt64, TaskIndex.Number, Lease)
    case released(number: UInt64, Holding, status: TaskStatus?, isSuspect: Bool)
    case finished(TaskIndex.Number, Lease, WorkerID)
    case record(number: UInt64, TaskIndex.Number, isWhole: Bool)
    case final(TaskIndex.Number)
    case changed(number: UInt64, ChangeVerdict)
    case queue(number: UInt64, String, QueueRules)
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
