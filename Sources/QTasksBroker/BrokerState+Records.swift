// Part of QTasks. License: see LICENSE.
//
// Records on their way from Storage to clients. A large one comes as a place in the store: its bytes
// are read from there into the client's message.

import QTasksModel
package import QTasksWire

extension BrokerState {
    /// Storage answered a read; an empty record means that there is no such task.
    mutating func recordRead(_ read: PendingRead, _ record: UnsafeRawBufferPointer) {
        switch read.purpose {
        case .get(let request):
            trace("result", read.id, "client")
            answer(.get(request, read.id), record)
        case .overdue(let wait) where record.isEmpty && wait.isOfUndecidedAdd:
            // what became of the add has a receipt of its own
            clients.answer(wait, state: .timedOut, record: record)
        case .overdue(let wait): answer(.wait(wait, .timedOut), record)
        case .whole(let reply):
            if !waitsAgain(reply.target, record) { answer(reply.target, record) }
            clientTook(reply.session, reply.count)
        }
    }

    /// Whether the end that a wait was to be told of is over: the task was queued again meanwhile, and its
    /// next end is waited for.
    private mutating func waitsAgain(
        _ target: RecordTarget,
        _ record: UnsafeRawBufferPointer
    ) -> Bool {
        guard case .wait(let wait, .found) = target,
            let status = record.first.flatMap({ TaskStatus(code: $0) }), !status.isFinal
        else { return false }
        clients.waitAgain(wait)
        propose(.watch(id: wait.id))
        return true
    }

    /// A task has ended, or there is none (`record` is empty): tell everybody who waits for it.
    mutating func tellWaiters(of id: TaskID, _ record: UnsafeRawBufferPointer) {
        guard clients.isAwaited(id) else { return }
        trace("result", id, "client")
        for wait in clients.takeWaits(for: id, isThere: !record.isEmpty) {
            answer(.wait(wait, .found), record)
        }
    }

    /// A session took a message of so many bytes, or will never take it.
    package mutating func clientTook(_ session: Session, _ bytes: Int) {
        for reply in clients.large.took(bytes, session) { send(reply) }
    }

    /// The client's message with a record from the store; where that isn't there any more, Storage is
    /// asked for all of it.
    package mutating func message(of reply: PlacedReply, _ read: PayloadReading) -> [UInt8]? {
        guard let message = reply.message(read) else {
            askForWhole(reply)
            return nil
        }
        clients.answered(reply.target)
        return message
    }

    private mutating func answer(_ target: RecordTarget, _ record: UnsafeRawBufferPointer) {
        guard !PlacedRecord.isPlaced(record) else { return place(record, for: target) }
        withRendered(record, clients.options(of: target)) { rendered, broker in
            broker.clients.answer(target, rendered)
        }
    }

    private mutating func place(_ record: UnsafeRawBufferPointer, for target: RecordTarget) {
        guard let placed = try? PlacedRecord(record) else {
            preconditionFailure("Storage, of this build, says what can be read")
        }
        let head = clients.head(for: target, recordBytes: placed.count)
        // JSON is made here, and of a queued task the Broker has something to add
        let isPlain = !clients.options(of: target).contains(.json) && placed.status != .new
        let reply = PlacedReply(
            session: clients.session(of: target),
            head: head ?? [],
            record: Array(record),
            count: (head?.count ?? 0) + placed.count,
            target: target,
            isPlain: isPlain && head != nil
        )
        if clients.large.admit(reply) { send(reply) }
    }

    private mutating func send(_ reply: PlacedReply) {
        if reply.isPlain { outbox.placed.append(reply) } else { askForWhole(reply) }
    }

    private mutating func askForWhole(_ reply: PlacedReply) {
        let number = takeNumber()
        clients.reads[number] = PendingRead(purpose: .whole(reply), id: reply.target.id)
        propose(.read(number: number, id: reply.target.id, isWhole: true))
    }

    /// The record in the form that the client asked for, with what only the Broker knows.
    private mutating func withRendered(
        _ record: UnsafeRawBufferPointer,
        _ options: RecordOptions,
        _ body: (UnsafeRawBufferPointer, inout BrokerState) -> Void
    ) {
        let isQueued = record.first == TaskStatus.new.code
        guard !record.isEmpty, options.contains(.json) || isQueued else {
            return body(record, &self)
        }
        var reader = WireReader(record)
        guard var decoded = try? TaskRecord(from: &reader) else { return body(record, &self) }
        if isQueued { decoded.isUnroutable = !lanes.hasWorker(for: decoded.name) }
        var rendered: [UInt8]
        if options.contains(.json) {
            rendered = decoded.json
        } else {
            var writer = WireWriter()
            decoded.write(to: &writer)
            rendered = writer.take()
        }
        rendered.withUnsafeBytes { body($0, &self) }
    }
}
