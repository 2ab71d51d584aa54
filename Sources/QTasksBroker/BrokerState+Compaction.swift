// Part of QTasks. License: see LICENSE.
//
// `log compact`: Storage's work, which takes as long as there is to copy.

import QTasksModel
import QTasksWire

extension BrokerState {
    mutating func compact(number: UInt64, session: Session) {
        if stopping.isUnderWay {
            return refuseCompaction(
                Refusal(.stopping, "the system is being stopped: nothing is compacted any more"),
                (session, number)
            )
        }
        guard clients.compactions.count < ClientTable.compactionsMax else {
            return refuseCompaction(
                Refusal(.overloaded, "\(ClientTable.compactionsMax) wait for a compaction already"),
                (session, number)
            )
        }
        if storage.isDown { return refuseCompaction(storageRefusal, (session, number)) }
        let proposal = takeNumber()
        clients.compactions[proposal] = (session, number)
        propose(.compact(number: proposal))
    }

    mutating func compacted(_ number: UInt64, _ compacted: Compacted) {
        guard let asked = clients.compactions.removeValue(forKey: number) else { return }
        clients.send(compacted.encoded(number: asked.number), to: asked.session)
    }

    mutating func notCompacted(_ number: UInt64, _ refusal: Refusal) {
        guard let asked = clients.compactions.removeValue(forKey: number) else { return }
        refuseCompaction(refusal, asked)
    }

    /// Nobody who waits for a compaction will hear of it.
    mutating func refuseCompactions(_ refusal: Refusal) {
        for asked in clients.compactions.values { refuseCompaction(refusal, asked) }
        clients.compactions = [:]
    }

    private mutating func refuseCompaction(
        _ refusal: Refusal,
        _ asked: (session: Session, number: UInt64)
    ) {
        clients.send(ErrorMessage.encoded(refusal, number: asked.number), to: asked.session)
    }
}
