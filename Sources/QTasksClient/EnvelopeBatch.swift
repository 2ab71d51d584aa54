// Part of QTasks. License: see LICENSE.

package import QTasksModel
import QTasksWire

/// Tasks to add, as the bytes that go out: encoded once, on the caller's thread, and sent as they
/// are however often that takes.
package struct EnvelopeBatch: Sendable {
    /// One task's place in ``bytes``.
    package struct Entry: Sendable {
        package let id: TaskID
        package let place: Range<Int>
        /// For the limit on payloads, which the Broker tells.
        package let argumentBytes: Int
    }

    /// The envelopes, one after the other.
    package private(set) var bytes: [UInt8]
    package private(set) var entries: [Entry]

    /// - Throws: ``QTasksError/Code/badName`` or ``QTasksError/Code/badOption`` for the first task
    ///   that can't be.
    package init(_ submissions: [TaskSubmission]) throws(QTasksError) {
        let argumentBytes = submissions.reduce(0) { $0 + $1.arguments.count }
        var writer = WireWriter(reserving: submissions.count * 64 + argumentBytes)
        entries = []
        entries.reserveCapacity(submissions.count)
        for submission in submissions {
            let start = writer.count
            try submission.write(to: &writer)
            entries.append(
                Entry(
                    id: submission.id,
                    place: start..<writer.count,
                    argumentBytes: submission.arguments.count
                )
            )
        }
        bytes = writer.take()
    }
}
