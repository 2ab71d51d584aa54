// Part of QTasks. License: see LICENSE.
//
// A queue's rules: Storage writes them down, the lanes keep to them.

import QTasksModel
import QTasksWire
import ZeroMQ

/// A change of a queue's rules that Storage has not answered.
struct PendingQueueChange {
    var session: Session
    /// The client's.
    var number: UInt64
    var message: QueueMessage
}

extension BrokerState {
    /// Changes that may be unanswered at once, of all sessions.
    private static let queueChangesMax = 10_000

    mutating func queue(
        _ number: UInt64,
        _ reader: inout WireReader,
        _ session: Session
    ) throws(WireError) {
        let message = try QueueMessage(from: &reader)
        if let refusal = refusal(of: message) {
            return clients.send(ErrorMessage.encoded(refusal, number: number), to: session)
        }
        let proposal = takeNumber()
        clients.queueChanges[proposal] = PendingQueueChange(
            session: session,
            number: number,
            message: message
        )
        propose(.queue(number: proposal, message))
    }

    private func refusal(of message: QueueMessage) -> Refusal? {
        if stopping.isUnderWay {
            return Refusal(.stopping, "the system at \(settings.home) is being stopped")
        }
        if storage.isDown { return storageRefusal }
        guard TaskName.isValid(message.queue) else {
            return .badName("queue")
        }
        guard clients.queueChanges.count < Self.queueChangesMax else {
            return Refusal(.overloaded, "\(Self.queueChangesMax) changes are unanswered")
        }
        return nil
    }

    /// Storage has forgotten what it was asked: it is asked again, in the same order.
    mutating func proposeQueueChangesAgain() {
        for (number, pending) in clients.queueChanges.sorted(by: { $0.key < $1.key }) {
            propose(.queue(number: number, pending.message))
        }
    }

    /// Nobody who asked for a change will hear of it.
    mutating func refuseQueueChanges(_ refusal: Refusal) {
        for pending in clients.queueChanges.values {
            clients.send(
                ErrorMessage.encoded(refusal, number: pending.number),
                to: pending.session
            )
        }
        clients.queueChanges = [:]
    }

    mutating func queueChanged(_ number: UInt64, _ queue: String, _ verdict: QueueVerdict) {
        let pending = clients.queueChanges.removeValue(forKey: number)
        let answer: [UInt8]
        switch verdict {
        case .rules(let rules):
            lanes.set(rules, of: queue)
            answer = QueueRulesMessage(rules).encoded(number: pending?.number ?? 0)
        case .refused(let refusal):
            answer = ErrorMessage.encoded(refusal, number: pending?.number ?? 0)
        }
        if let pending { clients.send(answer, to: pending.session) }
    }
}
