// Part of QTasks. License: see LICENSE.
//
// What the Broker says. Answers are matched by task, not by message: a repeated question may be
// answered by either message's reply. What nobody waits for is passed over.

import QTasksModel
import QTasksWire

extension ClientState {
    /// A message from the Broker.
    package mutating func received(_ bytes: UnsafeRawBufferPointer, now: UInt64) {
        guard !bytes.isEmpty else { return }  // a ROUTER's probe
        var reader = WireReader(bytes)
        do {
            let header = try MessageHeader.read(from: &reader)
            try handle(header, &reader, now: now)
            lastHeardAt = now
        } catch {
            malformedCount += 1
        }
        settleTimers()
    }

    private mutating func handle(
        _ header: MessageHeader,
        _ reader: inout WireReader,
        now: UInt64
    ) throws(WireError) {
        switch header.command {
        case .welcome: beginSession(try Welcome(from: &reader), now: now)
        case .added:
            while !reader.isAtEnd { settle(try AddReceipt(from: &reader), now: now) }
        case .records:
            let options = RecordOptions(rawValue: try reader.u8("flags"))
            guard !options.contains(.json) else { throw .invalid(field: "flags") }
            while !reader.isAtEnd { try settle(try RecordReply(from: &reader), now: now) }
        case .pong: answer(header.number, .pong(try Pong(from: &reader)))
        case .inspected: answer(header.number, .inspected(Array(reader.rest())))
        case .changed:
            var receipts: [ChangeReceipt] = []
            while !reader.isAtEnd { receipts.append(try ChangeReceipt(from: &reader)) }
            answer(header.number, .changed(receipts))
        case .queueRules:
            answer(header.number, .queueRules(try QueueRulesMessage(from: &reader).rules))
        case .compacted: answer(header.number, .compacted(try Compacted(from: &reader)))
        case .restart: answer(header.number, .restarted(failure: try reader.text("failure")))
        case .error:
            refused(header.number, try ErrorMessage.read(from: &reader), now: now)
        default: throw .invalid(field: "command")
        }
    }

    // MARK: Sessions

    private mutating func beginSession(_ welcome: Welcome, now: UInt64) {
        session = welcome
        repetition = Repetition()
        backoff = Backoff()
        let underWay = adds.ids { $0.phase == .sent }
        for id in underWay { adds.update(id) { $0.content.breaks += 1 } }
        giveUpTooLarge(underWay, limit: Int(welcome.maxPayload))
        giveUpUncertain(underWay, now: now)
        adds.requeue { _ in true }
        waits.requeue { _ in true }
        gets.requeue { _ in true }
        for number in exchanges.keys.sorted() {
            if let message = exchanges[number]?.message { messages.append(message) }
        }
    }

    /// libzmq cuts the connection of who sends a message over the limit, and says nothing.
    private mutating func giveUpTooLarge(_ ids: [TaskID], limit: Int) {
        for id in ids {
            guard let add = adds[id]?.content, add.breaks >= Self.breaksMax,
                add.argumentBytes > limit / 2
            else { continue }
            failAdd(
                id,
                QTasksError(
                    .connectionLost,
                    "the connection to \(broker) broke \(add.breaks) times while task \(id) was "
                        + "sent; its arguments of \(add.argumentBytes) bytes are possibly too large"
                )
            )
        }
    }

    // MARK: Answers

    private mutating func settle(_ receipt: AddReceipt, now: UInt64) {
        switch receipt.verdict {
        case .added, .exists:
            backoff.accepted()
            accepted(receipt.id, now: now)
        case .same(let holder):
            backoff.accepted()
            accepted(receipt.id, as: holder, now: now)
        case .refused(let refusal) where refusal.code.isTransient:
            holdAdd(receipt.id, refusal, now: now)
        case .refused(let refusal):
            failAdd(
                receipt.id,
                QTasksError(refusal.code.errorCode, "task \(receipt.id): \(refusal.message)")
            )
        }
    }

    private mutating func accepted(_ id: TaskID, as holder: TaskID? = nil, now: UInt64) {
        guard let entry = adds.remove(id) else { return }
        entry.claims.forEach { claim in
            if let holder { rename(claim, to: holder) }
            if claim.waits { follow(holder ?? id, claim, sentWith: entry, now: now) }
            settleAdd(claim, failure: nil)
        }
    }

    /// An add that was taken becomes a wait, which went out with it where anybody wanted one then.
    private mutating func follow(
        _ id: TaskID,
        _ claim: Claim,
        sentWith add: Pending<Add>,
        now: UInt64
    ) {
        guard let call = calls[claim.call] else { return }
        guard waits[id] == nil, add.phase == .sent, let askedUntil = add.content.askedUntil else {
            return wait(for: id, claim, until: call.deadline)
        }
        var pending = Pending(Lookup(), claim: claim)
        pending.content.askedUntil = askedUntil
        waits.insertSent(id, pending, request: add.request, at: add.sentAt)
    }

