// Part of QTasks. License: see LICENSE.
//
// Queues' rules: they are told no earlier than they are on disk, nobody who was told them finds others after
// a restart (P1), and no task starts against them. `LimitWatch` has the last.

import AppendLog
import QTasksModel
import QTasksStorage
import QTasksWire

extension Checker {
    /// Storage appended a record.
    func beforeQueueChange(_ record: Ledger.Record) {
        guard record.kind == StoredKind.queue.rawValue else { return }
        record.bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            guard let stored = try? StoredQueue(from: &reader) else {
                return fail("a QUEUE that can't be read")
            }
            let (old, new) = (ledger.queues[stored.queue], stored.rules)
            if new == old { fail("the rules of '\(stored.queue)' are written again: \(new)") }
            statistics.ruleChanges += 1
            if new.isPaused, !old.isPaused { world.count(.queuePaused) }
            let isLimited =
                new.concurrency != old.concurrency || new.keyConcurrency != old.keyConcurrency
            if isLimited { world.count(.queueLimited) }
            if new.rate != old.rate || new.keyRate != old.keyRate { world.count(.startsLimited) }
            if new.maxQueued != old.maxQueued { world.count(.queueBounded) }
        }
    }

    /// Storage says what holds in a queue: it is on disk by then.
    func check(_ rules: QueueRules, toldOf queue: String) {
        guard ledger.queues.sequence(of: rules, in: queue, upTo: marks.durable) == nil else {
            return
        }
        fail("P1: '\(queue)' is said to have the rules \(rules), and the log has that not synced")
    }

    /// Whoever asked for a change hears what holds.
    func clientHeard(_ rules: QueueRules, of message: QueueMessage) {
        guard world.plant?.isAboutRules != true else { return }
        if message.change.applied(to: rules) != rules {
            fail("a change of '\(message.queue)' is said to be done; it has the rules \(rules)")
        }
        // while that was on its way it may have been changed again, and the power may have gone
        guard
            let sequence = ledger.queues.sequence(of: rules, in: message.queue, upTo: .max)
        else {
            return fail(
                "P1: '\(message.queue)' had the rules \(rules), and the log knows nothing of it"
            )
        }
        rulesTold[message.queue] = max(rulesTold[message.queue] ?? 0, sequence)
    }

    /// Storage has read its log: what was told of queues is there.
    func checkRulesTold() {
        for (queue, sequence) in rulesTold where sequence > ledger.records.count {
            fail("P1: a change of '\(queue)' was acknowledged, and its record \(sequence) is gone")
        }
    }

    /// Whether a queue may be said to be full.
    func mayBeFull(_ id: TaskID) -> Bool {
        let number = world.scenario.number(of: id)
        return number >= 0 && order.limits.wasBounded(world.scenario.tasks[number].submission.queue)
    }
}
