// Part of QTasks. License: see LICENSE.
//
// How an attempt ended, as bytes: in a worker's results, in the log and in records.

package import QTasksModel

extension WireWriter {
    /// ```
    ///  1 success: content type (text), result (counted)
    ///  2 error:   failure
    ///  3 cancel:  reason (text)
    ///  4 retry:   wait in milliseconds (8), attempts at most (4), failure
    ///  failure:   type, message, trace (texts; an empty trace is none)
    /// ```
    package mutating func outcome(_ outcome: TaskOutcome) {
        switch outcome {
        case .success(let result, let contentType):
            u8(1)
            text(contentType ?? "")
            counted(result)
        case .error(let failure):
            u8(2)
            self.failure(failure)
        case .cancel(let reason):
            u8(3)
            text(reason)
        case .retry(let failure, let afterMilliseconds, let maxAttempts):
            u8(4)
            integer(afterMilliseconds)
            integer(maxAttempts)
            self.failure(failure)
        }
    }

    private mutating func failure(_ failure: TaskFailure) {
        text(failure.type)
        text(failure.message)
        text(failure.trace ?? "")
    }
}

extension WireReader {
    package mutating func outcome() throws(WireError) -> TaskOutcome {
        switch try u8("outcome") {
        case 1:
            let type = try text("content type")
            let result = Array(try counted("result"))
            return .success(result: result, contentType: type.isEmpty ? nil : type)
        case 2: return .error(try failure())
        case 3: return .cancel(reason: try text("reason"))
        case 4:
            let wait = try integer("wait", as: UInt64.self)
            let maxAttempts = try integer("maxAttempts", as: UInt32.self)
            return .retry(try failure(), afterMilliseconds: wait, maxAttempts: maxAttempts)
        default: throw .invalid(field: "outcome")
        }
    }

    private mutating func failure() throws(WireError) -> TaskFailure {
        let type = try text("error type")
        let message = try text("error message")
        let trace = try text("error trace")
        return TaskFailure(type: type, message: message, trace: trace.isEmpty ? nil : trace)
    }
}

/// One attempt's end, as a worker pushes it to Storage and as the log keeps it.
///
/// ```
///  offset  bytes  field
///       0      4  byte count of the entry
///       4     16  task ID
///      20      8  lease
///      28      8  began, nanoseconds since 1970
///      36      8  ended, nanoseconds since 1970
///      44         outcome
/// ```
package struct ResultEntry: Sendable, Equatable {
    package var id: TaskID
    package var lease: Lease
    package var startedAt: Timestamp
    package var finishedAt: Timestamp
    package var outcome: TaskOutcome

    package init(
        id: TaskID,
        lease: Lease,
        startedAt: Timestamp,
        finishedAt: Timestamp,
        outcome: TaskOutcome
    ) {
        self.id = id
        self.lease = lease
        self.startedAt = startedAt
        self.finishedAt = finishedAt
        self.outcome = outcome
    }

    package func write(to writer: inout WireWriter) {
        let start = writer.reserveU32()
        writer.id(id)
        writer.integer(lease.rawValue)
        writer.integer(startedAt.nanoseconds)
        writer.integer(finishedAt.nanoseconds)
        writer.outcome(outcome)
        writer.patch(UInt32(writer.count - start), at: start)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        let view = try ResultView(from: &reader)
        try self.init(view)
    }

    /// Decodes the outcome too.
    package init(_ view: ResultView) throws(WireError) {
        var body = WireReader(view.outcome)
        id = view.id
        lease = view.lease
        startedAt = view.startedAt
        finishedAt = view.finishedAt
        outcome = try body.outcome()
        guard body.isAtEnd else { throw .invalid(field: "result byte count") }
    }
}

/// A ``ResultEntry`` whose outcome stays as it is: what Storage needs to decide.
///
/// Points into the message it was read from.
package struct ResultView {
    package let bytes: UnsafeRawBufferPointer
    package let id: TaskID
    package let lease: Lease
    package let startedAt: Timestamp
    package let finishedAt: Timestamp
    package let outcome: UnsafeRawBufferPointer

    package init(from reader: inout WireReader) throws(WireError) {
        var ahead = reader
        let byteCount = Int(try ahead.integer("result byte count", as: UInt32.self))
        bytes = try reader.raw(byteCount, "result")
        var entry = WireReader(bytes)
        _ = try entry.integer("result byte count", as: UInt32.self)
        id = try entry.id("task ID")
        lease = try entry.lease("lease")
        startedAt = Timestamp(nanoseconds: try entry.integer("start"))
        finishedAt = Timestamp(nanoseconds: try entry.integer("end"))
        outcome = entry.rest()
    }
}
