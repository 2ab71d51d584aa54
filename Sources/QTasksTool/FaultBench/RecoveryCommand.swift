// Part of QTasks. License: see LICENSE.

import ArgumentParser
import Glibc
import QTasks
import QTasksModel
import QTasksProcess

/// `bench recovery`: how soon tasks are dispatched again after the death of the Broker, or of Storage.
struct RecoveryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recovery",
        abstract: "Kill the Broker, then Storage, with a long queue; time until tasks begin again.",
        discussion: """
            Workers go on with what they have, then nothing begins until the queue is there again: timed \
            from the end of the killed process to the end of the longest pause. The worst of all kills \
            counts. The limit is the time that reading the store's files takes.
            """
    )

    @OptionGroup var options: GoalOptions

    @Option(help: "Tasks in the queue.")
    var tasks = 1_000_000

    @Option(help: "How often each is killed.")
    var kills = 3

    /// A child that has lived for 10 s is replaced without delay.
    private static let pauseSeconds = 10.5

    func run() async throws {
        BenchTask.enable()
        let events = try BenchEvents()
        var config = QueueConfig()
        config.workers = 2
        config.logLevel = "critical"
        let app = QueueTasks("bench")
        let isReached = try await app.withTemporarySystem(config: config) { app in
            try await add(to: app)
            var isReached = true
            for role in ["broker", "storage"] {
                var worst = 0.0
                for _ in 0..<kills {
                    worst = max(worst, try await seconds(afterKillOf: role, app, events))
                }
                let row = GoalRow(
                    name: "recovery-\(role)",
                    value: worst,
                    unit: "s",
                    limit: StoreFiles.secondsToRead("\(app.home)/store"),
                    goal: "<= 1.5",
                    isReached: worst <= 1.5
                )
                isReached = options.report(row) && isReached
            }
            let found = try await FaultInspection.tasks(of: app)
            return options.report(.none("recovery-lost", tasks - found)) && isReached
        }
        guard isReached else { throw ExitCode(1) }
    }

    private func add(to app: QueueTasks) async throws {
        let arguments = Array("20".utf8)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for lane in 0..<4 {
                group.addTask { [tasks] in
                    for start in stride(from: lane * 1000, to: tasks, by: 4000) {
                        let part = (start..<min(start + 1000, tasks)).map { _ in
                            TaskSubmission(name: FaultTasks.tick, arguments: arguments)
                        }
                        try await app.addTasks(part, timeout: .seconds(60))
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    private func seconds(
        afterKillOf role: String,
        _ app: QueueTasks,
        _ events: BenchEvents
    ) async throws -> Double {
        try await Task.sleep(for: .seconds(Self.pauseSeconds))
        let process = try EndWatch.handle(of: try await FaultInspection.pid(of: role, app))
        _ = events.takeAll()
        process.kill()
        let ended = try EndWatch.ends(of: [process])[0]
        // until tasks have begun again for a second without a pause
        var begins: [UInt64] = [ended]
        var resumed = ended
        while Stopwatch.now() < max(resumed, ended + 1_500_000_000) + 1_000_000_000 {
            guard Stopwatch.now() < ended + 30_000_000_000 else {
                throw QTasksError(.timeout, "nothing begins 30 s after the death of \(role)")
            }
            events.wait(nanoseconds: 10_000_000)
            begins += events.takeAll().map(\.at).filter { $0 > ended }
            resumed = begins.sorted().endOfLongestPause
            if begins.count == 1 { resumed = Stopwatch.now() }
        }
        return Double(resumed - ended) / 1e9
    }
}

extension [UInt64] {
    /// The moment at which the longest pause between two of these ends; they are sorted.
    fileprivate var endOfLongestPause: UInt64 {
        let pauses = zip(self, dropFirst()).map { (pause: $1 - $0, end: $1) }
        return pauses.max { $0.pause < $1.pause }?.end ?? last ?? 0
    }
}
