// Part of QTasks. License: see LICENSE.

import ArgumentParser
import Glibc
import QTasks
import QTasksModel
import QTasksProcess

/// `bench deaths`: how soon the task of a killed worker runs on another one.
struct DeathsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "deaths",
        abstract: "Kill workers, and time until their tasks run elsewhere; nothing may be lost.",
        discussion: """
            Timed from the end of the worker's process, as its pidfd tells, to the first line of the \
            task's handler in another process. deaths-idle and deaths-loaded: workers with one slot, \
            another one free; idle once the processors have nothing to do, loaded with two tasks that \
            compute, and a stream of short ones. \
            deaths-suspects: tasks that shared their worker and run alone next. The limit is what the \
            same system takes from an add to the handler's first line. A killed worker is replaced by \
            the Starter, the sooner the longer it has lived: most of the time goes to waiting for that.
            """
    )

    @OptionGroup var options: GoalOptions

    @Option(help: "Workers to kill in each of the rows deaths-idle and deaths-loaded.")
    var kills = 1000

    @Option(help: "Worker processes, so that one is free while killed ones are being replaced.")
    var workers = 40

    func run() async throws {
        var tally = DeathTally()
        var isReached = true
        let idle = try await measure(isLoaded: false, &tally)
        isReached = options.report(.p99("deaths-idle", idle.times, limit: idle.adds, most: 10))
        let loaded = try await measure(isLoaded: true, &tally)
        isReached =
            options.report(.p99("deaths-loaded", loaded.times, limit: loaded.adds, most: 50))
            && isReached
        let suspects = try await measureSuspects(&tally)
        isReached =
            options.report(
                .p99("deaths-suspects", suspects + tally.suspects, limit: idle.adds, most: 50)
            ) && isReached
        isReached = options.report(.none("deaths-lost", tally.lost)) && isReached
        isReached = options.report(.none("deaths-false", tally.falseDeaths)) && isReached
        guard isReached else { throw ExitCode(1) }
    }

    private func withSystem<Value>(
        workers: Int,
        slots: Int,
        _ body: (QueueTasks) async throws -> Value
    ) async throws -> Value {
        BenchTask.enable()
        var config = QueueConfig()
        config.workers = workers
        config.slots = slots
        config.logLevel = "critical"  // each of these deaths would be a line
        return try await QueueTasks("bench").withTemporarySystem(config: config, body)
    }

    // MARK: One slot a worker

    private func measure(
        isLoaded: Bool,
        _ tally: inout DeathTally
    ) async throws -> (times: [Double], adds: [Double]) {
        let events = try BenchEvents(gates: 2)
        return try await withSystem(workers: workers, slots: 1) { app in
            try await Self.waitForFree(workers, app)
            let load = isLoaded ? try await Self.load(app, events) : nil
            var times: [Double] = []
            var adds: [Double] = []
            for _ in 0..<kills {
                try await Self.waitForFree(3, app)
                if !isLoaded { Self.waitUntilIdle() }
                let added = Stopwatch.now()
                let task = try await Self.hold(0, app)
                let begun = try events.next("a task to begin") { $0.task == task }
                adds.append(Double(begun.at) - Double(added))
                let worker = try EndWatch.handle(of: begun.worker)
                worker.kill()
                let ended = try EndWatch.ends(of: [worker])[0]
                let again = try events.next("it to begin elsewhere") { $0.task == task }
                let time = max(0, Double(again.at) - Double(ended))
                events.openGate(0)
                let isAlone = try await tally.end(of: task, gate: 0, app)
                // beside another task it was a suspect, which is timed apart
                if isAlone { times.append(time) } else { tally.suspects.append(time) }
            }
            if let load { try await load.end(&tally) { events.openGate(1) } }
            tally.falseDeaths += max(0, try await FaultInspection.workers(of: app).deaths - kills)
            return (times, adds)
        }
    }

    // MARK: Suspects

    /// One task more than there are workers: two share one, which is killed once the others are done.
    private func measureSuspects(_ tally: inout DeathTally) async throws -> [Double] {
        let workers = 6
        let rounds = max(1, kills / 20)
        let events = try BenchEvents(gates: workers + 1)
        return try await withSystem(workers: workers, slots: 2) { app in
            var times: [Double] = []
            for _ in 0..<rounds {
                try await Self.waitForFree(workers, app)
                var gates: [Int32: [(gate: Int, task: TaskID)]] = [:]
                for gate in 0...workers {
                    let task = try await Self.hold(gate, app)
                    let begun = try events.next("a task to begin") { $0.task == task }
                    gates[begun.worker, default: []].append((gate, task))
                }
                guard let (pid, shared) = gates.first(where: { $0.value.count == 2 }) else {
                    throw QTasksError(.internalError, "no two tasks share a worker")
                }
                let sharing = shared.map(\.task)
                for (gate, task) in gates.values.joined() where !sharing.contains(task) {
                    events.openGate(gate)
                    _ = try await tally.end(of: task, gate: gate, app)
                }
                let worker = try EndWatch.handle(of: pid)
                worker.kill()
                let ended = try EndWatch.ends(of: [worker])[0]
                for _ in shared {
                    let again = try events.next("a suspect to begin") { sharing.contains($0.task) }
                    times.append(max(0, Double(again.at) - Double(ended)))
                }
                for (gate, task) in shared {
                    events.openGate(gate)
                    if try await tally.end(of: task, gate: gate, app) { tally.falseDeaths += 1 }
                }
            }
            tally.falseDeaths += max(0, try await FaultInspection.workers(of: app).deaths - rounds)
            return times
        }
    }

    // MARK: Steps

    private static func load(_ app: QueueTasks, _ events: BenchEvents) async throws -> Load {
        let frozen = try await hold(1, app)
        let begun = try events.next("a task to begin") { $0.task == frozen }
        return Load(app, frozen: frozen, worker: try EndWatch.handle(of: begun.worker))
    }

    static func hold(_ gate: Int, _ app: QueueTasks) async throws -> TaskID {
        let task = TaskSubmission(name: FaultTasks.hold, arguments: Array("\(gate)".utf8))
        return try await app.addTasks([task])[0]
    }

    /// Until those that replace the killed have started, and the processors have nothing to do.
    private static func waitUntilIdle() {
        for _ in 0..<100 {
            let time = ProcessorTime()
            usleep(60_000)  // six ticks of each processor
            if time.idleShare > 0.8 { return }
        }
    }

    /// Until so many workers are there that run nothing.
    private static func waitForFree(_ count: Int, _ app: QueueTasks) async throws {
        let end = Stopwatch.now() + 60_000_000_000
        while try await FaultInspection.workers(of: app).free < count {
            guard Stopwatch.now() < end else {
                throw QTasksError(.timeout, "no \(count) workers are free within a minute")
            }
            usleep(5000)
        }
    }
}

