// Part of QTasks. License: see LICENSE.
//
// CANCEL and REQUEUE, by the table of recovery.md, chapter 4, and the purge of dead tasks: what an operator
// changes of a task that is there. The record holds from then on, whatever dies.

import QTasksModel
import QTasksWire

extension StorageState {
    mutating func decide(
        _ change: TaskChange,
        _ number: UInt64,
        _ id: TaskID,
        _ reason: String,
        now: Now,
        log: some TaskLog
    ) {
        guard let task = known(id) else { return say(.changed(number: number, .unchanged(nil))) }
        switch change {
        case .cancel: cancel(task, number, reason, now: now, log: log)
        case .requeue: requeue(task, number, now: now, log: log)
        case .forget: forget(task, number, now: now, log: log)
        }
    }

    // MARK: CANCEL

    private mutating func cancel(
        _ task: TaskIndex.Number,
        _ number: UInt64,
        _ reason: String,
        now: Now,
        log: some TaskLog
    ) {
        let entry = tasks.index[task]
        guard !entry.status.isFinal else { return leave(task, number, log: log) }
        let verdict: ChangeVerdict =
            entry.status == .process
            ? .revoked(entry.lease) : .withdrawn(placement(of: entry, task), due: entry.due)
        switch appendCancel(task, reason, now: now, log: log) {
        case .appended(let place):
            tell(number, verdict, place, entry, now: now, log: log)
            tellEnd(of: task, entry, place, log: log)
            trace("cancel", entry.id, "broker")
        case .noSpace: refuseChangeForSpace(number)
        case .tooLong:
            let refusal = Refusal(.payloadTooLarge, "the log takes no reason that long")
            say(.changed(number: number, .refused(refusal)))
        case .failed: break
        }
    }

