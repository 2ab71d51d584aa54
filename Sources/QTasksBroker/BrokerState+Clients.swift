// Part of QTasks. License: see LICENSE.
//
// Task creation and result of the seed's diagrams, as far as the Broker goes: a client adds, asks,
// waits. Nothing that a client sends can do more than get an error back (P7).

import QTasksModel
import QTasksWire
package import ZeroMQ

extension BrokerState {
    /// A message from a client.
    ///
    /// - Parameters:
    ///   - bytes: The message; an empty one is the probe of a new connection.
    ///   - session: Where it came from.
    ///   - keep: Keeps the message for longer than this turn, without a copy.
    package mutating func clientMessage(
        _ bytes: UnsafeRawBufferPointer,
        from session: Session,
        keep: () -> ReceivedBytes? = { nil }
    ) {
        if bytes.isEmpty { return greet(session) }
        var reader = WireReader(bytes)
        do {
            let header = try MessageHeader.read(from: &reader)
            do {
                if header.command == .add {
                    try add(header.number, &reader, session) { KeptEnvelope($0, in: bytes, keep) }
                } else {
                    try serve(header, &reader, session)
                }
            } catch {
                refuse(session, header.number, Refusal(.malformed, "\(header.command): \(error)"))
            }
        } catch {
            refuse(session, error.number, error.refusal)
        }
    }

    /// A connection that a reply could not reach.
    package mutating func clientGone(_ session: Session) {
        clients.forgetSession(session)
    }

    private mutating func greet(_ session: Session) {
        guard storage.isUp || storage.isDown else {
            // bounded: a client whose probe is forgotten is greeted when it reconnects
            if waitingClients.count < 100_000 { waitingClients.append(session) }
            return
        }
        clients.send(welcome, to: session)
    }

    var welcome: [UInt8] { welcome(number: 0) }

    func welcome(number: UInt64) -> [UInt8] {
        Welcome(
            incarnation: storage.incarnation,
            maxPayload: UInt32(settings.config.maxPayload),
            windowTasks: settings.windowTasks,
            brokerPid: settings.pid
        ).encoded(number: number)
    }

    private mutating func serve(
        _ header: MessageHeader,
        _ reader: inout WireReader,
        _ session: Session
    ) throws(WireError) {
        switch header.command {
        case .get: try get(header.number, &reader, session)
        case .ping:
            let pong = Pong(
                incarnation: storage.incarnation,
                brokerPid: settings.pid,
                isStorageUp: storage.isUp
            )
            clients.send(pong.encoded(number: header.number), to: session)
        case .inspect:
            let topic = try reader.text("topic")
            inspect(topic, number: header.number, session: session)
        case .compact: compact(number: header.number, session: session)
        case .queue: try queue(header.number, &reader, session)
        case .cancel: try change(.cancel, header.number, &reader, session)
        case .requeue: try change(.requeue, header.number, &reader, session)
        case .forget: try change(.forget, header.number, &reader, session)
        case .restart:
            restart(try reader.u8("flags"), number: header.number, session: session)
        default:
            refuse(
                session,
                header.number,
                Refusal(.unknownCommand, "clients can't send '\(header.command)' here")
            )
        }
    }

    private mutating func refuse(_ session: Session, _ number: UInt64, _ refusal: Refusal) {
        if refusal.code == .malformed {
            notice(
                "refused",
                "a client's message can't be read: \(refusal.message)",
                [("peer", "\(session)")],
                isWarning: true
            )
        }
        clients.send(ErrorMessage.encoded(refusal, number: number), to: session)
    }

    // MARK: ADD

    private mutating func add(
        _ number: UInt64,
        _ reader: inout WireReader,
        _ session: Session,
        _ keep: (UnsafeRawBufferPointer) -> KeptEnvelope
    ) throws(WireError) {
        let message = try AddMessage(from: &reader)
        // read all before anything is done: a message is taken whole or not at all
        var envelopes: [Envelope] = []
        while !reader.isAtEnd { envelopes.append(try Envelope(from: &reader)) }
        guard !envelopes.isEmpty else { throw .truncated(field: "envelope") }
        let request = clients.begin(
            .added,
            session: session,
            number: number,
            options: message.options,
            count: envelopes.count
        )
        for envelope in envelopes {
            do throws(Refusal) {
                let options = try options(of: envelope, message, session)
                add(envelope, options, message, request, keep)
            } catch {
                clients.answer(request, AddReceipt(id: envelope.id, verdict: .refused(error)))
            }
        }
    }

