// Part of QTasks. License: see LICENSE.
//
// Who gets which task: by queue, priority and the add's sequence (P6), suspects alone (P4).

import HeapModule
import QTasksModel
import QTasksWire

extension BrokerState {
    // MARK: Lanes

    /// Lanes kept open although they hold nothing.
    private static let lanesKept = 1000

    /// The lane with this key, opened where there is none.
    mutating func lane(_ key: Lane.Key) -> Lanes.Number { lanes.number(for: key) }

    mutating func lane(of placement: Placement) -> Lanes.Number {
        lane(Lane.Key(queue: placement.queue, name: placement.name, key: placement.key))
    }

    /// Closes a lane that holds nothing, so that names nobody uses any more cost nothing.
    mutating func closeIfUnused(_ number: Lanes.Number) {
        // one that workers know is kept, unless somebody makes up queues without end
        guard
            lanes.workers(of: number) == 0 || lanes.count > Self.lanesKept
                || lanes[number].group != nil
        else { return }
        _ = lanes.closeIfUnused(number)
    }

    // MARK: Leasing

    /// Whether anything may be leased at all.
    private var mayLease: Bool { storage.isUp && !stopping.isUnderWay }

    /// A worker for a task that is being added, so that it can be leased in the same append; `nil`
    /// where none has credit or somebody who came before would be overtaken.
    ///
    /// A worker that has credit has nothing waiting in its lanes: each event that brings credit or
    /// tasks ends with ``dispatchWaiting()``.
    mutating func workerForNewTask(in lane: Lanes.Number) -> Roster.Number? {
        guard mayLease, lanes.isNext(lane),
            lanes.suspectsWaiting == 0 || lanes.bestSuspect(except: []) == nil
        else { return nil }
        return roster.findWorker(of: lanes[lane].kinds, except: suspectHolder)
    }

    /// Takes a lease's number and the worker's credit for it.
    mutating func reserve(
        _ task: QueuedTask,
        id: TaskID?,
        isSuspect: Bool,
        lane: Lanes.Number,
        for worker: Roster.Number
    ) -> Lease {
        leaseCounter += 1
        let lease = Lease(incarnation: storage.incarnation, counter: leaseCounter)
        roster[worker].reserved += 1
        if isSuspect { roster[worker].isExclusive = true }
        lanes.beginLease(in: lane, isStart: true)
        leases[lease] = LeaseEntry(
            task: task,
            id: id,
            isSuspect: isSuspect,
            lane: lane,
            worker: roster[worker].id,
            sessionNumber: roster[worker].sessionNumber
        )
        return lease
    }

    /// Leases what waits to whoever has credit.
    ///
    /// Costs nothing while nothing waits.
    mutating func dispatchWaiting() {
        guard mayLease, lanes.waiting > 0 else { return }
        if lanes.suspectsWaiting > 0 { dispatchSuspects() }
        guard lanes.waiting > lanes.suspectsWaiting else { return }
        if roster.kindsWithCredit(except: suspectHolder).count > 1 { return fillInOrder() }
        for worker in roster.all where worker != suspectHolder { fill(worker) }
    }

    /// Leases to one worker what it may run, best first, as far as its credit goes.
    ///
    /// Workers are filled slot by slot in turn: a worker only gets tasks for its buffer once no
    /// other has a free slot.
    private mutating func fill(_ worker: Roster.Number) {
        while roster[worker].credit > 0, !roster[worker].isExclusive {
            guard let lane = roster[worker].kind.flatMap({ lanes.best(for: $0) }) else { return }
            var target = worker
            if !roster[worker].hasFreeSlot {
                target =
                    roster.findWorker(of: lanes[lane].kinds, except: suspectHolder) ?? worker
            }
            guard let task = lanes.popHead(of: lane, isSuspect: false) else { return }
            lease(task, isSuspect: false, lane: lane, to: target)
        }
    }

    /// The same where workers differ in what they can run: of what any of them can the best goes first, since
    /// a limit may let fewer start than there is credit for.
    private mutating func fillInOrder() {
        while let lane = lanes.best(for: roster.kindsWithCredit(except: suspectHolder)),
            let worker = roster.findWorker(of: lanes[lane].kinds, except: suspectHolder),
            let task = lanes.popHead(of: lane, isSuspect: false)
        {
            lease(task, isSuspect: false, lane: lane, to: worker)
        }
    }

    private mutating func lease(
        _ task: QueuedTask,
        isSuspect: Bool,
        lane: Lanes.Number,
        to worker: Roster.Number
    ) {
        let lease = reserve(task, id: nil, isSuspect: isSuspect, lane: lane, for: worker)
        let number = takeNumber()
        storageLeases[number] = lease
        propose(
            .lease(
                number: number,
                place: task.place,
                lease: lease,
                worker: roster[worker].id,
                synced: isSuspect
            )
        )
    }

