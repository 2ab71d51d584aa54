// Part of QTasks. License: see LICENSE.

import QTasksClient
public import QTasksModel
public import QTasksWorker
import Synchronization

/// A program's tasks: registers them, adds them, gets their results.
///
/// ```swift
/// let app = QueueTasks("thumbnails")
/// let thumbnail = app.task("thumbnail", retry: .exponential(maxAttempts: 5)) {
///     (input: ThumbnailInput, context: TaskContext) async throws -> Thumbnail in
///     ...
/// }
/// let result = try await thumbnail.addTask(ThumbnailInput(path: "cat.png")).result()
/// ```
///
/// Making one does nothing yet: the connection begins with the first call that needs it.
public final class QueueTasks: Sendable {
    /// How long an add is tried where nothing else is said.
    public static let addTimeout: Duration = .seconds(30)

    /// What the application is called.
    public let name: String

    /// How the system is set up where this program runs it.
    public let config: QueueConfig

    private struct State {
        var home: String
        var waitsForSystem: Bool
        var registry = TaskRegistry()
        var defaults: [String: TaskDefaults] = [:]
        var middlewares: [any TaskMiddleware] = []
        var executor: any TaskExecutor = DefaultTaskExecutor()
        var broker: (any Broker)?
        var globalConfig: (any GlobalConfig)?

        mutating func takeConnections() -> Connections {
            Connections(broker: broker.take(), globalConfig: globalConfig.take())
        }
    }

    /// What is closed together.
    private struct Connections {
        var broker: (any Broker)?
        var globalConfig: (any GlobalConfig)?

        func close() {
            (broker as? ZeroMQBroker)?.close()
            (globalConfig as? ZeroMQGlobalConfig)?.close()
        }
    }

    private let state: Mutex<State>

    /// - Parameters:
    ///   - name: What the application is called.
    ///   - home: Where the system lives; `nil`: in `$QTASKS_HOME`, or else in `.qtasks` in the
    ///     working directory.
    ///   - config: For the case that this program runs the system.
    ///   - waitForSystem: Whether calls wait for a system that isn't running yet; else they fail at
    ///     once with ``QTasksError/Code/noSystem``.
    public init(
        _ name: String,
        home: String? = nil,
        config: QueueConfig = .init(),
        waitForSystem: Bool = false
    ) {
        self.name = name
        self.config = config
        let home = home ?? QueueConfig.environmentVariable("QTASKS_HOME") ?? ".qtasks"
        state = Mutex(State(home: home, waitsForSystem: waitForSystem))
    }

    /// Where the system lives, as it was given.
    public var home: String { state.withLock { $0.home } }

    /// Has what follows go to the system in another home; what is under way with the former one
    /// fails.
    public func use(home: String) {
        let former = state.withLock { state in
            state.home = home
            return state.takeConnections()
        }
        former.close()
    }

    /// Has what follows go to this Broker instead of the one in ``home``.
    public func use(broker: some Broker) {
        let former = state.withLock { state in
            defer { state.broker = broker }
            return state.broker
        }
        (former as? ZeroMQBroker)?.close()
    }

    /// Has ``globalConfig`` be this one instead of the one in ``home``.
    public func use(globalConfig: some GlobalConfig) {
        let former = state.withLock { state in
            defer { state.globalConfig = globalConfig }
            return state.globalConfig
        }
        (former as? ZeroMQGlobalConfig)?.close()
    }

    /// Has workers of this program run tasks with `executor`.
    public func use(executor: some TaskExecutor) {
        state.withLock { $0.executor = executor }
    }

    /// Runs `middleware` around every attempt of every task of this program, inside of those that
    /// were added before and around each task's own.
    public func addMiddleware(_ middleware: some TaskMiddleware) {
        state.withLock { $0.middlewares.append(middleware) }
    }

    /// Ends the connection; it begins anew with the next call.
    ///
    /// Blocks for a few milliseconds.
    public func close() {
        state.withLock { $0.takeConnections() }.close()
    }

