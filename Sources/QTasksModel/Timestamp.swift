// Part of QTasks. License: see LICENSE.

import Glibc

/// A moment on the wall clock, in nanoseconds since 1970 (UTC).
///
/// For people and records only: deadlines and delays run on the monotonic clock, since wall clocks
/// step.
public struct Timestamp: Hashable, Sendable {
    public let nanoseconds: Int64

    public init(nanoseconds: Int64) {
        self.nanoseconds = nanoseconds
    }

    /// This moment (`CLOCK_REALTIME`).
    public static var now: Timestamp {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return Timestamp(nanoseconds: Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec))
    }
}

extension Timestamp: Comparable {
    public static func < (left: Self, right: Self) -> Bool { left.nanoseconds < right.nanoseconds }
}

extension Timestamp: CustomStringConvertible {
    /// RFC 3339 in UTC with milliseconds, such as `2026-11-23T18:26:01.123Z`.
    public var description: String {
        var seconds = time_t(nanoseconds / 1_000_000_000)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func padded(_ number: some BinaryInteger, _ width: Int) -> String {
            let digits = String(number)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let date =
            "\(parts.tm_year + 1900)-\(padded(parts.tm_mon + 1, 2))-\(padded(parts.tm_mday, 2))"
        let time =
            "\(padded(parts.tm_hour, 2)):\(padded(parts.tm_min, 2)):\(padded(parts.tm_sec, 2))"
        return "\(date)T\(time).\(padded(nanoseconds % 1_000_000_000 / 1_000_000, 3))Z"
    }
}

/// What time it is, told to a core from outside: cores have no clock.
public struct Now: Sendable, Equatable {
    /// For records.
    public var wall: Timestamp

    /// For deadlines and delays: nanoseconds since boot, sleep included (`CLOCK_BOOTTIME`).
    public var monotonic: UInt64

    public init(wall: Timestamp, monotonic: UInt64) {
        self.wall = wall
        self.monotonic = monotonic
    }

    /// Reads both clocks.
    public static var current: Now {
        var boot = timespec()
        clock_gettime(CLOCK_BOOTTIME, &boot)
        let monotonic = UInt64(boot.tv_sec) * 1_000_000_000 + UInt64(boot.tv_nsec)
        return Now(wall: .now, monotonic: monotonic)
    }
}
