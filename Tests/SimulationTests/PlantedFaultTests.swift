// Part of QTasks. License: see LICENSE.

import QTasksSimulator
import Testing

@Suite
struct `A checker worth its name` {
    /// Within so many seeds each of these has to show.
    private static let seedsMax: UInt64 = 200

    /// Those that show soon: `simulator --plant all`, which is optimized, looks for all.
    private static let easilyFound: [PlantedFault] = [
        .addAcknowledgedBeforeDurable, .carriedAsAdded, .creditAsIncrement,
        .dueByWallClockAfterAStep, .forgottenCarriedForward, .helloNotReconciled,
        .keyHeldBackTooLong, .limitOffByOne, .lostDispatchForgotten, .orderByPosition,
        .orderReversed, .rateOfEachBurst, .replayByPosition, .resultAcknowledgedUnsaved,
        .resultToldBeforeDurable, .rulesForgottenAtRestart, .sharersDeathsCounted,
        .wallClockReckonedOnce,
    ]

    @Test("finds what is planted", arguments: easilyFound)
    func findsPlanted(plant: PlantedFault) {
        for seed in 1...Self.seedsMax {
            let outcome = Simulation.run(seed: seed, plant: plant)
            guard let violation = outcome.violation else { continue }
            print("\(plant.name): seed \(seed): \(violation)")
            return
        }
        Issue.record("\(plant.name) was not found in \(Self.seedsMax) seeds")
    }
}
