// Part of QTasks. License: see LICENSE.

package import QTasksModel
package import QTasksWire

/// A task's record as it came from the Broker: decoded by the caller who wants it, on his thread,
/// and only as far as he wants it.
package struct RecordBytes: Sendable, Equatable {
    package let bytes: [UInt8]

    /// - Throws: ``WireError`` where `bytes` don't even hold a status.
    package init(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
        var reader = WireReader(bytes)
        guard let status = TaskStatus(code: try reader.u8("status")) else {
            throw .invalid(field: "status")
        }
        isUnroutable = try reader.u8("flags") & 1 != 0
        self.status = status
        self.bytes = Array(bytes)
    }

    package let status: TaskStatus

    /// No worker that is connected now can run the task.
    package let isUnroutable: Bool

    /// The whole record.
    ///
    /// - Throws: ``QTasksError/Code/malformed``.
    package func decoded() throws(QTasksError) -> TaskRecord {
        try reading { reader throws(WireError) in try TaskRecord(from: &reader) }
    }

    /// How the last attempt ended, `nil` where none did; the task's arguments are not touched.
    ///
    /// - Throws: ``QTasksError/Code/malformed``.
    package func outcome() throws(QTasksError) -> TaskOutcome? {
        try reading { reader throws(WireError) in
            _ = try reader.u8("status")
            let hasOutcome = try reader.u8("flags") & 2 != 0
            _ = try reader.raw(Self.fixedBytes - 2, "record")
            return hasOutcome ? try reader.outcome() : nil
        }
    }

    // status, flags, epoch, three counts, sequence, lease, worker, four moments: RecordCoding.swift
    private static let fixedBytes = 1 + 1 + 2 + 3 * 4 + 8 + 8 + 16 + 4 * 8

    private func reading<Value>(
        _ body: (inout WireReader) throws(WireError) -> Value
    ) throws(QTasksError) -> Value {
        do throws(WireError) {
            return try bytes.span.withUnsafeBytes { buffer throws(WireError) in
                var reader = WireReader(buffer)
                return try body(&reader)
            }
        } catch {
            throw QTasksError(
                .malformed,
                "the Broker sent a record that can't be read",
                cause: error
            )
        }
    }
}
