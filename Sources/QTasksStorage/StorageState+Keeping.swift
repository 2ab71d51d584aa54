// Part of QTasks. License: see LICENSE.
//
// What the core does for the log's sake: it carries forward what is alive, forgets what is over, and
// tells a checkpoint what it knows.

package import AppendLog
import QTasksModel
import QTasksWire

extension StorageState {
    /// A part of a checkpoint, at opening.
    ///
    /// - Returns: Whether it can be used.
    package mutating func restore(
        _ part: CheckpointPart,
        _ reading: inout CheckpointReading
    ) -> Bool {
        switch part {
        case .begin:
            reading = CheckpointReading()
            tasks.reset()
            last = 0
            return true
        case .block(let bytes):
            do {
                try reading.take(bytes, into: &tasks)
                return true
            } catch {
                return false
            }
        case .end:
            last = tasks.lastSequence
            return reading.isWhole
        }
    }

    /// All is read: who has ended is kept for a while from when that was.
    package mutating func opened() {
        for number in tasks.index.numbers where tasks.index.core(number).status?.isFinal == true {
            retain(number)
        }
        retention.opened()
        tasks.early = [:]
        tasks.dropStrayEvidence()
    }

    /// A task has ended: its time runs.
    mutating func retain(_ number: TaskIndex.Number) {
        let entry = tasks.index[number]
        retention.finished(
            number,
            sequence: entry.lastSequence,
            lane: entry.lane,
            name: tasks.lanes[entry.lane].name,
            status: entry.status,
            at: Timestamp(nanoseconds: Int64(entry.endedAt) * 1_000_000_000),
            ownSeconds: entry.keptFor == 0 ? nil : UInt64(entry.keptFor)
        )
    }

    /// Whether a task that is over was forgotten.
    enum Expiry {
        case forgotten
        /// Its end has to be durable first.
        case notYet
        /// There is no room for the record that says so.
        case noRoom
        /// Its unique key's window goes on.
        case kept
    }

    /// Appends that a task is forgotten.
    ///
    /// To everybody outside it is gone from then on, but for a repeated add. Its number is given out
    /// again once that is durable, and its end has to be before: so no answer that is still untold speaks
    /// of a number that is another's by then.
    mutating func expire(
        _ task: RetentionState.Finished,
        now: Now,
        log: some TaskLog
    ) -> Expiry {
        let entry = tasks.index[task.number]
        precondition(
            entry.lastSequence == task.sequence && entry.status.isFinal,
            "who goes on is taken out of what is kept"
        )
        guard entry.lastSequence <= durable else {
            needsSync = true
            return .notYet
        }
        if let end = windowEnd(of: task.number, now: now, log: log) {
            keep(task, until: end)
            return .kept
        }
        let stored = StoredExpire(at: tasks.stamp(now), id: entry.id)
        head.removeAll()
        stored.writeHead(to: &head)
        guard case .appended(let place) = append(.expire, log: log) else { return .noRoom }
        retention.removed(sequence: task.sequence, lane: entry.lane, status: entry.status)
        tasks.noteExpiry(task.number, stored)
        expiring.append((place.sequence, task.number))
        return .forgotten
    }

    /// A task that could be forgotten stays until a moment.
    private mutating func keep(_ task: RetentionState.Finished, until end: Timestamp) {
        let entry = tasks.index[task.number]
        retention.removed(sequence: task.sequence, lane: entry.lane, status: entry.status)
        let index = tasks.index
        windows.insert(
            TimedTasks.Entry(
                moment: end.nanoseconds,
                sequence: task.sequence,
                number: task.number
            ),
            isConcerned: index.isKept
        )
    }

    /// A task that was kept for its window and can be forgotten now; the same until it is.
    mutating func firstAfterWindow(now: Timestamp) -> RetentionState.Finished? {
        guard let first = firstWindow(), first.moment <= now.nanoseconds else { return nil }
        return RetentionState.Finished(number: first.number, sequence: first.sequence)
    }

    /// The task that is kept for its window whose window ends first.
    mutating func firstWindow() -> TimedTasks.Entry? {
        guard windows.count > 0 else { return nil }
        let index = tasks.index
        return windows.first(isConcerned: index.isKept)
    }

    /// A task that is there, to whoever asks for it.
    func known(_ id: TaskID) -> TaskIndex.Number? {
        guard let number = tasks.index.number(of: id),
            !tasks.index.core(number).flags.contains(.expiring)
        else { return nil }
        return number
    }

    /// Forgets the tasks of which the log says so for good.
    ///
    /// - Returns: Whether there are more.
    mutating func forgetExpired(atMost most: Int) -> Bool {
        for _ in 0..<most {
            guard let first = expiring.first, first.sequence <= durable else { return false }
            expiring.removeFirst()
            tasks.remove(first.number)
        }
        return true
    }

