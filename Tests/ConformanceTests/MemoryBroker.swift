// Part of QTasks. License: see LICENSE.

import QTasks
import Synchronization

/// A Broker in this process: owns the order of tasks, and hands them from any Storage to a worker.
actor MemoryBroker: Broker {
    private let storage: any Storage
    private let worker: LocalWorker

    /// The next one last.
    private var queue: [(id: TaskID, priority: Int16, place: Int)] = []
    private var places: [TaskID: Int] = [:]
    private var ended: Set<TaskID> = []
    private var waiters: [TaskID: [Int: CheckedContinuation<Void, Never>]] = [:]
    private var lastWaiter = 0
    private var isDispatching = false

    init(_ registry: TaskRegistry, storage: any Storage) {
        let relay = StorageRelay(storage)
        self.storage = storage
        worker = LocalWorker(registry, storage: relay, slots: 4)
        relay.follow { [weak self] id in await self?.heard(of: id) }
    }

    /// Until its worker has nothing any more.
    func close() async {
        try? await worker.cancel(worker.leases())
        await worker.leave()
    }

    func add(_ tasks: [TaskSubmission], timeout: Duration?) async throws -> [TaskID] {
        var ids: [TaskID] = []
        for task in tasks {
            do {
                _ = try await storage.add(task)
            } catch let error as QTasksError {
                guard let held = error.cause as? HeldKey else { throw error }
                ids.append(held.holder)
                continue
            }
            ids.append(task.id)
            guard places[task.id] == nil else { continue }
            places[task.id] = places.count
            await queueAgain(task.id)
        }
        return ids
    }

    func get(_ id: TaskID, timeout: Duration?) async throws -> TaskRecord? {
        try await storage.record(of: id)
    }

    func ends(
        of ids: [TaskID],
        timeout: Duration?
    ) async throws -> [Result<TaskEnd, QTasksError>] {
        let limit = timeout.map { ContinuousClock.now + $0 }
        var ends: [Result<TaskEnd, QTasksError>] = []
        for id in ids { ends.append(try await end(of: id, until: limit)) }
        return ends
    }

    func inspect(_ topic: String, timeout: Duration?) async throws -> [UInt8] {
        guard ["app", "tasks", "workers", "queues"].contains(topic) else {
            throw QTasksError(.badOption, "there is no topic '\(topic)'")
        }
        return Array("{}".utf8)
    }

    func ping(timeout: Duration?) async throws {}

    // MARK: Waiting

    private func end(
        of id: TaskID,
        until limit: ContinuousClock.Instant?
    ) async throws -> Result<TaskEnd, QTasksError> {
        while true {
            guard let record = try await storage.record(of: id) else {
                return .failure(QTasksError(.notFound, "there is no task \(id)"))
            }
            if record.status.isFinal {
                let end = TaskEnd(id: id, status: record.status, outcome: record.outcome)
                return .success(end)
            }
            if let limit, limit <= .now {
                return .failure(QTasksError(.timeout, "task \(id) has not ended in time"))
            }
            if !ended.contains(id) { await wait(for: id, until: limit) }
        }
    }

    private func wait(for id: TaskID, until limit: ContinuousClock.Instant?) async {
        lastWaiter += 1
        let waiter = lastWaiter
        let timer = limit.map { limit in
            Task {
                try? await ContinuousClock().sleep(until: limit)
                waiters[id]?.removeValue(forKey: waiter)?.resume()
            }
        }
        await withCheckedContinuation { waiters[id, default: [:]][waiter] = $0 }
        timer?.cancel()
    }

    /// Storage has answered the worker about a task.
    private func heard(of id: TaskID) async {
        guard let record = try? await storage.record(of: id) else { return }
        if record.status.isFinal {
            ended.insert(id)
            for waiter in waiters.removeValue(forKey: id)?.values ?? [:].values { waiter.resume() }
        } else {
            await queueAgain(id)
        }
        await dispatch()
    }

    // MARK: Order

    private func queueAgain(_ id: TaskID) async {
        guard let record = try? await storage.record(of: id), !record.status.isFinal else { return }
        if let due = record.notBefore {
            let wait = max(0, due.nanoseconds - Timestamp.now.nanoseconds)
            Task {
                try? await ContinuousClock().sleep(for: .nanoseconds(wait))
                await enqueue(id, record.submission.priority)
            }
        } else {
            await enqueue(id, record.submission.priority)
        }
    }

    private func enqueue(_ id: TaskID, _ priority: Int16) async {
        guard !queue.contains(where: { $0.id == id }) else { return }
        queue.append((id, priority, places[id] ?? 0))
        queue.sort { ($1.priority, $0.place) < ($0.priority, $1.place) }
        queue.reverse()
        await dispatch()
    }

    private func dispatch() async {
        guard !isDispatching else { return }
        isDispatching = true
        defer { isDispatching = false }
        while let free = try? await worker.freeSlots(), free > 0, let next = queue.popLast() {
            guard let task = try? await storage.lease(next.id, to: worker.id) else { continue }
            do {
                try await worker.take(task)
            } catch {
                // nobody can run it: it stays where it is
                _ = try? await storage.release(next.id, lease: task.lease, because: .handedBack)
            }
        }
    }
}

/// Passes everything on, and says which task a worker had an answer about.
final class StorageRelay: Storage {
    private let storage: any Storage
    private let follower = Mutex<(@Sendable (TaskID) async -> Void)?>(nil)

    init(_ storage: any Storage) {
        self.storage = storage
    }

    func follow(_ follower: @escaping @Sendable (TaskID) async -> Void) {
        self.follower.withLock { $0 = follower }
    }

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
        await tell(id)
        return status
    }

    func save(_ result: AttemptResult) async throws -> SaveVerdict {
        let verdict = try await storage.save(result)
        await tell(result.id)
        return verdict
    }

    func record(of id: TaskID) async throws -> TaskRecord? { try await storage.record(of: id) }

    func unfinished(after sequence: UInt64, atMost count: Int) async throws -> [TaskRecord] {
        try await storage.unfinished(after: sequence, atMost: count)
    }

    private func tell(_ id: TaskID) async {
        let follower = follower.withLock { $0 }
        await follower?(id)
    }
}
