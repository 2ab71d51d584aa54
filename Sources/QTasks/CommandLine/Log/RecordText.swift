// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksStorage
import QTasksWire

/// A record of the log, for a person and for a program.
struct RecordText {
    private enum Value {
        case text(String)
        case number(Int)
        case payload([UInt8], contentType: String?)
        /// The beginning of bytes, and how many there are.
        case cut(String, of: Int)
    }

    private let sequence: UInt64
    private let kind: String
    private let position: RecordPosition
    private let source: RecordPosition?
    private let bytes: Int
    private let isDamaged: Bool
    private let bytesMax: Int
    private var fields: [(name: String, value: Value)] = []

    /// - Parameters:
    ///   - record: The record.
    ///   - isDamaged: Its payload can't be trusted.
    ///   - bytesMax: How much of arguments and results is told.
    init(_ record: borrowing RecordView, isDamaged: Bool, bytesMax: Int) {
        let stored = StoredKind(rawValue: record.kind)
        sequence = record.sequence
        kind = stored?.name ?? "unknown"
        position = record.position
        source = record.source
        bytes = record.payload.count
        self.isDamaged = isDamaged
        self.bytesMax = bytesMax
        guard let stored, !isDamaged else {
            let id = stored?.taskID(in: record.payload)
            if let id { add("id", id.description) }
            if stored == nil { add("number", Int(record.kind)) }
            return
        }
        do {
            try read(stored, record.payload)
        } catch {
            add("unreadable", "\(error)")
        }
    }

    // MARK: Text

    var line: String {
        var parts = ["\(position.text) #\(sequence) \(kind)"]
        if isDamaged { parts.append("DAMAGED") }
        if let source { parts.append("from \(source.text)") }
        for (name, value) in fields {
            switch value {
            case .text(let text): parts.append("\(name) \(text)")
            case .number(let number): parts.append("\(name) \(number)")
            case .payload(let bytes, _):
                parts.append("\(name) \(String(decoding: bytes, as: UTF8.self))")
            case .cut(let text, let count): parts.append("\(name) \(text)... (\(count) bytes)")
            }
        }
        return parts.joined(separator: " ")
    }

    var json: [UInt8] {
        var json = JSONText()
        json.object { json in
            json.member("position", position)
            json.member("sequence", sequence)
            json.member("kind", kind)
            json.member("bytes", bytes)
            if let source { json.member("source", source) }
            if isDamaged { json.member("damaged", true) }
            for (name, value) in fields {
                switch value {
                case .text(let text): json.member(name, text)
                case .number(let number): json.member(name, number)
                case .payload(let bytes, let type): json.member(name, payload: bytes, type: type)
                case .cut(let text, let count):
                    json.key(name)
                    json.object { json in
                        json.member("begin", text)
                        json.member("bytes", count)
                    }
                }
            }
        }
        return json.bytes
    }

    // MARK: Fields

    private mutating func add(_ name: String, _ value: String) {
        fields.append((name, .text(value)))
    }

    private mutating func add(_ name: String, _ value: Int) {
        fields.append((name, .number(value)))
    }

    private mutating func add(_ name: String, _ time: Timestamp) {
        add(name, time.description)
    }

    private mutating func add(_ name: String, _ payload: [UInt8], _ contentType: String?) {
        guard payload.count > bytesMax else {
            fields.append((name, .payload(payload, contentType: contentType)))
            return
        }
        let begin = String(decoding: payload.prefix(bytesMax), as: UTF8.self)
        fields.append((name, .cut(begin, of: payload.count)))
    }

    private mutating func add(_ holding: Holding) {
        add("id", holding.id.description)
        add("lease", holding.lease.description)
    }

