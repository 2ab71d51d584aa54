// Part of QTasks. License: see LICENSE.

import QTasksModel

/// How far the wall clock was ahead of this boot's when due times were reckoned.
///
/// In memory a task is due by this boot's clock alone. What a checkpoint or a carried record says of it is
/// what its own record says, however often the wall clock was set meanwhile: so it is kept by which
/// setting each was reckoned.
struct WallClock {
    /// A setting, as a task keeps it.
    typealias Number = UInt32

    /// That of the opening.
    static let opening: Number = 0

    /// Reading two clocks takes time, and they drift: settings closer than that are one.
    private static let step: Int64 = 1_000_000

    private var offsets: [Int64]
    private var numbers: [Int64: Number] = [:]

    init(_ opened: Now) {
        offsets = [Self.offset(opened)]
    }

    /// The moment on this boot's clock at which a task is due, never 0, and by which setting of the wall
    /// clock that is reckoned.
    ///
    /// What has a time of this boot is due then; what has only the wall clock's is reckoned from the clock
    /// as it is `now`. Neither is ever early: what settings are rounded by comes on top.
    mutating func reckon(
        _ due: StoredDue,
        now: Now,
        bootID: TaskID
    ) -> (due: UInt64, clock: Number, isByWall: Bool) {
        guard due.boot == 0 || due.bootID != bootID else {
            let ahead = due.wall.nanoseconds.subtractingReportingOverflow(Int64(clamping: due.boot))
            return (due.boot, number(ahead.overflow ? .max : ahead.partialValue, up: true), false)
        }
        let clock = number(Self.offset(now), up: false)
        let moment = due.wall.nanoseconds.subtractingReportingOverflow(offsets[Int(clock)])
        return (UInt64(max(1, moment.overflow ? .max : moment.partialValue)), clock, true)
    }

    /// A moment of this boot's clock on the wall clock, as that was set; what it can't show is cut.
    func moment(_ monotonic: UInt64, _ clock: Number) -> Timestamp {
        let (sum, overflow) = Int64(clamping: monotonic)
            .addingReportingOverflow(offsets[Int(clock)])
        return Timestamp(nanoseconds: overflow ? .max : sum)
    }

    private mutating func number(_ offset: Int64, up: Bool) -> Number {
        let apart = offset &- offsets[0]
        // a time that is told again and again must not get later each time: once rounded up it stays
        if up ? apart == 0 : 0 <= apart && apart < Self.step { return Self.opening }
        let rest = offset % Self.step
        var rounded = offset - rest
        if up, rest > 0 { rounded += min(Self.step, .max - rounded) }
        if !up, rest < 0 { rounded -= min(Self.step, rounded - .min) }
        if let number = numbers[rounded] { return number }
        let number = Number(offsets.count)
        offsets.append(rounded)
        numbers[rounded] = number
        return number
    }

    private static func offset(_ now: Now) -> Int64 {
        now.wall.nanoseconds &- Int64(clamping: now.monotonic)
    }
}
