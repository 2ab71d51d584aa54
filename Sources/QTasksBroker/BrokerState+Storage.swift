// Part of QTasks. License: see LICENSE.
//
// What Storage says: its snapshot when it opens, then verdicts and watermarks.

import HeapModule
import QTasksModel
import QTasksWire

extension BrokerState {
    /// A message from Storage.
    ///
    /// - Throws: ``WireError`` for bytes that Storage can't have sent: the Broker then starts anew.
    package mutating func storageMessage(_ bytes: UnsafeRawBufferPointer) throws {
        var reader = WireReader(bytes)
        let header = try MessageHeader.read(from: &reader)
        switch header.command {
        case .opened: opened(try Opened(from: &reader), session: header.number)
        case .snapshot:
            while !reader.isAtEnd { restore(try SnapshotItem(from: &reader)) }
        case .verdicts:
            storage.written = try reader.integer("written")
            storage.durable = try reader.integer("durable")
            while !reader.isAtEnd { try apply(try Verdict(from: &reader)) }
            clients.durable(upTo: storage.durable)
            revokeEnded()
            for id in clients.takeNewlyAwaited() { propose(.watch(id: id)) }
        case .globalConfigStarted:
            storage.globalConfigPid = try reader.integer("pid")
        case .storageFailed:
            let reason = try reader.text("reason")
            notice("storage failed", reason, isWarning: true)
        case .storageStopped:
            // its log is closed; we end when its process has, or we would take it with us
            break
        default:
            throw WireError.invalid(field: "command")
        }
        dispatchWaiting()
    }

    /// Storage's process has ended: nothing is acknowledged or leased until it is back.
    package mutating func storageLost() {
        let hadOpened = storage.isUp || storage.isOpening
        if !hadOpened, !stopping.isUnderWay, !storage.isDown { storageIsDown() }
        storage.isUp = false
        storage.isOpening = false
        if case .stopped = stopping { outbox.deeds.append(.finish) }
    }

    /// Storage can't open the store, or not stay: a full disk, most likely.
    ///
    /// It is started again and again; meanwhile nobody who asks is left without an answer (P9).
    private mutating func storageIsDown() {
        storage.isDown = true
        notice(
            "storage down",
            "Storage can't open the store: adds are refused until it can",
            isWarning: true
        )
        for pending in clients.takeUnacknowledgedAdds() {
            if pending.isWatched {
                let owner = clients.request(pending.request)
                clients.dropWait(for: pending.id, session: owner.session, number: owner.number)
            }
            clients.answer(
                pending.request,
                AddReceipt(id: pending.id, verdict: .refused(storageRefusal))
            )
        }
        refuseCompactions(storageRefusal)
        refuseChanges(storageRefusal)
        refuseQueueChanges(storageRefusal)
        for session in waitingClients { clients.send(welcome, to: session) }
        waitingClients = []
    }

    /// What adds are told while Storage is down.
    var storageRefusal: Refusal {
        Refusal(
            .storageUnavailable,
            "Storage can't open the store in \(settings.home)/store; its disk may be full"
        )
    }

    // MARK: Opening

    private mutating func opened(_ opened: Opened, session: UInt64) {
        storage.isUp = false
        storage.isOpening = true
        storage.isDown = false
        // the same Storage over a new session: its leases are counted on, never given out again
        if opened.incarnation != storage.incarnation { leaseCounter = 0 }
        let isFirst = opened.incarnation == 1 && storage.incarnation == 0
        storage.incarnation = opened.incarnation
        storage.session = session
        // what this turn has proposed so far follows from the picture that is void now
        proposals = Self.emptyProposals(session: session)
        storage.pid = opened.pid
        storage.globalConfigPid = opened.globalConfigPid
        storage.written = 0
        storage.durable = 0
        for worker in roster.all {
            roster[worker].reserved = 0
            roster[worker].kind = nil
        }
        // a lease that was never sent is Storage's alone to know; the snapshot tells
        let known = leases.filter { $0.value.isHeld || $0.value.release != nil }
        // beside what an opening that didn't come to its end has not named yet
        storage.former.merge(storage.ended) { older, _ in older }
        storage.former.merge(known) { _, newer in newer }
        storage.ended = [:]
        storage.endedUpTo = opened.lastSequence
        leases = [:]
        storageLeases = [:]
        lanes.removeAll(knowsPast: isFirst)
        scheduled = Heap()
        scheduledByWall = IndexedHeap()
        withdrawnTimes = [:]
        suspectHolder = nil
    }

