// Part of QTasks. License: see LICENSE.

package import ArgumentParser
import Glibc
import QTasksProcess

/// `simulator`: the command line over ``Simulation``.
package struct SimulatorCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "simulator",
        abstract: "Run the whole system in virtual time, under faults, and check its promises.",
        discussion: """
            Every seed stands for one run: who is there, what they want, and what goes wrong. Broker, \
            Storage, Workers and clients are the production cores; the network, the disk and the clock are \
            simulated, so that the same seed gives the same run, and a day passes in milliseconds. After \
            every step the promises are checked.

              simulator --seeds 1000               the seeds 1 to 1000, on all cores
              simulator --seed 17                  that one alone, with its trace
              simulator --seconds 60 --commit ID   seeds derived from a commit, for a minute
              simulator --plant all                whether it finds mistakes that are put in on purpose

            Exit codes: 0 every promise held, or everything planted was found; 1 not so; 64 wrong use.
            """
    )

    @Option(help: "How many seeds (100, or as many as --seconds leaves time for).")
    var seeds: UInt64?

    @Option(help: "The first seed (1).")
    var from: UInt64?

    @Option(help: "Run this seed alone and print its trace.")
    var seed: UInt64?

    @Option(help: "Derive the first seed from this commit's ID.")
    var commit: String?

    @Option(help: "Begin no further seed after so many seconds.")
    var seconds: Double?

    @Option(help: "Put a mistake in and look for the seed that finds it; a name, or all.")
    var plant: String?

    @Option(help: "How many of the last events a trace has.")
    var trace = 200

    @Flag(help: "Print one JSON object as the last line.")
    var json = false

    @Option(help: .private)
    var child: String?

    package init() {}

    package func validate() throws {
        if seed != nil, seeds != nil || from != nil || commit != nil || seconds != nil {
            throw ValidationError(
                "--seed runs one seed; it goes with --plant, --trace and --json alone."
            )
        }
        if from != nil, commit != nil {
            throw ValidationError("--from and --commit both say which seed is the first.")
        }
        if let seconds, seconds <= 0 { throw ValidationError("--seconds must be more than 0.") }
        if seeds == 0 { throw ValidationError("--seeds must be at least 1.") }
        if trace < 1 { throw ValidationError("--trace must be at least 1.") }
        if let child, SimulatorChild.Part(argument: child) == nil {
            throw ValidationError("--child is for the simulator itself.")
        }
        if let plant, plant != "all", PlantedFault(name: plant) == nil {
            let names = PlantedFault.allCases.map(\.name).joined(separator: ", ")
            throw ValidationError(
                "There is no fault '\(plant)' to plant. There are: all, \(names)."
            )
        }
    }

    package func run() throws {
        Self.makeReplayable()
        if let seed {
            try replay(seed)
        } else if let plant {
            try search(plants(named: plant))
        } else if let part = child.flatMap({ SimulatorChild.Part(argument: $0) }) {
            SimulatorChild.run(part, of: plan, by: runner)
        } else {
            try runAll()
        }
    }

    /// Starts this program anew where dictionaries are walked in another order each time: cores do that,
    /// and a seed would not give the same run twice.
    private static func makeReplayable() {
        let variable = "SWIFT_DETERMINISTIC_HASHING"
        guard getenv(variable) == nil else { return }
        setenv(variable, "1", 1)
        execv("/proc/self/exe", CommandLine.unsafeArgv)
        print("simulator: can't start itself anew: errno \(errno)")
        Glibc.exit(1)
    }

    // MARK: What is to be run

    private var plan: SeedPlan {
        let first = commit.map { SeedPlan.first(of: $0) } ?? from ?? 1
        return SeedPlan(first: first, count: seeds ?? (seconds == nil ? 100 : nil))
    }

    private var runner: SeedRunner {
        SeedRunner(
            tracedEvents: trace,
            plant: nil,
            end: seconds.map { .now + .seconds($0) }
        )
    }

    /// Which of them are looked for.
    private func plants(named name: String) -> [PlantedFault] {
        PlantedFault(name: name).map { [$0] } ?? PlantedFault.allCases
    }

    // MARK: Running

    private func replay(_ seed: UInt64) throws {
        let planted = plant.flatMap { PlantedFault(name: $0) }
        if plant == "all" { throw ValidationError("--seed goes with one planted fault.") }
        let start = ContinuousClock.now
        let outcome = Simulation.run(
            seed: seed,
            plant: planted,
            tracing: trace,
            tracingAlways: true
        )
        print(outcome.report(plant: planted))
        var totals = RunTotals()
        totals.add(outcome)
        tell(totals, since: start)
        if totals.violations > 0 { throw ExitCode(1) }
    }

    private func runAll() throws {
        let start = ContinuousClock.now
        let progress = ProgressLine()
        let count = plan.count
        let children = SimulatorChildren(
            telling: .init(
                progressed: { totals in
                    let of = count.map { " of \($0)" } ?? ""
                    progress.show("\(totals.seeds)\(of) seeds, \(totals.steps) steps")
                },
                reported: { text in
                    progress.clear()
                    print(text)
                    // at once, also where the output is a file: whoever stops a long run has read it
                    fflush(nil)
                }
            )
        )
        let parts = UInt64(SimulatorChildren.count)
        for number in 0..<parts {
            let part = SimulatorChild.Part(number: number, of: parts, parent: getpid())
            try children.start(arguments(of: part))
        }
        let totals = try children.wait()
        progress.clear()
        tell(totals, since: start)
        if totals.violations > 0 { throw ExitCode(1) }
    }

    private func search(_ plants: [PlantedFault]) throws {
        var plan = plan
        plan.count = seeds ?? PlantSearch.seedsMax
        if let part = child.flatMap({ SimulatorChild.Part(argument: $0) }) {
            let search = PlantSearch(plant: plants[0], plan: plan, end: runner.end)
            return SimulatorChild.search(search, parent: part.parent)
        }
        let progress = ProgressLine()
        var waiting = plants[...]
        var report = PlantReport()
        let children = SimulatorChildren(
            telling: .init(progressed: { _ in }, reported: { print($0) }),
            found: { find in
                report.add(find)
                progress.show("\(report.finds.count) of \(plants.count) planted")
            }
        )
        let common = arguments(of: SimulatorChild.Part(number: 0, of: 1, parent: getpid()))
        func next() -> [String]? {
            waiting.popFirst().map {
                common + (seeds == nil ? ["--seeds", "\(PlantSearch.seedsMax)"] : [])
                    + ["--plant", $0.name]
            }
        }
        for _ in 0..<SimulatorChildren.count {
            if let arguments = next() { try children.start(arguments) }
        }
        _ = try children.wait(next: next)
        progress.clear()
        print(json ? report.json : report.text)
        if report.missed > 0 { throw ExitCode(1) }
    }

    private func arguments(of part: SimulatorChild.Part) -> [String] {
        var arguments = [
            "--child", part.argument, "--from", "\(plan.first)", "--trace", "\(trace)",
        ]
        if let count = plan.count, plant == nil || seeds != nil {
            arguments += ["--seeds", "\(count)"]
        }
        if let seconds { arguments += ["--seconds", "\(seconds)"] }
        return arguments
    }

    private func tell(_ totals: RunTotals, since start: ContinuousClock.Instant) {
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        print(json ? totals.json(seconds: seconds) : totals.text(seconds: seconds))
    }
}
