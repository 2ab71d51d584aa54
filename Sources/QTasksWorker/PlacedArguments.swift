// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksWire

/// Arguments that lie in the store and were never copied to this process.
///
/// The mapping is this process's own. Once it is there, nobody can take the bytes away: a segment
/// that is removed meanwhile keeps its blocks until it is unmapped. A page that the disk can't read
/// is an error while the bytes are checked, and after that a SIGBUS, for this worker alone: its
/// tasks are handed on like those of any that dies (P4).
package struct PlacedArguments: Sendable {
    private let record: MappedRecord
    private let range: Range<Int>
    /// The envelope's head as it was sent, which must be what stands before the arguments.
    private let head: [UInt8]

    /// Maps what a task was told of.
    ///
    /// - Throws: Where it is gone, or isn't that record.
    init(
        _ reference: PayloadReference,
        _ head: UnsafeRawBufferPointer,
        in store: LogRecords
    ) throws {
        let position = RecordPosition(segment: reference.segment, offset: reference.offset)
        record = try store.map(position, sequence: reference.sequence)
        range = Int(reference.start)..<Int(reference.start) + Int(reference.count)
        self.head = Array(head)
        guard range.upperBound <= record.payload.count, range.lowerBound >= head.count else {
            throw WireError.invalid(field: "reference")
        }
    }

    package var count: Int { range.count }

    /// Reads all of it once: whether it is what was written, and the task's.
    ///
    /// Takes a millisecond for a few MiB.
    package func isSound() -> Bool {
        record.isSound()
            && record.payload[(range.lowerBound - head.count)..<range.lowerBound]
                .elementsEqual(head)
    }

    /// Lends the bytes for the time of the call; check them first.
    package func withBytes<Result>(
        _ body: (UnsafeRawBufferPointer) throws -> Result
    ) rethrows -> Result {
        try withExtendedLifetime(record) {
            try body(UnsafeRawBufferPointer(rebasing: record.payload[range]))
        }
    }
}
