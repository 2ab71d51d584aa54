// Part of QTasks. License: see LICENSE.
//
// Cancel, requeue and forget from outside: Storage decides, the lines and the workers follow.

import QTasksModel
import QTasksWire
import ZeroMQ

/// A change that Storage has not answered.
struct PendingChange {
    var request: ClientTable.RequestNumber
    var change: TaskChange
    var id: TaskID
    var reason: String
}

extension BrokerState {
    /// Changes that may be unanswered at once, of all sessions.
    private static let changesMax = 1_000_000

    mutating func change(
        _ change: TaskChange,
        _ number: UInt64,
        _ reader: inout WireReader,
        _ session: Session
    ) throws(WireError) {
        let message = try ChangeMessage(change, from: &reader)
        guard !message.ids.isEmpty else { throw .truncated(field: "task ID") }
        if let refusal = refusal(of: message) {
            return clients.send(ErrorMessage.encoded(refusal, number: number), to: session)
        }
        let request = clients.begin(
            .changed,
            session: session,
            number: number,
            options: [],
            count: message.ids.count
        )
        for id in message.ids {
            let pending = PendingChange(
                request: request,
                change: change,
                id: id,
                reason: message.reason
            )
            let proposal = takeNumber()
            clients.changes[proposal] = pending
            propose(pending, as: proposal)
            trace("change", id, "storage")
        }
    }

    private func refusal(of message: ChangeMessage) -> Refusal? {
        if stopping.isUnderWay {
            return Refusal(.stopping, "the system at \(settings.home) is being stopped")
        }
        if storage.isDown { return storageRefusal }
        guard clients.changes.count + message.ids.count <= Self.changesMax else {
            return Refusal(.overloaded, "\(Self.changesMax) changes are unanswered")
        }
        guard message.reason.utf8.count <= Int(UInt16.max) else {
            return Refusal(.payloadTooLarge, "a reason has \(UInt16.max) bytes at most")
        }
        return nil
    }

    private mutating func propose(_ pending: PendingChange, as number: UInt64) {
        propose(
            .change(number: number, pending.change, id: pending.id, reason: pending.reason)
        )
    }

    /// Storage has forgotten what it was asked: it is asked again, in the same order.
    mutating func proposeChangesAgain() {
        for (number, pending) in clients.changes.sorted(by: { $0.key < $1.key }) {
            propose(pending, as: number)
        }
    }

    /// Nobody who asked for a change will hear of it.
    mutating func refuseChanges(_ refusal: Refusal) {
        for pending in clients.changes.values {
            clients.answer(
                pending.request,
                ChangeReceipt(id: pending.id, verdict: .refused(refusal), status: nil)
            )
        }
        clients.changes = [:]
    }

    // MARK: Verdicts

    mutating func changed(_ number: UInt64, _ verdict: ChangeVerdict) {
        let pending = clients.changes.removeValue(forKey: number)
        let receipt: (ChangeReceipt.Verdict, TaskStatus?)
        switch verdict {
        case .withdrawn(let placement, let due):
            withdraw(placement, due: due)
            receipt = (.done, .cancel)
        case .revoked(let lease):
            revoke(lease)
            receipt = (.done, .cancel)
        case .requeued(let placement):
            putBack(placement)
            receipt = (.done, .new)
        // it waited nowhere, and nobody waits for a task that is dead
        case .forgotten: receipt = (.done, .dead)
        case .unchanged(nil): receipt = (.unknown, nil)
        case .unchanged(let status):
            // the same once more, as a client sends it that heard no answer
            let isDone = pending?.change == .cancel && status == .cancel
            receipt = (isDone ? .done : .notPossible, status)
        case .refused(let refusal): receipt = (.refused(refusal), nil)
        }
        guard let pending else { return }
        clients.answer(
            pending.request,
            ChangeReceipt(id: pending.id, verdict: receipt.0, status: receipt.1)
        )
    }

    /// Whether the task is out of its line, for a lease that Storage hasn't answered.
    private func isAskedFor(_ placement: Placement) -> Bool {
        storageLeases.values.contains { leases[$0]?.task.place == placement.place }
    }

    /// A task that waited is cancelled: it goes out of its line.
    private mutating func withdraw(_ placement: Placement, due: DueTime) {
        // Storage refuses that, and so it comes out
        guard !isAskedFor(placement) else { return }
        let lane = lane(of: placement)
        if withdrawTime(of: placement.place, due) {
            lanes.addScheduled(-1, to: lane)
        } else {
            lanes.withdraw(QueuedTask(placement), isSuspect: placement.isSuspect, from: lane)
            // no worker is kept empty for it any more
            if lanes.suspectsWaiting == 0 { suspectHolder = nil }
        }
        closeIfUnused(lane)
    }

    /// A task that ran is cancelled: its worker is told, and free for others as soon as it can be.
    private mutating func revoke(_ lease: Lease) {
        guard let entry = end(lease) else { return }
        if entry.isHeld, let worker = roster.number(of: entry.worker) {
            revoked[worker, default: []].append(lease)
            limit(revoked: lease, of: worker)
        }
        closeIfUnused(entry.lane)
    }

    private mutating func putBack(_ placement: Placement) {
        // Storage has decided that after this, or its refusal would have been told: it grants it
        guard !isAskedFor(placement) else { return }
        let lane = lane(of: placement)
        lanes.putBack(QueuedTask(placement), to: lane)
    }

    /// Tells workers which leases they hold no more; after the tasks that this turn sends them.
    mutating func sendRevoked() {
        for (worker, leases) in revoked {
            guard let session = roster.entries[worker]?.session else { continue }
            var message = WireWriter(.reconciled)
            for lease in leases {
                message.integer(lease.rawValue)
                message.u8(ReconcileVerdict.abandon.rawValue)
            }
            outbox.toWorkers.append((session, message.bytes))
        }
        revoked.removeAll(keepingCapacity: true)
    }
}
