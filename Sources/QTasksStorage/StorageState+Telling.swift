// Part of QTasks. License: see LICENSE.
//
// Answers whose time has come, put into words with what holds at that moment.

import QTasksModel
import QTasksWire

extension StorageState {
    mutating func tell(_ verdict: PendingVerdict, log: some TaskLog) {
        switch verdict {
        case .added(let number, let place, let leased, let due, let addedAt):
            let arguments = leased ? placeArguments(of: place.handle, log: log) : nil
            say(
                .added(
                    number: number,
                    place: place,
                    leased: leased,
                    due: due,
                    addedAt: addedAt,
                    arguments: arguments
                )
            )
        case .exists(let number, let task):
            let entry = tasks.index[task]
            say(.exists(number: number, sequence: entry.sequence, status: entry.status))
        case .same(let number, let id, let sequence, let isSynced):
            say(.same(number: number, id: id, sequence: sequence, isSynced: isSynced))
        case .leased(let number, let task, let lease): tellLeased(number, task, lease, log: log)
        case .notLeased(let number, let status): say(.stale(number: number, status: status))
        case .released(let number, let holding, let status, let isSuspect):
            say(
                .released(number: number, holding: holding, status: status, isSuspect: isSuspect)
            )
        case .finished(let task, let lease, let worker, let due):
            tellFinished(task, lease, worker, due: due, log: log)
        case .record(let number, let task, let isWhole):
            // it may have ended since it was asked for, and that may not be told yet
            let entry = tasks.index[task]
            let mark = entry.durability.isToldOnceWritten ? written : durable
            guard !entry.status.isFinal || entry.lastSequence <= mark else {
                return tell(verdict, entry.lastSequence, once: entry.durability, log: log)
            }
            assembleRecord(of: task, isWhole: isWhole, log: log)
            assembly.record.bytes.withUnsafeBytes { say(.record(number: number, record: $0)) }
        case .final(let task, let epoch): tellFinal(task, epoch, log: log)
        case .changed(let number, let verdict): say(.changed(number: number, verdict))
        case .queue(let number, let queue, let rules):
            say(.queue(number: number, queue, .rules(rules)))
        case .evidence(let number): say(.evidence(number: number))
        case .forget(let number, let id): decide(.forget, number, id, "", now: tasks.now, log: log)
        }
    }

    private mutating func tellLeased(
        _ number: UInt64,
        _ task: TaskIndex.Number,
        _ lease: Lease,
        log: some TaskLog
    ) {
        guard isServing else { return }
        let entry = tasks.index[task]
        if tellPlaced(number, task, entry, log: log) { return }
        // moved out and back: two holders of the bytes would make the first write copy them
        var target = WireWriter(reserving: 0)
        swap(&target, &verdicts)
        do {
            let isWhole = try recent.withRecord(at: entry.added, or: log) { bytes in
                var reader = WireReader(bytes)
                guard let add = try? StoredAdd(from: &reader) else { return false }
                let leased = LeasedTask(
                    lease: lease,
                    attempt: entry.attempt,
                    failures: entry.failures,
                    epoch: entry.epoch,
                    isSuspect: entry.isSuspect,
                    addedAt: add.addedAt
                )
                Verdict.leased(number: number, leased, envelope: add.envelope).write(to: &target)
                return true
            }
            swap(&target, &verdicts)
            if isWhole { return sendIfLong() }
            reportUnreadable(entry, WireError.invalid(field: "record"))
        } catch {
            swap(&target, &verdicts)
            reportUnreadable(entry, error)
        }
        // nobody can run it; it stays as it is until somebody has mended the store
        say(.stale(number: number, status: nil))
    }

    /// Whoever waits for a task that was queued again before this could be told hears of its next end.
    private mutating func tellFinal(
        _ task: TaskIndex.Number,
        _ epoch: UInt16,
        log: some TaskLog
    ) {
        let entry = tasks.index[task]
        guard entry.status.isFinal else { return tasks.setWatched(true, task) }
        guard entry.epoch == epoch else {
            let end = PendingVerdict.final(task, epoch: entry.epoch)
            return tell(end, entry.lastSequence, once: entry.durability, log: log)
        }
        tasks.setWatched(false, task)
        assembleRecord(of: task, log: log)
        assembly.record.bytes.withUnsafeBytes { say(.final(id: entry.id, record: $0)) }
    }

    private mutating func tellFinished(
        _ task: TaskIndex.Number,
        _ lease: Lease,
        _ worker: WorkerID,
        due: DueTime,
        log: some TaskLog
    ) {
        guard isServing else { return }
        let entry = tasks.index[task]
        // the end of a later epoch has a word of its own
        let endsWait = entry.isWatched && entry.status.isFinal && entry.lease == lease
        if endsWait {
            tasks.setWatched(false, task)
            assembleRecord(of: task, log: log)
        }
        let status = due != .none ? .scheduled : entry.lease == lease ? entry.status : nil
        assembly.record.bytes.withUnsafeBytes { record in
            say(
                .finished(
                    holding: Holding(id: entry.id, lease: lease),
                    worker: worker,
                    verdict: .committed,
                    status: status,
                    due: due,
                    record: endsWait ? record : UnsafeRawBufferPointer(rebasing: record[..<0])
                )
            )
        }
    }
}
