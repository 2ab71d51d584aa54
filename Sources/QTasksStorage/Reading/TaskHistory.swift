// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksModel
package import QTasksWire

/// A task's whole life, as far as the log has it.
package struct TaskHistory {
    /// One thing that happened to it.
    package struct Event {
        package var sequence: UInt64
        package var position: RecordPosition
        package var at: Timestamp
        package var what: What
    }

    package enum What {
        case added(TaskSubmission, due: Timestamp?)
        case leased(Lease, WorkerID)
        /// An attempt ended by its worker's word, in `status`; `due` where it is tried again.
        case ended(ResultEntry, TaskStatus, WorkerID, due: Timestamp?)
        case released(Lease, ReleaseCause, TaskStatus, isSuspect: Bool, isCounted: Bool)
        /// How the worker's process ended with which a lease did.
        case died(StoredEvidence)
        /// A result came under a lease that no longer held.
        case refused(Lease, WorkerID, began: Timestamp, ended: Timestamp)
        /// It was ended without its worker's word; under a lease where it ran.
        case cancelled(reason: String, Lease?)
        /// A final task was queued again: a new epoch begins.
        case requeued(epoch: UInt16)
        /// The time that it is kept for was over.
        case forgotten
    }

    /// What happened and is in the log no more.
    package struct Compacted: Equatable {
        package var attempts: UInt32
        package var failures: UInt32
        package var deaths: UInt32

        package init(attempts: UInt32, failures: UInt32, deaths: UInt32) {
            self.attempts = attempts
            self.failures = failures
            self.deaths = deaths
        }
    }

    package let id: TaskID

    /// In the order in which it happened.
    package internal(set) var events: [Event] = []

    /// The task as it is now, or was when it was forgotten; `nil` where its add is gone.
    package internal(set) var record: TaskRecord?

    package internal(set) var isForgotten = false

    /// `nil` where all of it is there.
    package internal(set) var compacted: Compacted?

    /// What is known of a task whose add the log has no more.
    package internal(set) var lane: (name: String, queue: String)?

    /// Who its workers are, as far as the log knows.
    package internal(set) var workers: [WorkerID: WorkerProcess] = [:]

    /// Records of it that are damaged.
    package internal(set) var damaged: [OpenedStore.DamagedTask] = []
}

extension StoreReader {
    /// A task's life; `nil` where the log knows of no such task.
    ///
    /// - Throws: ``AppendLogError`` where a checkpoint can't be read.
    package func history(of id: TaskID) throws -> TaskHistory? {
        var gathering = HistoryGathering(id)
        log.forEach(
            damaged: { gathering.noteDamage($0) },
            { gathering.take($0) }
        )
        var history = gathering.history
        guard !history.events.isEmpty || !history.damaged.isEmpty else { return nil }
        try complete(&history, gathering)
        return history
    }

    private func complete(
        _ history: inout TaskHistory,
        _ gathering: HistoryGathering
    ) throws {
        history.events.sort { $0.sequence < $1.sequence }
        if let entry = gathering.last {
            history.record = try? record(of: entry, in: gathering.tasks)
        }
        history.compacted = gathering.compacted
        let unknown = history.workerIDs.subtracting(gathering.workers.keys)
        history.workers = gathering.workers.filter { history.workerIDs.contains($0.key) }
        guard gathering.last == nil || !unknown.isEmpty else { return }
        // a checkpoint knows what was compacted since
        let checkpoints = try log.checkpoints()
        for checkpoint in [checkpoints.last, checkpoints.first].compactMap({ $0 }) {
            guard let tasks = try restore(checkpoint) else { continue }
            for worker in unknown where history.workers[worker] == nil {
                history.workers[worker] = tasks.workers.process(of: worker)
            }
            guard gathering.last == nil, history.lane == nil,
                let number = tasks.index.number(of: history.id)
            else { continue }
            let entry = tasks.index[number]
            history.lane = tasks.lane(of: entry)
            history.compacted = TaskHistory.Compacted(
                attempts: entry.attempt,
                failures: entry.failures,
                deaths: entry.deaths
            )
        }
    }
}

extension TaskHistory {
    fileprivate var workerIDs: Set<WorkerID> {
        var ids: Set<WorkerID> = []
        for event in events {
            switch event.what {
            case .leased(_, let worker), .ended(_, _, let worker, _),
                .refused(_, let worker, _, _):
                ids.insert(worker)
            case .died(let evidence): ids.insert(evidence.worker)
            case .added, .released, .cancelled, .requeued, .forgotten: break
            }
        }
        return ids
    }
}

/// What one pass over the log tells of a task.
private struct HistoryGathering {
    private(set) var history: TaskHistory
    /// A fold of this task's records alone.
    private(set) var tasks = StoreReader.makeFold()
    private(set) var workers: [WorkerID: WorkerProcess] = [:]
    private var sequences: Set<UInt64> = []
    private var carried: StoredCounts?

    /// What a `CARRIED` record has of the time before it.
    private struct StoredCounts {
        var compacted: TaskHistory.Compacted
        var lastSequence: UInt64
    }

