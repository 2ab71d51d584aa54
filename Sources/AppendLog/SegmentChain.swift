// Part of QTasks. License: see LICENSE.

/// Which segment files make up the log, and how far each counts.
///
/// Each header names the segment before it and where that one ends, so the chain is walked from the
/// newest backwards: what an unclean end left behind falls out by itself.
struct SegmentChain {
    struct Link {
        var header: SegmentHeader
        /// Where the segment ends; the newest has no end but its file's.
        var limit: Int
        /// Where the log before this segment ends, if nothing of the segment in question can be read.
        var missing: RecordPosition?

        /// Up to where there was something for sure.
        func knownEnd(_ mark: RecordPosition) -> Int {
            if limit != Int.max { return limit }
            return mark.segment == header.index ? Int(mark.offset) : 0
        }
    }

    /// Oldest first.
    private(set) var links: [Link] = []

    /// Files with a header that are no longer, or not yet, part of the log.
    private(set) var superseded: [UInt32] = []

    /// - Parameters:
    ///   - headers: Those that could be read, in any order.
    ///   - incarnation: The newest meta page's. Segments of a later one, or of a later one than the segment
    ///     that follows, are remains of an opening that did not get far enough to serve anything.
    ///   - firstSegment: The newest meta page's. What is alive in older ones was carried forward.
    init(_ headers: [SegmentHeader], incarnation: UInt32, firstSegment: UInt32 = 1) {
        let sorted = headers.sorted { $0.index > $1.index }
        var wanted: RecordPosition?
        var newest = incarnation
        for header in sorted {
            guard header.incarnation <= newest, header.index >= firstSegment,
                isPart(header.index, of: wanted)
            else {
                superseded.append(header.index)
                continue
            }
            let limit =
                if let wanted, wanted.segment == header.index { Int(wanted.offset) } else {
                    Int.max
                }
            if wanted?.segment != header.index, let last = links.indices.last {
                links[last].missing = wanted
            }
            links.append(Link(header: header, limit: limit))
            wanted = header.predecessor
            // along the log they only rise; 0 stands in where salvage has no header
            if header.incarnation > 0 { newest = header.incarnation }
        }
        if let wanted, wanted.segment >= max(1, firstSegment), let last = links.indices.last {
            links[last].missing = wanted
        }
        links.reverse()
    }

    /// Whether a place, or the end of what lies before it, is part of the log.
    ///
    /// What an unclean end left behind is not: it says nothing, even where it has its files still.
    static func contains(_ position: RecordPosition, in links: [Link]) -> Bool {
        if links.first?.header.predecessor == position { return true }
        return links.contains {
            $0.header.index == position.segment && Int(position.offset) <= $0.limit
        }
    }

    /// Where the log before its first segment ends; segment 0 where nothing was before, or it is missing.
    var begin: RecordPosition {
        guard let first = links.first, first.missing == nil else {
            return RecordPosition(segment: 0, offset: 0)
        }
        return first.header.predecessor
    }

    /// Whether a new segment may name this one, which is missing, as the one before it: not where a file
    /// that is no part of the log would count in its place then.
    func canLack(_ segment: UInt32) -> Bool {
        let before = links.last { $0.header.index < segment }?.header.index ?? 0
        return !superseded.contains { before < $0 && $0 <= segment }
    }

    /// Whether the walk, which looks for `wanted` now, takes this segment.
    ///
    /// Where the wanted one's header is gone, the next older stands in: what is missing then shows
    /// in the sequence.
    private func isPart(_ index: UInt32, of wanted: RecordPosition?) -> Bool {
        guard let wanted else { return true }
        return index <= wanted.segment
    }
}
