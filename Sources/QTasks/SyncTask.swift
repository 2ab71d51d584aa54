// Part of QTasks. License: see LICENSE.

import QTasksClient
public import QTasksModel

/// A task with a blocking handler, which runs on a thread of its own.
///
/// Made by `syncTask` of ``QueueTasks``.
///
/// In an `async` function `addTask` suspends and gives an ``AsyncResult``; elsewhere it blocks the
/// calling thread and gives a ``SyncResult``.
public struct SyncTask<Input: Sendable, Output: Sendable>: RegisteredTask {
    public let definition: TaskDefinition<Input, Output>

    init(_ definition: TaskDefinition<Input, Output>) {
        self.definition = definition
    }

    /// Adds a task, and blocks the calling thread until it is as durable as it asked to be.
    ///
    /// - Throws: As ``RegisteredTask/addTask(_:priority:queue:delay:unique:options:timeout:)``.
    @discardableResult
    public func addTask(
        _ input: Input,
        priority: Int16? = nil,
        queue: String? = nil,
        delay: Duration? = nil,
        unique: UniqueKey? = nil,
        options: AddOptions = AddOptions(),
        timeout: Duration? = QueueTasks.addTimeout
    ) throws -> SyncResult<Output> {
        let options = options.merging(
            queue: queue,
            priority: priority,
            delay: delay,
            unique: unique
        )
        let submission = try definition.submission(of: input, options)
        let broker = try definition.app.connectedBroker()
        let ids =
            if let broker = broker as? ZeroMQBroker {
                try broker.addBlocking([submission], timeout: timeout)
            } else {
                try blocking { try await broker.add([submission], timeout: timeout) }
            }
        return SyncResult(AsyncResult(of: submission, ids[0], definition))
    }
}

/// A task that was added, and the way to its result for code that may block.
public struct SyncResult<Output: Sendable>: Sendable {
    private let result: AsyncResult<Output>

    init(_ result: AsyncResult<Output>) {
        self.result = result
    }

    /// The task's name for ever.
    public var id: TaskID { result.id }

    /// Whether this is a task that was there: it holds the unique key of the add, which added no other.
    public var isRepeat: Bool { result.isRepeat }

    /// Blocks the calling thread until the task has ended, and gives its result.
    ///
    /// With `nil` for a timeout it waits as long as it takes.
    ///
    /// - Throws: As ``AsyncResult/result(timeout:)``.
    public func result(timeout: Duration? = nil) throws -> Output {
        let broker = try result.app.connectedBroker()
        let ends =
            if let broker = broker as? ZeroMQBroker {
                try broker.endsBlocking(of: [id], timeout: timeout)
            } else {
                try blocking { [id] in try await broker.ends(of: [id], timeout: timeout) }
            }
        return try result.output(from: try ends[0].get())
    }
}

/// Runs an async call to its end while the calling thread sleeps; not on Swift's cooperative pool.
private func blocking<Value: Sendable>(
    _ body: @escaping @Sendable () async throws -> Value
) throws -> Value {
    let end = OneShot<Result<Value, any Error>>()
    Task.detached {
        do {
            end.set(.success(try await body()))
        } catch {
            end.set(.failure(error))
        }
    }
    return try end.wait().get()
}
