// Part of QTasks. License: see LICENSE.
//
// What the Broker proposes, by the table of recovery.md, chapter 4: a change holds only if the task
// is as the proposal expects it; else the answer is what holds now.

package import QTasksModel
import QTasksWire

extension StorageState {
    /// A message of the Broker's current session; `attachment` is its second frame, if it has one.
    ///
    /// Releases in it are only taken note of: read what lies in the PULL socket first, then call
    /// ``decideReleases(now:log:)``, so that a result that arrived before its worker's death counts (H26).
    package mutating func brokerMessage(
        _ bytes: UnsafeRawBufferPointer,
        attachment: UnsafeRawBufferPointer? = nil,
        now: Now,
        log: some TaskLog
    ) {
        guard failure == nil, isServing else { return }
        var reader = WireReader(bytes)
        do {
            let header = try MessageHeader.read(from: &reader)
            switch header.command {
            case .propose:
                guard header.number == sessionNumber else { return }
                while !reader.isAtEnd, failure == nil {
                    let proposal = try Proposal(from: &reader, attachment: attachment)
                    decide(proposal, now: now, log: log)
                }
            case .stopStorage: outbox.shallStop = true
            default: throw WireError.invalid(field: "command")
            }
        } catch {
            countMalformed("from the Broker", error)
        }
    }

    /// Whether releases wait for ``decideReleases(now:log:)``.
    package var hasReleases: Bool { !releases.isEmpty }

    /// Decides the releases that were proposed.
    package mutating func decideReleases(now: Now, log: some TaskLog) {
        let proposed = releases
        releases.removeAll(keepingCapacity: true)
        for end in proposed {
            switch end {
            case .release(let release): decide(release, now: now, log: log)
            case .overdue(let overdue): decide(overdue, now: now, log: log)
            case .evidence(let evidence): decide(evidence, now: now, log: log)
            }
        }
    }

    /// Whether proposals wait for room in the log.
    package var awaitsSpace: Bool { !deferred.isEmpty }

    /// The log may have room again: decides what waited for it.
    package mutating func spaceMayBeBack(now: Now, log: some TaskLog) {
        let waiting = deferred
        deferred = []
        for proposal in waiting {
            switch proposal {
            case .lease(let number, let place, let lease, let worker, let synced):
                decideLease(number, place, lease, worker, synced, now: now, log: log)
            case .release(let release): decide(release, now: now, log: log)
            case .overdue(let overdue): decide(overdue, now: now, log: log)
            case .worker(let id, let process): learn(id, process, now: now, log: log)
            case .evidence(let evidence): decide(evidence, now: now, log: log)
            }
        }
    }

    private mutating func decide(
        _ proposal: Proposal,
        now: Now,
        log: some TaskLog
    ) {
        switch proposal {
        case .add(let number, let isWatched, let lease, let worker, let envelope):
            let first = FirstLease(lease: lease, worker: worker)
            decideAdd(number, envelope, first, isWatched, now: now, log: log)
        case .lease(let number, let place, let lease, let worker, let synced):
            decideLease(number, place, lease, worker, synced, now: now, log: log)
        case .release(let number, let holding, let cause, let isShared, let counts):
            let release = Release(
                number: number,
                holding: holding,
                cause: cause,
                isShared: isShared,
                counts: counts
            )
            releases.append(.release(release))
        case .overdue(let number, let holding, let attempt):
            releases.append(
                .overdue(Overdue(number: number, holding: holding, attempt: attempt))
            )
        case .watch(let id): watch(id, log: log)
        case .read(let number, let id, let isWhole): read(number, id, isWhole, log: log)
        case .worker(let id, let process): learn(id, process, now: now, log: log)
        case .count(let number): tellCounts(number)
        case .compact(let number): compactions.wanted.append(number)
        case .reader(let id, let isReader):
            if isReader { readers.insert(id) } else { readers.remove(id) }
        case .change(let number, let change, let id, let reason):
            decide(change, number, id, reason, now: now, log: log)
        case .queue(let number, let message): decide(number, message, now: now, log: log)
        case .evidence(let number, let exit):
            releases.append(.evidence(Evidence(number: number, exit: exit)))
        }
    }

    // MARK: ADD

