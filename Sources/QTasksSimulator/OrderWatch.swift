// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire

/// Watches that leases are proposed in order (P6), by what the Broker had been told.
///
/// Of two tasks in one queue that a worker can run, the one of higher priority goes first, and of
/// two of one priority the one that was added first. What the Broker only learned in the same turn
/// of its loop may have come after the lease: it is passed over. So is what a limit of its key holds back.
struct OrderWatch {
    /// What is wrong with a proposal.
    enum Complaint {
        /// One should have gone first, and another goes.
        case overtaken(late: TaskID, before: TaskID)
        /// What a queue's rules forbid.
        case forbidden(TaskID, String)
    }

    /// What holds tasks back.
    private(set) var limits = LimitWatch()

    private struct Known {
        var task: AddedTask
        /// In which turn the Broker learned that it waits; `nil` while it doesn't.
        var waitsSince: Int?
        /// When it will wait.
        var due: DueTime?
    }

    private var known: [TaskID: Known] = [:]
    private var adds: [UInt64: AddedTask] = [:]
    /// What Storage calls them in this session.
    private var handles: [UInt32: TaskID] = [:]
    private var leases: [UInt64: TaskID] = [:]
    /// Leases that the Broker knows: it passes over what it is told of others.
    private var held: Set<Lease> = []
    /// The lease that was proposed last of each task.
    private var newest: [TaskID: Lease] = [:]
    private var turn = 0

    mutating func beginTurn(at time: UInt64) {
        turn += 1
        limits.beginTurn(at: time)
    }

    /// The Broker began anew, or is being told everything anew.
    mutating func reset(incarnation: UInt32) {
        limits.reset(incarnation: incarnation)
        known = [:]
        adds = [:]
        handles = [:]
        leases = [:]
        held = []
        newest = [:]
    }

    // MARK: What the Broker hears

    mutating func timer(now: Now) {
        for (id, entry) in known {
            guard let due = entry.due, due.isReached(at: now) else { continue }
            known[id]?.due = nil
            known[id]?.waitsSince = turn
        }
    }

    /// One item of Storage's snapshot; the place of a task's add is taken from the log, whatever the
    /// Broker is told of it.
    mutating func heard(_ item: SnapshotItem, _ ledger: Ledger) {
        switch item {
        case .queued(let run):
            for placement in run.placements {
                guard let id = heard(placement, ledger) else { continue }
                known[id]?.waitsSince = turn
            }
        case .scheduled(let placement, let due):
            guard let id = heard(placement, ledger) else { return }
            known[id]?.due = due
        case .running(let placement, _, let lease, _):
            _ = heard(placement, ledger)
            held.insert(lease)
            limits.heard(lease, inQueue: placement.queue, key: placement.key)
        case .queue(let queue, let rules): limits.heard(rules, of: queue)
        case .end: limits.snapshotEnded()
        case .worker: break
        }
    }

    private mutating func heard(_ placement: Placement, _ ledger: Ledger) -> TaskID? {
        guard let id = ledger.adds[placement.place.sequence] else { return nil }
        handles[placement.place.handle] = id
        known[id] = Known(
            task: AddedTask(
                id: id,
                sequence: placement.place.sequence,
                priority: placement.priority,
                isSuspect: placement.isSuspect,
                name: placement.name,
                queue: placement.queue,
                key: placement.key
            )
        )
        return id
    }

