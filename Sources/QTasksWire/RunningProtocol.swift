// Part of QTasks. License: see LICENSE.
//
// What a worker says of attempts whose time is limited, so that the Broker can end what doesn't end.

package import QTasksModel

/// One item of `RUNNING`: lease (8), when its time is over (8, nanoseconds of `CLOCK_BOOTTIME`; 0: its
/// handler has returned), when it began (8, nanoseconds since 1970), milliseconds before another attempt
/// (8), attempts that may end in an error (4).
///
/// Said when an attempt with a limit begins, for all of them in each new session, and when the handler of
/// such a one, or of one that was to be abandoned, has returned. How things stand, not what changed: a
/// repeat does no harm.
package struct RunningAttempt: Sendable, Hashable {
    static let byteCount = 36

    package var lease: Lease
    /// 0: its handler has returned, and its slot is free.
    package var deadline: UInt64
    package var startedAt: Timestamp
    package var retryMilliseconds: UInt64
    package var maxAttempts: UInt32

    package init(
        lease: Lease,
        deadline: UInt64,
        startedAt: Timestamp,
        retryMilliseconds: UInt64,
        maxAttempts: UInt32
    ) {
        self.lease = lease
        self.deadline = deadline
        self.startedAt = startedAt
        self.retryMilliseconds = retryMilliseconds
        self.maxAttempts = maxAttempts
    }

    /// Its handler has returned.
    package init(returned lease: Lease) {
        self.init(
            lease: lease,
            deadline: 0,
            startedAt: Timestamp(nanoseconds: 0),
            retryMilliseconds: 0,
            maxAttempts: 0
        )
    }

    package var hasReturned: Bool { deadline == 0 }

    package static func encoded(_ attempts: [RunningAttempt]) -> [UInt8] {
        var writer = WireWriter(.running, reserving: 16 + byteCount * attempts.count)
        for attempt in attempts {
            writer.integer(attempt.lease.rawValue)
            writer.integer(attempt.deadline)
            writer.integer(attempt.startedAt.nanoseconds)
            writer.integer(attempt.retryMilliseconds)
            writer.integer(attempt.maxAttempts)
        }
        return writer.bytes
    }

    package static func read(from reader: inout WireReader) throws(WireError) -> [RunningAttempt] {
        guard reader.left.isMultiple(of: byteCount) else { throw .truncated(field: "attempts") }
        var attempts: [RunningAttempt] = []
        attempts.reserveCapacity(reader.left / byteCount)
        while !reader.isAtEnd {
            attempts.append(
                RunningAttempt(
                    lease: try reader.lease("lease"),
                    deadline: try reader.integer("deadline"),
                    startedAt: Timestamp(nanoseconds: try reader.integer("start")),
                    retryMilliseconds: try reader.integer("wait"),
                    maxAttempts: try reader.integer("maxAttempts")
                )
            )
        }
        return attempts
    }
}

/// An attempt whose time was over and whose worker was ended for it, for Storage to record.
package struct OverdueAttempt: Sendable, Hashable {
    package var worker: WorkerID
    package var startedAt: Timestamp
    package var retryMilliseconds: UInt64
    package var maxAttempts: UInt32

    package init(worker: WorkerID, _ attempt: RunningAttempt) {
        self.worker = worker
        startedAt = attempt.startedAt
        retryMilliseconds = attempt.retryMilliseconds
        maxAttempts = attempt.maxAttempts
    }

    package func write(to writer: inout WireWriter) {
        writer.worker(worker)
        writer.integer(startedAt.nanoseconds)
        writer.integer(retryMilliseconds)
        writer.integer(maxAttempts)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        worker = try reader.worker("worker")
        startedAt = Timestamp(nanoseconds: try reader.integer("start"))
        retryMilliseconds = try reader.integer("wait")
        maxAttempts = try reader.integer("maxAttempts")
    }
}
