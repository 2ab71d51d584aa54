// Part of QTasks. License: see LICENSE.

import Glibc
package import Logging
package import QTasksModel
import Synchronization
package import ZeroMQ

/// The way from any thread to a worker's loop: finished handlers, and orders from outside.
package final class WorkerInbox: Sendable {
    package enum Event: Sendable {
        /// A handler returned.
        case finished(AttemptEnd)
        /// Its arguments are not where the worker was told, or not as they were written.
        case unreadable(Lease)
        /// Run so many tasks at once from now on.
        case setSlots(Int)
        /// Log from this level on.
        case setLogLevel(Logger.Level)
        /// As if SIGTERM came.
        case leave
    }

    let bell: Doorbell
    private let events = Mutex<[Event]>([])

    /// - Throws: `EMFILE` where the process has no descriptor left.
    package init() throws(ZeroMQError) {
        bell = try Doorbell()
    }

    /// Any thread.
    ///
    /// After the loop's end it has no effect.
    package func put(_ event: Event) {
        let wasEmpty = events.withLock { events in
            events.append(event)
            return events.count == 1
        }
        // a task has closed its process's descriptors: nobody would ever hear of what runs in it
        if wasEmpty, !bell.ring() { _exit(70) }
    }

    /// Swaps what is there against an empty array.
    ///
    /// The loop's thread only.
    func takeAll(into emptied: inout [Event]) {
        bell.clear()
        events.withLock { swap(&$0, &emptied) }
    }
}
