// Part of QTasks. License: see LICENSE.

/// What is known of one segment of a log.
public struct SegmentInfo: Hashable, Sendable {
    /// Its number, as in its file's name.
    public let index: UInt32
    /// The first sequence that a record appended to it got, or would have got.
    public internal(set) var firstSequence: UInt64
    /// What the owner had said last when it was begun, see ``Log/stamp``.
    public let stamp: UInt64
    /// Where its records end, in bytes; `nil` for the one that is being written.
    public internal(set) var end: Int?

    let salt: UInt32
    let predecessor: RecordPosition

    init(_ header: SegmentHeader) {
        index = header.index
        firstSequence = header.firstSequence
        stamp = header.stamp
        salt = header.salt
        predecessor = header.predecessor
    }
}

extension [SegmentInfo] {
    /// Appends the segment that follows, which tells where the last one ends.
    mutating func append(next info: SegmentInfo) {
        if let last = indices.last, self[last].index == info.predecessor.segment {
            self[last].end = Int(info.predecessor.offset)
        }
        append(info)
    }
}