    private mutating func holdAdd(_ id: TaskID, _ refusal: Refusal, now: UInt64) {
        guard adds[id] != nil else {
            // the task was taken by an earlier message; the wait that this one brought was refused with it
            Self.hold(id, refusal, in: &waits)
            if waits[id]?.phase == .held { backoff.refused(now: now) }
            return
        }
        guard adds[id]?.phase == .sent else { return }
        adds.update(id) { entry in
            entry.content.refusal = refusal
            entry.content.uncertainSince = nil
            entry.content.breaks = 0
        }
        adds.hold(id)
        backoff.refused(now: now)
    }

    private mutating func settle(_ reply: RecordReply, now: UInt64) throws(WireError) {
        let record = reply.record.isEmpty ? nil : try RecordBytes(reply.record)
        switch reply.state {
        case .notFound:
            finish(gets.remove(reply.id), .notFound)
            finish(waits.remove(reply.id), .notFound)
            // of a task before this add, under the same ID and forgotten: the end of ours is asked for anew
            adds.update(reply.id) { $0.content.askedUntil = nil }
        case .found:
            guard let record else { throw .truncated(field: "record") }
            finish(gets.remove(reply.id), .record(record))
            guard record.status.isFinal else { return }
            // told before the receipt, or by another connection's wait: the add is there either way
            accepted(reply.id, now: now)
            finish(waits.remove(reply.id), .record(record))
        case .timedOut:
            if let record { finish(gets.remove(reply.id), .record(record)) }
            waitTimedOut(reply.id, record, now: now)
        case .stopping:
            let refusal = Refusal(.stopping, "the system is being stopped")
            Self.hold(reply.id, refusal, in: &waits)
            Self.hold(reply.id, refusal, in: &gets)
            if waits.heldCount + gets.heldCount > 0 { backoff.refused(now: now) }
        }
    }

    private mutating func finish(_ entry: Pending<Lookup>?, _ report: TaskReport) {
        entry?.claims.forEach { self.report(report, to: $0) }
    }

    /// The Broker waits no longer: calls whose time is over end, those with more time ask again.
    private mutating func waitTimedOut(_ id: TaskID, _ record: RecordBytes?, now: UInt64) {
        guard let entry = waits[id] else { return }
        var over: [Claim] = []
        entry.claims.forEach { claim in
            if let deadline = calls[claim.call]?.deadline, deadline <= now { over.append(claim) }
        }
        waits.update(id) { entry in
            entry.content.last = record
            entry.claims.removeAll { claim in over.contains { $0.call == claim.call } }
        }
        if waits[id]?.claims.isEmpty == true { waits.remove(id) }
        for claim in over { report(.timedOut(last: record), to: claim) }
        if let left = waits[id], left.phase == .sent, left.content.askedUntil <= now {
            waits.requeue(id)
        }
    }

    private static func hold(
        _ id: TaskID,
        _ refusal: Refusal,
        in table: inout PendingTable<Lookup>
    ) {
        guard table[id]?.phase == .sent else { return }
        table.update(id) { $0.content.refusal = refusal }
        table.hold(id)
    }

    private mutating func answer(_ number: UInt64, _ reply: ClientReply) {
        guard let exchange = exchanges.removeValue(forKey: number) else { return }
        complete(exchange.call, .success(reply))
    }

    // MARK: Refused messages

    /// The Broker could not read or serve a whole message.
    private mutating func refused(_ number: UInt64, _ refusal: Refusal, now: UInt64) {
        if let exchange = exchanges.removeValue(forKey: number) {
            return complete(exchange.call, .failure(refusal.error))
        }
        for id in adds.ids(where: { $0.phase == .sent && $0.request == number }) {
            if refusal.code.isTransient {
                holdAdd(id, refusal, now: now)
            } else {
                failAdd(id, refusal.error)
            }
        }
        let failed =
            Self.refuse(number, refusal, in: &waits) + Self.refuse(number, refusal, in: &gets)
        for entry in failed { finish(entry, .failed(refusal.error)) }
        if waits.heldCount + gets.heldCount > 0 { backoff.refused(now: now) }
    }

    /// Holds what the message asked, or takes it out for good.
    ///
    /// - Returns: What was taken out.
    private static func refuse(
        _ number: UInt64,
        _ refusal: Refusal,
        in table: inout PendingTable<Lookup>
    ) -> [Pending<Lookup>] {
        var failed: [Pending<Lookup>] = []
        for id in table.ids(where: { $0.phase == .sent && $0.request == number }) {
            if refusal.code.isTransient {
                hold(id, refusal, in: &table)
            } else if let entry = table.remove(id) {
                failed.append(entry)
            }
        }
        return failed
    }
}
