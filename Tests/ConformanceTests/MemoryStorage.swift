// Part of QTasks. License: see LICENSE.

import QTasks

/// Storage without a disk: the rules alone, written down a second time.
actor MemoryStorage: Storage {
    fileprivate struct Entry {
        var record: TaskRecord
        var due: ContinuousClock.Instant?
    }

    private var entries: [TaskID: Entry] = [:]
    private var order: [TaskID] = []
    private var lastLease: UInt32 = 0

    func add(_ task: TaskSubmission) throws -> TaskStatus {
        if let known = entries[task.id] {
            guard known.record.submission == task else {
                throw QTasksError(.conflict, "task \(task.id) is there with another content")
            }
            return known.record.status
        }
        guard TaskName.isValid(task.name), TaskName.isValid(task.queue) else {
            throw QTasksError(.badName, "'\(task.name)' in '\(task.queue)'")
        }
        if let holder = holder(of: task) {
            throw QTasksError(.conflict, "the key is held", cause: HeldKey(holder: holder))
        }
        order.append(task.id)
        let record = TaskRecord(
            submission: task,
            sequence: UInt64(order.count),
            status: .new,
            attempt: 0,
            failures: 0,
            deaths: 0,
            epoch: 0,
            addedAt: .now
        )
        var entry = Entry(record: record)
        switch task.start {
        case .now: break
        case .after(let milliseconds): entry.hold(for: milliseconds)
        case .at(let moment):
            let wait = moment.nanoseconds - Timestamp.now.nanoseconds
            if wait > 0 { entry.hold(for: UInt64(wait) / 1_000_000 + 1) }
        }
        entries[task.id] = entry
        return entry.record.status
    }

    private func holder(of task: TaskSubmission) -> TaskID? {
        guard let key = task.unique?.bytes else { return nil }
        return entries.values.first { entry in
            guard let unique = entry.record.submission.unique, unique.bytes == key,
                entry.record.name == task.name
            else { return false }
            switch unique.scope {
            case .whileQueued: return entry.record.attempt == 0 && !entry.record.status.isFinal
            case .whileUnfinished: return !entry.record.status.isFinal
            case .window(let seconds):
                let age = Timestamp.now.nanoseconds - entry.record.addedAt.nanoseconds
                return age < Int64(seconds) * 1_000_000_000
            }
        }?.record.id
    }

    func lease(_ id: TaskID, to worker: WorkerID) -> TaskHandover? {
        guard var entry = entries[id], entry.isLeasable else { return nil }
        if let expires = entry.record.submission.expires, expires <= .now,
            entry.record.attempt == 0
        {
            entry.record.status = .cancel
            entry.record.outcome = .cancel(reason: "expired")
            entries[id] = entry
            return nil
        }
        lastLease += 1
        let lease = Lease(incarnation: 1, counter: lastLease)
        entry.record.status = .process
        entry.record.attempt += 1
        entry.record.lease = lease
        entry.record.worker = worker
        entry.due = nil
        entry.record.notBefore = nil
        entries[id] = entry
        return TaskHandover(
            task: entry.record.submission,
            lease: lease,
            attempt: entry.record.attempt,
            failures: entry.record.failures,
            epoch: entry.record.epoch,
            addedAt: entry.record.addedAt
        )
    }

    func release(_ id: TaskID, lease: Lease, because reason: ReleaseReason) -> TaskStatus? {
        guard var entry = entries[id] else { return nil }
        guard entry.record.status == .process, entry.record.lease == lease else {
            return entry.record.status
        }
        if reason == .workerDied(wasAlone: true) { entry.record.deaths += 1 }
        let isDead = entry.record.deaths >= entry.record.submission.maxDeliveries ?? 3
        entry.record.status = isDead ? .dead : .new
        entries[id] = entry
        return entry.record.status
    }

    func save(_ result: AttemptResult) -> SaveVerdict {
        guard var entry = entries[result.id] else { return .gone }
        guard entry.record.lease == result.lease else { return .stale }
        switch entry.record.status {
        case .success, .error, .cancel, .scheduled: return .committed
        case .new, .dead: return .stale
        case .process: break
        }
        entry.record.startedAt = result.startedAt
        entry.record.finishedAt = result.finishedAt
        entry.record.outcome = result.outcome
        entry.end(with: result.outcome)
        entries[result.id] = entry
        return .committed
    }

    func record(of id: TaskID) -> TaskRecord? { entries[id]?.record }

    func unfinished(after sequence: UInt64, atMost count: Int) -> [TaskRecord] {
        let open = order.compactMap { entries[$0]?.record }.filter {
            $0.sequence > sequence && !$0.status.isFinal
        }
        return Array(open.prefix(count))
    }
}

extension MemoryStorage.Entry {
    fileprivate var isLeasable: Bool {
        record.status == .new
            || record.status == .scheduled && due.map { $0 <= .now } ?? true
    }

    fileprivate mutating func hold(for milliseconds: UInt64) {
        record.status = .scheduled
        due = .now + .milliseconds(Int64(milliseconds))
        let wait = Int64(milliseconds) * 1_000_000
        record.notBefore = Timestamp(nanoseconds: Timestamp.now.nanoseconds + wait)
    }

    fileprivate mutating func end(with outcome: TaskOutcome) {
        switch outcome {
        case .success: record.status = .success
        case .cancel: record.status = .cancel
        case .error:
            record.failures += 1
            record.status = .error
        case .retry(_, let milliseconds, let limit):
            record.failures += 1
            record.status = .error
            if record.failures < record.submission.maxAttempts ?? limit { hold(for: milliseconds) }
        }
    }
}
