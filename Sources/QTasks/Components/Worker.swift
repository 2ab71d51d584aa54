// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// What the Broker needs from a component that runs tasks.
///
/// Results go to ``Storage``, not back: each lease ends with one word to it, the attempt's result or,
/// where the attempt was only stopped, the lease's release. The default is ``LocalWorker``; every
/// call may throw ``QTasksError``.
public protocol Worker: Sendable {
    /// Which life of it this is.
    var id: WorkerID { get }

    /// The task names that it can run.
    var names: [String] { get }

    /// How many tasks it is ready to be handed, besides those it has.
    func freeSlots() async throws -> Int

    /// Hands it a task; the same again changes nothing.
    ///
    /// Where it throws something else than the errors below the task may have arrived or not: the
    /// lease stays valid until the worker is known to be gone, or ``leases()`` doesn't list it.
    ///
    /// - Throws: ``QTasksError/Code/unknownTask``, ``QTasksError/Code/overloaded`` where no slot is
    ///   free, and ``QTasksError/Code/stopping``. It doesn't hold the lease then.
    func take(_ task: TaskHandover) async throws

    /// Asks it to end the attempts under these leases soon; leases that it doesn't hold don't matter.
    func cancel(_ leases: [Lease]) async throws

    /// The leases it holds: runs, or has a word about that Storage hasn't answered.
    func leases() async throws -> [Lease]
}
