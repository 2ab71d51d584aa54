// Part of QTasks. License: see LICENSE.

public import QTasksModel

extension QueueTasks {
    /// Ends a task as ``TaskStatus/cancel``, whether it waits for a worker, for its time, or runs.
    ///
    /// The word is on disk when this returns: a task that waited never starts. A running handler is
    /// cancelled as Swift tasks are, and whatever it comes to counts for nothing; one that never looks
    /// goes on in its slot until it returns.
    ///
    /// - Parameters:
    ///   - id: Which task.
    ///   - reason: For people; whoever waits for the task hears it.
    ///   - timeout: How long the system may take to answer.
    /// - Throws: ``QTasksError/Code/notFound``; ``QTasksError/Code/conflict`` where it had ended
    ///   otherwise before; another ``QTasksError``; `CancellationError`.
    public func cancel(
        _ id: TaskID,
        reason: String = "",
        timeout: Duration? = .seconds(30)
    ) async throws {
        let broker = try connectedBroker()
        _ = try await broker.cancel([id], reason: reason, timeout: timeout)[0].get()
    }

    /// Has a task that ended as error, dead or cancel queued once more, at the place in line that it
    /// had.
    ///
    /// A new epoch begins: attempts, failures and deaths are counted anew, and ``TaskContext/epoch``
    /// tells the handler.
    ///
    /// - Throws: ``QTasksError/Code/notFound``; ``QTasksError/Code/conflict`` where it isn't in one of
    ///   these; another ``QTasksError``; `CancellationError`.
    public func requeue(_ id: TaskID, timeout: Duration? = .seconds(30)) async throws {
        _ = try await connectedBroker().requeue([id], timeout: timeout)[0].get()
    }

    /// Forgets a task that is ``TaskStatus/dead`` before its retention is over: there is no such task from
    /// then on, and nobody can requeue it.
    ///
    /// - Throws: ``QTasksError/Code/notFound``; ``QTasksError/Code/conflict`` where it isn't dead; another
    ///   ``QTasksError``; `CancellationError`.
    public func forget(_ id: TaskID, timeout: Duration? = .seconds(30)) async throws {
        _ = try await connectedBroker().forget([id], timeout: timeout)[0].get()
    }
}

extension AsyncResult {
    /// Ends the task as ``TaskStatus/cancel``; see ``QueueTasks/cancel(_:reason:timeout:)``.
    public func cancel(reason: String = "") async throws {
        try await app.cancel(id, reason: reason)
    }
}