    /// The tasks that workers of this program can run, with all their middlewares.
    package var registry: TaskRegistry {
        let (own, shared) = state.withLock { ($0.registry, $0.middlewares) }
        var registry = TaskRegistry()
        for var handler in own.handlers {
            handler.middlewares = shared + handler.middlewares
            do throws(QTasksError) {
                try registry.register(handler)
            } catch {
                preconditionFailure("it was registered before: \(error)")
            }
        }
        return registry
    }

    /// What workers of this program run tasks with.
    package var executor: any TaskExecutor { state.withLock { $0.executor } }

    /// Where calls go; made at the first one.
    ///
    /// - Throws: ``QTasksError/Code/badHome``.
    package func connectedBroker() throws(QTasksError) -> any Broker {
        try state.withLock { state throws(QTasksError) in
            if let broker = state.broker { return broker }
            let address = try BrokerAddress.home(state.home, waitForSystem: state.waitsForSystem)
            let broker = ZeroMQBroker(ClientConnection(to: address))
            state.broker = broker
            return broker
        }
    }

    /// The system's settings as they are now, for programs and for handlers:
    /// `try await app.globalConfig.get("thumbnail.quality")`.
    ///
    /// Its connection begins with the first call that needs it.
    ///
    /// - Throws: ``QTasksError/Code/badHome`` where ``home`` can't be a home directory.
    public var globalConfig: any GlobalConfig {
        get throws(QTasksError) {
            try state.withLock { state throws(QTasksError) in
                if let globalConfig = state.globalConfig { return globalConfig }
                let made = try ZeroMQGlobalConfig(
                    home: state.home,
                    waitForSystem: state.waitsForSystem
                )
                state.globalConfig = made
                return made
            }
        }
    }

    /// - Precondition: The name is well formed and new: two tasks of one name are the program's
    ///   bug.
    func register(_ handler: TaskHandler, _ defaults: TaskDefaults) {
        var handler = handler
        // all of them are made by TaskDefinition, which decodes arguments where they lie
        handler.takesPlaced = true
        state.withLock { [handler] state in
            do throws(QTasksError) {
                try state.registry.register(handler)
            } catch {
                preconditionFailure(error.message)
            }
            state.defaults[handler.name] = defaults
        }
    }

    func defaults(of name: String) -> TaskDefaults? {
        state.withLock { $0.defaults[name] }
    }
}

// MARK: - Looking

extension QueueTasks {
    /// What is known of a task now; `nil` where there is none of that ID, or no longer.
    ///
    /// - Throws: ``QTasksError``, such as ``QTasksError/Code/noSystem``; `CancellationError`.
    public func get(_ id: TaskID, timeout: Duration? = .seconds(30)) async throws -> TaskRecord? {
        try await connectedBroker().get(id, timeout: timeout)
    }

    /// Returns if the system answers.
    ///
    /// - Throws: ``QTasksError/Code/brokerUnreachable``, ``QTasksError/Code/noSystem``,
    ///   ``QTasksError/Code/storageUnavailable``; `CancellationError`.
    public func ping(timeout: Duration? = .seconds(1)) async throws {
        try await connectedBroker().ping(timeout: timeout)
    }

    /// Has whatever can go out of the log on disk removed, also where history would keep it, and
    /// returns when that is over.
    ///
    /// - Throws: ``QTasksError``, ``QTasksError/Code/damaged`` where the log can't be read;
    ///   `CancellationError`.
    public func compactLog(timeout: Duration? = nil) async throws -> LogCompaction {
        try await connectedBroker().compactLog(timeout: timeout)
    }

    /// Has every worker of the running system replaced by a new one of the program that is at its
    /// executable's path now, one by one and without a gap; returns when that is over.
    ///
    /// - Throws: ``QTasksError``, ``QTasksError/Code/badConfiguration`` where a new worker didn't come
    ///   up: those that are left then work on; `CancellationError`.
    public func restartWorkers(timeout: Duration? = nil) async throws {
        try await connectedBroker().restartWorkers(timeout: timeout)
    }

    /// The state of the system as JSON; topics are `app`, `tasks`, `workers` and `queues`.
    ///
    /// - Throws: ``QTasksError``; `CancellationError`.
    public func inspect(
        _ topic: String,
        timeout: Duration? = .seconds(30)
    ) async throws -> [UInt8] {
        try await connectedBroker().inspect(topic, timeout: timeout)
    }
}
