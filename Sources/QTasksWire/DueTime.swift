// Part of QTasks. License: see LICENSE.

package import QTasksModel

/// When a task may be leased, by the clock that it was asked for by: 8 bytes.
///
/// A delay or a retry is due by the time since boot, which nobody sets. A moment of the wall clock (`at`)
/// is due when that clock says so: a step forward fires it, a step back has it wait again (H35).
package struct DueTime: Sendable, Hashable {
    /// No time: it may be leased at once.
    package static let none = DueTime(rawValue: 0)

    private static let wallBit: UInt64 = 1 << 63

    /// Nanoseconds by its clock; the highest bit is set for the wall clock, and the rest is then since
    /// 1970.
    package let rawValue: UInt64

    package init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// A moment of `CLOCK_BOOTTIME`; what doesn't fit is cut.
    package init(boot nanoseconds: UInt64) {
        rawValue = min(max(nanoseconds, 1), Self.wallBit - 1)
    }

    /// A moment of the wall clock; one before 1970 is as past as that.
    package init(wall moment: Timestamp) {
        rawValue = UInt64(max(0, moment.nanoseconds)) | Self.wallBit
    }

    package var isByWall: Bool { rawValue & Self.wallBit != 0 }

    /// Which moment of the wall clock it is, if it goes by that.
    package var wall: Timestamp? {
        isByWall ? Timestamp(nanoseconds: Int64(rawValue & ~Self.wallBit)) : nil
    }

    /// Which moment of `CLOCK_BOOTTIME` it is, if it goes by that; 0 for ``none``.
    package var boot: UInt64? { isByWall ? nil : rawValue }

    /// Whether its clock has come to it; ``none`` is always reached.
    package func isReached(at now: Now) -> Bool {
        if let wall { return wall <= now.wall }
        return rawValue <= now.monotonic
    }
}
