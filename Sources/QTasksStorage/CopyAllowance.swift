// Part of QTasks. License: see LICENSE.

/// What a compaction may do by now, in bytes that it copies, so that its work is spread out: at the speed that
/// disk and processor allow it would hold up every sync meanwhile.
///
/// It grows with what others append, three times as fast, so that a compaction ends however busy the system is; and
/// with time, so that it ends also where nobody does anything.
struct CopyAllowance {
    private static let bytesMax = 4 << 20
    /// Bytes a second.
    private static let rate: UInt64 = 16 << 20
    /// One that is that much behind has no regard for the syncs of others: it would never get anywhere.
    ///
    /// Time alone never gets it there.
    private static let bytesBehind = 1 << 20
    /// It waits for a checkpoint, or until a segment is gone, until others have appended that much.
    private static let bytesWaitedMax = 8 << 20
    /// As much as is worth a turn.
    private static let bytesWorthwhile = 32 << 10
    /// To read and check this many bytes takes as much as to copy one.
    private static let bytesRead = 8

    private var bytes = bytesBehind
    /// Read and not counted yet.
    private var read = 0
    /// Up to when time was counted, in nanoseconds of the monotonic clock.
    private var countedAt: UInt64 = 0
    /// What others have appended while it waited.
    private var waited = 0

    var isSpent: Bool { bytes <= 0 }
    var isBehind: Bool { bytes > Self.bytesBehind }

    /// When there is enough for a turn, in nanoseconds of the monotonic clock.
    var nextAt: UInt64 {
        let missing = UInt64(max(0, Self.bytesWorthwhile - bytes))
        return countedAt &+ missing * 1_000_000_000 / Self.rate
    }

    /// Counts time from here on.
    mutating func begin(now: UInt64) {
        countedAt = now
    }

    /// Time has gone by, and others have appended so many bytes.
    mutating func grow(appended: Int, now: UInt64) {
        waited = 0
        add(appended, now)
    }

    /// The same while a checkpoint is being written or a segment removed, which goes first, but not however long
    /// it takes: on a slow disk a busy system would fill that disk meanwhile.
    ///
    /// - Returns: Whether to go on all the same.
    mutating func goesOn(beside appended: Int, now: UInt64) -> Bool {
        waited += appended
        guard waited > Self.bytesWaitedMax else {
            countedAt = now
            return false
        }
        add(appended, now)
        return true
    }

    private mutating func add(_ appended: Int, _ now: UInt64) {
        // a second fills it as well as a year
        let elapsed = min(now > countedAt ? now - countedAt : 0, 1_000_000_000)
        let gained = Int(elapsed * Self.rate / 1_000_000_000)
        bytes = max(bytes, min(bytes + gained, Self.bytesBehind))
        bytes = min(bytes + 3 * appended, Self.bytesMax)
        countedAt = now
    }

    /// It has read that much.
    mutating func read(_ count: Int) {
        read += count
    }

    /// It has appended that much, and read what was told.
    mutating func spend(copied: Int) {
        bytes -= copied + read / Self.bytesRead
        read %= Self.bytesRead
    }
}
