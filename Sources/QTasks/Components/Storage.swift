// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// What Broker and workers need from the component that keeps tasks.
///
/// It alone decides: a change holds if the task is still as the change expects it, and a result
/// counts if its lease still does. The default is ``AppendLogStorage``.
///
/// Nothing is answered before what the answer says is as durable as it has to be. No call is taken
/// to be instant or to succeed. Every call may throw ``QTasksError``; the change may have come to
/// pass then, and to ask again is safe.
public protocol Storage: Sendable {
    /// Saves a new task; the same one again is the same task.
    ///
    /// - Returns: What the task is now: `new` or `scheduled`, or whatever has become of it.
    /// - Throws: ``QTasksError/Code/conflict`` where a task with this ID and another content is
    ///   there, and with a ``HeldKey`` as its cause where another task holds its unique key; ``QTasksError/Code/badName``, ``QTasksError/Code/badOption`` and
    ///   ``QTasksError/Code/payloadTooLarge``. Nothing is saved then.
    @discardableResult
    func add(_ task: TaskSubmission) async throws -> TaskStatus

    /// Leases a task that is `new`, or `scheduled` and due, to a worker.
    ///
    /// - Returns: `nil` where the task is something else, or isn't there; nothing is changed then.
    func lease(_ id: TaskID, to worker: WorkerID) async throws -> TaskHandover?

    /// Ends a lease without a result: the task is `new` again, at its former place in line, or `dead`
    /// where it has killed as many workers as it may.
    ///
    /// - Returns: What the task is now, also where the lease was no longer its own and nothing is
    ///   changed; `nil` where there is no such task.
    @discardableResult
    func release(
        _ id: TaskID,
        lease: Lease,
        because reason: ReleaseReason
    ) async throws -> TaskStatus?

    /// Offers how an attempt ended. The same result may be offered again and again.
    ///
    /// - Throws: ``QTasksError/Code/payloadTooLarge`` where no store takes it; the lease goes on.
    func save(_ result: AttemptResult) async throws -> SaveVerdict

    /// What is on record; `nil` where there is no such task, or no longer.
    func record(of id: TaskID) async throws -> TaskRecord?

    /// A part of the tasks that aren't final, by their place in line: what a Broker asks for when it
    /// begins.
    ///
    /// - Parameters:
    ///   - sequence: The last one's of the part before; 0 for the first part.
    ///   - count: How many at most, above 0.
    /// - Returns: Where it is empty, there are no more.
    /// - Throws: ``QTasksError``.
    func unfinished(after sequence: UInt64, atMost count: Int) async throws -> [TaskRecord]
}

/// The cause of a ``QTasksError/Code/conflict``: a task wasn't added, since another one holds its unique
/// key.
public struct HeldKey: Error, Hashable {
    public let holder: TaskID

    public init(holder: TaskID) {
        self.holder = holder
    }
}

/// A task as it is handed to a worker, under one lease.
public struct TaskHandover: Sendable, Equatable {
    public var task: TaskSubmission

    /// Never given out before, and never again.
    public var lease: Lease

    /// How often it was leased in this epoch, this time included.
    public var attempt: UInt32

    /// How many attempts ended in an error before.
    public var failures: UInt32

    /// How often an operator requeued it after an end.
    public var epoch: UInt16

    /// When Storage took the add.
    public var addedAt: Timestamp

    public init(
        task: TaskSubmission,
        lease: Lease,
        attempt: UInt32,
        failures: UInt32,
        epoch: UInt16,
        addedAt: Timestamp
    ) {
        self.task = task
        self.lease = lease
        self.attempt = attempt
        self.failures = failures
        self.epoch = epoch
        self.addedAt = addedAt
    }
}

/// How one attempt ended, as its worker tells ``Storage``.
public struct AttemptResult: Sendable, Equatable {
    public var id: TaskID
    public var lease: Lease
    public var worker: WorkerID

    /// When the attempt began, as its worker's clock had it.
    public var startedAt: Timestamp

    /// When it ended, as its worker's clock had it.
    public var finishedAt: Timestamp
    public var outcome: TaskOutcome

    public init(
        id: TaskID,
        lease: Lease,
        worker: WorkerID,
        startedAt: Timestamp,
        finishedAt: Timestamp,
        outcome: TaskOutcome
    ) {
        self.id = id
        self.lease = lease
        self.worker = worker
        self.startedAt = startedAt
        self.finishedAt = finishedAt
        self.outcome = outcome
    }
}

/// Why a lease ends without a result.
public enum ReleaseReason: Sendable, Hashable {
    /// Its worker gave it back, or the system took it back: counts against nobody.
    case handedBack

    /// Its worker's process is proven to have ended.
    ///
    /// It counts against a task that was alone in the process; one that shared it with others is
    /// given out uncounted, to run alone next.
    case workerDied(wasAlone: Bool)
}

/// What became of a result that was offered to ``Storage``.
///
/// After each of them the worker may forget it.
public enum SaveVerdict: Sendable, Hashable {
    /// It is the attempt's outcome, as durable as the task asked; also where it was before.
    case committed
    /// The lease is no longer the task's: recorded, and not its outcome.
    case stale
    /// Nobody knows the task any more.
    case gone
}
