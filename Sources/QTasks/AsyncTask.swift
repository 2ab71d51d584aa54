// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// A task with an `async` handler, which runs on Swift's cooperative pool and must not block.
///
/// Made by `task` of ``QueueTasks``.
public struct AsyncTask<Input: Sendable, Output: Sendable>: RegisteredTask {
    public let definition: TaskDefinition<Input, Output>

    init(_ definition: TaskDefinition<Input, Output>) {
        self.definition = definition
    }
}

/// A task that was added, and the way to its result.
public struct AsyncResult<Output: Sendable>: Sendable {
    /// The task's name for ever.
    public let id: TaskID

    /// Whether this is a task that was there: it holds the unique key of the add, which added no other.
    public let isRepeat: Bool

    let app: QueueTasks
    private let decode: @Sendable (TaskEnd) throws(QTasksError) -> Output

    /// - Parameters:
    ///   - submission: What was to be added.
    ///   - id: The task that came of it.
    ///   - definition: What its result is.
    init<Input>(
        of submission: TaskSubmission,
        _ id: TaskID,
        _ definition: TaskDefinition<Input, Output>
    ) {
        self.id = id
        isRepeat = id != submission.id
        app = definition.app
        decode = { end throws(QTasksError) in try definition.output(from: end) }
    }

    /// Waits for the task's end and gives its result.
    ///
    /// With `nil` for a timeout it waits as long as it takes. May be called again, also after a
    /// time-out.
    ///
    /// - Throws: ``QTasksError/Code/taskFailed`` with a ``FailedTask`` as its cause,
    ///   ``QTasksError/Code/taskCancelled``; ``QTasksError/Code/timeout`` with an
    ///   ``UnfinishedTask``, after which the task goes on; ``QTasksError/Code/notFound``;
    ///   `CancellationError`.
    public func result(timeout: Duration? = nil) async throws -> Output {
        try output(from: try await app.end(of: id, timeout: timeout))
    }

    /// What is known of the task now; `nil` where its retention is over.
    ///
    /// - Throws: ``QTasksError``; `CancellationError`.
    public func record() async throws -> TaskRecord? {
        try await app.get(id)
    }

    func output(from end: TaskEnd) throws(QTasksError) -> Output { try decode(end) }
}

extension Sequence {
    /// Waits for the ends of all these tasks with one message.
    ///
    /// - Returns: The results, in the same order.
    /// - Throws: As ``AsyncResult/result(timeout:)`` for the first without a result.
    public func results<Output>(timeout: Duration? = nil) async throws -> [Output]
    where Element == AsyncResult<Output> {
        let all = Array(self)
        guard let first = all.first else { return [] }
        let broker = try first.app.connectedBroker()
        let ends = try await broker.ends(of: all.map(\.id), timeout: timeout)
        return try zip(all, ends).map { result, end in try result.output(from: try end.get()) }
    }
}
