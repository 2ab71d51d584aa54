// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksSimulator
import Testing

/// What the environment says about the seeds to run.
private enum Seeds {
    /// `QTASKS_SEED`: this one alone, as a report says.
    static let single = number("QTASKS_SEED")

    /// `QTASKS_SEEDS`: that many from 1 on; 200 unless told otherwise.
    static let count = number("QTASKS_SEEDS") ?? 200

    /// `QTASKS_TRACE`: how many of the last events a report has.
    static let tracedEvents = number("QTASKS_TRACE").map { Int($0) } ?? 200

    /// Whether a run follows from its seed alone.
    ///
    /// Cores walk through dictionaries, in an order that Swift makes up for each process and each
    /// dictionary; with this it is always the same. `Tests/run` sets it.
    static let areReplayable = getenv("SWIFT_DETERMINISTIC_HASHING") != nil

    /// Every eighth seed, so that the chunks can run side by side.
    static func chunk(_ number: Int) -> [UInt64] {
        if let single { return number == 0 ? [single] : [] }
        guard count > 0 else { return [] }
        return (1...count).filter { $0 % UInt64(chunks) == UInt64(number) }
    }

    static let chunks = 8

    private static func number(_ variable: String) -> UInt64? {
        getenv(variable).flatMap { UInt64(String(cString: $0)) }
    }
}

@Suite
struct `The whole system in virtual time` {
    @Test(arguments: 0..<Seeds.chunks)
    func `keeps its promises under kills, power loss and broken sessions (P1, P2, P3, P5, P6, P8)`(
        chunk: Int
    ) {
        var total = Simulation.Statistics()
        var broken: [UInt64] = []
        let seeds = Seeds.chunk(chunk)
        for seed in seeds {
            let outcome = Simulation.run(seed: seed, tracing: Seeds.tracedEvents)
            total += outcome.statistics
            guard let violation = outcome.violation else { continue }
            broken.append(seed)
            // one trace is enough to read
            Issue.record("\(broken.count == 1 ? outcome.report() : "seed \(seed): \(violation)")")
        }
        guard broken.isEmpty, seeds.count >= 20 else { return }
        Self.expectEnough(total, seeds.count)
        Self.expectForgetting(total, seeds.count)
        Self.expectRules(total, seeds.count)
        // every other seed tells large payloads by their place in the store
        if seeds.contains(where: { !$0.isMultiple(of: 2) }) {
            Self.expectPlaces(total, seeds.count)
        }
    }

    /// In about one seed in four finished tasks are forgotten.
    private static func expectForgetting(_ total: Simulation.Statistics, _ seeds: Int) {
        #expect(total.forgotten > 2 * seeds)
        #expect(total.addedAgain > seeds / 8)
        #expect(total.expired > seeds / 4)
        #expect(total.repeats > seeds)
        #expect(total.openedWithout > seeds / 8)
    }

    /// In about one seed in three operators set rules of queues, and in two of five they purge dead tasks.
    private static func expectRules(_ total: Simulation.Statistics, _ seeds: Int) {
        #expect(total.ruleChanges > seeds)
        #expect(total.ruledLeases > seeds)
        for kind: FaultKind in [.queuePaused, .queueLimited, .startsLimited, .deadPurged] {
            #expect(total.faults[kind] > 0, "\(kind)")
        }
    }

    private static func expectPlaces(_ total: Simulation.Statistics, _ seeds: Int) {
        #expect(total.placed > seeds)
        #expect(total.gone > 0)
        #expect(total.placedReplies > seeds)
        #expect(total.goneReplies > 0)
    }

    /// A simulation in which nothing happens proves nothing.
    private static func expectEnough(_ total: Simulation.Statistics, _ seeds: Int) {
        #expect(total.tasks > 10 * seeds)
        #expect(total.executions > total.tasks)
        #expect(total.told > total.tasks / 4)
        #expect(total.restarts > seeds)
        #expect(total.openings > seeds)
        #expect(total.releases > seeds)
        // few of them false: a worker has to be remote, and stand still for long enough
        #expect(total.silences > total.falseSilences)
        #expect(total.powerLosses > 0)
        #expect(total.cancelled.values.reduce(0, +) > seeds / 2)
        #expect(total.requeued > seeds / 8)
        #expect(total.checkpoints > 0)
        #expect(total.compacted > 0)
    }

    @Test(
        .enabled(
            if: Seeds.areReplayable,
            "a run follows from its seed alone only with SWIFT_DETERMINISTIC_HASHING=1"
        ),
        arguments: [1, 7, 42, 1001] as [UInt64]
    )
    func `is the same again for the same seed`(seed: UInt64) {
        let first = Simulation.run(seed: seed)
        let second = Simulation.run(seed: seed)
        #expect(first.checksum == second.checksum)
        #expect(first.events == second.events)
        #expect(first.checksum != Simulation.run(seed: seed + 1).checksum)
    }
}
