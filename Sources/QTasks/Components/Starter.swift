// Part of QTasks. License: see LICENSE.

/// What operators need from the component that keeps a system's processes alive.
public protocol Starter: Sendable {
    /// The processes it has now.
    func processes() async throws -> [ProcessReport]

    /// Ends the system: no task is started any more, and running ones have `grace` to end.
    /// Returns when all processes are gone.
    func stop(grace: Duration) async throws
}

/// One process of a running system.
public struct ProcessReport: Sendable, Hashable {
    /// Such as `broker` or `worker`.
    public let role: String
    public let pid: Int32
    /// How often it was started again since the system started.
    public let restarts: Int

    public init(role: String, pid: Int32, restarts: Int) {
        self.role = role
        self.pid = pid
        self.restarts = restarts
    }
}