    mutating func heard(_ verdict: Verdict, _ ledger: Ledger) {
        switch verdict {
        case .added(let number, let place, let leased, let due, _, _):
            limits.answered(number, isHeld: leased)
            guard var task = adds.removeValue(forKey: number) else { return }
            task.sequence = ledger.tasks[task.id]?.placement.sequence ?? .max
            handles[place.handle] = task.id
            known[task.id] = Known(
                task: task,
                waitsSince: leased || due != .none ? nil : turn,
                due: due != .none ? due : nil
            )
        case .exists(let number, _, _), .refused(let number, _), .same(let number, _, _, _):
            limits.answered(number, isHeld: false)
            adds[number] = nil
        case .leased(let number, _, _):
            limits.answered(number, isHeld: true)
            // it may have been cancelled and queued again before that
            guard let id = leases.removeValue(forKey: number) else { return }
            known[id]?.waitsSince = nil
            known[id]?.due = nil
        case .stale(let number, _):
            limits.answered(number, isHeld: false)
            guard let id = leases.removeValue(forKey: number) else { return }
            known[id] = nil
            newest[id].map { _ = held.remove($0) }
        case .early(let number, let due):
            limits.answered(number, isHeld: false)
            guard let id = leases.removeValue(forKey: number) else { return }
            known[id]?.waitsSince = nil
            known[id]?.due = due
            newest[id].map { _ = held.remove($0) }
        case .released(_, let holding, let status, let isSuspect):
            limits.end(holding.lease)
            guard held.remove(holding.lease) != nil, status == .new else { return }
            known[holding.id]?.task.isSuspect = isSuspect
            known[holding.id]?.waitsSince = turn
        case .finished(let holding, _, let verdict, let status, let due, _):
            guard verdict == .committed else { return }
            limits.end(holding.lease)
            guard held.remove(holding.lease) != nil else { return }
            if status == .scheduled { known[holding.id]?.due = due }
        case .changed(_, let verdict): heard(verdict, ledger)
        case .queue(_, let queue, .rules(let rules)): limits.heard(rules, of: queue)
        case .record, .final, .counts, .compacted, .notCompacted, .queue, .evidence: break
        }
    }

    private mutating func heard(_ verdict: ChangeVerdict, _ ledger: Ledger) {
        switch verdict {
        case .withdrawn(let placement, _):
            if let id = handles[placement.place.handle] { known[id] = nil }
        case .revoked(let lease):
            held.remove(lease)
            limits.end(lease)
        case .requeued(let placement):
            guard let id = heard(placement, ledger) else { return }
            // asked for before it was cancelled, and granted since it is queued again
            if let lease = newest[id], held.contains(lease) { return }
            known[id]?.waitsSince = turn
        case .forgotten, .unchanged, .refused: break
        }
    }

    // MARK: What the Broker proposes

    /// One proposal; `canRun` tells whether a worker knows a name.
    ///
    /// - Returns: What is wrong with it.
    mutating func proposed(
        _ proposal: Proposal,
        _ ledger: Ledger,
        canRun: (WorkerID, String) -> Bool
    ) -> Complaint? {
        switch proposal {
        case .add(let number, _, let lease, let worker, let bytes):
            guard let envelope = try? Envelope(bytes),
                let submission = try? TaskSubmission(envelope)
            else { return nil }
            var task = AddedTask(
                id: submission.id,
                sequence: .max,
                priority: submission.priority,
                isSuspect: false,
                name: submission.name,
                queue: submission.queue,
                key: submission.key ?? []
            )
            adds[number] = task
            guard lease != .none else { return nil }
            held.insert(lease)
            if let forbidden = limits.proposed(lease, task, as: number) {
                return .forbidden(task.id, forbidden)
            }
            // the first that its add may get
            task.sequence = UInt64(ledger.records.count) + 1
            return overtaken(by: task, for: worker, canRun: canRun)
        case .lease(let number, let place, let lease, let worker, _):
            held.insert(lease)
            guard let id = handles[place.handle] else { return nil }
            leases[number] = id
            newest[id] = lease
            if let task = known[id]?.task ?? ledger.tasks[id]?.placement,
                let forbidden = limits.proposed(lease, task, as: number)
            {
                return .forbidden(id, forbidden)
            }
            guard let entry = known[id] else { return nil }
            known[id]?.waitsSince = nil
            known[id]?.due = nil
            return overtaken(by: entry.task, for: worker, canRun: canRun)
        case .release, .watch, .read, .worker, .count, .compact, .reader, .change, .overdue,
            .queue, .evidence:
            return nil
        }
    }

    private mutating func overtaken(
        by task: AddedTask,
        for worker: WorkerID,
        canRun: (WorkerID, String) -> Bool
    ) -> Complaint? {
        for entry in known.values {
            let other = entry.task
            guard let since = entry.waitsSince, since < turn, other.id != task.id,
                other.queue == task.queue, other.isSuspect == task.isSuspect,
                limits.goes(other, before: task), canRun(worker, other.name),
                !limits.mayPassOver(other)
            else { continue }
            return .overtaken(late: other.id, before: task.id)
        }
        return nil
    }
}

extension QueuedRun {
    fileprivate var placements: [Placement] {
        places.map {
            Placement(
                place: $0,
                priority: priority,
                isSuspect: isSuspect,
                name: name,
                queue: queue,
                key: key
            )
        }
    }
}
