// Part of QTasks. License: see LICENSE.

import AppendLog
import CLinux
import Glibc
import Logging
import QTasksGlobalConfig
package import QTasksModel
package import QTasksProcess
import ZeroMQ

/// What the process does that the Broker starts as Storage.
package enum StorageRole {
    /// `EX_IOERR` of `sysexits.h`: the disk failed.
    static let codeOfDiskFailure: Int32 = 74

    /// Blocks the calling thread until Storage ends; that thread starts GlobalConfig, so it must live as
    /// long as the process.
    ///
    /// - Returns: The exit code: 0 after a stop in order, 74 where the disk failed, 78 where it would
    ///   fail again.
    package static func run(
        _ handover: RoleHandover,
        home: HomeDirectory,
        config: QueueConfig
    ) -> Int32 {
        ParentGuard.arm(expectedParent: handover.parent)
        Signals.ignoreTerminalSignals()
        _ = clinux_set_name("qtasks-storage")
        clinux_set_awaited(1, 1)
        Limits.raiseOpenFiles()
        let logger = RoleLogging.bootstrap(component: "storage", level: config.logLevel)
        do {
            // held to the end: a second Storage would take the sockets' paths over (H11)
            let lock = try LockFile.acquire(
                at: home.path + "/storage.lock",
                runID: handover.runID,
                isHomeOurs: true
            )
            defer { extendLifetime(lock) }
            let loop = try StorageLoop(
                home: home,
                config: config,
                handover: handover,
                logger: logger
            )
            let code = try loop.run()
            // libzmq leaves the files; still under the lock, a successor's would be gone otherwise
            home.removeSocket(.storage)
            home.removeSocket(.results)
            return code
        } catch {
            let metadata: Logger.Metadata = ["event": "failed", "error": "\(error)"]
            logger.critical("Storage can't go on", metadata: metadata)
            return exitCode(for: error)
        }
    }

    /// Whether starting again could help.
    static func exitCode(for error: any Error) -> Int32 {
        switch error {
        case let error as AppendLogError:
            switch error {
            case .newerFormat, .unknownKind, .notAStore, .metaUnreadable, .unsuitableFileSystem:
                ExitReport.codeOfPermanentFailure
            case .system, .corrupt, .outOfSpace, .payloadTooLarge, .locked: codeOfDiskFailure
            }
        // one of an earlier run that has not ended yet (EX_TEMPFAIL)
        case ProcessError.homeInUse: 75
        case is ProcessError: ExitReport.codeOfPermanentFailure
        default: 70  // EX_SOFTWARE
        }
    }
}
