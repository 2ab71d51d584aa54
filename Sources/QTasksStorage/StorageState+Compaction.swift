// Part of QTasks. License: see LICENSE.
//
// `log compact` of a running system: the Broker passes it on, the keeper does it in its steps, and
// whoever asked hears when it is over.

package import AppendLog
import QTasksWire

/// Proposals to compact the log.
struct Compactions {
    /// Not begun.
    var wanted: [UInt64] = []
    /// Begun, and what the files took up then.
    var underWay: [(number: UInt64, bytesBefore: Int)] = []
}

extension StorageState {
    /// Takes note of those who asked since the last time.
    ///
    /// - Returns: Whether anybody did.
    mutating func beginCompactions(_ log: Log) -> Bool {
        guard !compactions.wanted.isEmpty else { return false }
        let bytes = log.bytesUsed
        compactions.underWay += compactions.wanted.map { ($0, bytes) }
        compactions.wanted = []
        return true
    }

    /// All that was complete has been compacted.
    ///
    /// - Parameters:
    ///   - damage: What ended it before its time; `nil` where nothing did.
    ///   - log: The log.
    /// - Returns: Whether anybody is told.
    mutating func endCompactions(damage: RecordPosition?, _ log: Log) -> Bool {
        guard !compactions.underWay.isEmpty else { return false }
        for (number, bytesBefore) in compactions.underWay {
            if let damage = damage ?? log.recovery.firstDamage {
                say(.notCompacted(number: number, Self.refusal(damage, settings)))
                continue
            }
            let compacted = Compacted(
                bytesBefore: UInt64(clamping: bytesBefore),
                bytesAfter: UInt64(clamping: log.bytesReferred)
            )
            say(.compacted(number: number, compacted))
        }
        compactions.underWay = []
        return true
    }

    private static func refusal(_ damage: RecordPosition, _ settings: Settings) -> Refusal {
        Refusal(
            .damaged,
            "segment \(damage.segment) of the store in '\(settings.directory)' is damaged at byte "
                + "\(damage.offset), and nothing is compacted; stop the system and run 'log repair'"
        )
    }
}

extension RecoveryReport {
    /// Where the first thing is that could not be read at opening.
    package var firstDamage: RecordPosition? {
        (lost.map(\.position) + damaged.map(\.position)).min()
    }
}
