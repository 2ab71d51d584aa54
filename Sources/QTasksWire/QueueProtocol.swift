// Part of QTasks. License: see LICENSE.
//
// A queue's rules, from clients to the log. Protocol.md has the clients' part with worked bytes: change
// both.

package import QTasksModel

extension QueueRules {
    /// How many bytes they take.
    package static let byteCount = 45

    /// ```
    ///  offset  bytes  field
    ///       0      1  flags: bit 0 paused
    ///       1      4  tasks that run at once; 0, here and below: no limit
    ///       5     12  starts: count, period in milliseconds, burst
    ///      17      4  tasks of one key that run at once
    ///      21     12  starts of one key
    ///      33      4  tasks that may wait
    ///      37      4  ageing
    ///      41      4  zero
    /// ```
    package func write(to writer: inout WireWriter) {
        writer.u8(isPaused ? 1 : 0)
        writer.integer(concurrency ?? 0)
        writer.rate(rate)
        writer.integer(keyConcurrency ?? 0)
        writer.rate(keyRate)
        writer.integer(maxQueued ?? 0)
        writer.integer(ageing ?? 0)
        writer.integer(UInt32(0))
    }

    package init(from reader: inout WireReader) throws(WireError) {
        self.init()
        isPaused = try reader.u8("flags") & 1 != 0
        concurrency = try reader.limit("concurrency")
        rate = try reader.rate()
        keyConcurrency = try reader.limit("key concurrency")
        keyRate = try reader.rate()
        maxQueued = try reader.limit("most queued")
        ageing = try reader.limit("ageing")
        _ = try reader.integer("zero", as: UInt32.self)
    }
}

extension WireWriter {
    fileprivate mutating func rate(_ rate: StartRate?) {
        integer(rate?.count ?? 0)
        integer(rate?.periodMilliseconds ?? 0)
        integer(rate?.burst ?? 0)
    }
}

extension WireReader {
    fileprivate mutating func limit(_ field: StaticString) throws(WireError) -> UInt32? {
        let limit = try integer(field, as: UInt32.self)
        return limit == 0 ? nil : limit
    }

    fileprivate mutating func rate() throws(WireError) -> StartRate? {
        let count = try integer("rate", as: UInt32.self)
        let period = try integer("period", as: UInt32.self)
        let burst = try integer("burst", as: UInt32.self)
        return count == 0 ? nil : StartRate(count, perMilliseconds: period, burst: burst)
    }
}

/// `QUEUE`: which rules to change (1, see ``QueueChange/Fields``; 0 asks what they are), rules (45), and the
/// queue's name to the end.
///
/// Idempotent. Answered by `QUEUE_RULES` once the change is on disk.
package struct QueueMessage: Sendable, Equatable {
    package var queue: String
    package var change: QueueChange

    package init(queue: String, change: QueueChange) {
        self.queue = queue
        self.change = change
    }

    package func encoded(number: UInt64) -> [UInt8] {
        var writer = WireWriter(.queue, number: number)
        write(to: &writer)
        return writer.bytes
    }

    func write(to writer: inout WireWriter) {
        writer.u8(change.fields.rawValue)
        change.rules.write(to: &writer)
        writer.raw(queue.utf8)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        try self.init(from: &reader, queueBytes: nil)
    }

    /// Reads one; its queue's name takes `queueBytes`, or with `nil` all that is left.
    package init(from reader: inout WireReader, queueBytes: Int?) throws(WireError) {
        let fields = QueueChange.Fields(rawValue: try reader.u8("fields"))
        change = QueueChange(fields, try QueueRules(from: &reader))
        queue = try reader.text(queueBytes ?? reader.left, "queue")
    }
}

/// `QUEUE_RULES`: a queue's rules (45), as they hold now.
package struct QueueRulesMessage: Sendable, Equatable {
    package var rules: QueueRules

    package init(_ rules: QueueRules) {
        self.rules = rules
    }

    package func encoded(number: UInt64) -> [UInt8] {
        var writer = WireWriter(.queueRules, number: number)
        rules.write(to: &writer)
        return writer.bytes
    }

    package init(from reader: inout WireReader) throws(WireError) {
        rules = try QueueRules(from: &reader)
    }
}

/// What Storage answers to a change of a queue's rules.
package enum QueueVerdict: Sendable, Equatable {
    case rules(QueueRules)
    case refused(Refusal)

    package func write(to writer: inout WireWriter) {
        switch self {
        case .rules(let rules):
            writer.u8(0)
            rules.write(to: &writer)
        case .refused(let refusal):
            writer.u8(refusal.code.rawValue)
            writer.text(refusal.message)
        }
    }

    package init(from reader: inout WireReader) throws(WireError) {
        let code = try reader.u8("code")
        guard code != 0 else {
            self = .rules(try QueueRules(from: &reader))
            return
        }
        guard let code = RefusalCode(rawValue: code) else { throw .invalid(field: "code") }
        self = .refused(Refusal(code, try reader.text("message")))
    }
}
