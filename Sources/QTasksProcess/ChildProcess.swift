// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc

/// A process that this one started, leads a process group of its own, and is waited for here alone.
///
/// Belongs to the thread that started it, which must live as long as this process does where the
/// child arms ``ParentGuard``: the kernel ties that guard to the starting *thread*. So roles spawn
/// from their loop's thread (``RoleThread``), never from Swift's pool.
///
/// Dropping the last reference closes the descriptor and leaves the child alone.
package final class ChildProcess {
    /// The program this process was started from, also where its file was replaced since.
    package static let ownExecutable = "/proc/self/exe"

    package let pid: Int32

    private let handle: PidDescriptor
    private var report: ExitReport?

    /// Readable once the child has ended.
    ///
    /// For `poll(2)` and `epoll(7)`.
    package var pidfd: Int32 { handle.descriptor }

    private init(pid: Int32, handle: PidDescriptor) {
        self.pid = pid
        self.handle = handle
    }

    /// Starts a program with an empty signal mask, default dispositions, and no descriptors above
    /// 2.
    ///
    /// - Parameters:
    ///   - executable: Its path; PATH isn't searched.
    ///   - arguments: What follows the program's own name.
    ///   - environment: Set on top of what this process has.
    ///   - removed: Variables of this process that the child doesn't get.
    ///   - stdin: What becomes descriptor 0; -1 keeps this process's. Never 1 or 2.
    ///   - stdout: What becomes descriptor 1; -1 keeps this process's. Never 0.
    ///   - stderr: What becomes descriptor 2; -1 keeps this process's. Never 0.
    /// - Returns: The child, which runs.
    /// - Throws: The error of `posix_spawn(3)`, such as `ENOENT` or `E2BIG` (one string above
    ///   128 KiB); nothing runs then. That of `pidfd_open(2)`, such as `EMFILE`; the child has been
    ///   killed and waited for then.
    package static func spawn(
        executable: String = ownExecutable,
        arguments: [String] = [],
        environment: [String: String] = [:],
        removing removed: Set<String> = [],
        stdin: Int32 = -1,
        stdout: Int32 = -1,
        stderr: Int32 = -1
    ) throws(ProcessError) -> ChildProcess {
        // by a name in /proc a program is our own, in this build or a later one
        let isOwn = executable.hasPrefix("/proc/")
        let ownName = isOwn ? CommandLine.arguments.first : nil
        let argumentVector = CStringVector([ownName ?? executable] + arguments)
        let variables = CStringVector(environment: environment, removing: removed)
        var pid: pid_t = 0
        let code = clinux_spawn(
            &pid,
            executable,
            argumentVector.pointer,
            variables.pointer,
            stdin,
            stdout,
            stderr
        )
        guard code == 0 else {
            throw .system(call: "posix_spawn", subject: executable, code: code)
        }
        return ChildProcess(pid: pid, handle: try handle(ofNewChild: pid))
    }

    // No race: a pid isn't given to another process before its parent has waited for it.
    private static func handle(ofNewChild pid: Int32) throws(ProcessError) -> PidDescriptor {
        let descriptor = clinux_pidfd_open(pid)
        guard descriptor < 0 else { return PidDescriptor(owning: descriptor) }
        let error = ProcessError.last("pidfd_open", "process \(pid)")
        Glibc.kill(pid, SIGKILL)
        while clinux_wait4(pid, nil, 0, nil) < 0, errno == EINTR {}
        throw error
    }

    /// Sends `signal` to the child alone.
    ///
    /// - Returns: `false` where it has been reaped.
    @discardableResult
    package func kill(_ signal: Int32 = SIGKILL) -> Bool {
        handle.kill(signal)
    }

    /// Sends `signal` to the child and to everything it started that stayed in its group.
    ///
    /// - Returns: `false` where the child has been reaped: ``reap()`` killed what it had left.
    @discardableResult
    package func killGroup(_ signal: Int32 = SIGKILL) -> Bool {
        guard report == nil else { return false }
        return ProcessGroup.kill(pid, signal)
    }

    /// Waits for the child where it has ended, without blocking; kills what is left of its group
    /// first, while the unreaped child still holds the group's number.
    ///
    /// - Returns: `nil` while it lives; from then on the same report each time.
    package func reap() -> ExitReport? {
        if let report { return report }
        guard clinux_peek_child(pid) == pid else { return nil }
        ProcessGroup.kill(pid)
        report = ExitReport.collect(pid: pid)
        return report
    }
}