    private mutating func restore(_ item: SnapshotItem) {
        guard storage.isOpening else { return }
        switch item {
        case .queued(let run):

            lanes.push(
                run,
                to: lane(Lane.Key(queue: run.queue, name: run.name, key: run.key))
            )
        case .scheduled(let placement, let due): schedule(placement, due)
        case .running(let placement, let id, let lease, let worker):
            restore(placement, id, lease, worker)
        case .worker(let id, let process): storage.processes[id] = process
        case .queue(let queue, let rules): lanes.set(rules, of: queue)
        case .end: snapshotEnded()
        }
    }

    private mutating func schedule(_ placement: Placement, _ due: DueTime) {
        schedule(
            QueuedTask(placement),
            due: due,
            isSuspect: placement.isSuspect,
            in: lane(of: placement)
        )
    }

    private mutating func restore(
        _ placement: Placement,
        _ id: TaskID,
        _ lease: Lease,
        _ worker: WorkerID
    ) {
        let lane = lane(of: placement)
        lanes.beginLease(in: lane, isStart: false)
        let former = storage.former.removeValue(forKey: lease)
        if former != nil, let number = roster.number(of: worker) {
            roster[number].lingering.remove(lease)
        }
        leases[lease] = LeaseEntry(
            task: QueuedTask(placement),
            id: id,
            isSuspect: placement.isSuspect,
            lane: lane,
            worker: worker,
            sessionNumber: 0,
            isHeld: true,
            release: former?.release
        )
        if let number = roster.number(of: worker) {
            // held, if it was sent in this session, or its result waits there; else its verdict got lost
            // with the old Storage
            if former == nil, roster[number].session != nil,
                !roster[number].unwrittenResults.contains(lease)
            {
                leases[lease]?.release = ReleaseState(
                    cause: .notHeld,
                    isShared: false,
                    counts: false
                )
            } else {
                roster[number].leases.insert(lease)
            }
        } else if former?.release == nil {
            expect(worker, lease)
        }
    }

    /// A worker of an earlier Broker: wait for its HELLO, however long, while its process lives (P5), or, where
    /// that can't be seen, as long as a silence may be.
    private mutating func expect(_ worker: WorkerID, _ lease: Lease) {
        guard let process = storage.processes[worker] else {
            leases[lease]?.release = ReleaseState(
                cause: .goneBefore,
                isShared: false,
                counts: false
            )
            return
        }
        let number = roster.add(WorkerEntry(id: worker, process: process))
        roster[number].leases.insert(lease)
        if process.isRemote {
            heard(of: number)
        } else {
            outbox.deeds.append(.check(worker, process))
        }
    }

    private mutating func snapshotEnded() {
        storage.isUp = true
        storage.isOpening = false
        storage.processes = [:]
        restoreFormerLeases()
        excuseSilence()
        for worker in roster.all {
            if roster[worker].sessionNumber > 0 {
                roster[worker].kind = lanes.join(roster[worker].names)
            }
            roster[worker].isExclusive = roster[worker].leases.contains {
                leases[$0]?.isSuspect == true
            }
            propose(.worker(id: roster[worker].id, process: roster[worker].process))
            if roster[worker].readsStore { propose(.reader(id: roster[worker].id, true)) }
        }
        proposeAgain()
        var announcement = WireWriter(.notice)
        announcement.integer(storage.incarnation)
        for worker in roster.all {
            if let session = roster[worker].session {
                outbox.toWorkers.append((session, announcement.bytes))
            }
        }
        for session in waitingClients { clients.send(welcome, to: session) }
        for session in waitingWorkers { welcomeWorker(session) }
        waitingClients = []
        waitingWorkers = []
        tellStarter()
        notice(
            "storage opened",
            "the store is open",
            [
                ("incarnation", "\(storage.incarnation)"), ("queued", "\(lanes.waiting)"),
                ("running", "\(leases.count)"),
            ]
        )
        checkDrained()
    }

    /// Leases that ended while Storage was away, as far as the log knows: a cancel whose word was lost, say.
    ///
    /// A worker that may run one isn't alone with another task until it has let go, which it is told once
    /// the end is durable: else a Storage that has lost it would find nobody who holds the lease.
    private mutating func restoreFormerLeases() {
        for (lease, entry) in storage.former {
            guard let number = roster.number(of: entry.worker) else { continue }
            roster[number].leases.remove(lease)
            guard entry.isHeld, roster[number].reportsRunning,
                !roster[number].unwrittenResults.contains(lease)
            else { continue }
            roster[number].lingering.insert(lease)
            storage.ended[lease] = entry
        }
        storage.former = [:]
    }

