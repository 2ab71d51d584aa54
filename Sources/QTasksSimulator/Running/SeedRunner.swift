// Part of QTasks. License: see LICENSE.

import Glibc

/// Runs one seed after the other in this process.
struct SeedRunner {
    /// A violation's trace is long: of more than these only the sentence is told.
    static let tracesMax = 3

    /// Whom it tells how far it is, and of each promise that was broken.
    struct Listener {
        var progressed: (RunTotals) -> Void
        var reported: (String) -> Void
    }

    var tracedEvents: Int
    var plant: PlantedFault?

    /// When no further seed is begun.
    var end: ContinuousClock.Instant?

    /// - Returns: What came of all seeds.
    func run(_ seeds: some Sequence<UInt64>, telling listener: Listener) -> RunTotals {
        var totals = RunTotals()
        var told = ContinuousClock.now
        for seed in seeds {
            let now = ContinuousClock.now
            if let end, now >= end { break }
            let outcome = Simulation.run(seed: seed, plant: plant, tracing: tracedEvents)
            totals.add(outcome)
            if let violation = outcome.violation {
                let isShort = totals.violations > Self.tracesMax
                listener.reported(
                    isShort ? "seed \(seed): \(violation)" : outcome.report(plant: plant)
                )
            }
            if now - told > .milliseconds(250) {
                told = now
                listener.progressed(totals)
            }
        }
        return totals
    }
}

extension RunTotals {
    mutating func add(_ outcome: Simulation.Outcome) {
        seeds += 1
        steps += outcome.events
        violations += outcome.violation == nil ? 0 : 1
        faults += outcome.statistics.faults
    }
}
