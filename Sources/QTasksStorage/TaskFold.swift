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
                flags: TaskEntry.Flags(add.durability)
            )
        )
        lanes.count(lane, from: nil, to: status)
        return number
    }

    mutating func apply(_ lease: StoredLease, at place: StoredPlace) {
        latest = max(latest, lease.at)
        guard let number = index.number(of: lease.id) else { return }
        index[number].lease = lease.lease
        index[number].worker = workers.number(of: lease.worker)
        index[number].attempt &+= 1
        index[number].due = 0
        set(.process, of: number, at: place)
    }

    mutating func apply(_ finish: StoredFinish, at place: StoredPlace) {
        latest = max(latest, finish.at)
        guard let number = index.number(of: finish.result.id) else { return }
        index[number].finished = place.position
        index[number].worker = workers.number(of: finish.worker)
        index[number].due = finish.due?.monotonic(at: now, bootID: bootID) ?? 0
        if OutcomeHead.isFailure(finish.result.outcome) { index[number].failures &+= 1 }
        set(finish.status, of: number, at: place)
    }

    mutating func apply(_ release: StoredRelease, at place: StoredPlace) {
        latest = max(latest, release.at)
        guard let number = index.number(of: release.holding.id) else { return }
        if release.isCounted { index[number].deaths &+= 1 }
        if release.isSuspect { index[number].flags.insert(.suspect) }
        if release.status != .dead { index[number].lease = .none }
        set(release.status, of: number, at: place)
    }

    mutating func apply(_ stale: StoredStale) {
        latest = max(latest, stale.at)
    }

    mutating func apply(_ worker: StoredWorker) {
        latest = max(latest, worker.at)
        workers.set(worker.process, of: worker.id)
    }

    mutating func setWatched(_ isWatched: Bool, _ number: TaskIndex.Number) {
        if isWatched {
            index[number].flags.insert(.watched)
        } else {
            index[number].flags.remove(.watched)
        }
    }

    /// Nobody waits for anything any more: a new Broker says anew what it waits for.
    mutating func unwatchAll() {
        for number in 0..<TaskIndex.Number(index.count) { setWatched(false, number) }
    }

    /// What a repeated add must equal.
    static func contentCRC(_ envelope: Envelope) -> UInt32 {
        clinux_crc32c(0, envelope.bytes.baseAddress, envelope.bytes.count)
    }

    private mutating func set(
        _ status: TaskStatus,
        of number: TaskIndex.Number,
        at place: StoredPlace
    ) {
        lanes.count(index[number].lane, from: index[number].status, to: status)
        index[number].status = status
        index[number].lastSequence = place.sequence
    }
}