    /// Workers let go of what had ended by this Storage's snapshot, once that is durable.
    private mutating func revokeEnded() {
        guard !storage.ended.isEmpty, storage.isUp, storage.durable >= storage.endedUpTo
        else { return }
        for (lease, entry) in storage.ended {
            guard let number = roster.number(of: entry.worker), roster[number].session != nil,
                roster[number].lingering.contains(lease)
            else { continue }
            revoked[number, default: []].append(lease)
            limit(revoked: lease, of: number)
        }
        storage.ended = [:]
    }

    private mutating func proposeAgain() {
        for lease in leases.keys { proposeRelease(of: lease) }
        // also those that were in the log and not durable yet: a disk that failed may have lost them
        for var pending in clients.takeUnacknowledgedAdds() {
            pending.lease = .none
            pending.lane = pending.envelope.withUnsafeBytes { lane(ofEnvelope: $0) }
            propose(pending)
        }
        for (number, read) in clients.reads {
            propose(.read(number: number, id: read.id, isWhole: read.isWhole))
        }
        for number in clients.counts.keys { propose(.count(number: number)) }
        for number in clients.compactions.keys { propose(.compact(number: number)) }
        proposeChangesAgain()
        proposeQueueChangesAgain()
        proposeEvidenceAgain()
        for id in clients.awaitedTasks { propose(.watch(id: id)) }
    }

    private mutating func lane(ofEnvelope bytes: UnsafeRawBufferPointer) -> Lanes.Number {
        guard let envelope = try? Envelope(bytes),
            let options = try? EnvelopeOptions(envelope.options)
        else {
            preconditionFailure("an envelope that was taken reads the same again")
        }
        return lane(of: envelope, options)
    }

    // MARK: Verdicts

    private mutating func apply(_ verdict: Verdict) throws(WireError) {
        switch verdict {
        case .added(let number, let place, let leased, let due, let addedAt, let arguments):
            guard let pending = clients.takeAdd(number) else { return }
            clients.settle(pending)
            if leased {
                addedAndLeased(pending, place, addedAt, arguments)
            } else {
                added(pending, place, due)
            }
            acknowledge(pending, place.sequence, .added)
        case .exists(let number, let sequence, let status):
            guard let pending = clients.takeAdd(number) else { return }
            clients.settle(pending)
            exists(pending, sequence, status)
        case .same(let number, let holder, let sequence, let isSynced):
            guard let pending = clients.takeAdd(number) else { return }
            dropReservation(of: pending)
            acknowledge(pending, sequence, .same(holder), isSynced: isSynced)
        case .refused(let number, let refusal):
            guard let pending = clients.takeAdd(number) else { return }
            refused(pending, refusal)
        case .leased(let number, let task, let envelope):
            guard let lease = storageLeases.removeValue(forKey: number) else { return }
            var reader = WireReader(envelope)
            granted(lease, task, id: try task.envelope(from: &reader).id, envelope: envelope)
        case .stale(let number, _):
            guard let lease = storageLeases.removeValue(forKey: number) else { return }
            notGranted(lease)
        case .early(let number, let due):
            guard let lease = storageLeases.removeValue(forKey: number) else { return }
            early(lease, due)
        case .released(_, let holding, let status, let isSuspect):
            released(holding, status, isSuspect)
        case .finished(let holding, let worker, let verdict, let status, let due, let record):
            finished(holding, worker, verdict, status, due, record)
        case .record(let number, let record):
            guard let read = clients.reads.removeValue(forKey: number) else { return }
            recordRead(read, record)
        case .final(let id, let record): tellWaiters(of: id, record)
        case .counts(let number, let bytes): countsRead(number, bytes)
        case .compacted(let number, let result): compacted(number, result)
        case .notCompacted(let number, let refusal): notCompacted(number, refusal)
        case .changed(let number, let verdict): changed(number, verdict)
        case .queue(let number, let queue, let verdict): queueChanged(number, queue, verdict)
        case .evidence(let number): evidenceRecorded(number)
        }
    }

