// Part of QTasks. License: see LICENSE.
//
// The drain (design §2): no new leases; grace; soft cancel; SIGKILL; releases committed.

import QTasksModel
import QTasksWire

extension BrokerState {
    /// How long handlers that were asked to end may still take, in nanoseconds.
    private static let cancelNanoseconds: UInt64 = 1_000_000_000

    /// From now on nothing is leased, and adds and waits are turned away.
    mutating func drain(graceMilliseconds: UInt64) {
        guard stopping == .no else { return }
        stopping = .grace(deadline: now.monotonic + graceMilliseconds * 1_000_000)
        notice(
            "draining",
            "no task is leased any more; running ones may end",
            [("running", "\(leases.count)"), ("graceMilliseconds", "\(graceMilliseconds)")]
        )
        checkDrained()
    }

    mutating func drainTimer() {
        switch stopping {
        case .grace(let deadline) where deadline <= now.monotonic: cancelRunning()
        case .cancelled(let deadline) where deadline <= now.monotonic: killHolders()
        case .no, .grace, .cancelled, .killed, .drained, .stopped: break
        }
    }

    /// No worker holds a lease and none is on its way: the drain is over.
    mutating func checkDrained() {
        switch stopping {
        case .grace, .cancelled, .killed:
            guard leases.isEmpty, storage.isUp else { return }
            stopping = .drained
            turnWaitersAway()
            notice("drained", "no worker holds a task")
            outbox.deeds.append(.drained)
            if let starter { outbox.toWorkers.append((starter, WireWriter(.drained).bytes)) }
        case .no, .drained, .stopped: break
        }
    }

    private mutating func cancelRunning() {
        stopping = .cancelled(deadline: now.monotonic + Self.cancelNanoseconds)
        for number in roster.all {
            let worker = roster[number]
            guard let session = worker.session, !worker.leases.isEmpty else { continue }
            var message = WireWriter(.softCancel)
            message.integer(UInt32(worker.leases.count))
            for lease in worker.leases { message.integer(lease.rawValue) }
            outbox.toWorkers.append((session, message.bytes))
        }
        notice("cancelling", "the grace period is over", [("running", "\(leases.count)")])
    }

    private mutating func killHolders() {
        stopping = .killed
        for number in roster.all where !roster[number].leases.isEmpty {
            guard !roster[number].isRemote else {
                takeBack(number)
                continue
            }
            roster[number].wasKilledByUs = true
            outbox.deeds.append(.kill(roster[number].id))
            tellStarter(.killed, of: number)
        }
    }

    private mutating func turnWaitersAway() {
        refuseCompactions(Refusal(.stopping, "the system was stopped before it was over"))
        refuseChanges(Refusal(.stopping, "the system was stopped before it was done"))
        rolled("the system is being stopped")
        for wait in clients.takeAllWaits() {
            clients.answer(
                wait,
                state: .stopping,
                record: UnsafeRawBufferPointer(start: nil, count: 0)
            )
        }
    }

    /// Storage and GlobalConfig stop; then the Broker does.
    mutating func stopStorage() {
        if stopping == .no { drain(graceMilliseconds: 0) }
        stopping = .stopped
        turnWaitersAway()
        notice("stopping", "GlobalConfig and Storage stop first")
        if storage.isUp {
            outbox.toStorage.append(StorageMessage(bytes: WireWriter(.stopStorage).bytes))
        } else {
            outbox.deeds.append(.finish)
        }
    }
}
