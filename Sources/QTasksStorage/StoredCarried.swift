// Part of QTasks. License: see LICENSE.
//
// What compaction and retention write. Part of the store's format, as StoredRecord.swift is.

package import AppendLog
package import QTasksModel
package import QTasksWire

/// `CARRIED`: a task's add and, behind it, all that follows from the records before (108 bytes).
///
/// ```
///  offset  bytes  field
///       0      n  the add, as `ADD` has it
///       n      1  status
///     +1       1  flags: bit 0 suspect
///     +2       2  epoch
///     +4       4  attempts
///     +8       4  failures
///    +12       4  deaths
///    +16       8  lease
///    +24      16  worker ID; 0: none
///    +40       8  sequence of the newest record that is in this
///    +48       8  where its last result lay: segment, offset; 0: none. The newest one that lies before
///                 this record is meant: an opening that found the end unproven wrote both again
///    +56       4  what that takes up, in bytes
///    +60      32  due, where scheduled; else 0
///    +92       8  when it ended, in nanoseconds since 1970, rounded up to a second; else 0
///   +100       8  zero
/// ```
///
/// An add can be read from it as from an `ADD`.
package struct StoredCarried {
    static let stateBytes = 108

    package var add: StoredAdd
    package var status: TaskStatus
    package var isSuspect: Bool
    package var epoch: UInt16
    package var attempt: UInt32
    package var failures: UInt32
    package var deaths: UInt32
    package var lease: Lease
    package var worker: WorkerID
    package var lastSequence: UInt64
    package var finished: RecordPosition
    package var finishedBytes: UInt32
    package var due: StoredDue?
    package var endedAt: Timestamp

    /// A moment no later than its end, which is told in whole seconds, rounded up.
    var endedSince: Timestamp {
        Timestamp(nanoseconds: max(0, endedAt.nanoseconds - 999_999_999))
    }

    func writeState(to writer: inout WireWriter) {
        writer.u8(status.code)
        writer.u8(isSuspect ? 1 : 0)
        writer.integer(epoch)
        writer.integer(attempt)
        writer.integer(failures)
        writer.integer(deaths)
        writer.integer(lease.rawValue)
        writer.worker(worker)
        writer.integer(lastSequence)
        writer.integer(finished.segment)
        writer.integer(finished.offset)
        writer.integer(finishedBytes)
        let none = StoredDue(
            wall: Timestamp(nanoseconds: 0),
            boot: 0,
            bootID: TaskID(high: 0, low: 0)
        )
        (due ?? none).write(to: &writer)
        writer.integer(endedAt.nanoseconds)
        writer.integer(UInt64(0))
    }
}

extension StoredCarried {
    package init(from reader: inout WireReader) throws(WireError) {
        add = try StoredAdd(from: &reader)
        status = try reader.storedStatus()
        isSuspect = try reader.u8("flags") & 1 != 0
        epoch = try reader.integer("epoch")
        attempt = try reader.integer("attempts")
        failures = try reader.integer("failures")
        deaths = try reader.integer("deaths")
        lease = Lease(rawValue: try reader.integer("lease"))
        worker = try reader.worker("worker")
        lastSequence = try reader.integer("sequence")
        finished = RecordPosition(
            segment: try reader.integer("result's segment"),
            offset: try reader.integer("result's offset")
        )
        finishedBytes = try reader.integer("result's bytes")
        let due = try StoredDue(from: &reader)
        self.due = status == .scheduled ? due : nil
        endedAt = Timestamp(nanoseconds: try reader.integer("end"))
        _ = try reader.integer("zero", as: UInt64.self)
        guard reader.isAtEnd else { throw .invalid(field: "byte count") }
    }
}

/// `EXPIRE`: at (8), task ID (16).
package struct StoredExpire {
    package var at: Timestamp
    package var id: TaskID

    func writeHead(to writer: inout WireWriter) {
        writer.integer(at.nanoseconds)
        writer.id(id)
    }

    init(at: Timestamp, id: TaskID) {
        self.at = at
        self.id = id
    }

    package init(from reader: inout WireReader) throws(WireError) {
        at = Timestamp(nanoseconds: try reader.integer("at"))
        id = try reader.id("task ID")
    }
}
