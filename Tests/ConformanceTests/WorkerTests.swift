// Part of QTasks. License: see LICENSE.

import QTasks
import Synchronization
import Testing

/// Counts what a worker says to a Storage, and may be away at first.
private final class Witness: Storage {
    private let storage: any Storage
    private let state: Mutex<(outages: Int, saved: [AttemptResult], released: [Lease])>

    private let onOutage: @Sendable () -> Void

    init(
        _ storage: any Storage,
        outages: Int = 0,
        onOutage: @escaping @Sendable () -> Void = {}
    ) {
        self.storage = storage
        self.onOutage = onOutage
        state = Mutex((outages, [], []))
    }

    /// Results that were answered.
    var saved: [AttemptResult] { state.withLock { $0.saved } }
    var released: [Lease] { state.withLock { $0.released } }

    func add(_ task: TaskSubmission) async throws -> TaskStatus { try await storage.add(task) }

    func lease(_ id: TaskID, to worker: WorkerID) async throws -> TaskHandover? {
        try await storage.lease(id, to: worker)
    }

    func release(
        _ id: TaskID,
        lease: Lease,
        because reason: ReleaseReason
    ) async throws -> TaskStatus? {
        let status = try await storage.release(id, lease: lease, because: reason)
        state.withLock { $0.released.append(lease) }
        return status
    }

    func save(_ result: AttemptResult) async throws -> SaveVerdict {
        let isAway = state.withLock { state in
            state.outages -= 1
            return state.outages >= 0
        }
        if isAway {
            onOutage()
            throw QTasksError(.storageUnavailable, "away")
        }
        let verdict = try await storage.save(result)
        state.withLock { $0.saved.append(result) }
        return verdict
    }

    func record(of id: TaskID) async throws -> TaskRecord? { try await storage.record(of: id) }

    func unfinished(after sequence: UInt64, atMost count: Int) async throws -> [TaskRecord] {
        try await storage.unfinished(after: sequence, atMost: count)
    }

    /// A new task, leased to that worker.
    func leased(_ name: String, to worker: any Worker) async throws -> TaskHandover {
        let task = TaskSubmission(name: name, arguments: [1, 2])
        _ = try await add(task)
        return try #require(try await lease(task.id, to: worker.id))
    }
}

/// Puts its mark on every result.
private struct MarkingExecutor: TaskExecutor {
    func execute(
        _ handler: TaskHandler,
        arguments: [UInt8],
        context: TaskContext
    ) async -> TaskOutcome {
        .success(result: arguments + [UInt8(context.attempt)], contentType: "marked")
    }
}

