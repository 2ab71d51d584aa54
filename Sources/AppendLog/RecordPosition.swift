// Part of QTasks. License: see LICENSE.

/// Where a record begins, or where a run of them ends.
public struct RecordPosition: Hashable, Sendable {
    /// The segment's number, from 1.
    public var segment: UInt32
    /// The byte in the segment, a multiple of 8.
    public var offset: UInt32

    public init(segment: UInt32, offset: UInt32) {
        self.segment = segment
        self.offset = offset
    }
}

extension RecordPosition: Comparable {
    public static func < (left: Self, right: Self) -> Bool {
        (left.segment, left.offset) < (right.segment, right.offset)
    }
}

/// How far the log has got.
///
/// Sequence numbers are dense from 1; 0 means no record yet.
public struct Watermarks: Hashable, Sendable {
    /// Every record up to here is in the kernel's hands and survives the end of the process.
    public var written: UInt64
    /// Every record up to here is on disk and survives loss of power.
    ///
    /// Never above `written`.
    public var durable: UInt64

    public init(written: UInt64, durable: UInt64) {
        self.written = written
        self.durable = durable
    }
}

/// A record as it is read, valid only inside the call that shows it.
public struct RecordView: ~Copyable {
    /// Its number in the log.
    public let sequence: UInt64
    /// What it tells: the owner's.
    public let kind: UInt8
    /// The owner's.
    public let flags: UInt8
    /// Where it begins.
    public let position: RecordPosition
    /// Where the record stood that this one stands for, where compaction carried it forward.
    ///
    /// It has that one's sequence, and what its owner made of its payload.
    public let source: RecordPosition?
    /// The payload's bytes, checked; the pointer dies with the call.
    public let payload: UnsafeRawBufferPointer

    init(_ header: RecordHeader, at position: RecordPosition, payload: UnsafeRawBufferPointer) {
        sequence = header.sequence
        kind = header.kind
        flags = header.flags
        source = header.source
        self.position = position
        self.payload = payload
    }
}

extension RecordView {
    /// The bytes that it takes up on disk.
    public var bytesOnDisk: Int {
        RecordHeader.bytesOnDisk(payloadBytes: payload.count, isCarried: source != nil)
    }
}

/// Records that were durable and can't be read any more: rot, not a tear.
public struct LostRecords: Hashable, Sendable {
    /// Their numbers in the log.
    public var sequences: ClosedRange<UInt64>
    /// Where they were, or would have had to begin.
    public var position: RecordPosition

    public init(sequences: ClosedRange<UInt64>, position: RecordPosition) {
        self.sequences = sequences
        self.position = position
    }
}

/// Bytes that were durable and are no record any more.
///
/// Most likely they held something that compaction had carried forward: what is appended shows by a
/// gap in the sequence, and is among the ``LostRecords``.
public struct DamagedBytes: Hashable, Sendable {
    /// Where they begin.
    public var position: RecordPosition
    /// How many they are.
    public var bytes: Int

    public init(position: RecordPosition, bytes: Int) {
        self.position = position
        self.bytes = bytes
    }
}

/// What opening a log found.
public struct RecoveryReport: Hashable, Sendable {
    /// The store was made by this opening.
    public var isNew = false
    /// The last writer closed it.
    public var wasClean = false
    /// How many records were replayed.
    public var records: UInt64 = 0
    /// How many of them were not known to be durable and were written again to a new segment.
    public var recordsRewritten: UInt64 = 0
    /// Bytes behind the valid end that a crash left half written.
    public var tornBytes = 0
    /// Durable records that are corrupt or gone.
    ///
    /// They stay where they are; everything else is there.
    public var lost: [LostRecords] = []
    /// Durable bytes that are no record any more, and may have held some.
    public var damaged: [DamagedBytes] = []
    /// The checkpoint that reading began with; `nil` where it began with the first segment.
    public var checkpoint: UInt32?

    /// Whether something that was durable can't be read.
    public var isDamaged: Bool {
        !lost.isEmpty || !damaged.isEmpty
    }

    public init() {}
}
