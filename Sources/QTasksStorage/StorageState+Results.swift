// Part of QTasks. License: see LICENSE.
//
// What workers push: the ends of attempts.

package import QTasksModel
import QTasksWire

extension StorageState {
    /// A message from the PULL socket: whoever can open it can push, so nothing in it is trusted but
    /// that a lease is hard to guess.
    package mutating func results(
        _ bytes: UnsafeRawBufferPointer,
        now: Now,
        log: some TaskLog
    ) {
        guard failure == nil else { return }
        var reader = WireReader(bytes)
        do {
            guard try MessageHeader.read(from: &reader).command == .results else {
                throw WireError.invalid(field: "command")
            }
            let worker = try reader.worker("worker")
            while !reader.isAtEnd, failure == nil {
                let result = try ResultView(from: &reader)
                try decide(result, OutcomeHead(result.outcome), worker, now: now, log: log)
            }
        } catch {
            countMalformed("results", error)
        }
    }

    private mutating func decide(
        _ result: ResultView,
        _ outcome: OutcomeHead,
        _ worker: WorkerID,
        now: Now,
        log: some TaskLog
    ) throws(WireError) {
        guard let task = known(result.id) else {
            counters.unknownResults += 1
            return sayRefused(result, worker, .gone, nil)
        }
        let entry = tasks.index[task]
        guard entry.lease == result.lease, result.lease != .none else {
            return recordStale(result, worker, entry, now: now, log: log)
        }
        switch entry.status {
        case .process: finish(task, result, outcome, worker, now: now, log: log)
        case .success, .error, .cancel, .scheduled:
            // the winner's again (H25), told no earlier than the first time
            counters.repeatedResults += 1
            let due = entry.status == .scheduled ? entry.due : .none
            let verdict = PendingVerdict.finished(task, result.lease, worker, due: due)
            tell(verdict, entry.lastSequence, once: entry.durability, log: log)
        case .new, .dead: recordStale(result, worker, entry, now: now, log: log)
        }
    }

    private mutating func finish(
        _ task: TaskIndex.Number,
        _ result: ResultView,
        _ outcome: OutcomeHead,
        _ worker: WorkerID,
        now: Now,
        log: some TaskLog
    ) {
        let entry = tasks.index[task]
        let (status, due) = end(of: entry, outcome, now: now, log: log)
        let stored = StoredFinish(
            at: tasks.stamp(now),
            status: status,
            worker: worker,
            due: due,
            result: result
        )
        head.removeAll()
        stored.writeHead(to: &head)
        switch append(.finish, body: result.bytes, log: log) {
        case .appended(let place):
            counters.results += 1
            tasks.now = now
            tasks.apply(stored, at: place)
            dropReference(of: task, log: log)
            if status.isFinal { retain(task) }
            let verdict = PendingVerdict.finished(
                task,
                result.lease,
                worker,
                due: status == .scheduled ? tasks.index[task].due : .none
            )
            tell(verdict, place.sequence, once: entry.durability, log: log)
            needSyncInInterval(of: entry, now: now, log: log)
            trace("result", entry.id, "worker \(worker)")
        case .noSpace:
            // the worker keeps it and sends it again
            counters.withoutSpace += 1
        case .tooLong:
            counters.malformed += 1
            notice(
                "result too long",
                "task \(entry.id): the log takes no record of \(result.bytes.count) bytes",
                isWarning: true
            )
        case .failed: break
        }
    }

    /// An attempt's time was over, and its worker was ended before it had told so.
    mutating func decide(_ overdue: Overdue, now: Now, log: some TaskLog) {
        guard failure == nil else { return }
        let holding = overdue.holding
        let task = known(holding.id)
        let entry = task.map { tasks.index[$0] }
        guard let task, let entry, entry.status == .process, entry.lease == holding.lease else {
            let verdict = PendingVerdict.released(
                number: overdue.number,
                holding,
                status: entry?.status,
                isSuspect: entry?.isSuspect ?? false
            )
            guard let entry else { return tell(verdict, log: log) }
            return tell(verdict, entry.lastSequence, once: entry.durability, log: log)
        }
        let attempt = overdue.attempt
        let failure = TaskFailure(
            type: TaskFailure.timeLimitType,
            message: "ran past its limit until its worker was ended"
        )
        var body = WireWriter()
        ResultEntry(
            id: holding.id,
            lease: holding.lease,
            startedAt: attempt.startedAt,
            finishedAt: tasks.stamp(now),
            outcome: attempt.maxAttempts > 1
                ? .retry(
                    failure,
                    afterMilliseconds: attempt.retryMilliseconds,
                    maxAttempts: attempt.maxAttempts
                ) : .error(failure)
        ).write(to: &body)
        body.bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            guard let result = try? ResultView(from: &reader),
                let outcome = try? OutcomeHead(result.outcome)
            else { preconditionFailure("a result that was just written reads the same") }
            finish(task, result, outcome, attempt.worker, now: now, log: log)
        }
        // no worker keeps it
        if tasks.index[task].lastSequence == entry.lastSequence {
            deferred.append(.overdue(overdue))
        }
    }

    /// What an attempt's end makes of its task: a retry is the last word where no attempt is left.
    private mutating func end(
        of entry: TaskEntry,
        _ outcome: OutcomeHead,
        now: Now,
        log: some TaskLog
    ) -> (TaskStatus, StoredDue?) {
        switch outcome {
        case .success: return (.success, nil)
        case .error: return (.error, nil)
        case .cancel: return (.cancel, nil)
        case .retry(let milliseconds, let limit):
            let limit = options(of: entry, log: log)?.maxAttempts ?? limit
            guard entry.failures + 1 < limit else { return (.error, nil) }
            return (.scheduled, due(after: milliseconds, now: now))
        }
    }

    /// A result under a lease that doesn't hold: refused, and recorded.
    private mutating func recordStale(
        _ result: ResultView,
        _ worker: WorkerID,
        _ entry: TaskEntry,
        now: Now,
        log: some TaskLog
    ) {
        counters.staleResults += 1
        if !log.isShortOfSpace {
            let stored = StoredStale(at: tasks.stamp(now), worker: worker, result: result)
            head.removeAll()
            stored.writeHead(to: &head)
            if case .appended = append(.stale, log: log) { tasks.apply(stored) }
        }
        sayRefused(result, worker, .stale, entry.status)
        trace("result refused", entry.id, "worker \(worker)")
    }

    private mutating func sayRefused(
        _ result: ResultView,
        _ worker: WorkerID,
        _ verdict: ResultVerdict,
        _ status: TaskStatus?
    ) {
        say(
            .finished(
                holding: Holding(id: result.id, lease: result.lease),
                worker: worker,
                verdict: verdict,
                status: status,
                due: .none,
                record: UnsafeRawBufferPointer(start: nil, count: 0)
            )
        )
    }
}