/// What every Worker must do, over every Storage.
@Suite(.timeLimit(.minutes(1)))
struct `A Worker` {
    @Test(arguments: StorageUnderTest.allCases)
    func `runs what it takes and saves one outcome for each lease`(
        _ engine: StorageUnderTest
    ) async throws {
        try await engine.use { storage in
            let storage = Witness(storage)
            let worker = LocalWorker(try .ofTestTasks(), storage: storage, slots: 100)
            #expect(worker.names == ["echo", "fail", "giveUp", "retried"])
            var leases: [Lease] = []
            for name in ["echo", "fail", "giveUp", "echo"] {
                let task = try await storage.leased(name, to: worker)
                leases.append(task.lease)
                try await worker.take(task)
            }
            await worker.leave()
            #expect(storage.saved.count == 4 && storage.released.isEmpty)
            #expect(Set(storage.saved.map(\.lease)) == Set(leases))
            #expect(storage.saved.allSatisfy { $0.worker == worker.id })
            #expect(try await worker.leases().isEmpty)
            let echo = storage.saved.first { $0.lease == leases[0] }
            #expect(echo?.outcome == .success(result: [1, 2], contentType: nil))
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `lists its leases and refuses what it has no slot for`(
        _ engine: StorageUnderTest
    ) async throws {
        try await engine.use { storage in
            let (storage, gate) = (Witness(storage), Gate())
            let registry = try TaskRegistry([
                "wait": { arguments, _ in
                    await gate.pass()
                    return arguments
                }
            ])
            let worker = LocalWorker(registry, storage: storage, slots: 1)
            #expect(try await worker.freeSlots() == 1)
            let task = try await storage.leased("wait", to: worker)
            try await worker.take(task)
            try await worker.take(task)
            await gate.waitForArrival()
            #expect(try await worker.freeSlots() == 0)
            #expect(try await worker.leases() == [task.lease])
            let other = try await storage.leased("wait", to: worker)
            let error = await #expect(throws: QTasksError.self) { try await worker.take(other) }
            #expect(error?.code == .overloaded)
            #expect(try await worker.leases() == [task.lease])
            gate.open()
            await worker.leave()
            #expect(storage.saved.map(\.lease) == [task.lease])
            let late = await #expect(throws: QTasksError.self) { try await worker.take(other) }
            #expect(late?.code == .stopping)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `refuses a name it doesn't know`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            let storage = Witness(storage)
            let worker = LocalWorker(try .ofTestTasks(), storage: storage)
            let task = try await storage.leased("unknown", to: worker)
            let error = await #expect(throws: QTasksError.self) { try await worker.take(task) }
            #expect(error?.code == .unknownTask)
            #expect(try await worker.leases().isEmpty)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `hands back what it was asked to end, and saves what ended otherwise`(
        _ engine: StorageUnderTest
    ) async throws {
        try await engine.use { storage in
            let (storage, gate, other) = (Witness(storage), Gate(), Gate())
            let registry = try TaskRegistry([
                "obeys": { arguments, context in
                    await gate.pass()
                    try Task.checkCancellation()
                    return arguments
                },
                "finishes": { arguments, context in
                    await other.pass()
                    return context.isCancelled ? [9] : arguments
                },
            ])
            let worker = LocalWorker(registry, storage: storage)
            let obeys = try await storage.leased("obeys", to: worker)
            let finishes = try await storage.leased("finishes", to: worker)
            try await worker.take(obeys)
            try await worker.take(finishes)
            await gate.waitForArrival()
            await other.waitForArrival()
            try await worker.cancel([obeys.lease, finishes.lease, Lease(rawValue: 99)])
            await worker.leave()
            #expect(storage.released == [obeys.lease])
            #expect(storage.saved.map(\.lease) == [finishes.lease])
            #expect(storage.saved.first?.outcome == .success(result: [9], contentType: nil))
            let again = try await storage.lease(obeys.task.id, to: WorkerID())
            #expect(again?.attempt == 2)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `ends what runs past its limit, and what comes after that doesn't count`(
        _ engine: StorageUnderTest
    ) async throws {
        try await engine.use { storage in
            let gate = Gate()
            // the handler returns while its outcome is being saved
            let storage = Witness(storage, outages: 1) { gate.open() }
            let registry = try TaskRegistry(
                [
                    "late": { arguments, _ in
                        // heeds no cancellation
                        await Task.detached { await gate.pass() }.value
                        return arguments
                    }
                ],
                timeLimit: .milliseconds(20)
            )
            let worker = LocalWorker(registry, storage: storage, slots: 1)
            let task = try await storage.leased("late", to: worker)
            try await worker.take(task)
            await gate.waitForArrival()
            await worker.leave()
            #expect(storage.saved.count == 1)
            guard case .error(let failure) = storage.saved[0].outcome else {
                Issue.record("no error but \(storage.saved[0].outcome)")
                return
            }
            #expect(failure.type == TaskFailure.timeLimitType)
            let record = try await storage.record(of: task.task.id)
            #expect(record?.status == .error)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `keeps a result until Storage has answered`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            let storage = Witness(storage, outages: 2)
            let worker = LocalWorker(try .ofTestTasks(), storage: storage)
            let task = try await storage.leased("echo", to: worker)
            try await worker.take(task)
            #expect(try await worker.leases() == [task.lease])
            await worker.leave()
            #expect(storage.saved.map(\.lease) == [task.lease])
            #expect(try await storage.record(of: task.task.id)?.status == .success)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `runs tasks with the executor it was given`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            let storage = Witness(storage)
            let worker = LocalWorker(
                try .ofTestTasks(),
                storage: storage,
                executor: MarkingExecutor()
            )
            try await worker.take(try await storage.leased("fail", to: worker))
            await worker.leave()
            let outcome = TaskOutcome.success(result: [1, 2, 1], contentType: "marked")
            #expect(storage.saved.map(\.outcome) == [outcome])
        }
    }
}