    private mutating func read(
        _ kind: StoredKind,
        _ payload: UnsafeRawBufferPointer
    ) throws(WireError) {
        var reader = WireReader(payload)
        switch kind {
        case .add: try read(try StoredAdd(from: &reader))
        case .lease:
            let lease = try StoredLease(from: &reader)
            add("at", lease.at)
            add(Holding(id: lease.id, lease: lease.lease))
            add("worker", lease.worker.description)
        case .finish, .cancel: try read(try StoredFinish(from: &reader))
        case .requeue:
            let requeue = try StoredRequeue(from: &reader)
            add("at", requeue.at)
            add("id", requeue.id.description)
            add("epoch", Int(requeue.epoch))
        case .release:
            let release = try StoredRelease(from: &reader)
            add("at", release.at)
            add(release.holding)
            add("cause", "\(release.cause)")
            add("status", release.status.rawValue)
            if release.isSuspect { add("suspect", 1) }
            if release.isCounted { add("counted", 1) }
        case .stale:
            let stale = try StoredStale(from: &reader)
            add("at", stale.at)
            add(stale.holding)
            add("worker", stale.worker.description)
            add("startedAt", stale.startedAt)
            add("finishedAt", stale.finishedAt)
        case .worker:
            let worker = try StoredWorker(from: &reader)
            add("at", worker.at)
            add("worker", worker.id.description)
            add("pid", Int(worker.process.pid))
            add("boot", worker.process.bootID.description)
        case .queue:
            let queue = try StoredQueue(from: &reader)
            add("at", queue.at)
            add("queue", queue.queue)
            add("rules", queue.rules.description)
        case .evidence: read(try StoredEvidence(from: &reader))
        case .carried: try read(try StoredCarried(from: &reader))
        case .expire:
            let expire = try StoredExpire(from: &reader)
            add("at", expire.at)
            add("id", expire.id.description)
        }
    }

    private mutating func read(_ stored: StoredAdd) throws(WireError) {
        let submission = try TaskSubmission(try Envelope(stored.envelope))
        add("at", stored.addedAt)
        add("id", submission.id.description)
        add("name", submission.name)
        add("queue", submission.queue)
        add("priority", Int(submission.priority))
        add("durability", stored.durability.description)
        if let due = stored.due { add("notBefore", due.wall) }
        if let parent = submission.parent { add("parent", parent.description) }
        if let attempts = submission.maxAttempts { add("maxAttempts", Int(attempts)) }
        if let retention = submission.retentionSeconds {
            add("retentionSeconds", Int(clamping: retention))
        }
        add("arguments", submission.arguments, submission.contentType)
    }

    private mutating func read(_ stored: StoredEvidence) {
        add("at", stored.at)
        add(stored.holding)
        add("worker", stored.worker.description)
        add("pid", Int(stored.exit.pid))
        add(stored.exit.wasSignal ? "signal" : "exitCode", Int(stored.exit.code))
        add("maxResidentBytes", Int(clamping: stored.exit.maxResidentBytes))
        add("userMicroseconds", Int(clamping: stored.exit.userMicroseconds))
        add("systemMicroseconds", Int(clamping: stored.exit.systemMicroseconds))
        add("stderr", stored.exit.errorTail, "text/plain")
    }

    private mutating func read(_ stored: StoredFinish) throws(WireError) {
        let result = try ResultEntry(stored.result)
        add("at", stored.at)
        add(Holding(id: result.id, lease: result.lease))
        add("worker", stored.worker.description)
        add("status", stored.status.rawValue)
        if result.startedAt != StoredFinish.never { add("startedAt", result.startedAt) }
        add("finishedAt", result.finishedAt)
        if let due = stored.due { add("notBefore", due.wall) }
        switch result.outcome {
        case .success(let result, let contentType): add("result", result, contentType)
        case .error(let failure), .retry(let failure, _, _):
            add("error", failure.type)
            add("message", failure.message)
        case .cancel(let reason): add("reason", reason)
        }
    }

    private mutating func read(_ stored: StoredCarried) throws(WireError) {
        try read(stored.add)
        add("status", stored.status.rawValue)
        add("attempt", Int(stored.attempt))
        add("failures", Int(stored.failures))
        add("deaths", Int(stored.deaths))
        add("epoch", Int(stored.epoch))
        add("upTo", Int(clamping: stored.lastSequence))
        if stored.lease != .none { add("lease", stored.lease.description) }
        if stored.worker != WorkerID(high: 0, low: 0) {
            add("worker", stored.worker.description)
        }
        if stored.finished != .none { add("resultAt", stored.finished.text) }
        if let due = stored.due { add("due", due.wall) }
        if stored.endedAt.nanoseconds != 0 { add("endedAt", stored.endedAt) }
    }
}

extension StoredKind {
    static var names: [String] { allCases.map(\.name) + ["unknown"] }

    var name: String { "\(self)" }
}
