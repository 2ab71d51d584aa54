// Part of QTasks. License: see LICENSE.

import QTasksModel

/// Looks for the first seed in which a mistake that was put in on purpose shows.
struct PlantSearch {
    /// Within so many seeds each has to show, unless told otherwise.
    static let seedsMax: UInt64 = 10_000

    var plant: PlantedFault
    var plan: SeedPlan

    /// When no further seed is begun.
    var end: ContinuousClock.Instant?

    func run() -> PlantFind {
        var find = PlantFind(plant: plant)
        for seed in plan.seeds(part: 0, of: 1) {
            if let end, ContinuousClock.now >= end { break }
            let outcome = Simulation.run(seed: seed, plant: plant)
            find.seeds += 1
            find.steps += outcome.events
            guard let violation = outcome.violation else { continue }
            // a seed that breaks a promise by itself has found something else
            guard Simulation.run(seed: seed).violation == nil else { continue }
            (find.seed, find.violation) = (seed, violation)
            break
        }
        return find
    }
}

/// What came of the search.
struct PlantFind: Equatable {
    var plant: PlantedFault

    /// The seed that found it; `nil`: none did.
    var seed: UInt64?

    /// What that seed complained of.
    var violation = ""

    /// How far the search went.
    var seeds = 0
    var steps = 0

    init(plant: PlantedFault) {
        self.plant = plant
    }

    /// From child to parent.
    var line: String {
        "\(plant.name) \(seed.map { "\($0)" } ?? "-") \(seeds) \(steps) \(violation)"
    }

    init?(line: String) {
        let parts = line.split(separator: " ", maxSplits: 4, omittingEmptySubsequences: false)
        guard parts.count == 5, let plant = PlantedFault(name: String(parts[0])),
            let seeds = Int(parts[2]), let steps = Int(parts[3])
        else { return nil }
        self.plant = plant
        self.seeds = seeds
        self.steps = steps
        seed = UInt64(parts[1])
        violation = String(parts[4])
    }
}

/// What came of the search for each.
struct PlantReport {
    private(set) var finds: [PlantFind] = []

    var missed: Int { finds.count { $0.seed == nil } }

    /// Keeps the order in which the faults are declared.
    mutating func add(_ find: PlantFind) {
        finds.append(find)
        let order = PlantedFault.allCases
        finds.sort {
            (order.firstIndex(of: $0.plant) ?? 0) < (order.firstIndex(of: $1.plant) ?? 0)
        }
    }

    /// One object with a list of all.
    var json: String {
        var text = JSONText()
        text.object { json in
            json.member("plants", objects: finds) { json, find in
                json.member("name", find.plant.name)
                json.member("found", find.seed != nil)
                if let seed = find.seed {
                    json.key("seed")
                    json.raw("\(seed)".utf8)
                    json.member("violation", find.violation)
                }
                json.member("seeds", find.seeds)
                json.member("steps", find.steps)
            }
            json.member("found", finds.count - missed)
            json.member("missed", missed)
        }
        return String(decoding: text.bytes, as: UTF8.self)
    }

    /// The same for people.
    var text: String {
        let width = finds.map(\.plant.name.count).max() ?? 0
        let lines = finds.map { find in
            let padding = String(repeating: " ", count: width - find.plant.name.count)
            let what =
                find.seed.map { "seed \($0): \(find.violation)" }
                ?? "NOT FOUND in \(find.seeds) seeds"
            return "\(find.plant.name)\(padding)  \(what)"
        }
        let sum =
            missed == 0
            ? "all \(finds.count) were found" : "\(missed) of \(finds.count) were not found"
        return (lines + [sum]).joined(separator: "\n")
    }
}