    /// Suspects go to workers that run nothing.
    ///
    /// While none is empty, one worker gets nothing more until it is (P4).
    private mutating func dispatchSuspects() {
        if let holder = suspectHolder, roster[holder].session == nil || roster[holder].isLeaving {
            suspectHolder = nil
        }
        var stuck: Set<Lanes.Number> = []
        while let lane = lanes.bestSuspect(except: stuck) {
            guard let worker = roster.findEmptyWorker(of: lanes[lane].kinds),
                let task = lanes.popHead(of: lane, isSuspect: true)
            else {
                if suspectHolder == nil {
                    suspectHolder = roster.findLeastLoaded(of: lanes[lane].kinds)
                }
                stuck.insert(lane)
                continue
            }
            if worker == suspectHolder { suspectHolder = nil }
            self.lease(task, isSuspect: true, lane: lane, to: worker)
        }
        // what a limit holds back needs nobody kept free for it
        if stuck.isEmpty { suspectHolder = nil }
    }

    // MARK: A lease's way

    /// Storage granted the lease: send the task, unless its worker's session is over.
    mutating func granted(
        _ lease: Lease,
        _ task: LeasedTask,
        id: TaskID,
        envelope: UnsafeRawBufferPointer
    ) {
        guard var entry = leases[lease] else { return }
        entry.id = id
        if entry.isSuspect, !task.isSuspect {
            // cancelled and queued again since it was asked for: it needs no worker for itself any more
            entry.isSuspect = false
            if let worker = roster.number(of: entry.worker) { roster[worker].isExclusive = false }
        }
        leases[lease] = entry
        guard let worker = roster.number(of: entry.worker), roster[worker].session != nil,
            roster[worker].sessionNumber == entry.sessionNumber, !stopping.isUnderWay
        else {
            return release(lease, cause: stopping.isUnderWay ? .drain : .notHeld)
        }
        entry.isHeld = true
        leases[lease] = entry
        roster[worker].reserved -= 1
        roster[worker].sent += 1
        roster[worker].leases.insert(lease)
        parcels[worker, default: WorkParcel()].add(task, envelope)
        trace("transfer task", id, "worker \(entry.worker)")
    }

    /// Storage didn't grant it.
    mutating func notGranted(_ lease: Lease) {
        _ = end(lease)
    }

    /// Forgets a lease and gives back what it held.
    mutating func end(_ lease: Lease) -> LeaseEntry? {
        guard let entry = leases.removeValue(forKey: lease) else { return nil }
        lanes.endLease(in: entry.lane)
        defer { checkDrained() }
        guard let worker = roster.number(of: entry.worker) else { return entry }
        if roster[worker].leases.remove(lease) == nil, !entry.isHeld,
            roster[worker].sessionNumber == entry.sessionNumber
        {
            roster[worker].reserved -= 1
        }
        if limits[lease] != nil { roster[worker].lingering.insert(lease) }
        if entry.isSuspect, roster[worker].isEmpty { roster[worker].isExclusive = false }
        return entry
    }

    /// Proposes that the task goes back into its queue.
    mutating func release(
        _ lease: Lease,
        cause: ReleaseCause,
        isShared: Bool = false,
        counts: Bool = false
    ) {
        leases[lease]?.release = ReleaseState(cause: cause, isShared: isShared, counts: counts)
        proposeRelease(of: lease)
    }

    /// Proposes the release that a lease waits for, if it waits for one.
    mutating func proposeRelease(of lease: Lease) {
        guard let entry = leases[lease], let release = entry.release else { return }
        guard let id = entry.id else {
            preconditionFailure("only what was granted is given back")
        }
        if let overdue = release.overdue {
            let holding = Holding(id: id, lease: lease)
            return propose(.overdue(number: takeNumber(), holding: holding, overdue))
        }
        propose(
            .release(
                number: takeNumber(),
                holding: Holding(id: id, lease: lease),
                cause: release.cause,
                isShared: release.isShared,
                counts: release.counts
            )
        )
        trace("release", id, "storage")
    }

    /// A task is in its queue again, at its old place.
    mutating func requeue(_ entry: LeaseEntry, isSuspect: Bool) {
        lanes.push(entry.task, isSuspect: isSuspect, to: entry.lane)
    }
}

extension WorkParcel {
    mutating func add(_ task: LeasedTask, _ envelope: UnsafeRawBufferPointer) {
        task.write(envelope: envelope, to: &tasks)
    }
}
