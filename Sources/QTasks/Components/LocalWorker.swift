// Part of QTasks. License: see LICENSE.

import Logging
public import QTasksModel
public import QTasksWorker
import Synchronization

/// A worker in this process: runs what it is handed through an executor, and tells a ``Storage`` how
/// it ended, again and again until it has an answer.
///
/// Made for tests, small tools, and other engines: unlike a worker process it can't be killed, so a
/// handler that never ends keeps its slot, and a crash is everybody's.
public final class LocalWorker: Worker {
    public let id = WorkerID()
    public let names: [String]

    /// Tasks that it runs at once.
    public let slots: Int

    // The first pause before Storage is told again, and the longest; it doubles in between.
    private static let pause: Duration = .milliseconds(100)
    private static let pauseMax: Duration = .seconds(5)

    private let bench: LocalBench
    private let executor: any TaskExecutor
    private let storage: any Storage
    private let threads = HandlerThreads()
    private let state = Mutex(State())

    private struct Held {
        let attempt: LocalAttempt
        let startedAt = Timestamp.now
        var run: Task<Void, Never>?
        var limit: Task<Void, Never>?
        var isStopping = false
        /// What Storage is to be told is settled: nothing can change it.
        var isOver = false
    }

    private struct State {
        var held: [Lease: Held] = [:]
        /// Handlers that haven't returned, also those whose lease is over.
        var running = 0
        var isLeaving = false
        var leavers: [CheckedContinuation<Void, Never>] = []
    }

    /// - Parameters:
    ///   - registry: What it can run.
    ///   - storage: Who is told.
    ///   - executor: What runs each attempt.
    ///   - slots: Tasks to run at once, at least 1.
    public init(
        _ registry: TaskRegistry,
        storage: any Storage,
        executor: any TaskExecutor = DefaultTaskExecutor(),
        slots: Int = QueueConfig().slots
    ) {
        precondition(slots >= 1, "a worker runs at least one task at once")
        names = registry.handlers.map(\.name)
        bench = LocalBench(worker: id, registry: registry, logger: Logger(label: "qtasks.worker"))
        self.storage = storage
        self.executor = executor
        self.slots = slots
    }

    deinit {
        threads.stop()
    }

    public func freeSlots() async throws -> Int {
        state.withLock { $0.isLeaving ? 0 : max(0, slots - $0.running) }
    }

    public func take(_ task: TaskHandover) async throws {
        let attempt = try bench.attempt(
            task.task,
            lease: task.lease,
            attempt: task.attempt,
            failures: task.failures,
            epoch: task.epoch,
            addedAt: task.addedAt
        )
        try state.withLock { state throws(QTasksError) in
            guard state.held[task.lease] == nil else { return }
            if state.isLeaving { throw QTasksError(.stopping, "worker \(id) takes no more tasks") }
            guard state.running < slots else {
                throw QTasksError(.overloaded, "all \(slots) slots of worker \(id) are taken")
            }
            state.running += 1
            state.held[task.lease] = begin(attempt)
        }
    }

    public func cancel(_ leases: [Lease]) async throws {
        for lease in leases {
            let held = state.withLock { state in
                state.held[lease]?.isStopping = true
                return state.held[lease]
            }
            held?.attempt.markCancelled()
            stop(held?.run)
        }
    }

    public func leases() async throws -> [Lease] {
        state.withLock { Array($0.held.keys) }
    }

    /// Takes no more tasks, and returns once Storage has answered about all that it has.
    ///
    /// ``cancel(_:)`` with what ``leases()`` gives makes it sooner.
    public func leave() async {
        await withCheckedContinuation { continuation in
            let isFree = state.withLock { state in
                state.isLeaving = true
                if !state.held.isEmpty { state.leavers.append(continuation) }
                return state.held.isEmpty
            }
            if isFree { continuation.resume() }
        }
    }

    // MARK: An attempt

    private func begin(_ attempt: LocalAttempt) -> Held {
        // Never on Swift's pool: blocking handlers would keep all others from it.
        let run = Task.detached(executorPreference: threads) { [self] in
            let end = await attempt.run(with: executor)
            returned(attempt, end)
        }
        let limit = attempt.timeLimit.map { limit in
            Task.detached(executorPreference: threads) { [self] in
                guard (try? await Task.sleep(for: limit)) != nil else { return }
                overdue(attempt)
            }
        }
        return Held(attempt: attempt, run: run, limit: limit)
    }

    private func returned(_ attempt: LocalAttempt, _ end: AttemptEnd) {
        let held = state.withLock { state in
            state.running -= 1
            return Self.settle(attempt.lease, &state)
        }
        guard let held else { return }
        held.limit?.cancel()
        if held.isStopping, end.isCancellation {
            tell(.release, attempt)
        } else {
            tell(.result(end), attempt)
        }
    }

    private func overdue(_ attempt: LocalAttempt) {
        guard let held = state.withLock({ Self.settle(attempt.lease, &$0) }) else { return }
        attempt.markCancelled()
        stop(held.run)
        tell(.result(attempt.overdueEnd(startedAt: held.startedAt)), attempt)
    }

    private func stop(_ run: Task<Void, Never>?) {
        guard let run else { return }
        // Cancelling runs the handler's own cancellation code, and that may block.
        Task.detached(executorPreference: threads) { run.cancel() }
    }

    /// The first to come has the word.
    private static func settle(_ lease: Lease, _ state: inout State) -> Held? {
        guard let held = state.held[lease], !held.isOver else { return nil }
        state.held[lease]?.isOver = true
        return held
    }

    // MARK: Storage

    private enum Word {
        case result(AttemptEnd)
        case release
    }

    /// On a task of its own: the attempt's may be cancelled.
    private func tell(_ word: Word, _ attempt: LocalAttempt) {
        Task.detached(executorPreference: threads) { [self] in
            var word = word
            var pause = Self.pause
            while true {
                do {
                    try await tellOnce(word, attempt)
                    return forget(attempt.lease)
                } catch let error as QTasksError where error.code == .payloadTooLarge {
                    guard case .result(let end) = word else { return forget(attempt.lease) }
                    word = .result(end.tooLarge(error.message))
                } catch {
                    try? await Task.sleep(for: pause)
                    pause = min(pause * 2, Self.pauseMax)
                }
            }
        }
    }

    private func tellOnce(_ word: Word, _ attempt: LocalAttempt) async throws {
        switch word {
        case .release:
            try await storage.release(attempt.id, lease: attempt.lease, because: .handedBack)
        case .result(let end):
            _ = try await storage.save(
                AttemptResult(
                    id: attempt.id,
                    lease: attempt.lease,
                    worker: id,
                    startedAt: end.startedAt,
                    finishedAt: end.finishedAt,
                    outcome: end.outcome
                )
            )
        }
    }

    private func forget(_ lease: Lease) {
        let leavers = state.withLock { state in
            state.held[lease] = nil
            guard state.held.isEmpty else { return [CheckedContinuation<Void, Never>]() }
            defer { state.leavers = [] }
            return state.leavers
        }
        for leaver in leavers { leaver.resume() }
    }
}
