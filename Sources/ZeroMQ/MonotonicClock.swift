// Part of QTasks. License: see LICENSE.

import Glibc

/// The time since the machine started, sleep included: `CLOCK_BOOTTIME` of `clock_gettime(2)`.
///
/// It never steps, is the same in every process, and is what ``PollLoop`` takes deadlines in.
public enum MonotonicClock {
    public static func nowNanoseconds() -> UInt64 {
        var time = timespec()
        guard clock_gettime(CLOCK_BOOTTIME, &time) == 0 else {
            preconditionFailure("Linux has had CLOCK_BOOTTIME since 2.6.39")
        }
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
