// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import Logging
import QTasksGlobalConfig
package import QTasksModel
package import QTasksProcess

/// What the process does that the Starter starts as the Broker.
package enum BrokerRole {
    /// Blocks the calling thread until the Broker ends; that thread starts Storage, so it must live as
    /// long as the process.
    ///
    /// - Returns: The exit code: 0 after a stop in order, 78 where it would fail again.
    package static func run(_ handover: RoleHandover, home: HomeDirectory, config: QueueConfig)
        -> Int32
    {
        let logger = RoleLogging.bootstrap(component: "broker", level: config.logLevel)
        clinux_set_awaited(1, 1)
        do {
            // held to the end: a second Broker would take the sockets' paths over (H11)
            let lock = try LockFile.acquire(
                at: home.brokerLockPath,
                runID: handover.runID,
                isHomeOurs: true
            )
            defer { extendLifetime(lock) }
            let settings = BrokerState.Settings(
                config: config,
                pid: getpid(),
                parentPid: getppid(),
                home: home.path
            )
            let loop = try BrokerLoop(
                settings: settings,
                home: home,
                handover: handover,
                logger: logger
            )
            return try loop.run()
        } catch ProcessError.homeInUse(let path, let pid) {
            logger.error(
                "the Broker of an earlier run has not ended yet",
                metadata: [
                    "event": "failed", "lock": "\(path)",
                    "holder": "\(pid.map(String.init) ?? "?")",
                ]
            )
            return 75  // EX_TEMPFAIL: it is tried again
        } catch let error as ProcessError {
            logger.critical(
                "the Broker can't start",
                metadata: ["event": "failed", "error": "\(error)"]
            )
            return 78
        } catch {
            logger.critical(
                "the Broker can't go on",
                metadata: ["event": "failed", "error": "\(error)"]
            )
            return 70
        }
    }
}
