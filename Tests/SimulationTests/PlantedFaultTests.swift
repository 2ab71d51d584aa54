// Part of QTasks. License: see LICENSE.

import QTasksSimulator
import Testing

@Suite
struct `A checker worth its name` {
    /// Within so many seeds each planted mistake has to show.
    private static let seedsMax: UInt64 = 1500

    @Test("finds what is planted", arguments: PlantedFault.allCases)
    func findsPlanted(plant: PlantedFault) {
        for seed in 1...Self.seedsMax {
            let outcome = Simulation.run(seed: seed, plant: plant)
            guard let violation = outcome.violation else { continue }
            print("\(plant): seed \(seed): \(violation)")
            return
        }
        Issue.record("\(plant) was not found in \(Self.seedsMax) seeds")
    }
}