    /// The lease that an add brings with it, `none` where no slot was free.
    private struct FirstLease {
        var lease: Lease
        var worker: WorkerID
    }

    private mutating func decideAdd(
        _ number: UInt64,
        _ bytes: UnsafeRawBufferPointer,
        _ first: FirstLease,
        _ isWatched: Bool,
        now: Now,
        log: some TaskLog
    ) {
        let envelope: Envelope
        let options: EnvelopeOptions
        do {
            envelope = try Envelope(bytes)
            options = try EnvelopeOptions(envelope.options)
        } catch {
            return refuse(number, .malformed, "the envelope: \(error)")
        }
        if let known = tasks.index.number(of: envelope.id) {
            return answerRepeat(number, envelope, known, log: log)
        }
        if let refusal = refusal(of: envelope, options) {
            return say(.refused(number: number, refusal))
        }
        if let unique = options.unique,
            let holder = holder(of: unique, named: envelope.name, now: now)
        {
            return answerSame(number, options, holder, now: now, log: log)
        }
        guard !log.isShortOfSpace else { return refuseForSpace(number) }
        guard
            let task = append(
                envelope,
                options,
                isWatched: isWatched,
                now: now,
                number: number,
                log: log
            )
        else { return }
        if isWatched { tasks.setWatched(true, task) }
        let isOverdue = options.expires.map { $0 <= now.wall } ?? false
        if first.lease != .none, !isOverdue, tasks.index[task].status == .new {
            _ = append(first.lease, of: envelope.id, to: first.worker, now: now, log: log)
        }
        let entry = tasks.index[task]
        // what this turn's records were stamped with
        let addedAt = tasks.latest
        let verdict = PendingVerdict.added(
            number: number,
            place: QueuedPlace(sequence: entry.sequence, handle: task),
            leased: entry.status == .process,
            due: entry.due,
            addedAt: addedAt
        )
        tellOnceWritten(verdict, entry.lastSequence, log: log)
        trace("new task saved", entry.id, "broker")
    }

    /// The same again (P1): it is acknowledged no earlier than the first one.
    private mutating func answerRepeat(
        _ number: UInt64,
        _ envelope: Envelope,
        _ task: TaskIndex.Number,
        log: some TaskLog
    ) {
        guard tasks.index[task].contentCRC == TaskFold.contentCRC(envelope) else {
            return refuse(
                number,
                .conflict,
                "task \(envelope.id) is there already, with another content: use a new ID"
            )
        }
        tellOnceWritten(.exists(number: number, task), tasks.index[task].sequence, log: log)
    }

    /// What would make a record that nobody can write or read again.
    private func refusal(of envelope: Envelope, _ options: EnvelopeOptions) -> Refusal? {
        guard TaskName.isValid(envelope.name) else {
            return Refusal(.badName, "the task's name isn't 1 to 255 bytes of plain UTF-8")
        }
        guard envelope.queue.isEmpty || TaskName.isValid(envelope.queue) else {
            return Refusal(.badName, "the queue's name isn't 1 to 255 bytes of plain UTF-8")
        }
        guard options.key.map({ TaskSubmission.keyBytes.contains($0.count) }) ?? true else {
            return Refusal(.badOption, "a key has 1 to \(TaskSubmission.keyBytes.upperBound) bytes")
        }
        guard options.headers.allSatisfy({ !$0.name.isEmpty }) else {
            return Refusal(.badOption, "a header has no name: it takes 1 to 255 bytes")
        }
        return nil
    }

    private mutating func append(
        _ envelope: Envelope,
        _ options: EnvelopeOptions,
        isWatched: Bool,
        now: Now,
        number: UInt64,
        log: some TaskLog
    ) -> TaskIndex.Number? {
        let add = StoredAdd(
            addedAt: tasks.stamp(now),
            durability: options.durability ?? settings.config.durability,
            due: due(of: options.start, now: now),
            envelope: envelope.bytes
        )
        head.removeAll()
        add.writeHead(to: &head)
        switch append(.add, body: envelope.bytes, log: log) {
        case .appended(let place):
            counters.adds += 1
            tasks.now = now
            needSync(add.durability, isWatched: isWatched, now: now)
            return tasks.apply(add, envelope: envelope, at: place)
        case .noSpace: refuseForSpace(number)
        case .tooLong: refuse(number, .payloadTooLarge, "the log takes no record that long")
        case .failed: break
        }
        return nil
    }

