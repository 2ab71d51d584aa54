// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksStorage

/// The rules of all queues, as the log's records changed them.
struct QueueHistory {
    private var changes: [String: [(sequence: UInt64, rules: QueueRules)]] = [:]

    mutating func apply(_ stored: StoredQueue, _ sequence: UInt64) {
        changes[stored.queue, default: []].append((sequence, stored.rules))
    }

    /// What holds in a queue.
    subscript(queue: String) -> QueueRules { changes[queue]?.last?.rules ?? QueueRules() }

    /// The queues in which something holds.
    var rules: [String: QueueRules] {
        changes.compactMapValues(\.last?.rules).filter { !$0.value.isDefault }
    }

    /// The newest record up to one that says so of a queue; 0 where none has said anything.
    ///
    /// - Returns: `nil`: these rules never held.
    func sequence(of rules: QueueRules, in queue: String, upTo last: UInt64) -> UInt64? {
        let known = changes[queue, default: []].last { $0.sequence <= last && $0.rules == rules }
        return known?.sequence ?? (rules.isDefault ? 0 : nil)
    }
}
