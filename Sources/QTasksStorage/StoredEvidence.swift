// Part of QTasks. License: see LICENSE.
//
// Part of the store's format, as StoredRecord.swift is.

package import QTasksModel
package import QTasksWire

/// `EVIDENCE`: how a worker's process ended that died with a task in hand, one record for each such task.
///
/// ```
///  offset  bytes  field
///       0      8  at
///       8     16  task ID
///      24      8  the lease that ended with it
///      32     16  worker ID
///      48      4  pid
///      52      8  start time of the process, as the kernel tells it
///      60      1  0: it exited, 1: a signal ended it
///      61      4  exit code, or the signal's number
///      65      8  the most memory that it had, in bytes
///      73      8  CPU time in user mode, in microseconds
///      81      8  CPU time in the kernel, in microseconds
///      89      4  byte count of what follows, at most 4096
///      93         the end of its standard error, as it came
/// ```
///
/// It is of a task's current epoch, and goes with it: a requeue that lies behind it makes an end of it.
package struct StoredEvidence: Equatable {
    package var at: Timestamp
    package var holding: Holding
    package var worker: WorkerID
    package var exit: ExitMessage

    func writeHead(to writer: inout WireWriter) {
        writer.integer(at.nanoseconds)
        holding.write(to: &writer)
        writer.worker(worker)
        writer.integer(exit.pid)
        writer.integer(exit.startTime)
        writer.u8(exit.wasSignal ? 1 : 0)
        writer.integer(exit.code)
        writer.integer(exit.maxResidentBytes)
        writer.integer(exit.userMicroseconds)
        writer.integer(exit.systemMicroseconds)
        writer.counted(exit.errorTail)
    }

    init(at: Timestamp, holding: Holding, worker: WorkerID, exit: ExitMessage) {
        self.at = at
        self.holding = holding
        self.worker = worker
        self.exit = exit
    }

    package init(from reader: inout WireReader) throws(WireError) {
        at = Timestamp(nanoseconds: try reader.integer("at"))
        holding = try Holding(from: &reader)
        worker = try reader.worker("worker")
        exit = ExitMessage(
            pid: try reader.integer("pid"),
            startTime: try reader.integer("start time"),
            wasSignal: try reader.u8("kind") == 1,
            code: try reader.integer("code"),
            maxResidentBytes: try reader.integer("memory"),
            userMicroseconds: try reader.integer("user time"),
            systemMicroseconds: try reader.integer("system time"),
            errorTail: Array(try reader.counted("standard error"))
        )
        guard reader.isAtEnd else { throw .invalid(field: "evidence byte count") }
    }
}
