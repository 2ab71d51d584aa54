// Part of QTasks. License: see LICENSE.

import ArgumentParser
import Glibc
import QTasks
import QTasksModel
import QTasksProcess

/// `bench deadline`: how exactly time limits end attempts, and workers that don't end them.
struct DeadlineCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "deadline",
        abstract: "Tasks that heed no time limit, and when each step against them comes.",
        discussion: """
            deadline-end: whoever waits is told at the limit. deadline-hard: the worker is asked to end a \
            second after it (SIGTERM; its task has it die of that). deadline-kill: a worker that stands \
            still is killed another second later. Timed by the ends of processes as their pidfds tell. \
            The limit is how late this machine wakes a thread that sleeps.
            """
    )

    @OptionGroup var options: GoalOptions

    @Option(help: "Tasks in each row.")
    var tasks = 40

    private static let limitMilliseconds: UInt64 = 150
    /// From the limit to SIGTERM, and from there to SIGKILL (see RunningInProduction).
    private static let stepNanoseconds: UInt64 = 1_000_000_000
    /// Few: to take ten processes apart at once takes the kernel as long as the goal.
    private static let workers = 2

    func run() async throws {
        BenchTask.enable()
        let events = try BenchEvents()
        let sleeps = Self.sleeps(100)
        var config = QueueConfig()
        config.workers = Self.workers
        config.slots = 1
        config.logLevel = "critical"
        config.durability = .written  // no wait for the disk is in what a waiter is told
        let app = QueueTasks("bench")
        let isReached = try await app.withTemporarySystem(config: config) { app in
            let hard = try await measure(FaultTasks.mortal, steps: 1, app, events)
            let last = try await measure(FaultTasks.frozen, steps: 2, app, events)
            let rows: [GoalRow] = [
                .p99("deadline-end", hard.told, limit: sleeps, most: 20),
                .p99("deadline-hard", hard.ended, limit: sleeps, most: 20),
                .p99("deadline-kill", last.ended, limit: sleeps, most: 20),
            ]
            return rows.map(options.report).allSatisfy(\.self)
        }
        guard isReached else { throw ExitCode(1) }
    }

    /// How far from its moment each end was, in nanoseconds, early or late.
    private func measure(
        _ name: String,
        steps: UInt64,
        _ app: QueueTasks,
        _ events: BenchEvents
    ) async throws -> (told: [Double], ended: [Double]) {
        var told: [Double] = []
        var ended: [Double] = []
        while ended.count < tasks {
            var task = TaskSubmission(name: name, arguments: Array("null".utf8))
            task.timeLimitMilliseconds = Self.limitMilliseconds
            let batch = (0..<min(Self.workers, tasks - ended.count)).map { _ in
                var copy = task
                copy.id = TaskID()
                return copy
            }
            try await app.addTasks(batch)
            let waits = batch.map { task in
                Task {
                    let end = try await app.end(of: task.id, timeout: .seconds(30))
                    return (end, Stopwatch.now())
                }
            }
            var begun: [TaskID: BenchEvent] = [:]
            while begun.count < batch.count {
                let event = try events.next("a task to begin") { _ in true }
                begun[event.task] = event
            }
            let limits = batch.map { (begun[$0.id]?.at ?? 0) + Self.limitMilliseconds * 1_000_000 }
            let handles = try batch.compactMap { begun[$0.id]?.worker }.map(EndWatch.handle)
            for (wait, limit) in zip(waits, limits) {
                let (end, at) = try await wait.value
                guard end.status == .error else {
                    throw QTasksError(.internalError, "it ended as \(end.status) at its limit")
                }
                told.append(abs(Double(at) - Double(limit)))
            }
            for (end, limit) in zip(try EndWatch.ends(of: handles), limits) {
                ended.append(abs(Double(end) - Double(limit + steps * Self.stepNanoseconds)))
            }
        }
        return (told, ended)
    }

    /// How late a thread wakes up that sleeps for 10 ms, in nanoseconds.
    private static func sleeps(_ count: Int) -> [Double] {
        (0..<count).map { _ in
            let start = Stopwatch.now()
            var time = timespec(tv_sec: 0, tv_nsec: 10_000_000)
            nanosleep(&time, nil)
            return Double(Stopwatch.now() - start) - 10_000_000
        }
    }
}
