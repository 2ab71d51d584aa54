// Part of QTasks. License: see LICENSE.

/// An operation that QTasks could not complete.
///
/// Switch over ``code``; show ``message`` to a person.
public struct QTasksError: Error, Sendable {
    /// What went wrong, in terms a program can act on.
    ///
    /// More cases may come in a minor release: a `switch` over it needs `@unknown default`.
    @nonexhaustive
    public enum Code: String, Sendable {
        /// No system runs in that home directory.
        case noSystem
        /// No Broker answered in time. Trying again is safe: a task keeps its ID.
        case brokerUnreachable
        /// Nothing was heard in the time given; the task goes on.
        case timeout
        /// The peer sent something that is no message of this protocol.
        case malformed
        /// The peer speaks another version of the protocol.
        case unsupportedVersion
        /// The peer doesn't know that command.
        case unknownCommand
        /// A task or queue name that isn't 1 to 255 bytes of UTF-8 without control characters.
        case badName
        /// An option of the add that can't be: the message says which.
        case badOption
        /// No connected worker can run that name, and the system refuses such adds.
        case unknownTask
        /// The arguments do not decode as what the task takes, or the result as what it gives.
        case badArguments
        /// Arguments or result are longer than the system takes.
        case payloadTooLarge
        /// Another task with the same ID but another content is there already.
        case conflict
        /// Too much is queued; try again later.
        case overloaded
        /// The system is being stopped; try again with the next one.
        case stopping
        /// The log cannot be written: the disk is full or gone.
        case storageUnavailable
        /// A part of the log can't be read; the message says which.
        case damaged
        /// There is no task with that ID.
        case notFound
        /// The task ended otherwise than with a result; the message says how.
        case taskFailed
        /// The task was given up on purpose.
        case taskCancelled
        /// The connection broke several times while the request was under way.
        case connectionLost
        /// The home directory is in use, unusable, or of a newer version.
        case badHome
        /// A setting that can't be: the message names it.
        case badConfiguration
        /// A bug in QTasks, or an operating system that fails where it should not.
        case internalError
    }

    public let code: Code

    /// One sentence that names the task, endpoint or file in question and, where there is one, the
    /// way out.
    public let message: String

    /// The lower-level error this one stands for, where there is one.
    public let cause: (any Error)?

    public init(_ code: Code, _ message: String, cause: (any Error)? = nil) {
        self.code = code
        self.message = message
        self.cause = cause
    }
}

extension QTasksError: CustomStringConvertible {
    public var description: String {
        guard let cause else { return "\(code.rawValue): \(message)" }
        return "\(code.rawValue): \(message) (\(cause))"
    }
}