/// What must not happen, counted.
struct DeathTally {
    var lost = 0
    var falseDeaths = 0
    /// Times of tasks that turned out to be suspects.
    var suspects: [Double] = []

    /// Waits for the end of a task that held at a gate.
    ///
    /// - Returns: Whether a death counts against it: its worker ran nothing else.
    mutating func end(of task: TaskID, gate: Int, _ app: QueueTasks) async throws -> Bool {
        let end = try await app.end(of: task, timeout: .seconds(30))
        let right = Array("\(BenchTask.answer(gate))".utf8)
        if case .success(right, _)? = end.outcome {} else { lost += 1 }
        return try await app.get(task)?.deaths == 1
    }
}

/// What keeps the machine busy while workers are killed, and must not be taken for dead.
private struct Load {
    private let app: QueueTasks
    private let frozen: TaskID
    private let busy: [Task<Int, any Error>]

    /// Two tasks that compute, a stream of short ones, and a worker that is stopped half of the time.
    init(_ app: QueueTasks, frozen: TaskID, worker: PidDescriptor) {
        (self.app, self.frozen) = (app, frozen)
        busy =
            (0..<2).map { _ in Task { try await Self.compute(app) } }
            + (0..<4).map { _ in Task { try await Self.stream(app) } }
            + [Task { await Self.freeze(worker) }]
    }

    /// Ends it, and counts what was taken for dead meanwhile.
    func end(_ tally: inout DeathTally, openGate: () -> Void) async throws {
        for task in busy { task.cancel() }
        for task in busy { tally.falseDeaths += try await task.value }
        openGate()
        _ = try await tally.end(of: frozen, gate: 1, app)
        if try await app.get(frozen)?.attempt != 1 { tally.falseDeaths += 1 }
    }

    /// - Returns: How many ran more than once.
    private static func compute(_ app: QueueTasks) async throws -> Int {
        var repeated = 0
        while !Task.isCancelled {
            let end = try await run("2000", app)
            if end.outcome != .success(result: Array("1".utf8), contentType: nil) { repeated += 1 }
        }
        return repeated
    }

    private static func stream(_ app: QueueTasks) async throws -> Int {
        while !Task.isCancelled { _ = try await run("1", app) }
        return 0
    }

    /// To its end, also where the load is over meanwhile.
    private static func run(_ milliseconds: String, _ app: QueueTasks) async throws -> TaskEnd {
        try await Task.detached {
            let task = TaskSubmission(name: FaultTasks.compute, arguments: Array(milliseconds.utf8))
            try await app.addTasks([task])
            return try await app.end(of: task.id)
        }.value
    }

    private static func freeze(_ worker: PidDescriptor) async -> Int {
        while !Task.isCancelled {
            worker.kill(SIGSTOP)
            try? await Task.sleep(for: .milliseconds(700))
            worker.kill(SIGCONT)
            try? await Task.sleep(for: .milliseconds(700))
        }
        return 0
    }
}
