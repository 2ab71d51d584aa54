// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksSimulator
import Synchronization
import Testing

/// What the environment says about the seeds to run.
enum Seeds {
    /// `QTASKS_SEED`: this one alone, as a report says.
    static let single = number("QTASKS_SEED")

    /// `QTASKS_SEEDS`: that many from 1 on; 200 unless told otherwise.
    static let count = number("QTASKS_SEEDS") ?? 200

    /// `QTASKS_TRACE`: how many of the last events a report has.
    static let tracedEvents = number("QTASKS_TRACE").map { Int($0) } ?? 200

    /// A seed replays exactly only where Swift's hashing does too, since cores go through
    /// dictionaries; `Tests/run` sees to it.
    static let areReplayable = QTasksModelHashing.isDeterministic

    static func number(_ variable: String) -> UInt64? {
        getenv(variable).flatMap { UInt64(String(cString: $0)) }
    }
}

enum QTasksModelHashing {
    static let isDeterministic = getenv("SWIFT_DETERMINISTIC_HASHING") != nil
}

@Suite struct `The whole system in virtual time` {
    private static let chunks = 8

    @Test(
        "keeps its promises under kills, loss of power, broken sessions and delays",
        arguments: 0..<chunks
    )
    func keepsPromises(chunk: Int) {
        var total = Simulation.Statistics()
        var broken: [UInt64] = []
        for seed in Self.seeds(of: chunk) {
            let outcome = Simulation.run(seed: seed, tracing: Seeds.tracedEvents)
            total += outcome.statistics
            if outcome.violation != nil {
                if broken.isEmpty { Issue.record("\(outcome.report)") } else { print("seed \(seed): \(outcome.violation ?? "")") }
                broken.append(seed)
            }
        }
        print(total)
        if !broken.isEmpty { print("broken seeds: \(broken)") }
    }

    private static func seeds(of chunk: Int) -> [UInt64] {
        if let single = Seeds.single { return chunk == 0 ? [single] : [] }
        return (1...Seeds.count).filter { $0 % UInt64(chunks) == UInt64(chunk) }
    }
}
