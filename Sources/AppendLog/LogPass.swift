// Part of QTasks. License: see LICENSE.

/// One reading of a mapped log, record by record: which of them count, and what is missing.
///
/// Whoever reads asks for the ``next()`` record, mends it or not, and has it judged.
struct LogPass {
    /// A record whose header can be read.
    struct Found {
        let header: RecordHeader
        let position: RecordPosition
        /// As it stands there.
        let payload: UnsafeRawBufferPointer
        /// Whether header and payload are as they were written.
        let isSound: Bool
        /// What its checksums begin with.
        let seed: UInt32
    }

    enum Judgement {
        /// It is part of the log.
        case counts
        /// It was durable, and can't be read.
        case isLost
        /// It says nothing, or the log ends before it.
        case isNothing
    }

    /// How many count so far.
    private(set) var records: UInt64 = 0
    /// Durable records that are corrupt or gone.
    private(set) var lost: [LostRecords] = []
    /// Durable bytes that are no record any more.
    private(set) var damaged: [DamagedBytes] = []
    /// Where the last record that counts ends.
    private(set) var end = RecordPosition(segment: 0, offset: 0)

    private let segments: [MappedLog.Segment]
    private let start: RecordPosition
    private var order: ReplayOrder
    /// How many segments have been begun.
    private var begun = 0
    private var scan: SegmentScan?
    private var position: RecordPosition
    private var stage = Stage.reading

    private enum Stage {
        case reading
        /// The log ends here, whatever stands behind.
        case stopped
        case over
    }

    /// - Parameters:
    ///   - segments: Oldest first.
    ///   - order: Knows what was durable, and what comes next at `start`.
    ///   - start: Where a record begins; segments before it aren't looked at.
    init(
        _ segments: [MappedLog.Segment],
        _ order: ReplayOrder,
        from start: RecordPosition = RecordPosition(segment: 0, offset: 0)
    ) {
        self.segments = segments
        self.order = order
        self.start = start
        position = start
    }

    /// The last record there is, once there is no next.
    var lastSequence: UInt64 {
        order.next - 1
    }

    /// The next record with a readable header; `nil` at the end of the log, where the account of what is
    /// missing is complete.
    mutating func next() -> Found? {
        while stage == .reading, scan != nil || begin() {
            let segment = segments[begun - 1].link.header
            position = RecordPosition(segment: segment.index, offset: UInt32(scan?.offset ?? 0))
            guard let item = scan?.next() else {
                scan = nil
                continue
            }
            switch item {
            case .damage(let range): note(range.count, at: position)
            case .group: break
            case .record(let header, let offset, let isSound):
                guard let scan else { break }
                return Found(
                    header: header,
                    position: position,
                    payload: scan.payload(header, at: offset),
                    isSound: isSound,
                    seed: segment.salt ^ UInt32(offset)
                )
            }
        }
        finish()
        return nil
    }

    /// Says what the record that ``next()`` gave last means.
    ///
    /// - Parameters:
    ///   - found: That record.
    ///   - isSound: Whether it can be read, as it stands or mended.
    /// - Returns: Whether to show it, and as what.
    mutating func judge(_ found: Found, isSound: Bool) -> Judgement {
        let verdict = order.record(found.header, at: found.position, isSound: isSound)
        if let sequences = verdict.lost {
            lost.append(LostRecords(sequences: sequences, position: found.position))
        }
        switch verdict {
        case .deliver, .deliverAfterLoss:
            records += 1
            end = found.position
            end.offset += UInt32(found.header.bytesOnDisk)
            return .counts
        case .lost: return .isLost
        case .stop:
            stage = .stopped
            return .isNothing
        case .ignore, .damage: return .isNothing
        }
    }

    /// Begins the next segment; `false` where there is none.
    private mutating func begin() -> Bool {
        while begun < segments.count {
            let segment = segments[begun]
            begun += 1
            guard segment.link.header.index >= start.segment else { continue }
            if let missing = segment.link.missing, missing > start { note(missing: missing) }
            let isFirst = segment.link.header.index == start.segment
            scan = SegmentScan(
                segment.mapping.bytes,
                salt: segment.link.header.salt,
                limit: segment.link.limit,
                knownEnd: segment.knownEnd,
                from: max(SegmentHeader.areaBytes, isFirst ? Int(start.offset) : 0)
            )
            return true
        }
        return false
    }

    private mutating func finish() {
        guard stage != .over else { return }
        stage = .over
        if order.mark.segment > segments.last?.link.header.index ?? 0 { note(missing: order.mark) }
        if let sequences = order.finish() {
            lost.append(LostRecords(sequences: sequences, position: position))
        }
    }

    private mutating func note(_ bytes: Int, at position: RecordPosition) {
        guard order.damage(bytes: bytes, at: position) == .damage else { return }
        damaged.append(DamagedBytes(position: position, bytes: bytes))
    }

    /// Nothing can be read of the segment that ends, or has something up to, there.
    private mutating func note(missing end: RecordPosition) {
        let first = SegmentHeader.areaBytes
        guard end.offset > first else { return }
        note(
            Int(end.offset) - first,
            at: RecordPosition(segment: end.segment, offset: UInt32(first))
        )
    }
}
