// Part of QTasks. License: see LICENSE.

import Glibc
package import QTasksModel
package import QTasksProcess

/// What becomes a worker of another language (`--worker-command`).
///
/// A process of this executable arms ``ParentGuard``, which outlives `execve(2)`, and then turns into
/// the command: `posix_spawn(3)` has no room for such preparations between its two halves.
package enum WorkerLauncher {
    /// The role's name in a handover.
    package static let role = "launch"

    /// Becomes the command.
    ///
    /// The caller has armed ``ParentGuard``. Main thread.
    ///
    /// - Parameters:
    ///   - home: What the command finds in QTASKS_HOME.
    ///   - config: Whose ``QueueConfig/workerCommand`` it becomes.
    /// - Returns: Only where it couldn't: 78 where there is no command, 71 where there is no shell.
    package static func run(home: HomeDirectory, config: QueueConfig) -> Int32 {
        guard let command = config.workerCommand else {
            complain("there is no command to become")
            return ExitReport.codeOfPermanentFailure
        }
        // what a handler was set for is at its default after execve(2), what is ignored stays so
        signal(SIGPIPE, SIG_DFL)
        Limits.disableCoreDumps()
        config.workerRules.takeEffect()
        setenv("QTASKS_HOME", home.path, 1)
        execute("/bin/sh", ["sh", "-c", "exec " + command])
        complain("/bin/sh can't be started: \(String(cString: strerror(errno)))")
        return 71  // EX_OSERR
    }

    /// Returns only where it fails.
    private static func execute(_ path: String, _ arguments: [String]) {
        var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
        pointers.append(nil)
        execv(path, pointers)
        for pointer in pointers { free(pointer) }
    }

    private static func complain(_ text: String) {
        let line = Array("worker: \(text)\n".utf8)
        _ = write(STDERR_FILENO, line, line.count)
    }
}

extension WorkerRules {
    /// Limits this process, and whatever it becomes.
    package func takeEffect() {
        if let addressSpace { Limits.set(.addressSpace, to: UInt64(addressSpace)) }
        // time for whoever catches SIGXCPU
        if let cpuSeconds { Limits.set(.cpuSeconds, to: UInt64(cpuSeconds), slack: 5) }
        if let openFiles { Limits.set(.openFiles, to: UInt64(openFiles)) }
        if let niceness { Limits.beNice(Int32(niceness)) }
    }
}
