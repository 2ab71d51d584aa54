// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import Synchronization

/// Wakes the thread that owns a ``PollLoop`` from any other thread.
///
/// See `eventfd(2)`.
///
/// The ringer puts what it has into a place that both share, then rings. The owner clears, then
/// empties that place. Nothing that was put there before a ring is left lying.
public final class Doorbell: Sendable {
    /// What the loop watches: readable from a ring until it is cleared.
    ///
    /// Closed with the doorbell.
    public let descriptor: Int32

    // True from the ring that wrote until the owner cleared: further rings need no system call.
    private let isRung = Atomic<Bool>(false)

    /// - Throws: `EMFILE` where the process has no descriptor left. See `eventfd(2)`.
    public init() throws(ZeroMQError) {
        descriptor = try check("eventfd") { eventfd(0, Int32(EFD_NONBLOCK) | Int32(EFD_CLOEXEC)) }
    }

    deinit {
        close(descriptor)
    }

    /// Wakes the owner, or does nothing where it is about to wake.
    ///
    /// Any thread.
    ///
    /// - Returns: `false` where it can't be heard: somebody has closed ``descriptor``.
    @discardableResult
    public func ring() -> Bool {
        guard !isRung.exchange(true, ordering: .acquiringAndReleasing) else { return true }
        // else it cannot fail: the counter has room for 2^64 - 2 rings
        return eventfd_write(descriptor, 1) == 0
    }

    /// Makes the next ring count again.
    ///
    /// The owner only, and before it looks for what was rung for.
    public func clear() {
        // In this order: a ring between the two finds the flag still set and is covered by the look
        // that follows. The other way round it would set the flag and then lose its count to the
        // read, and no later ring would write again.
        var rings: eventfd_t = 0
        _ = eventfd_read(descriptor, &rings)
        // An exchange, not a store: it takes over what the ringer wrote before it rang.
        _ = isRung.exchange(false, ordering: .acquiringAndReleasing)
    }
}