    init(_ id: TaskID) {
        history = TaskHistory(id: id)
    }

    /// The task as it is now, or as it was when it was forgotten.
    var last: TaskEntry? {
        tasks.index.number(of: history.id).map { tasks.index[$0] }
    }

    mutating func noteDamage(_ record: borrowing RecordView) {
        let damage = OpenedStore.DamagedTask(record)
        if damage.id == history.id { history.damaged.append(damage) }
    }

    mutating func take(_ record: borrowing RecordView) {
        guard let kind = StoredKind(rawValue: record.kind) else { return }
        if kind == .worker { return takeWorker(record) }
        guard kind.taskID(in: record.payload) == history.id else { return }
        // as it was when it was forgotten, until the ID is used again
        if kind == .add, history.isForgotten { tasks.reset() }
        if kind != .expire { _ = try? tasks.replay(record) }
        let (sequence, position) = (record.sequence, record.position)
        // what compaction moved is told once
        guard let (at, what) = try? event(kind, record), sequences.insert(sequence).inserted else {
            return
        }
        history.events.append(
            TaskHistory.Event(sequence: sequence, position: position, at: at, what: what)
        )
        switch what {
        case .added: history.isForgotten = false
        case .forgotten: history.isForgotten = true
        case .leased, .ended, .released, .died, .refused, .cancelled, .requeued: break
        }
    }

    private mutating func takeWorker(_ record: borrowing RecordView) {
        var reader = WireReader(record.payload)
        guard let worker = try? StoredWorker(from: &reader) else { return }
        workers[worker.id] = worker.process
    }

    /// What happened and isn't among the events.
    var compacted: TaskHistory.Compacted? {
        guard let carried else { return nil }
        var missing = carried.compacted
        // attempts are counted from a requeue on
        let known = history.events.filter { $0.sequence <= carried.lastSequence }
        let begin = known.lastIndex { if case .requeued = $0.what { true } else { false } } ?? 0
        for event in known[begin...] {
            switch event.what {
            case .leased: missing.attempts -= min(1, missing.attempts)
            case .ended(let result, _, _, _):
                switch result.outcome {
                case .error, .retry: missing.failures -= min(1, missing.failures)
                case .success, .cancel: break
                }
            case .released(_, _, _, _, let isCounted):
                if isCounted { missing.deaths -= min(1, missing.deaths) }
            case .added, .died, .refused, .cancelled, .requeued, .forgotten: break
            }
        }
        let none = TaskHistory.Compacted(attempts: 0, failures: 0, deaths: 0)
        return missing == none ? nil : missing
    }

    private mutating func event(
        _ kind: StoredKind,
        _ record: borrowing RecordView
    ) throws -> (at: Timestamp, what: TaskHistory.What)? {
        var reader = WireReader(record.payload)
        switch kind {
        case .add:
            let add = try DecodedAdd(record.payload)
            return (add.addedAt, .added(add.submission, due: add.due?.wall))
        case .carried:
            let stored = try StoredCarried(from: &reader)
            let isSalvaged = record.source == nil
            carried = StoredCounts(
                compacted: TaskHistory.Compacted(
                    attempts: stored.attempt,
                    failures: stored.failures,
                    deaths: stored.deaths
                ),
                lastSequence: isSalvaged ? record.sequence : stored.lastSequence
            )
            let add = try DecodedAdd(record.payload)
            return (add.addedAt, .added(add.submission, due: add.due?.wall))
        case .lease:
            let lease = try StoredLease(from: &reader)
            return (lease.at, .leased(lease.lease, lease.worker))
        case .finish:
            let finish = try StoredFinish(from: &reader)
            return (
                finish.at,
                .ended(
                    try ResultEntry(finish.result),
                    finish.status,
                    finish.worker,
                    due: finish.due?.wall
                )
            )
        case .release:
            let release = try StoredRelease(from: &reader)
            return (
                release.at,
                .released(
                    release.holding.lease,
                    release.cause,
                    release.status,
                    isSuspect: release.isSuspect,
                    isCounted: release.isCounted
                )
            )
        case .stale:
            let stale = try StoredStale(from: &reader)
            return (
                stale.at,
                .refused(
                    stale.holding.lease,
                    stale.worker,
                    began: stale.startedAt,
                    ended: stale.finishedAt
                )
            )
        case .cancel:
            let cancel = try StoredFinish(from: &reader)
            let result = try ResultEntry(cancel.result)
            guard case .cancel(let reason) = result.outcome else {
                throw WireError.invalid(field: "outcome")
            }
            let lease = result.lease == .none ? nil : result.lease
            return (cancel.at, .cancelled(reason: reason, lease))
        case .requeue:
            let requeue = try StoredRequeue(from: &reader)
            return (requeue.at, .requeued(epoch: requeue.epoch))
        case .evidence:
            let evidence = try StoredEvidence(from: &reader)
            return (evidence.at, .died(evidence))
        case .expire: return (try StoredExpire(from: &reader).at, .forgotten)
        case .worker, .queue: return nil
        }
    }
}
