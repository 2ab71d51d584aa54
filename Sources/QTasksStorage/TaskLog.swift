// Part of QTasks. License: see LICENSE.

package import AppendLog

/// What an append gave: the record's number in the log and its place.
package struct StoredPlace: Hashable, Sendable {
    package var sequence: UInt64
    package var position: RecordPosition
    /// What the record takes up on disk.
    package var bytes: Int

    package init(sequence: UInt64, position: RecordPosition, bytes: Int = 0) {
        self.sequence = sequence
        self.position = position
        self.bytes = bytes
    }
}

extension RecordPosition {
    /// Stands for "no record": segments count from 1.
    package static var none: RecordPosition { RecordPosition(segment: 0, offset: 0) }
}

/// The log as Storage's core needs it, so that tests can put theirs in its place.
package protocol TaskLog: AnyObject {
    /// Which opening of the store this is.
    var incarnation: UInt32 { get }

    /// Whether new tasks have to be refused: the disk is full, and what is left of the log's room is
    /// kept for what becomes of the tasks that are there already.
    var isShortOfSpace: Bool { get }

    /// Takes one record; it is on its way to the disk after the next submit.
    ///
    /// - Parameters:
    ///   - kind: What it tells.
    ///   - head: Its first bytes.
    ///   - body: What follows them.
    /// - Returns: The record's number and place.
    /// - Throws: ``AppendLogError/outOfSpace(bytes:preparedBytesLeft:)`` and
    ///   ``AppendLogError/payloadTooLarge(bytes:limit:)`` for this record alone; any other error means
    ///   that the log has failed for good. Nothing was appended.
    func append(
        kind: StoredKind,
        head: [UInt8],
        body: UnsafeRawBufferPointer
    ) throws(AppendLogError) -> StoredPlace

    /// Lends a record's bytes, head and body, for the time of the call; `body` must not call the log.
    ///
    /// - Throws: Where the record cannot be read or is damaged.
    func withRecord<Result>(
        at position: RecordPosition,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result

    /// Lends the first bytes of a long record, unchecked, for the time of the call.
    ///
    /// - Returns: `nil` where it isn't written yet, such as one that was just carried forward: a place
    ///   that nobody else can read.
    /// - Throws: Where there is none.
    func withStart<Result>(
        of position: RecordPosition,
        _ body: (RecordStart) -> Result
    ) throws(AppendLogError) -> Result?

    /// Keeps a segment's file until ``unhold(_:)``: somebody outside was told of a place in it.
    func hold(_ segment: UInt32)

    func unhold(_ segment: UInt32)
}

/// How a long record begins.
///
/// Whoever is told of the record's place checks all of it; nothing that is decided here may rest on
/// these bytes alone.
package struct RecordStart {
    /// Enough for the head of any task with names and options of usual length.
    package static let byteCount = 4000

    package var sequence: UInt64
    /// How long the record is, without the log's own header.
    package var recordBytes: Int
    package var bytes: UnsafeRawBufferPointer

    package init(sequence: UInt64, recordBytes: Int, bytes: UnsafeRawBufferPointer) {
        self.sequence = sequence
        self.recordBytes = recordBytes
        self.bytes = bytes
    }
}

/// The log as the keeper needs it: house is kept in the log itself, and what is written on that
/// account goes through here, so that tests see it.
package protocol KeptLog: TaskLog {
    var kept: Log { get }

    /// See ``Log/carry(_:kind:flags:payloadBytes:fill:)``.
    func carry(
        _ view: borrowing RecordView,
        kind: UInt8,
        flags: UInt8,
        payloadBytes: Int,
        fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(AppendLogError) -> RecordPosition
}

extension Log: KeptLog {
    package var kept: Log { self }
}

/// A log that somebody listens to: what is appended goes through it, and all else is the log's own.
package protocol OverheardLog: KeptLog {}

extension OverheardLog {
    package var incarnation: UInt32 { kept.incarnation }

    package var isShortOfSpace: Bool { kept.isShortOfSpace }

    package func withRecord<Result>(
        at position: RecordPosition,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result {
        try kept.withRecord(at: position, body)
    }

    package func withStart<Result>(
        of position: RecordPosition,
        _ body: (RecordStart) -> Result
    ) throws(AppendLogError) -> Result? {
        try kept.withStart(of: position, body)
    }

    package func hold(_ segment: UInt32) { kept.hold(segment) }

    package func unhold(_ segment: UInt32) { kept.unhold(segment) }

    package func carry(
        _ view: borrowing RecordView,
        kind: UInt8,
        flags: UInt8,
        payloadBytes: Int,
        fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(AppendLogError) -> RecordPosition {
        try kept.carry(view, kind: kind, flags: flags, payloadBytes: payloadBytes, fill: fill)
    }
}

extension Log: TaskLog {
    package var isShortOfSpace: Bool { !hasRoom }

    package func append(
        kind: StoredKind,
        head: [UInt8],
        body: UnsafeRawBufferPointer
    ) throws(AppendLogError) -> StoredPlace {
        let bytes = head.count + body.count
        let (sequence, position) = try append(kind: kind.rawValue, payloadBytes: bytes) { target in
            head.withUnsafeBytes { target.copyMemory(from: $0) }
            UnsafeMutableRawBufferPointer(rebasing: target[head.count...]).copyMemory(from: body)
        }
        return StoredPlace(
            sequence: sequence,
            position: position,
            bytes: Log.bytesOnDisk(payloadBytes: bytes)
        )
    }

    package func withRecord<Result>(
        at position: RecordPosition,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result {
        try withPayload(at: position, body)
    }

    package func withStart<Result>(
        of position: RecordPosition,
        _ body: (RecordStart) -> Result
    ) throws(AppendLogError) -> Result? {
        try withStart(of: position, bytes: RecordStart.byteCount) {
            body(RecordStart(sequence: $0, recordBytes: $1, bytes: $2))
        }
    }
}
