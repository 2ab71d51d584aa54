// Part of QTasks. License: see LICENSE.

import ArgumentParser
import QTasks
import QTasksModel

/// `bench keyed`: what a long queue with limits per key costs.
struct KeyedCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keyed",
        abstract: "Add and dispatch with limits on each key, into an empty queue and a long one.",
        discussion: """
            Every task has one of --keys keys, of which --key-concurrency run at once. Adding is timed \
            while the queue is paused, dispatching from when it is resumed. The limit of each row is the \
            same with nothing queued before.
            """
    )

    @OptionGroup var options: GoalOptions

    @Option(help: "Tasks in the long queue.")
    var tasks = 1_000_000

    @Option(help: "Keys.")
    var keys = 10_000

    @Option(name: .customLong("key-concurrency"), help: "Tasks of one key that run at once.")
    var keyConcurrency: UInt32 = 2

    @Option(help: "Tasks that are timed.")
    var timed = 100_000

    @Option(help: "Rounds of each, by turns; the median counts.")
    var rounds = 5

    private struct Rates {
        var adds: [Double] = []
        var dispatches: [Double] = []
    }

    func run() async throws {
        BenchTask.enable()
        var config = QueueConfig()
        config.workers = 1
        config.slots = 100
        config.logLevel = "critical"
        let app = QueueTasks("bench")
        let isReached = try await app.withTemporarySystem(config: config) { app in
            try await app.changeQueue(TaskName.defaultQueue) {
                $0.setKeyConcurrency(keyConcurrency)
            }
            var (empty, long) = (Rates(), Rates())
            _ = try await measure(app, into: &empty)
            empty = Rates()
            for _ in 0..<rounds { try await measure(app, into: &empty) }
            try await app.pauseQueue(TaskName.defaultQueue)
            try await add(tasks, to: app)
            for _ in 0..<rounds { try await measure(app, into: &long) }
            let adds = report("keyed-add", long.adds, empty.adds)
            return report("keyed-dispatch", long.dispatches, empty.dispatches) && adds
        }
        guard isReached else { throw ExitCode(1) }
    }

    private func report(_ name: String, _ long: [Double], _ empty: [Double]) -> Bool {
        let (value, limit) = (long.sorted()[long.count / 2], empty.sorted()[empty.count / 2])
        return options.report(
            GoalRow(
                name: name,
                value: value.rounded(),
                unit: "tasks/s",
                limit: limit.rounded(),
                goal: ">= 0.8 of the limit",
                isReached: value >= 0.8 * limit
            )
        )
    }

    /// Adds, then lets as many start; what was queued before goes first.
    private func measure(_ app: QueueTasks, into rates: inout Rates) async throws {
        try await app.pauseQueue(TaskName.defaultQueue)
        var start = ContinuousClock.now
        try await add(timed, to: app)
        rates.adds.append(Double(timed) / ((ContinuousClock.now - start) / .seconds(1)))
        let before = try await ended(app)
        start = ContinuousClock.now
        try await app.resumeQueue(TaskName.defaultQueue)
        var done = 0
        while done < timed {
            try await Task.sleep(for: .milliseconds(5))
            done = try await ended(app) - before
        }
        rates.dispatches.append(Double(done) / ((ContinuousClock.now - start) / .seconds(1)))
    }

    private func ended(_ app: QueueTasks) async throws -> Int {
        try await FaultInspection.ended(of: app)
    }

    private func add(_ count: Int, to app: QueueTasks) async throws {
        let arguments = Array(#"{"i":1,"pad":"\#(String(repeating: "x", count: 80))"}"#.utf8)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for lane in 0..<4 {
                group.addTask { [keys] in
                    for start in stride(from: lane * 1000, to: count, by: 4000) {
                        let part = (start..<min(start + 1000, count)).map { number in
                            var task = TaskSubmission(name: BenchTask.name, arguments: arguments)
                            task.key = Array("key-\(number % keys)".utf8)
                            return task
                        }
                        try await app.addTasks(part, timeout: .seconds(120))
                    }
                }
            }
            try await group.waitForAll()
        }
    }
}
