// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// A registered task: its name, its function, and what to do where that fails.
public struct TaskHandler: Sendable {
    /// Takes the arguments' bytes and gives the result's.
    public typealias AsyncFunction = @Sendable ([UInt8], TaskContext) async throws -> [UInt8]

    /// The same for code that blocks its thread.
    public typealias BlockingFunction = @Sendable ([UInt8], TaskContext) throws -> [UInt8]

    /// Where the function may run.
    public enum Kind: Sendable {
        /// On Swift's cooperative pool: it must not block.
        case async(AsyncFunction)
        /// On a thread of its own: it may block.
        case blocking(BlockingFunction)
    }

    /// What tasks are added under (see ``TaskName``).
    public var name: String

    /// How often it is tried, and how long it waits in between.
    public var retry: RetryPolicy

    /// Which errors are worth another attempt; all of them where it is `nil`.
    ///
    /// Asked for ``TimeLimitError``, too (once, when the worker starts).
    public var retryIf: (@Sendable (any Error) -> Bool)?

    /// How long one attempt may run where the add doesn't say; `nil`: for ever.
    public var timeLimit: Duration?

    /// What its result is made of; `nil` stands for `application/json`.
    public var contentType: String?

    /// What runs around each attempt, the first outermost.
    public var middlewares: [any TaskMiddleware]

    public var kind: Kind

    /// Its function takes arguments that are in the store from the context: it gets no copy of them.
    package var takesPlaced = false

    public init(
        name: String,
        retry: RetryPolicy = .none,
        retryIf: (@Sendable (any Error) -> Bool)? = nil,
        timeLimit: Duration? = nil,
        contentType: String? = nil,
        middlewares: [any TaskMiddleware] = [],
        kind: Kind
    ) {
        self.name = name
        self.retry = retry
        self.retryIf = retryIf
        self.timeLimit = timeLimit
        self.contentType = contentType
        self.middlewares = middlewares
        self.kind = kind
    }
}

/// The arguments do not decode as what the task takes: the attempt ends as `error`, for good, since
/// the same bytes won't decode the next time either.
public struct BadArgumentsError: Error, Hashable {
    /// One sentence: what was expected where.
    public let message: String

    public init(message: String) {
        self.message = message
    }
}

extension BadArgumentsError: CustomStringConvertible {
    public var description: String { message }
}

/// An attempt ran past its time limit.
///
/// Nobody throws it: ``TaskHandler/retryIf`` is asked with it.
public struct TimeLimitError: Error, Hashable {
    public init() {}
}