    private mutating func addedAndLeased(
        _ pending: PendingAdd,
        _ place: QueuedPlace,
        _ addedAt: Timestamp,
        _ arguments: PayloadReference?
    ) {
        leases[pending.lease]?.task = QueuedTask(place, priority: pending.priority)
        let first = LeasedTask(
            lease: pending.lease,
            attempt: 1,
            failures: 0,
            epoch: 0,
            isSuspect: false,
            addedAt: addedAt,
            arguments: arguments
        )
        pending.envelope.withUnsafeBytes { envelope in
            let sent = arguments == nil ? envelope : (try? Envelope(envelope))?.head ?? envelope
            granted(pending.lease, first, id: pending.id, envelope: sent)
        }
    }

    private mutating func added(_ pending: PendingAdd, _ place: QueuedPlace, _ due: DueTime) {
        let task = QueuedTask(place, priority: pending.priority)
        if pending.lease == .none {
            lanes.addUnanswered(-1, to: pending.lane)
        } else {
            _ = end(pending.lease)
        }
        if due != .none {
            schedule(task, due: due, isSuspect: false, in: pending.lane)
        } else {
            lanes.push(task, isSuspect: false, to: pending.lane)
        }
    }

    /// The wall clock was set back after the task had come to its line.
    private mutating func early(_ lease: Lease, _ due: DueTime) {
        guard let entry = end(lease) else { return }
        schedule(entry.task, due: due, isSuspect: entry.isSuspect, in: entry.lane)
    }

    private mutating func exists(
        _ pending: PendingAdd,
        _ sequence: UInt64,
        _ status: TaskStatus
    ) {
        dropReservation(of: pending)
        acknowledge(pending, sequence, .exists)
        if pending.isWatched { propose(.watch(id: pending.id)) }
    }

    private mutating func refused(_ pending: PendingAdd, _ refusal: Refusal) {
        dropReservation(of: pending)
        if pending.isWatched {
            let owner = clients.request(pending.request)
            clients.dropWait(for: pending.id, session: owner.session, number: owner.number)
        }
        clients.answer(
            pending.request,
            AddReceipt(id: pending.id, verdict: .refused(refusal))
        )
    }

    private mutating func dropReservation(of pending: PendingAdd) {
        if pending.lease == .none {
            lanes.addUnanswered(-1, to: pending.lane)
        } else {
            _ = end(pending.lease)
        }
        closeIfUnused(pending.lane)
    }

    private mutating func acknowledge(
        _ pending: PendingAdd,
        _ sequence: UInt64,
        _ verdict: AddReceipt.Verdict,
        isSynced: Bool = false
    ) {
        if pending.durability.isToldOnceWritten && !isSynced || sequence <= storage.durable {
            clients.acknowledge(pending, verdict)
        } else {
            clients.awaitDurable(sequence, pending, verdict)
        }
    }

    private mutating func released(_ holding: Holding, _ status: TaskStatus?, _ isSuspect: Bool) {
        guard let entry = end(holding.lease) else { return }
        switch status {
        case .new: requeue(entry, isSuspect: isSuspect)
        case .dead:
            notice(
                "task dead",
                "its workers died as often as it may be delivered",
                [("task", "\(holding.id)")],
                isWarning: true
            )
            if clients.isAwaited(holding.id) { propose(.watch(id: holding.id)) }
        // it was final or another's before: whatever that was has its own message
        case .process, .scheduled, .success, .error, .cancel, nil: break
        }
        closeIfUnused(entry.lane)
    }

    private mutating func finished(
        _ holding: Holding,
        _ worker: WorkerID,
        _ verdict: ResultVerdict,
        _ status: TaskStatus?,
        _ due: DueTime,
        _ record: UnsafeRawBufferPointer
    ) {
        if let number = roster.number(of: worker), roster[number].session != nil {
            parcels[number, default: WorkParcel()].acknowledged.append(holding.lease)
        }
        trace("result saved", holding.id, "worker \(worker)")
        // what was not taken ended nothing: the lease's own end has, or will have, its own word
        guard verdict == .committed else { return }
        let entry = end(holding.lease)
        if let entry { considerRecycling(entry.worker) }
        if let entry, status == .scheduled {
            schedule(entry.task, due: due, isSuspect: entry.isSuspect, in: entry.lane)
        }
        if !record.isEmpty { tellWaiters(of: holding.id, record) }
        if let entry { closeIfUnused(entry.lane) }
    }
}
