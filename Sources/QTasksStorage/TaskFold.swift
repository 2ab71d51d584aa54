// Part of QTasks. License: see LICENSE.

import CLinux
package import QTasksModel
package import QTasksWire

/// All that follows from the records of the log: each task's state, the counts, the workers.
///
/// What opening replays and what is decided live goes through the same methods, one for each kind of
/// record. They don't ask whether a record holds: that was decided before it was appended.
package struct TaskFold {
    package private(set) var index: TaskIndex
    package private(set) var lanes = LaneTable()
    package private(set) var workers = WorkerTable()

    /// The newest moment in the log: no later record has an earlier one.
    package private(set) var latest = Timestamp(nanoseconds: 0)

    /// How many tasks somebody waits for.
    private var watched = 0

    /// Records of a kind that this version doesn't know; left alone.
    package private(set) var unknownRecords = 0

    /// What due times that hold on the wall clock alone are reckoned from.
    var now: Now

    private let bootID: TaskID

    /// - Parameters:
    ///   - opened: The time of the opening.
    ///   - bootID: This boot of the host.
    ///   - seed: See ``TaskIndex/init(seed:)``.
    package init(opened: Now, bootID: TaskID, seed: UInt64) {
        now = opened
        self.bootID = bootID
        index = TaskIndex(seed: seed)
    }

    /// One record as the log has it.
    ///
    /// - Throws: Where its bytes are not what its kind has; nothing is then changed.
    package mutating func replay(
        kind: UInt8,
        payload: UnsafeRawBufferPointer,
        at place: StoredPlace
    ) throws(WireError) {
        var reader = WireReader(payload)
        switch StoredKind(rawValue: kind) {
        case .add: _ = try apply(try StoredAdd(from: &reader), at: place)
        case .lease: apply(try StoredLease(from: &reader), at: place)
        case .finish: apply(try StoredFinish(from: &reader), at: place)
        case .release: apply(try StoredRelease(from: &reader), at: place)
        case .stale: apply(try StoredStale(from: &reader))
        case .worker: apply(try StoredWorker(from: &reader))
        case nil: unknownRecords += 1
        }
    }

    /// The moment a record gets: never earlier than one before it, also when the wall clock is set
    /// back.
    package func stamp(_ now: Now) -> Timestamp {
        max(latest, now.wall)
    }

    /// A task was added, and has the number that is returned.
    mutating func apply(
        _ add: StoredAdd,
        at place: StoredPlace
    ) throws(WireError) -> TaskIndex.Number {
        apply(add, envelope: try Envelope(add.envelope), at: place)
    }

    mutating func apply(
        _ add: StoredAdd,
        envelope: Envelope,
        at place: StoredPlace
    ) -> TaskIndex.Number {
        latest = max(latest, add.addedAt)
        let lane = lanes.number(name: envelope.name, queue: envelope.queue)
        let status: TaskStatus = add.due == nil ? .new : .scheduled
        let number = index.insert(
            TaskEntry(
                id: envelope.id,
                sequence: place.sequence,
                lastSequence: place.sequence,
                added: place.position,
                due: add.due?.monotonic(at: now, bootID: bootID) ?? 0,
                contentCRC: Self.contentCRC(envelope),
                lane: lane,
                priority: envelope.priority,
                status: status,
                flags: add.durability == .written ? .writtenSuffices : []
            )
        )
        lanes.count(lane, from: nil, to: status)
        return number
    }

    mutating func apply(_ lease: StoredLease, at place: StoredPlace) {
        latest = max(latest, lease.at)
        guard let number = index.number(of: lease.id) else { return }
        change(number, at: place) { entry, fold in
            fold.give(&entry, to: lease.worker)
            entry.lease = lease.lease
            entry.attempt &+= 1
            entry.due = 0
            entry.status = .process
        }
    }

    mutating func apply(_ finish: StoredFinish, at place: StoredPlace) {
        latest = max(latest, finish.at)
        guard let number = index.number(of: finish.result.id) else { return }
        change(number, at: place) { entry, fold in
            fold.give(&entry, to: finish.worker)
            entry.finished = place.position
            entry.finishedBytes = 0
            entry.due = finish.due?.monotonic(at: fold.now, bootID: fold.bootID) ?? 0
            if OutcomeHead.isFailure(finish.result.outcome) { entry.failures &+= 1 }
            entry.status = finish.status
        }
    }

    mutating func apply(_ release: StoredRelease, at place: StoredPlace) {
        latest = max(latest, release.at)
        guard let number = index.number(of: release.holding.id) else { return }
        change(number, at: place) { entry, fold in
            // `goneBefore` is said of a worker as well that nobody can tell anything of
            if release.cause == .death { fold.workers.hasEnded(entry.worker) }
            if release.isCounted { entry.deaths &+= 1 }
            if release.isSuspect { entry.flags.insert(.suspect) }
            if release.status != .dead { entry.lease = .none }
            entry.status = release.status
        }
    }

    mutating func apply(_ stale: StoredStale) {
        latest = max(latest, stale.at)
    }

    mutating func apply(_ worker: StoredWorker) {
        latest = max(latest, worker.at)
        workers.set(worker.process, of: worker.id)
    }

    /// Forgets a task, and with the last one that speaks of a worker that worker; the number is given
    /// out again.
    mutating func remove(_ number: TaskIndex.Number) {
        let entry = index[number]
        setWatched(false, number)
        lanes.count(entry.lane, from: entry.status, to: nil)
        workers.release(entry.worker)
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
        let old = entry.status
        body(&entry, &self)
        entry.lastSequence = place.sequence
        index[number] = entry
        lanes.count(entry.lane, from: old, to: entry.status)
    }

    private mutating func give(_ entry: inout TaskEntry, to worker: WorkerID) {
        // the new one first: it may be the old one, which else would be forgotten in between
        let number = workers.retain(worker)
        workers.release(entry.worker)
        entry.worker = number
    }
}
