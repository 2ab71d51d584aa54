// Part of QTasks. License: see LICENSE.

public import Logging
public import QTasksModel
import Synchronization

/// What a handler is told about the task it runs, besides the arguments.
///
/// Cheap to pass on: two references. Valid beyond the attempt, too.
public struct TaskContext: Sendable {
    let delivery: TaskDelivery
    let site: WorkerSite

    init(_ delivery: TaskDelivery, at site: WorkerSite) {
        self.delivery = delivery
        self.site = site
    }

    /// The task's name for ever.
    ///
    /// With ``epoch`` the token that makes effects idempotent: a task may be executed more than
    /// once (promise P3).
    public var id: TaskID { delivery.id }

    /// The name it was added under.
    public var name: String { site.handlers[delivery.handler].name }

    /// How often it was handed to a worker in this epoch, this time included; from 1 on.
    public var attempt: UInt32 { delivery.attempt }

    /// How many attempts ended in an error before this one.
    public var failures: UInt32 { delivery.failures }

    /// How often an operator requeued it after an end.
    public var epoch: UInt16 { delivery.epoch }

    /// Attempts that may end in an error: as the add said, else as the handler was registered.
    public var maxAttempts: UInt32 {
        delivery.maxAttempts ?? site.handlers[delivery.handler].retry.maxAttempts
    }

    public var queue: String { delivery.queue }

    public var priority: Int16 { delivery.priority }

    /// Trace context and the like, as the add had it.
    public var headers: [TaskSubmission.Header] { delivery.headers }

    /// What the arguments are made of; `nil` stands for `application/json`.
    public var contentType: String? { delivery.contentType }

    /// When Storage took the add.
    public var addedAt: Timestamp { delivery.addedAt }

    /// The task whose handler added this one.
    public var parent: TaskID? { delivery.parent }

    /// This life of the worker process.
    public var worker: WorkerID { site.worker }

    /// A logger whose lines carry the task's ID, name and attempt.
    ///
    /// Made anew each time: keep it in a constant where a handler writes many lines.
    public var logger: Logger {
        var logger = site.logger.withLock { $0 }
        logger[metadataKey: "task"] = .string(id.description)
        logger[metadataKey: "name"] = .string(name)
        logger[metadataKey: "attempt"] = .stringConvertible(attempt)
        return logger
    }

    /// Hands over arguments that are in the store, for a handler that
    /// ``TaskHandler/takesPlaced``.
    package func takePlaced() -> PlacedArguments? { delivery.takePlaced() }

    /// What to throw to give the task up on purpose, as in `throw context.cancel("not wanted")`.
    ///
    /// It ends as `cancel` with this reason and is not tried again.
    public func cancel(_ reason: String) -> TaskCancelError {
        TaskCancelError(reason: reason)
    }

    /// What to throw to have the task tried again after a wait of the handler's own choosing, as in
    /// `throw context.retryAfter(.seconds(30), "the server is busy")`.
    ///
    /// It counts as an error: the attempts that the task may have, by its retry policy or by its add,
    /// limit it. A task without a retry policy, whose add says nothing either, is tried again as often as
    /// this is thrown. `retryIf` isn't asked.
    public func retryAfter(_ delay: Duration, _ reason: String = "") -> RetryAfterError {
        RetryAfterError(delay: delay, reason: reason)
    }

    /// Whether the handler should come to an end: its time limit has passed, the system is being
    /// stopped, or the lease is another worker's by now.
    ///
    /// A blocking handler asks this now and then.
    public var isCancelled: Bool { delivery.isCancelled || Task.isCancelled }

    /// Waits without holding a thread.
    ///
    /// - Throws: `CancellationError` as soon as the task is cancelled; let it through.
    public func sleep(for duration: Duration) async throws {
        try await Task.sleep(for: duration)
    }
}

/// A handler's word that the task is to be given up: it ends as `cancel`.
public struct TaskCancelError: Error, Hashable {
    /// One sentence, kept in the record.
    public let reason: String

    public init(reason: String) {
        self.reason = reason
    }
}

/// A handler's word that the task is to be tried again after a while.
public struct RetryAfterError: Error, Hashable {
    /// How long it waits; a negative one is none.
    public let delay: Duration

    /// One sentence, kept in the attempt's record.
    public let reason: String

    public init(delay: Duration, reason: String) {
        self.delay = max(.zero, delay)
        self.reason = reason
    }
}

extension RetryAfterError: CustomStringConvertible {
    public var description: String { reason.isEmpty ? "tried again after \(delay)" : reason }
}

extension TaskCancelError: CustomStringConvertible {
    public var description: String { reason }
}
