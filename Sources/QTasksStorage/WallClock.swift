// Part of QTasks. License: see LICENSE.

import QTasksModel

/// How far the wall clock was ahead of this boot's when due times were reckoned from it.
///
/// In memory a task is due by this boot's clock alone. A time that was asked for by the wall clock is told to a
/// checkpoint as it was asked for, however often that clock was set meanwhile: so it is kept which way
/// it was set when.
struct WallClock {
    private struct Setting {
        /// Of the first record that was reckoned with it.
        var sequence: UInt64
        var offset: Int64
    }

    /// Reading two clocks takes time, and they may drift: that much is no setting.
    private static let tolerance: UInt64 = 1_000_000

    private var settings: [Setting]

    init(_ opened: Now) {
        settings = [Setting(sequence: 0, offset: Self.offset(opened))]
    }

    /// A time is reckoned for a record, and for no older one from now on.
    mutating func note(_ now: Now, from sequence: UInt64) {
        let offset = Self.offset(now)
        let last = settings[settings.count - 1]
        guard (offset &- last.offset).magnitude > Self.tolerance, sequence > last.sequence else {
            return
        }
        settings.append(Setting(sequence: sequence, offset: offset))
    }

    /// What the time of this record's task was reckoned with.
    func offset(at sequence: UInt64) -> Int64 {
        settings.last { $0.sequence <= sequence }?.offset ?? settings[0].offset
    }

    static func offset(_ now: Now) -> Int64 {
        now.wall.nanoseconds &- Int64(clamping: now.monotonic)
    }

    /// A moment of this boot's clock on the wall clock; what that can't show is cut.
    static func moment(_ monotonic: UInt64, _ offset: Int64) -> Timestamp {
        let (sum, overflow) = Int64(clamping: monotonic).addingReportingOverflow(offset)
        return Timestamp(nanoseconds: overflow ? .max : sum)
    }
}
