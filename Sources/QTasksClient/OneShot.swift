// Part of QTasks. License: see LICENSE.

import Glibc
import Synchronization

/// A value that one thread hands to another, which sleeps until it is there.
package final class OneShot<Value: Sendable>: Sendable {
    private let value = Mutex<Value?>(nil)
    // Used through sem_wait(3) and sem_post(3) alone, which any thread may call.
    private nonisolated(unsafe) let semaphore: UnsafeMutablePointer<sem_t>

    package init() {
        semaphore = .allocate(capacity: 1)
        sem_init(semaphore, 0, 0)
    }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    /// Sets it and wakes who waits; once.
    package func set(_ value: Value) {
        self.value.withLock { $0 = value }
        sem_post(semaphore)
    }

    /// Blocks the calling thread; once.
    package func wait() -> Value {
        while true {
            // EINTR: a signal came first, and sem_wait(3) leaves it to us to ask again
            while sem_wait(semaphore) != 0 {}
            if let value = value.withLock({ $0 }) { return value }
        }
    }
}
