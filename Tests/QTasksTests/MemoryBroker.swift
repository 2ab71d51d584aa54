// Part of QTasks. License: see LICENSE.

import Logging
import QTasks
import QTasksModel
import QTasksWire
import Synchronization

@testable import QTasksWorker

/// A Broker that runs tasks in place, when their end is asked for.
final class MemoryBroker: Broker {
    private let registry: TaskRegistry
    private let tasks = Mutex<[TaskSubmission]>([])

    init(_ registry: TaskRegistry) {
        self.registry = registry
    }

    var added: [TaskSubmission] { tasks.withLock { $0 } }

    func add(_ tasks: [TaskSubmission], timeout: Duration?) async throws -> [TaskID] {
        self.tasks.withLock { known in
            for task in tasks where !known.contains(where: { $0.id == task.id }) {
                known.append(task)
            }
        }
        return tasks.map(\.id)
    }

    func get(_ id: TaskID, timeout: Duration?) async throws -> TaskRecord? {
        nil
    }

    func ends(
        of ids: [TaskID],
        timeout: Duration?
    ) async throws -> [Result<TaskEnd, QTasksError>] {
        var ends: [Result<TaskEnd, QTasksError>] = []
        for id in ids {
            guard let task = added.first(where: { $0.id == id }) else {
                ends.append(.failure(QTasksError(.notFound, "no task \(id)")))
                continue
            }
            let outcome = try await outcome(of: task)
            let status: TaskStatus =
                switch outcome {
                case .success: .success
                case .error, .retry: .error
                case .cancel: .cancel
                }
            ends.append(.success(TaskEnd(id: id, status: status, outcome: outcome)))
        }
        return ends
    }

    func run(
        _ tasks: [TaskSubmission],
        timeout: Duration?
    ) async throws -> [Result<TaskEnd, QTasksError>] {
        try await ends(of: try await add(tasks, timeout: timeout), timeout: timeout)
    }

    func inspect(_ topic: String, timeout: Duration?) async throws -> [UInt8] {
        Array("{}".utf8)
    }

    func ping(timeout: Duration?) async throws {}

    private func outcome(of task: TaskSubmission) async throws -> TaskOutcome {
        guard let place = registry.handlers.firstIndex(where: { $0.name == task.name }) else {
            throw QTasksError(.unknownTask, "nobody can run '\(task.name)'")
        }
        var writer = WireWriter()
        try task.write(to: &writer)
        let leased = LeasedTask(
            lease: Lease(incarnation: 1, counter: 1),
            attempt: 1,
            failures: 0,
            epoch: 0,
            isSuspect: false,
            addedAt: .now
        )
        let delivery = try writer.bytes.withUnsafeBytes {
            try TaskDelivery(leased, try Envelope($0), handler: place)
        }
        let site = WorkerSite(
            worker: WorkerID(),
            handlers: registry.handlers,
            logger: .init(label: "test")
        )
        return await DefaultTaskExecutor().execute(
            registry.handlers[place],
            arguments: delivery.arguments,
            context: TaskContext(delivery, at: site)
        )
    }
}
