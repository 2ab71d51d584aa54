// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import Logging
package import QTasksModel
package import QTasksProcess

/// The process that keeps the settings of a whole system.
package enum GlobalConfigRole {
    /// Does all that the process is for, on the calling thread.
    ///
    /// - Parameters:
    ///   - home: As the Starter prepared it.
    ///   - config: For the level of the log.
    ///   - handover: As it was taken from the environment.
    /// - Returns: The exit code: 0 after the parent's stop, 78 where another try would fail again,
    ///   74 for a disk that failed.
    package static func run(
        home: HomeDirectory,
        config: QueueConfig,
        handover: RoleHandover
    ) -> Int32 {
        ParentGuard.arm(expectedParent: handover.parent)
        Signals.ignoreTerminalSignals()
        _ = clinux_set_name("qtasks-config")
        let logger = RoleLogging.bootstrap(component: "globalconfig", level: config.logLevel)
        do throws(GlobalConfigError) {
            try serve(home, config, handover, logger)
            return 0
        } catch {
            logger.critical(
                "GlobalConfig ends",
                metadata: ["event": "failed", "reason": "\(error)", "code": "\(error.exitCode)"]
            )
            return error.exitCode
        }
    }

    private static func serve(
        _ home: HomeDirectory,
        _ config: QueueConfig,
        _ handover: RoleHandover,
        _ logger: Logger
    ) throws(GlobalConfigError) {
        let lock = try lock(home.configPath, handover.runID)
        let settings = GlobalConfigLoop.Settings(
            endpoints: ConfigEndpoints(home),
            directory: home.configPath,
            parent: handover.parent,
            logLevel: config.logLevel
        )
        try GlobalConfigLoop(settings, logger: logger).run()
        // libzmq leaves the files. Still under the lock: a successor's would be gone otherwise.
        home.removeSocket(.config)
        home.removeSocket(.configUpdates)
        withExtendedLifetime(lock) {}
    }

    /// The log's own lock doesn't wait for a predecessor that is about to end, nor for a slow disk
    /// that holds it up; this one does, and makes an end of it.
    private static func lock(
        _ folder: String,
        _ runID: String
    ) throws(GlobalConfigError) -> LockFile {
        do throws(ProcessError) {
            guard mkdir(folder, 0o700) == 0 || errno == EEXIST else {
                throw .system(call: "mkdir", subject: folder, code: errno)
            }
            return try LockFile.acquire(at: folder + "/process.lock", runID: runID)
        } catch {
            throw .process(error)
        }
    }
}

extension ConfigEndpoints {
    /// Those of the system that lives there.
    package init(_ home: HomeDirectory) {
        self.init(
            requests: home.endpoint(.config),
            updates: home.endpoint(.configUpdates)
        )
    }
}
