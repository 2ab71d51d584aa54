// Part of QTasks. License: see LICENSE.

import Glibc
import Logging
import QTasksGlobalConfig
package import QTasksModel
package import QTasksProcess

/// What the process does that the user starts with `run`.
package enum StarterRole {
    /// Takes the home, starts the system in it, and returns when it has stopped.
    ///
    /// Blocks the calling thread, which must live as long as the process.
    ///
    /// - Parameters:
    ///   - home: Where the system lives; made where there is none.
    ///   - config: How it is set up.
    ///   - workers: Worker processes where the settings don't say.
    ///   - endsWhenIdle: It stops by itself once nothing is queued, scheduled or running.
    ///   - onReady: Called once, when the system serves.
    /// - Returns: The exit code: 0 after a stop, 75 where the home is in use, 78 where it would fail again.
    package static func run(
        home: HomeDirectory,
        config: QueueConfig,
        workers: Int,
        endsWhenIdle: Bool = false,
        onReady: (@Sendable () -> Void)? = nil
    ) -> Int32 {
        let logger = RoleLogging.bootstrap(component: "starter", level: config.logLevel)
        do {
            var home = home
            try home.prepare()
            let runID = RunID.make()
            // before anything binds: an ipc bind takes a path over without asking (H11)
            let lock = try LockFile.acquire(at: home.lockPath, runID: runID)
            home.removeSockets()
            _ = Limits.raiseOpenFiles()
            try Strangers.adopt()
            let loop = try StarterLoop(
                home: home,
                config: config,
                workers: workers,
                runID: runID,
                endsWhenIdle: endsWhenIdle,
                logger: logger,
                onReady: onReady
            )
            let code = try loop.run()
            home.cleanUp()
            logger.info("stopped", metadata: ["event": "stopped", "home": "\(home.path)"])
            extendLifetime(lock)
            return code
        } catch ProcessError.homeInUse(let path, let pid) {
            let holder = pid.map { "process \($0)" } ?? "another process"
            logger.critical(
                "a system runs in this home already: stop it, or give --home another folder",
                metadata: [
                    "event": "refused", "home": "\(home.path)", "lock": "\(path)",
                    "holder": "\(holder)",
                ]
            )
            return 75
        } catch {
            logger.critical("can't start", metadata: ["event": "failed", "error": "\(error)"])
            return 78
        }
    }
}
