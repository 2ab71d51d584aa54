// Part of QTasks. License: see LICENSE.
//
// Registering tasks with an `async` handler: with and without arguments and result, which are
// `Codable`; bytes (`[UInt8]`) pass as they are.

public import QTasksModel
public import QTasksWorker

extension QueueTasks {
    /// Registers a task with an `async` handler.
    ///
    /// - Parameters:
    ///   - name: What it is added under (see ``TaskName``); the same in every program that adds it.
    ///   - queue: The queue it waits in where an add doesn't say.
    ///   - priority: Its priority where an add doesn't say; higher goes first.
    ///   - retry: How often it is tried, and how long it waits in between.
    ///   - timeout: How long one attempt may run; then it is cancelled and counts as an error.
    ///   - retention: How long it is kept once it has ended, where an add doesn't say; `nil`: as the system
    ///     is set. At least 10 minutes, else its adds are refused.
    ///   - retryIf: Which errors are worth another attempt; `nil`: all.
    ///   - middlewares: What runs around each attempt, the first outermost.
    ///   - handler: Must not block: it runs on Swift's cooperative pool.
    /// - Returns: What adds it, in this program and in others that register the same.
    /// - Precondition: The name is well formed, and no other task of this program has it.
    @discardableResult
    public func task<Input: Codable & Sendable, Output: Codable & Sendable>(
        _ name: String,
        queue: String? = nil,
        priority: Int16? = nil,
        retry: RetryPolicy = .none,
        timeout: Duration? = nil,
        retention: Duration? = nil,
        retryIf: (@Sendable (any Error) -> Bool)? = nil,
        middlewares: [any TaskMiddleware] = [],
        handler: @escaping @Sendable (Input, TaskContext) async throws -> Output
    ) -> AsyncTask<Input, Output> {
        let definition = TaskDefinition<Input, Output>(
            app: self,
            name: name,
            input: .codable,
            output: .codable
        )
        register(
            TaskHandler(
                name: name,
                retry: retry,
                retryIf: retryIf,
                timeLimit: timeout,
                contentType: definition.output.contentType,
                middlewares: middlewares,
                kind: .async(definition.bytes(of: handler))
            ),
            TaskDefaults(queue: queue, priority: priority, retention: retention)
        )
        return AsyncTask(definition)
    }

    /// The same for a task without a result.
    @discardableResult
    public func task<Input: Codable & Sendable>(
        _ name: String,
        queue: String? = nil,
        priority: Int16? = nil,
        retry: RetryPolicy = .none,
        timeout: Duration? = nil,
        retention: Duration? = nil,
        retryIf: (@Sendable (any Error) -> Bool)? = nil,
        middlewares: [any TaskMiddleware] = [],
        handler: @escaping @Sendable (Input, TaskContext) async throws -> Void
    ) -> AsyncTask<Input, Void> {
        let definition = TaskDefinition<Input, Void>(
            app: self,
            name: name,
            input: .codable,
            output: .nothing
        )
        register(
            TaskHandler(
                name: name,
                retry: retry,
                retryIf: retryIf,
                timeLimit: timeout,
                contentType: definition.output.contentType,
                middlewares: middlewares,
                kind: .async(definition.bytes(of: handler))
            ),
            TaskDefaults(queue: queue, priority: priority, retention: retention)
        )
        return AsyncTask(definition)
    }

    /// The same for a task without arguments.
    @discardableResult
    public func task<Output: Codable & Sendable>(
        _ name: String,
        queue: String? = nil,
        priority: Int16? = nil,
        retry: RetryPolicy = .none,
        timeout: Duration? = nil,
        retention: Duration? = nil,
        retryIf: (@Sendable (any Error) -> Bool)? = nil,
        middlewares: [any TaskMiddleware] = [],
        handler: @escaping @Sendable (TaskContext) async throws -> Output
    ) -> AsyncTask<Void, Output> {
        let definition = TaskDefinition<Void, Output>(
            app: self,
            name: name,
            input: .nothing,
            output: .codable
        )
        register(
            TaskHandler(
                name: name,
                retry: retry,
                retryIf: retryIf,
                timeLimit: timeout,
                contentType: definition.output.contentType,
                middlewares: middlewares,
                kind: .async(definition.bytes { _, context in try await handler(context) })
            ),
            TaskDefaults(queue: queue, priority: priority, retention: retention)
        )
        return AsyncTask(definition)
    }

    /// The same for a task without arguments and result.
    @discardableResult
    public func task(
        _ name: String,
        queue: String? = nil,
        priority: Int16? = nil,
        retry: RetryPolicy = .none,
        timeout: Duration? = nil,
        retention: Duration? = nil,
        retryIf: (@Sendable (any Error) -> Bool)? = nil,
        middlewares: [any TaskMiddleware] = [],
        handler: @escaping @Sendable (TaskContext) async throws -> Void
    ) -> AsyncTask<Void, Void> {
        let definition = TaskDefinition<Void, Void>(
            app: self,
            name: name,
            input: .nothing,
            output: .nothing
        )
        register(
            TaskHandler(
                name: name,
                retry: retry,
                retryIf: retryIf,
                timeLimit: timeout,
                contentType: definition.output.contentType,
                middlewares: middlewares,
                kind: .async(definition.bytes { _, context in try await handler(context) })
            ),
            TaskDefaults(queue: queue, priority: priority, retention: retention)
        )
        return AsyncTask(definition)
    }
}
