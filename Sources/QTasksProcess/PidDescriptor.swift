// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc

/// A handle of one process that no later process inherits with its number.
///
/// See `pidfd_open(2)`.
///
/// Any thread. Closed with its last reference: take it out of a poll set before.
package final class PidDescriptor: Sendable {
    /// Readable from the end of the process on, waited for or not.
    ///
    /// For `poll(2)` and `epoll(7)`.
    package let descriptor: Int32

    /// Takes the descriptor over.
    init(owning descriptor: Int32) {
        self.descriptor = descriptor
    }

    deinit {
        close(descriptor)
    }

    /// A handle of that very process.
    ///
    /// - Returns: `nil` where it is gone, or its number went to another one.
    /// - Throws: `EPERM` or `ENOSYS` where a sandbox forbids the call, `EMFILE`.
    package static func open(_ identity: ProcessIdentity) throws(ProcessError) -> PidDescriptor? {
        guard let descriptor = try open(pid: identity.pid),
            // In this order: what /proc says after opening, of a process that hasn't been waited
            // for, is about the process that was opened.
            ProcessIdentity.of(pid: identity.pid) == identity
        else { return nil }
        return descriptor
    }

    /// A handle of whichever process has `pid`, which must not be free to change: a child that is
    /// not waited for, or a number that is checked afterwards.
    static func open(pid: Int32) throws(ProcessError) -> PidDescriptor? {
        guard pid > 0 else { return nil }
        let descriptor = clinux_pidfd_open(pid)
        if descriptor >= 0 { return PidDescriptor(owning: descriptor) }
        guard errno == ESRCH else { throw .last("pidfd_open", "process \(pid)") }
        return nil
    }

    /// Whether the process has ended.
    package var hasEnded: Bool {
        Polling.isReadable(descriptor, withinMilliseconds: 0)
    }

    /// Sends `signal` to that process, and to no other.
    ///
    /// - Returns: `false` where it has been waited for already, or may not be signalled.
    @discardableResult
    package func kill(_ signal: Int32 = SIGKILL) -> Bool {
        clinux_pidfd_send_signal(descriptor, signal) == 0
    }
}
