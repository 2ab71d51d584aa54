// Part of QTasks. License: see LICENSE.

/// Decides for each record that a scan meets whether it counts, and what is missing.
///
/// ```
///              up to `durable`             above it
///   -----------------------------|---------------------------->
///   a gap or bad record is rot:  |  it is a tear: the log ends
///   reported, and read on behind |  before it
/// ```
struct ReplayOrder {
    enum Verdict: Equatable {
        /// It is the next one.
        case deliver
        /// It is the next one that can be read; these before it are lost.
        case deliverAfterLoss(ClosedRange<UInt64>)
        /// It, and these before it, can't be read though they were durable. Read on.
        case lost(ClosedRange<UInt64>)
        /// It came before, or says nothing. Read on.
        case ignore
        /// Durable bytes that are no record any more. Read on.
        case damage
        /// The log ends before it; `lost` could not be read though they were durable.
        case stop(lost: ClosedRange<UInt64>?)
    }

    /// Every record up to here was durable, as the meta page or any group header says.
    let durable: UInt64

    /// Everything before this place was durable, as the meta page says.
    let mark: RecordPosition

    /// The sequence that comes next.
    private(set) var next: UInt64

    /// Something is torn here, and nothing appended since has shown that it was nothing appended.
    private var isTorn = false

    init(
        durable: UInt64,
        mark: RecordPosition = RecordPosition(segment: 0, offset: 0),
        from next: UInt64 = 1
    ) {
        self.durable = durable
        self.mark = mark
        self.next = next
    }

    /// Whether what stands at this place, which is read next, was durable: a later record is, or the
    /// mark is behind it.
    func isDurable(_ position: RecordPosition) -> Bool {
        next <= durable || position < mark
    }

    /// Where the durable part of these bytes, which are damaged, ends: a place that a header may name.
    func durableEnd(of bytes: Int, at position: RecordPosition) -> RecordPosition {
        var end = position
        end.offset += UInt32(bytes)
        end.offset -= end.offset % UInt32(RecordHeader.alignment)
        return next > durable ? min(end, mark) : end
    }

    /// Bytes from `position` on that are neither a record nor a group.
    mutating func damage(bytes: Int, at position: RecordPosition) -> Verdict {
        let end = Int(position.offset) + bytes
        let isBeforeMark =
            position < mark && (position.segment < mark.segment || end <= Int(mark.offset))
        if next > durable, !isBeforeMark { isTorn = true }
        // A group's header alone holds nothing; what is longer may have been something carried
        // forward, which no gap in the sequence would tell.
        return isDurable(position) && bytes > GroupHeader.bytes ? .damage : .ignore
    }

    /// A record with a readable header.
    ///
    /// What compaction carried forward has no place of its own in the sequence: its place in the log
    /// tells whether it was durable. Behind a tear it doesn't count, nor need it, since its source is
    /// there: it may have in it what was appended at the place of the tear, and is now undone.
    mutating func record(
        _ header: RecordHeader,
        at position: RecordPosition,
        isSound: Bool
    ) -> Verdict {
        guard header.source != nil else { return record(header.sequence, isSound: isSound) }
        if isTorn { return .ignore }
        if isSound { return .deliver }
        guard isDurable(position) else { return .stop(lost: finish()) }
        return .lost(header.sequence...header.sequence)
    }

    /// A record that was appended itself.
    mutating func record(_ sequence: UInt64, isSound: Bool) -> Verdict {
        guard sequence >= next else { return .ignore }
        let lastMissing = isSound ? sequence - 1 : sequence
        let first = next
        guard first <= lastMissing else {
            next = sequence + 1
            isTorn = false
            return .deliver
        }
        guard lastMissing <= durable else { return .stop(lost: finish()) }
        next = sequence + 1
        isTorn = false
        return isSound ? .deliverAfterLoss(first...lastMissing) : .lost(first...lastMissing)
    }

    /// Nothing follows: what is missing now though it was durable.
    mutating func finish() -> ClosedRange<UInt64>? {
        guard next <= durable else { return nil }
        defer { next = durable + 1 }
        return next...durable
    }
}

extension ReplayOrder.Verdict {
    /// What was durable and is missing.
    var lost: ClosedRange<UInt64>? {
        switch self {
        case .deliverAfterLoss(let lost), .lost(let lost): lost
        case .stop(let lost): lost
        case .deliver, .ignore, .damage: nil
        }
    }
}
