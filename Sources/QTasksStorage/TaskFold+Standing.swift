// Part of QTasks. License: see LICENSE.
//
// What a few tasks' adds ask for beyond their beginning: a time by which they are leased, a unique
// key. Neither is looked for in any other task.

import QTasksModel
import QTasksWire

extension TaskFold {
    /// A task came, from an add or with all that had happened to it since.
    mutating func note(
        _ standing: StandingOptions,
        of number: TaskIndex.Number,
        name: UnsafeRawBufferPointer,
        addedAt: Timestamp
    ) {
        guard standing.expires != nil || standing.unique != nil else { return }
        index.setFlags(index.core(number).flags.union(.standing), of: number)
        let sequence = index.core(number).sequence
        if let expires = standing.expires {
            note(deadline: expires, of: number)
        }
        if let unique = standing.unique {
            claim(
                UniqueKeyTable.Claim(
                    KeyHash(name: name, key: unique.key, seed: uniqueKeys.seed),
                    unique.scope,
                    addedAt: addedAt,
                    number: number,
                    sequence: sequence
                )
            )
        }
    }

    // MARK: Deadlines

    /// A task that is to be leased by then, or not at all.
    mutating func note(deadline: Timestamp, of number: TaskIndex.Number) {
        guard index.awaitsFirstLease(number) else { return }
        let index = index
        deadlines.insert(
            TimedTasks.Entry(
                moment: deadline.nanoseconds,
                sequence: index.core(number).sequence,
                number: number
            ),
            isConcerned: index.isDeadline
        )
    }

    /// The task that has to be leased next, and by when.
    mutating func firstDeadline() -> TimedTasks.Entry? {
        guard deadlines.count > 0 else { return nil }
        let index = index
        return deadlines.first(isConcerned: index.isDeadline)
    }

    // MARK: Keys

    /// A task holds a key, if it does by what it is.
    mutating func claim(_ claim: UniqueKeyTable.Claim) {
        let (index, moment) = (index, latest)
        guard index.holds(claim, at: moment) else { return }
        let since = index.heldSince(claim)
        uniqueKeys.insert(
            claim,
            isOlder: { index.heldSince($0) < since },
            holds: { index.holds($0, at: moment) }
        )
    }

    /// A task that had ended waits again, and holds its key again.
    mutating func claim(_ unique: UniqueOption, of number: TaskIndex.Number) {
        let core = index.core(number)
        index.setFlags(core.flags.union(.standing), of: number)
        // a window is reckoned from the add, whatever becomes of its task
        guard unique.scope.seconds == 0 else { return }
        claim(
            UniqueKeyTable.Claim(
                hash(of: unique, core),
                unique.scope,
                addedAt: latest,
                number: number,
                sequence: core.sequence
            )
        )
    }

    /// A key of a task that is there.
    func hash(of unique: UniqueOption, _ core: TaskCore) -> KeyHash {
        var name = lanes[core.lane].name
        return name.withUTF8 {
            KeyHash(name: UnsafeRawBufferPointer($0), key: unique.key, seed: uniqueKeys.seed)
        }
    }

    /// Who holds a key at that moment.
    func holder(of hash: KeyHash, at moment: Timestamp) -> TaskIndex.Number? {
        guard let claim = uniqueKeys.claim(of: hash), index.holds(claim, at: moment) else {
            return nil
        }
        return claim.number
    }

    /// Drops a few keys that nobody holds.
    ///
    /// No later record has an earlier moment, so that a window which was over once is over for good
    /// also by what the log tells, however the clock is set.
    mutating func sweepKeys(_ count: Int, at moment: Timestamp) {
        guard uniqueKeys.count > 0 else { return }
        latest = max(latest, moment)
        let index = index
        uniqueKeys.sweep(count) { index.holds($0, at: moment) }
    }
}

extension TaskIndex {
    /// It was never leased, nor queued again by an operator.
    func awaitsFirstLease(_ number: Number) -> Bool {
        let core = core(number)
        switch core.status {
        case .new, .scheduled: break
        case .process, .success, .error, .cancel, .dead, nil: return false
        }
        guard core.link != 0 else { return true }
        let entry = self[number]
        return entry.attempt == 0 && entry.epoch == 0
    }

    func isDeadline(_ entry: TimedTasks.Entry) -> Bool {
        isUsed(entry.number) && core(entry.number).sequence == entry.sequence
            && awaitsFirstLease(entry.number)
    }

    /// Whether the task of a claim holds the key, by what it is.
    func holds(_ claim: UniqueKeyTable.Claim, at moment: Timestamp) -> Bool {
        guard isUsed(claim.number) else { return false }
        let core = core(claim.number)
        guard core.sequence == claim.sequence, !core.flags.contains(.expiring),
            let status = core.status
        else { return false }
        if let end = claim.windowEnd { return moment < end }
        if claim.scope == UniqueKey.Scope.whileUnfinished.code { return !status.isFinal }
        guard status == .new || status == .scheduled else { return false }
        return core.link == 0 || self[claim.number].attempt == 0
    }

    /// A record at which it held: a window's is its add; else the newest that changed the task.
    fileprivate func heldSince(_ claim: UniqueKeyTable.Claim) -> UInt64 {
        claim.windowEnd == nil ? self[claim.number].lastSequence : claim.sequence
    }
}
