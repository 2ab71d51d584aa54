// Part of QTasks. License: see LICENSE.

import AppendLog
import CLinux
import Glibc
package import Logging
package import QTasksModel
package import QTasksProcess
import QTasksWire
import ZeroMQ

/// The role of a worker process.
package enum WorkerRole {
    /// Exit codes besides 0, as `sysexits.h` has them.
    package enum ExitCode {
        /// There is no home to connect to.
        package static let noSystem: Int32 = 69
        /// libzmq or Linux refused what no worker can do without.
        package static let osError: Int32 = 71
    }

    /// Works until it is told to leave (SIGTERM, or the Broker's RETIRE) and has finished what
    /// runs.
    ///
    /// Blocks the calling thread.
    ///
    /// - Parameters:
    ///   - registry: What it can run.
    ///   - executor: What executes it.
    ///   - home: Where the system lives whose tasks it runs.
    ///   - config: Of which it takes the slots.
    ///   - parent: The pid of the Starter that started it: it dies with that. `nil`: started by
    ///     hand; then SIGINT, too, tells it to leave.
    ///   - logger: Where lines go, the handlers' own included.
    ///   - wiring: Called once before work begins, with the way into the worker's loop; for a
    ///     subscription to the settings, say. What it returns is kept until the role ends.
    /// - Returns: The exit code: 0, or one of ``ExitCode``.
    package static func run(
        registry: TaskRegistry,
        executor: some TaskExecutor = DefaultTaskExecutor(),
        home: HomeDirectory,
        config: QueueConfig,
        parent: Int32?,
        logger: Logger,
        wiring: (WorkerInbox) -> (any Sendable)? = { _ in nil }
    ) -> Int32 {
        if let parent { ParentGuard.arm(expectedParent: parent) }
        // Nothing is ignored or blocked: what a handler starts would inherit it.
        Limits.disableCoreDumps()
        _ = clinux_set_name("qtasks-worker")
        do throws(ProcessError) {
            try home.checkSockets()
            let signals = try SignalDescriptor(parent == nil ? [SIGTERM, SIGINT] : [SIGTERM])
            // A terminal signals everybody, but the Starter alone begins a stop: caught and never
            // read.
            let unheeded = try SignalDescriptor(parent == nil ? [] : [SIGINT, SIGHUP])
            defer { extendLifetime(unheeded) }
            return work(
                registry,
                executor,
                home: home,
                slots: config.slots,
                parent: parent ?? getppid(),
                signals: signals,
                logger: logger,
                wiring: wiring
            )
        } catch {
            logger.error("the worker can't start: \(error)")
            return ExitCode.noSystem
        }
    }

    private static func work(
        _ registry: TaskRegistry,
        _ executor: some TaskExecutor,
        home: HomeDirectory,
        slots: Int,
        parent: Int32,
        signals: borrowing SignalDescriptor,
        logger: Logger,
        wiring: (WorkerInbox) -> (any Sendable)?
    ) -> Int32 {
        let identity = identity(parent: parent)
        var logger = logger
        logger[metadataKey: "component"] = "worker"
        logger[metadataKey: "worker"] = .string(identity.worker.description)
        do throws(ZeroMQError) {
            let inbox = try WorkerInbox()
            // the loop and libzmq's thread, not what executes tasks
            clinux_set_awaited(1, 1)
            var loop = try WorkerLoop(
                identity: identity,
                registry: registry,
                executor: executor,
                slots: slots,
                endpoints: .init(
                    broker: home.endpoint(.workers),
                    storage: home.endpoint(.results)
                ),
                store: LogRecords(home.storePath),
                inbox: inbox,
                signals: signals.descriptor,
                context: try Context(),
                logger: logger
            )
            clinux_set_awaited(1, 0)
            logger.info(
                "worker started",
                metadata: [
                    "slots": .stringConvertible(slots),
                    "tasks": .stringConvertible(registry.handlers.count),
                ]
            )
            let wired = wiring(inbox)
            try loop.run()
            withExtendedLifetime(wired) {}
            logger.info("worker ended")
            return 0
        } catch {
            logger.critical("the worker can't go on: \(error)")
            return ExitCode.osError
        }
    }

    /// Who this process is, for `HELLO`.
    package static func identity(parent: Int32) -> WorkerState.Identity {
        let process = ProcessIdentity.current
        let boot = BootID.current
        return WorkerState.Identity(
            worker: WorkerID(),
            process: WorkerProcess(
                pid: process.pid,
                startTime: process.startTime,
                bootID: TaskID(high: boot.high, low: boot.low)
            ),
            parentPid: parent
        )
    }
}