    /// Ends a task that has not ended; what is told of it is the caller's.
    mutating func appendCancel(
        _ task: TaskIndex.Number,
        _ reason: String,
        now: Now,
        log: some TaskLog
    ) -> Appended {
        let entry = tasks.index[task]
        let at = tasks.stamp(now)
        var body = WireWriter()
        ResultEntry(
            id: entry.id,
            // one that waits for its next attempt has the last one's still
            lease: entry.status == .process ? entry.lease : .none,
            // its worker knows when it began; the record tells when the word was spoken
            startedAt: StoredFinish.never,
            finishedAt: at,
            outcome: .cancel(reason: reason)
        ).write(to: &body)
        let worker =
            entry.worker == WorkerTable.none
            ? WorkerID(high: 0, low: 0) : tasks.workers[entry.worker].id
        return body.bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            guard let result = try? ResultView(from: &reader) else {
                preconditionFailure("a result that was just written reads the same")
            }
            let stored = StoredFinish(
                at: at,
                status: .cancel,
                worker: worker,
                due: nil,
                result: result
            )
            head.removeAll()
            stored.writeHead(to: &head)
            let appended = append(.cancel, body: bytes, log: log)
            if case .appended(let place) = appended {
                counters.cancels += 1
                tasks.apply(cancel: stored, at: place)
                dropReference(of: task, log: log)
                retain(task)
            }
            return appended
        }
    }

    /// Whoever waits for a task that was ended hears of it; `entry`: as it was before.
    mutating func tellEnd(
        of task: TaskIndex.Number,
        _ entry: TaskEntry,
        _ place: StoredPlace,
        log: some TaskLog
    ) {
        guard entry.isWatched else { return }
        let end = PendingVerdict.final(task, epoch: entry.epoch)
        tell(end, place.sequence, once: entry.durability, log: log)
    }

    // MARK: REQUEUE

    private mutating func requeue(
        _ task: TaskIndex.Number,
        _ number: UInt64,
        now: Now,
        log: some TaskLog
    ) {
        let entry = tasks.index[task]
        guard entry.status.canBeRequeued else { return leave(task, number, log: log) }
        var key: [UInt8] = []
        switch reclaim(task, now: now, log: log) {
        case .nothing: break
        case .key(let bytes): key = bytes
        case .heldBy(let holder):
            let refusal = Refusal(
                .conflict,
                "its unique key is held by task \(holder): cancel that, or wait for its end"
            )
            return say(.changed(number: number, .refused(refusal)))
        case .unreadable:
            let refusal = Refusal(.damaged, "its add can't be read in the log: run 'log verify'")
            return say(.changed(number: number, .refused(refusal)))
        }
        key.withUnsafeBytes { requeue(task, number, key: $0, now: now, log: log) }
    }

    private mutating func requeue(
        _ task: TaskIndex.Number,
        _ number: UInt64,
        key: UnsafeRawBufferPointer,
        now: Now,
        log: some TaskLog
    ) {
        let entry = tasks.index[task]
        var reader = WireReader(key)
        let stored = StoredRequeue(
            at: tasks.stamp(now),
            id: entry.id,
            epoch: entry.epoch &+ 1,
            unique: key.isEmpty ? nil : try? UniqueOption(from: &reader)
        )
        head.removeAll()
        stored.writeHead(to: &head)
        switch append(.requeue, log: log) {
        case .appended(let place):
            counters.requeues += 1
            retention.removed(
                sequence: entry.lastSequence,
                lane: entry.lane,
                status: entry.status
            )
            tasks.apply(stored, at: place)
            let verdict = ChangeVerdict.requeued(placement(of: tasks.index[task], task))
            tell(number, verdict, place, entry, now: now, log: log)
            trace("requeue", entry.id, "broker")
        case .noSpace: refuseChangeForSpace(number)
        case .tooLong: preconditionFailure("a requeue's record is shorter than any limit")
        case .failed: break
        }
    }

    // MARK: FORGET

    /// Forgets a dead task as its retention would: to everybody outside it is gone from then on.
    mutating func forget(
        _ task: TaskIndex.Number,
        _ number: UInt64,
        now: Now,
        log: some TaskLog
    ) {
        let entry = tasks.index[task]
        guard entry.status == .dead else { return leave(task, number, log: log) }
        // before its time is looked at: who is refused stays as long as he would have
        guard windowEnd(of: task, now: now, log: log) == nil else {
            return refuseForgetForWindow(number)
        }
        let finished = RetentionState.Finished(number: task, sequence: entry.lastSequence)
        switch expire(finished, now: now, log: log) {
        case .forgotten:
            counters.forgets += 1
            let verdict = PendingVerdict.changed(number: number, .forgotten)
            tell(verdict, last, once: entry.durability, log: log)
            trace("forget", entry.id, "broker")
        case .notYet: awaitingDurable.append(.forget(number: number, entry.id), from: last)
        case .kept: refuseForgetForWindow(number)
        case .noRoom where failure == nil: refuseChangeForSpace(number)
        case .noRoom: break
        }
    }

    private mutating func refuseForgetForWindow(_ number: UInt64) {
        let refusal = Refusal(
            .conflict,
            "its unique key is held for a window that goes on: forget it when that is over"
        )
        say(.changed(number: number, .refused(refusal)))
    }

    // MARK: All

    /// Nothing is changed; what holds is told no earlier than anybody may hear of it.
    private mutating func leave(_ task: TaskIndex.Number, _ number: UInt64, log: some TaskLog) {
        let entry = tasks.index[task]
        let verdict = PendingVerdict.changed(number: number, .unchanged(entry.status))
        if entry.status.isFinal {
            tell(verdict, entry.lastSequence, once: entry.durability, log: log)
        } else {
            tellOnceWritten(verdict, entry.lastSequence, log: log)
        }
    }

    private mutating func tell(
        _ number: UInt64,
        _ verdict: ChangeVerdict,
        _ place: StoredPlace,
        _ entry: TaskEntry,
        now: Now,
        log: some TaskLog
    ) {
        tell(
            PendingVerdict.changed(number: number, verdict),
            place.sequence,
            once: entry.durability,
            log: log
        )
        needSyncInInterval(of: entry, now: now, log: log)
    }

    private mutating func refuseChangeForSpace(_ number: UInt64) {
        let refusal = Refusal(
            .storageUnavailable,
            "the disk under '\(settings.directory)' is full: free some space there"
        )
        say(.changed(number: number, .refused(refusal)))
    }
}

extension TaskStatus {
    /// An operator may have it run once more.
    var canBeRequeued: Bool {
        switch self {
        case .error, .dead, .cancel: true
        case .new, .process, .scheduled, .success: false
        }
    }
}
