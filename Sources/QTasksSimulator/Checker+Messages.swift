// Part of QTasks. License: see LICENSE.
//
// What is said to whom, and whether it may be said already (P1, P2, P6).

import AppendLog
import QTasksClient
import QTasksModel
import QTasksWire
import ZeroMQ

/// How somebody was told that a task ended.
struct ToldEnd: Equatable {
    var epoch: UInt16
    var status: TaskStatus
    var outcome: TaskOutcome?
}

extension ToldEnd {
    init(_ record: TaskRecord) {
        self.init(epoch: record.epoch, status: record.status, outcome: record.outcome)
    }
}

extension Checker {
    // MARK: To clients

    func brokerToldClient(_ bytes: [UInt8]) {
        reading(bytes) { header, reader in
            switch header.command {
            case .added:
                while !reader.isAtEnd { check(try AddReceipt(from: &reader)) }
            case .records:
                _ = try reader.u8("flags")
                while !reader.isAtEnd { try check(try RecordReply(from: &reader)) }
            case .changed:
                while !reader.isAtEnd { check(try ChangeReceipt(from: &reader)) }
            case .error:
                let refusal = try ErrorMessage.read(from: &reader)
                // a compaction that met what was done to a segment
                if refusal.code == .damaged, world.hasRot { return world.reportDamage() }
                // a compaction, while Storage can't open the store
                if refusal.code != .storageUnavailable, !isStopping(refusal.code) {
                    fail("a client is refused: \(refusal)")
                }
            default: break
            }
        }
    }

    /// The system is being stopped: the client tries again.
    private func isStopping(_ code: RefusalCode) -> Bool {
        code == .stopping && world.hasBeenStopped
    }

    private func check(_ receipt: AddReceipt) {
        switch receipt.verdict {
        case .refused(let refusal) where refusal.code == .storageUnavailable:
            break  // Storage was killed twice before it had opened: the client tries again
        case .refused(let refusal) where isStopping(refusal.code): break
        case .refused(let refusal) where refusal.code == .overloaded && mayBeFull(receipt.id):
            statistics.overloads += 1
        case .refused(let refusal):
            fail("the add of \(name(receipt.id)) is refused: \(refusal)")
        case .same(let holder): checkRepeat(of: receipt.id, holder)
        case .added, .exists:
            let isForgotten = isJustForgotten(receipt.id)
            guard
                let task = ledger.tasks[receipt.id]
                    ?? (isForgotten ? ledger.forgotten[receipt.id] : nil)
            else {
                return fail("P1: \(name(receipt.id)) is acknowledged and isn't in the log")
            }
            if !isSafe(task.placement.sequence, for: receipt.id) {
                fail(
                    "P1: \(name(receipt.id)) is acknowledged; its record "
                        + "\(task.placement.sequence) is not \(durability(of: receipt.id)) yet"
                )
            }
            acknowledged[receipt.id] = task.placement.sequence
        }
    }

    private func check(_ reply: RecordReply) throws {
        if reply.state == .notFound, mayBeUnknown(reply.id) { return }
        if reply.state == .stopping, world.hasBeenStopped { return }
        // whoever asked for the end with a deadline
        if reply.state == .timedOut, world.isSomebodyImpatient { return }
        guard reply.state == .found else {
            return fail("the wait for \(name(reply.id)) ends as \(reply.state)")
        }
        var reader = WireReader(reply.record)
        let record = try TaskRecord(from: &reader)
        if isJustForgotten(reply.id) { return }
        guard let task = ledger.tasks[reply.id] else {
            return fail("P1: \(name(reply.id)) is told and isn't in the log")
        }
        guard record.status.isFinal else { return }
        if record.epoch != task.epoch { return checkFormerEnd(record, reply.id) }
        if !isSafe(task.lastSequence, for: reply.id) {
            fail(
                "P2: the end of \(name(reply.id)) is told; its record \(task.lastSequence) is "
                    + "not \(durability(of: reply.id)) yet"
            )
        }
        let end = ToldEnd(record)
        if let earlier = told[reply.id], earlier != end {
            fail("P2: \(name(reply.id)) was told as \(earlier), and now as \(end)")
        }
        told[reply.id] = end
        compare(end, reply.id)
    }

    /// What was told is what the log has.
    func compare(_ end: ToldEnd, _ id: TaskID) {
        guard let task = ledger.tasks[id] else {
            return fail("P2: the end of \(name(id)) was told, and the task is gone")
        }
        compare(end, task)
    }

    func compare(_ end: ToldEnd, _ task: Ledger.Task) {
        let id = task.id
        guard task.epoch == end.epoch else {
            return fail("P2: \(name(id)) ended in epoch \(end.epoch); it is in \(task.epoch)")
        }
        guard task.status == end.status else {
            return fail("P2: \(name(id)) was told as \(end.status); the log says \(task.status)")
        }
        // a task that died keeps the outcome of its last attempt that came to an end
        guard end.status != .dead, let outcome = end.outcome else { return }
        var writer = WireWriter()
        writer.outcome(outcome)
        if writer.bytes != task.outcome {
            fail("P2: \(name(id)) was told to have ended otherwise than the log says")
        }
    }

    /// A call of a client ended.
    func clientHeard(of id: TaskID, failure: QTasksError?) {
        if let failure { return fail("the add of \(name(id)) fails: \(failure)") }
        // whoever is told the end first needs no receipt
        guard acknowledged[id] == nil, told[id] == nil, !formerlyTold.contains(id),
            !lost.contains(id)
        else { return }
        fail("\(name(id)) is added, says the client alone")
    }

