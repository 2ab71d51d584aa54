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
        /// It came before. Read on.
        case ignore
        /// The log ends before it; `lost` could not be read though they were durable.
        case stop(lost: ClosedRange<UInt64>?)
    }

    /// Every record up to here was durable, as the meta page or any group header says.
    let durable: UInt64

    /// The sequence that comes next.
    private(set) var next: UInt64

    init(durable: UInt64, from next: UInt64 = 1) {
        self.durable = durable
        self.next = next
    }

    /// A record with a whole header.
    mutating func record(_ sequence: UInt64, isSound: Bool) -> Verdict {
        guard sequence >= next else { return .ignore }
        let lastMissing = isSound ? sequence - 1 : sequence
        let first = next
        guard first <= lastMissing else {
            next = sequence + 1
            return .deliver
        }
        guard lastMissing <= durable else { return .stop(lost: finish()) }
        next = sequence + 1
        return isSound ? .deliverAfterLoss(first...lastMissing) : .lost(first...lastMissing)
    }

    /// Nothing follows: what is missing now though it was durable.
    mutating func finish() -> ClosedRange<UInt64>? {
        guard next <= durable else { return nil }
        defer { next = durable + 1 }
        return next...durable
    }
}
