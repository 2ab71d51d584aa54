// Part of QTasks. License: see LICENSE.

public import QTasksModel

extension QueueTasks {
    /// Nothing of a queue starts until ``resumeQueue(_:timeout:)``; what runs goes on.
    ///
    /// On disk when this returns: it holds across restarts.
    ///
    /// - Throws: ``QTasksError``; `CancellationError`.
    public func pauseQueue(_ queue: String, timeout: Duration? = .seconds(30)) async throws {
        try await changeQueue(queue, timeout: timeout) { $0.setPaused(true) }
    }

    /// A queue that was paused goes on where it was.
    ///
    /// - Throws: ``QTasksError``; `CancellationError`.
    public func resumeQueue(_ queue: String, timeout: Duration? = .seconds(30)) async throws {
        try await changeQueue(queue, timeout: timeout) { $0.setPaused(false) }
    }

    /// Changes what holds a queue's tasks back: how many run at once, how many start in a time, in all or
    /// of one key, how many may wait.
    ///
    /// ```swift
    /// try await app.changeQueue("mail") {
    ///     $0.setConcurrency(4)
    ///     $0.setKeyRate(StartRate(10, perMilliseconds: 60_000))
    /// }
    /// ```
    ///
    /// On disk when this returns: it holds across restarts. After a restart a rate counts as used up, since
    /// nobody knows when the last ones started.
    ///
    /// - Parameters:
    ///   - queue: Which one; it need not have tasks yet.
    ///   - timeout: How long the system may take to answer.
    ///   - change: What is to be another; the rest stays.
    /// - Returns: The rules that hold now.
    /// - Throws: ``QTasksError``; `CancellationError`.
    @discardableResult
    public func changeQueue(
        _ queue: String,
        timeout: Duration? = .seconds(30),
        _ change: (inout QueueChange) -> Void
    ) async throws -> QueueRules {
        var changes = QueueChange()
        change(&changes)
        return try await connectedBroker().change(queue, changes, timeout: timeout)
    }

    /// What holds a queue's tasks back.
    ///
    /// - Throws: ``QTasksError``; `CancellationError`.
    public func queueRules(
        _ queue: String,
        timeout: Duration? = .seconds(30)
    ) async throws -> QueueRules {
        try await connectedBroker().change(queue, QueueChange(), timeout: timeout)
    }
}