    func clientHeard(of id: TaskID, _ report: TaskReport) {
        switch report {
        case .record: break
        case .notFound:
            // whoever asks for several hears of all at once, and so of some late
            if !lost.contains(id), ledger.forgotten[id] == nil {
                fail("P1: \(name(id)) is not found")
            }
        case .timedOut: fail("the wait for \(name(id)) has no end and timed out")
        case .failed(let error): fail("\(name(id)): \(error)")
        }
    }

    // MARK: Between Broker and Storage

    func brokerHeard(_ bytes: [UInt8]) {
        reading(bytes) { header, reader in
            switch header.command {
            case .opened:
                order.reset(incarnation: try Opened(from: &reader).incarnation)
                changes.forgets = [:]
            case .snapshot:
                while !reader.isAtEnd {
                    let item = try SnapshotItem(from: &reader)
                    order.heard(world.plant?.truth(of: item, world) ?? item, ledger)
                }
            case .verdicts:
                _ = try reader.raw(16, "watermarks")
                while !reader.isAtEnd { heard(try Verdict(from: &reader)) }
            default: break
            }
        }
    }

    private func heard(_ verdict: Verdict) {
        switch verdict {
        case .queue(_, let queue, .rules(let rules)): check(rules, toldOf: queue)
        case .changed(let number, _): changes.forgets[number] = nil
        default: break
        }
        order.heard(verdict, ledger)
    }

    func brokerProposed(_ bytes: [UInt8]) {
        reading(bytes) { header, reader in
            guard header.command == .propose else { return }
            while !reader.isAtEnd {
                let proposal = try Proposal(from: &reader)
                if case .change(let number, .forget, let id, _) = proposal {
                    changes.forgets[number] = id
                }
                let complaint = order.proposed(proposal, ledger) { worker, name in
                    world.livingWorker(worker)?.names.contains(name) ?? false
                }
                switch complaint {
                case nil: break
                case .overtaken(let late, let before):
                    fail("P6: \(name(before)) is leased before \(name(late))")
                case .forbidden(let id, let reason): fail("\(name(id)) is leased, but \(reason)")
                }
            }
        }
    }

    // MARK: Between Broker and workers

    /// A worker sends this to the Broker.
    func workerSaid(_ bytes: [UInt8], in connection: Connection) {
        reading(bytes) { header, reader in
            switch header.command {
            case .hello:
                windows[connection.number] = [try Hello(from: &reader).window]
                // by the same connection once more, from one that was given up and lives
                sent[connection.number] = 0
            case .credit:
                let window = try CreditMessage.read(from: &reader)
                windows[connection.number, default: []].append(window)
            default: break
            }
        }
    }

    /// All that a worker announced in this session before the newest, summed up.
    func announcedBefore(_ window: UInt64, in connection: Connection) -> UInt64 {
        (windows[connection.number] ?? []).dropLast().reduce(0, +)
    }

    /// The Broker sends this to a worker.
    func brokerToldWorker(_ bytes: [UInt8], _ session: RoutingID) {
        reading(bytes) { header, reader in
            guard header.command == .work else { return }
            for _ in 0..<(try reader.integer("acks", as: UInt32.self)) {
                checkAcknowledgement(of: try reader.lease("ack"))
            }
            var count: UInt64 = 0
            while !reader.isAtEnd {
                let task = try LeasedTask(from: &reader)
                if task.arguments != nil { statistics.placed += 1 }
                checkDispatch(task, try task.envelope(from: &reader).id)
                count += 1
            }
            checkWindow(of: UInt32(session.order), sending: count)
        }
    }

    /// The worker drops the result: it must be safe, or wanted by nobody.
    private func checkAcknowledgement(of lease: Lease) {
        guard let execution = executions[lease],
            let task = ledger.tasks[execution.holding.id], task.lease == lease
        else { return }
        switch task.status {
        case .process:
            fail("P2: the result under \(lease) of \(name(task.id)) is acknowledged, not committed")
        case .new, .dead: break
        case .scheduled, .success, .error, .cancel:
            if !isSafe(task.lastSequence, for: task.id) {
                fail(
                    "P2: the result under \(lease) of \(name(task.id)) is acknowledged; its "
                        + "record \(task.lastSequence) is not \(durability(of: task.id)) yet"
                )
            }
        }
    }

    /// A task leaves for its worker: the lease must survive the death of any process.
    private func checkDispatch(_ leased: LeasedTask, _ id: TaskID) {
        guard let task = ledger.tasks[id] else {
            return fail("\(name(id)) is sent to a worker and isn't in the log")
        }
        guard task.lease == leased.lease, task.status == .process else { return }
        if task.lastSequence > marks.written {
            fail("P5: \(name(id)) is sent to a worker before its lease is written")
        }
        if leased.isSuspect, task.lastSequence > marks.durable {
            fail("H24: the suspect \(name(id)) is sent to a worker before its lease is synced")
        }
    }

    private func checkWindow(of session: UInt32, sending count: UInt64) {
        guard count > 0 else { return }
        sent[session, default: 0] += count
        let window = windows[session]?.max() ?? 0
        if sent[session, default: 0] > window {
            fail("P7: a worker that wants \(window) tasks is sent \(sent[session, default: 0])")
        }
    }
}
