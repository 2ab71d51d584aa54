// Part of QTasks. License: see LICENSE.
//
// Large payloads travel once: to the store. From there on their place is told instead of them.

package import QTasksModel

/// Where a part of a record's payload lies in the store (24 bytes).
///
/// ```
///  offset  bytes  field
///       0      4  number of the segment, as in its file's name
///       4      4  byte of the segment at which the record begins
///       8      8  the record's sequence
///      16      4  byte of the record's payload at which the part begins
///      20      4  its byte count
/// ```
///
/// It proves itself: the record's header has the sequence and the payload's checksum, under a checksum
/// that begins with the segment's salt. FileFormat.md of the append log has the layout. The place
/// may be gone by the time that somebody looks: whoever reads it has another way to the bytes.
package struct PayloadReference: Sendable, Hashable {
    package static let byteCount = 24

    package var segment: UInt32
    package var offset: UInt32
    package var sequence: UInt64
    package var start: UInt32
    package var count: UInt32

    package init(segment: UInt32, offset: UInt32, sequence: UInt64, start: UInt32, count: UInt32) {
        self.segment = segment
        self.offset = offset
        self.sequence = sequence
        self.start = start
        self.count = count
    }

    package func write(to writer: inout WireWriter) {
        writer.integer(segment)
        writer.integer(offset)
        writer.integer(sequence)
        writer.integer(start)
        writer.integer(count)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        segment = try reader.integer("segment")
        offset = try reader.integer("offset")
        sequence = try reader.integer("sequence")
        start = try reader.integer("start")
        count = try reader.integer("byte count")
    }
}

/// A task's record whose large parts are told by their place: what Storage says instead of the bytes.
///
/// ```
///  0 (1), which no record begins with, then pieces to the end, in the record's order:
///  1 (1), bytes (counted)
///  2 (1), a reference (24)
/// ```
///
/// It points into the message it was read from. The first piece is bytes.
package struct PlacedRecord {
    package enum Piece {
        case bytes(UnsafeRawBufferPointer)
        case placed(PayloadReference)
    }

    /// What it begins with, where a record has its status.
    package static let mark: UInt8 = 0

    package private(set) var pieces: [Piece] = []
    /// How long the record is, in bytes.
    package private(set) var count = 0
    package let status: TaskStatus

    /// Whether these bytes are one of these and no whole record.
    package static func isPlaced(_ record: UnsafeRawBufferPointer) -> Bool { record.first == mark }

    package init(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
        var reader = WireReader(bytes)
        guard try reader.u8("mark") == Self.mark else { throw .invalid(field: "mark") }
        while !reader.isAtEnd {
            switch try reader.u8("piece") {
            case 1:
                let bytes = try reader.counted("bytes")
                pieces.append(.bytes(bytes))
                count += bytes.count
            case 2:
                let reference = try PayloadReference(from: &reader)
                pieces.append(.placed(reference))
                count += Int(reference.count)
            default: throw .invalid(field: "piece")
            }
        }
        guard case .bytes(let head) = pieces.first, let code = head.first,
            let status = TaskStatus(code: code)
        else { throw .invalid(field: "status") }
        self.status = status
    }

    /// Puts the record together.
    ///
    /// - Parameters:
    ///   - target: As long as the record.
    ///   - read: Reads what lies in the store.
    /// - Returns: Whether everything could be read.
    package func assemble(
        into target: UnsafeMutableRawBufferPointer,
        _ read: PayloadReading
    ) -> Bool {
        var offset = 0
        for piece in pieces {
            switch piece {
            case .bytes(let bytes):
                UnsafeMutableRawBufferPointer(rebasing: target[offset...]).copyMemory(from: bytes)
                offset += bytes.count
            case .placed(let reference):
                let end = offset + Int(reference.count)
                let place = UnsafeMutableRawBufferPointer(rebasing: target[offset..<end])
                guard read(reference, place) else { return false }
                offset = end
            }
        }
        return true
    }
}

/// Fills a buffer with what lies at a place of the store; `false` where that can't be read.
package typealias PayloadReading = (PayloadReference, UnsafeMutableRawBufferPointer) -> Bool

extension WireWriter {
    /// Begins a ``PlacedRecord``.
    package mutating func beginPlaced() { u8(PlacedRecord.mark) }

    package mutating func piece(_ bytes: [UInt8]) {
        u8(1)
        counted(bytes)
    }

    package mutating func piece(_ reference: PayloadReference) {
        u8(2)
        reference.write(to: &self)
    }
}
