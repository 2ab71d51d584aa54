// Part of QTasks. License: see LICENSE.
//
// QUEUE: what holds a queue's tasks back. Storage writes it down; the Broker keeps to it.

import AppendLog
import QTasksModel
import QTasksWire

extension StorageState {
    mutating func decide(
        _ number: UInt64,
        _ message: QueueMessage,
        now: Now,
        log: some TaskLog
    ) {
        let old = tasks.queues[message.queue]
        let rules = message.change.applied(to: old)
        guard rules != old else { return tell(number, message.queue, log: log) }
        guard tasks.queues.takes(message.queue) else {
            let refusal = Refusal(
                .overloaded,
                "\(QueueTable.queuesMax) queues have rules, and no more can have"
            )
            return say(.queue(number: number, message.queue, .refused(refusal)))
        }
        let stored = StoredQueue(at: tasks.stamp(now), queue: message.queue, rules: rules)
        head.removeAll()
        stored.writeHead(to: &head)
        switch append(.queue, log: log) {
        case .appended(let place):
            tasks.apply(stored, at: place)
            tell(number, message.queue, log: log)
        case .noSpace:
            let refusal = Refusal(
                .storageUnavailable,
                "the disk under '\(settings.directory)' is full: free some space there"
            )
            say(.queue(number: number, message.queue, .refused(refusal)))
        case .tooLong: preconditionFailure("a queue's record is shorter than any limit")
        case .failed: break
        }
    }

    /// What holds now, once it is on disk.
    private mutating func tell(_ number: UInt64, _ queue: String, log: some TaskLog) {
        tell(
            .queue(number: number, queue, tasks.queues[queue]),
            tasks.queues.entries[queue]?.sequence ?? 0,
            once: .synced,
            log: log
        )
    }

    /// A queue's rules are as old as the store may be: they go on when their segment goes.
    mutating func carryQueue(
        _ view: borrowing RecordView,
        to log: some KeptLog
    ) throws(AppendLogError) {
        var reader = WireReader(view.payload)
        guard let stored = try? StoredQueue(from: &reader) else { return reportUnknown(view) }
        guard
            tasks.queues.isNeeded(stored.queue, sequence: view.sequence, at: view.position)
        else { return }
        // whatever it took back lay before it, and is gone by now
        guard !stored.rules.isDefault else { return tasks.queues.forget(stored.queue) }
        tasks.queues.moved(stored.queue, to: try carryAsItIs(view, to: log))
    }
}