    private func due(of start: TaskSubmission.Start, now: Now) -> StoredDue? {
        switch start {
        case .now: return nil
        case .after(let milliseconds): return due(after: milliseconds, now: now)
        case .at(let moment):
            guard moment > now.wall else { return nil }
            return StoredDue(wall: moment, boot: 0, bootID: settings.bootID)
        }
    }

    /// A wait of that length from now; what no clock can hold is cut.
    func due(after milliseconds: UInt64, now: Now) -> StoredDue {
        let longest = UInt64(Int64.max) / 4
        let wait = milliseconds > longest / 1_000_000 ? longest : milliseconds * 1_000_000
        let wall = now.wall.nanoseconds.addingReportingOverflow(Int64(wait))
        return StoredDue(
            wall: Timestamp(nanoseconds: wall.overflow ? .max : wall.partialValue),
            boot: max(1, now.monotonic &+ wait),
            bootID: settings.bootID
        )
    }

    private mutating func refuse(_ number: UInt64, _ code: RefusalCode, _ message: String) {
        say(.refused(number: number, Refusal(code, message)))
    }

    private mutating func refuseForSpace(_ number: UInt64) {
        refuse(
            number,
            .storageUnavailable,
            "the disk under '\(settings.directory)' is full: free some space there, "
                + "then new tasks are taken again"
        )
    }

    // MARK: LEASE

    private mutating func decideLease(
        _ number: UInt64,
        _ place: QueuedPlace,
        _ lease: Lease,
        _ worker: WorkerID,
        _ synced: Bool,
        now: Now,
        log: some TaskLog
    ) {
        let task = place.handle
        // gone, or another task that got its number
        guard tasks.index.isUsed(task), tasks.index.core(task).sequence == place.sequence else {
            return say(.stale(number: number, status: nil))
        }
        endIfOverdue(task, now: now, log: log)
        let entry = tasks.index[task]
        guard lease != .none, entry.status == .new || entry.status == .scheduled else {
            // after the word of the cancel that ended it, if that is still untold: by this the Broker knows
            // that the task stands in no line
            let verdict = PendingVerdict.notLeased(number: number, entry.status)
            return entry.status.isFinal
                ? tell(verdict, entry.lastSequence, once: entry.durability, log: log)
                : tell(verdict, log: log)
        }
        guard entry.status == .new || entry.due.isReached(at: now) else {
            return say(.early(number: number, due: entry.due))
        }
        // its worker may be among what found no room
        guard deferred.isEmpty else {
            return deferred.append(.lease(number: number, place, lease, worker, synced: synced))
        }
        switch append(lease, of: entry.id, to: worker, now: now, log: log) {
        case .appended(let stored):
            let verdict = PendingVerdict.leased(number: number, task, lease)
            // the Broker may have asked before it heard of a requeue: that comes first, or it would take
            // the task for one that waits
            let isAfterRequeue = entry.epoch > 0 && entry.attempt == 0
            let durability = isAfterRequeue ? entry.durability : .written
            tell(verdict, stored.sequence, once: synced ? .synced : durability, log: log)
            trace("lease", entry.id, "worker \(worker)")
        case .noSpace:
            deferred.append(.lease(number: number, place, lease, worker, synced: synced))
        case .tooLong: preconditionFailure("a lease's record is shorter than any limit")
        case .failed: break
        }
    }

    private mutating func append(
        _ lease: Lease,
        of id: TaskID,
        to worker: WorkerID,
        now: Now,
        log: some TaskLog
    ) -> Appended {
        let stored = StoredLease(at: tasks.stamp(now), id: id, lease: lease, worker: worker)
        head.removeAll()
        stored.writeHead(to: &head)
        let appended = append(.lease, log: log)
        if case .appended(let place) = appended {
            counters.leases += 1
            tasks.apply(stored, at: place)
        }
        return appended
    }

    // MARK: RELEASE

