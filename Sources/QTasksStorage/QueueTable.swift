// Part of QTasks. License: see LICENSE.

import AppendLog
package import QTasksModel
package import QTasksWire

/// `QUEUE`: at (8), bytes of the queue's name (1), name, the rules that hold from then on, see
/// `QueueRules`.
package struct StoredQueue {
    package var at: Timestamp
    package var queue: String
    package var rules: QueueRules

    init(at: Timestamp, queue: String, rules: QueueRules) {
        self.at = at
        self.queue = queue
        self.rules = rules
    }

    func writeHead(to writer: inout WireWriter) {
        writer.integer(at.nanoseconds)
        writer.u8(UInt8(queue.utf8.count))
        writer.raw(queue.utf8)
        rules.write(to: &writer)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        at = Timestamp(nanoseconds: try reader.integer("at"))
        let count = Int(try reader.u8("queue byte count"))
        queue = try reader.text(count, "queue")
        rules = try QueueRules(from: &reader)
    }

    /// How long its payload is at most.
    static let bytesMax = 9 + 255 + QueueRules.byteCount
}

/// The rules of the queues that have some.
package struct QueueTable: Equatable {
    /// Queues that have rules, or had some lately.
    package static let queuesMax = 10_000

    struct Entry: Equatable {
        var rules: QueueRules
        /// Of the record that says so.
        var sequence: UInt64
        /// Where that lies; not part of what the log says, since compaction moves it.
        var place: RecordPosition

        static func == (left: Self, right: Self) -> Bool {
            left.rules == right.rules && left.sequence == right.sequence
        }
    }

    private(set) var entries: [String: Entry] = [:]

    /// A queue's rules.
    subscript(queue: String) -> QueueRules { entries[queue]?.rules ?? QueueRules() }

    /// The queues in which something holds.
    package var rules: [String: QueueRules] {
        entries.compactMapValues { $0.rules.isDefault ? nil : $0.rules }
    }

    /// Whether there is room for one more.
    func takes(_ queue: String) -> Bool {
        entries[queue] != nil || entries.count < Self.queuesMax
    }

    /// What a record says, unless a newer one was read.
    mutating func apply(_ stored: StoredQueue, at place: StoredPlace) {
        if let known = entries[stored.queue], known.sequence > place.sequence { return }
        entries[stored.queue] = Entry(
            rules: stored.rules,
            sequence: place.sequence,
            place: place.position
        )
    }

    /// Whether a record at this place has to go on when its segment does.
    func isNeeded(_ queue: String, sequence: UInt64, at place: RecordPosition) -> Bool {
        guard let entry = entries[queue] else { return false }
        return entry.sequence == sequence && entry.place <= place
    }

    /// The record that a queue has no rules goes, and none is left that says anything else.
    mutating func forget(_ queue: String) { entries[queue] = nil }

    /// A queue's record was carried forward.
    mutating func moved(_ queue: String, to place: RecordPosition) {
        entries[queue]?.place = place
    }
}
