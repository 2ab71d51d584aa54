// Part of QTasks. License: see LICENSE.

/// One hand-over of a task to a worker, never named the same twice.
///
/// The upper half is the incarnation of the store that was current when the lease was made, which
/// is on disk before anything is served; the lower half counts. So no restart and no loss of power
/// can bring a lease back (recovery.md, chapter 4).
public struct Lease: Hashable, Sendable {
    public let rawValue: UInt64

    /// Stands for "no lease" in formats; never given out.
    // computed, and read inline: a stored one is asked for by way of its initializer's lock
    @inlinable public static var none: Lease { Lease(rawValue: 0) }

    @inlinable
    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    public init(incarnation: UInt32, counter: UInt32) {
        rawValue = UInt64(incarnation) << 32 | UInt64(counter)
    }

    /// The opening of the store during which it was made.
    public var incarnation: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) }
}

extension Lease: CustomStringConvertible {
    public var description: String {
        "\(incarnation).\(UInt32(truncatingIfNeeded: rawValue))"
    }
}

/// One life of a worker process: made new at each start of it.
public struct WorkerID: Hashable, Sendable {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// A new one for this process.
    public init() {
        let id = TaskID()
        self.init(high: id.high, low: id.low)
    }
}

extension WorkerID: CustomStringConvertible {
    public var description: String { TaskID(high: high, low: low).description }
}
