// Part of QTasks. License: see LICENSE.

import ArgumentParser
import Glibc
import QTasks

/// `bench`: how fast this machine is with QTasks, with a system of its own in a temporary home.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure a system of its own in a temporary home; every result is checked.",
        subcommands: [
            LatencyCommand.self, PayloadCommand.self, ThroughputCommand.self,
            StorageBenchCommand.self, DeathsCommand.self, RecoveryCommand.self,
            DeadlineCommand.self, KeyedCommand.self,
        ]
    )
}

/// What every benchmark takes.
struct BenchOptions: ParsableArguments {
    @Option(help: "What an acknowledgement has survived: synced or written.")
    var durability = "synced"

    @Option(help: "Worker processes.")
    var workers = 1

    @Flag(help: "Print one JSON object a row.")
    var json = false

    /// Runs `body` with a system that has only the benchmark's task.
    func withSystem(
        _ body: (AsyncTask<BenchTask.Input, Int>) async throws -> Void
    ) async throws {
        BenchTask.enable()
        var config = QueueConfig()
        config.workers = workers
        config.logLevel = "warning"
        try config.set(.durability, to: durability, saying: "--durability")
        let app = QueueTasks("bench")
        let task = app.task(BenchTask.name) {
            (input: BenchTask.Input, _: TaskContext) async throws -> Int in
            BenchTask.answer(input.i)
        }
        try await app.withTemporarySystem(config: config) { _ in try await body(task) }
    }

    func report(_ row: BenchRow) {
        print(json ? row.json : row.text)
    }
}

/// One line of a benchmark's report.
struct BenchRow {
    var name: String
    var numbers: [(key: String, value: Double)]

    /// Every result was there and right.
    var isVerified: Bool

    var text: String {
        let numbers = numbers.map { "\($0.key) \(Self.plain($0.value))" }.joined(separator: "  ")
        return "\(name)  \(numbers)  \(isVerified ? "all results right" : "WRONG RESULTS")"
    }

    var json: String {
        var text = JSONText()
        text.object { json in
            json.member("name", name)
            for (key, value) in numbers {
                json.key(key)
                json.raw(Self.plain(value).utf8)
            }
            json.member("verified", isVerified)
            json.member("ok", isVerified)
        }
        return String(decoding: text.bytes, as: UTF8.self)
    }

    private static func plain(_ value: Double) -> String {
        value == value.rounded() ? String(Int(value)) : String((value * 1000).rounded() / 1000)
    }
}

/// `bench latency`: one task at a time, from the add to its result.
struct LatencyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "latency",
        abstract: "Round trips one after the other: add, execute, result (row w2)."
    )

    @OptionGroup var options: BenchOptions

    @Option(help: "Round trips that are timed.")
    var rounds = 2000

    func run() async throws {
        try await options.withSystem { task in
            for round in 0..<200 { _ = try await roundTrip(task, round) }
            var times: [Duration] = []
            var isVerified = true
            let start = ContinuousClock.now
            for round in 0..<rounds {
                let begin = ContinuousClock.now
                isVerified = try await roundTrip(task, 10_000 + round) && isVerified
                times.append(ContinuousClock.now - begin)
            }
            let seconds = (ContinuousClock.now - start) / .seconds(1)
            times.sort()
            func microseconds(_ part: Double) -> Double {
                times[min(times.count - 1, Int(Double(times.count) * part))] / .microseconds(1)
            }
            options.report(
                BenchRow(
                    name: "w2",
                    numbers: [
                        ("rounds", Double(rounds)), ("seconds", seconds),
                        ("p50_us", microseconds(0.5)), ("p99_us", microseconds(0.99)),
                    ],
                    isVerified: isVerified
                )
            )
            guard isVerified else { throw ExitCode(1) }
        }
    }

    private func roundTrip(_ task: AsyncTask<BenchTask.Input, Int>, _ i: Int) async throws -> Bool {
        try await task.run(BenchTask.input(i), timeout: .seconds(30)) == BenchTask.answer(i)
    }
}

/// `bench throughput`: many tasks at once, one by one and in bulk.
struct ThroughputCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "throughput",
        abstract:
            "Tasks a second from the add to the result: added singly (w1) and in bulk (w1-bulk)."
    )

    @OptionGroup var options: BenchOptions

    @Option(help: "Tasks of each row.")
    var tasks = 50_000

    @Option(help: "Calls under way at once in row w1.")
    var window = 2000

    func run() async throws {
        try await options.withSystem { task in
            _ = try await bulk(task, 0..<5000)  // warm
            let single = try await row("w1") { try await singly(task, 0..<tasks) }
            let bulked = try await row("w1-bulk") { try await bulk(task, 0..<tasks) }
            guard single.isVerified && bulked.isVerified else { throw ExitCode(1) }
        }
    }

    private func row(_ name: String, _ body: () async throws -> Bool) async throws -> BenchRow {
        let start = ContinuousClock.now
        let isVerified = try await body()
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        let row = BenchRow(
            name: name,
            numbers: [
                ("n", Double(tasks)), ("seconds", seconds),
                ("tasks_per_s", (Double(tasks) / seconds).rounded()),
            ],
            isVerified: isVerified
        )
        options.report(row)
        return row
    }

    /// Each task in a call of its own.
    private func singly(
        _ task: AsyncTask<BenchTask.Input, Int>,
        _ range: Range<Int>
    ) async throws -> Bool {
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for lane in 0..<window {
                group.addTask {
                    for i in stride(from: range.lowerBound + lane, to: range.upperBound, by: window)
                    {
                        let answer = try await task.run(BenchTask.input(i), timeout: .seconds(60))
                        guard answer == BenchTask.answer(i) else { return false }
                    }
                    return true
                }
            }
            return try await group.reduce(true) { $0 && $1 }
        }
    }

    /// A thousand tasks a call, four calls under way.
    private func bulk(
        _ task: AsyncTask<BenchTask.Input, Int>,
        _ range: Range<Int>
    ) async throws -> Bool {
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for lane in 0..<4 {
                group.addTask {
                    for start in stride(
                        from: range.lowerBound + lane * 1000,
                        to: range.upperBound,
                        by: 4000
                    ) {
                        let part = start..<min(start + 1000, range.upperBound)
                        let results = try await task.addTasks(part.map(BenchTask.input))
                        let answers = try await results.results(timeout: .seconds(60))
                        guard answers == part.map(BenchTask.answer) else { return false }
                    }
                    return true
                }
            }
            return try await group.reduce(true) { $0 && $1 }
        }
    }
}