    private mutating func decide(
        _ release: Release,
        now: Now,
        log: some TaskLog
    ) {
        guard failure == nil else { return }
        guard let task = known(release.holding.id) else {
            let verdict = PendingVerdict.released(
                number: release.number,
                release.holding,
                status: nil,
                isSuspect: false
            )
            return tell(verdict, log: log)
        }
        let entry = tasks.index[task]
        guard entry.status == .process, entry.lease == release.holding.lease else {
            // after the word of the result that ended it, if that is still untold
            let verdict = PendingVerdict.released(
                number: release.number,
                release.holding,
                status: entry.status,
                isSuspect: entry.isSuspect
            )
            return tell(verdict, entry.lastSequence, once: entry.durability, log: log)
        }
        if release.cause == .unreadable { tasks.sendWhole(task) }
        let isCounted = release.cause == .death && release.counts
        let isDead = isCounted && entry.deaths + 1 >= maxDeliveries(of: entry, log: log)
        let stored = StoredRelease(
            at: tasks.stamp(now),
            holding: release.holding,
            cause: release.cause == .unreadable ? .handedBack : release.cause,
            status: isDead ? .dead : .new,
            isSuspect: entry.isSuspect || release.isShared,
            isCounted: isCounted
        )
        head.removeAll()
        stored.writeHead(to: &head)
        switch append(.release, log: log) {
        case .appended(let place):
            counters.releases += 1
            tasks.apply(stored, at: place)
            dropReference(of: task, log: log)
            if isDead { retain(task) }
            let verdict = PendingVerdict.released(
                number: release.number,
                release.holding,
                status: stored.status,
                isSuspect: stored.isSuspect
            )
            tellOnceWritten(verdict, place.sequence, log: log)
            if isDead { needSyncInInterval(of: entry, now: now, log: log) }
            if isDead, entry.isWatched {
                let end = PendingVerdict.final(task, epoch: entry.epoch)
                tell(end, place.sequence, once: entry.durability, log: log)
            }
            trace("released", entry.id, "\(release.cause)")
        case .noSpace: deferred.append(.release(release))
        case .tooLong: preconditionFailure("a release's record is shorter than any limit")
        case .failed: break
        }
    }

    // MARK: The rest

    private mutating func watch(_ id: TaskID, log: some TaskLog) {
        guard let task = known(id) else {
            return say(.final(id: id, record: UnsafeRawBufferPointer(start: nil, count: 0)))
        }
        let entry = tasks.index[task]
        if entry.status.isFinal {
            let end = PendingVerdict.final(task, epoch: entry.epoch)
            tell(end, entry.lastSequence, once: entry.durability, log: log)
        } else {
            tasks.setWatched(true, task)
        }
    }

    private mutating func read(
        _ number: UInt64,
        _ id: TaskID,
        _ isWhole: Bool,
        log: some TaskLog
    ) {
        guard let task = known(id) else {
            let none = UnsafeRawBufferPointer(start: nil, count: 0)
            return say(.record(number: number, record: none))
        }
        let entry = tasks.index[task]
        let verdict = PendingVerdict.record(number: number, task, isWhole: isWhole)
        if entry.status.isFinal {
            tell(verdict, entry.lastSequence, once: entry.durability, log: log)
        } else {
            tellOnceWritten(verdict, entry.lastSequence, log: log)
        }
    }

    private mutating func learn(
        _ id: WorkerID,
        _ process: WorkerProcess,
        now: Now,
        log: some TaskLog
    ) {
        guard tasks.workers.process(of: id) != process else { return }
        let stored = StoredWorker(at: tasks.stamp(now), id: id, process: process)
        head.removeAll()
        stored.writeHead(to: &head)
        switch append(.worker, log: log) {
        case .appended(let place): tasks.apply(stored, at: place.position)
        case .noSpace:
            // a later Storage would take the leases of a worker back that it doesn't know (P5)
            deferred.removeAll { if case .worker(id, _) = $0 { true } else { false } }
            deferred.append(.worker(id, process))
        case .tooLong: preconditionFailure("a worker's record is shorter than any limit")
        case .failed: break
        }
    }

    private mutating func tellCounts(_ number: UInt64) {
        var counts = WireWriter()
        tasks.lanes.writeCounts(to: &counts)
        counts.bytes.withUnsafeBytes { say(.counts(number: number, bytes: $0)) }
    }
}
