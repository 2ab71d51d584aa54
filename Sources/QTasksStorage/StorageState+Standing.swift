// Part of QTasks. License: see LICENSE.
//
// Times by which tasks are to be leased, and unique keys: what Storage decides by them.

import QTasksModel
import QTasksWire

extension StorageState {
    // MARK: Deadlines

    /// Why a task ended that was not leased by its time.
    static let expiredReason = "expired"

    /// Ends tasks that were not leased by their time.
    ///
    /// - Returns: Whether all that are due were ended; `nil` where the log has no room for that.
    mutating func endUnleased(atMost most: Int, now: Now, log: some TaskLog) -> Bool? {
        for _ in 0..<most {
            guard let due = tasks.firstDeadline(), due.moment <= now.wall.nanoseconds else {
                return true
            }
            guard endUnleased(due.number, now: now, log: log) else { return nil }
        }
        return false
    }

    /// When the next task has to be leased, by the wall clock.
    var nextLeaseDeadline: Timestamp? {
        mutating get { tasks.firstDeadline().map { Timestamp(nanoseconds: $0.moment) } }
    }

    /// Ends a task that may not be leased any more, if its time is over.
    ///
    /// Where many are due at once, somebody may ask for one before its turn has come.
    mutating func endIfOverdue(_ task: TaskIndex.Number, now: Now, log: some TaskLog) {
        guard let first = tasks.deadlines.firstMoment, first <= now.wall.nanoseconds,
            tasks.index.core(task).flags.contains(.standing),
            tasks.index.awaitsFirstLease(task),
            let expires = standing(of: task, log: log)?.expires, expires <= now.wall
        else { return }
        _ = endUnleased(task, now: now, log: log)
    }

    private mutating func endUnleased(
        _ task: TaskIndex.Number,
        now: Now,
        log: some TaskLog
    ) -> Bool {
        let id = tasks.index.core(task).id
        let entry = tasks.index[task]
        let placement = placement(of: entry, task)
        guard
            case .appended(let place) = appendCancel(
                task,
                Self.expiredReason,
                now: now,
                log: log
            )
        else { return false }
        // nobody asked: what waits is withdrawn all the same
        let verdict = ChangeVerdict.withdrawn(placement, due: entry.due)
        tell(
            PendingVerdict.changed(number: 0, verdict),
            place.sequence,
            once: entry.durability,
            log: log
        )
        needSyncInInterval(of: entry, now: now, log: log)
        tellEnd(of: task, entry, place, log: log)
        trace("expired", id, "broker")
        return true
    }

    // MARK: Unique keys

    /// The task that keeps another with this key from being added.
    func holder(
        of unique: UniqueOption,
        named name: UnsafeRawBufferPointer,
        now: Now
    ) -> TaskIndex.Number? {
        let hash = KeyHash(name: name, key: unique.key, seed: tasks.uniqueKeys.seed)
        return tasks.holder(of: hash, at: tasks.stamp(now))
    }

    /// An add whose key another task holds: it is told that task's ID, no earlier than the first add could
    /// be (P1).
    mutating func answerSame(
        _ number: UInt64,
        _ options: EnvelopeOptions,
        _ holder: TaskIndex.Number,
        now: Now,
        log: some TaskLog
    ) {
        let entry = tasks.index[holder]
        // what makes it the holder: its add, or that it was queued once more
        let sequence = entry.epoch == 0 ? entry.sequence : entry.lastSequence
        let asked = options.durability ?? settings.config.durability
        if sequence > durable {
            needSync(asked, isWatched: false, now: now)
            if !entry.durability.isToldOnceWritten { needsSync = true }
        }
        tellOnceWritten(
            .same(
                number: number,
                id: entry.id,
                sequence: sequence,
                isSynced: !entry.durability.isToldOnceWritten
            ),
            sequence,
            log: log
        )
        trace("task is there", entry.id, "broker")
    }

    /// What a final task holds again once it is queued again, and who stands in its way.
    enum Reclaim {
        case nothing
        /// The add's option, as bytes.
        case key([UInt8])
        case heldBy(TaskID)
        /// Its add can't be read.
        case unreadable
    }

    func reclaim(_ task: TaskIndex.Number, now: Now, log: some TaskLog) -> Reclaim {
        let entry = tasks.index[task]
        let read = try? recent.withRecord(at: entry.added, or: log) { bytes -> Reclaim? in
            var reader = WireReader(bytes)
            guard let add = try? StoredAdd(from: &reader),
                let envelope = try? Envelope(add.envelope)
            else { return nil }
            guard let unique = StandingOptions(envelope.options).unique,
                unique.scope.seconds == 0
            else { return .nothing }
            if let holder = holder(of: unique, named: envelope.name, now: now), holder != task {
                return .heldBy(tasks.index.core(holder).id)
            }
            var writer = WireWriter()
            unique.write(to: &writer)
            return .key(writer.bytes)
        }
        return read.flatMap { $0 } ?? .unreadable
    }

    /// A finished task whose window goes on is kept until that is over: it is what repeats are told.
    ///
    /// - Returns: When that is; `nil` where it is forgotten as any other.
    mutating func windowEnd(of task: TaskIndex.Number, now: Now, log: some TaskLog) -> Timestamp? {
        guard tasks.index.core(task).flags.contains(.standing),
            let standing = standing(of: task, log: log), let claim = standing.claim,
            let end = claim.windowEnd, end > tasks.stamp(now)
        else { return nil }
        return end
    }

    /// What a task's add asked for, for as long as it lies in the log.
    private struct Standing {
        var expires: Timestamp?
        var claim: UniqueKeyTable.Claim?
    }

    private mutating func standing(of task: TaskIndex.Number, log: some TaskLog) -> Standing? {
        let entry = tasks.index[task]
        let seed = tasks.uniqueKeys.seed
        do {
            return try recent.withRecord(at: entry.added, or: log) { bytes in
                var reader = WireReader(bytes)
                guard let add = try? StoredAdd(from: &reader),
                    let envelope = try? Envelope(add.envelope)
                else { return nil }
                let standing = StandingOptions(envelope.options)
                let claim = standing.unique.map { unique in
                    UniqueKeyTable.Claim(
                        KeyHash(name: envelope.name, key: unique.key, seed: seed),
                        unique.scope,
                        addedAt: add.addedAt,
                        number: task,
                        sequence: entry.sequence
                    )
                }
                return Standing(expires: standing.expires, claim: claim)
            }
        } catch {
            reportUnreadable(entry, error)
            return nil
        }
    }
}
