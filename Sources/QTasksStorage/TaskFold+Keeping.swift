// Part of QTasks. License: see LICENSE.
//
// What compaction and retention make of tasks: nothing that anybody outside would notice.

import AppendLog
import QTasksModel
import QTasksWire

extension TaskFold {
    /// A task stands at another place, with all that had happened to it by then.
    ///
    /// - Parameters:
    ///   - carried: What the record tells.
    ///   - place: Where it lies.
    ///   - isCopy: Compaction wrote it; else it begins the task, in a store that was salvaged.
    /// - Throws: Where its envelope can't be read; nothing is then changed.
    mutating func apply(
        _ carried: StoredCarried,
        at place: StoredPlace,
        isCopy: Bool
    ) throws(WireError) {
        let envelope = try Envelope(carried.add.envelope)
        latest = max(latest, carried.add.addedAt, carried.endedSince)
        if let number = index.number(of: envelope.id) {
            let known = index[number]
            if known.sequence == place.sequence {
                guard known.added < place.position else { return }
                if known.lastSequence >= carried.lastSequence {
                    return moveAdd(of: number, to: place)
                }
            }
            // an ID may have been used again
            guard known.sequence <= place.sequence else { return }
            // records between were lost, and this one knows of them
            if known.finished != .none {
                early[envelope.id] = StoredPlace(
                    sequence: known.lastSequence,
                    position: known.finished,
                    bytes: known.finishedBytes
                )
            }
            let isOver = known.sequence == place.sequence && known.epoch != carried.epoch
            let evidence = isOver ? [] : self.evidence[envelope.id]
            remove(number)
            for item in evidence where item.sequence > place.sequence {
                keepEvidence(item, of: envelope.id)
            }
        }
        insert(carried, envelope, at: place, isCopy: isCopy)
    }

    private mutating func insert(
        _ carried: StoredCarried,
        _ envelope: Envelope,
        at place: StoredPlace,
        isCopy: Bool
    ) {
        let lane = lanes.number(name: envelope.name, queue: envelope.queue)
        let standing = StandingOptions(envelope.options)
        // where it was when the record was written tells only whether there is one: an opening may have
        // written both again to another place
        let result = carried.finished == .none ? nil : early[envelope.id]
        early[envelope.id] = nil
        var entry = TaskEntry(
            id: envelope.id,
            sequence: place.sequence,
            lastSequence: isCopy ? carried.lastSequence : place.sequence,
            added: place.position,
            addedBytes: place.bytes,
            finished: result?.position ?? .none,
            finishedBytes: result.map { PackedSize(bytes: $0.bytes).bytes } ?? 0,
            lease: carried.lease,
            due: .none,
            attempt: carried.attempt,
            failures: carried.failures,
            deaths: carried.deaths,
            contentCRC: Self.contentCRC(envelope),
            lane: lane,
            keptFor: Self.keptFor(standing),
            priority: envelope.priority,
            epoch: carried.epoch,
            status: carried.status,
            flags: TaskEntry.Flags(carried.add.durability)
        )
        if carried.isSuspect { entry.flags.insert(.suspect) }
        setDue(of: &entry, carried.due)
        if carried.status.isFinal { entry.end(at: carried.endedAt) }
        let nobody = WorkerID(high: 0, low: 0)
        if carried.worker != nobody { entry.worker = workers.retain(carried.worker) }
        let number = index.insert(entry)
        lanes.count(lane, from: nil, to: entry.status)
        noteKey(of: number, standing)
        usage.add(index.core(number).addedBytes.bytes, in: place.position.segment)
        if entry.finished != .none {
            usage.add(index[number].finishedBytes, in: entry.finished.segment)
        }
        note(standing, of: number, name: envelope.name, addedAt: carried.add.addedAt)
    }

    mutating func apply(_ expire: StoredExpire, at place: StoredPlace) {
        latest = max(latest, expire.at)
        early[expire.id] = nil
        dropEvidence(of: expire.id, before: place.sequence)
        guard let number = index.number(of: expire.id),
            place.sequence > index[number].lastSequence
        else { return }
        remove(number)
    }

