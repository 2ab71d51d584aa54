// Part of QTasks. License: see LICENSE.

public import QTasksModel
import QTasksProcess

extension QueueTasks {
    /// Runs `body` with a system of its own: in a temporary home, with all its processes, stopped and
    /// removed at the end.
    ///
    /// For programs that want worker processes without anybody having started a system: command lines,
    /// scripts, tests. The processes are this same executable, started again, so ``main(adding:)`` must
    /// be where they arrive; they end with this process, however it ends.
    ///
    /// - Parameters:
    ///   - config: How it is set up, on top of what ``config`` and the environment say.
    ///   - body: Gets these tasks, connected to the new home.
    /// - Returns: What `body` returns.
    /// - Throws: What `body` throws; ``QTasksError/Code/noSystem`` where the system can't be started.
    public func withTemporarySystem<Value>(
        config: QueueConfig? = nil,
        _ body: (QueueTasks) async throws -> Value
    ) async throws -> Value {
        guard !RoleHandover.isPending else {
            throw QTasksError(
                .badConfiguration,
                "this process was started as a part of a system: call app.main() before anything else"
            )
        }
        let folder: TemporaryFolder
        do {
            folder = try TemporaryFolder()
        } catch {
            throw QTasksError(.badHome, "no folder can be made: \(error)")
        }
        let former = home
        let settings = try (config ?? self.config).merging()
        let system = try await OwnSystem.start(home: folder.path, config: settings)
        use(home: folder.path)
        let result: Result<Value, any Error>
        do {
            try await system.waitUntilReady(home: folder.path)
            result = .success(try await body(self))
        } catch {
            result = .failure(error)
        }
        use(home: former)
        await system.stop()
        folder.remove()
        return try result.get()
    }
}
