// Part of QTasks. License: see LICENSE.
//
// Mistakes with queues' rules: the Broker reads others than it is told.

import QTasksModel
import QTasksWire

extension PlantedFault {
    /// What the Broker takes a queue's rules for, and tells whoever asks.
    ///
    /// - Parameters:
    ///   - rules: What Storage says.
    ///   - isRestart: In its snapshot.
    /// - Returns: The same, unless the mistake is about rules.
    private func mistaken(_ rules: QueueRules, isRestart: Bool) -> QueueRules {
        var mistaken = rules
        switch self {
        case .rulesForgottenAtRestart: if isRestart { return QueueRules() }
        case .limitOffByOne:
            mistaken.concurrency = rules.concurrency.map { $0 + 1 }
            mistaken.keyConcurrency = rules.keyConcurrency.map { $0 + 1 }
        case .rateOfEachBurst:
            mistaken.rate = rules.rate.map(Self.fasterByOne)
            mistaken.keyRate = rules.keyRate.map(Self.fasterByOne)
        case .keyHeldBackTooLong: mistaken.keyRate = rules.keyRate.map(Self.halved)
        default: break
        }
        return mistaken
    }

    private static func fasterByOne(_ rate: StartRate) -> StartRate {
        StartRate(rate.count, perMilliseconds: rate.periodMilliseconds, burst: rate.burst + 1)
    }

    private static func halved(_ rate: StartRate) -> StartRate {
        StartRate(rate.count, perMilliseconds: rate.periodMilliseconds * 2, burst: 1)
    }

    /// Whether what the Broker hears of rules is another than holds.
    var isAboutRules: Bool {
        switch self {
        case .rulesForgottenAtRestart, .limitOffByOne, .rateOfEachBurst, .keyHeldBackTooLong: true
        default: false
        }
    }

    /// What Storage says, as the Broker reads it.
    func misread(_ bytes: [UInt8]) throws -> [UInt8] {
        guard isAboutRules, !bytes.isEmpty else { return bytes }
        return try bytes.withUnsafeBytes { raw in
            var reader = WireReader(raw)
            let header = try MessageHeader.read(from: &reader)
            switch header.command {
            case .snapshot: return try misreadSnapshot(&reader, number: header.number)
            case .verdicts: return try rewritten(bytes, &reader, misread)
            default: return bytes
            }
        }
    }

    private func misreadSnapshot(_ reader: inout WireReader, number: UInt64) throws -> [UInt8] {
        var writer = WireWriter(.snapshot, number: number)
        while !reader.isAtEnd {
            var item = try SnapshotItem(from: &reader)
            if case .queue(let queue, let rules) = item {
                item = .queue(queue, mistaken(rules, isRestart: true))
            }
            item.write(to: &writer)
        }
        return writer.bytes
    }

    private func misread(_ verdict: Verdict) -> Verdict {
        guard case .queue(let number, let queue, .rules(let rules)) = verdict else {
            return verdict
        }
        return .queue(number: number, queue, .rules(mistaken(rules, isRestart: false)))
    }
}
