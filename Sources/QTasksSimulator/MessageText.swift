// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksStorage
import QTasksWire

/// Messages and records in a person's words, for the trace of a run that went wrong.
struct MessageText {
    /// What a task is called.
    let name: (TaskID) -> String

    func describe(_ bytes: [UInt8]) -> String {
        guard !bytes.isEmpty else { return "probe" }
        return bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            do {
                let header = try MessageHeader.read(from: &reader)
                return "\(header.command) \(try body(header.command, &reader))"
            } catch {
                return "\(bytes.count) bytes that can't be read: \(error)"
            }
        }
    }

    func describe(kind: UInt8, _ bytes: [UInt8]) -> String {
        bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            do {
                switch StoredKind(rawValue: kind) {
                case .add:
                    let add = try StoredAdd(from: &reader)
                    return "ADD \(name(try Envelope(add.envelope).id)) \(add.durability)"
                case .lease:
                    let lease = try StoredLease(from: &reader)
                    return "LEASE \(name(lease.id)) \(lease.lease)"
                case .finish:
                    let finish = try StoredFinish(from: &reader)
                    return
                        "FINISH \(name(finish.result.id)) \(finish.result.lease) \(finish.status)"
                case .release:
                    let release = try StoredRelease(from: &reader)
                    let flags =
                        (release.isSuspect ? " suspect" : "")
                        + (release.isCounted ? " counted" : "")
                    return "RELEASE \(text(release.holding)) \(release.cause) -> "
                        + "\(release.status)\(flags)"
                case .cancel:
                    let cancel = try StoredFinish(from: &reader)
                    return "CANCEL \(name(cancel.result.id)) \(cancel.result.lease)"
                case .requeue:
                    let requeue = try StoredRequeue(from: &reader)
                    return "REQUEUE \(name(requeue.id)) epoch \(requeue.epoch)"
                case .stale: return "STALE \(text(try StoredStale(from: &reader).holding))"
                case .worker: return "WORKER"
                case .queue:
                    let queue = try StoredQueue(from: &reader)
                    return "QUEUE \(queue.queue): \(queue.rules)"
                case .evidence:
                    let evidence = try StoredEvidence(from: &reader)
                    return "EVIDENCE \(text(evidence.holding)) of \(evidence.worker)"
                case .carried:
                    let carried = try StoredCarried(from: &reader)
                    let id = try Envelope(carried.add.envelope).id
                    return "CARRIED \(name(id)) \(carried.status)"
                case .expire: return "EXPIRE \(name(try StoredExpire(from: &reader).id))"
                case nil: return "kind \(kind)"
                }
            } catch {
                return "kind \(kind): \(error)"
            }
        }
    }

    private func text(_ holding: Holding) -> String { "\(name(holding.id)) \(holding.lease)" }

    /// Sequence of the add, and Storage's number.
    private func text(_ place: QueuedPlace) -> String { "\(place.sequence)#\(place.handle)" }

    /// What is left of a message, item by item.
    private func list(
        _ reader: inout WireReader,
        _ describe: (inout WireReader) throws -> String
    ) rethrows -> String {
        var texts: [String] = []
        while !reader.isAtEnd { texts.append(try describe(&reader)) }
        return texts.joined(separator: ", ")
    }

    private func body(_ command: Command, _ reader: inout WireReader) throws -> String {
        switch command {
        case .add:
            let message = try AddMessage(from: &reader)
            let ids = try list(&reader) { name(try Envelope(from: &$0).id) }
            return ids + (message.options.contains(.wait) ? " and wait" : "")
        case .get:
            let message = try GetMessage(from: &reader)
            let what = message.options.contains(.wait) ? "the end of " : ""
            return what + message.ids.map(name).joined(separator: ", ")
        case .added:
            return try list(&reader) {
                let receipt = try AddReceipt(from: &$0)
                return "\(name(receipt.id)) \(receipt.verdict)"
            }
        case .records:
            _ = try reader.u8("flags")
            return try list(&reader) {
                let reply = try RecordReply(from: &$0)
                let status = reply.record.first.flatMap { TaskStatus(code: $0)?.rawValue }
                return "\(name(reply.id)) \(reply.state) \(status ?? "")"
            }
        case .welcome: return "incarnation \(try Welcome(from: &reader).incarnation)"
        case .hello:
            let hello = try Hello(from: &reader)
            let running = hello.running.map(text).joined(separator: ", ")
            let done = hello.done.map(text).joined(separator: ", ")
            return "window \(hello.window) running [\(running)] done [\(done)]"
        case .credit: return "window \(try CreditMessage.read(from: &reader))"
        case .handBack:
            let message = try HandBack(from: &reader)
            return message.holdings.map(text).joined(separator: ", ")
                + (message.isUnreadable ? " unreadable" : "")
        case .reconciled:
            return try list(&reader) {
                let lease = try $0.lease("lease")
                let verdict = ReconcileVerdict(rawValue: try $0.u8("verdict"))
                return "\(lease) \(verdict.map { "\($0)" } ?? "?")"
            }
        case .work: return try work(&reader)
        case .results:
            _ = try reader.worker("worker")
            return try list(&reader) {
                let entry = try ResultEntry(from: &$0)
                return "\(name(entry.id)) \(entry.lease)"
            }
        case .propose: return try list(&reader) { describe(try Proposal(from: &$0)) }
        case .opened: return "incarnation \(try Opened(from: &reader).incarnation)"
        case .snapshot: return try list(&reader) { describe(try SnapshotItem(from: &$0)) }
        case .verdicts:
            let written = try reader.integer("written", as: UInt64.self)
            let durable = try reader.integer("durable", as: UInt64.self)
            let items = try list(&reader) { describe(try Verdict(from: &$0)) }
            return "written \(written) durable \(durable) \(items)"
        case .error: return "\(try ErrorMessage.read(from: &reader))"
        default: return ""
        }
    }

    private func work(_ reader: inout WireReader) throws -> String {
        var acknowledged: [String] = []
        for _ in 0..<(try reader.integer("acks", as: UInt32.self)) {
            acknowledged.append("\(try reader.lease("ack"))")
        }
        let tasks = try list(&reader) {
            let task = try LeasedTask(from: &$0)
            let place = task.arguments.map { " in segment \($0.segment)" } ?? ""
            return "\(name(try task.envelope(from: &$0).id)) \(task.lease)\(place)"
        }
        return "acks [\(acknowledged.joined(separator: ", "))] tasks [\(tasks)]"
    }

    private func describe(_ proposal: Proposal) -> String {
        switch proposal {
        case .add(_, _, let lease, _, let bytes):
            let id = (try? Envelope(bytes)).map { name($0.id) } ?? "?"
            return lease == .none ? "add \(id)" : "add \(id) with \(lease)"
        case .lease(_, let place, let lease, _, let synced):
            return "lease \(text(place)) \(lease)\(synced ? " synced" : "")"
        case .release(_, let holding, let cause, let isShared, let counts):
            return "release \(text(holding)) \(cause)\(isShared ? " shared" : "")"
                + (counts ? " counts" : "")
        case .watch(let id): return "watch \(name(id))"
        case .read(_, let id, let isWhole): return "read \(name(id))\(isWhole ? " whole" : "")"
        case .worker(let id, let process): return "worker \(id) is pid \(process.pid)"
        case .count: return "count"
        case .compact: return "compact"
        case .reader(let id, let isReader): return "worker \(id) reads \(isReader)"
        case .overdue(_, let holding, _): return "overdue \(text(holding))"
        case .change(_, let change, let id, _): return "\(change) \(name(id))"
        case .queue(_, let message): return "queue \(message.queue)"
        case .evidence(_, let exit): return "evidence of pid \(exit.pid)"
        }
    }

    private func describe(_ item: SnapshotItem) -> String {
        switch item {
        case .queued(let run):
            "queued \(run.places.map(text).joined(separator: " "))\(run.isSuspect ? " suspect" : "")"
        case .scheduled(let placement, _): "scheduled \(text(placement.place))"
        case .running(let placement, let id, let lease, _):
            "running \(name(id)) as \(text(placement.place)) \(lease)"
        case .worker(_, let process): "worker pid \(process.pid)"
        case .queue(let queue, let rules): "queue \(queue): \(rules)"
        case .end: "end"
        }
    }

    private func describe(_ verdict: Verdict) -> String {
        switch verdict {
        case .added(_, let place, let leased, let due, _, _):
            "added \(text(place))\(leased ? " leased" : "")\(due != .none ? " delayed" : "")"
        case .same(_, let id, let sequence, _): "same as \(name(id)) by \(sequence)"
        case .exists(_, let sequence, let status): "exists \(sequence) \(status)"
        case .refused(_, let refusal): "refused \(refusal.code)"
        case .leased(_, let task, _):
            "leased \(task.lease)\(task.arguments == nil ? "" : " by its place")"
        case .stale(_, let status): "stale \(status.map { "\($0)" } ?? "-")"
        case .early: "early"
        case .released(_, let holding, let status, let isSuspect):
            "released \(text(holding)) \(status.map { "\($0)" } ?? "-")\(isSuspect ? " suspect" : "")"
        case .finished(let holding, _, let verdict, let status, _, let record):
            "finished \(text(holding)) \(verdict) \(status.map { "\($0)" } ?? "-")"
                + (record.isEmpty ? "" : " told")
        case .record(_, let record): "record of \(record.count) bytes"
        case .final(let id, _): "final \(name(id))"
        case .counts: "counts"
        case .compacted: "compacted"
        case .notCompacted(_, let refusal): "not compacted \(refusal.code)"
        case .changed(_, let verdict): "changed \(verdict)"
        case .queue(_, let queue, let verdict): "queue \(queue) \(verdict)"
        case .evidence: "evidence"
        }
    }
}
