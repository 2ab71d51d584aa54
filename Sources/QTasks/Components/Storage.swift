// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// What Broker and workers need from the component that keeps tasks.
///
/// It alone decides: a result counts if its lease still does.
public protocol Storage: Sendable {
    /// What is on record; `nil` where there is no such task, or no longer.
    func record(of id: TaskID) async throws -> TaskRecord?

    /// Offers the outcome of one attempt. The same outcome may be offered again and again.
    func save(_ outcome: TaskOutcome, of id: TaskID, lease: Lease) async throws -> SaveVerdict
}

/// What became of an outcome that was offered to ``Storage``.
///
/// After each of them the worker may forget it.
public enum SaveVerdict: Sendable, Hashable {
    /// It is the task's outcome, as durable as the task asked; also where it was before.
    case committed
    /// The lease is another worker's by now: recorded, and not the task's outcome.
    case stale
    /// Nobody knows the task any more.
    case gone
}