    /// A task is about to be forgotten: it is carried nowhere any more.
    mutating func noteExpiry(_ number: TaskIndex.Number, _ expire: StoredExpire) {
        latest = max(latest, expire.at)
        index.setFlags(index.core(number).flags.union(.expiring), of: number)
    }

    /// Its add stands at another place.
    mutating func moveAdd(of number: TaskIndex.Number, to place: StoredPlace) {
        var entry = index[number]
        usage.remove(entry.addedBytes, in: entry.added.segment)
        entry.added = place.position
        entry.addedBytes = place.bytes
        index[number] = entry
        usage.add(index.core(number).addedBytes.bytes, in: place.position.segment)
    }

    /// Its result stands at another place, unless it has a newer one.
    mutating func moveResult(of id: TaskID, to place: StoredPlace) {
        guard let number = index.number(of: id) else { return }
        var entry = index[number]
        // an ID may have been forgotten and used again
        guard place.sequence > entry.sequence, entry.finished < place.position else { return }
        setResult(of: &entry, place.position, bytes: place.bytes)
        index[number] = entry
    }

    mutating func setResult(of entry: inout TaskEntry, _ place: RecordPosition, bytes: Int) {
        usage.remove(entry.finishedBytes, in: entry.finished.segment)
        entry.finished = place
        entry.finishedBytes = PackedSize(bytes: bytes).bytes
        usage.add(entry.finishedBytes, in: place.segment)
    }

    /// A task with all that has happened to it, to be written behind its add.
    func carried(_ number: TaskIndex.Number, add: StoredAdd) -> StoredCarried {
        let entry = index[number]
        let worker =
            entry.worker == WorkerTable.none
            ? WorkerID(high: 0, low: 0) : workers[entry.worker].id
        return StoredCarried(
            add: add,
            status: entry.status,
            isSuspect: entry.isSuspect,
            epoch: entry.epoch,
            attempt: entry.attempt,
            failures: entry.failures,
            deaths: entry.deaths,
            lease: entry.lease,
            worker: worker,
            lastSequence: entry.lastSequence,
            finished: entry.finished,
            finishedBytes: UInt32(clamping: entry.finishedBytes),
            due: entry.status == .scheduled ? storedDue(of: entry) : nil,
            endedAt: Timestamp(nanoseconds: Int64(entry.endedAt) * 1_000_000_000)
        )
    }

    /// A task is due from now on as its record says; `nil`: at once.
    mutating func setDue(of entry: inout TaskEntry, _ due: StoredDue?) {
        entry.flags.remove(.dueByWall)
        guard let due else {
            entry.due = .none
            return
        }
        guard due.boot != 0 else {
            entry.due = DueTime(wall: due.wall)
            return
        }
        let reckoned = wallClock.reckon(due, now: now, bootID: bootID)
        entry.due = DueTime(boot: reckoned.due)
        entry.clock = reckoned.clock
        if reckoned.isByWall { entry.flags.insert(.dueByWall) }
    }

    /// When a scheduled task is due, as its own record says it.
    ///
    /// Whatever a task is read from, an opening has to find the same time: a wait ends in this boot by this
    /// boot's clock, and in a later one by the wall clock as it was set when the wait began.
    func storedDue(of entry: TaskEntry) -> StoredDue {
        if let wall = entry.due.wall { return StoredDue(wall: wall, boot: 0, bootID: bootID) }
        // of another boot, whichever that was
        let isOlder = entry.flags.contains(.dueByWall)
        return StoredDue(
            wall: wallClock.moment(entry.due.rawValue, entry.clock),
            boot: isOlder ? 1 : entry.due.rawValue,
            bootID: isOlder ? TaskID(high: 0, low: 0) : bootID
        )
    }
}

extension TaskEntry {
    /// It came to its end; rounded up, so that nothing is forgotten before its time.
    mutating func end(at moment: Timestamp) {
        endedAt = UInt32(clamping: (max(0, moment.nanoseconds - 1) / 1_000_000_000) + 1)
    }
}
