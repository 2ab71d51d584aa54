// Part of QTasks. License: see LICENSE.

/// What operators need from the component that keeps a system's processes alive.
///
/// The default is ``RunningSystem``. Every call may throw ``QTasksError``.
public protocol Starter: Sendable {
    /// The processes that the system has now.
    func processes() async throws -> [ProcessReport]

    /// Ends the system: no task is started any more, and running ones have `grace` to end.
    ///
    /// Returns when all its processes are gone; tasks that didn't end are queued again, uncounted.
    func stop(grace: Duration) async throws
}

/// One process of a running system.
public struct ProcessReport: Sendable, Hashable {
    /// `starter`, `broker`, `storage`, `globalconfig` or `worker`.
    public let role: String

    /// Its number on its host.
    public let pid: Int32

    /// Who started it; `nil` for the Starter.
    public let parent: Int32?

    public init(role: String, pid: Int32, parent: Int32?) {
        self.role = role
        self.pid = pid
        self.parent = parent
    }
}
