// Part of QTasks. License: see LICENSE.

package import QTasksModel
package import QTasksWire

/// What a turn of ``WorkerState`` has come to: to be done in this order.
package struct WorkerEffects: Sendable {
    /// Messages for the Broker.
    ///
    /// One that can't be sent is dropped: the next `HELLO` says all of it.
    package var toBroker: [[UInt8]] = []

    /// Messages for Storage.
    ///
    /// One that can't be sent is dropped: its results are kept.
    package var toStorage: [[UInt8]] = []

    /// Tasks to be executed from now on.
    package var starts: [TaskDelivery] = []

    /// Running tasks that are to be asked to come to an end.
    package var cancels: [TaskDelivery] = []

    /// What an operator should hear of.
    package var notes: [WorkerNote] = []

    /// Tasks that came in, where the state is tracing.
    package var received: [TaskID] = []

    /// Tasks whose results are in ``toStorage``, where the state is tracing.
    package var saved: [TaskID] = []

    package init() {}

    package mutating func removeAll() {
        toBroker.removeAll(keepingCapacity: true)
        toStorage.removeAll(keepingCapacity: true)
        starts.removeAll(keepingCapacity: true)
        cancels.removeAll(keepingCapacity: true)
        notes.removeAll(keepingCapacity: true)
        received.removeAll(keepingCapacity: true)
        saved.removeAll(keepingCapacity: true)
    }
}

/// Something in a worker that is worth a line in the log.
package enum WorkerNote: Sendable, Equatable {
    /// A message of the Broker that isn't one.
    case malformed(String)
    /// The Broker refuses what we said.
    case refusedByBroker(Refusal)
    /// A task under a name that is not registered here; it was handed back.
    case unknownName(String)
    /// The Broker says that a lease is no longer ours.
    case abandoned(TaskID)
    case overTimeLimit(TaskID)
    /// The arguments are not where the Broker said; it was handed back.
    case unreadable(TaskID)
    /// So many queued tasks were handed back since none of the running ones came to an end.
    case stalled(Int)
}

extension WorkerState {
    /// Closes a turn: starts what can be started, and hands out all that is to be done.
    ///
    /// `effects` is emptied and filled anew.
    package mutating func endTurn(now: Now, into effects: inout WorkerEffects) {
        effects.removeAll()
        startQueued(now: now, into: &effects.starts)
        watchStall(now: now.monotonic)
        speak(into: &effects.toBroker)
        if heartbeat != nil { beat(now: now.monotonic, into: &effects.toBroker) }
        if resendsAll { resendAll(now: now.monotonic) }
        packer.move(to: &effects.toStorage, ids: &effects.saved)
        swap(&effects.cancels, &cancels)
        swap(&effects.notes, &notes)
        swap(&effects.received, &receivedIDs)
    }

    private mutating func resendAll(now: UInt64) {
        resendsAll = false
        guard !outbox.isEmpty else { return }
        // What this turn packed is in the outbox as well.
        packer.removeAll()
        outbox.all(now: now, into: &packer)
    }

    /// One message of each kind at most, and of hand-backs one of each.
    private mutating func speak(into messages: inout [[UInt8]]) {
        guard session != .none else {
            handBacks.removeAll(keepingCapacity: true)
            unreadables.removeAll(keepingCapacity: true)
            reports.removeAll(keepingCapacity: true)
            return
        }
        if session == .welcomed {
            messages.append(hello())
            session = .greeted
            // all of them: the Broker may be another
            reports = held.values.filter { $0.deadline != nil && $0.phase != .queued }
                .map { report(of: $0) }
        }
        if !reports.isEmpty {
            messages.append(RunningAttempt.encoded(reports))
            reports.removeAll(keepingCapacity: true)
        }
        if !handBacks.isEmpty {
            messages.append(HandBack(holdings: handBacks).encoded())
            handBacks.removeAll(keepingCapacity: true)
        }
        if !unreadables.isEmpty {
            messages.append(HandBack(holdings: unreadables, isUnreadable: true).encoded())
            unreadables.removeAll(keepingCapacity: true)
        }
        if isLeaving {
            guard !hasSaidGoodbye else { return }
            hasSaidGoodbye = true
            messages.append(WireWriter(.goodbye).bytes)
        } else if let window = windowToAnnounce() {
            announced = window
            messages.append(CreditMessage.encoded(window: window))
        }
    }

    /// Whatever else is said tells as well that we live.
    private mutating func beat(now: UInt64, into messages: inout [[UInt8]]) {
        guard let due = heartbeat else { return }
        if messages.isEmpty {
            guard due.dueAt <= now else { return }
            messages.append(WireWriter(.heartbeat).bytes)
        }
        heartbeat?.dueAt = now + due.interval
    }

    private mutating func hello() -> [UInt8] {
        announced = received + UInt64(room)
        let running = held.values.lazy.filter { $0.phase != .over }.map(\.delivery.holding)
        return Hello(
            worker: identity.worker,
            process: identity.process,
            parentPid: identity.parentPid,
            slots: UInt32(slots),
            window: announced,
            names: rules.map(\.name),
            running: Array(running),
            done: outbox.holdings,
            readsStore: readsStore,
            reportsRunning: true,
            sendsHeartbeats: true
        ).encoded(number: greeting)
    }

    /// What the Broker should hear of the window, if anything.
    ///
    /// Half of what is wanted may be used up before it does: one message then stands for several
    /// tasks, and credit never runs out by it.
    private func windowToAnnounce() -> UInt64? {
        guard session == .open else { return nil }
        let window = received + UInt64(room)
        guard window > announced else { return nil }
        let unused = announced > received ? announced - received : 0
        return unused <= UInt64(wanted / 2) ? window : nil
    }

    /// Tasks to have in hand, in slots and ahead of them.
    private var wanted: Int {
        guard !isLeaving, outbox.bytes < Outbox.bytesMax else { return 0 }
        let results = max(Outbox.countMax, 2 * slots)
        return min(slots + ahead.tasks(slots: slots), max(0, results - outbox.count))
    }

    /// Tasks that may come now.
    private var room: Int { max(0, wanted - inHand) }
}
