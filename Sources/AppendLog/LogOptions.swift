// Part of QTasks. License: see LICENSE.

/// The sizes a log works with.
///
/// They may differ from one opening to the next.
public struct LogOptions: Hashable, Sendable {
    /// How large a segment file grows, in bytes, before the next one is begun.
    public var segmentBytes: Int

    /// The longest payload a record may have, in bytes.
    public var recordBytesMax: Int

    /// How far ahead of the last record segments are zero-filled in the background, in bytes; 0
    /// turns it off.
    ///
    /// Writing into zero-filled blocks changes no file system metadata, so `fdatasync` has one
    /// thing to do instead of two; it doubles the bytes written. A small store is filled less far:
    /// as far as it has grown, at least one chunk.
    public var zeroFillAheadBytes: Int

    /// How many bytes are filled and synced at a time.
    public var zeroFillChunkBytes: Int

    /// What all files of the store may take up together, in bytes; `nil`: as much as the disk holds.
    public var quotaBytes: Int?

    /// How much of the quota is for what becomes of the records that are there: within it
    /// ``Log/hasRoom`` is `false`, and appending goes on.
    public var reserveBytes: Int

    /// The share of the file system, from 0 to 1, that stays free in the same sense.
    public var freeShare = 0.0

    /// - Precondition: A segment has room for the longest record, and is at most 2 GiB.
    public init(
        segmentBytes: Int = 64 << 20,
        recordBytesMax: Int = 17 << 20,
        zeroFillAheadBytes: Int = 4 << 20,
        zeroFillChunkBytes: Int = 1 << 20
    ) {
        let overhead = SegmentHeader.areaBytes + GroupHeader.bytes
        precondition(
            recordBytesMax >= 0
                && overhead + RecordHeader.bytesOnDisk(payloadBytes: recordBytesMax)
                    <= segmentBytes,
            "a segment has room for the longest record"
        )
        precondition(segmentBytes <= 2 << 30, "a place in a segment has 32 bits")
        precondition(zeroFillAheadBytes >= 0 && zeroFillChunkBytes > 0, "sizes aren't negative")
        self.segmentBytes = segmentBytes
        self.recordBytesMax = recordBytesMax
        self.zeroFillAheadBytes = zeroFillAheadBytes
        self.zeroFillChunkBytes = zeroFillChunkBytes
        reserveBytes = 2 * segmentBytes
    }
}

/// Who carries out the log's writes and syncs.
public enum LogDriver: Hashable, Sendable {
    /// Four threads: one writes, one syncs, one zero-fills ahead, one keeps house (checkpoints, what
    /// compaction reads, removal). Idle, they sleep.
    case threads
    /// Nobody, until the owner calls ``Log/runOneWrite()`` and its like: for a deterministic
    /// simulator.
    case manual
}
