// Part of QTasks. License: see LICENSE.
//
// What each message of the Broker does to a worker.

import AppendLog
import QTasksModel
import QTasksWire

extension WorkerState {
    mutating func receive(
        _ header: MessageHeader,
        _ reader: inout WireReader,
        now: Now,
        _ store: LogRecords?
    ) throws(WireError) {
        switch header.command {
        case .welcome:
            greeting = header.number
            readsStore = store?.canBeOpened ?? false
            welcome(try Welcome(from: &reader))
        case .reconciled: try reconciled(&reader, now: now)
        case .work: try work(&reader, now: now, store)
        case .softCancel: try softCancel(&reader)
        case .notice:
            _ = try reader.integer("incarnation", as: UInt32.self)
            resendsAll = true
        case .retire: leave()
        case .watched:
            let watched = try WatchedMessage(from: &reader)
            guard session == .greeted || session == .open else { return }
            let interval = UInt64(watched.intervalMilliseconds) * 1_000_000
            heartbeat = Heartbeat(interval: interval, dueAt: now.monotonic + interval)
        case .error: note(.refusedByBroker(try ErrorMessage.read(from: &reader)))
        default: throw .invalid(field: "command")
        }
    }

    /// A new session: whatever the older one counted or was told is void.
    private mutating func welcome(_ welcome: Welcome) {
        session = .welcomed
        received = 0
        announced = 0
        hasSaidGoodbye = false
        heartbeat = nil
        resultBytesMax = Int(welcome.maxPayload)
        // HELLO doesn't list them, which says the same.
        handBacks.removeAll(keepingCapacity: true)
        unreadables.removeAll(keepingCapacity: true)
        reports.removeAll(keepingCapacity: true)
    }

    private mutating func reconciled(_ reader: inout WireReader, now: Now) throws(WireError) {
        guard session == .greeted || session == .open else { return }
        while !reader.isAtEnd {
            let lease = try reader.lease("lease")
            guard let verdict = ReconcileVerdict(rawValue: try reader.u8("verdict")) else {
                throw .invalid(field: "verdict")
            }
            switch verdict {
            case .keep: break
            case .acknowledged: outbox.remove(lease)
            case .sendAgain:
                if let entry = outbox.again(lease, now: now.monotonic) { packer.add(entry) }
            case .abandon: abandon(lease)
            }
        }
        session = .open
    }

    private mutating func work(
        _ reader: inout WireReader,
        now: Now,
        _ store: LogRecords?
    ) throws(WireError) {
        // Before WELCOME there is nobody who could have sent it to us.
        guard session != .none else { return }
        let acknowledged = Int(try reader.integer("acknowledgements", as: UInt32.self))
        guard acknowledged <= reader.left / 8 else { throw .truncated(field: "acknowledgements") }
        for _ in 0..<acknowledged { outbox.remove(try reader.lease("acknowledgement")) }
        while !reader.isAtEnd {
            let task = try LeasedTask(from: &reader)
            let envelope = try task.envelope(from: &reader)
            received += 1
            take(task, envelope, now: now, store)
        }
    }

    private mutating func take(
        _ task: LeasedTask,
        _ envelope: Envelope,
        now: Now,
        _ store: LogRecords?
    ) {
        guard held[task.lease] == nil, !outbox.contains(task.lease) else { return }
        if isTracing { receivedIDs.append(envelope.id) }
        let holding = Holding(id: envelope.id, lease: task.lease)
        guard !isLeaving else { return handBacks.append(holding) }
        var placed: PlacedArguments?
        if let reference = task.arguments {
            // mapped at once: from then on the segment may go
            placed = store.flatMap { try? PlacedArguments(reference, envelope.bytes, in: $0) }
            guard placed != nil else { return giveBackUnreadable(holding) }
        }
        guard let handler = names.number(of: envelope.name) else {
            // the head was told unchecked: a name that nobody knows may be one that has rotted
            guard placed?.isSound() ?? true else { return giveBackUnreadable(holding) }
            note(.unknownName(String(decoding: envelope.name, as: UTF8.self)))
            return handBacks.append(holding)
        }
        do {
            let delivery = try TaskDelivery(task, envelope, handler: handler, placed: placed)
            held[task.lease] = Held(delivery: delivery)
            queue.append(delivery)
            queued += 1
        } catch {
            // The Broker doesn't look at options and Storage has taken them: no worker will read
            // them better, so this is the task's last word.
            let failure = TaskFailure(type: "BadOption", message: "the task's options: \(error)")
            save(
                ResultEntry(
                    id: envelope.id,
                    lease: task.lease,
                    startedAt: now.wall,
                    finishedAt: now.wall,
                    outcome: .error(failure)
                ),
                now: now
            )
        }
    }

    private mutating func softCancel(_ reader: inout WireReader) throws(WireError) {
        let count = Int(try reader.integer("leases", as: UInt32.self))
        guard count <= reader.left / 8 else { throw .truncated(field: "leases") }
        for _ in 0..<count {
            let lease = try reader.lease("lease")
            guard let task = held[lease] else { continue }
            switch task.phase {
            case .queued:
                handBacks.append(task.delivery.holding)
                unqueue(lease)
            case .running:
                held[lease]?.phase = .stopping
                cancels.append(task.delivery)
            case .stopping, .over: break
            }
        }
    }

    /// The lease is no longer ours: another's result will count.
    private mutating func abandon(_ lease: Lease) {
        outbox.remove(lease)
        // whoever says so waits for its end
        guard let task = held[lease] else { return reports.append(RunningAttempt(returned: lease)) }
        note(.abandoned(task.delivery.id))
        switch task.phase {
        case .queued:
            unqueue(lease)
            reports.append(RunningAttempt(returned: lease))
        case .running, .stopping:
            forgetLimit(of: task)
            held[lease]?.phase = .over
            over += 1
            cancels.append(task.delivery)
        case .over: break
        }
    }

    /// Its place in the queue is passed over when its turn comes.
    private mutating func unqueue(_ lease: Lease) {
        held[lease] = nil
        queued -= 1
    }
}