    /// What an add asks for.
    ///
    /// - Throws: Why the Broker doesn't take it.
    private func options(
        of envelope: Envelope,
        _ message: AddMessage,
        _ session: Session
    ) throws(Refusal) -> EnvelopeOptions {
        if stopping.isUnderWay {
            throw Refusal(.stopping, "the system at \(settings.home) is being stopped")
        }
        if storage.isDown { throw storageRefusal }
        guard TaskName.isValid(envelope.name) else { throw .badName("task") }
        guard envelope.queue.isEmpty || TaskName.isValid(envelope.queue) else {
            throw .badName("queue")
        }
        guard envelope.arguments.count <= settings.config.maxPayload else {
            throw Refusal(
                .payloadTooLarge,
                "arguments of \(envelope.arguments.count) bytes: this system takes "
                    + "\(settings.config.maxPayload) (--max-payload)"
            )
        }
        let options: EnvelopeOptions
        do {
            options = try EnvelopeOptions(envelope.options)
        } catch {
            throw Refusal(.badOption, "\(error)")
        }
        guard options.key.map({ TaskSubmission.keyBytes.contains($0.count) }) ?? true else {
            throw Refusal(
                .badOption,
                "a key has 1 to \(TaskSubmission.keyBytes.upperBound) bytes"
            )
        }
        if let refusal = overload(session, message) ?? overload(envelope) { throw refusal }
        return options
    }

    private func overload(_ envelope: Envelope) -> Refusal? {
        guard lanes.limitsQueues else { return nil }
        let queue = queueName(envelope)
        guard let most = lanes.mostQueued(in: queue) else { return nil }
        return Refusal(
            .overloaded,
            "\(most) tasks wait in the queue '\(queue)', which is its limit (queue limit --max-queued)"
        )
    }

    private func overload(_ session: Session, _ message: AddMessage) -> Refusal? {
        if clients.unanswered[session, default: 0] > 2 * Int(settings.windowTasks) {
            return Refusal(
                .overloaded,
                "more than \(settings.windowTasks) tasks of this connection are unanswered"
            )
        }
        if clients.pendingBytes > ClientTable.pendingBytesMax {
            return Refusal(
                .overloaded,
                "Storage has not kept up with \(clients.pendingBytes) bytes of adds"
            )
        }
        if let most = settings.config.maxQueued, lanes.waiting + lanes.unanswered >= most {
            return Refusal(
                .overloaded,
                "\(most) tasks are queued, which is the limit (--max-queued)"
            )
        }
        if message.options.contains(.wait), !clients.mayWait(session, 1) {
            return Refusal(
                .overloaded,
                "this connection waits for \(ClientTable.waitsPerSessionMax) tasks"
            )
        }
        return nil
    }

    private mutating func add(
        _ envelope: Envelope,
        _ options: EnvelopeOptions,
        _ message: AddMessage,
        _ request: ClientTable.RequestNumber,
        _ keep: (UnsafeRawBufferPointer) -> KeptEnvelope
    ) {
        let lane = lane(of: envelope, options)
        let isDelayed = options.start != .now
        let isWatched = message.options.contains(.wait)
        var pending = PendingAdd(
            request: request,
            id: envelope.id,
            lane: lane,
            priority: envelope.priority,
            lease: .none,
            worker: WorkerID(high: 0, low: 0),
            durability: options.durability ?? settings.config.durability,
            isWatched: isWatched,
            envelope: keep(envelope.bytes)
        )
        if isWatched {
            let owner = clients.request(request)
            clients.wait(
                for: envelope.id,
                session: owner.session,
                number: owner.number,
                options: message.options,
                deadline: deadline(after: message.waitMilliseconds),
                withAdd: true
            )
        }
        if !isDelayed, let worker = workerForNewTask(in: lane) {
            pending.lease = reserve(
                // its place is known once it is added
                QueuedTask(
                    QueuedPlace(sequence: 0, handle: .max),
                    priority: envelope.priority
                ),
                id: envelope.id,
                isSuspect: false,
                lane: lane,
                for: worker
            )
            pending.worker = roster[worker].id
        }
        propose(pending)
    }

