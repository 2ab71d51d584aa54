// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// What programs need from the component that owns the order of tasks.
///
/// The default is ``ZeroMQBroker``. No call is taken to be instant, to reach one process in
/// particular, or to succeed: another engine may have its queue far away. Every call may throw
/// ``QTasksError``, and `CancellationError` where the calling Swift task is cancelled.
public protocol Broker: Sendable {
    /// Adds tasks, and returns once all of them are as durable as they asked to be.
    ///
    /// - Returns: For each task, in their order, its ID; where its unique key is held, the ID of the task
    ///   that holds it.
    /// - Throws: The first task's refusal, or that the time is over. Other tasks may have been
    ///   taken; adding all of them again with the same IDs is safe.
    @discardableResult
    func add(_ tasks: [TaskSubmission], timeout: Duration?) async throws -> [TaskID]

    /// What is known of a task now; `nil` where there is none of that ID.
    func get(_ id: TaskID, timeout: Duration?) async throws -> TaskRecord?

    /// Waits until every one of the tasks has ended. What is told is as durable as its task asked.
    ///
    /// - Returns: In the order of `ids`. A task that hasn't ended in time, or that nobody knows, is
    ///   its own failure and not the others'.
    func ends(
        of ids: [TaskID],
        timeout: Duration?
    ) async throws -> [Result<TaskEnd, QTasksError>]

    /// Adds tasks and waits for their ends.
    ///
    /// As ``add(_:timeout:)`` and ``ends(of:timeout:)``, which it is unless the engine can do both
    /// with one message. A task whose unique key is held stands for the one that holds it, and ends under
    /// that one's ID.
    func run(
        _ tasks: [TaskSubmission],
        timeout: Duration?
    ) async throws -> [Result<TaskEnd, QTasksError>]

    /// Ends tasks as ``TaskStatus/cancel``, whether they wait or run. A running handler is cancelled
    /// as Swift tasks are; whatever it comes to counts for nothing.
    ///
    /// - Returns: For each task, in the order of `ids`, the status that it has then; a failure with
    ///   ``QTasksError/Code/notFound``, or ``QTasksError/Code/conflict`` where it had ended before.
    func cancel(
        _ ids: [TaskID],
        reason: String,
        timeout: Duration?
    ) async throws -> [Result<TaskStatus, QTasksError>]

    /// Has tasks that ended as error, dead or cancel queued once more, each in a new epoch.
    ///
    /// - Returns: As ``cancel(_:reason:timeout:)``.
    func requeue(
        _ ids: [TaskID],
        timeout: Duration?
    ) async throws -> [Result<TaskStatus, QTasksError>]

    /// Forgets tasks that are ``TaskStatus/dead``, before their time is over.
    ///
    /// - Returns: As ``cancel(_:reason:timeout:)``, for a task that is gone now with the status that it had.
    func forget(
        _ ids: [TaskID],
        timeout: Duration?
    ) async throws -> [Result<TaskStatus, QTasksError>]

    /// The state of the system as JSON; topics are `app`, `tasks`, `workers` and `queues`.
    func inspect(_ topic: String, timeout: Duration?) async throws -> [UInt8]

    /// Changes what holds a queue's tasks back; a change of nothing asks what does.
    func change(
        _ queue: String,
        _ change: QueueChange,
        timeout: Duration?
    ) async throws -> QueueRules

    /// Returns if the system answers.
    func ping(timeout: Duration?) async throws

    /// Has whatever can go out of the log on disk removed, also where history would keep it, and
    /// returns when that is over.
    func compactLog(timeout: Duration?) async throws -> LogCompaction

    /// Has every worker replaced by a new one, one by one, and returns when that is over.
    func restartWorkers(timeout: Duration?) async throws
}

/// What compacting the log came to.
public struct LogCompaction: Sendable, Equatable {
    /// What the files of the store took up before.
    public let bytesBefore: Int

    /// What they take up as soon as nobody reads those that are gone.
    public let bytesAfter: Int

    public init(bytesBefore: Int, bytesAfter: Int) {
        self.bytesBefore = bytesBefore
        self.bytesAfter = bytesAfter
    }
}

extension Broker {
    /// For engines whose tasks can't be changed.
    ///
    /// - Throws: ``QTasksError/Code/unknownCommand``.
    public func cancel(
        _ ids: [TaskID],
        reason: String,
        timeout: Duration?
    ) async throws -> [Result<TaskStatus, QTasksError>] {
        throw QTasksError(.unknownCommand, "this engine can't cancel tasks")
    }

    /// For engines whose tasks can't be changed.
    ///
    /// - Throws: ``QTasksError/Code/unknownCommand``.
    public func requeue(
        _ ids: [TaskID],
        timeout: Duration?
    ) async throws -> [Result<TaskStatus, QTasksError>] {
        throw QTasksError(.unknownCommand, "this engine can't queue tasks again")
    }

    /// For engines whose queues have no rules.
    ///
    /// - Throws: ``QTasksError/Code/unknownCommand``.
    public func change(
        _ queue: String,
        _ change: QueueChange,
        timeout: Duration?
    ) async throws -> QueueRules {
        throw QTasksError(.unknownCommand, "this engine can't pause or limit queues")
    }

    /// For engines whose tasks can't be changed.
    ///
    /// - Throws: ``QTasksError/Code/unknownCommand``.
    public func forget(
        _ ids: [TaskID],
        timeout: Duration?
    ) async throws -> [Result<TaskStatus, QTasksError>] {
        throw QTasksError(.unknownCommand, "this engine can't forget tasks")
    }

    /// For engines whose workers somebody else starts.
    ///
    /// - Throws: ``QTasksError/Code/unknownCommand``.
    public func restartWorkers(timeout: Duration?) async throws {
        throw QTasksError(.unknownCommand, "this engine starts no workers")
    }

    /// For engines without a log on this host.
    ///
    /// - Throws: ``QTasksError/Code/unknownCommand``.
    public func compactLog(timeout: Duration?) async throws -> LogCompaction {
        throw QTasksError(.unknownCommand, "this engine has no log to compact")
    }

    public func run(
        _ tasks: [TaskSubmission],
        timeout: Duration?
    ) async throws -> [Result<TaskEnd, QTasksError>] {
        let end = timeout.map { ContinuousClock.now + $0 }
        let ids = try await add(tasks, timeout: timeout)
        let left = end.map { max(.zero, $0 - ContinuousClock.now) }
        return try await ends(of: ids, timeout: left)
    }
}

/// How a task ended.
public struct TaskEnd: Sendable, Equatable {
    public let id: TaskID

    /// One that is final.
    public let status: TaskStatus

    /// The last word; `nil` where the task never came to one (``TaskStatus/dead``).
    public let outcome: TaskOutcome?

    public init(id: TaskID, status: TaskStatus, outcome: TaskOutcome?) {
        self.id = id
        self.status = status
        self.outcome = outcome
    }
}
