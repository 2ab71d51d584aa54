// Part of QTasks. License: see LICENSE.
//
// Operators who set the rules of queues, and lift them in the end.

import QTasksClient
import QTasksModel
import QTasksWire

extension World {
    /// How long after the last fault a change that somebody sent before may still arrive, and how often
    /// somebody looks.
    private static let lateChanges = 30 * UInt64.second
    private static let liftingPause = 2 * UInt64.second

    func take(_ change: QueueChange, of queue: String, by client: SimulatedClient) {
        // nobody gives rules any more
        guard !isCalm else { return }
        client.begin(.queue(QueueMessage(queue: queue, change: change)), of: [])
    }

    /// Whatever rules there are go, so that everything can be done.
    ///
    /// Looks again until none is left: who was to lift one may have been killed, and what was sent before may
    /// arrive after.
    func liftRules() {
        let queues = checker.ledger.queues.rules.keys.sorted()
        if let client = clients.lazy.compactMap({ $0 }).first(where: \.isAlive) {
            for queue in queues {
                let message = QueueMessage(queue: queue, change: .lifting)
                client.begin(.queue(message), of: [])
            }
        }
        guard !queues.isEmpty || time < scenario.calmAt + Self.lateChanges else { return }
        after(Self.liftingPause) { [self] in liftRules() }
    }
}

extension QueueChange {
    /// Nothing is held back any more.
    fileprivate static var lifting: QueueChange {
        var change = QueueChange()
        change.setPaused(false)
        change.setConcurrency(nil)
        change.setRate(nil)
        change.setKeyConcurrency(nil)
        change.setKeyRate(nil)
        change.setMaxQueued(nil)
        change.setAgeing(nil)
        return change
    }
}