    mutating func propose(_ pending: PendingAdd) {
        if pending.lease == .none { lanes.addUnanswered(1, to: pending.lane) }
        let number = takeNumber()
        let isLent = pending.envelope.count >= settings.lentBytesMin
        pending.envelope.withUnsafeBytes { envelope in
            propose(
                .add(
                    number: number,
                    isWatched: pending.isWatched,
                    lease: pending.lease,
                    worker: pending.worker,
                    envelope: isLent ? UnsafeRawBufferPointer(rebasing: envelope[..<0]) : envelope
                )
            )
        }
        if isLent, storage.isUp { sendProposals(with: pending.envelope) }
        trace("save new task", pending.id, "storage")
        clients.keep(pending, as: number)
    }

    mutating func lane(of envelope: Envelope, _ options: EnvelopeOptions) -> Lanes.Number {
        lane(
            Lane.Key(
                queue: queueName(envelope),
                name: String(decoding: envelope.name, as: UTF8.self),
                key: options.key.map { Array($0) } ?? []
            )
        )
    }

    private func queueName(_ envelope: Envelope) -> String {
        envelope.queue.isEmpty
            ? TaskName.defaultQueue : String(decoding: envelope.queue, as: UTF8.self)
    }

    func deadline(after milliseconds: UInt32) -> UInt64? {
        milliseconds == 0 ? nil : now.monotonic + UInt64(milliseconds) * 1_000_000
    }

    // MARK: GET

    private mutating func get(
        _ number: UInt64,
        _ reader: inout WireReader,
        _ session: Session
    ) throws(WireError) {
        let message = try GetMessage(from: &reader)
        guard !message.ids.isEmpty else { throw .truncated(field: "task ID") }
        if message.options.contains(.wait) {
            return wait(message, number, session)
        }
        guard clients.reads.count < 1_000_000,
            clients.large.waitingCount(session) < ClientTable.waitsPerSessionMax
        else {
            return refuse(session, number, Refusal(.overloaded, "a million reads are unanswered"))
        }
        guard clients.unansweredReads[session, default: 0] <= 2 * Int(settings.windowTasks) else {
            return refuse(
                session,
                number,
                Refusal(
                    .overloaded,
                    "more than \(settings.windowTasks) reads of this connection are unanswered"
                )
            )
        }
        let request = clients.begin(
            .records,
            session: session,
            number: number,
            options: message.options,
            count: message.ids.count
        )
        for id in message.ids { read(id, for: .get(request)) }
    }

    private mutating func wait(_ message: GetMessage, _ number: UInt64, _ session: Session) {
        guard clients.mayWait(session, message.ids.count) else {
            let limit = ClientTable.waitsPerSessionMax
            return refuse(
                session,
                number,
                Refusal(.overloaded, "this connection waits for \(limit) tasks")
            )
        }
        for id in message.ids {
            clients.wait(
                for: id,
                session: session,
                number: number,
                options: message.options,
                deadline: deadline(after: message.waitMilliseconds)
            )
            // also while stopping: what has ended is told; the rest hears of the stop at its end
            propose(.watch(id: id))
            trace("read result", id, "storage")
        }
    }

    mutating func read(_ id: TaskID, for purpose: PendingRead.Purpose) {
        let number = takeNumber()
        clients.reads[number] = PendingRead(purpose: purpose, id: id)
        propose(.read(number: number, id: id, isWhole: false))
        trace("read result", id, "storage")
    }

    mutating func answerOverdue(_ wait: Wait) {
        guard storage.isUp else {
            clients.answer(
                wait,
                state: .timedOut,
                record: UnsafeRawBufferPointer(start: nil, count: 0)
            )
            return
        }
        read(wait.id, for: .overdue(wait))
    }
}

extension MessageHeader.Refusal {
    /// The number of the request that could not be read, where that much could be.
    var number: UInt64 {
        switch self {
        case .malformed: 0
        case .unsupportedVersion(_, let number), .unknownCommand(_, let number): number
        }
    }

    /// What its sender is told.
    var refusal: Refusal {
        switch self {
        case .malformed:
            Refusal(.malformed, "no message of this protocol: it begins with 'QT' and 10 bytes")
        case .unsupportedVersion(let version, _):
            Refusal(
                .unsupportedVersion,
                "protocol version \(version): this system speaks \(MessageHeader.version)"
            )
        case .unknownCommand(let code, _):
            Refusal(.unknownCommand, "there is no command \(code)")
        }
    }
}
