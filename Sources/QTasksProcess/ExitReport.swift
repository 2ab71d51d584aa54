// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc

/// How a process ended and what it used, as `wait4(2)` tells its parent, once.
package struct ExitReport: Sendable, Equatable {
    package enum Cause: Sendable, Equatable {
        /// It called `exit`, with this code of 0 to 255.
        case exited(code: Int32)
        /// This signal ended it.
        case signaled(number: Int32)
    }

    /// `EX_CONFIG` of `sysexits.h`: it would fail the same way again, so nobody restarts it.
    package static let codeOfPermanentFailure: Int32 = 78

    package let pid: Int32
    package let cause: Cause

    /// The most memory it had at one time.
    ///
    /// Of processes it waited for, the largest counts too.
    package let maxResidentBytes: UInt64

    /// Time on a CPU, by itself and by processes it waited for.
    package let userMicroseconds: UInt64
    package let systemMicroseconds: UInt64

    package init(
        pid: Int32,
        cause: Cause,
        maxResidentBytes: UInt64,
        userMicroseconds: UInt64,
        systemMicroseconds: UInt64
    ) {
        self.pid = pid
        self.cause = cause
        self.maxResidentBytes = maxResidentBytes
        self.userMicroseconds = userMicroseconds
        self.systemMicroseconds = systemMicroseconds
    }

    /// Waits for a child that has ended, which frees its pid.
    ///
    /// - Returns: `nil` where it hasn't ended, or isn't this process's child.
    static func collect(pid: Int32) -> ExitReport? {
        var status: Int32 = 0
        var usage = rusage()
        guard clinux_wait4(pid, &status, WNOHANG, &usage) == pid else { return nil }
        return ExitReport(pid: pid, status: status, usage: usage)
    }

    private init(pid: Int32, status: Int32, usage: rusage) {
        self.init(
            pid: pid,
            cause: clinux_signaled(status) != 0
                ? .signaled(number: clinux_term_signal(status))
                : .exited(code: clinux_exit_code(status)),
            maxResidentBytes: UInt64(usage.ru_maxrss) * 1024,  // getrusage(2): in kilobytes
            userMicroseconds: Self.microseconds(usage.ru_utime),
            systemMicroseconds: Self.microseconds(usage.ru_stime)
        )
    }

    private static func microseconds(_ time: timeval) -> UInt64 {
        UInt64(time.tv_sec) * 1_000_000 + UInt64(time.tv_usec)
    }
}

extension ExitReport: CustomStringConvertible {
    /// Such as `exit code 78` or `killed by SIGKILL`.
    package var description: String { "\(cause)" }
}

extension ExitReport.Cause: CustomStringConvertible {
    package var description: String {
        switch self {
        case .exited(let code): "exit code \(code)"
        case .signaled(let number): "killed by \(SignalName.of(number))"
        }
    }
}