    /// A record of the segment that is compacted: carries it forward if somebody may still ask for it.
    ///
    /// An add goes on as `CARRIED`, with all that has happened to its task since: the records that tell
    /// it, which lie before that from now on, can then go with their segments. Only the result is kept
    /// as it is.
    ///
    /// - Throws: Where the log takes nothing more.
    mutating func carry(_ view: borrowing RecordView, to log: some KeptLog) throws(AppendLogError) {
        switch StoredKind(rawValue: view.kind) {
        case .add, .carried: try carryTask(view, to: log)
        case .finish, .cancel: try carryResult(view, to: log)
        case .worker: try carryWorker(view, to: log)
        case .queue: try carryQueue(view, to: log)
        case .evidence: try carryEvidence(view, to: log)
        case .lease, .release, .requeue, .stale, .expire: break
        case nil: _ = try carryAsItIs(view, to: log)
        }
    }

    private mutating func carryTask(
        _ view: borrowing RecordView,
        to log: some KeptLog
    ) throws(AppendLogError) {
        var reader = WireReader(view.payload)
        guard let add = try? StoredAdd(from: &reader), let envelope = try? Envelope(add.envelope)
        else { return reportUnknown(view) }
        guard let number = tasks.index.number(of: envelope.id),
            tasks.index.core(number).added == view.position,
            !tasks.index.core(number).flags.contains(.expiring)
        else { return }
        head.removeAll()
        tasks.carried(number, add: add).writeState(to: &head)
        let addBytes = view.payload.count - reader.left
        let source = UnsafeRawBufferPointer(rebasing: view.payload[..<addBytes])
        let bytes = addBytes + head.bytes.count
        let position = try log.carry(
            view,
            kind: StoredKind.carried.rawValue,
            flags: 0,
            payloadBytes: bytes
        ) { target in
            target.copyMemory(from: source)
            head.bytes.withUnsafeBytes {
                UnsafeMutableRawBufferPointer(rebasing: target[addBytes...]).copyMemory(from: $0)
            }
        }
        tasks.moveAdd(of: number, to: place(view, position, bytes))
    }

    private mutating func carryResult(
        _ view: borrowing RecordView,
        to log: some KeptLog
    ) throws(AppendLogError) {
        var reader = WireReader(view.payload)
        guard let finish = try? StoredFinish(from: &reader) else { return reportUnknown(view) }
        guard let number = tasks.index.number(of: finish.result.id),
            tasks.index[number].finished == view.position,
            !tasks.index.core(number).flags.contains(.expiring)
        else { return }
        let position = try carryAsItIs(view, to: log)
        tasks.moveResult(
            of: finish.result.id,
            to: place(view, position, view.payload.count)
        )
    }

    /// A worker that lives, or may: without it, a restart would take the tasks that it runs away.
    private mutating func carryWorker(
        _ view: borrowing RecordView,
        to log: some KeptLog
    ) throws(AppendLogError) {
        var reader = WireReader(view.payload)
        guard let worker = try? StoredWorker(from: &reader) else { return reportUnknown(view) }
        guard tasks.workers.isNeeded(worker.process, of: worker.id, at: view.position)
        else { return }
        tasks.workers.moved(worker.id, to: try carryAsItIs(view, to: log))
    }

    /// What is known of a death stays for as long as its task does.
    private mutating func carryEvidence(
        _ view: borrowing RecordView,
        to log: some KeptLog
    ) throws(AppendLogError) {
        var reader = WireReader(view.payload)
        guard let stored = try? StoredEvidence(from: &reader) else { return reportUnknown(view) }
        guard tasks.evidence.isKept(stored.holding, at: view.position),
            known(stored.holding.id) != nil
        else { return }
        let position = try carryAsItIs(view, to: log)
        tasks.apply(stored, at: place(view, position, view.payload.count))
    }

    func carryAsItIs(
        _ view: borrowing RecordView,
        to log: some KeptLog
    ) throws(AppendLogError) -> RecordPosition {
        let payload = view.payload
        return try log.carry(
            view,
            kind: view.kind,
            flags: view.flags,
            payloadBytes: payload.count
        ) { $0.copyMemory(from: payload) }
    }

    private func place(
        _ view: borrowing RecordView,
        _ position: RecordPosition,
        _ payloadBytes: Int
    ) -> StoredPlace {
        StoredPlace(
            sequence: view.sequence,
            position: position,
            bytes: Log.bytesOnDisk(payloadBytes: payloadBytes, isCarried: true)
        )
    }

    /// Compaction met a record that was durable and can't be read.
    mutating func reportDamage(_ position: RecordPosition) {
        notice(
            "record damaged",
            "segment \(position.segment) of the store in '\(settings.directory)' is damaged at byte "
                + "\(position.offset): it stays, and nothing is compacted any more; stop the system and "
                + "run 'log repair'",
            isWarning: true
        )
    }

    /// It has whole bytes that make no sense: left out at opening as well.
    mutating func reportUnknown(_ view: borrowing RecordView) {
        notice(
            "record unknown",
            "record \(view.sequence) makes no sense to this version and was not carried forward",
            isWarning: true
        )
    }
}

extension TaskIndex {
    /// A finished task that nobody has touched since it was kept for its window.
    func isKept(_ entry: TimedTasks.Entry) -> Bool {
        isUsed(entry.number) && core(entry.number).status?.isFinal == true
            && !core(entry.number).flags.contains(.expiring)
            && self[entry.number].lastSequence == entry.sequence
    }
}
