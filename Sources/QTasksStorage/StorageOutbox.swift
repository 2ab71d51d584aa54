// Part of QTasks. License: see LICENSE.

package import QTasksModel

/// What a turn of Storage's core wants done outside.
package struct StorageOutbox {
    /// One line of the log at info or above.
    package struct Notice: Equatable {
        package var isWarning: Bool
        package var event: String
        package var message: String
    }

    /// One arrow of the diagrams, for `--log-level debug`.
    package struct Arrow: Equatable {
        package var event: String
        package var task: TaskID
        package var peer: String
    }

    /// Messages for the Broker of the current session, in this order.
    package var toBroker: [[UInt8]] = []
    package var notices: [Notice] = []
    package var arrows: [Arrow] = []
    /// The Broker wants Storage to stop.
    package var shallStop = false

    package var isEmpty: Bool {
        toBroker.isEmpty && notices.isEmpty && arrows.isEmpty && !shallStop
    }
}

/// What went by since Storage was opened.
package struct StorageCounters: Equatable, Sendable {
    package var adds: UInt64 = 0
    package var leases: UInt64 = 0
    package var results: UInt64 = 0
    package var repeatedResults: UInt64 = 0
    package var staleResults: UInt64 = 0
    package var unknownResults: UInt64 = 0
    package var releases: UInt64 = 0
    package var cancels: UInt64 = 0
    package var requeues: UInt64 = 0
    package var evidence: UInt64 = 0
    package var forgets: UInt64 = 0
    /// Messages, or rests of messages, that were no message of ours and were dropped.
    package var malformed: UInt64 = 0
    /// Results that found no room in the log; their workers send them again.
    package var withoutSpace: UInt64 = 0
    /// Records that could not be read when somebody asked for them.
    package var unreadable: UInt64 = 0

    package init() {}
}
