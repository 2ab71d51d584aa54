// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import Logging
import QTasksBroker
import QTasksGlobalConfig
import QTasksModel
import QTasksProcess
import QTasksStarter
import QTasksStorage
import QTasksWorker

/// One process of a system, from its first lines on.
enum RoleMain {
    /// Takes the role that the parent gave this process.
    ///
    /// A worker's loop gets a thread of its own, so that handlers may use the main actor. All others run
    /// right here: the main thread lives as long as the process, which the kernel ties children to (H13),
    /// and nothing of Swift's concurrency is woken up.
    ///
    /// - Returns: The exit code.
    @MainActor
    static func run(_ handover: RoleHandover, app: QueueTasks) async -> Int32 {
        ParentGuard.arm(expectedParent: handover.parent)
        Signals.inheritNothing()
        do {
            let config = try QueueConfig(handedOver: handover.settings)
            let home = try HomeDirectory(handover.settings["home"] ?? "")
            // a handler that adds tasks adds them to the system it runs in
            app.use(home: home.path)
            let registry = app.registry
            let executor = app.executor
            if handover.role == WorkerLauncher.role {
                return WorkerLauncher.run(home: home, config: config)
            }
            let name = processName(handover.role)
            _ = clinux_set_name(name)
            guard handover.role == "worker" else {
                return run(handover, home, config, registry, executor)
            }
            // before there is another thread: niceness is each thread's own
            config.workerRules.takeEffect()
            return try await runServingMain(name: name) {
                run(handover, home, config, registry, executor)
            }
        } catch {
            CommandOutput.complain("\(handover.role): \(error)")
            return ExitReport.codeOfPermanentFailure
        }
    }

    /// Runs a worker's loop on a thread of its own and serves the main actor meanwhile.
    @MainActor
    static func runServingMain(
        name: String,
        _ body: @escaping @Sendable () -> Int32
    ) async throws -> Int32 {
        if let code = try RoleThread.runServingMain(name: name, body) { return code }
        return try await RoleThread.runToEnd(name: name, body).get()
    }

    private static func run(
        _ handover: RoleHandover,
        _ home: HomeDirectory,
        _ config: QueueConfig,
        _ registry: TaskRegistry,
        _ executor: any TaskExecutor
    ) -> Int32 {
        switch handover.role {
        case "starter":
            // a system of another program's, see QueueTasks.withTemporarySystem
            Signals.ignoreBrokenPipes()
            return StarterRole.run(
                home: home,
                config: config,
                workers: config.workerCount(hasTasks: !registry.handlers.isEmpty)
            )
        case "broker":
            Signals.ignoreTerminalSignals()
            return BrokerRole.run(handover, home: home, config: config)
        case "storage":
            return StorageRole.run(handover, home: home, config: config)
        case "globalconfig":
            return GlobalConfigRole.run(home: home, config: config, handover: handover)
        case "worker":
            return runWorker(
                registry,
                executor,
                home: home,
                config: config,
                parent: handover.parent
            )
        default:
            CommandOutput.complain("there is no role '\(handover.role)'")
            return ExitReport.codeOfPermanentFailure
        }
    }

    /// Runs a worker with the settings that can change while it runs.
    ///
    /// Blocks the calling thread.
    ///
    /// - Parameters:
    ///   - registry: What it can run.
    ///   - executor: What executes it.
    ///   - home: Where the system lives.
    ///   - config: Of which it takes the slots and the level of the log.
    ///   - parent: The Starter's pid; `nil` for one that was started by hand.
    /// - Returns: The exit code.
    static func runWorker(
        _ registry: TaskRegistry,
        _ executor: any TaskExecutor,
        home: HomeDirectory,
        config: QueueConfig,
        parent: Int32?
    ) -> Int32 {
        WorkerRole.run(
            registry: registry,
            executor: executor,
            home: home,
            config: config,
            parent: parent,
            logger: RoleLogging.bootstrap(component: "worker", level: config.logLevel)
        ) { inbox in
            WorkerSettings(inbox, ConfigEndpoints(home), config)
        }
    }

    /// What `ps` shows; the kernel keeps 15 bytes.
    private static func processName(_ role: String) -> String {
        role == "globalconfig" ? "qtasks-config" : "qtasks-\(role)"
    }
}

/// Hands live settings on to a worker's loop, for as long as it is kept.
private final class WorkerSettings: Sendable {
    private let connection: ConfigConnection?

    init(_ inbox: WorkerInbox, _ endpoints: ConfigEndpoints, _ config: QueueConfig) {
        connection = try? ConfigConnection(endpoints: endpoints)
        guard let changes = connection?.watch("*") else { return }
        // a thread that sleeps, not Swift's pool: an idle worker stays idle (P8)
        Task.detached(executorPreference: HandlerThreads(limit: 1)) {
            for await change in changes {
                switch change.key {
                case ConfigKey.workerSlots:
                    inbox.put(.setSlots(change.text.flatMap { Int($0) } ?? config.slots))
                case ConfigKey.logLevel:
                    RoleLogging.follow(change, initial: config.logLevel)
                    inbox.put(.setLogLevel(RoleLogging.level))
                default: break
                }
            }
        }
    }

    deinit {
        connection?.close()
    }
}

extension QueueConfig {
    /// Worker processes: what was asked for, else one for each core where there is something to run.
    func workerCount(hasTasks: Bool) -> Int {
        if let workers { return workers }
        guard hasTasks || workerCommand != nil else { return 0 }
        return max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    }
}
