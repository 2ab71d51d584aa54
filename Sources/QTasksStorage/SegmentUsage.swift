// Part of QTasks. License: see LICENSE.

/// How many bytes of each segment of the log are alive: records that somebody may still ask for.
///
/// What isn't alive is what compaction gains. Sizes are kept as ``PackedSize`` does, so that what is
/// added is what is taken away again.
package struct SegmentUsage: Equatable {
    private var bytes: [UInt32: Int] = [:]
    /// Records come in runs for one segment.
    private var recent: (segment: UInt32, bytes: Int) = (0, 0)

    package init() {}

    package static func == (left: Self, right: Self) -> Bool {
        left.nonzero == right.nonzero
    }

    /// The bytes alive in one segment.
    package subscript(segment: UInt32) -> Int {
        (bytes[segment] ?? 0) + (segment == recent.segment ? recent.bytes : 0)
    }

    mutating func add(_ count: Int, in segment: UInt32) {
        if segment != recent.segment { turn(to: segment) }
        recent.bytes += count
    }

    /// Takes back; segment 0 stands for no record.
    mutating func remove(_ count: Int, in segment: UInt32) {
        guard segment != 0 else { return }
        add(-count, in: segment)
    }

    /// Forgets segments that are gone.
    mutating func drop(before first: UInt32) {
        turn(to: 0)
        bytes = bytes.filter { $0.key >= first }
    }

    private mutating func turn(to segment: UInt32) {
        if recent.bytes != 0 { bytes[recent.segment, default: 0] += recent.bytes }
        recent = (segment, 0)
    }

    private var nonzero: [UInt32: Int] {
        var all = bytes
        all[recent.segment, default: 0] += recent.bytes
        return all.filter { $0.value != 0 }
    }
}
