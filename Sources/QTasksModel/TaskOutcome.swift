// Part of QTasks. License: see LICENSE.

/// Why an attempt failed, in words that a person and a program can use.
public struct TaskFailure: Sendable, Hashable, Codable {
    /// The error's type, such as `BadArguments`, `TimeLimit` or the name of the handler's own.
    public var type: String

    /// One sentence.
    public var message: String

    /// Where it came from, if that is known.
    public var trace: String?

    public init(type: String, message: String, trace: String? = nil) {
        self.type = type
        self.message = message
        self.trace = trace
    }

    /// The type of a failure whose arguments didn't decode; never retried.
    public static let badArgumentsType = "BadArguments"

    /// The type of a failure that ran past its time limit.
    public static let timeLimitType = "TimeLimit"
}

/// What the task executor makes of one attempt.
public enum TaskOutcome: Sendable, Equatable {
    /// The handler's result; a `contentType` of `nil` stands for `application/json`.
    case success(result: [UInt8], contentType: String?)

    /// The handler's last word.
    case error(TaskFailure)

    /// The handler gave the task up on purpose.
    case cancel(reason: String)

    /// Once more, `afterMilliseconds` from now; Storage makes an error of it where `failures` reaches
    /// `maxAttempts`.
    case retry(TaskFailure, afterMilliseconds: UInt64, maxAttempts: UInt32)
}
