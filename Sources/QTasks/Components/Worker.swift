// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// What the Broker needs from a component that runs tasks.
///
/// Results go to ``Storage``, not back.
public protocol Worker: Sendable {
    /// Which life of it this is.
    var id: WorkerID { get }

    /// The task names that it can run.
    var names: [String] { get }

    /// How many tasks it is ready to be handed, besides those it has.
    func freeSlots() async throws -> Int

    /// Hands it a task. It may come to nothing: the lease stays valid until the worker is known to
    /// be gone or says that it does not hold it.
    func take(_ task: TaskSubmission, lease: Lease, attempt: UInt32) async throws

    /// Asks it to end the attempts under these leases soon.
    func cancel(_ leases: [Lease]) async throws

    /// The leases it holds: runs, is about to run, or has results of that nobody acknowledged.
    func leases() async throws -> [Lease]
}
