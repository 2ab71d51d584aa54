// Part of QTasks. License: see LICENSE.

import QTasksClient
import QTasksGlobalConfig
public import QTasksModel
import QTasksProcess
import QTasksWorker
import Synchronization

/// The GlobalConfig of a system on this host, or at endpoints: a connection that comes back by itself
/// and asks again for what was not answered.
///
/// Starts a thread at the first call, which sleeps while nothing is asked or told. Any number of
/// tasks may call at once. Cancelling a caller doesn't cut a request short; its time limit does.
public final class ZeroMQGlobalConfig: GlobalConfig {
    /// How long one request is tried where nothing else is said.
    public static let requestTimeout: Duration = .seconds(5)

    /// Changes that a watcher may lie behind; past that its stream ends with an error.
    public static let watcherBacklogMax = ConfigConnection.watcherBacklogMax

    // One thread for all watchers, and not Swift's pool: an idle process stays idle (P8).
    private static let pumps = HandlerThreads(limit: 1)

    private let endpoints: ConfigEndpoints
    private let timeout: Duration
    private let absence: @Sendable () -> QTasksError?
    private let state = Mutex(State())

    private struct State {
        var connection: ConfigConnection?
        var isClosed = false
    }

    /// The settings of the system in a home directory.
    ///
    /// - Parameters:
    ///   - home: Where the system lives.
    ///   - waitForSystem: Whether calls wait, up to `timeout`, for a system that isn't running yet;
    ///     else they fail at once with ``QTasksError/Code/noSystem``.
    ///   - timeout: How long one request is tried.
    /// - Throws: ``QTasksError/Code/badHome`` where that can't be a home directory.
    public init(
        home: String,
        waitForSystem: Bool = false,
        timeout: Duration = requestTimeout
    ) throws(QTasksError) {
        endpoints = ConfigEndpoints(try HomeDirectory(at: home))
        absence = try BrokerAddress.home(home, waitForSystem: waitForSystem).absence
        self.timeout = timeout
    }

    /// The settings of a system whose GlobalConfig is found at these endpoints, whether it is there
    /// yet or not.
    ///
    /// - Parameters:
    ///   - requests: Its ROUTER's, such as `ipc:///srv/q/sockets/config`.
    ///   - updates: Its XPUB's, such as `ipc:///srv/q/sockets/config-updates`.
    ///   - timeout: How long one request is tried.
    public init(requests: String, updates: String, timeout: Duration = requestTimeout) {
        endpoints = ConfigEndpoints(requests: requests, updates: updates)
        absence = { nil }
        self.timeout = timeout
    }

    deinit {
        close()
    }

    public func get(_ key: String) async throws -> [UInt8]? {
        // a key with a `*` in it is a pattern that means itself, among others
        try await connection().get(key)[key]
    }

    public func set(_ key: String, to value: [UInt8]?) async throws {
        if let value {
            try await connection().set(key, to: value)
        } else {
            try await connection().delete(key)
        }
    }

    public func values(matching pattern: String) async throws -> [String: [UInt8]] {
        try await connection().get(pattern)
    }

    public func watch(matching pattern: String) -> AsyncThrowingStream<ConfigChange, any Error> {
        AsyncThrowingStream(bufferingPolicy: .bufferingOldest(Self.watcherBacklogMax)) { reader in
            let changes: AsyncStream<ConfigEntry>
            do {
                changes = try connection().watch(pattern)
            } catch {
                return reader.finish(throwing: error)
            }
            let pump = Task.detached(executorPreference: Self.pumps) {
                for await change in changes {
                    let change = ConfigChange(key: change.key, value: change.value)
                    if case .dropped = reader.yield(change) {
                        return reader.finish(throwing: Self.tooSlow(pattern))
                    }
                }
                reader.finish(throwing: Self.closed)
            }
            reader.onTermination = { _ in pump.cancel() }
        }
    }

    /// Ends the connection for good: open requests and streams fail with
    /// ``QTasksError/Code/connectionLost``, as every later call does.
    public func close() {
        let connection = state.withLock { state in
            state.isClosed = true
            return state.connection.take()
        }
        connection?.close()
    }

    private func connection() throws(QTasksError) -> ConfigConnection {
        if let absence = absence() { throw absence }
        return try state.withLock { state throws(QTasksError) in
            if state.isClosed { throw Self.closed }
            if let connection = state.connection { return connection }
            let connection = try ConfigConnection(endpoints: endpoints, timeLimit: timeout)
            state.connection = connection
            return connection
        }
    }

    private static var closed: QTasksError {
        QTasksError(.connectionLost, "the connection to the settings was closed")
    }

    private static func tooSlow(_ pattern: String) -> QTasksError {
        QTasksError(
            .overloaded,
            "a watcher of '\(pattern)' fell \(watcherBacklogMax) changes behind: watch again, "
                + "which begins with what is set then"
        )
    }
}
