// Part of QTasks. License: see LICENSE.

import AppendLog
import CLinux
package import QTasksModel
package import QTasksWire

/// All that follows from the records of the log: each task's state, the counts, the workers.
///
/// What opening replays and what is decided live goes through the same methods, one for each kind of
/// record. They don't ask whether a record holds: that was decided before it was appended.
package struct TaskFold {
    package internal(set) var index: TaskIndex
    package internal(set) var lanes = LaneTable()
    package internal(set) var workers = WorkerTable()
    package internal(set) var queues = QueueTable()

    /// The keys of those that may still run.
    var keys = TaskKeys()

    /// How many bytes of each segment somebody may still ask for.
    package internal(set) var usage = SegmentUsage()

    /// How workers ended that died with tasks in hand.
    package internal(set) var evidence = EvidenceTable()
    /// Ends of leases that such evidence may yet come of; not part of what the log says.
    var unexplained = UnexplainedDeaths()
    /// Tasks that are to be leased by a moment, or not at all.
    var deadlines = TimedTasks()

    /// Who holds which unique key.
    var uniqueKeys: UniqueKeyTable

    /// The newest moment in the log: no later record has an earlier one.
    package internal(set) var latest = Timestamp(nanoseconds: 0)

    /// The newest record of the log that is in this.
    package internal(set) var lastSequence: UInt64 = 0

    /// How many tasks somebody waits for.
    private var watched = 0

    /// Where results lie whose task comes later in the log, since compaction has carried that forward;
    /// while the log is replayed.
    var early: [TaskID: StoredPlace] = [:]

    /// Records of a kind that this version doesn't know; left alone.
    ///
    /// A store that is open for writing has such from ``StoredKind/firstIgnorable`` on alone.
    package private(set) var unknownRecords = 0

    /// What waits that another boot began are reckoned from.
    var now: Now

    /// What they were reckoned from.
    var wallClock: WallClock

    let bootID: TaskID
    let seed: UInt64

    /// - Parameters:
    ///   - opened: The time of the opening.
    ///   - bootID: This boot of the host.
    ///   - seed: See ``TaskIndex/init(seed:)``.
    package init(opened: Now, bootID: TaskID, seed: UInt64) {
        now = opened
        wallClock = WallClock(opened)
        self.bootID = bootID
        self.seed = seed
        index = TaskIndex(seed: seed)
        uniqueKeys = UniqueKeyTable(seed: KeyHash.Seed(one: seed, other: bootID.low ^ ~seed))
    }

    /// One record as the log has it, in the order in which they lie.
    ///
    /// What a task has already is passed over: a checkpoint has some of what comes behind it.
    ///
    /// - Parameters:
    ///   - kind: The record's.
    ///   - payload: Its bytes.
    ///   - place: Where it lies.
    ///   - isCopy: Compaction carried it forward: it has the sequence of the one that it stands for.
    /// - Throws: Where its bytes are not what its kind has; nothing is then changed.
    package mutating func replay(
        kind: UInt8,
        payload: UnsafeRawBufferPointer,
        at place: StoredPlace,
        isCopy: Bool = false
    ) throws(WireError) {
        var reader = WireReader(payload)
        switch StoredKind(rawValue: kind) {
        case .add:
            let add = try StoredAdd(from: &reader)
            let envelope = try Envelope(add.envelope)
            if let known = index.number(of: envelope.id) {
                guard index.core(known).sequence < place.sequence else { return }
                remove(known)  // it was forgotten, and the record that said so is lost
            }
            _ = apply(add, envelope: envelope, at: place)
        case .lease: apply(try StoredLease(from: &reader), at: place)
        case .finish, .cancel:
            let finish = try StoredFinish(from: &reader)
            if index.number(of: finish.result.id) == nil {
                early[finish.result.id] = place
            } else if isCopy {
                moveResult(of: finish.result.id, to: place)
            } else if kind == StoredKind.cancel.rawValue {
                apply(cancel: finish, at: place)
            } else {
                apply(finish, at: place)
            }
        case .requeue: apply(try StoredRequeue(from: &reader), at: place)
        case .release: apply(try StoredRelease(from: &reader), at: place)
        case .stale: apply(try StoredStale(from: &reader))
        case .worker: apply(try StoredWorker(from: &reader), at: place.position)
        case .evidence: apply(try StoredEvidence(from: &reader), at: place)
        case .carried: try apply(try StoredCarried(from: &reader), at: place, isCopy: isCopy)
        case .expire: apply(try StoredExpire(from: &reader), at: place)
        case .queue: apply(try StoredQueue(from: &reader), at: place)
        case nil: unknownRecords += 1
        }
        if !isCopy { lastSequence = max(lastSequence, place.sequence) }
    }

    /// The moment a record gets: never earlier than one before it, also when the wall clock is set
    /// back.
    package func stamp(_ now: Now) -> Timestamp {
        max(latest, now.wall)
    }

    /// A task was added, and has the number that is returned.
    mutating func apply(
        _ add: StoredAdd,
        envelope: Envelope,
        at place: StoredPlace
    ) -> TaskIndex.Number {
        latest = max(latest, add.addedAt)
        let lane = lanes.number(name: envelope.name, queue: envelope.queue)
        let standing = StandingOptions(envelope.options)
        let status: TaskStatus = add.due == nil ? .new : .scheduled
        var entry = TaskEntry(
            id: envelope.id,
            sequence: place.sequence,
            lastSequence: place.sequence,
            added: place.position,
            addedBytes: place.bytes,
            due: .none,
            contentCRC: Self.contentCRC(envelope),
            lane: lane,
            keptFor: Self.keptFor(standing),
            priority: envelope.priority,
            status: status,
            flags: TaskEntry.Flags(add.durability)
        )
        setDue(of: &entry, add.due)
        let number = index.insert(entry)
        lanes.count(lane, from: nil, to: status)
        noteKey(of: number, standing)
        usage.add(index.core(number).addedBytes.bytes, in: place.position.segment)
        note(standing, of: number, name: envelope.name, addedAt: add.addedAt)
        return number
    }

    /// What an add says of how long its task is kept, in seconds; 0 where it doesn't.
    static func keptFor(_ standing: StandingOptions) -> UInt32 {
        standing.retentionSeconds.map { UInt32(clamping: max(1, $0)) } ?? 0
    }

    mutating func apply(_ lease: StoredLease, at place: StoredPlace) {
        latest = max(latest, lease.at)
        guard let number = index.number(of: lease.id) else { return }
        change(number, at: place) { entry, fold in
            fold.give(&entry, to: lease.worker)
            entry.lease = lease.lease
            entry.attempt &+= 1
            fold.setDue(of: &entry, nil)
            entry.status = .process
        }
    }

    mutating func apply(_ finish: StoredFinish, at place: StoredPlace) {
        latest = max(latest, finish.at)
        guard let number = index.number(of: finish.result.id) else { return }
        change(number, at: place) { entry, fold in
            fold.give(&entry, to: finish.worker)
            fold.setResult(of: &entry, place.position, bytes: place.bytes)
            fold.setDue(of: &entry, finish.due)
            if OutcomeHead.isFailure(finish.result.outcome) { entry.failures &+= 1 }
            entry.status = finish.status
            if finish.status.isFinal { entry.end(at: finish.at) }
        }
    }

    /// A task ended without its worker's word.
    ///
    /// It has no lease any more: whatever its worker says afterwards is another lease's.
    mutating func apply(cancel: StoredFinish, at place: StoredPlace) {
        latest = max(latest, cancel.at)
        guard let number = index.number(of: cancel.result.id) else { return }
        change(number, at: place) { entry, fold in
            fold.setResult(of: &entry, place.position, bytes: place.bytes)
            entry.lease = .none
            fold.setDue(of: &entry, nil)
            entry.status = cancel.status
            entry.end(at: cancel.at)
        }
    }

    /// A final task waits again, as if it had just been added.
    mutating func apply(_ requeue: StoredRequeue, at place: StoredPlace) {
        latest = max(latest, requeue.at)
        dropEvidence(of: requeue.id, before: place.sequence)
        guard let number = index.number(of: requeue.id) else { return }
        change(number, at: place) { entry, fold in
            fold.usage.remove(entry.finishedBytes, in: entry.finished.segment)
            entry.finished = .none
            entry.finishedBytes = 0
            fold.workers.release(entry.worker)
            entry.worker = WorkerTable.none
            entry.lease = .none
            entry.attempt = 0
            entry.failures = 0
            entry.deaths = 0
            entry.endedAt = 0
            entry.flags.remove(.suspect)
            entry.epoch = requeue.epoch
            entry.status = .new
        }
        if let unique = requeue.unique { claim(unique, of: number) }
    }

    mutating func apply(_ release: StoredRelease, at place: StoredPlace) {
        latest = max(latest, release.at)
        guard let number = index.number(of: release.holding.id) else { return }
        change(number, at: place) { entry, fold in
            // `goneBefore` is said of a worker as well that nobody can tell anything of
            if release.cause == .death { fold.workers.hasEnded(entry.worker) }
            // also where the Broker that would have seen it was gone as well
            if release.cause == .death || release.cause == .goneBefore {
                fold.noteDeath(release.holding, of: entry.worker)
            }
            if release.isCounted { entry.deaths &+= 1 }
            if release.isSuspect { entry.flags.insert(.suspect) }
            if release.status != .dead { entry.lease = .none }
            entry.status = release.status
            if release.status.isFinal { entry.end(at: release.at) }
        }
    }

    mutating func apply(_ stale: StoredStale) {
        latest = max(latest, stale.at)
    }

    mutating func apply(_ worker: StoredWorker, at place: RecordPosition) {
        latest = max(latest, worker.at)
        workers.set(worker.process, of: worker.id, at: place)
    }

    mutating func apply(_ queue: StoredQueue, at place: StoredPlace) {
        latest = max(latest, queue.at)
        queues.apply(queue, at: place)
    }

    /// A task that may run has the key that its add said.
    mutating func noteKey(of number: TaskIndex.Number, _ standing: StandingOptions) {
        guard let key = standing.key, index.core(number).status != .success else { return }
        keys.set(key, of: number)
    }

    /// Forgets a task, and with the last one that speaks of a worker that worker; the number is given
    /// out again.
    mutating func remove(_ number: TaskIndex.Number) {
        let entry = index[number]
        setWatched(false, number)
        keys.remove(of: number)
        lanes.count(entry.lane, from: entry.status, to: nil)
        workers.release(entry.worker)
        usage.remove(entry.addedBytes, in: entry.added.segment)
        usage.remove(entry.finishedBytes, in: entry.finished.segment)
        dropEvidence(of: entry.id)
        index.remove(number)
    }

    mutating func setWatched(_ isWatched: Bool, _ number: TaskIndex.Number) {
        var flags = index.core(number).flags
        guard flags.contains(.watched) != isWatched else { return }
        if isWatched {
            flags.insert(.watched)
            watched += 1
        } else {
            flags.remove(.watched)
            watched -= 1
        }
        index.setFlags(flags, of: number)
    }

    /// Its arguments are sent along from now on, however large they are.
    mutating func sendWhole(_ number: TaskIndex.Number) {
        index.setFlags(index.core(number).flags.union(.sentWhole), of: number)
    }

    /// Nobody waits for anything any more: a new Broker says anew what it waits for.
    mutating func unwatchAll() {
        var number: TaskIndex.Number = 0
        while watched > 0 {
            if index.isUsed(number) { setWatched(false, number) }
            number += 1
        }
    }

    /// What a repeated add must equal.
    static func contentCRC(_ envelope: Envelope) -> UInt32 {
        clinux_crc32c(0, envelope.bytes.baseAddress, envelope.bytes.count)
    }

    /// What a record makes of a task; the worker of the entry is changed by ``give(_:to:)`` alone.
    @inline(__always)
    private mutating func change(
        _ number: TaskIndex.Number,
        at place: StoredPlace,
        _ body: (inout TaskEntry, inout TaskFold) -> Void
    ) {
        var entry = index[number]
        guard place.sequence > entry.lastSequence else { return }
        let old = entry.status
        body(&entry, &self)
        entry.lastSequence = place.sequence
        index[number] = entry
        lanes.count(entry.lane, from: old, to: entry.status)
        // any other end may be undone by a requeue
        if entry.status == .success { keys.remove(of: number) }
    }

    mutating func give(_ entry: inout TaskEntry, to worker: WorkerID) {
        // the new one first: it may be the old one, which else would be forgotten in between
        let number = workers.retain(worker)
        workers.release(entry.worker)
        entry.worker = number
    }
}
