// Part of QTasks. License: see LICENSE.
//
// What operators change, and workers that the Broker ends: a cancelled task stays cancelled, one that is
// queued again has a new epoch, and what was beside a handler that had to be ended pays nothing for it (P2, P4).

import QTasksModel
import QTasksStorage
import QTasksWire

/// What was changed of tasks from outside.
struct ChangeWatch {
    /// Leases that a CANCEL ended: their workers may hear of it late.
    var revoked: Set<Lease> = []

    /// The records that made a task `cancel`, and those that queued it again.
    private(set) var cancels: [TaskID: [UInt64]] = [:]
    private(set) var requeues: [TaskID: [UInt64]] = [:]

    /// How tasks stood when they were queued again, by the epoch that this ended.
    private(set) var formerEnds: [TaskID: [UInt16: Ledger.Task]] = [:]

    /// The records by which tasks were forgotten.
    private(set) var expiries: [TaskID: [UInt64]] = [:]

    /// Tasks that Storage was asked to forget, by proposal, until its answer has come.
    var forgets: [UInt64: TaskID] = [:]

    /// Workers that a Broker ended, and that Broker's life.
    var ended: [WorkerID: Int] = [:]

    /// Another task begins under this ID.
    mutating func begin(_ id: TaskID) {
        formerEnds[id] = nil
        cancels[id] = nil
        requeues[id] = nil
    }

    mutating func cancelled(_ id: TaskID, _ sequence: UInt64) {
        cancels[id, default: []].append(sequence)
    }

    mutating func forgotten(_ id: TaskID, _ sequence: UInt64) {
        expiries[id, default: []].append(sequence)
    }

    mutating func requeued(_ task: Ledger.Task, _ sequence: UInt64) {
        requeues[task.id, default: []].append(sequence)
        formerEnds[task.id, default: [:]][task.epoch] = task
    }

    /// The log has records up to this one.
    mutating func forget(after last: UInt64) {
        for id in cancels.keys { cancels[id]?.removeAll { $0 > last } }
        for id in requeues.keys { requeues[id]?.removeAll { $0 > last } }
        for id in expiries.keys { expiries[id]?.removeAll { $0 > last } }
    }
}

extension Checker {
    /// Looks at a record before the ledger has it.
    func beforeChange(_ record: Ledger.Record) {
        record.bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            switch StoredKind(rawValue: record.kind) {
            case .add:
                if let id = StoredKind.add.taskID(in: bytes) { changes.begin(id) }
            case .cancel:
                guard let cancel = try? StoredFinish(from: &reader) else { return }
                let id = cancel.result.id
                changes.cancelled(id, record.sequence)
                guard let task = ledger.tasks[id] else { return }
                statistics.cancelled[task.status, default: 0] += 1
                if task.status == .process { changes.revoked.insert(task.lease) }
            case .finish:
                guard let finish = try? StoredFinish(from: &reader), finish.status == .cancel
                else { return }
                changes.cancelled(finish.result.id, record.sequence)
            case .requeue:
                guard let requeue = try? StoredRequeue(from: &reader),
                    let task = ledger.tasks[requeue.id]
                else { return }
                statistics.requeued += 1
                changes.requeued(task, record.sequence)
                // attempts are counted anew, and how it ended is history
                attempts[requeue.id] = nil
                guard let end = told.removeValue(forKey: requeue.id) else { return }
                compare(end, requeue.id)
                formerlyTold.insert(requeue.id)
            default: break
            }
        }
    }

    /// A client is told what became of a change: no earlier than it is as durable as its task asked.
    func check(_ receipt: ChangeReceipt) {
        let id = receipt.id
        switch receipt.verdict {
        case .done where receipt.status == .dead:
            guard let records = changes.expiries[id],
                records.contains(where: { isSafe($0, for: id) })
            else {
                return fail(
                    "P2: \(name(id)) is said to be forgotten, and the log has that not, or not "
                        + "\(durability(of: id)) yet"
                )
            }
        case .done:
            if isJustForgotten(id) { return }
            let isCancel = receipt.status == .cancel
            let records = isCancel ? changes.cancels[id] : changes.requeues[id]
            guard let records, records.contains(where: { isSafe($0, for: id) }) else {
                return fail(
                    "P2: \(name(id)) is said to be \(isCancel ? "cancelled" : "queued again"), and "
                        + "the log has that not, or not \(durability(of: id)) yet"
                )
            }
        case .unknown:
            if !mayBeUnknown(id), !isJustForgotten(id) { fail("P1: \(name(id)) is unknown") }
        case .notPossible: break
        case .refused(let refusal):
            let isStopping = refusal.code == .stopping && world.hasBeenStopped
            guard refusal.code != .storageUnavailable, !isStopping else { return }
            // one whose unique key another task holds isn't queued again, and one that holds it for a
            // window isn't forgotten
            if refusal.code == .conflict, ledger.tasks[id]?.unique != nil { return }
            // its add says which key, and what was done to that is reported
            if refusal.code == .damaged, world.hasRot { return world.reportDamage() }
            fail("a change of \(name(id)) is refused: \(refusal)")
        }
    }

    /// A change is over, says a client.
    func clientHeard(_ receipt: ChangeReceipt, of change: TaskChange) {
        guard receipt.verdict == .notPossible, let status = receipt.status else { return }
        let isPossible =
            switch change {
            case .cancel: !status.isFinal || status == .cancel
            case .requeue: [.error, .dead, .cancel].contains(status)
            case .forget: status == .dead
            }
        if isPossible { fail("no \(change) of \(name(receipt.id)), which is \(status)") }
    }

    /// An end that is told of an epoch which is over by now.
    func checkFormerEnd(_ record: TaskRecord, _ id: TaskID) {
        guard let task = changes.formerEnds[id]?[record.epoch] else {
            return fail("P2: \(name(id)) is said to have ended in epoch \(record.epoch)")
        }
        compare(ToldEnd(record), task)
    }

    // MARK: Workers that are ended

    /// The Broker asks a worker to end, or kills it: from here on its death is no fault of any task.
    func broker(_ broker: SimulatedBroker, ends worker: WorkerID) {
        changes.ended[worker] = broker.name.life
    }

    /// Whether the Broker that lives ended it.
    func wasEnded(_ worker: WorkerID) -> Bool {
        guard let life = changes.ended[worker] else { return false }
        return life == world.broker?.name.life
    }

    /// Nothing is awaited any more: no handler is left that nobody wants.
    func checkHandlers() {
        for (lease, execution) in executions where execution.isRunning && execution.worker.isAlive {
            fail(
                "\(name(execution.holding.id)) goes on under \(lease) on \(execution.worker.name), "
                    + "and nobody ends it"
            )
        }
    }
}
