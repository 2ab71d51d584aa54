// Part of QTasks. License: see LICENSE.

package import QTasksModel

/// Runs the whole system in one thread and virtual time, and looks whether its promises hold.
package enum Simulation {
    /// What came of one seed.
    package struct Outcome: Sendable {
        package let seed: UInt64
        /// The promise that was broken, in words; `nil`: none was.
        package let violation: String?
        /// The last events, one a line, where a promise was broken.
        package let trace: String
        /// Equal for equal runs.
        package let checksum: UInt64
        package let events: Int
        package let statistics: Statistics

        /// All that somebody needs who has to find the reason.
        package func report(plant: PlantedFault? = nil) -> String {
            let planted = plant.map { " --plant \($0.name)" } ?? ""
            var lines = ["seed \(seed): \(violation ?? "every promise held")"]
            if violation != nil { lines.append("again: simulator --seed \(seed)\(planted)") }
            if !trace.isEmpty {
                lines += ["the last events, with milliseconds of virtual time:", trace]
            }
            return lines.joined(separator: "\n")
        }
    }

    /// What a run consisted of: a simulation in which nothing happens proves nothing.
    package struct Statistics: Sendable {
        /// How often each kind of fault struck.
        package internal(set) var faults = FaultCounts()
        package internal(set) var tasks = 0
        package internal(set) var executions = 0
        package internal(set) var restarts = 0
        package internal(set) var releases = 0
        package internal(set) var staleResults = 0
        /// Leases of remote workers that were given up for their silence, and those of them whose workers lived.
        package internal(set) var silences = 0
        package internal(set) var falseSilences = 0
        package internal(set) var openings = 0
        /// Openings that began with a checkpoint, and those of a log whose oldest segments were gone.
        package internal(set) var checkpoints = 0
        package internal(set) var compacted = 0
        package internal(set) var powerLosses = 0
        package internal(set) var told = 0
        /// Tasks that were sent to workers by their place in the store, and those that were gone there.
        package internal(set) var placed = 0
        package internal(set) var gone = 0
        /// The same of records for clients.
        package internal(set) var placedReplies = 0
        package internal(set) var goneReplies = 0
        /// Finished tasks that were forgotten, those of them whose IDs were added again, and openings of a
        /// log that had been compacted since tasks were forgotten.
        package internal(set) var forgotten = 0
        package internal(set) var addedAgain = 0
        package internal(set) var openedWithout = 0
        /// Runs that ended because the damage that was done to a segment was reported.
        package internal(set) var reportedDamage = 0
        /// Tasks that ended since nobody leased them in time, and adds whose unique key was held.
        package internal(set) var expired = 0
        package internal(set) var repeats = 0
        /// Changes of settings that somebody heard are on disk.
        package internal(set) var settings = 0
        /// Tasks that were cancelled, by what they were before, and those that were queued again.
        package internal(set) var cancelled: [TaskStatus: Int] = [:]
        package internal(set) var requeued = 0
        /// Changes of queues' rules, leases in queues that had some, how often another task went before one that
        /// a limit of its key held back, and adds that a full queue didn't take.
        package internal(set) var ruleChanges = 0
        package internal(set) var ruledLeases = 0
        package internal(set) var heldBack = 0
        package internal(set) var overloads = 0

        package init() {}

        package static func += (left: inout Self, right: Self) {
            left.faults += right.faults
            left.tasks += right.tasks
            left.executions += right.executions
            left.restarts += right.restarts
            left.releases += right.releases
            left.staleResults += right.staleResults
            left.silences += right.silences
            left.falseSilences += right.falseSilences
            left.openings += right.openings
            left.checkpoints += right.checkpoints
            left.compacted += right.compacted
            left.powerLosses += right.powerLosses
            left.told += right.told
            left.placed += right.placed
            left.gone += right.gone
            left.placedReplies += right.placedReplies
            left.goneReplies += right.goneReplies
            left.forgotten += right.forgotten
            left.addedAgain += right.addedAgain
            left.expired += right.expired
            left.repeats += right.repeats
            left.openedWithout += right.openedWithout
            left.reportedDamage += right.reportedDamage
            left.settings += right.settings
            left.cancelled.merge(right.cancelled, uniquingKeysWith: +)
            left.requeued += right.requeued
            left.ruleChanges += right.ruleChanges
            left.ruledLeases += right.ruledLeases
            left.heldBack += right.heldBack
            left.overloads += right.overloads
        }
    }

    /// Runs one seed to its end.
    ///
    /// - Parameters:
    ///   - seed: What everything follows from.
    ///   - plant: A mistake that the checker has to find.
    ///   - kept: How many of the last events are told where a promise is broken.
    ///   - isAlwaysTraced: They are told also where none is.
    /// - Returns: Whether every promise held, and what happened.
    package static func run(
        seed: UInt64,
        plant: PlantedFault? = nil,
        tracing kept: Int = 200,
        tracingAlways isAlwaysTraced: Bool = false
    ) -> Outcome {
        let scenario = Scenario(seed: seed)
        let world = World(scenario, plant: plant, tracing: kept)
        world.run(until: scenario.calmAt + scenario.patience)
        let violation = world.checker.violation
        return Outcome(
            seed: seed,
            violation: violation,
            trace: violation == nil && !isAlwaysTraced
                ? "" : world.log.text { "task \(scenario.number(of: $0))" },
            checksum: world.log.checksum,
            events: world.eventCount,
            statistics: world.checker.statistics
        )
    }
}
