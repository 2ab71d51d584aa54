// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import Synchronization

/// A wait for `flock(2)` that can end without the lock: the kernel has no flock with a time limit,
/// and asking again and again would be polling.
///
/// So a thread blocks in it.
final class LockWait: Sendable {
    private enum State {
        case waiting
        case granted
        case failed
        /// The waiter went away: the thread closes the descriptor, and with it the lock, if it gets
        /// it.
        case givenUp
    }

    private let descriptor: Int32
    private let ended: Int32
    private let state = Mutex(State.waiting)

    private init(descriptor: Int32, ended: Int32) {
        self.descriptor = descriptor
        self.ended = ended
    }

    deinit {
        close(ended)
    }

    /// Starts to wait for the lock on `descriptor`, which stays the caller's until it gives up.
    ///
    /// - Throws: `EMFILE`, `EAGAIN`: no descriptor or thread to be had; `descriptor` is closed
    ///   then.
    static func begin(owning descriptor: Int32) throws(ProcessError) -> LockWait {
        let ended = eventfd(0, Int32(EFD_CLOEXEC))
        guard ended >= 0 else {
            let error = ProcessError.last("eventfd", "lock")
            close(descriptor)
            throw error
        }
        let wait = LockWait(descriptor: descriptor, ended: ended)
        do throws(ProcessError) {
            try RoleThread.run("qtasks-lock") { wait.block() }
        } catch {
            close(descriptor)
            throw error
        }
        return wait
    }

    /// Waits until the lock is there, or the time is up.
    func isGranted(withinMilliseconds limit: Int32) -> Bool {
        guard Polling.isReadable(ended, withinMilliseconds: limit) else { return false }
        return state.withLock { $0 == .granted }
    }

    /// Ends the wait.
    ///
    /// - Returns: `true` where the descriptor is gone now or will be; `false` where the lock has
    ///   come in the last moment and is held.
    func giveUp() -> Bool {
        let former = state.withLock { state in
            let former = state
            if former == .waiting { state = .givenUp }
            return former
        }
        if former == .failed { close(descriptor) }
        return former != .granted
    }

    private func block() {
        var result = flock(descriptor, LOCK_EX)
        while result != 0, errno == EINTR { result = flock(descriptor, LOCK_EX) }
        let isGivenUp = state.withLock { state in
            guard state == .waiting else { return true }
            state = result == 0 ? .granted : .failed
            return false
        }
        if isGivenUp {
            LockFile.release(descriptor)
        } else {
            _ = eventfd_write(ended, 1)  // can't fail: written once
        }
    }
}
